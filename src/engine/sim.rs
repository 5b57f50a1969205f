//! Runs whole graphs in virtual time.
//!
//! [`simulate`] asks a [`World`] what becomes of each attempt and drives [`Run::step`] to the graph's end: for tests,
//! benches and what-if. [`replay`] feeds a recorded list of events to a run, to see whether it comes to the same end.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    ops::RangeInclusive,
};

use jiff::Timestamp;

use super::{
    cache::{CacheKey, Remembered},
    event::{Action, Attempt, AttemptResult, Event, Launch, Transition},
    graph::{TaskId, Work},
    state::{Run, later},
};
use crate::api::{Approval, Duration, TaskPhase};

/// Says what becomes of attempts.
pub trait World {
    /// What becomes of an attempt that is launched at `now`.
    fn fate(&mut self, launch: &Launch, now: Timestamp) -> Fate;

    /// The earlier success that a task with `cache` finds. Default: none.
    fn remembered(&mut self, _task: TaskId, _key: CacheKey) -> Option<Remembered> {
        None
    }

    /// What somebody decides on an approval that is asked for at `now`, and how long it takes them; `None`: nobody does.
    fn decide(&mut self, asked: Attempt, now: Timestamp) -> Option<(Duration, Approval)> {
        let _ = (asked, now);
        None
    }
}

impl<F: FnMut(&Launch, Timestamp) -> Fate> World for F {
    fn fate(&mut self, launch: &Launch, now: Timestamp) -> Fate {
        self(launch, now)
    }
}

/// What becomes of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Fate {
    /// How long it takes until its Job exists.
    pub create: Duration,
    /// What its pod waits for at first, if that is worth telling.
    pub blocked: Option<Block>,
    /// How long its pod takes to start once the Job exists; `None`: it never does.
    pub start: Option<Duration>,
    /// How long it runs; `None`: until it is stopped.
    pub run: Option<Duration>,
    /// How it ends. A pod that never starts ends too if `run` is set: so a lost Job is told.
    pub result: AttemptResult,
    /// How long its pods take to be gone, once it ended or was stopped.
    pub gone: Duration,
}

impl Fate {
    /// It succeeds without outputs after `run`, its Job and pod taking no time to speak of.
    pub fn success(run: Duration) -> Self {
        let at_once = Duration::from_millis(0);
        Self {
            create: at_once,
            blocked: None,
            start: Some(at_once),
            run: Some(run),
            result: AttemptResult::Succeeded { outputs: serde_json::Map::new(), message: None },
            gone: at_once,
        }
    }
}

/// What a pod waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// A word for programs.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// Whether the cluster is to blame.
    pub cluster: bool,
}

/// What a run was told.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// What was observed.
    Event(Event),
    /// What somebody decided.
    Approval(Approval),
}

impl From<Event> for Told {
    fn from(event: Event) -> Self {
        Self::Event(event)
    }
}

impl From<Approval> for Told {
    fn from(approval: Approval) -> Self {
        Self::Approval(approval)
    }
}

/// What happened in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Every transition and when it was recorded, in order.
    pub transitions: Vec<(Timestamp, Transition)>,
    /// When the first step was made.
    pub start: Timestamp,
    /// When the last step was made.
    pub end: Timestamp,
    /// How many steps were made.
    pub steps: u64,
    /// Whether the graph finished.
    pub finished: bool,
    /// The phases that the tasks ended in, by [`TaskId`].
    pub phases: Vec<TaskPhase>,
}

impl Trace {
    /// From the first step to the last.
    pub fn makespan(&self) -> jiff::SignedDuration {
        self.end.duration_since(self.start)
    }

    /// The phase that a task ended in.
    pub fn phase(&self, id: TaskId) -> Option<TaskPhase> {
        self.phases.get(id.index()).copied()
    }
}

/// Runs a graph until it finishes, or until nothing can happen any more (it is suspended, or an attempt never ends).
pub fn simulate(run: &mut Run, world: &mut impl World, start: Timestamp) -> Trace {
    let mut simulation = Simulation { run, world, queue: BinaryHeap::new(), count: 0, attempts: BTreeMap::new() };
    let mut trace = Trace::begin(start);
    let mut now = start;
    let mut events = Vec::new();
    loop {
        let step = simulation.run.step(events.drain(..), now);
        simulation.hear_decisions(&step.transitions, now);
        trace.add(now, step.transitions);
        simulation.run.stored(simulation.run.sequence());
        for action in step.actions {
            simulation.act(action, now);
        }
        let next = simulation.queue.peek().map(|Reverse(item)| item.time);
        let Some(next) = next.into_iter().chain(step.wake_at).min().filter(|_| !simulation.run.is_finished()) else {
            break;
        };
        now = next.max(now);
        simulation.take_due(now, &mut events);
    }
    trace.close(run)
}

/// Feeds recorded events and approvals to a run; those of one time make one step. Timers fire between them as they did.
pub fn replay<T: Into<Told>>(
    run: &mut Run,
    recorded: impl IntoIterator<Item = (Timestamp, T)>,
    start: Timestamp,
) -> Trace {
    let mut trace = Trace::begin(start);
    let mut recorded = recorded.into_iter().peekable();
    let mut now = start;
    loop {
        let mut events = Vec::new();
        while let Some((_, told)) = recorded.next_if(|(time, _)| *time <= now) {
            match told.into() {
                Told::Event(event) => events.push(event),
                Told::Approval(approval) => run.approve(approval),
            }
        }
        let step = run.step(events, now);
        trace.add(now, step.transitions);
        run.stored(run.sequence());
        let Some((next, _)) = recorded.peek() else { break };
        now = step.wake_at.map_or(*next, |wake| wake.min(*next)).max(now);
    }
    trace.close(run)
}

