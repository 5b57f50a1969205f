//! What we read of a Job and of a Pod, and nothing else.
//!
//! Both views are decoded straight from the answers of the API server (`Api::<PodView>`), so that
//! whatever is not named here costs neither memory nor time: of specs only the names of
//! containers, no managed fields, no labels and annotations of others.

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::{
    NamespaceResourceScope,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time},
};
use kube::Resource;
use serde::{Deserialize, Deserializer};

use crate::api::{DEFAULT_CONTAINER, LABEL_ITEM, LABEL_PREFIX, MAIN_CONTAINER};

/// Label on a pod of an Indexed Job: the place of its item.
pub const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// A `batch/v1` Job.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct JobView {
    /// Name, namespace, UID, version, times, owners; labels and annotations of ours.
    #[serde(deserialize_with = "lean_metadata")]
    pub metadata: ObjectMeta,
    /// What of its spec matters here.
    #[serde(default, deserialize_with = "null_as_default")]
    pub spec: JobSpecView,
    /// Its status.
    #[serde(default, deserialize_with = "null_as_default")]
    pub status: JobStatusView,
}

/// Spec of a Job.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobSpecView {
    /// `Indexed` where it has a pod for each item.
    #[serde(default)]
    pub completion_mode: Option<String>,
    /// How many items it has.
    #[serde(default)]
    pub completions: Option<i32>,
    /// How many items may fail before it ends.
    #[serde(default)]
    pub max_failed_indexes: Option<i32>,
}

/// Status of a Job.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobStatusView {
    /// `Complete`, `Failed` and their kin.
    #[serde(default, deserialize_with = "null_as_default")]
    pub conditions: Vec<ConditionView>,
    /// Pods that are neither terminal nor being deleted.
    #[serde(default, deserialize_with = "null_as_default")]
    pub active: i32,
    /// Items that succeeded, as `1,3-5`.
    #[serde(default)]
    pub completed_indexes: Option<String>,
    /// Items that failed for good, as `1,3-5`.
    #[serde(default)]
    pub failed_indexes: Option<String>,
    /// When it completed; a failed Job has none.
    #[serde(default)]
    pub completion_time: Option<Time>,
}

/// A `v1` Pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct PodView {
    /// Name, namespace, UID, version, times, owners; labels and annotations of ours.
    #[serde(deserialize_with = "lean_metadata")]
    pub metadata: ObjectMeta,
    /// What of its spec matters here.
    #[serde(default, deserialize_with = "null_as_default")]
    pub spec: PodSpecView,
    /// Its status.
    #[serde(default, deserialize_with = "null_as_default")]
    pub status: PodStatusView,
}

/// Spec of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpecView {
    /// Its containers.
    #[serde(default, deserialize_with = "null_as_default")]
    pub containers: Vec<ContainerView>,
    /// Its init containers.
    #[serde(default, deserialize_with = "null_as_default")]
    pub init_containers: Vec<ContainerView>,
}

/// A container as specified.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerView {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// `Always` makes an init container a sidecar.
    #[serde(default)]
    pub restart_policy: Option<String>,
}

/// Status of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatusView {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    #[serde(default)]
    pub phase: Option<String>,
    /// Why, as a word: `Evicted`, `NodeLost`, ...
    #[serde(default)]
    pub reason: Option<String>,
    /// Why, for people.
    #[serde(default)]
    pub message: Option<String>,
    /// `PodScheduled`, `DisruptionTarget` and others.
    #[serde(default, deserialize_with = "null_as_default")]
    pub conditions: Vec<ConditionView>,
    /// State of its init containers.
    #[serde(default, deserialize_with = "null_as_default")]
    pub init_container_statuses: Vec<ContainerStatusView>,
    /// State of its containers.
    #[serde(default, deserialize_with = "null_as_default")]
    pub container_statuses: Vec<ContainerStatusView>,
}

/// State of one container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatusView {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// How it is now.
    #[serde(default, deserialize_with = "null_as_default")]
    pub state: ContainerStateView,
    /// How it was before its last restart; only sidecars restart.
    #[serde(default, deserialize_with = "null_as_default")]
    pub last_state: ContainerStateView,
}

/// At most one of the three is there.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct ContainerStateView {
    /// It is not started yet.
    #[serde(default)]
    pub waiting: Option<WaitingView>,
    /// It runs.
    #[serde(default)]
    pub running: Option<RunningView>,
    /// It ended.
    #[serde(default)]
    pub terminated: Option<TerminatedView>,
}

/// Why a container waits.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct WaitingView {
    /// A word: `ContainerCreating`, `ErrImagePull`, ...
    #[serde(default)]
    pub reason: Option<String>,
    /// For people.
    #[serde(default)]
    pub message: Option<String>,
}

/// A container that runs; since when does not matter here.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct RunningView {}

/// A container that ended.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TerminatedView {
    /// 0 if it ended well.
    #[serde(default)]
    pub exit_code: i32,
    /// A word: `Completed`, `Error`, `OOMKilled`, ...
    #[serde(default)]
    pub reason: Option<String>,
    /// Its termination message, at most 4 KiB; its last log lines if it failed and left none.
    #[serde(default)]
    pub message: Option<String>,
    /// When it ended.
    #[serde(default)]
    pub finished_at: Option<Time>,
}

/// A condition of a Job or Pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConditionView {
    /// Which.
    #[serde(default, rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    #[serde(default)]
    pub status: String,
    /// A word for programs.
    #[serde(default)]
    pub reason: Option<String>,
    /// For people.
    #[serde(default)]
    pub message: Option<String>,
    /// Since when.
    #[serde(default)]
    pub last_transition_time: Option<Time>,
}

