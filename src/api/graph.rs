//! `TaskGraph`: a graph and its one run.

#![allow(clippy::duplicated_attributes, reason = "printer columns share their types")]

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

#[cfg(feature = "kubernetes")]
use super::status::TaskGraphStatus;
use super::{
    duration::DurationText,
    rerun::Rerun,
    schema,
    task::{PodDefaults, Task, TemplateRef},
    volume::VolumeClaimTemplate,
    waiting::Approval,
};

/// A graph of tasks, and its one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(
    feature = "kubernetes",
    derive(kube::CustomResource),
    kube(
        group = "taskgraph.dev",
        version = "v1alpha1",
        kind = "TaskGraph",
        namespaced,
        shortname = "tg",
        category = "taskgraph-all",
        status = "TaskGraphStatus",
        derive = "PartialEq",
        selectable = ".spec.templateRef.name",
        doc = "A graph of tasks, and its one run: each task is launched as a Job the moment that its dependencies allow it.",
        printcolumn(json_path = ".status.phase", name = "Phase", type_ = "string"),
        printcolumn(json_path = ".status.progress", name = "Progress", type_ = "string"),
        printcolumn(json_path = ".status.counts.failed", name = "Failed", type_ = "integer"),
        printcolumn(json_path = ".metadata.creationTimestamp", name = "Age", type_ = "date"),
        printcolumn(json_path = ".spec.templateRef.name", name = "Template", type_ = "string", priority = 1),
        printcolumn(
            json_path = ".metadata.annotations.taskgraph\\.dev/created-by",
            name = "Created-By",
            type_ = "string",
            priority = 1
        ),
        printcolumn(json_path = ".status.message", name = "Message", type_ = "string", priority = 1),
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(oldSelf.desiredState) || oldSelf.desiredState != 'Cancel' || (has(self.desiredState) && self.desiredState == 'Cancel')",
        "fieldPath": ".desiredState", "reason": "FieldValueForbidden",
        "message": "a cancel cannot be taken back: make a new graph"
    },
    {
        "rule": "has(self.templateRef) ? !has(self.tasks) && !has(self.finally) && !has(self.outputs) && !has(self.volumeClaimTemplates) : has(self.tasks)",
        "fieldPath": ".tasks", "reason": "FieldValueInvalid",
        "message": "a graph has either tasks, or templateRef without tasks, finally, outputs and volumeClaimTemplates, which are the template's"
    },
    {
        "rule": "!has(self.finally) || !has(self.tasks) || self.finally.all(last, !self.tasks.exists(task, task.name == last.name))",
        "fieldPath": ".finally", "reason": "FieldValueDuplicate",
        "message": "a name in finally is that of a task in tasks"
    },
]))]
pub struct TaskGraphSpec {
    /// Name shown to people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub display_name: Option<String>,
    /// What the graph does, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub description: Option<String>,
    /// Free words to find the graph by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub tags: Vec<String>,
    /// A graph template to run as the whole graph, in place of `tasks`. Settings that stand here win over the template's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_ref: Option<TemplateRef>,
    /// Values that expressions read as `args.NAME`: any JSON, taken as it is. With `templateRef`: the arguments of the
    /// template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_values")]
    pub arguments: Option<Map<String, Value>>,
    /// How many tasks may run at once. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2000))]
    pub parallelism: Option<u32>,
    /// What a failed task means for the others. Default: `StopLaunching`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::choice::<FailurePolicy>")]
    pub failure_policy: Option<FailurePolicy>,
    /// How long all of `tasks` may take together, from the graph's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<DurationText>,
    /// How long all compensations may take together. Default: `1h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensation_timeout: Option<DurationText>,
    /// How long all of `finally` may take together. Default: `1h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finally_timeout: Option<DurationText>,
    /// The graph is deleted, with its Jobs, this long after it finished. Absent: it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_after_finished: Option<DurationText>,
    /// Whether the graph runs, starts nothing new, or is called off (which cannot be taken back). Default: `Run`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::choice::<DesiredState>")]
    pub desired_state: Option<DesiredState>,
    /// Tasks to be run once more: acted on each time that `id` changes. One present at creation is only noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun: Option<Rerun>,
    /// What was decided on tasks with `approval`. Entries may be added at any time, and never changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2000), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["task", "attempt"]))]
    pub approvals: Vec<Approval>,
    /// What all pods of the graph share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_defaults: Option<PodDefaults>,
    /// Claims that are made for the graph before its first Job, and deleted with it. They stay as they are once the
    /// graph is accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub volume_claim_templates: Vec<VolumeClaimTemplate>,
    /// The tasks. Their names are unique, those of `finally` included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 2000), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub tasks: Vec<Task>,
    /// Tasks that run at the end, whatever happened. They start when all of `tasks` are final.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub finally: Vec<Task>,
    /// What the graph returns: told in `status.outputs`, and the outputs of a task that runs the graph as a template.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub outputs: Vec<GraphOutput>,
}

/// One value that a graph returns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GraphOutput {
    /// Name of the output.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z_][A-Za-z0-9_-]*$"))]
    pub name: String,
    /// CEL expression, over any task of the graph, evaluated when all ended well. One without a value fails the graph.
    #[schemars(length(min = 1, max = 2048))]
    pub value: String,
    /// What it is, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
}

/// What a failed task means for the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FailurePolicy {
    /// Nothing new is started, save failure handlers; what has begun goes on.
    #[default]
    StopLaunching,
    /// Nothing new is started, save failure handlers; what runs is cancelled.
    CancelRunning,
    /// Whatever does not depend on the failed task goes on.
    FinishBranches,
}

/// What the user wants of a graph now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DesiredState {
    /// It runs.
    #[default]
    Run,
    /// Nothing new is started; running Jobs go on.
    Suspend,
    /// Running Jobs are deleted, then compensations and `finally` run, then the graph is Failed.
    Cancel,
}

impl TaskGraphSpec {
    /// The fields that belong to one run of a graph, and whether they are set: a template has none of them.
    pub fn fields_of_one_run(&self) -> [(&'static str, bool); 9] {
        [
            ("templateRef", self.template_ref.is_some()),
            ("arguments", self.arguments.is_some()),
            ("rerun", self.rerun.is_some()),
            ("approvals", !self.approvals.is_empty()),
            ("desiredState", self.desired_state.is_some()),
            ("ttlAfterFinished", self.ttl_after_finished.is_some()),
            ("displayName", self.display_name.is_some()),
            ("description", self.description.is_some()),
            ("tags", !self.tags.is_empty()),
        ]
    }
}
