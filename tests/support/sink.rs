//! What takes CloudEvents: an HTTP server of the test's own, and a real NATS server.

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    response::Response,
};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;
use taskgraph::webhook::{
    certificates::{Material, Policy},
    tls::{Connections, Served},
};
use tokio::task::JoinHandle;

use super::{ControlPlane, namespace::PATIENCE, ports, process::Program};

/// What came in.
#[derive(Clone, Debug)]
pub struct Received {
    /// The event.
    pub event: Value,
    /// `Authorization` and `Content-Type`.
    pub headers: [String; 2],
    /// What was answered.
    pub code: u16,
}

/// How an event is answered: with a code, after a time.
type Answer = dyn Fn(&Value) -> (u16, Duration) + Send + Sync;

struct Shared {
    received: Mutex<Vec<Received>>,
    answer: Mutex<Box<Answer>>,
}

/// An HTTP server that takes events.
pub struct HttpSink {
    port: u16,
    shared: Arc<Shared>,
    server: Option<JoinHandle<()>>,
    tls: Option<Tls>,
}

/// A certificate for `localhost`, of an authority of its own.
pub struct Tls {
    material: Material,
    dir: PathBuf,
}

impl Tls {
    /// A fresh one, as the files `ca.crt`, `tls.crt` and `tls.key` of a folder.
    pub fn new(dir: PathBuf) -> Result<Self> {
        let policy = Policy { names: vec!["localhost".to_owned()], validity: Duration::from_hours(1) };
        let material = policy.renew(&Material::default(), true, Timestamp::now())?.context("a certificate")?;
        std::fs::create_dir_all(&dir)?;
        for (name, text) in
            [("ca.crt", &material.authorities), ("tls.crt", &material.certificate), ("tls.key", &material.key)]
        {
            std::fs::write(dir.join(name), text)?;
        }
        Ok(Self { material, dir })
    }

    /// One of its files.
    pub fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }
}

impl HttpSink {
    /// One that nobody can reach yet.
    pub fn away() -> Result<Self> {
        let shared = Shared { received: Mutex::default(), answer: Mutex::new(Box::new(|_| (202, Duration::ZERO))) };
        Ok(Self { port: ports::free()?, shared: Arc::new(shared), server: None, tls: None })
    }

    /// One that takes everything.
    pub async fn start() -> Result<Self> {
        let mut sink = Self::away()?;
        sink.come().await?;
        Ok(sink)
    }

    /// One that takes everything, over TLS.
    pub async fn secure(tls: Tls) -> Result<Self> {
        let mut sink = Self::away()?;
        sink.tls = Some(tls);
        sink.come().await?;
        Ok(sink)
    }

    /// It can be reached from now on.
    pub async fn come(&mut self) -> Result<()> {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await?;
        let router = Router::new().fallback(take).with_state(Arc::clone(&self.shared));
        let served = match &self.tls {
            None => axum::serve(listener, router).into_future(),
            Some(Tls { material, .. }) => {
                let served = Served::default();
                served.set(&material.certificate, &material.key)?;
                axum::serve(Connections::on(listener, served)?, router).into_future()
            }
        };
        self.server = Some(tokio::spawn(async move {
            let _ = served.await;
        }));
        Ok(())
    }

    /// Where it is.
    pub fn url(&self) -> String {
        match self.tls {
            None => format!("http://127.0.0.1:{}/in?key=1", self.port),
            Some(_) => format!("https://localhost:{}/in?key=1", self.port),
        }
    }

    /// From now on events are answered so.
    pub fn answer(&self, answer: impl Fn(&Value) -> (u16, Duration) + Send + Sync + 'static) {
        *self.shared.answer.lock() = Box::new(answer);
    }

    /// All that came.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().clone()
    }

    /// The events that were taken.
    pub fn taken(&self) -> Vec<Value> {
        let received = self.received().into_iter();
        received.filter(|one| (200..300).contains(&one.code)).map(|one| one.event).collect()
    }
}

