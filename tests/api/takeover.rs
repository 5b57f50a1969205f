//! The operator is replaced, and what it stands on is restarted, in mid-run: the graph goes on, and nothing is doubled.

use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::{Value, json};
use taskgraph::api::TaskPhase;

use crate::{
    fixture::{Fixture, task, task_with},
    support::{
        ControlPlane, Operator, Play,
        namespace::{finished, outcome, status},
        operator::Settings,
        proxy::Fate,
    },
    told,
};

/// One task after the other, one of which fails once, and a `finally`.
fn spec() -> Value {
    let retry = json!({"retry": {"limit": 1, "backoff": {"initial": "20ms"}}});
    json!({
        "tasks": [task("t0", &[]), task("t1", &["t0"]), task_with("t2", &["t1"], retry), task("t3", &["t2"]), task("t4", &["t3"])],
        "finally": [task("end", &[])],
    })
}

fn script(task: &str, attempt: u32) -> Play {
    let play = if (task, attempt) == ("t2", 1) { Play::fails(1) } else { Play::succeeds("") };
    play.after(Duration::from_millis(400))
}

/// The graph ended as it does when nothing happens to it.
async fn went_on(fixture: &Fixture) -> Result<()> {
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(finished(&graph), Some("Complete"));
    let line: Vec<_> = outcome(&graph).into_iter().map(|(name, phase, attempts, ..)| (name, phase, attempts)).collect();
    let expected = [("t0", 1), ("t1", 1), ("t2", 2), ("t3", 1), ("t4", 1), ("end", 1)];
    assert_eq!(line, expected.map(|(name, attempts)| (name.to_owned(), TaskPhase::Succeeded, attempts)));
    assert_eq!(status(&graph).history.len(), 2, "accepted and finished, once: {:?}", status(&graph).history);
    told::until_told(fixture, &graph).await?;
    told::told_once(fixture, &graph).await?;
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn another_operator_takes_over_at_once_from_one_that_ended_in_order() -> Result<()> {
    let mut fixture = Fixture::new("upgrade", script).await?;
    fixture.namespace.create("g", spec()).await?;
    for (task, attempt, identity) in [("t1", 1, "second"), ("t2", 2, "third")] {
        fixture.until_job(task, attempt).await;
        let ended = fixture.operator.terminate().await?;
        assert!(ended.success(), "{ended}");
        let begin = Instant::now();
        fixture.start_as(identity).await?;
        let held = |lease: &Lease| {
            let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
            holder == Some(identity)
        };
        fixture.namespace.until_all::<Lease>("taken over", |leases| leases.iter().any(held)).await;
        // one that was not given back stands for a minute
        assert!(begin.elapsed() < Duration::from_secs(50), "{:?}", begin.elapsed());
    }
    went_on(&fixture).await
}

#[tokio::test]
async fn the_api_server_and_etcd_restart_in_mid_run() -> Result<()> {
    let control_plane = ControlPlane::own();
    let fixture = Fixture::on(control_plane, "restarts", script).await?;
    fixture.namespace.create("g", spec()).await?;
    fixture.until_job("t1", 1).await;
    control_plane.restart("kube-apiserver", Duration::from_secs(3)).await?;
    fixture.until_job("t3", 1).await;
    control_plane.restart("etcd", Duration::from_secs(3)).await?;
    went_on(&fixture).await?;
    control_plane.stop();
    Ok(())
}

#[tokio::test]
async fn an_operator_that_is_told_to_end_before_it_saw_a_graph_ends() -> Result<()> {
    let mut fixture = Fixture::new("early-end", script).await?;
    // its Lease is given back
    fixture.operator.terminate().await?;
    // the watch of graphs never begins, all others do
    fixture.proxy.inject(|call| (call.resource == "taskgraphs").then_some(Fate::Refused(503)));
    let settings = Settings::new(fixture.proxy.kubeconfig(), &fixture.namespace.name);
    fixture.operator = Operator::start(Settings { identity: "early".into(), ..settings })?;
    let held = |lease: &Lease| lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()) == Some("early");
    fixture.namespace.until_all::<Lease>("taken", |leases| leases.iter().any(held)).await;
    assert!(fixture.operator.terminate().await?.success());
    Ok(())
}
