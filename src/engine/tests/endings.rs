//! Cancel, deadlines, `finally`, and how a graph ends.

use super::fixture::*;
use crate::{
    api::{CONDITION_COMPLETE, CONDITION_FAILED, DesiredState, Duration, GraphPhase, TaskGraphStatus, TaskPhase},
    engine::{Blame, Settings, graph::TriggerRule},
};

/// `a`, then `b`; `r`, which is tried again; `h` after `a` whatever happened; `tidy` and then `report` at the end.
fn build() -> Build {
    let mut build = Build::new();
    build.task("a");
    build.task("b").after(&["a"]);
    build.task("r").retries(3);
    build.task("h").after(&["a"]).trigger(TriggerRule::AllFinished);
    build.finally("tidy");
    build.finally("report").after(&["tidy"]).trigger(TriggerRule::AllFinished);
    build
}

fn outcome(status: &TaskGraphStatus) -> (GraphPhase, Option<&str>, Option<&str>) {
    let condition = |type_| {
        let found = status.conditions.iter().find(|condition| condition.type_ == type_ && condition.status == "True");
        found.map(|condition| condition.reason.as_str())
    };
    (status.phase.unwrap(), condition(CONDITION_COMPLETE), condition(CONDITION_FAILED))
}

fn cancel(driver: &mut Driver) {
    driver.set(|settings| settings.desired_state = DesiredState::Cancel);
}

#[test]
fn finally_begins_when_all_tasks_are_final() {
    let mut driver = Driver::new(build());
    driver.ok("a");
    driver.ok("b");
    driver.ok("h");
    assert_eq!(driver.phase("tidy"), TaskPhase::Pending);
    driver.wait(5);
    driver.ok("r");
    assert_eq!(driver.actions(), ["launch tidy/1"]);
    assert!(driver.last.store_first, "when `finally` began is stored first");
    let status = driver.status();
    assert_eq!((status.phase, status.finally_time), (Some(GraphPhase::Finalizing), Some(at(5))));
    driver.ok("tidy");
    driver.ok("report");
    assert_eq!(outcome(&driver.status()), (GraphPhase::Complete, Some("AllSucceeded"), None));
    assert_eq!(driver.status().progress.as_deref(), Some("6/6"));
}

#[test]
fn a_failed_finally_fails_the_graph_and_stops_no_other() {
    let mut build = Build::new();
    build.task("a");
    build.finally("bad");
    build.finally("other");
    build.finally("third").after(&["other"]);
    let mut driver = Driver::new(build);
    driver.ok("a");
    driver.fail("bad");
    driver.ok("other");
    assert_eq!(driver.actions(), ["launch third/1"]);
    driver.ok("third");
    assert_eq!(outcome(&driver.status()), (GraphPhase::Failed, None, Some("TasksFailed")));
}

#[test]
fn cancel_stops_what_runs_omits_the_rest_and_runs_finally() {
    let mut driver = Driver::new(build());
    driver.fail("r");
    cancel(&mut driver);
    assert_eq!(driver.actions(), ["stop a/1"]);
    assert!(driver.last.store_first, "that it was cancelled is stored first");
    assert_eq!(driver.status().phase, Some(GraphPhase::Cancelling));
    // it cannot be taken back
    driver.set(|settings| settings.desired_state = DesiredState::Run);
    let mut restarted = driver.restarted();
    restarted.step([restarted.launched("a")]);
    assert_eq!(restarted.actions(), ["stop a/1", "await r/1"]);
    for mut driver in [driver, restarted] {
        driver.gone("a");
        assert!(driver.actions().is_empty(), "`r` is not gone yet");
        driver.gone("r");
        assert_eq!(driver.actions(), ["launch tidy/1"]);
        assert_eq!(
            driver.line(),
            "a=Cancelled/Cancelled b=Omitted/Cancelled r=Cancelled/Cancelled h=Omitted/Cancelled tidy=Running report=Pending"
        );
        driver.ok("tidy");
        driver.ok("report");
        let status = driver.status();
        assert_eq!(outcome(&status), (GraphPhase::Failed, None, Some("Cancelled")));
        let events: Vec<_> = status.history.iter().map(|entry| entry.event.as_str()).collect();
        assert_eq!(events, ["Accepted", "Cancelled", "Finished"]);
    }
}