impl Trace {
    fn begin(start: Timestamp) -> Self {
        Self { transitions: Vec::new(), start, end: start, steps: 0, finished: false, phases: Vec::new() }
    }

    fn add(&mut self, now: Timestamp, transitions: Vec<Transition>) {
        self.steps += 1;
        self.end = now;
        self.transitions.extend(transitions.into_iter().map(|transition| (now, transition)));
    }

    fn close(mut self, run: &Run) -> Self {
        self.finished = run.is_finished();
        self.phases = run.graph().ids().map(|id| run.task(id).phase).collect();
        self
    }
}

struct Simulation<'a, W> {
    run: &'a mut Run,
    world: &'a mut W,
    queue: BinaryHeap<Reverse<Item>>,
    count: u64,
    attempts: BTreeMap<Attempt, Known>,
}

/// An attempt, and all of its items.
fn with_items(attempt: Attempt) -> RangeInclusive<Attempt> {
    attempt.whole()..=attempt.of_item(u32::MAX)
}

/// What the world said of an attempt.
struct Known {
    ends: Option<Timestamp>,
    gone: Duration,
    /// From when on nothing more is heard of it.
    silent: Option<Timestamp>,
}

/// What is due to be told; what is of one time comes in the order in which it was foreseen.
struct Item {
    time: Timestamp,
    count: u64,
    told: Told,
}

impl<W: World> Simulation<'_, W> {
    fn act(&mut self, action: Action, now: Timestamp) {
        match action {
            Action::Launch(launch) => self.launch(&launch, now),
            Action::LookUp { task, key } => {
                let found = self.world.remembered(task, key);
                self.push(now, Event::LookedUp { task, key, found });
            }
            Action::Stop { attempt } => {
                let mut last = now;
                for (_, known) in self.attempts.range_mut(with_items(attempt)) {
                    let gone = later(now, known.gone);
                    known.silent = Some(gone);
                    last = last.max(gone);
                }
                self.push(last, Event::Gone { attempt });
            }
            Action::AwaitGone { attempt } => {
                let gone = |known: &Known| later(known.ends.unwrap_or(now), known.gone);
                let last = self.attempts.range(with_items(attempt)).map(|(_, known)| gone(known)).max();
                self.push(last.unwrap_or(now).max(now), Event::Gone { attempt });
            }
        }
    }

    fn launch(&mut self, launch: &Launch, now: Timestamp) {
        let attempt = launch.attempt;
        let fate = self.world.fate(launch, now);
        let created = later(now, fate.create);
        let item = attempt.item.map(|index| format!("-{index}")).unwrap_or_default();
        let job = format!("{}-{}{item}", self.run.graph().task(attempt.task).name, attempt.number);
        self.push(created, Event::Launched { attempt, job });
        if let Some(Block { reason, message, cluster }) = fate.blocked {
            self.push(created, Event::Blocked { attempt, reason, message, cluster });
        }
        let started = fate.start.map(|delay| later(created, delay));
        if let Some(time) = started {
            self.push(time, Event::Started { attempt });
        }
        let ends = fate.run.map(|run| later(started.unwrap_or(created), run));
        if let Some(time) = ends {
            self.push(time, Event::Finished { attempt, result: fate.result, time });
        }
        self.attempts.insert(attempt, Known { ends, gone: fate.gone, silent: None });
    }

    /// Asks what becomes of the approvals that are asked for now.
    fn hear_decisions(&mut self, transitions: &[Transition], now: Timestamp) {
        for transition in transitions.iter().filter(|transition| transition.to == TaskPhase::Waiting) {
            let asked = Attempt::new(transition.task, transition.attempt);
            if matches!(self.run.graph().task(asked.task).work, Work::Approval(_))
                && let Some((delay, approval)) = self.world.decide(asked, now)
            {
                self.push(later(now, delay), approval);
            }
        }
    }

    fn push(&mut self, time: Timestamp, told: impl Into<Told>) {
        self.count += 1;
        self.queue.push(Reverse(Item { time, count: self.count, told: told.into() }));
    }

    fn take_due(&mut self, now: Timestamp, events: &mut Vec<Event>) {
        while let Some(Reverse(item)) = self.queue.peek() {
            if item.time > now {
                break;
            }
            let Some(Reverse(Item { time, told, .. })) = self.queue.pop() else { break };
            let event = match told {
                Told::Event(event) => event,
                Told::Approval(approval) => {
                    self.run.approve(approval);
                    continue;
                }
            };
            let over = match &event {
                Event::Gone { .. } | Event::LookedUp { .. } => None,
                Event::Launched { attempt, .. }
                | Event::Created { attempt, .. }
                | Event::Started { attempt }
                | Event::Progress { attempt, .. }
                | Event::Blocked { attempt, .. }
                | Event::Outdated { attempt, .. }
                | Event::Items { attempt, .. }
                | Event::Finished { attempt, .. } => self.attempts.get(attempt).and_then(|known| known.silent),
            };
            if over.is_none_or(|silent| time < silent) {
                events.push(event);
            }
        }
    }
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        (self.time, self.count) == (other.time, other.count)
    }
}

impl Eq for Item {}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Item {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.time, self.count).cmp(&(other.time, other.count))
    }
}
