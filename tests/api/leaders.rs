//! Replicas of one operator: the Lease goes from one to the next, in order and not, while graphs run.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use http::Method;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::{Value, json};

use crate::{
    fixture::{Fixture, task, task_with},
    support::{ControlPlane, Operator, Play, Proxy, namespace::finished, operator::Settings, proxy::Fate},
    told,
};

/// Short, so that a test that waits for its end is, too.
const LEASE: Duration = Duration::from_secs(10);
/// So short that what it is to end does not end before.
const SHORTEST: Duration = Duration::from_secs(3);
/// The default of the program.
const DEFAULT: Duration = Duration::from_secs(12);
/// The most that a takeover may take where the Lease is given back: it would stand for longer. 2 s are promised, of a machine
/// with time.
const IN_ORDER: Duration = Duration::from_secs(8);
/// The most where it has to run out, beside the Lease's own duration.
const BESIDE_LEASE: Duration = Duration::from_secs(8);

/// One of them.
struct Replica {
    operator: Operator,
    proxy: Proxy,
}

impl Replica {
    async fn start(fixture: &Fixture, identity: &str, lease: Duration) -> Result<Self> {
        let proxy = Proxy::start(ControlPlane::shared()).await?;
        let settings = Settings::new(proxy.kubeconfig(), &fixture.namespace.name);
        let args = vec!["--lease-duration".to_owned(), format!("{}s", lease.as_secs())];
        let operator = Operator::start(Settings { identity: identity.to_owned(), args, ..settings })?;
        Ok(Self { operator, proxy })
    }

