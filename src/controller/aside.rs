//! Stores a status that no session wrote, and tells of it what a session would: a graph that is refused is steered by its
//! status alone.

use std::collections::BTreeMap;

use super::{
    Context,
    accept::{AcceptError, identity, put_status},
    events::Telling,
    trace::{self, Ended},
    view::GraphView,
};
use crate::{
    api::{CONDITION_COMPLETE, CONDITION_FAILED, TaskGraphStatus, TaskPhase},
    engine::reason,
    runtime::{metrics::Metrics, traces::Trace},
};

/// Stores `status` over the one of `version`, which is `before`, and tells what is new in it; the new version.
pub async fn store(
    ctx: &Context,
    view: &GraphView,
    version: &str,
    before: &TaskGraphStatus,
    status: &mut TaskGraphStatus,
) -> Result<String, AcceptError> {
    ctx.courier.begin(view, before);
    status.cloud_events = ctx.courier.owed(view, status);
    let version = put_status(ctx, view, version, status).await?;
    // of a task that starts afresh nobody could tell later
    ctx.courier.superseded(view, before);
    ctx.courier.stored(view, status);
    let tracer = &ctx.hands.tracer;
    if let Some(trace) = tracer.trace(view.uid(), view.traceparent()).filter(Trace::is_sampled) {
        tracer.send(trace::spans(&trace, &identity(view), &Ended::by(before), status));
    }
    count(&ctx.hands.metrics, before, status);
    for telling in Telling::lately(status) {
        ctx.recorder.tell(view, &telling);
    }
    Ok(version)
}

/// Counts what ended.
fn count(metrics: &Metrics, before: &TaskGraphStatus, status: &TaskGraphStatus) {
    let known: BTreeMap<_, _> = before.tasks.iter().map(|task| (task.name.as_str(), task)).collect();
    for task in &status.tasks {
        let was = known.get(task.name.as_str());
        let ended = |was: Option<TaskPhase>, is: TaskPhase| is.is_final() && !was.is_some_and(TaskPhase::is_final);
        if ended(was.map(|task| task.phase), task.phase) {
            // how long a wait took says nothing about tasks that work
            let start = task.start_time.filter(|_| task.begun() && task.job.is_some());
            let took = task.completion_time.zip(start).map(|(end, start)| end.duration_since(start));
            metrics.task_finished(task.phase, took.and_then(|took| took.try_into().ok()));
        }
        let undo_was = was.and_then(|task| task.compensation.as_deref()).map(|undo| undo.phase);
        if let Some(undo) = task.compensation.as_deref().filter(|undo| ended(undo_was, undo.phase)) {
            metrics.compensation_finished(undo.phase);
        }
    }
    if status.completion_time.is_some() && status.completion_time != before.completion_time {
        count_finished(metrics, status);
    }
}

/// Counts the end of the graph, which is stored now.
pub fn count_finished(metrics: &Metrics, status: &TaskGraphStatus) {
    let failed = status.conditions.iter().find(|one| one.type_ == CONDITION_FAILED && one.status == "True");
    let ending = match failed.map(|failed| failed.reason.as_str()) {
        None => CONDITION_COMPLETE,
        Some(reason::CANCELLED) => "Cancelled",
        Some(_) => CONDITION_FAILED,
    };
    let begin = status.reopen_time.max(status.start_time);
    let took = status.completion_time.zip(begin).map(|(end, begin)| end.duration_since(begin));
    metrics.graph_finished(ending, took.and_then(|took| took.try_into().ok()));
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::runtime::metrics::encode;

    #[test]
    fn what_ended_is_counted_once() {
        let status = |value: Value| -> TaskGraphStatus { serde_json::from_value(value).unwrap() };
        let (t0, t1) = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:03Z");
        let ended = |task: Value| {
            let mut task = task;
            task["completionTime"] = t1.into();
            task
        };
        let run = json!({"name": "run", "phase": "Running", "attempts": 1, "job": "j", "startTime": t0});
        let done = json!({"name": "done", "phase": "Succeeded", "attempts": 1,
            "compensation": {"phase": "Running", "attempts": 1, "startTime": t0}});
        let before = status(json!({"startTime": t0, "tasks": [run, done, {"name": "late", "phase": "Pending"}]}));
        let (mut run, mut done) = (ended(run), done);
        run["phase"] = "Cancelled".into();
        done["compensation"]["phase"] = "Failed".into();
        let failed = json!({"type": "Failed", "status": "True", "reason": "Cancelled", "lastTransitionTime": t1});
        let late = ended(json!({"name": "late", "phase": "Omitted"}));
        let after =
            status(json!({"startTime": t0, "completionTime": t1, "conditions": [failed], "tasks": [run, done, late]}));
        let (metrics, registry) = Metrics::new();
        for _ in 0..2 {
            count(&metrics, &before, &before);
            count(&metrics, &after, &after);
        }
        let nothing = encode(&registry);
        assert!(!nothing.contains("outcome=") && !nothing.contains("ending="), "{nothing}");
        count(&metrics, &before, &after);
        let text = encode(&registry);
        for line in [
            "taskgraph_tasks_finished_total{outcome=\"Cancelled\"} 1",
            "taskgraph_tasks_finished_total{outcome=\"Omitted\"} 1",
            "taskgraph_compensations_finished_total{outcome=\"Failed\"} 1",
            "taskgraph_graphs_finished_total{ending=\"Cancelled\"} 1",
            "taskgraph_graph_duration_seconds_sum 3",
            "taskgraph_task_duration_seconds_count 1",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(!text.contains("outcome=\"Succeeded\""), "{text}");
    }
}
