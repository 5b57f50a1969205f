//! An attempt as a child graph.

use serde_json::{Map, Value, json};

use super::build::Order;
use crate::api::{ANNOTATION_HASH, ANNOTATION_REVISION, GROUP, PodDefaults, TaskTemplateSpec, TemplateRef, VERSION};

impl Order<'_> {
    /// The child graph, to be created as it is. It reads the templates from the parent's `revision`, so that it runs
    /// what its parent was accepted with, whatever became of the templates since.
    pub fn child(&self, reference: &TemplateRef, template: Option<&TaskTemplateSpec>, revision: &str) -> Value {
        let mut spec = Map::from_iter([("templateRef".to_owned(), json!(reference))]);
        if self.rendered.as_object().is_some_and(|arguments| !arguments.is_empty()) {
            spec.insert("arguments".into(), self.rendered.clone());
        }
        // that of an attempt with items covers all of them, and its operator ends them
        if let Some(timeout) = self.timeout.filter(|_| self.item.is_none()) {
            spec.insert("timeout".into(), timeout.to_string().into());
        }
        if let Some(defaults) = self.child_defaults(template) {
            spec.insert("podDefaults".into(), json!(defaults));
        }
        let mut metadata = self.metadata();
        metadata.insert("name".into(), self.name().into());
        metadata.insert("annotations".into(), json!({ANNOTATION_HASH: self.hash(), ANNOTATION_REVISION: revision}));
        json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": "TaskGraph", "metadata": metadata, "spec": spec})
    }

    /// What the parent's pods share, the child's share too, where its template leaves it open.
    fn child_defaults(&self, template: Option<&TaskTemplateSpec>) -> Option<PodDefaults> {
        let parents = self.defaults?;
        let own = template.and_then(|template| template.graph.as_ref()?.pod_defaults.as_ref());
        Some(own.map_or_else(|| parents.clone(), |own| own.over(parents)))
    }
}
