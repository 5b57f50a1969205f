//! A run rebuilt from what its status tells.
//!
//! Only facts are taken over; triggers, policies, deadlines and what is to be stopped are derived again by the first
//! step. A status may have been edited by hand: each value that cannot be is taken as the nearest that can.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    compensation,
    edit::carry,
    event::{Attempt, Blame, Failure},
    for_each::Launchable,
    graph::{Graph, Identity, Role, Settings, TaskDef, Work},
    policy::{indexes::MAX_TOLD, outputs, returns},
    reason,
    record::{MAX_FAILED_ATTEMPTS, MAX_HISTORY, MAX_MESSAGE, MAX_PROGRESS, MAX_REASON, Round, clipped},
    state::{Run, StopCause, whole_millis},
    waiting::repaired_phase,
};
use crate::api::{CONDITION_SUSPENDED, TaskGraphStatus, TaskPhase, TaskStatus};

impl Run {
    /// The run that a stored status tells of. Events about the Jobs and Pods that exist must be
    /// given to the first step; those of one task in order: its Jobs by attempt, and of each `Launched` first.
    pub fn restore(graph: Arc<Graph>, settings: Settings, identity: Identity, status: &TaskGraphStatus) -> Self {
        let removed = removed(&graph, status);
        let graph = graph.with_removed(removed);
        let mut run = Self::blank(graph, settings, identity);
        run.restored = true;
        run.sequence = status.sequence;
        run.stored = status.sequence;
        run.start_time = status.start_time.map(whole_millis);
        run.ending.clone_from(&status.ending);
        run.rerun.clone_from(&status.rerun);
        run.reopen_time = status.reopen_time.map(whole_millis);
        run.history = status.history.iter().skip(status.history.len().saturating_sub(MAX_HISTORY)).cloned().collect();
        if let Some(condition) = status.conditions.iter().find(|condition| condition.type_ == CONDITION_SUSPENDED) {
            run.suspended = condition.status == "True";
            run.suspended_before = true;
        }

        run.restore_tasks(&status.tasks);
        run.restore_failures();
        run.output_bytes = run
            .tasks
            .iter()
            .map(|task| &task.status.outputs)
            .filter(|outputs| !outputs.is_empty())
            .map(outputs::size)
            .sum();
        run.index();
        for id in run.graph.ids() {
            if run.is_per_item(id) && run.task(id).phase == TaskPhase::Running {
                run.restore_items(id);
            }
        }
        run.restore_compensations(status);
        if run.open_tasks == 0 && !run.is_compensating() {
            run.finally_time = status.finally_time.map(whole_millis);
        }
        run.finally_over = run.was_cut_off(run.graph.finally(), run.finally_time);
        if run.is_over() {
            run.completion_time = status.completion_time.map(whole_millis);
            run.returned = returns::restore(status);
        }
        run
    }

    /// What is told of each task.
    fn restore_tasks(&mut self, told: &[TaskStatus]) {
        let mut stored: BTreeMap<&str, &TaskStatus> = BTreeMap::new();
        for task in told {
            stored.entry(&task.name).or_insert(task);
        }
        for id in self.graph.ids() {
            let Some(task) = stored.get(self.task(id).name.as_str()) else { continue };
            let stored = match self.graph.task(id).role() {
                Role::Task => Some((*task).clone()),
                Role::Compensation => compensation::stored(task),
            };
            if let Some(stored) = stored {
                let repaired = repair(stored, self.graph.task(id));
                self.tasks[id.index()].status = repaired;
                self.restore_attempt(id);
            }
        }
    }

