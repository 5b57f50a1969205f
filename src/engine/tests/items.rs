//! Tasks with `forEach`.

#![allow(clippy::needless_pass_by_value, reason = "json! gives values")]

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::fixture::*;
use crate::{
    api::{Duration, ItemsStatus, TaskPhase},
    engine::{
        Action, AttemptResult, Blame, Event, Failure, Launch, Run,
        sim::{Fate, simulate},
    },
};

/// `list` leaves outputs, `each` runs for the items, `after` follows.
fn spec(for_each: Value, more: Value) -> Value {
    let container = json!({"image": "localhost/busybox:1"});
    let mut each = json!({"name": "each", "dependsOn": ["list"], "container": container, "forEach": for_each});
    for (key, value) in more.as_object().unwrap() {
        each[key] = value.clone();
    }
    json!({"arguments": {"few": ["x", "y"]}, "tasks": [
        {"name": "list", "container": container},
        each,
        {"name": "after", "dependsOn": ["each"], "container": container},
    ]})
}

/// Until `list` has left this.
fn listed(for_each: Value, outputs: Value) -> Driver {
    let mut driver = Driver::of(spec(for_each, json!({})));
    driver.ok_with("list", outputs);
    driver
}

fn launched_items(driver: &Driver) -> Option<Value> {
    driver.last.actions.iter().find_map(|action| match action {
        Action::Launch(launch) => launch.items.as_ref().map(|items| json!(**items)),
        _ => None,
    })
}

fn counted(succeeded: u32, failed: u32) -> ItemsStatus {
    ItemsStatus {
        total: 3,
        succeeded,
        failed,
        active: 1,
        failed_indexes: (failed > 0).then(|| "1".to_owned()),
        ..ItemsStatus::default()
    }
}

fn items(driver: &Driver, items: ItemsStatus) -> Event {
    Event::Items { attempt: driver.attempt("each"), items }
}

#[test]
fn items_come_from_a_list_or_an_expression() {
    for (items, expected) in [
        (json!(["a", 2, null, {"b": [true]}]), json!(["a", 2, null, {"b": [true]}])),
        (json!("${{ tasks.list.outputs.files }}"), json!(["f1", "f2"])),
        (json!("  ${{ args.few }}\n"), json!(["x", "y"])),
        (json!("${{ [null, 'a', 3].filter(one, one != null) }}"), json!(["a", 3])),
        (json!("${{ args.few + tasks.list.outputs.files }}"), json!(["x", "y", "f1", "f2"])),
        (json!("${{ tasks.list.outputs.files.map(file, {'file': file}) }}"), json!([{"file": "f1"}, {"file": "f2"}])),
        (
            json!(["${{ tasks.list.outputs.n }}", "n=${{ tasks.list.outputs.n }}", {"deep": "${{ args.few }}"}]),
            json!([3, "n=3", {"deep": ["x", "y"]}]),
        ),
    ] {
        let driver = listed(json!({"items": items}), json!({"files": ["f1", "f2"], "n": 3}));
        assert_eq!(launched_items(&driver), Some(expected.clone()), "{items}");
        let total = u32::try_from(expected.as_array().unwrap().len()).unwrap();
        assert_eq!(driver.status().tasks[1].items, Some(ItemsStatus { total, ..ItemsStatus::default() }));
    }
}

#[test]
fn lists_that_are_none() {
    let large = vec![json!("x".repeat(1024)); 600];
    let many: Vec<u32> = (0..1001).collect();
    for (outputs, line, message) in [
        (json!({"files": []}), "each=Skipped/NoItems", ""),
        (json!({"files": "f1"}), "each=Failed/ExpressionError", "forEach.items: the value is"),
        (json!({"files": null}), "each=Failed/ExpressionError", "must be a list"),
        (json!({}), "each=Failed/ExpressionError", "task \"list\" has no output \"files\""),
        (json!({"files": many}), "each=Failed/ExpressionError", "1001 items; the limit is 1000"),
        (json!({"files": large.get(..200)}), "each=Running", ""),
    ] {
        let driver = listed(json!({"items": "${{ tasks.list.outputs.files }}"}), outputs);
        assert!(driver.line().contains(line), "{}", driver.line());
        let told = driver.run.task(driver.id("each")).message.clone().unwrap_or_default();
        assert!(told.contains(message), "{told:?} has no {message:?}");
    }
    // an argument may be larger than outputs can be
    let mut spec = spec(json!({"items": "${{ args.large }}"}), json!({}));
    spec["arguments"]["large"] = large.into();
    let mut driver = Driver::of(spec);
    driver.ok("list");
    assert!(driver.run.task(driver.id("each")).message.as_deref().unwrap_or_default().contains("the limit is 524288"));
}

