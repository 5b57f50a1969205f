//! Every call to the API server, each with a time limit and safe to repeat. Writes are sent only while this replica
//! holds the Lease, and given up the moment that it does not.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use http::{Method, Request, header};
use k8s_openapi::{
    api::{apps::v1::ControllerRevision, core::v1},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Client, core::ObjectList};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::canonical;
use crate::{
    api::{DesiredState, GROUP, MANAGER, VERSION},
    jobs::{JobView, PodView},
    runtime::lease::Leadership,
};

/// How long one call may take. Longer than the API server needs to answer under load, short enough that a
/// connection that went dead is soon given up.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// Lists of pods in flight at once: each costs the API server a look at all pods of the namespace.
const LISTS: usize = 8;
/// Only the metadata of the answer is read: anything else would be serialized, sent and parsed for nothing.
const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";

/// The same of a list.
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No answer in time. The call may have been carried out.
    #[error("no answer from the API server within {} s", CALL_TIMEOUT.as_secs())]
    Timeout,
    /// The API server refused.
    #[error("{message} ({code} {reason})")]
    Api {
        /// HTTP status.
        code: u16,
        /// Its reason, as `AlreadyExists`.
        reason: String,
        /// Its message.
        message: String,
    },
    /// The call did not reach it, or the answer could not be read. The call may have been carried out.
    #[error("{0}")]
    Transport(#[source] Box<kube::Error>),
    /// The request could not be written.
    #[error("request: {0}")]
    Request(String),
    /// A write of a replica that does not hold the Lease, or lost it before the answer came. It may have been carried
    /// out.
    #[error("this replica does not hold the Lease (any more)")]
    Fenced,
}

impl CallError {
    /// HTTP status, if the API server answered.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Api { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// The object is not there.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// The object is there already, or is not as expected.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }
}

impl From<kube::Error> for CallError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => {
                Self::Api { code: status.code, reason: status.reason.clone(), message: status.message.clone() }
            }
            other => Self::Transport(Box::new(other)),
        }
    }
}

/// An answer of which only the metadata is read.
#[derive(Debug, Default, Deserialize)]
pub struct Stored {
    /// Its metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
}

/// A graph, read live.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct LiveGraph {
    /// Its metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// The head of its spec.
    #[serde(default)]
    pub spec: SpecHead,
    /// Its status, as it stands.
    #[serde(default)]
    pub status: Value,
}

/// The part of a spec that is read live.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SpecHead {
    desired_state: Option<Value>,
}

impl SpecHead {
    /// What the user wants of the graph.
    pub fn desired_state(&self) -> DesiredState {
        self.desired_state.as_ref().and_then(|state| DesiredState::deserialize(state).ok()).unwrap_or_default()
    }
}

impl LiveGraph {
    /// Whether its outcome stands.
    pub fn is_finished(&self) -> bool {
        self.status.get("completionTime").is_some()
    }

    /// Whether it was accepted.
    pub fn has_begun(&self) -> bool {
        self.status.get("revision").is_some()
    }
}

/// The API server.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    leadership: Leadership,
    lists: Arc<Semaphore>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cluster")
    }
}

impl Cluster {
    /// Calls go through `client`; writes while `leadership` lasts.
    pub fn new(client: Client, leadership: Leadership) -> Self {
        Self { client, leadership, lists: Arc::new(Semaphore::new(LISTS)) }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        content: &str,
        accept: &str,
        body: Option<&Value>,
    ) -> Result<T, CallError> {
        let body = match body {
            Some(body) => serde_json::to_vec(body).map_err(|error| CallError::Request(error.to_string()))?,
            None => Vec::new(),
        };
        self.send(method, path, content, accept, body).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        content: &str,
        accept: &str,
        body: Vec<u8>,
    ) -> Result<T, CallError> {
        let reads = method == Method::GET;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, content)
            .header(header::ACCEPT, accept)
            .body(body)
            .map_err(|error| CallError::Request(error.to_string()))?;
        let call = tokio::time::timeout(CALL_TIMEOUT, self.client.request(request));
        let answer = if reads { call.await } else { self.leadership.fence(call).await.ok_or(CallError::Fenced)? };
        match answer {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(CallError::Timeout),
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        self.call(Method::GET, path, "application/json", "application/json", None).await
    }