#[test]
fn a_success_before_the_stop_counts_but_heals_nothing() {
    let mut build = Build::new();
    build.task("a");
    let mut driver = Driver::new(build);
    cancel(&mut driver);
    driver.ok("a");
    assert_eq!(driver.phase("a"), TaskPhase::Succeeded);
    assert_eq!(outcome(&driver.status()), (GraphPhase::Failed, None, Some("Cancelled")));
}

#[test]
fn cancel_does_not_interrupt_finally() {
    let mut driver = Driver::new(build());
    for name in ["a", "b", "h", "r"] {
        driver.ok(name);
    }
    cancel(&mut driver);
    assert!(driver.actions().is_empty());
    driver.ok("tidy");
    driver.ok("report");
    assert_eq!(outcome(&driver.status()), (GraphPhase::Complete, Some("AllSucceeded"), None));
}

#[test]
fn a_suspended_graph_can_be_cancelled_and_a_cancelled_one_not_suspended() {
    let mut driver = Driver::new(build());
    driver.set(|settings| settings.desired_state = DesiredState::Suspend);
    cancel(&mut driver);
    assert_eq!(driver.actions(), ["stop a/1", "stop r/1"]);
    driver.set(|settings| settings.desired_state = DesiredState::Suspend);
    driver.gone("a");
    driver.gone("r");
    assert_eq!(driver.actions(), ["launch tidy/1"]);
}

#[test]
fn the_deadline_of_the_tasks_ends_them_and_runs_finally() {
    let timeout = Some(Duration::from_secs(60));
    let mut driver = Driver::with(build(), Settings { timeout, ..settings() });
    assert_eq!(driver.last.wake_at, Some(at(60)));
    driver.wait(59);
    assert!(driver.actions().is_empty());
    driver.wait(1);
    assert_eq!(driver.actions(), ["stop a/1", "stop r/1"]);
    driver.gone("a");
    driver.gone("r");
    driver.ok("tidy");
    driver.ok("report");
    let status = driver.status();
    assert_eq!(outcome(&status), (GraphPhase::Failed, None, Some("DeadlineExceeded")));
    assert_eq!(status.tasks[0].reason.as_deref(), Some("DeadlineExceeded"));
}

#[test]
fn the_deadline_of_finally_ends_it() {
    let mut driver = Driver::with(build(), Settings { finally_timeout: Duration::from_secs(30), ..settings() });
    driver.wait(10);
    for name in ["a", "b", "h", "r"] {
        driver.ok(name);
    }
    assert_eq!(driver.last.wake_at, Some(at(40)));
    let mut restarted = driver.restarted();
    restarted.step([restarted.launched("tidy")]);
    for mut driver in [driver, restarted] {
        driver.wait(30);
        assert_eq!(driver.actions(), ["stop tidy/1"]);
        assert_eq!((driver.phase("report"), driver.reason("report")), (TaskPhase::Omitted, "DeadlineExceeded"));
        driver.gone("tidy");
        assert_eq!(outcome(&driver.status()), (GraphPhase::Failed, None, Some("DeadlineExceeded")));
        assert_eq!(driver.last.wake_at, None);
    }
}

#[test]
fn a_deadline_may_change() {
    let timeout = Some(Duration::from_secs(60));
    let mut driver = Driver::with(build(), Settings { timeout, ..settings() });
    driver.set(|settings| settings.timeout = Some(Duration::from_secs(120)));
    driver.wait(100);
    assert!(driver.actions().is_empty());
    driver.set(|settings| settings.timeout = Some(Duration::from_secs(50)));
    assert_eq!(driver.actions(), ["stop a/1", "stop r/1"]);
}

#[test]
fn a_finished_run_ignores_everything_but_strays() {
    let mut build = Build::new();
    build.task("a");
    let mut driver = Driver::new(build);
    driver.fail_by("a", Blame::Final);
    let before = driver.status();
    driver.ok("a");
    driver.gone("a");
    cancel(&mut driver);
    driver.wait(1_000_000);
    assert_eq!(driver.status(), before);
    let restarted = driver.restored_from(&before);
    assert!(restarted.run.is_finished());
    let mut again = before.clone();
    restarted.run.write(&mut again, at(5_000_000));
    assert_eq!(again, before, "a restart rewrites nothing");
}
