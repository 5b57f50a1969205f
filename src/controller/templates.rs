//! The templates of the cluster, cached, and the graphs that wait for one.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use kube::{
    core::DeserializeGuard,
    runtime::reflector::{ObjectRef, Store},
};
use parking_lot::Mutex;

use super::view::GraphView;
use crate::{
    api::{ClusterTaskTemplate, Task, TaskGraphSpec, TaskTemplate, TemplateKind},
    engine::Templates,
};

/// The caches of both kinds of template.
#[derive(Debug)]
pub struct TemplateCache {
    /// Of all namespaces that are watched.
    pub namespaced: Store<DeserializeGuard<TaskTemplate>>,
    /// The cluster's.
    pub cluster: Store<DeserializeGuard<ClusterTaskTemplate>>,
    waiting: Mutex<BTreeSet<(String, String)>>,
    version: AtomicU64,
}

impl TemplateCache {
    /// Over these caches.
    pub fn new(
        namespaced: Store<DeserializeGuard<TaskTemplate>>,
        cluster: Store<DeserializeGuard<ClusterTaskTemplate>>,
    ) -> Self {
        Self { namespaced, cluster, waiting: Mutex::default(), version: AtomicU64::new(0) }
    }

    /// Those templates that a spec names and that are there. One that cannot be read counts as not there.
    pub fn of(&self, spec: &TaskGraphSpec, namespace: &str) -> Templates {
        let mut templates = Templates::new();
        for reference in spec.tasks.iter().chain(&spec.finally).flat_map(Task::templates) {
            let found = match reference.kind {
                TemplateKind::TaskTemplate => self
                    .namespaced
                    .get(&ObjectRef::new(&reference.name).within(namespace))
                    .and_then(|template| template.0.as_ref().ok().map(|template| template.spec.clone())),
                TemplateKind::ClusterTaskTemplate => self
                    .cluster
                    .get(&ObjectRef::new(&reference.name))
                    .and_then(|template| template.0.as_ref().ok().map(|template| template.spec.0.clone())),
            };
            if let Some(spec) = found {
                templates.entry(reference.clone()).or_insert_with(|| Arc::new(spec));
            }
        }
        templates
    }

    /// A number that is another one whenever a template may be.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Notes that a template was added or changed.
    pub fn changed(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
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
