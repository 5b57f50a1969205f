//! `spec.rerun`: which tasks are run once more.

use super::{names::Names, problems::Problems};
use crate::api::{Rerun, RerunScope, TaskGraphSpec};

/// Longest id.
const MAX_ID: usize = 63;

/// What is wrong with a rerun.
pub fn check(spec: &TaskGraphSpec, names: &mut Names<'_>, problems: &mut Problems) {
    let Some(Rerun { id, scope, tasks }) = &spec.rerun else { return };
    if id.is_empty() || id.chars().count() > MAX_ID {
        problems.add("spec.rerun.id", format!("an id has 1 to {MAX_ID} characters"));
    }
    match (scope, tasks.is_empty()) {
        (RerunScope::Tasks, true) => problems.add("spec.rerun.tasks", "name the tasks that are to be run once more"),
        (RerunScope::Failed | RerunScope::All, false) => {
            problems.add("spec.rerun.tasks", "tasks are named only with `scope: Tasks`");
        }
        _ => {}
    }
    for (place, name) in tasks.iter().enumerate() {
        if let Err(problem) = names.find(name) {
            problems.add(format!("spec.rerun.tasks[{place}]"), problem);
        }
    }
}
