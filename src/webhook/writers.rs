//! Notes on a graph who wrote it, since Kubernetes tells that to no controller: `metadata.annotations` have who created it,
//! who changed last what is run, and who changed last how it is run. What a writer says of this is overwritten. Pure.

use std::collections::BTreeMap;

use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation, jsonptr::PointerBuf};
use k8s_openapi::api::authentication::v1::UserInfo;
use kube::core::admission::{AdmissionResponse, Operation};
use serde_json::{Value, json};

use super::{
    access::{changed_fields, is_operated},
    request::{Object, Request},
};
use crate::api::{ANNOTATION_CREATED_BY, ANNOTATION_DESIGNED_BY, ANNOTATION_OPERATED_BY, GROUP};

/// The annotations that tell.
const ALL: [&str; 3] = [ANNOTATION_CREATED_BY, ANNOTATION_DESIGNED_BY, ANNOTATION_OPERATED_BY];
/// The longest name that is noted, in characters: a longer one of a user is cut to it.
const LONGEST: usize = 253;

/// Whether an annotation is one of those that tell who wrote a graph.
pub fn is_note(annotation: &str) -> bool {
    ALL.contains(&annotation)
}

/// The answer to a request for notes. It is allowed, whatever it is: others judge it.
pub fn answer(request: &Request) -> AdmissionResponse {
    let (allowed, patch) = (request.allowed(), notes(request));
    if patch.is_empty() {
        return allowed;
    }
    // a patch of texts never fails to be written
    allowed.with_patch(patch).unwrap_or_else(|_| request.allowed())
}

/// What is to be changed of the object in `request`, so that it tells who wrote it; empty where nothing is.
fn notes(request: &Request) -> Patch {
    let none = Patch(Vec::new());
    let is_graph = request.kind.group == GROUP && request.kind.kind == "TaskGraph";
    let is_whole = request.sub_resource.as_deref().unwrap_or_default().is_empty();
    let (true, true, Some(object)) = (is_graph, is_whole, &request.object) else { return none };
    let wanted = match (&request.operation, &request.old_object) {
        (Operation::Create, _) => BTreeMap::from([(ANNOTATION_CREATED_BY, writer(request))]),
        (Operation::Update, Some(old)) => kept(old).chain(changed(request, old, object)).collect(),
        _ => return none,
    };
    difference(object, &wanted)
}

/// What a user is noted as.
pub fn name_of(user: &UserInfo) -> String {
    user.username.iter().flat_map(|name| name.chars()).take(LONGEST).collect()
}

fn writer(request: &Request) -> String {
    name_of(&request.user_info)
}

/// What was noted before.
fn kept(old: &Object) -> impl Iterator<Item = (&'static str, String)> {
    ALL.into_iter().filter_map(|note| Some((note, old.metadata.annotations.as_ref()?.get(note)?.clone())))
}

/// What is noted of a change of the spec. An approval names its giver itself.
fn changed(request: &Request, old: &Object, new: &Object) -> impl Iterator<Item = (&'static str, String)> {
    let fields = changed_fields(&old.spec, &new.spec);
    let operated = fields.iter().any(|field| is_operated(field)).then_some(ANNOTATION_OPERATED_BY);
    let designed = |field: &&str| !is_operated(field) && *field != "approvals";
    let designed = fields.iter().any(designed).then_some(ANNOTATION_DESIGNED_BY);
    [operated, designed].into_iter().flatten().map(|note| (note, writer(request)))
}

/// How the notes of `object` become `wanted`.
fn difference(object: &Object, wanted: &BTreeMap<&str, String>) -> Patch {
    let Some(annotations) = &object.metadata.annotations else {
        let all = if wanted.is_empty() { None } else { Some(add(&["metadata", "annotations"], json!(wanted))) };
        return Patch(all.into_iter().collect());
    };
    let operation = |note: &'static str| match (annotations.get(note), wanted.get(note)) {
        (there, Some(user)) if there != Some(user) => Some(add(&["metadata", "annotations", note], json!(user))),
        (Some(_), None) => {
            let path = PointerBuf::from_tokens(["metadata", "annotations", note]);
            Some(PatchOperation::Remove(RemoveOperation { path }))
        }
        _ => None,
    };
    Patch(ALL.into_iter().filter_map(operation).collect())
}

