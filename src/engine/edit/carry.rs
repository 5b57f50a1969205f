//! What an edit makes of each task, by the status alone.

use std::{collections::BTreeMap, fmt::Write as _, mem};

use serde_json::Map;

use super::super::{
    expr::{Expression, reference::Root},
    graph::{Graph, TaskDef, Work},
    reason,
};
use crate::api::{CompensationStatus, TaskPhase, TaskStatus};

/// What an edit did, by names of tasks, each list in the order of the spec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edited {
    /// Tasks that the graph did not have.
    pub added: Vec<String>,
    /// Tasks that it has no more.
    pub removed: Vec<String>,
    /// Those of `removed` that have an attempt which is being stopped.
    pub stopped: Vec<String>,
    /// Tasks that are not what they were.
    pub changed: Vec<String>,
    /// Those of `changed` that have an attempt: they keep what they ran.
    pub stale: Vec<String>,
    /// Tasks that were final, and are decided again.
    pub again: Vec<String>,
    /// A task that Failed may by now, or may not any more: the graph ends otherwise.
    pub judged_anew: bool,
}

impl Edited {
    /// Whether nothing follows from the edit.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether there may be something to do in a graph that had finished, or another end of it.
    pub fn reopens(&self) -> bool {
        self.judged_anew || !(self.added.is_empty() && self.removed.is_empty() && self.again.is_empty())
    }

    /// `added a, b; changed c`, in at most `limit` bytes: of lists that are too long, the first names.
    pub fn summary(&self, limit: usize) -> String {
        let lists: Vec<_> = [("added", &self.added), ("removed", &self.removed), ("changed", &self.changed)]
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .collect();
        if lists.is_empty() {
            return "no task is another one".to_owned();
        }
        // what each list may take; room for `; `, the word and ` and 1234 more`
        let share = (limit / lists.len()).saturating_sub(28);
        let mut text = String::new();
        for (word, names) in lists {
            let before = if text.is_empty() { "" } else { "; " };
            let _ = write!(text, "{before}{word} ");
            let begin = text.len();
            let mut told = 0;
            for name in names {
                if told > 0 && text.len() + name.len() + 2 > begin + share {
                    break;
                }
                let _ = write!(text, "{}{name}", if told > 0 { ", " } else { "" });
                told += 1;
            }
            if told < names.len() {
                let _ = write!(text, " and {} more", names.len() - told);
            }
        }
        text
    }
}

/// Turns what is told of the tasks of `old` into what is told of those of `new`.
pub fn carry(old: &Graph, tasks: &mut Vec<TaskStatus>, new: &Graph) -> Edited {
    carry_by(tasks, new, |def, status, edited| {
        match (old.find(&def.name).map(|id| old.task(id)).filter(|before| !before.is_removed()), status) {
            (Some(before), Some(status)) => keep(status, &Change::between(old, before, new, def), edited),
            (Some(_), None) => {}
            (None, status) => join(def, status, edited),
        }
    })
}

/// The same, where nothing is known of the graph that it was: what began keeps what it did, and its Jobs tell whether it
/// is stale. What was decided without an attempt is decided again if `decides_again`.
pub fn carry_blindly(tasks: &mut Vec<TaskStatus>, new: &Graph, decides_again: bool) -> Edited {
    carry_by(tasks, new, |def, status, edited| match status {
        Some(status) if !status.removed => {
            let begun = status.begun() || status.is_under_way();
            // what had a Job and has none now is another task
            let other = begun && status.job.is_some() && !matches!(def.work, Work::Job(_) | Work::Graph(_));
            let undecided = !begun && decides_again && status.phase != TaskPhase::Succeeded;
            if other || (undecided && status.phase.is_final()) {
                edited.again.push(def.name.to_string());
            }
            if other {
                start_afresh(status);
            } else if undecided {
                reset(status);
            } else if begun {
                pass_gates_again(status);
            }
        }
        status => join(def, status, edited),
    })
}

/// A task that the graph did not have.
fn join(def: &TaskDef, status: Option<&mut TaskStatus>, edited: &mut Edited) {
    edited.added.push(def.name.to_string());
    if let Some(status) = status {
        start_afresh(status);
    }
}

/// What is told of the tasks of `new`: `task` makes it of what was told of each before, if anything was.
fn carry_by(
    tasks: &mut Vec<TaskStatus>,
    new: &Graph,
    task: impl Fn(&TaskDef, Option<&mut TaskStatus>, &mut Edited),
) -> Edited {
    let mut edited = Edited::default();
    let mut known: BTreeMap<String, TaskStatus> = BTreeMap::new();
    let mut order = Vec::new();
    for task in mem::take(tasks) {
        order.push(task.name.clone());
        known.insert(task.name.clone(), task);
    }
    for def in new.tasks.iter().take(new.first_compensation) {
        let mut status = known.remove(&*def.name);
        task(def, status.as_mut(), &mut edited);
        tasks.extend(status);
    }
    for name in order {
        let Some(status) = known.remove(&name) else { continue };
        if !status.removed {
            edited.removed.push(name);
        }
        tasks.extend(remove(status, &mut edited));
    }
    edited
}

