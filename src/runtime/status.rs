//! What the operator knows of itself and of what it stands on: `/status`, and the plain words in `/readyz`.
//!
//! The fields of [`Report`] are stable: programs may read them.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use kube::{Client, core::Status, runtime::watcher::Error};
use parking_lot::Mutex;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::telemetry::chain;

/// The oldest Kubernetes that the operator works with: 1.33.
const OLDEST: (u32, u32) = (1, 33);
/// How often the version of a cluster is asked for that is too old or does not say.
const VERSION_PERIOD: Duration = Duration::from_secs(15);

/// What `/status` answers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Version of the operator.
    pub version: &'static str,
    /// Seconds since it was started.
    pub uptime_seconds: u64,
    /// Whether `/healthz` is content.
    pub healthy: bool,
    /// Whether `/readyz` is content.
    pub ready: bool,
    /// What is wrong, in plain words; as `/healthz` and `/readyz` say it.
    pub problems: Vec<String>,
    /// What is wrong with a part and in the way of nothing, as `/readyz` says it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The API server.
    pub api_server: ApiServer,
    /// Who works. Absent before the Lease was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseReport>,
    /// The caches, by kind.
    pub watches: BTreeMap<&'static str, Watch>,
    /// What waits and what runs.
    pub work: Work,
}

/// The API server, as seen from here.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiServer {
    /// Whether it answered lately.
    pub reachable: bool,
    /// Seconds since it answered something. Absent: it never did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_answer_seconds: Option<u64>,
    /// Version of Kubernetes, as `1.34`. Absent: not known yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<String>,
}

/// One cache.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Watch {
    /// Whether everything was listed once.
    pub synced: bool,
    /// Seconds since the watch brought something. In a quiet cluster that is long ago.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_event_seconds: Option<u64>,
    /// How old the cache may be at most: seconds since the API server sent something, or began to answer a watch (it ends
    /// each after five minutes, and the next one says what was missed).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<u64>,
    /// Why it does not work now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What waits and what runs. A replica that stands by has neither.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Work {
    /// Tasks that have a Job.
    pub tasks_running: i64,
    /// Queue depth: tasks that may start and wait for a slot.
    pub tasks_ready: i64,
    /// Milliseconds from the end of the pod that was seen last to the decision about what follows. Absent: none was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_millis: Option<u64>,
    /// Seconds since the main loop went round; it does every five.
    pub main_loop_seconds: u64,
}

/// The Lease, as last seen.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseReport {
    /// Who holds it. Absent: nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// Whether that is this replica.
    pub leading: bool,
    /// Seconds since the record was first seen as it is: since it was renewed, give or take a fifth of its duration.
    pub age_seconds: u64,
    /// Why it is not read or written now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What the elector shows of the Lease. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Shown(Arc<Mutex<ShownLease>>);

#[derive(Debug, Default)]
struct ShownLease {
    record: Option<(Option<String>, Instant)>,
    leading: bool,
    error: Option<(String, Option<&'static str>)>,
}

impl Shown {
    /// The record is held by `holder`, and has been as it is since `since`.
    pub fn see(&self, holder: Option<&str>, since: Instant) {
        let holder = holder.filter(|holder| !holder.is_empty()).map(str::to_owned);
        self.0.lock().record = Some((holder, since));
    }

    /// Whether this replica leads.
    pub fn lead(&self, leading: bool) {
        self.0.lock().leading = leading;
    }

