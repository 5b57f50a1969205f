//! Edits of a running graph: a test for each sentence of the rule.

use serde_json::{Value, json};

use super::fixture::*;
use crate::{
    api::{DesiredState, GraphPhase, TaskPhase, TaskStatus},
    engine::{Attempt, Blame, Event},
};

fn task(name: &str, after: &[&str]) -> Value {
    json!({"name": name, "dependsOn": after, "container": {"image": "localhost/busybox:1"}})
}

fn with(mut task: Value, more: Value) -> Value {
    let Value::Object(more) = more else { panic!("an object") };
    task.as_object_mut().unwrap().extend(more);
    task
}

/// The same task with another container.
fn other(name: &str, after: &[&str]) -> Value {
    with(task(name, after), json!({"container": {"image": "localhost/busybox:2"}}))
}

fn tasks(tasks: &[Value]) -> Value {
    json!({"failurePolicy": "FinishBranches", "tasks": tasks})
}

fn status(driver: &Driver, name: &str) -> TaskStatus {
    let status = driver.status();
    status.tasks.into_iter().find(|task| task.name == name).unwrap_or_else(|| panic!("{name} is told of"))
}

#[test]
fn a_new_task_joins() {
    let mut driver = Driver::of(tasks(&[task("a", &[])]));
    driver.ok("a");
    assert!(driver.run.is_finished());
    let edited = driver.edit(tasks(&[task("b", &["a"]), task("a", &[]), task("c", &["b"])]));
    assert_eq!(edited.added, ["b", "c"]);
    assert_eq!(driver.actions(), ["launch b/1"]);
    assert_eq!(driver.line(), "b=Running a=Succeeded c=Pending");
    let told = driver.status();
    assert_eq!((told.phase, told.completion_time, told.conditions.len()), (Some(GraphPhase::Running), None, 0));
    driver.wait(5);
    driver.ok("b");
    driver.ok("c");
    assert_eq!(driver.status().completion_time, Some(at(5)), "its time to live counts from there");
    let events: Vec<_> = driver.status().history.into_iter().map(|entry| (entry.event, entry.message)).collect();
    let events: Vec<_> = events.iter().map(|(event, text)| (event.as_str(), text.as_deref())).collect();
    assert_eq!(events[2], ("Edited", Some("added b, c")));
}

#[test]
fn a_removed_task_without_an_attempt_vanishes() {
    let mut driver = Driver::of(tasks(&[task("a", &[]), task("b", &["a"]), task("c", &["b"])]));
    let edited = driver.edit(tasks(&[task("a", &[]), task("c", &["a"])]));
    assert_eq!((edited.removed, edited.stopped.len()), (vec!["b".to_owned()], 0));
    assert_eq!(driver.line(), "a=Running c=Pending");
    driver.ok("a");
    assert_eq!(driver.actions(), ["launch c/1"]);
    driver.ok("c");
    assert_eq!(driver.status().phase, Some(GraphPhase::Complete));
}

#[test]
fn a_removed_task_that_runs_is_cancelled_and_leaves_a_tombstone() {
    let mut driver = Driver::of(tasks(&[task("a", &[]), task("b", &[])]));
    let edited = driver.edit(tasks(&[task("b", &[])]));
    assert_eq!(edited.stopped, ["a"]);
    assert_eq!(driver.actions(), ["stop a/1"]);
    driver.ok("b");
    assert!(!driver.run.is_finished(), "its pods are not gone");
    assert_eq!(driver.status().progress.as_deref(), Some("1/1"));
    let mut restarted = driver.restarted();
    restarted.graph = std::sync::Arc::clone(restarted.run.graph());
    restarted.step([restarted.launched("a")]);
    assert_eq!(restarted.actions(), ["stop a/1"]);
    for mut driver in [driver, restarted] {
        // however it ends: it is not wanted any more
        driver.ok_with("a", json!({"rows": 3}));
        driver.gone("a");
        let told = driver.status();
        assert_eq!((told.phase, told.counts.map(|counts| counts.cancelled)), (Some(GraphPhase::Complete), Some(0)));
        let left = TaskStatus {
            name: "a".into(),
            phase: TaskPhase::Cancelled,
            reason: Some("Removed".into()),
            attempts: 1,
            removed: true,
            ..TaskStatus::default()
        };
        let restored = driver.restarted();
        assert_eq!(status(&restored, "a"), left);
        assert!(restored.run.is_finished());
    }
}

