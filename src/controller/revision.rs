//! What a graph began with, pinned in a `ControllerRevision`: the accepted spec and the templates it uses.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{templates::Found, view::GraphView};
use crate::{
    api::{
        GROUP, LABEL_GRAPH, LABEL_GRAPH_UID, TaskGraphSpec, TaskTemplateSpec, TemplateRef, TemplateStatus, VERSION,
        VolumeClaimTemplate,
    },
    engine::Templates,
    jobs,
};

/// How many templates the status names; all of them stand in the revision.
const TEMPLATES_TOLD: usize = 64;

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
    /// Generation of its spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    generation: Option<i64>,
    spec: TaskTemplateSpec,
}

impl Pinned {
    /// Pins a spec with the templates that it uses.
    pub fn new(spec: TaskGraphSpec, templates: &Found) -> Self {
        let pinned = templates.specs.iter().map(|(reference, spec)| PinnedTemplate {
            reference: reference.clone(),
            generation: templates.generations.get(reference).copied(),
            spec: spec.as_ref().clone(),
        });
        Self { spec, templates: pinned.collect() }
    }

    /// The pinned templates.
    pub fn templates(&self) -> Templates {
        self.templates.iter().map(|t| (t.reference.clone(), Arc::new(t.spec.clone()))).collect()
    }

    /// The pinned templates, for a child graph that needs some of them.
    pub fn found(&self) -> Found {
        let generations = self.templates.iter().filter_map(|t| Some((t.reference.clone(), t.generation?)));
        Found { generations: generations.collect(), specs: self.templates() }
    }

    /// One of the pinned templates.
    pub fn template(&self, reference: &TemplateRef) -> Option<&TaskTemplateSpec> {
        self.templates.iter().find(|template| template.reference == *reference).map(|template| &template.spec)
    }

    /// The claims of the graph: its own, or those of the template that it runs as a whole.
    pub fn claims(&self) -> &[VolumeClaimTemplate] {
        let template = self.spec.template_ref.as_ref().and_then(|reference| self.template(reference)?.graph.as_ref());
        template.map_or(&self.spec.volume_claim_templates, |graph| &graph.volume_claim_templates)
    }

    /// What the status tells of the pinned templates.
    pub fn told(&self) -> Vec<TemplateStatus> {
        let told = |template: &PinnedTemplate| TemplateStatus {
            kind: template.reference.kind,
            name: template.reference.name.clone(),
            generation: template.generation,
        };
        self.templates.iter().take(TEMPLATES_TOLD).map(told).collect()
    }

    /// The spec with another one's settings: those fields that may change while the graph runs.
    pub fn with_settings_of(&self, spec: &TaskGraphSpec) -> TaskGraphSpec {
        TaskGraphSpec {
            template_ref: self.spec.template_ref.clone(),
            outputs: self.spec.outputs.clone(),
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
            ("spec.templateRef", pinned.template_ref == spec.template_ref),
            ("spec.outputs", pinned.outputs == spec.outputs),
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
        Self::of_graph(object, view.uid())
    }

    /// The same, of the graph with this UID.
    pub fn of_graph(object: &ControllerRevision, uid: &str) -> Option<Self> {
        let owners = object.metadata.owner_references.as_deref().unwrap_or_default();
        if !owners.iter().any(|owner| owner.uid == uid) {
            return None;
        }
        serde_json::from_value(object.data.as_ref()?.0.clone()).ok()
    }
}
