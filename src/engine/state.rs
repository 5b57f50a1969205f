//! The state of one run of a graph.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use super::{
    cache::LookUp,
    event::Attempt,
    expr::TaskLookup,
    graph::{Graph, Identity, Settings, TaskId, Work},
    per_item::{EarlyItems, LiveItems},
    policy::{
        returns::Returned,
        trigger::{Tally, Verdict},
    },
    reason,
    writers::Writers,
};
use crate::api::{Counts, DesiredState, Duration, Ending, HistoryEntry, TaskPhase, TaskStatus};

/// One run of a graph.
///
/// [`step`](Self::step) costs time in proportion to what changed: each task counts its dependencies by outcome, and only
/// tasks of which a count changed are looked at.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, not a state among others")]
pub struct Run {
    pub(super) graph: Arc<Graph>,
    pub(super) settings: Settings,
    pub(super) identity: Identity,
    pub(super) tasks: Vec<TaskRun>,
    /// By decision: the tasks with a guard on it, and which of their guards.
    pub(super) guarded: Vec<Vec<(TaskId, usize)>>,

    pub(super) start_time: Option<Timestamp>,
    pub(super) compensation_time: Option<Timestamp>,
    pub(super) finally_time: Option<Timestamp>,
    pub(super) completion_time: Option<Timestamp>,
    pub(super) ending: Option<Ending>,
    /// What the graph returns, once it is finished.
    pub(super) returned: Returned,
    /// Id of the last rerun.
    pub(super) rerun: Option<String>,
    /// From when on `timeout` counts, where that is not the start.
    pub(super) reopen_time: Option<Timestamp>,
    /// `compensationTimeout` ran out.
    pub(super) compensation_over: bool,
    /// `finallyTimeout` ran out.
    pub(super) finally_over: bool,
    pub(super) suspended: bool,
    /// Nothing new is started, since the spec is not valid now.
    pub(super) on_hold: bool,
    /// Whether it was ever suspended: only then is there something to say about it.
    pub(super) suspended_before: bool,
    pub(super) history: VecDeque<HistoryEntry>,
    /// Whose doing is recorded.
    pub(super) writers: Writers,

    pub(super) sequence: u64,
    pub(super) stored: u64,
    /// Sequence number of the last recorded fact that Jobs and Pods cannot rebuild.
    pub(super) must_store: u64,

    /// Ready tasks that need a slot, the first to start first.
    pub(super) ready: BTreeSet<(Reverse<u8>, TaskId)>,
    /// Ready decisions.
    pub(super) decisions: BTreeSet<TaskId>,
    /// Ready delays and approvals.
    pub(super) waits: BTreeSet<TaskId>,
    /// Tasks that wait for an approval.
    pub(super) asked: BTreeSet<TaskId>,
    /// Waiting tasks whose time has come: while the graph is suspended they stay.
    pub(super) overdue: BTreeSet<TaskId>,
    /// Approvals may have come.
    pub(super) approved: bool,
    /// Running tasks of whose items some were told of, to be judged.
    pub(super) touched: BTreeSet<TaskId>,
    /// Running tasks of which further items may be launched: while the graph is suspended they stay.
    pub(super) rolling: BTreeSet<TaskId>,
    /// What is due when: start timeouts of Running tasks, ends of Waiting ones, further attempts of Retrying ones.
    pub(super) timers: BTreeSet<(Timestamp, TaskId)>,
    /// Tasks to look at, since the counts of their dependencies changed.
    pub(super) worklist: VecDeque<TaskId>,
    /// What may be called off is to be looked for in all tasks.
    pub(super) sweep: bool,
    /// Restored, and not stepped yet.
    pub(super) restored: bool,

    /// Of `tasks` and `finally`.
    pub(super) phases: PhaseCounts,
    /// Of the compensations.
    pub(super) compensations: PhaseCounts,
    /// Tasks of `tasks` that are not final.
    pub(super) open_tasks: usize,
    /// Compensations that have something to undo and are not final; 0 before the graph compensates.
    pub(super) open_compensations: usize,
    /// Tasks of `finally` that are not final.
    pub(super) open_finally: usize,
    /// Removed tasks that are not final.
    pub(super) open_removed: usize,
    /// Tasks and compensations that Failed without `allowFailure`.
    pub(super) failed: BTreeSet<TaskId>,
    /// Running tasks that cannot start for now.
    pub(super) blocked: BTreeSet<TaskId>,
    /// Ready tasks that ask for an earlier success; each holds a slot, so that none loses its turn by asking.
    pub(super) asking: BTreeSet<TaskId>,
    /// Running tasks that wait for the list of their items. They hold no slot: after a restart, what the list follows from
    /// may have to run once more.
    pub(super) listless: BTreeSet<TaskId>,
    /// What the outputs of all tasks take, in bytes of JSON.
    pub(super) output_bytes: usize,
    /// The failed attempts that the status keeps, oldest first.
    pub(super) failures: VecDeque<Attempt>,
    pub(super) failure_bytes: usize,
}