#[test]
fn a_removed_task_between_attempts_leaves_once_its_pods_are_gone() {
    let spec = |more: &[Value]| tasks(&[&[task("b", &[])], more].concat());
    let retried = with(task("a", &[]), json!({"retry": {"limit": 3}}));
    let mut driver = Driver::of(spec(&[retried]));
    driver.fail("a");
    driver.edit(spec(&[]));
    assert_eq!((driver.phase("a"), driver.actions()), (TaskPhase::Retrying, vec!["await a/1".to_owned()]));
    driver.wait(1000);
    driver.ok("b");
    assert!(driver.actions().is_empty() && !driver.run.is_finished());
    driver.gone("a");
    assert!(driver.run.is_finished());
}

#[test]
fn a_task_of_the_name_of_a_removed_one_goes_on_counting() {
    let both = || tasks(&[task("a", &[]), task("b", &[])]);
    let mut driver = Driver::of(both());
    driver.ok("a");
    driver.edit(tasks(&[task("b", &[])]));
    driver.edit(both());
    assert_eq!(driver.actions(), ["await a/1"], "nobody has looked whether a pod of it is left");
    driver.gone("a");
    assert_eq!(driver.actions(), ["launch a/2"]);
    // removed while it runs, and there again before it is gone
    driver.edit(tasks(&[task("b", &[])]));
    assert_eq!(driver.actions(), ["stop a/2"]);
    driver.edit(both());
    assert_eq!(driver.actions(), ["stop a/2"]);
    driver.ok("a");
    assert_eq!(driver.phase("a"), TaskPhase::Running, "what it does is not wanted any more");
    driver.gone("a");
    assert_eq!(driver.actions(), ["launch a/3"]);
    assert_eq!(status(&driver, "a").attempts_before, 2);
    driver.ok("a");
    driver.ok("b");
    assert_eq!(driver.status().phase, Some(GraphPhase::Complete));
}

#[test]
fn an_attempt_that_nobody_knew_of_when_its_task_was_removed_is_stopped_and_counted() {
    let mut driver = Driver::of(tasks(&[task("a", &[]), task("b", &[])]));
    driver.ok("a");
    driver.edit(tasks(&[task("b", &[])]));
    let attempt = Attempt::new(driver.id("a"), 2);
    driver.step([Event::Launched { attempt, job: "g-a-2".into() }]);
    assert_eq!((driver.actions(), driver.last.store_first), (vec!["stop a/2".to_owned()], true));
    assert_eq!(status(&driver, "a").attempts, 2);
    assert!(!driver.run.is_finished());
}

#[test]
fn a_changed_task_without_an_attempt_takes_the_change() {
    let mut driver = Driver::of(tasks(&[task("a", &[]), task("b", &["a"])]));
    let edited = driver.edit(tasks(&[task("a", &[]), other("b", &["a"])]));
    assert_eq!((edited.changed, edited.stale.len()), (vec!["b".to_owned()], 0));
    driver.ok("a");
    let launched = format!("{:?}", driver.last.actions);
    assert!(launched.contains("busybox:2"), "{launched}");
    assert!(!status(&driver, "b").stale);
}

