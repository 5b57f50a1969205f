//! What an independent watch saw, against what must hold of graphs that are edited and rerun: B and E. The
//! [`Auditor`](crate::support::Auditor) judges A and C, and that numbers never fall.

use std::collections::BTreeMap;

use taskgraph::api::{DesiredState, ROLE_TASK, TaskGraph, TaskGraphSpec, TaskPhase, TaskStatus, Trigger};

use crate::support::{
    namespace::{finished, holds, status},
    sight::{self, Key, Object, Sighting, Span},
};

/// A graph as it was seen, and when.
type Seen<'a> = (Span, &'a TaskGraph);

/// Attempts, by task and number.
type Attempts = BTreeMap<(String, u32), Attempt>;

/// The Job, or child graph, of an attempt: when it was seen to be what.
#[derive(Clone, Debug, Default)]
struct Attempt {
    created: Option<Span>,
    gone: Option<Span>,
    /// Its pods: when each was made, and when it ended.
    pods: BTreeMap<String, (Span, Option<Span>)>,
}

impl Attempt {
    /// Whether something of it could do anything at `time`, without a doubt.
    fn ran(&self, time: Span) -> bool {
        let was_over = |ended: Option<Span>| ended.is_some_and(|ended| ended.may_precede(time));
        let lives = self.pods.values().any(|(made, ended)| made.precedes(time) && !was_over(*ended));
        let ended = was_over(self.gone) || self.pods.values().any(|(_, ended)| was_over(*ended));
        self.created.is_some_and(|created| created.precedes(time)) && (lives || !ended)
    }
}

/// Everything of one graph that breaks a rule, in words. `seen` is in the order of versions.
pub fn violations(name: &str, seen: &[Sighting]) -> Vec<String> {
    let graphs: Vec<Seen> = seen
        .iter()
        .filter_map(|one| match &one.object {
            Object::Graph(graph) if one.name == name => Some((one.span(), &**graph)),
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

fn attempts(uid: &str, seen: &[Sighting]) -> Attempts {
    let mut attempts = Attempts::new();
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
            let (_, ended) = attempt.pods.entry(one.uid.clone()).or_insert((one.span(), None));
            if one.gone || state.is_terminal() {
                ended.get_or_insert(one.span());
            }
            continue;
        }
        attempt.created.get_or_insert(one.span());
        let finished = matches!(&one.object, Object::Graph(child) if status(child).completion_time.is_some());
        if one.gone || finished {
            attempt.gone.get_or_insert(one.span());
        }
    }
    attempts
}

/// A spec that a stored status tells was accepted.
struct Accepted<'a> {
    /// When that was stored.
    stored: Span,
    generation: Option<i64>,
    spec: &'a TaskGraphSpec,
}

fn accepted<'a>(graphs: &[Seen<'a>]) -> Vec<Accepted<'a>> {
    let mut accepted: Vec<Accepted<'a>> = Vec::new();
    let mut last = None;
    for (stored, graph) in graphs {
        let status = status(graph);
        // stored for the spec of that generation; what the graph holds by now may be a newer one
        let of_this = graphs.iter().find(|(_, other)| other.metadata.generation == status.observed_generation);
        if holds(graph, "Accepted") && status.observed_generation != last {
            last = status.observed_generation;
            let accept = |(_, graph): &Seen<'a>| Accepted { stored: *stored, generation: last, spec: &graph.spec };
            accepted.extend(of_this.map(accept));
        }
    }
    accepted
}

