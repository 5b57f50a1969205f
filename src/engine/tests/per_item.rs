//! Tasks with a Job or child graph for each item.

#![allow(clippy::needless_pass_by_value, reason = "json! gives values")]

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::fixture::*;
use crate::{
    api::{DesiredState, Duration, TaskGraphStatus, TaskPhase},
    engine::{
        Action, Attempt, AttemptResult, Blame, Event, Failure, Launch, Run,
        sim::{Fate, simulate},
    },
};

/// `each` runs for five items, `after` follows.
fn driver(for_each: Value, more: Value) -> Driver {
    Driver::of(spec(for_each, more))
}

fn spec(for_each: Value, more: Value) -> Value {
    let mut rule = json!({"items": ["a", "b", "c", "d", "e"], "strategy": "PerItem"});
    rule.as_object_mut().unwrap().extend(for_each.as_object().unwrap().clone());
    let env = json!([{"name": "X", "value": "${{ index }}: ${{ item }}"}]);
    let mut each = json!({"name": "each", "container": {"image": "i", "env": env}, "forEach": rule});
    each.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"tasks": [each, {"name": "after", "dependsOn": ["each"], "container": {"image": "i"}}]})
}

fn item(driver: &Driver, index: u32) -> Attempt {
    driver.attempt("each").of_item(index)
}

fn launched(driver: &Driver, index: u32) -> Event {
    Event::Launched { attempt: item(driver, index), job: format!("g-each-{index}") }
}

fn ended(driver: &Driver, index: u32, result: AttemptResult) -> Event {
    Event::Finished { attempt: item(driver, index), result, time: driver.now }
}

fn well(driver: &Driver, index: u32) -> Event {
    let outputs = Map::from_iter([("n".to_owned(), json!(index))]);
    ended(driver, index, AttemptResult::Succeeded { outputs, message: None })
}

fn badly(driver: &Driver, index: u32) -> Event {
    ended(driver, index, failed(Blame::Task))
}

fn lost(driver: &Driver, index: u32) -> Event {
    let failure = Failure { reason: "JobLost".into(), message: None, exit_code: None, blame: Blame::Cluster };
    ended(driver, index, AttemptResult::Failed(failure))
}

/// The items that the last step launches.
fn items(driver: &Driver) -> Vec<u32> {
    let launch = |action: &Action| match action {
        Action::Launch(launch) => launch.attempt.item,
        _ => None,
    };
    driver.last.actions.iter().filter_map(launch).collect()
}

fn counted(driver: &Driver) -> Value {
    serde_json::to_value(&driver.status().tasks[0].items).unwrap()
}

