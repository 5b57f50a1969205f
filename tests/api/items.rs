//! Tasks with `forEach`, their pods played item by item.

#![allow(clippy::needless_pass_by_value, reason = "json! gives values")]

use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_openapi::api::{batch::v1::Job, core::v1::ConfigMap};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};
use taskgraph::api::{ItemsStatus, TaskGraph, TaskPhase, TaskStatus};

use crate::{
    fixture::{Fixture, container, task, task_with},
    support::{
        Namespace, Play,
        namespace::{finished, task as task_status},
        proxy::Fate,
    },
};

/// A task that runs for these items.
fn each(for_each: Value, more: Value) -> Value {
    let mut task = json!({"name": "each", "container": container(), "forEach": for_each});
    if let (Value::Object(task), Value::Object(more)) = (&mut task, more) {
        task.extend(more);
    }
    task
}

fn status_of(graph: &TaskGraph, name: &str) -> TaskStatus {
    task_status(graph, name).expect("its status")
}

/// The `ConfigMap`s of the namespace's graphs.
async fn maps(namespace: &Namespace) -> Result<Vec<ConfigMap>> {
    let ours = ListParams::default().labels("taskgraph.dev/graph-uid");
    Ok(namespace.api::<ConfigMap>().list(&ours).await?.items)
}

async fn no_maps_left(namespace: &Namespace) {
    let ours = |map: &ConfigMap| map.labels().contains_key("taskgraph.dev/graph-uid");
    namespace.until_all::<ConfigMap>("none", |maps| !maps.iter().any(ours)).await;
}

