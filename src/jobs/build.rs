//! An attempt as a Job.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};

use super::{
    items::{Items, ItemsMap},
    name::{indexed_job_name, item_job_name, job_name, shard},
    view::controller_uid,
    volumes,
};
use crate::{
    api::{
        ANNOTATION_HASH, Duration, ENV_PREFIX, GROUP, LABEL_ATTEMPT, LABEL_GRAPH, LABEL_GRAPH_UID, LABEL_ITEM,
        LABEL_ROLE, LABEL_SHARD, LABEL_TASK, MAIN_CONTAINER, MANAGER, PodDefaults, VERSION, VolumeUse,
    },
    engine::{Identity, Launch, Role, graph::TaskDef, graph::Work, payload::PayloadKind},
};

/// How much longer than the attempt may take the Job of an item may: the operator is to end all of them together, with one
/// reason, and this is for when there is none.
const GRACE: u64 = 30;

/// One item of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its place, from 0.
    pub index: u32,
    /// How often it is tried again.
    pub retries: u32,
}

/// All that a Job is made from. The same order always gives the same Job.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// The graph.
    pub graph: &'a Identity,
    /// Whether it does the task or undoes it.
    pub role: Role,
    /// Name of the task.
    pub task: &'a str,
    /// Number of the attempt.
    pub attempt: u32,
    /// The item that it is for, where each has a Job or child graph of its own.
    pub item: Option<Item>,
    /// Hash of the task's definition.
    pub definition: u64,
    /// How long the attempt may take.
    pub timeout: Option<Duration>,
    /// What `rendered` is.
    pub kind: PayloadKind,
    /// The container or pod template, expressions replaced.
    pub rendered: &'a Value,
    /// What all pods of the graph share.
    pub defaults: Option<&'a PodDefaults>,
    /// The items, of a task with `forEach`.
    pub items: Option<Items<'a>>,
    /// Claims of the graph to mount.
    pub volumes: &'a [VolumeUse],
}

impl<'a> Order<'a> {
    /// The order that a launch of `task` means. `None` for a task that has neither Jobs nor child graphs.
    pub fn new(
        graph: &'a Identity,
        task: &'a TaskDef,
        launch: &'a Launch,
        defaults: Option<&'a PodDefaults>,
    ) -> Option<Self> {
        let kind = match &task.work {
            Work::Job(payload) => payload.kind,
            // of a child graph nothing is made from it
            Work::Graph(_) => PayloadKind::Container,
            Work::Decision { .. } | Work::Delay(_) | Work::Approval(_) | Work::Removed => return None,
        };
        Some(Self {
            graph,
            role: task.role(),
            task: &task.name,
            attempt: launch.attempt.number,
            item: Item::of(task, launch),
            definition: task.hash,
            timeout: task.timeout,
            kind,
            rendered: &launch.rendered,
            defaults,
            items: task.for_each.as_ref().zip(launch.items.as_deref()).map(|(rule, list)| Items { rule, list }),
            volumes: &task.volumes,
        })
    }

    /// Name of the Job.
    pub fn name(&self) -> String {
        if let Some(item) = self.item {
            let Identity { name, uid, .. } = self.graph;
            return item_job_name(name, uid, self.role.label(), self.task, self.attempt, item.index);
        }
        let name = if self.items.is_some() { indexed_job_name } else { job_name };
        name(&self.graph.name, &self.graph.uid, self.role.label(), self.task, self.attempt)
    }