#[test]
fn each_item_is_launched_with_its_own_values() {
    let driver = driver(json!({}), json!({}));
    assert_eq!(driver.actions(), ["launch each/1"; 5]);
    let values: Vec<_> = driver
        .last
        .actions
        .iter()
        .map(|action| match action {
            Action::Launch(Launch { attempt, rendered, items: None }) => {
                (attempt.item, rendered["env"][0]["value"].clone())
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(values[3], (Some(3), json!("3: d")));
    assert_eq!(counted(&driver), json!({"total": 5}));
}

#[test]
fn outputs_are_lists_and_the_parallelism_holds() {
    let mut driver =
        driver(json!({"parallelism": 2, "maxFailures": 1}), json!({"outputs": [{"name": "n", "type": "integer"}]}));
    assert_eq!(items(&driver), [0, 1]);
    driver.step([launched(&driver, 0), launched(&driver, 1), well(&driver, 1)]);
    assert_eq!(items(&driver), [2]);
    assert_eq!(counted(&driver), json!({"total": 5, "succeeded": 1, "active": 1, "launched": "0-1"}));
    driver.step([badly(&driver, 0), well(&driver, 2)]);
    assert_eq!(items(&driver), [3, 4]);
    driver.step([well(&driver, 4), well(&driver, 3)]);
    assert_eq!((driver.phase("each"), driver.phase("after")), (TaskPhase::Succeeded, TaskPhase::Running));
    assert_eq!(Value::Object(driver.status().tasks[0].outputs.clone()), json!({"n": [null, 1, 2, 3, 4]}));
    assert_eq!(counted(&driver), json!({"total": 5, "succeeded": 4, "failed": 1, "failedIndexes": "0"}));
}

#[test]
fn all_are_tried_before_the_attempt_fails() {
    let mut driver =
        driver(json!({}), json!({"retry": {"limit": 1, "when": "reason == 'ItemsFailed' && exitCode == 1"}}));
    driver.step([badly(&driver, 1), badly(&driver, 2), well(&driver, 0), well(&driver, 3)]);
    assert_eq!(driver.phase("each"), TaskPhase::Running);
    driver.step([well(&driver, 4)]);
    assert_eq!((driver.phase("each"), driver.actions()), (TaskPhase::Retrying, vec!["await each/1".to_owned()]));
    let told = driver.status().tasks[0].clone();
    assert_eq!(told.message.as_deref(), Some("2 of 5 items failed: 1-2; item 1: Error, exit code 1: exit code 1"));
    driver.gone("each");
    driver.wait(5);
    assert_eq!((items(&driver), driver.attempt("each").number), (vec![0, 1, 2, 3, 4], 2), "all once more");
    // what is told of the first attempt changes nothing
    let late = Event::Finished {
        attempt: Attempt::new(driver.id("each"), 1).of_item(0),
        result: failed(Blame::Task),
        time: driver.now,
    };
    assert!(!driver.step([late]).changed);
}

#[test]
fn more_failures_than_may_be_stop_the_others() {
    let mut driver =
        driver(json!({"parallelism": 3, "maxFailures": 0}), json!({"retry": {"limit": 3, "when": "exitCode == 1"}}));
    driver.step([launched(&driver, 0), launched(&driver, 1), badly(&driver, 1)]);
    assert_eq!((driver.phase("each"), driver.actions()), (TaskPhase::Running, vec!["stop each/1".to_owned()]));
    assert!(driver.last.store_first, "after a restart nothing else tells of it");
    assert_eq!(driver.reason("each"), "ItemsFailed");
    // what they come to meanwhile is the stop's doing
    driver.step([badly(&driver, 0), well(&driver, 2), lost(&driver, 0)]);
    assert_eq!(driver.phase("each"), TaskPhase::Running);
    let mut restarted = driver.restarted();
    restarted.step([]);
    assert_eq!(restarted.actions(), ["stop each/1"]);
    for mut driver in [driver, restarted] {
        driver.gone("each");
        assert_eq!(driver.phase("each"), TaskPhase::Retrying);
        let attempt = driver.status().tasks[0].failed_attempts[0].clone();
        assert_eq!((attempt.reason.as_str(), attempt.exit_code), ("ItemsFailed", Some(1)));
        assert_eq!(attempt.message.as_deref(), Some("1 of 5 items failed: 1; item 1: Error, exit code 1: exit code 1"));
        driver.wait(5);
        assert_eq!(items(&driver), [0, 1, 2]);
    }
}

#[test]
fn a_lost_item_costs_the_attempt_and_no_retry() {
    let mut driver = driver(json!({"maxFailures": 5}), json!({}));
    driver.step([launched(&driver, 0), launched(&driver, 1), lost(&driver, 1)]);
    assert_eq!((driver.reason("each"), driver.actions()), ("JobLost", vec!["stop each/1".to_owned()]));
    driver = driver.restarted();
    driver.step([]);
    driver.gone("each");
    let told = driver.status().tasks[0].clone();
    assert_eq!((told.phase, told.disruptions), (TaskPhase::Retrying, 1));
    driver.wait(5);
    assert_eq!((items(&driver).len(), driver.attempt("each").number), (5, 2));
}

#[test]
fn after_a_restart_none_is_launched_twice() {
    let mut driver = driver(json!({"parallelism": 3}), json!({}));
    driver.step([launched(&driver, 0), launched(&driver, 2), well(&driver, 2)]);
    assert_eq!(items(&driver), [3]);
    let mut restarted = driver.restarted();
    assert_eq!(restarted.run.live_items().map(|item| item.item).collect::<Vec<_>>(), [Some(0), Some(2)]);
    restarted.step([launched(&driver, 0), launched(&driver, 2), well(&driver, 2)]);
    assert_eq!(items(&restarted), [1, 3], "what is not known to exist is asked for again");
    let rest = [0, 1, 3, 4].map(|index| well(&restarted, index));
    restarted.step(rest);
    assert_eq!(Value::Object(restarted.status().tasks[0].outputs.clone()), json!({"n": [0, 1, 2, 3, 4]}));
    // an attempt of which the status does not know
    let mut status = driver.status();
    status.tasks[0] = crate::api::TaskStatus { name: "each".into(), ..Default::default() };
    let mut unknowing = driver.restored_from(&status);
    unknowing.step([launched(&driver, 0), launched(&driver, 2), well(&driver, 2)]);
    assert_eq!((items(&unknowing), unknowing.attempt("each").number), (vec![1, 3], 1));
}

/// `list` leaves the items of `each`; nothing is stored of their attempts.
fn unknowing() -> Driver {
    let spec = json!({"tasks": [
        {"name": "list", "container": {"image": "i"}},
        {"name": "each", "dependsOn": ["list"], "container": {"image": "i"},
            "forEach": {"items": "${{ tasks.list.outputs.files }}", "strategy": "PerItem", "parallelism": 2}},
    ]});
    let driver = Driver::of(spec);
    let mut status = driver.status();
    status
        .tasks
        .iter_mut()
        .for_each(|task| *task = crate::api::TaskStatus { name: task.name.clone(), ..Default::default() });
    driver.restored_from(&status)
}

#[test]
fn items_may_be_seen_before_what_their_list_follows_from() {
    let list_ended = |driver: &Driver, list: Value| {
        let outputs = Map::from_iter([("files".to_owned(), list)]);
        let result = AttemptResult::Succeeded { outputs, message: None };
        let attempt = Attempt::new(driver.id("list"), 1);
        [Event::Launched { attempt, job: "l".into() }, Event::Finished { attempt, result, time: driver.now }]
    };
    let item = |driver: &Driver, index: u32| Attempt::new(driver.id("each"), 1).of_item(index);
    let seen = |driver: &Driver, index: u32| Event::Launched { attempt: item(driver, index), job: "j".into() };
    let done = |driver: &Driver, index: u32| {
        let result = AttemptResult::Succeeded { outputs: Map::new(), message: None };
        Event::Finished { attempt: item(driver, index), result, time: driver.now }
    };
    for at_once in [true, false] {
        let mut driver = unknowing();
        let (items_seen, list) =
            ([seen(&driver, 0), seen(&driver, 1), done(&driver, 1)], list_ended(&driver, json!(["a", "b", "c"])));
        if at_once {
            driver.step(items_seen.into_iter().chain(list));
        } else {
            driver.step(items_seen);
            assert_eq!((driver.phase("each"), items(&driver)), (TaskPhase::Running, vec![]));
            assert!(driver.run.is_live(item(&driver, 2)), "what is told of it still counts");
            // and once more by a restart
            driver = driver.restarted();
            driver.step([seen(&driver, 0), seen(&driver, 1), done(&driver, 1)]);
            driver.step(list);
        }
        assert_eq!(items(&driver), [2], "at once: {at_once}");
        driver.step([done(&driver, 0), seen(&driver, 2), done(&driver, 2)]);
        assert_eq!(driver.phase("each"), TaskPhase::Succeeded);
    }
    // a list that is none: what runs is stopped before the task has Failed
    let mut driver = unknowing();
    driver.step([seen(&driver, 0)].into_iter().chain(list_ended(&driver, json!("none"))));
    assert_eq!((driver.phase("each"), driver.actions()), (TaskPhase::Running, vec!["stop each/1".to_owned()]));
    driver = driver.restarted();
    driver.step([seen(&driver, 0)]);
    driver.gone("each");
    assert_eq!((driver.phase("each"), driver.reason("each")), (TaskPhase::Failed, "ExpressionError"));
}

/// The success that a list follows from was lost in a crash, and its Job was deleted since: the task that is to leave the list
/// once more needs a slot, and gives the list back only then.
#[test]
fn an_attempt_that_waits_for_its_list_keeps_no_slot() {
    let mut driver = unknowing();
    driver.set(|settings| settings.parallelism = Some(1));
    let each = |index: u32| Attempt::new(driver.id("each"), 1).of_item(index);
    let (first, second) = (each(0), each(1));
    let seen = |attempt: Attempt| Event::Launched { attempt, job: "j".into() };
    assert_eq!(driver.attempt("list").number, 1, "its first step launches it once more");
    driver.step([driver.launched("list"), seen(first)]);
    let failure = Failure { reason: "JobLost".into(), message: None, exit_code: None, blame: Blame::Cluster };
    driver.step([driver.finished("list", AttemptResult::Failed(failure))]);
    driver.gone("list");
    driver.wait(20);
    assert_eq!(driver.line(), "list=Running each=Running");
    assert_eq!(driver.actions(), ["launch list/2"]);
    // what is called off needs no list any more: it has its slot until it is gone
    let mut cancelled = driver.restarted();
    cancelled.step([driver.launched("list"), seen(first)]);
    cancelled.set(|settings| settings.desired_state = DesiredState::Cancel);
    assert_eq!(cancelled.actions(), ["stop list/2", "stop each/1"]);
    for name in ["list", "each"] {
        cancelled.gone(name);
    }
    assert!(cancelled.run.is_finished());
    // with its list it goes on
    driver.ok_with("list", json!({"files": ["a", "b", "c"]}));
    assert_eq!((driver.line().as_str(), items(&driver)), ("list=Succeeded each=Running", vec![1]));
    let done = |attempt: Attempt, now: Timestamp| {
        let result = AttemptResult::Succeeded { outputs: Map::new(), message: None };
        Event::Finished { attempt, result, time: now }
    };
    driver.step([done(first, driver.now), seen(second), done(second, driver.now)]);
    assert_eq!(items(&driver), [2]);
}

#[test]
fn while_suspended_no_further_item_is_launched() {
    let mut driver = driver(json!({"parallelism": 1}), json!({}));
    driver.set(|settings| settings.desired_state = DesiredState::Suspend);
    driver.step([well(&driver, 0)]);
    assert!(items(&driver).is_empty());
    let mut restarted = driver.restarted();
    restarted.step([launched(&driver, 0), well(&driver, 0)]);
    assert!(items(&restarted).is_empty());
    for mut driver in [driver, restarted] {
        driver.set(|settings| settings.desired_state = DesiredState::Run);
        assert_eq!(items(&driver), [1]);
    }
}

/// Else they would be too late to start before anybody resumes the graph.
#[test]
fn the_first_items_are_asked_for_again_though_the_graph_was_suspended() {
    let mut driver = driver(json!({"parallelism": 2}), json!({}));
    assert_eq!(items(&driver), [0, 1]);
    driver.set(|settings| settings.desired_state = DesiredState::Suspend);
    let mut restarted = driver.restarted();
    restarted.step([]);
    assert_eq!(items(&restarted), [0, 1]);
    let mut one_exists = driver.restarted();
    one_exists.step([launched(&driver, 0)]);
    assert_eq!(items(&one_exists), [] as [u32; 0]);
}

/// A stop takes Jobs away: after a restart nobody could tell which items had failed before, or come to a good end since.
#[test]
fn an_attempt_that_is_cancelled_is_so_whatever_becomes_of_its_items() {
    let all_well: fn(&Driver, u32) -> Event = well;
    for (first, rest) in [(all_well, 1..4), (all_well, 1..5), (badly, 1..5)] {
        let mut driver = driver(json!({"maxFailures": 2}), json!({}));
        driver.step((0..5).map(|index| launched(&driver, index)).collect::<Vec<_>>());
        driver.step([first(&driver, 0)]);
        driver.set(|settings| settings.desired_state = DesiredState::Cancel);
        assert_eq!(driver.actions(), ["stop each/1"]);
        let mut restarted = driver.restarted();
        restarted.step([first(&driver, 0)]);
        for mut driver in [driver, restarted] {
            driver.step(rest.clone().map(|index| well(&driver, index)).collect::<Vec<_>>());
            assert_eq!(driver.phase("each"), TaskPhase::Running);
            driver.gone("each");
            assert_eq!(driver.phase("each"), TaskPhase::Cancelled);
            assert!(driver.run.is_finished() && counted(&driver)["launched"].is_null());
        }
    }
    // what had ended before counts, though it is seen at the same time
    let mut driver = driver(json!({}), json!({}));
    driver.step((0..5).map(|index| launched(&driver, index)).collect::<Vec<_>>());
    let mut settings = driver.run.settings().clone();
    settings.desired_state = DesiredState::Cancel;
    driver.run.set_settings(settings);
    driver.step((0..5).map(|index| well(&driver, index)).collect::<Vec<_>>());
    assert_eq!(driver.phase("each"), TaskPhase::Succeeded);
}

/// After a restart all may be told in one step, before the list is known.
#[test]
fn limits_hold_for_what_is_told_at_once() {
    let before = driver(json!({}), json!({"startTimeout": "1m", "timeout": "2m"}));
    for (now, wake_at, actions) in [(30, Some(at(70)), vec![]), (80, None, vec!["stop each/1".to_owned()])] {
        // of its beginning nothing was stored
        let mut driver = before.restored_from(&TaskGraphStatus::default());
        driver.now = at(now);
        driver.step([launched(&before, 3), Event::Created { attempt: item(&before, 3), time: at(10) }]);
        let stops: Vec<_> = driver.actions().into_iter().filter(|action| action.starts_with("stop")).collect();
        assert_eq!((driver.last.wake_at, stops), (wake_at, actions), "at {now}");
    }
    // what has come to its end is judged by that, however late it is seen
    let mut driver = self::driver(json!({}), json!({"timeout": "2m"}));
    driver.step((0..5).map(|index| launched(&driver, index)).collect::<Vec<_>>());
    driver.now = at(500);
    driver.step((0..5).map(|index| well(&driver, index)).collect::<Vec<_>>());
    assert_eq!(driver.phase("each"), TaskPhase::Succeeded);
}

#[test]
fn an_item_that_does_not_start_fails_the_attempt() {
    let mut driver = driver(json!({"maxFailures": 5}), json!({"startTimeout": "1m"}));
    let blocked = Event::Blocked {
        attempt: item(&driver, 3),
        reason: "ErrImagePull".into(),
        message: "no d".into(),
        cluster: false,
    };
    driver.step([
        launched(&driver, 3),
        Event::Created { attempt: item(&driver, 3), time: at(10) },
        blocked,
        well(&driver, 0),
    ]);
    driver.step([Event::Started { attempt: item(&driver, 1) }]);
    assert_eq!(driver.wait(65).wake_at, Some(at(70)));
    driver.wait(5);
    assert_eq!((driver.reason("each"), driver.actions()), ("StartTimeout", vec!["stop each/1".to_owned()]));
    let told = driver.status().tasks[0].message.clone();
    assert_eq!(told.as_deref(), Some("the pod of item 3 did not start within 1m: ErrImagePull: no d"));
    // none at all
    let mut driver = self::driver(json!({}), json!({"startTimeout": "1m"}));
    driver.wait(60);
    assert_eq!(driver.reason("each"), "StartTimeoutByCluster");
}

#[test]
fn expressions_are_evaluated_before_any_item_runs() {
    let env = json!([{"name": "X", "value": "${{ item.name }}"}]);
    let driver =
        driver(json!({"items": [{"name": "a"}, {"nam": "b"}]}), json!({"container": {"image": "i", "env": env}}));
    assert_eq!(
        (driver.line().as_str(), driver.attempt("each").number),
        ("each=Failed/ExpressionError after=Omitted/DependencyFailed", 0)
    );
    let message = driver.status().tasks[0].message.clone().unwrap_or_default();
    assert!(message.contains("item 1: `item.name`: the item has no member \"name\""), "{message}");
    assert_eq!(self::driver(json!({"items": []}), json!({})).reason("each"), "NoItems");
}

#[test]
fn an_edit_of_a_running_task_begins_it_again() {
    for (for_each, more, again) in [
        (json!({"items": ["x"]}), json!({}), true),
        (json!({"maxFailures": 2}), json!({}), true),
        (json!({"strategy": "Indexed"}), json!({"container": {"image": "i"}}), true),
        (json!({}), json!({"retry": {"limit": 3}}), false),
    ] {
        let mut driver = driver(json!({}), json!({}));
        driver.step([launched(&driver, 0), launched(&driver, 1)]);
        driver.edit(spec(for_each.clone(), more));
        if again {
            assert_eq!(driver.actions(), ["stop each/1"], "{for_each}");
            driver.gone("each");
            assert_eq!(driver.attempt("each").number, 2, "{for_each}");
        } else {
            assert_eq!(items(&driver), [2, 3, 4], "{for_each}");
        }
    }
}

#[test]
fn a_job_of_the_other_form_is_stopped_and_its_number_is_spent() {
    let mut driver = driver(json!({}), json!({}));
    let mut status = driver.status();
    status.tasks[0] = crate::api::TaskStatus { name: "each".into(), ..Default::default() };
    driver = driver.restored_from(&status);
    let attempt = Attempt::new(driver.id("each"), 1);
    driver.step([Event::Launched { attempt, job: "g-each-1".into() }]);
    assert_eq!(driver.actions(), ["stop each/1"]);
    driver.gone("each");
    assert_eq!((items(&driver).len(), driver.attempt("each").number), (5, 2));
}

#[test]
fn of_a_graph_template() {
    let template = json!({"parameters": [{"name": "x"}], "graph": {
        "tasks": [{"name": "t", "container": {"image": "i"}}], "outputs": [{"name": "n", "value": "args.x"}]}});
    let spec = json!({"tasks": [{"name": "each", "templateRef": {"name": "load"}, "arguments": {"x": "${{ item }}"},
        "forEach": {"items": [4, [5]], "parallelism": 1}}]});
    let mut driver = Driver::with_templates(spec, json!({"load": template}));
    let given = |driver: &Driver| match driver.last.actions.as_slice() {
        [Action::Launch(launch)] => (launch.attempt.item, (*launch.rendered).clone()),
        other => panic!("{other:?}"),
    };
    assert_eq!(given(&driver), (Some(0), json!({"x": 4})));
    driver.step([well(&driver, 0), Event::Gone { attempt: item(&driver, 0) }]);
    assert_eq!(given(&driver), (Some(1), json!({"x": [5]})));
    driver.wait(100_000);
    assert!(driver.last.actions.is_empty(), "it waits for no pod");
    driver.step([well(&driver, 1)]);
    assert_eq!(Value::Object(driver.status().tasks[0].outputs.clone()), json!({"n": [0, 1]}));
    assert!(driver.run.is_finished());
}

#[test]
fn ten_tasks_of_a_thousand_items() {
    let all: Vec<u32> = (0..1000).collect();
    let task = |place: usize| {
        let env = json!([{"name": "X", "value": "${{ item }}"}]);
        json!({"name": format!("t{place}"), "container": {"image": "i", "env": env}, "outputs": [{"name": "n"}],
            "forEach": {"items": all, "strategy": "PerItem", "parallelism": 50, "maxFailures": 10}})
    };
    let plan = planned(json!({"tasks": (0..10).map(task).collect::<Vec<_>>()}));
    let mut run = Run::new(Arc::clone(&plan.graph), plan.settings, identity(), at(0));
    let mut world = |launch: &Launch, _: Timestamp| {
        let place = launch.attempt.item.unwrap();
        assert_eq!(launch.rendered["env"][0]["value"], json!(place.to_string()));
        let outputs = Map::from_iter([("n".to_owned(), json!(place))]);
        let result =
            if place % 100 == 7 { failed(Blame::Task) } else { AttemptResult::Succeeded { outputs, message: None } };
        Fate { result, ..Fate::success(Duration::from_millis(1000 + u64::from(place % 17))) }
    };
    let trace = simulate(&mut run, &mut world, at(0));
    assert!(trace.finished);
    assert_eq!(trace.phases, [TaskPhase::Succeeded; 10]);
    let told = run.task(crate::engine::TaskId(3));
    assert_eq!(told.outputs["n"][999], json!(999));
    assert_eq!(told.items.as_ref().map(|items| items.failed), Some(10));
    assert!(trace.steps < 10_000, "what ends at one time is taken in at once: {} steps", trace.steps);
}

#[test]
fn items_start_afresh_once_what_their_list_follows_from_is_decided_again() {
    let each = json!({"name": "each", "dependsOn": ["list"], "container": {"image": "i"},
        "forEach": {"items": "${{ tasks.list.outputs.files }}", "strategy": "PerItem", "parallelism": 1}});
    let graph = |list: Value| json!({"tasks": [list, each.clone()]});
    let mut driver = Driver::of(graph(json!({"name": "list", "container": {"image": "i"}})));
    driver.ok_with("list", json!({"files": ["a", "b"]}));
    assert_eq!(items(&driver), [0]);
    driver.step([launched(&driver, 0)]);
    // a task of another kind begins anew
    driver.edit(graph(json!({"name": "list", "container": {"image": "i"}, "forEach": {"items": [1, 2]}})));
    driver.step([launched(&driver, 0), well(&driver, 0)]);
    assert_eq!(driver.actions(), ["stop each/1"]);
    driver.gone("each");
    assert_eq!(driver.line(), "list=Running each=Pending");
    driver.ok_with("list", json!({"files": ["c", "d"]}));
    assert_eq!(driver.actions(), ["launch each/2"]);
    driver.step([well(&driver, 0)]);
    driver.step([well(&driver, 1)]);
    assert_eq!(driver.line(), "list=Succeeded each=Succeeded");
}
