//! One graph while it runs: what was observed goes into the engine, what it asks for comes out.

mod act;
mod observe;
mod recall;
mod steer;
mod tell;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    apply::Hands,
    cloud_events::Courier,
    edit::Pending,
    events::{self, Telling},
    index::Index,
    looks::Looks,
    registry::{Mailbox, Note},
    report::{Answer, Report, Storing, Verdict},
    revision::Pinned,
    trace::Ended,
    view::GraphView,
};
use crate::{
    api::TaskPhase,
    engine::{Action, Attempt, Event, Graph, Identity, Role, Run, TaskId, Transition, graph::Work},
    jobs::JobView,
};

/// Creates in flight at once of one graph.
const CREATES: u32 = 32;
/// A timer counts the time that passed, not the hour: over months the two may drift apart.
const LONGEST_SLEEP: Duration = Duration::from_hours(24);

/// One graph while it runs.
#[derive(Debug)]
pub struct Session {
    /// The run.
    pub run: Run,
    /// What it began with.
    pub pinned: Pinned,
    /// Its status.
    pub report: Report,
    /// What is to be done to the graph by its spec.
    pub pending: Option<Box<Pending>>,
    /// When that is tried again, which the cluster did not take: the graph goes on without it until then.
    pub postponed: Option<Instant>,
    /// How long it was put off last.
    pub edit_pause: Duration,
    /// The generation of the spec that was looked at last.
    pub followed: Option<i64>,
    /// The templates that were looked at last.
    pub templates: u64,
    /// A turn was made.
    pub has_turned: bool,
    /// The graph.
    pub identity: Arc<Identity>,
    graph: Arc<Graph>,
    hands: Arc<Hands>,
    mailbox: Mailbox,
    creates: Arc<Semaphore>,
    /// Cancelled when nobody follows the graph here any more.
    ended: CancellationToken,
    holds: BTreeMap<Attempt, (CancellationToken, Arc<tokio::sync::RwLock<()>>)>,
    /// Actions that wait until the run up to a sequence is stored.
    held: Vec<(u64, Vec<Action>)>,
    /// Jobs of attempts that are over and would go on, to be deleted once the run up to a sequence is stored.
    discards: Vec<(u64, Arc<JobView>)>,
    /// What is to be told once the run up to a sequence is stored.
    untold: Vec<(u64, Telling)>,
    /// Up to when the history was told.
    told_until: Option<Timestamp>,
    /// Successes to be remembered once the run up to a sequence is stored.
    successes: Vec<(u64, TaskId)>,
    /// UIDs of the Jobs and child graphs that were or are to be discarded.
    discarded: BTreeSet<String>,
    /// Child graphs to be called off once the run up to a sequence is stored: their task is not in the graph.
    retired: Vec<(u64, Arc<GraphView>)>,
    /// When to look into the attempts whose Job may have no pod.
    looks: Looks,
    /// Attempts whose Job seems to have vanished and is being looked for.
    searched: BTreeSet<Attempt>,
    /// Those of `searched` of which something changed meanwhile: the look may have come too early.
    changed_since: BTreeSet<Attempt>,
    /// The child graphs of live attempts.
    children: BTreeMap<Attempt, Arc<GraphView>>,
    /// Whether they were told that the graph is suspended.
    told_suspended: bool,
    /// Attempts that are being stopped.
    stopping: BTreeSet<Attempt>,
    /// A first attempt was launched.
    started: bool,
    /// What had ended by the status that was stored last, where that is traced.
    ended_before: Ended,
}

/// What a turn leads to.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// Look again after this time, or when something happens.
    Again(Option<Duration>),
    /// The graph finished, and that is stored.
    Finished,
    /// Somebody else has gone on with the graph: begin anew from what is stored.
    OutOfDate,
}

/// What was told since the last turn.
#[derive(Debug, Default)]
struct Told {
    seen: Seen,
    /// Attempts that may be over, and whose Job nobody needs then.
    hopeless: Vec<(Attempt, Arc<JobView>)>,
    /// Attempts that changed while they were looked at.
    looked: Vec<Attempt>,
}

