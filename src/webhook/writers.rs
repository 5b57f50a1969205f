//! Notes on a graph who wrote it, since Kubernetes tells that to no controller: `metadata.annotations` have who created it,
//! who changed last what is run, and who changed last how it is run. What a writer says of this is overwritten. Pure.

use std::collections::BTreeMap;

use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation, jsonptr::PointerBuf};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::admission::AdmissionResponse;
use serde_json::{Value, json};

use super::{
    access::{Change, Kind, changed, is_operated},
    request::Request,
};
use crate::api::{
    ANNOTATION_CREATED_BY, ANNOTATION_DESIGNED_BY, ANNOTATION_NOTED_GENERATION, ANNOTATION_OPERATED_BY, noted_user,
};

/// The annotations that tell.
const ALL: [&str; 4] =
    [ANNOTATION_CREATED_BY, ANNOTATION_DESIGNED_BY, ANNOTATION_OPERATED_BY, ANNOTATION_NOTED_GENERATION];

/// The answer to a request for notes. It is allowed, whatever it is: others judge it.
pub fn answer(request: &Request) -> AdmissionResponse {
    match patch(request) {
        // a patch of texts never fails to be written
        Some(patch) => request.allowed().with_patch(patch).unwrap_or_else(|_| request.allowed()),
        None => request.allowed(),
    }
}

/// What is to be changed of the object in `request`, so that it tells who wrote it; `None` where nothing is.
fn patch(request: &Request) -> Option<Patch> {
    let change = request.change().filter(|change| change.kind == Kind::Graph)?;
    Some(difference(change.new.metadata, &notes(&change))).filter(|patch| !patch.0.is_empty())
}

/// The notes, by annotation, that an object is to have after a change: those that it had, and what is noted of the change.
/// None on what is no graph.
///
/// The API server goes on without a note that it does not get in time. What was changed since the last one, nobody knows
/// by whom: so who changed something before is not kept then.
pub fn notes(change: &Change<'_>) -> BTreeMap<&'static str, String> {
    let writer = || noted_user(change.user.username.as_deref().unwrap_or_default()).to_owned();
    match (change.kind, &change.old) {
        (Kind::Graph, None) => {
            BTreeMap::from([(ANNOTATION_CREATED_BY, writer()), (ANNOTATION_NOTED_GENERATION, "1".to_owned())])
        }
        (Kind::Graph, Some(old)) if old.spec == change.new.spec => kept(old.metadata).collect(),
        (Kind::Graph, Some(old)) => {
            let generation = old.metadata.generation.unwrap_or_default();
            let is_complete = note(old.metadata, ANNOTATION_NOTED_GENERATION) == Some(&generation.to_string());
            let before = kept(old.metadata).filter(|(note, _)| is_complete || *note == ANNOTATION_CREATED_BY);
            let now = noted(&changed(change)).map(|note| (note, writer()));
            // the API server counts each change of the spec
            let generation = (ANNOTATION_NOTED_GENERATION, generation.saturating_add(1).to_string());
            before.chain(now).chain([generation]).collect()
        }
        (Kind::Template | Kind::ClusterTemplate, _) => BTreeMap::new(),
    }
}

/// What was noted before.
fn kept(old: &ObjectMeta) -> impl Iterator<Item = (&'static str, String)> {
    ALL.into_iter().filter_map(|name| Some((name, note(old, name)?.clone())))
}

fn note<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a String> {
    metadata.annotations.as_ref()?.get(name)
}

/// The notes that speak of a change of these fields of the spec. An approval names its giver itself.
fn noted(fields: &[&str]) -> impl Iterator<Item = &'static str> + use<> {
    let operated = fields.iter().any(|field| is_operated(field)).then_some(ANNOTATION_OPERATED_BY);
    let designed = |field: &&str| !is_operated(field) && *field != "approvals";
    let designed = fields.iter().any(designed).then_some(ANNOTATION_DESIGNED_BY);
    [operated, designed].into_iter().flatten()
}

