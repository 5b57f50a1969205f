//! `spec → Plan`, or every problem with its field path.
//!
//! [`check`] looks at everything once and tells, whatever it found, which payloads there are ([`PayloadSource`]): the
//! checks that need Kubernetes' types run over those, and their problems join the others. [`compile`] is for callers
//! that need only the outcome.

mod cache;
mod compensations;
mod dependencies;
mod expressions;
mod for_each;
#[cfg(test)]
mod fuzz;
mod graphs;
pub(in crate::engine) mod hash;
mod names;
mod payloads;
mod problems;
mod rerun;
mod settings;
mod size;
mod tasks;
mod templates;
#[cfg(test)]
mod tests;
mod volumes;
mod waiting;

use std::{collections::BTreeMap, fmt, sync::Arc};

#[cfg(test)]
pub(crate) use self::compensations::attach;
pub(crate) use self::names::suggest;
use self::{
    expressions::Expressions,
    graphs::Chain,
    names::Names,
    problems::Problems,
    tasks::{Words, all_tasks, check_words},
    templates::Template,
};
#[cfg(feature = "kubernetes")]
pub(crate) use self::{graphs::is_shared, templates::title};
pub use self::{
    graphs::{MAX_DEPTH, MAX_PINNED_BYTES},
    payloads::PayloadSource,
    size::{MAX_COMPENSATIONS, MAX_DEPENDENCIES, MAX_FINALLY, MAX_SPEC_BYTES, MAX_TASKS},
};
use super::{
    graph::{Graph, OutputDef, Settings, TaskDef, TaskId, order::Order},
    payload::places,
};
use crate::api::{PodDefaults, TaskGraphSpec, TaskTemplateSpec, TemplateRef, VolumeClaimTemplate};

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
    /// The `podDefaults` of all graph templates, with their field paths.
    pub defaults: Vec<(String, PodDefaults)>,
    /// The claims of all graphs, with their field paths.
    pub claims: Vec<(String, VolumeClaimTemplate)>,
}

/// Checks a spec and makes it ready to run.
pub fn compile(spec: &TaskGraphSpec, templates: &Templates) -> Result<Plan, Refusal> {
    check(spec, templates).outcome
}

/// Checks a spec and makes it ready to run; also lists its payloads.
///
/// A spec beyond the bounds on its size is refused for that alone: nothing else of it is looked at.
pub fn check(spec: &TaskGraphSpec, templates: &Templates) -> Report {
    let mut found = Found::default();
    let plan = match &spec.template_ref {
        Some(reference) => graphs::whole(spec, reference, templates, &mut found),
        None => plan(spec, &Chain::new(templates), &mut found),
    };
    graphs::check_size(spec, &mut found);
    let Found { problems, missing, payloads, defaults, claims, .. } = found;
    let outcome = match plan {
        Some(plan) if problems.list.is_empty() && missing.is_empty() => Ok(plan),
        _ => Err(Refusal { problems: problems.list, missing }),
    };
    Report { outcome, payloads, defaults, claims }
}

/// What a check has found so far.
#[derive(Default)]
struct Found {
    problems: Problems,
    missing: Vec<(String, TemplateRef)>,
    payloads: Vec<PayloadSource>,
    defaults: Vec<(String, PodDefaults)>,
    claims: Vec<(String, VolumeClaimTemplate)>,
    templates: BTreeMap<TemplateRef, Template>,
}

/// Checks one graph, the templates that it uses included; no plan if anything is wrong with it.
fn plan(spec: &TaskGraphSpec, chain: &Chain<'_>, found: &mut Found) -> Option<Plan> {
    let mut problems = std::mem::take(&mut found.problems);
    let before_all = (problems.list.len(), found.missing.len());
    size::check(spec, &mut problems);
    if problems.list.len() > before_all.0 {
        found.problems = problems;
        return None;
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
    volumes::check_claims(&spec.volume_claim_templates, &mut problems);
    waiting::check_approvals(spec, &mut problems);
    let settings = settings::settings(spec, &mut problems);

    let ids = intern(spec, &mut problems);
    let mut names = Names::new(ids.clone());
    let waiting = dependencies::resolve(spec, &mut names, &mut problems);
    rerun::check(spec, &mut names, &mut problems);
    let before: Vec<Vec<usize>> =
        waiting.iter().map(|waiting| waiting.dependencies.iter().map(|id| id.index()).collect()).collect();
    let order = Order::new(&before);
    report_cycles(spec, &order, &mut problems);

    let tasks: Vec<_> = all_tasks(spec).map(|(_, task)| task).collect();
    let compensated = compensations::compensated(spec).collect();
    let expressions =
        Expressions::new(names, tasks, spec.tasks.len(), compensated, order.ancestors(), spec.arguments.as_ref());
    let mut checker = Checker {
        spec,
        chain,
        expressions: if chain.is_empty() { expressions } else { expressions.in_template() },
        compiled_templates: std::mem::take(&mut found.templates),
        payloads: std::mem::take(&mut found.payloads),
        defaults: std::mem::take(&mut found.defaults),
        claims: std::mem::take(&mut found.claims),
        missing: std::mem::take(&mut found.missing),
        problems,
    };
    let definitions: Vec<Option<TaskDef>> = all_tasks(spec)
        .zip(waiting)
        .enumerate()
        .map(|(number, ((place, task), waiting))| checker.task(number, place, task, waiting))
        .collect();
    let outputs = checker.returns();
    let compensations = checker.compensations();
    let Checker { problems, missing, payloads, defaults, mut claims, compiled_templates: templates, .. } = checker;
    let fine = (problems.list.len(), missing.len()) == before_all;
    let own = spec.volume_claim_templates.iter().enumerate();
    claims.extend(own.map(|(index, claim)| (format!("spec.volumeClaimTemplates[{index}]"), claim.clone())));
    *found = Found { problems, missing, payloads, defaults, claims, templates };
    let tasks = definitions.into_iter().collect::<Option<Vec<_>>>().filter(|_| fine)?;
    Some(Plan { graph: Arc::new(link(spec, tasks, compensations, outputs, &order)), settings })
}

/// What the check of tasks shares.
struct Checker<'a> {
    spec: &'a TaskGraphSpec,
    chain: &'a Chain<'a>,
    expressions: Expressions<'a>,
    compiled_templates: BTreeMap<TemplateRef, Template>,
    payloads: Vec<PayloadSource>,
    defaults: Vec<(String, PodDefaults)>,
    claims: Vec<(String, VolumeClaimTemplate)>,
    missing: Vec<(String, TemplateRef)>,
    problems: Problems,
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

/// Puts the tasks together: dependents, which tasks are failure handlers, and what undoes them.
fn link(
    spec: &TaskGraphSpec,
    mut tasks: Vec<TaskDef>,
    compensations: Vec<TaskDef>,
    outputs: Vec<OutputDef>,
    order: &Order,
) -> Graph {
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
    let first_compensation = tasks.len();
    compensations::attach(&mut tasks, compensations, order);
    Graph {
        tasks,
        first_finally: spec.tasks.len(),
        first_compensation,
        by_name,
        arguments: Arc::new(spec.arguments.clone().unwrap_or_default()),
        outputs,
        pod_defaults: spec.pod_defaults.clone(),
    }
}
