//! `/healthz`, `/readyz`, `/status` and `/metrics`.
//!
//! Healthy: the main loop goes round, and no part of the program has panicked. Ready: the caches are filled, the API server answers, and nothing stands in the way
//! that somebody has to mend; a replica that stands by is ready too.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{RawQuery, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{
    metrics::{self, Metrics},
    status::{ApiServer, Kubernetes, Report, Shown, Watches, Work},
};

/// How long the main loop may be silent before the process counts as stuck.
const LOOP_SILENCE: Duration = Duration::from_mins(1);
/// How long the API server may be silent before the process is not ready. The Lease is read or
/// renewed several times within that.
const API_SILENCE: Duration = Duration::from_secs(30);

/// What the rest of the operator tells about itself. Clones share their state.
#[derive(Clone, Debug)]
pub struct Health(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    started: Instant,
    /// When the main loop last went round, in milliseconds since `started`.
    ticked: AtomicU64,
    /// When the API server last answered, in milliseconds since `started` and never 0; 0: never.
    answered: AtomicU64,
    synced: AtomicBool,
    /// In milliseconds, and one more; 0: none was measured.
    lag: AtomicU64,
    watches: Watches,
    kubernetes: Kubernetes,
    lease: Shown,
    metrics: OnceLock<Metrics>,
    /// What is wrong with a part beside the controller.
    faults: Mutex<BTreeMap<&'static str, Fault>>,
    /// Parts that panicked.
    broken: Mutex<BTreeSet<&'static str>>,
}

/// What is wrong with a part of the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What, and what to do.
    pub message: String,
    /// Whether the part does nothing for it: the process is not ready then. Otherwise it is only told.
    pub stops: bool,
}

impl Default for Health {
    fn default() -> Self {
        Self(Arc::new(Inner::new(Instant::now(), 0, false)))
    }
}

impl Inner {
    /// Of a process that was `started` then; `last`: when it last ticked and was answered.
    fn new(started: Instant, last: u64, synced: bool) -> Self {
        Self {
            started,
            ticked: AtomicU64::new(last),
            answered: AtomicU64::new(last),
            synced: AtomicBool::new(synced),
            lag: AtomicU64::new(0),
            watches: Watches::default(),
            kubernetes: Kubernetes::default(),
            lease: Shown::default(),
            metrics: OnceLock::new(),
            faults: Mutex::default(),
            broken: Mutex::default(),
        }
    }
}

impl Health {
    /// Shows what is wrong in `metrics`, and some of them in `/status`.
    pub fn show_in(&self, metrics: &Metrics) {
        // once a process
        let _ = self.0.metrics.set(metrics.clone());
    }

    /// The watches that fill the caches.
    pub fn watches(&self) -> &Watches {
        &self.0.watches
    }

    /// The version of the cluster.
    pub fn kubernetes(&self) -> &Kubernetes {
        &self.0.kubernetes
    }

    /// The Lease.
    pub fn lease(&self) -> &Shown {
        &self.0.lease
    }

    /// So long after a pod's end was seen it was decided what follows.
    pub fn lagged(&self, lag: Duration) {
        let millis = u64::try_from(lag.as_millis()).unwrap_or(u64::MAX);
        self.0.lag.store(millis.saturating_add(1), Ordering::Relaxed);
    }

    /// The main loop went round: call it at least every few seconds, from the loop itself.
    pub fn tick(&self) {
        self.0.ticked.store(self.now(), Ordering::Relaxed);
    }

    /// The caches hold all that there is to see, or do not any more.
    pub fn set_synced(&self, synced: bool) {
        self.0.synced.store(synced, Ordering::Relaxed);
    }

    /// The API server answered something. The client of [`super::client`] calls it.
    pub fn api_answered(&self) {
        self.0.answered.store(self.now().max(1), Ordering::Relaxed);
    }

    /// Something is wrong with `part`, or nothing any more.
    pub fn set_fault(&self, part: &'static str, fault: Option<Fault>) {
        let mut faults = self.0.faults.lock();
        match fault {
            Some(fault) => faults.insert(part, fault),
            None => faults.remove(part),
        };
    }

    /// A part panicked that was to run on. [`super::parts::run`] calls it.
    pub fn broke(&self, part: &'static str) {
        self.0.broken.lock().insert(part);
    }

    /// What is wrong with `part`.
    pub fn fault(&self, part: &str) -> Option<Fault> {
        self.0.faults.lock().get(part).cloned()
    }

    /// What is wrong with the parts, as far as it stops them, or as far as it does not.
    fn faults(&self, stops: bool) -> Vec<String> {
        let faults = self.0.faults.lock();
        let told = faults.iter().filter(|(_, fault)| fault.stops == stops);
        told.map(|(part, fault)| format!("{part}: {}", fault.message)).collect()
    }

