//! One round: events in, actions out.

use std::sync::Arc;

use jiff::Timestamp;

use super::{
    event::{Attempt, Event, Step},
    expr::Scope,
    for_each::Launchable,
    graph::TaskId,
    policy::{
        calloff::{self, CallOff, Causes, Part, Standing},
        compensation, guard,
        trigger::{self, Verdict},
    },
    reason,
    record::Round,
    state::{Run, StopCause, later, whole_millis},
};
use crate::api::{DesiredState, Ending, EndingReason, FailurePolicy, TaskPhase};

impl Run {
    /// Takes what was observed and the time; answers what to do.
    pub fn step(&mut self, events: impl IntoIterator<Item = Event>, now: Timestamp) -> Step {
        let mut round = Round::new(whole_millis(now));
        let round = &mut round;
        if self.is_finished() {
            for event in events {
                if matches!(event, Event::Launched { .. }) {
                    self.observe(event, round);
                }
            }
            let store_first = !round.stops.is_empty() && self.must_store > self.stored;
            return std::mem::replace(round, Round::new(now)).into_step(store_first, None);
        }
        if self.start_time.is_none() {
            // of its beginning nothing was stored
            self.start_time = Some(round.now);
            self.record_history(round.now, reason::ACCEPTED, None);
        }
        for event in events {
            self.observe(event, round);
        }
        self.ring(round);
        self.follow_settings(round);
        self.settle(round);
        if std::mem::take(&mut self.restored) {
            self.ask_again(round);
            // asking may find that an expression has no value any more
            self.settle(round);
        }
        let acts = !round.launches.is_empty() || !round.stops.is_empty();
        let store_first = acts && self.must_store > self.stored;
        std::mem::replace(round, Round::new(now)).into_step(store_first, self.wake_at())
    }

    /// What is due.
    fn ring(&mut self, round: &mut Round) {
        while let Some((due, id)) = self.timers.first().copied().filter(|(due, _)| *due <= round.now) {
            self.timers.remove(&(due, id));
            let per_item = self.is_per_item(id);
            let task = &mut self.tasks[id.index()];
            task.due = None;
            match task.status.phase {
                TaskPhase::Running if task.live.stop.is_some() => {}
                TaskPhase::Running if per_item => self.ring_items(id, round),
                TaskPhase::Running if !task.live.started => self.start_timed_out(id, round),
                TaskPhase::Retrying => self.try_again(id, round),
                TaskPhase::Ready => self.not_remembered(id),
                TaskPhase::Waiting => _ = self.overdue.insert(id),
                _ => {}
            }
        }
    }

    pub(super) fn start_timed_out(&mut self, id: TaskId, round: &mut Round) {
        let limit = self.graph.task(id).start_timeout;
        let task = &self.tasks[id.index()];
        let cluster = task.live.blocked.unwrap_or(true);
        let seen = [task.status.reason.as_deref(), task.status.message.as_deref()];
        let mut message = format!("the pod did not start within {limit}");
        for text in seen.into_iter().flatten() {
            message.push_str(": ");
            message.push_str(text);
        }
        self.stop(id, StopCause::StartTimeout { cluster }, &message, round);
    }

    /// Has the live attempt of a task stopped.
    pub(super) fn stop(&mut self, id: TaskId, cause: StopCause, message: &str, round: &mut Round) {
        let reason = match cause {
            StopCause::CallOff(reason) => reason,
            StopCause::Again => reason::RERUN,
            StopCause::StartTimeout { cluster: true } => reason::START_TIMEOUT_BY_CLUSTER,
            StopCause::StartTimeout { cluster: false } => reason::START_TIMEOUT,
            StopCause::Items => reason::ITEMS_FAILED,
        };
        let task = &mut self.tasks[id.index()];
        task.live.stop = Some(cause);
        self.listless.remove(&id);
        if let Some(items) = &mut task.status.items {
            // of several causes the last counts, after a restart too
            items.ending = None;
        }
        self.blocked.remove(&id);
        self.arm(id, None);
        // shown, and read again after a restart
        self.note(id, Some(reason), Some(message), round);
        self.record_graph_fact(round);
        round.stops.insert(self.last_attempt(id));
    }

