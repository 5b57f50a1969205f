//! The events as they are sent: every type, in one list, and what each carries. `docs/cloudevents.schema.json` is made
//! from here.

use jiff::Timestamp;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::api::{Counts, GraphPhase, TaskPhase};

/// Media type of an event in structured mode.
pub const CONTENT_TYPE: &str = "application/cloudevents+json; charset=utf-8";
/// What the type of every event begins with.
pub const TYPE_PREFIX: &str = "dev.taskgraph.";

/// Declares [`Kind`]: what can be told of a graph and its tasks.
macro_rules! kinds {
    ($( #[doc = $says:literal] $kind:ident = $name:literal, )+) => {
        /// What an event tells.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind { $( #[doc = $says] $kind, )+ }

        impl Kind {
            /// All of them.
            pub const ALL: &[Self] = &[$( Self::$kind, )+];

            /// The end of its type, as `task.started`.
            pub fn name(self) -> &'static str {
                match self { $( Self::$kind => $name, )+ }
            }

            /// What it means, for the documentation.
            pub fn says(self) -> &'static str {
                match self { $( Self::$kind => $says.trim_ascii(), )+ }
            }
        }
    };
}

kinds! {
    /// The graph is valid, its templates are pinned; its first tasks start.
    GraphAccepted = "graph.accepted",
    /// Its tasks were edited.
    GraphEdited = "graph.edited",
    /// Tasks were told to start afresh.
    GraphRerun = "graph.rerun",
    /// Nothing new is started.
    GraphSuspended = "graph.suspended",
    /// New tasks are started again.
    GraphResumed = "graph.resumed",
    /// It is called off, by `desiredState: Cancel` or a timeout, and what runs is stopped.
    GraphCancelling = "graph.cancelling",
    /// It is to fail, and what Succeeded is undone.
    GraphCompensating = "graph.compensating",
    /// It finished, and is Complete.
    GraphSucceeded = "graph.succeeded",
    /// It finished, and is Failed.
    GraphFailed = "graph.failed",
    /// It finished, having been cancelled.
    GraphCancelled = "graph.cancelled",
    /// An attempt was launched, or a delay or approval began to wait.
    TaskStarted = "task.started",
    /// An attempt failed, and the task was to be tried again.
    TaskRetrying = "task.retrying",
    /// The task Succeeded.
    TaskSucceeded = "task.succeeded",
    /// The task Failed for good.
    TaskFailed = "task.failed",
    /// The task was called off.
    TaskCancelled = "task.cancelled",
    /// The task was not run, by choice.
    TaskSkipped = "task.skipped",
    /// The task was not run, because of a failure elsewhere.
    TaskOmitted = "task.omitted",
    /// An attempt of a task's compensation was launched.
    CompensationStarted = "compensation.started",
    /// An attempt of it failed, and it was to be tried again.
    CompensationRetrying = "compensation.retrying",
    /// The task is undone.
    CompensationSucceeded = "compensation.succeeded",
    /// The task could not be undone: somebody has to.
    CompensationFailed = "compensation.failed",
    /// The compensation was called off, by its timeout.
    CompensationCancelled = "compensation.cancelled",
    /// There was nothing to undo.
    CompensationSkipped = "compensation.skipped",
    /// The compensation was not begun in time.
    CompensationOmitted = "compensation.omitted",
}

impl Kind {
    /// The type, as it stands in the event.
    pub fn type_(self) -> String {
        format!("{TYPE_PREFIX}{}", self.name())
    }

    /// That an attempt of a task, or of its compensation, began.
    pub fn started(undo: bool) -> Self {
        if undo { Self::CompensationStarted } else { Self::TaskStarted }
    }

    /// That an attempt failed, and another is to follow.
    pub fn retrying(undo: bool) -> Self {
        if undo { Self::CompensationRetrying } else { Self::TaskRetrying }
    }

    /// That a task, or its compensation, ended in a final phase.
    pub fn ended(phase: TaskPhase, undo: bool) -> Option<Self> {
        Some(match (phase, undo) {
            (TaskPhase::Succeeded, false) => Self::TaskSucceeded,
            (TaskPhase::Failed, false) => Self::TaskFailed,
            (TaskPhase::Cancelled, false) => Self::TaskCancelled,
            (TaskPhase::Skipped, false) => Self::TaskSkipped,
            (TaskPhase::Omitted, false) => Self::TaskOmitted,
            (TaskPhase::Succeeded, true) => Self::CompensationSucceeded,
            (TaskPhase::Failed, true) => Self::CompensationFailed,
            (TaskPhase::Cancelled, true) => Self::CompensationCancelled,
            (TaskPhase::Skipped, true) => Self::CompensationSkipped,
            (TaskPhase::Omitted, true) => Self::CompensationOmitted,
            _ => return None,
        })
    }

    /// Whether it tells of an attempt's or a task's end.
    pub fn is_end(self) -> bool {
        !matches!(self, Self::TaskStarted | Self::CompensationStarted) && self >= Self::TaskStarted
    }

