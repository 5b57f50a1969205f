//! Flux' own kustomize-controller as a process, and the Git repository that it applies.
//!
//! Flux' source-controller is the one part that is played: it would clone a repository, pack it, serve the tarball, and tell
//! of it in the status of a `GitRepository`. A test says what is in the repository; the last three are done as it does them.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use axum::{Router, body::Body, extract::State, http::Uri, response::Response};
use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, CustomResource, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use taskgraph::api::Condition;
use tokio::task::JoinHandle;

use super::{ControlPlane, Namespace, crds, process::Program};

/// The field manager of who sets up Flux.
const USER: &str = "platform";

/// What says what is to be applied, from where.
#[derive(CustomResource, Clone, Debug, Serialize, Deserialize)]
#[kube(group = "kustomize.toolkit.fluxcd.io", version = "v1", kind = "Kustomization", namespaced, schema = "disabled")]
#[kube(status = "KustomizationStatus")]
pub struct KustomizationSpec {
    /// As it stands in the document.
    #[serde(flatten)]
    pub all: BTreeMap<String, Value>,
}

/// What became of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KustomizationStatus {
    /// `Ready`, `Healthy`, `Reconciling`.
    pub conditions: Vec<Condition>,
    /// The revision that was applied last, and was healthy where that is asked for.
    pub last_applied_revision: Option<String>,
    /// The revision that was tried last.
    pub last_attempted_revision: Option<String>,
    /// The last word of those who wanted it applied at once.
    pub last_handled_reconcile_at: Option<String>,
    /// What it applied, and would prune.
    pub inventory: Value,
}

impl Kustomization {
    /// One of its conditions: status, reason, message.
    pub fn condition(&self, type_: &str) -> Option<(&str, &str, &str)> {
        let condition = self.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == type_)?;
        Some((&condition.status, &condition.reason, &condition.message))
    }

    /// Whether Flux has applied this revision and found all of it healthy.
    pub fn is_ready(&self, revision: &str) -> bool {
        self.status.as_ref().is_some_and(|status| status.last_applied_revision.as_deref() == Some(revision))
            && matches!(self.condition("Ready"), Some(("True", ..)))
    }

    /// Why Flux could not apply this revision, or did not find it healthy: reason, message.
    pub fn failure(&self, revision: &str) -> Option<(&str, &str)> {
        let status = self.status.as_ref()?;
        let (ready, reason, message) = self.condition("Ready")?;
        (status.last_attempted_revision.as_deref() == Some(revision) && ready == "False").then_some((reason, message))
    }
}

/// Tarballs by their path.
type Served = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// The controller, and a repository of its own. Dropped, it is killed.
pub struct Flux {
    namespace: Namespace,
    dir: PathBuf,
    port: u16,
    served: Served,
    server: JoinHandle<()>,
    commits: Mutex<u32>,
    program: Program,
}

impl Drop for Flux {
    fn drop(&mut self) {
        self.server.abort();
        if std::thread::panicking() {
            eprintln!("--- kustomize-controller:\n{}", self.program.log_tail(40));
        }
    }
}

impl Flux {
    /// Starts one that looks at a namespace, with more arguments. Its CRDs are installed.
    pub async fn start(control_plane: &ControlPlane, namespace: &Namespace, args: &[&str]) -> Result<Self> {
        let program = built()?;
        install_crds(namespace, &program.join("crds")).await?;
        let dir = control_plane.dir().join(format!("flux-{}", namespace.name));
        fs::create_dir_all(&dir)?;
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let tarballs = Served::default();
        let router = Router::new().fallback(serve).with_state(Arc::clone(&tarballs));
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        let own = ["--watch-all-namespaces=false", "--metrics-addr=127.0.0.1:0", "--health-addr=127.0.0.1:0"];
        let lockdown = ["--no-remote-bases=true", "--no-cross-namespace-refs=true", "--http-retry=1"];
        let env = [
            ("KUBECONFIG", control_plane.kubeconfig().as_os_str()),
            ("RUNTIME_NAMESPACE", OsStr::new(&namespace.name)),
            ("TMPDIR", dir.as_os_str()),
        ];
        let all = own.iter().chain(&lockdown).chain(args);
        let program = Program::start(&program.join("kustomize-controller"), all, &env, &dir.join("log"))?;
        Ok(Self {
            namespace: namespace.clone(),
            dir,
            port,
            served: tarballs,
            server,
            commits: Mutex::default(),
            program,
        })
    }

    /// Kustomizations of its namespace.
    pub fn kustomizations(&self) -> Api<Kustomization> {
        self.namespace.api()
    }

