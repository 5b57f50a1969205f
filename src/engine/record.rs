//! How a run's facts are recorded: the only place where phases, counts and indexes change.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use jiff::Timestamp;

use super::{
    cache::CacheKey,
    event::{Action, Attempt, Launch, Step, Transition},
    graph::{TaskId, Work},
    policy::{guard, outputs, trigger::Outcome},
    reason,
    state::{Live, Run},
};
use crate::api::{FailedAttempt, HistoryEntry, TaskPhase};

/// The longest message kept, in bytes.
pub(super) const MAX_MESSAGE: usize = 256;
/// The longest reason kept, in bytes.
pub(super) const MAX_REASON: usize = 128;
/// The longest progress kept, in bytes.
pub(super) const MAX_PROGRESS: usize = 32;
/// How many failed attempts of a task are kept.
pub(super) const MAX_FAILED_ATTEMPTS: usize = 5;
/// How many bytes of JSON the failed attempts of all tasks may take together.
pub(super) const MAX_FAILURE_BYTES: usize = 64 * 1024;
/// How many entries of the history are kept.
pub(super) const MAX_HISTORY: usize = 20;

/// What one step has come to so far.
pub(super) struct Round {
    pub now: Timestamp,
    pub launches: Vec<Launch>,
    pub look_ups: Vec<(TaskId, CacheKey)>,
    pub stops: BTreeSet<Attempt>,
    pub awaits: BTreeSet<Attempt>,
    pub transitions: Vec<Transition>,
    pub changed: bool,
}

impl Round {
    pub fn new(now: Timestamp) -> Self {
        Self {
            now,
            launches: Vec::new(),
            look_ups: Vec::new(),
            stops: BTreeSet::new(),
            awaits: BTreeSet::new(),
            transitions: Vec::new(),
            changed: false,
        }
    }

    /// The step; launches come first, since slots stand empty until they are done.
    pub fn into_step(self, store_first: bool, wake_at: Option<Timestamp>) -> Step {
        let launches = self.launches.into_iter().map(Action::Launch);
        let look_ups = self.look_ups.into_iter().map(|(task, key)| Action::LookUp { task, key });
        let stops = self.stops.into_iter().map(|attempt| Action::Stop { attempt });
        let awaits = self.awaits.into_iter().map(|attempt| Action::AwaitGone { attempt });
        let actions = launches.chain(look_ups).chain(stops).chain(awaits).collect();
        Step { actions, transitions: self.transitions, changed: self.changed, store_first, wake_at }
    }
}

impl Run {
    /// Records that a task enters a phase (or the same again, with a further attempt). All that was known of its
    /// attempt beside the status is dropped, and so is its timer.
    pub(super) fn enter(
        &mut self,
        id: TaskId,
        to: TaskPhase,
        reason: Option<&str>,
        message: Option<String>,
        round: &mut Round,
    ) {
        self.arm(id, None);
        self.blocked.remove(&id);
        self.asking.remove(&id);
        self.rolling.remove(&id);
        self.listless.remove(&id);
        let task = &mut self.tasks[id.index()];
        let from = std::mem::replace(&mut task.status.phase, to);
        task.live = Live::default();
        task.status.reason = reason.map(|text| clip(text, MAX_REASON).to_owned());
        task.status.message = message.map(clipped);
        if !matches!(to, TaskPhase::Retrying | TaskPhase::Waiting) {
            task.status.wake_at = None;
        }
        if let Some(items) = task.status.items.as_mut().filter(|_| to != TaskPhase::Running) {
            // what only a restart of the attempt would need
            if items.launched.take().is_some() {
                items.active = 0;
            }
            items.ending = None;
        }
        if to == TaskPhase::Ready {
            task.status.ready_time = Some(round.now);
        }
        if to.is_final() {
            task.status.completion_time = Some(round.now);
        }
        let (attempt, reason) = (task.status.attempts, task.status.reason.clone());
        round.transitions.push(Transition { task: id, from, to, attempt, reason });
        round.changed = true;
        self.sequence = self.sequence.saturating_add(1);
        self.counts_of(id).remove(from);
        self.unindex(id, from);
        self.index_task(id);
        if to.is_final() {
            self.announce(id);
        }
    }

