use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::controller::cloud_events::{
    event::{Event, GraphName},
    render::{Style, render},
};

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(1_767_225_600_000 + millis).unwrap()
}

fn status(value: Value) -> TaskGraphStatus {
    serde_json::from_value(value).unwrap()
}

fn events(told: &Told, status: &TaskGraphStatus) -> Vec<Event> {
    let graph = GraphName { namespace: "team".into(), name: "g".into(), uid: "u".into() };
    let style = Style { cluster: None, outputs: true };
    told.facts(status).iter().map(|fact| render(&style, &graph, fact, status).unwrap()).collect()
}

/// The ends of the ids of what is told, without the graph's UID.
fn ids(told: &Told, status: &TaskGraphStatus) -> Vec<String> {
    events(told, status).into_iter().map(|event| event.id.trim_start_matches("u/").to_owned()).collect()
}

fn after(status: &TaskGraphStatus) -> Told {
    let mut told = Told::default();
    for fact in told.facts(status) {
        told.take(&fact, status);
    }
    assert!(told.facts(status).is_empty(), "what was told is not told again");
    told
}

/// A task's status before and after, and what is told in between.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_is_told_of_a_task() {
    let failed = |n: u32| json!({"attempt": n, "job": format!("j{n}"), "startTime": at(n.into()), "completionTime": at(i64::from(n) + 100), "reason": "Error", "exitCode": 3});
    let none = || json!({"phase": "Pending"});
    let running =
        |n: u32| json!({"phase": "Running", "attempts": n, "startTime": at(n.into()), "job": format!("j{n}")});
    let launching = || json!({"phase": "Running", "attempts": 1, "startTime": at(1)});
    let with = |mut task: Value, more: Value| {
        task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        task
    };
    let rows: Vec<(&str, Value, Value, &[&str])> = vec![
        ("begins", none(), running(1), &["task.started/a/1"]),
        ("has no Job yet", none(), launching(), &[]),
        ("gets its Job", launching(), running(1), &["task.started/a/1"]),
        (
            "gets the first Jobs of its items",
            launching(),
            with(launching(), json!({"items": {"total": 2, "launched": "0"}})),
            &["task.started/a/1"],
        ),
        ("is ready", none(), json!({"phase": "Ready", "readyTime": at(1)}), &[]),
        (
            "succeeds",
            running(1),
            with(running(1), json!({"phase": "Succeeded", "completionTime": at(9)})),
            &["task.succeeded/a/1"],
        ),
        (
            "all at once",
            none(),
            with(running(2), json!({"phase": "Succeeded", "completionTime": at(900), "failedAttempts": [failed(1)]})),
            &["task.started/a/1", "task.retrying/a/1", "task.started/a/2", "task.succeeded/a/2"],
        ),
        (
            "waits for its next attempt",
            running(1),
            with(running(1), json!({"phase": "Retrying", "failedAttempts": [failed(1)]})),
            &["task.retrying/a/1"],
        ),
        (
            "fails for good: the end tells of the attempt",
            running(1),
            with(running(1), json!({"phase": "Failed", "completionTime": at(101), "failedAttempts": [failed(1)]})),
            &["task.failed/a/1"],
        ),
        (
            "is cancelled between attempts",
            running(1),
            with(running(1), json!({"phase": "Cancelled", "completionTime": at(200), "failedAttempts": [failed(1)]})),
            &["task.retrying/a/1", "task.cancelled/a/1"],
        ),
        (
            "is skipped",
            none(),
            json!({"phase": "Skipped", "reason": "ConditionFalse", "completionTime": at(5)}),
            &["task.skipped/a/0/1767225600005"],
        ),
        (
            "is skipped once more, after a rerun",
            json!({"phase": "Skipped", "completionTime": at(5)}),
            json!({"phase": "Skipped", "completionTime": at(6)}),
            &["task.skipped/a/0/1767225600006"],
        ),
        (
            "failed, and starts afresh, unseen in between",
            running(1),
            json!({"phase": "Pending", "attempts": 1, "attemptsBefore": 1, "failedAttempts": [failed(1)]}),
            &["task.failed/a/1"],
        ),
        (
            "an attempt that was never launched fails",
            none(),
            json!({"phase": "Failed", "attempts": 1, "completionTime": at(7), "failedAttempts": [{"attempt": 1, "reason": "Invalid"}]}),
            &["task.failed/a/1"],
        ),
        (
            "is removed after it ended",
            with(running(1), json!({"phase": "Succeeded", "completionTime": at(9)})),
            json!({"phase": "Succeeded", "attempts": 1, "removed": true}),
            &[],
        ),
        (
            "is removed while it runs",
            running(1),
            json!({"phase": "Cancelled", "attempts": 1, "removed": true, "reason": "Removed"}),
            &["task.cancelled/a/1"],
        ),
        (
            "is undone",
            with(running(1), json!({"phase": "Succeeded", "completionTime": at(9)})),
            with(
                running(1),
                json!({"phase": "Succeeded", "completionTime": at(9), "compensation":
                    {"phase": "Failed", "attempts": 1, "startTime": at(10), "completionTime": at(11), "failedAttempts": [failed(1)]}}),
            ),
            &["compensation.started/a/1", "compensation.failed/a/1"],
        ),
    ];
    for (what, before, now, expected) in rows {
        let [before, now] = [before, now].map(|task| status(json!({"tasks": [with(task, json!({"name": "a"}))]})));
        assert_eq!(ids(&after(&before), &now), expected, "{what}");
        after(&now);
    }
}

