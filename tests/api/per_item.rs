//! Tasks with a Job or child graph for each item, their pods played.

#![allow(clippy::needless_pass_by_value, reason = "json! gives values")]

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::Result;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};
use taskgraph::api::{DesiredState, ItemsStatus, LABEL_GRAPH, LABEL_ITEM, TaskGraph, TaskPhase, TaskStatus};

use crate::{
    fixture::{Fixture, container, task},
    support::{
        Play,
        namespace::{finished, holds, status, task as task_status},
        player::is_terminal,
    },
};

/// A task with a Job for each of these items.
fn each(for_each: Value, more: Value) -> Value {
    let mut rule = json!({"strategy": "PerItem"});
    let mut task = json!({"name": "each", "container": container()});
    for (into, from) in [(&mut rule, for_each), (&mut task, more)] {
        if let (Value::Object(into), Value::Object(from)) = (into, from) {
            into.extend(from);
        }
    }
    task["forEach"] = rule;
    task
}

/// A task with a child graph for each of these items: `read`, which fails for the item `bad`, and `write` after it.
async fn with_load(test: &str, script: impl Fn(&str, u32) -> Play + Send + Sync + 'static) -> Result<Fixture> {
    let fixture = Fixture::new(test, script).await?;
    let load = json!({
        "parameters": [{"name": "x", "required": true}],
        "graph": {"tasks": [task("read", &[]), task("write", &["read"])], "outputs": [{"name": "x", "value": "args.x"}]},
    });
    fixture.namespace.create_template("load", load).await?;
    Ok(fixture)
}

fn each_child(for_each: Value) -> Value {
    let arguments = json!({"x": "${{ item }}"});
    json!({"name": "each", "templateRef": {"name": "load"}, "arguments": arguments, "forEach": for_each})
}

fn status_of(graph: &TaskGraph, name: &str) -> TaskStatus {
    task_status(graph, name).expect("its status")
}

/// The Jobs of `each`, by the places of their items.
async fn item_jobs(fixture: &Fixture) -> Result<Vec<Job>> {
    let mut jobs = fixture.namespace.jobs().list(&ListParams::default().labels(LABEL_ITEM)).await?.items;
    let place = |job: &Job| job.labels().get(LABEL_ITEM).and_then(|place| place.parse::<u32>().ok());
    jobs.sort_by_key(|job| (job.labels().get("taskgraph.dev/attempt").cloned(), place(job)));
    Ok(jobs)
}

async fn children(fixture: &Fixture) -> Result<Vec<TaskGraph>> {
    Ok(fixture.namespace.graphs().list(&ListParams::default().labels(LABEL_GRAPH)).await?.items)
}