    /// The Job, to be created as it is with `fieldValidation=Strict`.
    ///
    /// Everything of the user's goes through as it was written, fields that we do not know included.
    pub fn build(&self) -> Value {
        let mut metadata = self.metadata();
        metadata.insert("name".into(), self.name().into());
        metadata.insert("annotations".into(), json!({ANNOTATION_HASH: self.hash()}));
        let mut spec = self.items.map_or_else(|| self.job_spec(), |items| items.job_spec());
        if let Some(timeout) = self.timeout {
            let grace = if self.item.is_some() { GRACE } else { 0 };
            spec["activeDeadlineSeconds"] = timeout.secs_ceil().saturating_add(grace).into();
        }
        spec["template"] = self.template(&self.labels());
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec})
    }

    /// What the spec of a Job with one pod at a time begins with.
    fn job_spec(&self) -> Value {
        let (retries, action) = match self.item {
            // a disruption is not the item's fault: it gets another pod
            Some(item) => (item.retries, "Ignore"),
            // it shows as a reason of its own, since it uses up no retry
            None => (0, "FailJob"),
        };
        json!({
            "backoffLimit": retries,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": [
                {"action": action, "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            ]},
        })
    }

    /// The `ConfigMap` that must be there before the Job, if the task has items.
    pub fn items_map(&self) -> Option<ItemsMap> {
        Some(self.items?.config_map(&self.name(), &self.metadata()))
    }

    /// What all objects of the attempt have in common.
    pub(super) fn metadata(&self) -> Map<String, Value> {
        let mut labels = self.labels();
        labels.insert("app.kubernetes.io/managed-by".into(), MANAGER.into());
        object(Some(json!({
            "namespace": self.graph.namespace,
            "labels": labels,
            "ownerReferences": [self.owner()],
        })))
    }

    /// The graph as the owner of what is made for it.
    fn owner(&self) -> Value {
        json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "TaskGraph",
            "name": self.graph.name,
            "uid": self.graph.uid,
            "controller": true,
            "blockOwnerDeletion": true,
        })
    }

    /// Whether a Job that stands in the way of a create is the one that the create would have made:
    /// the answer to that create was lost, or another operator was faster.
    ///
    /// The definition counts for nothing: it is the attempt's Job, also if the task was edited since (see [`definition_of`]).
    pub fn is_ours(&self, existing: &ObjectMeta) -> bool {
        let same_labels = self.labels().iter().all(|(key, value)| label(existing, key) == value.as_str());
        controller_uid(existing) == Some(&self.graph.uid) && same_labels
    }

    pub(super) fn hash(&self) -> String {
        format!("{:016x}", self.definition)
    }

    /// Labels of the Job and of its pod.
    fn labels(&self) -> Map<String, Value> {
        [
            (LABEL_GRAPH, self.graph.name.clone()),
            (LABEL_GRAPH_UID, self.graph.uid.clone()),
            (LABEL_ROLE, self.role.label().to_owned()),
            (LABEL_TASK, self.task.to_owned()),
            (LABEL_ATTEMPT, self.attempt.to_string()),
            (LABEL_SHARD, shard(&self.graph.uid).to_string()),
        ]
        .into_iter()
        .chain(self.item.map(|item| (LABEL_ITEM, item.index.to_string())))
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect()
    }

    fn template(&self, ours: &Map<String, Value>) -> Value {
        let (mut metadata, mut spec) = match self.kind {
            PayloadKind::Container => {
                let mut container = object(Some(self.rendered.clone()));
                container.entry("name").or_insert_with(|| MAIN_CONTAINER.into());
                (Map::new(), Map::from_iter([("containers".to_owned(), json!([container]))]))
            }
            PayloadKind::PodTemplate => {
                let mut template = object(Some(self.rendered.clone()));
                (object(template.remove("metadata")), object(template.remove("spec")))
            }
        };
        let mut labels = object(metadata.remove("labels"));
        if let Some(defaults) = self.defaults {
            apply_defaults(&mut spec, &mut labels, defaults);
        }
        labels.extend(ours.clone());
        metadata.insert("labels".into(), labels.into());

        volumes::mount(&metadata, &mut spec, self.graph, self.volumes);
        set_default(&mut spec, "restartPolicy", || "Never".into());
        set_default(&mut spec, "automountServiceAccountToken", || false.into());
        for list in ["initContainers", "containers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                self.complete(container);
            }
        }
        if let Some(items) = self.items {
            items.mount(&self.name(), &mut spec);
        }
        json!({"metadata": metadata, "spec": spec})
    }

    /// Adds to a container what every container of a task has.
    fn complete(&self, container: &mut Value) {
        let Some(container) = container.as_object_mut() else { return };
        let variables = [
            ("NAME", self.graph.name.clone()),
            ("UID", self.graph.uid.clone()),
            ("TASK", self.task.to_owned()),
            ("ATTEMPT", self.attempt.to_string()),
        ];
        // ours first: a variable can refer only to those before it
        let mut env: Vec<Value> = variables
            .iter()
            .map(|(name, value)| json!({"name": format!("{ENV_PREFIX}{name}"), "value": value}))
            .collect();
        if let Some(Value::Array(users)) = container.remove("env") {
            env.extend(users);
        }
        container.insert("env".into(), env.into());
        set_default(container, "terminationMessagePolicy", || "FallbackToLogsOnError".into());
    }
}

