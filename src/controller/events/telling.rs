//! What there is to tell of a graph.

use jiff::Timestamp;

use super::is_lately;
use crate::{
    api::{
        CONDITION_COMPLETE, CONDITION_FAILED, CompensationStatus, HistoryEntry, TaskGraphStatus, TaskPhase, TaskStatus,
    },
    engine::{Role, reason},
};

/// The API server takes 1,024 bytes.
const NOTE_BYTES: usize = 1000;

/// Something to tell of a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telling {
    /// A word for programs.
    pub reason: String,
    /// What was done, as a word for programs.
    pub action: &'static str,
    /// It is no good news.
    pub warning: bool,
    /// A sentence for people.
    pub note: String,
    /// Tells it from everything else that is told of the graph with this reason; the same after a restart.
    pub mark: String,
}

impl Telling {
    fn new(reason: &str, action: &'static str, note: &str, mark: String) -> Self {
        let note = note[..note.floor_char_boundary(NOTE_BYTES)].to_owned();
        Self { reason: reason.to_owned(), action, warning: false, note, mark }
    }

    fn warning(self) -> Self {
        Self { warning: true, ..self }
    }

    /// The spec is refused, or waits for something.
    pub fn refused(generation: i64, reason: &str, message: &str) -> Self {
        Self::new(reason, "Accept", message, format!("{generation} {message}")).warning()
    }

    /// The first tasks are launched.
    pub fn started() -> Self {
        Self::new("Started", "Launch", "The first tasks are launched.", String::new())
    }

    /// A task, or its compensation, failed for good.
    pub fn task_failed(role: Role, task: &TaskStatus) -> Self {
        let (what, word) = match role {
            Role::Task => ("Task", "TaskFailed"),
            Role::Compensation => ("The compensation of task", "CompensationFailed"),
        };
        let detail = task.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
        let (name, reason) = (&task.name, task.reason.as_deref().unwrap_or_default());
        let note = match task.attempts {
            0 => format!("{what} {name} failed ({reason}){detail}"),
            n => format!("{what} {name} failed for good at attempt {n} ({reason}){detail}"),
        };
        // one that is rerun may fail once more without another attempt
        let mark = format!("{name} {}", task.completion_time.map(millis).unwrap_or_default());
        Self::new(word, "Run", &note, mark).warning()
    }

    /// What an entry of the history of `status` is told as, if it is.
    pub fn of_history(entry: &HistoryEntry, status: &TaskGraphStatus) -> Option<Self> {
        let message = entry.message.as_deref().unwrap_or_default();
        let by = entry.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
        let mark = millis(entry.time);
        match entry.event.as_str() {
            reason::ACCEPTED => {
                let tasks = status.tasks.iter().filter(|task| !task.removed).count();
                let created = entry.by.as_ref().map(|by| format!(", created by {by},")).unwrap_or_default();
                Some(Self::new("Accepted", "Accept", &format!("The graph{created} is valid: {tasks} tasks."), mark))
            }
            reason::EDITED => Some(Self::new("Edited", "Edit", &format!("Edited{by}: {message}."), mark)),
            reason::RERUN => Some(Self::new("Rerun", "Rerun", &format!("Rerun{by}: {message}."), mark)),
            reason::FINISHED if message == CONDITION_COMPLETE => {
                Some(Self::new(CONDITION_COMPLETE, "Finish", "All tasks are done.", mark))
            }
            reason::FINISHED => {
                // gone if the graph was taken up again since
                let why = status.holds(CONDITION_FAILED).map_or(message, |failed| &failed.message);
                Some(Self::new(CONDITION_FAILED, "Finish", why, mark).warning())
            }
            _ => None,
        }
    }

