//! A namespace for one test, and what a user does in it.

use std::{
    fmt::Debug,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::Result;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{self as core, Pod},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use taskgraph::api::{self, Condition, TaskGraph, TaskGraphSpec, TaskGraphStatus, TaskPhase, TaskStatus, TaskTemplate};

/// How long anything may take that a test waits for, on a machine with more busy processes than cores.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// A namespace of a test's own.
#[derive(Clone)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// A client with all rights, past every proxy.
    pub client: Client,
}

impl Namespace {
    /// Makes one, named after `test`.
    pub async fn new(client: &Client, test: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{test}-{}-{number}", std::process::id());
        let object = core::Namespace {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            ..core::Namespace::default()
        };
        Api::all(client.clone()).create(&PostParams::default(), &object).await?;
        Ok(Self { name, client: client.clone() })
    }

    /// Objects of a kind in it.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Its graphs.
    pub fn graphs(&self) -> Api<TaskGraph> {
        self.api()
    }

    /// Its Jobs.
    pub fn jobs(&self) -> Api<Job> {
        self.api()
    }

    /// Its pods.
    pub fn pods(&self) -> Api<Pod> {
        self.api()
    }

    /// Creates a graph from the JSON of its spec.
    pub async fn create(&self, name: &str, spec: Value) -> Result<TaskGraph> {
        let spec: TaskGraphSpec = serde_json::from_value(spec)?;
        Ok(self.graphs().create(&PostParams::default(), &TaskGraph::new(name, spec)).await?)
    }

    /// Creates a task template from the JSON of its spec.
    pub async fn create_template(&self, name: &str, spec: Value) -> Result<TaskTemplate> {
        let template = TaskTemplate::new(name, serde_json::from_value(spec)?);
        Ok(self.api().create(&PostParams::default(), &template).await?)
    }

    /// Merges `change` into the spec of a graph.
    pub async fn edit(&self, name: &str, change: Value) -> Result<TaskGraph> {
        let patch = json!({"spec": change});
        Ok(self.graphs().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?)
    }

    /// Waits until the graph is as `wanted` says.
    ///
    /// # Panics
    /// With the graph as it was last, if that does not happen.
    pub async fn until(&self, name: &str, what: &str, wanted: impl Fn(&TaskGraph) -> bool) -> TaskGraph {
        self.until_object(self.graphs(), name, what, |graph| graph.filter(|graph| wanted(graph)).cloned()).await
    }

    /// Waits until the graph is Complete or Failed.
    pub async fn until_finished(&self, name: &str) -> TaskGraph {
        self.until(name, "finished", |graph| finished(graph).is_some()).await
    }

    /// Waits until `wanted` gives a value for an object, or for its absence.
    ///
    /// # Panics
    /// With the object as it was last, if that does not happen.
    pub async fn until_object<K, T>(
        &self,
        api: Api<K>,
        name: &str,
        what: &str,
        wanted: impl Fn(Option<&K>) -> Option<T>,
    ) -> T
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + serde::Serialize + 'static,
        K::DynamicType: Default,
    {
        let mut last: Option<K> = None;
        let search = async {
            let mut stream = watcher::watch_object(api, name).boxed();
            loop {
                match stream.try_next().await {
                    Ok(Some(object)) => {
                        last = object;
                        if let Some(value) = wanted(last.as_ref()) {
                            return value;
                        }
                    }
                    Ok(None) => panic!("the watch of {name} ended"),
                    // the watcher begins again by itself
                    Err(error) => eprintln!("watch of {name}: {error}"),
                }
            }
        };
        if let Ok(value) = tokio::time::timeout(PATIENCE, search).await {
            return value;
        }
        let last = last.map(|mut object| {
            object.managed_fields_mut().clear();
            serde_json::to_string_pretty(&object).unwrap_or_default()
        });
        let last = last.as_deref().unwrap_or("not there");
        panic!("{}/{name}: not {what} after {PATIENCE:?}; it is {last}\n{}", self.name, self.left().await)
    }

