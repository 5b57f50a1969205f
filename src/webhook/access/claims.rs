//! What an object says of itself that only the operator should: labels and annotations with our prefix, and owners that
//! are ours. The operator knows the child graphs of a task by them.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::authentication::v1::UserInfo,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

use crate::{
    api::{GROUP, LABEL_PREFIX},
    webhook::writers::{is_note, name_of},
};

/// The first such field that `new` has and `old` has not, or has otherwise. Taking one away claims nothing: the garbage
/// collector does so to owners.
/// The note that `user` wrote it is admission's.
pub fn first(old: Option<&ObjectMeta>, new: &ObjectMeta, user: &UserInfo) -> Option<String> {
    let labels = (old.and_then(|old| old.labels.as_ref()), new.labels.as_ref());
    let annotations = (old.and_then(|old| old.annotations.as_ref()), new.annotations.as_ref());
    let key = [("labels", labels), ("annotations", annotations)]
        .into_iter()
        .find_map(|(map, (old, new))| Some(format!("metadata.{map}[{:?}]", first_key(old, new?, user)?)));
    key.or_else(|| {
        let known = old.and_then(|old| old.owner_references.as_deref()).unwrap_or_default();
        let owners = new.owner_references.as_deref().unwrap_or_default();
        let place =
            owners.iter().position(|owner| is_ours(owner) && !known.iter().any(|known| is_same(known, owner)))?;
        Some(format!("metadata.ownerReferences[{place}]"))
    })
}

fn first_key<'a>(
    old: Option<&BTreeMap<String, String>>,
    new: &'a BTreeMap<String, String>,
    user: &UserInfo,
) -> Option<&'a str> {
    let mut ours =
        new.iter().filter(|(key, value)| key.starts_with(LABEL_PREFIX) && !(is_note(key) && **value == name_of(user)));
    let differs = |(key, value): &(&String, &String)| old.and_then(|old| old.get(*key)) != Some(*value);
    ours.find(differs).map(|(key, _)| key.as_str())
}

fn is_ours(owner: &OwnerReference) -> bool {
    owner.api_version.split('/').next() == Some(GROUP)
}

/// What holds up a deletion says nothing of whose child an object is.
fn is_same(one: &OwnerReference, other: &OwnerReference) -> bool {
    (&one.uid, one.controller) == (&other.uid, other.controller)
}
