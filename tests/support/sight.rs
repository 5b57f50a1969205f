//! What an independent watch sees of a namespace's graphs, Jobs and pods: never what the operator says it did.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ContainerStateTerminated, Pod},
};
use kube::{
    Api, Resource, ResourceExt,
    api::ListParams,
    runtime::{WatchStreamExt, watcher},
};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use taskgraph::api::{LABEL_ATTEMPT, LABEL_GRAPH_UID, LABEL_ITEM, LABEL_ROLE, LABEL_TASK, TaskGraph};
use tokio::{sync::watch, task::JoinSet};

use super::{
    namespace::{Namespace, PATIENCE},
    player,
};

/// Whose Job or pod it is, as its labels say.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// UID of the graph.
    pub graph: String,
    /// What for.
    pub role: String,
    /// Name of the task.
    pub task: String,
    /// Number of the attempt.
    pub attempt: u32,
    /// Place of the item, where each has a Job or child graph of its own.
    pub item: Option<usize>,
}

/// When something came to be so, in versions. A watch that broke begins anew with a list, which tells how things are and not
/// since when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Not before this one.
    pub since: u64,
    /// In this one at the latest.
    pub version: u64,
}

impl Span {
    /// Whether it may have been before `other`.
    pub fn may_precede(self, other: Self) -> bool {
        self.since < other.version
    }

    /// Whether it was before `other`, without a doubt.
    pub fn precedes(self, other: Self) -> bool {
        self.version < other.since
    }
}

/// One version of one object.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// Its place in the order of all writes to the API server: etcd counts all kinds together.
    pub version: u64,
    /// From when on it may have been so: `version`, unless it was found in a list.
    pub since: u64,
    /// When it was seen.
    pub at: Instant,
    /// UID of the object.
    pub uid: String,
    /// Name of the object.
    pub name: String,
    /// Whether it was deleted.
    pub gone: bool,
    /// The object.
    pub object: Object,
}

impl Sighting {
    /// When it came to be so.
    pub fn span(&self) -> Span {
        Span { since: self.since, version: self.version }
    }
}

/// An object that was seen.
#[derive(Clone, Debug)]
pub enum Object {
    /// A Job.
    Job(Key),
    /// A Job with a pod for each of many items, after it ended.
    Items(Key, ItemsEnd),
    /// A pod.
    Pod(Key, PodState),
    /// A graph.
    Graph(Arc<TaskGraph>),
}

/// How a Job with many items ended.
#[derive(Clone, Debug, Default)]
pub struct ItemsEnd {
    /// How many items it had.
    pub total: usize,
    /// Whether no more of them failed than may.
    pub well: bool,
}

/// What matters of a pod.
#[derive(Clone, Debug, Default)]
pub struct PodState {
    /// Its phase.
    pub phase: String,
    /// How its first container ended.
    pub terminated: Option<ContainerStateTerminated>,
    /// What its first container waits for, other than being made: a word for programs.
    pub waits: Option<String>,
    /// Place of its item, in a Job with many.
    pub item: Option<usize>,
    /// Whether it was evicted, preempted, or lost its machine.
    pub disrupted: bool,
}

impl PodState {
    /// Whether its containers have ended.
    pub fn is_terminal(&self) -> bool {
        self.phase == "Succeeded" || self.phase == "Failed"
    }
}

/// Watches a namespace as long as it lives.
pub struct Sight {
    namespace: Namespace,
    seen: Arc<Mutex<Vec<Sighting>>>,
    count: watch::Receiver<usize>,
    _watches: JoinSet<()>,
}

impl Sight {
    /// Begins. Returns once all three watches stand, so that nothing later is missed.
    pub async fn start(namespace: &Namespace) -> Result<Self> {
        let seen = Arc::default();
        let (sender, count) = watch::channel(0);
        let sender = Arc::new(sender);
        let mut watches = JoinSet::new();
        let (ready, mut stands) = tokio::sync::mpsc::channel(3);
        let recorder = Recorder { seen: Arc::clone(&seen), count: sender, ready };
        watches.spawn(recorder.clone().record(namespace.api::<Job>(), job));
        watches.spawn(recorder.clone().record(namespace.api::<Pod>(), |pod| Object::Pod(key(pod), pod_state(pod))));
        watches.spawn(recorder.record(namespace.api::<TaskGraph>(), |graph| Object::Graph(Arc::new(graph.clone()))));
        for _ in 0..3 {
            tokio::time::timeout(PATIENCE, stands.recv()).await.context("the watch does not stand")?;
        }
        Ok(Self { namespace: namespace.clone(), seen, count, _watches: watches })
    }

