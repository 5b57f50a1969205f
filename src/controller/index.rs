//! The Jobs and pods of every graph, by graph and attempt, and which of them changed.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use kube::{ResourceExt, runtime::reflector::ObjectRef};
use parking_lot::Mutex;

use super::{children, view::GraphView};
use crate::{
    api::LABEL_GRAPH,
    engine::Role,
    jobs::{self, JobView, PodView},
};

/// An attempt, or an item of one, by the labels of its Job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Whether it does the task or undoes it.
    pub role: Role,
    /// Name of the task.
    pub task: String,
    /// Number of the attempt.
    pub attempt: u32,
    /// Place of the item, where each has a Job or child graph of its own.
    pub item: Option<u32>,
}

/// What is cached of one attempt.
#[derive(Clone, Debug, Default)]
pub struct Cached {
    /// Its Job.
    pub job: Option<Arc<JobView>>,
    /// Its child graph.
    pub child: Option<Arc<GraphView>>,
    /// Its pods, by UID.
    pub pods: BTreeMap<String, Arc<PodView>>,
    /// Its Job, or child graph, was there and is there no more.
    pub job_vanished: bool,
}

/// An attempt that changed since it was last looked at.
#[derive(Clone, Debug)]
pub struct Changed {
    /// Which.
    pub key: Key,
    /// What is cached of it now.
    pub cached: Cached,
    /// When the first of the changes came in.
    pub since: Instant,
}

#[derive(Debug)]
struct Objects {
    graph: ObjectRef<GraphView>,
    attempts: BTreeMap<Key, Cached>,
    changed: BTreeMap<Key, Instant>,
    /// Nobody asks for its changes any more: it finished or is gone.
    settled: bool,
}

impl Cached {
    fn is_empty(&self) -> bool {
        self.job.is_none() && self.child.is_none() && self.pods.is_empty()
    }
}

impl Objects {
    fn settle(&mut self) {
        self.settled = true;
        self.changed.clear();
        self.attempts.retain(|_, cached| !cached.is_empty());
    }

    fn mark(&mut self, key: Key) {
        if !self.settled {
            self.changed.entry(key).or_insert_with(Instant::now);
        } else if self.attempts.get(&key).is_some_and(Cached::is_empty) {
            self.attempts.remove(&key);
        }
    }
}

/// The index. All methods are short; none waits.
#[derive(Debug, Default)]
pub struct Index {
    graphs: Mutex<HashMap<String, Objects>>,
}

/// An object that is indexed: a Job, a child graph or a pod.
pub trait Indexed: ResourceExt {
    /// Puts itself into what is cached of its attempt.
    fn put(self, cached: &mut Cached);
    /// Takes itself out. False if it was not in.
    fn take(cached: &mut Cached, uid: &str) -> bool;
    /// The UIDs of its kind in what is cached of an attempt.
    fn uids(cached: &Cached) -> Vec<String>;
    /// Whether it may be what its labels say. Labels are copied easily: with a Job that somebody runs once more by hand.
    fn fits(&self, labels: &jobs::Key<'_>, graph: &str) -> bool;
}

impl Indexed for JobView {
    fn put(self, cached: &mut Cached) {
        cached.job_vanished = false;
        cached.job = Some(Arc::new(self));
    }

    fn take(cached: &mut Cached, uid: &str) -> bool {
        let found = cached.job.take_if(|job| job.metadata.uid.as_deref() == Some(uid)).is_some();
        cached.job_vanished |= found;
        found
    }

    fn uids(cached: &Cached) -> Vec<String> {
        cached.job.iter().filter_map(|job| job.uid()).collect()
    }

    fn fits(&self, labels: &jobs::Key<'_>, graph: &str) -> bool {
        let name = labels.job_name(graph, self.is_indexed());
        self.metadata.name.as_ref() == Some(&name) && self.owner_uid() == Some(labels.graph_uid)
    }
}

impl Indexed for PodView {
    fn put(self, cached: &mut Cached) {
        if let Some(uid) = self.uid() {
            cached.pods.insert(uid, Arc::new(self));
        }
    }

    fn take(cached: &mut Cached, uid: &str) -> bool {
        cached.pods.remove(uid).is_some()
    }

