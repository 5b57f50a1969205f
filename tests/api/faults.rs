//! Faults that Kubernetes, the network and users make.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use k8s_openapi::api::batch::v1::Job;
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use taskgraph::api::TaskGraph;

use crate::{
    fixture::{Fixture, task, task_with},
    support::{
        ControlPlane, Operator, Play, Proxy,
        namespace::{PATIENCE, finished, line, status, task as task_status},
        operator::Settings,
        proxy::Fate,
    },
};

/// A chain of this length, each link slow enough for faults to meet it.
fn chain(length: usize) -> Value {
    let name = |place: usize| format!("t{place}");
    let tasks: Vec<Value> = (0..length)
        .map(|place| match place {
            0 => task(&name(0), &[]),
            _ => task(&name(place), &[&name(place - 1)]),
        })
        .collect();
    json!({"tasks": tasks})
}

fn quick(_: &str, _: u32) -> Play {
    Play::succeeds("").after(Duration::from_millis(100))
}

/// All tasks Succeeded with their first attempt, and nothing broke a rule.
async fn ran_well(fixture: &Fixture, graph: &TaskGraph) -> Result<()> {
    assert_eq!(finished(graph), Some("Complete"));
    assert!(status(graph).tasks.iter().all(|task| task.attempts == 1), "{:?}", status(graph).tasks);
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn two_operators_that_both_lead() -> Result<()> {
    let fixture = Fixture::new("two", quick).await?;
    let _other = fixture.start_another().await?;
    let retry = json!({"retry": {"limit": 2, "backoff": {"initial": "20ms"}}});
    let mut spec = chain(6);
    spec["tasks"].as_array_mut().expect("tasks").push(task_with("flaky", &[], retry));
    let flaky = Fixture::new("two-flaky", |task, attempt| match (task, attempt) {
        ("flaky", 1) => Play::fails(1),
        _ => quick(task, attempt),
    });
    let flaky = flaky.await?;
    let _third = flaky.start_another().await?;
    let (plain, mixed) = tokio::try_join!(fixture.run("g", chain(6)), flaky.run("g", spec))?;
    ran_well(&fixture, &plain).await?;
    assert_eq!(finished(&mixed), Some("Complete"));
    assert_eq!(task_status(&mixed, "flaky").map(|task| task.attempts), Some(2));
    flaky.judge().await?;
    Ok(())
}

#[tokio::test]
async fn one_of_two_operators_frozen_in_mid_run_and_woken() -> Result<()> {
    let fixture = Fixture::new("frozen", quick).await?;
    fixture.namespace.create("g", chain(8)).await?;
    fixture.until_job("t2", 1).await;
    fixture.operator.freeze();
    let _other = fixture.start_another().await?;
    fixture.until_job("t5", 1).await;
    // it wakes with what it knew at t2
    fixture.operator.thaw();
    let graph = fixture.namespace.until_finished("g").await;
    ran_well(&fixture, &graph).await
}

#[tokio::test]
async fn a_second_operator_waits_for_the_lease() -> Result<()> {
    let fixture = Fixture::new("lease", quick).await?;
    let proxy = Proxy::start(ControlPlane::shared()).await?;
    fixture.run("first", chain(1)).await?;
    let _other = Operator::start(Settings::new(proxy.kubeconfig(), &fixture.namespace.name))?;
    fixture.run("second", chain(3)).await?;
    assert_eq!(proxy.writes().iter().map(ToString::to_string).collect::<Vec<_>>(), Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn a_job_deleted_by_hand_is_lost_and_tried_again() -> Result<()> {
    let fixture = Fixture::new("lost", |_, attempt| match attempt {
        1 => Play::runs_on().lingering(Duration::from_millis(300)),
        _ => Play::succeeds(""),
    })
    .await?;
    fixture.namespace.create("g", json!({"tasks": [task("a", &[])]})).await?;
    let job = fixture.until_job("a", 1).await;
    fixture.until_pod_runs("a").await;
    // stored: a Job that vanishes before anything tells of it cannot be missed by anyone
    let stored = |graph: &TaskGraph| task_status(graph, "a").is_some_and(|task| task.job.is_some());
    fixture.namespace.until("g", "stored", stored).await;
    fixture.namespace.jobs().delete(&job, &DeleteParams::background()).await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(finished(&graph), Some("Complete"));
    let task = task_status(&graph, "a").expect("its status");
    assert_eq!((task.attempts, task.failed_attempts[0].reason.as_str()), (2, "JobLost"));
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn a_job_deleted_while_the_operator_is_down() -> Result<()> {
    let mut fixture =
        Fixture::new("lost-down", |_, attempt| if attempt == 1 { Play::runs_on() } else { Play::succeeds("") }).await?;
    fixture.namespace.create("g", json!({"tasks": [task("a", &[])]})).await?;
    let job = fixture.until_job("a", 1).await;
    // stored: a Job that vanishes before anything tells of it cannot be missed by anyone
    let stored = |graph: &TaskGraph| task_status(graph, "a").is_some_and(|task| task.job.is_some());
    fixture.namespace.until("g", "stored", stored).await;
    fixture.operator.kill().await?;
    fixture.namespace.jobs().delete(&job, &DeleteParams::background()).await?;
    fixture.namespace.until_all::<Job>("gone", <[Job]>::is_empty).await;
    fixture.restart().await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(finished(&graph), Some("Complete"));
    assert_eq!(task_status(&graph, "a").map(|task| task.attempts), Some(2));
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn a_foreign_job_with_our_name() -> Result<()> {
    let mut fixture = Fixture::new("taken", quick).await?;
    // what its name will be is seen from a first run that dies before it creates the Job
    fixture.operator.kill().await?;
    fixture.restart().await?;
    let (sender, mut names) = tokio::sync::mpsc::unbounded_channel();
    fixture.proxy.inject(move |call| {
        let creates = call.verb == http::Method::POST && call.resource == "jobs";
        (creates && sender.send(call.name.clone()).is_ok()).then_some(Fate::Refused(500))
    });
    fixture.namespace.create("g", json!({"tasks": [task("a", &[])]})).await?;
    let name = names.recv().await.expect("the operator creates a Job");
    fixture.operator.kill().await?;
    let foreign: Job = serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"suspend": true, "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "x", "image": "x"}]}}},
    }))?;
    fixture.namespace.jobs().create(&PostParams::default(), &foreign).await?;
    fixture.restart().await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(finished(&graph), Some("Failed"));
    let task = task_status(&graph, "a").expect("its status");
    assert!(
        task.reason.as_deref() == Some("NameTaken") || task.failed_attempts.iter().any(|one| one.reason == "NameTaken"),
        "{task:?}"
    );
    let kept = fixture.namespace.jobs().get(&name).await?;
    assert!(
        kept.metadata.deletion_timestamp.is_none() && kept.owner_references().is_empty(),
        "a foreign Job is left alone"
    );
    Ok(())
}

#[tokio::test]
async fn answers_to_creates_that_are_lost() -> Result<()> {
    let fixture = Fixture::new("answers", quick).await?;
    fixture.proxy.inject_times(3, Fate::AnswerLost, |call| call.verb == http::Method::POST && call.resource == "jobs");
    let graph = fixture.run("g", chain(4)).await?;
    ran_well(&fixture, &graph).await
}

#[tokio::test]
async fn conflicts_and_errors_on_every_kind_of_write() -> Result<()> {
    let fixture = Fixture::new("errors", quick).await?;
    for code in [409, 429, 500] {
        fixture.proxy.inject_times(2, Fate::Refused(code), |call| call.resource == "taskgraphs/status");
    }
    for code in [429, 500] {
        fixture
            .proxy
            .inject_times(2, Fate::Refused(code), |call| call.verb == http::Method::POST && call.resource == "jobs");
        fixture.proxy.inject_times(1, Fate::Refused(code), |call| call.resource == "controllerrevisions");
        fixture.proxy.inject_times(1, Fate::Refused(code), |call| call.resource == "events");
    }
    fixture.proxy.inject_times(2, Fate::AnswerLost, |call| call.resource == "taskgraphs/status");
    let graph = fixture.run("g", chain(4)).await?;
    ran_well(&fixture, &graph).await
}

/// A task that fails once and one after it: of both more than one fact must be stored before anything follows.
fn retried() -> Value {
    let retry = json!({"retry": {"limit": 1, "backoff": {"initial": "50ms"}}});
    json!({"tasks": [task_with("flaky", &[], retry), task("after", &["flaky"])]})
}

fn fails_once(task: &str, attempt: u32) -> Play {
    if (task, attempt) == ("flaky", 1) { Play::fails(1) } else { quick(task, attempt) }
}

/// Nothing was lost, and nothing made twice.
async fn was_retried(fixture: &Fixture) -> Result<()> {
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!((finished(&graph), line(&graph).as_str()), (Some("Complete"), "flaky=Succeeded/2 after=Succeeded/1"));
    fixture.judge().await?;
    Ok(())
}

/// From the moment that a Job is created, each status is refused with this code, for a while.
async fn refused_for_a_while(code: u16) -> Result<()> {
    let fixture = Fixture::new(&format!("refused-{code}"), fails_once).await?;
    let (mut created, over) = (false, Arc::new(AtomicBool::new(false)));
    let over_now = Arc::clone(&over);
    fixture.proxy.inject(move |call| {
        created |= call.verb == http::Method::POST && call.resource == "jobs";
        let refused = created && call.resource == "taskgraphs/status" && !over_now.load(Ordering::Relaxed);
        refused.then_some(Fate::Refused(code))
    });
    fixture.namespace.create("g", retried()).await?;
    fixture.until_job("flaky", 1).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let tries = fixture.proxy.writes().iter().filter(|write| write.call.resource == "taskgraphs/status").count();
    assert!((3..100).contains(&tries), "{code}: tried {tries} times, which is too often or too seldom");
    let second = fixture.proxy.writes().iter().filter(|write| write.call.resource == "jobs").count();
    assert_eq!(second, 1, "{code}: nothing that must be stored first was acted on");
    over.store(true, Ordering::Relaxed);
    was_retried(&fixture).await
}

#[tokio::test]
async fn no_status_is_taken_for_a_while_after_a_job_was_created() -> Result<()> {
    tokio::try_join!(
        refused_for_a_while(403),
        refused_for_a_while(409),
        refused_for_a_while(422),
        refused_for_a_while(500)
    )?;
    Ok(())
}

#[tokio::test]
async fn somebody_changes_the_graph_all_the_time() -> Result<()> {
    let fixture = Fixture::new("restless", fails_once).await?;
    fixture.namespace.create("g", retried()).await?;
    let graphs = fixture.namespace.graphs();
    let restless = async {
        for count in 0_u32.. {
            let note = json!({"metadata": {"annotations": {"example.com/count": count.to_string()}}});
            graphs.patch("g", &PatchParams::default(), &Patch::Merge(note)).await?;
        }
        anyhow::Ok(())
    };
    // each write of the status meets another version of the object than the one that was read
    tokio::select! {
        result = restless => result?,
        result = was_retried(&fixture) => return result,
        () = tokio::time::sleep(Duration::from_secs(10)) => {}
    }
    was_retried(&fixture).await
}

#[tokio::test]
async fn watches_that_are_cut_or_too_old() -> Result<()> {
    let fixture = Fixture::new("watches", quick).await?;
    fixture.namespace.create("g", chain(6)).await?;
    fixture.until_job("t1", 1).await;
    fixture.proxy.cut();
    fixture.until_job("t3", 1).await;
    fixture.proxy.gone();
    let graph = fixture.namespace.until_finished("g").await;
    ran_well(&fixture, &graph).await
}

#[tokio::test]
async fn watches_that_lag() -> Result<()> {
    for held in ["jobs", "taskgraphs", "pods"] {
        let fixture = Fixture::new(&format!("lag-{held}"), quick).await?;
        fixture.namespace.create("g", chain(4)).await?;
        fixture.until_job("t1", 1).await;
        fixture.proxy.hold(held);
        fixture.namespace.edit("g", json!({"parallelism": 3})).await?;
        // what the operator does meanwhile it does without them
        tokio::time::sleep(Duration::from_secs(2)).await;
        fixture.proxy.release();
        let graph = fixture.namespace.until_finished("g").await;
        ran_well(&fixture, &graph).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_broken_object_stops_no_other() -> Result<()> {
    let fixture = Fixture::new("broken", quick).await?;
    let graphs = fixture.namespace.graphs();
    fixture.namespace.create("victim", chain(4)).await?;
    fixture.until_job("t0", 1).await;
    // what the CRD lets through: tasks that are none, doubled ones, numbers out of all bounds
    let nonsense = json!({"status": {"sequence": 4_000_000_000_u64, "startTime": "0001-01-01T00:00:00Z", "revision": "no-such-revision",
        "tasks": [{"name": "t0", "phase": "Succeeded", "attempts": 4_000_000_000_u32}, {"name": "t0", "phase": "Pending"},
            {"name": "no-such-task", "phase": "Running", "attempts": 1}]}});
    graphs.patch_status("victim", &PatchParams::default(), &Patch::Merge(nonsense)).await?;
    let labels = json!({"taskgraph.dev/graph": "victim", "taskgraph.dev/graph-uid": "no-such-uid", "taskgraph.dev/role": "task",
        "taskgraph.dev/task": "no-such-task", "taskgraph.dev/attempt": "minus-one", "taskgraph.dev/shard": "many"});
    let stray: Job = serde_json::from_value(json!({
        "metadata": {"name": "stray", "labels": labels},
        "spec": {"template": {"metadata": {"labels": labels},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "x", "image": "x"}]}}},
    }))?;
    fixture.namespace.jobs().create(&PostParams::default(), &stray).await?;
    let graph = fixture.run("other", chain(3)).await?;
    assert_eq!(finished(&graph), Some("Complete"));
    // and the operator is still the one that was started
    assert!(fixture.namespace.jobs().get_opt("stray").await?.is_some(), "what is not ours is left alone");
    Ok(())
}

#[tokio::test]
async fn a_job_of_ours_with_labels_edited_by_hand() -> Result<()> {
    let fixture = Fixture::new("labels", |task, _| match task {
        "a" => Play::succeeds("").held(),
        _ => Play::succeeds(""),
    })
    .await?;
    fixture.namespace.create("g", json!({"tasks": [task("a", &[])]})).await?;
    let job = fixture.until_job("a", 1).await;
    fixture.until_pod_runs("a").await;
    let labels = json!({"metadata": {"labels": {"taskgraph.dev/attempt": "seven", "taskgraph.dev/task": null}}});
    fixture.namespace.jobs().patch(&job, &PatchParams::default(), &Patch::Merge(labels)).await?;
    fixture.player.let_end();
    let graph = fixture.run("other", chain(2)).await?;
    assert_eq!(finished(&graph), Some("Complete"));
    fixture.namespace.until_finished("g").await;
    Ok(())
}

#[tokio::test]
async fn a_restart_with_a_finished_a_running_and_a_suspended_graph() -> Result<()> {
    let mut fixture = Fixture::new("restart", |task, _| match task {
        "long" => Play::succeeds("").held(),
        _ => quick(task, 1),
    })
    .await?;
    let done = fixture.run("done", chain(2)).await?;
    fixture.namespace.create("running", json!({"tasks": [task("long", &[]), task("next", &["long"])]})).await?;
    fixture.namespace.create("suspended", json!({"desiredState": "Suspend", "tasks": [task("a", &[])]})).await?;
    fixture.until_job("long", 1).await;
    fixture
        .namespace
        .until("suspended", "suspended", |graph| crate::support::namespace::holds(graph, "Suspended"))
        .await;
    let ended = fixture.operator.terminate().await?;
    assert!(ended.success(), "SIGTERM is a clean end: {ended}");
    fixture.restart().await?;
    fixture.player.let_end();
    let graph = fixture.namespace.until_finished("running").await;
    ran_well(&fixture, &graph).await?;
    let after = fixture.namespace.graphs().get("done").await?;
    assert_eq!(after.status, done.status, "a finished graph is not touched");
    let suspended = fixture.namespace.graphs().get("suspended").await?;
    assert_eq!(task_status(&suspended, "a").map(|task| task.attempts), Some(0));
    fixture.namespace.edit("suspended", json!({"desiredState": "Run"})).await?;
    let graph = fixture.namespace.until_finished("suspended").await;
    ran_well(&fixture, &graph).await
}

#[tokio::test]
async fn many_kills_at_no_matter_what_moment() -> Result<()> {
    let mut fixture = Fixture::new("kills", quick).await?;
    fixture.namespace.create("g", chain(6)).await?;
    for place in 0..5 {
        fixture.until_job(&format!("t{place}"), 1).await;
        fixture.operator.kill().await?;
        fixture.restart().await?;
    }
    let graph = fixture.namespace.until_finished("g").await;
    ran_well(&fixture, &graph).await
}

/// Waits until the graph is not there any more.
async fn until_gone(fixture: &Fixture, name: &str) -> Result<()> {
    let gone = async {
        while fixture.namespace.graphs().get_opt(name).await?.is_some() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, gone).await?
}

#[tokio::test]
async fn a_graph_deleted_while_its_job_is_refused_is_forgotten() -> Result<()> {
    let fixture = Fixture::new("forgotten", quick).await?;
    let (sender, mut names) = tokio::sync::mpsc::unbounded_channel();
    fixture.proxy.inject(move |call| {
        let creates = call.verb == http::Method::POST && call.resource == "jobs";
        (creates && sender.send(call.name.clone()).is_ok()).then_some(Fate::Refused(500))
    });
    fixture.namespace.create("g", json!({"tasks": [task("a", &[])]})).await?;
    for _ in 0..2 {
        names.recv().await.expect("the operator goes on trying");
    }
    fixture.namespace.graphs().delete("g", &DeleteParams::default()).await?;
    until_gone(&fixture, "g").await?;
    // until the watch tells of it; nobody creates Jobs of a graph that is gone
    let silence = async {
        // longer than the longest pause between two tries
        while tokio::time::timeout(Duration::from_secs(11), names.recv()).await.is_ok() {}
    };
    tokio::time::timeout(PATIENCE, silence).await.context("it goes on creating Jobs of a graph that is gone")
}

#[tokio::test]
async fn the_time_to_live_counts_though_nothing_happens_after_the_end() -> Result<()> {
    let fixture = Fixture::new("lives", quick).await?;
    let decision = json!({"name": "d", "decision": {"branches": [{"name": "only"}]}});
    for place in 0..5 {
        let spec = json!({"tasks": [decision], "ttlAfterFinished": "1s"});
        fixture.namespace.create(&format!("g{place}"), spec).await?;
    }
    for place in 0..5 {
        until_gone(&fixture, &format!("g{place}")).await?;
    }
    Ok(())
}