/// What a turn has seen.
#[derive(Debug, Default)]
struct Seen {
    /// For the engine.
    events: Vec<Event>,
    /// Attempts whose Job ended, and none of whose pods is cached.
    podless: Vec<Attempt>,
    /// Child graphs that changed.
    children: Vec<(Attempt, Arc<GraphView>)>,
    /// When the first of the pods that ended was seen to.
    since: Option<Instant>,
}

/// What one turn may look at.
pub struct Surroundings<'a> {
    /// The cached Jobs and pods.
    pub index: &'a Index,
    /// The graph as it is watched.
    pub view: &'a GraphView,
    /// Tells people.
    pub recorder: &'a events::Recorder,
    /// Tells programs.
    pub courier: &'a Courier,
}

impl Session {
    /// A session over a run.
    pub fn new(
        run: Run,
        identity: Arc<Identity>,
        pinned: Pinned,
        report: Report,
        hands: Arc<Hands>,
        mailbox: Mailbox,
    ) -> Self {
        let graph = Arc::clone(run.graph());
        let count = |phase| graph.ids().filter(|task| run.task(*task).phase == phase).count().try_into().unwrap_or(0);
        let ended_before = if hands.tracer.is_on() { Ended::by(&report.status) } else { Ended::default() };
        let started = graph.ids().any(|task| run.task(task).attempts > 0);
        hands.metrics.tasks_running.inc_by(count(TaskPhase::Running));
        hands.metrics.tasks_ready.inc_by(count(TaskPhase::Ready));
        Self {
            pending: None,
            postponed: None,
            edit_pause: Duration::ZERO,
            followed: None,
            templates: 0,
            has_turned: false,
            run,
            graph,
            identity,
            pinned,
            report,
            hands,
            mailbox,
            creates: Arc::new(Semaphore::new(CREATES as usize)),
            ended: CancellationToken::new(),
            holds: BTreeMap::new(),
            held: Vec::new(),
            discards: Vec::new(),
            untold: Vec::new(),
            told_until: None,
            successes: Vec::new(),
            discarded: BTreeSet::new(),
            retired: Vec::new(),
            looks: Looks::default(),
            searched: BTreeSet::new(),
            changed_since: BTreeSet::new(),
            children: BTreeMap::new(),
            told_suspended: false,
            stopping: BTreeSet::new(),
            started,
            ended_before,
        }
    }

    /// Ends once no create is under way: who goes on with the graph must not find that nothing is there of an attempt which
    /// comes into being afterwards.
    pub async fn wind_up(self) {
        self.holds.values().for_each(|(cancel, _)| cancel.cancel());
        // closed never
        let _all = self.creates.acquire_many(CREATES).await;
    }

    /// What all graphs share.
    pub fn hands(&self) -> &Arc<Hands> {
        &self.hands
    }

    /// A verdict on a generation of the spec, to be told in the status.
    pub fn tell_verdict(&mut self, verdict: Verdict, generation: i64) {
        self.report.dirty |= self.report.verdict != verdict || self.report.generation != generation;
        self.report.verdict = verdict;
        self.report.generation = generation;
    }

    /// One round: `observe → step → apply → report`. Never waits.
    pub fn turn(&mut self, around: &Surroundings<'_>, notes: Vec<Note>) -> Turn {
        self.has_turned = true;
        let now = super::now();
        let Some(Told { mut seen, hopeless, looked }) = self.take_notes(around, notes) else { return Turn::OutOfDate };
        self.release_held(around.view);
        for changed in around.index.take_changed(&self.identity.uid) {
            self.observe(&changed, now, &mut seen);
        }
        for attempt in looked {
            self.look_again(attempt, around.index, now, &mut seen);
        }
        let Seen { events, podless, children, since } = seen;
        if let Some(since) = since {
            self.hands.metrics.scheduler_lag.observe(since.elapsed().as_secs_f64());
            self.hands.health.lagged(since.elapsed());
        }
        self.watch_for_pods(&events);

        let step = self.run.step(events, now);
        for transition in &step.transitions {
            self.note(transition);
        }
        self.report.dirty |= step.changed;
        if step.store_first {
            self.held.push((self.run.sequence(), step.actions));
        } else {
            self.perform(step.actions, since, around.view);
        }
        for attempt in podless {
            self.look_soon(attempt);
        }
        for (attempt, job) in hopeless {
            // else the session that saw it fail has ended, and this one finds out by itself
            if self.is_over(attempt) {
                self.discard(&job);
            }
        }
        self.steer(children);
        // they may have been stored before
        self.release_held(around.view);
        self.look_for_pods(around.index);
        self.finish_turn(around, now, step.wake_at)
    }

