//! Judges from outside whether what must always hold did hold (A, B and C of the rules).

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use taskgraph::api::{ROLE_COMPENSATION, ROLE_TASK, Task, TaskGraph, TaskPhase, TaskStatus, Trigger};

use super::{
    namespace::{Namespace, finished, status},
    sight::{self, Key, Object, Sight, Sighting, Span},
};

/// Watches a namespace from before its first graph, and judges at the end.
pub struct Auditor {
    sight: Sight,
    namespace: String,
}

impl Auditor {
    /// Begins to watch.
    pub async fn start(namespace: &Namespace) -> Result<Self> {
        Ok(Self { sight: Sight::start(namespace).await?, namespace: namespace.name.clone() })
    }

    /// What it saw.
    pub fn sight(&self) -> &Sight {
        &self.sight
    }

    /// Judges what happened until now.
    ///
    /// # Panics
    /// With every rule that was broken.
    pub async fn judge(&self) -> Result<Vec<Sighting>> {
        let seen = self.sight.caught_up().await?;
        let broken = violations(&seen);
        assert!(broken.is_empty(), "{}: {}", self.namespace, broken.join("\n"));
        Ok(seen)
    }
}

/// When something existed.
#[derive(Clone, Debug, Default)]
struct Life {
    key: Key,
    created: Span,
    /// Place of its item.
    item: Option<usize>,
    /// A Job's deletion; a pod's end.
    ended: Option<Span>,
}

impl Life {
    /// Whether it was over, as far as was seen, when something else began.
    fn ended_before(&self, other: Span) -> bool {
        self.ended.is_some_and(|ended| ended.may_precede(other))
    }
}

/// Everything that breaks a rule, in words. `seen` is in the order of versions.
pub fn violations(seen: &[Sighting]) -> Vec<String> {
    let (mut jobs, mut pods) = (BTreeMap::<&str, Life>::new(), BTreeMap::<&str, Life>::new());
    let mut graphs = BTreeMap::<&str, Vec<(Span, &TaskGraph)>>::new();
    for one in seen {
        match &one.object {
            Object::Job(key) => {
                let job = jobs.entry(&one.uid).or_insert_with(|| Life {
                    key: key.clone(),
                    created: one.span(),
                    ..Life::default()
                });
                if one.gone {
                    job.ended.get_or_insert(one.span());
                }
            }
            Object::Items(..) => {}
            Object::Pod(key, state) => {
                let pod = pods.entry(&one.uid).or_insert_with(|| Life {
                    key: key.clone(),
                    created: one.span(),
                    item: state.item.or(key.item),
                    ended: None,
                });
                if one.gone || state.is_terminal() {
                    pod.ended.get_or_insert(one.span());
                }
            }
            Object::Graph(graph) => {
                graphs.entry(&one.uid).or_default().push((one.span(), graph));
                let key = sight::key(&**graph);
                if key.graph.is_empty() {
                    continue;
                }
                // a child graph is the attempt's Job and its pod in one
                let over = one.gone || finished(graph).is_some();
                for lives in [&mut jobs, &mut pods] {
                    let child = lives.entry(&one.uid).or_insert_with(|| Life {
                        item: key.item,
                        key: key.clone(),
                        created: one.span(),
                        ended: None,
                    });
                    if over {
                        child.ended.get_or_insert(one.span());
                    }
                }
            }
        }
    }
    let (jobs, pods): (Vec<Life>, Vec<Life>) = (jobs.into_values().collect(), pods.into_values().collect());
    let mut broken = one_job_an_attempt(&jobs);
    broken.extend(one_pod_a_task(&pods));
    broken.extend(one_attempt_at_once(&jobs, &pods));
    for (uid, versions) in graphs {
        let of_graph = |life: &&Life| life.key.graph == uid;
        let jobs: Vec<&Life> = jobs.iter().filter(of_graph).collect();
        let pods: Vec<&Life> = pods.iter().filter(of_graph).collect();
        // what came before what is another question once a graph was edited or rerun
        let as_created =
            versions.iter().all(|(_, graph)| status(graph).revision_number <= 1 && status(graph).reopen_time.is_none());
        if let Some((_, graph)) = versions.last().filter(|(_, graph)| {
            // the tasks of a template stand elsewhere
            as_created && graph.spec.template_ref.is_none()
        }) {
            broken.extend(none_too_early(graph, &jobs, &pods));
        }
        broken.extend(final_stays_final(&versions, &jobs));
    }
    broken
}

fn one_job_an_attempt(jobs: &[Life]) -> Vec<String> {
    let mut count = BTreeMap::<&Key, usize>::new();
    for job in jobs {
        *count.entry(&job.key).or_default() += 1;
    }
    count.iter().filter(|(_, count)| **count > 1).map(|(key, count)| format!("A: {count} Jobs for {key:?}")).collect()
}

