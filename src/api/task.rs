//! A task: one entry of `spec.tasks` or `spec.finally`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    cache::Cache,
    duration::DurationText,
    opaque::Opaque,
    schema,
    volume::VolumeUse,
    waiting::{ApprovalTask, Delay},
};

/// One task. It has exactly one of `container`, `job`, `templateRef`, `decision`, `delay`, `approval`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
// one rule rather than three: the API server runs each for every task at every write of the status
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "(has(self.container) ? 1 : 0) + (has(self.job) ? 1 : 0) + (has(self.templateRef) ? 1 : 0) + (has(self.decision) ? 1 : 0) + (has(self.delay) ? 1 : 0) + (has(self.approval) ? 1 : 0) == 1 && !(has(self.trigger) && has(self.minSucceeded)) && (!has(self.arguments) || has(self.templateRef))",
        "message": "a task has exactly one of container, job, templateRef, decision, delay, approval; minSucceeded stands in place of trigger; arguments are for a task with templateRef",
        "messageExpression": "has(self.trigger) && has(self.minSucceeded) ? 'minSucceeded is a trigger of its own: leave trigger out' : has(self.arguments) && !has(self.templateRef) ? 'arguments are for a task with templateRef' : 'a task has exactly one of container, job, templateRef, decision, delay, approval'"
    },
]))]
pub struct Task {
    /// Name of the task: a DNS label, unique among `tasks` and `finally`.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Name shown to people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub display_name: Option<String>,
    /// What the task does, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub description: Option<String>,
    /// Free words to find the task by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub tags: Vec<String>,
    /// Free word for the kind of work, for statistics.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 50))]
    pub type_: Option<String>,

    /// Tasks that come before this one. `TASK/BRANCH` names a branch of a decision: the task is
    /// Skipped unless that branch (or another one listed of the same decision) was taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2000), inner(length(min = 1, max = 127)), extend("x-kubernetes-list-type" = "atomic"))]
    pub depends_on: Vec<String>,
    /// Which outcomes of the dependencies let the task start. Default: `NoneFailed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::choice::<Trigger>")]
    pub trigger: Option<Trigger>,
    /// A trigger of its own: start as soon as this many dependencies Succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2000))]
    pub min_succeeded: Option<u32>,
    /// CEL condition, looked at once the trigger holds; false: the task is Skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub when: Option<String>,

    /// One container, with the fields of a container in a Pod: short for a Job with just it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::opaque_object")]
    pub container: Option<Opaque>,
    /// A Job of your own making.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobTask>,
    /// A template to run: of a task as a Job, of a graph as a child graph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_ref: Option<TemplateRef>,
    /// Arguments of the template: any JSON values, with `${{ }}` expressions anywhere in their texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_values")]
    pub arguments: Option<Map<String, Value>>,
    /// A choice between branches. It has no Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// A wait for a time. It has no Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Delay>,
    /// A wait for somebody's decision, an entry of `spec.approvals`. It has no Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalTask>,
    /// Runs the container, Job or template once for each item of a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_each: Option<ForEach>,

    /// What undoes the task: run if the task Succeeded and the graph fails or is cancelled, after the compensations of
    /// all tasks that depend on it. Not for decisions and delays, nor in `finally`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensate: Option<Compensate>,

    /// How failed attempts are tried again. Default: they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// How long one attempt may take, from the start of its Job, rounded up to whole seconds; of an approval, from when
    /// it is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<DurationText>,
    /// How long an attempt may wait for its pod to start. Default: `10m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_timeout: Option<DurationText>,
    /// A failure of this task fails nothing else: it counts as Succeeded for triggers and for the graph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_failure: Option<bool>,
    /// Which of several Ready tasks gets a free slot: 0 (last) to 10 (first), 5 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 10))]
    pub priority: Option<u8>,
    /// Outputs that the task is known to leave behind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub outputs: Vec<Output>,
    /// Claims of `spec.volumeClaimTemplates` that its containers mount.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub volumes: Vec<VolumeUse>,
    /// When the outputs of an earlier success stand in for a run of this task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
}