#[test]
fn an_empty_list_is_a_choice() {
    let mut driver = listed(json!({"items": []}), json!({}));
    assert_eq!(driver.line(), "list=Succeeded each=Skipped/NoItems after=Skipped/DependencySkipped");
    assert!(driver.run.is_finished());
    assert_eq!(driver.restarted().line(), driver.line());
    assert!(driver.step([]).actions.is_empty());
}

#[test]
fn items_are_counted_until_the_attempt_ends() {
    let mut driver = listed(json!({"items": [1, 2, 3]}), json!({}));
    let before = driver.run.sequence();
    let step = driver.step([driver.launched("each"), items(&driver, counted(1, 1))]);
    assert!(step.changed && step.transitions.is_empty());
    assert_eq!(driver.run.sequence(), before, "a count is no transition");
    assert!(!driver.step([items(&driver, counted(1, 1))]).changed);
    assert_eq!(driver.status().tasks[1].items, Some(counted(1, 1)));
    // as it stands in a status that is read again
    assert_eq!(driver.restarted().status().tasks[1].items, Some(counted(1, 1)));
    driver.ok_with("each", json!({"n": [1, null, 3]}));
    assert_eq!(driver.phase("after"), TaskPhase::Running);
    assert!(!driver.step([Event::Items { attempt: driver.attempt("each"), items: counted(3, 0) }]).changed);
}

#[test]
fn a_further_attempt_has_all_items_again() {
    let mut driver = Driver::of(spec(json!({"items": [1, 2, 3]}), json!({"retry": {"limit": 1}})));
    driver.ok("list");
    driver.step([driver.launched("each"), items(&driver, counted(2, 1))]);
    driver.fail("each");
    assert_eq!(driver.status().tasks[1].items, Some(counted(2, 1)), "how far it came");
    driver.gone("each");
    driver.wait(2);
    assert_eq!(launched_items(&driver), Some(json!([1, 2, 3])));
    assert_eq!(driver.status().tasks[1].items, Some(ItemsStatus { total: 3, ..ItemsStatus::default() }));
}

#[test]
fn an_edit_that_empties_the_list_ends_the_retries() {
    for strategy in ["Indexed", "PerItem"] {
        let of = |items| spec(json!({"items": items, "strategy": strategy}), json!({"retry": {"limit": 1}}));
        let mut driver = Driver::of(of(json!([1, 2])));
        driver.ok("list");
        match strategy {
            "PerItem" => {
                let items = [0, 1].map(|index| driver.attempt("each").of_item(index));
                let time = driver.now;
                let failed = |attempt| Event::Finished { attempt, result: failed(Blame::Task), time };
                driver.step(items.map(failed));
            }
            _ => _ = driver.fail("each"),
        }
        driver.gone("each");
        assert_eq!(driver.phase("each"), TaskPhase::Retrying, "{strategy}");
        driver.edit(of(json!([])));
        driver.gone("each");
        driver.wait(2);
        assert_eq!(driver.line(), "list=Succeeded each=Skipped/NoItems after=Skipped/DependencySkipped");
        let told = driver.status().tasks[1].clone();
        assert_eq!((told.attempts, told.begun(), told.stale, told.items), (1, false, false, None));
        assert_eq!(told.failed_attempts.len(), 1, "it is still told");
        assert_eq!(driver.restarted().line(), driver.line());
        // what has begun nothing is decided again
        driver.edit(of(json!([3])));
        assert_eq!((driver.phase("each"), driver.attempt("each").number), (TaskPhase::Running, 2), "{strategy}");
    }
}

#[test]
fn an_edit_that_empties_the_list_of_an_attempt_whose_job_nobody_has_seen() {
    let of = |items| spec(json!({"items": items}), json!({}));
    let mut driver = listed(json!({"items": [1, 2, 3]}), json!({}));
    let plan = planned(of(json!([])));
    driver.run.edit(plan.graph, plan.settings, driver.now);
    driver.graph = Arc::clone(driver.run.graph());
    let mut seen = driver.restarted();
    // the Job may be there all the same: it is looked for, whatever a restart forgets
    driver.step([]);
    assert_eq!(driver.actions(), ["stop each/1"]);
    assert!(driver.last.store_first);
    let mut restarted = driver.restored_from(&driver.status());
    restarted.step([]);
    assert_eq!(restarted.actions(), ["stop each/1"]);
    restarted.gone("each");
    assert_eq!(restarted.line(), "list=Succeeded each=Skipped/NoItems after=Skipped/DependencySkipped");
    assert_eq!((restarted.attempt("each").number, restarted.run.is_finished()), (1, true));
    // one that is seen at once goes on
    seen.step([seen.launched("each")]);
    assert_eq!((seen.line().as_str(), seen.actions().len()), ("list=Succeeded each=Running after=Pending", 0));
}

