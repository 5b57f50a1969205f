//! What was observed, taken into the run.

use jiff::Timestamp;
use serde_json::Map;

use super::{
    edit::carry,
    event::{Attempt, AttemptResult, Blame, Event, Failure},
    expr::Scope,
    graph::TaskId,
    policy::{items, outputs, retry, trigger::Verdict},
    reason,
    record::{MAX_PROGRESS, MAX_REASON, Round, clip, clipped},
    state::{Live, Run, StopCause, later, whole_millis},
};
use crate::api::{FailedAttempt, TaskPhase, TaskStatus};

impl Run {
    /// Takes in one event. What speaks of an attempt that is not live changes nothing, save that a Job that should
    /// not exist is stopped.
    pub(super) fn observe(&mut self, event: Event, round: &mut Round) {
        let attempt = match event {
            Event::LookedUp { task, key, found } => return self.on_looked_up(task, key, found, round),
            Event::Launched { attempt, .. }
            | Event::Created { attempt, .. }
            | Event::Started { attempt }
            | Event::Progress { attempt, .. }
            | Event::Blocked { attempt, .. }
            | Event::Items { attempt, .. }
            | Event::Finished { attempt, .. }
            | Event::Outdated { attempt, .. }
            | Event::Gone { attempt } => attempt,
        };
        if attempt.task.index() >= self.tasks.len() || attempt.number == 0 {
            return;
        }
        if let Some(index) = attempt.item {
            return self.observe_item(attempt, index, event, round);
        }
        let live = attempt == self.last_attempt(attempt.task) && self.task(attempt.task).phase == TaskPhase::Running;
        match event {
            Event::Launched { job, .. } => self.on_launched(attempt, Some(job), false, round),
            Event::Started { .. } if live => self.on_started(attempt.task, round),
            Event::Progress { progress, .. } if live => self.on_progress(attempt.task, progress, round),
            Event::Blocked { reason, message, cluster, .. } if live => {
                self.on_blocked(attempt.task, &reason, &message, cluster, round);
            }
            Event::Finished { result, time, .. } if live => self.on_finished(attempt.task, result, time, round),
            Event::Items { items, .. } if live => self.on_items(attempt.task, items, round),
            Event::Gone { .. } => self.on_gone(attempt, round),
            Event::Outdated { definition, .. } => self.on_outdated(attempt, definition, round),
            _ => {}
        }
    }

    /// `by_item`: its Job, or child graph, is that of one item.
    pub(super) fn on_launched(&mut self, attempt: Attempt, job: Option<String>, by_item: bool, round: &mut Round) {
        let (removed, jobless) = (self.is_removed(attempt.task), !self.has_job(attempt.task));
        let finished = self.is_finished();
        let task = &mut self.tasks[attempt.task.index()];
        let (phase, last) = (task.status.phase, task.status.attempts);
        let stray = if phase.is_final() {
            attempt.number > last || phase == TaskPhase::Cancelled
        } else {
            let replaced = attempt.number > task.ended && (attempt.number < last || jobless);
            // of a finished graph only compensations that were never begun are not final
            replaced || finished
        };
        if stray {
            if removed && attempt.number > last {
                // its number must not be used again
                task.status.attempts = attempt.number;
            }
            // it may be wanted by an operator that is ahead of this one: then this status cannot be stored
            self.record_graph_fact(round);
            round.stops.insert(attempt);
        } else if phase.is_final() {
            // an attempt that the status tells of
        } else if attempt.number > last {
            self.adopt(attempt, job, by_item, round);
        } else if attempt.number == last && phase == TaskPhase::Running {
            let task = &mut self.tasks[attempt.task.index()];
            if task.live.stop.is_some() {
                // it may have been created after the stop found nothing to delete
                round.stops.insert(attempt);
            }
            if job.is_some() && task.status.job != job {
                task.status.job = job;
                round.changed = true;
            }
        }
    }

    /// Takes over an attempt of which the status did not tell yet.
    fn adopt(&mut self, attempt: Attempt, job: Option<String>, by_item: bool, round: &mut Round) {
        let id = attempt.task;
        let status = self.task(id);
        if status.phase == TaskPhase::Running && status.attempts > self.tasks[id.index()].ended {
            round.stops.insert(self.last_attempt(id));
        }
        let stop = if self.is_removed(id) {
            Some(StopCause::CallOff(reason::REMOVED))
        } else if by_item != self.is_per_item(id) {
            Some(StopCause::Again)
        } else {
            self.tasks[id.index()].live.stop.filter(|stop| *stop == StopCause::Again)
        };
        self.tasks[id.index()].status.attempts = attempt.number;
        self.begin(id, job, round);
        if by_item && stop.is_none() {
            self.await_items(id);
        }
        if let Some(stop) = stop {
            self.stop(id, stop, "being stopped: it was launched before the graph was edited", round);
        }
        // it may be called off already
        self.sweep = true;
    }

