//! What there is to tell of a stored status, given what was told before: a pure function, so that nothing need be kept
//! of what could not be delivered yet. After a restart, and after a sink was away for a day, the same facts come out.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

use jiff::Timestamp;

use super::event::Kind;
use crate::{
    api::{
        CONDITION_COMPLETE, CloudEventsStatus, CompensationStatus, FailedAttempt, HistoryEntry, TaskGraphStatus,
        TaskPhase, TaskStatus,
    },
    engine::reason,
};

/// One thing to tell of a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fact {
    /// What.
    pub kind: Kind,
    /// When; not known of a task that was removed while it ran.
    pub time: Option<Timestamp>,
    /// Number of the attempt; 0: none.
    pub attempt: u32,
    /// Where it stands in the status.
    pub origin: Origin,
}

/// Where a fact stands in a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In an entry of the history.
    History(usize),
    /// In a task.
    Task {
        /// Its place.
        place: usize,
        /// In its compensation.
        undo: bool,
        /// In a failed attempt, by place.
        failed: Option<usize>,
    },
}

/// What was told of a graph.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// The last entry of the history that was.
    history: Option<HistoryEntry>,
    /// Of each task, and of its compensation.
    tasks: BTreeMap<String, [Mark; 2]>,
}

/// What was told of a task.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Mark {
    /// The last attempt whose start was.
    started: u32,
    /// The last attempt whose failure was.
    failed: u32,
    /// The last end.
    end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct End {
    phase: TaskPhase,
    attempts: u32,
    time: Option<Timestamp>,
}

impl Mark {
    /// The last attempt that anything was told of.
    fn last(&self) -> u32 {
        self.started.max(self.failed).max(self.end.map_or(0, |end| end.attempts))
    }
}

/// What the status of a task and that of a compensation have in common.
#[derive(Clone, Copy, Debug)]
pub struct Life<'a> {
    /// See [`TaskStatus`].
    pub phase: TaskPhase,
    /// See [`TaskStatus`].
    pub reason: Option<&'a str>,
    /// See [`TaskStatus`].
    pub message: Option<&'a str>,
    /// See [`TaskStatus`].
    pub attempts: u32,
    /// See [`TaskStatus`].
    pub attempts_before: u32,
    /// See [`TaskStatus`].
    pub removed: bool,
    /// See [`TaskStatus`].
    pub job: Option<&'a str>,
    /// It runs, and has no Job or child graph yet.
    pub is_launching: bool,
    /// See [`TaskStatus`].
    pub start_time: Option<Timestamp>,
    /// See [`TaskStatus`].
    pub completion_time: Option<Timestamp>,
    /// See [`TaskStatus`].
    pub failed: &'a [FailedAttempt],
}

impl<'a> Life<'a> {
    /// Of a task.
    pub fn of_task(task: &'a TaskStatus) -> Self {
        Self {
            phase: task.phase,
            reason: task.reason.as_deref(),
            message: task.message.as_deref(),
            attempts: task.attempts,
            attempts_before: task.attempts_before,
            removed: task.removed,
            job: task.job.as_deref(),
            is_launching: task.phase == TaskPhase::Running
                && task.job.is_none()
                && task.items.as_ref().is_none_or(|items| items.launched.is_none()),
            start_time: task.start_time,
            completion_time: task.completion_time,
            failed: &task.failed_attempts,
        }
    }

    /// Of a task's compensation.
    pub fn of_compensation(undo: &'a CompensationStatus, removed: bool) -> Self {
        Self {
            phase: undo.phase,
            reason: undo.reason.as_deref(),
            message: undo.message.as_deref(),
            attempts: undo.attempts,
            attempts_before: undo.attempts_before,
            removed,
            job: undo.job.as_deref(),
            is_launching: undo.phase == TaskPhase::Running && undo.job.is_none(),
            start_time: undo.start_time,
            completion_time: undo.completion_time,
            failed: &undo.failed_attempts,
        }
    }

    /// Of a task or its compensation.
    pub fn of(task: &'a TaskStatus, undo: bool) -> Option<Self> {
        if undo {
            task.compensation.as_deref().map(|undo| Self::of_compensation(undo, task.removed))
        } else {
            Some(Self::of_task(task))
        }
    }

    /// Whether its last attempt belongs to what it does now.
    pub fn begun(&self) -> bool {
        self.attempts > self.attempts_before
    }

    fn end(&self) -> Option<End> {
        let Self { phase, attempts, completion_time: time, .. } = *self;
        phase.is_final().then_some(End { phase, attempts, time })
    }

