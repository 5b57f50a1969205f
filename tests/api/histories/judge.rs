//! What an independent watch saw, against what must hold of graphs that are edited and rerun: B and E. The
//! [`Auditor`](crate::support::Auditor) judges A and C, and that numbers never fall.

use std::collections::BTreeMap;

use taskgraph::api::{DesiredState, ROLE_TASK, TaskGraph, TaskGraphSpec, TaskPhase, TaskStatus, Trigger};

use crate::support::{
    namespace::{finished, holds, status},
    sight::{self, Key, Object, Sighting},
};

/// The Job, or child graph, of an attempt: when it was seen to be what, in versions.
#[derive(Clone, Debug, Default)]
struct Attempt {
    created: Option<u64>,
    gone: Option<u64>,
    /// Its pods: when each was made, and when it ended.
    pods: BTreeMap<String, (u64, Option<u64>)>,
}

impl Attempt {
    /// Whether nothing of it could do anything at `version`.
    fn was_over(&self, version: u64) -> bool {
        let before = |time: Option<u64>| time.is_some_and(|time| time < version);
        let pods: Vec<_> = self.pods.values().filter(|(made, _)| *made < version).collect();
        pods.iter().all(|(_, ended)| before(*ended)) && (!pods.is_empty() || before(self.gone))
    }
}

/// Everything of one graph that breaks a rule, in words. `seen` is in the order of versions.
pub fn violations(name: &str, seen: &[Sighting]) -> Vec<String> {
    let graphs: Vec<(u64, &TaskGraph)> = seen
        .iter()
        .filter_map(|one| match &one.object {
            Object::Graph(graph) if one.name == name => Some((one.version, &**graph)),
            _ => None,
        })
        .collect();
    let Some(uid) =
        seen.iter().find(|one| one.name == name && matches!(one.object, Object::Graph(_))).map(|one| &one.uid)
    else {
        return vec![format!("{name} was never seen")];
    };
    let attempts = attempts(uid, seen);
    let mut broken = none_too_early(&graphs, &attempts);
    broken.extend(nothing_lost(&graphs));
    broken.extend(cancelled_too_late(&graphs, &attempts));
    broken
}

fn attempts(uid: &str, seen: &[Sighting]) -> BTreeMap<(String, u32), Attempt> {
    let mut attempts = BTreeMap::<(String, u32), Attempt>::new();
    for one in seen {
        let key: Key = match &one.object {
            Object::Job(key) | Object::Pod(key, _) | Object::Items(key, _) => key.clone(),
            Object::Graph(graph) => sight::key(&**graph),
        };
        if key.graph != *uid || key.role != ROLE_TASK {
            continue;
        }
        let attempt = attempts.entry((key.task, key.attempt)).or_default();
        if let Object::Pod(_, state) = &one.object {
            let (_, ended) = attempt.pods.entry(one.uid.clone()).or_insert((one.version, None));
            if one.gone || state.is_terminal() {
                ended.get_or_insert(one.version);
            }
            continue;
        }
        attempt.created.get_or_insert(one.version);
        let finished = matches!(&one.object, Object::Graph(child) if status(child).completion_time.is_some());
        if one.gone || finished {
            attempt.gone.get_or_insert(one.version);
        }
    }
    attempts
}

/// The specs that were accepted, and in which version that was stored.
fn accepted<'a>(graphs: &[(u64, &'a TaskGraph)]) -> Vec<(u64, &'a TaskGraphSpec)> {
    let mut accepted: Vec<(u64, &TaskGraphSpec)> = Vec::new();
    let mut last = None;
    for (version, graph) in graphs {
        let status = status(graph);
        // stored for the spec of that generation; what the graph holds by now may be a newer one
        let of_this = graphs.iter().find(|(_, other)| other.metadata.generation == status.observed_generation);
        if holds(graph, "Accepted") && status.observed_generation != last {
            last = status.observed_generation;
            accepted.extend(of_this.map(|(_, graph)| (*version, &graph.spec)));
        }
    }
    accepted
}

/// Those before a task, all of which must be final when it starts.
fn before(spec: &TaskGraphSpec, name: &str) -> Option<Vec<String>> {
    let all = spec.tasks.iter().chain(&spec.finally);
    let task = all.clone().find(|task| task.name == name)?;
    let waits_for_all = task.min_succeeded.is_none() && task.trigger != Some(Trigger::AnySucceeded);
    let named = task.depends_on.iter().map(|text| text.split('/').next().unwrap_or_default().to_owned());
    let mut before: Vec<String> = named.filter(|_| waits_for_all).collect();
    if spec.finally.iter().any(|task| task.name == name) {
        before.extend(spec.tasks.iter().map(|task| task.name.clone()));
    }
    Some(before)
}