fn one_pod_a_task(pods: &[Life]) -> Vec<String> {
    let mut broken = Vec::new();
    for (place, one) in pods.iter().enumerate() {
        for other in &pods[place + 1..] {
            let whose = |key: &Key| (key.graph.clone(), key.role.clone(), key.task.clone());
            let same_task = whose(&one.key) == whose(&other.key);
            // the items of one attempt go side by side
            let items = one.item != other.item && one.key.attempt == other.key.attempt;
            if same_task && !items && !one.ended_before(other.created) && !other.ended_before(one.created) {
                broken.push(format!(
                    "A: two live pods of {}: attempts {} and {}",
                    one.key.task, one.key.attempt, other.key.attempt
                ));
            }
        }
    }
    broken
}

fn one_attempt_at_once(jobs: &[Life], pods: &[Life]) -> Vec<String> {
    let mut broken = Vec::new();
    for job in jobs {
        let before = |pod: &&Life| {
            let same_task =
                (&pod.key.graph, &pod.key.role, &pod.key.task) == (&job.key.graph, &job.key.role, &job.key.task);
            same_task && pod.key.attempt < job.key.attempt
        };
        for pod in pods.iter().filter(before).filter(|pod| !pod.ended_before(job.created)) {
            let (task, attempt, earlier) = (&job.key.task, job.key.attempt, pod.key.attempt);
            broken.push(format!("A: attempt {attempt} of {task} began while a pod of attempt {earlier} lived"));
        }
    }
    broken
}

/// B: when a Job was created, the pods of all that its task waits for had ended, and no Job of those came later.
fn none_too_early(graph: &TaskGraph, jobs: &[&Life], pods: &[&Life]) -> Vec<String> {
    let before = certain_ancestors(graph);
    let mut broken = Vec::new();
    let (undoing, jobs): (Vec<&Life>, Vec<&Life>) = jobs.iter().partition(|job| job.key.role == ROLE_COMPENSATION);
    broken.extend(undone_in_reverse(graph, &undoing, pods));
    for job in &jobs {
        let Some(ancestors) = before.get(job.key.task.as_str()) else {
            broken.push(format!("B: a Job for {:?}, which is no task of the graph", job.key.task));
            continue;
        };
        for ancestor in ancestors {
            let of_task = |pod: &&&Life| pod.key.task == *ancestor && pod.key.role == ROLE_TASK;
            let alive = pods.iter().filter(of_task).any(|pod| !pod.ended_before(job.created));
            let later = jobs.iter().any(|other| other.key.task == *ancestor && job.created.precedes(other.created));
            if alive || later {
                broken.push(format!("B: {} began before {ancestor} had ended", job.key.task));
            }
        }
    }
    broken
}

/// B: when a compensation began, all tasks had ended, and all compensations of tasks that depend on its own.
fn undone_in_reverse(graph: &TaskGraph, undoing: &[&Life], pods: &[&Life]) -> Vec<String> {
    let mut broken = Vec::new();
    let main: BTreeSet<&str> = graph.spec.tasks.iter().map(|task| task.name.as_str()).collect();
    let before = ancestors(graph, |_| true, |_| true);
    for job in undoing {
        let task = job.key.task.as_str();
        let phase = status(graph).tasks.into_iter().find(|known| known.name == task).map(|known| known.phase);
        if phase != Some(TaskPhase::Succeeded) {
            broken.push(format!("B: {task} is undone, and is {phase:?}"));
        }
        for pod in pods.iter().filter(|pod| !pod.ended_before(job.created) && main.contains(pod.key.task.as_str())) {
            let behind = before.get(pod.key.task.as_str()).is_some_and(|before| before.contains(task));
            if pod.key.role == ROLE_TASK || behind {
                broken.push(format!("B: {task} is undone while the {} {} has a pod", pod.key.role, pod.key.task));
            }
        }
        let last = |pod: &&&Life| !main.contains(pod.key.task.as_str());
        if let Some(pod) = pods.iter().filter(last).find(|pod| pod.created.precedes(job.created)) {
            broken.push(format!("B: {} of finally began before {task} was undone", pod.key.task));
        }
        for later in undoing.iter().filter(|later| job.created.precedes(later.created)) {
            if before.get(later.key.task.as_str()).is_some_and(|before| before.contains(task)) {
                broken.push(format!("B: {task} was undone before {}, which depends on it", later.key.task));
            }
        }
    }
    broken
}

