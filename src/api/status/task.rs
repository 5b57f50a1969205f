//! What the operator knows of a task, of what undoes it, and of its attempts.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{super::schema, is_zero};

/// Phases of a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum TaskPhase {
    /// Waits for its dependencies.
    #[default]
    Pending,
    /// May start; waits for a slot.
    Ready,
    /// Has a Job.
    Running,
    /// Waits for a time or for an approval.
    Waiting,
    /// An attempt failed; waits for the next.
    Retrying,
    /// Ended well.
    Succeeded,
    /// Failed for good.
    Failed,
    /// Called off.
    Cancelled,
    /// Not run, by choice.
    Skipped,
    /// Not run, because of a failure elsewhere.
    Omitted,
}

impl TaskPhase {
    /// Whether a task in this phase never runs again.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled | Self::Skipped | Self::Omitted)
    }

    /// Its name, as printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Ready => "Ready",
            Self::Running => "Running",
            Self::Waiting => "Waiting",
            Self::Retrying => "Retrying",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Cancelled => "Cancelled",
            Self::Skipped => "Skipped",
            Self::Omitted => "Omitted",
        }
    }
}

/// The state of one task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskStatus {
    /// Name of the task.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Where it stands.
    #[schemars(schema_with = "schema::choice::<TaskPhase>")]
    pub phase: TaskPhase,
    /// Why, as a word for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
    /// Why, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32768))]
    pub message: Option<String>,
    /// Number of the last attempt; 0 before the first.
    #[serde(skip_serializing_if = "is_zero")]
    pub attempts: u32,
    /// How many of `attempts` were made before the task was last told to start afresh: `retry.limit` counts from there.
    #[serde(skip_serializing_if = "is_zero")]
    pub attempts_before: u32,
    /// An earlier success stood in for the task, and it was told to run once more: it asks for none.
    #[serde(skip_serializing_if = "is_zero")]
    pub fresh: bool,
    /// The task was changed after its last attempt began: what it ran is not what the spec says now.
    #[serde(skip_serializing_if = "is_zero")]
    pub stale: bool,
    /// Hash of the definition that the last attempt was made from, where the spec has another one by now.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub definition: Option<String>,
    /// The task is not in the spec any more; kept for the number of its last attempt.
    #[serde(skip_serializing_if = "is_zero")]
    pub removed: bool,
    /// How many of the attempts used up no retry, because the cluster was to blame.
    #[serde(skip_serializing_if = "is_zero")]
    pub disruptions: u32,
    /// Name of the Job of the last attempt, or of its child graph.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub job: Option<String>,
    /// Of a child graph: its final tasks of all its tasks, `3/7`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub progress: Option<String>,
    /// When it became Ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_time: Option<Timestamp>,
    /// When the last attempt was launched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Timestamp>,
    /// When it became final.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Timestamp>,
    /// When a Retrying task is tried again; when the delay of a Waiting task ends, or its approval times out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wake_at: Option<Timestamp>,
    /// The branch that an exclusive decision took.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub branch: Option<String>,
    /// The branches that an inclusive decision took.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)), extend("x-kubernetes-list-type" = "atomic"))]
    pub branches: Vec<String>,
    /// How far the last attempt of a task with `forEach` is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items: Option<ItemsStatus>,
    /// What a Succeeded task left behind.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "schema::opaque_object")]
    pub outputs: Map<String, Value>,
    /// The last five failed attempts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub failed_attempts: Vec<FailedAttempt>,
    /// How far its `compensate` got, once the graph began to undo what Succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compensation: Option<Box<CompensationStatus>>,
}