impl Item {
    fn of(task: &TaskDef, launch: &Launch) -> Option<Self> {
        let retries = task.for_each.as_ref().map_or(0, |rule| rule.retries_per_item);
        launch.attempt.item.map(|index| Self { index, retries })
    }
}

/// Fills in what the task left open. Maps are merged key by key, tolerations added: the task's own wins.
fn apply_defaults(spec: &mut Map<String, Value>, labels: &mut Map<String, Value>, defaults: &PodDefaults) {
    // `serviceAccount` is the old name of the same field
    let named =
        ["serviceAccountName", "serviceAccount"].iter().any(|key| spec.get(*key).is_some_and(|value| !value.is_null()));
    if let (false, Some(account)) = (named, &defaults.service_account_name) {
        spec.insert("serviceAccountName".into(), account.as_str().into());
    }
    let texts = |map: &std::collections::BTreeMap<String, String>| -> Map<String, Value> {
        map.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect()
    };
    merge(spec, "nodeSelector", &texts(&defaults.node_selector));
    if let Some(context) = &defaults.security_context {
        merge(spec, "securityContext", context);
    }
    if !defaults.tolerations.is_empty() {
        let mut tolerations = match spec.remove("tolerations") {
            Some(Value::Array(own)) => own,
            _ => Vec::new(),
        };
        let more: Vec<_> =
            defaults.tolerations.iter().filter(|toleration| !tolerations.contains(toleration)).cloned().collect();
        tolerations.extend(more);
        spec.insert("tolerations".into(), tolerations.into());
    }
    for (key, value) in texts(&defaults.labels) {
        labels.entry(key).or_insert(value);
    }
}

/// Adds those of `defaults` to the object at `key` that it lacks.
fn merge(spec: &mut Map<String, Value>, key: &str, defaults: &Map<String, Value>) {
    if defaults.is_empty() {
        return;
    }
    let mut own = object(spec.remove(key));
    for (key, value) in defaults {
        set_default(&mut own, key, || value.clone());
    }
    spec.insert(key.into(), own.into());
}

/// Sets a field that is absent or, as Kubernetes reads it the same, `null`.
fn set_default(map: &mut Map<String, Value>, key: &str, value: impl FnOnce() -> Value) {
    if map.get(key).is_none_or(Value::is_null) {
        map.insert(key.to_owned(), value());
    }
}

/// An object; anything else was refused by [`check`](super::check), and counts as an empty one here.
fn object(value: Option<Value>) -> Map<String, Value> {
    match value {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// Hash of the definition that a Job, or child graph, was made from.
pub fn definition_of(metadata: &ObjectMeta) -> Option<u64> {
    let hash = metadata.annotations.as_ref()?.get(ANNOTATION_HASH)?;
    u64::from_str_radix(hash, 16).ok()
}

fn label<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(key).map(String::as_str)
}

#[cfg(test)]
mod tests;