/// How a task differs from what it was.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, not a state among others")]
struct Change<'a> {
    before: &'a TaskDef,
    after: &'a TaskDef,
    /// It has Jobs and had none, or the other way round.
    kind: bool,
    /// Its attempts would be made from something else.
    attempts: bool,
    /// It starts when something else holds.
    gates: bool,
    /// Anything that counts for the run.
    any: bool,
}

impl<'a> Change<'a> {
    fn between(old: &Graph, before: &'a TaskDef, new: &Graph, after: &'a TaskDef) -> Self {
        let kind = mem::discriminant(&before.work) != mem::discriminant(&after.work)
            || before.for_each.is_some() != after.for_each.is_some()
            || before.is_per_item() != after.is_per_item();
        let differs = |name: Option<&str>| match name {
            Some(name) => old.arguments.get(name) != new.arguments.get(name),
            None => old.arguments != new.arguments,
        };
        let attempts =
            kind || before.hash != after.hash || work_expressions(after).any(|text| reads_argument(text, &differs));
        let gates = names(old, before) != names(new, after)
            || before.trigger != after.trigger
            || text(before.when.as_ref()) != text(after.when.as_ref())
            || after.when.as_ref().is_some_and(|when| reads_argument(when, &differs));
        let rest = before.finally != after.finally
            || before.allow_failure != after.allow_failure
            || before.priority != after.priority
            || before.start_timeout != after.start_timeout
            || before.outputs != after.outputs
            || retry(before) != retry(after)
            || compensation(old, before) != compensation(new, after);
        Self { before, after, kind, attempts, gates, any: attempts || gates || rest }
    }
}

/// A task that the graph had and has: what is told of it after the edit.
fn keep(status: &mut TaskStatus, change: &Change<'_>, edited: &mut Edited) {
    let name = || change.after.name.to_string();
    if change.any {
        edited.changed.push(name());
    }
    edited.judged_anew |=
        status.phase == TaskPhase::Failed && change.before.allow_failure != change.after.allow_failure;
    let begun = status.begun() || status.is_under_way();
    // the items that are still to be launched would not be what the others were
    let mixed = change.attempts && change.after.is_per_item() && status.phase == TaskPhase::Running;
    if (change.kind || mixed) && begun {
        edited.again.push(name());
        start_afresh(status);
    } else if begun {
        let ran = status.definition.take().unwrap_or_else(|| format!("{:016x}", change.before.hash));
        let same_hash = ran == format!("{:016x}", change.after.hash);
        let by_arguments = change.attempts && change.before.hash == change.after.hash;
        // what made it stale beside its definition is not told: only a rerun undoes that
        let was_by_arguments = status.stale && change.before.hash == change.after.hash && same_hash;
        status.stale = !same_hash || by_arguments || was_by_arguments;
        status.definition = (!same_hash).then_some(ran);
        if status.stale && change.attempts {
            edited.stale.push(name());
        }
        pass_gates_again(status);
    } else if status.phase != TaskPhase::Succeeded || change.attempts || change.gates {
        // a decision that was taken stays, unless it is another one now
        if status.phase.is_final() {
            edited.again.push(name());
        }
        reset(status);
    }
}

/// A further attempt that waits for a slot passes its gates once more: what comes before it may be open again.
fn pass_gates_again(status: &mut TaskStatus) {
    if status.phase == TaskPhase::Ready {
        status.phase = TaskPhase::Retrying;
        status.wake_at = None;
    }
}

/// A task that the graph has no more: its tombstone, or what there is to be stopped before; `None` if it had no attempt.
fn remove(status: TaskStatus, edited: &mut Edited) -> Option<TaskStatus> {
    if status.attempts == 0 {
        return None;
    }
    if status.is_under_way() {
        if !status.removed {
            edited.stopped.push(status.name.clone());
        }
        return Some(TaskStatus {
            removed: true,
            reason: Some(reason::REMOVED.to_owned()),
            message: Some("being stopped: it was removed from the graph".to_owned()),
            wake_at: None,
            outputs: Map::new(),
            ..status
        });
    }
    Some(tombstone(&status))
}

/// What is kept of a task that was removed.
pub fn tombstone(status: &TaskStatus) -> TaskStatus {
    TaskStatus {
        name: status.name.clone(),
        phase: if status.phase.is_final() { status.phase } else { TaskPhase::Cancelled },
        reason: Some(reason::REMOVED.to_owned()),
        attempts: status.attempts,
        removed: true,
        compensation: status.compensation.as_deref().filter(|undo| undo.attempts > 0).map(|undo| {
            let (phase, attempts) = (undo.phase, undo.attempts);
            Box::new(CompensationStatus { phase, attempts, ..CompensationStatus::default() })
        }),
        ..TaskStatus::default()
    }
}

