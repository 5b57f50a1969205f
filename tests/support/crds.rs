//! The CRDs, installed as users do.

use anyhow::{Context, Result};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{conditions, wait},
};

use super::namespace::PATIENCE;

/// Applies ours, and waits until they are served.
pub async fn install(client: &Client) -> Result<()> {
    apply(client, &taskgraph::api::crd::all()).await
}

/// Applies some, and waits until they are served.
pub async fn apply(client: &Client, crds: &[CustomResourceDefinition]) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in crds {
        api.patch(&crd.name_any(), &PatchParams::apply("taskgraph-tests").force(), &Patch::Apply(crd)).await?;
    }
    for crd in crds {
        let name = crd.name_any();
        let established = wait::await_condition(api.clone(), &name, conditions::is_crd_established());
        tokio::time::timeout(PATIENCE, established).await.context("CRD not established")??;
        // established, and yet "storage is (re)initializing" for a moment: the client tries again
        let version = crd.spec.versions.iter().find(|version| version.served).context("no version is served")?;
        let path = format!("/apis/{}/{}/{}", crd.spec.group, version.name, crd.spec.names.plural);
        client.request_text(http::Request::get(path).body(Vec::new())?).await?;
    }
    Ok(())
}
