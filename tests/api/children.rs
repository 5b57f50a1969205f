//! Templates of graphs: as the whole of a graph, and as child graphs.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use taskgraph::api::{DesiredState, GraphPhase, LABEL_GRAPH, TaskGraph, TaskPhase, TaskTemplate};

use crate::{
    fixture::{Fixture, container, task, task_with},
    support::{
        Play,
        namespace::{condition, finished, holds, status, task as task_status},
        player::is_terminal,
    },
};

/// A graph template of two tasks, `read` and `write`, the second by a template of its own.
fn load() -> Value {
    let mut read = task("read", &[]);
    read["container"]["env"] = json!([{"name": "SOURCE", "value": "${{ args.source }}"}]);
    let write = json!({"name": "write", "dependsOn": ["read"], "templateRef": {"name": "write"}});
    json!({
        "parameters": [{"name": "source", "required": true, "type": "string"}],
        "graph": {
            "tasks": [read, write],
            "outputs": [{"name": "rows", "value": "tasks.read.outputs.rows"}, {"name": "source", "value": "args.source"}],
        },
    })
}

async fn with_load(test: &str, script: impl Fn(&str, u32) -> Play + Send + Sync + 'static) -> Result<Fixture> {
    let fixture = Fixture::new(test, script).await?;
    fixture.namespace.create_template("load", load()).await?;
    fixture.namespace.create_template("write", json!({"container": container()})).await?;
    Ok(fixture)
}

/// A task that runs the graph template.
fn child(more: Value) -> Value {
    let mut task = json!({"name": "child", "templateRef": {"name": "load"}, "arguments": {"source": "orders.csv"}});
    if let (Value::Object(task), Value::Object(more)) = (&mut task, more) {
        task.extend(more);
    }
    task
}

