//! What undoes a graph that fails: when, in which order, and what it does not hang on.

use serde_json::json;

use super::fixture::{Build, Driver, at, settings};
use crate::{
    api::{DesiredState, Duration, FailurePolicy, GraphPhase, TaskPhase},
    engine::{Blame, Event, Settings, graph::TriggerRule},
};

/// reserve → charge → ship, all but the last undone, and a `finally`.
fn order() -> Build {
    let mut build = Build::new();
    build.task("reserve").compensate(0);
    build.task("charge").after(&["reserve"]).compensate(1);
    build.task("ship").after(&["charge"]).compensate(0);
    build.finally("tidy");
    build
}

/// The same, when shipping has failed.
fn failed() -> Driver {
    let mut driver = Driver::new(order());
    driver.ok("reserve");
    driver.ok("charge");
    driver.fail("ship");
    driver
}

#[test]
fn what_succeeded_is_undone_in_reverse_then_finally_runs() {
    let mut driver = failed();
    assert_eq!(driver.actions(), ["launch undo:charge/1"]);
    let status = driver.status();
    assert_eq!((status.phase, status.compensation_time), (Some(GraphPhase::Compensating), Some(at(0))));
    assert_eq!(status.progress.as_deref(), Some("3/4"), "compensations are not counted");
    assert_eq!(status.counts.map(|counts| (counts.running, counts.waiting)), Some((0, 1)));
    driver.ok("undo:charge");
    assert_eq!(driver.actions(), ["launch undo:reserve/1"]);
    driver.ok("undo:reserve");
    assert_eq!(driver.actions(), ["launch tidy/1"]);
    assert_eq!(driver.status().phase, Some(GraphPhase::Finalizing));
    driver.ok("tidy");
    assert!(driver.run.is_finished());
    assert_eq!(
        driver.line(),
        "reserve=Succeeded charge=Succeeded ship=Failed/Error tidy=Succeeded \
         undo:reserve=Succeeded undo:charge=Succeeded undo:ship=Skipped/NothingToCompensate"
    );
    let status = driver.status();
    assert_eq!((status.phase, status.message.as_deref()), (Some(GraphPhase::Failed), Some("failed: ship (Error)")));
    let events: Vec<_> = status.history.iter().map(|entry| entry.event.as_str()).collect();
    assert_eq!(events, ["Accepted", "Compensating", "Finished"]);
    let shown: Vec<_> = status.tasks.iter().map(|task| task.compensation.as_ref().map(|undo| undo.phase)).collect();
    assert_eq!(shown, [Some(TaskPhase::Succeeded), Some(TaskPhase::Succeeded), None, None]);
}

#[test]
fn nothing_is_undone_of_a_graph_that_does_not_fail() {
    let mut driver = Driver::new(order());
    for task in ["reserve", "charge", "ship", "tidy"] {
        assert_eq!(driver.actions(), [format!("launch {task}/1")]);
        driver.ok(task);
    }
    let status = driver.status();
    assert_eq!((status.phase, status.progress.as_deref()), (Some(GraphPhase::Complete), Some("4/4")));
    assert_eq!((status.compensation_time, status.history.len()), (None, 2));
    assert!(status.tasks.iter().all(|task| task.compensation.is_none()));
    let stray = Event::Launched {
        attempt: crate::engine::Attempt { number: 1, ..driver.attempt("undo:ship") },
        job: "x".into(),
    };
    driver.step([stray]);
    assert_eq!(driver.actions(), ["stop undo:ship/1"], "what nobody asked for does not run");
}

#[test]
fn a_failed_finally_undoes_nothing() {
    let mut driver = Driver::new(order());
    for task in ["reserve", "charge", "ship"] {
        driver.ok(task);
    }
    driver.fail("tidy");
    assert!(driver.run.is_finished() && driver.actions().is_empty());
    let status = driver.status();
    assert_eq!((status.phase, status.compensation_time), (Some(GraphPhase::Failed), None));
}