/// Has a task begin again: at once, or when what is left of its last attempt is gone.
pub fn start_afresh(status: &mut TaskStatus) {
    let was_removed = std::mem::take(&mut status.removed) && status.attempts > 0;
    // of a failed attempt a pod may still be on its way out, and of what was removed nobody looked; nothing is left of
    // any other that ended
    let may_have_pods = status.is_under_way() || was_removed || (status.phase == TaskPhase::Failed && status.begun());
    status.fresh |= status.reason.as_deref() == Some(reason::CACHED);
    if !may_have_pods {
        return reset(status);
    }
    // what it did before was undone, and what it does next is not; of a tombstone only the number counts
    let undoes = |undo: &CompensationStatus| matches!(undo.phase, TaskPhase::Running | TaskPhase::Retrying);
    if !status.compensation.as_deref().is_some_and(undoes) {
        status.compensation = status.compensation.take().and_then(undo_anew);
    }
    if status.phase != TaskPhase::Running {
        status.phase = TaskPhase::Retrying;
    }
    status.completion_time = None;
    status.wake_at = None;
    if let Some(items) = &mut status.items {
        items.ending = None;
    }
    status.reason = Some(reason::RERUN.to_owned());
    status.message = Some("being stopped, to start afresh".to_owned());
}

/// Whether what is left of its attempts is being stopped before it begins again.
pub fn starts_afresh(status: &TaskStatus) -> bool {
    let told = status.reason.as_deref() == Some(reason::RERUN) && status.wake_at.is_none();
    told && status.is_under_way() && status.attempts > 0
}

/// A task that nothing was decided of; the numbers of its attempts go on, and its failed ones are still told.
pub fn reset(status: &mut TaskStatus) {
    *status = TaskStatus {
        name: mem::take(&mut status.name),
        attempts: status.attempts,
        attempts_before: status.attempts,
        fresh: status.fresh,
        failed_attempts: mem::take(&mut status.failed_attempts),
        compensation: status.compensation.take().and_then(undo_anew),
        ..TaskStatus::default()
    };
}

/// A compensation that is to undo what the next attempt does; `None` if it had no attempt itself.
pub fn undo_anew(undo: Box<CompensationStatus>) -> Option<Box<CompensationStatus>> {
    (undo.attempts > 0).then(|| {
        Box::new(CompensationStatus {
            attempts: undo.attempts,
            attempts_before: undo.attempts,
            failed_attempts: undo.failed_attempts,
            ..CompensationStatus::default()
        })
    })
}

/// Dependencies and guards by name, in any order.
fn names<'a>(graph: &'a Graph, task: &'a TaskDef) -> (Vec<&'a str>, Vec<(&'a str, Vec<&'a str>)>) {
    let name = |id| &*graph.task(id).name;
    let mut dependencies: Vec<_> = task.dependencies.iter().map(|id| name(*id)).collect();
    dependencies.sort_unstable();
    let branches = |names: &'a [std::sync::Arc<str>]| {
        let mut names: Vec<_> = names.iter().map(|name| &**name).collect();
        names.sort_unstable();
        names
    };
    let mut guards: Vec<_> =
        task.guards.iter().map(|guard| (name(guard.decision), branches(&guard.branches))).collect();
    guards.sort_unstable();
    (dependencies, guards)
}

/// What undoes a task, by the hash of its definition.
fn compensation(graph: &Graph, task: &TaskDef) -> Option<u64> {
    task.compensation.map(|id| graph.task(id).hash)
}

fn text(expression: Option<&Expression>) -> Option<&str> {
    expression.map(Expression::text)
}

fn retry(task: &TaskDef) -> (u32, u64, u64, u64, Option<&str>) {
    let rule = &task.retry;
    (rule.limit, rule.initial.millis(), rule.factor.to_bits(), rule.max.millis(), text(rule.when.as_ref()))
}

/// The expressions over the graph's arguments that decide what an attempt is made from, or which branch is taken.
fn work_expressions(task: &TaskDef) -> Box<dyn Iterator<Item = &Expression> + '_> {
    let items = task.for_each.iter().flat_map(|rule| rule.items.expressions());
    match &task.work {
        Work::Job(payload) => Box::new(payload.graph_expressions().chain(items)),
        Work::Graph(child) => Box::new(child.arguments.expressions().chain(items)),
        Work::Decision { branches, .. } => Box::new(branches.iter().filter_map(|branch| branch.when.as_ref())),
        Work::Delay(_) | Work::Approval(_) | Work::Removed => Box::new(std::iter::empty()),
    }
}

/// Whether an expression reads an argument that `differs`; that all arguments differ is asked with `None`.
fn reads_argument(expression: &Expression, differs: &impl Fn(Option<&str>) -> bool) -> bool {
    expression
        .references()
        .iter()
        .any(|reference| matches!(reference.root, Root::Arguments) && differs(reference.argument()))
}