/// Its outputs, and for `read` some rows.
fn reads(task: &str) -> Play {
    if task == "read" { Play::succeeds(r#"{"rows": 7}"#) } else { Play::succeeds("") }
}

/// The child graphs of `g`, the first attempt first.
async fn children(fixture: &Fixture) -> Result<Vec<TaskGraph>> {
    let mine = ListParams::default().labels(&format!("{LABEL_GRAPH}=g"));
    let mut children = fixture.namespace.graphs().list(&mine).await?.items;
    children.sort_by_key(|child| child.labels().get("taskgraph.dev/attempt").cloned());
    Ok(children)
}

/// Waits until the task `child` has a child graph for which `wanted` holds; its name.
async fn until_child(fixture: &Fixture, what: &str, wanted: impl Fn(&TaskGraph) -> bool) -> String {
    let is_it = |graph: &&TaskGraph| graph.labels().contains_key(LABEL_GRAPH) && wanted(graph);
    let graphs =
        fixture.namespace.until_all::<TaskGraph>(what, |graphs| graphs.iter().any(|graph| is_it(&graph))).await;
    graphs.iter().find(is_it).map(ResourceExt::name_any).unwrap_or_default()
}

#[tokio::test]
async fn a_task_runs_a_graph_and_hands_on_what_it_returns() -> Result<()> {
    let fixture = with_load("child", |task, _| reads(task)).await?;
    let mut end = task("end", &["child"]);
    end["container"]["env"] = json!([{"name": "ROWS", "value": "${{ tasks.child.outputs.rows }}"}]);
    let defaults = json!({"nodeSelector": {"disk": "fast"}});
    let graph =
        fixture.run("g", json!({"podDefaults": defaults, "tasks": [child(json!({"timeout": "10m"})), end]})).await?;
    assert_eq!(finished(&graph), Some("Complete"));
    let told = task_status(&graph, "child").expect("it is there");
    assert_eq!(Value::Object(told.outputs), json!({"rows": 7, "source": "orders.csv"}));
    assert_eq!(told.progress.as_deref(), Some("2/2"));

    let children = children(&fixture).await?;
    assert_eq!(children.len(), 1);
    assert_eq!(told.job.as_deref(), Some(children[0].name_any().as_str()));
    let spec = serde_json::to_value(&children[0].spec)?;
    assert_eq!(
        spec,
        json!({"templateRef": {"name": "load"}, "arguments": {"source": "orders.csv"}, "timeout": "10m", "podDefaults": defaults})
    );
    let versions = |graph: &TaskGraph| -> Vec<_> {
        status(graph).templates.into_iter().map(|told| (told.name, told.generation)).collect()
    };
    let both = [("load".to_owned(), Some(1)), ("write".to_owned(), Some(1))];
    assert_eq!((versions(&graph), versions(&children[0])), (both.to_vec(), both.to_vec()));

    // the runs of a template, child graphs and others
    fixture.run("whole", json!({"templateRef": {"name": "load"}, "arguments": {"source": "x"}})).await?;
    let runs = ListParams::default().fields("spec.templateRef.name=load");
    let mut runs: Vec<_> =
        fixture.namespace.graphs().list(&runs).await?.items.iter().map(ResourceExt::name_any).collect();
    runs.sort();
    assert_eq!(runs, [children[0].name_any(), "whole".to_owned()]);
    fixture.judge().await?;

    fixture.namespace.graphs().delete("g", &DeleteParams::default()).await?;
    fixture.namespace.graphs().delete("whole", &DeleteParams::default()).await?;
    fixture.namespace.until_all::<TaskGraph>("gone", <[TaskGraph]>::is_empty).await;
    fixture.namespace.until_all::<Job>("gone", <[Job]>::is_empty).await;
    fixture.namespace.until_all::<Pod>("gone", <[Pod]>::is_empty).await;
    Ok(())
}

#[tokio::test]
async fn a_template_as_the_whole_of_a_graph() -> Result<()> {
    let fixture = Fixture::new("whole", |task, _| reads(task)).await?;
    let spec = json!({"templateRef": {"name": "load"}, "arguments": {"source": "a.csv"}, "parallelism": 1});
    fixture.namespace.create("g", spec).await?;
    let graph = fixture.namespace.until("g", "waiting", |graph| condition(graph, "Accepted").is_some()).await;
    let message = condition(&graph, "Accepted").map(|one| one.message.clone()).unwrap_or_default();
    assert!(message.contains("spec.templateRef") && message.contains("load"), "{message}");
    fixture.namespace.create_template("load", load()).await?;
    let names_write =
        |graph: &TaskGraph| condition(graph, "Accepted").is_some_and(|one| one.message.contains("\"write\""));
    fixture.namespace.until("g", "waiting for the template of the template", names_write).await;
    fixture.namespace.create_template("write", json!({"container": container()})).await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(finished(&graph), Some("Complete"));
    assert_eq!(Value::Object(status(&graph).outputs), json!({"rows": 7, "source": "a.csv"}));
    let jobs = serde_json::to_string(&fixture.namespace.jobs().list(&ListParams::default()).await?.items)?;
    assert!(jobs.contains("a.csv"));
    fixture.judge().await?;

    for (spec, why) in [
        (json!({"templateRef": {"name": "load"}, "tasks": [task("a", &[])]}), "either tasks, or templateRef"),
        (json!({}), "either tasks, or templateRef"),
    ] {
        let refused = fixture.namespace.create("bad", spec).await.expect_err("by a rule of the CRD");
        assert!(refused.to_string().contains(why), "{refused}");
    }
    Ok(())
}

#[tokio::test]
async fn templates_that_change_while_a_graph_runs_change_nothing() -> Result<()> {
    let fixture = with_load("pinned", |task, _| match task {
        "first" => Play::succeeds("").held(),
        _ => reads(task),
    })
    .await?;
    let spec = json!({"tasks": [task("first", &[]), child(json!({"dependsOn": ["first"]}))]});
    fixture.namespace.create("g", spec).await?;
    fixture.until_job("first", 1).await;
    let templates = fixture.namespace.api::<TaskTemplate>();
    let other = json!({"spec": {"graph": {"tasks": [task("other", &[])], "outputs": null}}});
    templates.patch("load", &PatchParams::default(), &Patch::Merge(other)).await?;
    templates.delete("write", &DeleteParams::default()).await?;
    fixture.player.let_end();
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(finished(&graph), Some("Complete"), "{:?}", status(&graph).message);
    assert_eq!(task_status(&graph, "child").map(|task| task.outputs["rows"].clone()), Some(json!(7)));
    let children = children(&fixture).await?;
    let tasks: Vec<_> = status(&children[0]).tasks.into_iter().map(|task| task.name).collect();
    assert_eq!(tasks, ["read", "write"]);
    Ok(())
}

#[tokio::test]
async fn a_failed_child_is_tried_again_as_a_new_one() -> Result<()> {
    let fixture = with_load("failing", |task, _| match task {
        "write" => Play::fails(3),
        _ => reads(task),
    })
    .await?;
    let retry = json!({"retry": {"limit": 1, "backoff": {"initial": "20ms", "max": "50ms"}}});
    let graph = fixture.run("g", json!({"tasks": [child(retry), task("after", &["child"])]})).await?;
    assert_eq!(finished(&graph), Some("Failed"));
    let told = task_status(&graph, "child").expect("it is there");
    assert_eq!((told.phase, told.attempts, told.reason.as_deref()), (TaskPhase::Failed, 2, Some("TasksFailed")));
    assert!(told.message.as_deref().unwrap_or_default().contains("failed: write (Error)"), "{:?}", told.message);
    assert_eq!(told.failed_attempts.len(), 2);
    let children = children(&fixture).await?;
    assert_eq!(children.iter().filter_map(finished).collect::<Vec<_>>(), ["Failed", "Failed"]);
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn cancel_passes_to_a_child_which_still_runs_its_finally() -> Result<()> {
    let fixture = Fixture::new("childcancel", |task, _| match task {
        "long" => Play::runs_on().lingering(Duration::from_millis(200)),
        _ => Play::succeeds(""),
    })
    .await?;
    let inner = json!({"graph": {"tasks": [task("long", &[])], "finally": [task("inner-last", &[])]}});
    fixture.namespace.create_template("inner", inner).await?;
    let outer = json!({"graph": {"tasks": [{"name": "t", "templateRef": {"name": "inner"}}]}});
    fixture.namespace.create_template("outer", outer).await?;
    let spec = json!({"tasks": [{"name": "child", "templateRef": {"name": "outer"}}], "finally": [task("last", &[])]});
    fixture.namespace.create("g", spec).await?;
    fixture.until_pod_runs("long").await;
    fixture.namespace.edit("g", json!({"desiredState": "Cancel"})).await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(condition(&graph, "Failed").map(|failed| failed.reason.as_str()), Some("Cancelled"));
    assert_eq!(task_status(&graph, "child").map(|task| task.phase), Some(TaskPhase::Cancelled));
    assert_eq!(task_status(&graph, "last").map(|task| task.phase), Some(TaskPhase::Succeeded));
    let graphs = fixture.namespace.graphs().list(&ListParams::default()).await?.items;
    assert_eq!(graphs.len(), 3);
    for graph in &graphs {
        assert_eq!(graph.spec.desired_state, Some(DesiredState::Cancel));
        assert_eq!(condition(graph, "Failed").map(|failed| failed.reason.as_str()), Some("Cancelled"));
    }
    fixture.until_job("inner-last", 1).await;
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn suspend_and_resume_pass_to_a_child() -> Result<()> {
    let fixture = with_load("childsuspend", |task, _| reads(task).held()).await?;
    fixture.namespace.create("g", json!({"tasks": [child(json!({}))]})).await?;
    fixture.until_job("read", 1).await;
    fixture.namespace.edit("g", json!({"desiredState": "Suspend"})).await?;
    until_child(&fixture, "suspended", |child| holds(child, "Suspended")).await;
    fixture.player.let_end();
    let name = until_child(&fixture, "suspended, what ran has ended", |child| {
        holds(child, "Suspended") && task_status(child, "read").is_some_and(|task| task.phase == TaskPhase::Succeeded)
    })
    .await;
    let suspended = fixture.namespace.graphs().get(&name).await?;
    assert_eq!(task_status(&suspended, "write").map(|task| task.attempts), Some(0));
    fixture.namespace.edit("g", json!({"desiredState": "Run"})).await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(finished(&graph), Some("Complete"));
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn a_child_deleted_by_hand_is_a_lost_attempt() -> Result<()> {
    let fixture = with_load("childlost", |task, _| match task {
        "read" => reads(task).held().lingering(Duration::from_millis(300)),
        _ => Play::succeeds(""),
    })
    .await?;
    fixture.namespace.create("g", json!({"tasks": [child(json!({}))]})).await?;
    fixture.until_pod_runs("read").await;
    let first = until_child(&fixture, "running", |child| status(child).phase == Some(GraphPhase::Running)).await;
    fixture.namespace.graphs().delete(&first, &DeleteParams::default()).await?;
    fixture.player.let_end();
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(finished(&graph), Some("Complete"));
    let told = task_status(&graph, "child").expect("it is there");
    assert_eq!((told.attempts, told.disruptions), (2, 1));
    assert_eq!(told.failed_attempts[0].reason, "ChildLost");
    assert_ne!(told.job.as_deref(), Some(first.as_str()));
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn a_graph_of_that_name_which_is_no_child_stands_in_the_way() -> Result<()> {
    let fixture = with_load("childname", |task, _| match task {
        "first" => Play::succeeds("").held(),
        _ => reads(task),
    })
    .await?;
    let spec = json!({"tasks": [task("first", &[]), child(json!({"dependsOn": ["first"]}))]});
    let graph = fixture.namespace.create("g", spec).await?;
    let name = taskgraph::jobs::job_name("g", &graph.uid().unwrap_or_default(), "task", "child", 1);
    fixture.namespace.create(&name, json!({"tasks": [task("mine", &[])]})).await?;
    fixture.player.let_end();
    let graph = fixture.namespace.until_finished("g").await;
    let told = task_status(&graph, "child").expect("it is there");
    assert_eq!((told.phase, told.reason.as_deref()), (TaskPhase::Failed, Some("NameTaken")));
    assert!(told.message.as_deref().unwrap_or_default().contains("TaskGraph"), "{:?}", told.message);
    assert_eq!(finished(&fixture.namespace.until_finished(&name).await), Some("Complete"), "it is left alone");
    Ok(())
}

#[tokio::test]
async fn an_operator_that_was_away_takes_children_up_again() -> Result<()> {
    let mut fixture = with_load("childaway", |task, _| match task {
        "read" => reads(task).held(),
        _ => Play::succeeds(""),
    })
    .await?;
    let tasks = json!([child(json!({})), task_with("end", &["child"], json!({}))]);
    fixture.namespace.create("g", json!({"tasks": tasks})).await?;
    fixture.until_pod_runs("read").await;
    fixture.operator.kill().await?;
    fixture.player.let_end();
    fixture.namespace.until_all::<Pod>("ended", |pods| pods.iter().all(is_terminal)).await;
    fixture.restart().await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(finished(&graph), Some("Complete"));
    assert_eq!(task_status(&graph, "child").map(|task| task.attempts), Some(1));
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn an_edit_takes_a_running_child_away_and_puts_one_in_a_jobs_place() -> Result<()> {
    let fixture = Fixture::new("childedit", |task, attempt| match (task, attempt) {
        ("long", _) | ("turned", 1) => Play::runs_on().lingering(Duration::from_millis(100)),
        _ => Play::succeeds(""),
    })
    .await?;
    let graph = |name: &str| json!({"graph": {"tasks": [task(name, &[])]}});
    fixture.namespace.create_template("endless", graph("long")).await?;
    fixture.namespace.create_template("short", graph("inner")).await?;
    let removed = json!({"name": "removed", "templateRef": {"name": "endless"}});
    fixture.namespace.create("g", json!({"tasks": [removed, task("turned", &[])]})).await?;
    fixture.until_pod_runs("long").await;
    fixture.until_pod_runs("turned").await;
    let turned = json!({"name": "turned", "templateRef": {"name": "short"}});
    fixture.namespace.edit("g", json!({"tasks": [turned]})).await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(finished(&graph), Some("Complete"), "{:?}", status(&graph).message);
    let turned = task_status(&graph, "turned").expect("it is there");
    assert_eq!((turned.phase, turned.attempts, turned.progress.as_deref()), (TaskPhase::Succeeded, 2, Some("1/1")));
    let ends: Vec<_> = children(&fixture).await?.iter().filter_map(finished).collect();
    assert_eq!(ends, ["Failed", "Complete"], "the removed one was cancelled");
    assert!(task_status(&graph, "removed").is_some_and(|task| task.removed));
    let kept: Vec<_> = status(&graph).templates.into_iter().map(|template| template.name).collect();
    assert_eq!(kept, ["short"]);
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn a_rerun_of_a_task_is_a_new_child() -> Result<()> {
    let fixture = with_load("childrerun", |task, _| reads(task)).await?;
    fixture.run("g", json!({"tasks": [child(json!({})), task("end", &["child"])]})).await?;
    let rerun = json!({"rerun": {"id": "again", "scope": "Tasks", "tasks": ["child"]}});
    fixture.namespace.edit("g", rerun).await?;
    let twice = |graph: &TaskGraph| {
        finished(graph).is_some() && task_status(graph, "child").is_some_and(|task| task.attempts == 2)
    };
    let graph = fixture.namespace.until("g", "run twice", twice).await;
    assert_eq!(finished(&graph), Some("Complete"));
    assert_eq!(children(&fixture).await?.len(), 2);
    Ok(())
}
