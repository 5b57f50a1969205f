//! Decisions, and the guards on their branches.

use super::fixture::*;
use crate::{
    api::{DesiredState, FailurePolicy, TaskPhase},
    engine::{Blame, graph::TriggerRule},
};

/// `check`, then `choice` between `good` (always taken) and `poor`.
fn choice() -> Build {
    let mut build = Build::new();
    build.task("check");
    build.task("choice").after(&["check"]).decision(&["good", "poor"]);
    build
}

#[test]
fn the_branch_taken_runs_and_the_other_is_skipped() {
    let mut build = choice();
    build.task("store").after(&["choice/good"]);
    build.task("reject").after(&["choice/poor"]);
    build.task("notify").after(&["store", "reject"]);
    let mut driver = Driver::new(build);
    driver.ok("check");
    assert_eq!(driver.actions(), ["launch store/1"]);
    assert!(driver.last.store_first, "the branch is stored before what follows from it");
    assert_eq!(driver.status().tasks[1].branch.as_deref(), Some("good"));
    assert_eq!(driver.status().tasks[3].message.as_deref(), Some("choice took good"));
    driver.ok("store");
    driver.ok("notify");
    assert_eq!(
        driver.line(),
        "check=Succeeded choice=Succeeded store=Succeeded reject=Skipped/BranchNotTaken notify=Succeeded"
    );
    assert!(driver.run.is_finished());
}

#[test]
fn a_decision_takes_no_slot() {
    let mut build = choice();
    build.task("long");
    let mut driver = Driver::with(build, crate::engine::Settings { parallelism: Some(1), ..settings() });
    driver.ok("check");
    assert_eq!(driver.line(), "check=Succeeded choice=Succeeded long=Running");
}

#[test]
fn one_of_several_branches_of_a_guard_is_enough_and_every_guard_must_pass() {
    let mut build = choice();
    build.task("other").decision(&["left", "right"]);
    build.task("either").after(&["choice/poor", "choice/good"]);
    build.task("both").after(&["choice/good", "other/left"]);
    build.task("half").after(&["choice/good", "other/right"]);
    let mut driver = Driver::new(build);
    driver.ok("check");
    let line = driver.line();
    assert!(line.ends_with("either=Running both=Running half=Skipped/BranchNotTaken"), "{line}");
}

#[test]
fn a_branch_that_was_not_taken_decides_at_once_and_before_the_trigger() {
    for rule in [TriggerRule::AllFinished, TriggerRule::AnyFailed, TriggerRule::MinSucceeded(1)] {
        let mut build = choice();
        build.task("slow");
        build.task("t").after(&["slow", "choice/poor"]).trigger(rule);
        let mut driver = Driver::new(build);
        driver.ok("check");
        assert_eq!((driver.phase("t"), driver.reason("t")), (TaskPhase::Skipped, "BranchNotTaken"), "{rule:?}");
    }
}

#[test]
fn a_trigger_that_holds_waits_for_the_guards() {
    let mut build = choice();
    build.task("fast");
    build.task("t").after(&["fast", "choice/good"]).trigger(TriggerRule::MinSucceeded(1));
    let mut driver = Driver::new(build);
    driver.ok("fast");
    assert_eq!(driver.phase("t"), TaskPhase::Pending);
    driver.ok("check");
    assert_eq!(driver.phase("t"), TaskPhase::Running);
}

#[test]
fn a_decision_that_was_not_made_skips_or_omits_what_it_guards() {
    // the decision is omitted, since `check` failed
    let mut build = choice();
    build.task("t").after(&["choice/good"]).trigger(TriggerRule::AllFinished);
    let mut driver = Driver::new(build);
    driver.fail("check");
    assert_eq!((driver.phase("t"), driver.reason("t")), (TaskPhase::Omitted, "DependencyFailed"));
    // the decision is skipped, since `never` was
    let mut build = choice();
    build.task("never").after(&["choice/poor"]);
    build.task("second").after(&["never"]).decision(&["yes"]);
    build.task("t").after(&["second/yes"]);
    let mut driver = Driver::new(build);
    driver.ok("check");
    assert_eq!((driver.phase("t"), driver.reason("t")), (TaskPhase::Skipped, "DependencySkipped"));
}

#[test]
fn no_branch_fails_the_decision() {
    let mut build = Build::new();
    build.task("choice").decision(&[]);
    build.task("allowed").decision(&[]).allow_failure();
    build.task("t").after(&["choice/good"]);
    build.task("u").after(&["allowed/good"]);
    let mut driver =
        Driver::with(build, crate::engine::Settings { failure_policy: FailurePolicy::FinishBranches, ..settings() });
    assert_eq!(
        driver.line(),
        "choice=Failed/NoBranch allowed=Failed/NoBranch t=Omitted/DependencyFailed u=Skipped/BranchNotTaken"
    );
    driver.step([]);
    assert!(driver.run.is_finished());
}

