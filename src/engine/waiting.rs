//! Tasks without a Job in a run: decisions, and those that wait for a time or an approval.

use std::sync::Arc;

use jiff::Timestamp;

use super::{
    graph::{BranchDef, TaskId, Work},
    policy::waiting::{Delay, Ended, decided, timed_out},
    reason,
    record::Round,
    restore::is_being_stopped,
    state::{Live, Run, later},
    validate::suggest,
};
use crate::api::{Approval, TaskPhase, TaskStatus};

impl Run {
    /// Takes in what somebody decided; it counts from the next step on. What stands there already stays.
    pub fn approve(&mut self, approval: Approval) {
        let approvals = Arc::make_mut(&mut self.settings.approvals);
        let of_task = approvals.entry(Arc::from(approval.task.as_str())).or_default();
        of_task.entry(approval.attempt).or_insert(approval);
        self.approved = true;
    }

    /// Begins a Ready task that has no Job.
    pub(super) fn begin_jobless(&mut self, id: TaskId, round: &mut Round) {
        let graph = Arc::clone(&self.graph);
        match &graph.task(id).work {
            Work::Decision { branches, inclusive } => self.choose(id, branches, *inclusive, round),
            Work::Delay(delay) => self.begin_delay(id, delay, round),
            Work::Approval(_) => self.ask(id, round),
            Work::Job(_) | Work::Graph(_) | Work::Removed => {}
        }
    }

    /// Takes the first branch of a decision that holds, or of an inclusive one each that does.
    fn choose(&mut self, id: TaskId, branches: &[BranchDef], inclusive: bool, round: &mut Round) {
        let mut taken = Vec::new();
        for branch in branches {
            if branch.when.is_none() && !taken.is_empty() {
                break;
            }
            match branch.when.as_ref().map_or(Ok(true), |when| when.eval_bool(&self.scope())) {
                Ok(false) => {}
                Ok(true) => {
                    taken.push(branch.name.to_string());
                    if !inclusive {
                        break;
                    }
                }
                Err(error) => {
                    let message = format!("branch {}: {error}", branch.name);
                    return self.enter(id, TaskPhase::Failed, Some(reason::EXPRESSION_ERROR), Some(message), round);
                }
            }
        }
        if taken.is_empty() {
            let message = "no branch holds; a branch without `when`, put last, is taken if no other is".to_owned();
            return self.enter(id, TaskPhase::Failed, Some(reason::NO_BRANCH), Some(message), round);
        }
        let status = &mut self.tasks[id.index()].status;
        if inclusive {
            status.branches = taken;
        } else {
            status.branch = taken.pop();
        }
        self.enter(id, TaskPhase::Succeeded, None, None, round);
        self.must_store();
    }

    fn begin_delay(&mut self, id: TaskId, delay: &Delay, round: &mut Round) {
        let end = delay.end(self.task(id).ready_time.unwrap_or(round.now));
        self.begin_waiting(id, reason::DELAY, Some(end), round);
    }

    /// Asks for an approval: there may be one already.
    fn ask(&mut self, id: TaskId, round: &mut Round) {
        let timeout = self.graph.task(id).timeout;
        self.begin_waiting(id, reason::APPROVAL_PENDING, timeout.map(|timeout| later(round.now, timeout)), round);
        self.look_for_approval(id, round);
    }

    /// Enters Waiting with the next attempt, until `end`. The time is drawn: it is stored before anything follows from it.
    fn begin_waiting(&mut self, id: TaskId, reason: &'static str, end: Option<Timestamp>, round: &mut Round) {
        let Some(number) = self.task(id).attempts.checked_add(1) else {
            let message = "attempt numbers are used up".to_owned();
            return self.enter(id, TaskPhase::Failed, Some(reason::TOO_MANY_ATTEMPTS), Some(message), round);
        };
        self.tasks[id.index()].status.attempts = number;
        self.enter(id, TaskPhase::Waiting, Some(reason), None, round);
        let status = &mut self.tasks[id.index()].status;
        status.start_time = Some(round.now);
        status.wake_at = end;
        self.must_store();
        match end {
            Some(end) if end <= round.now => _ = self.overdue.insert(id),
            end => self.arm(id, end),
        }
    }

    /// Looks at what was decided meanwhile on all that wait for it.
    pub(super) fn look_for_approvals(&mut self, round: &mut Round) {
        let waiting: Vec<TaskId> = self.asked.iter().copied().collect();
        for id in waiting {
            self.look_for_approval(id, round);
        }
    }

