//! The templates of the cluster, cached, and the graphs that wait for one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use kube::{
    core::DeserializeGuard,
    runtime::reflector::{self, ObjectRef, Store, store::Writer},
};
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::info;

use super::{accept::verdict_of, report::Verdict, view::GraphView};
use crate::{
    api::{ClusterTaskTemplate, Task, TaskGraphSpec, TaskTemplate, TaskTemplateSpec, TemplateKind, TemplateRef},
    engine::{Refusal, Templates},
};

/// The reason of a graph that names a template of the cluster, where the operator may not read those.
pub const CLUSTER_TEMPLATES_FORBIDDEN: &str = "ClusterTemplatesForbidden";

/// Templates that were found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// What they say.
    pub specs: Templates,
    /// The generation of each.
    pub generations: BTreeMap<TemplateRef, i64>,
}

impl Found {
    /// What a spec needs: of these, or else of `others`.
    #[must_use]
    pub fn or(&self, others: &Self, spec: &TaskGraphSpec) -> Self {
        needed(spec, |reference| self.get(reference).or_else(|| others.get(reference)))
    }

    fn get(&self, reference: &TemplateRef) -> Option<(Arc<TaskTemplateSpec>, Option<i64>)> {
        Some((Arc::clone(self.specs.get(reference)?), self.generations.get(reference).copied()))
    }

    /// What a spec and the templates that were found name, and is not among them.
    pub fn lacks(&self, spec: &TaskGraphSpec) -> BTreeSet<TemplateRef> {
        let nested = self.specs.values().filter_map(|template| template.graph.as_ref());
        let named = nested.flat_map(|graph| references(graph)).chain(references(spec));
        named.filter(|reference| !self.specs.contains_key(reference)).collect()
    }

    /// Those of them that a spec needs.
    #[must_use]
    pub fn needed_by(&self, spec: &TaskGraphSpec) -> Self {
        needed(spec, |reference| self.get(reference))
    }
}

/// The templates that a spec names, and those that these name in turn.
fn needed(spec: &TaskGraphSpec, get: impl Fn(&TemplateRef) -> Option<(Arc<TaskTemplateSpec>, Option<i64>)>) -> Found {
    let mut found = Found::default();
    let mut wanted = references(spec);
    while let Some(reference) = wanted.pop() {
        if found.specs.contains_key(&reference) {
            continue;
        }
        let Some((spec, generation)) = get(&reference) else { continue };
        wanted.extend(spec.graph.iter().flat_map(|graph| references(graph)));
        found.generations.extend(generation.map(|generation| (reference.clone(), generation)));
        found.specs.insert(reference, spec);
    }
    found
}

/// The templates that a spec names.
fn references(spec: &TaskGraphSpec) -> Vec<TemplateRef> {
    let tasks = spec.tasks.iter().chain(&spec.finally).flat_map(Task::templates);
    spec.template_ref.iter().chain(tasks).cloned().collect()
}

/// A cache and what fills it.
type Filled<K> = (Store<DeserializeGuard<K>>, Writer<DeserializeGuard<K>>);

/// The caches of both kinds of template, and what fills them: made before all that reads them.
pub struct Caches {
    /// Of all namespaces that are watched.
    pub namespaced: Filled<TaskTemplate>,
    /// The cluster's.
    pub cluster: Filled<ClusterTaskTemplate>,
}

impl Default for Caches {
    fn default() -> Self {
        Self { namespaced: reflector::store(), cluster: reflector::store() }
    }
}

impl Caches {
    /// One more reader of the caches.
    pub fn reader(&self) -> TemplateCache {
        TemplateCache::new(self.namespaced.0.clone(), self.cluster.0.clone())
    }
}

/// The caches of both kinds of template.
#[derive(Debug)]
pub struct TemplateCache {
    /// Of all namespaces that are watched.
    pub namespaced: Store<DeserializeGuard<TaskTemplate>>,
    /// The cluster's.
    pub cluster: Store<DeserializeGuard<ClusterTaskTemplate>>,
    waiting: Mutex<BTreeSet<(String, String)>>,
    version: AtomicU64,
    /// The cluster's may not be read, and the operator does without.
    forbidden: watch::Sender<bool>,
}