#[test]
fn a_finally_that_was_cut_off_undoes_nothing_after_an_edit_either() {
    let container = json!({"image": "localhost/busybox:1"});
    let task = |name: &str| json!({"name": name, "container": container, "compensate": {"container": container}});
    let end = json!([{"name": "end", "container": container}]);
    let mut driver = Driver::of(json!({"tasks": [task("a")], "finally": end, "finallyTimeout": "1m"}));
    driver.ok("a");
    driver.wait(60);
    driver.gone("end");
    assert_eq!(driver.status().phase, Some(GraphPhase::Failed));
    driver.edit(json!({"tasks": [task("a"), task("b")], "finally": end, "finallyTimeout": "1m"}));
    driver.ok("b");
    assert_eq!(driver.line(), "a=Succeeded b=Succeeded end=Cancelled/DeadlineExceeded");
    assert!(driver.run.is_finished());
}

#[test]
fn a_diamond_is_undone_from_its_end() {
    let mut build = Build::new();
    build.task("a").compensate(0);
    build.task("b").after(&["a"]).compensate(0);
    build.task("c").after(&["a"]).compensate(0);
    build.task("d").after(&["b", "c"]).compensate(0);
    build.task("bad").after(&["d"]);
    let mut driver = Driver::new(build);
    for task in ["a", "b", "c", "d"] {
        driver.ok(task);
    }
    driver.fail("bad");
    assert_eq!(driver.actions(), ["launch undo:d/1"]);
    driver.ok("undo:d");
    assert_eq!(driver.actions(), ["launch undo:b/1", "launch undo:c/1"]);
    driver.ok("undo:c");
    assert!(driver.actions().is_empty(), "a waits for both");
    driver.ok("undo:b");
    assert_eq!(driver.actions(), ["launch undo:a/1"]);
}

#[test]
fn tasks_without_compensate_keep_the_order() {
    let mut build = Build::new();
    build.task("a").compensate(0);
    build.task("between").after(&["a"]);
    build.task("pick").after(&["between"]).decision(&["one", "two"]);
    build.task("b").after(&["pick/one"]).compensate(0);
    build.task("never").after(&["pick/two"]).compensate(0);
    build.task("apart").compensate(0);
    build.task("bad").after(&["b"]);
    let mut driver = Driver::new(build);
    for task in ["a", "apart", "between", "b"] {
        driver.ok(task);
    }
    driver.fail("bad");
    assert_eq!(driver.actions(), ["launch undo:b/1", "launch undo:apart/1"]);
    driver.ok("undo:b");
    assert_eq!(driver.actions(), ["launch undo:a/1"], "what was skipped has nothing to undo");
}

/// A task that failed still keeps those around it in order.
#[test]
fn what_has_nothing_to_undo_waits_its_turn() {
    let mut build = Build::new();
    build.task("a").compensate(0);
    build.task("bad").after(&["a"]).compensate(0);
    build.task("handler").after(&["bad"]).trigger(TriggerRule::AnyFailed).compensate(0);
    let mut driver = Driver::new(build);
    driver.ok("a");
    driver.fail("bad");
    driver.ok("handler");
    assert_eq!(driver.actions(), ["launch undo:handler/1"]);
    driver.ok("undo:handler");
    assert_eq!(driver.actions(), ["launch undo:a/1"]);
}

#[test]
fn a_failure_that_is_allowed_is_not_undone() {
    let mut build = Build::new();
    build.task("bad-but-allowed").allow_failure().compensate(0);
    build.task("good-and-allowed").allow_failure().compensate(0);
    build.task("bad");
    let mut driver = Driver::with(build, Settings { failure_policy: FailurePolicy::FinishBranches, ..settings() });
    driver.fail("bad-but-allowed");
    driver.ok("good-and-allowed");
    driver.fail("bad");
    assert_eq!(driver.actions(), ["launch undo:good-and-allowed/1"]);
}