    /// What a stored status tells of the last minutes.
    pub fn lately(status: &TaskGraphStatus) -> Vec<Self> {
        let is_new = |time: Option<Timestamp>| time.is_some_and(is_lately);
        let history = status.history.iter().filter(|entry| is_lately(entry.time));
        let mut told: Vec<Self> = history.filter_map(|entry| Self::of_history(entry, status)).collect();
        if status.tasks.iter().any(|task| task.attempts > 0) && is_new(status.start_time) {
            told.push(Self::started());
        }
        for task in &status.tasks {
            if task.phase == TaskPhase::Failed && is_new(task.completion_time) {
                told.push(Self::task_failed(Role::Task, task));
            }
            let undo = task.compensation.as_deref().filter(|undo| undo.phase == TaskPhase::Failed);
            if let Some(undo) = undo.filter(|undo| is_new(undo.completion_time)) {
                let undo = CompensationStatus::clone(undo).into_task(task.name.clone());
                told.push(Self::task_failed(Role::Compensation, &undo));
            }
        }
        told
    }
}

fn millis(time: Timestamp) -> String {
    time.as_millisecond().to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told(status: Value) -> Vec<(String, String)> {
        let status: TaskGraphStatus = serde_json::from_value(status).unwrap();
        Telling::lately(&status).into_iter().map(|telling| (telling.reason, telling.note)).collect()
    }

    #[test]
    fn what_happened_lately_is_told() {
        let now = Timestamp::now().to_string();
        let old = "2026-01-01T00:00:00Z";
        let failed = |name: &str, time: &str| json!({"name": name, "phase": "Failed", "attempts": 2, "reason": "Error", "message": "no rows", "completionTime": time});
        let mut undone = json!({"name": "pay", "phase": "Succeeded", "attempts": 1, "completionTime": now});
        undone["compensation"] = json!({"phase": "Failed", "reason": "NoBranch", "completionTime": now});
        let condition = json!({"type": "Failed", "status": "True", "reason": "TasksFailed", "message": "failed: a (Error)", "lastTransitionTime": now});
        let history = |time: &str| {
            ["Accepted", "Edited", "Rerun", "Suspended", "Finished"]
                .map(|event| json!({"time": time, "event": event, "message": "1: all"}))
        };
        let status = json!({"startTime": now, "history": history(&now), "conditions": [condition],
            "tasks": [failed("a", &now), failed("b", old), undone]});
        let pairs = [
            ("Accepted", "The graph is valid: 3 tasks."),
            ("Edited", "Edited: 1: all."),
            ("Rerun", "Rerun: 1: all."),
            ("Failed", "failed: a (Error)"),
            ("Started", "The first tasks are launched."),
            ("TaskFailed", "Task a failed for good at attempt 2 (Error): no rows"),
            ("CompensationFailed", "The compensation of task pay failed (NoBranch)"),
        ];
        assert_eq!(told(status), pairs.map(|(reason, note)| (reason.to_owned(), note.to_owned())));
        let named = |event: &str| json!({"time": now, "event": event, "message": "1: all", "by": "ann"});
        let named = ["Accepted", "Edited", "Rerun"].map(named);
        let notes: Vec<_> = told(json!({"history": named})).into_iter().map(|(_, note)| note).collect();
        assert_eq!(
            notes,
            ["The graph, created by ann, is valid: 0 tasks.", "Edited by ann: 1: all.", "Rerun by ann: 1: all."]
        );
        assert!(told(json!({"startTime": old, "history": history(old), "tasks": [failed("a", old)]})).is_empty());
    }

    #[test]
    fn what_is_not_the_same_has_another_mark() {
        let task = |name: &str, time: &str| {
            let task = json!({"name": name, "phase": "Failed", "completionTime": time});
            Telling::task_failed(Role::Task, &serde_json::from_value(task).unwrap()).mark
        };
        let marks = [
            task("a", "2026-01-01T00:00:00Z"),
            task("b", "2026-01-01T00:00:00Z"),
            task("a", "2026-01-01T00:00:00.001Z"),
        ];
        assert!(marks[0] != marks[1] && marks[0] != marks[2]);
        assert_ne!(Telling::refused(1, "Invalid", "a").mark, Telling::refused(2, "Invalid", "a").mark);
    }

    #[test]
    fn a_note_is_no_longer_than_the_api_server_takes() {
        assert!(Telling::refused(1, "Invalid", &"😀".repeat(1000)).note.len() <= NOTE_BYTES);
    }
}
