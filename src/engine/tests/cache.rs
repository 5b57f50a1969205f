//! Results that are reused.

#![allow(clippy::needless_pass_by_value, reason = "json! gives values")]

use serde_json::{Value, json};

use super::fixture::{Build, Driver, at, settings};
use crate::{
    api::{Output, TaskPhase, ValueType},
    engine::{Action, CacheKey, Event, Remembered, Settings},
};

/// What the task asks for by the last step.
fn asked(driver: &Driver, name: &str) -> Option<CacheKey> {
    driver.last.actions.iter().find_map(|action| match action {
        Action::LookUp { task, key } if *task == driver.id(name) => Some(*key),
        _ => None,
    })
}

fn remembered(outputs: Value, second: i64) -> Remembered {
    let outputs = outputs.as_object().unwrap().clone();
    Remembered { outputs, graph: "earlier".into(), task: "same".into(), time: at(second) }
}

fn answer(driver: &Driver, name: &str, key: CacheKey, found: Option<Remembered>) -> Event {
    Event::LookedUp { task: driver.id(name), key, found }
}

/// Two tasks, `b` after `a`, which has a cache.
fn two() -> Build {
    let mut build = Build::new();
    build.task("a").cached();
    build.task("b").after(&["a"]);
    build
}

#[test]
fn a_success_is_reused_and_stored_before_what_follows() {
    let mut driver = Driver::new(two());
    assert_eq!(driver.actions(), ["look up a"]);
    assert_eq!(driver.line(), "a=Ready b=Pending");
    let key = asked(&driver, "a").unwrap();
    let found = answer(&driver, "a", key, Some(remembered(json!({"rows": 3}), -60)));
    driver.step([found]);
    assert_eq!(driver.actions(), ["launch b/1"]);
    assert!(driver.last.store_first, "no Job could tell the outputs again");
    let status = driver.run.task(driver.id("a"));
    assert_eq!((status.phase, status.reason.as_deref(), status.attempts), (TaskPhase::Succeeded, Some("Cached"), 0));
    assert_eq!(status.message.as_deref(), Some("outputs of task same of graph earlier, 2023-11-14T22:12:20Z"));
    assert_eq!(Value::Object(status.outputs.clone()), json!({"rows": 3}));
    assert_eq!(driver.run.to_remember(driver.id("a")), None, "it was remembered already");
    let restarted = driver.restarted();
    assert_eq!(restarted.status().tasks[0], driver.status().tasks[0]);
}

#[test]
fn what_counts_as_none() {
    let integer = Output { name: "rows".into(), type_: Some(ValueType::Integer), ..Output::default() };
    let large = json!({"rows": 1, "text": "x".repeat(256 * 1024)});
    for (what, found) in [
        ("nothing", None),
        ("too old", Some(remembered(json!({"rows": 3}), -61))),
        ("of another type", Some(remembered(json!({"rows": "three"}), 0))),
        ("without what is declared", Some(remembered(json!({}), 0))),
        ("too large", Some(remembered(large, 0))),
    ] {
        let mut build = Build::new();
        build.task("a").cached().output(integer.clone());
        let mut driver = Driver::new(build);
        let key = asked(&driver, "a").unwrap();
        let event = answer(&driver, "a", key, found);
        driver.step([event]);
        assert_eq!(driver.actions(), ["launch a/1"], "{what}");
        driver.ok_with("a", json!({"rows": 4}));
        assert_eq!(driver.line(), "a=Succeeded", "{what}");
        assert_eq!(driver.run.to_remember(driver.id("a")), Some(key), "{what}");
    }
}

#[test]
fn without_an_answer_it_runs_after_five_seconds() {
    let mut driver = Driver::new(two());
    let key = asked(&driver, "a").unwrap();
    assert_eq!(driver.last.wake_at, Some(at(5)));
    driver.wait(4);
    assert_eq!(driver.actions(), [""; 0]);
    driver.wait(1);
    assert_eq!(driver.actions(), ["launch a/1"]);
    // too late
    let found = answer(&driver, "a", key, Some(remembered(json!({}), 0)));
    driver.step([found]);
    assert_eq!(driver.line(), "a=Running b=Pending");
}

#[test]
fn answers_to_other_questions_change_nothing() {
    let mut driver = Driver::new(two());
    let key = asked(&driver, "a").unwrap();
    let other = CacheKey(key.0 ^ 1, key.1);
    let events = [
        answer(&driver, "a", other, Some(remembered(json!({}), 0))),
        answer(&driver, "b", key, Some(remembered(json!({}), 0))),
        Event::LookedUp { task: crate::engine::TaskId(9), key, found: None },
    ];
    driver.step(events);
    assert_eq!((driver.line().as_str(), driver.actions().len()), ("a=Ready b=Pending", 0));
    // an answer twice counts once
    let (first, second) = (answer(&driver, "a", key, None), answer(&driver, "a", key, Some(remembered(json!({}), 0))));
    driver.step([first, second]);
    assert_eq!(driver.actions(), ["launch a/1"]);
}

#[test]
fn it_asks_once_more_after_a_restart_but_not_for_a_retry() {
    let mut driver = Driver::new(two()).restarted();
    driver.step([]);
    assert_eq!(driver.actions(), ["look up a"]);

    let mut build = Build::new();
    build.task("a").cached().retries(1);
    let mut driver = Driver::new(build);
    let key = asked(&driver, "a").unwrap();
    let none = answer(&driver, "a", key, None);
    driver.step([none]);
    driver.fail("a");
    driver.gone("a");
    driver.wait(20);
    assert_eq!(driver.actions(), ["launch a/2"]);
    driver.ok("a");
    assert_eq!(driver.run.to_remember(driver.id("a")), Some(key), "whichever attempt succeeds answers the question");
}