    /// Notes that a compensation has nothing to undo. The status does not show it, and it follows from what the status
    /// shows: it is no transition.
    pub(super) fn pass_over(&mut self, id: TaskId) {
        let status = &mut self.tasks[id.index()].status;
        let from = std::mem::replace(&mut status.phase, TaskPhase::Skipped);
        status.reason = Some(reason::NOTHING_TO_COMPENSATE.to_owned());
        let counts = self.counts_of(id);
        counts.remove(from);
        counts.add(TaskPhase::Skipped);
        self.announce(id);
    }

    /// Marks what was recorded last as something that Jobs and Pods cannot rebuild.
    pub(super) fn must_store(&mut self) {
        self.must_store = self.sequence;
    }

    /// Records a fact about the graph as a whole that Jobs and Pods cannot rebuild.
    pub(super) fn record_graph_fact(&mut self, round: &mut Round) {
        self.sequence = self.sequence.saturating_add(1);
        self.must_store();
        round.changed = true;
    }

    pub(super) fn record_history(&mut self, time: Timestamp, event: &str, message: Option<String>) {
        let by = self.writers.of(event).map(str::to_owned);
        add(&mut self.history, HistoryEntry { time, event: event.to_owned(), message, by });
    }

    /// Sets what is shown of a task, its phase staying as it is.
    pub(super) fn note(&mut self, id: TaskId, reason: Option<&str>, message: Option<&str>, round: &mut Round) {
        let status = &mut self.tasks[id.index()].status;
        let reason = reason.map(|text| clip(text, MAX_REASON));
        let message = message.map(|text| clip(text, MAX_MESSAGE));
        if status.reason.as_deref() != reason || status.message.as_deref() != message {
            status.reason = reason.map(str::to_owned);
            status.message = message.map(str::to_owned);
            round.changed = true;
        }
    }

    /// Sets the task's timer.
    pub(super) fn arm(&mut self, id: TaskId, due: Option<Timestamp>) {
        let task = &mut self.tasks[id.index()];
        if let Some(old) = std::mem::replace(&mut task.due, due) {
            self.timers.remove(&(old, id));
        }
        if let Some(due) = due {
            self.timers.insert((due, id));
        }
    }

    /// Asks for a task to be looked at.
    pub(super) fn queue(&mut self, id: TaskId) {
        let task = &mut self.tasks[id.index()];
        if !task.queued {
            task.queued = true;
            self.worklist.push_back(id);
        }
    }

    /// Keeps a failed attempt, and drops those that are too old for the bounds of the status.
    pub(super) fn keep_failure(&mut self, id: TaskId, failure: FailedAttempt) {
        let attempt = Attempt::new(id, failure.attempt);
        self.failure_bytes = self.failure_bytes.saturating_add(outputs::size(&failure));
        self.failures.push_back(attempt);
        let kept = &mut self.tasks[id.index()].status.failed_attempts;
        kept.push(failure);
        if kept.len() > MAX_FAILED_ATTEMPTS {
            let dropped = kept.remove(0);
            self.failure_bytes = self.failure_bytes.saturating_sub(outputs::size(&dropped));
        }
        while self.failure_bytes > MAX_FAILURE_BYTES {
            let Some(oldest) = self.failures.pop_front() else { break };
            let kept = &mut self.tasks[oldest.task.index()].status.failed_attempts;
            // it may be gone already, as one of too many of its task
            if let Some(place) = kept.iter().position(|failure| failure.attempt == oldest.number) {
                let dropped = kept.remove(place);
                self.failure_bytes = self.failure_bytes.saturating_sub(outputs::size(&dropped));
            }
        }
        // more than can be kept of all tasks: the rest are leftovers of tasks with too many
        if self.failures.len() > 2 * MAX_FAILURE_BYTES / 64 {
            self.failures.pop_front();
        }
    }