#[test]
fn a_changed_task_with_an_attempt_keeps_what_it_ran_and_is_stale() {
    let before = tasks(&[task("a", &[]), task("b", &["a"])]);
    let mut driver = Driver::of(before.clone());
    driver.ok("a");
    let edited = driver.edit(tasks(&[other("a", &[]), other("b", &["a"])]));
    assert_eq!((edited.changed, edited.stale), (vec!["a".to_owned(), "b".into()], vec!["a".to_owned(), "b".into()]));
    assert!(driver.actions().is_empty());
    assert_eq!(driver.line(), "a=Succeeded b=Running");
    assert!(status(&driver, "a").stale && status(&driver, "b").stale);
    // changed back: what ran is what is wanted
    let mut restarted = driver.restarted();
    restarted.edit(before);
    assert_eq!((status(&restarted, "a").stale, status(&restarted, "a").definition), (false, None));
    // until rerun
    driver.ok("b");
    driver.rerun(json!({"id": "1", "scope": "Tasks", "tasks": ["a"]}));
    let launched = format!("{:?}", driver.last.actions);
    assert!(launched.contains("busybox:2") && driver.actions() == ["launch a/2"], "{launched}");
    assert!(!status(&driver, "a").stale);
}

#[test]
fn a_retry_takes_the_newest_spec() {
    let retried = |task: Value| tasks(&[with(task, json!({"retry": {"limit": 3}}))]);
    let mut driver = Driver::of(retried(task("a", &[])));
    driver.edit(retried(other("a", &[])));
    driver.fail("a");
    driver.gone("a");
    assert!(status(&driver, "a").stale);
    driver.wait(100);
    let launched = format!("{:?}", driver.last.actions);
    assert!(launched.contains("busybox:2") && driver.actions() == ["launch a/2"], "{launched}");
    assert!(!status(&driver, "a").stale);
}

#[test]
fn a_job_of_an_older_definition_makes_its_task_stale() {
    let mut driver = Driver::of(tasks(&[task("a", &[])]));
    let attempt = driver.attempt("a");
    driver.step([Event::Outdated { attempt, definition: 7 }]);
    assert_eq!(status(&driver, "a").definition.as_deref(), Some("0000000000000007"));
    assert!(status(&driver, "a").stale && driver.last.changed);
    assert!(!driver.step([Event::Outdated { attempt, definition: 7 }]).changed);
}

#[test]
fn an_edit_decides_again_for_tasks_without_an_attempt() {
    let graph = |when: &str, allowed: bool| {
        json!({"failurePolicy": "FinishBranches", "arguments": {"go": false}, "tasks": [
            with(task("a", &[]), json!({"allowFailure": allowed})),
            task("b", &["a"]),
            with(task("c", &[]), json!({"when": when})),
            task("d", &["c"]),
        ]})
    };
    let mut driver = Driver::of(graph("args.go", false));
    driver.fail("a");
    assert_eq!(
        driver.line(),
        "a=Failed/Error b=Omitted/DependencyFailed c=Skipped/ConditionFalse d=Skipped/DependencySkipped"
    );
    let edited = driver.edit(graph("!args.go", true));
    assert_eq!(edited.changed, ["a", "c"]);
    assert_eq!(edited.again, ["b", "c", "d"]);
    assert_eq!(driver.line(), "a=Failed/Error b=Running c=Running d=Pending");
}

#[test]
fn a_branch_that_was_taken_stays_unless_the_decision_is_another() {
    let graph = |first: &str, more: &[Value]| {
        let decision =
            json!({"name": "choice", "decision": {"branches": [{"name": "yes", "when": first}, {"name": "no"}]}});
        tasks(&[&[decision, task("p", &["choice/yes"]), task("q", &["choice/no"])], more].concat())
    };
    let mut driver = Driver::of(graph("true", &[]));
    assert_eq!(driver.line(), "choice=Succeeded p=Running q=Skipped/BranchNotTaken");
    driver.edit(graph("true", &[task("more", &[])]));
    assert_eq!(driver.line(), "choice=Succeeded p=Running q=Skipped/BranchNotTaken more=Running");
    let edited = driver.edit(graph("false", &[task("more", &[])]));
    assert_eq!(edited.again, ["choice", "q"]);
    assert_eq!(driver.line(), "choice=Succeeded p=Running q=Running more=Running", "what ran, ran");
}

