//! Tasks that run graph templates, and what graphs return.

#![allow(clippy::needless_pass_by_value, reason = "json! gives values")]

use serde_json::{Value, json};

use super::fixture::*;
use crate::{
    api::{DesiredState, GraphPhase, TaskPhase},
    engine::{Action, Blame, Event},
};

/// A task `a`, then a child graph `child` with what `a` left, then `end`.
fn driver(more: Value) -> Driver {
    let mut child = json!({"name": "child", "dependsOn": ["a"], "templateRef": {"name": "load"},
        "arguments": {"source": "${{ tasks.a.outputs.place }}"}});
    child.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let container = json!({"image": "i"});
    let template = json!({
        "parameters": [{"name": "source", "type": "string"}, {"name": "rows", "default": 3}],
        "graph": {"tasks": [{"name": "t", "container": container}], "outputs": [{"name": "n", "value": "1"}]},
    });
    let spec = json!({"tasks": [{"name": "a", "container": container}, child, {"name": "end", "dependsOn": ["child"], "container": container}]});
    Driver::with_templates(spec, json!({"load": template}))
}

fn launched(driver: &Driver) -> Value {
    match driver.last.actions.as_slice() {
        [Action::Launch(launch)] => (*launch.rendered).clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_child_gets_its_arguments_and_its_outputs_are_the_tasks() {
    let mut driver = driver(json!({}));
    driver.ok_with("a", json!({"place": "s3://x"}));
    assert_eq!(launched(&driver), json!({"source": "s3://x", "rows": 3}));
    driver.ok_with("child", json!({"n": 1}));
    assert_eq!((driver.phase("child"), driver.actions()), (TaskPhase::Succeeded, vec!["launch end/1".to_owned()]));
    assert_eq!(Value::Object(driver.status().tasks[1].outputs.clone()), json!({"n": 1}));
}

#[test]
fn arguments_without_a_value_fail_the_task_without_an_attempt() {
    for outputs in [json!({}), json!({"place": 3})] {
        let mut driver = driver(json!({}));
        driver.ok_with("a", outputs);
        assert_eq!(driver.line(), "a=Succeeded child=Failed/ExpressionError end=Omitted/DependencyFailed");
        assert_eq!(driver.attempt("child").number, 0);
    }
}

#[test]
fn a_child_waits_for_no_pod() {
    let mut driver = driver(json!({}));
    driver.ok_with("a", json!({"place": "x"}));
    driver.step([driver.launched("child")]);
    driver.wait(100_000);
    assert_eq!((driver.phase("child"), driver.actions()), (TaskPhase::Running, vec![]));
    let mut restarted = driver.restarted();
    restarted.wait(100_000);
    assert_eq!((restarted.phase("child"), restarted.actions()), (TaskPhase::Running, vec![]));
}

#[test]
fn progress_is_shown_and_begins_anew_with_an_attempt() {
    let mut driver = driver(json!({"retry": {"limit": 1}}));
    driver.ok_with("a", json!({"place": "x"}));
    let progress =
        |driver: &Driver, text: &str| Event::Progress { attempt: driver.attempt("child"), progress: text.into() };
    assert!(driver.step([progress(&driver, "1/3")]).changed);
    assert!(!driver.step([progress(&driver, "1/3")]).changed, "nothing new");
    assert!(!driver.step([progress(&driver, &"x".repeat(40))]).changed, "no text of this program");
    assert_eq!(driver.status().tasks[1].progress.as_deref(), Some("1/3"));
    assert_eq!(driver.restarted().status().tasks[1].progress.as_deref(), Some("1/3"));
    let late = progress(&driver, "3/3");
    driver.fail("child");
    driver.gone("child");
    driver.wait(10);
    assert_eq!(driver.actions(), ["launch child/2"]);
    driver.step([late]);
    assert_eq!(driver.status().tasks[1].progress, None, "of an attempt that is over");
}

#[test]
fn a_failed_child_is_tried_again_as_a_new_one_once_it_is_gone() {
    let mut driver = driver(json!({"retry": {"limit": 1}}));
    driver.ok_with("a", json!({"place": "x"}));
    driver.fail("child");
    assert_eq!(driver.actions(), ["await child/1"]);
    driver.wait(10);
    assert_eq!(driver.actions(), Vec::<String>::new());
    let mut restarted = driver.restarted();
    restarted.step([]);
    assert_eq!(restarted.actions(), ["await child/1"]);
    restarted.gone("child");
    assert_eq!(restarted.actions(), ["launch child/2"]);
    assert_eq!(launched(&restarted), json!({"source": "x", "rows": 3}));
    restarted.fail("child");
    assert_eq!(restarted.line(), "a=Succeeded child=Failed/Error end=Omitted/DependencyFailed");
}

#[test]
fn a_lost_child_uses_up_no_retry() {
    let mut driver = driver(json!({}));
    driver.ok_with("a", json!({"place": "x"}));
    driver.fail_by("child", Blame::Cluster);
    driver.gone("child");
    driver.wait(10);
    assert_eq!(driver.actions(), ["launch child/2"]);
}

#[test]
fn a_launch_that_was_not_answered_is_asked_for_again() {
    let mut driver = driver(json!({}));
    driver.ok_with("a", json!({"place": "x"}));
    let mut restarted = driver.restarted();
    restarted.step([]);
    assert_eq!(restarted.actions(), ["launch child/1"]);
    restarted.step([restarted.launched("child")]);
    let mut again = restarted.restarted();
    again.step([]);
    assert_eq!(again.actions(), Vec::<String>::new(), "it is known to exist");
}

#[test]
fn cancel_stops_a_child_and_waits_for_its_end() {
    let mut driver = driver(json!({}));
    driver.ok_with("a", json!({"place": "x"}));
    driver.step([driver.launched("child"), Event::Started { attempt: driver.attempt("child") }]);
    driver.set(|settings| settings.desired_state = DesiredState::Cancel);
    assert_eq!(driver.actions(), ["stop child/1"]);
    driver.fail("child");
    assert_eq!(driver.phase("child"), TaskPhase::Running, "a failure may be the stop's doing");
    driver.gone("child");
    assert_eq!(driver.line(), "a=Succeeded child=Cancelled/Cancelled end=Omitted/Cancelled");
}

#[test]
fn a_child_holds_one_slot() {
    let container = json!({"image": "i"});
    let template =
        json!({"graph": {"tasks": [{"name": "t", "container": container}, {"name": "u", "container": container}]}});
    let spec = json!({"parallelism": 1, "tasks": [
        {"name": "child", "templateRef": {"name": "x"}}, {"name": "b", "container": container}]});
    let mut driver = Driver::with_templates(spec, json!({"x": template}));
    assert_eq!(driver.actions(), ["launch child/1"]);
    driver.ok("child");
    assert_eq!(driver.actions(), ["launch b/1"]);
}

/// A graph with one task that returns these.
fn returning(outputs: Value) -> Driver {
    let container = json!({"image": "i"});
    Driver::of(json!({"arguments": {"x": 2}, "outputs": outputs, "tasks": [{"name": "a", "container": container}],
        "finally": [{"name": "last", "container": container}]}))
}

#[test]
fn what_a_graph_returns() {
    let mut driver = returning(json!([
        {"name": "rows", "value": "tasks.a.outputs.rows * args.x"}, {"name": "all", "value": "tasks.a.outputs"},
        {"name": "last", "value": "tasks.last.phase"},
    ]));
    driver.ok_with("a", json!({"rows": 4}));
    assert!(driver.status().outputs.is_empty());
    driver.ok("last");
    let status = driver.status();
    assert_eq!(status.phase, Some(GraphPhase::Complete));
    assert_eq!(Value::Object(status.outputs.clone()), json!({"rows": 8, "all": {"rows": 4}, "last": "Succeeded"}));
    assert_eq!(driver.restarted().status().outputs, status.outputs);
}

#[test]
fn an_output_without_a_value_fails_the_graph_at_its_end() {
    let large = "x".repeat(200 << 10);
    for (outputs, left, reason) in [
        (json!([{"name": "o", "value": "tasks.a.outputs.none"}]), json!({}), "ExpressionError"),
        (json!([{"name": "o", "value": "1 / (args.x - 2)"}]), json!({}), "ExpressionError"),
        (json!([{"name": "o", "value": "tasks.a.outputs.text"}]), json!({"text": large}), "OutputsTooLarge"),
    ] {
        let mut driver = returning(outputs);
        driver.ok_with("a", left);
        driver.ok("last");
        for status in [driver.status(), driver.restarted().status()] {
            assert_eq!(status.phase, Some(GraphPhase::Failed));
            let failed = status.conditions.iter().find(|condition| condition.type_ == "Failed").unwrap();
            assert_eq!(failed.reason, reason);
            assert!(failed.message.contains("output o"), "{}", failed.message);
            assert!(status.outputs.is_empty());
        }
    }
}

#[test]
fn a_graph_that_failed_returns_nothing() {
    let mut driver = returning(json!([{"name": "o", "value": "tasks.a.outputs.rows"}]));
    driver.fail("a");
    driver.ok("last");
    let status = driver.status();
    assert_eq!(status.conditions.iter().find(|one| one.type_ == "Failed").unwrap().reason, "TasksFailed");
    assert!(status.outputs.is_empty());
}
