//! The failure policies.

use super::fixture::*;
use crate::{
    api::{FailurePolicy, TaskPhase},
    engine::{Blame, Settings, graph::TriggerRule},
};

/// `bad` fails; beside it `long` runs, with `next` after it; `after-bad` needs `bad`; `handler` wants failures,
/// `cleanup` follows it, and `watch` hears how `long` ended.
fn graph(policy: FailurePolicy) -> Driver {
    let mut build = Build::new();
    build.task("bad");
    build.task("long").retries(1);
    build.task("next").after(&["long"]);
    build.task("after-bad").after(&["bad"]);
    build.task("handler").after(&["bad"]).trigger(TriggerRule::AnyFailed);
    build.task("cleanup").after(&["handler"]);
    build.task("watch").after(&["long"]).trigger(TriggerRule::AllFinished);
    Driver::with(build, Settings { failure_policy: policy, ..settings() })
}

#[test]
fn stop_launching_lets_what_has_begun_go_on() {
    let mut driver = graph(FailurePolicy::StopLaunching);
    driver.fail("bad");
    assert_eq!(driver.actions(), ["launch handler/1"]);
    assert_eq!(
        driver.line(),
        "bad=Failed/Error long=Running next=Omitted/FailurePolicy after-bad=Omitted/DependencyFailed \
         handler=Running cleanup=Pending watch=Pending"
    );
    driver.fail("long");
    assert_eq!(driver.phase("long"), TaskPhase::Retrying, "its retries go on");
    driver.gone("long");
    driver.wait(20);
    assert_eq!(driver.actions(), ["launch long/2"]);
    driver.ok("long");
    driver.ok("watch");
    driver.ok("handler");
    driver.ok("cleanup");
    assert!(driver.run.is_finished(), "{}", driver.line());
    let status = driver.status();
    assert_eq!(status.message.as_deref(), Some("failed: bad (Error)"), "a handler never heals the graph");
    assert_eq!(status.tasks[2].message.as_deref(), Some("task bad failed"));
}

#[test]
fn cancel_running_stops_what_runs_save_handlers() {
    let mut driver = graph(FailurePolicy::CancelRunning);
    driver.fail("bad");
    assert_eq!(driver.actions(), ["launch handler/1", "stop long/1"]);
    assert!(driver.last.store_first);
    assert_eq!(driver.phase("long"), TaskPhase::Running, "until its pods are gone");
    driver.fail("long");
    assert_eq!(driver.phase("long"), TaskPhase::Running, "a failure may be the stop's doing");
    driver.gone("long");
    assert_eq!((driver.phase("long"), driver.reason("long")), (TaskPhase::Cancelled, "FailurePolicy"));
    assert_eq!(driver.actions(), ["launch watch/1"]);
    driver.ok("watch");
    driver.ok("handler");
    driver.ok("cleanup");
    assert!(driver.run.is_finished(), "{}", driver.line());
}

#[test]
fn a_success_that_comes_before_the_pods_are_gone_stands() {
    let mut driver = graph(FailurePolicy::CancelRunning);
    driver.fail("bad");
    driver.ok("long");
    assert_eq!(driver.phase("long"), TaskPhase::Succeeded);
    driver.gone("long");
    assert_eq!(driver.phase("long"), TaskPhase::Succeeded);
}

#[test]
fn cancel_running_ends_a_retrying_task_once_its_pods_are_gone() {
    let mut driver = graph(FailurePolicy::CancelRunning);
    driver.fail("long");
    let mut gone_before = graph(FailurePolicy::CancelRunning);
    gone_before.fail("long");
    gone_before.gone("long");
    gone_before.fail("bad");
    assert_eq!(gone_before.phase("long"), TaskPhase::Cancelled, "at once");
    driver.fail("bad");
    assert_eq!(driver.phase("long"), TaskPhase::Retrying);
    driver.wait(100);
    assert!(driver.actions().is_empty(), "it is not tried again");
    let mut restarted = driver.restarted();
    restarted.step([restarted.launched("handler")]);
    assert_eq!(restarted.actions(), ["await long/1"]);
    for mut driver in [driver, restarted] {
        driver.gone("long");
        assert_eq!((driver.phase("long"), driver.reason("long")), (TaskPhase::Cancelled, "FailurePolicy"));
    }
}

#[test]
fn finish_branches_stops_only_what_depends_on_the_failure() {
    let mut driver = graph(FailurePolicy::FinishBranches);
    driver.fail("bad");
    driver.ok("long");
    assert_eq!(driver.actions(), ["launch next/1", "launch watch/1"]);
    assert_eq!((driver.phase("after-bad"), driver.reason("after-bad")), (TaskPhase::Omitted, "DependencyFailed"));
    assert_eq!(driver.status().tasks[3].message.as_deref(), Some("bad is Failed"));
}

#[test]
fn a_failure_that_is_allowed_calls_nothing_off() {
    for policy in [FailurePolicy::StopLaunching, FailurePolicy::CancelRunning, FailurePolicy::FinishBranches] {
        let mut build = Build::new();
        build.task("bad").allow_failure();
        build.task("long");
        build.task("next").after(&["bad", "long"]);
        let mut driver = Driver::with(build, Settings { failure_policy: policy, ..settings() });
        driver.fail("bad");
        driver.ok("long");
        driver.ok("next");
        assert!(driver.run.is_finished());
        assert_eq!(driver.status().phase, Some(crate::api::GraphPhase::Complete), "{policy:?}");
    }
}

#[test]
fn a_policy_may_change_after_the_failure() {
    let mut driver = graph(FailurePolicy::FinishBranches);
    driver.fail_by("bad", Blame::Task);
    assert_eq!(driver.phase("next"), TaskPhase::Pending);
    driver.set(|settings| settings.failure_policy = FailurePolicy::StopLaunching);
    assert_eq!((driver.phase("next"), driver.reason("next")), (TaskPhase::Omitted, "FailurePolicy"));
    driver.set(|settings| settings.failure_policy = FailurePolicy::CancelRunning);
    assert_eq!(driver.actions(), ["stop long/1"]);
    driver.set(|settings| settings.failure_policy = FailurePolicy::FinishBranches);
    driver.gone("long");
    assert_eq!(driver.phase("long"), TaskPhase::Cancelled, "what was stopped stays so");
}
