//! What an object says of itself that only the operator should: labels and annotations with our prefix, and owners. The
//! operator knows the child graphs of a task by them, and the garbage collector deletes what has lost its owners.

use std::{cell::LazyCell, collections::BTreeMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::Change;
use crate::{
    api::{GROUP, LABEL_PREFIX},
    webhook::writers,
};

/// The first such field that is not what it was. An owner may be taken away: the garbage collector does so. Of a new object
/// only owners of ours count: to have it deleted again harms nobody. What admission itself notes is no claim.
pub fn first(change: &Change<'_>) -> Option<String> {
    let (old, new) = (change.old.map(|old| old.metadata), change.new.metadata);
    let labels = (old.and_then(|old| old.labels.as_ref()), new.labels.as_ref());
    let annotations = (old.and_then(|old| old.annotations.as_ref()), new.annotations.as_ref());
    // compares whole specs, and most changes write no note
    let notes = LazyCell::new(|| writers::notes(change));
    let is_note = |key: &str, value: &str| notes.get(key).is_some_and(|note| note == value);
    let label = || Some(format!("metadata.labels[{:?}]", first_key(labels, |_, _| false)?));
    let annotation = || Some(format!("metadata.annotations[{:?}]", first_key(annotations, is_note)?));
    let owner = || {
        let known = old.and_then(|old| old.owner_references.as_deref()).unwrap_or_default();
        let owners = new.owner_references.as_deref().unwrap_or_default();
        let claims = |owner: &OwnerReference| {
            (old.is_some() || is_ours(owner)) && !known.iter().any(|known| is_same(known, owner))
        };
        Some(format!("metadata.ownerReferences[{}]", owners.iter().position(claims)?))
    };
    label().or_else(annotation).or_else(owner)
}

type Texts<'a> = Option<&'a BTreeMap<String, String>>;

/// The first key of ours whose value is another, or that is there or gone; but for what is `allowed` to be written.
fn first_key<'a>((old, new): (Texts<'a>, Texts<'a>), allowed: impl Fn(&str, &str) -> bool) -> Option<&'a str> {
    let value = |texts: Texts<'a>, key: &String| texts.and_then(|texts| texts.get(key));
    let mut ours = new.into_iter().chain(old).flat_map(BTreeMap::keys).filter(|key| key.starts_with(LABEL_PREFIX));
    let claimed = |key: &&String| {
        let now = value(new, key);
        now != value(old, key) && !now.is_some_and(|now| allowed(key, now))
    };
    ours.find(claimed).map(String::as_str)
}

fn is_ours(owner: &OwnerReference) -> bool {
    owner.api_version.split('/').next() == Some(GROUP)
}

/// What holds up a deletion says nothing of whose child an object is.
fn is_same(one: &OwnerReference, other: &OwnerReference) -> bool {
    let what = |owner: &OwnerReference| OwnerReference { block_owner_deletion: None, ..owner.clone() };
    what(one) == what(other)
}