#[test]
fn a_restart_launches_the_same_items() {
    let mut driver = listed(json!({"items": "${{ tasks.list.outputs.files }}"}), json!({"files": [5, 6]}));
    let first = launched_items(&driver);
    let mut restarted = driver.restarted();
    restarted.step([]);
    assert_eq!((launched_items(&restarted), restarted.actions()), (first, vec!["launch each/1".to_owned()]));
    // of an attempt that the status does not know, the Job tells how many items it has
    let before = listed(json!({"items": [1, 2, 3]}), json!({})).status();
    let mut status = before.clone();
    status.tasks[1] = crate::api::TaskStatus { name: "each".into(), phase: TaskPhase::Ready, ..Default::default() };
    driver = driver.restored_from(&status);
    let attempt = crate::engine::Attempt::new(driver.id("each"), 1);
    driver.step([Event::Launched { attempt, job: "g-each".into() }, Event::Items { attempt, items: counted(0, 0) }]);
    assert_eq!(driver.status().tasks[1].items, Some(counted(0, 0)));
}

#[test]
fn outputs_are_checked_as_lists() {
    let outputs = json!([{"name": "n", "type": "integer", "default": 0}, {"name": "text", "type": "string"}]);
    for (left, expected) in [
        (json!({"n": [1, null, 3]}), Ok(json!({"n": [1, 0, 3], "text": [null, null, null]}))),
        (json!({}), Ok(json!({"n": [0, 0, 0], "text": [null, null, null]}))),
        (json!({"n": [1, "x", 3]}), Err("OutputInvalid")),
    ] {
        let mut driver = Driver::of(spec(json!({"items": [1, 2, 3]}), json!({"outputs": outputs})));
        driver.ok("list");
        driver.ok_with("each", left);
        match expected {
            Ok(outputs) => assert_eq!(Value::Object(driver.status().tasks[1].outputs.clone()), outputs),
            Err(reason) => assert_eq!(driver.reason("each"), reason),
        }
    }
}

#[test]
fn the_largest_graph_of_such_tasks_keeps_its_status_small() {
    let name = |place: usize| format!("{place:0>63}");
    let mut build = Build::new();
    for place in 0..2000 {
        build.task(&name(place)).for_each(3);
    }
    let mut driver = Driver::new(build);
    let counts = ItemsStatus {
        total: 1000,
        succeeded: 400,
        failed: 499,
        active: 101,
        failed_indexes: Some("1,".repeat(128)),
        ..ItemsStatus::default()
    };
    let events: Vec<_> = (0..2000)
        .flat_map(|place| {
            let attempt = driver.attempt(&name(place));
            [Event::Launched { attempt, job: name(place) }, Event::Items { attempt, items: counts.clone() }]
        })
        .collect();
    driver.step(events);
    let size = |driver: &Driver| serde_json::to_string(&driver.status()).unwrap().len();
    assert!(size(&driver) < 768 * 1024, "all run: {}", size(&driver));
    assert_eq!(driver.status().tasks[0].items, Some(ItemsStatus { failed_indexes: None, ..counts }));
    let failure = AttemptResult::Failed(Failure {
        reason: "ItemsFailed".into(),
        message: Some("\u{1}".repeat(256)),
        exit_code: Some(1),
        blame: Blame::Task,
    });
    let events: Vec<_> = (0..2000).map(|place| driver.finished(&name(place), failure.clone())).collect();
    driver.step(events);
    assert!(size(&driver) < 768 * 1024, "all failed: {}", size(&driver));
}

#[test]
fn many_items_are_one_attempt() {
    let all: Vec<u32> = (0..1000).collect();
    let plan = planned(json!({"parallelism": 1, "tasks": [
        {"name": "each", "container": {"image": "localhost/busybox:1"}, "forEach": {"items": all}, "outputs": [{"name": "n"}]},
        {"name": "sum", "dependsOn": ["each"], "container": {"image": "i", "env": [{"name": "N", "value": "${{ tasks.each.outputs.n[999] }}"}]}},
    ]}));
    let mut run = Run::new(Arc::clone(&plan.graph), plan.settings, identity(), at(0));
    let mut seen = Vec::new();
    let mut world = |launch: &Launch, _: Timestamp| {
        seen.push((launch.items.as_ref().map(|items| items.len()), launch.rendered.to_string()));
        let outputs = json!({"n": launch.items.as_deref().unwrap_or_default()});
        let Value::Object(outputs) = outputs else { unreachable!() };
        Fate { result: AttemptResult::Succeeded { outputs, message: None }, ..Fate::success(Duration::from_secs(9)) }
    };
    let trace = simulate(&mut run, &mut world, at(0));
    assert!(trace.finished && trace.steps < 12, "{} steps", trace.steps);
    assert_eq!(trace.phases, [TaskPhase::Succeeded; 2]);
    assert_eq!(seen[0].0, Some(1000));
    assert!(seen[1].1.contains("999"));
}