#[test]
fn a_failed_compensation_is_retried_then_told_and_the_others_run() {
    let mut driver = failed();
    driver.fail("undo:charge");
    assert_eq!(driver.phase("undo:charge"), TaskPhase::Retrying);
    driver.gone("undo:charge");
    driver.wait(20);
    assert_eq!(driver.actions(), ["launch undo:charge/2"]);
    driver.fail("undo:charge");
    assert_eq!(driver.actions(), ["launch undo:reserve/1"]);
    driver.ok("undo:reserve");
    assert_eq!(driver.actions(), ["launch tidy/1"]);
    driver.ok("tidy");
    let status = driver.status();
    assert_eq!(status.phase, Some(GraphPhase::Failed));
    assert_eq!(status.message.as_deref(), Some("failed: ship (Error); compensation failed: charge (Error)"));
    assert_eq!(status.counts.map(|counts| counts.failed), Some(1), "one task failed");
    let undo = status.tasks[1].compensation.as_deref().unwrap();
    assert_eq!((undo.phase, undo.attempts, undo.failed_attempts.len()), (TaskPhase::Failed, 2, 2));
}

#[test]
fn a_cancelled_graph_is_undone_and_no_second_look_stops_that() {
    for policy in [FailurePolicy::StopLaunching, FailurePolicy::CancelRunning] {
        let mut driver = Driver::with(order(), Settings { failure_policy: policy, ..settings() });
        driver.ok("reserve");
        driver.set(|settings| settings.desired_state = DesiredState::Cancel);
        assert_eq!(driver.actions(), ["stop charge/1"]);
        driver.gone("charge");
        assert_eq!(driver.actions(), ["launch undo:reserve/1"]);
        driver.set(|settings| settings.failure_policy = FailurePolicy::FinishBranches);
        driver.set(|settings| settings.failure_policy = policy);
        assert!(driver.actions().is_empty());
        driver.ok("undo:reserve");
        driver.ok("tidy");
        let status = driver.status();
        assert_eq!(status.message.as_deref(), Some("the graph was cancelled"));
        assert_eq!(driver.phase("undo:reserve"), TaskPhase::Succeeded);
    }
}

#[test]
fn a_cancel_while_compensating_changes_nothing() {
    let mut driver = failed();
    driver.set(|settings| settings.desired_state = DesiredState::Cancel);
    assert!(driver.actions().is_empty());
    driver.ok("undo:charge");
    assert_eq!(driver.actions(), ["launch undo:reserve/1"]);
    assert_eq!(driver.status().phase, Some(GraphPhase::Compensating));
}

#[test]
fn a_timeout_undoes_what_was_done() {
    let mut driver = Driver::with(order(), Settings { timeout: Some(Duration::from_secs(60)), ..settings() });
    driver.ok("reserve");
    driver.wait(60);
    driver.gone("charge");
    assert_eq!(driver.actions(), ["launch undo:reserve/1"]);
}

#[test]
fn compensation_timeout_covers_all_compensations() {
    let mut driver = Driver::with(order(), Settings { compensation_timeout: Duration::from_secs(30), ..settings() });
    driver.ok("reserve");
    driver.ok("charge");
    driver.fail("ship");
    assert_eq!(driver.last.wake_at, Some(at(30)), "sooner than its start timeout");
    driver.wait(30);
    assert_eq!(driver.actions(), ["stop undo:charge/1"]);
    assert_eq!(driver.reason("undo:reserve"), "DeadlineExceeded");
    let mut restarted = driver.restarted();
    assert_eq!(restarted.step([]).actions.len(), 1, "it is stopped once more");
    driver.gone("undo:charge");
    assert_eq!(driver.phase("undo:charge"), TaskPhase::Cancelled);
    assert_eq!(driver.actions(), ["launch tidy/1"]);
    let message = driver.status().message.unwrap();
    assert_eq!(message, "failed: ship (Error); the graph's compensationTimeout ran out");
    let mut restarted = driver.restarted();
    restarted.step([]);
    assert_eq!(restarted.status().message, Some(message));
}

#[test]
fn a_suspended_graph_undoes_nothing_until_it_goes_on() {
    let mut driver = Driver::new(order());
    driver.ok("reserve");
    driver.ok("charge");
    driver.set(|settings| settings.desired_state = DesiredState::Suspend);
    driver.fail("ship");
    assert!(driver.actions().is_empty());
    assert_eq!(driver.phase("undo:charge"), TaskPhase::Ready);
    driver.set(|settings| settings.desired_state = DesiredState::Run);
    assert_eq!(driver.actions(), ["launch undo:charge/1"]);
    driver.set(|settings| settings.desired_state = DesiredState::Suspend);
    driver.ok("undo:charge");
    assert!(driver.actions().is_empty(), "what runs goes on, and nothing new starts");
    assert_eq!(driver.status().phase, Some(GraphPhase::Suspended));
    driver.set(|settings| settings.desired_state = DesiredState::Cancel);
    assert_eq!(driver.actions(), ["launch undo:reserve/1"], "a cancelled graph comes to its end");
}

