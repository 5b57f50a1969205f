//! What changed between two looks at a graph, a line each: for logs, where nothing can be redrawn.

use std::collections::BTreeMap;

use super::{history, style::graph_phase_name, words};
use crate::{
    api::{GraphPhase, HistoryEntry, TaskGraph, TaskPhase, TaskStatus},
    cli::text,
};

/// What a line about a task shows.
type Shown = (TaskPhase, u32, Option<String>);

/// The lines, tasks in the order of the status, the graph last.
pub fn changes(before: Option<&TaskGraph>, after: &TaskGraph) -> Vec<String> {
    let status = |graph: &TaskGraph| graph.status.clone().unwrap_or_default();
    let (old, new) = (before.map(status).unwrap_or_default(), status(after));
    let (old_tasks, new_tasks) = (with_compensations(old.tasks), with_compensations(new.tasks));
    let old_tasks: BTreeMap<&str, Shown> = old_tasks.iter().map(|task| (task.name.as_str(), shown(task))).collect();
    let mut lines: Vec<String> = new_tasks
        .iter()
        .filter(|task| old_tasks.get(task.name.as_str()).cloned().unwrap_or_default() != shown(task))
        .map(task_line)
        .collect();
    let deeds = history::deeds(after).into_iter().filter(|entry| is_new(entry, before));
    lines.extend(deeds.map(|entry| format!("graph: {}", history::deed(entry))));
    let summary = |phase: Option<GraphPhase>, message: &Option<String>| {
        let phase = graph_phase_name(phase.unwrap_or(GraphPhase::Pending));
        message.as_deref().map_or(phase.to_owned(), |message| format!("{phase}: {}", text::one_line(message)))
    };
    let line = summary(new.phase, &new.message);
    if before.is_none() || line != summary(old.phase, &old.message) {
        lines.push(format!("graph: {line}"));
    }
    if let Some(refusal) = words::refusal(after)
        && before.and_then(words::refusal).is_none_or(|before| before.problems != refusal.problems)
    {
        let title = if refusal.refused { "refused" } else { "not accepted yet" };
        lines.extend(refusal.problems.iter().map(|problem| format!("graph: {title} ({}): {problem}", refusal.reason)));
    }
    lines
}

/// Whether an entry of the history was not there before. What was done before anybody looked is no news.
fn is_new(entry: &HistoryEntry, before: Option<&TaskGraph>) -> bool {
    before.is_some_and(|before| !history::deeds(before).contains(&entry))
}

/// Each task, and after it what undoes it.
fn with_compensations(tasks: Vec<TaskStatus>) -> Vec<TaskStatus> {
    tasks
        .into_iter()
        .flat_map(|task| {
            let name = format!("compensation of {}", task.name);
            let undo = task.compensation.clone().map(|undo| undo.into_task(name));
            std::iter::once(task).chain(undo)
        })
        .collect()
}

fn shown(task: &TaskStatus) -> Shown {
    (task.phase, task.attempts, words::why(task))
}

fn task_line(task: &TaskStatus) -> String {
    let attempt = if task.attempts > 1 { format!(" (attempt {})", task.attempts) } else { String::new() };
    let details: Vec<String> = [words::why(task), words::result(task)].into_iter().flatten().collect();
    let details = if details.is_empty() { String::new() } else { format!(": {}", details.join(" ")) };
    format!("{}: {}{attempt}{details}", text::one_line(&task.name), task.phase.name())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "so that json! can stand in the call")]
    fn graph(status: serde_json::Value) -> TaskGraph {
        serde_json::from_value(json!({
            "apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskGraph", "metadata": {"name": "g"}, "spec": {"tasks": []}, "status": status
        }))
        .unwrap()
    }

    #[test]
    fn tells_only_what_changed() {
        let first = graph(
            json!({"phase": "Running", "tasks": [{"name": "a", "phase": "Running", "attempts": 1}, {"name": "b"}]}),
        );
        assert_eq!(changes(None, &first), ["a: Running", "graph: Running"]);
        assert!(changes(Some(&first), &first).is_empty());
        let second = graph(json!({"phase": "Failed", "message": "1 task failed", "tasks": [
            {"name": "a", "phase": "Failed", "attempts": 2, "failedAttempts": [{"attempt": 2, "exitCode": 3, "reason": "Error", "message": "no\nrows"}]},
            {"name": "b", "phase": "Omitted", "reason": "DependencyFailed"},
        ]}));
        assert_eq!(
            changes(Some(&first), &second),
            [
                "a: Failed (attempt 2): attempt 2: exit code 3: Error: no rows",
                "b: Omitted: DependencyFailed",
                "graph: Failed: 1 task failed"
            ]
        );
    }

    #[test]
    fn tells_of_compensations() {
        let task =
            |phase: &str| json!({"name": "pay", "phase": "Succeeded", "compensation": {"phase": phase, "attempts": 1}});
        let [before, after] =
            ["Running", "Succeeded"].map(|phase| graph(json!({"phase": "Compensating", "tasks": [task(phase)]})));
        assert_eq!(changes(None, &before), ["pay: Succeeded", "compensation of pay: Running", "graph: Compensating"]);
        assert_eq!(changes(Some(&before), &after), ["compensation of pay: Succeeded"]);
    }

    #[test]
    fn tells_of_an_edit_and_of_what_is_stale() {
        let entry = |event: &str| json!({"time": "2026-01-01T00:00:00Z", "event": event, "message": "changed a"});
        let task = |stale: bool| json!([{"name": "a", "phase": "Running", "attempts": 1, "stale": stale}]);
        let before = graph(json!({"phase": "Running", "tasks": task(false), "history": [entry("Accepted")]}));
        let status = json!({"phase": "Running", "tasks": task(true), "history": [entry("Accepted"), entry("Edited")]});
        let after = graph(status);
        assert_eq!(changes(Some(&before), &after), ["a: Running: stale", "graph: Edited: changed a"]);
        assert!(changes(Some(&after), &after).is_empty());
    }

    #[test]
    fn tells_of_a_refusal_once() {
        let refused = graph(json!({"conditions": [{
            "type": "Accepted", "status": "False", "reason": "Invalid", "lastTransitionTime": "2026-01-01T00:00:00Z",
            "message": "spec.tasks: must not be empty",
        }]}));
        assert_eq!(
            changes(None, &refused),
            ["graph: Pending", "graph: not accepted yet (Invalid): spec.tasks: must not be empty"]
        );
        assert!(changes(Some(&refused), &refused).is_empty());
    }
}
