//! Expressions where the engine asks them: `when`, branches, `retry.when`, and payloads.

use serde_json::{Value, json};

use super::fixture::*;
use crate::{
    api::TaskPhase,
    engine::{Action, AttemptResult, Blame, Failure},
};

fn container() -> Value {
    json!({"image": "localhost/busybox:1"})
}

#[test]
fn the_first_branch_that_holds_is_taken() {
    for (quality, taken) in [(0.97, "good"), (0.7, "fair"), (0.1, "poor")] {
        let mut driver = Driver::of(json!({"tasks": [
            {"name": "check", "container": container()},
            {"name": "quality", "dependsOn": ["check"], "decision": {"branches": [
                {"name": "good", "when": "tasks.check.outputs.quality > 0.95"},
                {"name": "fair", "when": "tasks.check.outputs.quality > 0.5"},
                {"name": "poor"},
            ]}},
            {"name": "store", "dependsOn": ["quality/good", "quality/fair"], "container": container()},
        ]}));
        driver.ok_with("check", json!({"quality": quality}));
        assert_eq!(driver.status().tasks[1].branch.as_deref(), Some(taken));
        let expected = if taken == "poor" { TaskPhase::Skipped } else { TaskPhase::Running };
        assert_eq!(driver.phase("store"), expected, "{taken}");
    }
}

#[test]
fn no_branch_and_a_broken_branch_fail_the_decision() {
    let spec = |when: &str| {
        json!({"tasks": [
            {"name": "check", "container": container()},
            {"name": "choice", "dependsOn": ["check"], "decision": {"branches": [{"name": "only", "when": when}]}},
        ]})
    };
    for (when, reason) in
        [("tasks.check.outputs.rows > 3", "NoBranch"), ("tasks.check.outputs.missing > 3", "ExpressionError")]
    {
        let mut driver = Driver::of(spec(when));
        driver.ok_with("check", json!({"rows": 1}));
        assert_eq!((driver.phase("choice"), driver.reason("choice")), (TaskPhase::Failed, reason));
        assert!(driver.run.is_finished());
    }
}

#[test]
fn when_skips_or_fails_after_the_trigger_held() {
    for (when, line) in [
        ("tasks.a.phase == 'Succeeded'", "a=Succeeded t=Running"),
        ("tasks.a.outputs.rows > 3", "a=Succeeded t=Skipped/ConditionFalse"),
        ("tasks.a.outputs.rows", "a=Succeeded t=Failed/ExpressionError"),
        ("tasks.a.outputs.gone > 3", "a=Succeeded t=Failed/ExpressionError"),
    ] {
        let mut driver = Driver::of(json!({"tasks": [
            {"name": "a", "container": container()},
            {"name": "t", "dependsOn": ["a"], "when": when, "container": container(), "retry": {"limit": 3}},
        ]}));
        driver.ok_with("a", json!({"rows": 1}));
        assert_eq!(driver.line(), line, "{when}");
        assert_eq!(driver.run.is_finished(), !line.ends_with("Running"));
    }
}

#[test]
fn a_guard_comes_before_when() {
    let mut driver = Driver::of(json!({"tasks": [
        {"name": "a", "container": container()},
        {"name": "choice", "dependsOn": ["a"], "decision": {"branches": [{"name": "x"}]}},
        {"name": "other", "dependsOn": ["a"], "decision": {"branches": [{"name": "x", "when": "false"}, {"name": "y"}]}},
        {"name": "t", "dependsOn": ["choice/x", "other/x"], "when": "tasks.a.outputs.missing", "container": container()},
    ]}));
    driver.ok("a");
    assert_eq!((driver.phase("t"), driver.reason("t")), (TaskPhase::Skipped, "BranchNotTaken"));
}

#[test]
fn retry_when_is_asked_about_each_failure() {
    let spec =
        |when: &str| json!({"tasks": [{"name": "a", "container": container(), "retry": {"limit": 5, "when": when}}]});
    for (when, phase, reason) in [
        ("exitCode == 75", TaskPhase::Retrying, "Error"),
        ("exitCode != 75", TaskPhase::Failed, "Error"),
        ("reason == 'Error' && attempt == 1", TaskPhase::Retrying, "Error"),
        ("attempt > 1", TaskPhase::Failed, "Error"),
        ("exitCode / 0 == 1", TaskPhase::Failed, "ExpressionError"),
    ] {
        let mut driver = Driver::of(spec(when));
        let failure = Failure { reason: "Error".into(), message: None, exit_code: Some(75), blame: Blame::Task };
        driver.step([driver.finished("a", AttemptResult::Failed(failure))]);
        assert_eq!((driver.phase("a"), driver.reason("a")), (phase, reason), "{when}");
        assert_eq!(driver.status().tasks[0].failed_attempts[0].exit_code, Some(75));
    }
    // the cluster's failures are not the task's to judge
    let mut driver = Driver::of(spec("false"));
    driver.fail_by("a", Blame::Cluster);
    assert_eq!(driver.phase("a"), TaskPhase::Retrying);
}

#[test]
fn payloads_are_rendered_at_launch_and_their_errors_are_not_tried_again() {
    let mut driver = Driver::of(json!({"arguments": {"source": "orders.csv"}, "tasks": [
        {"name": "a", "container": container()},
        {"name": "good", "dependsOn": ["a"], "retry": {"limit": 1}, "container": {"image": "localhost/busybox:1", "env": [
            {"name": "TEXT", "value": "${{ args.source }} ${{ tasks.a.outputs.rows }} ${{ attempt }}"},
        ]}},
        {"name": "bad", "dependsOn": ["a"], "retry": {"limit": 3}, "container": {"image": "localhost/busybox:1", "env": [
            {"name": "TEXT", "value": "${{ tasks.a.outputs.missing }}"},
        ]}},
    ], "failurePolicy": "FinishBranches"}));
    let text = |driver: &Driver| {
        driver.last.actions.iter().find_map(|action| match action {
            Action::Launch(launch) => {
                launch.rendered.pointer("/env/0/value").and_then(Value::as_str).map(str::to_owned)
            }
            _ => None,
        })
    };
    driver.ok_with("a", json!({"rows": 12}));
    assert_eq!(text(&driver).as_deref(), Some("orders.csv 12 1"));
    assert_eq!((driver.phase("bad"), driver.reason("bad")), (TaskPhase::Failed, "ExpressionError"));
    assert_eq!(driver.attempt("bad").number, 0, "it had no attempt");
    // a restart renders the same
    let mut restarted = driver.restarted();
    restarted.step([]);
    assert_eq!(restarted.actions(), ["launch good/1"]);
    assert_eq!(text(&restarted).as_deref(), Some("orders.csv 12 1"));
    driver.fail("good");
    driver.gone("good");
    driver.wait(2);
    assert_eq!(text(&driver).as_deref(), Some("orders.csv 12 2"));
}

#[test]
fn an_expression_sees_a_failure_that_is_allowed_as_failed() {
    let mut driver = Driver::of(json!({"tasks": [
        {"name": "a", "allowFailure": true, "container": container()},
        {"name": "t", "dependsOn": ["a"], "when": "tasks.a.phase == 'Failed'", "container": container()},
    ]}));
    driver.fail("a");
    assert_eq!(driver.line(), "a=Failed/Error t=Running");
}
