//! The decisions as tables; the elector against an API server in memory that checks resourceVersions.

use std::{convert::Infallible, sync::Arc};

use axum::body::Body as Answer;
use futures::{FutureExt as _, Stream, stream};
use http::{Method, Request, Response};
use jiff::Timestamp;
use k8s_openapi::{api::coordination::v1::LeaseSpec, apimachinery::pkg::apis::meta::v1::MicroTime};
use kube::{Client, client::Body};
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    record::{Decision, decide, record},
    *,
};

const SECOND: Duration = Duration::from_secs(1);

fn held_by(holder: &str, seconds: i32) -> LeaseSpec {
    LeaseSpec { holder_identity: Some(holder.into()), lease_duration_seconds: Some(seconds), ..LeaseSpec::default() }
}

#[test]
fn decisions() {
    let now = Instant::now();
    let ago = |seconds: u64| now.checked_sub(SECOND * u32::try_from(seconds).unwrap()).unwrap();
    let other = held_by("other", 15);
    let endless = LeaseSpec { lease_duration_seconds: None, ..held_by("other", 0) };
    for (record, observed_at, expected) in [
        (None, now, Decision::Acquire),
        (Some(&LeaseSpec::default()), now, Decision::Acquire),
        (Some(&held_by("", 15)), now, Decision::Acquire),
        (Some(&held_by("me", 15)), now, Decision::Renew),
        (Some(&held_by("me", 15)), ago(100), Decision::Renew),
        (Some(&other), now, Decision::Wait(SECOND * 15)),
        (Some(&other), ago(14), Decision::Wait(SECOND)),
        (Some(&other), ago(15), Decision::Acquire),
        (Some(&other), ago(100), Decision::Acquire),
        // seen "later than now": the clock of another thread; never an underflow
        (Some(&other), now + SECOND, Decision::Wait(SECOND * 15)),
        (Some(&endless), now, Decision::Acquire),
        (Some(&held_by("other", -1)), now, Decision::Acquire),
    ] {
        assert_eq!(decide(record, observed_at, now, "me"), expected, "{record:?}");
    }
}

#[test]
fn wall_clocks_decide_nothing() {
    let now = Instant::now();
    for renewed in ["2000-01-01T00:00:00Z", "2100-01-01T00:00:00Z"] {
        let record = LeaseSpec { renew_time: Some(MicroTime(renewed.parse().unwrap())), ..held_by("other", 15) };
        assert_eq!(decide(Some(&record), now, now, "me"), Decision::Wait(SECOND * 15));
    }
}

fn config(identity: &str, duration: Duration) -> Config {
    Config { namespace: "default".into(), shard: 0, identity: identity.into(), duration }
}

#[test]
fn records() {
    let time = |text: &str| text.parse::<Timestamp>().unwrap();
    let (first, second, third) =
        (time("2026-01-01T00:00:00Z"), time("2026-01-01T00:00:05Z"), time("2026-01-01T00:00:10Z"));
    let created = record(None, Decision::Acquire, &config("a", SECOND * 15), first);
    assert_eq!((created.lease_transitions, created.lease_duration_seconds), (Some(0), Some(15)));
    let renewed = record(Some(&created), Decision::Renew, &config("a", SECOND * 15), second);
    assert_eq!(renewed.acquire_time, Some(MicroTime(first)));
    assert_eq!((renewed.renew_time.clone(), renewed.lease_transitions), (Some(MicroTime(second)), Some(0)));
    let taken = record(Some(&renewed), Decision::Acquire, &config("b", SECOND * 2), third);
    assert_eq!(taken.holder_identity.as_deref(), Some("b"));
    assert_eq!(
        (taken.acquire_time, taken.lease_transitions, taken.lease_duration_seconds),
        (Some(MicroTime(third)), Some(1), Some(2))
    );
}