    /// What follows from a task's status for its last attempt.
    fn restore_attempt(&mut self, id: super::TaskId) {
        let status = self.task(id);
        // what was removed, or was a task of another kind, may have had Jobs
        if !self.has_job(id) && !self.is_removed(id) && !is_being_stopped(status) {
            let due = self.restore_waiting(id);
            return self.arm(id, due);
        }
        let task = &mut self.tasks[id.index()];
        let status = &task.status;
        let reason = status.reason.as_deref();
        task.ended = status.attempts;
        let due = match status.phase {
            TaskPhase::Running => {
                task.ended = status.attempts.saturating_sub(1);
                task.live.stop = match reason {
                    Some(reason::START_TIMEOUT) => Some(StopCause::StartTimeout { cluster: false }),
                    Some(reason::START_TIMEOUT_BY_CLUSTER) => Some(StopCause::StartTimeout { cluster: true }),
                    Some(reason::RERUN) => Some(StopCause::Again),
                    reason => call_off_reason(reason).map(StopCause::CallOff),
                };
                if status.items.as_ref().is_some_and(|items| items.ending.is_some()) {
                    task.live.stop = Some(StopCause::Items);
                }
                return self.arm_running(id);
            }
            TaskPhase::Retrying => {
                if status.wake_at.is_none() {
                    task.live.stop = match reason {
                        Some(reason::RERUN) => Some(StopCause::Again),
                        reason => call_off_reason(reason).map(StopCause::CallOff),
                    };
                }
                status.wake_at
            }
            _ => None,
        };
        self.arm(id, due);
    }

    /// Rebuilds the order in which failed attempts go.
    fn restore_failures(&mut self) {
        let mut failures = Vec::new();
        for id in self.graph.ids() {
            for failure in std::mem::take(&mut self.tasks[id.index()].status.failed_attempts) {
                failures.push((failure.completion_time, id, failure));
            }
        }
        failures.sort_by_key(|(time, id, failure)| (*time, *id, failure.attempt));
        for (_, id, failure) in failures {
            self.keep_failure(id, failure);
        }
    }

    /// Asks once more for what was under way when the status was stored. Launches only attempts whose Job is not known
    /// to have existed: one that did, and does not any more, is lost.
    pub(super) fn ask_again(&mut self, round: &mut Round) {
        let graph = Arc::clone(&self.graph);
        let fresh: Vec<Attempt> = round.launches.iter().map(|launch| launch.attempt).collect();
        for id in graph.ids() {
            let (task, attempt) = (&self.tasks[id.index()], self.last_attempt(id));
            match task.status.phase {
                TaskPhase::Running if task.live.stop.is_some() => {
                    round.stops.insert(attempt);
                }
                TaskPhase::Running if self.is_per_item(id) => self.ask_again_for_items(id, round),
                TaskPhase::Running if task.status.job.is_none() && !task.live.started && !fresh.contains(&attempt) => {
                    match self.launchable(attempt) {
                        Ok(Launchable::Job(launch)) => {
                            self.expect_items(&launch);
                            round.launches.push(launch);
                        }
                        Ok(Launchable::Items(_) | Launchable::Nothing) => {}
                        // an edit emptied the list; there may be a Job all the same, which the caller does not see yet
                        Ok(Launchable::NoItems) => {
                            let message = "being stopped: the list of its items is empty now";
                            self.stop(id, StopCause::Again, message, round);
                        }
                        Err(error) => {
                            let failure = Failure {
                                reason: reason::EXPRESSION_ERROR.to_owned(),
                                message: Some(error.to_string()),
                                exit_code: None,
                                blame: Blame::Final,
                            };
                            self.attempt_failed(id, failure, round.now, false, round);
                        }
                    }
                }
                TaskPhase::Retrying if !task.live.gone => {
                    round.awaits.insert(attempt);
                }
                _ => {}
            }
        }
    }
}

/// The names of tasks with attempts that the graph does not have.
fn removed<'a>(graph: &Graph, status: &'a TaskGraphStatus) -> Vec<&'a str> {
    // of several entries of one name the first counts, as for the tasks that the graph has
    let mut seen = BTreeSet::new();
    let mut names = Vec::new();
    for task in &status.tasks {
        let first = seen.insert(task.name.as_str());
        if first && task.attempts > 0 && !task.name.is_empty() && graph.find(&task.name).is_none() {
            names.push(task.name.as_str());
        }
    }
    names
}

