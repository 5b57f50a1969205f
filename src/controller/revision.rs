//! What a graph began with, pinned in a `ControllerRevision`: the accepted spec and the templates it uses.

use std::sync::Arc;

use k8s_openapi::{api::apps::v1::ControllerRevision, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{templates::Found, view::GraphView};
use crate::{
    api::{
        GROUP, LABEL_GRAPH, LABEL_GRAPH_UID, Task, TaskGraphSpec, TaskTemplateSpec, TemplateRef, TemplateStatus,
        VERSION, VolumeClaimTemplate,
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
        &self.graph().volume_claim_templates
    }

    /// The tasks of the graph: its own, or those of the template that it runs as a whole.
    pub fn tasks(&self) -> &[Task] {
        &self.graph().tasks
    }

    /// The spec that says what there is to do: its own, or that of the template that it runs as a whole.
    fn graph(&self) -> &TaskGraphSpec {
        let template = self.spec.template_ref.as_ref().and_then(|reference| self.template(reference)?.graph.as_deref());
        template.unwrap_or(&self.spec)
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

    /// Whether `spec` differs in more than settings: then it is an edit, and has a revision of its own.
    pub fn differs_from(&self, spec: &TaskGraphSpec) -> bool {
        let pinned = &self.spec;
        pinned.template_ref != spec.template_ref
            || pinned.outputs != spec.outputs
            || pinned.arguments != spec.arguments
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
