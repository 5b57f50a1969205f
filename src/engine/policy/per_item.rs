//! Items that have a Job or child graph each: which may be launched, and what the attempt comes to.
//!
//! Whatever is told of one item costs time in the logarithm of how many there are, not in proportion.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{
    super::{
        event::{Blame, Failure},
        reason,
    },
    indexes::Indexes,
    items,
};
use crate::api::ItemsStatus;

/// How items are gone through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// How many may be under way at once; `None`: all.
    pub parallelism: Option<u32>,
    /// How many may fail with the attempt a success still. One more, and it is over. `None`: none may fail, but all are
    /// tried.
    pub max_failures: Option<u32>,
}

/// What an attempt comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It goes on.
    Open,
    /// Every item has ended, and no more failed than may: the outputs, as lists.
    Succeeded(Map<String, Value>),
    /// It failed, and nothing of it runs.
    Failed(Failure),
    /// It failed, and what runs is to be stopped.
    Stop(Failure),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not launched.
    Waiting,
    /// To be launched; not known to exist.
    Asked,
    /// It has a Job or child graph.
    Live {
        /// It runs.
        started: bool,
        /// Until when it must have begun to run.
        due: Option<Timestamp>,
    },
    Ended,
}

/// Why an item does not begin to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// A word for programs.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// Whether the cluster is to blame.
    pub cluster: bool,
}

/// The items of one attempt.
#[derive(Clone, Debug)]
pub struct ItemSet {
    limits: Limits,
    states: Vec<State>,
    waiting: BTreeSet<u32>,
    /// How many are `Asked` or `Live`.
    under_way: u32,
    /// Those that are known to have, or to have had, a Job or child graph.
    launched: Indexes,
    /// How many of `launched` have ended.
    done: u32,
    succeeded: u32,
    failed: Indexes,
    /// The first that failed, by its place.
    first: Option<(u32, Failure)>,
    /// How many failed by the cluster's fault, and how many so that trying again cannot help.
    by_cluster: u32,
    for_good: u32,
    /// One was deleted while it ran, or cannot be launched any more.
    given_up: Option<Failure>,
    left: BTreeMap<u32, Map<String, Value>>,
    /// Those that must have begun to run by then.
    due: BTreeSet<(Timestamp, u32)>,
    blocked: BTreeMap<u32, Block>,
}

impl ItemSet {
    /// None launched.
    pub fn new(total: u32, limits: Limits) -> Self {
        Self {
            limits,
            states: (0..total).map(|_| State::Waiting).collect(),
            waiting: (0..total).collect(),
            under_way: 0,
            launched: Indexes::default(),
            done: 0,
            succeeded: 0,
            failed: Indexes::default(),
            first: None,
            by_cluster: 0,
            for_good: 0,
            given_up: None,
            left: BTreeMap::new(),
            due: BTreeSet::new(),
            blocked: BTreeMap::new(),
        }
    }

    /// As it stands after a restart: those that were known to be launched are, and how they ended will be told again.
    pub fn restore(total: u32, limits: Limits, launched: &Indexes) -> Self {
        let mut items = Self::new(total, limits);
        launched.iter().for_each(|index| _ = items.launched(index));
        items
    }

    /// How many there are.
    pub fn total(&self) -> u32 {
        u32::try_from(self.states.len()).unwrap_or(u32::MAX)
    }

    /// Takes the next item to launch: the first that waits, if one may be launched.
    pub fn take_next(&mut self) -> Option<u32> {
        let free = self.limits.parallelism.is_none_or(|limit| self.under_way < limit);
        if !free || self.is_over() {
            return None;
        }
        let index = self.waiting.pop_first()?;
        self.enter(index, State::Asked);
        Some(index)
    }

    /// Whether an item has not ended.
    pub fn is_open(&self, index: u32) -> bool {
        self.state(index).is_some_and(|state| state != State::Ended)
    }

    /// The items that are known to have a Job or child graph, and not to have ended.
    pub fn live(&self) -> impl Iterator<Item = u32> {
        self.launched.iter().filter(|index| self.is_open(*index))
    }

    /// An item exists. False: that was known, or there is no such item.
    pub fn launched(&mut self, index: u32) -> bool {
        match self.state(index) {
            Some(State::Waiting | State::Asked) => {
                self.waiting.remove(&index);
                self.enter(index, State::Live { started: false, due: None });
                self.launched.insert(index)
            }
            Some(State::Live { .. } | State::Ended) | None => false,
        }
    }

    /// An item exists since a time, and must have begun to run by `due`. Whether it was not even known to exist.
    pub fn created(&mut self, index: u32, due: Timestamp) -> bool {
        let news = self.launched(index);
        if let Some(State::Live { started: false, due: None }) = self.state(index) {
            self.due.insert((due, index));
            self.enter(index, State::Live { started: false, due: Some(due) });
        }
        news
    }

    /// An item runs. Whether it was not even known to exist.
    pub fn started(&mut self, index: u32) -> bool {
        let news = self.launched(index);
        if let Some(State::Live { started: false, .. }) = self.state(index) {
            self.forget(index);
            self.enter(index, State::Live { started: true, due: None });
        }
        news
    }

    /// An item does not begin to run, for now.
    pub fn blocked(&mut self, index: u32, block: Block) {
        if let Some(State::Asked | State::Live { started: false, .. }) = self.state(index) {
            self.blocked.insert(index, block);
        }
    }