#[test]
fn what_is_told_of_a_graph() {
    let entry =
        |event: &str, message: Option<&str>, millis| json!({"time": at(millis), "event": event, "message": message});
    let rows = [
        ("Accepted", None, Some("graph.accepted")),
        ("Edited", Some("added: a"), Some("graph.edited")),
        ("Rerun", None, Some("graph.rerun")),
        ("Suspended", None, Some("graph.suspended")),
        ("Resumed", None, Some("graph.resumed")),
        ("Cancelled", None, Some("graph.cancelling")),
        ("DeadlineExceeded", None, Some("graph.cancelling")),
        ("Compensating", None, Some("graph.compensating")),
        ("Finished", Some("Complete"), Some("graph.succeeded")),
        ("Finished", Some("TasksFailed"), Some("graph.failed")),
        ("Finished", Some("Cancelled"), Some("graph.cancelled")),
        ("Approved", None, None),
    ];
    for (event, message, expected) in rows {
        let status = status(json!({"history": [entry(event, message, 7)]}));
        let expected: Vec<_> = expected.map(|kind| format!("{kind}/1767225600007")).into_iter().collect();
        assert_eq!(ids(&Told::default(), &status), expected, "{event}");
    }
}

#[test]
fn the_end_of_a_graph_comes_last_whatever_the_clocks_say() {
    let task = |name: &str, from, to| json!({"name": name, "phase": "Succeeded", "attempts": 1, "startTime": at(from), "completionTime": at(to)});
    // another operator, whose clock is behind, finished it
    let status = status(json!({
        "completionTime": at(15),
        "history": [{"time": at(0), "event": "Accepted"}, {"time": at(15), "event": "Finished", "message": "Complete"}],
        "tasks": [task("b", 20, 30), task("a", 0, 20)],
    }));
    let expected = [
        "graph.accepted/1767225600000",
        "task.started/a/1",
        "task.succeeded/a/1",
        "task.started/b/1",
        "task.succeeded/b/1",
        "graph.succeeded/1767225600015",
    ];
    assert_eq!(ids(&Told::default(), &status), expected);
}