    /// Applies a manifest to its namespace, as a user.
    pub async fn apply(&self, manifest: &Value) -> Result<()> {
        let object: DynamicObject = serde_json::from_value(manifest.clone())?;
        let types = object.types.as_ref().context("no kind")?;
        let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types)?);
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.namespace.client.clone(), &self.namespace.name, &resource);
        api.patch(&object.name_any(), &PatchParams::apply(USER).force(), &Patch::Apply(manifest)).await?;
        Ok(())
    }

    /// The repository holds these files from now on; the revision.
    pub async fn commit(&self, repository: &str, files: &[(&str, String)]) -> Result<String> {
        let number = {
            let mut commits = self.commits.lock();
            *commits += 1;
            *commits
        };
        let archive = pack(&self.dir.join(format!("commit-{number}")), files)?;
        let digest = digest(&archive)?;
        let content = fs::read(&archive)?;
        let path = format!("gitrepository/{}/{repository}/{number}.tar.gz", self.namespace.name);
        let (revision, size) = (format!("main@sha1:{number:040x}"), content.len());
        self.served.lock().insert(format!("/{path}"), content);
        let artifact = json!({
            "path": path, "url": format!("http://127.0.0.1:{}/{path}", self.port), "revision": revision,
            "digest": format!("sha256:{digest}"), "size": size, "lastUpdateTime": Timestamp::now(),
        });
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("source.toolkit.fluxcd.io", "v1", "GitRepository"));
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.namespace.client.clone(), &self.namespace.name, &resource);
        let status = json!({"status": {"artifact": artifact}});
        api.patch_status(repository, &PatchParams::default(), &Patch::Merge(status)).await?;
        Ok(revision)
    }

    /// Waits until a Kustomization is as `wanted` says.
    pub async fn until(&self, name: &str, what: &str, wanted: impl Fn(&Kustomization) -> bool) -> Kustomization {
        let is_it = |found: Option<&Kustomization>| found.filter(|found| wanted(found)).cloned();
        self.namespace.until_object(self.kustomizations(), name, what, is_it).await
    }

    /// Has a Kustomization applied once more, and waits for the end of that: `flux reconcile kustomization`.
    pub async fn reconcile(&self, name: &str) -> Result<Kustomization> {
        let word = Timestamp::now().to_string();
        let annotation = json!({"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": word}}});
        self.kustomizations().patch(name, &PatchParams::default(), &Patch::Merge(annotation)).await?;
        let handled = |kustomization: &Kustomization| {
            let status = kustomization.status.as_ref();
            status.is_some_and(|status| status.last_handled_reconcile_at.as_ref() == Some(&word))
                && !matches!(kustomization.condition("Ready"), None | Some(("Unknown", ..)))
        };
        Ok(self.until(name, "reconciled", handled).await)
    }

    /// What it printed.
    pub fn log(&self) -> String {
        self.program.log_tail(usize::MAX)
    }
}

async fn serve(State(served): State<Served>, uri: Uri) -> Response {
    let content = served.lock().get(uri.path()).cloned();
    let (code, body) = content.map_or((404, Body::empty()), |content| (200, Body::from(content)));
    Response::builder().status(code).body(body).expect("a response")
}

/// The folder of the controller and its CRDs, building it if need be.
fn built() -> Result<PathBuf> {
    let dir = PathBuf::from(script("dir")?);
    if !dir.join("crds").exists() {
        script("build")?;
    }
    Ok(dir)
}

fn script(verb: &str) -> Result<String> {
    output(Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("hack/flux/flux")).arg(verb))
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A tarball of files: its path.
fn pack(dir: &Path, files: &[(&str, String)]) -> Result<PathBuf> {
    for (path, text) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().context("no folder")?)?;
        fs::write(path, text)?;
    }
    let archive = dir.with_extension("tar.gz");
    output(Command::new("tar").arg("-czf").arg(&archive).arg("-C").arg(dir).arg("."))?;
    Ok(archive)
}

fn digest(file: &Path) -> Result<String> {
    let line = output(Command::new("sha256sum").arg(file))?;
    Ok(line.split_whitespace().next().context("no digest")?.to_owned())
}

async fn install_crds(namespace: &Namespace, dir: &Path) -> Result<()> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir)? {
        let text = fs::read_to_string(entry?.path())?;
        all.push(serde_saphyr::from_str::<CustomResourceDefinition>(text.trim_start_matches("---\n"))?);
    }
    ensure!(!all.is_empty(), "no CRDs in {}", dir.display());
    crds::apply(&namespace.client, &all).await
}
