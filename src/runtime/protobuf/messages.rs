//! The fields of Jobs, pods and their kin that are read, as they are on the wire and in JSON.
//!
//! Numbers are those of the `generated.proto` files of k8s.io/api and k8s.io/apimachinery, which never change; fields that
//! are not named here are skipped. What JSON leaves out where it is empty (`omitempty` in Go) is left out here.
//!
//! Text is bytes: Go writes into protobuf what it was given, be it UTF-8 or not (the termination message of a container
//! is whatever the container wrote), and only JSON replaces what is not. It also spares copies.

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;
use prost::Message;
use serde::{Serialize, Serializer};

/// `runtime.Unknown`: the envelope of every object.
#[derive(Clone, PartialEq, Message)]
pub struct Unknown {
    #[prost(message, required, tag = "1")]
    pub type_meta: TypeMeta,
    #[prost(bytes = "bytes", tag = "2")]
    pub raw: Bytes,
}

/// `runtime.TypeMeta`.
#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TypeMeta {
    #[prost(bytes = "bytes", tag = "1")]
    #[serde(serialize_with = "text")]
    pub api_version: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    #[serde(serialize_with = "text")]
    pub kind: Bytes,
}

/// `meta.v1.WatchEvent`.
#[derive(Clone, PartialEq, Message)]
pub struct WatchEvent {
    #[prost(bytes = "bytes", tag = "1")]
    pub r#type: Bytes,
    #[prost(message, required, tag = "2")]
    pub object: RawExtension,
}

/// `runtime.RawExtension`: an object, in its envelope.
#[derive(Clone, PartialEq, Message)]
pub struct RawExtension {
    #[prost(bytes = "bytes", tag = "1")]
    pub raw: Bytes,
}

/// `meta.v1.Time`. Fractions of seconds are not read: Go neither writes nor reads them.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Time {
    /// Absent: no time.
    #[prost(int64, optional, tag = "1")]
    pub seconds: Option<i64>,
}

/// `meta.v1.ListMeta`.
#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMeta {
    #[prost(bytes = "bytes", tag = "2")]
    #[serde(serialize_with = "text", skip_serializing_if = "Bytes::is_empty")]
    pub resource_version: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    #[serde(serialize_with = "text", skip_serializing_if = "Bytes::is_empty")]
    pub r#continue: Bytes,
    #[prost(int64, optional, tag = "4")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining_item_count: Option<i64>,
}

/// `meta.v1.ObjectMeta`.
#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectMeta {
    #[prost(bytes = "bytes", tag = "1")]
    #[serde(serialize_with = "text", skip_serializing_if = "Bytes::is_empty")]
    pub name: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    #[serde(serialize_with = "text", skip_serializing_if = "Bytes::is_empty")]
    pub namespace: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    #[serde(serialize_with = "text", skip_serializing_if = "Bytes::is_empty")]
    pub uid: Bytes,
    #[prost(bytes = "bytes", tag = "6")]
    #[serde(serialize_with = "text", skip_serializing_if = "Bytes::is_empty")]
    pub resource_version: Bytes,
    #[prost(message, required, tag = "8")]
    pub creation_timestamp: Time,
    #[prost(message, optional, tag = "9")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<Time>,
    #[prost(int64, optional, tag = "10")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_grace_period_seconds: Option<i64>,
    #[prost(message, repeated, tag = "11")]
    #[serde(serialize_with = "map", skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Entry>,
    #[prost(message, repeated, tag = "12")]
    #[serde(serialize_with = "map", skip_serializing_if = "Vec::is_empty")]
    pub annotations: Vec<Entry>,
    #[prost(message, repeated, tag = "13")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub owner_references: Vec<OwnerReference>,
}

/// An entry of a `map<string, string>`, as it is on the wire.
#[derive(Clone, PartialEq, Message)]
pub struct Entry {
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// `meta.v1.OwnerReference`.
#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerReference {
    #[prost(bytes = "bytes", tag = "1")]
    #[serde(serialize_with = "text")]
    pub kind: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    #[serde(serialize_with = "text")]
    pub name: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    #[serde(serialize_with = "text")]
    pub uid: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    #[serde(serialize_with = "text")]
    pub api_version: Bytes,
    #[prost(bool, optional, tag = "6")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<bool>,
    #[prost(bool, optional, tag = "7")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_owner_deletion: Option<bool>,
}

