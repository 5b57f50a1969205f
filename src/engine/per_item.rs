//! Attempts that are a Job or child graph for each item.
//!
//! The list is evaluated once an attempt, since the places of its items must stay what they are. Which items have a Job
//! stands in the status; how they ended is told again after a restart by the Jobs and child graphs, which stay until the
//! attempt's result is stored.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::{
    event::{Attempt, AttemptResult, Blame, Event, Failure, Launch},
    expr::{EvalError, Scope},
    for_each::Launchable,
    graph::{TaskDef, TaskId},
    policy::{
        indexes::Indexes,
        per_item::{self, Block, ItemSet, Limits},
        trigger::Verdict,
    },
    reason,
    record::{MAX_MESSAGE, MAX_REASON, Round, clip},
    state::{Run, StopCause, later, whole_millis},
};
use crate::api::{ItemsEnding, ItemsStatus, TaskPhase};

/// The items of a live attempt.
#[derive(Clone, Debug)]
pub(super) struct LiveItems {
    pub set: ItemSet,
    /// The list, once it is needed.
    list: Option<Arc<[Value]>>,
    /// When the last of those that ended did.
    ended: Timestamp,
}

impl LiveItems {
    fn new(set: ItemSet, list: Option<Arc<[Value]>>) -> Self {
        Self { set, list, ended: Timestamp::MIN }
    }
}

/// What was told of items before their list was known, in its order.
pub(super) type EarlyItems = Vec<(u32, Event)>;

fn limits(def: &TaskDef) -> Limits {
    def.for_each
        .as_ref()
        .map_or_else(Limits::default, |rule| Limits { parallelism: rule.parallelism, max_failures: rule.max_failures })
}

impl Run {
    pub(super) fn is_per_item(&self, id: TaskId) -> bool {
        self.graph.task(id).is_per_item()
    }

    /// The live items of a task.
    fn items_mut(&mut self, id: TaskId) -> Option<&mut ItemSet> {
        self.tasks.get_mut(id.index())?.live.items.as_mut().map(|items| &mut items.set)
    }

    /// Whether an attempt, or an item, may still run: as far as is known it has not ended.
    pub fn is_live(&self, attempt: Attempt) -> bool {
        let Some(task) = self.tasks.get(attempt.task.index()) else { return false };
        let live = task.status.phase == TaskPhase::Running && task.status.attempts == attempt.number;
        live && match (attempt.item, &task.live.items) {
            (Some(index), Some(items)) => items.set.is_open(index),
            (item, _) => item.is_none() || task.live.early.is_some(),
        }
    }

    /// The items of live attempts that are known to have a Job or child graph, and not to have ended. One that does not
    /// exist is lost: the caller finds that out, and says so by [`Event::Finished`].
    pub fn live_items(&self) -> impl Iterator<Item = Attempt> {
        let running = self.live().map(|live| live.attempt);
        running.flat_map(|attempt| {
            let items = self.tasks.get(attempt.task.index()).and_then(|task| task.live.items.as_ref());
            items.into_iter().flat_map(move |items| items.set.live().map(move |index| attempt.of_item(index)))
        })
    }

    /// Begins an attempt with these items.
    pub(super) fn begin_items(&mut self, attempt: Attempt, list: Arc<[Value]>, round: &mut Round) {
        let id = attempt.task;
        self.tasks[id.index()].status.attempts = attempt.number;
        self.begin(id, None, round);
        let total = u32::try_from(list.len()).unwrap_or(u32::MAX);
        let set = ItemSet::new(total, limits(self.graph.task(id)));
        self.set_items(id, LiveItems::new(set, Some(list)));
    }

    fn set_items(&mut self, id: TaskId, items: LiveItems) {
        let task = &mut self.tasks[id.index()];
        task.status.items = Some(items.set.status());
        task.live.items = Some(Box::new(items));
        self.touched.insert(id);
    }

    /// The items of an attempt that began before, as the status tells of them.
    pub(super) fn restore_items(&mut self, id: TaskId) {
        let status = self.tasks[id.index()].status.items.clone().unwrap_or_default();
        if status.total == 0 {
            return self.await_items(id);
        }
        let total = status.total.min(MAX_ITEMS);
        let limits = limits(self.graph.task(id));
        let mut set = ItemSet::restore(total, limits, &Indexes::read(status.launched.as_deref(), total));
        let message = self.task(id).message.clone();
        if let Some(failure) = status.ending.map(|ending| failure_of(&ending, message)) {
            set.give_up(failure);
        }
        self.tasks[id.index()].live.items = Some(Box::new(LiveItems::new(set, None)));
        self.touched.insert(id);
    }

