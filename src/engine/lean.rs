//! Keeps a status within its bounds: what of large graphs is left out.

use super::{policy::outputs, reason, state::Run};
use crate::api::{ItemsStatus, TaskPhase, TaskStatus};

/// How many bytes of JSON the tasks of a status may take: 768 KiB for all of it, less what the rest of it needs.
const MAX_TASK_BYTES: usize = 736 * 1024;
/// What is left of a message that is needed.
const SHORT_MESSAGE: usize = 64;
/// A field's name, its quotes, colon and comma; no field of a task is longer.
const FIELD: usize = 20;
/// A time, as text.
const TIME: usize = 26;

impl Run {
    /// Whether its tasks, told in full, are over the bound. Never too low.
    pub(super) fn is_too_large(&self) -> bool {
        let tasks = self
            .graph
            .ids()
            .filter(|id| !self.is_compensation(*id))
            .map(|id| bytes(self.task(id)) + self.shown_compensation(id).map_or(0, |undo| FIELD + bytes(undo)));
        let tasks: usize = tasks.sum();
        let returned = self.returned.as_ref().map_or(0, outputs::size);
        tasks + self.output_bytes + returned + self.failure_bytes > MAX_TASK_BYTES
    }
}

/// How many bytes a task takes at most, outputs and failed attempts left out.
fn bytes(task: &TaskStatus) -> usize {
    let text = |text: &str| FIELD + text.len() + 5 * text.bytes().filter(|byte| escaped(*byte)).count();
    let texts = [&task.reason, &task.message, &task.job, &task.branch, &task.progress];
    let branches: usize = task.branches.iter().map(|branch| text(branch)).sum();
    let times = [task.ready_time, task.start_time, task.completion_time, task.wake_at];
    // braces, name, phase, attempts and disruptions, and the names of outputs and failedAttempts; what an edit left
    let marks = 2 * FIELD + (FIELD + 10) + (FIELD + 16);
    let fixed = text(&task.name) + 2 * FIELD + 2 * (FIELD + 10) + 2 * FIELD + marks;
    let texts: usize = texts.into_iter().flatten().map(|known| text(known)).sum();
    let items = task.items.as_ref().map_or(0, |items| {
        let lists =
            [&items.failed_indexes, &items.launched, &items.ending.as_ref().map(|ending| ending.reason.clone())];
        9 * (FIELD + 10) + lists.into_iter().flatten().map(|list| text(list)).sum::<usize>()
    });
    fixed + texts + branches + items + times.into_iter().flatten().count() * (FIELD + TIME)
}

/// Whether JSON writes a character with more than its bytes.
fn escaped(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\' || byte == 0x7f
}

/// A task told shortly: its phase, reason, attempts, outputs, and when it ended. A restart needs the Job's name and the
/// start of what runs, and which of its items were launched; the counts of its items the Jobs tell again.
pub(super) fn lean(task: &TaskStatus) -> TaskStatus {
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
