//! Results that are reused: before its first attempt, a task with `cache` asks for an earlier success of the same work.
//!
//! While it asks, the task stays Ready and holds a slot. Nothing of this is stored before the success is: after a
//! restart it asks again. No answer within [`LOOK_UP_TIMEOUT`] means that there is none.

use std::{cmp::Reverse, fmt, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use xxhash_rust::xxh3::Xxh3;

use super::{
    expr::{EvalError, Scope},
    graph::{TaskId, Work},
    policy::{items, outputs},
    reason,
    record::Round,
    state::{Run, later},
    validate::hash,
};
use crate::api::{Duration, TaskPhase};

/// How long a task waits to hear whether there is an earlier success.
pub const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(5);

/// A hash of all that a task's outputs depend on, as far as the graph tells: definition, rendered payload, key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CacheKey(pub u64, pub u64);

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.0, self.1)
    }
}

/// An earlier success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// What it left behind.
    #[serde(default)]
    pub outputs: Map<String, Value>,
    /// The graph that it was in.
    pub graph: String,
    /// The task.
    pub task: String,
    /// When it ended.
    pub time: Timestamp,
}

/// How far the question after an earlier success has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum LookUp {
    /// Not asked.
    #[default]
    Open,
    /// Asked, no answer yet.
    Asked(CacheKey),
    /// There is none that counts.
    Missed,
}

impl Run {
    /// What identifies the work of a task that has a cache. Its dependencies must be final.
    ///
    /// # Errors
    /// If an expression of the task has no value.
    pub fn cache_key(&self, id: TaskId) -> Option<Result<CacheKey, EvalError>> {
        let def = self.graph.task(id);
        let (Some(rule), Work::Job(payload)) = (&def.cache, &def.work) else { return None };
        let render = || {
            // of every attempt the same: the first one asks, whichever succeeds answers
            let scope = Scope { attempt: Some(1), ..self.scope() };
            let rendered = payload.render(&scope)?;
            let list = def.for_each.as_ref().map(|rule| items::list(rule, &scope)).transpose()?;
            let text = rule.key.as_ref().map(|key| key.render(&self.scope(), false)).transpose();
            let text = text.map_err(|error| EvalError(format!("cache.key: {error}")))?;
            let mut hasher = Xxh3::new();
            hasher.update(b"1");
            hasher.update(&def.hash.to_le_bytes());
            hash::value(&mut hasher, &rendered);
            hash::text(&mut hasher, text.as_deref().unwrap_or_default());
            if let Some(list) = list {
                list.iter().for_each(|item| hash::value(&mut hasher, item));
            }
            let digest = hasher.digest128().to_be_bytes();
            let half = |from: usize| digest.iter().skip(from).take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte));
            Ok(CacheKey(half(0), half(8)))
        };
        Some(render())
    }

    /// What to remember a success by: of a task that has a cache, and ran itself, with no item that failed.
    pub fn to_remember(&self, id: TaskId) -> Option<CacheKey> {
        let status = self.task(id);
        let partly = status.items.as_ref().is_some_and(|items| items.failed > 0);
        if status.phase != TaskPhase::Succeeded || status.attempts == 0 || partly {
            return None;
        }
        self.cache_key(id)?.ok()
    }

    /// Has a Ready task ask for an earlier success before its first attempt. False: it may be launched.
    ///
    /// What was told to run once more does run, also where an earlier success stood in for it the first time.
    pub(super) fn asks_first(&mut self, id: TaskId, round: &mut Round) -> bool {
        let task = &self.tasks[id.index()];
        if task.status.attempts > 0 || task.status.fresh || task.live.look_up != LookUp::Open {
            return false;
        }
        match self.cache_key(id) {
            None => return false,
            Some(Ok(key)) => {
                self.ready.remove(&(Reverse(self.graph.task(id).priority), id));
                self.tasks[id.index()].live.look_up = LookUp::Asked(key);
                self.asking.insert(id);
                self.arm(id, Some(later(round.now, LOOK_UP_TIMEOUT)));
                round.look_ups.push((id, key));
            }
            Some(Err(error)) => {
                self.enter(id, TaskPhase::Failed, Some(reason::EXPRESSION_ERROR), Some(error.to_string()), round);
            }
        }
        true
    }

    /// Takes the answer. One to a question that is not open changes nothing.
    pub(super) fn on_looked_up(&mut self, id: TaskId, key: CacheKey, found: Option<Remembered>, round: &mut Round) {
        let Some(task) = self.tasks.get(id.index()) else { return };
        if task.status.phase != TaskPhase::Ready || task.live.look_up != LookUp::Asked(key) {
            return;
        }
        let graph = Arc::clone(&self.graph);
        let def = graph.task(id);
        let fresh = |found: &Remembered| {
            let Some(rule) = &def.cache else { return false };
            // one from the future is a clock's mistake, and as good as one of now
            round.now.duration_since(found.time) <= SignedDuration::from(rule.max_age)
        };
        let Some(found) = found.filter(fresh) else { return self.not_remembered(id) };
        // outputs may be declared otherwise by now, or leave no room: then the task runs, and tells so itself
        let checked = if def.for_each.is_some() {
            items::check_outputs(&def.outputs, found.outputs, None, self.output_bytes)
        } else {
            outputs::check(&def.outputs, found.outputs, self.output_bytes)
        };
        let Ok((outputs, bytes)) = checked else {
            return self.not_remembered(id);
        };
        self.output_bytes = self.output_bytes.saturating_add(bytes);
        self.tasks[id.index()].status.outputs = outputs;
        let message = format!("outputs of task {} of graph {}, {:.0}", found.task, found.graph, found.time);
        self.enter(id, TaskPhase::Succeeded, Some(reason::CACHED), Some(message), round);
        self.must_store();
    }

    /// There is no earlier success, or nobody said in time: the task is launched as any other.
    pub(super) fn not_remembered(&mut self, id: TaskId) {
        self.arm(id, None);
        self.asking.remove(&id);
        let live = &mut self.tasks[id.index()].live;
        if matches!(live.look_up, LookUp::Asked(_)) {
            live.look_up = LookUp::Missed;
            self.ready.insert((Reverse(self.graph.task(id).priority), id));
        }
    }
}