    /// Waits until it holds the Lease.
    async fn leads(&self, fixture: &Fixture) {
        let identity = self.operator.identity();
        let held =
            |lease: &Lease| lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()) == Some(identity);
        fixture.namespace.until_all::<Lease>("taken", |leases| leases.iter().any(held)).await;
    }

    /// Waits until it stands by with full caches.
    async fn stands_by(&self) -> Result<()> {
        let begin = Instant::now();
        while !self.operator.log_tail(usize::MAX).contains("caches filled") {
            ensure!(begin.elapsed() < crate::support::namespace::PATIENCE, "the caches are not filled");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

/// A namespace whose only operators are those that the test starts.
async fn fixture(test: &str, script: impl Fn(&str, u32) -> Play + Send + Sync + 'static) -> Result<Fixture> {
    let mut fixture = Fixture::new(test, script).await?;
    // its Lease is given back
    fixture.operator.terminate().await?;
    Ok(fixture)
}

fn chain(length: usize) -> Vec<Value> {
    let name = |place: usize| format!("t{place}");
    let before = |place: usize| place.checked_sub(1).map(name);
    (0..length).map(|place| task(&name(place), &before(place).iter().map(String::as_str).collect::<Vec<_>>())).collect()
}

fn slow(_: &str, _: u32) -> Play {
    Play::succeeds("").after(Duration::from_millis(400))
}

/// How a leader ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    InOrder,
    Killed,
    Frozen,
}

#[tokio::test]
async fn leaders_change_ten_times_and_nothing_is_lost_or_doubled() -> Result<()> {
    let fixture = fixture("leaders", |task, attempt| match (task, attempt) {
        ("t7", 1) => Play::fails(1).after(Duration::from_millis(300)),
        ("slow", _) => Play::succeeds(r#"{"rows": 3}"#).after(Duration::from_secs(8)),
        _ => slow(task, attempt),
    })
    .await?;
    let mut leader = Replica::start(&fixture, "replica-0", LEASE).await?;
    leader.leads(&fixture).await;
    let mut tasks = chain(24);
    if let Some(retried) = tasks.get_mut(7) {
        *retried = task_with("t7", &["t6"], json!({"retry": {"limit": 1, "backoff": {"initial": "1s"}}}));
    }
    let decision = json!({"name": "choice", "dependsOn": ["slow"],
        "decision": {"branches": [{"name": "many", "when": "tasks.slow.outputs.rows > 2"}, {"name": "few"}]}});
    tasks.extend([task("slow", &[]), decision, task("many", &["choice/many"]), task("few", &["choice/few"])]);
    fixture.namespace.create("g", json!({"tasks": tasks, "finally": [task("end", &[])]})).await?;
    let wide: Vec<Value> = (0..30).map(|place| task(&format!("w{place}"), &[])).collect();
    fixture.namespace.create("wide", json!({"parallelism": 2, "tasks": wide})).await?;

    let mut standby = Replica::start(&fixture, "replica-1", LEASE).await?;
    for change in 1..=10 {
        fixture.until_job(&format!("t{}", 2 * change), 1).await;
        standby.stands_by().await?;
        let end = [End::InOrder, End::Killed, End::InOrder, End::Frozen][change % 4];
        let begin = Instant::now();
        match end {
            End::InOrder => ensure!(leader.operator.terminate().await?.success(), "it ends in order"),
            End::Killed => leader.operator.kill().await?,
            End::Frozen => leader.operator.freeze(),
        }
        standby.leads(&fixture).await;
        println!("change {change}, {end:?}: another leads after {:?}", begin.elapsed());
        let most = if end == End::InOrder { IN_ORDER } else { LEASE + BESIDE_LEASE };
        ensure!(begin.elapsed() < most, "{end:?}: {:?}", begin.elapsed());
        let next = if end == End::Frozen {
            leader.operator.thaw();
            leader
        } else {
            Replica::start(&fixture, &format!("replica-{}", change + 1), LEASE).await?
        };
        (leader, standby) = (standby, next);
    }
    for name in ["g", "wide"] {
        let graph = fixture.namespace.until_finished(name).await;
        assert_eq!(finished(&graph), Some("Complete"));
        told::until_told(&fixture, &graph).await?;
        told::told_once(&fixture, &graph).await?;
    }
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn a_leader_with_the_default_lease_is_killed() -> Result<()> {
    let fixture = fixture("killed", slow).await?;
    let mut leader = Replica::start(&fixture, "first", DEFAULT).await?;
    leader.leads(&fixture).await;
    let standby = Replica::start(&fixture, "second", DEFAULT).await?;
    fixture.namespace.create("g", json!({"tasks": chain(4)})).await?;
    fixture.until_job("t1", 1).await;
    standby.stands_by().await?;
    let begin = Instant::now();
    leader.operator.kill().await?;
    standby.leads(&fixture).await;
    println!("killed: another leads after {:?}", begin.elapsed());
    ensure!(begin.elapsed() < DEFAULT + BESIDE_LEASE, "{:?}", begin.elapsed());
    assert_eq!(finished(&fixture.namespace.until_finished("g").await), Some("Complete"));
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn a_leader_that_was_stopped_beyond_its_lease_writes_nothing_when_it_goes_on() -> Result<()> {
    let fixture = fixture("stopped", slow).await?;
    let first = Replica::start(&fixture, "first", LEASE).await?;
    first.leads(&fixture).await;
    let mut second = Replica::start(&fixture, "second", LEASE).await?;
    fixture.namespace.create("g", json!({"tasks": chain(10)})).await?;
    fixture.until_job("t2", 1).await;
    second.stands_by().await?;
    // with work under way
    first.operator.freeze();
    second.leads(&fixture).await;
    fixture.until_job("t5", 1).await;
    let before = first.proxy.writes().len();
    first.operator.thaw();
    fixture.until_job("t8", 1).await;
    let written: Vec<_> = first.proxy.writes().iter().skip(before).map(ToString::to_string).collect();
    assert_eq!(written, Vec::<String>::new(), "it does not lead");
    // it stands by like any other
    ensure!(second.operator.terminate().await?.success(), "it ends in order");
    first.leads(&fixture).await;
    assert_eq!(finished(&fixture.namespace.until_finished("g").await), Some("Complete"));
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn work_stops_before_a_lease_that_cannot_be_renewed_runs_out() -> Result<()> {
    let fixture = fixture("unrenewed", slow).await?;
    let replica = Replica::start(&fixture, "only", SHORTEST).await?;
    replica.leads(&fixture).await;
    fixture.namespace.create("g", json!({"tasks": chain(12)})).await?;
    fixture.until_job("t1", 1).await;
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = Arc::clone(&broken);
    replica.proxy.inject(move |call| {
        let renews = call.resource == "leases" && call.verb == Method::PUT;
        (renews && is_broken.load(Ordering::Relaxed)).then_some(Fate::Refused(500))
    });
    // the last renewal that went through was sent before now
    let latest = Timestamp::now() + SHORTEST;
    tokio::time::sleep(SHORTEST * 2).await;
    let late: Vec<_> = replica.proxy.writes().into_iter().filter(|write| write.time > latest).collect();
    assert!(late.is_empty(), "{}", late.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    let stopped_at = replica.proxy.writes().len();
    assert!(finished(&fixture.namespace.graphs().get("g").await?).is_none(), "it had more to do");
    broken.store(false, Ordering::Relaxed);
    assert_eq!(finished(&fixture.namespace.until_finished("g").await), Some("Complete"));
    let again = replica.proxy.writes().get(stopped_at).map(|write| write.time);
    assert!(again.is_some_and(|again| again >= latest), "{again:?}");
    fixture.judge().await?;
    Ok(())
}
