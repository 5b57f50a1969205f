//! A namespace on the cluster, kubectl for it, and the watch that looks on.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::ServiceAccount};
use kube::{Api, api::ListParams};
use serde_json::{Value, json};
use taskgraph::api::TaskGraph;

use crate::support::{Auditor, Namespace, control_plane, embedded, namespace::PATIENCE, replay};

/// What one test has.
pub struct World {
    pub namespace: Namespace,
    auditor: Auditor,
    kubectl: Kubectl,
}

/// kubectl for one namespace, as somebody.
#[derive(Clone)]
pub struct Kubectl {
    bin: PathBuf,
    kubeconfig: PathBuf,
    namespace: String,
}

impl World {
    /// A new namespace, named after `test`, on a cluster with an operator.
    pub async fn new(test: &str) -> Result<Self> {
        let client = embedded::client(&embedded::kubeconfig()?).await?;
        let labelled = ListParams::default().labels("app.kubernetes.io/name=taskgraph");
        let installed = Api::<Deployment>::all(client.clone()).list(&labelled).await?;
        ensure!(!installed.items.is_empty(), "no operator on the cluster: run hack/image and hack/install");
        Self::without_operator(test).await
    }

    /// A new namespace, named after `test`, on a cluster with the kinds.
    pub async fn without_operator(test: &str) -> Result<Self> {
        let kubeconfig = embedded::kubeconfig()?;
        let client = embedded::client(&kubeconfig).await?;
        let namespace = Namespace::new(&client, &format!("e2e-{test}")).await?;
        let kubectl = Kubectl::new(&kubeconfig, &namespace.name)?;
        // the API server refuses pods before it is there
        namespace.until_all::<ServiceAccount>("default", |accounts| !accounts.is_empty()).await;
        let auditor = Auditor::start(&namespace).await?;
        Ok(Self { namespace, auditor, kubectl })
    }

    /// Runs kubectl; what it prints.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.kubectl.run(args, "").await
    }

    /// Applies objects, as JSON or YAML.
    pub async fn apply(&self, text: &str) -> Result<String> {
        self.kubectl.run(&["apply", "-f", "-"], text).await
    }

    /// Applies a graph from the JSON of its spec.
    pub async fn apply_graph(&self, name: &str, spec: Value) -> Result<()> {
        self.apply(&graph(name, spec).to_string()).await?;
        Ok(())
    }

    /// Waits with `kubectl wait` for a condition of a graph; gives the graph.
    pub async fn wait(&self, name: &str, condition: &str) -> Result<TaskGraph> {
        let (graph, wanted) = (format!("taskgraph/{name}"), format!("--for=condition={condition}"));
        // all that a graph does, on a machine on which each step may take so long
        let timeout = format!("--timeout={}s", (3 * PATIENCE).as_secs());
        self.kubectl(&["wait", &graph, &wanted, &timeout]).await?;
        Ok(self.namespace.graphs().get(name).await?)
    }

    /// Runs the plugin as kubectl does.
    pub async fn plugin(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-taskgraph"));
        command.args(args).args(["-n", &self.namespace.name]).env("KUBECONFIG", &self.kubectl.kubeconfig);
        output(command, String::new()).await
    }

    /// Judges what the watch saw, and plays it again through the simulator: it must come to the same phases.
    pub async fn judge(&self) -> Result<()> {
        let seen = self.auditor.judge().await?;
        let templates = replay::templates(&self.namespace).await?;
        for graph in self.namespace.graphs().list(&ListParams::default()).await? {
            // the simulator knows nothing of what the graph was before an edit or a rerun
            if graph.status.as_ref().is_some_and(|status| status.revision_number > 1 || status.reopen_time.is_some()) {
                continue;
            }
            let (simulated, stored) = replay::phases(&graph, &templates, &seen)?;
            assert_eq!(simulated, stored, "the simulator on the left, the cluster on the right");
        }
        Ok(())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut command = self.kubectl.command(&["get", "taskgraphs,jobs,pods", "-o", "wide"]);
            if let Ok(output) = command.output() {
                eprintln!("--- {}:\n{}", self.namespace.name, String::from_utf8_lossy(&output.stdout));
            }
        }
        let _ = self.kubectl.command(&["delete", "namespace", &self.namespace.name, "--wait=false"]).output();
    }
}

impl Kubectl {
    /// As whoever the kubeconfig is of.
    pub fn new(kubeconfig: &Path, namespace: &str) -> Result<Self> {
        Ok(Self { bin: control_plane::bin_dir()?, kubeconfig: kubeconfig.to_owned(), namespace: namespace.to_owned() })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.bin.join("kubectl"));
        command.args(args).args(["--namespace", &self.namespace]).env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// Runs it; what it prints.
    pub async fn run(&self, args: &[&str], input: &str) -> Result<String> {
        output(self.command(args), input.to_owned()).await
    }
}

/// What a program prints; an error with all it said where it fails.
pub async fn output(mut command: Command, input: String) -> Result<String> {
    let name = format!("{command:?}");
    let run = move || -> Result<std::process::Output> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().context("a pipe")?.write_all(input.as_bytes())?;
        Ok(child.wait_with_output()?)
    };
    let output = tokio::task::spawn_blocking(run).await??;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{name}: {}\n{out}{err}", output.status);
    Ok(out.into_owned())
}

/// A file of the repository.
pub fn file(path: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// A graph, from the JSON of its spec.
#[allow(clippy::needless_pass_by_value, reason = "json! gives values")]
pub fn graph(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskGraph", "metadata": {"name": name}, "spec": spec})
}

/// A task that runs a line of shell.
pub fn shell(name: &str, depends_on: &[&str], line: &str) -> Value {
    json!({"name": name, "dependsOn": depends_on,
        "container": {"image": "localhost/busybox:1", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-euc", line]}})
}
