//! Tasks told to start afresh: a test for each sentence of the rule.

use serde_json::{Value, json};

use super::fixture::*;
use crate::{
    api::{DesiredState, GraphPhase, TaskPhase},
    engine::{Blame, Event},
};

fn build() -> Build {
    let mut build = Build::new();
    build.task("a").retries(1);
    build.task("b").after(&["a"]);
    build.task("c");
    build.finally("end");
    build
}

fn named(id: &str, tasks: &[&str]) -> Value {
    json!({"id": id, "scope": "Tasks", "tasks": tasks})
}

/// All is done, `a` having failed.
fn failed_graph() -> Driver {
    let mut driver = Driver::new(build());
    driver.ok("c");
    driver.fail_by("a", Blame::Final);
    driver.ok("end");
    assert_eq!(driver.status().phase, Some(GraphPhase::Failed));
    driver
}

#[test]
fn named_tasks_and_all_that_depend_on_them_start_afresh() {
    let mut driver = Driver::new(build());
    driver.ok_with("a", json!({"rows": 1}));
    driver.ok("b");
    assert_eq!(driver.rerun(named("1", &["a"])), 3, "and `finally`, which comes after every task");
    assert_eq!(driver.actions(), ["launch a/2"]);
    assert_eq!(driver.line(), "a=Running b=Pending c=Running end=Pending");
    assert!(driver.status().tasks[0].outputs.is_empty());
    driver.ok("a");
    assert_eq!(driver.actions(), ["launch b/2"]);
    assert_eq!(driver.status().rerun.as_deref(), Some("1"));
}

#[test]
fn failed_takes_in_what_failed_was_omitted_or_cancelled() {
    let mut driver = failed_graph();
    assert_eq!(driver.line(), "a=Failed/Error b=Omitted/DependencyFailed c=Succeeded end=Succeeded");
    driver.wait(9);
    assert_eq!(driver.rerun(json!({"id": "1", "scope": "Failed"})), 3);
    assert_eq!(driver.actions(), ["await a/1"], "of a failed attempt a pod may be left");
    let told = driver.status();
    assert_eq!((told.phase, told.completion_time), (Some(GraphPhase::Running), None));
    driver.gone("a");
    assert_eq!(driver.actions(), ["launch a/2"]);
    driver.ok("a");
    driver.ok("b");
    assert_eq!(driver.actions(), ["launch end/2"]);
    driver.ok("end");
    let told = driver.status();
    assert_eq!((told.phase, told.completion_time), (Some(GraphPhase::Complete), Some(at(9))));
    let rerun = told.history.iter().find(|entry| entry.event == "Rerun").and_then(|entry| entry.message.clone());
    assert_eq!(rerun.as_deref(), Some("1: what failed, and what depends on it: 3 tasks"));
}

#[test]
fn all_takes_in_everything_and_what_runs_is_cancelled_first() {
    let mut driver = Driver::new(build());
    driver.ok("c");
    assert_eq!(driver.rerun(json!({"id": "1", "scope": "All"})), 4);
    assert_eq!(driver.actions(), ["launch c/2", "stop a/1"]);
    assert!(driver.last.store_first, "the id is stored before anything follows from it");
    // how it ends counts for nothing
    driver.ok("a");
    let mut restarted = driver.restarted();
    restarted.step([restarted.launched("a"), restarted.launched("c")]);
    assert_eq!(restarted.actions(), ["stop a/1"]);
    for mut driver in [driver, restarted] {
        assert_eq!(driver.phase("a"), TaskPhase::Running);
        driver.gone("a");
        assert_eq!(driver.actions(), ["launch a/2"]);
    }
}

#[test]
fn retries_and_disruptions_count_from_there() {
    let mut driver = Driver::new(build());
    for number in 1..=4 {
        driver.fail("a");
        driver.gone("a");
        if number % 2 == 1 {
            assert_eq!(driver.phase("a"), TaskPhase::Retrying, "one retry");
            driver.wait(12);
        } else {
            assert_eq!(driver.phase("a"), TaskPhase::Failed);
            driver.rerun(named(&number.to_string(), &["a"]));
            driver.gone("a");
        }
        assert_eq!(driver.actions(), [format!("launch a/{}", number + 1)]);
    }
    assert_eq!(driver.status().tasks[0].failed_attempts.len(), 4, "what failed before is still told");
    for _ in 0..20 {
        driver.fail_by("a", Blame::Cluster);
        driver.gone("a");
        driver.wait(400);
    }
    assert_eq!(driver.status().tasks[0].disruptions, 20);
    driver.rerun(named("more", &["a"]));
    assert_eq!(driver.status().tasks[0].disruptions, 20, "while the last attempt is being stopped");
    driver.gone("a");
    assert_eq!(driver.status().tasks[0].disruptions, 0);
}

#[test]
fn a_rerun_undoes_a_deadline_and_counts_anew() {
    let mut driver = Driver::new(build());
    driver.set(|settings| settings.timeout = Some(crate::api::Duration::from_secs(60)));
    driver.wait(60);
    assert_eq!(driver.actions(), ["stop a/1", "stop c/1"]);
    driver.gone("a");
    driver.gone("c");
    driver.ok("end");
    assert_eq!(driver.status().phase, Some(GraphPhase::Failed));
    driver.wait(1000);
    driver.rerun(json!({"id": "again", "scope": "Failed"}));
    assert_eq!(driver.actions(), ["launch a/2", "launch c/2"]);
    driver.wait(59);
    assert!(driver.actions().is_empty());
    driver.wait(1);
    assert_eq!(driver.actions(), ["stop a/2", "stop c/2"]);
}

