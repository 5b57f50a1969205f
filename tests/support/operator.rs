//! The real operator, as a process.

use std::{
    ffi::OsStr,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal};

use super::process::Program;

/// How an operator is started.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The program.
    pub program: PathBuf,
    /// Where the API server is.
    pub kubeconfig: PathBuf,
    /// The namespace that it is restricted to; absent: all.
    pub namespace: Option<String>,
    /// The namespace of its lease.
    pub lease_namespace: String,
    /// Its name in the lease: started again under the same name, it need not wait for the lease to run out.
    pub identity: String,
    /// File for what it prints.
    pub log: PathBuf,
    /// More arguments.
    pub args: Vec<String>,
}

/// A running operator. Dropped, it is killed; if the test failed, what it printed last is shown.
#[derive(Debug)]
pub struct Operator {
    settings: Settings,
    process: Program,
}

impl Settings {
    /// An operator for one namespace, its lease there too.
    pub fn new(kubeconfig: &Path, namespace: &str) -> Self {
        Self {
            program: env!("CARGO_BIN_EXE_taskgraph-operator").into(),
            kubeconfig: kubeconfig.to_owned(),
            namespace: Some(namespace.to_owned()),
            lease_namespace: namespace.to_owned(),
            identity: format!("test-{}", kubeconfig.file_stem().unwrap_or_default().to_string_lossy()),
            log: kubeconfig.with_extension("operator.log"),
            args: Vec::new(),
        }
    }
}

impl Operator {
    /// Starts one.
    pub fn start(settings: Settings) -> Result<Self> {
        let process = launch(&settings)?;
        Ok(Self { settings, process })
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Its name in the lease.
    pub fn identity(&self) -> &str {
        &self.settings.identity
    }

    /// Starts it again, after it was killed or terminated.
    pub fn restart(&mut self) -> Result<()> {
        self.process = launch(&self.settings)?;
        Ok(())
    }

    /// Kills it as a power cut would.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.signal(Signal::KILL);
        self.ended().await?;
        Ok(())
    }

    /// Asks it to end; how it did.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        self.process.signal(Signal::TERM);
        self.ended().await
    }

    /// Stops it where it is.
    pub fn freeze(&self) {
        self.process.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.process.signal(Signal::CONT);
    }

    /// Where it serves health and metrics, once it does.
    ///
    /// # Panics
    /// If it does not.
    pub async fn address(&self) -> SocketAddr {
        let begin = Instant::now();
        loop {
            let log = self.process.log_tail(usize::MAX);
            // of several starts the last counts; the API server is told of elsewhere
            let listens = log.lines().rev().find(|line| line.contains("listen"));
            let port =
                listens.and_then(|line| line.split_once("127.0.0.1:")?.1.split(|c: char| !c.is_ascii_digit()).next());
            if let Some(port) = port.and_then(|port| port.parse().ok()) {
                return SocketAddr::from(([127, 0, 0, 1], port));
            }
            assert!(begin.elapsed() < super::namespace::PATIENCE, "the operator does not listen: {log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What it answers to a GET: the status code and the body.
    pub async fn get(&self, path: &str) -> Result<(u16, String)> {
        let address = self.address().await;
        fetch(address, path).await
    }

    /// What it printed last.
    pub fn log_tail(&self, lines: usize) -> String {
        self.process.log_tail(lines)
    }

    async fn ended(&mut self) -> Result<ExitStatus> {
        tokio::time::timeout(super::namespace::PATIENCE, async {
            loop {
                if let Some(status) = self.process.ended() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await
        .context("the operator does not end")
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}:\n{}", self.settings.log.display(), self.process.log_tail(60));
        }
    }
}

/// What a server answers to a GET: the status code and the body.
pub async fn fetch(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    // HTTP/1.0: the body ends with the connection, and is not sent in chunks
    let request = format!("GET {path} HTTP/1.0\r\nHost: x\r\n\r\n");
    let ask = move || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = tokio::task::spawn_blocking(ask).await??;
    let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status code")?;
    Ok((code, body.to_owned()))
}

fn launch(settings: &Settings) -> Result<Program> {
    let mut args: Vec<String> =
        ["--listen", "127.0.0.1:0", "--identity", &settings.identity, "--lease-namespace", &settings.lease_namespace]
            .map(String::from)
            .into();
    // on a machine that is late a Lease is lost now and then, which is right, and not what most tests are about
    if !settings.args.iter().any(|arg| arg == "--lease-duration") {
        args.extend(["--lease-duration", "1m"].map(String::from));
    }
    if let Some(namespace) = &settings.namespace {
        args.extend(["--namespace".to_owned(), namespace.clone()]);
    }
    args.extend(settings.args.iter().cloned());
    let env: [(&str, &OsStr); 1] = [("KUBECONFIG", settings.kubeconfig.as_os_str())];
    Program::start(&settings.program, args, &env, &settings.log).context("starting the operator")
}
