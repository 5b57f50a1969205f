//! A task that an edit removes and the next one adds again, in whatever form, while something of it is left: numbers are
//! never used twice, nothing starts before all is gone, and what was told to stop is not taken for the new one.

use serde_json::{Value, json};

use super::fixture::*;
use crate::{
    api::{GraphPhase, TaskPhase, TaskStatus},
    engine::{Action, Attempt, AttemptResult, Event},
};

/// What `a` is. Each is another definition.
const FORMS: [&str; 4] = ["plain", "other", "indexed", "per item"];

fn form(name: &str) -> Value {
    let image = if name == "other" { "localhost/busybox:2" } else { "localhost/busybox:1" };
    let mut task = json!({"name": "a", "container": {"image": image}, "retry": {"limit": 3}});
    match name {
        "indexed" => task["forEach"] = json!({"items": [1, 2]}),
        "per item" => task["forEach"] = json!({"items": [1, 2], "strategy": "PerItem"}),
        _ => {}
    }
    task
}

fn graph(a: Option<&str>) -> Value {
    let b = json!({"name": "b", "container": {"image": "localhost/busybox:1"}});
    let tasks: Vec<Value> = a.map(form).into_iter().chain([b]).collect();
    json!({"failurePolicy": "FinishBranches", "tasks": tasks})
}

fn told(driver: &Driver) -> TaskStatus {
    driver.status().tasks.into_iter().find(|task| task.name == "a").expect("a is told of")
}

/// What is left of `a` when it is removed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Left {
    /// Its Job runs, and the status tells of it.
    Running,
    /// Its Job was created, and nobody has seen it yet.
    Unseen,
    /// It failed, and waits for its next attempt.
    Retrying,
    /// It has ended; of its pod nobody knows.
    Succeeded,
}

/// The Jobs of an attempt of this form, as they are seen.
fn seen(form: &str, attempt: Attempt) -> Vec<Event> {
    let attempts = if form == "per item" { vec![attempt.of_item(0), attempt.of_item(1)] } else { vec![attempt] };
    let launched = |attempt: Attempt| Event::Launched { attempt, job: format!("g-a-{}", attempt.number) };
    attempts.into_iter().map(launched).collect()
}

/// How the Jobs of an attempt of this form end.
fn ended(form: &str, attempt: Attempt, result: &AttemptResult, driver: &Driver) -> Vec<Event> {
    let end = |event: Event| match event {
        Event::Launched { attempt, .. } => Event::Finished { attempt, result: result.clone(), time: driver.now },
        event => event,
    };
    seen(form, attempt).into_iter().map(end).collect()
}

fn launches(driver: &Driver) -> Vec<u32> {
    let number = |action: &Action| match action {
        Action::Launch(launch) if launch.attempt.task == driver.id("a") => Some(launch.attempt.number),
        _ => None,
    };
    let mut numbers: Vec<u32> = driver.last.actions.iter().filter_map(number).collect();
    numbers.dedup();
    numbers
}

fn well() -> AttemptResult {
    AttemptResult::Succeeded { outputs: serde_json::Map::new(), message: None }
}

/// As an operator that begins anew from what is stored.
fn begin_anew(driver: &Driver) -> Driver {
    let mut restarted = driver.restarted();
    restarted.graph = std::sync::Arc::clone(restarted.run.graph());
    restarted
}

fn removed_and_added_again(before: &str, after: &str, left: Left, restarts: bool) {
    let why = format!("{before}, then {after}, {left:?}, restarts: {restarts}");
    let mut driver = Driver::of(graph(Some(before)));
    let first = Attempt::new(driver.id("a"), 1);
    match left {
        Left::Running => _ = driver.step(seen(before, first)),
        Left::Unseen => {}
        Left::Retrying | Left::Succeeded => {
            let result = if left == Left::Succeeded { well() } else { failed(crate::engine::Blame::Task) };
            driver.step(seen(before, first));
            let events = ended(before, first, &result, &driver);
            driver.step(events);
            // of items the others are stopped
            if driver.phase("a") == TaskPhase::Running {
                driver.gone("a");
            }
        }
    }
    driver.edit(graph(None));
    if restarts {
        driver = begin_anew(&driver);
        driver.step([]);
    }
    driver.edit(graph(Some(after)));
    if restarts {
        driver = begin_anew(&driver);
        driver.step([]);
    }
    assert_eq!(launches(&driver), [] as [u32; 0], "{why}: before the old one is gone");
    // its Job is seen now, or once more, and ends
    let old = Attempt::new(driver.id("a"), 1);
    driver.step(seen(before, old));
    assert_eq!(launches(&driver), [] as [u32; 0], "{why}: the old Job is not the new one's");
    let events = ended(before, old, &well(), &driver);
    driver.step(events);
    driver.wait(3600);
    assert_eq!(launches(&driver), [] as [u32; 0], "{why}: a pod of it may be left");
    assert!(!driver.phase("a").is_final(), "{why}: what the old one does counts for nothing");
    driver.step([Event::Gone { attempt: old }]);
    let mut waited = 0;
    while launches(&driver).is_empty() {
        waited += 1;
        assert!(waited < 9, "{why}: {}", driver.line());
        driver.wait(3600);
    }
    assert_eq!((launches(&driver), told(&driver).attempts), (vec![2], 2), "{why}");
    let new = Attempt::new(driver.id("a"), 2);
    driver.step(seen(after, new));
    // what is told of the old one once more changes nothing
    let late = [seen(before, old), ended(before, old, &well(), &driver), vec![Event::Gone { attempt: old }]].concat();
    driver.step(late);
    assert_eq!((driver.phase("a"), told(&driver).attempts), (TaskPhase::Running, 2), "{why}");
    let events = ended(after, new, &well(), &driver);
    driver.step(events);
    driver.ok("b");
    assert_eq!(driver.status().phase, Some(GraphPhase::Complete), "{why}: {}", driver.line());
    let told = told(&driver);
    assert_eq!((told.phase, told.attempts, told.stale), (TaskPhase::Succeeded, 2, false), "{why}");
}

#[test]
fn the_next_attempt_waits_until_the_old_one_is_gone() {
    for before in FORMS {
        for after in FORMS {
            for left in [Left::Running, Left::Unseen, Left::Retrying, Left::Succeeded] {
                for restarts in [false, true] {
                    removed_and_added_again(before, after, left, restarts);
                }
            }
        }
    }
}
