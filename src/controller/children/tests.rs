#![allow(clippy::needless_pass_by_value, reason = "json! gives values")]

use serde_json::{Value, json};

use super::*;
use crate::engine::TaskId;

fn attempt() -> Attempt {
    Attempt::new(TaskId(0), 1)
}

fn child(spec: Value, status: Value) -> GraphView {
    serde_json::from_value(
        json!({"metadata": {"name": "g-t-1", "namespace": "ns", "uid": "u"}, "spec": spec, "status": status}),
    )
    .unwrap()
}

fn condition(type_: &str, reason: &str) -> Value {
    json!([{"type": type_, "status": "True", "reason": reason, "message": "why"}])
}

/// What is told, a word each.
fn words(status: Value) -> Vec<String> {
    let word = |event: Event| match event {
        Event::Launched { job, .. } => format!("launched {job}"),
        Event::Started { .. } => "started".to_owned(),
        Event::Progress { progress, .. } => format!("progress {progress}"),
        Event::Blocked { reason, .. } => format!("blocked {reason}"),
        Event::Finished { result: AttemptResult::Succeeded { outputs, .. }, time, .. } => {
            format!("succeeded {time} {}", Value::Object(outputs))
        }
        Event::Finished { result: AttemptResult::Failed(failure), .. } => {
            format!("failed {} {:?} {}", failure.reason, failure.blame, failure.message.unwrap_or_default())
        }
        Event::Gone { .. } => "gone".to_owned(),
        Event::LookedUp { .. } | Event::Items { .. } | Event::Created { .. } | Event::Outdated { .. } => {
            "never told here".to_owned()
        }
    };
    observe(attempt(), &child(json!({}), status), Timestamp::UNIX_EPOCH).into_iter().map(word).collect()
}

#[test]
fn a_child_as_its_parent_sees_it() {
    let (revision, end) = ("r", "2026-01-01T00:00:00Z");
    for (status, told) in [
        (json!({}), vec!["launched g-t-1"]),
        (
            json!({"conditions": [{"type": "Accepted", "status": "False", "reason": "TemplateNotFound"}]}),
            vec!["launched g-t-1", "blocked TemplateNotFound"],
        ),
        (
            json!({"conditions": condition("Stalled", "Invalid")}),
            vec!["launched g-t-1", "failed ChildRefused Final the child graph was refused: why"],
        ),
        // somebody may make room for it
        (
            json!({"conditions": [{"type": "Accepted", "status": "False", "reason": "RevisionTaken"},
                {"type": "Stalled", "status": "True", "reason": "RevisionTaken"}]}),
            vec!["launched g-t-1", "blocked RevisionTaken"],
        ),
        (json!({"revision": revision, "progress": "1/2"}), vec!["launched g-t-1", "started", "progress 1/2"]),
        // an edit by hand that was refused stops nothing
        (
            json!({"revision": revision, "conditions": condition("Stalled", "Invalid")}),
            vec!["launched g-t-1", "started"],
        ),
        (
            json!({"revision": revision, "completionTime": end, "outputs": {"x": 1}, "conditions": condition("Complete", "AllSucceeded")}),
            vec!["launched g-t-1", "started", "succeeded 2026-01-01T00:00:00Z {\"x\":1}", "gone"],
        ),
        (
            json!({"revision": revision, "completionTime": end, "conditions": condition("Failed", "DeadlineExceeded")}),
            vec!["launched g-t-1", "started", "failed DeadlineExceeded Task why", "gone"],
        ),
        (
            json!({"revision": revision, "completionTime": end}),
            vec!["launched g-t-1", "started", "failed ChildFailed Task ", "gone"],
        ),
    ] {
        assert_eq!(words(status.clone()), told, "{status}");
    }
}

#[test]
fn a_child_is_told_what_its_parent_is_told_but_for_a_cancel() {
    let running = json!({"revision": "r"});
    let finished = json!({"completionTime": "2026-01-01T00:00:00Z"});
    for (state, status, suspended, told) in [
        (json!({}), &running, false, None),
        (json!({}), &running, true, Some(DesiredState::Suspend)),
        (json!({"desiredState": "Suspend"}), &running, true, None),
        (json!({"desiredState": "Suspend"}), &running, false, Some(DesiredState::Run)),
        (json!({"desiredState": "Run"}), &running, false, None),
        (json!({"desiredState": "Cancel"}), &running, true, None),
        (json!({"desiredState": "Cancel"}), &running, false, None),
        (json!({"desiredState": 7}), &running, true, Some(DesiredState::Suspend)),
        (json!({}), &finished, true, None),
    ] {
        assert_eq!(wanted(&child(state.clone(), status.clone()), suspended), told, "{state} {status} {suspended}");
    }
}

#[test]
fn only_a_graph_with_a_parent_and_its_revision_is_a_child() {
    let view = |annotations: Value, owner: Value| -> GraphView {
        let mut view: GraphView = serde_json::from_value(json!({
            "metadata": {"name": "c", "annotations": annotations, "ownerReferences": [owner]}, "status": {"outputs": {"x": 1}},
        }))
        .unwrap();
        view.prune();
        view
    };
    let owner = json!({"apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskGraph", "name": "p", "uid": "u", "controller": true});
    let revision = json!({"taskgraph.dev/revision": "r", "note": "x"});
    let child = view(revision.clone(), owner.clone());
    assert_eq!((child.parent(), child.status.outputs.len()), (Some(("u", "r")), 1));
    assert_eq!(child.metadata.annotations.map(|kept| kept.len()), Some(1));
    let mut scheduled = owner.clone();
    scheduled["kind"] = "TaskSchedule".into();
    let mut uncontrolled = owner.clone();
    uncontrolled["controller"] = false.into();
    for (annotations, owner) in [(json!({}), owner), (revision.clone(), scheduled), (revision, uncontrolled)] {
        let other = view(annotations, owner);
        assert_eq!((other.parent(), other.status.outputs.len()), (None, 0));
    }
}