#[test]
fn compensations_share_the_slots() {
    let mut build = Build::new();
    for name in ["a", "b", "c"] {
        build.task(name).compensate(0);
    }
    build.task("bad").after(&["a", "b", "c"]);
    let mut driver = Driver::with(build, Settings { parallelism: Some(2), ..settings() });
    for name in ["a", "b", "c"] {
        driver.ok(name);
    }
    driver.fail("bad");
    assert_eq!(driver.actions(), ["launch undo:a/1", "launch undo:b/1"]);
    driver.ok("undo:b");
    assert_eq!(driver.actions(), ["launch undo:c/1"]);
}

/// That a graph compensates is stored before the first Job of it is made.
#[test]
fn the_gate_is_stored_first() {
    let driver = failed();
    assert!(driver.last.store_first);
}

#[test]
fn a_restart_at_each_moment_changes_nothing() {
    let mut driver = failed();
    let mut moments = vec![driver.line()];
    let restart = |driver: &mut Driver| {
        *driver = driver.restarted();
        driver.step([]);
    };
    restart(&mut driver);
    moments.push(driver.line());
    assert_eq!(driver.actions(), ["launch undo:charge/1"], "no Job of it is known");
    driver.step([driver.launched("undo:charge")]);
    restart(&mut driver);
    assert!(driver.actions().is_empty(), "its Job is known");
    driver.fail("undo:charge");
    restart(&mut driver);
    assert_eq!(driver.actions(), ["await undo:charge/1"]);
    driver.gone("undo:charge");
    driver.wait(20);
    restart(&mut driver);
    driver.ok("undo:charge");
    restart(&mut driver);
    assert_eq!(driver.actions(), ["launch undo:reserve/1"]);
    driver.ok("undo:reserve");
    restart(&mut driver);
    assert_eq!(driver.actions(), ["launch tidy/1"]);
    driver.ok("tidy");
    restart(&mut driver);
    assert!(driver.run.is_finished() && driver.actions().is_empty());
    assert_eq!(moments[0], moments[1]);
    let history: Vec<_> = driver.status().history.into_iter().map(|entry| entry.event).collect();
    assert_eq!(history, ["Accepted", "Compensating", "Finished"]);
}

/// A status of before there were compensations, in the middle of `finally`.
#[test]
fn an_old_status_in_finally_undoes_nothing() {
    let driver = failed();
    let mut status = driver.status();
    status.compensation_time = None;
    status.finally_time = Some(at(0));
    status.tasks.iter_mut().for_each(|task| task.compensation = None);
    let mut restored = driver.restored_from(&status);
    restored.step([]);
    assert_eq!(restored.actions(), ["launch tidy/1"]);
}

#[test]
fn what_a_compensation_leaves_is_not_kept_and_cannot_fail_it() {
    let mut driver = failed();
    driver.ok_with("undo:charge", json!({"text": "x".repeat(300 << 10)}));
    assert_eq!(driver.phase("undo:charge"), TaskPhase::Succeeded);
    driver.fail_by("undo:reserve", Blame::Final);
    assert_eq!(driver.phase("undo:reserve"), TaskPhase::Failed);
}

#[test]
fn what_may_be_compensated_is_known() {
    let mut driver = Driver::new(order());
    driver.ok("reserve");
    let may = |driver: &Driver, name: &str| driver.run.may_be_compensated(driver.id(name));
    assert!(may(&driver, "reserve") && !may(&driver, "charge") && !may(&driver, "tidy"));
    driver.ok("charge");
    driver.fail("ship");
    assert!(driver.run.is_compensated(driver.id("charge")) && !driver.run.is_compensated(driver.id("reserve")));
}