    fn uids(cached: &Cached) -> Vec<String> {
        cached.pods.keys().cloned().collect()
    }

    /// Of the pods of an attempt those count that its Job controls, and those that outlived it.
    fn fits(&self, _: &jobs::Key<'_>, _: &str) -> bool {
        !jobs::is_copied_pod(self)
    }
}

impl Indexed for GraphView {
    fn put(self, cached: &mut Cached) {
        cached.job_vanished = false;
        cached.child = Some(Arc::new(self));
    }

    fn take(cached: &mut Cached, uid: &str) -> bool {
        let found = cached.child.take_if(|child| child.uid() == uid).is_some();
        cached.job_vanished |= found;
        found
    }

    fn uids(cached: &Cached) -> Vec<String> {
        cached.child.iter().map(|child| child.uid().to_owned()).collect()
    }

    fn fits(&self, labels: &jobs::Key<'_>, graph: &str) -> bool {
        self.name() == labels.job_name(graph, false)
            && self.parent().is_some_and(|(parent, _)| parent == labels.graph_uid)
    }
}

impl Index {
    /// Takes in an object that was added or changed. Answers which graph to look at; `None` where the labels
    /// are not ours or make no sense.
    pub fn apply<T: Indexed>(&self, object: T) -> Option<ObjectRef<GraphView>> {
        let (uid, key, graph) = place(&object)?;
        let mut graphs = self.graphs.lock();
        let objects = graphs.entry(uid).or_insert_with(|| Objects {
            graph: graph.clone(),
            attempts: BTreeMap::new(),
            changed: BTreeMap::new(),
            settled: false,
        });
        object.put(objects.attempts.entry(key.clone()).or_default());
        objects.mark(key);
        Some(graph)
    }

    /// Takes out an object that was deleted.
    pub fn delete<T: Indexed>(&self, object: &T) -> Option<ObjectRef<GraphView>> {
        let (uid, key, graph) = place(object)?;
        let mut graphs = self.graphs.lock();
        let objects = graphs.get_mut(&uid)?;
        let cached = objects.attempts.get_mut(&key)?;
        if T::take(cached, &object.uid()?) {
            objects.mark(key);
        }
        if objects.settled && objects.attempts.is_empty() {
            graphs.remove(&uid);
        }
        Some(graph)
    }

    /// Takes out all objects of a kind but these: a watch began anew, and what it did not list is gone.
    /// Answers the graphs to look at.
    pub fn retain<T: Indexed>(&self, uids: &HashSet<String>) -> Vec<ObjectRef<GraphView>> {
        let mut touched = Vec::new();
        let mut graphs = self.graphs.lock();
        for objects in graphs.values_mut() {
            let mut gone = Vec::new();
            for (key, cached) in &mut objects.attempts {
                for uid in T::uids(cached) {
                    if !uids.contains(&uid) && T::take(cached, &uid) {
                        gone.push(key.clone());
                    }
                }
            }
            if !gone.is_empty() {
                touched.push(objects.graph.clone());
            }
            for key in gone {
                objects.mark(key);
            }
        }
        graphs.retain(|_, objects| !(objects.settled && objects.attempts.is_empty()));
        touched
    }

    /// The attempts of a graph that changed since the last call.
    pub fn take_changed(&self, graph_uid: &str) -> Vec<Changed> {
        let mut graphs = self.graphs.lock();
        let Some(objects) = graphs.get_mut(graph_uid) else { return Vec::new() };
        objects.settled = false;
        let changed = std::mem::take(&mut objects.changed);
        changed
            .into_iter()
            .map(|(key, since)| {
                let cached = objects.attempts.get(&key).cloned().unwrap_or_default();
                if cached.is_empty() {
                    objects.attempts.remove(&key);
                }
                Changed { key, cached, since }
            })
            .collect()
    }

    /// Makes all that is cached of a graph count as changed: someone looks at it for the first time.
    pub fn touch(&self, graph_uid: &str) {
        if let Some(objects) = self.graphs.lock().get_mut(graph_uid) {
            let now = Instant::now();
            objects.settled = false;
            for key in objects.attempts.keys() {
                objects.changed.entry(key.clone()).or_insert(now);
            }
        }
    }

