//! Keeps a status within its bounds: what of large graphs is left out.

use super::{compensation, graph::TaskId, policy::outputs, reason, state::Run};
use crate::api::{ItemsStatus, TaskGraphStatus, TaskPhase, TaskStatus};

/// How many bytes of JSON a status may take.
const MAX_BYTES: usize = 768 * 1024;
/// What is left of a message that is needed.
const SHORT_MESSAGE: usize = 64;
/// What is left of the message of a condition where nothing else is left to leave out.
const SHORT_CONDITION: usize = 4096;
/// A field's name, its quotes, colon and comma; no field of a task is longer.
const FIELD: usize = 20;
/// A time, as text.
const TIME: usize = 26;

/// How much is told of each task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Detail {
    /// Its phase, reason, attempts, outputs, and when it ended. A restart needs the Job's name and the start of what runs;
    /// the counts of its items the Job tells again.
    Lean,
    /// What a restart needs, and its failed attempts.
    Bare,
    /// What a restart needs.
    Least,
}

impl Run {
    /// Whether its tasks, told in full, are over the bound, the rest of the status taking `rest` bytes. Never too low.
    pub(super) fn is_too_large(&self, rest: usize) -> bool {
        let tasks = self
            .graph
            .ids()
            .filter(|id| !self.is_compensation(*id))
            .map(|id| bytes(self.task(id)) + self.shown_compensation(id).map_or(0, |undo| FIELD + bytes(undo)));
        let tasks: usize = tasks.sum();
        tasks + self.output_bytes + self.failure_bytes + rest > MAX_BYTES
    }

    /// Writes the tasks with as much of each as all have room for.
    pub(super) fn write_shortly(&self, status: &mut TaskGraphStatus, rest: usize) {
        for detail in [Detail::Lean, Detail::Bare, Detail::Least] {
            status.tasks = self.graph.told().map(|id| self.told_shortly(id, detail)).collect();
            if outputs::size(&status.tasks) + rest <= MAX_BYTES {
                return;
            }
        }
        for condition in &mut status.conditions {
            condition.message.truncate(condition.message.floor_char_boundary(SHORT_CONDITION));
        }
    }

    fn told_shortly(&self, id: TaskId, detail: Detail) -> TaskStatus {
        let mut task = shorter(self.task(id), detail);
        if let Some(undo) = self.shown_compensation(id) {
            task.compensation = Some(compensation::shown(shorter(undo, detail)));
        }
        task
    }
}

/// How many bytes a task takes at most, outputs and failed attempts left out.
fn bytes(task: &TaskStatus) -> usize {
    let text = |text: &str| FIELD + text.len() + 5 * text.bytes().filter(|byte| escaped(*byte)).count();
    let texts = [&task.reason, &task.message, &task.job, &task.branch, &task.progress];
    let branches: usize = task.branches.iter().map(|branch| text(branch)).sum();
    let times = [task.ready_time, task.start_time, task.completion_time, task.wake_at];
    // braces, name, phase, attempts and disruptions, and the names of outputs and failedAttempts; what an edit left
    let marks = 2 * FIELD + (FIELD + 10) + (FIELD + 16) + usize::from(task.fresh) * FIELD;
    let fixed = text(&task.name) + 2 * FIELD + 2 * (FIELD + 10) + 2 * FIELD + marks;
    let texts: usize = texts.into_iter().flatten().map(|known| text(known)).sum();
    let items = task.items.as_ref().map_or(0, |items| {
        let lists =
            [&items.failed_indexes, &items.launched, &items.ending.as_ref().map(|ending| ending.reason.clone())];
        9 * (FIELD + 10) + lists.into_iter().flatten().map(|list| text(list)).sum::<usize>()
    });
    // what is left of a compensation that the task has no more
    let undone = task.compensation.as_ref().map_or(0, |undo| FIELD + outputs::size(undo));
    fixed + texts + branches + items + undone + times.into_iter().flatten().count() * (FIELD + TIME)
}

/// Whether JSON writes a character with more than its bytes.
fn escaped(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\' || byte == 0x7f
}

/// A task with less told of it.
fn shorter(task: &TaskStatus, detail: Detail) -> TaskStatus {
    let lean = lean(task);
    match detail {
        Detail::Lean => lean,
        Detail::Bare => bare(lean),
        Detail::Least => {
            let mut least = bare(lean);
            least.failed_attempts.clear();
            if let Some(undo) = &mut least.compensation {
                undo.failed_attempts.clear();
            }
            least
        }
    }
}

/// A task told shortly: its phase, reason, attempts, outputs, and when it ended. A restart needs the Job's name and the
/// start of what runs, and which of its items were launched; the counts of its items the Jobs tell again.
fn lean(task: &TaskStatus) -> TaskStatus {
    let running = matches!(task.phase, TaskPhase::Running | TaskPhase::Waiting);
    // who approved stands nowhere else
    let approved = task.reason.as_deref() == Some(reason::APPROVED);
    let keeps_message = !task.phase.is_final() || task.phase == TaskPhase::Failed || approved;
    let message = task.message.as_ref().filter(|_| keeps_message).map(|message| {
        let printable: String = message.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
        printable[..printable.floor_char_boundary(SHORT_MESSAGE)].to_owned()
    });
    TaskStatus {
        message,
        job: task.job.clone().filter(|_| running),
        start_time: task.start_time.filter(|_| running),
        ready_time: None,
        items: task.items.clone().filter(|_| running).map(|items| ItemsStatus { failed_indexes: None, ..items }),
        ..task.clone()
    }
}

/// What a restart needs of a task, of which little is told already: what the engine itself gave as reason of a stop, what
/// was cut off by a deadline and what a cache answered. That it is stale stays, though not what it ran.
fn bare(lean: TaskStatus) -> TaskStatus {
    let running = lean.is_under_way();
    let overran = lean.reason.as_deref() == Some(reason::DEADLINE_EXCEEDED);
    let needed = |reason: &String| {
        let told = reason.as_str();
        let stops = [reason::RERUN, reason::START_TIMEOUT, reason::START_TIMEOUT_BY_CLUSTER];
        let called_off = [reason::CANCELLED, reason::FAILURE_POLICY, reason::REMOVED];
        overran || told == reason::CACHED || (running && (stops.contains(&told) || called_off.contains(&told)))
    };
    TaskStatus {
        reason: lean.reason.filter(|reason| needed(reason)),
        message: None,
        definition: None,
        progress: None,
        // whether it was cut off before what it belongs to began once more
        completion_time: lean.completion_time.filter(|_| overran),
        items: None,
        ..lean
    }
}