impl TemplateCache {
    /// Over these caches.
    pub fn new(
        namespaced: Store<DeserializeGuard<TaskTemplate>>,
        cluster: Store<DeserializeGuard<ClusterTaskTemplate>>,
    ) -> Self {
        let forbidden = watch::Sender::new(false);
        Self { namespaced, cluster, waiting: Mutex::default(), version: AtomicU64::new(0), forbidden }
    }

    /// Notes whether the cluster's templates may not be read; said once, not at each try.
    pub fn set_cluster_forbidden(&self, forbidden: bool) {
        if self.forbidden.send_replace(forbidden) == forbidden {
            return;
        }
        if forbidden {
            info!("ClusterTaskTemplates may not be read: graphs of this namespace go on without them");
        } else {
            info!("ClusterTaskTemplates may be read now");
        }
    }

    /// Waits until the cluster's templates are cached, or it turned out that they may not be read.
    pub async fn cluster_known(&self) {
        let mut forbidden = self.forbidden.subscribe();
        tokio::select! {
            // each fails only when the program ends
            _ = self.cluster.wait_until_ready() => {}
            _ = forbidden.wait_for(|forbidden| *forbidden) => {}
        }
    }

    /// What a refusal means for a graph.
    pub fn verdict_of(&self, refusal: &Refusal) -> Verdict {
        let verdict = verdict_of(refusal);
        if !*self.forbidden.borrow() || !matches!(verdict, Verdict::Waiting(..)) {
            return verdict;
        }
        let named = refusal.missing.iter().filter(|(_, named)| named.kind == TemplateKind::ClusterTaskTemplate);
        let lines: Vec<_> = named
            .map(|(path, reference)| {
                let name = &reference.name;
                format!(
                    "{path}: the operator serves this namespace alone and may not read ClusterTaskTemplates, as {name:?} \
                     is one: use a TaskTemplate, or let the operator read them (rbac.clusterTemplates of its chart)"
                )
            })
            .collect();
        if lines.is_empty() { verdict } else { Verdict::Waiting(CLUSTER_TEMPLATES_FORBIDDEN, lines.join("\n")) }
    }

    /// Those templates that a spec needs and that are there. One that cannot be read counts as not there.
    pub fn of(&self, spec: &TaskGraphSpec, namespace: &str) -> Found {
        needed(spec, |reference| self.get(reference, namespace))
    }

    fn get(&self, reference: &TemplateRef, namespace: &str) -> Option<(Arc<TaskTemplateSpec>, Option<i64>)> {
        match reference.kind {
            TemplateKind::TaskTemplate => {
                let found = self.namespaced.get(&ObjectRef::new(&reference.name).within(namespace))?;
                let template = found.0.as_ref().ok()?;
                Some((Arc::new(template.spec.clone()), template.metadata.generation))
            }
            // what was cached before the right was taken away is not used any more
            TemplateKind::ClusterTaskTemplate if *self.forbidden.borrow() => None,
            TemplateKind::ClusterTaskTemplate => {
                let found = self.cluster.get(&ObjectRef::new(&reference.name))?;
                let template = found.0.as_ref().ok()?;
                Some((Arc::new(template.spec.0.clone()), template.metadata.generation))
            }
        }
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn templates_of_templates_are_found_once_each() {
        let reference = |name: &str| TemplateRef { name: name.to_owned(), ..TemplateRef::default() };
        let running = |names: &[&str]| -> Value {
            names.iter().map(|name| json!({"name": name, "templateRef": {"name": name}})).collect()
        };
        let all = Found {
            specs: [
                ("a", running(&["b", "c"])),
                ("b", running(&["a", "gone"])),
                ("c", running(&[])),
                ("other", running(&[])),
            ]
            .into_iter()
            .map(|(name, tasks)| {
                let spec = serde_json::from_value(json!({"graph": {"tasks": tasks}})).unwrap();
                (reference(name), Arc::new(spec))
            })
            .collect(),
            generations: BTreeMap::from([(reference("a"), 3)]),
        };
        for spec in [json!({"templateRef": {"name": "a"}}), json!({"tasks": running(&["c", "a"])})] {
            let found = all.needed_by(&serde_json::from_value(spec).unwrap());
            let names: Vec<_> = found.specs.keys().map(|reference| reference.name.as_str()).collect();
            assert_eq!(names, ["a", "b", "c"]);
            assert_eq!(found.generations, all.generations);
            let lacks: Vec<_> = found.lacks(&TaskGraphSpec::default()).into_iter().map(|one| one.name).collect();
            assert_eq!(lacks, ["gone"]);
        }
    }
}
