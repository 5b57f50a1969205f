//! What becomes of a graph that was accepted once, and that the rules refuse by now: another version accepted it.
//!
//! There is no graph to run, so nothing of it can be decided; all that is done is done on its status. It is mended by an
//! edit, or called off.

use std::sync::Arc;

use jiff::Timestamp;

use super::{
    super::{
        graph::{Graph, Identity, Settings},
        reason, record,
        state::{PhaseCounts, Run, whole_millis},
        writers::Writers,
    },
    carry::{self, Edited},
    reopen,
};
use crate::api::{
    CONDITION_FAILED, Condition, Counts, Ending, EndingReason, GraphPhase, HistoryEntry, TaskGraphStatus, TaskPhase,
    TaskStatus,
};

impl Run {
    /// The run of `graph`, put in the place of one of which only the status is known. As after [`Run::edit`], the status
    /// must be stored before anything that follows from it is begun.
    pub fn mend(
        graph: Arc<Graph>,
        settings: Settings,
        identity: Identity,
        status: &TaskGraphStatus,
        writers: Writers,
        now: Timestamp,
    ) -> (Self, Edited) {
        let now = whole_millis(now);
        let mut status = status.clone();
        // what is being undone is not decided again
        let undoing = status.compensation_time.is_some() && status.completion_time.is_none();
        let edited = carry::carry_blindly(&mut status.tasks, &graph, !undoing);
        if edited.reopens() && !undoing {
            reopen(&mut status, now);
        }
        let mut run = Self::restore(graph, settings, identity, &status);
        run.affirm();
        run.set_writers(writers);
        run.record_history(now, reason::EDITED, Some(edited.summary(super::MAX_MESSAGE)));
        (run, edited)
    }
}

/// Notes that somebody cancelled the graph (`by`, if that is known); false if that is noted, or the graph had finished.
pub fn call_off(status: &mut TaskGraphStatus, by: Option<&str>, now: Timestamp) -> bool {
    if status.is_cancelled() || status.completion_time.is_some() {
        return false;
    }
    let now = whole_millis(now);
    status.ending = Some(Ending { reason: EndingReason::Cancelled, time: now });
    status.phase = Some(GraphPhase::Cancelling);
    status.sequence = status.sequence.saturating_add(1);
    let event = reason::CANCELLED.to_owned();
    record(status, HistoryEntry { time: now, event, message: None, by: by.map(str::to_owned) });
    true
}

/// Ends a graph that was cancelled, nothing of it being left that runs. Neither compensations nor `finally` can be run; an
/// edit that mends the graph opens it again, and runs them.
pub fn abandon(status: &mut TaskGraphStatus, now: Timestamp) {
    let now = whole_millis(now);
    for task in &mut status.tasks {
        if task.removed {
            *task = carry::tombstone(task);
        } else {
            end(task, now);
        }
    }
    let message = "the graph was cancelled; it is not valid any more, so nothing was undone, and `finally` did not run";
    let failed = Condition {
        type_: CONDITION_FAILED.to_owned(),
        status: "True".to_owned(),
        observed_generation: status.observed_generation,
        last_transition_time: now,
        reason: reason::CANCELLED.to_owned(),
        message: message.to_owned(),
    };
    failed.put_into(&mut status.conditions);
    status.completion_time = Some(now);
    status.phase = Some(GraphPhase::Failed);
    status.message = Some(message.to_owned());
    status.counts = Some(counts(&status.tasks));
    let told = status.tasks.iter().filter(|task| !task.removed).count();
    status.progress = Some(format!("{told}/{told}"));
    status.sequence = status.sequence.saturating_add(1);
    let (event, message) = (reason::FINISHED.to_owned(), Some(reason::CANCELLED.to_owned()));
    record(status, HistoryEntry { time: now, event, message, by: None });
}

fn end(task: &mut TaskStatus, now: Timestamp) {
    if !task.phase.is_final() {
        let begun = task.begun() || task.is_under_way();
        task.phase = if begun { TaskPhase::Cancelled } else { TaskPhase::Omitted };
        task.reason = Some(reason::CANCELLED.to_owned());
        task.message = Some("the graph was cancelled".to_owned());
        task.completion_time = Some(now);
        task.wake_at = None;
    }
    if let Some(undo) = task.compensation.take_if(|undo| !undo.phase.is_final()) {
        // it begins once more if the graph is mended; that there is one is told also of one without an attempt
        task.compensation = Some(carry::undo_anew(undo).unwrap_or_default());
    }
}

fn record(status: &mut TaskGraphStatus, entry: HistoryEntry) {
    let mut history = std::mem::take(&mut status.history).into();
    record::add(&mut history, entry);
    status.history = history.into();
}

fn counts(tasks: &[TaskStatus]) -> Counts {
    let mut phases = PhaseCounts::default();
    for task in tasks.iter().filter(|task| !task.removed) {
        phases.add(task.phase);
    }
    phases.told()
}