    /// What is to be told, in order.
    fn facts(&self, mark: &Mark, place: usize, undo: bool) -> Vec<Fact> {
        let mut facts = Vec::new();
        let mut started = mark.started;
        let origin = |failed| Origin::Task { place, undo, failed };
        let mut failures: Vec<_> = self.failed.iter().enumerate().collect();
        failures.sort_by_key(|(_, failure)| failure.attempt);
        for (at, failure) in failures {
            let attempt = failure.attempt;
            if attempt <= mark.failed || attempt > self.attempts {
                continue;
            }
            let mut tell = |kind, time| facts.push(Fact { kind, time, attempt, origin: origin(Some(at)) });
            if attempt > started && failure.start_time.is_some() {
                tell(Kind::started(undo), failure.start_time);
            }
            started = started.max(attempt);
            match Kind::ended(TaskPhase::Failed, undo) {
                // the end tells it
                _ if attempt == self.attempts && self.phase == TaskPhase::Failed => {}
                // the last one before the task was told to start afresh
                Some(failed) if attempt == self.attempts_before => tell(failed, failure.completion_time),
                _ => tell(Kind::retrying(undo), failure.completion_time),
            }
        }
        let attempt = self.attempts;
        if attempt > started && self.start_time.is_some() && !self.is_launching {
            facts.push(Fact { kind: Kind::started(undo), time: self.start_time, attempt, origin: origin(None) });
        }
        if let Some(end) = self.end().filter(|end| !mark.end.is_some_and(|told| self.is_same(*end, told)))
            && let Some(kind) = Kind::ended(end.phase, undo)
        {
            facts.push(Fact { kind, time: end.time, attempt, origin: origin(None) });
        }
        facts
    }

    /// Whether an end was told. What is kept of a task that was removed has no times.
    fn is_same(&self, end: End, told: End) -> bool {
        end == told || (self.removed && (end.phase, end.attempts) == (told.phase, told.attempts))
    }
}

impl Told {
    /// What counts as told of a graph that is taken up with this status: all but what it says is still to be delivered.
    /// All of it, too, where nothing was delivered when it was written: events begin when the operator is given a sink.
    pub fn restore(status: &TaskGraphStatus) -> Self {
        let Some(owed) = &status.cloud_events else { return Self::all(status) };
        if owed.sequence != status.sequence {
            return Self::default();
        }
        let mut told = Self::all(status);
        let kept = status.history.len().saturating_sub(usize::try_from(owed.history).unwrap_or(usize::MAX));
        told.history = kept.checked_sub(1).and_then(|last| status.history.get(last)).cloned();
        if owed.all_tasks {
            told.tasks.clear();
        }
        for name in &owed.tasks {
            told.tasks.remove(name);
        }
        told
    }

    /// All of a status.
    fn all(status: &TaskGraphStatus) -> Self {
        let mut told = Self { history: status.history.last().cloned(), tasks: BTreeMap::new() };
        for fact in told.facts(status) {
            told.take(&fact, status);
        }
        for task in &status.tasks {
            let marks = told.tasks.entry(task.name.clone()).or_default();
            for (undo, mark) in [false, true].into_iter().zip(marks) {
                let Some(life) = Life::of(task, undo) else { continue };
                mark.started = mark.started.max(life.attempts.saturating_sub(u32::from(life.is_launching)));
            }
        }
        told
    }

    /// What there is to tell of a status, in order: of each task as it happened; over all tasks by time, at the same
    /// time what ended before what began; that the graph finished at the end.
    pub fn facts(&self, status: &TaskGraphStatus) -> Vec<Fact> {
        let mut history = self.history_facts(status);
        let last = status.completion_time.and_then(|_| history.pop_if(|fact| fact.kind.is_graph_end()));
        let mut queues = vec![history];
        for (place, task) in status.tasks.iter().enumerate() {
            let marks = self.tasks.get(&task.name).copied().unwrap_or_default();
            for (undo, mark) in [false, true].into_iter().zip(&marks) {
                let facts = Life::of(task, undo).map(|life| life.facts(mark, place, undo)).unwrap_or_default();
                if !facts.is_empty() {
                    queues.push(facts);
                }
            }
        }
        let mut facts = merged(&queues);
        facts.extend(last);
        facts
    }

    fn history_facts(&self, status: &TaskGraphStatus) -> Vec<Fact> {
        let told = self.history.as_ref().and_then(|last| status.history.iter().rposition(|entry| entry == last));
        let fresh = status.history.iter().enumerate().skip(told.map_or(0, |told| told + 1));
        let fact = |(at, entry): (usize, &HistoryEntry)| {
            let kind = kind_of(entry)?;
            Some(Fact { kind, time: Some(entry.time), attempt: 0, origin: Origin::History(at) })
        };
        fresh.filter_map(fact).collect()
    }

