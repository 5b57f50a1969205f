//! Stands between the operator and the API server: makes faults, and writes down every write from outside.

use std::{
    collections::BTreeMap,
    fmt, fs,
    future::pending,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    response::Response,
};
use futures::{Stream, StreamExt};
use http::{Method, StatusCode, header};
use jiff::Timestamp;
use kube::{Client, Config};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use taskgraph::runtime::connections::stack;
use tokio::{sync::watch, task::JoinHandle};

use super::{
    control_plane::{ControlPlane, kubeconfig_yaml},
    rights::Right,
    wire::Place,
};

/// More than the API server itself takes.
const LARGEST_BODY: usize = 16 << 20;

/// One request to the API server.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its method.
    pub verb: Method,
    /// Its path, without the query.
    pub path: String,
    /// The plural of the kind, and the subresource: `jobs`, `taskgraphs/status`.
    pub resource: String,
    /// Name of the object, from the path or from the body.
    pub name: String,
    /// Whether it is a watch.
    pub watch: bool,
    /// What it sends.
    pub body: Value,
}

/// A write that the operator asked for.
#[derive(Clone, Debug)]
pub struct Write {
    /// What it asked for.
    pub call: Call,
    /// When it came.
    pub time: Timestamp,
    /// What the API server said; absent: it was not forwarded.
    pub code: Option<u16>,
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.code.map_or_else(|| "not forwarded".to_owned(), |code| code.to_string());
        write!(f, "{} {} {} → {code}", self.call.verb, self.call.resource, self.call.name)
    }
}

/// How many of these writes every run of the same graph makes, more or less: what tells of something that changes is
/// coalesced with what comes soon after it.
pub fn certain(writes: &[Write]) -> usize {
    writes.iter().filter(|write| write.call.verb == Method::POST && write.call.resource != "events").count()
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is not forwarded, and answered with this code.
    Refused(u16),
    /// It is not forwarded, and answered with this text.
    Answered(&'static str),
    /// It is forwarded after a time.
    Delayed(Duration),
    /// It is forwarded and done, but the connection breaks before the answer comes.
    AnswerLost,
}

/// On which side of a write the operator dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The write never reaches the API server.
    Before,
    /// The write is done; its answer never reaches the operator.
    After,
}

type Fault = Box<dyn FnMut(&Call) -> Option<Fate> + Send>;

/// What happens to watches. Numbers only rise; a watch compares them with what they were when it began.
#[derive(Clone, Debug, Default)]
struct Watches {
    held: Option<String>,
    cut: u32,
    gone: u32,
}

struct Shared {
    client: Client,
    writes: Mutex<Vec<Write>>,
    /// What was asked of the API server, and whether all of it was allowed.
    used: Mutex<BTreeMap<Right, bool>>,
    faults: Mutex<Vec<Fault>>,
    crash: Mutex<Option<(usize, Side, Pid)>>,
    crashed: watch::Sender<bool>,
    watches: watch::Sender<Watches>,
}

