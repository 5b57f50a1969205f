//! Suspend, resume, cancel and deletion, in every phase of a graph.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::{
    apps::v1::ControllerRevision,
    batch::v1::Job,
    core::v1::{ConfigMap, Pod},
};
use kube::{ResourceExt, api::DeleteParams};
use serde_json::{Value, json};
use taskgraph::api::{GraphPhase, TaskGraph, TaskPhase};

use crate::{
    fixture::{Fixture, container, task, task_with},
    support::{
        Play,
        namespace::{condition, holds, status, task as task_status},
    },
};

/// Deletes the graph, and waits until nothing of it is left.
pub async fn nothing_is_left(fixture: &Fixture) -> Result<()> {
    let namespace = &fixture.namespace;
    namespace.graphs().delete("g", &DeleteParams::default()).await?;
    namespace.until_object(namespace.graphs(), "g", "deleted", |graph| graph.is_none().then_some(())).await;
    namespace.until_all::<Job>("gone", <[Job]>::is_empty).await;
    namespace.until_all::<Pod>("gone", <[Pod]>::is_empty).await;
    namespace.until_all::<ControllerRevision>("gone", <[ControllerRevision]>::is_empty).await;
    let ours = |map: &ConfigMap| map.name_any() != "kube-root-ca.crt";
    namespace.until_all::<ConfigMap>("gone", |maps| !maps.iter().any(ours)).await;
    Ok(())
}

/// A task, what undoes it, and a `finally`; a part that is named `endless` runs on.
fn graph(more: &Value) -> Value {
    let mut graph = json!({
        "tasks": [
            task_with("first", &[], json!({"compensate": {"container": container()}})),
            task("second", &["first"]),
        ],
        "finally": [task("last", &[])],
    });
    if let (Some(graph), Some(more)) = (graph.as_object_mut(), more.as_object()) {
        graph.extend(more.clone());
    }
    graph
}

/// Runs on until it is deleted, and a while longer.
fn endless() -> Play {
    Play::runs_on().lingering(Duration::from_millis(500))
}

fn phase(graph: &TaskGraph) -> Option<GraphPhase> {
    status(graph).phase
}

/// Deletes a graph once it is in a phase, the parts of it playing as `script` says.
async fn delete_in(
    wanted: GraphPhase,
    change: Option<&str>,
    script: impl Fn(&str, u32) -> Play + Send + Sync + 'static,
) -> Result<()> {
    let fixture = Fixture::new("delete-in", script).await?;
    fixture.namespace.create("g", graph(&json!({}))).await?;
    if let Some(state) = change {
        fixture.until_pod_runs("first").await;
        fixture.namespace.edit("g", json!({"desiredState": state})).await?;
    }
    fixture.namespace.until("g", "in its phase", |graph| phase(graph) == Some(wanted)).await;
    nothing_is_left(&fixture).await?;
    fixture.auditor.judge().await?;
    Ok(())
}

#[tokio::test]
async fn a_graph_is_deleted_in_any_phase_and_nothing_is_left() -> Result<()> {
    let only = |endless_part: &'static str| {
        move |part: &str, _| if part == endless_part { endless() } else { Play::succeeds("") }
    };
    let failing = |endless_part: &'static str| {
        move |part: &str, _| match part {
            "second" => Play::fails(1),
            part if part == endless_part => endless(),
            _ => Play::succeeds(""),
        }
    };
    tokio::try_join!(
        delete_in(GraphPhase::Running, None, only("second")),
        delete_in(GraphPhase::Suspended, Some("Suspend"), only("first")),
        delete_in(GraphPhase::Cancelling, Some("Cancel"), only("first")),
        delete_in(GraphPhase::Compensating, None, failing("undo:first")),
        delete_in(GraphPhase::Finalizing, None, failing("last")),
        delete_in(GraphPhase::Failed, None, failing("none")),
        delete_in(GraphPhase::Complete, None, only("none")),
    )?;
    Ok(())
}

#[tokio::test]
async fn a_graph_that_was_not_accepted_is_deleted() -> Result<()> {
    let fixture = Fixture::new("delete-waiting", |_, _| Play::succeeds("")).await?;
    let spec = json!({"tasks": [{"name": "a", "templateRef": {"name": "none"}}]});
    fixture.namespace.create("g", spec).await?;
    fixture.namespace.until("g", "waiting", |graph| condition(graph, "Accepted").is_some()).await;
    nothing_is_left(&fixture).await
}

#[tokio::test]
async fn a_graph_is_deleted_between_two_attempts() -> Result<()> {
    let fixture = Fixture::new("delete-retrying", |_, _| Play::fails(1)).await?;
    let retry = json!({"retry": {"limit": 3, "backoff": {"initial": "10m", "max": "10m"}}});
    fixture.namespace.create("g", json!({"tasks": [task_with("a", &[], retry)]})).await?;
    let retrying = |graph: &TaskGraph| task_status(graph, "a").is_some_and(|task| task.phase == TaskPhase::Retrying);
    fixture.namespace.until("g", "retrying", retrying).await;
    nothing_is_left(&fixture).await
}

#[tokio::test]
async fn suspend_and_cancel_in_finally() -> Result<()> {
    let fixture = Fixture::new("control-finally", |task, _| match task {
        "second" => Play::succeeds("").held(),
        _ => Play::succeeds(""),
    })
    .await?;
    let mut spec = graph(&json!({}));
    spec["finally"] = json!([task("last", &[]), task("very-last", &["last"])]);
    fixture.namespace.create("g", spec).await?;
    fixture.until_job("second", 1).await;
    fixture.namespace.edit("g", json!({"desiredState": "Suspend"})).await?;
    fixture.namespace.until("g", "suspended", |graph| holds(graph, "Suspended")).await;
    fixture.player.let_end();
    let waits = |graph: &TaskGraph| {
        holds(graph, "Suspended") && task_status(graph, "last").is_some_and(|task| task.phase == TaskPhase::Ready)
    };
    fixture.namespace.until("g", "suspended before finally", waits).await;
    fixture.namespace.edit("g", json!({"desiredState": "Run"})).await?;
    fixture.until_job("last", 1).await;
    // all of `tasks` are done: there is nothing left to call off
    fixture.namespace.edit("g", json!({"desiredState": "Cancel"})).await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(phase(&graph), Some(GraphPhase::Complete));
    assert!(task_status(&graph, "first").is_some_and(|task| task.compensation.is_none()));
    fixture.judge().await?;
    nothing_is_left(&fixture).await
}

#[tokio::test]
async fn a_suspended_graph_is_cancelled() -> Result<()> {
    let fixture = Fixture::new("control-cancel", |task, _| match task {
        "second" => endless(),
        _ => Play::succeeds(""),
    })
    .await?;
    fixture.namespace.create("g", graph(&json!({}))).await?;
    fixture.until_pod_runs("second").await;
    fixture.namespace.edit("g", json!({"desiredState": "Suspend"})).await?;
    fixture.namespace.until("g", "suspended", |graph| holds(graph, "Suspended")).await;
    fixture.namespace.edit("g", json!({"desiredState": "Cancel"})).await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(condition(&graph, "Failed").map(|condition| condition.reason.as_str()), Some("Cancelled"));
    let undone = task_status(&graph, "first").and_then(|task| task.compensation);
    assert_eq!(undone.map(|undo| undo.phase), Some(TaskPhase::Succeeded));
    fixture.judge().await?;
    nothing_is_left(&fixture).await
}