    /// Whether it tells that the graph finished.
    pub fn is_graph_end(self) -> bool {
        matches!(self, Self::GraphSucceeded | Self::GraphFailed | Self::GraphCancelled)
    }
}

/// One event, in the JSON format of CloudEvents 1.0.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Event {
    /// `1.0`.
    pub specversion: String,
    /// The same for the same fact, however often it is sent; another for every other.
    #[schemars(length(min = 1))]
    pub id: String,
    /// The graph: its path in the API, after `//CLUSTER` if the operator was told the cluster's name.
    #[schemars(length(min = 1))]
    pub source: String,
    /// What it tells.
    #[serde(rename = "type")]
    #[schemars(schema_with = "types")]
    pub type_: String,
    /// The task, if it speaks of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// When that happened, by the operator's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// `application/json`.
    pub datacontenttype: String,
    /// Details.
    pub data: Data,
}

fn types(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let types: Vec<_> = Kind::ALL.iter().map(|kind| kind.type_()).collect();
    schemars::json_schema!({"type": "string", "enum": types})
}

/// Details of an event.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Data {
    /// Of a task, or of its compensation.
    Task(Box<TaskData>),
    /// Of a graph.
    Graph(Box<GraphData>),
}

/// Which graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct GraphName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// From when to when.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Times {
    /// When the graph was accepted, or the attempt launched.
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<Timestamp>,
    /// When the graph finished; when the attempt ended, or the task became final.
    #[serde(skip_serializing_if = "Option::is_none")]
    completion_time: Option<Timestamp>,
    /// From the one to the other, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_seconds: Option<f64>,
}

impl Times {
    /// From one time to another, as far as they are known.
    pub fn new(start_time: Option<Timestamp>, completion_time: Option<Timestamp>) -> Self {
        Self { start_time, completion_time, duration_seconds: seconds(start_time, completion_time) }
    }
}

/// What is told of a graph.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GraphData {
    /// Which graph.
    pub graph: GraphName,
    /// The phase that it entered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<GraphPhase>,
    /// Why, as a word for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it was accepted, and when it finished.
    #[serde(flatten)]
    pub times: Times,
    /// Of one that finished: how many tasks ended in which phase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
    /// Of one that is Complete: what it returned, if the operator was told to send outputs.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub outputs: Map<String, Value>,
}

/// What is told of a task or its compensation.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskData {
    /// Which graph.
    pub graph: GraphName,
    /// Name of the task.
    pub task: String,
    /// Its phase then.
    pub phase: TaskPhase,
    /// Number of the attempt; 0: it had none.
    pub attempt: u32,
    /// Why, as a word for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Exit code of the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Name of the attempt's Job or child graph.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// When the attempt was launched, and when it ended.
    #[serde(flatten)]
    pub times: Times,
    /// The branches that a decision took.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub branches: Vec<String>,
    /// What a Succeeded task left behind, if the operator was told to send outputs.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub outputs: Map<String, Value>,
}

/// Seconds from one time to another; none if the clock went back meanwhile.
fn seconds(from: Option<Timestamp>, to: Option<Timestamp>) -> Option<f64> {
    let span = to?.duration_since(from?);
    // times are whole milliseconds: 1.628, and not 1.6280000000000001
    let seconds =
        u32::try_from(span.as_millis()).map_or_else(|_| span.as_secs_f64(), |millis| f64::from(millis) / 1000.0);
    Some(seconds).filter(|seconds| *seconds >= 0.0)
}

/// The text of `docs/cloudevents.schema.json`.
pub fn schema() -> String {
    let mut settings = SchemaSettings::draft2020_12();
    settings.inline_subschemas = true;
    // what is left out of an event is not required in it
    let schema = settings.for_serialize().into_generator().into_root_schema_for::<Event>();
    serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;
    use crate::runtime::stale;

    #[test]
    fn schema_is_current() {
        stale::check("docs/cloudevents.schema.json", &schema());
    }

    #[test]
    fn every_type_is_documented_and_its_own() {
        let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cloudevents.md")).unwrap();
        let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| `dev.taskgraph.")).collect();
        let wanted: Vec<_> = Kind::ALL.iter().map(|kind| format!("| `{}` | {} |", kind.type_(), kind.says())).collect();
        assert_eq!(rows, wanted);
        let types: BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.type_()).collect();
        assert_eq!(types.len(), Kind::ALL.len());
    }

    #[test]
    fn every_final_phase_has_an_event_and_no_other() {
        use TaskPhase::{Cancelled, Failed, Omitted, Pending, Ready, Retrying, Running, Skipped, Succeeded, Waiting};
        for phase in [Pending, Ready, Running, Waiting, Retrying, Succeeded, Failed, Cancelled, Skipped, Omitted] {
            for (undo, role) in [(false, "task"), (true, "compensation")] {
                let wanted = phase.is_final().then(|| format!("{role}.{}", phase.name().to_lowercase()));
                assert_eq!(Kind::ended(phase, undo).map(|kind| kind.name().to_owned()), wanted);
            }
        }
    }
}