    /// Notes that a fact of a status was told. How many attempts before it cannot be told any more: a status keeps the
    /// last five that failed.
    pub fn take(&mut self, fact: &Fact, status: &TaskGraphStatus) -> u32 {
        let (place, undo, failed) = match fact.origin {
            Origin::History(at) => {
                self.history = status.history.get(at).cloned();
                return 0;
            }
            Origin::Task { place, undo, failed } => (place, undo, failed),
        };
        let Some(task) = status.tasks.get(place) else { return 0 };
        if !self.tasks.contains_key(&task.name) {
            self.tasks.insert(task.name.clone(), <[Mark; 2]>::default());
        }
        let Some([of_task, of_undo]) = self.tasks.get_mut(&task.name) else { return 0 };
        let mark = if undo { of_undo } else { of_task };
        let known = mark.last();
        let lost = if known == 0 { 0 } else { fact.attempt.saturating_sub(known.saturating_add(1)) };
        mark.started = mark.started.max(fact.attempt);
        if fact.kind.is_end() {
            if failed.is_some() || matches!(fact.kind, Kind::TaskFailed | Kind::CompensationFailed) {
                mark.failed = mark.failed.max(fact.attempt);
            }
            if failed.is_none() {
                mark.end = Life::of(task, undo).and_then(|life| life.end());
            }
        }
        lost
    }

    /// What of a status is still to be told, as the status itself says it.
    pub fn owed(&self, status: &TaskGraphStatus) -> CloudEventsStatus {
        let mut owed = CloudEventsStatus { sequence: status.sequence, ..CloudEventsStatus::default() };
        let mut tasks = BTreeSet::new();
        for fact in self.facts(status) {
            match fact.origin {
                Origin::History(at) => {
                    let entries = status.history.len().saturating_sub(at);
                    owed.history = owed.history.max(u32::try_from(entries).unwrap_or(u32::MAX));
                }
                Origin::Task { place, .. } => _ = tasks.insert(place),
            }
        }
        owed.all_tasks = tasks.len() > CloudEventsStatus::MAX_TASKS;
        if !owed.all_tasks {
            let names = tasks.into_iter().filter_map(|place| status.tasks.get(place));
            owed.tasks = names.map(|task| task.name.clone()).collect();
        }
        owed
    }

    /// How much of what is to be told of a status another one does not tell any more.
    pub fn lost(&self, status: &TaskGraphStatus, next: &TaskGraphStatus) -> u64 {
        let what = |of: &TaskGraphStatus, fact: &Fact| {
            let task = match fact.origin {
                Origin::History(_) => None,
                Origin::Task { place, .. } => of.tasks.get(place).map(|task| task.name.clone()),
            };
            (task, fact.kind, fact.attempt, fact.time)
        };
        let kept: BTreeSet<_> = self.facts(next).iter().map(|fact| what(next, fact)).collect();
        let lost = self.facts(status).iter().filter(|fact| !kept.contains(&what(status, fact))).count();
        u64::try_from(lost).unwrap_or(u64::MAX)
    }

    /// Forgets tasks that vanished.
    pub fn prune(&mut self, status: &TaskGraphStatus) {
        if self.tasks.len() > status.tasks.len() {
            let known: BTreeSet<_> = status.tasks.iter().map(|task| task.name.as_str()).collect();
            self.tasks.retain(|name, _| known.contains(name.as_str()));
        }
    }
}

/// What an entry of the history is told as. How an approval was decided, its task's end tells.
fn kind_of(entry: &HistoryEntry) -> Option<Kind> {
    Some(match (entry.event.as_str(), entry.message.as_deref()) {
        (reason::ACCEPTED, _) => Kind::GraphAccepted,
        (reason::EDITED, _) => Kind::GraphEdited,
        (reason::RERUN, _) => Kind::GraphRerun,
        (reason::SUSPENDED, _) => Kind::GraphSuspended,
        (reason::RESUMED, _) => Kind::GraphResumed,
        (reason::CANCELLED | reason::DEADLINE_EXCEEDED, _) => Kind::GraphCancelling,
        (reason::COMPENSATING, _) => Kind::GraphCompensating,
        (reason::FINISHED, Some(CONDITION_COMPLETE)) => Kind::GraphSucceeded,
        (reason::FINISHED, Some(reason::CANCELLED)) => Kind::GraphCancelled,
        (reason::FINISHED, _) => Kind::GraphFailed,
        _ => return None,
    })
}

/// Queues, each in order, as one: by time, as far as the order of each allows.
fn merged(queues: &[Vec<Fact>]) -> Vec<Fact> {
    let rank = |fact: &Fact| match fact.origin {
        Origin::History(_) => 0_u8,
        Origin::Task { .. } if fact.kind.is_end() => 1,
        Origin::Task { .. } => 2,
    };
    let head = |queue: usize, at: usize, before: Timestamp| {
        let fact = queues.get(queue)?.get(at)?;
        let time = fact.time.unwrap_or(Timestamp::MAX).max(before);
        Some(Reverse((time, rank(fact), queue, at)))
    };
    let mut heads: BinaryHeap<_> = (0..queues.len()).filter_map(|queue| head(queue, 0, Timestamp::MIN)).collect();
    let mut facts = Vec::new();
    while let Some(Reverse((time, _, queue, at))) = heads.pop() {
        facts.extend(queues.get(queue).and_then(|facts| facts.get(at)));
        heads.extend(head(queue, at + 1, time));
    }
    facts
}

#[cfg(test)]
mod tests;