impl Task {
    /// The templates that it uses.
    pub fn templates(&self) -> impl Iterator<Item = &TemplateRef> {
        let undo = self.compensate.as_ref().and_then(|undo| undo.template_ref.as_ref());
        self.template_ref.iter().chain(undo)
    }
}

/// What undoes a task. It has exactly one of `container`, `job`, `templateRef`. Its expressions may read what those of
/// its task may, and the outputs of its task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "(has(self.container) ? 1 : 0) + (has(self.job) ? 1 : 0) + (has(self.templateRef) ? 1 : 0) == 1",
        "message": "compensate has exactly one of container, job, templateRef"
    },
]))]
pub struct Compensate {
    /// One container, with the fields of a container in a Pod: short for a Job with just it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::opaque_object")]
    pub container: Option<Opaque>,
    /// A Job of your own making.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobTask>,
    /// A task template to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_ref: Option<TemplateRef>,
    /// Arguments of the template: any JSON values, with `${{ }}` expressions anywhere in their texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_values")]
    pub arguments: Option<Map<String, Value>>,
    /// How failed attempts are tried again. Default: they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// How long one attempt may take, from the start of its Job. Rounded up to whole seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<DurationText>,
    /// How long an attempt may wait for its pod to start. Default: `10m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_timeout: Option<DurationText>,
    /// Claims of `spec.volumeClaimTemplates` that its containers mount.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub volumes: Vec<VolumeUse>,
}

/// Which outcomes of its dependencies let a task start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Trigger {
    /// All final, none Failed, Cancelled or Omitted, at least one Succeeded.
    #[default]
    NoneFailed,
    /// Every one Succeeded.
    AllSucceeded,
    /// At least one Succeeded; does not wait for the others.
    AnySucceeded,
    /// All final, however they ended.
    AllFinished,
    /// All final, at least one Failed or Omitted.
    AnyFailed,
}

/// A Job as in `batch/v1`, of which a user gives the pod template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct JobTask {
    /// The pod template, as in a `batch/v1` Job.
    #[schemars(schema_with = "schema::opaque_object")]
    pub template: Opaque,
}

/// Which template a task runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct TemplateRef {
    /// Name of the template.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Kind of the template. Default: `TaskTemplate`, in the graph's namespace.
    #[serde(default, skip_serializing_if = "TemplateKind::is_default")]
    #[schemars(schema_with = "schema::choice::<TemplateKind>")]
    pub kind: TemplateKind,
}

/// The kinds of template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum TemplateKind {
    /// In the graph's namespace.
    #[default]
    TaskTemplate,
    /// The cluster's.
    ClusterTaskTemplate,
}

impl TemplateKind {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::TaskTemplate => "TaskTemplate",
            Self::ClusterTaskTemplate => "ClusterTaskTemplate",
        }
    }
}

/// A choice: the first branch whose condition holds is taken, or with `inclusive` every one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!self.branches.exists(branch, !has(branch.when)) || (!has(self.branches[self.branches.size() - 1].when) && self.branches.exists_one(branch, !has(branch.when)))",
        "message": "a branch without when is taken if none before it was, so it must be the last"
    },
]))]
pub struct Decision {
    /// The branches, in the order in which they are tried.
    #[schemars(length(min = 1, max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub branches: Vec<Branch>,
    /// Every branch whose condition holds is taken, rather than the first alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub inclusive: bool,
}

/// One branch of a decision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Branch {
    /// Name of the branch: a DNS label, unique in the decision.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// CEL condition. A branch without one is taken if no other was: it must be the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub when: Option<String>,
}

