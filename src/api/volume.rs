//! Files that tasks share: claims that a graph makes, and where its tasks mount them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::schema;

/// A `PersistentVolumeClaim` that is made for the graph, and deleted with it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VolumeClaimTemplate {
    /// Name by which tasks mount it: a DNS label, unique in the list.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Labels of the claim.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::short_texts")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the claim.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::short_texts")]
    pub annotations: BTreeMap<String, String>,
    /// The spec of the claim, as in a `PersistentVolumeClaim`.
    #[schemars(schema_with = "schema::opaque_object")]
    pub spec: Map<String, Value>,
}

/// A claim of the graph, mounted by a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeUse {
    /// Name of one of `spec.volumeClaimTemplates`.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Where in the container its files stand.
    #[schemars(length(min = 1, max = 1024))]
    pub mount_path: String,
    /// A folder of the volume to mount instead of all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub sub_path: Option<String>,
    /// Whether the task may only read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// Which container of a `job` mounts it. Default: the one that leaves the outputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub container: Option<String>,
}

/// A claim that was made for the graph.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct VolumeStatus {
    /// Name in `spec.volumeClaimTemplates`.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Name of the `PersistentVolumeClaim`.
    #[schemars(length(max = 253))]
    pub claim: String,
    /// Its UID: another claim of the same name has other files.
    #[schemars(length(max = 63))]
    pub uid: String,
}
