//! A Kubernetes control plane without machines: etcd, API server, and the controllers that Jobs need.
//!
//! One serves a whole test program; each test has a namespace of its own. Pods are played by a
//! [`Player`](super::player::Player).

use std::{
    env,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use parking_lot::Mutex;
use taskgraph::runtime::connections::stack;

use super::{crds, embedded::script, guarded, ports, process::Program};

/// How long the whole control plane may take to come up on a busy machine; a program that ends is noticed at once.
const START: Duration = Duration::from_mins(5);
/// Controllers that a Job's life needs; no machines, no service accounts.
const CONTROLLERS: &str = "job-controller,garbage-collector-controller,namespace-controller,resourcequota-controller,ttl-after-finished-controller,persistentvolumeclaim-protection-controller";

/// A running control plane.
#[derive(Debug)]
pub struct ControlPlane {
    kubeconfig: PathBuf,
    dir: PathBuf,
    /// Held: dropped, they are killed.
    parts: Mutex<Vec<Part>>,
}

/// One of its programs.
#[derive(Debug)]
struct Part {
    name: &'static str,
    path: PathBuf,
    args: Vec<String>,
    program: Program,
}

impl ControlPlane {
    /// The one of this test program; the first call starts it.
    ///
    /// # Panics
    /// If it does not start: no test can run then.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<ControlPlane> = OnceLock::new();
        // a thread of its own: callers are inside a runtime, and this needs one that it may block
        SHARED.get_or_init(|| Self::start_apart(false))
    }

    /// One for the tests that look at rights: it knows users by their certificates, writes an audit log, and looks at who
    /// sets owners; see [`guarded`].
    ///
    /// # Panics
    /// If it does not start.
    pub fn guarded() -> &'static Self {
        static GUARDED: OnceLock<ControlPlane> = OnceLock::new();
        GUARDED.get_or_init(|| Self::start_apart(true))
    }

    /// One for a single test, that does to it what others would not bear. It lasts as long as the test program, or until
    /// [`Self::stop`].
    ///
    /// # Panics
    /// If it does not start.
    pub fn own() -> &'static Self {
        Box::leak(Box::new(Self::start_apart(false)))
    }

    fn start_apart(guarded: bool) -> Self {
        let thread = std::thread::spawn(move || Self::start(guarded));
        match thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
            Ok(control_plane) => control_plane,
            Err(error) => panic!("the control plane does not start: {error:#}"),
        }
    }

    /// Kills one of its programs, starts it again after a time, and waits until the API server is ready.
    pub async fn restart(&self, name: &str, away: Duration) -> Result<()> {
        let gone = {
            let mut parts = self.parts.lock();
            let place = parts.iter().position(|part| part.name == name).with_context(|| format!("no {name}"))?;
            parts.remove(place)
        };
        let Part { name, path, args, program } = gone;
        drop(program);
        tokio::time::sleep(away).await;
        let part = Part { name, program: launch(&path, &args, &self.dir, name)?, path, args };
        self.parts.lock().push(part);
        self.await_ready(&mut [], Instant::now()).await
    }

    /// Kills its programs.
    pub fn stop(&self) {
        self.parts.lock().clear();
    }

    /// A folder that lasts as long as the test program.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How to reach it, with all rights, for programs.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// How to reach it as the user `reader`, who has no rights but those that a test gives.
    pub fn readers_kubeconfig(&self) -> Result<PathBuf> {
        let (path, whole) = (self.dir.join("reader.yaml"), tempfile::NamedTempFile::new_in(&self.dir)?);
        fs::write(whole.path(), fs::read_to_string(&self.kubeconfig)?.replace("token: secret", "token: reader"))?;
        // tests side by side read it
        whole.persist(&path)?;
        Ok(path)
    }

    /// The same, read.
    pub async fn config(&self) -> Result<Config> {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig)?;
        Ok(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)
    }

    /// A client with all rights. Each runtime needs its own: connections live in the runtime that opened them.
    pub async fn client(&self) -> Result<Client> {
        Ok(stack(&self.config().await?)?.build())
    }

    fn start(guarded: bool) -> Result<Self> {
        let bin = bin_dir()?;
        let dir = scratch_dir()?;
        let begin = Instant::now();
        let [etcd, peer, api] = [ports::free()?, ports::free()?, ports::free()?];
        fs::write(dir.join("tokens.csv"), "secret,admin,admin,system:masters\nreader,reader,reader\n")?;
        let status = Command::new("openssl")
            .args(["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out"])
            .arg(dir.join("sa.key"))
            .status()
            .context("openssl makes the key of service accounts")?;
        ensure!(status.success(), "openssl made no key");

        let run = |name: &'static str, args: Vec<String>| -> Result<Part> {
            let path = bin.join(name);
            Ok(Part { name, program: launch(&path, &args, &dir, name)?, path, args })
        };
        let mut api_args = api_server_args(&dir, etcd, api);
        if guarded {
            api_args.extend(guarded::prepare(&dir)?);
        }
        let mut parts = vec![run("etcd", etcd_args(&dir, etcd, peer))?, run("kube-apiserver", api_args)?];
        let kubeconfig = dir.join("kubeconfig");
        let certificate = dir.join("certs/apiserver.crt");
        await_file(&certificate, &mut parts, begin)?;
        fs::write(&kubeconfig, kubeconfig_yaml(&format!("https://127.0.0.1:{api}"), Some(&certificate)))?;
        let control_plane = Self { kubeconfig, dir: dir.clone(), parts: Mutex::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(control_plane.await_ready(&mut parts, begin))?;
        parts.push(run("kube-controller-manager", controller_manager_args(&control_plane.kubeconfig))?);
        runtime.block_on(async { crds::install(&control_plane.client().await?).await })?;
        *control_plane.parts.lock() = parts;
        Ok(control_plane)
    }

    /// Waits until the API server is ready, and all of `parts` still run.
    async fn await_ready(&self, parts: &mut [Part], begin: Instant) -> Result<()> {
        loop {
            let client = self.client().await?;
            let request = http::Request::get("/readyz").body(Vec::new())?;
            match client.request_text(request).await {
                Ok(text) if text == "ok" => return Ok(()),
                _ => check_up(parts, begin)?,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A kubeconfig for the given address.
pub fn kubeconfig_yaml(server: &str, certificate: Option<&Path>) -> String {
    let authority = certificate.map(|path| format!(", certificate-authority: {}", path.display())).unwrap_or_default();
    format!(
        "apiVersion: v1\nkind: Config\nclusters: [{{name: test, cluster: {{server: {server:?}{authority}}}}}]\n\
         users: [{{name: admin, user: {{token: secret}}}}]\n\
         contexts: [{{name: test, context: {{cluster: test, user: admin}}}}]\ncurrent-context: test\n"
    )
}

/// Where the programs of the embedded cluster lie, building them if need be.
///
/// `TASKGRAPH_CLUSTER_BIN` names another folder.
pub fn bin_dir() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("TASKGRAPH_CLUSTER_BIN") {
        return Ok(dir.into());
    }
    let dir = PathBuf::from(script("bindir", &[])?);
    if !dir.join("kube-apiserver").exists() {
        script("build", &[])?;
    }
    Ok(dir)
}

/// A new folder, removed when this process has ended, however it ended.
fn scratch_dir() -> Result<PathBuf> {
    let dir = tempfile::Builder::new().prefix("taskgraph-test-").tempdir()?.keep();
    let mut janitor = Command::new("sh");
    // the programs that write there are killed at the same moment: give them that moment
    janitor.args(["-c", "read -r _; sleep 1; rm -rf \"$1\"", "janitor"]).arg(&dir).stdin(std::process::Stdio::piped());
    let child = janitor.spawn()?;
    // its standard input must stay open as long as this process lives
    std::mem::forget(child);
    Ok(dir)
}

fn launch(path: &Path, args: &[String], dir: &Path, name: &str) -> Result<Program> {
    Program::start(path, args, &[("TMPDIR", dir.as_os_str())], &dir.join(format!("{name}.log")))
        .with_context(|| format!("starting {name}"))
}

fn check_up(parts: &mut [Part], begin: Instant) -> Result<()> {
    for Part { name, program, .. } in parts.iter_mut() {
        if let Some(status) = program.ended() {
            bail!("{name} ended with {status}:\n{}", program.log_tail(20));
        }
    }
    let logs = || parts.iter().map(|part| part.program.log_tail(5)).collect::<Vec<_>>().join("\n");
    ensure!(begin.elapsed() < START, "not up after {START:?}:\n{}", logs());
    Ok(())
}

fn await_file(path: &Path, parts: &mut [Part], begin: Instant) -> Result<()> {
    while !path.exists() {
        check_up(parts, begin)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn text(value: impl AsRef<OsStr>) -> String {
    value.as_ref().to_string_lossy().into_owned()
}

fn etcd_args(dir: &Path, port: u16, peer: u16) -> Vec<String> {
    let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
    [
        format!("--data-dir={}", text(dir.join("etcd"))),
        "--unsafe-no-fsync".into(),
        "--log-level=warn".into(),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
    ]
    .into()
}

fn api_server_args(dir: &Path, etcd: u16, port: u16) -> Vec<String> {
    let key = text(dir.join("sa.key"));
    [
        format!("--etcd-servers=http://127.0.0.1:{etcd}"),
        format!("--secure-port={port}"),
        "--bind-address=127.0.0.1".into(),
        "--advertise-address=127.0.0.1".into(),
        "--service-cluster-ip-range=10.97.0.0/16".into(),
        "--authorization-mode=RBAC".into(),
        format!("--token-auth-file={}", text(dir.join("tokens.csv"))),
        // the server makes its own certificate there
        format!("--cert-dir={}", text(dir.join("certs"))),
        format!("--service-account-key-file={key}"),
        format!("--service-account-signing-key-file={key}"),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        // without a kubelet nothing uses the tokens, and waiting for the account of a new namespace costs time
        "--disable-admission-plugins=ServiceAccount".into(),
        "--endpoint-reconciler-type=none".into(),
    ]
    .into()
}

fn controller_manager_args(kubeconfig: &Path) -> Vec<String> {
    [
        format!("--kubeconfig={}", text(kubeconfig)),
        format!("--controllers={CONTROLLERS}"),
        "--leader-elect=false".into(),
        "--secure-port=0".into(),
        "--kube-api-qps=5000".into(),
        "--kube-api-burst=10000".into(),
        "--concurrent-job-syncs=50".into(),
    ]
    .into()
}