#[tokio::test]
async fn each_item_has_a_job_with_its_own_values() -> Result<()> {
    let fixture = Fixture::new("each", |task, _| match task {
        "list" => Play::succeeds(r#"{"files": ["a", {"b": 1}, "c d"]}"#),
        "each/1" => Play::fails(3),
        "each/0" => Play::succeeds(r#"{"size": 10}"#).after(Duration::from_millis(500)),
        "each/2" => Play::succeeds(r#"{"size": 12}"#),
        _ => Play::succeeds(""),
    })
    .await?;
    let mut each = each(
        json!({"items": "${{ tasks.list.outputs.files }}", "maxFailures": 1, "parallelism": 2}),
        json!({"dependsOn": ["list"], "outputs": [{"name": "size", "type": "integer"}]}),
    );
    each["container"]["env"] = json!([{"name": "ITEM", "value": "${{ index }}=${{ item }}"}]);
    let mut sum = task("sum", &["each"]);
    sum["container"]["env"] = json!([{"name": "SIZES", "value": "${{ tasks.each.outputs.size }}"}]);
    let graph = fixture.run("g", json!({"tasks": [task("list", &[]), each, sum]})).await?;
    assert_eq!(finished(&graph), Some("Complete"));
    let told = status_of(&graph, "each");
    assert_eq!(Value::Object(told.outputs), json!({"size": [10, null, 12]}));
    let items =
        ItemsStatus { total: 3, succeeded: 2, failed: 1, failed_indexes: Some("1".into()), ..ItemsStatus::default() };
    assert_eq!((told.items, told.job), (Some(items), None));

    let jobs = item_jobs(&fixture).await?;
    let values: Vec<_> = jobs.iter().map(|job| serde_json::to_value(job).unwrap_or_default()).collect();
    let given = values.iter().map(|job| {
        let env = job["spec"]["template"]["spec"]["containers"][0]["env"].as_array().cloned().unwrap_or_default();
        env.last().map(|variable| variable["value"].clone()).unwrap_or_default()
    });
    assert_eq!(given.collect::<Vec<_>>(), [json!("0=a"), json!("1={\"b\":1}"), json!("2=c d")]);
    let sum = fixture.until_job("sum", 1).await;
    let sum = serde_json::to_string(&fixture.namespace.jobs().get(&sum).await?)?;
    assert!(sum.contains("[10,null,12]"), "what follows reads the lists");
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn kubernetes_tries_an_item_again_within_its_job() -> Result<()> {
    let tries = AtomicU32::new(0);
    let fixture = Fixture::new("each-retry", move |task, _| match task {
        "each/1" if tries.fetch_add(1, Ordering::Relaxed) == 0 => Play::fails(3),
        _ => Play::succeeds(r#"{"n": 1}"#),
    })
    .await?;
    let spec = json!({"tasks": [each(json!({"items": [1, 2], "retriesPerItem": 1}), json!({}))]});
    let graph = fixture.run("g", spec).await?;
    assert_eq!(finished(&graph), Some("Complete"));
    let told = status_of(&graph, "each");
    assert_eq!((told.attempts, Value::Object(told.outputs)), (1, json!({"n": [1, 1]})));
    assert_eq!(fixture.namespace.pods().list(&ListParams::default()).await?.items.len(), 3);
    fixture.auditor.judge().await?;
    Ok(())
}

#[tokio::test]
async fn one_failure_too_many_stops_the_others_and_the_next_attempt_has_all() -> Result<()> {
    let fixture = Fixture::new("each-stop", |task, attempt| match (task, attempt) {
        ("each/1", 1) => Play::fails(7).after(Duration::from_millis(300)),
        ("each/0" | "each/2", 1) => Play::runs_on().lingering(Duration::from_millis(200)),
        _ => Play::succeeds(r#"{"n": 1}"#),
    })
    .await?;
    let retry = json!({"retry": {"limit": 1, "backoff": {"initial": "20ms"}, "when": "exitCode == 7 && reason == 'ItemsFailed'"}});
    let rule = json!({"items": [1, 2, 3, 4], "maxFailures": 0, "parallelism": 3});
    let graph = fixture.run("g", json!({"tasks": [each(rule, retry), task("after", &["each"])]})).await?;
    assert_eq!(finished(&graph), Some("Complete"));
    let told = status_of(&graph, "each");
    assert_eq!((told.phase, told.attempts), (TaskPhase::Succeeded, 2));
    let message = told.failed_attempts[0].message.as_deref().unwrap_or_default();
    assert_eq!(message, "1 of 4 items failed: 1; item 1: Error, exit code 7: exit 7");
    assert_eq!(Value::Object(told.outputs), json!({"n": [1, 1, 1, 1]}));
    let first = item_jobs(&fixture).await?.into_iter().filter(|job| job.labels()["taskgraph.dev/attempt"] == "1");
    let first: Vec<_> = first.map(|job| job.labels()[LABEL_ITEM].clone()).collect();
    assert_eq!(first, ["1"], "the one that failed tells why; the last was never launched");
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn each_item_has_a_child_graph() -> Result<()> {
    let fixture = with_load("each-child", |_, _| Play::succeeds("")).await?;
    let spec =
        json!({"tasks": [each_child(json!({"items": ["a", 2, [3]], "parallelism": 2})), task("end", &["each"])]});
    let graph = fixture.run("g", spec).await?;
    assert_eq!(finished(&graph), Some("Complete"));
    let told = status_of(&graph, "each");
    assert_eq!(Value::Object(told.outputs), json!({"x": ["a", 2, [3]]}));
    let children = children(&fixture).await?;
    assert_eq!(children.len(), 3);
    assert!(children.iter().all(|child| finished(child) == Some("Complete")));
    fixture.judge().await?;
    fixture.namespace.graphs().delete("g", &DeleteParams::default()).await?;
    fixture.namespace.until_all::<TaskGraph>("gone", <[TaskGraph]>::is_empty).await;
    fixture.namespace.until_all::<Job>("gone", <[Job]>::is_empty).await;
    fixture.namespace.until_all::<Pod>("gone", <[Pod]>::is_empty).await;
    Ok(())
}

#[tokio::test]
async fn suspend_holds_children_and_further_items_back() -> Result<()> {
    let fixture = with_load("each-suspend", |_, _| Play::succeeds("").held()).await?;
    fixture.namespace.create("g", json!({"tasks": [each_child(json!({"items": [1, 2], "parallelism": 1}))]})).await?;
    fixture.until_job("read", 1).await;
    fixture.namespace.edit("g", json!({"desiredState": "Suspend"})).await?;
    let held = |graphs: &[TaskGraph]| {
        graphs.iter().any(|graph| graph.labels().contains_key(LABEL_GRAPH) && holds(graph, "Suspended"))
    };
    fixture.namespace.until_all::<TaskGraph>("suspended", held).await;
    fixture.player.let_end();
    let suspended = |graphs: &[TaskGraph]| {
        graphs.iter().any(|graph| {
            let read = task_status(graph, "read").is_some_and(|task| task.phase == TaskPhase::Succeeded);
            graph.labels().contains_key(LABEL_GRAPH) && holds(graph, "Suspended") && read
        })
    };
    fixture.namespace.until_all::<TaskGraph>("suspended", suspended).await;
    assert_eq!(children(&fixture).await?.len(), 1);
    fixture.namespace.edit("g", json!({"desiredState": "Run"})).await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(finished(&graph), Some("Complete"));
    assert_eq!(Value::Object(status_of(&graph, "each").outputs), json!({"x": [1, 2]}));
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn cancelled_and_deleted_in_mid_run_nothing_runs_on() -> Result<()> {
    let fixture = with_load("each-cancel", |task, _| match task {
        "cleanup" => Play::succeeds(""),
        _ => Play::runs_on().lingering(Duration::from_millis(100)),
    })
    .await?;
    let spec = || {
        let mut children = each_child(json!({"items": [1, 2]}));
        children["name"] = "children".into();
        let tasks = json!([each(json!({"items": [1, 2, 3], "parallelism": 2}), json!({})), children]);
        json!({"tasks": tasks, "finally": [task("cleanup", &[])]})
    };
    fixture.namespace.create("g", spec()).await?;
    fixture.until_pod_runs("each").await;
    fixture.until_pod_runs("read").await;
    fixture.namespace.edit("g", json!({"desiredState": "Cancel"})).await?;
    let graph = fixture.namespace.until_finished("g").await;
    for name in ["each", "children"] {
        assert_eq!(status_of(&graph, name).phase, TaskPhase::Cancelled);
    }
    assert!(item_jobs(&fixture).await?.is_empty());
    let children = children(&fixture).await?;
    assert!(
        children
            .iter()
            .all(|child| child.spec.desired_state == Some(DesiredState::Cancel) && finished(child) == Some("Failed"))
    );

    fixture.namespace.create("h", spec()).await?;
    let runs = |jobs: &[Job]| jobs.iter().any(|job| job.labels().get(LABEL_GRAPH).is_some_and(|graph| graph == "h"));
    fixture.namespace.until_all::<Job>("one of h", runs).await;
    for graph in ["g", "h"] {
        fixture.namespace.graphs().delete(graph, &DeleteParams::default()).await?;
    }
    fixture.namespace.until_all::<TaskGraph>("gone", <[TaskGraph]>::is_empty).await;
    fixture.namespace.until_all::<Job>("gone", <[Job]>::is_empty).await;
    fixture.auditor.judge().await?;
    Ok(())
}

#[tokio::test]
async fn an_item_deleted_by_hand_costs_the_attempt() -> Result<()> {
    let fixture = Fixture::new("each-lost", |task, attempt| match (task, attempt) {
        ("each/1", 1) => Play::runs_on(),
        _ => Play::succeeds(r#"{"n": 1}"#).after(Duration::from_millis(200)),
    })
    .await?;
    fixture
        .namespace
        .create("g", json!({"tasks": [each(json!({"items": [1, 2], "maxFailures": 2}), json!({}))]}))
        .await?;
    let pods = |pods: &[Pod]| {
        let is_it = |pod: &&Pod| pod.labels().get(LABEL_ITEM).is_some_and(|place| place == "1");
        pods.iter()
            .find(is_it)
            .is_some_and(|pod| pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running")))
    };
    fixture.namespace.until_all::<Pod>("running", pods).await;
    // stored: a Job that vanishes before anything tells of it cannot be missed by anyone
    let stored = |graph: &TaskGraph| {
        task_status(graph, "each")
            .is_some_and(|each| each.items.is_some_and(|items| items.launched.as_deref() == Some("0-1")))
    };
    fixture.namespace.until("g", "stored", stored).await;
    let job = item_jobs(&fixture).await?.remove(1).name_any();
    fixture.namespace.jobs().delete(&job, &DeleteParams::background()).await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(finished(&graph), Some("Complete"));
    let told = status_of(&graph, "each");
    assert_eq!((told.attempts, told.disruptions, told.failed_attempts[0].reason.as_str()), (2, 1, "JobLost"));
    assert_eq!(Value::Object(told.outputs), json!({"n": [1, 1]}));
    fixture.auditor.judge().await?;
    Ok(())
}

#[tokio::test]
async fn an_operator_that_was_away_launches_no_item_twice() -> Result<()> {
    let mut fixture = with_load("each-away", |_, _| Play::succeeds(r#"{"n": 1}"#).held()).await?;
    let mut children = each_child(json!({"items": [1, 2, 3], "parallelism": 2}));
    children["name"] = "children".into();
    let spec = json!({"tasks": [each(json!({"items": [1, 2, 3], "parallelism": 2}), json!({})), children]});
    fixture.namespace.create("g", spec).await?;
    fixture.until_pod_runs("each").await;
    fixture.operator.kill().await?;
    fixture.player.let_end();
    fixture.namespace.until_all::<Pod>("ended", |pods| pods.iter().all(is_terminal)).await;
    fixture.restart().await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(finished(&graph), Some("Complete"));
    assert_eq!((status_of(&graph, "each").attempts, status_of(&graph, "children").attempts), (1, 1));
    assert_eq!(Value::Object(status_of(&graph, "each").outputs), json!({"n": [1, 1, 1]}));
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn faults_on_the_way_to_the_jobs() -> Result<()> {
    let fixture = Fixture::new("each-faults", |_, _| Play::succeeds(r#"{"n": 1}"#)).await?;
    let create = |call: &crate::support::proxy::Call| call.verb == http::Method::POST && call.resource == "jobs";
    fixture.proxy.inject_times(1, crate::support::proxy::Fate::Refused(500), create);
    fixture.proxy.inject_times(2, crate::support::proxy::Fate::AnswerLost, create);
    let graph = fixture.run("g", json!({"tasks": [each(json!({"items": [1, 2, 3, 4]}), json!({}))]})).await?;
    assert_eq!(finished(&graph), Some("Complete"));
    assert_eq!((status_of(&graph, "each").attempts, item_jobs(&fixture).await?.len()), (1, 4));
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn an_item_that_the_api_server_refuses_is_one_that_failed() -> Result<()> {
    let fixture = Fixture::new("each-refused", |_, _| Play::succeeds(r#"{"n": 1}"#)).await?;
    let labels = json!({"labels": {"size": "${{ item }}"}});
    let job = json!({"job": {"template": {"metadata": labels, "spec": {"containers": [container_named()]}}}});
    let mut task = each(json!({"items": ["good", "no label!"], "maxFailures": 1}), job);
    task.as_object_mut().expect("a task").remove("container");
    let graph = fixture.run("g", json!({"tasks": [task]})).await?;
    assert_eq!(finished(&graph), Some("Complete"));
    let told = status_of(&graph, "each");
    assert_eq!(Value::Object(told.outputs), json!({"n": [1, null]}));
    assert_eq!(told.items.and_then(|items| items.failed_indexes), Some("1".into()));
    fixture.auditor.judge().await?;
    Ok(())
}

fn container_named() -> Value {
    let mut named = container();
    named["name"] = "main".into();
    named
}

#[tokio::test]
async fn an_edit_of_the_items_begins_again() -> Result<()> {
    let fixture = Fixture::new("each-edit", |_, attempt| match attempt {
        1 => Play::runs_on().lingering(Duration::from_millis(100)),
        _ => Play::succeeds(r#"{"n": 1}"#),
    })
    .await?;
    fixture
        .namespace
        .create("g", json!({"tasks": [each(json!({"items": [1, 2, 3], "parallelism": 2}), json!({}))]}))
        .await?;
    fixture.until_pod_runs("each").await;
    fixture.namespace.edit("g", json!({"tasks": [each(json!({"items": [7]}), json!({}))]})).await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(finished(&graph), Some("Complete"), "{:?}", status(&graph).message);
    let told = status_of(&graph, "each");
    assert_eq!((told.attempts, Value::Object(told.outputs)), (2, json!({"n": [1]})));
    fixture.auditor.judge().await?;
    Ok(())
}

/// Waits for the end of `g`: so many pods take their time.
async fn ended_in_minutes(fixture: &Fixture) -> Result<TaskGraph> {
    let began = std::time::Instant::now();
    loop {
        let graph = fixture.namespace.graphs().get("g").await?;
        if finished(&graph).is_some() || began.elapsed() > Duration::from_mins(5) {
            return Ok(graph);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn a_hundred_child_graphs() -> Result<()> {
    let mut fixture = Fixture::new("each-children", |_, _| Play::succeeds("")).await?;
    let load = json!({"parameters": [{"name": "x"}],
        "graph": {"tasks": [task("read", &[])], "outputs": [{"name": "x", "value": "args.x"}]}});
    fixture.namespace.create_template("load", load).await?;
    let all: Vec<usize> = (0..100).collect();
    let spec = json!({"tasks": [each_child(json!({"items": all, "parallelism": 20}))]});
    fixture.namespace.create("g", spec).await?;
    fixture
        .namespace
        .until("g", "twenty of them done", |graph| {
            task_status(graph, "each").and_then(|each| each.items).is_some_and(|items| items.succeeded >= 20)
        })
        .await;
    // in the midst of it, another one takes over
    fixture.operator.kill().await?;
    fixture.restart().await?;
    let graph = ended_in_minutes(&fixture).await?;
    assert_eq!(finished(&graph), Some("Complete"));
    let each = status_of(&graph, "each");
    assert_eq!((each.attempts, &each.outputs["x"]), (1, &json!(all)));
    assert_eq!(children(&fixture).await?.len(), 100, "none twice");
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn suspended_no_further_item_has_a_job_after_a_restart_either() -> Result<()> {
    let mut fixture = Fixture::new("each-held", |_, _| Play::succeeds(r#"{"n": 1}"#).held()).await?;
    let spec = json!({"tasks": [each(json!({"items": [1, 2, 3], "parallelism": 1}), json!({}))]});
    fixture.namespace.create("g", spec).await?;
    fixture.until_pod_runs("each").await;
    fixture.namespace.edit("g", json!({"desiredState": "Suspend"})).await?;
    let one_done = |graph: &TaskGraph| {
        let items = task_status(graph, "each").and_then(|each| each.items);
        holds(graph, "Suspended") && items.is_some_and(|items| items.succeeded == 1 && items.active == 0)
    };
    fixture.namespace.until("g", "suspended", |graph| holds(graph, "Suspended")).await;
    fixture.player.let_end();
    fixture.namespace.until("g", "suspended, one item done", one_done).await;
    fixture.operator.kill().await?;
    fixture.restart().await?;
    // what is not to happen has no moment of its own
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(item_jobs(&fixture).await?.len(), 1);
    fixture.namespace.edit("g", json!({"desiredState": "Run"})).await?;
    let graph = fixture.namespace.until_finished("g").await;
    let each = status_of(&graph, "each");
    assert_eq!((finished(&graph), each.attempts), (Some("Complete"), 1));
    assert_eq!(each.outputs["n"], json!([1, 1, 1]));
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn many_items_are_few_writes() -> Result<()> {
    // `ITEMS=1000` for the limit; that many pods beside other tests make those wait
    let count = std::env::var("ITEMS").ok().and_then(|count| count.parse().ok()).unwrap_or(100_usize);
    let fixture = Fixture::new("each-many", |_, _| Play::succeeds(r#"{"n": 1}"#)).await?;
    let all: Vec<usize> = (0..count).collect();
    fixture.namespace.create("g", json!({"tasks": [each(json!({"items": all}), json!({}))]})).await?;
    let began = Instant::now();
    let graph = ended_in_minutes(&fixture).await?;
    assert_eq!(finished(&graph), Some("Complete"));
    assert_eq!(status_of(&graph, "each").outputs["n"], json!(vec![1; count]));
    let writes = fixture.proxy.writes().len();
    // besides, one status each half second
    let told = usize::try_from(began.elapsed().as_secs())? * 2;
    assert!(writes < count + 60 + told, "{writes} writes");
    fixture.auditor.judge().await?;
    Ok(())
}
