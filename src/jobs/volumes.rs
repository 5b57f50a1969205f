//! Claims of a graph: as objects, and in the pods that mount them.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};

use super::name::{claim_name, shard};
use crate::{
    api::{
        GROUP, LABEL_GRAPH, LABEL_GRAPH_UID, LABEL_ROLE, LABEL_SHARD, LABEL_VOLUME, MANAGER, ROLE_VOLUME, VERSION,
        VolumeClaimTemplate, VolumeUse,
    },
    engine::{Identity, payload::mounts::target},
};

/// The `PersistentVolumeClaim` that a template of a graph stands for, to be created as it is. It is deleted with the
/// graph.
pub fn claim(graph: &Identity, template: &VolumeClaimTemplate) -> Value {
    let texts = |map: &std::collections::BTreeMap<String, String>| -> Map<String, Value> {
        map.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect()
    };
    let mut labels = texts(&template.labels);
    labels.extend(
        [
            (LABEL_GRAPH, graph.name.clone()),
            (LABEL_GRAPH_UID, graph.uid.clone()),
            (LABEL_ROLE, ROLE_VOLUME.to_owned()),
            (LABEL_VOLUME, template.name.clone()),
            (LABEL_SHARD, shard(&graph.uid).to_string()),
            ("app.kubernetes.io/managed-by", MANAGER.to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value.into())),
    );
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": claim_name(&graph.name, &graph.uid, &template.name),
            "namespace": graph.namespace,
            "labels": labels,
            "annotations": texts(&template.annotations),
            "ownerReferences": [{
                "apiVersion": format!("{GROUP}/{VERSION}"),
                "kind": "TaskGraph",
                "name": graph.name,
                "uid": graph.uid,
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        },
        "spec": template.spec,
    })
}

/// Whether a claim that stands in the way of a create is the one that the create would have made.
pub fn is_ours(graph: &Identity, volume: &str, existing: &ObjectMeta) -> bool {
    let owners = existing.owner_references.as_deref().unwrap_or_default();
    let owned = owners.iter().any(|owner| owner.controller == Some(true) && owner.uid == graph.uid);
    let label = existing.labels.as_ref().and_then(|labels| labels.get(LABEL_VOLUME));
    owned && label.is_some_and(|label| label == volume)
}

/// Adds the volumes of a task to its pod, and mounts them.
///
/// A container that the pod does not have mounts nothing: that was refused when the graph was checked.
pub fn mount(metadata: &Map<String, Value>, spec: &mut Map<String, Value>, graph: &Identity, uses: &[VolumeUse]) {
    if uses.is_empty() {
        return;
    }
    let names: BTreeSet<&str> = uses.iter().map(|volume| volume.name.as_str()).collect();
    let volumes = names.into_iter().map(|name| {
        let claim = claim_name(&graph.name, &graph.uid, name);
        json!({"name": name, "persistentVolumeClaim": {"claimName": claim}})
    });
    append(spec, "volumes", volumes);
    let annotations = json!({"annotations": metadata.get("annotations")});
    for volume in uses {
        let pod = Value::Object(std::mem::take(spec));
        let place = target(&annotations, &pod, volume.container.as_deref());
        if let Value::Object(pod) = pod {
            *spec = pod;
        }
        let container = place.and_then(|place| spec.get_mut(place.list)?.get_mut(place.index)?.as_object_mut());
        if let Some(container) = container {
            append(container, "volumeMounts", [mount_of(volume)]);
        }
    }
}

fn mount_of(volume: &VolumeUse) -> Value {
    let mut mount = json!({"name": volume.name, "mountPath": volume.mount_path});
    if let Some(path) = &volume.sub_path {
        mount["subPath"] = path.as_str().into();
    }
    if volume.read_only == Some(true) {
        mount["readOnly"] = true.into();
    }
    mount
}

/// Adds to the list at `key`, which is made where there is none.
fn append(object: &mut Map<String, Value>, key: &str, more: impl IntoIterator<Item = Value>) {
    let mut list = match object.remove(key) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    list.extend(more);
    object.insert(key.to_owned(), list.into());
}
