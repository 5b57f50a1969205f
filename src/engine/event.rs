//! What the engine is told ([`Event`]) and what it asks for ([`Action`]).

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    cache::{CacheKey, Remembered},
    graph::TaskId,
};
use crate::api::{ItemsStatus, TaskPhase};

/// One attempt of one task; or one item of it, where each has a Job or child graph of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attempt {
    /// The task.
    pub task: TaskId,
    /// Number of the attempt, from 1.
    pub number: u32,
    /// Place of the item, from 0; `None`: the attempt as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
}

impl Attempt {
    /// An attempt as a whole.
    pub const fn new(task: TaskId, number: u32) -> Self {
        Self { task, number, item: None }
    }

    /// One item of it.
    #[must_use]
    pub const fn of_item(self, item: u32) -> Self {
        Self { item: Some(item), ..self }
    }

    /// The attempt that it is, or is an item of.
    #[must_use]
    pub const fn whole(self) -> Self {
        Self { item: None, ..self }
    }
}

/// What was observed. Events may come late, twice and out of order; those that
/// speak of a past attempt or a final task change nothing.
///
/// Of an attempt with a Job or child graph for each item, `Launched`, `Created`, `Started`, `Blocked` and `Finished` tell
/// of one item, all else of the attempt as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The attempt's Job, or child graph, exists: created, or found after a restart.
    Launched {
        /// Whose Job.
        attempt: Attempt,
        /// Name of the Job or child graph.
        job: String,
    },
    /// When the Job of an item was created: its `startTimeout` counts from then.
    Created {
        /// Which item.
        attempt: Attempt,
        /// As the API server says.
        time: Timestamp,
    },
    /// The attempt's pod runs its containers, or its child graph was accepted.
    Started {
        /// Whose pod.
        attempt: Attempt,
    },
    /// How far the attempt's child graph has come. Shown; nothing else follows from it.
    Progress {
        /// Whose child graph.
        attempt: Attempt,
        /// Final tasks of all its tasks: `3/7`.
        progress: String,
    },
    /// The attempt has no Job or its pod does not start, for now. Shown; nothing else follows from it until
    /// the start timeout.
    Blocked {
        /// Which attempt.
        attempt: Attempt,
        /// A word for programs, as `ErrImageNeverPull` or `QuotaExceeded`.
        reason: String,
        /// Why, for people.
        message: String,
        /// Whether the cluster is to blame (no room, no quota) rather than the task (no such image).
        cluster: bool,
    },
    /// How far the items of an attempt with `forEach` are.
    Items {
        /// Whose items.
        attempt: Attempt,
        /// How many are where.
        items: ItemsStatus,
    },
    /// The attempt ended.
    Finished {
        /// Which attempt.
        attempt: Attempt,
        /// How.
        result: AttemptResult,
        /// When, as far as known.
        time: Timestamp,
    },
    /// The attempt's Job was made from another definition than the one that its task has now.
    Outdated {
        /// Which attempt.
        attempt: Attempt,
        /// Hash of that definition.
        definition: u64,
    },
    /// A live look at the cluster showed no pod of the task that is not terminal, and no Job of the attempt that
    /// could still make one; or that the child graph of the attempt is final or gone. Answers [`Action::Stop`] and [`Action::AwaitGone`].
    Gone {
        /// Which attempt.
        attempt: Attempt,
    },
    /// Whether an earlier success is remembered. Answers [`Action::LookUp`].
    LookedUp {
        /// The task that asked.
        task: TaskId,
        /// What it asked for.
        key: CacheKey,
        /// The success, however old it is.
        found: Option<Remembered>,
    },
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AttemptResult {
    /// Well.
    Succeeded {
        /// Members of the JSON object that the container left, if it left one. With `forEach`, each is a list with a
        /// place for every item, `null` where an item left none.
        outputs: Map<String, Value>,
        /// The text that it left, if it was no JSON object.
        message: Option<String>,
    },
    /// Not well.
    Failed(Failure),
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A word for programs.
    pub reason: String,
    /// Why, for people; any length, cut when recorded.
    pub message: Option<String>,
    /// Exit code of the container, where one ran.
    pub exit_code: Option<i32>,
    /// What it means for retries.
    pub blame: Blame,
}

/// What a failed attempt means for retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Blame {
    /// The task failed: uses up one of `retry.limit`.
    Task,
    /// The cluster failed the task (disruption, lost Job, no room): tried again without using up
    /// `retry.limit`, at most 20 times a task.
    Cluster,
    /// Trying again cannot help (the API server refused the Job): not retried.
    Final,
}

/// What is to be done. Each may be asked for again after a restart, so all must be safe to repeat.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create the attempt's Job; answer with [`Event::Launched`], or [`Event::Blocked`] while trying again,
    /// or [`Event::Finished`] where it cannot be made.
    Launch(Launch),
    /// Delete the attempt's Job (if any), or those of its items that have not ended, and answer [`Event::Gone`]. A result
    /// that comes before counts if it is a success.
    Stop {
        /// Which attempt.
        attempt: Attempt,
    },
    /// Answer [`Event::LookedUp`], within a few seconds or never.
    LookUp {
        /// The task that asks.
        task: TaskId,
        /// What it asks for.
        key: CacheKey,
    },
    /// Answer [`Event::Gone`] once it is so; delete nothing.
    AwaitGone {
        /// Which attempt.
        attempt: Attempt,
    },
}

/// An attempt to launch.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// Which attempt.
    pub attempt: Attempt,
    /// The container or pod template (see [`Payload::kind`](super::payload::Payload::kind)), or the arguments of the child
    /// graph, all expressions replaced by their values.
    pub rendered: Arc<Value>,
    /// The items of a task with `forEach` that one Job serves: one at least.
    pub items: Option<Arc<[Value]>>,
}

/// One recorded transition of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The task.
    pub task: TaskId,
    /// The phase it left.
    pub from: TaskPhase,
    /// The phase it entered (the same as `from` where an attempt of a task that keeps running was recorded).
    pub to: TaskPhase,
    /// Number of its last attempt; 0 where it had none.
    pub attempt: u32,
    /// Why, as a word for programs.
    pub reason: Option<String>,
}

/// The answer to a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// What is to be done, in order of priority.
    pub actions: Vec<Action>,
    /// What changed.
    pub transitions: Vec<Transition>,
    /// Something that the status shows changed (a transition, or a reason or message).
    pub changed: bool,
    /// The status must be stored before any of `actions` is begun: something stands in it that Jobs and Pods could not
    /// rebuild (a branch taken, a time drawn, a cancel), and it is not stored yet.
    pub store_first: bool,
    /// When to step again though nothing was observed.
    pub wake_at: Option<Timestamp>,
}
