use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;

const T: [&str; 6] = [
    "2026-01-01T00:00:00Z",
    "2026-01-01T00:00:01Z",
    "2026-01-01T00:00:02Z",
    "2026-01-01T00:00:03Z",
    "2026-01-01T00:00:04Z",
    "2026-01-01T00:00:05Z",
];

fn status(value: Value) -> TaskGraphStatus {
    serde_json::from_value(value).unwrap()
}

fn graph() -> Identity {
    Identity { name: "orders".into(), namespace: "team".into(), uid: "u".into() }
}

fn made(before: &TaskGraphStatus, now: &TaskGraphStatus) -> Vec<SpanData> {
    spans(&Trace::new("u", None, 1.0), &graph(), &Ended::by(before), now)
}

/// Name, outcome and seconds of each.
fn told(spans: &[SpanData]) -> Vec<(String, String, u64)> {
    let outcome = |span: &SpanData| attribute(span, "taskgraph.outcome").unwrap_or_default();
    let took = |span: &SpanData| span.end_time.duration_since(span.start_time).unwrap().as_secs();
    spans.iter().map(|span| (span.name.to_string(), outcome(span), took(span))).collect()
}

fn attribute(span: &SpanData, key: &str) -> Option<String> {
    span.attributes.iter().find(|one| one.key.as_str() == key).map(|one| one.value.to_string())
}

/// A graph that retries a task, undoes another, and fails: the statuses as they are stored.
fn story() -> Vec<TaskGraphStatus> {
    let failed = json!({"attempt": 1, "job": "a-1", "startTime": T[0], "completionTime": T[1], "exitCode": 3, "reason": "Error", "message": "no rows"});
    let last =
        json!({"attempt": 2, "job": "a-2", "startTime": T[2], "completionTime": T[4], "reason": "DeadlineExceeded"});
    let pay = |undo: Value| {
        let pay = json!({"name": "pay", "phase": "Succeeded", "attempts": 1, "job": "pay-1", "startTime": T[0], "completionTime": T[2]});
        let mut pay = pay.as_object().cloned().unwrap();
        if !undo.is_null() {
            pay.insert("compensation".into(), undo);
        }
        Value::Object(pay)
    };
    let condition = json!({"type": "Failed", "status": "True", "reason": "TasksFailed", "message": "failed: a", "lastTransitionTime": T[5]});
    let finished = json!({"time": T[5], "event": "Finished", "message": "Failed"});
    [
        json!({"tasks": [{"name": "a", "phase": "Running", "attempts": 1, "startTime": T[0]}]}),
        json!({"tasks": [{"name": "a", "phase": "Retrying", "attempts": 1, "startTime": T[0], "failedAttempts": [failed]}, pay(Value::Null)]}),
        json!({"tasks": [{"name": "a", "phase": "Running", "attempts": 2, "startTime": T[2], "failedAttempts": [failed]}, pay(Value::Null)]}),
        json!({"tasks": [
            {"name": "a", "phase": "Failed", "reason": "DeadlineExceeded", "attempts": 2, "startTime": T[2], "completionTime": T[4], "failedAttempts": [failed, last]},
            pay(json!({"phase": "Running", "attempts": 1, "startTime": T[4]})),
            {"name": "never", "phase": "Omitted", "completionTime": T[4]},
        ]}),
        json!({"startTime": T[0], "completionTime": T[5], "conditions": [condition], "history": [finished], "tasks": [
            {"name": "a", "phase": "Failed", "reason": "DeadlineExceeded", "attempts": 2, "startTime": T[2], "completionTime": T[4], "failedAttempts": [failed, last]},
            pay(json!({"phase": "Cancelled", "reason": "DeadlineExceeded", "attempts": 1, "startTime": T[4], "completionTime": T[5]})),
            {"name": "never", "phase": "Omitted", "completionTime": T[4]},
        ]}),
    ]
    .map(status)
    .into()
}

#[test]
fn an_attempt_is_told_once_its_end_is_stored() {
    let story = story();
    let steps: Vec<_> = [TaskGraphStatus::default()]
        .iter()
        .chain(&story)
        .zip(&story)
        .map(|(before, now)| told(&made(before, now)))
        .collect();
    let span = |name: &str, outcome: &str, took| (name.to_owned(), outcome.to_owned(), took);
    assert_eq!(
        steps,
        [
            vec![],
            vec![span("a #1", "Failed", 1), span("pay #1", "Succeeded", 2)],
            vec![],
            vec![span("a #2", "Failed", 2)],
            vec![span("undo pay #1", "Cancelled", 1), span("orders", "Failed", 5)],
        ]
    );
}