    async fn get_metadata(&self, path: &str) -> Result<Stored, CallError> {
        self.call(Method::GET, path, "application/json", METADATA_ONLY, None).await
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Stored, CallError> {
        let path = format!("{path}?fieldManager={MANAGER}&fieldValidation=Strict");
        self.call(Method::POST, &path, "application/json", METADATA_ONLY, Some(body)).await
    }

    async fn delete(&self, path: &str, preconditions: Value, propagation: &str) -> Result<(), CallError> {
        let options = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": preconditions,
            "propagationPolicy": propagation,
        });
        self.call::<Value>(Method::DELETE, path, "application/json", METADATA_ONLY, Some(&options)).await.map(|_| ())
    }

    /// Creates a Job; the JSON goes through unchanged, unknown fields are refused.
    pub async fn create_job(&self, namespace: &str, job: &Value) -> Result<Stored, CallError> {
        self.post(&format!("/apis/batch/v1/namespaces/{namespace}/jobs"), job).await
    }

    /// Reads a Job.
    pub async fn get_job(&self, namespace: &str, name: &str) -> Result<JobView, CallError> {
        self.get(&format!("/apis/batch/v1/namespaces/{namespace}/jobs/{name}")).await
    }

    /// Reads the Jobs that carry these labels, from etcd, not from a cache.
    pub async fn list_jobs(&self, namespace: &str, labels: &BTreeMap<&str, &str>) -> Result<Vec<JobView>, CallError> {
        let path = format!("/apis/batch/v1/namespaces/{namespace}/jobs?labelSelector={}", selector(labels));
        let _permit = self.lists.acquire().await;
        Ok(self.get::<ObjectList<JobView>>(&path).await?.items)
    }

    /// Deletes exactly this Job, and its pods before it.
    pub async fn delete_job(&self, namespace: &str, name: &str, uid: &str) -> Result<(), CallError> {
        self.delete(&format!("/apis/batch/v1/namespaces/{namespace}/jobs/{name}"), json!({"uid": uid}), "Foreground")
            .await
    }

    /// Reads the pods that carry these labels, from etcd, not from a cache.
    pub async fn list_pods(&self, namespace: &str, labels: &BTreeMap<&str, &str>) -> Result<Vec<PodView>, CallError> {
        let path = format!("/api/v1/namespaces/{namespace}/pods?labelSelector={}", selector(labels));
        // closed never
        let _permit = self.lists.acquire().await;
        Ok(self.get::<ObjectList<PodView>>(&path).await?.items)
    }

    /// Deletes exactly this pod.
    pub async fn delete_pod(&self, namespace: &str, name: &str, uid: &str) -> Result<(), CallError> {
        self.delete(&format!("/api/v1/namespaces/{namespace}/pods/{name}"), json!({"uid": uid}), "Background").await
    }

    /// Creates a `ConfigMap`.
    pub async fn create_config_map(&self, namespace: &str, map: &Value) -> Result<Stored, CallError> {
        self.post(&format!("/api/v1/namespaces/{namespace}/configmaps"), map).await
    }

    /// Reads the metadata of a `ConfigMap`.
    pub async fn get_config_map(&self, namespace: &str, name: &str) -> Result<Stored, CallError> {
        let path = format!("/api/v1/namespaces/{namespace}/configmaps/{name}");
        self.call(Method::GET, &path, "application/json", METADATA_ONLY, None).await
    }

    /// Deletes the `ConfigMap`s that carry these labels.
    pub async fn delete_config_maps(&self, namespace: &str, labels: &BTreeMap<&str, &str>) -> Result<(), CallError> {
        let path = format!("/api/v1/namespaces/{namespace}/configmaps?labelSelector={}", selector(labels));
        self.call::<Value>(Method::DELETE, &path, "application/json", METADATA_LIST, None).await.map(|_| ())
    }

    /// Reads the events about an object.
    pub async fn list_events(&self, namespace: &str, uid: &str) -> Result<Vec<v1::Event>, CallError> {
        let path = format!("/api/v1/namespaces/{namespace}/events?fieldSelector=involvedObject.uid%3D{uid}");
        Ok(self.get::<ObjectList<v1::Event>>(&path).await?.items)
    }

    /// Creates an event.
    pub async fn create_event(&self, namespace: &str, event: &Value) -> Result<Stored, CallError> {
        self.post(&format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events"), event).await
    }

    /// Creates a `PersistentVolumeClaim`; `dry_run`: only asks whether it would be taken.
    pub async fn create_claim(&self, namespace: &str, claim: &Value, dry_run: bool) -> Result<Stored, CallError> {
        let path = format!(
            "/api/v1/namespaces/{namespace}/persistentvolumeclaims?fieldManager={MANAGER}&fieldValidation=Strict"
        );
        let path = if dry_run { format!("{path}&dryRun=All") } else { path };
        self.call(Method::POST, &path, "application/json", METADATA_ONLY, Some(claim)).await
    }

    /// Reads the metadata of a `PersistentVolumeClaim`.
    pub async fn get_claim(&self, namespace: &str, name: &str) -> Result<Stored, CallError> {
        self.get_metadata(&format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}")).await
    }

    /// Creates a `ControllerRevision`, in the spelling in which its data stay as they are.
    pub async fn create_revision(&self, namespace: &str, revision: &Value) -> Result<Stored, CallError> {
        let query = format!("fieldManager={MANAGER}&fieldValidation=Strict");
        let path = format!("/apis/apps/v1/namespaces/{namespace}/controllerrevisions?{query}");
        let body = canonical::bytes(revision).map_err(|error| CallError::Request(error.to_string()))?;
        self.send(Method::POST, &path, "application/json", METADATA_ONLY, body).await
    }

    /// Reads a `ControllerRevision`.
    pub async fn get_revision(&self, namespace: &str, name: &str) -> Result<ControllerRevision, CallError> {
        self.get(&format!("/apis/apps/v1/namespaces/{namespace}/controllerrevisions/{name}")).await
    }

    /// Deletes exactly this `ControllerRevision`.
    pub async fn delete_revision(&self, namespace: &str, name: &str, uid: &str) -> Result<(), CallError> {
        let path = format!("/apis/apps/v1/namespaces/{namespace}/controllerrevisions/{name}");
        self.delete(&path, json!({"uid": uid}), "Background").await
    }

    /// Reads the metadata of all `ControllerRevision`s with a label, in one namespace or in all, from the API server's
    /// cache.
    pub async fn list_revisions(
        &self,
        namespace: Option<&str>,
        (label, value): (&str, &str),
    ) -> Result<Vec<Stored>, CallError> {
        #[derive(Deserialize)]
        struct Listed {
            #[serde(default)]
            items: Vec<Stored>,
        }
        let place = namespace.map(|namespace| format!("namespaces/{namespace}/")).unwrap_or_default();
        let selector = format!("{}%3D{value}", label.replace('/', "%2F"));
        let path = format!("/apis/apps/v1/{place}controllerrevisions?labelSelector={selector}&resourceVersion=0");
        let listed: Listed = self.call(Method::GET, &path, "application/json", METADATA_LIST, None).await?;
        Ok(listed.items)
    }

    fn graph_path(namespace: &str, name: &str) -> String {
        format!("/apis/{GROUP}/{VERSION}/namespaces/{namespace}/taskgraphs/{name}")
    }

    /// Reads a graph.
    pub async fn get_graph(&self, namespace: &str, name: &str) -> Result<LiveGraph, CallError> {
        self.get(&Self::graph_path(namespace, name)).await
    }

    /// Reads the child graphs that carry these labels, from etcd, not from a cache.
    pub async fn list_graphs(
        &self,
        namespace: &str,
        labels: &BTreeMap<&str, &str>,
    ) -> Result<Vec<LiveGraph>, CallError> {
        let path =
            format!("/apis/{GROUP}/{VERSION}/namespaces/{namespace}/taskgraphs?labelSelector={}", selector(labels));
        let _permit = self.lists.acquire().await;
        Ok(self.get::<ObjectList<LiveGraph>>(&path).await?.items)
    }

    /// Creates a child graph.
    pub async fn create_graph(&self, namespace: &str, graph: &Value) -> Result<Stored, CallError> {
        self.post(&format!("/apis/{GROUP}/{VERSION}/namespaces/{namespace}/taskgraphs"), graph).await
    }

    /// Sets what is wanted of exactly this child graph.
    pub async fn set_desired_state(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        state: DesiredState,
    ) -> Result<(), CallError> {
        let change = json!({"metadata": {"uid": uid}, "spec": {"desiredState": state}});
        let path = format!("{}?fieldManager={MANAGER}", Self::graph_path(namespace, name));
        let content = "application/merge-patch+json";
        self.call::<Stored>(Method::PATCH, &path, content, METADATA_ONLY, Some(&change)).await.map(|_| ())
    }

    /// Deletes exactly this child graph, and what it owns before it.
    pub async fn delete_child(&self, namespace: &str, name: &str, uid: &str) -> Result<(), CallError> {
        self.delete(&Self::graph_path(namespace, name), json!({"uid": uid}), "Foreground").await
    }

    /// Replaces the status of a graph, if its resource version is still the given one. Returns the new one.
    pub async fn put_status(
        &self,
        namespace: &str,
        name: &str,
        resource_version: &str,
        status: Value,
    ) -> Result<String, CallError> {
        // naming the resource version in the patch makes the API server answer 409 where it is another one
        let change = json!([
            {"op": "replace", "path": "/metadata/resourceVersion", "value": resource_version},
            {"op": "add", "path": "/status", "value": status},
        ]);
        let path = format!("{}/status?fieldManager={MANAGER}", Self::graph_path(namespace, name));
        let stored: Stored =
            self.call(Method::PATCH, &path, "application/json-patch+json", METADATA_ONLY, Some(&change)).await?;
        Ok(stored.metadata.resource_version.unwrap_or_default())
    }

    /// Stores that all CloudEvents of exactly this graph are delivered, if its status is still the one of `sequence`.
    pub async fn settle_events(&self, namespace: &str, name: &str, uid: &str, sequence: u64) -> Result<(), CallError> {
        let change = json!([
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "test", "path": "/status/sequence", "value": sequence},
            {"op": "add", "path": "/status/cloudEvents", "value": {"sequence": sequence}},
        ]);
        let path = format!("{}/status?fieldManager={MANAGER}", Self::graph_path(namespace, name));
        let content = "application/json-patch+json";
        self.call::<Stored>(Method::PATCH, &path, content, METADATA_ONLY, Some(&change)).await.map(|_| ())
    }

    /// Deletes exactly this graph if it is as it was at `resource_version`; what it owns follows.
    pub async fn delete_graph(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        resource_version: &str,
    ) -> Result<(), CallError> {
        let preconditions = json!({"uid": uid, "resourceVersion": resource_version});
        self.delete(&Self::graph_path(namespace, name), preconditions, "Background").await
    }
}

/// Labels as they stand in an address. Their values are of characters that need no escaping.
fn selector(labels: &BTreeMap<&str, &str>) -> String {
    let terms: Vec<_> = labels.iter().map(|(key, value)| format!("{}%3D{value}", key.replace('/', "%2F"))).collect();
    terms.join("%2C")
}