impl JobView {
    /// The condition `kind`, if it is `True`.
    pub fn condition(&self, kind: &str) -> Option<&ConditionView> {
        find_condition(&self.status.conditions, kind, "True")
    }

    /// Whether it ended, well or not: nothing of it runs any more, and it makes no further pod.
    pub fn ended(&self) -> bool {
        self.condition("Complete").is_some() || self.condition("Failed").is_some()
    }

    /// Whether it has a pod for each of many items: the Job of a task with `forEach`.
    pub fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    /// Whether it is for one item of a task that has a Job for each.
    pub fn is_of_item(&self) -> bool {
        self.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(LABEL_ITEM))
    }

    /// UID of the object that controls it.
    pub fn owner_uid(&self) -> Option<&str> {
        controller_uid(&self.metadata)
    }
}

impl PodView {
    /// The condition `kind`, if it is `status`.
    pub fn condition(&self, kind: &str, status: &str) -> Option<&ConditionView> {
        find_condition(&self.status.conditions, kind, status)
    }

    /// Its phase; empty before the API server gave it one.
    pub fn phase(&self) -> &str {
        self.status.phase.as_deref().unwrap_or_default()
    }

    /// Whether its containers have ended for good.
    pub fn terminal(&self) -> bool {
        matches!(self.phase(), "Succeeded" | "Failed")
    }

    /// Whether somebody asked for its deletion.
    pub fn deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// Place of its item, in a Job with many.
    pub fn completion_index(&self) -> Option<u32> {
        self.metadata.labels.as_ref()?.get(COMPLETION_INDEX)?.parse().ok()
    }

    /// UID of the Job that controls it.
    pub fn owner_uid(&self) -> Option<&str> {
        controller_uid(&self.metadata)
    }

    /// Name of the container whose termination message holds the outputs.
    pub fn output_container(&self) -> Option<&str> {
        let containers = &self.spec.containers;
        let named = |name: &str| containers.iter().find(|container| container.name == name);
        let annotations = self.metadata.annotations.as_ref();
        annotations
            .and_then(|annotations| annotations.get(DEFAULT_CONTAINER))
            .and_then(|name| named(name))
            .or_else(|| named(MAIN_CONTAINER))
            .or_else(|| containers.first())
            .map(|container| container.name.as_str())
    }
}

fn find_condition<'a>(conditions: &'a [ConditionView], kind: &str, status: &str) -> Option<&'a ConditionView> {
    conditions.iter().find(|condition| condition.type_ == kind && condition.status == status)
}

pub(super) fn controller_uid(metadata: &ObjectMeta) -> Option<&str> {
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
}

/// The part of `ObjectMeta` that is kept.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LeanMeta {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    deletion_grace_period_seconds: Option<i64>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

fn lean_metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let lean = LeanMeta::deserialize(deserializer)?;
    let ours = |map: Option<BTreeMap<String, String>>| {
        let mut map = map?;
        map.retain(|key, _| key.starts_with(LABEL_PREFIX) || key == DEFAULT_CONTAINER || key == COMPLETION_INDEX);
        Some(map).filter(|map| !map.is_empty())
    };
    Ok(ObjectMeta {
        name: lean.name,
        namespace: lean.namespace,
        uid: lean.uid,
        resource_version: lean.resource_version,
        creation_timestamp: lean.creation_timestamp,
        deletion_timestamp: lean.deletion_timestamp,
        deletion_grace_period_seconds: lean.deletion_grace_period_seconds,
        labels: ours(lean.labels),
        annotations: ours(lean.annotations),
        owner_references: lean.owner_references,
        ..ObjectMeta::default()
    })
}

/// Go writes some empty lists and structs as `null`.
fn null_as_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

macro_rules! resource {
    ($view:ty, $kind:literal, $group:literal, $plural:literal) => {
        impl Resource for $view {
            type DynamicType = ();
            type Scope = NamespaceResourceScope;

            fn kind((): &()) -> Cow<'_, str> {
                $kind.into()
            }

            fn group((): &()) -> Cow<'_, str> {
                $group.into()
            }

            fn version((): &()) -> Cow<'_, str> {
                "v1".into()
            }

            fn plural((): &()) -> Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

resource!(JobView, "Job", "batch", "jobs");
resource!(PodView, "Pod", "", "pods");

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keeps_only_what_is_read() {
        let pod: PodView = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "p", "uid": "u", "resourceVersion": "7",
                "labels": {"taskgraph.dev/task": "t", "app": "x"},
                "annotations": {"kubectl.kubernetes.io/default-container": "c", "big": "x"},
                "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {}}}],
            },
            "spec": {"containers": [{"name": "c", "image": "i", "env": []}], "volumes": []},
            "status": {"phase": "Running", "conditions": null, "containerStatuses": null},
        }))
        .unwrap();
        assert_eq!(pod.metadata.managed_fields, None);
        assert_eq!(pod.metadata.labels.as_ref().map(BTreeMap::len), Some(1));
        assert_eq!(pod.metadata.annotations.as_ref().map(BTreeMap::len), Some(1));
        assert_eq!(pod.output_container(), Some("c"));
        assert_eq!(PodView::url_path(&(), Some("n")), "/api/v1/namespaces/n/pods");
        assert_eq!(JobView::url_path(&(), None), "/apis/batch/v1/jobs");
    }

    #[test]
    fn a_bare_object_is_readable() {
        let job: JobView = serde_json::from_value(json!({"metadata": {}})).unwrap();
        assert!(!job.ended() && job.owner_uid().is_none());
        let pod: PodView =
            serde_json::from_value(json!({"metadata": {"labels": null}, "spec": null, "status": null})).unwrap();
        assert!(!pod.terminal() && pod.output_container().is_none());
    }
}
