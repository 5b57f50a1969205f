//! What containers leave behind.

use serde_json::json;

use super::fixture::*;
use crate::{
    api::{Output, TaskPhase, ValueType},
    engine::{AttemptResult, policy::outputs::MAX_TOTAL},
};

fn output(name: &str, type_: Option<ValueType>, default: Option<serde_json::Value>) -> Output {
    Output { name: name.into(), type_, default, description: None }
}

#[test]
fn declared_outputs_are_checked() {
    let number = || vec![output("rows", Some(ValueType::Integer), None)];
    let defaulted = || vec![output("rows", Some(ValueType::Integer), Some(json!(7)))];
    for (declared, left, expected) in [
        (vec![], json!({"x": [1]}), Ok(json!({"x": [1]}))),
        (number(), json!({"rows": 3, "more": "text"}), Ok(json!({"rows": 3, "more": "text"}))),
        (number(), json!({"rows": 3.0}), Ok(json!({"rows": 3.0}))),
        (number(), json!({}), Err("OutputMissing")),
        (number(), json!({"rows": null}), Err("OutputInvalid")),
        (number(), json!({"rows": "3"}), Err("OutputInvalid")),
        (number(), json!({"rows": 3.5}), Err("OutputInvalid")),
        (defaulted(), json!({}), Ok(json!({"rows": 7}))),
        (defaulted(), json!({"rows": 2}), Ok(json!({"rows": 2}))),
        (defaulted(), json!({"rows": []}), Err("OutputInvalid")),
    ] {
        let mut build = Build::new();
        declared.into_iter().fold(build.task("a"), TaskBuild::output);
        let mut driver = Driver::new(build);
        driver.ok_with("a", left.clone());
        let status = driver.status();
        match expected {
            Ok(outputs) => assert_eq!(serde_json::Value::Object(status.tasks[0].outputs.clone()), outputs),
            Err(reason) => assert_eq!(driver.line(), format!("a=Failed/{reason}"), "{left}"),
        }
    }
}

#[test]
fn a_missing_output_is_tried_again() {
    let mut build = Build::new();
    build.task("a").output(output("rows", None, None)).retries(1);
    let mut driver = Driver::new(build);
    driver.ok("a");
    assert_eq!((driver.phase("a"), driver.reason("a")), (TaskPhase::Retrying, "OutputMissing"));
}

#[test]
fn the_outputs_of_a_graph_are_bounded_together() {
    let mut build = Build::new();
    build.task("a").retries(5);
    build.task("b").retries(5);
    build.task("c").retries(5);
    let mut driver = Driver::new(build);
    let half = "x".repeat(MAX_TOTAL / 2 - 8); // {"x":"…"} adds eight bytes
    driver.ok_with("a", json!({"x": half}));
    let mut restarted = driver.restarted();
    restarted.step([restarted.launched("b"), restarted.launched("c")]);
    for mut driver in [driver, restarted] {
        driver.ok_with("b", json!({"x": half}));
        assert_eq!(driver.phase("b"), TaskPhase::Succeeded, "exactly as much as there may be");
        driver.ok_with("c", json!({"x": 1}));
        assert_eq!((driver.phase("c"), driver.reason("c")), (TaskPhase::Failed, "OutputsTooLarge"));
    }
}

#[test]
fn the_message_of_a_success_is_kept_and_cut_where_a_character_ends() {
    let mut build = Build::new();
    build.task("a");
    let mut driver = Driver::new(build);
    let message = Some("ä".repeat(200) + "!");
    let result = AttemptResult::Succeeded { outputs: serde_json::Map::new(), message };
    driver.step([driver.finished("a", result)]);
    assert_eq!(driver.status().tasks[0].message.as_deref(), Some("ä".repeat(128).as_str()));
}
