//! What a graph began with, pinned in a `ControllerRevision`: the accepted spec and the templates it uses.

use std::sync::Arc;

use k8s_openapi::{api::apps::v1::ControllerRevision, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::view::GraphView;
use crate::{
    api::{GROUP, LABEL_GRAPH, LABEL_GRAPH_UID, TaskGraphSpec, TaskTemplateSpec, TemplateRef, VERSION},
    engine::Templates,
    jobs,
};

/// The accepted spec and its templates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pinned {
    /// The spec as it was accepted.
    pub spec: TaskGraphSpec,
    /// The templates as they were then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    templates: Vec<PinnedTemplate>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct PinnedTemplate {
    #[serde(flatten)]
    reference: TemplateRef,
    spec: TaskTemplateSpec,
}

impl Pinned {
    /// Pins a spec with the templates that it uses.
    pub fn new(spec: TaskGraphSpec, templates: &Templates) -> Self {
        let templates = templates
            .iter()
            .map(|(reference, spec)| PinnedTemplate { reference: reference.clone(), spec: spec.as_ref().clone() })
            .collect();
        Self { spec, templates }
    }

    /// The pinned templates.
    pub fn templates(&self) -> Templates {
        self.templates.iter().map(|t| (t.reference.clone(), Arc::new(t.spec.clone()))).collect()
    }

    /// Whether `spec` differs in more than settings: then it is an edit, and has a revision of its own.
    pub fn differs_from(&self, spec: &TaskGraphSpec) -> bool {
        let pinned = &self.spec;
        pinned.arguments != spec.arguments
            || pinned.pod_defaults != spec.pod_defaults
            || pinned.tasks != spec.tasks
            || pinned.finally != spec.finally
    }

    /// The name of a graph's revision: the same for every operator that looks at it.
    pub fn name(view: &GraphView, number: u32) -> String {
        jobs::job_name(view.name(), view.uid(), "revision", "revision", number)
    }

    /// The object to store, as revision `number`.
    pub fn to_object(&self, view: &GraphView, number: u32) -> Value {
        json!({
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "metadata": {
                "name": Self::name(view, number),
                "namespace": view.namespace(),
                "labels": {LABEL_GRAPH: view.name(), LABEL_GRAPH_UID: view.uid()},
                "ownerReferences": [{
                    "apiVersion": format!("{GROUP}/{VERSION}"),
                    "kind": "TaskGraph",
                    "name": view.name(),
                    "uid": view.uid(),
                    "controller": true,
                    "blockOwnerDeletion": true,
                }],
            },
            "revision": number,
            "data": self,
        })
    }

    /// Reads a stored object; `None` if it is not this graph's or cannot be read.
    pub fn from_object(object: &ControllerRevision, view: &GraphView) -> Option<Self> {
        Self::of(object, view.uid())
    }

    /// Reads the revision of the graph with this UID; `None` if it is another's or cannot be read.
    pub fn of(object: &ControllerRevision, graph_uid: &str) -> Option<Self> {
        if !is_of(&object.metadata, graph_uid) {
            return None;
        }
        serde_json::from_value(object.data.as_ref()?.0.clone()).ok()
    }
}

/// Whether a revision is a graph's.
pub fn is_of(metadata: &ObjectMeta, graph_uid: &str) -> bool {
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().any(|owner| owner.uid == graph_uid)
}