#[test]
fn a_task_that_becomes_a_decision_begins_anew() {
    let decision = json!({"name": "a", "decision": {"branches": [{"name": "yes"}]}});
    let mut driver = Driver::of(tasks(&[task("a", &[])]));
    driver.edit(tasks(std::slice::from_ref(&decision)));
    assert_eq!((driver.phase("a"), driver.actions()), (TaskPhase::Running, vec!["stop a/1".to_owned()]));
    let mut restarted = driver.restarted();
    restarted.step([]);
    assert_eq!(restarted.actions(), ["stop a/1"]);
    // back before that is gone
    let mut back = restarted.restarted();
    back.edit(tasks(&[task("a", &[])]));
    assert_eq!(back.actions(), ["stop a/1"]);
    back.gone("a");
    assert_eq!(back.actions(), ["launch a/2"]);
    restarted.gone("a");
    assert_eq!((restarted.phase("a"), restarted.run.is_finished()), (TaskPhase::Succeeded, true));
    restarted.edit(tasks(&[task("a", &[])]));
    assert_eq!(restarted.actions(), ["launch a/2"]);
}

#[test]
fn what_is_left_of_a_task_of_another_kind_may_be_called_off_too() {
    let graph = |a: Value| json!({"failurePolicy": "CancelRunning", "tasks": [a, task("b", &[])]});
    for other in [
        json!({"name": "a", "delay": {"duration": "1h"}}),
        json!({"name": "a", "approval": {}}),
        json!({"name": "a", "decision": {"branches": [{"name": "yes"}]}}),
    ] {
        let mut driver = Driver::of(graph(task("a", &[])));
        driver.edit(graph(other));
        assert_eq!(driver.actions(), ["stop a/1"], "to begin anew");
        driver.fail_by("b", Blame::Final);
        assert_eq!((driver.phase("a"), driver.reason("a")), (TaskPhase::Running, "FailurePolicy"));
        let mut restarted = driver.restarted();
        restarted.step([restarted.launched("a")]);
        assert_eq!(restarted.actions(), ["stop a/1"]);
        for mut driver in [driver, restarted] {
            driver.ok("a");
            assert_eq!(driver.phase("a"), TaskPhase::Running, "what it was came to an end, not what it is");
            driver.gone("a");
            assert_eq!(driver.line(), "a=Cancelled/FailurePolicy b=Failed/Error");
        }
    }
}

#[test]
fn changed_arguments_count_for_those_who_read_them() {
    let reading = |name: &str, argument: &str| {
        let env = json!([{"name": "X", "value": format!("${{{{ args.{argument} }}}}")}]);
        with(task(name, &[]), json!({"container": {"image": "i", "env": env}}))
    };
    let graph = |x: i32| json!({"arguments": {"x": x, "y": 1}, "tasks": [reading("a", "x"), reading("b", "y")]});
    let mut driver = Driver::of(graph(1));
    let edited = driver.edit(graph(2));
    assert_eq!((edited.changed, edited.stale), (vec!["a".to_owned()], vec!["a".to_owned()]));
    assert!(status(&driver, "a").stale && !status(&driver, "b").stale);
}

#[test]
fn gates_and_settings_of_a_task_that_ran_change_nothing_that_it_ran() {
    let mut driver = Driver::of(tasks(&[task("a", &[]), task("b", &[])]));
    driver.ok("b");
    let changed = with(task("b", &["a"]), json!({"retry": {"limit": 7}, "priority": 9, "when": "false"}));
    let edited = driver.edit(tasks(&[task("a", &[]), changed]));
    assert_eq!((edited.changed, edited.stale.len()), (vec!["b".to_owned()], 0));
    assert_eq!(driver.line(), "a=Running b=Succeeded");
}