#[test]
fn a_rerun_of_what_was_reused_really_runs() {
    let rerun = |id: &str, task: &str| json!({"id": id, "scope": "Tasks", "tasks": [task]});
    let mut build = Build::new();
    build.task("a").cached();
    build.task("b").after(&["a"]).cached();
    build.task("c").after(&["b"]);
    let mut driver = Driver::new(build);
    let found = answer(&driver, "a", asked(&driver, "a").unwrap(), Some(remembered(json!({"rows": 3}), 0)));
    driver.step([found]);
    let found = answer(&driver, "b", asked(&driver, "b").unwrap(), Some(remembered(json!({}), 0)));
    driver.step([found]);
    assert_eq!(driver.line(), "a=Succeeded/Cached b=Succeeded/Cached c=Running");
    driver.run.set_on_hold(true);
    driver.rerun(rerun("1", "a"));
    assert_eq!(driver.line(), "a=Ready b=Pending c=Running/Rerun");
    // also after a restart, and after an edit
    let edited = {
        let mut edited = driver.restarted();
        let (graph, settings) = (std::sync::Arc::clone(&driver.graph), settings());
        edited.run.edit(graph, settings, driver.now);
        edited
    };
    for mut driver in [driver.restarted(), edited, driver] {
        driver.run.set_on_hold(false);
        driver.step([]);
        assert_eq!(asked(&driver, "a"), None);
        assert!(driver.actions().contains(&"launch a/1".to_owned()), "{:?}", driver.actions());
        driver.ok("a");
        assert!(driver.actions().contains(&"launch b/1".to_owned()), "and so does what depends on it");
        assert_eq!(
            driver.run.to_remember(driver.id("a")),
            Some(driver.run.cache_key(driver.id("a")).unwrap().unwrap())
        );
    }
}

#[test]
fn a_rerun_of_what_did_not_come_so_far_asks() {
    let mut build = Build::new();
    build.task("a");
    build.task("b").after(&["a"]).cached();
    let mut driver = Driver::new(build);
    driver.fail("a");
    assert_eq!(driver.line(), "a=Failed/Error b=Omitted/DependencyFailed");
    driver.rerun(json!({"id": "1", "scope": "Failed"}));
    driver.gone("a");
    driver.ok("a");
    assert!(asked(&driver, "b").is_some(), "{:?}", driver.actions());
}

#[test]
fn asking_holds_a_slot_and_can_be_called_off() {
    let mut build = Build::new();
    build.task("a").cached().priority(9);
    build.task("b");
    let one = || Settings { parallelism: Some(1), ..settings() };
    let mut driver = Driver::with(build, one());
    assert_eq!(driver.actions(), ["look up a"]);
    let none = answer(&driver, "a", asked(&driver, "a").unwrap(), None);
    driver.step([none]);
    assert_eq!(driver.actions(), ["launch a/1"], "it does not lose its turn");

    let mut build = Build::new();
    build.task("a").cached().priority(9);
    build.task("b");
    let mut driver = Driver::with(build, one());
    let found = answer(&driver, "a", asked(&driver, "a").unwrap(), Some(remembered(json!({}), 0)));
    driver.step([found]);
    assert_eq!(driver.actions(), ["launch b/1"], "the slot is free again");

    let mut driver = Driver::new(two());
    let key = asked(&driver, "a").unwrap();
    driver.set(|settings| settings.desired_state = crate::api::DesiredState::Cancel);
    let found = answer(&driver, "a", key, Some(remembered(json!({}), 0)));
    driver.step([found]);
    assert_eq!(driver.line(), "a=Omitted/Cancelled b=Omitted/Cancelled");
}

#[test]
fn the_key_is_of_all_that_the_outputs_depend_on() {
    let key = |arguments: Value, image: &str, cache: Value| {
        let driver = Driver::of(json!({"arguments": arguments, "tasks": [{
            "name": "a", "cache": cache,
            "container": {"image": image, "env": [{"name": "X", "value": "${{ args.x }}"}]},
        }]}));
        asked(&driver, "a").unwrap()
    };
    let hour = json!({"maxAge": "1h"});
    let base = key(json!({"x": 1, "y": 1}), "i", hour.clone());
    assert_eq!(base.to_string().len(), 32);
    assert_eq!(base, key(json!({"x": 1, "y": 2}), "i", json!({"maxAge": "2h"})), "nothing that the task reads");
    assert_ne!(base, key(json!({"x": 2, "y": 1}), "i", hour.clone()), "an argument");
    assert_ne!(base, key(json!({"x": 1, "y": 1}), "j", hour), "the container");
    let keyed = |y: u32| key(json!({"x": 1, "y": y}), "i", json!({"maxAge": "1h", "key": "v1 ${{ args.y }}"}));
    assert_ne!(base, keyed(1));
    assert_ne!(keyed(1), keyed(2), "the key");
    assert_eq!(keyed(1), keyed(1));
}

#[test]
fn an_expression_without_a_value_fails_the_task() {
    let driver = Driver::of(json!({"arguments": {"x": {}}, "tasks": [
        {"name": "a", "container": {"image": "i"}, "cache": {"maxAge": "1h", "key": "${{ args.x.y }}"}},
    ]}));
    assert_eq!(driver.line(), "a=Failed/ExpressionError");
    let message = driver.run.task(driver.id("a")).message.clone().unwrap_or_default();
    assert!(message.starts_with("cache.key: "), "{message}");
}
