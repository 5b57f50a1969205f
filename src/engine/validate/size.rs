//! Bounds on the size of a spec, checked before anything else of it is looked at.

use serde_json::{Map, Value};

use super::{compensations::compensated, problems::Problems, tasks::all_tasks};
use crate::{
    api::{JobTask, TaskGraphSpec},
    engine::policy::outputs,
};

/// Most tasks in `spec.tasks`.
pub const MAX_TASKS: usize = 2000;
/// Most tasks in `spec.finally`.
pub const MAX_FINALLY: usize = 64;
/// Most tasks with `compensate`: while they are undone, the status tells of each twice.
pub const MAX_COMPENSATIONS: usize = 500;
/// Most entries of `dependsOn`, over all tasks.
pub const MAX_DEPENDENCIES: usize = 100_000;
/// Most bytes of a spec, as JSON.
pub const MAX_SPEC_BYTES: usize = 640 << 10;
/// How deep JSON may nest: as deep as `serde_json` reads it. Other formats know no bound, and much of what is done with
/// a value recurses.
const MAX_DEPTH: usize = 128;

/// Checks the size of a spec.
pub fn check(spec: &TaskGraphSpec, problems: &mut Problems) {
    let limits = [("spec.tasks", spec.tasks.len(), MAX_TASKS), ("spec.finally", spec.finally.len(), MAX_FINALLY)];
    for (path, count, limit) in limits {
        if count > limit {
            problems.add(path, format!("{count} tasks; the limit is {limit}"));
        }
    }
    let undone = compensated(spec).count();
    if undone > MAX_COMPENSATIONS {
        problems.add("spec.tasks", format!("{undone} tasks with compensate; the limit is {MAX_COMPENSATIONS}"));
    }
    let dependencies: usize = all_tasks(spec).map(|(_, task)| task.depends_on.len()).sum();
    if dependencies > MAX_DEPENDENCIES {
        problems.add("spec.tasks", format!("{dependencies} dependencies in all; the limit is {MAX_DEPENDENCIES}"));
    }
    let nested = nested_too_deep(spec);
    for path in &nested {
        problems.add(path, format!("nests more than {MAX_DEPTH} deep"));
    }
    if !nested.is_empty() {
        return;
    }
    let bytes = outputs::size(spec);
    if bytes > MAX_SPEC_BYTES {
        problems.add("spec", format!("{bytes} bytes as JSON; the limit is {MAX_SPEC_BYTES}: split the graph"));
    }
}

/// The paths of what nests deeper than may be.
fn nested_too_deep(spec: &TaskGraphSpec) -> Vec<String> {
    let deep = |object: Option<&Map<String, Value>>| object.is_some_and(too_deep);
    let template = |job: &JobTask| too_deep(&job.template);
    let claims = spec.volume_claim_templates.iter().enumerate();
    let claims =
        claims.map(|(index, claim)| (format!("spec.volumeClaimTemplates[{index}].spec"), too_deep(&claim.spec)));
    let whole = std::iter::once(("spec.arguments".to_owned(), deep(spec.arguments.as_ref()))).chain(claims);
    let parts = all_tasks(spec).flat_map(|(place, task)| {
        let items = task.for_each.as_ref().is_some_and(|rule| deeper(&rule.items, MAX_DEPTH));
        let undo = task.compensate.as_ref();
        [
            ("arguments", deep(task.arguments.as_ref())),
            ("container", deep(task.container.as_deref())),
            ("job.template", task.job.as_ref().is_some_and(template)),
            ("compensate.arguments", deep(undo.and_then(|undo| undo.arguments.as_ref()))),
            ("compensate.container", deep(undo.and_then(|undo| undo.container.as_deref()))),
            ("compensate.job.template", undo.and_then(|undo| undo.job.as_ref()).is_some_and(template)),
            ("forEach.items", items),
        ]
        .into_iter()
        .filter(|(_, deep)| *deep)
        .map(move |(field, _)| format!("{}.{field}", place.path()))
    });
    whole.filter(|(_, deep)| *deep).map(|(path, _)| path).chain(parts).collect()
}

/// Whether an object nests deeper than may be.
pub fn too_deep(object: &Map<String, Value>) -> bool {
    object.values().any(|member| deeper(member, MAX_DEPTH - 1))
}

/// Whether a value nests more than so many levels.
fn deeper(value: &Value, left: usize) -> bool {
    match value {
        Value::Array(list) => left == 0 || list.iter().any(|element| deeper(element, left - 1)),
        Value::Object(object) => left == 0 || object.values().any(|member| deeper(member, left - 1)),
        _ => false,
    }
}
