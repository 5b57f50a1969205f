//! Delays, approvals and inclusive decisions: what they cost, what users see, and that a restart forgets nothing.

use std::{process::Command, time::Duration};

use anyhow::{Result, ensure};
use kube::api::ListParams;
use serde_json::{Value, json};
use taskgraph::api::{TaskGraph, TaskPhase};

use crate::{
    fixture::{Fixture, task},
    support::{
        Play,
        namespace::{finished, status, task as task_status},
    },
};

fn phase_of(graph: &TaskGraph, name: &str) -> Option<TaskPhase> {
    task_status(graph, name).map(|task| task.phase)
}

fn approval(task: &str, attempt: u32, decision: &str) -> Value {
    json!({"task": task, "attempt": attempt, "decision": decision, "by": "ann", "message": "as agreed"})
}

/// What `kubectl taskgraph approve` prints; its complaint as an error.
async fn plugin(fixture: &Fixture, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-taskgraph"));
    command.arg("approve").args(arguments);
    command.args(["--namespace", &fixture.namespace.name, "--kubeconfig"]).arg(fixture.proxy.kubeconfig());
    // the proxy that it talks to needs this thread
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[tokio::test]
async fn a_delay_and_an_approval_survive_a_restart_and_make_no_job() -> Result<()> {
    let mut fixture = Fixture::new("waiting", |_, _| Play::succeeds("")).await?;
    let spec = json!({"tasks": [
        {"name": "wait", "delay": {"duration": "10s"}},
        {"name": "ask", "approval": {}, "timeout": "1h", "retry": {"limit": 1, "backoff": {"initial": "100ms"}}},
        task("deploy", &["wait", "ask"]),
    ]});
    fixture.namespace.create("g", spec).await?;
    let waits =
        |graph: &TaskGraph| ["wait", "ask"].iter().all(|name| phase_of(graph, name) == Some(TaskPhase::Waiting));
    let before = fixture.namespace.until("g", "waiting", waits).await;
    let end = task_status(&before, "wait").and_then(|task| task.wake_at).expect("it was drawn");
    fixture.restart().await?;
    // the typo is told of, and the decision on the task counts all the same
    let edit = json!({"approvals": [approval("ask", 1, "Rejected"), approval("aks", 1, "Approved")]});
    fixture.namespace.edit("g", edit).await?;
    let told = |graph: &TaskGraph| {
        status(graph).message.is_some_and(|message| message.contains("did you mean \"ask\""))
            && task_status(graph, "ask").is_some_and(|ask| ask.attempts == 2 && ask.phase == TaskPhase::Waiting)
    };
    let after = fixture.namespace.until("g", "asked again", told).await;
    let drawn = task_status(&after, "wait").and_then(|task| task.wake_at);
    assert!(drawn.is_none_or(|drawn| drawn == end), "{drawn:?}: drawn anew after the restart, it was {end}");
    let edit = json!({"approvals": [approval("ask", 1, "Rejected"), approval("ask", 2, "Approved")]});
    fixture.namespace.edit("g", edit).await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(finished(&graph), Some("Complete"));
    let wait = task_status(&graph, "wait").expect("its status");
    let ended = wait.completion_time.expect("it ended");
    assert!(ended >= end, "{ended}, before the time that was drawn, {end}");
    let ask = task_status(&graph, "ask").expect("its status");
    assert_eq!(
        (ask.attempts, ask.reason.as_deref(), ask.message.as_deref()),
        (2, Some("Approved"), Some("by ann: as agreed"))
    );
    assert_eq!(ask.failed_attempts[0].reason, "Rejected");
    let events: Vec<_> = status(&graph).history.into_iter().map(|entry| entry.event).collect();
    assert_eq!(events, ["Accepted", "Rejected", "Approved", "Finished"]);
    assert_eq!(fixture.namespace.jobs().list(&ListParams::default()).await?.items.len(), 1, "that of deploy");
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn the_api_server_keeps_approvals_as_they_were_written() -> Result<()> {
    let fixture = Fixture::new("approvals", |_, _| Play::succeeds("")).await?;
    let spec = json!({"tasks": [{"name": "ask", "approval": {}}, {"name": "other", "approval": {}}],
        "approvals": [approval("ask", 7, "Rejected")]});
    fixture.namespace.create("g", spec).await?;
    for (change, expected) in [
        (json!([approval("ask", 7, "Approved")]), "stays as it was written"),
        (json!([approval("ask", 7, "Rejected"), approval("ask", 7, "Rejected")]), "Duplicate"),
        (json!([approval("ask", 0, "Rejected")]), "greater than or equal to 1"),
        (json!([approval("ask", 1, "Perhaps")]), "Perhaps"),
        (json!([{"task": "ask", "attempt": 1, "decision": "Approved"}]), "by"),
    ] {
        let error = fixture.namespace.edit("g", json!({"approvals": change})).await.expect_err(expected);
        assert!(error.to_string().contains(expected), "{expected}: {error}");
    }
    // one that was written in error can be taken back
    fixture.namespace.edit("g", json!({"approvals": [approval("ask", 1, "Approved")]})).await?;
    let waits = |graph: &TaskGraph| phase_of(graph, "other") == Some(TaskPhase::Waiting);
    fixture.namespace.until("g", "waiting", waits).await;
    assert_eq!(plugin(&fixture, &["g", "other", "-m", "fine"]).await?, "Approved attempt 1 of task other\n");
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(finished(&graph), Some("Complete"));
    assert_eq!(graph.spec.approvals.len(), 2, "the other entry stays");
    let message = task_status(&graph, "other").and_then(|task| task.message).unwrap_or_default();
    assert!(message.starts_with("by ") && message.ends_with(": fine"), "{message}");
    let error = plugin(&fixture, &["g", "other"]).await.expect_err("it is decided");
    assert!(error.to_string().contains("waits for no approval now"), "{error}");
    for (spec, expected) in [
        (json!({"tasks": [{"name": "a", "delay": {}}]}), "exactly one of duration, until, cron"),
        (json!({"tasks": [{"name": "a", "delay": {"duration": "1s"}, "approval": {}}]}), "exactly one of container"),
        (json!({"tasks": [{"name": "a", "delay": {"until": "soon"}}]}), "date-time"),
    ] {
        let error = fixture.namespace.create("h", spec).await.expect_err(expected);
        assert!(error.to_string().contains(expected), "{expected}: {error}");
    }
    Ok(())
}

#[tokio::test]
async fn an_inclusive_decision_takes_every_branch_that_holds() -> Result<()> {
    let fixture = Fixture::new("inclusive", |_, _| Play::succeeds(r#"{"size": 200}"#)).await?;
    let spec = json!({"tasks": [
        task("measure", &[]),
        {"name": "checks", "dependsOn": ["measure"], "decision": {"inclusive": true, "branches": [
            {"name": "large", "when": "tasks.measure.outputs.size > 100"},
            {"name": "even", "when": "tasks.measure.outputs.size % 2 == 0"},
            {"name": "small", "when": "tasks.measure.outputs.size < 10"},
        ]}},
        task("split", &["checks/large"]),
        task("halve", &["checks/even"]),
        task("keep", &["checks/small"]),
        task("join", &["split", "halve", "keep"]),
    ]});
    let graph = fixture.run("g", spec).await?;
    assert_eq!(finished(&graph), Some("Complete"));
    let checks = task_status(&graph, "checks").expect("its status");
    assert_eq!((checks.branches, checks.branch), (vec!["large".to_owned(), "even".to_owned()], None));
    for (name, expected) in [
        ("split", TaskPhase::Succeeded),
        ("halve", TaskPhase::Succeeded),
        ("keep", TaskPhase::Skipped),
        ("join", TaskPhase::Succeeded),
    ] {
        assert_eq!(phase_of(&graph, name), Some(expected), "{name}");
    }
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn hundreds_wait_at_once_and_a_cancel_ends_them() -> Result<()> {
    let fixture = Fixture::new("crowd", |_, _| Play::succeeds("")).await?;
    let wait = |place: usize| json!({"name": format!("wait-{place}"), "delay": {"duration": "1h"}});
    let tasks: Vec<_> = (0..500).map(wait).collect();
    fixture.namespace.create("g", json!({"tasks": tasks, "parallelism": 1})).await?;
    let all_wait = |graph: &TaskGraph| {
        status(graph).tasks.len() == 500 && status(graph).tasks.iter().all(|task| task.phase == TaskPhase::Waiting)
    };
    let graph = fixture.namespace.until("g", "waiting", all_wait).await;
    // nothing is written while nothing happens
    tokio::time::sleep(Duration::from_secs(2)).await;
    let later = fixture.namespace.graphs().get("g").await?;
    assert_eq!(later.metadata.resource_version, graph.metadata.resource_version);
    fixture.namespace.edit("g", json!({"desiredState": "Cancel"})).await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert!(status(&graph).tasks.iter().all(|task| task.phase == TaskPhase::Cancelled));
    assert_eq!(fixture.namespace.jobs().list(&ListParams::default()).await?.items.len(), 0);
    Ok(())
}