/// How the notes of an object become `wanted`.
fn difference(metadata: &ObjectMeta, wanted: &BTreeMap<&str, String>) -> Patch {
    let Some(annotations) = &metadata.annotations else {
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
    use crate::api::GROUP;

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
        if let Some(patch) = patch(&request(user, old, new.clone())) {
            json_patch::patch(&mut new, &patch).unwrap();
        }
        new["metadata"]["annotations"].clone()
    }

    const BY: [&str; 3] = ["taskgraph.dev/created-by", "taskgraph.dev/designed-by", "taskgraph.dev/operated-by"];
    const AT: &str = "taskgraph.dev/noted-generation";

    #[test]
    fn who_creates_a_graph_is_noted_whatever_he_says() {
        let spec = json!({"tasks": []});
        assert_eq!(noted("ann", None, graph(Value::Null, spec.clone())), json!({BY[0]: "ann", AT: "1"}));
        let other = graph(json!({"a": "b"}), spec.clone());
        assert_eq!(noted("ann", None, other), json!({"a": "b", BY[0]: "ann", AT: "1"}));
        let forged = json!({BY[0]: "eve", BY[1]: "eve", BY[2]: "eve", AT: "7"});
        assert_eq!(noted("ann", None, graph(forged, spec.clone())), json!({BY[0]: "ann", AT: "1"}));
        let long = noted(&"ä".repeat(300), None, graph(Value::Null, spec));
        assert_eq!(long[BY[0]], "ä".repeat(253));
    }

    /// What is noted of a change that eve makes of the graph with these notes, which is of generation 4.
    fn changed_by_eve(notes: &Value, change: &Value, said: Value) -> Value {
        let mut old = graph(notes.clone(), json!({"tasks": [], "desiredState": "Run"}));
        old["metadata"]["generation"] = json!(4);
        let mut new = graph(said, old["spec"].clone());
        new["spec"].as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        noted("eve", Some(old), new)
    }

    #[test]
    fn who_changes_what_is_noted_and_the_rest_stays() {
        let notes = json!({BY[0]: "ann", BY[2]: "bob", AT: "4"});
        for (change, expected) in [
            (json!({}), notes.clone()),
            (json!({"desiredState": "Cancel"}), json!({BY[0]: "ann", BY[2]: "eve", AT: "5"})),
            (json!({"rerun": {"id": "1"}}), json!({BY[0]: "ann", BY[2]: "eve", AT: "5"})),
            (json!({"parallelism": 2}), json!({BY[0]: "ann", BY[1]: "eve", BY[2]: "bob", AT: "5"})),
            (
                json!({"parallelism": 2, "rerun": {"id": "1"}}),
                json!({BY[0]: "ann", BY[1]: "eve", BY[2]: "eve", AT: "5"}),
            ),
            (json!({"approvals": [{"task": "a"}]}), json!({BY[0]: "ann", BY[2]: "bob", AT: "5"})),
            // it says nothing, and is counted all the same
            (json!({"tags": []}), json!({BY[0]: "ann", BY[2]: "bob", AT: "5"})),
        ] {
            // some tools send what they read, some leave annotations out, some lie
            let lie = json!({BY[0]: "eve", BY[1]: "mallory", AT: "9"});
            for said in [notes.clone(), Value::Null, lie] {
                assert_eq!(changed_by_eve(&notes, &change, said), expected, "{change}");
            }
        }
    }

    #[test]
    fn of_what_was_changed_without_a_note_nobody_is_named() {
        for at in [Value::Null, json!("3"), json!("x")] {
            let mut notes = json!({BY[0]: "ann", BY[1]: "bob", BY[2]: "bob"});
            if !at.is_null() {
                notes[AT] = at;
            }
            for (change, expected) in [
                (json!({"parallelism": 2}), json!({BY[0]: "ann", BY[1]: "eve", AT: "5"})),
                (json!({"desiredState": "Cancel"}), json!({BY[0]: "ann", BY[2]: "eve", AT: "5"})),
                // nothing is known better than before
                (json!({}), notes.clone()),
            ] {
                assert_eq!(changed_by_eve(&notes, &change, Value::Null), expected, "{change}");
            }
        }
    }

    #[test]
    fn nothing_is_changed_where_nothing_is_to_be_noted() {
        let old = graph(json!({"a": "b"}), json!({"tasks": []}));
        assert_eq!(patch(&request("eve", Some(old.clone()), old.clone())), None);
        let mut status = request("eve", Some(old.clone()), graph(Value::Null, json!({"tasks": [], "parallelism": 1})));
        status.sub_resource = Some("status".to_owned());
        assert_eq!(patch(&status), None);
        let mut template = request("eve", None, old);
        template.kind.kind = "TaskTemplate".to_owned();
        assert_eq!(patch(&template), None);
    }
}