    /// An attempt began of which the status does not tell how many items it has: its list is evaluated once all that it
    /// follows from is known. After a restart the Jobs of items may be seen before what the tasks before them left.
    pub(super) fn await_items(&mut self, id: TaskId) {
        let live = &mut self.tasks[id.index()].live;
        live.early = Some(EarlyItems::new());
        if live.stop.is_none() {
            self.listless.insert(id);
        }
        self.touched.insert(id);
    }

    /// Looks at a Running task of whose dependencies something became known.
    pub(super) fn look_for_items(&mut self, id: TaskId) {
        if self.tasks[id.index()].live.early.is_some() {
            self.touched.insert(id);
        }
    }

    /// Evaluates the list of an attempt that began before, and takes in what was told of its items.
    fn find_items(&mut self, id: TaskId, round: &mut Round) {
        let live = &self.tasks[id.index()].live;
        if live.early.is_none() || live.stop.is_some() || self.verdict(id) == Verdict::Wait {
            return;
        }
        self.listless.remove(&id);
        let early = self.tasks[id.index()].live.early.take().unwrap_or_default();
        match self.list(self.last_attempt(id)) {
            Ok(list) => {
                let total = u32::try_from(list.len()).unwrap_or(u32::MAX);
                let set = ItemSet::new(total, limits(self.graph.task(id)));
                self.set_items(id, LiveItems::new(set, Some(list)));
                for (index, event) in early {
                    self.take_in_item(id, index, event, round);
                }
                self.ring_items(id, round);
            }
            Err(error) => self.stop_items(id, no_list(error), round),
        }
    }

    /// The list that an attempt is for.
    fn list(&self, attempt: Attempt) -> Result<Arc<[Value]>, EvalError> {
        match self.launchable(attempt)? {
            Launchable::Items(list) => Ok(list),
            _ => Err(EvalError("forEach.items: the list is empty now".to_owned())),
        }
    }

    /// Takes in what is told of one item.
    pub(super) fn observe_item(&mut self, attempt: Attempt, index: u32, event: Event, round: &mut Round) {
        let whole = attempt.whole();
        let exists = matches!(event, Event::Launched { .. } | Event::Created { .. });
        if exists {
            self.on_launched(whole, None, true, round);
        }
        let id = attempt.task;
        if let Event::Outdated { definition, .. } = event {
            return self.on_outdated(whole, definition, round);
        }
        if whole != self.last_attempt(id) || self.task(id).phase != TaskPhase::Running {
            return;
        }
        if self.take_in_item(id, index, event, round) {
            self.touched.insert(id);
        }
        self.arm_running(id);
    }

    /// Takes what is told of an item of a running task. Whether the attempt may come to something else by it.
    fn take_in_item(&mut self, id: TaskId, index: u32, event: Event, round: &mut Round) -> bool {
        if let Some(early) = &mut self.tasks[id.index()].live.early {
            early.push((index, event));
            return true;
        }
        let starts_within = self.graph.task(id).starts_within();
        let Some(items) = self.items_mut(id) else { return false };
        match event {
            Event::Launched { .. } => items.launched(index),
            Event::Created { time, .. } => match starts_within {
                Some(limit) => items.created(index, later(whole_millis(time), limit)),
                None => items.launched(index),
            },
            Event::Started { .. } => {
                let news = items.started(index);
                if items.is_open(index) {
                    self.on_started(id, round);
                }
                news
            }
            Event::Blocked { reason, message, cluster, .. } => {
                let kept = (clip(&reason, MAX_REASON).to_owned(), clip(&message, MAX_MESSAGE).to_owned());
                items.blocked(index, Block { reason: kept.0, message: kept.1, cluster });
                self.on_blocked(id, &reason, &message, cluster, round);
                false
            }
            Event::Finished { result, time, .. } => self.on_item_finished(id, index, result, time),
            _ => false,
        }
    }

    fn on_item_finished(&mut self, id: TaskId, index: u32, result: AttemptResult, time: Timestamp) -> bool {
        let stop = self.tasks[id.index()].live.stop;
        let Some(items) = &mut self.tasks[id.index()].live.items else { return false };
        let ended = match result {
            AttemptResult::Succeeded { outputs, .. } => items.set.succeed(index, outputs),
            // it may be the stop's doing
            AttemptResult::Failed(_) if stop.is_some() => false,
            AttemptResult::Failed(failure) => items.set.fail(index, failure),
        };
        if ended {
            items.ended = items.ended.max(time);
        }
        ended
    }

