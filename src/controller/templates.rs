//! The templates of the cluster, cached, and the graphs that wait for one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kube::{
    core::DeserializeGuard,
    runtime::reflector::{ObjectRef, Store},
};
use parking_lot::Mutex;

use super::view::GraphView;
use crate::{
    api::{ClusterTaskTemplate, TaskGraphSpec, TaskTemplate, TaskTemplateSpec, TemplateKind, TemplateRef},
    engine::Templates,
};

/// Templates that were found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// What they say.
    pub specs: Templates,
    /// The generation of each.
    pub generations: BTreeMap<TemplateRef, i64>,
}

/// The templates that a spec names.
fn references(spec: &TaskGraphSpec) -> Vec<TemplateRef> {
    let tasks = spec.tasks.iter().chain(&spec.finally).filter_map(|task| task.template_ref.as_ref());
    spec.template_ref.iter().chain(tasks).cloned().collect()
}

/// The caches of both kinds of template.
#[derive(Debug)]
pub struct TemplateCache {
    /// Of all namespaces that are watched.
    pub namespaced: Store<DeserializeGuard<TaskTemplate>>,
    /// The cluster's.
    pub cluster: Store<DeserializeGuard<ClusterTaskTemplate>>,
    waiting: Mutex<BTreeSet<(String, String)>>,
}

impl TemplateCache {
    /// Over these caches.
    pub fn new(
        namespaced: Store<DeserializeGuard<TaskTemplate>>,
        cluster: Store<DeserializeGuard<ClusterTaskTemplate>>,
    ) -> Self {
        Self { namespaced, cluster, waiting: Mutex::default() }
    }

    /// Those templates that a spec needs and that are there: the ones that it names, and those that these name in turn.
    /// One that cannot be read counts as not there.
    pub fn of(&self, spec: &TaskGraphSpec, namespace: &str) -> Found {
        let mut found = Found::default();
        let mut wanted = references(spec);
        while let Some(reference) = wanted.pop() {
            if found.specs.contains_key(&reference) {
                continue;
            }
            let Some((spec, generation)) = self.get(&reference, namespace) else { continue };
            wanted.extend(spec.graph.iter().flat_map(|graph| references(graph)));
            found.generations.extend(generation.map(|generation| (reference.clone(), generation)));
            found.specs.insert(reference, Arc::new(spec));
        }
        found
    }

    fn get(&self, reference: &TemplateRef, namespace: &str) -> Option<(TaskTemplateSpec, Option<i64>)> {
        match reference.kind {
            TemplateKind::TaskTemplate => {
                let found = self.namespaced.get(&ObjectRef::new(&reference.name).within(namespace))?;
                let template = found.0.as_ref().ok()?;
                Some((template.spec.clone(), template.metadata.generation))
            }
            TemplateKind::ClusterTaskTemplate => {
                let found = self.cluster.get(&ObjectRef::new(&reference.name))?;
                let template = found.0.as_ref().ok()?;
                Some((template.spec.0.clone(), template.metadata.generation))
            }
        }
    }

    /// Notes that a graph waits for a template, or waits no more.
    pub fn set_waiting(&self, view: &GraphView, waits: bool) {
        let key = (view.namespace().to_owned(), view.name().to_owned());
        if waits {
            self.waiting.lock().insert(key);
        } else {
            self.waiting.lock().remove(&key);
        }
    }

    /// The graphs that wait: a template was added or changed.
    pub fn waiting(&self) -> Vec<ObjectRef<GraphView>> {
        self.waiting.lock().iter().map(|(namespace, name)| ObjectRef::new(name).within(namespace)).collect()
    }
}