#[tokio::test]
async fn each_item_has_a_pod_and_leaves_an_output() -> Result<()> {
    let fixture = Fixture::new("items", |task, _| match task {
        "list" => Play::succeeds(r#"{"files": ["a", {"b": 1}, "c d", "e"]}"#),
        "each/2" => Play::fails(3),
        "each/0" => Play::succeeds(r#"{"size": 10, "odd": true}"#).after(Duration::from_secs(1)),
        "each/1" => Play::succeeds(r#"{"size": 11}"#),
        _ => Play::succeeds("words"),
    })
    .await?;
    let mut each =
        each(json!({"items": "${{ tasks.list.outputs.files }}", "maxFailures": 1}), json!({"dependsOn": ["list"]}));
    each["outputs"] = json!([{"name": "size", "type": "integer"}]);
    let mut sum = task("sum", &["each"]);
    sum["container"]["env"] = json!([{"name": "SIZES", "value": "${{ tasks.each.outputs.size }}"}]);
    fixture.namespace.create("g", json!({"tasks": [task("list", &[]), each, sum]})).await?;

    let name = fixture.until_job("each", 1).await;
    let maps = maps(&fixture.namespace).await?;
    let data: Vec<_> = maps.iter().flat_map(|map| map.data.clone().unwrap_or_default()).collect();
    let expected = [("0", "a"), ("1", r#"{"b":1}"#), ("2", "c d"), ("3", "e")];
    assert_eq!(
        data,
        expected.map(|(place, text)| (place.to_owned(), text.to_owned())),
        "they are there before the Job"
    );
    let spec = fixture.namespace.jobs().get(&name).await?.spec.expect("a spec");
    assert_eq!(
        (spec.completion_mode.as_deref(), spec.completions, spec.max_failed_indexes),
        (Some("Indexed"), Some(4), Some(1))
    );

    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(finished(&graph), Some("Complete"));
    let each = status_of(&graph, "each");
    let outputs = json!({"odd": [true, null, null, null], "size": [10, 11, null, null]});
    assert_eq!(Value::Object(each.outputs), outputs);
    let items =
        ItemsStatus { total: 4, succeeded: 3, failed: 1, failed_indexes: Some("2".into()), ..ItemsStatus::default() };
    assert_eq!(each.items, Some(items));
    let jobs = serde_json::to_string(&fixture.namespace.jobs().list(&ListParams::default()).await?.items)?;
    assert!(jobs.contains("[10,11,null,null]"), "what follows reads the lists");
    no_maps_left(&fixture.namespace).await;
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn too_many_failures_fail_the_attempt_and_the_next_has_all_items() -> Result<()> {
    let fixture = Fixture::new("items-retry", |task, attempt| match (task, attempt) {
        ("each/1", 1) => Play::fails(7),
        _ => Play::succeeds(r#"{"n": 1}"#),
    })
    .await?;
    let retry = json!({"retry": {"limit": 1, "backoff": {"initial": "20ms"}, "when": "exitCode == 7 && reason == 'ItemsFailed'"}});
    let spec = json!({"tasks": [each(json!({"items": [1, 2, 3], "parallelism": 2}), retry), task("after", &["each"])]});
    let graph = fixture.run("g", spec).await?;
    assert_eq!(finished(&graph), Some("Complete"));
    let each = status_of(&graph, "each");
    assert_eq!((each.phase, each.attempts, each.failed_attempts.len()), (TaskPhase::Succeeded, 2, 1));
    let message = each.failed_attempts[0].message.as_deref().unwrap_or_default();
    assert_eq!(message, "1 of 3 items failed: 1; item 1: Error, exit code 7: exit 7");
    assert_eq!(Value::Object(each.outputs), json!({"n": [1, 1, 1]}));
    no_maps_left(&fixture.namespace).await;
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn no_items_and_no_list() -> Result<()> {
    let fixture = Fixture::new("items-none", |_, _| Play::succeeds(r#"{"none": [], "text": "a,b"}"#)).await?;
    let after = |items: &str| each(json!({"items": items}), json!({"dependsOn": ["list"]}));
    let mut wrong = after("${{ tasks.list.outputs.text }}");
    wrong["name"] = "wrong".into();
    let spec = json!({"failurePolicy": "FinishBranches", "tasks": [task("list", &[]), after("${{ tasks.list.outputs.none }}"), wrong]});
    let graph = fixture.run("g", spec).await?;
    let (none, wrong) = (status_of(&graph, "each"), status_of(&graph, "wrong"));
    assert_eq!((none.phase, none.reason.as_deref()), (TaskPhase::Skipped, Some("NoItems")));
    assert_eq!((wrong.phase, wrong.reason.as_deref()), (TaskPhase::Failed, Some("ExpressionError")));
    assert_eq!(fixture.namespace.jobs().list(&ListParams::default()).await?.items.len(), 1);
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn faults_on_the_way_to_the_items() -> Result<()> {
    let fixture = Fixture::new("items-faults", |_, _| Play::succeeds(r#"{"n": 1}"#)).await?;
    let create = |call: &crate::support::proxy::Call| call.verb == http::Method::POST && call.resource == "configmaps";
    fixture.proxy.inject_times(1, Fate::Refused(500), create);
    fixture.proxy.inject_times(1, Fate::AnswerLost, create);
    let graph = fixture.run("g", json!({"tasks": [each(json!({"items": [1, 2]}), json!({}))]})).await?;
    assert_eq!(finished(&graph), Some("Complete"));
    assert_eq!(status_of(&graph, "each").attempts, 1);
    no_maps_left(&fixture.namespace).await;
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn a_watch_of_pods_that_lags_costs_no_outputs() -> Result<()> {
    let fixture = Fixture::new("items-lag", |_, _| Play::succeeds(r#"{"n": 1}"#).held()).await?;
    fixture.namespace.create("g", json!({"tasks": [each(json!({"items": [1, 2, 3]}), json!({}))]})).await?;
    fixture.until_job("each", 1).await;
    fixture.proxy.hold("pods");
    fixture.player.let_end();
    let graph = fixture.namespace.until_finished("g").await;
    fixture.proxy.release();
    assert_eq!(Value::Object(status_of(&graph, "each").outputs), json!({"n": [1, 1, 1]}));
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn cancelled_and_deleted_in_mid_run_they_leave_nothing() -> Result<()> {
    let fixture = Fixture::new("items-cancel", |task, _| match task {
        "cleanup" => Play::succeeds(""),
        _ => Play::runs_on().lingering(Duration::from_millis(100)),
    })
    .await?;
    let spec = || json!({"tasks": [each(json!({"items": [1, 2, 3]}), json!({}))], "finally": [task_with("cleanup", &[], json!({}))]});
    fixture.namespace.create("g", spec()).await?;
    fixture.until_pod_runs("each").await;
    fixture.namespace.edit("g", json!({"desiredState": "Cancel"})).await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(status_of(&graph, "each").phase, TaskPhase::Cancelled);
    no_maps_left(&fixture.namespace).await;

    fixture.namespace.create("h", spec()).await?;
    let runs =
        |jobs: &[Job]| jobs.iter().any(|job| job.labels().get("taskgraph.dev/graph").is_some_and(|graph| graph == "h"));
    fixture.namespace.until_all::<Job>("one of h", runs).await;
    for graph in ["g", "h"] {
        fixture.namespace.graphs().delete(graph, &DeleteParams::default()).await?;
    }
    fixture.namespace.until_all::<Job>("gone", <[Job]>::is_empty).await;
    no_maps_left(&fixture.namespace).await;
    fixture.auditor.judge().await?;
    Ok(())
}

#[tokio::test]
async fn many_items_are_one_job_and_few_writes() -> Result<()> {
    // `ITEMS=1000` for the limit; that many pods beside other tests make those wait
    let count = std::env::var("ITEMS").ok().and_then(|count| count.parse().ok()).unwrap_or(200_usize);
    let fixture = Fixture::new("items-many", |_, _| Play::succeeds(r#"{"n": 1}"#)).await?;
    let all: Vec<usize> = (0..count).collect();
    fixture.namespace.create("g", json!({"tasks": [each(json!({"items": all}), json!({}))]})).await?;
    let began = Instant::now();
    // so many pods take their time
    let graph = loop {
        let graph = fixture.namespace.graphs().get("g").await?;
        if finished(&graph).is_some() || began.elapsed() > Duration::from_mins(5) {
            break graph;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    assert_eq!(finished(&graph), Some("Complete"));
    assert_eq!(status_of(&graph, "each").outputs["n"], json!(vec![1; count]));
    assert_eq!(fixture.namespace.jobs().list(&ListParams::default()).await?.items.len(), 1);
    let writes = fixture.proxy.writes().len();
    // besides, one status each half second
    let told = usize::try_from(began.elapsed().as_secs())? * 2;
    assert!(writes < 100 + told, "{writes} writes");
    Ok(())
}