/// `batch.v1.JobList`.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct JobList {
    #[prost(message, required, tag = "1")]
    pub metadata: ListMeta,
    #[prost(message, repeated, tag = "2")]
    pub items: Vec<Job>,
}

/// `batch.v1.Job`.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct Job {
    #[prost(message, required, tag = "1")]
    pub metadata: ObjectMeta,
    #[prost(message, required, tag = "2")]
    pub spec: JobSpec,
    #[prost(message, required, tag = "3")]
    pub status: JobStatus,
}

/// `batch.v1.JobSpec`.
#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobSpec {
    #[prost(int32, optional, tag = "2")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completions: Option<i32>,
    #[prost(bytes = "bytes", optional, tag = "9")]
    #[serde(serialize_with = "some_text", skip_serializing_if = "Option::is_none")]
    pub completion_mode: Option<Bytes>,
    #[prost(int32, optional, tag = "13")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_failed_indexes: Option<i32>,
}

/// `batch.v1.JobStatus`.
#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobStatus {
    #[prost(message, repeated, tag = "1")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    #[prost(message, optional, tag = "3")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    #[prost(int32, tag = "4")]
    pub active: i32,
    #[prost(bytes = "bytes", tag = "7")]
    #[serde(serialize_with = "text", skip_serializing_if = "Bytes::is_empty")]
    pub completed_indexes: Bytes,
    #[prost(bytes = "bytes", optional, tag = "10")]
    #[serde(serialize_with = "some_text", skip_serializing_if = "Option::is_none")]
    pub failed_indexes: Option<Bytes>,
}

/// `batch.v1.JobCondition` and `core.v1.PodCondition`, whose fields have the same numbers.
#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    #[prost(bytes = "bytes", tag = "1")]
    #[serde(serialize_with = "text")]
    pub r#type: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    #[serde(serialize_with = "text")]
    pub status: Bytes,
    #[prost(message, required, tag = "4")]
    pub last_transition_time: Time,
    #[prost(bytes = "bytes", tag = "5")]
    #[serde(serialize_with = "text", skip_serializing_if = "Bytes::is_empty")]
    pub reason: Bytes,
    #[prost(bytes = "bytes", tag = "6")]
    #[serde(serialize_with = "text", skip_serializing_if = "Bytes::is_empty")]
    pub message: Bytes,
}

/// `core.v1.PodList`.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct PodList {
    #[prost(message, required, tag = "1")]
    pub metadata: ListMeta,
    #[prost(message, repeated, tag = "2")]
    pub items: Vec<Pod>,
}

/// `core.v1.Pod`.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct Pod {
    #[prost(message, required, tag = "1")]
    pub metadata: ObjectMeta,
    #[prost(message, required, tag = "2")]
    pub spec: PodSpec,
    #[prost(message, required, tag = "3")]
    pub status: PodStatus,
}

/// `core.v1.PodSpec`.
#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    #[prost(message, repeated, tag = "2")]
    pub containers: Vec<Container>,
    #[prost(message, repeated, tag = "20")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub init_containers: Vec<Container>,
}

/// `core.v1.Container`.
#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    #[prost(bytes = "bytes", tag = "1")]
    #[serde(serialize_with = "text")]
    pub name: Bytes,
    #[prost(bytes = "bytes", optional, tag = "24")]
    #[serde(serialize_with = "some_text", skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<Bytes>,
}

/// `core.v1.PodStatus`.
#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    #[prost(bytes = "bytes", tag = "1")]
    #[serde(serialize_with = "text", skip_serializing_if = "Bytes::is_empty")]
    pub phase: Bytes,
    #[prost(message, repeated, tag = "2")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    #[prost(bytes = "bytes", tag = "3")]
    #[serde(serialize_with = "text", skip_serializing_if = "Bytes::is_empty")]
    pub message: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    #[serde(serialize_with = "text", skip_serializing_if = "Bytes::is_empty")]
    pub reason: Bytes,
    #[prost(message, repeated, tag = "8")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub container_statuses: Vec<ContainerStatus>,
    #[prost(message, repeated, tag = "10")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub init_container_statuses: Vec<ContainerStatus>,
}

/// `core.v1.ContainerStatus`.
#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    #[prost(bytes = "bytes", tag = "1")]
    #[serde(serialize_with = "text")]
    pub name: Bytes,
    #[prost(message, required, tag = "2")]
    pub state: ContainerState,
    #[prost(message, required, tag = "3")]
    pub last_state: ContainerState,
}

