//! A request as the API server sends it (`AdmissionReview` of `admission.k8s.io/v1`), read in one pass.
//!
//! The types of kube are not used for this: they flatten one structure into another, for which serde keeps everything in
//! a form of its own before it reads it, twice for the object; and they keep what nobody looks at.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::authentication::v1::UserInfo,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time},
};
use kube::core::{
    GroupVersionKind, Status,
    admission::{AdmissionResponse, Operation},
};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::access::{Change, Content, Kind};
use crate::api::GROUP;

/// What somebody wants to store.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Identifies it in its answer.
    pub uid: String,
    /// Which kind.
    pub kind: GroupVersionKind,
    /// The part of the object that it is about; absent: all of it.
    #[serde(default)]
    pub sub_resource: Option<String>,
    /// Name of the object; empty where the API server is yet to make one.
    #[serde(default)]
    pub name: String,
    /// Its namespace.
    #[serde(default)]
    pub namespace: Option<String>,
    /// What is done to it.
    pub operation: Operation,
    /// Who asks.
    #[serde(default)]
    pub user_info: UserInfo,
    /// The object as it would be.
    #[serde(default)]
    pub object: Option<Object>,
    /// The object as it is stored.
    #[serde(default)]
    pub old_object: Option<Object>,
    /// Nothing will be stored.
    #[serde(default)]
    pub dry_run: bool,
}

/// What is looked at of an object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Object {
    /// Its metadata, without what nobody asks for.
    #[serde(deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    /// Its spec, as it was written.
    pub spec: Value,
    /// Its status.
    pub status: Value,
}

impl Request {
    /// Reads a review; why it is none.
    pub fn read(review: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Review {
            request: Option<Request>,
        }
        let review: Review = serde_json::from_slice(review).map_err(|error| error.to_string())?;
        review.request.ok_or_else(|| "it has no request".to_owned())
    }

    /// Whether it is about one of our objects, and not about a part of it like its status.
    pub fn is_ours(&self) -> bool {
        self.kind.group == GROUP && self.sub_resource.as_deref().unwrap_or_default().is_empty()
    }

    /// Name of the object: one that is created may have it only there by now.
    pub fn name_of_object(&self) -> &str {
        let own = self.object.as_ref().and_then(|object| object.metadata.name.as_deref());
        if self.name.is_empty() { own.unwrap_or_default() } else { &self.name }
    }

    /// What it writes; `None`: none of our objects.
    pub fn change(&self) -> Option<Change<'_>> {
        if !self.is_ours() {
            return None;
        }
        let kind = match self.kind.kind.as_str() {
            "TaskGraph" => Kind::Graph,
            "TaskTemplate" => Kind::Template,
            "ClusterTaskTemplate" => Kind::ClusterTemplate,
            _ => return None,
        };
        let old = match self.operation {
            Operation::Create => None,
            // without what it was, all of it is new
            Operation::Update => self.old_object.as_ref(),
            Operation::Delete | Operation::Connect => return None,
        };
        Some(Change {
            kind,
            namespace: self.namespace.as_deref().unwrap_or_default(),
            name: self.name_of_object(),
            old: old.map(Object::content),
            new: self.object.as_ref()?.content(),
            user: &self.user_info,
        })
    }

    /// The answer that lets it through.
    pub fn allowed(&self) -> AdmissionResponse {
        let mut response = AdmissionResponse::invalid("");
        response.uid.clone_from(&self.uid);
        response.allowed = true;
        response.result = Status::default();
        response
    }
}

impl Object {
    fn content(&self) -> Content<'_> {
        Content { metadata: &self.metadata, spec: &self.spec }
    }
}

/// Reads metadata without `managedFields`, which are often longer than the spec.
fn metadata<'de, D: Deserializer<'de>>(from: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Known {
        name: Option<String>,
        uid: Option<String>,
        generation: Option<i64>,
        labels: Option<BTreeMap<String, String>>,
        annotations: Option<BTreeMap<String, String>>,
        owner_references: Option<Vec<OwnerReference>>,
        deletion_timestamp: Option<Time>,
    }
    let known = Known::deserialize(from)?;
    Ok(ObjectMeta {
        name: known.name,
        uid: known.uid,
        generation: known.generation,
        labels: known.labels,
        annotations: known.annotations,
        owner_references: known.owner_references,
        deletion_timestamp: known.deletion_timestamp,
        ..ObjectMeta::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_no_review_is_told() {
        for (review, told) in [
            ("", "EOF"),
            ("[]", "expected"),
            ("{}", "it has no request"),
            (r#"{"request": {"uid": "1"}}"#, "missing field `kind`"),
            (r#"{"request": {"uid": "1", "kind": {}, "operation": "SMOKE"}}"#, ""),
        ] {
            let error = Request::read(review.as_bytes()).unwrap_err();
            assert!(error.contains(told), "{review}: {error}");
        }
    }

    #[test]
    fn what_is_written_is_told_as_strictly_as_can_be() {
        let request = |operation: &str, part: &str, kind: &str, old: Value| -> Request {
            serde_json::from_value(json!({
                "uid": "1", "kind": {"group": GROUP, "version": "v1alpha1", "kind": kind}, "operation": operation,
                "subResource": part, "object": {"metadata": {"name": "g"}, "spec": {"a": 1}}, "oldObject": old,
            }))
            .unwrap()
        };
        let old = json!({"metadata": {"name": "g"}, "spec": {}});
        for (operation, part, kind, old, expected) in [
            ("CREATE", "", "TaskGraph", Value::Null, Some((Kind::Graph, false))),
            ("UPDATE", "", "TaskTemplate", old.clone(), Some((Kind::Template, true))),
            // what it was is not told: all of it counts
            ("UPDATE", "", "ClusterTaskTemplate", Value::Null, Some((Kind::ClusterTemplate, false))),
            ("UPDATE", "status", "TaskGraph", old.clone(), None),
            ("DELETE", "", "TaskGraph", old.clone(), None),
            ("CREATE", "", "Pod", Value::Null, None),
        ] {
            let request = request(operation, part, kind, old);
            let change = request.change();
            assert_eq!(change.map(|change| (change.kind, change.old.is_some())), expected, "{operation} {part} {kind}");
            assert!(change.is_none_or(|change| change.name == "g"), "also of an object that is created");
        }
    }

    #[test]
    fn nothing_is_read_that_nobody_asks_for() {
        let kind = json!({"group": "taskgraph.dev", "version": "v1alpha1", "kind": "TaskGraph"});
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "1", "kind": kind, "operation": "UPDATE", "userInfo": {"username": "ann", "extra": {"a": ["b"]}},
            "options": {"kind": "UpdateOptions"}, "oldObject": null,
            "object": {"apiVersion": "x", "kind": "y", "spec": {"b": 1, "a": 2}, "metadata": {
                "name": "g", "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {}}}],
                "deletionTimestamp": "2026-01-01T00:00:00Z", "annotations": null,
            }},
        }});
        let request = Request::read(review.to_string().as_bytes()).unwrap();
        assert!(request.is_ours() && request.old_object.is_none());
        let object = request.object.as_ref().unwrap();
        assert_eq!(object.spec.to_string(), r#"{"b":1,"a":2}"#);
        assert!(object.metadata.deletion_timestamp.is_some() && object.metadata.managed_fields.is_none());
        let answer = serde_json::to_value(request.allowed().into_review()).unwrap();
        assert_eq!((&answer["response"]["uid"], &answer["response"]["allowed"]), (&json!("1"), &json!(true)));
    }
}