    /// What the user wants of the graph as a whole, and its deadlines.
    fn follow_settings(&mut self, round: &mut Round) {
        if self.open_tasks > 0 && self.ending.is_none() {
            if self.settings.desired_state == DesiredState::Cancel {
                self.end(EndingReason::Cancelled, None, round);
            } else if self.deadline().is_some_and(|deadline| deadline <= round.now) {
                let message = self.settings.timeout.map(|timeout| format!("the tasks were not done within {timeout}"));
                self.end(EndingReason::DeadlineExceeded, message, round);
            }
        }
        self.watch_compensations(round);
        if !self.finally_over && self.finally_deadline().is_some_and(|deadline| deadline <= round.now) {
            self.finally_over = true;
            self.sweep = true;
            let message = format!("`finally` was not done within {}", self.settings.finally_timeout);
            self.record_history(round.now, reason::DEADLINE_EXCEEDED, Some(message));
            self.record_graph_fact(round);
        }
        let suspended = self.wants_suspension();
        if suspended != self.suspended {
            self.suspended = suspended;
            self.suspended_before = true;
            self.record_history(round.now, if suspended { reason::SUSPENDED } else { reason::RESUMED }, None);
            round.changed = true;
        }
    }

    fn end(&mut self, reason: EndingReason, message: Option<String>, round: &mut Round) {
        self.ending = Some(Ending { reason, time: round.now });
        self.sweep = true;
        self.record_history(round.now, calloff::ending_reason(reason), message);
        self.record_graph_fact(round);
    }

    /// Until when all of `tasks` must be done.
    fn deadline(&self) -> Option<Timestamp> {
        let start = self.start_time?.max(self.reopen_time.unwrap_or(Timestamp::MIN));
        self.settings.timeout.map(|timeout| later(start, timeout))
    }

    /// Until when all of `finally` must be done.
    fn finally_deadline(&self) -> Option<Timestamp> {
        self.finally_time.map(|start| later(start, self.settings.finally_timeout))
    }

    fn wake_at(&self) -> Option<Timestamp> {
        if self.is_finished() {
            return None;
        }
        let timer = self.timers.first().map(|(due, _)| *due);
        let deadline = self.deadline().filter(|_| self.open_tasks > 0 && self.ending.is_none());
        let finally = self.finally_deadline().filter(|_| !self.finally_over);
        [timer, deadline, self.compensation_deadline(), finally].into_iter().flatten().min()
    }

    /// Follows every consequence to its end.
    fn settle(&mut self, round: &mut Round) {
        loop {
            // what follows from a task's own dependencies says more than that the graph is called off
            if let Some(id) = self.touched.pop_first() {
                self.judge_items(id, round);
            } else if let Some(id) = self.worklist.pop_front() {
                self.tasks[id.index()].queued = false;
                self.consider(id, round);
            } else if std::mem::take(&mut self.sweep) {
                self.call_off(round);
            } else if std::mem::take(&mut self.approved) {
                self.look_for_approvals(round);
            } else if let Some(id) = self.overdue.first().copied().filter(|_| self.starts()) {
                self.end_waiting(id, round);
            } else if let Some(id) = self.waits.first().copied() {
                // to wait is nothing new: of a suspended graph, or one whose spec is not valid, the end is held back
                self.begin_jobless(id, round);
            } else if let Some(id) = self.decisions.first().copied().filter(|_| self.starts()) {
                self.begin_jobless(id, round);
            } else if self.compensation_is_due() {
                self.begin_compensations(round);
            } else if self.finally_is_due() {
                self.begin_finally(round);
            } else if let Some(id) = self.rolling.first().copied().filter(|_| self.starts()) {
                self.launch_items(id, round);
            } else if let Some((_, id)) = self.ready.first().copied().filter(|_| self.starts() && self.has_slot()) {
                self.launch(id, round);
            } else {
                break;
            }
        }
        if self.is_over() && self.completion_time.is_none() {
            self.finish(round);
        }
    }