    /// A round worked, or did not: why, and what somebody has to do about it.
    pub fn round(&self, error: Option<(String, Option<&'static str>)>) {
        self.0.lock().error = error;
    }

    /// What somebody has to mend.
    pub fn problem(&self) -> Option<String> {
        let shown = self.0.lock();
        let (error, cure) = shown.error.as_ref()?;
        cure.map(|cure| format!("{cure}: {error}"))
    }

    /// How it stands.
    pub fn report(&self) -> Option<LeaseReport> {
        let shown = self.0.lock();
        let (holder, since) = shown.record.clone()?;
        let error = shown.error.as_ref().map(|(error, _)| error.clone());
        Some(LeaseReport { holder, leading: shown.leading, age_seconds: since.elapsed().as_secs(), error })
    }
}

/// Kinds that are watched, each with the last part of its path.
#[derive(Clone, Debug, Default)]
pub struct Watches(Arc<Mutex<BTreeMap<&'static str, Seen>>>);

#[derive(Clone, Debug, Default)]
struct Seen {
    synced: bool,
    event: Option<Instant>,
    begun: Option<Instant>,
    error: Option<Failure>,
}

#[derive(Clone, Debug)]
struct Failure {
    text: String,
    /// Somebody has to do something: it is no passing trouble.
    plain: Option<String>,
}

/// The plural names, as in paths, of the kinds that are watched.
const PLURALS: [(&str, &str); 5] = [
    ("taskgraphs", "TaskGraph"),
    ("tasktemplates", "TaskTemplate"),
    ("clustertasktemplates", "ClusterTaskTemplate"),
    ("jobs", "Job"),
    ("pods", "Pod"),
];

impl Watches {
    /// The watch of a kind brought something.
    pub fn seen(&self, kind: &str) {
        self.change(kind, |seen| {
            seen.event = Some(Instant::now());
            seen.error = None;
        });
    }

    /// All objects of a kind were listed.
    pub fn synced(&self, kind: &str) {
        self.change(kind, |seen| seen.synced = true);
    }

    /// The API server began to answer a watch. `path`: of the request. What was wrong is not any more, though where nothing
    /// happens the watch has nothing to bring.
    pub fn begun(&self, path: &str) {
        let plural = path.rsplit('/').next().unwrap_or_default();
        if let Some((_, kind)) = PLURALS.iter().find(|(name, _)| *name == plural) {
            self.change(kind, |seen| {
                seen.begun = Some(Instant::now());
                seen.error = None;
            });
        }
    }

    /// The watch of a kind failed. True: what is wrong was not known before.
    pub fn failed(&self, kind: &str, error: &Error) -> bool {
        self.fail(kind, &Failure { text: chain(error), plain: plain(kind, error) })
    }

    /// The watch of a kind failed that the operator can do without: nobody has to mend it.
    pub fn passed_over(&self, kind: &str, error: &Error) {
        self.fail(kind, &Failure { text: chain(error), plain: None });
    }

    fn fail(&self, kind: &str, failure: &Failure) -> bool {
        let mut is_new = true;
        self.change(kind, |seen| {
            let known = seen.error.replace(failure.clone());
            is_new = known.is_none_or(|known| known.text != failure.text);
        });
        is_new
    }

    /// What somebody has to mend about one kind.
    pub fn problem_of(&self, kind: &str) -> Option<String> {
        self.0.lock().get(kind)?.error.as_ref()?.plain.clone()
    }

    /// What somebody has to mend, in plain words.
    pub fn problems(&self) -> Vec<String> {
        self.0.lock().values().filter_map(|seen| seen.error.as_ref()?.plain.clone()).collect()
    }

    /// How all of them are.
    pub fn report(&self) -> BTreeMap<&'static str, Watch> {
        let since = |time: Option<Instant>| time.map(|time| time.elapsed().as_secs());
        let watch = |seen: &Seen| Watch {
            synced: seen.synced,
            last_event_seconds: since(seen.event),
            age_seconds: since(seen.event.max(seen.begun)),
            error: seen.error.as_ref().map(|failure| failure.text.clone()),
        };
        self.0.lock().iter().map(|(kind, seen)| (*kind, watch(seen))).collect()
    }

    fn change(&self, kind: &str, change: impl FnOnce(&mut Seen)) {
        if let Some((_, kind)) = PLURALS.iter().find(|(_, name)| *name == kind) {
            change(self.0.lock().entry(kind).or_default());
        }
    }
}

/// What somebody has to do, where an error of a watch says that; the API server being away passes by itself.
fn plain(kind: &str, error: &Error) -> Option<String> {
    let status = answer_of(error)?;
    match status.code {
        404 => Some(format!(
            "the cluster has no kind {kind}: install the chart taskgraph-crds (it is looked for again and again)"
        )),
        401 => Some(format!("the API server does not know the operator's service account: {}", status.message)),
        403 => Some(format!("the operator lacks rights, give it the role of the chart: {}", status.message)),
        _ => None,
    }
}

/// What the API server answered to a watch that failed, if it did.
pub fn answer_of(error: &Error) -> Option<&Status> {
    match error {
        Error::InitialListFailed(kube::Error::Api(status))
        | Error::WatchStartFailed(kube::Error::Api(status))
        | Error::WatchFailed(kube::Error::Api(status))
        | Error::WatchError(status) => Some(status),
        _ => None,
    }
}

/// The version of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Kubernetes(Arc<Mutex<Option<(u32, u32)>>>);

impl Kubernetes {
    /// The version, as `1.34`.
    pub fn version(&self) -> Option<String> {
        self.0.lock().map(|(major, minor)| format!("{major}.{minor}"))
    }

    /// What is wrong with it.
    pub fn problem(&self) -> Option<String> {
        let (major, minor) = (*self.0.lock())?;
        ((major, minor) < OLDEST).then(|| {
            format!("the cluster runs Kubernetes {major}.{minor}: taskgraph needs {}.{} or newer", OLDEST.0, OLDEST.1)
        })
    }

    /// Asks until the cluster is new enough, or `stop`.
    pub async fn watch(self, client: Client, stop: CancellationToken) {
        self.follow(client, VERSION_PERIOD, stop).await;
    }

