//! What an object says of itself that only the operator should: labels and annotations with our prefix, and owners that
//! are graphs. The operator knows the child graphs of a task by them.

use serde_json::Value;

use crate::api::{GROUP, LABEL_PREFIX};

/// The first such field that `new` has and `old` has not, or has otherwise. Taking one away claims nothing: the garbage
/// collector does so to owners.
pub fn first(old: Option<&Value>, new: &Value) -> Option<String> {
    let metadata = |object: Option<&Value>| object.map_or(Value::Null, |object| object["metadata"].clone());
    let (old, new) = (metadata(old), metadata(Some(new)));
    for map in ["labels", "annotations"] {
        let ours = new[map].as_object().into_iter().flatten().filter(|(key, _)| key.starts_with(LABEL_PREFIX));
        for (key, value) in ours {
            if old[map].get(key) != Some(value) {
                return Some(format!("metadata.{map}[{key:?}]"));
            }
        }
    }
    let known = old["ownerReferences"].as_array().cloned().unwrap_or_default();
    let owners = new["ownerReferences"].as_array().into_iter().flatten().enumerate();
    let is_ours =
        |owner: &Value| owner["apiVersion"].as_str().is_some_and(|version| version.split('/').next() == Some(GROUP));
    // what holds up a deletion says nothing of whose child it is
    let same = |one: &Value, other: &Value| one["uid"] == other["uid"] && one["controller"] == other["controller"];
    owners
        .filter(|(_, owner)| is_ours(owner))
        .find(|(_, owner)| !known.iter().any(|known| same(known, owner)))
        .map(|(index, _)| format!("metadata.ownerReferences[{index}]"))
}