#[test]
fn finally_is_edited_likewise() {
    let graph = |finally: &[Value]| json!({"tasks": [task("a", &[])], "finally": finally});
    let mut driver = Driver::of(graph(&[task("y", &[]), task("z", &[])]));
    driver.ok("a");
    driver.ok("y");
    driver.wait(7200);
    driver.edit(graph(&[task("x", &[]), task("y", &[])]));
    assert_eq!(driver.actions(), ["launch x/1", "stop z/1"], "its hour counts anew");
    driver.gone("z");
    driver.ok("x");
    assert_eq!(driver.status().phase, Some(GraphPhase::Complete));
}

#[test]
fn a_graph_that_was_reopened_has_its_time_anew() {
    let graph = |tasks: &[Value]| json!({"timeout": "1h", "tasks": tasks});
    let mut driver = Driver::of(graph(&[task("a", &[])]));
    driver.ok("a");
    driver.wait(100_000);
    driver.edit(graph(&[task("a", &[]), task("b", &[])]));
    assert_eq!(driver.actions(), ["launch b/1"]);
    assert_eq!(driver.restarted().wait(3599).actions.len(), 1, "b is asked for once more");
    driver.wait(3600);
    assert_eq!(driver.actions(), ["stop b/1"]);
}

#[test]
fn a_graph_that_failed_ends_otherwise_when_the_failure_is_allowed() {
    let spec = |allowed: bool| {
        json!({
            "tasks": [with(task("a", &[]), json!({"allowFailure": allowed}))],
            "outputs": [{"name": "phase", "value": "tasks.a.phase"}],
        })
    };
    let mut driver = Driver::of(spec(false));
    driver.fail_by("a", Blame::Final);
    assert_eq!(driver.status().phase, Some(GraphPhase::Failed));
    driver.wait(5);
    let edited = driver.edit(spec(true));
    assert_eq!((edited.changed, edited.again.len()), (vec!["a".to_owned()], 0));
    let told = driver.status();
    assert_eq!((told.phase, told.completion_time), (Some(GraphPhase::Complete), Some(at(5))));
    assert_eq!(Value::Object(told.outputs), json!({"phase": "Failed"}), "what it returns is asked for at its end");
    assert_eq!(told.history.last().and_then(|entry| entry.message.as_deref()), Some("Complete"));
    // that of a task that Succeeded decides nothing
    let mut driver = Driver::of(spec(false));
    driver.ok("a");
    driver.wait(5);
    driver.edit(spec(true));
    assert_eq!(driver.status().completion_time, Some(at(0)));
}

#[test]
fn a_cancel_is_not_undone() {
    let graph = |state: &str, tasks: &[Value]| json!({"desiredState": state, "tasks": tasks});
    let mut driver = Driver::of(graph("Run", &[task("a", &[]), task("b", &["a"])]));
    driver.set(|settings| settings.desired_state = DesiredState::Cancel);
    driver.edit(graph("Cancel", &[task("a", &[]), task("b", &["a"]), task("c", &[])]));
    driver.gone("a");
    assert_eq!(driver.line(), "a=Cancelled/Cancelled b=Omitted/Cancelled c=Omitted/Cancelled");
    assert_eq!(driver.status().phase, Some(GraphPhase::Failed));
}

#[test]
fn on_hold_nothing_starts_and_what_runs_goes_on() {
    let mut driver = Driver::of(tasks(&[with(task("a", &[]), json!({"retry": {"limit": 3}})), task("b", &["a"])]));
    driver.run.set_on_hold(true);
    driver.fail_by("a", Blame::Task);
    driver.gone("a");
    driver.wait(1000);
    assert_eq!((driver.phase("a"), driver.actions().len()), (TaskPhase::Ready, 0), "a retry waits");
    driver.run.set_on_hold(false);
    driver.step([]);
    assert_eq!(driver.actions(), ["launch a/2"]);
    driver.run.set_on_hold(true);
    driver.ok("a");
    assert_eq!((driver.phase("a"), driver.phase("b")), (TaskPhase::Succeeded, TaskPhase::Ready));
}