    async fn follow(self, client: Client, period: Duration, stop: CancellationToken) {
        let mut told = false;
        loop {
            if let Ok(info) = client.apiserver_version().await
                && let Some(version) = read_version(&info.major, &info.minor)
            {
                *self.0.lock() = Some(version);
            }
            match (self.problem(), self.version()) {
                (None, Some(kubernetes)) => return info!(kubernetes, "the cluster is new enough"),
                (Some(problem), _) if !std::mem::replace(&mut told, true) => warn!("{problem}"),
                _ => {}
            }
            tokio::select! {
                () = tokio::time::sleep(period) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

/// Some clouds write `34+`.
fn read_version(major: &str, minor: &str) -> Option<(u32, u32)> {
    let number = |text: &str| text.trim_end_matches(|end: char| !end.is_ascii_digit()).parse().ok();
    Some((number(major)?, number(minor)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cluster that is upgraded while it is asked.
    #[tokio::test]
    async fn an_upgraded_cluster_is_noticed() {
        let asked = Arc::new(Mutex::new(0));
        let count = Arc::clone(&asked);
        let service = tower::service_fn(move |_: http::Request<kube::client::Body>| {
            let mut asked = count.lock();
            *asked += 1;
            // away, too old, new enough
            let (code, minor) = [(503, ""), (200, "32"), (200, "33")][(*asked - 1_usize).min(2)];
            let info = k8s_openapi::apimachinery::pkg::version::Info {
                major: "1".into(),
                minor: minor.into(),
                ..Default::default()
            };
            let body = serde_json::to_vec(&info).unwrap();
            let answer = http::Response::builder().status(code).body(kube::client::Body::from(body)).unwrap();
            async move { Ok::<_, tower::BoxError>(answer) }
        });
        let kubernetes = Kubernetes::default();
        let (client, stop) = (Client::new(service, "x"), CancellationToken::new());
        let watch = tokio::spawn(kubernetes.clone().follow(client, Duration::from_millis(50), stop));
        while *asked.lock() < 2 || kubernetes.version().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(kubernetes.version().as_deref(), Some("1.32"));
        assert!(kubernetes.problem().is_some());
        // it ends once the cluster is new enough
        watch.await.unwrap();
        assert_eq!((kubernetes.problem(), kubernetes.version().as_deref()), (None, Some("1.33")));
    }

    fn refused(code: u16) -> Error {
        let status = Status { code, message: "pods is forbidden".into(), ..Status::default() };
        Error::InitialListFailed(kube::Error::Api(status.boxed()))
    }

    #[test]
    fn what_somebody_has_to_mend_is_told_until_it_is_mended() {
        let watches = Watches::default();
        for (code, told) in [
            (404, "the cluster has no kind Pod: install the chart taskgraph-crds (it is looked for again and again)"),
            (403, "the operator lacks rights, give it the role of the chart: pods is forbidden"),
            (401, "the API server does not know the operator's service account: pods is forbidden"),
        ] {
            assert!(watches.failed("Pod", &refused(code)), "it is new");
            assert!(!watches.failed("Pod", &refused(code)), "told once");
            assert_eq!(watches.problems(), [told]);
            watches.seen("Pod");
            assert_eq!(watches.problems(), [""; 0]);
            // one that had brought a list goes on from there, and may have nothing to bring
            watches.failed("Pod", &refused(code));
            watches.begun("/api/v1/pods");
            assert_eq!(watches.problems(), [""; 0]);
        }
        watches.failed("Pod", &refused(403));
        watches.passed_over("Pod", &refused(403));
        assert_eq!(watches.problems(), [""; 0], "the operator does without");
        assert!(watches.report()["Pod"].error.is_some());
        watches.failed("Pod", &refused(500));
        assert_eq!(watches.problems(), [""; 0], "it passes by itself");
        assert!(watches.report()["Pod"].error.is_some());
    }

    #[test]
    fn a_watch_is_known_by_its_path() {
        let watches = Watches::default();
        for path in ["/apis/taskgraph.dev/v1alpha1/taskgraphs", "/api/v1/namespaces/x/pods", "/api/v1/nodes"] {
            watches.begun(path);
        }
        assert_eq!(watches.report().into_keys().collect::<Vec<_>>(), ["Pod", "TaskGraph"]);
        assert_eq!(watches.report()["Pod"].age_seconds, Some(0));
        assert_eq!(watches.report()["Pod"].last_event_seconds, None);
    }

    #[test]
    fn old_clusters_are_told() {
        for (minor, problem) in [("32", true), ("33", false), ("34+", false), ("4", true)] {
            let kubernetes = Kubernetes(Arc::new(Mutex::new(read_version("1", minor))));
            assert_eq!(kubernetes.problem().is_some(), problem, "{minor}");
        }
        assert_eq!(Kubernetes::default().problem(), None, "not known");
        assert_eq!(read_version("", "x"), None);
        let old = Kubernetes(Arc::new(Mutex::new(Some((1, 32)))));
        assert_eq!(old.problem().as_deref(), Some("the cluster runs Kubernetes 1.32: taskgraph needs 1.33 or newer"));
    }
}