#[test]
fn an_event_as_it_is_sent() {
    let status = status(
        json!({"tasks": [{"name": "a", "phase": "Failed", "reason": "Error", "message": "no rows", "attempts": 1,
        "job": "g-a-1-x", "startTime": at(0), "completionTime": at(1500),
        "failedAttempts": [{"attempt": 1, "reason": "Error", "exitCode": 3, "startTime": at(0), "completionTime": at(1500)}]}]}),
    );
    let event = serde_json::to_value(events(&Told::default(), &status).pop()).unwrap();
    let expected = json!({
        "specversion": "1.0",
        "id": "u/task.failed/a/1",
        "source": "/apis/taskgraph.dev/v1alpha1/namespaces/team/taskgraphs/g",
        "type": "dev.taskgraph.task.failed",
        "subject": "a",
        "time": "2026-01-01T00:00:01.5Z",
        "datacontenttype": "application/json",
        "data": {
            "graph": {"namespace": "team", "name": "g", "uid": "u"},
            "task": "a", "phase": "Failed", "attempt": 1, "reason": "Error", "message": "no rows", "exitCode": 3, "job": "g-a-1-x",
            "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:01.5Z", "durationSeconds": 1.5,
        },
    });
    assert_eq!(event, expected);
}

#[test]
fn outputs_are_told_only_if_asked_for() {
    let status = status(
        json!({"tasks": [{"name": "a", "phase": "Succeeded", "completionTime": at(1), "outputs": {"rows": 3}}]}),
    );
    let fact = Told::default().facts(&status).pop().unwrap();
    let graph = GraphName { namespace: "team".into(), name: "g".into(), uid: "u".into() };
    for (outputs, cluster, source) in [(true, None, "/apis/"), (false, Some("prod".to_owned()), "//prod/apis/")] {
        let event = render(&Style { cluster, outputs }, &graph, &fact, &status).unwrap();
        assert!(event.source.starts_with(source), "{}", event.source);
        assert_eq!(serde_json::to_value(&event).unwrap()["data"]["outputs"].is_object(), outputs);
    }
}

#[test]
fn attempts_that_are_not_kept_are_counted() {
    let running = |n: u32| {
        status(
            json!({"tasks": [{"name": "a", "phase": "Running", "attempts": n, "job": "j", "startTime": at(n.into())}]}),
        )
    };
    let mut told = after(&running(1));
    let now = running(5);
    let lost: u32 = told.facts(&now).iter().map(|fact| told.take(fact, &now)).sum();
    assert_eq!(lost, 3, "attempts 2, 3 and 4");
}

#[test]
fn a_status_says_what_is_owed_of_it() {
    let task = |name: &str| json!({"name": name, "phase": "Succeeded", "attempts": 1, "startTime": at(1), "completionTime": at(2)});
    let history = json!([{"time": at(0), "event": "Accepted"}, {"time": at(3), "event": "Suspended"}]);
    let mut stored = status(json!({"sequence": 7, "history": history, "tasks": [task("a"), task("b")]}));
    assert_eq!(Told::restore(&stored).facts(&stored), [], "events begin when there is a sink");
    let mut told = Told::default();
    for fact in told.facts(&stored).into_iter().take(3) {
        told.take(&fact, &stored);
    }
    stored.cloud_events = Some(told.owed(&stored));
    let expected = CloudEventsStatus { sequence: 7, history: 1, tasks: vec!["a".into(), "b".into()], all_tasks: false };
    assert_eq!(stored.cloud_events, Some(expected));
    let again = ["task.started/a/1", "task.started/b/1", "task.succeeded/a/1", "task.succeeded/b/1"];
    assert_eq!(ids(&Told::restore(&stored), &stored)[..4], again, "of a task all or nothing is told again");
    stored.sequence = 8;
    assert_eq!(ids(&Told::restore(&stored), &stored).len(), 6, "it speaks of another status");
    let told = after(&stored);
    assert!(!told.owed(&stored).owes(8));

    let many: Vec<_> = (0..65).map(|number| task(&format!("t{number}"))).collect();
    let mut many = status(json!({"tasks": many}));
    many.cloud_events = Some(Told::default().owed(&many));
    assert!(many.cloud_events.as_ref().is_some_and(|owed| owed.all_tasks && owed.tasks.is_empty()));
    assert_eq!(Told::restore(&many).facts(&many).len(), 130);
}

