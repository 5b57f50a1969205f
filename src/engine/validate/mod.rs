//! `spec → Plan`, or every problem with its field path.
//!
//! [`check`] looks at everything once and tells, whatever it found, which payloads there are ([`PayloadSource`]): the
//! checks that need Kubernetes' types run over those, and their problems join the others. [`compile`] is for callers
//! that need only the outcome.

mod dependencies;
mod expressions;
mod hash;
mod names;
mod payloads;
mod settings;
mod tasks;
mod templates;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, io, sync::Arc};

pub(super) use self::names::suggest;
pub use self::payloads::PayloadSource;
use self::{
    expressions::Expressions,
    names::Names,
    tasks::{Words, all_tasks, check_words},
    templates::Template,
};
use super::{
    graph::{Graph, Settings, TaskDef, TaskId, order::Order},
    payload::places,
};
use crate::api::{TaskGraphSpec, TaskTemplateSpec, TemplateRef};

/// Most tasks in `spec.tasks`.
pub const MAX_TASKS: usize = 2000;
/// Most tasks in `spec.finally`.
pub const MAX_FINALLY: usize = 64;
/// Most entries of `dependsOn`, over all tasks.
pub const MAX_DEPENDENCIES: usize = 100_000;
/// Most bytes of a spec, as JSON.
pub const MAX_SPEC_BYTES: usize = 640 << 10;
/// How many members of a cycle a message names.
const MAX_CYCLE_SHOWN: usize = 20;

/// The templates that a graph may use.
pub type Templates = BTreeMap<TemplateRef, Arc<TaskTemplateSpec>>;

/// A graph that was found valid, with its settings.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What does not change while it runs.
    pub graph: Arc<Graph>,
    /// What may.
    pub settings: Settings,
}

/// One thing wrong with a spec.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Field path, as `spec.tasks[3].dependsOn[0]`.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Why a spec cannot run (yet).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong: the user must mend it (in the graph, or in a template that it uses).
    pub problems: Vec<Problem>,
    /// Templates that are not there: the graph waits for them. Field path of the reference, and the template.
    pub missing: Vec<(String, TemplateRef)>,
}

/// What [`check`] found.
#[derive(Debug)]
pub struct Report {
    /// The plan, or why there is none.
    pub outcome: Result<Plan, Refusal>,
    /// Every container and pod template, each template's once: also of specs that were refused.
    pub payloads: Vec<PayloadSource>,
}

/// Problems, in the order in which they were found.
#[derive(Debug, Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem { path: path.into(), message: message.into() });
    }
}

/// Checks a spec and makes it ready to run.
pub fn compile(spec: &TaskGraphSpec, templates: &Templates) -> Result<Plan, Refusal> {
    check(spec, templates).outcome
}

/// Checks a spec and makes it ready to run; also lists its payloads.
///
/// A spec beyond the bounds on its size is refused for that alone: nothing else of it is looked at.
pub fn check(spec: &TaskGraphSpec, templates: &Templates) -> Report {
    let mut problems = Problems::default();
    check_size(spec, &mut problems);
    if !problems.0.is_empty() {
        let refusal = Refusal { problems: problems.0, missing: Vec::new() };
        return Report { outcome: Err(refusal), payloads: Vec::new() };
    }
    if spec.tasks.is_empty() {
        problems.add("spec.tasks", "a graph has at least one task");
    }
    let words = Words {
        display_name: spec.display_name.as_deref(),
        description: spec.description.as_deref(),
        type_: None,
        tags: &spec.tags,
    };
    check_words(&words, "spec", &mut problems);
    check_pod_defaults(spec, &mut problems);
    let settings = settings::settings(spec, &mut problems);

    let ids = intern(spec, &mut problems);
    let mut names = Names::new(ids.clone());
    let waiting = dependencies::resolve(spec, &mut names, &mut problems);
    let before: Vec<Vec<usize>> =
        waiting.iter().map(|waiting| waiting.dependencies.iter().map(|id| id.index()).collect()).collect();
    let order = Order::new(&before);
    report_cycles(spec, &order, &mut problems);

    let tasks = all_tasks(spec).map(|(_, task)| task).collect();
    let expressions = Expressions::new(names, tasks, spec.tasks.len(), order.ancestors(), spec.arguments.as_ref());
    let mut checker = Checker {
        spec,
        templates,
        expressions,
        compiled_templates: BTreeMap::new(),
        payloads: Vec::new(),
        missing: Vec::new(),
        problems,
    };
    let definitions: Vec<Option<TaskDef>> = all_tasks(spec)
        .zip(waiting)
        .enumerate()
        .map(|(number, ((place, task), waiting))| checker.task(number, place, task, waiting))
        .collect();
    let Checker { problems, missing, payloads, .. } = checker;
    let outcome = match definitions.into_iter().collect::<Option<Vec<_>>>() {
        Some(tasks) if problems.0.is_empty() && missing.is_empty() => {
            Ok(Plan { graph: Arc::new(link(spec, tasks, &order)), settings })
        }
        _ => Err(Refusal { problems: problems.0, missing }),
    };
    Report { outcome, payloads }
}