/// Adds, or puts in the place of what is there.
fn add(path: &[&str], value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path: PointerBuf::from_tokens(path.iter().copied()), value })
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "json! gives values")]
mod tests {
    use super::*;

    fn request(user: &str, old: Option<Value>, new: Value) -> Request {
        let operation = if old.is_some() { "UPDATE" } else { "CREATE" };
        serde_json::from_value(json!({
            "uid": "1", "kind": {"group": GROUP, "version": "v1alpha1", "kind": "TaskGraph"},
            "resource": {"group": GROUP, "version": "v1alpha1", "resource": "taskgraphs"},
            "name": "g", "namespace": "n", "operation": operation, "userInfo": {"username": user},
            "object": new, "oldObject": old, "dryRun": false,
        }))
        .unwrap()
    }

    fn graph(annotations: Value, spec: Value) -> Value {
        let metadata = json!({"name": "g", "annotations": annotations});
        json!({"apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskGraph", "metadata": metadata, "spec": spec})
    }

    /// The annotations after the request.
    fn noted(user: &str, old: Option<Value>, mut new: Value) -> Value {
        let patch = notes(&request(user, old, new.clone()));
        json_patch::patch(&mut new, &patch).unwrap();
        new["metadata"]["annotations"].clone()
    }

    const BY: [&str; 3] = ["taskgraph.dev/created-by", "taskgraph.dev/designed-by", "taskgraph.dev/operated-by"];

    #[test]
    fn who_creates_a_graph_is_noted_whatever_he_says() {
        let spec = json!({"tasks": []});
        assert_eq!(noted("ann", None, graph(Value::Null, spec.clone())), json!({BY[0]: "ann"}));
        assert_eq!(noted("ann", None, graph(json!({"a": "b"}), spec.clone())), json!({"a": "b", BY[0]: "ann"}));
        let forged = json!({BY[0]: "eve", BY[1]: "eve", BY[2]: "eve"});
        assert_eq!(noted("ann", None, graph(forged, spec.clone())), json!({BY[0]: "ann"}));
        let long = noted(&"ä".repeat(300), None, graph(Value::Null, spec));
        assert_eq!(long[BY[0]], "ä".repeat(253));
    }

    #[test]
    fn who_changes_what_is_noted_and_the_rest_stays() {
        let before = |more: Value| {
            let mut spec = json!({"tasks": [], "desiredState": "Run"});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            spec
        };
        let old = graph(json!({BY[0]: "ann", BY[2]: "bob"}), before(json!({})));
        for (change, expected) in [
            (json!({}), json!({BY[0]: "ann", BY[2]: "bob"})),
            (json!({"desiredState": "Cancel"}), json!({BY[0]: "ann", BY[2]: "eve"})),
            (json!({"rerun": {"id": "1"}}), json!({BY[0]: "ann", BY[2]: "eve"})),
            (json!({"parallelism": 2}), json!({BY[0]: "ann", BY[1]: "eve", BY[2]: "bob"})),
            (json!({"parallelism": 2, "rerun": {"id": "1"}}), json!({BY[0]: "ann", BY[1]: "eve", BY[2]: "eve"})),
            (json!({"approvals": [{"task": "a"}]}), json!({BY[0]: "ann", BY[2]: "bob"})),
        ] {
            // some tools send what they read, some leave annotations out, some lie
            for said in [json!({BY[0]: "ann", BY[2]: "bob"}), Value::Null, json!({BY[0]: "eve", BY[1]: "mallory"})] {
                let new = graph(said, before(change.clone()));
                assert_eq!(noted("eve", Some(old.clone()), new), expected, "{change}");
            }
        }
    }

    #[test]
    fn nothing_is_changed_where_nothing_is_to_be_noted() {
        let old = graph(json!({"a": "b"}), json!({"tasks": []}));
        assert!(notes(&request("eve", Some(old.clone()), old.clone())).0.is_empty());
        let mut status = request("eve", Some(old.clone()), graph(Value::Null, json!({"tasks": [], "parallelism": 1})));
        status.sub_resource = Some("status".to_owned());
        assert!(notes(&status).0.is_empty());
        let mut template = request("eve", None, old);
        template.kind.kind = "TaskTemplate".to_owned();
        assert!(notes(&template).0.is_empty());
    }
}