    fn look_for_approval(&mut self, id: TaskId, round: &mut Round) {
        let status = self.task(id);
        let of_task = self.settings.approvals.get(status.name.as_str());
        if let Some(approval) = of_task.and_then(|of_task| of_task.get(&status.attempts))
            && status.phase == TaskPhase::Waiting
        {
            let ended = decided(approval);
            self.end_approval(id, ended, round);
        }
    }

    /// What is odd about the approvals, while one is waited for: an entry that is of no task which asks for one.
    pub(super) fn stray_approval(&self) -> Option<String> {
        let asks = |id: TaskId| matches!(self.graph.task(id).work, Work::Approval(_) | Work::Removed);
        let mut decided = self.settings.approvals.keys().filter(|_| !self.asked.is_empty());
        let stray = decided.find(|name| !self.graph.find(name).is_some_and(asks))?;
        let waiting = self.asked.iter().map(|id| self.task(*id).name.as_str());
        let hint = suggest(stray, waiting).unwrap_or_default();
        Some(format!("spec.approvals decides on {stray:?}, which asks for no approval{hint}"))
    }

    /// Ends a wait whose time has come.
    pub(super) fn end_waiting(&mut self, id: TaskId, round: &mut Round) {
        self.overdue.remove(&id);
        let graph = Arc::clone(&self.graph);
        let def = graph.task(id);
        match &def.work {
            Work::Approval(on_timeout) => self.end_approval(id, timed_out(*on_timeout, def.timeout), round),
            _ => self.end_delay(id, round),
        }
    }

    fn end_delay(&mut self, id: TaskId, round: &mut Round) {
        let task = &mut self.tasks[id.index()];
        task.ended = task.status.attempts;
        self.enter(id, TaskPhase::Succeeded, None, None, round);
    }

    /// Records how an approval ended. An approval acted on is stored before anything follows from it.
    fn end_approval(&mut self, id: TaskId, ended: Ended, round: &mut Round) {
        let status = self.task(id);
        let text = match &ended.result {
            Ok((_, text)) => Some(text.as_str()),
            Err(failure) => failure.message.as_deref(),
        };
        let number = if status.attempts > 1 { format!(" (attempt {})", status.attempts) } else { String::new() };
        let message = format!("{}{number}: {}", status.name, text.unwrap_or_default());
        self.record_history(round.now, ended.event, Some(message));
        match ended.result {
            Ok((reason, message)) => {
                let task = &mut self.tasks[id.index()];
                task.ended = task.status.attempts;
                self.enter(id, TaskPhase::Succeeded, Some(reason), Some(message), round);
                self.must_store();
            }
            // no pod of it could still run
            Err(failure) => self.attempt_failed(id, failure, round.now, true, round),
        }
    }

    /// What follows from the stored status of a task without a Job for its last attempt; when it is due.
    pub(super) fn restore_waiting(&mut self, id: TaskId) -> Option<Timestamp> {
        let task = &mut self.tasks[id.index()];
        task.ended = task.status.attempts;
        match task.status.phase {
            TaskPhase::Waiting => {
                task.ended = task.status.attempts.saturating_sub(1);
                task.status.wake_at
            }
            TaskPhase::Retrying => {
                // there was never a pod of it
                task.live = Live { gone: true, ..Live::default() };
                task.status.wake_at
            }
            _ => None,
        }
    }
}

/// A stored phase of a task that does `work`, as it can be.
pub(super) fn repaired_phase(work: &Work, status: &TaskStatus) -> TaskPhase {
    let begun = status.begun();
    match (status.phase, work) {
        // what is left of its attempts is being stopped
        (phase, _) if is_being_stopped(status) => phase,
        // a decision that took no branch it has was not decided
        (TaskPhase::Succeeded, Work::Decision { branches, .. })
            if !status.taken().any(|taken| branches.iter().any(|branch| *branch.name == *taken)) =>
        {
            TaskPhase::Pending
        }
        (TaskPhase::Running, Work::Decision { .. } | Work::Delay(_) | Work::Approval(_))
        | (TaskPhase::Waiting | TaskPhase::Retrying, Work::Decision { .. })
        | (TaskPhase::Retrying, Work::Delay(_)) => TaskPhase::Pending,
        // a delay of which the end is not known is drawn again
        (TaskPhase::Waiting, Work::Delay(_)) if status.wake_at.is_none() || !begun => TaskPhase::Pending,
        (
            TaskPhase::Running | TaskPhase::Retrying | TaskPhase::Waiting,
            Work::Job(_) | Work::Graph(_) | Work::Approval(_),
        ) if !begun => TaskPhase::Pending,
        // it had an attempt, of which nothing is known: nothing new before its pods are gone
        (TaskPhase::Pending | TaskPhase::Waiting, Work::Job(_) | Work::Graph(_)) if begun => TaskPhase::Retrying,
        (phase, _) => phase,
    }
}
