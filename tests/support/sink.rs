//! What takes CloudEvents: an HTTP server of the test's own, and a real NATS server.

use std::{
    net::{Ipv4Addr, TcpListener},
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
use parking_lot::Mutex;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::{ControlPlane, namespace::PATIENCE, process::Program};

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
}

/// A port that nobody listens on.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

impl HttpSink {
    /// One that nobody can reach yet.
    pub fn away() -> Result<Self> {
        let shared = Shared { received: Mutex::default(), answer: Mutex::new(Box::new(|_| (202, Duration::ZERO))) };
        Ok(Self { port: free_port()?, shared: Arc::new(shared), server: None })
    }

    /// One that takes everything.
    pub async fn start() -> Result<Self> {
        let mut sink = Self::away()?;
        sink.come().await?;
        Ok(sink)
    }

    /// It can be reached from now on.
    pub async fn come(&mut self) -> Result<()> {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await?;
        let router = Router::new().fallback(take).with_state(Arc::clone(&self.shared));
        self.server = Some(tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        }));
        Ok(())
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/in?key=1", self.port)
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
    token: &'static str,
    program: Option<Program>,
}

impl Nats {
    /// One that does not run yet.
    pub fn away(token: &'static str) -> Result<Self> {
        let port = free_port()?;
        let dir = ControlPlane::shared().dir().join(format!("nats-{port}"));
        std::fs::create_dir_all(&dir)?;
        Ok(Self { port, dir, token, program: None })
    }

    /// Starts it; what it had stored is there again.
    pub fn start(&mut self) -> Result<()> {
        let path = script("program")?;
        let path = Path::new(&path);
        if !path.exists() {
            script("build")?;
        }
        let (port, store) = (self.port.to_string(), self.dir.join("store").display().to_string());
        let args = ["-a", "127.0.0.1", "-p", &port, "-js", "-sd", &store, "--auth", self.token];
        self.program = Some(Program::start(path, args, &[], &self.dir.join("log"))?);
        Ok(())
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.program = None;
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// A client.
    pub async fn client(&self) -> Result<async_nats::jetstream::Context> {
        let options = async_nats::ConnectOptions::with_token(self.token.to_owned()).retry_on_initial_connect();
        Ok(async_nats::jetstream::new(options.connect(self.url()).await?))
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
