//! A run that undoes what Succeeded: between the last of `tasks` and the first of `finally`.

use jiff::Timestamp;

use super::{
    graph::{Role, TaskId},
    reason,
    record::Round,
    report::joined,
    state::{PhaseCounts, Run, later, whole_millis},
};
use crate::api::{CompensationStatus, TaskGraphStatus, TaskPhase, TaskStatus};

/// How many compensations that failed are named.
const MAX_NAMED: usize = 3;

impl Run {
    /// Whether a task did something that would have to be undone: it Succeeded, has `compensate`, and the graph goes on.
    pub fn may_be_compensated(&self, id: TaskId) -> bool {
        !self.is_finished() && self.graph.task(id).compensation.is_some() && self.task(id).phase == TaskPhase::Succeeded
    }

    /// Whether what a task did was undone, or somebody tried to.
    pub fn is_compensated(&self, id: TaskId) -> bool {
        self.graph.task(id).compensation.is_some_and(|undo| self.task(undo).begun())
    }

    /// Whether it is the turn of the compensations: `tasks` are final, `finally` has not begun, the graph is to fail, and
    /// something of it is to be undone.
    pub(super) fn compensation_is_due(&self) -> bool {
        self.compensation_time.is_none()
            && self.finally_time.is_none()
            && self.open_tasks == 0
            && self.tasks_went_wrong()
            && self.graph.compensations().any(|id| self.has_work(id))
    }

    /// Whether a task of `tasks` failed or was called off.
    fn tasks_went_wrong(&self) -> bool {
        // only after a status was edited by hand, or a crash that lost a success, is a task lost where none failed
        let is_lost = |phase| matches!(phase, TaskPhase::Cancelled | TaskPhase::Omitted);
        let lost = self.phases.get(TaskPhase::Cancelled) + self.phases.get(TaskPhase::Omitted);
        // what was lost of `finally`, before the graph was taken up again, undoes nothing
        let of_finally = || self.graph.finally().filter(|id| is_lost(self.task(*id).phase)).count();
        self.ending.is_some() || self.first_failed().is_some() || (lost > 0 && lost > of_finally())
    }

    fn count_open_compensations(&self) -> usize {
        self.graph.compensations().filter(|id| self.has_work(*id) && !self.task(*id).phase.is_final()).count()
    }

    /// Whether a compensation has something to undo.
    pub(super) fn has_work(&self, id: TaskId) -> bool {
        self.graph.task(id).undoes.is_some_and(|undone| self.task(undone).phase == TaskPhase::Succeeded)
    }

    /// Whether it undoes what Succeeded now: `finally` waits.
    pub(super) fn is_compensating(&self) -> bool {
        // one that runs though it is not its time can only come from elsewhere; it is seen to its end
        self.open_compensations > 0 || self.compensations.get(TaskPhase::Running) > 0
    }

    pub(super) fn begin_compensations(&mut self, round: &mut Round) {
        self.compensation_time = Some(round.now);
        self.open_compensations = self.count_open_compensations();
        self.record_history(round.now, reason::COMPENSATING, None);
        self.record_graph_fact(round);
        for id in self.graph.compensations() {
            self.queue(id);
        }
    }

    /// Whether the graph has begun to undo what it did, and has not finished.
    pub fn is_undoing(&self) -> bool {
        self.compensation_time.is_some() && !self.is_finished()
    }

    /// Until when all compensations must be done.
    pub(super) fn compensation_deadline(&self) -> Option<Timestamp> {
        let start = self.compensation_time.filter(|_| !self.compensation_over && self.is_compensating())?;
        Some(later(start, self.settings.compensation_timeout))
    }

    /// Calls off the compensations that are not done in time.
    pub(super) fn watch_compensations(&mut self, round: &mut Round) {
        if self.compensation_deadline().is_some_and(|deadline| deadline <= round.now) {
            self.compensation_over = true;
            self.sweep = true;
            let message = format!("the compensations were not done within {}", self.settings.compensation_timeout);
            self.record_history(round.now, reason::DEADLINE_EXCEEDED, Some(message));
            self.record_graph_fact(round);
        }
    }

    pub(super) fn is_compensation(&self, id: TaskId) -> bool {
        self.graph.task(id).role() == Role::Compensation
    }

    /// The counts that a task is among.
    pub(super) fn counts_of(&mut self, id: TaskId) -> &mut PhaseCounts {
        if self.is_compensation(id) { &mut self.compensations } else { &mut self.phases }
    }

    /// How many attempts hold a slot.
    pub(super) fn running(&self) -> usize {
        self.phases.get(TaskPhase::Running) + self.compensations.get(TaskPhase::Running)
    }

    /// The first few compensations that went wrong.
    pub(super) fn compensation_message(&self) -> Option<String> {
        let failed: Vec<_> = self.failed.range(self.graph.first_compensation_id()..).collect();
        let named: Vec<_> = failed.iter().take(MAX_NAMED).map(|id| self.name_with_cause(**id)).collect();
        let more = failed.len().saturating_sub(named.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let failed = (!named.is_empty()).then(|| format!("compensation failed: {}{more}", named.join(", ")));
        let over = self.compensation_over.then(|| "the graph's compensationTimeout ran out".to_owned());
        joined([failed, over])
    }

    /// What the status shows of the compensation of a task; `None` before the graph compensates, and where there is
    /// nothing to undo: both follow from what else is stored.
    pub(super) fn shown_compensation(&self, id: TaskId) -> Option<&TaskStatus> {
        let status = self.task(self.graph.task(id).compensation?);
        let is_due = self.compensation_time.is_some() && self.task(id).phase == TaskPhase::Succeeded;
        (is_due || status.attempts > 0).then_some(status)
    }

    /// Takes over when the compensations began, all phases being restored.
    pub(super) fn restore_compensations(&mut self, status: &TaskGraphStatus) {
        if self.open_tasks == 0 {
            self.compensation_time = status.compensation_time.map(whole_millis);
        }
        if self.compensation_time.is_some() {
            self.open_compensations = self.count_open_compensations();
        }
        self.compensation_over = self.was_cut_off(self.graph.compensations(), self.compensation_time);
    }

    /// Whether a deadline over all of `ids`, which began at `begun`, ran out: one of them says so.
    pub(super) fn was_cut_off(&self, mut ids: impl Iterator<Item = TaskId>, begun: Option<Timestamp>) -> bool {
        // one that was cut off before they began once more does not count
        let Some(begun) = begun else { return false };
        ids.any(|id| {
            let status = self.task(id);
            // an attempt that failed may have had a deadline of its own
            status.phase.is_final()
                && status.phase != TaskPhase::Failed
                && status.reason.as_deref() == Some(reason::DEADLINE_EXCEEDED)
                && status.completion_time.is_none_or(|time| time > begun)
        })
    }
}

/// The status of a compensation, as that of a task of this name.
pub(super) fn stored(task: &TaskStatus) -> Option<TaskStatus> {
    task.compensation.as_deref().map(|compensation| compensation.clone().into_task(task.name.clone()))
}

/// The status of a compensation, as its task shows it.
pub(super) fn shown(status: TaskStatus) -> Box<CompensationStatus> {
    Box::new(status.into())
}
