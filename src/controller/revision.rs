//! What a graph began with, pinned in a `ControllerRevision`: the accepted spec and the templates it uses.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
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

    /// The spec with another one's settings: those fields that may change while the graph runs.
    pub fn with_settings_of(&self, spec: &TaskGraphSpec) -> TaskGraphSpec {
        TaskGraphSpec {
            arguments: self.spec.arguments.clone(),
            pod_defaults: self.spec.pod_defaults.clone(),
            tasks: self.spec.tasks.clone(),
            finally: self.spec.finally.clone(),
            volume_claim_templates: self.spec.volume_claim_templates.clone(),
            ..spec.clone()
        }
    }

    /// The fields that may not change while the graph runs and are others in `spec`.
    pub fn changed_fields(&self, spec: &TaskGraphSpec) -> Vec<&'static str> {
        let pinned = &self.spec;
        [
            ("spec.arguments", pinned.arguments == spec.arguments),
            ("spec.podDefaults", pinned.pod_defaults == spec.pod_defaults),
            ("spec.tasks", pinned.tasks == spec.tasks),
            ("spec.finally", pinned.finally == spec.finally),
            ("spec.volumeClaimTemplates", pinned.volume_claim_templates == spec.volume_claim_templates),
        ]
        .into_iter()
        .filter_map(|(field, same)| (!same).then_some(field))
        .collect()
    }

    /// The name of a graph's first revision: the same for every operator that looks at it.
    pub fn name(view: &GraphView) -> String {
        jobs::job_name(view.name(), view.uid(), "revision", "revision", 1)
    }

    /// The object to store.
    pub fn to_object(&self, view: &GraphView) -> Value {
        json!({
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "metadata": {
                "name": Self::name(view),
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
            "revision": 1,
            "data": self,
        })
    }

    /// Reads a stored object; `None` if it is not this graph's or cannot be read.
    pub fn from_object(object: &ControllerRevision, view: &GraphView) -> Option<Self> {
        let owners = object.metadata.owner_references.as_deref().unwrap_or_default();
        if !owners.iter().any(|owner| owner.uid == view.uid()) {
            return None;
        }
        serde_json::from_value(object.data.as_ref()?.0.clone()).ok()
    }
}
