//! Graphs on a cluster, with errors that say where was looked.

use anyhow::{Context, Result, anyhow};
use kube::{
    Api, Client, Config, ResourceExt,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig},
    core::Status,
};

use super::ClusterArgs;
use crate::{api::TaskGraph, cli::suggest, runtime::connections::stack};

/// Names of other graphs that are looked at for a suggestion.
const MAX_NAMES: u32 = 500;

/// The graphs of one namespace.
pub struct Graphs {
    /// For requests.
    pub api: Api<TaskGraph>,
    /// For requests for other kinds.
    pub client: Client,
    /// The namespace.
    pub namespace: String,
    /// The one that the command line or the kubeconfig names.
    pub default_namespace: String,
}

impl Graphs {
    /// Takes the cluster and namespace that the arguments, or else the kubeconfig, name.
    pub async fn connect(args: &ClusterArgs) -> Result<Self> {
        let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
        let config = match (&args.kubeconfig, &args.context) {
            (Some(path), _) => {
                let kubeconfig =
                    Kubeconfig::read_from(path).with_context(|| format!("cannot read {}", path.display()))?;
                Config::from_custom_kubeconfig(kubeconfig, &options).await.context("cannot use the kubeconfig")?
            }
            (None, Some(_)) => Config::from_kubeconfig(&options).await.context("cannot use the kubeconfig")?,
            (None, None) => {
                Config::infer().await.context("no cluster: neither a kubeconfig nor a service account works")?
            }
        };
        let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = stack(&config).context("cannot use the kubeconfig")?.build();
        let api = Api::namespaced(client.clone(), &namespace);
        Ok(Self { api, client, default_namespace: namespace.clone(), namespace })
    }

    /// Those of another namespace of the same cluster.
    pub fn within(&self, namespace: &str) -> Self {
        let (client, namespace) = (self.client.clone(), namespace.to_owned());
        let default_namespace = self.default_namespace.clone();
        Self { api: Api::namespaced(client.clone(), &namespace), client, namespace, default_namespace }
    }

    /// The graph of a name, if there is one.
    pub async fn find(&self, name: &str) -> Result<Option<TaskGraph>> {
        match self.api.get(name).await {
            Err(kube::Error::Api(status)) if is_missing(&status) => Ok(None),
            found => self.read(name, found).await.map(Some),
        }
    }

    /// The graph of a name.
    pub async fn get(&self, name: &str) -> Result<TaskGraph> {
        self.read(name, self.api.get(name).await).await
    }

    async fn read(&self, name: &str, found: kube::Result<TaskGraph>) -> Result<TaskGraph> {
        match found {
            Ok(graph) => Ok(graph),
            Err(kube::Error::Api(status)) if status.code == 404 => Err(self.not_found(name, &status).await),
            Err(kube::Error::Api(status)) => Err(anyhow!("the cluster refuses to show the graph: {}", status.message)),
            Err(kube::Error::SerdeError(error)) => {
                Err(anyhow!("the graph is not in a form that this version can read: {error}"))
            }
            Err(error) => Err(anyhow!(error).context("cannot ask the cluster")),
        }
    }

    async fn not_found(&self, name: &str, status: &Status) -> anyhow::Error {
        if !is_missing(status) {
            return anyhow!("the cluster does not know TaskGraphs: apply the CRDs first");
        }
        let namespace = &self.namespace;
        let names = self.api.list_metadata(&ListParams::default().limit(MAX_NAMES)).await;
        let names: Vec<String> = names.iter().flatten().map(ResourceExt::name_any).collect();
        let hint = suggest::did_you_mean(name, names.iter().map(String::as_str));
        anyhow!("no TaskGraph {} in namespace {namespace:?}{hint}", suggest::quoted(name))
    }
}

/// Whether it is the object that is missing: then it is named in the details; of a missing kind it is not.
fn is_missing(status: &Status) -> bool {
    status.code == 404 && status.details.as_ref().is_some_and(|details| !details.name.is_empty())
}