    /// The Jobs and pods that there are, a line each: what a graph waits for.
    async fn left(&self) -> String {
        fn line<K: Resource>(object: &K, phase: Option<&str>) -> String {
            let metadata = object.meta();
            let deleted = metadata.deletion_timestamp.as_ref().map(|time| time.0.to_string());
            format!(
                "{} {} deleted {deleted:?} finalizers {:?}\n",
                object.name_any(),
                phase.unwrap_or_default(),
                object.finalizers()
            )
        }
        let all = ListParams::default();
        let jobs = self.jobs().list(&all).await.map(|jobs| jobs.items).unwrap_or_default();
        let pods = self.pods().list(&all).await.map(|pods| pods.items).unwrap_or_default();
        let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
        let jobs = jobs.iter().map(|job| line(job, Some("Job")));
        jobs.chain(pods.iter().map(|pod| line(pod, phase(pod).as_deref()))).collect()
    }

    /// Waits until the objects of a kind are as `wanted` says; gives them.
    ///
    /// # Panics
    /// If that does not happen.
    pub async fn until_all<K>(&self, what: &str, wanted: impl Fn(&[K]) -> bool) -> Vec<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send + 'static,
        K::DynamicType: Default,
    {
        let mut known = std::collections::BTreeMap::<String, K>::new();
        let mut listed = false;
        let search = async {
            let mut stream = watcher(self.api::<K>(), watcher::Config::default()).default_backoff().boxed();
            loop {
                match stream.next().await {
                    Some(Ok(watcher::Event::Init)) => known.clear(),
                    Some(Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object))) => {
                        known.insert(object.name_any(), object);
                    }
                    Some(Ok(watcher::Event::Delete(object))) => {
                        known.remove(&object.name_any());
                    }
                    Some(Ok(watcher::Event::InitDone)) => listed = true,
                    Some(Err(error)) => eprintln!("watch: {error}"),
                    None => panic!("the watch ended"),
                }
                let all: Vec<K> = known.values().cloned().collect();
                if listed && wanted(&all) {
                    return all;
                }
            }
        };
        if let Ok(all) = tokio::time::timeout(PATIENCE, search).await {
            return all;
        }
        panic!("{}: not {what} after {PATIENCE:?}; there are {:?}", self.name, known.keys())
    }
}

/// The status of a graph; empty if it has none.
pub fn status(graph: &TaskGraph) -> TaskGraphStatus {
    graph.status.clone().unwrap_or_default()
}

/// The status of one of its tasks.
pub fn task(graph: &TaskGraph, name: &str) -> Option<TaskStatus> {
    graph.status.as_ref()?.tasks.iter().find(|task| task.name == name).cloned()
}

/// One of its conditions.
pub fn condition<'a>(graph: &'a TaskGraph, type_: &str) -> Option<&'a Condition> {
    graph.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether a condition is `True`.
pub fn holds(graph: &TaskGraph, type_: &str) -> bool {
    condition(graph, type_).is_some_and(|condition| condition.status == "True")
}

/// `Complete` or `Failed`, if one of them holds.
pub fn finished(graph: &TaskGraph) -> Option<&'static str> {
    [api::CONDITION_COMPLETE, api::CONDITION_FAILED].into_iter().find(|type_| holds(graph, type_))
}

/// What must be the same however a run went: per task, and `undo:TASK`, its phase, number of attempts, branch and outputs.
pub fn outcome(graph: &TaskGraph) -> Vec<(String, TaskPhase, u32, Option<String>, Value)> {
    let tasks = status(graph).tasks.into_iter().flat_map(|task| {
        let undo = task.compensation.clone().map(|undo| undo.into_task(format!("undo:{}", task.name)));
        std::iter::once(task).chain(undo)
    });
    tasks.map(|task| (task.name, task.phase, task.attempts, task.branch, Value::Object(task.outputs))).collect()
}

/// Phases and attempts of all tasks: `a=Succeeded/1 b=Failed/2`.
pub fn line(graph: &TaskGraph) -> String {
    let words: Vec<_> = outcome(graph)
        .into_iter()
        .map(|(name, phase, attempts, ..)| format!("{name}={}/{attempts}", phase.name()))
        .collect();
    words.join(" ")
}