/// B: when a Job was made, nothing ran any more of what its task waits for: by the spec that was accepted then, or the one
/// before, by which it may have been asked for.
fn none_too_early(graphs: &[(u64, &TaskGraph)], attempts: &BTreeMap<(String, u32), Attempt>) -> Vec<String> {
    let accepted = accepted(graphs);
    let mut broken = Vec::new();
    for ((task, number), attempt) in attempts {
        let Some(created) = attempt.created else { continue };
        let known = accepted.iter().rev().filter(|(version, _)| *version < created).take(2).map(|(_, spec)| *spec);
        // the first one is stored together with what follows from it
        let specs: Vec<_> =
            known.chain(accepted.first().map(|(_, spec)| *spec).filter(|_| accepted.len() == 1)).collect();
        let running = |spec: &&TaskGraphSpec| -> Option<Vec<String>> {
            let before = before(spec, task)?;
            let runs = |other: &&String| {
                let earlier = attempts
                    .iter()
                    .filter(|((name, _), one)| name == *other && one.created.is_some_and(|other| other < created));
                earlier.into_iter().any(|(_, one)| !one.was_over(created))
            };
            Some(before.iter().filter(runs).cloned().collect())
        };
        let found: Vec<_> = specs.iter().filter_map(running).collect();
        if !found.is_empty() && found.iter().all(|running| !running.is_empty()) {
            broken.push(format!("B: attempt {number} of {task} began while {found:?} ran"));
        }
    }
    broken
}

/// E: no task with an attempt is forgotten, and what a task left stays what it left.
fn nothing_lost(graphs: &[(u64, &TaskGraph)]) -> Vec<String> {
    let mut broken = Vec::new();
    let mut known = BTreeMap::<String, u32>::new();
    for (version, graph) in graphs {
        let tasks = status(graph).tasks;
        for (name, attempts) in &known {
            if *attempts > 0 && !tasks.iter().any(|task| task.name == *name) {
                broken.push(format!("E: {name} with {attempts} attempts is forgotten in version {version}"));
            }
        }
        for task in tasks {
            if let Some(left) = task.outputs.get("n").filter(|_| task.phase == TaskPhase::Succeeded) {
                let each = left.as_array().map_or_else(|| vec![left.clone()], Clone::clone);
                if each.iter().any(|left| *left != task.attempts) {
                    broken.push(format!("E: attempt {} of {} left {left}", task.attempts, task.name));
                }
            }
            known.insert(task.name, task.attempts);
        }
    }
    broken
}

/// D: a graph that was cancelled may be Complete only if nothing was left to call off when the operator followed the cancel.
fn cancelled_too_late(graphs: &[(u64, &TaskGraph)], attempts: &BTreeMap<(String, u32), Attempt>) -> Vec<String> {
    let is_cancelled = |graph: &TaskGraph| graph.spec.desired_state == Some(DesiredState::Cancel);
    let complete = graphs.last().is_some_and(|(_, graph)| finished(graph) == Some("Complete"));
    let asked = graphs.iter().find(|(_, graph)| is_cancelled(graph)).and_then(|(_, graph)| graph.metadata.generation);
    let Some(asked) = asked.filter(|_| complete) else { return Vec::new() };
    let followed = graphs.iter().find(|(_, graph)| status(graph).observed_generation >= Some(asked));
    let Some((followed, graph)) = followed else { return vec!["D: a cancel was never followed".to_owned()] };
    let mut broken = Vec::new();
    // what ran may have been seen to end just before
    let is_open = |task: &TaskStatus| !task.phase.is_final() && task.phase != TaskPhase::Running && !task.removed;
    for task in status(graph).tasks.into_iter().filter(is_open) {
        if !graph.spec.finally.iter().any(|last| last.name == task.name) {
            broken
                .push(format!("D: {} was {:?} when the graph was cancelled, which is Complete", task.name, task.phase));
        }
    }
    let in_tasks = |name: &str| graphs.iter().any(|(_, graph)| graph.spec.tasks.iter().any(|task| task.name == name));
    for ((task, number), attempt) in attempts.iter().filter(|((task, _), _)| in_tasks(task)) {
        if attempt.created.is_some_and(|created| created > *followed) {
            broken
                .push(format!("D: attempt {number} of {task} began after the graph was cancelled, which is Complete"));
        }
    }
    broken
}