    /// When the first item must have begun to run.
    pub fn first_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(due, _)| *due)
    }

    /// The first item that should have begun to run by now, and what it waits for as far as that is known.
    pub fn late(&self, now: Timestamp) -> Option<(u32, Option<&Block>)> {
        let (_, index) = self.due.first().filter(|(due, _)| *due <= now)?;
        Some((*index, self.blocked.get(index)))
    }

    /// An item succeeded, and left this.
    pub fn succeed(&mut self, index: u32, outputs: Map<String, Value>) -> bool {
        if !self.end(index) {
            return false;
        }
        self.succeeded = self.succeeded.saturating_add(1);
        if !outputs.is_empty() {
            self.left.insert(index, outputs);
        }
        true
    }

    /// An item failed for good, or is lost.
    pub fn fail(&mut self, index: u32, failure: Failure) -> bool {
        if !self.end(index) {
            return false;
        }
        if reason::is_lost(&failure) {
            self.given_up.get_or_insert(of_item(index, failure));
            return true;
        }
        self.failed.insert(index);
        match failure.blame {
            Blame::Task => {}
            Blame::Cluster => self.by_cluster = self.by_cluster.saturating_add(1),
            Blame::Final => self.for_good = self.for_good.saturating_add(1),
        }
        if self.first.as_ref().is_none_or(|(known, _)| index < *known) {
            self.first = Some((index, failure));
        }
        true
    }

    /// The attempt cannot go on.
    pub fn give_up(&mut self, failure: Failure) {
        self.given_up.get_or_insert(failure);
    }

    /// Whether no item is known to have, or to have had, a Job or child graph.
    pub fn none_launched(&self) -> bool {
        self.launched.count() == 0
    }

    /// Whether every item has ended.
    pub fn all_ended(&self) -> bool {
        self.under_way == 0 && self.waiting.is_empty()
    }

    /// What the attempt comes to.
    pub fn verdict(&self) -> Verdict {
        if !self.is_over() && !self.all_ended() {
            return Verdict::Open;
        }
        let failure = match &self.given_up {
            Some(failure) => failure.clone(),
            None if self.failed.count() <= self.tolerated() => match items::collect(&self.left, self.total()) {
                Ok(outputs) => return Verdict::Succeeded(outputs),
                Err(failure) => failure,
            },
            None => self.failure(),
        };
        if self.under_way == 0 { Verdict::Failed(failure) } else { Verdict::Stop(failure) }
    }

    /// The counts, as a status shows them.
    pub fn status(&self) -> ItemsStatus {
        ItemsStatus {
            total: self.total(),
            succeeded: self.succeeded,
            failed: self.failed.count(),
            active: self.launched.count().saturating_sub(self.done),
            failed_indexes: self.failed.told(),
            launched: self.launched.exactly(),
            ending: None,
        }
    }

    /// Whether no further item is launched, whatever the others come to.
    fn is_over(&self) -> bool {
        self.given_up.is_some() || self.limits.max_failures.is_some_and(|limit| self.failed.count() > limit)
    }

    fn tolerated(&self) -> u32 {
        self.limits.max_failures.unwrap_or(0)
    }

    /// Why it failed: how many items did, and why the first of them.
    fn failure(&self) -> Failure {
        let mut message = self.failed.failed_of(self.total());
        if let Some((index, failure)) = &self.first {
            message = format!("{message}; {}", of_item(*index, failure.clone()).message.unwrap_or_default());
        }
        let blame = if self.by_cluster == self.failed.count() {
            Blame::Cluster
        } else if self.for_good > self.tolerated() {
            // the same ones would fail again
            Blame::Final
        } else {
            Blame::Task
        };
        let exit_code = self.first.as_ref().and_then(|(_, failure)| failure.exit_code);
        Failure { reason: reason::ITEMS_FAILED.to_owned(), message: Some(message), exit_code, blame }
    }

    fn state(&self, index: u32) -> Option<State> {
        self.states.get(usize::try_from(index).ok()?).copied()
    }

    /// False: it had ended, or there is no such item.
    fn end(&mut self, index: u32) -> bool {
        if !self.is_open(index) {
            return false;
        }
        self.waiting.remove(&index);
        self.forget(index);
        self.enter(index, State::Ended);
        if self.launched.holds(index) {
            self.done = self.done.saturating_add(1);
        }
        true
    }

    /// It is waited for no more to begin to run.
    fn forget(&mut self, index: u32) {
        if let Some(State::Live { due: Some(due), .. }) = self.state(index) {
            self.due.remove(&(due, index));
        }
        self.blocked.remove(&index);
    }

    fn enter(&mut self, index: u32, to: State) {
        let counts = |state: State| matches!(state, State::Asked | State::Live { .. });
        let Some(state) = usize::try_from(index).ok().and_then(|place| self.states.get_mut(place)) else { return };
        match (counts(*state), counts(to)) {
            (false, true) => self.under_way = self.under_way.saturating_add(1),
            (true, false) => self.under_way = self.under_way.saturating_sub(1),
            _ => {}
        }
        *state = to;
    }
}

/// The failure of an item, told as that of its attempt: `item 3: Error, exit code 1: no such file`.
pub fn of_item(index: u32, failure: Failure) -> Failure {
    let code = failure.exit_code.map(|code| format!(", exit code {code}")).unwrap_or_default();
    let text = failure.message.map(|text| format!(": {text}")).unwrap_or_default();
    Failure { message: Some(format!("item {index}: {}{code}{text}", failure.reason)), ..failure }
}

#[cfg(test)]
mod tests;