    /// Judges an attempt of which items were told of.
    pub(super) fn judge_items(&mut self, id: TaskId, round: &mut Round) {
        self.find_items(id, round);
        let stop = self.tasks[id.index()].live.stop;
        let Some(items) = &self.tasks[id.index()].live.items else { return };
        let (verdict, ended) = (items.set.verdict(), items.ended);
        self.show_items(id, round);
        if stop.is_some_and(|cause| cause != StopCause::Items) {
            // A stop takes Jobs away: which of them came to a good end meanwhile, and which failed before, nothing tells
            // after a restart.
            return;
        }
        let result = match verdict {
            per_item::Verdict::Open => {
                if stop.is_none() {
                    self.rolling.insert(id);
                }
                return;
            }
            per_item::Verdict::Stop(_) if stop.is_some() => return,
            per_item::Verdict::Stop(failure) => return self.stop_items(id, failure, round),
            per_item::Verdict::Succeeded(outputs) => AttemptResult::Succeeded { outputs, message: None },
            per_item::Verdict::Failed(failure) => AttemptResult::Failed(failure),
        };
        let ended = if ended == Timestamp::MIN { round.now } else { ended };
        self.on_finished(id, result, ended, round);
    }

    /// Shows the counts of a running attempt.
    fn show_items(&mut self, id: TaskId, round: &mut Round) {
        let task = &mut self.tasks[id.index()];
        let Some(items) = &task.live.items else { return };
        let ending = task.status.items.as_ref().and_then(|known| known.ending.clone());
        let shown = ItemsStatus { ending, ..items.set.status() };
        if task.status.items.as_ref() != Some(&shown) {
            task.status.items = Some(shown);
            round.changed = true;
        }
    }

    /// Launches as many items as may be.
    pub(super) fn launch_items(&mut self, id: TaskId, round: &mut Round) {
        self.rolling.remove(&id);
        let attempt = self.last_attempt(id);
        if self.task(id).phase != TaskPhase::Running || self.tasks[id.index()].live.stop.is_some() {
            return;
        }
        while let Some(index) = self.items_mut(id).and_then(ItemSet::take_next) {
            match self.item_launch(attempt, index) {
                Ok(launch) => round.launches.push(launch),
                // an edit has what the items follow from decided again; to wait for it here would keep a slot from it
                Err(_) if self.verdict(id) == Verdict::Wait => {
                    let message = "being stopped, to start afresh: what its items follow from is decided again";
                    return self.stop(id, StopCause::Again, message, round);
                }
                Err(error) => {
                    let Some(items) = self.items_mut(id) else { return };
                    items.fail(index, no_list(error.clone()));
                    items.give_up(no_list(error));
                    self.touched.insert(id);
                    return;
                }
            }
        }
    }

    /// An attempt begins by launching items. If none of them is known to exist after a restart, they are asked for again,
    /// even if the graph was suspended since; further ones follow from how these end.
    pub(super) fn ask_again_for_items(&mut self, id: TaskId, round: &mut Round) {
        if self.tasks[id.index()].live.items.as_ref().is_some_and(|items| items.set.none_launched()) {
            self.launch_items(id, round);
        }
    }

    fn item_launch(&mut self, attempt: Attempt, index: u32) -> Result<Launch, EvalError> {
        let id = attempt.task;
        let known = self.tasks[id.index()].live.items.as_ref().map(|items| (items.list.clone(), items.set.total()));
        let (list, total) = known.unwrap_or_default();
        let list = match list {
            Some(list) => list,
            None => self.list(attempt)?,
        };
        if let Some(items) = &mut self.tasks[id.index()].live.items {
            items.list = Some(Arc::clone(&list));
        }
        if u32::try_from(list.len()) != Ok(total) {
            return Err(EvalError(format!("forEach.items: the list had {total} items and has {} now", list.len())));
        }
        self.render_item(attempt, index, &list)
    }

    /// What one item is launched with.
    pub(super) fn render_item(&self, attempt: Attempt, index: u32, list: &[Value]) -> Result<Launch, EvalError> {
        let item = usize::try_from(index).ok().and_then(|place| list.get(place)).unwrap_or(&Value::Null);
        let scope = Scope { attempt: Some(attempt.number), item: Some((index, item)), ..self.scope() };
        let of_item = |error: EvalError| EvalError(format!("item {index}: {error}"));
        match self.graph.task(attempt.task).work.render(&scope) {
            Some(rendered) => {
                Ok(Launch { attempt: attempt.of_item(index), rendered: rendered.map_err(of_item)?, items: None })
            }
            None => Err(EvalError("there is nothing to launch".to_owned())),
        }
    }