/// A proxy for one operator. It listens as long as it lives.
pub struct Proxy {
    kubeconfig: PathBuf,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl Proxy {
    /// Starts one, behind which everything is allowed.
    pub async fn start(control_plane: &ControlPlane) -> Result<Self> {
        Self::start_as(control_plane, control_plane.config().await?).await
    }

    /// Starts one, behind which is allowed what the user of `config` may.
    pub async fn start_as(control_plane: &ControlPlane, mut config: Config) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // what the API server says goes through: the operator is to cope with it
        config.default_retry = false;
        let shared = Arc::new(Shared {
            client: stack(&config)?.build(),
            writes: Mutex::default(),
            used: Mutex::default(),
            faults: Mutex::default(),
            crash: Mutex::default(),
            crashed: watch::Sender::new(false),
            watches: watch::Sender::default(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let kubeconfig = control_plane.dir().join(format!("proxy-{number}.yaml"));
        fs::write(&kubeconfig, kubeconfig_yaml(&format!("http://{}", listener.local_addr()?), None))?;
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { kubeconfig, shared, server })
    }

    /// For the operator.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The writes so far, in the order in which they came. Renewals of a Lease are left out: they come with time,
    /// not with what happens.
    pub fn writes(&self) -> Vec<Write> {
        self.shared.writes.lock().clone()
    }

    /// Which rights were used so far, and whether they were had.
    pub fn used(&self) -> BTreeMap<Right, bool> {
        self.shared.used.lock().clone()
    }

    /// Asks `fault` about every request from now on; the first fault that has an answer decides.
    pub fn inject(&self, fault: impl FnMut(&Call) -> Option<Fate> + Send + 'static) {
        self.shared.faults.lock().push(Box::new(fault));
    }

    /// The next `times` requests that `matching` holds for meet `fate`.
    pub fn inject_times(&self, times: usize, fate: Fate, matching: impl Fn(&Call) -> bool + Send + 'static) {
        let mut left = times;
        self.inject(move |call| {
            let hit = left > 0 && matching(call);
            left -= usize::from(hit);
            hit.then_some(fate)
        });
    }

    /// Kills the process at the write of this number, counted from 0. From then on nothing passes.
    pub fn crash_at(&self, number: usize, side: Side, process: Pid) {
        *self.shared.crash.lock() = Some((number, side, process));
    }

    /// Waits until the process was killed.
    pub async fn crashed(&self) {
        let mut crashed = self.shared.crashed.subscribe();
        // the sender lives as long as `self`
        let _ = crashed.wait_for(|crashed| *crashed).await;
    }

    /// Holds back what watches of `resource` (`jobs`, `pods`, ...) have to tell, until [`Self::release`].
    pub fn hold(&self, resource: &str) {
        self.shared.watches.send_modify(|watches| watches.held = Some(resource.to_owned()));
    }

    /// Lets watches go on.
    pub fn release(&self) {
        self.shared.watches.send_modify(|watches| watches.held = None);
    }

    /// Ends all watches.
    pub fn cut(&self) {
        self.shared.watches.send_modify(|watches| watches.cut += 1);
    }

    /// Ends all watches with 410: too old a version.
    pub fn gone(&self) {
        self.shared.watches.send_modify(|watches| watches.gone += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
        if std::thread::panicking() {
            for (number, write) in self.writes().iter().enumerate() {
                eprintln!("write {number}: {write}");
            }
        }
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(bytes) = axum::body::to_bytes(body, LARGEST_BODY).await else { return refusal(413) };
    let call = Call::new(&parts, &bytes);
    // one that was not yet dead when it asked
    if *shared.crashed.borrow() {
        return pending().await;
    }
    // taken before faults are looked up: a watch that is let through now is cut by whoever then makes a fault and cuts
    let begin = shared.watches.borrow().clone();
    let number = shared.begin(&call);
    let crash = number.and_then(|number| shared.crash.lock().filter(|crash| crash.0 == number));
    if let Some((_, Side::Before, process)) = crash {
        return shared.crash(process).await;
    }
    let fate = shared.faults.lock().iter_mut().find_map(|fault| fault(&call));
    match fate {
        Some(Fate::Refused(code)) => return refusal(code),
        Some(Fate::Answered(text)) => return json_response(StatusCode::OK, text.to_owned()),
        Some(Fate::Delayed(time)) => tokio::time::sleep(time).await,
        Some(Fate::AnswerLost) | None => {}
    }
    let response = shared.forward(parts, bytes).await;
    if let Some(number) = number {
        shared.answered(number, response.status());
    }
    if let Some((_, Side::After, process)) = crash {
        return shared.crash(process).await;
    }
    if fate == Some(Fate::AnswerLost) {
        let broken = futures::stream::once(async { Err::<Bytes, _>(std::io::Error::other("answer lost")) });
        return Response::new(Body::from_stream(broken));
    }
    if call.watch && response.status().is_success() {
        let control = shared.watches.subscribe();
        let place = Place::new(response.headers());
        return response.map(|body| Body::from_stream(relay(call.resource, place, body, control, begin)));
    }
    response
}

impl Shared {
    /// Writes a write down; its number.
    fn begin(&self, call: &Call) -> Option<usize> {
        if call.verb == Method::GET || call.resource == "leases" {
            return None;
        }
        let mut writes = self.writes.lock();
        writes.push(Write { call: call.clone(), time: Timestamp::now(), code: None });
        Some(writes.len() - 1)
    }

    fn answered(&self, number: usize, code: StatusCode) {
        if let Some(write) = self.writes.lock().get_mut(number) {
            write.code = Some(code.as_u16());
        }
    }

    async fn crash(&self, process: Pid) -> Response {
        let _ = kill_process(process, Signal::KILL);
        self.crashed.send_replace(true);
        pending().await
    }

    async fn forward(&self, parts: http::request::Parts, bytes: Bytes) -> Response {
        let right = Right::of_request(&parts.method, parts.uri.path(), parts.uri.query().unwrap_or_default());
        let response = self.pass_on(parts, bytes).await;
        if let Some(right) = right {
            *self.used.lock().entry(right).or_insert(true) &= response.status() != StatusCode::FORBIDDEN;
        }
        response
    }

    async fn pass_on(&self, parts: http::request::Parts, bytes: Bytes) -> Response {
        let mut request = http::Request::new(kube::client::Body::from(bytes.to_vec()));
        *request.method_mut() = parts.method;
        *request.uri_mut() = parts.uri;
        for name in [header::ACCEPT, header::CONTENT_TYPE] {
            if let Some(value) = parts.headers.get(&name) {
                request.headers_mut().insert(name, value.clone());
            }
        }
        match self.client.send(request).await {
            Ok(response) => {
                let mut response = response.map(Body::new);
                // both are of the connection, not of the answer
                response.headers_mut().remove(header::TRANSFER_ENCODING);
                response.headers_mut().remove(header::CONNECTION);
                response
            }
            Err(error) => {
                eprintln!("proxy: {error}");
                refusal(502)
            }
        }
    }
}

impl Call {
    fn new(parts: &http::request::Parts, bytes: &[u8]) -> Self {
        let path = parts.uri.path();
        let body: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let mut names = path.trim_start_matches('/').split('/').skip_while(|part| *part != "namespaces");
        let (resource, name, subresource) = match (names.next(), names.next(), names.next()) {
            (Some(_), Some(_), Some(resource)) => (resource, names.next(), names.next()),
            // of the cluster: /apis/GROUP/VERSION/RESOURCE, /api/VERSION/RESOURCE
            _ => (path.rsplit('/').next().unwrap_or_default(), None, None),
        };
        let name = name.or_else(|| body["metadata"]["name"].as_str()).unwrap_or_default().to_owned();
        let resource =
            subresource.map_or_else(|| resource.to_owned(), |subresource| format!("{resource}/{subresource}"));
        let watch = parts.uri.query().is_some_and(|query| query.split('&').any(|part| part.starts_with("watch=")));
        Self { verb: parts.method.clone(), path: path.to_owned(), resource, name, watch, body }
    }
}

/// What a watch tells, as long as it may. `begin`: what there was to say of watches when it was asked for.
fn relay(
    resource: String,
    place: Place,
    body: Body,
    control: watch::Receiver<Watches>,
    begin: Watches,
) -> impl Stream<Item = Result<Bytes, axum::Error>> {
    let state = Some((body.into_data_stream(), control, place));
    futures::stream::unfold(state, move |state| {
        let (resource, begin) = (resource.clone(), begin.clone());
        async move {
            let (mut upstream, mut control, mut place) = state?;
            loop {
                let now = control.borrow_and_update().clone();
                if now.cut != begin.cut {
                    return None;
                }
                if now.gone != begin.gone && place.is_between_events() {
                    return Some((Ok(place.gone()), None));
                }
                if now.held.as_ref() == Some(&resource) {
                    control.changed().await.ok()?;
                    continue;
                }
                tokio::select! {
                    changed = control.changed() => changed.ok()?,
                    chunk = upstream.next() => {
                        let chunk = chunk?;
                        if let Ok(chunk) = &chunk {
                            place.pass(chunk);
                        }
                        return Some((chunk, Some((upstream, control, place))));
                    }
                }
            }
        }
    })
}

fn refusal(code: u16) -> Response {
    let reason = match code {
        409 => "Conflict",
        429 => "TooManyRequests",
        500 => "InternalError",
        _ => "Unknown",
    };
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason,
        "message": "made by the test", "code": code});
    json_response(StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), status.to_string())
}

fn json_response(code: StatusCode, text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}