/// Whoever stored which step, and however many steps were stored at once.
#[test]
fn the_same_spans_are_told_however_the_writes_fall_together() {
    let story = story();
    let key = |span: &SpanData| (span.span_context.span_id().to_string(), format!("{span:?}"));
    let mut all: BTreeSet<_> = BTreeSet::new();
    for stored in 0_u32..1 << (story.len() - 1) {
        let (mut before, mut told) = (TaskGraphStatus::default(), Vec::new());
        for (place, now) in story.iter().enumerate() {
            if place + 1 == story.len() || stored & (1 << place) != 0 {
                told.extend(made(&before, now).iter().map(key));
                before = now.clone();
            }
        }
        let ids: BTreeSet<_> = told.iter().map(|(id, _)| id.clone()).collect();
        assert_eq!(ids.len(), told.len(), "one is doubled");
        all.insert(told.into_iter().collect::<BTreeSet<_>>());
    }
    assert_eq!(all.len(), 1);
}

#[test]
fn spans_say_what_they_are_about() {
    let story = story();
    let all = made(&TaskGraphStatus::default(), story.last().unwrap());
    let [a1, a2, pay, undo, root] = &all[..] else { panic!("{:?}", told(&all)) };
    for span in &all {
        assert_eq!(span.span_context.trace_id(), root.span_context.trace_id());
        assert_eq!(attribute(span, "cicd.pipeline.name").as_deref(), Some("orders"));
        assert_eq!(attribute(span, "k8s.namespace.name").as_deref(), Some("team"));
    }
    for span in [a1, a2, pay, undo] {
        assert_eq!(span.parent_span_id, root.span_context.span_id());
    }
    assert_eq!(root.parent_span_id, SpanId::INVALID);
    let of = |span, keys: [&str; 4]| keys.map(|key| attribute(span, key).unwrap_or_default());
    let keys = ["k8s.job.name", "cicd.pipeline.task.run.result", "error.type", "process.exit.code"];
    assert_eq!(of(a1, keys), ["a-1", "failure", "Error", "3"]);
    assert_eq!(of(a2, keys), ["a-2", "timeout", "DeadlineExceeded", ""]);
    assert_eq!(of(pay, keys), ["pay-1", "success", "", ""]);
    assert_eq!(of(undo, keys), ["", "cancellation", "", ""]);
    assert_eq!(a1.status, Status::error("Error: no rows"));
    assert_eq!((&pay.status, &undo.status), (&Status::Ok, &Status::Unset));
    assert_eq!(root.status, Status::error("TasksFailed: failed: a"));
}

#[test]
fn what_is_run_again_is_told_again_and_nothing_else() {
    let story = story();
    let first = story.last().unwrap();
    let mut reopened = first.clone();
    (reopened.completion_time, reopened.reopen_time) = (None, Some(T[5].parse().unwrap()));
    reopened.tasks[0] =
        serde_json::from_value(json!({"name": "a", "phase": "Pending", "attempts": 2, "attemptsBefore": 2})).unwrap();
    assert_eq!(told(&made(first, &reopened)), []);
    let mut again = reopened.clone();
    let end: Timestamp = "2026-01-01T00:00:09Z".parse().unwrap();
    again.completion_time = Some(end);
    again.conditions[0].type_ = CONDITION_COMPLETE.into();
    let mut second = again.history[0].clone();
    second.time = end;
    again.history.push(second);
    again.tasks[0] = serde_json::from_value(
        json!({"name": "a", "phase": "Skipped", "attempts": 2, "attemptsBefore": 2, "completionTime": T[5]}),
    )
    .unwrap();
    let spans = made(&reopened, &again);
    assert_eq!(told(&spans), [("orders, again".to_owned(), "Complete".to_owned(), 4)]);
    assert_ne!(spans[0].span_context.span_id(), Trace::new("u", None, 1.0).graph().span_id());
}

#[test]
fn a_status_made_by_hand_costs_nothing() {
    let wild = status(json!({"completionTime": T[0], "tasks": [
        {"name": "a", "phase": "Succeeded", "attempts": u32::MAX, "startTime": T[3], "completionTime": T[0]},
        {"name": "b", "phase": "Running"},
        {"name": "c", "phase": "Retrying", "attempts": 7},
    ]}));
    assert_eq!(
        told(&made(&TaskGraphStatus::default(), &wild)),
        [("a #4294967295".to_owned(), "Succeeded".to_owned(), 0)]
    );
}
