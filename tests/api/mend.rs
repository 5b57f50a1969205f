//! Graphs that another version of the operator accepted, and that this one refuses.

use std::collections::BTreeSet;

use anyhow::Result;
use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};
use taskgraph::api::{TaskGraph, TaskPhase};

use crate::{
    cloud_events::until_told,
    fixture::{Fixture, task},
    support::{
        Play,
        namespace::{condition, finished, line, status, task as task_of},
        sink::HttpSink,
    },
    telemetry::Collector,
};

fn refused(graph: &TaskGraph) -> bool {
    condition(graph, "Accepted").is_some_and(|one| one.reason == "RulesChanged")
}

fn spec(dependency: &str) -> Value {
    json!({"tasks": [task("a", &[]), task("b", &["a"]), task("c", &[dependency])], "finally": [task("end", &[])]})
}

/// A graph whose `a` runs, and which is refused as it was accepted.
async fn refused_graph(test: &str, args: &[&str]) -> Result<Fixture> {
    let script = |task: &str, attempt: u32| match (task, attempt) {
        ("a", 1) => Play::runs_on(),
        _ => Play::succeeds(""),
    };
    let mut fixture = Fixture::with_args(test, args, script).await?;
    fixture.namespace.create("g", spec("b")).await?;
    fixture.until_pod_runs("a").await;
    let runs = |graph: &TaskGraph| task_of(graph, "a").is_some_and(|a| a.job.is_some());
    let graph = fixture.namespace.until("g", "running", runs).await;
    fixture.operator.terminate().await?;
    let revisions = fixture.namespace.api::<ControllerRevision>();
    let name = status(&graph).revision.unwrap_or_default();
    let mut revision = serde_json::to_value(revisions.get(&name).await?)?;
    revisions.delete(&name, &DeleteParams::default()).await?;
    revision["data"]["spec"] = spec("nobody");
    for field in ["resourceVersion", "uid", "creationTimestamp", "managedFields"] {
        revision["metadata"].as_object_mut().map(|metadata| metadata.remove(field));
    }
    revisions.create(&PostParams::default(), &serde_json::from_value(revision)?).await?;
    fixture.namespace.edit("g", spec("nobody")).await?;
    fixture.restart().await?;
    let graph = fixture.namespace.until("g", "refused", refused).await;
    let message = condition(&graph, "Accepted").map(|one| one.message.clone()).unwrap_or_default();
    assert!(message.contains("spec.tasks[2].dependsOn[0]: no task \"nobody\""), "{message}");
    assert_eq!(line(&graph), "a=Running/1 b=Pending/0 c=Pending/0 end=Pending/0");
    Ok(fixture)
}

#[tokio::test]
async fn an_edit_mends_it_and_it_goes_on_from_where_it_stands() -> Result<()> {
    let fixture = refused_graph("mended", &[]).await?;
    fixture.namespace.edit("g", spec("a")).await?;
    let accepted = |graph: &TaskGraph| !refused(graph) && status(graph).revision_number == 2;
    let graph = fixture.namespace.until("g", "mended", accepted).await;
    assert_eq!(task_of(&graph, "a").map(|a| (a.phase, a.attempts)), Some((TaskPhase::Running, 1)));
    fixture.namespace.edit("g", json!({"rerun": {"id": "1", "scope": "Tasks", "tasks": ["a"]}})).await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(finished(&graph), Some("Complete"));
    assert_eq!(line(&graph), "a=Succeeded/2 b=Succeeded/1 c=Succeeded/1 end=Succeeded/1");
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn a_cancel_stops_what_runs_and_ends_it() -> Result<()> {
    let (collector, sink) = (Collector::start().await?, HttpSink::start().await?);
    let args = ["--otlp-endpoint", &collector.endpoint(), "--events-http-url", &sink.url()];
    let fixture = refused_graph("refused-cancel", &args).await?;
    let told = |graph: &TaskGraph| {
        let status = status(graph);
        status.cloud_events.is_some_and(|owed| !owed.owes(status.sequence))
    };
    fixture.namespace.until("g", "told of, refused as it is", told).await;
    let job = fixture.until_job("a", 1).await;
    fixture.namespace.edit("g", json!({"desiredState": "Suspend"})).await?;
    fixture.namespace.edit("g", json!({"desiredState": "Cancel"})).await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(line(&graph), "a=Cancelled/1 b=Omitted/0 c=Omitted/0 end=Omitted/0");
    assert_eq!(condition(&graph, "Failed").map(|one| one.reason.as_str()), Some("Cancelled"));
    assert!(fixture.namespace.jobs().get_opt(&job).await?.is_none_or(|job| job.metadata.deletion_timestamp.is_some()));
    told_of_the_cancel(&fixture, &collector, &sink).await?;
    // mended, it does what is left to do
    fixture.namespace.edit("g", spec("a")).await?;
    let ended = |graph: &TaskGraph| {
        finished(graph).is_some() && task_of(graph, "end").is_some_and(|end| end.phase == TaskPhase::Succeeded)
    };
    let graph = fixture.namespace.until("g", "finished again", ended).await;
    assert_eq!(line(&graph), "a=Cancelled/1 b=Omitted/0 c=Omitted/0 end=Succeeded/1");
    assert_eq!(finished(&graph), Some("Failed"));
    until_told(&fixture.namespace, "g").await;
    let told = told_by(&sink, &graph);
    for (what, count) in
        [("graph.accepted/", 1), ("graph.edited/", 1), ("task.succeeded/end/", 1), ("task.started/a/", 1)]
    {
        assert_eq!(told.iter().filter(|id| id.starts_with(what)).count(), count, "{what} in {told:#?}");
    }
    Ok(())
}

/// What the sink was told of a graph: the ends of the ids.
fn told_by(sink: &HttpSink, graph: &TaskGraph) -> BTreeSet<String> {
    let uid = format!("{}/", graph.metadata.uid.as_deref().unwrap_or_default());
    sink.taken().iter().filter_map(|event| Some(event["id"].as_str()?.trim_start_matches(&uid).to_owned())).collect()
}

/// What no session ever saw end is told of as anything else: events, spans, metrics.
async fn told_of_the_cancel(fixture: &Fixture, collector: &Collector, sink: &HttpSink) -> Result<()> {
    let graph = until_told(&fixture.namespace, "g").await;
    let told = told_by(sink, &graph);
    for what in ["graph.cancelling/", "graph.cancelled/", "task.started/a/", "task.cancelled/a/", "task.omitted/end/"] {
        assert_eq!(told.iter().filter(|id| id.starts_with(what)).count(), 1, "{what} in {told:#?}");
    }
    collector.until("g").await;
    collector.until("a #1").await;
    let names: Vec<_> = collector.spans().into_iter().map(|span| span.name).collect();
    assert_eq!(names.len(), 2, "each once: {names:?}");
    let (_, metrics) = fixture.operator.get("/metrics").await?;
    for line in [
        "taskgraph_graphs_finished_total{ending=\"Cancelled\"} 1",
        "taskgraph_tasks_finished_total{outcome=\"Cancelled\"} 1",
        "taskgraph_tasks_finished_total{outcome=\"Omitted\"} 3",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    Ok(())
}