/// For each task those that must be final before it starts, whatever happens.
fn certain_ancestors(graph: &TaskGraph) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut before = BTreeMap::<&str, BTreeSet<&str>>::new();
    let main: BTreeSet<&str> = graph.spec.tasks.iter().map(|task| task.name.as_str()).collect();
    for task in &graph.spec.finally {
        before.insert(&task.name, main.clone());
    }
    for task in &graph.spec.tasks {
        before.insert(&task.name, BTreeSet::new());
    }
    // a task that did not begin may have been final before what it waits for: a branch was not taken, a failure stopped it
    let begun = |task: &TaskStatus| match task.phase {
        TaskPhase::Skipped | TaskPhase::Omitted => false,
        TaskPhase::Cancelled => task.attempts > 0,
        _ => true,
    };
    let begun: BTreeSet<String> = status(graph).tasks.into_iter().filter(begun).map(|task| task.name).collect();
    let counts = |task: &Task| task.min_succeeded.is_none() && task.trigger != Some(Trigger::AnySucceeded);
    for (task, more) in ancestors(graph, counts, |task| begun.contains(task)) {
        before.entry(task).or_default().extend(more);
    }
    before
}

/// For each task those before it, as far as `counts` says of the tasks behind them; across those that `passes` holds for.
fn ancestors(
    graph: &TaskGraph,
    counts: impl Fn(&Task) -> bool,
    passes: impl Fn(&str) -> bool,
) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut before = BTreeMap::<&str, BTreeSet<&str>>::new();
    let all: Vec<&Task> = graph.spec.tasks.iter().chain(&graph.spec.finally).collect();
    // as often as the longest path may ask for; the graphs of tests are small
    for _ in 0..all.len() {
        for task in all.iter().filter(|task| counts(task)) {
            for dependency in task.depends_on.iter().map(|text| text.split('/').next().unwrap_or_default()) {
                let mut more = before.get(dependency).filter(|_| passes(dependency)).cloned().unwrap_or_default();
                more.insert(dependency);
                before.entry(&task.name).or_default().extend(more);
            }
        }
    }
    before
}

/// A task, and after it what undoes it.
fn with_compensation(task: TaskStatus) -> Vec<TaskStatus> {
    let name = format!("the compensation of {}", task.name);
    let undo = task.compensation.clone().map(|undo| undo.into_task(name));
    std::iter::once(task).chain(undo).collect()
}

/// When a task was final, and how.
struct Rest {
    task: String,
    from: Span,
    until: Option<Span>,
    phase: TaskPhase,
    attempts: u32,
}

/// C: a task that was stored as final has no further Job and stays as it is, until it is told to start afresh.
fn final_stays_final(versions: &[(Span, &TaskGraph)], jobs: &[&Life]) -> Vec<String> {
    let mut broken = Vec::new();
    let mut rests: Vec<Rest> = Vec::new();
    let mut attempts = BTreeMap::<String, u32>::new();
    let mut told = (0, None);
    for (span, graph) in versions {
        let status = status(graph);
        let now = (status.revision_number.max(1), status.rerun.clone());
        let was_told = told.0 > 0 && told != now;
        told = now;
        for task in status.tasks.into_iter().flat_map(with_compensation) {
            let known = attempts.entry(task.name.clone()).or_default();
            if task.attempts < *known {
                broken.push(format!("E: attempts of {} fell from {known} to {}", task.name, task.attempts));
            }
            *known = task.attempts;
            let rest = rests.iter_mut().find(|rest| rest.task == task.name && rest.until.is_none());
            match rest {
                Some(rest) if rest.phase == task.phase => {}
                // what may follow an edit or a rerun in the same write: no attempt, and the last one stays the last
                Some(rest) if was_told && rest.attempts == task.attempts => rest.until = Some(*span),
                Some(rest) => {
                    broken.push(format!("C: {} was {:?} and became {:?}", task.name, rest.phase, task.phase));
                }
                None if task.phase.is_final() => {
                    let (phase, attempts) = (task.phase, task.attempts);
                    rests.push(Rest { task: task.name, from: *span, until: None, phase, attempts });
                }
                None => {}
            }
        }
    }
    for job in jobs.iter().filter(|job| job.key.role == ROLE_TASK) {
        let rests = rests.iter().filter(|rest| rest.task == job.key.task);
        let inside = |rest: &&Rest| {
            rest.from.precedes(job.created) && rest.until.is_none_or(|until| job.created.precedes(until))
        };
        if let Some(rest) = rests.clone().find(inside) {
            let (task, attempt) = (&job.key.task, job.key.attempt);
            broken.push(format!("C: attempt {attempt} of {task} began after it was {:?}", rest.phase));
        }
    }
    broken
}
