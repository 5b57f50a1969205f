//! What an object says of itself that only the operator should: labels and annotations with our prefix, and owners. The
//! operator knows the child graphs of a task by them, and the garbage collector deletes what has lost its owners.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::authentication::v1::UserInfo,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

use crate::{
    api::{GROUP, LABEL_PREFIX},
    webhook::writers::{is_note, name_of},
};

/// The first such field that is not what it was. An owner may be taken away: the garbage collector does so. Of a new object
/// only owners of ours count: to have it deleted again harms nobody.
/// The note that `user` wrote it is admission's.
pub fn first(old: Option<&ObjectMeta>, new: &ObjectMeta, user: &UserInfo) -> Option<String> {
    let labels = (old.and_then(|old| old.labels.as_ref()), new.labels.as_ref());
    let annotations = (old.and_then(|old| old.annotations.as_ref()), new.annotations.as_ref());
    let key = [("labels", labels), ("annotations", annotations)]
        .into_iter()
        .find_map(|(map, (old, new))| Some(format!("metadata.{map}[{:?}]", first_key(old, new, user)?)));
    key.or_else(|| {
        let known = old.and_then(|old| old.owner_references.as_deref()).unwrap_or_default();
        let owners = new.owner_references.as_deref().unwrap_or_default();
        let claims = |owner: &OwnerReference| {
            (old.is_some() || is_ours(owner)) && !known.iter().any(|known| is_same(known, owner))
        };
        Some(format!("metadata.ownerReferences[{}]", owners.iter().position(claims)?))
    })
}

/// The first key of ours whose value is another, or that is there or gone.
fn first_key<'a>(
    old: Option<&'a BTreeMap<String, String>>,
    new: Option<&'a BTreeMap<String, String>>,
    user: &UserInfo,
) -> Option<&'a str> {
    let value = |map: Option<&'a BTreeMap<String, String>>, key: &String| map.and_then(|map| map.get(key));
    let mut ours = new.into_iter().chain(old).flat_map(BTreeMap::keys).filter(|key| key.starts_with(LABEL_PREFIX));
    let noted = |key: &String| is_note(key) && value(new, key).is_some_and(|value| *value == name_of(user));
    ours.find(|key| value(old, key) != value(new, key) && !noted(key)).map(String::as_str)
}

fn is_ours(owner: &OwnerReference) -> bool {
    owner.api_version.split('/').next() == Some(GROUP)
}

/// What holds up a deletion says nothing of whose child an object is.
fn is_same(one: &OwnerReference, other: &OwnerReference) -> bool {
    let what = |owner: &OwnerReference| OwnerReference { block_owner_deletion: None, ..owner.clone() };
    what(one) == what(other)
}