#[test]
fn a_graph_remembers_only_so_many_removed_tasks() {
    let many: Vec<_> = (0..1001).map(|number| task(&format!("t{number}"), &[])).collect();
    let driver = Driver::of(tasks(&many));
    let edit = |left: &[Value]| driver.run.edit_problems(&planned(tasks(left)).graph);
    assert!(edit(&many[..1]).is_empty());
    let problems = edit(&[task("other", &[])]);
    assert!(problems[0].to_string().starts_with("spec.tasks: 1001 tasks"), "{problems:?}");
}

#[test]
fn a_large_graph_remembers_fewer() {
    let tasks_of = |names: std::ops::Range<usize>| -> Vec<_> { names.map(|n| task(&format!("t{n}"), &[])).collect() };
    let driver = Driver::of(tasks(&tasks_of(0..2000)));
    let edit = |names| driver.run.edit_problems(&planned(tasks(&tasks_of(names))).graph);
    assert!(edit(400..2400).is_empty());
    let problems = edit(401..2401);
    assert!(problems[0].message.contains("401 tasks") && problems[0].message.contains("at most 400"), "{problems:?}");
}

#[test]
fn an_edit_is_told_in_few_words() {
    let names: Vec<_> = (0..500).map(|number| format!("task-{number}")).collect();
    let edited = crate::engine::Edited { added: names.clone(), changed: names, ..crate::engine::Edited::default() };
    let text = edited.summary(256);
    assert!(text.len() <= 256 && text.starts_with("added task-0, task-1"), "{text}");
    assert!(text.contains(" more; changed task-0,") && text.ends_with(" more"), "{text}");
}

#[test]
fn what_may_have_to_be_undone_is_not_removed_while_the_graph_runs() {
    let paid = with(task("pay", &[]), json!({"compensate": {"container": {"image": "i"}}}));
    let rest = || [task("other", &[])];
    let mut driver = Driver::of(tasks(&[&[paid][..], &rest()].concat()));
    let without = planned(tasks(&rest())).graph;
    assert!(driver.run.edit_waits(&without).is_empty(), "it did nothing yet");
    driver.ok("pay");
    let problems = driver.run.edit_waits(&without);
    assert!(
        problems[0].to_string().starts_with("spec.tasks: task \"pay\" Succeeded and has `compensate`"),
        "{problems:?}"
    );
    driver.ok("other");
    assert!(driver.run.edit_waits(&without).is_empty(), "there is nothing to undo in a graph that is Complete");
    driver.edit(tasks(&rest()));
    assert_eq!(driver.status().phase, Some(GraphPhase::Complete));
}

#[test]
fn what_waits_without_a_job_is_edited_likewise() {
    let wait = |duration: &str| json!({"name": "a", "delay": {"duration": duration}});
    let mut driver = Driver::of(tasks(&[wait("1h"), task("b", &[])]));
    driver.ok("b");
    let edited = driver.edit(tasks(&[wait("1m"), task("b", &[])]));
    assert_eq!((edited.stale, driver.phase("a")), (vec!["a".to_owned()], TaskPhase::Waiting), "its time is drawn");
    driver.rerun(json!({"id": "1", "scope": "Tasks", "tasks": ["a"]}));
    assert_eq!((driver.phase("a"), status(&driver, "a").attempts), (TaskPhase::Waiting, 2));
    let mut job = driver.restarted();
    job.edit(tasks(&[task("a", &[]), task("b", &[])]));
    assert_eq!(job.actions(), ["launch a/3"]);
    job.edit(tasks(&[wait("1m"), task("b", &[])]));
    assert_eq!(job.actions(), ["stop a/3"]);
    job.gone("a");
    assert_eq!(job.phase("a"), TaskPhase::Waiting);
    job.run.set_on_hold(true);
    job.wait(60);
    assert_eq!(job.phase("a"), TaskPhase::Waiting, "the spec is not valid");
    job.run.set_on_hold(false);
    job.step([]);
    assert!(job.run.is_finished());
    driver.edit(tasks(&[task("b", &[])]));
    assert!(driver.run.is_finished(), "there is nothing to be stopped");
    assert_eq!(status(&driver, "a").attempts, 2);
}