/// The specs by one of which was asked for what was decided on at `time`: the one that was accepted then, and the one before.
fn in_force<'a>(graphs: &[Seen<'a>], accepted: &[Accepted<'a>], time: Span) -> Vec<&'a TaskGraphSpec> {
    let (mut specs, mut certain) = (Vec::new(), 0);
    for one in accepted.iter().rev().filter(|one| one.stored.may_precede(time)) {
        if certain == 2 {
            return specs;
        }
        certain += usize::from(one.stored.precedes(time));
        specs.push(one.spec);
    }
    // What follows from the first spec may come before the status tells that it was accepted. If the operator is killed in
    // between, and the graph is edited before there is another one, only the edited spec is ever told of.
    let first = accepted.first().and_then(|one| one.generation);
    let until_first = |graph: &TaskGraph| first.is_none_or(|first| graph.metadata.generation <= Some(first));
    specs.extend(graphs.iter().filter(|(_, graph)| until_first(graph)).map(|(_, graph)| &graph.spec));
    specs
}

/// When the launch of an attempt had been decided on: its Job was there, or a stored status told of it. That may be long
/// before the Job is made: an edit does not wait for it, and may let run again what came before.
fn decided(graphs: &[Seen<'_>], task: &str, number: u32, created: Span) -> Span {
    let tells =
        |graph: &TaskGraph| status(graph).tasks.iter().any(|known| known.name == task && known.attempts >= number);
    let told = graphs.iter().find(|(_, graph)| tells(graph)).map_or(created, |(span, _)| *span);
    Span { since: told.since.min(created.since), version: told.version.min(created.version) }
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

/// B: when a launch was decided on, nothing ran any more of what its task waits for: by the spec that was accepted then, or
/// the one before.
fn none_too_early(graphs: &[Seen<'_>], attempts: &Attempts) -> Vec<String> {
    let accepted = accepted(graphs);
    let mut broken = Vec::new();
    for ((task, number), attempt) in attempts {
        let Some(created) = attempt.created else { continue };
        let time = decided(graphs, task, *number, created);
        // which specs were accepted while the watch was broken nobody knows
        if graphs.iter().any(|(seen, _)| seen.since < seen.version && seen.may_precede(time)) {
            continue;
        }
        let ran = |name: &String| attempts.iter().any(|((other, _), one)| other == name && one.ran(time));
        let running = |spec: &TaskGraphSpec| Some(before(spec, task)?.into_iter().filter(ran).collect());
        let mut found: Vec<Vec<String>> = in_force(graphs, &accepted, time).into_iter().filter_map(running).collect();
        found.dedup();
        if !found.is_empty() && found.iter().all(|running| !running.is_empty()) {
            broken.push(format!("B: attempt {number} of {task} began at {time:?} while {found:?} ran"));
        }
    }
    broken
}

/// E: no task with an attempt is forgotten, and what a task left stays what it left.
fn nothing_lost(graphs: &[Seen<'_>]) -> Vec<String> {
    let mut broken = Vec::new();
    let mut known = BTreeMap::<String, u32>::new();
    for (seen, graph) in graphs {
        let tasks = status(graph).tasks;
        for (name, attempts) in &known {
            if *attempts > 0 && !tasks.iter().any(|task| task.name == *name) {
                broken.push(format!("E: {name} with {attempts} attempts is forgotten in version {}", seen.version));
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
fn cancelled_too_late(graphs: &[Seen<'_>], attempts: &Attempts) -> Vec<String> {
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
        if attempt.created.is_some_and(|created| followed.precedes(decided(graphs, task, *number, created))) {
            broken
                .push(format!("D: attempt {number} of {task} began after the graph was cancelled, which is Complete"));
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Instant};

    use serde_json::{Value, json};

    use super::*;
    use crate::{
        fixture::task,
        support::sight::{Past, PodState},
    };

    fn seen(version: u64, uid: &str, object: Object) -> Sighting {
        let (uid, name) = (uid.to_owned(), uid.to_owned());
        Sighting { version, since: version, at: Instant::now(), uid, name, gone: false, object }
    }

    fn job(version: u64, task: &str) -> Sighting {
        seen(version, &format!("job-{task}"), Object::Job(key(task)))
    }

    fn pod(version: u64, task: &str, phase: &str) -> Sighting {
        let state = PodState { phase: phase.into(), ..PodState::default() };
        seen(version, &format!("pod-{task}"), Object::Pod(key(task), state))
    }

    fn key(task: &str) -> Key {
        Key { graph: "g".into(), role: ROLE_TASK.into(), task: task.into(), attempt: 1, item: None }
    }

    /// The graph in a generation, its status as of another one. `behind`: of each task what it waits for.
    fn graph(version: u64, generation: i64, behind: [&[&str]; 2], observed: Option<i64>, begun: &[&str]) -> Sighting {
        let mut object = json!({"metadata": {"name": "g", "uid": "g", "generation": generation},
            "spec": {"tasks": [task("a", behind[0]), task("b", behind[1])]}});
        if let Some(observed) = observed {
            let told: Vec<Value> =
                begun.iter().map(|name| json!({"name": name, "phase": "Running", "attempts": 1})).collect();
            let accepted = json!({"type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"});
            object["status"] = json!({"observedGeneration": observed, "conditions": [accepted], "tasks": told});
        }
        seen(version, "g", Object::Graph(Arc::new(serde_json::from_value(object).expect("a graph"))))
    }

    /// What is said of `b`, whatever the order in which all this was seen.
    fn judged(mut all: Vec<Sighting>) -> bool {
        all.sort_by_key(|one| one.version);
        let broken = violations("g", &all);
        let is_it = |text: &String| text.starts_with("B: attempt 1 of b began") && text.ends_with("[[\"a\"]] ran");
        assert!(broken.iter().all(is_it), "{broken:?}");
        !broken.is_empty()
    }

    const SIDE_BY_SIDE: [&[&str]; 2] = [&[], &[]];
    const IN_ORDER: [&[&str]; 2] = [&[], &["a"]];

    #[test]
    fn a_task_that_began_too_early_is_found() {
        for (ended, too_early) in [(19, false), (21, true)] {
            for told in [15, 30] {
                let graphs = [graph(10, 1, IN_ORDER, None, &[]), graph(told, 1, IN_ORDER, Some(1), &["a"])];
                let pods = [pod(12, "a", "Running"), pod(ended, "a", "Succeeded")];
                let all = graphs.into_iter().chain(pods).chain([job(11, "a"), job(20, "b")]);
                assert_eq!(judged(all.collect()), too_early, "{ended} {told}");
            }
        }
        // by an edit that put it behind, and was told of
        let graphs = [
            graph(10, 1, SIDE_BY_SIDE, None, &[]),
            graph(12, 1, IN_ORDER, Some(1), &["a"]),
            graph(13, 2, IN_ORDER, Some(1), &["a"]),
            graph(14, 2, IN_ORDER, Some(2), &["a"]),
            graph(15, 3, IN_ORDER, Some(3), &["a"]),
        ];
        assert!(judged(graphs.into_iter().chain([job(11, "a"), job(20, "b")]).collect()), "no pod of it yet");
    }

    /// The operator was killed before it had stored that it had accepted the graph: of the first spec, by which both were
    /// launched, no status ever tells.
    #[test]
    fn what_the_first_spec_asked_for_is_not_judged_by_the_edited_one() {
        for (first, too_early) in [(SIDE_BY_SIDE, false), (IN_ORDER, true)] {
            let graphs = [
                graph(10, 1, first, None, &[]),
                graph(15, 2, IN_ORDER, None, &[]),
                graph(30, 2, IN_ORDER, Some(2), &["a", "b"]),
            ];
            let pods = [pod(13, "a", "Running"), pod(14, "b", "Running"), pod(40, "a", "Succeeded")];
            let all = graphs.into_iter().chain(pods).chain([job(11, "a"), job(12, "b")]);
            assert_eq!(judged(all.collect()), too_early, "{first:?}");
        }
    }

    /// What was not to run is decided again by an edit, and runs while the Job is made that was asked for before.
    #[test]
    fn what_an_edit_lets_run_does_not_hold_up_what_began() {
        for (told, too_early) in [(&["b"] as &[&str], false), (&[], true)] {
            let graphs = [
                graph(10, 1, IN_ORDER, Some(1), &[]),
                graph(20, 2, IN_ORDER, Some(1), &[]),
                graph(21, 2, IN_ORDER, Some(2), told),
            ];
            let all = graphs.into_iter().chain([job(22, "a"), job(23, "b"), pod(24, "a", "Running")]);
            assert_eq!(judged(all.collect()), too_early, "{told:?}");
        }
    }

    /// What is found in a list, after a watch broke, may have come to be so long before.
    #[test]
    fn what_a_broken_watch_missed_is_held_against_nobody() {
        for missed in [false, true] {
            let mut pods = Past::default();
            let began = pods.watched(pod(12, "a", "Running"));
            let ended = pod(30, "a", "Succeeded");
            if missed {
                pods.begin_list();
            }
            let ended = if missed { pods.listed(ended) } else { pods.watched(ended) };
            let graph = graph(10, 1, IN_ORDER, Some(1), &[]);
            assert_eq!(judged(vec![graph, began, ended, job(11, "a"), job(20, "b")]), !missed);
        }
        // a Job that is found late may have been made before what it seems to have overtaken
        for missed in [false, true] {
            let mut jobs = Past::default();
            let first = jobs.watched(job(11, "a"));
            let second = job(20, "b");
            if missed {
                jobs.begin_list();
            }
            let second = if missed { jobs.listed(second) } else { jobs.watched(second) };
            let pods = [pod(14, "a", "Running"), pod(25, "a", "Succeeded")];
            let graphs = [
                graph(10, 1, SIDE_BY_SIDE, Some(1), &["a"]),
                graph(16, 2, IN_ORDER, Some(2), &["a"]),
                graph(17, 3, IN_ORDER, Some(3), &["a"]),
            ];
            assert_eq!(judged(graphs.into_iter().chain(pods).chain([first, second]).collect()), !missed);
        }
    }
}