    /// Whether anything new is started.
    fn starts(&self) -> bool {
        // what a cancelled graph, or one that undoes what it did, does in the end is not held back
        let on_hold = self.on_hold && !self.is_cancelled() && self.compensation_time.is_none();
        !self.suspended && !on_hold
    }

    fn has_slot(&self) -> bool {
        let occupied = (self.running() + self.asking.len()).saturating_sub(self.listless.len());
        self.settings.parallelism.is_none_or(|limit| occupied < usize::try_from(limit).unwrap_or(usize::MAX))
    }

    /// Calls off what is to be called off.
    fn call_off(&mut self, round: &mut Round) {
        let causes = Causes {
            ending: self.ending.as_ref().map(|ending| ending.reason),
            compensation_over: self.compensation_over,
            finally_over: self.finally_over,
            failure: self.first_failed().map(|_| self.settings.failure_policy),
        };
        if causes.ending.is_none()
            && !causes.compensation_over
            && !causes.finally_over
            && matches!(causes.failure, None | Some(FailurePolicy::FinishBranches))
        {
            return;
        }
        let graph = Arc::clone(&self.graph);
        for id in graph.ids() {
            let (task, def) = (&self.tasks[id.index()], graph.task(id));
            if def.undoes.is_some() && !self.has_work(id) {
                continue;
            }
            let standing = Standing {
                phase: task.status.phase,
                begun: task.status.begun(),
                part: match def.undoes {
                    Some(_) => Part::Compensations,
                    None if def.finally => Part::Finally,
                    None => Part::Tasks,
                },
                handler: def.handler,
            };
            match calloff::decide(causes, standing) {
                CallOff::No => {}
                CallOff::Omit(reason) => {
                    let message = self.why_called_off(id, reason);
                    self.enter(id, TaskPhase::Omitted, Some(reason), Some(message), round);
                }
                CallOff::Cancel(reason) => self.call_off_begun(id, reason, round),
            }
        }
    }

    fn call_off_begun(&mut self, id: TaskId, reason: &'static str, round: &mut Round) {
        let live = &self.tasks[id.index()].live;
        match self.task(id).phase {
            _ if matches!(live.stop, Some(StopCause::CallOff(_))) => {}
            TaskPhase::Running => {
                let message = format!("being stopped: {}", self.why_called_off(id, reason));
                self.stop(id, StopCause::CallOff(reason), &message, round);
            }
            TaskPhase::Retrying if !live.gone => {
                let task = &mut self.tasks[id.index()];
                task.live.stop = Some(StopCause::CallOff(reason));
                // without a time to wake at, a restart knows that there is to be no further attempt
                task.status.wake_at = None;
                self.arm(id, None);
                let message = self.why_called_off(id, reason);
                self.note(id, Some(reason), Some(&message), round);
                self.record_graph_fact(round);
            }
            _ => self.cancel(id, reason, round),
        }
    }

    /// Why a task is called off, for people.
    pub(super) fn why_called_off(&self, id: TaskId, reason: &str) -> String {
        match (reason, self.first_failed()) {
            (reason::REMOVED, _) => "it was removed from the graph".to_owned(),
            (reason::CANCELLED, _) => "the graph was cancelled".to_owned(),
            (reason::DEADLINE_EXCEEDED, _) if self.graph.task(id).finally => {
                "the graph's finallyTimeout ran out".to_owned()
            }
            (reason::DEADLINE_EXCEEDED, _) if self.is_compensation(id) => {
                "the graph's compensationTimeout ran out".to_owned()
            }
            (reason::DEADLINE_EXCEEDED, _) => "the graph's timeout ran out".to_owned(),
            (_, Some(failed)) => format!("task {} failed", self.graph.task(failed).name),
            _ => "a task failed".to_owned(),
        }
    }

