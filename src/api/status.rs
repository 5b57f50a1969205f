//! The status of a graph: all that the operator remembers of it.

mod task;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::task::*;
use super::{cloud_events::CloudEventsStatus, schema, task::TemplateKind, volume::VolumeStatus};

/// What the operator knows of a graph.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TaskGraphStatus {
    /// The UID of the graph that this status speaks of, once it was accepted. Another one than `metadata.uid`: the
    /// status was restored from a backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub uid: Option<String>,
    /// The generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Summary for people; nothing decides from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::choice::<GraphPhase>")]
    pub phase: Option<GraphPhase>,
    /// Why it is as it is, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32768))]
    pub message: Option<String>,
    /// Final tasks of all tasks: `3/7`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub progress: Option<String>,
    /// How many tasks are in which phase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
    /// When the graph was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Timestamp>,
    /// When all of `tasks` were final, the graph was to fail, and its compensations began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compensation_time: Option<Timestamp>,
    /// When all of `tasks` were final and `finally` began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finally_time: Option<Timestamp>,
    /// When the graph finished.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Timestamp>,
    /// What called the graph off before its tasks were done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// Name of the `ControllerRevision` with the accepted spec and templates.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub revision: Option<String>,
    /// The templates that the graph began with, the first 64 of them; a later change of one does not touch it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub templates: Vec<TemplateStatus>,
    /// What a Complete graph returns, as its spec says.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "schema::opaque_object")]
    pub outputs: Map<String, Value>,
    /// Number of that revision; each accepted edit adds one. Absent: 1.
    #[serde(skip_serializing_if = "is_zero")]
    pub revision_number: u32,
    /// Id of the last `spec.rerun` that was acted on, or noted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub rerun: Option<String>,
    /// When the graph was taken up again after it had finished, or tasks of it were rerun: `timeout` counts from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reopen_time: Option<Timestamp>,
    /// The claims that were made for the graph.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub volumes: Vec<VolumeStatus>,
    /// Number of transitions recorded so far; it only rises.
    #[serde(skip_serializing_if = "is_zero")]
    pub sequence: u64,
    /// Conditions, as Jobs have them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The tasks, in the order of the spec, `finally` last; then those that were removed and had attempts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096), extend("x-kubernetes-list-type" = "atomic"))]
    pub tasks: Vec<TaskStatus>,
    /// The last 20 events of the graph as a whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub history: Vec<HistoryEntry>,
    /// What of this status is still to be delivered as CloudEvents; only where the operator delivers any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloud_events: Option<CloudEventsStatus>,
}

/// Which state of a template a graph began with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TemplateStatus {
    /// Kind of the template.
    #[schemars(schema_with = "schema::choice::<TemplateKind>")]
    pub kind: TemplateKind,
    /// Name of the template.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Generation of its spec at that time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
}

pub(super) fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

/// Summary of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GraphPhase {
    /// Not accepted yet, or refused.
    Pending,
    /// Tasks run or may start.
    Running,
    /// Nothing new is started.
    Suspended,
    /// It was called off, and what runs is being stopped.
    Cancelling,
    /// The tasks are final, not all well; what Succeeded is undone.
    Compensating,
    /// The tasks are final; `finally` runs.
    Finalizing,
    /// All ended well.
    Complete,
    /// All ended, not all well.
    Failed,
}

impl GraphPhase {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Pending,
        Self::Running,
        Self::Suspended,
        Self::Cancelling,
        Self::Compensating,
        Self::Finalizing,
        Self::Complete,
        Self::Failed,
    ];

    /// Its name, as printed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Suspended => "Suspended",
            Self::Cancelling => "Cancelling",
            Self::Compensating => "Compensating",
            Self::Finalizing => "Finalizing",
            Self::Complete => "Complete",
            Self::Failed => "Failed",
        }
    }
}

/// What called a graph off before its tasks were done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ending {
    /// Why.
    #[schemars(schema_with = "schema::choice::<EndingReason>")]
    pub reason: EndingReason,
    /// When.
    pub time: Timestamp,
}

/// Why a graph was called off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EndingReason {
    /// By `desiredState: Cancel`.
    Cancelled,
    /// By `timeout`.
    DeadlineExceeded,
}

/// How many tasks are in which phase.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Counts {
    /// Wait for others, for a slot, for a further attempt, for a time or for an approval.
    #[serde(skip_serializing_if = "is_zero")]
    pub waiting: u32,
    /// Have a Job.
    #[serde(skip_serializing_if = "is_zero")]
    pub running: u32,
    /// Succeeded.
    #[serde(skip_serializing_if = "is_zero")]
    pub succeeded: u32,
    /// Failed for good. Always shown.
    pub failed: u32,
    /// Cancelled.
    #[serde(skip_serializing_if = "is_zero")]
    pub cancelled: u32,
    /// Skipped.
    #[serde(skip_serializing_if = "is_zero")]
    pub skipped: u32,
    /// Omitted.
    #[serde(skip_serializing_if = "is_zero")]
    pub omitted: u32,
}

/// A condition, as `metav1.Condition`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Which condition.
    #[serde(rename = "type")]
    #[schemars(length(max = 63))]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    #[schemars(length(max = 7))]
    pub status: String,
    /// The generation of the spec that it speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When `status` last changed.
    pub last_transition_time: Timestamp,
    /// A word for programs.
    #[schemars(length(max = 1024))]
    pub reason: String,
    /// A sentence for people.
    #[serde(default)]
    #[schemars(length(max = 32768))]
    pub message: String,
}

impl TaskGraphStatus {
    /// The condition of this type, if it stands and is `True`.
    pub fn holds(&self, type_: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == type_ && condition.status == "True")
    }

    /// Whether somebody called the graph off, which is for good.
    pub fn is_cancelled(&self) -> bool {
        self.ending.as_ref().is_some_and(Ending::is_cancel)
    }
}

impl Ending {
    /// Whether somebody called the graph off.
    pub fn is_cancel(&self) -> bool {
        self.reason == EndingReason::Cancelled
    }
}

impl Condition {
    /// Puts it in the place of the one of its type; its transition time changes only with its status.
    pub fn put_into(mut self, conditions: &mut Vec<Self>) {
        match conditions.iter_mut().find(|known| known.type_ == self.type_) {
            Some(known) => {
                if known.status == self.status {
                    self.last_transition_time = known.last_transition_time;
                }
                *known = self;
            }
            None => conditions.push(self),
        }
    }
}

/// One event of the graph as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryEntry {
    /// When.
    pub time: Timestamp,
    /// What: `Accepted`, `Edited`, `Rerun`, `Approved`, `Rejected`, `ApprovalTimeout`, `Suspended`, `Resumed`, `Cancelled`,
    /// `DeadlineExceeded`, `Compensating`, `Finished`.
    #[schemars(length(max = 63))]
    pub event: String,
    /// Details, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32768))]
    pub message: Option<String>,
    /// Whose doing it is: the user name of whoever wrote that into the spec, as admission noted it. Absent where nobody did,
    /// and where nobody was noted. Without admission it is what the graph's annotations say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub by: Option<String>,
}