#[test]
fn a_holder_stops_before_another_may_start() {
    for seconds in [2, 15, 600] {
        let config = config("a", SECOND * seconds);
        // sent at 0, seen by others at 0 at the earliest; two renewals that hang still leave a third
        assert!(config.validity() < config.duration);
        assert!(config.period() + 2 * config.call_timeout() < config.validity());
    }
}

/// One Lease in memory.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Store>>);

#[derive(Default)]
struct Store {
    lease: Option<Value>,
    version: u64,
    broken: bool,
    refuses_watches: bool,
    /// So many writes are done just after another one was.
    overtaken: usize,
}

impl Server {
    fn client(&self) -> Client {
        let server = self.clone();
        Client::new(
            tower::service_fn(move |request: Request<Body>| {
                let server = server.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let watches = head.uri.query().is_some_and(|query| query.contains("watch="));
                    if watches && !server.0.lock().refuses_watches {
                        let changes = Answer::from_stream(server.changes());
                        return Ok(Response::new(changes));
                    }
                    let body = body.collect_bytes().await.unwrap();
                    let (code, answer) = server.0.lock().answer(&head.method, &body);
                    Ok::<_, Infallible>(
                        Response::builder().status(code).body(Answer::from(answer.to_string())).unwrap(),
                    )
                }
            }),
            "default",
        )
    }

    /// What a watch tells.
    fn changes(&self) -> impl Stream<Item = Result<String, Infallible>> + use<> {
        let version = self.0.lock().version;
        stream::unfold((self.clone(), version), |(server, seen)| async move {
            loop {
                let version = server.0.lock().version;
                let lease = server.lease();
                if version != seen {
                    let line = format!("{}\n", json!({"type": "MODIFIED", "object": lease}));
                    return Some((Ok(line), (server, version)));
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    }

    fn lease(&self) -> Value {
        self.0.lock().lease.clone().unwrap_or_default()
    }

    fn break_down(&self, broken: bool) {
        self.0.lock().broken = broken;
    }
}

impl Store {
    fn answer(&mut self, method: &Method, body: &[u8]) -> (u16, Value) {
        let refuse = |code: u16| {
            let reason = if code == 404 { "NotFound" } else { "other" };
            (code, json!({"kind": "Status", "status": "Failure", "code": code, "message": "refused", "reason": reason}))
        };
        if self.broken {
            return refuse(500);
        }
        if *method == Method::PUT && self.overtaken > 0 {
            self.overtaken -= 1;
            self.version += 1;
            if let Some(lease) = &mut self.lease {
                lease["metadata"]["resourceVersion"] = self.version.to_string().into();
            }
        }
        let version = |lease: &Value| lease["metadata"]["resourceVersion"].clone();
        match (method, &self.lease) {
            (&Method::GET, Some(lease)) => return (200, lease.clone()),
            (&Method::GET | &Method::PUT, None) => return refuse(404),
            (&Method::POST, None) => {}
            (&Method::PUT, Some(lease)) if version(lease) == version(&serde_json::from_slice(body).unwrap()) => {}
            _ => return refuse(409),
        }
        self.version += 1;
        let mut lease: Value = serde_json::from_slice(body).unwrap();
        lease["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.lease = Some(lease.clone());
        (if method == Method::POST { 201 } else { 200 }, lease)
    }
}

struct Replica {
    leadership: Leadership,
    leader: Gauge,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

fn start(server: &Server, identity: &str, duration: Duration) -> Replica {
    let (leader, stop) = (Gauge::default(), CancellationToken::new());
    let (leadership, elector) = elect(server.client(), config(identity, duration), leader.clone());
    let ended = tokio::spawn(elector.run(stop.clone()));
    Replica { leadership, leader, stop, ended }
}

/// Panics instead of waiting for ever.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SECOND * 10, future).await.expect("it happens within seconds")
}

#[tokio::test]
async fn one_leads_and_hands_over_when_it_stops() {
    let server = Server::default();
    let lasts = SECOND * 3;
    let first = start(&server, "first", lasts);
    assert_eq!(soon(first.leadership.changed(None)).await, Some(1));
    let second = start(&server, "second", lasts);
    // longer than the Lease lasts: it is renewed
    tokio::time::sleep(lasts + SECOND).await;
    assert!(first.leadership.holds() && !second.leadership.holds());
    assert_eq!((first.leader.get(), second.leader.get()), (1, 0));
    assert!(server.0.lock().version > 3, "it was renewed");

    first.stop.cancel();
    soon(first.ended).await.unwrap();
    assert!(!first.leadership.holds());
    assert_eq!(first.leader.get(), 0);
    let released = Instant::now();
    assert_eq!(soon(second.leadership.changed(None)).await, Some(1));
    assert!(released.elapsed() < lasts / 2, "a released Lease need not expire");
    assert_eq!(server.lease()["spec"]["holderIdentity"], "second");
    assert_eq!(server.lease()["spec"]["leaseTransitions"], 1);
    second.stop.cancel();
    soon(second.ended).await.unwrap();
    assert_eq!(server.lease()["spec"]["holderIdentity"], "");
}

#[tokio::test]
async fn a_holder_that_cannot_renew_stops_by_itself_and_comes_back() {
    let server = Server::default();
    let lasts = SECOND * 3;
    let replica = start(&server, "a", lasts);
    assert_eq!(soon(replica.leadership.changed(None)).await, Some(1));
    server.break_down(true);
    let broken = Instant::now();
    assert_eq!(soon(replica.leadership.changed(Some(1))).await, None);
    assert!(broken.elapsed() < lasts, "before others may take over");
    server.break_down(false);
    assert_eq!(soon(replica.leadership.changed(None)).await, Some(2), "a new term");
    replica.stop.cancel();
    soon(replica.ended).await.unwrap();
}

#[tokio::test]
async fn validity_ends_without_the_elector() {
    let server = Server::default();
    let (leadership, mut elector) = elect(server.client(), config("frozen", SECOND * 2), Gauge::default());
    elector.round().await;
    assert!(leadership.holds());
    // nobody drives the elector now, as in a process that was stopped
    tokio::time::sleep(SECOND * 2).await;
    assert!(!leadership.holds());
    assert_eq!(leadership.changed(Some(1)).now_or_never(), Some(None));
}

#[tokio::test]
async fn a_process_of_the_same_name_goes_on_at_once() {
    let server = Server::default();
    let minute = SECOND * 60;
    for _ in 0..2 {
        let (leadership, mut elector) = elect(server.client(), config("pod-0", minute), Gauge::default());
        elector.round().await;
        assert!(leadership.holds());
    }
    assert_eq!(server.lease()["spec"]["leaseTransitions"], 0);
    let (leadership, mut elector) = elect(server.client(), config("pod-1", minute), Gauge::default());
    elector.round().await;
    assert!(!leadership.holds());
}

#[tokio::test]
async fn a_write_on_an_old_version_does_not_win() {
    let server = Server::default();
    let (first, mut one) = elect(server.client(), config("one", SECOND * 60), Gauge::default());
    let (second, mut two) = elect(server.client(), config("two", SECOND * 60), Gauge::default());
    one.read().await.unwrap();
    two.read().await.unwrap();
    // both saw that there is none
    one.round().await;
    two.round().await;
    assert!(first.holds() && !second.holds());
    // somebody edits it: the renewal reads again, and goes on in the same term
    server.0.lock().lease.as_mut().unwrap()["metadata"]["resourceVersion"] = "edited".into();
    one.round().await;
    one.round().await;
    assert_eq!(first.term(), Some(1));
    // deleted: made anew
    server.0.lock().lease = None;
    one.round().await;
    one.round().await;
    assert_eq!(first.term(), Some(1));
    assert_eq!(server.lease()["spec"]["holderIdentity"], "one");
}

#[tokio::test]
async fn who_watches_takes_over_at_once_and_who_may_not_a_little_later() {
    for refused in [false, true] {
        let server = Server::default();
        server.0.lock().refuses_watches = refused;
        // read every 2 seconds
        let duration = SECOND * 10;
        let first = start(&server, "first", duration);
        assert_eq!(soon(first.leadership.changed(None)).await, Some(1));
        let second = start(&server, "second", duration);
        tokio::time::sleep(SECOND / 5).await;
        first.stop.cancel();
        soon(first.ended).await.unwrap();
        let released = Instant::now();
        assert_eq!(soon(second.leadership.changed(None)).await, Some(1));
        assert_eq!(released.elapsed() > SECOND, refused, "{:?}", released.elapsed());
        second.stop.cancel();
        soon(second.ended).await.unwrap();
    }
}

/// The renewal that was under way when it was to end is done after it has read the Lease.
#[tokio::test]
async fn a_renewal_that_is_late_does_not_keep_the_lease() {
    for (overtaken, holder) in [(0, ""), (2, ""), (3, "a")] {
        let server = Server::default();
        let replica = start(&server, "a", SECOND * 60);
        assert_eq!(soon(replica.leadership.changed(None)).await, Some(1));
        server.0.lock().overtaken = overtaken;
        replica.stop.cancel();
        soon(replica.ended).await.unwrap();
        assert_eq!(server.lease()["spec"]["holderIdentity"], holder, "{overtaken}");
    }
}

#[tokio::test]
async fn what_somebody_has_to_mend_about_the_lease_is_told() {
    for (code, told) in [
        (403, Some("the operator lacks rights on its Lease, give it the role of the chart: failed to read the Lease")),
        (404, Some("the namespace of the Lease does not exist, see --lease-namespace: failed to write the Lease")),
        (500, None),
    ] {
        let answer = move |request: Request<Body>| async move {
            // what is not there is told when it is read, and not that its namespace is missing
            let reason = if code == 404 { "NotFound" } else { "other" };
            let status =
                json!({"kind": "Status", "status": "Failure", "code": code, "message": "no", "reason": reason});
            drop(request);
            Ok::<_, Infallible>(Response::builder().status(code).body(Answer::from(status.to_string())).unwrap())
        };
        let client = Client::new(tower::service_fn(answer), "default");
        let (_, mut elector) = elect(client, config("a", SECOND), Gauge::default());
        elector.round().await;
        let problem = elector.shown.problem();
        assert!(problem.as_deref().unwrap_or_default().starts_with(told.unwrap_or_default()), "{problem:?}");
        assert_eq!(problem.is_some(), told.is_some());
    }
}

#[tokio::test]
async fn what_is_under_way_ends_with_the_term() {
    let server = Server::default();
    let (leadership, mut elector) = elect(server.client(), config("a", SECOND), Gauge::default());
    let mut begun = false;
    assert_eq!(leadership.fence(async { begun = true }).await, None);
    assert!(!begun, "without a term nothing is begun");
    elector.round().await;
    assert_eq!(leadership.fence(async { 7 }).await, Some(7));
    assert_eq!(soon(leadership.fence(std::future::pending::<()>())).await, None);
    elector.round().await;
    elector.stand_by();
    assert_eq!(leadership.fence(async {}).await, None);
}

#[tokio::test]
async fn a_process_that_was_stopped_sends_nothing_when_it_goes_on() {
    let server = Server::default();
    let (leadership, mut elector) = elect(server.client(), config("a", SECOND), Gauge::default());
    elector.round().await;
    let mut sent = false;
    let work = async {
        // no timer fires meanwhile
        std::thread::sleep(SECOND);
        tokio::task::yield_now().await;
        sent = true;
    };
    assert_eq!(leadership.fence(work).await, None);
    assert!(!sent);
}