    /// What its guards and then its trigger say of a task.
    pub(super) fn verdict(&self, id: TaskId) -> Verdict {
        let (task, def) = (&self.tasks[id.index()], self.graph.task(id));
        if let Some(undone) = def.undoes {
            return compensation::decide(self.compensation_time.is_some(), &task.tally, self.task(undone).phase);
        }
        match guard::all(task.barred, task.guards_open) {
            _ if def.finally && self.finally_time.is_none() => Verdict::Wait,
            Some(verdict) => verdict,
            None if def.dependencies.is_empty() => Verdict::Start,
            None => trigger::decide(def.trigger, &task.tally),
        }
    }

    /// Looks at a task of which dependencies changed.
    fn consider(&mut self, id: TaskId, round: &mut Round) {
        match self.task(id).phase {
            TaskPhase::Pending => {}
            TaskPhase::Retrying => return self.try_again(id, round),
            TaskPhase::Running => return self.look_for_items(id),
            _ => return,
        }
        let (phase, reason) = match self.verdict(id) {
            Verdict::Wait => return,
            Verdict::Skip(reason::NOTHING_TO_COMPENSATE) => return self.pass_over(id),
            Verdict::Skip(reason) => (TaskPhase::Skipped, reason),
            Verdict::Omit(reason) => (TaskPhase::Omitted, reason),
            Verdict::Start => return self.admit(id, round),
        };
        let message = self.why_not(id, reason);
        self.enter(id, phase, Some(reason), message, round);
    }

    /// Its guards and its trigger hold: its `when` is asked.
    fn admit(&mut self, id: TaskId, round: &mut Round) {
        let graph = Arc::clone(&self.graph);
        match graph.task(id).when.as_ref().map_or(Ok(true), |when| when.eval_bool(&self.scope())) {
            Ok(true) => self.enter(id, TaskPhase::Ready, None, None, round),
            Ok(false) => self.enter(id, TaskPhase::Skipped, Some(reason::CONDITION_FALSE), None, round),
            Err(error) => {
                let message = format!("when: {error}");
                self.enter(id, TaskPhase::Failed, Some(reason::EXPRESSION_ERROR), Some(message), round);
            }
        }
    }

    /// Whether it is the turn of `finally`.
    fn finally_is_due(&self) -> bool {
        self.open_tasks == 0 && !self.is_compensating() && self.finally_time.is_none() && self.open_finally > 0
    }

    /// Whether nothing is left to do.
    pub(super) fn is_over(&self) -> bool {
        self.open_tasks + self.open_finally + self.open_removed == 0 && !self.is_compensating()
    }

    fn begin_finally(&mut self, round: &mut Round) {
        self.finally_time = Some(round.now);
        self.record_graph_fact(round);
        for id in self.graph.finally() {
            self.queue(id);
        }
    }

    /// Begins the next attempt of a Ready task.
    fn launch(&mut self, id: TaskId, round: &mut Round) {
        if self.asks_first(id, round) {
            return;
        }
        let Some(number) = self.task(id).attempts.checked_add(1) else {
            let message = "attempt numbers are used up".to_owned();
            return self.enter(id, TaskPhase::Failed, Some(reason::TOO_MANY_ATTEMPTS), Some(message), round);
        };
        let attempt = Attempt::new(id, number);
        match self.launchable(attempt) {
            Ok(Launchable::Items(list)) => {
                if let Err(error) = self.launch_each(attempt, list, round) {
                    self.enter(id, TaskPhase::Failed, Some(reason::EXPRESSION_ERROR), Some(error.to_string()), round);
                }
            }
            Ok(Launchable::Job(launch)) => {
                self.tasks[id.index()].status.attempts = number;
                self.begin(id, None, round);
                self.expect_items(&launch);
                round.launches.push(launch);
            }
            Ok(Launchable::NoItems) => self.skip_without_items(id, round),
            Ok(Launchable::Nothing) => {}
            Err(error) => {
                self.enter(id, TaskPhase::Failed, Some(reason::EXPRESSION_ERROR), Some(error.to_string()), round);
            }
        }
    }

    pub(super) fn scope(&self) -> Scope<'_> {
        Scope {
            identity: &self.identity,
            arguments: &self.graph.arguments,
            tasks: self,
            attempt: None,
            item: None,
            failure: None,
        }
    }
}