    /// Enters Running with the attempt that `status.attempts` counts.
    pub(super) fn begin(&mut self, id: TaskId, job: Option<String>, round: &mut Round) {
        self.enter(id, TaskPhase::Running, None, None, round);
        let status = &mut self.tasks[id.index()].status;
        status.job = job;
        status.progress = None;
        status.items = None;
        status.start_time = Some(round.now);
        status.stale = false;
        status.fresh = false;
        status.definition = None;
        self.arm_running(id);
    }

    fn on_progress(&mut self, id: TaskId, progress: String, round: &mut Round) {
        let shown = &mut self.tasks[id.index()].status.progress;
        if shown.as_ref() != Some(&progress) && progress.len() <= MAX_PROGRESS {
            *shown = Some(progress);
            round.changed = true;
        }
    }

    pub(super) fn on_started(&mut self, id: TaskId, round: &mut Round) {
        let task = &mut self.tasks[id.index()];
        if !task.live.started {
            task.live.started = true;
            task.live.blocked = None;
            let stopping = task.live.stop.is_some();
            self.blocked.remove(&id);
            self.arm_running(id);
            if !stopping {
                self.note(id, None, None, round);
            }
        }
    }

    pub(super) fn on_blocked(&mut self, id: TaskId, reason: &str, message: &str, cluster: bool, round: &mut Round) {
        let live = &mut self.tasks[id.index()].live;
        if !live.started && live.stop.is_none() {
            live.blocked = Some(cluster);
            self.blocked.insert(id);
            self.note(id, Some(reason), Some(message), round);
        }
    }

    pub(super) fn on_finished(&mut self, id: TaskId, result: AttemptResult, time: Timestamp, round: &mut Round) {
        let is_other = !self.has_job(id);
        let task = &self.tasks[id.index()];
        if is_other || matches!(task.live.stop, Some(StopCause::Again | StopCause::CallOff(reason::REMOVED))) {
            // however it ended, it counts for nothing: a decision has not chosen, nor has anybody approved, because a Job
            // that is being stopped since it was a task of another kind has come to its end
            return;
        }
        let time = whole_millis(time).min(round.now).max(task.status.start_time.unwrap_or(Timestamp::MIN));
        let stopping = task.live.stop.is_some();
        let checked = match result {
            AttemptResult::Succeeded { outputs, message } => {
                // nothing reads what a compensation leaves, and it must not fail of it
                let outputs = if self.is_compensation(id) { Map::new() } else { outputs };
                let (def, used) = (self.graph.task(id), self.output_bytes);
                let total = task.status.items.as_ref().map(|items| items.total);
                let checked = if total.is_some() || def.for_each.is_some() {
                    items::check_outputs(&def.outputs, outputs, total, used)
                } else {
                    outputs::check(&def.outputs, outputs, used)
                };
                checked.map(|checked| (checked, message))
            }
            AttemptResult::Failed(failure) => Err(failure),
        };
        match checked {
            Ok(((outputs, bytes), message)) => {
                self.output_bytes = self.output_bytes.saturating_add(bytes);
                let task = &mut self.tasks[id.index()];
                task.status.outputs = outputs;
                task.ended = task.status.attempts;
                self.enter(id, TaskPhase::Succeeded, None, message, round);
                self.tasks[id.index()].status.completion_time = Some(time);
            }
            // a failure may be the stop's doing; it ends when its pods are gone
            Err(_) if stopping => {}
            Err(failure) => self.attempt_failed(id, failure, time, false, round),
        }
    }

    fn on_gone(&mut self, attempt: Attempt, round: &mut Round) {
        let id = attempt.task;
        if attempt != self.last_attempt(id) {
            return;
        }
        let task = &mut self.tasks[id.index()];
        match (task.status.phase, task.live.stop) {
            (TaskPhase::Running | TaskPhase::Retrying, Some(StopCause::CallOff(reason))) => {
                self.cancel(id, reason, round);
            }
            (TaskPhase::Running | TaskPhase::Retrying, Some(StopCause::Again)) => self.start_afresh(id, round),
            (TaskPhase::Running, Some(StopCause::StartTimeout { cluster })) => {
                let failure = Failure {
                    reason: reason::START_TIMEOUT.to_owned(),
                    message: task.status.message.clone(),
                    exit_code: None,
                    blame: if cluster { Blame::Cluster } else { Blame::Task },
                };
                self.attempt_failed(id, failure, round.now, true, round);
            }
            (TaskPhase::Running, Some(StopCause::Items)) => {
                let failure = self.items_failure(id);
                self.attempt_failed(id, failure, round.now, true, round);
            }
            (TaskPhase::Retrying, _) => {
                task.live.gone = true;
                self.try_again(id, round);
            }
            _ => {}
        }
    }

    /// Has a task begin again, nothing being left of its last attempt.
    fn start_afresh(&mut self, id: TaskId, round: &mut Round) {
        let status = &mut self.tasks[id.index()].status;
        let (phase, ended) = (status.phase, status.attempts);
        carry::reset(status);
        // `enter` counts from there
        status.phase = phase;
        self.enter(id, TaskPhase::Pending, None, None, round);
        self.tasks[id.index()].ended = ended;
        self.queue(id);
        // it may be called off already
        self.sweep = true;
        self.must_store();
    }

