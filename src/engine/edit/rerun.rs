//! Which tasks a rerun takes in.

use std::collections::BTreeSet;

use super::super::graph::{Graph, TaskId};
use crate::api::{Rerun, RerunScope, TaskPhase, TaskStatus};

/// The names of the tasks that start afresh: those wanted, all that depend on them, and all of `finally` if one of
/// `tasks` is among them, since `finally` comes after every task.
pub fn chosen(graph: &Graph, tasks: &[TaskStatus], wanted: &Rerun) -> BTreeSet<String> {
    let is_wanted = |status: &TaskStatus| match wanted.scope {
        RerunScope::All => true,
        RerunScope::Failed => {
            let undone = status.compensation.as_ref().is_some_and(|undo| undo.attempts > undo.attempts_before);
            undone || matches!(status.phase, TaskPhase::Failed | TaskPhase::Omitted | TaskPhase::Cancelled)
        }
        RerunScope::Tasks => wanted.tasks.contains(&status.name),
    };
    let mut open: Vec<TaskId> = tasks
        .iter()
        .filter(|status| !status.removed && is_wanted(status))
        .filter_map(|s| graph.find(&s.name))
        .collect();
    let mut chosen: BTreeSet<TaskId> = open.iter().copied().collect();
    while let Some(id) = open.pop() {
        open.extend(graph.task(id).dependents.iter().filter(|dependent| chosen.insert(**dependent)));
    }
    if chosen.iter().any(|id| !graph.task(*id).finally) {
        chosen.extend(graph.ids().filter(|id| graph.task(*id).finally));
    }
    chosen.into_iter().map(|id| graph.task(id).name.to_string()).collect()
}