    /// What is cached of an attempt.
    pub fn attempt(&self, graph_uid: &str, key: &Key) -> Cached {
        self.graphs.lock().get(graph_uid).and_then(|objects| objects.attempts.get(key).cloned()).unwrap_or_default()
    }

    /// Forgets the changes of a graph that needs no more looking after; the objects stay until they are deleted.
    pub fn settle(&self, graph_uid: &str) {
        let mut graphs = self.graphs.lock();
        if let Some(objects) = graphs.get_mut(graph_uid) {
            objects.settle();
            if objects.attempts.is_empty() {
                graphs.remove(graph_uid);
            }
        }
    }

    /// As [`Self::settle`], for all graphs but these.
    pub fn settle_others(&self, known: impl Fn(&str) -> bool) {
        let mut graphs = self.graphs.lock();
        graphs.iter_mut().filter(|(uid, _)| !known(uid)).for_each(|(_, objects)| objects.settle());
        graphs.retain(|_, objects| !(objects.settled && objects.attempts.is_empty()));
    }

    /// The Jobs of a graph that may still run something.
    pub fn jobs_that_go_on(&self, graph_uid: &str) -> Vec<Arc<JobView>> {
        let graphs = self.graphs.lock();
        let attempts = graphs.get(graph_uid).into_iter().flat_map(|objects| objects.attempts.values());
        let goes_on = |cached: &Cached| {
            let pods: Vec<_> = cached.pods.values().map(AsRef::as_ref).collect();
            cached.job.clone().filter(|job| jobs::goes_on(job, &pods))
        };
        attempts.filter_map(goes_on).collect()
    }
}

impl Index {
    /// The child graphs of a graph that may still run something.
    pub fn children_that_go_on(&self, graph_uid: &str) -> Vec<Arc<GraphView>> {
        let graphs = self.graphs.lock();
        let attempts = graphs.get(graph_uid).into_iter().flat_map(|objects| objects.attempts.values());
        attempts.filter_map(|cached| cached.child.clone()).filter(|child| children::goes_on(child)).collect()
    }
}

/// UID of its graph, its attempt, and a reference to its graph.
fn place<T: Indexed>(object: &T) -> Option<(String, Key, ObjectRef<GraphView>)> {
    let graph = object.labels().get(LABEL_GRAPH)?;
    let labels = jobs::labels_of(object.meta()).filter(|labels| object.fits(labels, graph))?;
    let role = Role::of_label(labels.role)?;
    let reference = ObjectRef::new(graph).within(&object.namespace()?);
    let key = Key { role, task: labels.task.to_owned(), attempt: labels.attempt, item: labels.item };
    Some((labels.graph_uid.to_owned(), key, reference))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn labels(graph: &str, attempt: &str) -> serde_json::Value {
        json!({
            "taskgraph.dev/graph": graph, "taskgraph.dev/graph-uid": format!("uid-{graph}"), "taskgraph.dev/role": "task",
            "taskgraph.dev/task": "build", "taskgraph.dev/attempt": attempt,
        })
    }

    fn job(uid: &str, graph: &str, attempt: &str) -> JobView {
        let owner = format!("uid-{graph}");
        let name = jobs::job_name(graph, &owner, Role::Task.label(), "build", attempt.parse().unwrap_or_default());
        let metadata = json!({
            "name": name, "namespace": "ns", "uid": uid, "labels": labels(graph, attempt),
            "ownerReferences": [{"apiVersion": "v", "kind": "TaskGraph", "name": graph, "uid": owner, "controller": true}],
        });
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    fn pod(uid: &str, graph: &str) -> PodView {
        let owner = json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "j1", "controller": true}]);
        let metadata =
            json!({"name": uid, "namespace": "ns", "uid": uid, "labels": labels(graph, "1"), "ownerReferences": owner});
        serde_json::from_value(json!({"metadata": metadata})).unwrap()
    }

    #[test]
    fn changes_are_told_once_with_what_is_cached() {
        let index = Index::default();
        let graph = index.apply(job("j1", "g", "1")).unwrap();
        assert_eq!((graph.name.as_str(), graph.namespace.as_deref()), ("g", Some("ns")));
        index.apply(pod("p1", "g"));
        index.apply(job("other", "h", "1"));

        let changed = index.take_changed("uid-g");
        assert_eq!(changed.len(), 1, "one attempt, however many objects");
        assert_eq!(changed[0].key, Key { role: Role::Task, task: "build".into(), attempt: 1, item: None });
        assert!(changed[0].cached.job.is_some() && changed[0].cached.pods.len() == 1);
        assert!(index.take_changed("uid-g").is_empty());

        index.touch("uid-g");
        assert_eq!(index.take_changed("uid-g").len(), 1);
    }

    #[test]
    fn a_job_that_is_gone_is_told_as_vanished_until_it_is_there_again() {
        let index = Index::default();
        index.apply(job("j1", "g", "1"));
        index.take_changed("uid-g");
        index.delete(&job("j1", "g", "1"));
        let changed = index.take_changed("uid-g");
        assert!(changed[0].cached.job.is_none() && changed[0].cached.job_vanished);

        index.apply(job("j2", "g", "1"));
        index.delete(&job("j1", "g", "1"));
        let changed = index.take_changed("uid-g");
        assert!(changed[0].cached.job.is_some(), "the late end of an older Job of that name takes nothing out");
        assert!(!changed[0].cached.job_vanished);
    }

    #[test]
    fn what_a_new_list_lacks_is_gone() {
        let index = Index::default();
        for (uid, attempt) in [("j1", "1"), ("j2", "2")] {
            index.apply(job(uid, "g", attempt));
        }
        index.apply(pod("p1", "g"));
        index.take_changed("uid-g");
        let touched = index.retain::<JobView>(&HashSet::from(["j2".to_owned()]));
        assert_eq!(touched.len(), 1);
        let changed = index.take_changed("uid-g");
        assert_eq!(changed.len(), 1);
        assert!(changed[0].cached.job_vanished && changed[0].cached.pods.len() == 1, "pods have a watch of their own");
        assert!(
            index
                .attempt("uid-g", &Key { role: Role::Task, task: "build".into(), attempt: 2, item: None })
                .job
                .is_some()
        );
    }

    #[test]
    fn a_copy_of_a_job_takes_nobodys_place() {
        let index = Index::default();
        index.apply(job("j1", "g", "1"));
        let mut renamed = job("j2", "g", "1");
        renamed.metadata.name = Some("again".into());
        assert!(index.apply(renamed).is_none());
        let mut foreign = job("j3", "g", "1");
        foreign.metadata.owner_references = None;
        assert!(index.apply(foreign).is_none());
        let mut copy = pod("p1", "g");
        copy.metadata.owner_references = None;
        assert!(index.apply(copy).is_none());
        let cached = index.attempt("uid-g", &Key { role: Role::Task, task: "build".into(), attempt: 1, item: None });
        assert!(cached.pods.is_empty());
        assert_eq!(cached.job.and_then(|job| job.uid()), Some("j1".into()));
    }

    #[test]
    fn nothing_stays_of_a_graph_that_is_gone() {
        let index = Index::default();
        for late in [false, true] {
            index.apply(job("j1", "g", "1"));
            index.apply(pod("p1", "g"));
            index.take_changed("uid-g");
            if late {
                index.settle("uid-g");
            }
            index.delete(&job("j1", "g", "1"));
            index.delete(&pod("p1", "g"));
            assert_eq!(index.graphs.lock().is_empty(), late);
            index.settle_others(|uid| uid != "uid-g");
            assert!(index.graphs.lock().is_empty());
        }
        index.apply(job("j1", "g", "1"));
        index.settle("uid-g");
        assert_eq!(index.jobs_that_go_on("uid-g").len(), 1, "its objects are known until they are deleted");
        index.retain::<JobView>(&HashSet::new());
        assert!(index.graphs.lock().is_empty());
    }

    #[test]
    fn impossible_labels_are_passed_over() {
        let index = Index::default();
        for attempt in ["0", "-1", "x", "", "99999999999"] {
            assert!(index.apply(job("j", "g", attempt)).is_none(), "{attempt:?}");
        }
        assert!(index.take_changed("uid-g").is_empty());
    }
}