    /// Takes in what was told since the last turn. `None`: somebody else went on with the graph.
    fn take_notes(&mut self, around: &Surroundings<'_>, notes: Vec<Note>) -> Option<Told> {
        let mut told = Told::default();
        for note in notes {
            match note {
                Note::Event(event) => {
                    if let Event::Gone { attempt } = event {
                        self.stopping.remove(&attempt);
                    }
                    told.seen.events.push(event);
                }
                Note::Looked(attempt) => {
                    self.searched.remove(&attempt);
                    self.looks.done(attempt);
                    if self.changed_since.remove(&attempt) {
                        told.looked.push(attempt);
                    }
                }
                Note::Discard(attempt, job) => told.hopeless.push((attempt, job)),
                Note::Stored(sequence, result) => match self.report.on_stored(sequence, result, around.view) {
                    Answer::Stored => self.tell_stored(around),
                    Answer::Failed => {}
                    Answer::OutOfDate => return None,
                },
            }
        }
        Some(told)
    }

    /// Performs the actions that waited for what is stored now.
    fn release_held(&mut self, view: &GraphView) {
        let stored = self.report.stored;
        self.run.stored(stored);
        for (sequence, actions) in std::mem::take(&mut self.held) {
            if sequence <= stored {
                self.perform(actions, None, view);
            } else {
                self.held.push((sequence, actions));
            }
        }
        self.remember_stored();
        for (_, job) in self.discards.extract_if(.., |(sequence, _)| *sequence <= stored) {
            self.hands.spawn(Arc::clone(&self.hands).discard(job));
        }
        for (_, child) in self.retired.extract_if(.., |(sequence, _)| *sequence <= stored) {
            self.hands.spawn(Arc::clone(&self.hands).retire(child));
        }
    }

    fn is_child(&self, attempt: Attempt) -> bool {
        matches!(self.graph.task(attempt.task).work, Work::Graph(_))
    }

