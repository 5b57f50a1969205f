//! What an edited spec would do to a graph, found out by the operator's own code. No cluster is asked here.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::Value;

use crate::{
    api::{DesiredState, Rerun, TaskGraph, TaskGraphSpec, TaskGraphStatus, TaskPhase},
    controller::{
        accept::verdict_of,
        edit::{judge, without_past_rerun},
        report::Verdict,
        revision::Pinned,
        templates::Found,
    },
    engine::{Edited, Identity, Plan, Run, TaskId, compile, reason},
    validate,
};

/// Fields that others write, and that an `apply` of a file without them leaves as they are.
const OTHERS: [&str; 3] = ["approvals", "desiredState", "rerun"];

/// What would happen, a line each; nothing: nothing would.
pub type Lines = Vec<String>;

/// The spec that stands when `edited` is applied to `live`.
pub fn applied(mut edited: Value, live: Option<&Value>) -> Value {
    if let (Value::Object(edited), Some(Value::Object(live))) = (&mut edited, live) {
        for field in OTHERS {
            if let Some(value) = live.get(field).filter(|_| !edited.contains_key(field)) {
                edited.insert(field.to_owned(), value.clone());
            }
        }
    }
    edited
}

/// What a graph would do that is new, or was not accepted yet.
pub fn begins(name: &str, spec: &TaskGraphSpec, templates: &Found, now: Timestamp) -> Lines {
    let plan = match validate::check(Some(name), spec, &templates.specs) {
        Ok(plan) => plan,
        Err(refusal) => return refused(&verdict_of(&refusal)),
    };
    let identity = Identity { name: name.to_owned(), namespace: String::new(), uid: String::new() };
    let mut run = Run::new(plan.graph, plan.settings, identity, now);
    let mut lines = vec!["would begin".to_owned()];
    lines.extend(list("would start at once", &starts(&mut run, now)));
    lines
}

/// A graph that was accepted: what it is now.
#[derive(Debug)]
pub struct Accepted<'a> {
    /// As it stands on the cluster.
    pub live: &'a TaskGraph,
    /// Its status.
    pub status: &'a TaskGraphStatus,
    /// What it began with, or was edited to last.
    pub pinned: Pinned,
}

impl Accepted<'_> {
    /// What `spec` would do to it. Errors where this version's rules are not those that it was accepted by.
    pub fn edited(&self, spec: &TaskGraphSpec, templates: &Found, now: Timestamp) -> anyhow::Result<Lines> {
        let name = self.live.name_any();
        let spec = &without_past_rerun(spec.clone(), self.status.rerun.as_deref());
        let plan = match validate::check(Some(&name), spec, &templates.specs) {
            Ok(plan) => plan,
            Err(refusal) => return Ok(refused(&verdict_of(&refusal))),
        };
        let next = Pinned::new(spec.clone(), templates);
        let mut run = self.run()?;
        Ok(match judge(&run, &self.pinned, &next, &plan) {
            Err(verdict) => refused(&verdict),
            Ok((edited, rerun)) => {
                let before = starts(&mut self.run()?, now);
                self.carried_out(&mut run, plan, spec, (edited, rerun), (&before, now))
            }
        })
    }

    /// The run as the operator has it, but for what happened since the status was stored.
    fn run(&self) -> anyhow::Result<Run> {
        let plan = compile(&self.pinned.spec, &self.pinned.templates()).map_err(|_| {
            anyhow::anyhow!(
                "the graph was accepted by an operator with other rules: this version cannot tell what would happen"
            )
        })?;
        let identity = Identity {
            name: self.live.name_any(),
            namespace: self.live.namespace().unwrap_or_default(),
            uid: self.live.uid().unwrap_or_default(),
        };
        Ok(Run::restore(plan.graph, plan.settings, identity, self.status))
    }

    fn carried_out(
        &self,
        run: &mut Run,
        plan: Plan,
        spec: &TaskGraphSpec,
        (edited, rerun): (bool, Option<Rerun>),
        (before, now): (&[String], Timestamp),
    ) -> Lines {
        let finished = run.is_finished();
        let mut lines = settings(&self.live.spec, spec, finished);
        if edited {
            lines.extend(told(&run.edit(Arc::clone(&plan.graph), plan.settings, now)));
        } else {
            run.set_settings(plan.settings);
        }
        if let Some(rerun) = rerun {
            lines.extend(list("run once more", &rerun_of(run, &rerun, now)));
        }
        if !lines.is_empty() {
            let starts: Vec<_> = starts(run, now).into_iter().filter(|name| !before.contains(name)).collect();
            lines.extend(list("would start at once", &starts));
        }
        if finished && !run.is_finished() {
            lines.push("the graph had finished, and would be reopened".to_owned());
        }
        lines
    }
}

