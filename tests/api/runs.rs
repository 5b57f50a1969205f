//! Graphs run to their end; what users see on the way.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::{
    apps::v1::ControllerRevision,
    batch::v1::Job,
    core::v1::{Pod, ResourceQuota},
    events::v1::Event,
};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use taskgraph::api::{TaskGraph, TaskPhase};

use crate::{
    fixture::{Fixture, task, task_with},
    support::{
        Play,
        namespace::{condition, finished, holds, status, task as task_status},
    },
    told,
};

fn phase_of(graph: &TaskGraph, name: &str) -> Option<TaskPhase> {
    task_status(graph, name).map(|task| task.phase)
}

#[tokio::test]
async fn a_small_graph_completes() -> Result<()> {
    let fixture = Fixture::new("small", |task, _| match task {
        "extract" => Play::succeeds(r#"{"rows": 3}"#),
        _ => Play::succeeds("done").after(Duration::from_millis(30)),
    })
    .await?;
    let mut load = task("load", &["extract"]);
    load["container"]["env"] = json!([{"name": "ROWS", "value": "${{ tasks.extract.outputs.rows }} rows"}]);
    let graph = fixture.run("g", json!({"tasks": [task("extract", &[]), load, task("report", &["load"])]})).await?;
    assert_eq!(finished(&graph), Some("Complete"));
    assert_eq!(status(&graph).progress.as_deref(), Some("3/3"));
    assert_eq!(task_status(&graph, "extract").map(|task| Value::Object(task.outputs)), Some(json!({"rows": 3})));
    let jobs = fixture.namespace.until_all::<Job>("three", |jobs| jobs.len() == 3).await;
    let load = jobs.iter().find(|job| job.labels()["taskgraph.dev/task"] == "load").expect("a Job of load");
    let env = serde_json::to_value(load)?["spec"]["template"]["spec"]["containers"][0]["env"].clone();
    let value = |name: &str| {
        env.as_array().and_then(|env| env.iter().find(|one| one["name"] == name)).map(|one| one["value"].clone())
    };
    assert_eq!(value("ROWS"), Some(json!("3 rows")));
    assert_eq!(value("TASKGRAPH_TASK"), Some(json!("load")));
    assert_eq!(value("TASKGRAPH_ATTEMPT"), Some(json!("1")));
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn a_refused_spec_says_all_that_is_wrong_and_goes_on_when_mended() -> Result<()> {
    let fixture = Fixture::new("refused", |_, _| Play::succeeds("")).await?;
    let spec = json!({"tasks": [task("build", &[]), task("ship", &["biuld"]), task("loop", &["loop"])]});
    fixture.namespace.create("g", spec).await?;
    let graph = fixture.namespace.until("g", "refused", |graph| condition(graph, "Accepted").is_some()).await;
    let accepted = condition(&graph, "Accepted").expect("it was waited for");
    assert_eq!(accepted.status, "False");
    for expected in ["spec.tasks[1].dependsOn[0]", "\"biuld\"", "did you mean \"build\"", "spec.tasks[2]"] {
        assert!(accepted.message.contains(expected), "{expected} is not in {:?}", accepted.message);
    }
    assert!(holds(&graph, "Stalled"));
    let refusals = fixture.namespace.until_all::<Event>("one", |events| !events.is_empty()).await;
    assert!(refusals.iter().any(|event| event.note.as_deref().unwrap_or_default().contains("biuld")), "{refusals:?}");
    assert_eq!(fixture.namespace.jobs().list(&ListParams::default()).await?.items.len(), 0);
    let mended = json!({"tasks": [task("build", &[]), task("ship", &["build"])]});
    fixture.namespace.edit("g", mended).await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(finished(&graph), Some("Complete"));
    assert!(holds(&graph, "Accepted") && !holds(&graph, "Stalled"));
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn a_missing_template_is_waited_for() -> Result<()> {
    let fixture = Fixture::new("template", |_, _| Play::succeeds("")).await?;
    let spec = json!({"tasks": [{"name": "a", "templateRef": {"name": "extract"}, "arguments": {"source": "x.csv"}}]});
    fixture.namespace.create("g", spec).await?;
    let graph = fixture.namespace.until("g", "waiting", |graph| condition(graph, "Accepted").is_some()).await;
    let accepted = condition(&graph, "Accepted").expect("it was waited for");
    assert_eq!(accepted.status, "False");
    assert!(accepted.message.contains("extract"), "{:?}", accepted.message);
    let template = json!({"parameters": [{"name": "source", "type": "string", "required": true}],
        "container": {"image": "localhost/busybox:1", "env": [{"name": "SOURCE", "value": "${{ args.source }}"}]}});
    fixture.namespace.create_template("extract", template).await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(finished(&graph), Some("Complete"));
    let jobs = serde_json::to_string(&fixture.namespace.jobs().list(&ListParams::default()).await?.items)?;
    assert!(jobs.contains("x.csv"));
    assert_eq!(fixture.namespace.api::<ControllerRevision>().list(&ListParams::default()).await?.items.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_full_quota_is_shown_and_waited_for() -> Result<()> {
    let fixture = Fixture::new("quota", |_, _| Play::succeeds("")).await?;
    let quota: ResourceQuota = serde_json::from_value(
        json!({"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0", "count/jobs.batch": "0"}}}),
    )?;
    let quotas = fixture.namespace.api::<ResourceQuota>();
    quotas.create(&PostParams::default(), &quota).await?;
    let counted =
        |quota: Option<&ResourceQuota>| quota.and_then(|quota| quota.status.as_ref()?.hard.as_ref().map(|_| ()));
    fixture.namespace.until_object(quotas.clone(), "none", "counted", counted).await;
    fixture.namespace.create("g", json!({"tasks": [task("a", &[])]})).await?;
    let shows = |graph: &TaskGraph| {
        task_status(graph, "a").and_then(|task| task.message).is_some_and(|message| message.contains("quota"))
    };
    fixture.namespace.until("g", "showing the quota", shows).await;
    let more = json!({"spec": {"hard": {"pods": "9", "count/jobs.batch": "9"}}});
    quotas.patch("none", &PatchParams::default(), &Patch::Merge(more)).await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(finished(&graph), Some("Complete"));
    assert_eq!(task_status(&graph, "a").map(|task| task.attempts), Some(1));
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn a_finished_graph_is_deleted_after_its_time() -> Result<()> {
    let fixture = Fixture::new("ttl", |_, _| Play::succeeds("")).await?;
    let graph = fixture.run("g", json!({"ttlAfterFinished": "300ms", "tasks": [task("a", &[])]})).await;
    // it may be gone before the end was seen; that it had one is what counts
    drop(graph);
    fixture
        .namespace
        .until_object(fixture.namespace.graphs(), "g", "deleted", |graph| graph.is_none().then_some(()))
        .await;
    fixture.namespace.until_all::<Job>("gone", <[Job]>::is_empty).await;
    fixture.namespace.until_all::<Pod>("gone", <[Pod]>::is_empty).await;
    Ok(())
}

#[tokio::test]
async fn a_graph_deleted_in_mid_run_leaves_nothing() -> Result<()> {
    let fixture = Fixture::new("delete", |_, _| Play::runs_on().lingering(Duration::from_millis(100))).await?;
    fixture.namespace.create("g", json!({"tasks": [task("a", &[]), task("b", &[]), task("c", &["a"])]})).await?;
    fixture.namespace.until_all::<Job>("two", |jobs| jobs.len() == 2).await;
    fixture.namespace.graphs().delete("g", &DeleteParams::default()).await?;
    fixture
        .namespace
        .until_object(fixture.namespace.graphs(), "g", "deleted", |graph| graph.is_none().then_some(()))
        .await;
    fixture.namespace.until_all::<Job>("gone", <[Job]>::is_empty).await;
    fixture.namespace.until_all::<Pod>("gone", <[Pod]>::is_empty).await;
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn cancel_stops_what_runs_and_runs_finally() -> Result<()> {
    let fixture = Fixture::new("cancel", |task, _| match task {
        "cleanup" => Play::succeeds(""),
        _ => Play::runs_on().lingering(Duration::from_millis(200)),
    })
    .await?;
    let spec = json!({"tasks": [task("a", &[]), task("b", &["a"])], "finally": [task("cleanup", &[])]});
    fixture.namespace.create("g", spec).await?;
    fixture.until_job("a", 1).await;
    fixture.namespace.edit("g", json!({"desiredState": "Cancel"})).await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(condition(&graph, "Failed").map(|condition| condition.reason.as_str()), Some("Cancelled"));
    assert_eq!(phase_of(&graph, "a"), Some(TaskPhase::Cancelled));
    assert_eq!(phase_of(&graph, "cleanup"), Some(TaskPhase::Succeeded));
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn suspend_starts_nothing_new_and_resume_goes_on() -> Result<()> {
    let fixture = Fixture::new("suspend", |_, _| Play::succeeds("").held()).await?;
    fixture.namespace.create("g", json!({"tasks": [task("a", &[]), task("b", &["a"])]})).await?;
    fixture.until_job("a", 1).await;
    fixture.namespace.edit("g", json!({"desiredState": "Suspend"})).await?;
    fixture.namespace.until("g", "suspended", |graph| holds(graph, "Suspended")).await;
    fixture.player.let_end();
    let suspended = |graph: &TaskGraph| holds(graph, "Suspended") && phase_of(graph, "a") == Some(TaskPhase::Succeeded);
    let graph = fixture.namespace.until("g", "suspended", suspended).await;
    assert_eq!(task_status(&graph, "b").map(|task| task.attempts), Some(0));
    fixture.namespace.edit("g", json!({"desiredState": "Run"})).await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(finished(&graph), Some("Complete"));
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn a_disruption_uses_up_no_retry() -> Result<()> {
    let fixture = Fixture::new("evicted", |_, attempt| match attempt {
        1 => Play::ends(crate::support::player::Ending::Evicted),
        _ => Play::succeeds(""),
    })
    .await?;
    let graph = fixture.run("g", json!({"tasks": [task("a", &[])]})).await?;
    assert_eq!(finished(&graph), Some("Complete"));
    assert_eq!(task_status(&graph, "a").map(|task| task.attempts), Some(2));
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn an_image_that_is_missing_shows_and_ends_at_the_start_timeout() -> Result<()> {
    let fixture =
        Fixture::new("image", |_, _| Play::ends(crate::support::player::Ending::Waits("ErrImageNeverPull"))).await?;
    let spec = |timeout: &str| json!({"tasks": [task_with("a", &[], json!({"startTimeout": timeout}))]});
    fixture.namespace.create("waits", spec("1h")).await?;
    let shows = |graph: &TaskGraph| {
        task_status(graph, "a")
            .is_some_and(|task| task.phase == TaskPhase::Running && task.reason.as_deref() == Some("ErrImageNeverPull"))
    };
    fixture.namespace.until("waits", "showing the missing image", shows).await;
    let graph = fixture.run("ends", spec("5s")).await?;
    assert_eq!(finished(&graph), Some("Failed"));
    let a = task_status(&graph, "a").expect("its status");
    assert_eq!((a.phase, a.reason.as_deref()), (TaskPhase::Failed, Some("StartTimeout")));
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn events_tell_of_the_graph_not_of_each_success() -> Result<()> {
    let fixture =
        Fixture::new("events", |task, _| if task == "good" { Play::succeeds("") } else { Play::fails(4) }).await?;
    let tasks = json!([task("bad", &[]), task("worse", &[]), task("good", &[])]);
    let graph = fixture.run("g", json!({"failurePolicy": "FinishBranches", "tasks": tasks})).await?;
    assert_eq!(finished(&graph), Some("Failed"));
    // of each of the two, though nearly at the same time
    told::until_told(&fixture, &graph).await?;
    told::told_once(&fixture, &graph).await
}
