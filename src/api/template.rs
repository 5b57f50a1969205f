//! `TaskTemplate` and `ClusterTaskTemplate`: reusable tasks and graphs with declared parameters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    duration::DurationText,
    graph::TaskGraphSpec,
    opaque::Opaque,
    schema,
    task::{JobTask, Output, Retry, ValueType},
};

/// A reusable task, or a reusable graph. It has exactly one of `container`, `job`, `graph`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(
    feature = "kubernetes",
    derive(kube::CustomResource),
    kube(
        group = "taskgraph.dev",
        version = "v1alpha1",
        kind = "TaskTemplate",
        namespaced,
        shortname = "tt",
        category = "taskgraph-all",
        derive = "PartialEq",
        doc = "A reusable task or graph with declared parameters, for the graphs of one namespace.",
        printcolumn(json_path = ".spec.description", name = "Description", type_ = "string"),
        printcolumn(json_path = ".metadata.creationTimestamp", name = "Age", type_ = "date"),
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "(has(self.container) ? 1 : 0) + (has(self.job) ? 1 : 0) + (has(self.graph) ? 1 : 0) == 1",
        "message": "a template has exactly one of container, job, graph"
    },
]))]
pub struct TaskTemplateSpec {
    /// What the template does, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub description: Option<String>,
    /// The arguments that a task may give it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub parameters: Vec<Parameter>,
    /// One container, with the fields of a container in a Pod. `args` in its expressions are the
    /// arguments of the task, merged over the defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::opaque_object")]
    pub container: Option<Opaque>,
    /// A Job of your own making.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobTask>,
    /// A graph: run by a task as a child graph, or by a graph with `templateRef` as the whole of it. It has no name, no
    /// `arguments` and no settings of one run (`desiredState`, `ttlAfterFinished`). `args` in its expressions are the
    /// arguments of the template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph: Option<Box<TaskGraphSpec>>,
    /// How failed attempts are tried again, where the task does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// How long one attempt may take, where the task does not say. Of a child graph: its `timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<DurationText>,
    /// Which of several Ready tasks gets a free slot, where the task does not say: 0 (last) to 10 (first).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 10))]
    pub priority: Option<u8>,
    /// Outputs that it leaves behind. A task may declare more; its own declaration of one wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub outputs: Vec<Output>,
}

/// A declared parameter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Parameter {
    /// Name of the parameter: `args.NAME` in expressions.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z_][A-Za-z0-9_-]*$"))]
    pub name: String,
    /// What it is, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// Type of the argument. Default: any.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::choice::<ValueType>")]
    pub type_: Option<ValueType>,
    /// Whether a task must give it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// Value where a task gives none. Without it the value is `null`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_value")]
    pub default: Option<Value>,
}

/// A reusable task or graph, for every namespace. It has exactly one of `container`, `job`, `graph`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(
    feature = "kubernetes",
    derive(kube::CustomResource),
    kube(
        group = "taskgraph.dev",
        version = "v1alpha1",
        kind = "ClusterTaskTemplate",
        shortname = "ctt",
        category = "taskgraph-all",
        derive = "PartialEq",
        doc = "A reusable task or graph with declared parameters, for the graphs of every namespace.",
        printcolumn(json_path = ".spec.description", name = "Description", type_ = "string"),
        printcolumn(json_path = ".metadata.creationTimestamp", name = "Age", type_ = "date"),
    )
)]
#[serde(transparent)]
#[schemars(transparent)]
pub struct ClusterTaskTemplateSpec(pub TaskTemplateSpec);