/// What a verdict says, in the words of the operator.
pub fn refused(verdict: &Verdict) -> Lines {
    let (word, reason, message) = match verdict {
        Verdict::Accepted => return Lines::new(),
        Verdict::Refused(reason, message) => ("refused", reason, message),
        Verdict::Waiting(reason, message) => ("would wait", reason, message),
    };
    message.lines().map(|problem| format!("{word} ({reason}): {problem}")).collect()
}

/// The settings that would change, which count at once.
fn settings(live: &TaskGraphSpec, spec: &TaskGraphSpec, finished: bool) -> Lines {
    let differs = [
        ("parallelism", live.parallelism != spec.parallelism),
        ("failurePolicy", live.failure_policy != spec.failure_policy),
        ("timeout", live.timeout != spec.timeout),
        ("compensationTimeout", live.compensation_timeout != spec.compensation_timeout),
        ("finallyTimeout", live.finally_timeout != spec.finally_timeout),
        ("ttlAfterFinished", live.ttl_after_finished != spec.ttl_after_finished),
        ("approvals", live.approvals != spec.approvals),
    ];
    let names: Vec<_> = differs.iter().filter(|(_, differs)| *differs).map(|(name, _)| (*name).to_owned()).collect();
    let mut lines: Lines = list("settings", &names).into_iter().collect();
    let (before, after) = (live.desired_state.unwrap_or_default(), spec.desired_state.unwrap_or_default());
    if before != after && !finished {
        let words = match after {
            DesiredState::Run => "the graph would be resumed",
            DesiredState::Suspend => "the graph would be suspended",
            DesiredState::Cancel => "the graph would be cancelled: what runs is stopped",
        };
        lines.push(words.to_owned());
    }
    lines
}

/// What an edit does, a line for each kind of effect.
fn told(edited: &Edited) -> Lines {
    let vanish: Vec<String> = edited.removed.iter().filter(|name| !edited.stopped.contains(name)).cloned().collect();
    let take: Vec<String> = edited.changed.iter().filter(|name| !edited.stale.contains(name)).cloned().collect();
    let lines: Lines = [
        ("added", &edited.added),
        ("removed", &vanish),
        ("removed, and stopped", &edited.stopped),
        ("changed", &take),
        ("changed, but would keep what they ran (stale)", &edited.stale),
        ("decided again", &edited.again),
    ]
    .into_iter()
    .filter_map(|(word, names)| list(word, names))
    .collect();
    // of arguments that nothing reads, or the order of tasks
    if lines.is_empty() { vec!["a new revision; no task is another one".to_owned()] } else { lines }
}

/// The tasks that a rerun takes in: those that are not final any more, or are being stopped for it.
fn rerun_of(run: &mut Run, rerun: &Rerun, now: Timestamp) -> Vec<String> {
    let state = |run: &Run| -> Vec<(TaskPhase, Option<String>, u32)> {
        let told = |id: TaskId| (run.task(id).phase, run.task(id).reason.clone(), run.task(id).attempts_before);
        run.graph().ids().map(told).collect()
    };
    let before = state(run);
    run.rerun(rerun, now);
    let ids: Vec<TaskId> = run.graph().ids().filter(|id| !run.graph().task(*id).is_removed()).collect();
    let after = state(run);
    let names = ids
        .into_iter()
        .zip(before.iter().zip(&after))
        .filter(|(_, (before, after))| before != after || after.1.as_deref() == Some(reason::RERUN));
    let names: BTreeSet<String> = names.map(|(id, _)| run.graph().task(id).name.to_string()).collect();
    names.into_iter().collect()
}

/// The tasks that the next step launches.
fn starts(run: &mut Run, now: Timestamp) -> Vec<String> {
    let step = run.step([], now);
    let ready = step.transitions.iter().filter(|one| one.to == TaskPhase::Running);
    ready.map(|one| run.graph().task(one.task).name.to_string()).collect()
}

fn list(word: &str, names: &[String]) -> Option<String> {
    (!names.is_empty()).then(|| format!("{word}: {}", names.join(", ")))
}

#[cfg(test)]
mod tests;
