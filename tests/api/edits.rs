//! Graphs edited while they run, and tasks run once more.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::{apps::v1::ControllerRevision, batch::v1::Job};
use kube::{ResourceExt, api::ListParams};
use serde_json::json;
use taskgraph::api::{TaskGraph, TaskPhase, TaskStatus};

use crate::{
    crash,
    fixture::{Fixture, container, task, task_with},
    support::{
        Play,
        namespace::{condition, finished, holds, line, status, task as task_of},
        proxy::{Fate, Side, Write, certain},
        sight::{Object, Sighting},
    },
};

fn told(graph: &TaskGraph, name: &str) -> TaskStatus {
    task_of(graph, name).unwrap_or_else(|| panic!("{name} is told of"))
}

/// Whether the graph's spec, as it stands, is accepted.
fn accepted(graph: &TaskGraph) -> bool {
    status(graph).observed_generation == graph.metadata.generation && holds(graph, "Accepted")
}

fn refused(graph: &TaskGraph) -> bool {
    status(graph).observed_generation == graph.metadata.generation && !holds(graph, "Accepted")
}

async fn revisions(fixture: &Fixture) -> Result<Vec<i64>> {
    let all = fixture.namespace.api::<ControllerRevision>().list(&ListParams::default()).await?;
    let mut numbers: Vec<_> = all.items.iter().map(|revision| revision.revision).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Waits until the pods of a task, or of any task, are as long as the test lets them.
fn slow(millis: u64) -> Play {
    Play::succeeds("").after(Duration::from_millis(millis))
}

#[tokio::test]
async fn tasks_are_added_removed_and_changed_while_the_graph_runs() -> Result<()> {
    let fixture = Fixture::new("edit", |task, _| match task {
        "gone" => Play::runs_on().lingering(Duration::from_millis(100)),
        "first" => Play::succeeds("").held(),
        _ => Play::succeeds(""),
    })
    .await?;
    let spec = json!({"tasks": [
        task("first", &[]), task("gone", &[]), task("never", &["gone"]), task("later", &["first"])]});
    fixture.namespace.create("g", spec).await?;
    fixture.until_pod_runs("gone").await;
    fixture.until_pod_runs("first").await;
    let changed = json!({"container": {"image": "localhost/busybox:2"}});
    let edit = json!({"tasks": [
        task_with("first", &[], changed.clone()), task("new", &[]), task_with("later", &["first", "new"], changed)]});
    fixture.namespace.edit("g", edit).await?;
    fixture.namespace.until("g", "edited", |graph| status(graph).revision_number == 2).await;
    fixture.player.let_end();
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(finished(&graph), Some("Complete"));
    assert_eq!(line(&graph), "first=Succeeded/1 new=Succeeded/1 later=Succeeded/1 gone=Cancelled/1");
    assert!(told(&graph, "first").stale && !told(&graph, "later").stale && told(&graph, "gone").removed);
    let image = |task: &str| {
        let jobs = fixture.namespace.jobs();
        let name = told(&graph, task).job.unwrap_or_default();
        async move { anyhow::Ok(serde_json::to_string(&jobs.get(&name).await?)?.contains("busybox:2")) }
    };
    assert!(!image("first").await? && image("later").await?);
    assert_eq!((status(&graph).revision_number, revisions(&fixture).await?), (2, vec![1, 2]));
    let events: Vec<_> = status(&graph).history.into_iter().map(|entry| entry.event).collect();
    assert_eq!(events, ["Accepted", "Edited", "Finished"]);
    fixture.judge().await?;
    Ok(())
}

/// What was asked for before a rerun comes into being after it: the task must not be launched once more beside that.
#[tokio::test]
async fn a_rerun_waits_for_a_job_that_is_being_created() -> Result<()> {
    let fixture =
        Fixture::new("slow-create", |_, attempt| if attempt == 1 { Play::runs_on() } else { slow(500) }).await?;
    let late = Fate::Delayed(Duration::from_secs(3));
    fixture.proxy.inject_times(1, late, |call| call.resource == "jobs" && call.verb == http::Method::POST);
    fixture.namespace.create("g", json!({"tasks": [task("a", &[])]})).await?;
    let asked = |graph: &TaskGraph| told(graph, "a").attempts == 1;
    fixture.namespace.until("g", "launched", |graph| status(graph).start_time.is_some() && asked(graph)).await;
    fixture.namespace.edit("g", json!({"rerun": {"id": "1", "scope": "All"}})).await?;
    let ended = |graph: &TaskGraph| line(graph) == "a=Succeeded/2";
    fixture.namespace.until("g", "run once more", ended).await;
    let seen = fixture.judge().await?;
    let began = |attempt: u32| {
        let is_it = |one: &&Sighting| matches!(&one.object, Object::Job(key) if key.attempt == attempt);
        seen.iter().find(is_it).map(|one| one.version)
    };
    assert!(began(1).is_some() && began(1) < began(2), "{:?} {:?}", began(1), began(2));
    Ok(())
}

/// `kills`: the operator is killed after each edit, and started again.
async fn removed_and_added_again(kills: bool) -> Result<()> {
    let test = if kills { "again-killed" } else { "again" };
    let mut fixture = Fixture::new(test, |task, attempt| match (task, attempt) {
        ("a", 1) => Play::runs_on().lingering(Duration::from_secs(4)),
        _ => Play::succeeds(""),
    })
    .await?;
    fixture.namespace.create("g", json!({"tasks": [task("a", &[]), task("b", &[])]})).await?;
    let first = fixture.until_job("a", 1).await;
    fixture.until_pod_runs("a").await;
    fixture.namespace.edit("g", json!({"tasks": [task("b", &[])]})).await?;
    let is_on_its_way_out = |jobs: &[Job]| jobs.iter().any(|job| job.metadata.deletion_timestamp.is_some());
    fixture.namespace.until_all::<Job>("on its way out", is_on_its_way_out).await;
    if kills {
        fixture.split().1.kill_and_restart().await?;
    }
    let changed = json!({"container": {"image": "localhost/busybox:2"}});
    fixture.namespace.edit("g", json!({"tasks": [task_with("a", &[], changed), task("b", &[])]})).await?;
    if kills {
        let again = |graph: &TaskGraph| status(graph).revision_number == 3 && !told(graph, "a").removed;
        fixture.namespace.until("g", "edited", again).await;
        fixture.split().1.kill_and_restart().await?;
    }
    let second = fixture.until_job("a", 2).await;
    let pods = fixture.namespace.pods().list(&ListParams::default()).await?;
    let left: Vec<_> = pods.items.iter().map(ResourceExt::name_any).filter(|name| name.starts_with(&first)).collect();
    assert!(left.is_empty(), "{left:?} are left of attempt 1");
    let job = fixture.namespace.jobs().get(&second).await?;
    assert!(serde_json::to_string(&job)?.contains("busybox:2"), "it is made from the newest spec");
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!((finished(&graph), line(&graph).as_str()), (Some("Complete"), "a=Succeeded/2 b=Succeeded/1"));
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn a_task_is_removed_and_added_again_while_its_pod_is_on_its_way_out() -> Result<()> {
    tokio::try_join!(removed_and_added_again(false), removed_and_added_again(true))?;
    Ok(())
}

#[tokio::test]
async fn an_edit_that_is_not_valid_stops_launching_until_it_is_mended() -> Result<()> {
    let fixture = Fixture::new("invalid", |task, _| match task {
        "a" => Play::succeeds("").held(),
        _ => Play::succeeds(""),
    })
    .await?;
    fixture.namespace.create("g", json!({"tasks": [task("a", &[]), task("b", &["a"])]})).await?;
    fixture.until_job("a", 1).await;
    fixture.namespace.edit("g", json!({"tasks": [task("a", &[]), task("b", &["a", "nobody"])]})).await?;
    let graph = fixture.namespace.until("g", "refused", refused).await;
    assert_eq!(condition(&graph, "Accepted").map(|one| one.reason.as_str()), Some("Invalid"));
    fixture.player.let_end();
    let ended = |graph: &TaskGraph| told(graph, "a").phase == TaskPhase::Succeeded;
    let graph = fixture.namespace.until("g", "done with what ran", ended).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(told(&graph, "b").attempts, 0);
    let template =
        json!({"tasks": [task("a", &[]), {"name": "b", "dependsOn": ["a"], "templateRef": {"name": "later"}}]});
    fixture.namespace.edit("g", template).await?;
    let waits = |graph: &TaskGraph| {
        refused(graph) && condition(graph, "Accepted").is_some_and(|one| one.reason == "TemplateNotFound")
    };
    fixture.namespace.until("g", "waiting for its template", waits).await;
    fixture.namespace.create_template("later", json!({"container": {"image": "localhost/busybox:1"}})).await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(line(&graph), "a=Succeeded/1 b=Succeeded/1");
    assert!(accepted(&graph));
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn a_spec_that_is_not_valid_can_still_be_cancelled() -> Result<()> {
    let mut fixture = Fixture::new("invalid-cancel", |task, _| match task {
        "a" => Play::runs_on(),
        _ => Play::succeeds(""),
    })
    .await?;
    let spec = json!({"tasks": [task("a", &[]), task("b", &["a"])], "finally": [task("end", &[])]});
    fixture.namespace.create("g", spec).await?;
    fixture.until_pod_runs("a").await;
    fixture.namespace.edit("g", json!({"tasks": [task("a", &["nobody"]), task("b", &["a"])]})).await?;
    fixture.namespace.until("g", "refused", refused).await;
    fixture.operator.terminate().await?;
    fixture.restart().await?;
    fixture.namespace.edit("g", json!({"desiredState": "Cancel"})).await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(line(&graph), "a=Cancelled/1 b=Omitted/0 end=Succeeded/1");
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn a_finished_graph_is_taken_up_again() -> Result<()> {
    let fixture = Fixture::new("reopen", |_, _| Play::succeeds("")).await?;
    let first = fixture.run("g", json!({"tasks": [task("a", &[])], "finally": [task("end", &[])]})).await?;
    // an edit that changes nothing is observed, too
    fixture.namespace.edit("g", json!({"description": "nothing else"})).await?;
    let graph = fixture.namespace.until("g", "observed", accepted).await;
    assert_eq!((status(&graph).completion_time, status(&graph).revision_number), (status(&first).completion_time, 1));
    fixture.namespace.edit("g", json!({"tasks": [task("a", &[]), task("b", &["a"])]})).await?;
    let again = |graph: &TaskGraph| accepted(graph) && finished(graph).is_some();
    let graph = fixture.namespace.until("g", "finished again", again).await;
    assert_eq!(line(&graph), "a=Succeeded/1 b=Succeeded/1 end=Succeeded/1");
    assert!(status(&graph).completion_time > status(&first).completion_time);
    // a task of that name goes on counting
    fixture.namespace.edit("g", json!({"tasks": [task("a", &[])]})).await?;
    let graph = fixture.namespace.until("g", "finished without b", again).await;
    assert_eq!(line(&graph), "a=Succeeded/1 end=Succeeded/1 b=Succeeded/1");
    fixture.namespace.edit("g", json!({"tasks": [task("a", &[]), task("b", &[])]})).await?;
    let graph = fixture.namespace.until("g", "finished with another b", again).await;
    assert_eq!(line(&graph), "a=Succeeded/1 b=Succeeded/2 end=Succeeded/1");
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn what_was_approved_and_rerun_may_be_removed() -> Result<()> {
    let mut fixture = Fixture::new("leftovers", |_, _| Play::succeeds("")).await?;
    let approval = |attempt: u32| json!({"task": "ask", "attempt": attempt, "decision": "Approved", "by": "ann"});
    let spec = json!({"tasks": [{"name": "ask", "approval": {}}, task("a", &["ask"])], "approvals": [approval(1)]});
    fixture.run("g", spec).await?;
    let rerun =
        json!({"approvals": [approval(1), approval(2)], "rerun": {"id": "1", "scope": "Tasks", "tasks": ["ask"]}});
    fixture.namespace.edit("g", rerun).await?;
    let again = |graph: &TaskGraph| finished(graph).is_some() && line(graph) == "ask=Succeeded/2 a=Succeeded/2";
    fixture.namespace.until("g", "run once more", again).await;
    // both stay in the spec
    fixture.namespace.edit("g", json!({"tasks": [task("a", &[])]})).await?;
    let removed = |graph: &TaskGraph| finished(graph).is_some() && accepted(graph);
    fixture.namespace.until("g", "without the task", removed).await;
    fixture.restart().await?;
    fixture.namespace.edit("g", json!({"tasks": [task("a", &[]), task("b", &["a"])]})).await?;
    let more = |graph: &TaskGraph| removed(graph) && line(graph) == "a=Succeeded/2 b=Succeeded/1 ask=Succeeded/2";
    fixture.namespace.until("g", "with another one", more).await;
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn the_last_ten_revisions_stay() -> Result<()> {
    let fixture = Fixture::new("revisions", |_, _| Play::runs_on()).await?;
    fixture.namespace.create("g", json!({"tasks": [task("a", &[])]})).await?;
    fixture.until_job("a", 1).await;
    for number in 0..13 {
        fixture.namespace.edit("g", json!({"arguments": {"number": number}})).await?;
        fixture.namespace.until("g", "accepted", accepted).await;
    }
    let graph = fixture.namespace.until("g", "at revision 14", |graph| status(graph).revision_number == 14).await;
    let kept = |all: &[ControllerRevision]| all.len() == 10;
    let all = fixture.namespace.until_all::<ControllerRevision>("ten", kept).await;
    assert!(all.iter().any(|one| Some(one.name_any()) == status(&graph).revision));
    assert_eq!(revisions(&fixture).await?, (5..=14).collect::<Vec<_>>());
    // in quick succession, only the newest counts
    for number in 20..25 {
        fixture.namespace.edit("g", json!({"arguments": {"number": number}})).await?;
    }
    fixture.namespace.until("g", "accepted", accepted).await;
    assert_eq!(told(&graph, "a").attempts, 1);
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn what_failed_is_run_once_more() -> Result<()> {
    let fixture = Fixture::new("rerun", |task, attempt| match (task, attempt) {
        ("bad", 1 | 2) => Play::fails(1),
        _ => Play::succeeds(""),
    })
    .await?;
    let spec = json!({"rerun": {"id": "0", "scope": "All"}, "tasks": [
        task("good", &[]), task_with("bad", &["good"], json!({"retry": {"limit": 0}})), task("after", &["bad"])],
        "finally": [task("end", &[])]});
    let graph = fixture.run("g", spec).await?;
    assert_eq!(line(&graph), "good=Succeeded/1 bad=Failed/1 after=Omitted/0 end=Succeeded/1");
    assert_eq!(status(&graph).rerun.as_deref(), Some("0"), "one that is there at creation is only noted");
    fixture.namespace.edit("g", json!({"rerun": {"id": "1", "scope": "Failed"}})).await?;
    let again = |graph: &TaskGraph| accepted(graph) && finished(graph).is_some();
    let graph = fixture.namespace.until("g", "failed again", again).await;
    assert_eq!(line(&graph), "good=Succeeded/1 bad=Failed/2 after=Omitted/0 end=Succeeded/2");
    fixture.namespace.edit("g", json!({"rerun": {"id": "2", "scope": "Tasks", "tasks": ["bad"]}})).await?;
    let graph = fixture.namespace.until("g", "complete", again).await;
    assert_eq!(line(&graph), "good=Succeeded/1 bad=Succeeded/3 after=Succeeded/1 end=Succeeded/3");
    assert_eq!((finished(&graph), status(&graph).revision_number), (Some("Complete"), 1));
    let unknown = json!({"rerun": {"id": "3", "scope": "Tasks", "tasks": ["nobody"]}});
    fixture.namespace.edit("g", unknown).await?;
    let graph = fixture.namespace.until("g", "refused", refused).await;
    let message = condition(&graph, "Accepted").map(|one| one.message.clone()).unwrap_or_default();
    assert!(message.contains("spec.rerun.tasks[0]"), "{message}");
    assert_eq!(finished(&graph), Some("Complete"));
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn two_operators_around_an_edit() -> Result<()> {
    let fixture = Fixture::new("edit-two", |task, _| match task {
        "gone" => Play::runs_on().lingering(Duration::from_millis(100)),
        "first" => Play::succeeds("").held(),
        _ => slow(100),
    })
    .await?;
    let _other = fixture.start_another().await?;
    let spec = json!({"tasks": [task("first", &[]), task("gone", &[]), task("later", &["first"])]});
    fixture.namespace.create("g", spec).await?;
    fixture.until_pod_runs("gone").await;
    let changed = json!({"container": {"image": "localhost/busybox:2"}});
    let edit = json!({"tasks": [
        task("first", &[]), task("new", &[]), task_with("later", &["first", "new"], changed.clone())]});
    fixture.namespace.edit("g", edit).await?;
    fixture.until_job("new", 1).await;
    let edit = json!({"tasks": [task("first", &[]), task("new", &[]), task("last", &["later"]),
        task_with("later", &["first", "new"], changed)], "rerun": {"id": "1", "scope": "Tasks", "tasks": ["new"]}});
    fixture.namespace.edit("g", edit).await?;
    fixture.namespace.until("g", "edited twice", |graph| status(graph).revision_number == 3).await;
    fixture.player.let_end();
    let done = |graph: &TaskGraph| accepted(graph) && finished(graph).is_some();
    let graph = fixture.namespace.until("g", "accepted and finished", done).await;
    assert_eq!(line(&graph), "first=Succeeded/1 new=Succeeded/2 last=Succeeded/1 later=Succeeded/1 gone=Cancelled/1");
    assert_eq!((finished(&graph), status(&graph).revision_number), (Some("Complete"), 3));
    let events: Vec<_> = status(&graph).history.into_iter().map(|entry| entry.event).collect();
    assert_eq!(events, ["Accepted", "Edited", "Edited", "Rerun", "Finished"]);
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn an_edit_and_a_rerun_wait_while_the_graph_undoes_what_it_did() -> Result<()> {
    let fixture = Fixture::new("edit-saga", |task, attempt| match (task, attempt) {
        ("ship", 1) => Play::fails(1),
        ("undo:charge", _) => Play::succeeds("").held(),
        _ => Play::succeeds(""),
    })
    .await?;
    let undo = json!({"compensate": {"container": container()}});
    let charge = task_with("charge", &[], undo);
    fixture.namespace.create("g", json!({"tasks": [charge, task("ship", &["charge"])]})).await?;
    fixture.until_pod_runs("undo:charge").await;
    let edit = json!({"tasks": [charge, task("ship", &["charge"]), task("extra", &["ship"])],
        "rerun": {"id": "1", "scope": "Failed"}});
    fixture.namespace.edit("g", edit).await?;
    let waits =
        |graph: &TaskGraph| condition(graph, "Accepted").is_some_and(|accepted| accepted.reason == "Compensating");
    let graph = fixture.namespace.until("g", "waiting until it is undone", waits).await;
    assert_eq!((finished(&graph), told(&graph, "ship").attempts), (None, 1));
    fixture.player.let_end();
    let done = |graph: &TaskGraph| accepted(graph) && finished(graph).is_some();
    let graph = fixture.namespace.until("g", "edited and finished", done).await;
    assert_eq!(line(&graph), "charge=Succeeded/2 undo:charge=Pending/1 ship=Succeeded/2 extra=Succeeded/1");
    assert_eq!((finished(&graph), status(&graph).revision_number), (Some("Complete"), 2));
    let events: Vec<_> = status(&graph).history.into_iter().map(|entry| entry.event).collect();
    assert_eq!(events, ["Accepted", "Compensating", "Finished", "Edited", "Rerun", "Finished"]);
    fixture.judge().await?;
    Ok(())
}

/// What came of it.
struct Edited {
    line: String,
    end: Option<&'static str>,
    /// What the operator wrote from the edit on.
    writes: Vec<Write>,
    crashed: bool,
}

/// One run of a graph that is edited, and one task of which is rerun; the operator dies at the given write.
async fn edited(crash: Option<(usize, Side)>) -> Result<Edited> {
    let mut fixture = Fixture::new("edit-crash", |task, attempt| match (task, attempt) {
        ("gone", _) => Play::runs_on().lingering(Duration::from_millis(50)),
        ("bad", 1) => Play::fails(1),
        ("bad", _) => Play::runs_on(),
        _ => Play::succeeds(""),
    })
    .await?;
    let spec = json!({"failurePolicy": "FinishBranches", "tasks": [
        task("a", &[]), task("gone", &[]), task_with("bad", &[], json!({"retry": {"limit": 0}})), task("c", &["bad"])]});
    fixture.namespace.create("g", spec).await?;
    let failed = |graph: &TaskGraph| {
        task_of(graph, "c").is_some_and(|task| task.phase == TaskPhase::Omitted)
            && task_of(graph, "gone").is_some_and(|task| task.job.is_some())
            && task_of(graph, "a").is_some_and(|task| task.phase == TaskPhase::Succeeded)
    };
    fixture.namespace.until("g", "failed in part", failed).await;
    let before = fixture.proxy.writes().len();
    if let Some((number, side)) = crash {
        fixture.proxy.crash_at(before + number, side, fixture.operator.pid());
    }
    let edit = json!({
        "tasks": [task("a", &[]), task("b", &["a"]), task("c", &["a"])],
        "finally": [task("end", &[])],
        "rerun": {"id": "1", "scope": "Tasks", "tasks": ["a"]},
    });
    fixture.namespace.edit("g", edit).await?;
    let mut crashed = tokio::select! {
        () = fixture.proxy.crashed() => true,
        _ = fixture.namespace.until_finished("g") => false,
    };
    if !crashed {
        let status = fixture.operator.terminate().await?;
        crashed = status.code() == Some(128 + 9);
        ensure!(crashed || status.success(), "the operator ended with {status}");
    }
    let writes = fixture.proxy.writes().split_off(before);
    if crashed {
        fixture.restart().await?;
    }
    let graph = fixture.namespace.until_finished("g").await;
    fixture.operator.terminate().await?;
    fixture.judge().await?;
    ensure!(status(&graph).revision_number == 2 && accepted(&graph), "{:?}", status(&graph));
    Ok(Edited { line: line(&graph), end: finished(&graph), writes, crashed })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_any_two_writes_of_an_edit() -> Result<()> {
    let calm = edited(None).await?;
    assert_eq!(calm.line, "a=Succeeded/2 b=Succeeded/1 c=Succeeded/1 end=Succeeded/1 gone=Cancelled/1 bad=Failed/1");
    assert_eq!(calm.end, Some("Complete"));
    crash::at_each_write("an edit", certain(&calm.writes), |number, side| {
        let calm = &calm;
        async move {
            let ran = edited(Some((number, side))).await?;
            assert_eq!((&ran.line, ran.end), (&calm.line, calm.end), "killed {side:?} write {number}");
            assert!(ran.crashed || ran.writes.len() <= number, "not killed {side:?} write {number}");
            Ok(ran.crashed)
        }
    })
    .await
}