    /// What was seen so far, in the order in which it was written.
    pub fn so_far(&self) -> Vec<Sighting> {
        let mut seen = self.seen.lock().clone();
        seen.sort_by_key(|sighting| sighting.version);
        seen
    }

    /// Waits until `wanted` gives a value for what was seen.
    ///
    /// # Panics
    /// If that does not happen.
    pub async fn until<T>(&self, what: &str, wanted: impl Fn(&[Sighting]) -> Option<T>) -> T {
        let mut count = self.count.clone();
        let search = async {
            loop {
                count.borrow_and_update();
                if let Some(value) = wanted(&self.seen.lock()) {
                    return value;
                }
                count.changed().await.expect("the watches last as long as this");
            }
        };
        let Ok(value) = tokio::time::timeout(PATIENCE, search).await else {
            panic!("{}: {what} not seen after {PATIENCE:?}", self.namespace.name)
        };
        value
    }

    /// Waits until `more` further sightings were `wanted`, or none was for so long.
    pub async fn until_more(&self, more: usize, lull: std::time::Duration, wanted: impl Fn(&Sighting) -> bool) {
        let mut count = self.count.clone();
        let (mut looked, mut found) = (self.seen.lock().len(), 0);
        while found < more {
            let next = async {
                let before = found;
                while found == before {
                    count.changed().await.expect("the watches last as long as this");
                    let seen = self.seen.lock();
                    found += seen[looked..].iter().filter(|one| wanted(one)).count();
                    looked = seen.len();
                }
            };
            if tokio::time::timeout(lull, next).await.is_err() {
                return;
            }
        }
    }

    /// Waits until everything that exists now was seen in its present version, and what is gone was seen to be; all
    /// sightings then.
    pub async fn caught_up(&self) -> Result<Vec<Sighting>> {
        let mut gone: BTreeSet<String> = self.seen.lock().iter().map(|one| one.uid.clone()).collect();
        let mut wanted = versions(self.namespace.api::<Job>()).await?;
        wanted.extend(versions(self.namespace.api::<Pod>()).await?);
        wanted.extend(versions(self.namespace.api::<TaskGraph>()).await?);
        gone.retain(|uid| !wanted.contains_key(uid));
        self.until("all that exists", |seen| {
            let ended: BTreeSet<&String> = seen.iter().filter(|one| one.gone).map(|one| &one.uid).collect();
            let mut newest = BTreeMap::<&String, u64>::new();
            for one in seen {
                let known = newest.entry(&one.uid).or_default();
                *known = one.version.max(*known);
            }
            let is_seen = |(uid, version): (&String, &u64)| newest.get(uid).is_some_and(|seen| seen >= version);
            (gone.iter().all(|uid| ended.contains(uid)) && wanted.iter().all(is_seen)).then_some(())
        })
        .await;
        Ok(self.so_far())
    }
}

/// By UID.
async fn versions<K>(api: Api<K>) -> Result<BTreeMap<String, u64>>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let list = api.list(&ListParams::default()).await?;
    Ok(list.items.iter().map(|object| (object.uid().unwrap_or_default(), version(object))).collect())
}

fn version(object: &impl ResourceExt) -> u64 {
    object.resource_version().and_then(|version| version.parse().ok()).unwrap_or_default()
}

#[derive(Clone)]
struct Recorder {
    seen: Arc<Mutex<Vec<Sighting>>>,
    count: Arc<watch::Sender<usize>>,
    ready: tokio::sync::mpsc::Sender<()>,
}

impl Recorder {
    async fn record<K>(self, api: Api<K>, look: fn(&K) -> Object)
    where
        K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
        K::DynamicType: Default,
    {
        let mut stream = watcher(api, watcher::Config::default()).default_backoff().boxed();
        let mut past = Past::default();
        while let Some(event) = stream.next().await {
            match event {
                Ok(watcher::Event::Init) => past.begin_list(),
                Ok(watcher::Event::InitApply(object)) => self.push(past.listed(sighting(&object, look, false))),
                Ok(watcher::Event::InitDone) => {
                    past.end_list().into_iter().for_each(|gone| self.push(gone));
                    // only the first one is waited for
                    let _ = self.ready.try_send(());
                }
                Ok(watcher::Event::Apply(object)) => self.push(past.watched(sighting(&object, look, false))),
                Ok(watcher::Event::Delete(object)) => self.push(past.watched(sighting(&object, look, true))),
                Err(error) => eprintln!("watch: {error}"),
            }
        }
    }