    /// The Job of an attempt was made from another definition than the one that the graph has now.
    pub(super) fn on_outdated(&mut self, attempt: Attempt, definition: u64, round: &mut Round) {
        let current = self.graph.task(attempt.task).hash;
        let status = &mut self.tasks[attempt.task.index()].status;
        let counts = attempt.number == status.attempts && status.begun() && !status.removed;
        if counts && definition != current && status.definition.is_none() {
            status.definition = Some(format!("{definition:016x}"));
            status.stale = true;
            round.changed = true;
        }
    }

    /// Ends a task that was called off, its pods being gone.
    pub(super) fn cancel(&mut self, id: TaskId, reason: &'static str, round: &mut Round) {
        let task = &mut self.tasks[id.index()];
        task.ended = task.status.attempts;
        let message = self.why_called_off(id, reason);
        self.enter(id, TaskPhase::Cancelled, Some(reason), Some(message), round);
        self.must_store();
    }

    /// Records a failed attempt, and what follows from it. `gone`: whether its pods are.
    pub(super) fn attempt_failed(
        &mut self,
        id: TaskId,
        failure: Failure,
        time: Timestamp,
        gone: bool,
        round: &mut Round,
    ) {
        let Failure { reason, message, exit_code, blame } = failure;
        let message = message.map(clipped);
        let task = &mut self.tasks[id.index()];
        let number = task.status.attempts;
        task.ended = number;
        let record = FailedAttempt {
            attempt: number,
            job: task.status.job.clone(),
            start_time: task.status.start_time,
            completion_time: Some(time),
            exit_code,
            reason: clip(&reason, MAX_REASON).to_owned(),
            message: message.clone(),
        };
        self.keep_failure(id, record);
        match self.next_after(id, blame, exit_code, &reason) {
            Ok(retry::Next::Fail) => {
                self.enter(id, TaskPhase::Failed, Some(&reason), message, round);
                self.tasks[id.index()].status.completion_time = Some(time);
            }
            Ok(next) => {
                self.enter(id, TaskPhase::Retrying, Some(&reason), message, round);
                self.retry_later(id, next, gone, round);
            }
            Err(error) => self.enter(id, TaskPhase::Failed, Some(reason::EXPRESSION_ERROR), Some(error), round),
        }
        self.must_store();
    }

    /// What follows an attempt that failed: the rule, then `retry.when`.
    fn next_after(
        &self,
        id: TaskId,
        blame: Blame,
        exit_code: Option<i32>,
        reason: &str,
    ) -> Result<retry::Next, String> {
        let (rule, status) = (&self.graph.task(id).retry, self.task(id));
        let next = retry::next(blame, counted_attempts(status), status.disruptions, rule.limit);
        let Some(when) = rule.when.as_ref().filter(|_| next == retry::Next::Retry) else { return Ok(next) };
        let scope = Scope { attempt: Some(status.attempts), failure: Some((exit_code, reason)), ..self.scope() };
        match when.eval_bool(&scope) {
            Ok(true) => Ok(next),
            Ok(false) => Ok(retry::Next::Fail),
            Err(error) => Err(format!("retry.when: {error}")),
        }
    }

    /// Draws when a task that has become Retrying is tried again.
    fn retry_later(&mut self, id: TaskId, next: retry::Next, gone: bool, round: &mut Round) {
        let def = self.graph.task(id);
        let wait = retry::wait(&def.retry, &self.identity.uid, &def.name, counted_attempts(self.task(id)));
        let due = later(round.now, wait);
        let task = &mut self.tasks[id.index()];
        if next == retry::Next::RetryDisrupted {
            task.status.disruptions = task.status.disruptions.saturating_add(1);
        }
        task.status.wake_at = Some(due);
        task.live = Live { gone, ..Live::default() };
        self.arm(id, Some(due));
        if !gone {
            round.awaits.insert(self.last_attempt(id));
        }
    }

    /// Makes a Retrying task Ready, once its time has come and the pods of its last attempt are gone.
    ///
    /// Its trigger held when it first started, and mostly holds for ever. Not so after a restart that found its Job, but
    /// no trace of a success before it that was not stored yet: then the dependency comes first.
    pub(super) fn try_again(&mut self, id: TaskId, round: &mut Round) {
        let task = &self.tasks[id.index()];
        let due = task.status.wake_at.is_none_or(|due| due <= round.now);
        if task.status.phase != TaskPhase::Retrying || !task.live.gone || task.live.stop.is_some() || !due {
            return;
        }
        match self.verdict(id) {
            Verdict::Wait => {}
            Verdict::Start => self.enter(id, TaskPhase::Ready, None, None, round),
            Verdict::Skip(reason) | Verdict::Omit(reason) => {
                let message = self.why_not(id, reason);
                self.enter(id, TaskPhase::Cancelled, Some(reason), message, round);
            }
        }
    }
}

/// The attempts that count for retries: not those before the task was told to start afresh.
fn counted_attempts(status: &TaskStatus) -> u32 {
    status.attempts.saturating_sub(status.attempts_before)
}