    /// Builds the indexes from the phases of all tasks, and asks for all that are not final to be looked at.
    pub(super) fn index(&mut self) {
        self.open_tasks = self.graph.first_finally.min(self.tasks.len());
        self.open_finally = self.graph.first_compensation.saturating_sub(self.open_tasks);
        self.open_removed = self.graph.removed().count();
        for id in self.graph.ids() {
            self.index_task(id);
        }
        for id in self.graph.ids() {
            if self.task(id).phase.is_final() {
                self.announce(id);
            } else {
                self.queue(id);
            }
        }
    }

    fn unindex(&mut self, id: TaskId, from: TaskPhase) {
        if from == TaskPhase::Ready {
            self.ready.remove(&(Reverse(self.graph.task(id).priority), id));
            self.decisions.remove(&id);
            self.waits.remove(&id);
        }
        if from == TaskPhase::Waiting {
            self.asked.remove(&id);
            self.overdue.remove(&id);
        }
    }

    fn index_task(&mut self, id: TaskId) {
        let phase = self.task(id).phase;
        if phase.is_final() && self.is_removed(id) {
            // counts for nothing any more
            return;
        }
        self.counts_of(id).add(phase);
        let work = &self.graph.task(id).work;
        match (phase, work) {
            (TaskPhase::Ready, Work::Job(_) | Work::Graph(_)) => {
                self.ready.insert((Reverse(self.graph.task(id).priority), id));
            }
            (TaskPhase::Ready, Work::Decision { .. }) => _ = self.decisions.insert(id),
            (TaskPhase::Ready, Work::Delay(_) | Work::Approval(_)) => _ = self.waits.insert(id),
            (TaskPhase::Waiting, Work::Approval(_)) => _ = self.asked.insert(id),
            _ => {}
        }
    }

    /// Tells what hangs on a task that became final.
    fn announce(&mut self, id: TaskId) {
        let graph = Arc::clone(&self.graph);
        let task = graph.task(id);
        if task.is_removed() {
            self.open_removed = self.open_removed.saturating_sub(1);
            return;
        }
        let Some(outcome) = Outcome::of(self.task(id).phase, task.allow_failure) else { return };
        if task.undoes.is_some() {
            if self.has_work(id) {
                self.open_compensations = self.open_compensations.saturating_sub(1);
            }
        } else if task.finally {
            self.open_finally = self.open_finally.saturating_sub(1);
        } else {
            self.open_tasks = self.open_tasks.saturating_sub(1);
        }
        if outcome == Outcome::Failed {
            // the first failure of all is what the failure policy waits for
            self.sweep |= self.first_failed().is_none();
            self.failed.insert(id);
        }
        for dependent in &task.dependents {
            self.tasks[dependent.index()].tally.count(outcome);
            self.queue(*dependent);
        }
        for place in 0..self.guarded[id.index()].len() {
            let (dependent, guard) = self.guarded[id.index()][place];
            let verdict = guard::decide(&graph.task(dependent).guards[guard], Some(outcome), self.task(id).taken());
            let guarded = &mut self.tasks[dependent.index()];
            guarded.guards_open = guarded.guards_open.saturating_sub(1);
            guarded.barred = guard::outweigh(guarded.barred, verdict);
            self.queue(dependent);
        }
    }
}

/// Adds an entry to a history; of one that is too long the oldest go.
pub(super) fn add(history: &mut VecDeque<HistoryEntry>, mut entry: HistoryEntry) {
    entry.message = entry.message.map(clipped);
    history.push_back(entry);
    while history.len() > MAX_HISTORY {
        history.pop_front();
    }
}

/// The text, cut to at most `limit` bytes where a character ends.
pub(super) fn clip(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

/// A message, cut to what is kept of it.
pub(super) fn clipped(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_MESSAGE));
    text
}