/// One task of a run.
#[derive(Debug)]
pub(super) struct TaskRun {
    /// What is stored of it.
    pub status: TaskStatus,
    /// Its dependencies, counted by outcome.
    pub tally: Tally,
    /// How many of its guards are not decided yet.
    pub guards_open: usize,
    /// What those that are decided come to, if they bar the task.
    pub barred: Option<Verdict>,
    /// The last attempt, as far as the status does not tell.
    pub live: Live,
    /// All attempts up to this number are known to have ended.
    pub ended: u32,
    /// When it is due in [`Run::timers`].
    pub due: Option<Timestamp>,
    /// Whether it is in [`Run::worklist`].
    pub queued: bool,
}

/// What is known of the last attempt beside the status; lost in a restart and observed or derived again.
#[derive(Clone, Debug, Default)]
pub(super) struct Live {
    /// Its pod runs.
    pub started: bool,
    /// Its pod does not start; whether the cluster is to blame.
    pub blocked: Option<bool>,
    /// It is to end, and why. Of a Retrying task: there is to be no further attempt.
    pub stop: Option<StopCause>,
    /// It ended, and its pods are gone.
    pub gone: bool,
    /// Of a Ready task: whether an earlier success stands in for it.
    pub look_up: LookUp,
    /// The items of an attempt with a Job or child graph for each.
    pub items: Option<Box<LiveItems>>,
    /// What is told of items before their list is known; `None` once it is.
    pub early: Option<EarlyItems>,
}

/// Why an attempt is being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopCause {
    /// The task is called off, for this reason.
    CallOff(&'static str),
    /// The task is to start afresh.
    Again,
    /// It did not start in time.
    StartTimeout {
        /// Whether the cluster is to blame.
        cluster: bool,
    },
    /// It failed by its items, as the status tells, and those that run are to end.
    Items,
}

/// How many tasks are in which phase.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PhaseCounts([usize; 10]);

impl PhaseCounts {
    pub fn get(&self, phase: TaskPhase) -> usize {
        self.0[phase as usize]
    }

    pub fn add(&mut self, phase: TaskPhase) {
        self.0[phase as usize] += 1;
    }

    pub fn remove(&mut self, phase: TaskPhase) {
        let count = &mut self.0[phase as usize];
        *count = count.saturating_sub(1);
    }

    /// As the status tells them.
    pub fn told(&self) -> Counts {
        let count = |phase| u32::try_from(self.get(phase)).unwrap_or(u32::MAX);
        Counts {
            waiting: count(TaskPhase::Pending)
                .saturating_add(count(TaskPhase::Ready))
                .saturating_add(count(TaskPhase::Waiting))
                .saturating_add(count(TaskPhase::Retrying)),
            running: count(TaskPhase::Running),
            succeeded: count(TaskPhase::Succeeded),
            failed: count(TaskPhase::Failed),
            cancelled: count(TaskPhase::Cancelled),
            skipped: count(TaskPhase::Skipped),
            omitted: count(TaskPhase::Omitted),
        }
    }
}

/// An attempt that the run takes to be live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveAttempt<'a> {
    /// Which.
    pub attempt: Attempt,
    /// Name of its Job, once the run was told that it exists.
    pub job: Option<&'a str>,
}

impl Run {
    /// A run that begins at `now`.
    pub fn new(graph: Arc<Graph>, settings: Settings, identity: Identity, now: Timestamp) -> Self {
        let mut run = Self::blank(graph, settings, identity);
        let now = whole_millis(now);
        run.start_time = Some(now);
        run.record_history(now, reason::ACCEPTED, None);
        run.index();
        run
    }