#[test]
fn a_suspended_graph_decides_nothing() {
    let mut driver = Driver::new(choice());
    driver.set(|settings| settings.desired_state = DesiredState::Suspend);
    driver.ok("check");
    assert_eq!(driver.phase("choice"), TaskPhase::Ready);
    let mut restarted = driver.restarted();
    restarted.step([]);
    assert_eq!(restarted.phase("choice"), TaskPhase::Ready);
    for mut driver in [driver, restarted] {
        driver.set(|settings| settings.desired_state = DesiredState::Run);
        assert_eq!(driver.phase("choice"), TaskPhase::Succeeded);
    }
}

#[test]
fn what_was_taken_is_not_decided_again() {
    let mut build = choice();
    build.task("poor").after(&["choice/poor"]);
    build.task("later");
    let mut driver = Driver::new(build);
    driver.ok("check");
    let mut status = driver.status();
    status.tasks[1].branch = Some("poor".into());
    status.tasks[2] = crate::api::TaskStatus { name: "poor".into(), ..Default::default() };
    let mut restarted = driver.restored_from(&status);
    restarted.step([]);
    assert!(restarted.actions().contains(&"launch poor/1".to_owned()), "{:?}", restarted.actions());
    restarted.fail_by("poor", Blame::Final);
    assert_eq!(restarted.phase("poor"), TaskPhase::Failed);
}

/// `n` leaves behind a number; the inclusive `choice` between even, large, and small where neither holds.
fn inclusive() -> Driver {
    let container = serde_json::json!({"image": "localhost/busybox:1"});
    let task = |name: &str, dependencies: &[&str]| serde_json::json!({"name": name, "dependsOn": dependencies, "container": container});
    let mut tasks = vec![
        task("n", &[]),
        serde_json::json!({"name": "choice", "dependsOn": ["n"], "decision": {"inclusive": true, "branches": [
            {"name": "even", "when": "tasks.n.outputs.n % 2 == 0"},
            {"name": "large", "when": "tasks.n.outputs.n > 100"},
            {"name": "neither"},
        ]}}),
    ];
    tasks.extend([
        task("halve", &["choice/even"]),
        task("split", &["choice/large"]),
        task("keep", &["choice/neither"]),
        task("either", &["choice/neither", "choice/large"]),
        task("join", &["halve", "split", "keep"]),
    ]);
    Driver::of(serde_json::json!({"tasks": tasks}))
}

#[test]
fn an_inclusive_decision_takes_every_branch_that_holds() {
    for (n, taken, running) in [
        (102, vec!["even", "large"], "halve split either"),
        (2, vec!["even"], "halve"),
        (101, vec!["large"], "split either"),
        (1, vec!["neither"], "keep either"),
    ] {
        let mut driver = inclusive();
        driver.ok_with("n", serde_json::json!({"n": n}));
        assert!(driver.last.store_first, "what was taken is stored before what follows from it");
        let status = &driver.status().tasks[1];
        assert_eq!(
            (status.branch.as_deref(), &status.branches),
            (None, &taken.iter().map(|name| (*name).to_owned()).collect())
        );
        let begun: Vec<_> = ["halve", "split", "keep", "either"]
            .into_iter()
            .filter(|name| driver.phase(name) == TaskPhase::Running)
            .collect();
        assert_eq!(begun.join(" "), running, "{n}");
        for name in begun {
            driver.ok(name);
        }
        driver.ok("join");
        assert_eq!(driver.run.task(driver.id("join")).phase, TaskPhase::Succeeded, "{n}: {}", driver.line());
        assert!(driver.run.is_finished());
    }
}

#[test]
fn an_inclusive_decision_without_a_branch_fails_and_says_why_tasks_were_skipped() {
    let mut build = Build::new();
    build.task("choice").decision(&[]).inclusive();
    assert_eq!(Driver::new(build).line(), "choice=Failed/NoBranch");
    let mut driver = inclusive();
    driver.ok_with("n", serde_json::json!({"n": 102}));
    let keep = driver.run.task(driver.id("keep"));
    assert_eq!(keep.message.as_deref(), Some("choice took even, large"));
}

#[test]
fn an_error_in_any_branch_asked_fails_an_inclusive_decision() {
    let mut driver = inclusive();
    driver.ok_with("n", serde_json::json!({"n": "two"}));
    assert_eq!((driver.phase("choice"), driver.reason("choice")), (TaskPhase::Failed, "ExpressionError"));
    assert!(driver.status().tasks[1].branches.is_empty());
}

#[test]
fn what_an_inclusive_decision_took_survives_a_restart() {
    let mut driver = inclusive();
    driver.ok_with("n", serde_json::json!({"n": 102}));
    let mut status = driver.status();
    let mut restarted = driver.restored_from(&status);
    restarted.step([]);
    assert_eq!(restarted.line(), driver.line());
    // edited by hand: what stands there counts; a branch that does not exist was never taken
    status.tasks[1].branches = vec!["large".into()];
    status.tasks[2] = crate::api::TaskStatus { name: "halve".into(), ..Default::default() };
    let mut edited = driver.restored_from(&status);
    edited.step([]);
    assert_eq!((edited.phase("halve"), edited.reason("halve")), (TaskPhase::Skipped, "BranchNotTaken"));
    status.tasks[1].branches = vec!["huge".into()];
    let mut broken = driver.restored_from(&status);
    broken.step([]);
    assert_eq!(broken.status().tasks[1].branches, ["even", "large"], "it is decided anew");
}