/// The status of a removed task as it can be: final, or with an attempt that is being stopped.
fn repair_removed(stored: TaskStatus) -> TaskStatus {
    if !stored.is_under_way() {
        return carry::tombstone(&stored);
    }
    TaskStatus {
        phase: stored.phase,
        reason: Some(reason::REMOVED.to_owned()),
        message: stored.message.map(clipped),
        job: stored.job.clone(),
        start_time: stored.start_time.map(whole_millis),
        ..carry::tombstone(&TaskStatus { message: None, ..stored })
    }
}

/// The reason for which a task is being called off, if `reason` is one.
fn call_off_reason(reason: Option<&str>) -> Option<&'static str> {
    [reason::CANCELLED, reason::FAILURE_POLICY, reason::DEADLINE_EXCEEDED, reason::REMOVED]
        .into_iter()
        .find(|known| Some(*known) == reason)
}

/// Whether the last attempt is being stopped, for good or to start afresh: whatever kind of task it is by now, nothing new
/// begins before that has ended.
pub(super) fn is_being_stopped(status: &TaskStatus) -> bool {
    let called_off = status.wake_at.is_none() && call_off_reason(status.reason.as_deref()).is_some();
    carry::starts_afresh(status) || (status.is_under_way() && status.attempts > 0 && called_off)
}

/// A task's status as it can be.
fn repair(mut status: TaskStatus, def: &TaskDef) -> TaskStatus {
    if def.is_removed() {
        return repair_removed(status);
    }
    if status.removed {
        carry::start_afresh(&mut status);
    }
    status.phase = repaired_phase(&def.work, &status);
    status.attempts_before = status.attempts_before.min(status.attempts);
    if matches!(def.work, Work::Decision { .. }) && !is_being_stopped(&status) {
        // those that it had as a task of another kind
        status.attempts_before = status.attempts;
    }
    status.definition = status.definition.filter(|text| text.len() == 16);
    if def.compensation.is_some() {
        // kept as a task of its own
        status.compensation = None;
    }
    if status.phase != TaskPhase::Succeeded {
        status.outputs.clear();
        status.branch = None;
        status.branches.clear();
    }
    if !matches!(status.phase, TaskPhase::Retrying | TaskPhase::Waiting) {
        status.wake_at = None;
    }
    if matches!(status.phase, TaskPhase::Pending | TaskPhase::Ready) {
        (status.reason, status.message) = (None, None);
    }
    if !status.phase.is_final() {
        status.completion_time = None;
    }
    status.disruptions = status.disruptions.min(status.attempts);
    repair_texts(&mut status);
    for time in [&mut status.ready_time, &mut status.start_time, &mut status.completion_time, &mut status.wake_at] {
        *time = time.map(whole_millis);
    }
    status
}

/// Texts and lists as long as they can be.
fn repair_texts(status: &mut TaskStatus) {
    status.progress.take_if(|progress| progress.len() > MAX_PROGRESS);
    if let Some(items) = &mut status.items {
        for indexes in [&mut items.failed_indexes, &mut items.launched].into_iter().flatten() {
            indexes.truncate(indexes.floor_char_boundary(MAX_TOLD));
        }
        if let Some(ending) = &mut items.ending {
            ending.reason.truncate(ending.reason.floor_char_boundary(MAX_REASON));
        }
        items.ending.take_if(|_| status.phase != TaskPhase::Running);
    }
    status.message = status.message.take().map(clipped);
    if let Some(reason) = &mut status.reason {
        reason.truncate(reason.floor_char_boundary(MAX_REASON));
    }
    let surplus = status.failed_attempts.len().saturating_sub(MAX_FAILED_ATTEMPTS);
    status.failed_attempts.drain(..surplus);
    for failure in &mut status.failed_attempts {
        failure.reason.truncate(failure.reason.floor_char_boundary(MAX_REASON));
        if let Some(message) = &mut failure.message {
            message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        }
    }
}