impl Drop for HttpSink {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

async fn take(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let header = |name: &str| {
        let value = request.headers().get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let headers = ["authorization", "content-type"].map(header);
    let path = request.uri().to_string();
    let body = to_bytes(request.into_body(), 1 << 20).await.unwrap_or_else(|_| Bytes::new());
    let event: Value = serde_json::from_slice(&body).unwrap_or_default();
    let (code, pause) = if path == "/in?key=1" { (shared.answer.lock())(&event) } else { (404, Duration::ZERO) };
    tokio::time::sleep(pause).await;
    shared.received.lock().push(Received { event, headers, code });
    Response::builder().status(code).body(Body::empty()).expect("a response")
}

/// A NATS server with `JetStream`. Dropped, it is killed.
pub struct Nats {
    port: u16,
    dir: PathBuf,
    entry: Entry,
    program: Option<Program>,
}

/// Whom a NATS server lets in.
pub enum Entry {
    /// Who knows a token.
    Token(&'static str),
    /// A user with a password, over TLS.
    Login(&'static str, &'static str, Tls),
}

impl Nats {
    /// One that does not run yet.
    pub fn away(entry: Entry) -> Result<Self> {
        let port = ports::free()?;
        let dir = ControlPlane::shared().dir().join(format!("nats-{port}"));
        std::fs::create_dir_all(&dir)?;
        Ok(Self { port, dir, entry, program: None })
    }

    /// Starts it; what it had stored is there again.
    pub fn start(&mut self) -> Result<()> {
        let path = script("program")?;
        let path = Path::new(&path);
        if !path.exists() {
            script("build")?;
        }
        let (port, store) = (self.port.to_string(), self.dir.join("store").display().to_string());
        let mut args = vec!["-a", "127.0.0.1", "-p", &port, "-js", "-sd", &store];
        let (certificate, key);
        match &self.entry {
            Entry::Token(token) => args.extend(["--auth", *token]),
            Entry::Login(user, password, tls) => {
                (certificate, key) = (tls.file("tls.crt"), tls.file("tls.key"));
                args.extend(["--user", *user, "--pass", *password]);
                args.extend(["--tls", "--tlscert", certificate.as_str(), "--tlskey", key.as_str()]);
            }
        }
        self.program = Some(Program::start(path, args, &[], &self.dir.join("log"))?);
        Ok(())
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.program = None;
    }

    /// Where it is.
    pub fn url(&self) -> String {
        match self.entry {
            Entry::Token(_) => format!("nats://127.0.0.1:{}", self.port),
            Entry::Login(..) => format!("tls://localhost:{}", self.port),
        }
    }

    /// A client.
    pub async fn client(&self) -> Result<async_nats::jetstream::Context> {
        let options = match &self.entry {
            Entry::Token(token) => async_nats::ConnectOptions::with_token((*token).to_owned()),
            Entry::Login(user, password, tls) => {
                let login = async_nats::ConnectOptions::with_user_and_password((*user).into(), (*password).into());
                login.add_root_certificates(tls.file("ca.crt").into())
            }
        };
        Ok(async_nats::jetstream::new(options.retry_on_initial_connect().connect(self.url()).await?))
    }

    /// What a stream has stored: subject and event.
    pub async fn stored(&self, stream: &str) -> Result<Vec<(String, Value)>> {
        let mut stream = self.client().await?.get_stream(stream).await?;
        let last = stream.info().await?.state.last_sequence;
        let mut stored = Vec::new();
        for sequence in 1..=last {
            let message = stream.get_raw_message(sequence).await?;
            stored.push((message.subject.to_string(), serde_json::from_slice(&message.payload)?));
        }
        Ok(stored)
    }

    /// Makes a stream, as soon as it can be made.
    pub async fn make_stream(&self, name: &str, subjects: &str) -> Result<()> {
        let config = async_nats::jetstream::stream::Config {
            name: name.to_owned(),
            subjects: vec![subjects.to_owned()],
            ..Default::default()
        };
        let made = async {
            let context = self.client().await?;
            while let Err(error) = context.get_or_create_stream(config.clone()).await {
                eprintln!("making a stream: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, made).await.context("no stream")?
    }
}

fn script(verb: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("hack/nats/nats");
    let output = Command::new(&path).arg(verb).output()?;
    ensure!(output.status.success(), "{} {verb}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
