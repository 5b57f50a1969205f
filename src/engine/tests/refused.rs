//! Graphs that were accepted once, and that the rules refuse by now: only their status is known.

use serde_json::{Value, json};

use super::fixture::*;
use crate::{
    api::{DesiredState, GraphPhase, TaskGraphStatus},
    engine::{
        Run, Writers,
        edit::{abandon, call_off},
    },
};

fn task(name: &str, after: &[&str]) -> Value {
    json!({"name": name, "dependsOn": after, "container": {"image": "localhost/busybox:1"}})
}

/// `a` is done and can be undone, `b` runs, `c` waits for it; and a `finally`.
fn spec() -> Value {
    let mut first = task("a", &[]);
    first["compensate"] = json!({"container": {"image": "localhost/busybox:1"}});
    json!({"tasks": [first, task("b", &["a"]), task("c", &["b"])], "finally": [task("end", &[])]})
}

fn running() -> Driver {
    let mut driver = Driver::of(spec());
    driver.ok_with("a", json!({"rows": 3}));
    driver.step([driver.launched("b")]);
    driver
}

/// The graph mended by an edit, told of the Jobs that run.
fn mended(status: &TaskGraphStatus, spec: Value) -> Driver {
    let (plan, mut driver) = (planned(spec), running());
    driver.wait(5);
    let (run, _) = Run::mend(plan.graph, plan.settings, identity(), status, Writers::default(), driver.now);
    assert!(run.sequence() > status.sequence, "whoever goes by the older status finds out");
    driver.graph = std::sync::Arc::clone(run.graph());
    driver.run = run;
    let live: Vec<_> = driver.run.live().map(|live| driver.name(live.attempt.task)).collect();
    let events: Vec<_> = live.iter().map(|name| driver.launched(name)).collect();
    driver.step(events);
    driver
}

#[test]
fn what_began_goes_on_and_what_did_not_takes_the_change() {
    let mut driver = mended(&running().status(), spec());
    assert_eq!(driver.line(), "a=Succeeded b=Running c=Pending end=Pending");
    assert_eq!(Value::Object(driver.status().tasks[0].outputs.clone()), json!({"rows": 3}));
    driver.ok("b");
    driver.ok("c");
    driver.ok("end");
    assert_eq!(driver.status().phase, Some(GraphPhase::Complete));

    let mut other = spec();
    other["tasks"][1] = task("new", &["a"]);
    other["tasks"][2] = task("c", &["new"]);
    let driver = mended(&running().status(), other);
    assert_eq!(driver.actions(), ["launch new/1", "stop b/1"]);
    let events: Vec<_> = driver.status().history.into_iter().map(|entry| (entry.event, entry.message)).collect();
    assert_eq!(events.last(), Some(&("Edited".to_owned(), Some("added new; removed b".to_owned()))));
}

#[test]
fn what_was_decided_without_an_attempt_is_decided_again() {
    let mut driver = running();
    driver.fail("b");
    driver.ok("undo:a");
    let status = driver.status();
    assert_eq!(driver.line(), "a=Succeeded b=Failed/Error c=Omitted/DependencyFailed end=Running undo:a=Succeeded");
    let mut other = spec();
    other["tasks"][2] = task("c", &["a"]);
    other["failurePolicy"] = json!("FinishBranches");
    let driver = mended(&status, other.clone());
    assert_eq!(driver.phase("c"), crate::api::TaskPhase::Omitted, "not while the graph undoes what it did");
    let mut finished = status;
    finished.completion_time = Some(at(0));
    assert_eq!(mended(&finished, other).phase("c"), crate::api::TaskPhase::Running);
}

#[test]
fn a_task_that_had_jobs_and_has_none_now_begins_anew() {
    let mut other = spec();
    other["tasks"][1] = json!({"name": "b", "dependsOn": ["a"], "approval": {}});
    let mut driver = mended(&running().status(), other);
    assert_eq!(driver.actions(), ["stop b/1"]);
    driver.gone("b");
    assert_eq!(driver.line(), "a=Succeeded b=Waiting/ApprovalPending c=Pending end=Pending");
    assert_eq!(driver.attempt("b").number, 2);
}

#[test]
fn a_cancel_ends_it_and_mending_it_does_what_is_left() {
    let mut status = running().status();
    assert!(call_off(&mut status, Some("ann"), at(3)) && !call_off(&mut status, None, at(4)), "once");
    assert_eq!(status.history.last().and_then(|entry| entry.by.as_deref()), Some("ann"));
    abandon(&mut status, at(4));
    let phases: Vec<_> = status.tasks.iter().map(|task| task.phase.name()).collect();
    assert_eq!(phases, ["Succeeded", "Cancelled", "Omitted", "Omitted"]);
    assert_eq!((status.phase, status.completion_time), (Some(GraphPhase::Failed), Some(at(4))));
    assert_eq!(
        (status.progress.as_deref(), status.counts.as_ref().map(|counts| counts.omitted)),
        (Some("4/4"), Some(2))
    );
    assert_eq!(
        status.conditions.last().map(|failed| (failed.type_.as_str(), failed.reason.as_str())),
        Some(("Failed", "Cancelled"))
    );
    assert!(!call_off(&mut status, None, at(5)), "it has finished");
    // by the same rules it is what it would have come to
    let taken_up = running().restored_from(&status);
    assert!(taken_up.run.is_finished());
    assert_eq!(taken_up.line(), "a=Succeeded b=Cancelled/Cancelled c=Omitted/Cancelled end=Omitted/Cancelled");

    let mut driver = mended(&status, spec());
    driver.set(|settings| settings.desired_state = DesiredState::Cancel);
    driver.ok("undo:a");
    driver.ok("end");
    assert_eq!(
        driver.line(),
        "a=Succeeded b=Cancelled/Cancelled c=Omitted/DependencyFailed end=Succeeded undo:a=Succeeded"
    );
    assert_eq!(driver.status().phase, Some(GraphPhase::Failed));
}