/// `core.v1.ContainerState`.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct ContainerState {
    #[prost(message, optional, tag = "1")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    #[prost(message, optional, tag = "2")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<Running>,
    #[prost(message, optional, tag = "3")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminated: Option<Terminated>,
}

/// `core.v1.ContainerStateWaiting`.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct Waiting {
    #[prost(bytes = "bytes", tag = "1")]
    #[serde(serialize_with = "text", skip_serializing_if = "Bytes::is_empty")]
    pub reason: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    #[serde(serialize_with = "text", skip_serializing_if = "Bytes::is_empty")]
    pub message: Bytes,
}

/// `core.v1.ContainerStateRunning`.
#[derive(Clone, Copy, PartialEq, Eq, Message, Serialize)]
pub struct Running {}

/// `core.v1.ContainerStateTerminated`.
#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Terminated {
    #[prost(int32, tag = "1")]
    pub exit_code: i32,
    #[prost(bytes = "bytes", tag = "3")]
    #[serde(serialize_with = "text", skip_serializing_if = "Bytes::is_empty")]
    pub reason: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    #[serde(serialize_with = "text", skip_serializing_if = "Bytes::is_empty")]
    pub message: Bytes,
    #[prost(message, required, tag = "6")]
    pub finished_at: Time,
}

/// `meta.v1.Status`: why the API server refuses.
#[derive(Clone, PartialEq, Message, Serialize)]
#[allow(clippy::struct_field_names, reason = "the names are Kubernetes'")]
pub struct Status {
    #[prost(message, required, tag = "1")]
    pub metadata: ListMeta,
    #[prost(bytes = "bytes", tag = "2")]
    #[serde(serialize_with = "text", skip_serializing_if = "Bytes::is_empty")]
    pub status: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    #[serde(serialize_with = "text", skip_serializing_if = "Bytes::is_empty")]
    pub message: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    #[serde(serialize_with = "text", skip_serializing_if = "Bytes::is_empty")]
    pub reason: Bytes,
    #[prost(message, optional, tag = "5")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<StatusDetails>,
    #[prost(int32, tag = "6")]
    pub code: i32,
}

/// `meta.v1.StatusDetails`.
#[derive(Clone, PartialEq, Message, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusDetails {
    #[prost(bytes = "bytes", tag = "1")]
    #[serde(serialize_with = "text", skip_serializing_if = "Bytes::is_empty")]
    pub name: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    #[serde(serialize_with = "text", skip_serializing_if = "Bytes::is_empty")]
    pub group: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    #[serde(serialize_with = "text", skip_serializing_if = "Bytes::is_empty")]
    pub kind: Bytes,
    #[prost(message, repeated, tag = "4")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<StatusCause>,
    #[prost(int32, tag = "5")]
    pub retry_after_seconds: i32,
    #[prost(bytes = "bytes", tag = "6")]
    #[serde(serialize_with = "text", skip_serializing_if = "Bytes::is_empty")]
    pub uid: Bytes,
}

/// `meta.v1.StatusCause`.
#[derive(Clone, PartialEq, Message, Serialize)]
pub struct StatusCause {
    #[prost(bytes = "bytes", tag = "1")]
    #[serde(serialize_with = "text", skip_serializing_if = "Bytes::is_empty")]
    pub reason: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    #[serde(serialize_with = "text", skip_serializing_if = "Bytes::is_empty")]
    pub message: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    #[serde(serialize_with = "text", skip_serializing_if = "Bytes::is_empty")]
    pub field: Bytes,
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // the API server takes no time that would be out of range
        match self.seconds.and_then(|seconds| Timestamp::from_second(seconds).ok()) {
            Some(time) => serializer.collect_str(&time),
            None => serializer.serialize_none(),
        }
    }
}

/// Bytes as text. Each byte that is not of UTF-8 becomes a replacement character, as in Go's JSON.
pub fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = str::from_utf8(bytes) {
        return text.into();
    }
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text.into()
}

fn text<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&lossy(bytes))
}

#[expect(clippy::ref_option, reason = "serde hands out references to fields")]
fn some_text<S: Serializer>(bytes: &Option<Bytes>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&lossy(bytes.as_deref().unwrap_or_default()))
}

fn map<S: Serializer>(entries: &[Entry], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(entries.iter().map(|entry| (lossy(&entry.key), lossy(&entry.value))))
}