/// The items that a task is run for. With `strategy: Indexed` each item has a pod, and is the file
/// `/var/run/taskgraph/item` in its containers: a text as it is, any other value as JSON; the environment variable
/// `JOB_COMPLETION_INDEX` is its place, from 0. With `PerItem` expressions see it as `item`, its place as `index`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ForEach {
    /// A list of any JSON values, with `${{ }}` expressions anywhere in their texts; or a text `${{ }}` whose value is a
    /// list. At most 1,000 items, of 512 KiB together. If there are none, the task is Skipped.
    #[schemars(schema_with = "schema::any_value")]
    pub items: Value,
    /// What serves the items. Default: `Indexed`; of a task that runs a graph template always `PerItem`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::choice::<ForEachStrategy>")]
    pub strategy: Option<ForEachStrategy>,
    /// How many items may run at once. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub parallelism: Option<u32>,
    /// How many items may fail with the task still Succeeded. One more, and the items that run are stopped and no others
    /// are started. Default: none may fail, but all are tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1000))]
    pub max_failures: Option<u32>,
    /// How often an item that failed is tried again, within the attempt. Default: 0. Not for graph templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 100))]
    pub retries_per_item: Option<u32>,
}

/// What serves the items of a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ForEachStrategy {
    /// One Indexed Job with a pod for each item.
    #[default]
    Indexed,
    /// A Job, or a child graph, for each item. `item` and `index` are known to its expressions.
    PerItem,
}

/// How failed attempts are tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Retry {
    /// How many further attempts there may be (not counting the first).
    #[schemars(range(max = 100))]
    pub limit: u32,
    /// How long to wait before each. Default: 1s, doubled each time, at most 5m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
    /// CEL condition over `exitCode`, `reason` and `attempt` of the attempt that failed:
    /// false: it is not tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub when: Option<String>,
}

/// Waiting times between attempts: `initial · factor^(n-1)`, at most `max`, give or take 10 %.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Backoff {
    /// Wait before the first retry. Default: `1s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial: Option<DurationText>,
    /// By how much each wait is longer than the one before: 1 to 10. Default: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10))]
    pub factor: Option<f64>,
    /// The longest wait. Default: `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<DurationText>,
}

// a factor that is no number cannot come from JSON
impl Eq for Backoff {}

/// A declared output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Output {
    /// Name of the output: the member of the JSON object that the container leaves behind.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z_][A-Za-z0-9_-]*$"))]
    pub name: String,
    /// Type of the value. Default: any.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::choice::<ValueType>")]
    pub type_: Option<ValueType>,
    /// Value where the container left none. Without a default a missing output fails the attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::any_value")]
    pub default: Option<Value>,
    /// What it is, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
}

/// Types of JSON values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ValueType {
    /// A text.
    String,
    /// Any number.
    Number,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// A list.
    Array,
    /// An object.
    Object,
}

impl ValueType {
    /// Whether `value` has this type. A number without a fraction is an integer, as in JSON Schema.
    pub fn accepts(self, value: &Value) -> bool {
        match self {
            Self::String => value.is_string(),
            Self::Number => value.is_number(),
            Self::Integer => {
                value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
            }
            Self::Boolean => value.is_boolean(),
            Self::Array => value.is_array(),
            Self::Object => value.is_object(),
        }
    }

    /// Its name, as written in a spec.
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Number => "number",
            Self::Integer => "integer",
            Self::Boolean => "boolean",
            Self::Array => "array",
            Self::Object => "object",
        }
    }
}

/// What all pods of a graph share. A task's own value wins.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodDefaults {
    /// Service account of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
    /// Labels that a machine must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::short_texts")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pods tolerate, as in a pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::opaque_objects")]
    pub tolerations: Vec<Value>,
    /// Security context of the pods, as in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::opaque_object")]
    pub security_context: Option<Map<String, Value>>,
    /// Labels of the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::short_texts")]
    pub labels: BTreeMap<String, String>,
}

impl PodDefaults {
    /// These, and where they leave something open, `others`: maps key by key, tolerations added.
    #[must_use]
    pub fn over(&self, others: &Self) -> Self {
        let mut all = self.clone();
        all.service_account_name = all.service_account_name.or_else(|| others.service_account_name.clone());
        for (own, other) in [(&mut all.node_selector, &others.node_selector), (&mut all.labels, &others.labels)] {
            for (key, value) in other {
                own.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        let more: Vec<_> = others.tolerations.iter().filter(|one| !all.tolerations.contains(one)).cloned().collect();
        all.tolerations.extend(more);
        if let Some(context) = &others.security_context {
            let own = all.security_context.get_or_insert_default();
            for (key, value) in context {
                own.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
        all
    }
}