    /// A run of which nothing is known; [`index`](Self::index) must follow.
    pub(super) fn blank(graph: Arc<Graph>, settings: Settings, identity: Identity) -> Self {
        let tasks = graph.tasks.iter().map(|task| TaskRun {
            status: TaskStatus { name: task.name.to_string(), ..TaskStatus::default() },
            tally: Tally::new(task.dependencies.len()),
            guards_open: task.guards.len(),
            barred: None,
            live: Live::default(),
            ended: 0,
            due: None,
            queued: false,
        });
        let tasks: Vec<_> = tasks.collect();
        let mut guarded = vec![Vec::new(); graph.tasks.len()];
        for id in graph.ids() {
            for (place, guard) in graph.task(id).guards.iter().enumerate() {
                guarded[guard.decision.index()].push((id, place));
            }
        }
        Self {
            graph,
            settings,
            identity,
            tasks,
            guarded,
            start_time: None,
            compensation_time: None,
            finally_time: None,
            completion_time: None,
            ending: None,
            returned: Ok(Map::new()),
            rerun: None,
            reopen_time: None,
            compensation_over: false,
            finally_over: false,
            suspended: false,
            on_hold: false,
            suspended_before: false,
            history: VecDeque::new(),
            writers: Writers::default(),
            sequence: 0,
            stored: 0,
            must_store: 0,
            ready: BTreeSet::new(),
            decisions: BTreeSet::new(),
            waits: BTreeSet::new(),
            asked: BTreeSet::new(),
            overdue: BTreeSet::new(),
            approved: true,
            touched: BTreeSet::new(),
            rolling: BTreeSet::new(),
            timers: BTreeSet::new(),
            worklist: VecDeque::new(),
            sweep: true,
            restored: false,
            phases: PhaseCounts::default(),
            compensations: PhaseCounts::default(),
            open_tasks: 0,
            open_compensations: 0,
            open_finally: 0,
            open_removed: 0,
            failed: BTreeSet::new(),
            blocked: BTreeSet::new(),
            asking: BTreeSet::new(),
            listless: BTreeSet::new(),
            output_bytes: 0,
            failures: VecDeque::new(),
            failure_bytes: 0,
        }
    }

    /// Takes changed settings; they count from the next step on.
    pub fn set_settings(&mut self, settings: Settings) {
        if self.settings != settings {
            self.approved |= self.settings.approvals != settings.approvals;
            self.settings = settings;
            self.sweep = true;
        }
    }

    /// Number of transitions recorded so far.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Tells that the status up to `sequence` is stored.
    pub fn stored(&mut self, sequence: u64) {
        self.stored = self.stored.max(sequence.min(self.sequence));
    }

    /// The graph that it runs.
    pub fn graph(&self) -> &Arc<Graph> {
        &self.graph
    }

    /// Its settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What is known of a task. Attempts that failed and messages are as stored: cut.
    ///
    /// # Panics
    /// If `id` is of another graph.
    pub fn task(&self, id: TaskId) -> &TaskStatus {
        &self.tasks[id.index()].status
    }

    /// Whether all tasks are final and the graph's outcome stands.
    pub fn is_finished(&self) -> bool {
        self.completion_time.is_some()
    }

    /// The attempts taken to be live, being stopped or not. One whose Job is known by name and does not exist is
    /// lost: the caller finds that out, and says so by [`Event::Finished`](super::Event::Finished).
    pub fn live(&self) -> impl Iterator<Item = LiveAttempt<'_>> {
        self.graph.ids().zip(&self.tasks).filter(|(_, task)| task.status.phase == TaskPhase::Running).map(
            |(id, task)| LiveAttempt {
                attempt: Attempt::new(id, task.status.attempts),
                job: task.status.job.as_deref(),
            },
        )
    }

    /// Whether nothing new is started.
    pub fn is_suspended(&self) -> bool {
        self.suspended
    }

    /// Whether its attempts are Jobs or child graphs.
    pub(super) fn has_job(&self, id: TaskId) -> bool {
        matches!(self.graph.task(id).work, Work::Job(_) | Work::Graph(_))
    }

    pub(super) fn is_removed(&self, id: TaskId) -> bool {
        self.graph.task(id).is_removed()
    }

    /// The number of its last attempt, as an [`Attempt`].
    pub(super) fn last_attempt(&self, id: TaskId) -> Attempt {
        Attempt::new(id, self.task(id).attempts)
    }

    /// Whether nothing new may be started. A cancelled graph cannot be suspended any more: it must come to its end.
    pub(super) fn wants_suspension(&self) -> bool {
        self.settings.desired_state == DesiredState::Suspend && !self.is_cancelled()
    }

    /// The first task of `tasks` that Failed without `allowFailure`.
    pub(super) fn first_failed(&self) -> Option<TaskId> {
        self.failed.first().copied().filter(|id| id.index() < self.graph.first_finally)
    }
}

impl TaskLookup for Run {
    fn task(&self, id: TaskId) -> (TaskPhase, &Map<String, Value>, u32) {
        let status = &self.tasks[id.index()].status;
        (status.phase, &status.outputs, status.attempts)
    }
}

/// The time, cut to whole milliseconds: what the status keeps.
pub(super) fn whole_millis(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}

/// The time so much later; at the end of time where that is beyond it.
pub(super) fn later(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_add(SignedDuration::from(by)).unwrap_or(Timestamp::MAX)
}