/// The state of what undoes a task: the same as of a task, as far as it has a meaning.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CompensationStatus {
    /// Where it stands.
    #[schemars(schema_with = "schema::choice::<TaskPhase>")]
    pub phase: TaskPhase,
    /// Why, as a word for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
    /// Why, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32768))]
    pub message: Option<String>,
    /// Number of the last attempt; 0 before the first.
    #[serde(skip_serializing_if = "is_zero")]
    pub attempts: u32,
    /// How many of `attempts` were made before its task was last told to start afresh.
    #[serde(skip_serializing_if = "is_zero")]
    pub attempts_before: u32,
    /// How many of the attempts used up no retry, because the cluster was to blame.
    #[serde(skip_serializing_if = "is_zero")]
    pub disruptions: u32,
    /// Name of the Job of the last attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub job: Option<String>,
    /// When it became Ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_time: Option<Timestamp>,
    /// When the last attempt was launched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Timestamp>,
    /// When it became final.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Timestamp>,
    /// When a Retrying one is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wake_at: Option<Timestamp>,
    /// The last five failed attempts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub failed_attempts: Vec<FailedAttempt>,
}

impl From<TaskStatus> for CompensationStatus {
    fn from(task: TaskStatus) -> Self {
        Self {
            phase: task.phase,
            reason: task.reason,
            message: task.message,
            attempts: task.attempts,
            attempts_before: task.attempts_before,
            disruptions: task.disruptions,
            job: task.job,
            ready_time: task.ready_time,
            start_time: task.start_time,
            completion_time: task.completion_time,
            wake_at: task.wake_at,
            failed_attempts: task.failed_attempts,
        }
    }
}

impl CompensationStatus {
    /// As the status of a task named `name`.
    pub fn into_task(self, name: String) -> TaskStatus {
        TaskStatus {
            name,
            phase: self.phase,
            reason: self.reason,
            message: self.message,
            attempts: self.attempts,
            attempts_before: self.attempts_before,
            disruptions: self.disruptions,
            job: self.job,
            ready_time: self.ready_time,
            start_time: self.start_time,
            completion_time: self.completion_time,
            wake_at: self.wake_at,
            failed_attempts: self.failed_attempts,
            ..TaskStatus::default()
        }
    }
}

impl TaskStatus {
    /// Whether it has an attempt since it was last told to start afresh.
    pub fn begun(&self) -> bool {
        self.attempts > self.attempts_before
    }

    /// The branches that a decision took.
    pub fn taken(&self) -> impl Iterator<Item = &str> {
        self.branch.as_deref().into_iter().chain(self.branches.iter().map(String::as_str))
    }
}

/// The items of a task with `forEach`, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ItemsStatus {
    /// How many there are.
    pub total: u32,
    /// How many succeeded.
    #[serde(skip_serializing_if = "is_zero")]
    pub succeeded: u32,
    /// How many failed for good.
    #[serde(skip_serializing_if = "is_zero")]
    pub failed: u32,
    /// How many have a pod, Job or child graph that has not ended.
    #[serde(skip_serializing_if = "is_zero")]
    pub active: u32,
    /// Those that failed, by their places from 0, as `1,3-5`; cut with `…` where there are too many.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub failed_indexes: Option<String>,
    /// With `strategy: PerItem`, while the attempt runs: those that are known to have a Job or child graph, as `1,3-5`;
    /// where that would be too long, `x` and a hexadecimal digit for each four places, the first being the lowest bit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub launched: Option<String>,
    /// With `strategy: PerItem`: the attempt failed, and the items that still run are being stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ending: Option<ItemsEnding>,
}

/// Why an attempt with items failed; what is to be known of it once they are stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ItemsEnding {
    /// A word for programs.
    #[schemars(length(max = 1024))]
    pub reason: String,
    /// Exit code of the first item that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The cluster is to blame: no retry is used up.
    #[serde(skip_serializing_if = "is_zero")]
    pub by_cluster: bool,
    /// Trying again cannot help.
    #[serde(skip_serializing_if = "is_zero")]
    pub for_good: bool,
}

/// One attempt that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FailedAttempt {
    /// Its number.
    pub attempt: u32,
    /// Name of its Job.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub job: Option<String>,
    /// When it was launched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Timestamp>,
    /// When it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Timestamp>,
    /// Exit code of its container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Why, as a word for programs.
    #[schemars(length(max = 1024))]
    pub reason: String,
    /// Why, for people; at most 256 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
}