    /// Has all items that run stopped: the attempt failed.
    fn stop_items(&mut self, id: TaskId, failure: Failure, round: &mut Round) {
        if let Some(items) = self.items_mut(id) {
            items.give_up(failure.clone());
        }
        self.rolling.remove(&id);
        let message = failure.message.clone().unwrap_or_default();
        self.stop(id, StopCause::Items, &message, round);
        let status = &mut self.tasks[id.index()].status;
        status.reason = Some(clip(&failure.reason, MAX_REASON).to_owned());
        status.items.get_or_insert_default().ending = Some(ItemsEnding {
            reason: failure.reason,
            exit_code: failure.exit_code,
            by_cluster: failure.blame == Blame::Cluster,
            for_good: failure.blame == Blame::Final,
        });
    }

    /// Why an attempt failed whose items were stopped.
    pub(super) fn items_failure(&self, id: TaskId) -> Failure {
        let status = self.task(id);
        let ending = status.items.as_ref().and_then(|items| items.ending.clone()).unwrap_or_default();
        failure_of(&ending, status.message.clone())
    }

    /// Whether the attempt of a running task with items took too long, or one of its items takes too long to begin.
    pub(super) fn ring_items(&mut self, id: TaskId, round: &mut Round) {
        let def = self.graph.task(id);
        let (timeout, starts) = (def.timeout, def.start_timeout);
        let task = &self.tasks[id.index()];
        if task.live.items.as_ref().is_some_and(|items| items.set.all_ended()) {
            // told in the same step, as after a restart: it is judged by what it came to
            return;
        }
        let start = task.status.start_time.unwrap_or(Timestamp::MIN);
        let overran = timeout.filter(|limit| later(start, *limit) <= round.now);
        let late = task.live.items.as_ref().and_then(|items| items.set.late(round.now));
        let failure = if let Some(limit) = overran {
            let message = format!("the items were not done within {limit}");
            failure(reason::DEADLINE_EXCEEDED, message, Blame::Task)
        } else if let Some((index, block)) = late {
            let seen = block.map(|block| format!(": {}: {}", block.reason, block.message)).unwrap_or_default();
            let cluster = block.is_none_or(|block| block.cluster);
            let message = format!("the pod of item {index} did not start within {starts}{seen}");
            failure(reason::START_TIMEOUT, message, if cluster { Blame::Cluster } else { Blame::Task })
        } else if self.start_due(id).is_some_and(|due| due <= round.now) {
            return self.start_timed_out(id, round);
        } else {
            return self.arm_running(id);
        };
        self.stop_items(id, failure, round);
    }

    /// Sets the timer of a running task: for its start, and for what is to be done with its items.
    pub(super) fn arm_running(&mut self, id: TaskId) {
        let def = self.graph.task(id);
        let task = &self.tasks[id.index()];
        if task.status.phase != TaskPhase::Running || task.live.stop.is_some() {
            return;
        }
        let start = task.status.start_time.unwrap_or(Timestamp::MIN);
        let item = task.live.items.as_ref().and_then(|items| items.set.first_due());
        let ends = def.timeout.filter(|_| def.is_per_item()).map(|limit| later(start, limit));
        let due = [self.start_due(id), ends, item].into_iter().flatten().min();
        self.arm(id, due);
    }

    /// Until when a running attempt must have begun, if that is still open: an item that exists has a limit of its own, and
    /// what stands in its way is told of it.
    fn start_due(&self, id: TaskId) -> Option<Timestamp> {
        let task = &self.tasks[id.index()];
        let by_item = task.live.items.as_ref().is_some_and(|items| items.set.first_due().is_some());
        let limit = self.graph.task(id).starts_within().filter(|_| !task.live.started && !by_item)?;
        Some(later(task.status.start_time.unwrap_or(Timestamp::MIN), limit))
    }
}

/// The most items of a task, as they are counted here.
const MAX_ITEMS: u32 = 1000;

fn failure(reason: &str, message: String, blame: Blame) -> Failure {
    Failure { reason: reason.to_owned(), message: Some(message), exit_code: None, blame }
}

fn no_list(error: EvalError) -> Failure {
    failure(reason::EXPRESSION_ERROR, error.0, Blame::Final)
}

fn failure_of(ending: &ItemsEnding, message: Option<String>) -> Failure {
    let blame = match (ending.by_cluster, ending.for_good) {
        (true, _) => Blame::Cluster,
        (false, true) => Blame::Final,
        (false, false) => Blame::Task,
    };
    Failure { reason: ending.reason.clone(), message, exit_code: ending.exit_code, blame }
}