/// What the check of tasks shares.
struct Checker<'a> {
    spec: &'a TaskGraphSpec,
    templates: &'a Templates,
    expressions: Expressions<'a>,
    compiled_templates: BTreeMap<TemplateRef, Template>,
    payloads: Vec<PayloadSource>,
    missing: Vec<(String, TemplateRef)>,
    problems: Problems,
}

fn check_size(spec: &TaskGraphSpec, problems: &mut Problems) {
    let limits = [("spec.tasks", spec.tasks.len(), MAX_TASKS), ("spec.finally", spec.finally.len(), MAX_FINALLY)];
    for (path, count, limit) in limits {
        if count > limit {
            problems.add(path, format!("{count} tasks; the limit is {limit}"));
        }
    }
    let dependencies: usize = all_tasks(spec).map(|(_, task)| task.depends_on.len()).sum();
    if dependencies > MAX_DEPENDENCIES {
        problems.add("spec.tasks", format!("{dependencies} dependencies in all; the limit is {MAX_DEPENDENCIES}"));
    }
    if let Some(bytes) = json_size(spec).filter(|bytes| *bytes > MAX_SPEC_BYTES) {
        problems.add("spec", format!("{bytes} bytes as JSON; the limit is {MAX_SPEC_BYTES}: split the graph"));
    }
}

/// Counts the bytes of a value as JSON, and keeps none of them.
fn json_size(value: &impl serde::Serialize) -> Option<usize> {
    struct Counter(usize);
    impl io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    serde_json::to_writer(&mut counter, value).ok()?;
    Some(counter.0)
}

fn check_pod_defaults(spec: &TaskGraphSpec, problems: &mut Problems) {
    let Some(defaults) = spec.pod_defaults.as_ref().and_then(|defaults| serde_json::to_value(defaults).ok()) else {
        return;
    };
    for (below, _) in places::any_spots(&defaults) {
        problems
            .add(format!("spec.podDefaults{below}"), "`${{ }}` may not stand in podDefaults, which all tasks share");
    }
}

/// The ids of all names; the first task of a name has it.
fn intern<'a>(spec: &'a TaskGraphSpec, problems: &mut Problems) -> BTreeMap<&'a str, TaskId> {
    let mut ids = BTreeMap::new();
    let mut places = Vec::new();
    for (number, (place, task)) in all_tasks(spec).enumerate() {
        places.push(place);
        let id = TaskId(u32::try_from(number).unwrap_or(u32::MAX));
        let first = *ids.entry(task.name.as_str()).or_insert(id);
        // an empty name is reported for itself
        if first != id && !task.name.is_empty() {
            let first = places.get(first.index()).map(|place| place.path()).unwrap_or_default();
            problems.add(
                format!("{}.name", place.path()),
                format!("{:?} is the name of {first} already", names::shorten(&task.name)),
            );
        }
    }
    ids
}

fn report_cycles(spec: &TaskGraphSpec, order: &Order, problems: &mut Problems) {
    let tasks: Vec<_> = all_tasks(spec).collect();
    for cycle in order.cycles() {
        let Some((place, first)) = cycle.first().and_then(|first| tasks.get(*first)) else { continue };
        let mut names: Vec<String> = cycle
            .iter()
            .take(MAX_CYCLE_SHOWN)
            .filter_map(|member| tasks.get(*member))
            .map(|(_, task)| names::shorten(&task.name))
            .collect();
        if cycle.len() > MAX_CYCLE_SHOWN {
            names.push(format!("… ({} tasks in all)", cycle.len()));
        }
        names.push(names::shorten(&first.name));
        let list = if place.finally { "spec.finally" } else { "spec.tasks" };
        problems.add(list, format!("cycle: {}", names.join(" → ")));
    }
}

/// Puts the tasks together: dependents, and which tasks are failure handlers.
fn link(spec: &TaskGraphSpec, mut tasks: Vec<TaskDef>, order: &Order) -> Graph {
    let mut dependents: Vec<Vec<TaskId>> = vec![Vec::new(); tasks.len()];
    let mut by_name = BTreeMap::new();
    for (number, task) in tasks.iter().enumerate() {
        let id = TaskId(u32::try_from(number).unwrap_or(u32::MAX));
        by_name.insert(Arc::clone(&task.name), id);
        for dependency in &task.dependencies {
            if let Some(after) = dependents.get_mut(dependency.index()) {
                after.push(id);
            }
        }
    }
    for (task, dependents) in tasks.iter_mut().zip(dependents) {
        task.dependents = dependents;
    }
    for number in order.sorted() {
        let Some(task) = tasks.get(number) else { continue };
        let follows = !task.dependencies.is_empty()
            && task
                .dependencies
                .iter()
                .all(|dependency| tasks.get(dependency.index()).is_some_and(|before| before.handler));
        if let Some(task) = tasks.get_mut(number) {
            task.handler |= follows;
        }
    }
    Graph {
        tasks,
        first_finally: spec.tasks.len(),
        by_name,
        arguments: Arc::new(spec.arguments.clone().unwrap_or_default()),
    }
}
