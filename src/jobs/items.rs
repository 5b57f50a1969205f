//! The items of an attempt with `forEach`: the `ConfigMap` that holds them, and what the Job is given to go through them.

use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::Xxh3;

use super::name::base32;
use crate::{
    api::{ANNOTATION_ITEMS_HASH, ITEM_INDEX_VARIABLE, ITEM_PATH, ITEM_VOLUME},
    engine::{graph::ForEachDef, policy::items},
};

/// The items of one attempt, one at least.
#[derive(Clone, Copy, Debug)]
pub struct Items<'a> {
    /// How they are gone through.
    pub rule: &'a ForEachDef,
    /// The list.
    pub list: &'a [Value],
}

/// A `ConfigMap` with the items of an attempt, to be created before its Job.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemsMap {
    /// Its name.
    pub name: String,
    /// Hash of what it holds.
    pub hash: String,
    /// The object.
    pub object: Value,
}

impl Items<'_> {
    /// Name of the `ConfigMap` of a Job. It names the content too: what was evaluated in vain before a crash is another
    /// `ConfigMap`, and no Job can come to read the items of another list.
    pub fn name(&self, job: &str) -> String {
        format!("{job}-{}", self.hash())
    }

    fn hash(&self) -> String {
        let mut hasher = Xxh3::new();
        for item in self.list {
            let text = items::file(item);
            // lengths keep ("ab", "c") and ("a", "bc") apart
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        base32(hasher.digest())
    }

    /// The `ConfigMap`, with the metadata of the Job but for name and annotations.
    pub fn config_map(&self, job: &str, metadata: &Map<String, Value>) -> ItemsMap {
        let (name, hash) = (self.name(job), self.hash());
        let mut metadata = metadata.clone();
        metadata.insert("name".into(), name.as_str().into());
        metadata.insert("annotations".into(), json!({ANNOTATION_ITEMS_HASH: hash}));
        let data: Map<String, Value> = self
            .list
            .iter()
            .enumerate()
            .map(|(place, item)| (place.to_string(), items::file(item).into_owned().into()))
            .collect();
        let object = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata,
            "immutable": true,
            "data": data,
        });
        ItemsMap { name, hash, object }
    }

    /// What a Job's spec has in place of `backoffLimit` and `podFailurePolicy` of an attempt with one pod.
    pub fn job_spec(&self) -> Value {
        let count = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        let mut spec = json!({
            "completionMode": "Indexed",
            "completions": count,
            "parallelism": self.rule.parallelism.map_or(count, |limit| limit.min(count)),
            "backoffLimitPerIndex": self.rule.retries_per_item,
            "podReplacementPolicy": "Failed",
            // a disruption is not the item's fault: it gets another pod
            "podFailurePolicy": {"rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            ]},
        });
        if let Some(limit) = self.rule.max_failures {
            // the API server refuses more than there are
            spec["maxFailedIndexes"] = limit.min(count).into();
        }
        spec
    }

    /// Adds the items to a pod's spec: a volume, and in every container the item of its pod as a file.
    pub fn mount(&self, job: &str, spec: &mut Map<String, Value>) {
        push(spec, "volumes", json!({"name": ITEM_VOLUME, "configMap": {"name": self.name(job)}}));
        let mount = json!({
            "name": ITEM_VOLUME,
            "mountPath": ITEM_PATH,
            "subPathExpr": format!("$({ITEM_INDEX_VARIABLE})"),
            "readOnly": true,
        });
        for list in ["initContainers", "containers"] {
            let containers = spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
            for container in containers.filter_map(Value::as_object_mut) {
                push(container, "volumeMounts", mount.clone());
            }
        }
    }
}

/// Adds an element to the list at `key`, which may be absent or `null`.
fn push(object: &mut Map<String, Value>, key: &str, element: Value) {
    match object.get_mut(key) {
        Some(Value::Array(list)) => list.push(element),
        _ => _ = object.insert(key.to_owned(), json!([element])),
    }
}