    fn push(&self, sighting: Sighting) {
        self.seen.lock().push(sighting);
        self.count.send_modify(|count| *count += 1);
    }
}

fn sighting<K: Resource>(object: &K, look: fn(&K) -> Object, gone: bool) -> Sighting {
    let (uid, name, version) = (object.uid().unwrap_or_default(), object.name_any(), version(object));
    Sighting { version, since: version, at: Instant::now(), uid, name, gone, object: look(object) }
}

/// What a watch told so far, to tell what a list that follows may have missed.
#[derive(Debug, Default)]
pub struct Past {
    /// The newest version.
    newest: u64,
    /// The one up to which nothing was missed when the list was begun.
    complete: u64,
    /// What is there, by UID, as it was seen last, and whether it stands in the list.
    there: BTreeMap<String, (Sighting, bool)>,
}

impl Past {
    /// A list is begun.
    pub fn begin_list(&mut self) {
        self.complete = self.newest;
        self.there.values_mut().for_each(|(_, listed)| *listed = false);
    }

    /// It holds this.
    pub fn listed(&mut self, mut sighting: Sighting) -> Sighting {
        sighting.since = sighting.version.min(self.complete + 1);
        self.watched(sighting)
    }

    /// It is at its end: what it does not hold is gone.
    pub fn end_list(&mut self) -> Vec<Sighting> {
        let gone = self.there.extract_if(.., |_, (_, listed)| !*listed);
        let (since, newest) = (self.complete + 1, self.newest);
        let gone = gone.map(|(_, (last, _))| Sighting { gone: true, since, version: newest.max(since), ..last });
        gone.collect()
    }

    /// The watch tells this.
    pub fn watched(&mut self, sighting: Sighting) -> Sighting {
        self.newest = self.newest.max(sighting.version);
        if sighting.gone {
            self.there.remove(&sighting.uid);
        } else {
            self.there.insert(sighting.uid.clone(), (sighting.clone(), true));
        }
        sighting
    }
}

/// Whose Job, pod or child graph it is; of a graph that has no parent the key names no graph.
pub fn key(object: &impl ResourceExt) -> Key {
    let label = |name: &str| object.labels().get(name).cloned().unwrap_or_default();
    Key {
        graph: label(LABEL_GRAPH_UID),
        role: label(LABEL_ROLE),
        task: label(LABEL_TASK),
        attempt: label(LABEL_ATTEMPT).parse().unwrap_or_default(),
        item: label(LABEL_ITEM).parse().ok(),
    }
}

fn job(job: &Job) -> Object {
    let spec = job.spec.clone().unwrap_or_default();
    let status = job.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let holds = |type_: &str| conditions.iter().find(|one| one.type_ == type_ && one.status == "True");
    let (complete, failed) = (holds("Complete"), holds("Failed"));
    if spec.completion_mode.as_deref() != Some("Indexed") || (complete.is_none() && failed.is_none()) {
        return Object::Job(key(job));
    }
    // with one pod an item, as none is tried again in the tests that are played once more
    let tolerated = spec.max_failed_indexes.unwrap_or(0) >= status.failed.unwrap_or(0);
    let all_tried = failed.is_some_and(|failed| failed.reason.as_deref() == Some("FailedIndexes"));
    let total = spec.completions.and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
    Object::Items(key(job), ItemsEnd { total, well: complete.is_some() || (all_tried && tolerated) })
}

/// What every container waits for at first.
const ROUTINE: [&str; 2] = ["ContainerCreating", "PodInitializing"];

fn pod_state(pod: &Pod) -> PodState {
    let status = pod.status.clone().unwrap_or_default();
    let container = status.container_statuses.unwrap_or_default().into_iter().next();
    let state = container.and_then(|container| container.state).unwrap_or_default();
    PodState {
        phase: player::phase(pod).unwrap_or_default().to_owned(),
        waits: state.waiting.and_then(|waiting| waiting.reason).filter(|reason| !ROUTINE.contains(&reason.as_str())),
        terminated: state.terminated,
        item: pod.labels().get("batch.kubernetes.io/job-completion-index").and_then(|index| index.parse().ok()),
        disrupted: status
            .conditions
            .unwrap_or_default()
            .iter()
            .any(|condition| condition.type_ == "DisruptionTarget" && condition.status == "True"),
    }
}