    /// What is wrong, for `/healthz`.
    pub(super) fn sick(&self) -> Vec<String> {
        let silence = self.since(self.0.ticked.load(Ordering::Relaxed));
        let mut sick =
            problems([(silence > LOOP_SILENCE, format!("the main loop has been silent for {}s", silence.as_secs()))]);
        sick.extend(self.broken());
        sick
    }

    fn broken(&self) -> Vec<String> {
        let told = |part: &&str| format!("{part} panicked, a defect: the process has to be started anew");
        self.0.broken.lock().iter().map(told).collect()
    }

    /// What is missing, for `/readyz`.
    pub(super) fn unready(&self) -> Vec<String> {
        let answered = self.0.answered.load(Ordering::Relaxed);
        let silence = self.since(answered);
        let mut missing = problems([
            (!self.0.synced.load(Ordering::Relaxed), "the caches are not filled yet".into()),
            (answered == 0, "the API server has not answered yet".into()),
            (
                answered > 0 && silence > API_SILENCE,
                format!("the API server has not answered for {}s", silence.as_secs()),
            ),
        ]);
        missing.extend(self.0.watches.problems());
        missing.extend(self.0.kubernetes.problem());
        missing.extend(self.0.lease.problem());
        missing.extend(self.faults(true));
        missing.extend(self.broken());
        missing
    }

    /// For `/status`.
    fn report(&self) -> Report {
        let (sick, unready) = (self.sick(), self.unready());
        let (answered, lag) = (self.0.answered.load(Ordering::Relaxed), self.0.lag.load(Ordering::Relaxed));
        let silence = (answered > 0).then(|| self.since(answered));
        let gauge = |read: fn(&Metrics) -> i64| self.0.metrics.get().map_or(0, read);
        Report {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: self.0.started.elapsed().as_secs(),
            healthy: sick.is_empty(),
            ready: unready.is_empty(),
            problems: sick.iter().chain(unready.iter().filter(|one| !sick.contains(one))).cloned().collect(),
            notes: self.faults(false),
            api_server: ApiServer {
                reachable: silence.is_some_and(|silence| silence <= API_SILENCE),
                last_answer_seconds: silence.map(|silence| silence.as_secs()),
                kubernetes: self.0.kubernetes.version(),
            },
            lease: self.0.lease.report(),
            watches: self.0.watches.report(),
            work: Work {
                tasks_running: gauge(|metrics| metrics.tasks_running.get()),
                tasks_ready: gauge(|metrics| metrics.tasks_ready.get()),
                lag_millis: lag.checked_sub(1),
                main_loop_seconds: self.since(self.0.ticked.load(Ordering::Relaxed)).as_secs(),
            },
        }
    }

    /// Brings what `/metrics` says of it up to date.
    fn measure(&self) {
        if let Some(metrics) = self.0.metrics.get() {
            metrics.problems.set(i64::try_from(self.unready().len()).unwrap_or(i64::MAX));
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn since(&self, then: u64) -> Duration {
        Duration::from_millis(self.now().saturating_sub(then))
    }
}

fn problems<const N: usize>(checks: [(bool, String); N]) -> Vec<String> {
    checks.into_iter().filter_map(|(wrong, problem)| wrong.then_some(problem)).collect()
}

/// Serves on `listener` until `stop`, then lets open requests end.
pub async fn serve(
    listener: TcpListener,
    health: Health,
    registry: Registry,
    stop: CancellationToken,
) -> io::Result<()> {
    axum::serve(listener, router(health, registry)).with_graceful_shutdown(stop.cancelled_owned()).await
}

fn router(health: Health, registry: Registry) -> Router {
    let healthy = |State(health): State<Health>, RawQuery(query): RawQuery| async move {
        let verbose = query.is_some_and(|query| query.split('&').any(|part| part == "verbose"));
        let problems = health.sick();
        if verbose { told(&problems, &health).into_response() } else { answer(&problems, &[]).into_response() }
    };
    let status = |State(health): State<Health>| async move { told(&[], &health) };
    let ready = |State(health): State<Health>| async move { answer(&health.unready(), &health.faults(false)) };
    let registry = Arc::new(registry);
    let metrics = |State(health): State<Health>| async move {
        health.measure();
        ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::encode(&registry))
    };
    Router::new()
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .with_state(health)
}

/// The report, as JSON; with `problems` it is no good answer.
fn told(problems: &[String], health: &Health) -> impl IntoResponse + use<> {
    let code = if problems.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // numbers, texts and lists: it cannot fail
    let text = serde_json::to_string_pretty(&health.report()).unwrap_or_default() + "\n";
    (code, [(CONTENT_TYPE, "application/json")], text)
}

/// `notes`: what is wrong, and in the way of nothing.
fn answer(problems: &[String], notes: &[String]) -> impl IntoResponse + use<> {
    let (status, first) =
        if problems.is_empty() { (StatusCode::OK, "ok\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "") };
    let text = problems.iter().chain(notes).fold(first.to_owned(), |mut text, line| {
        let _ = writeln!(text, "{line}");
        text
    });
    (status, text)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{SocketAddr, TcpStream},
    };

    use super::*;

    /// Status line and body of `GET path`.
    async fn fetch(address: SocketAddr, path: &'static str) -> (String, String) {
        tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            (head.lines().next().unwrap().to_owned(), body.to_owned())
        })
        .await
        .unwrap()
    }