#[test]
fn a_cancelled_graph_stays_so() {
    let mut driver = Driver::new(build());
    driver.set(|settings| settings.desired_state = DesiredState::Cancel);
    assert!(driver.run.is_cancelled());
    driver.rerun(json!({"id": "1", "scope": "All"}));
    driver.gone("a");
    driver.gone("c");
    assert_eq!(driver.line(), "a=Cancelled/Cancelled b=Omitted/Cancelled c=Cancelled/Cancelled end=Running");
}

#[test]
fn suspended_it_starts_nothing() {
    let mut driver = failed_graph();
    driver.set(|settings| settings.desired_state = DesiredState::Suspend);
    driver.rerun(json!({"id": "1", "scope": "Failed"}));
    driver.gone("a");
    assert_eq!((driver.phase("a"), driver.actions().len()), (TaskPhase::Ready, 0));
    driver.set(|settings| settings.desired_state = DesiredState::Run);
    assert_eq!(driver.actions(), ["launch a/2"]);
}

#[test]
fn a_task_being_stopped_to_start_afresh_may_be_called_off() {
    let mut driver = Driver::new(build());
    driver.rerun(named("1", &["a"]));
    driver.set(|settings| settings.desired_state = DesiredState::Cancel);
    driver.gone("a");
    assert_eq!((driver.phase("a"), driver.reason("a")), (TaskPhase::Cancelled, "Cancelled"));
}

#[test]
fn an_attempt_that_nobody_knew_of_is_stopped_too() {
    let mut driver = Driver::new(build());
    driver.rerun(named("1", &["a"]));
    let attempt = crate::engine::Attempt { number: 2, ..driver.attempt("a") };
    driver.step([Event::Launched { attempt, job: "g-a-2".into() }]);
    assert_eq!(driver.actions(), ["stop a/1", "stop a/2"]);
    driver.gone("a");
    assert_eq!(driver.actions(), ["launch a/3"]);
}

#[test]
fn what_is_there_at_the_beginning_is_only_noted() {
    let mut driver = Driver::new(build());
    driver.run.note_rerun("0");
    assert_eq!(driver.restarted().run.last_rerun(), Some("0"));
    assert_eq!(driver.run.last_rerun(), Some("0"));
    driver.ok("a");
    assert_eq!(driver.status().rerun.as_deref(), Some("0"));
}

fn saga() -> Value {
    let undo = json!({"container": {"image": "localhost/busybox:1"}});
    json!({"tasks": [
        {"name": "pay", "container": {"image": "i"}, "compensate": undo},
        {"name": "ship", "dependsOn": ["pay"], "container": {"image": "i"}},
    ]})
}

#[test]
fn what_was_undone_is_done_once_more_and_may_be_undone_once_more() {
    let mut driver = Driver::of(saga());
    driver.ok("pay");
    driver.fail_by("ship", Blame::Final);
    let undo = driver.graph.compensations().next().expect("one");
    for round in 1..=2 {
        let attempt = crate::engine::Attempt::new(undo, round);
        assert_eq!(driver.run.task(undo).attempts, round);
        let done = crate::engine::AttemptResult::Succeeded { outputs: serde_json::Map::new(), message: None };
        driver.step([Event::Finished { attempt, result: done, time: driver.now }]);
        let told = driver.status();
        assert_eq!(told.phase, Some(GraphPhase::Failed));
        assert_eq!(
            told.tasks[0].compensation.as_ref().map(|undo| (undo.phase, undo.attempts)),
            Some((TaskPhase::Succeeded, round))
        );
        if round == 1 {
            assert_eq!(driver.rerun(json!({"id": "1", "scope": "Failed"})), 2, "`pay` was undone");
            assert_eq!(driver.actions(), ["launch pay/2", "await ship/1"]);
            driver.gone("ship");
            // a restart knows which attempts of the compensation there were
            let mut restarted = driver.restarted();
            restarted.step([restarted.launched("pay")]);
            restarted.ok("pay");
            restarted.fail_by("ship", Blame::Final);
            assert_eq!(restarted.run.task(undo).attempts, 2);
            driver = restarted;
        }
    }
}

#[test]
fn what_was_undone_and_removed_is_undone_once_more_when_it_is_back() {
    let policy = |mut spec: Value| {
        spec["failurePolicy"] = json!("FinishBranches");
        spec
    };
    let mut driver = Driver::of(policy(saga()));
    driver.ok("pay");
    driver.fail_by("ship", Blame::Final);
    driver.ok("undo:pay");
    assert!(driver.run.is_finished());
    let without = policy(json!({"tasks": [{"name": "ship", "container": {"image": "i"}}]}));
    driver.edit(without.clone());
    driver.edit(policy(saga()));
    // what is left of it is looked for first
    assert_eq!((driver.phase("pay"), driver.phase("undo:pay")), (TaskPhase::Retrying, TaskPhase::Pending));
    driver.gone("pay");
    // nor is what was never begun once more taken for something that is under way
    driver.fail_by("pay", Blame::Final);
    assert!(driver.run.is_finished());
    driver.edit(without);
    driver.edit(policy(saga()));
    assert_eq!((driver.phase("pay"), driver.phase("undo:pay")), (TaskPhase::Retrying, TaskPhase::Pending));
    driver.gone("pay");
    driver.ok("pay");
    assert_eq!(driver.actions(), ["launch undo:pay/2"]);
}