    fn finish_turn(&mut self, around: &Surroundings<'_>, now: Timestamp, wake_at: Option<Timestamp>) -> Turn {
        let sequence = self.run.sequence();
        let finished = self.run.is_finished();
        let urgent = finished || !self.held.is_empty() || !(self.discards.is_empty() && self.retired.is_empty());
        // the next write is that of the edit
        let waits = self.pending.is_some();
        if !waits && self.report.due(urgent).is_some_and(|at| at <= Instant::now()) {
            around.courier.begin(around.view, &self.report.status);
            self.report.verdict.clone().write(&mut self.report.status, self.report.generation, now);
            self.run.write(&mut self.report.status, now);
            self.report.status.cloud_events = around.courier.owed(around.view, &self.report.status);
            let to = Storing { hands: &self.hands, mailbox: &self.mailbox, view: around.view };
            self.report.store(sequence, &to);
        }
        if finished
            && !waits
            && self.postponed.is_none()
            && self.held.is_empty()
            && self.discards.is_empty()
            && self.retired.is_empty()
            && self.report.is_settled(sequence)
        {
            return Turn::Finished;
        }
        if waits && !self.report.is_storing() {
            return Turn::Again(Some(Duration::from_millis(1)));
        }
        let store = self.report.due(urgent).filter(|_| !waits).map(|at| at.saturating_duration_since(Instant::now()));
        let look = self.looks.next().map(|at| at.saturating_duration_since(Instant::now()));
        let wake = wake_at.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default().min(LONGEST_SLEEP));
        let edit = self.postponed.map(|at| at.saturating_duration_since(Instant::now()));
        Turn::Again([store, look, wake, edit].into_iter().flatten().min())
    }

    fn note(&mut self, transition: &Transition) {
        let Transition { task, from, to, attempt, ref reason } = *transition;
        let (name, role) = (Arc::clone(&self.graph.task(task).name), self.graph.task(task).role());
        let reason = reason.as_deref().unwrap_or_default();
        // what still tries to launch an attempt that is over, its create unanswered, could bring it back to life
        let over = if to == TaskPhase::Running { attempt.saturating_sub(1) } else { attempt };
        let all = Attempt::new(task, 0)..=Attempt::new(task, over);
        self.holds.range(all).for_each(|(_, (cancel, _))| cancel.cancel());
        if from == TaskPhase::Running && to != TaskPhase::Running {
            self.drop_items(task, attempt);
        }
        if to.is_final() {
            self.holds.retain(|held, _| held.task != task || held.number == attempt);
        }
        self.count(task, from, to);
        self.note_for_cache(task, to, attempt, reason);
        let (graph, namespace) = (&self.identity.name, &self.identity.namespace);
        match to {
            TaskPhase::Failed | TaskPhase::Retrying => {
                warn!(%graph, %namespace, role = role.label(), task = %name, attempt, reason, "{}", to.name());
            }
            TaskPhase::Ready => {
                debug!(%graph, %namespace, role = role.label(), task = %name, attempt, "{}", to.name());
            }
            _ => info!(%graph, %namespace, role = role.label(), task = %name, attempt, reason, "{}", to.name()),
        }
        self.note_to_tell(task, to);
    }

    fn is_live(&self, attempt: Attempt) -> bool {
        self.run.is_live(attempt)
    }

    /// Whether the run knows an attempt, and that it ended.
    fn is_over(&self, attempt: Attempt) -> bool {
        attempt.number <= self.run.task(attempt.task).attempts && !self.is_live(attempt)
    }

    fn count(&mut self, task: TaskId, from: TaskPhase, to: TaskPhase) {
        let metrics = &self.hands.metrics;
        for (phase, gauge) in [(TaskPhase::Running, &metrics.tasks_running), (TaskPhase::Ready, &metrics.tasks_ready)] {
            if to == phase && from != phase {
                gauge.inc();
            } else if from == phase && to != phase {
                gauge.dec();
            }
        }
        if (from, to) == (TaskPhase::Ready, TaskPhase::Running) {
            let status = self.run.task(task);
            let waited = status.start_time.zip(status.ready_time).map(|(start, ready)| start.duration_since(ready));
            if let Some(waited) = waited.and_then(|waited| Duration::try_from(waited).ok()) {
                metrics.task_wait.observe(waited.as_secs_f64());
            }
        }
        if to.is_final() {
            let status = self.run.task(task);
            // how long a wait took says nothing about tasks that work
            let start =
                status.start_time.filter(|_| matches!(self.graph.task(task).work, Work::Job(_) | Work::Graph(_)));
            let took = status.completion_time.zip(start).map(|(end, start)| end.duration_since(start));
            match self.graph.task(task).role() {
                Role::Task => metrics.task_finished(to, took.and_then(|took| Duration::try_from(took).ok())),
                Role::Compensation => metrics.compensation_finished(to),
            }
        }
    }
}

impl Drop for Session {
    /// A session may end before its graph does: the graph was deleted, or is begun anew from what is stored. What it
    /// launches is then launched by nobody or by another, which counts it, too.
    fn drop(&mut self) {
        for (cancel, _) in self.holds.values() {
            cancel.cancel();
        }
        // Jobs that a finished graph should not have are still deleted: nobody would ask for it again
        if !self.run.is_finished() {
            self.ended.cancel();
        }
        for task in self.graph.ids() {
            match self.run.task(task).phase {
                TaskPhase::Running => _ = self.hands.metrics.tasks_running.dec(),
                TaskPhase::Ready => _ = self.hands.metrics.tasks_ready.dec(),
                _ => {}
            }
        }
    }
}
