//! Graphs that fail and are undone; suspend, resume, cancel and deletion while that goes on; and that nothing is left.

use std::time::Duration;

use anyhow::Result;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};
use taskgraph::api::{GraphPhase, TaskGraph, TaskPhase};

use crate::{
    control::nothing_is_left,
    fixture::{Fixture, container, task, task_with},
    support::{
        Play,
        namespace::{condition, finished, holds, status, task as task_status},
    },
};

/// reserve → charge → ship, each undone, and a `finally`; ship fails.
fn order() -> Value {
    let undo = |retries: u32| json!({"compensate": {"container": container(), "retry": {"limit": retries, "backoff": {"initial": "50ms"}}}});
    let mut charge = task_with("charge", &["reserve"], undo(1));
    charge["compensate"]["container"]["env"] =
        json!([{"name": "PAYMENT", "value": "${{ tasks.charge.outputs.payment }}"}]);
    json!({
        "tasks": [task_with("reserve", &[], undo(0)), charge, task_with("ship", &["charge"], undo(0))],
        "finally": [task("tidy", &[])],
    })
}

/// Shipping fails; the rest does as `other` says.
fn shipping_fails(
    other: impl Fn(&str, u32) -> Option<Play> + Send + Sync + 'static,
) -> impl Fn(&str, u32) -> Play + Send + Sync {
    move |task, attempt| {
        other(task, attempt).unwrap_or_else(|| match task {
            "charge" => Play::succeeds(r#"{"payment": "p-17"}"#),
            "ship" => Play::fails(3),
            _ => Play::succeeds(""),
        })
    }
}

fn undone(graph: &TaskGraph, name: &str) -> Option<TaskPhase> {
    Some(task_status(graph, name)?.compensation?.phase)
}

fn is_compensating(graph: &TaskGraph) -> bool {
    status(graph).phase == Some(GraphPhase::Compensating)
}

#[tokio::test]
async fn what_succeeded_is_undone_in_reverse() -> Result<()> {
    let fixture = Fixture::new(
        "saga",
        shipping_fails(|task, attempt| (task == "undo:charge" && attempt == 1).then(|| Play::fails(1))),
    )
    .await?;
    let graph = fixture.run("g", order()).await?;
    assert_eq!(finished(&graph), Some("Failed"));
    assert_eq!(
        [undone(&graph, "reserve"), undone(&graph, "charge"), undone(&graph, "ship")],
        [Some(TaskPhase::Succeeded), Some(TaskPhase::Succeeded), None]
    );
    let charge = task_status(&graph, "charge").and_then(|task| task.compensation).expect("it was undone");
    assert_eq!((charge.attempts, charge.failed_attempts.len()), (2, 1));
    assert_eq!(status(&graph).progress.as_deref(), Some("4/4"));
    let events: Vec<_> = status(&graph).history.into_iter().map(|entry| entry.event).collect();
    assert_eq!(events, ["Accepted", "Compensating", "Finished"]);
    let jobs = fixture.namespace.jobs().list(&ListParams::default().labels("taskgraph.dev/role=compensation")).await?;
    assert_eq!(jobs.items.len(), 3);
    assert!(serde_json::to_string(&jobs.items)?.contains("p-17"), "the refund reads what the charge left");
    fixture.judge().await?;
    nothing_is_left(&fixture).await
}

#[tokio::test]
async fn a_graph_that_goes_well_undoes_nothing() -> Result<()> {
    let fixture = Fixture::new("saga-well", |task, _| match task {
        "charge" => Play::succeeds(r#"{"payment": "p-17"}"#),
        _ => Play::succeeds(""),
    })
    .await?;
    let graph = fixture.run("g", order()).await?;
    assert_eq!(finished(&graph), Some("Complete"));
    assert_eq!(fixture.namespace.jobs().list(&ListParams::default()).await?.items.len(), 4);
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn a_failed_compensation_is_told_and_the_others_run() -> Result<()> {
    let fixture =
        Fixture::new("saga-fails", shipping_fails(|task, _| (task == "undo:charge").then(|| Play::fails(1)))).await?;
    let graph = fixture.run("g", order()).await?;
    let message = condition(&graph, "Failed").map(|condition| condition.message.clone()).unwrap_or_default();
    assert!(message.contains("ship") && message.contains("compensation failed: charge"), "{message}");
    assert_eq!(undone(&graph, "reserve"), Some(TaskPhase::Succeeded));
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn suspend_and_cancel_while_compensating() -> Result<()> {
    let slow = |task: &str, _| (task == "undo:charge").then(|| Play::succeeds("").held());
    let fixture = Fixture::new("saga-suspend", shipping_fails(slow)).await?;
    fixture.namespace.create("g", order()).await?;
    fixture.until_job("undo:charge", 1).await;
    fixture.namespace.edit("g", json!({"desiredState": "Suspend"})).await?;
    fixture.namespace.until("g", "suspended", |graph| holds(graph, "Suspended")).await;
    fixture.player.let_end();
    let waits = |graph: &TaskGraph| holds(graph, "Suspended") && undone(graph, "charge") == Some(TaskPhase::Succeeded);
    let graph = fixture.namespace.until("g", "suspended", waits).await;
    assert_eq!(undone(&graph, "reserve"), Some(TaskPhase::Ready));
    fixture.namespace.edit("g", json!({"desiredState": "Run"})).await?;
    fixture.until_job("undo:reserve", 1).await;
    // too late: what is under way is not called off
    fixture.namespace.edit("g", json!({"desiredState": "Cancel"})).await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(condition(&graph, "Failed").map(|condition| condition.reason.as_str()), Some("TasksFailed"));
    assert_eq!(undone(&graph, "reserve"), Some(TaskPhase::Succeeded));
    fixture.judge().await?;
    nothing_is_left(&fixture).await
}

#[tokio::test]
async fn a_cancelled_graph_is_undone() -> Result<()> {
    let fixture = Fixture::new(
        "saga-cancel",
        shipping_fails(|task, _| (task == "ship").then(|| Play::runs_on().lingering(Duration::from_millis(300)))),
    )
    .await?;
    fixture.namespace.create("g", order()).await?;
    fixture.until_pod_runs("ship").await;
    fixture.namespace.edit("g", json!({"desiredState": "Cancel"})).await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(condition(&graph, "Failed").map(|condition| condition.reason.as_str()), Some("Cancelled"));
    assert_eq!(
        [undone(&graph, "reserve"), undone(&graph, "charge"), undone(&graph, "ship")],
        [Some(TaskPhase::Succeeded), Some(TaskPhase::Succeeded), None]
    );
    fixture.judge().await?;
    nothing_is_left(&fixture).await
}

#[tokio::test]
async fn a_graph_deleted_while_compensating_leaves_nothing() -> Result<()> {
    let endless =
        |task: &str, _| (task == "undo:charge").then(|| Play::runs_on().lingering(Duration::from_millis(200)));
    let fixture = Fixture::new("saga-delete", shipping_fails(endless)).await?;
    fixture.namespace.create("g", order()).await?;
    fixture.until_pod_runs("undo:charge").await;
    fixture.namespace.until("g", "compensating", is_compensating).await;
    nothing_is_left(&fixture).await?;
    let undone = fixture.auditor.judge().await?;
    let reserve = |one: &&crate::support::sight::Sighting| matches!(&one.object, crate::support::sight::Object::Job(key) if key.role == "compensation" && key.task == "reserve");
    assert_eq!(undone.iter().filter(reserve).count(), 0, "deleting a graph undoes nothing");
    Ok(())
}

/// The graph in the first block of YAML of a document, or in an example.
fn graph_of(file: &str) -> Result<TaskGraph> {
    let text = std::fs::read_to_string(format!("{}/{file}", env!("CARGO_MANIFEST_DIR")))?;
    let block = text.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next());
    Ok(serde_saphyr::from_str(block.unwrap_or(&text))?)
}

/// What users read goes as it says; what the containers do is played.
#[tokio::test]
async fn the_document_and_the_examples_go_as_they_say() -> Result<()> {
    let fixture = Fixture::new("saga-doc", |task, attempt| match (task, attempt) {
        ("reserve-inventory", _) => Play::succeeds(r#"{"reservation": "R-17"}"#),
        ("charge-payment", _) => Play::succeeds(r#"{"payment": "P-4", "amount": 59.8}"#),
        ("undo:charge-payment", 1) | ("ship-order", _) => Play::fails(1),
        _ => Play::succeeds(""),
    })
    .await?;
    for (file, name) in [("docs/sagas.md", "order"), ("examples/orders/failing.yaml", "order-failing")] {
        let graph = graph_of(file)?;
        fixture.namespace.graphs().create(&PostParams::default(), &graph).await?;
        let graph = fixture.namespace.until_finished(name).await;
        let undo = |task: &str| task_status(&graph, task).and_then(|task| task.compensation);
        let charge = undo("charge-payment").expect("it was undone");
        assert_eq!((charge.phase, charge.attempts), (TaskPhase::Succeeded, 2), "{file}");
        assert_eq!(undo("reserve-inventory").map(|undo| undo.phase), Some(TaskPhase::Succeeded), "{file}");
        assert!(undo("ship-order").is_none(), "{file}");
    }
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn the_example_that_goes_well_undoes_nothing() -> Result<()> {
    let fixture = Fixture::new("saga-complete", |task, _| match task {
        "reserve-inventory" => Play::succeeds(r#"{"reservation": "R-17"}"#),
        "charge-payment" => Play::succeeds(r#"{"payment": "P-4", "amount": 59.8}"#),
        _ => Play::succeeds(r#"{"shipment": "S-1"}"#),
    })
    .await?;
    let graph = graph_of("examples/orders/complete.yaml")?;
    fixture.namespace.graphs().create(&PostParams::default(), &graph).await?;
    let graph = fixture.namespace.until_finished("order-complete").await;
    assert_eq!((finished(&graph), status(&graph).progress.as_deref()), (Some("Complete"), Some("4/4")));
    assert!(status(&graph).tasks.iter().all(|task| task.compensation.is_none()));
    fixture.judge().await?;
    Ok(())
}
