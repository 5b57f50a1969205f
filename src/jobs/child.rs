//! An attempt as a child graph.

use serde_json::{Map, Value, json};

use super::build::{Item, Order};
use crate::{
    api::{ANNOTATION_HASH, ANNOTATION_REVISION, GROUP, MANAGER, PodDefaults, TaskTemplateSpec, TemplateRef, VERSION},
    engine::{Identity, Launch, graph::TaskDef, payload::PayloadKind},
};

impl<'a> Order<'a> {
    /// The order that a launch of `task`, which runs a graph template, means.
    pub fn of_child(
        graph: &'a Identity,
        task: &'a TaskDef,
        launch: &'a Launch,
        defaults: Option<&'a PodDefaults>,
    ) -> Self {
        Self {
            graph,
            role: task.role(),
            task: &task.name,
            attempt: launch.attempt.number,
            item: Item::of(task, launch),
            definition: task.hash,
            // that of an attempt with items covers all of them, and its operator ends them
            timeout: task.timeout.filter(|_| launch.attempt.item.is_none()),
            // of a child graph nothing is made from it
            kind: PayloadKind::Container,
            rendered: &launch.rendered,
            defaults,
            items: None,
            volumes: &[],
        }
    }

    /// The child graph, to be created as it is. It reads the templates from the parent's `revision`, so that it runs
    /// what its parent was accepted with, whatever became of the templates since.
    pub fn child(&self, reference: &TemplateRef, template: Option<&TaskTemplateSpec>, revision: &str) -> Value {
        let mut labels = self.labels();
        labels.insert("app.kubernetes.io/managed-by".into(), MANAGER.into());
        let mut spec = Map::from_iter([("templateRef".to_owned(), json!(reference))]);
        if self.rendered.as_object().is_some_and(|arguments| !arguments.is_empty()) {
            spec.insert("arguments".into(), self.rendered.clone());
        }
        if let Some(timeout) = self.timeout {
            spec.insert("timeout".into(), timeout.to_string().into());
        }
        if let Some(defaults) = self.child_defaults(template) {
            spec.insert("podDefaults".into(), json!(defaults));
        }
        json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "TaskGraph",
            "metadata": {
                "name": self.name(),
                "namespace": self.graph.namespace,
                "labels": labels,
                "annotations": {ANNOTATION_HASH: self.hash(), ANNOTATION_REVISION: revision},
                "ownerReferences": [self.owner()],
            },
            "spec": spec,
        })
    }

    /// What the parent's pods share, the child's share too, where its template leaves it open.
    fn child_defaults(&self, template: Option<&TaskTemplateSpec>) -> Option<PodDefaults> {
        let parents = self.defaults?;
        let own = template.and_then(|template| template.graph.as_ref()?.pod_defaults.as_ref());
        Some(own.map_or_else(|| parents.clone(), |own| own.over(parents)))
    }
}