    #[tokio::test]
    async fn serves_until_stopped() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (health, stop) = (Health::default(), CancellationToken::new());
        let (metrics, registry) = Metrics::new();
        let server = tokio::spawn(serve(listener, health.clone(), registry, stop.clone()));

        assert_eq!(fetch(address, "/healthz").await, ("HTTP/1.1 200 OK".into(), "ok\n".into()));
        let (status, body) = fetch(address, "/readyz").await;
        assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
        assert_eq!(body, "the caches are not filled yet\nthe API server has not answered yet\n");

        health.set_synced(true);
        health.api_answered();
        assert_eq!(fetch(address, "/readyz").await, ("HTTP/1.1 200 OK".into(), "ok\n".into()));

        for (stops, status, body, field) in
            [(true, "503 Service Unavailable", "a: gone\n", "problems"), (false, "200 OK", "ok\na: gone\n", "notes")]
        {
            health.set_fault("a", Some(Fault { message: "gone".into(), stops }));
            assert_eq!(fetch(address, "/readyz").await, (format!("HTTP/1.1 {status}"), body.into()));
            let report: serde_json::Value = serde_json::from_str(&fetch(address, "/status").await.1).unwrap();
            assert_eq!(report[field], serde_json::json!(["a: gone"]));
            assert_eq!(report["ready"], !stops);
        }
        health.set_fault("a", None);
        assert_eq!(fetch(address, "/readyz").await.1, "ok\n");

        health.show_in(&metrics);
        health.lease().see(Some("pod-1"), Instant::now());
        let cure = "the operator lacks rights on its Lease, give it the role of the chart";
        health.lease().round(Some(("leases is forbidden".into(), Some(cure))));
        let problem = "the operator lacks rights on its Lease, give it the role of the chart: leases is forbidden";
        assert_eq!(fetch(address, "/readyz").await.1, format!("{problem}\n"));
        let (status, body) = fetch(address, "/status").await;
        assert_eq!(status, "HTTP/1.1 200 OK", "it is an answer, whatever it says");
        let report: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(report["problems"], serde_json::json!([problem]));
        assert_eq!((&report["ready"], &report["healthy"]), (&false.into(), &true.into()));
        assert_eq!(report["lease"]["holder"], "pod-1");
        assert_eq!(fetch(address, "/healthz?verbose").await, ("HTTP/1.1 200 OK".into(), body));
        let (_, body) = fetch(address, "/metrics").await;
        assert!(body.contains("taskgraph_problems 1\n"), "{body}");
        health.lease().round(None);
        assert_eq!(fetch(address, "/readyz").await.0, "HTTP/1.1 200 OK");

        metrics.tasks_started.inc();
        let (_, body) = fetch(address, "/metrics").await;
        assert!(body.contains("taskgraph_tasks_started_total 1\n"), "{body}");
        assert_eq!(fetch(address, "/").await.0, "HTTP/1.1 404 Not Found");

        stop.cancel();
        server.await.unwrap().unwrap();
        assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    }

    /// As if the process had been started `ago`, and nothing had happened since its first millisecond.
    fn silent_for(ago: Duration) -> Health {
        Health(Arc::new(Inner::new(Instant::now().checked_sub(ago).unwrap(), 1, true)))
    }

    #[test]
    fn silence_is_noticed() {
        let health = silent_for(Duration::from_secs(20));
        assert_eq!((health.sick().len(), health.unready().len()), (0, 0));
        let health = silent_for(Duration::from_secs(40));
        assert_eq!((health.sick().len(), health.unready().len()), (0, 1));
        let health = silent_for(Duration::from_millis(89_500));
        assert_eq!(health.sick(), ["the main loop has been silent for 89s"]);
        health.tick();
        health.api_answered();
        assert_eq!((health.sick().len(), health.unready().len()), (0, 0));
    }
}