/// What a task does next, once it is its turn.
fn advance(status: &mut TaskGraphStatus, place: usize, fails: bool, now: Timestamp) {
    let task = &mut status.tasks[place];
    match task.phase {
        TaskPhase::Pending | TaskPhase::Retrying => {
            (task.phase, task.attempts, task.job, task.start_time) =
                (TaskPhase::Running, task.attempts + 1, None, Some(now));
        }
        TaskPhase::Running if task.job.is_none() => task.job = Some(format!("j{}", task.attempts)),
        TaskPhase::Running if fails => {
            task.failed_attempts.push(FailedAttempt {
                attempt: task.attempts,
                job: task.job.clone(),
                start_time: task.start_time,
                completion_time: Some(now),
                reason: "Error".into(),
                ..FailedAttempt::default()
            });
            let last = task.attempts == 3;
            task.phase = if last { TaskPhase::Failed } else { TaskPhase::Retrying };
            task.completion_time = last.then_some(now);
        }
        TaskPhase::Running => (task.phase, task.completion_time) = (TaskPhase::Succeeded, Some(now)),
        _ => return,
    }
    status.sequence += 1;
    if status.completion_time.is_none() && status.tasks.iter().all(|task| task.phase.is_final()) {
        status.completion_time = Some(now);
        let message = Some("Complete".into());
        status.history.push(HistoryEntry { time: now, event: reason::FINISHED.into(), message, by: None });
    }
}

/// Tells at most `limit` facts.
fn tell(told: &mut Told, status: &TaskGraphStatus, limit: usize, sent: &mut Vec<Event>) {
    for (fact, event) in told.facts(status).iter().zip(events(told, status)).take(limit) {
        sent.push(event);
        told.take(fact, status);
    }
}

/// The events of the graph itself and of each task, each once, in the order in which it came first.
fn distinct(sent: Vec<Event>) -> BTreeMap<Option<String>, Vec<Event>> {
    let (mut seen, mut lines) = (BTreeSet::new(), BTreeMap::<_, Vec<_>>::new());
    for event in sent.into_iter().filter(|event| seen.insert(event.id.clone())) {
        lines.entry(event.subject.clone()).or_default().push(event);
    }
    lines
}

proptest! {
    /// A sink that takes little, and operators that end at any moment: the same events come out, of each task in the same order, as
    /// where each is taken at once.
    #[test]
    fn nothing_is_lost_or_out_of_order(
        steps in prop::collection::vec((0_usize..4, any::<bool>(), 0_usize..4, prop::bool::weighted(0.2)), 1..60),
    ) {
        let names = ["a", "b", "c", "d"];
        let tasks = names.map(|name| TaskStatus { name: name.into(), ..TaskStatus::default() });
        let accepted = HistoryEntry { time: at(0), event: reason::ACCEPTED.into(), message: None, by: None };
        let mut status = TaskGraphStatus { tasks: tasks.into(), history: vec![accepted], sequence: 1, ..TaskGraphStatus::default() };
        let (mut prompt, mut slow) = (Told::default(), Told::default());
        let (mut at_once, mut late) = (Vec::new(), Vec::new());
        for (number, (place, fails, taken, restart)) in steps.into_iter().enumerate() {
            advance(&mut status, place, fails, at(i64::try_from(number).unwrap() + 1));
            status.cloud_events = Some(slow.owed(&status));
            tell(&mut prompt, &status, usize::MAX, &mut at_once);
            tell(&mut slow, &status, taken, &mut late);
            if restart {
                // what was told after the status was stored is not known any more
                slow = Told::restore(&status);
            }
        }
        tell(&mut slow, &status, usize::MAX, &mut late);
        if status.completion_time.is_some() && !slow.owed(&status).owes(status.sequence) {
            prop_assert!(late.last().is_some_and(|last| last.type_.ends_with("graph.succeeded")));
        }
        prop_assert_eq!(distinct(late), distinct(at_once));
    }
}
