//! What size costs: one whole beside the same number of tasks in small graphs, and what thousands of waiting tasks cost
//! the operator.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Resource, ResourceExt,
    api::{DeleteParams, ListParams},
    core::NamespaceResourceScope,
    runtime::{WatchStreamExt, watcher},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use taskgraph::api::TaskGraph;

use crate::{
    shape::{Shape, container, node_selector, tolerations},
    support::{Namespace, Operator, namespace::finished},
};

/// How long the operator is looked at while nothing happens.
const STILL: Duration = Duration::from_secs(30);
/// Name of the template of a graph.
const TEMPLATE: &str = "hundred";

/// Graphs that are run at the same time.
#[derive(Debug)]
pub struct Load {
    /// Its name in tables.
    pub name: String,
    /// How many tasks, items or tasks of child graphs it comes to.
    pub tasks: usize,
    graphs: Vec<Value>,
    /// The spec of a template of a graph that they use.
    template: Option<Value>,
}

/// One load, measured.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// Its name.
    pub name: String,
    /// How many tasks.
    pub tasks: usize,
    /// Seconds from the first create to the last stored condition.
    pub seconds: f64,
    /// Its time by the time of as many tasks in small graphs; 1 for those themselves.
    pub ratio: f64,
}

/// What waiting tasks cost the operator.
#[derive(Debug, Serialize)]
pub struct Waiting {
    /// How many.
    pub tasks: usize,
    /// Resident memory before, in MiB.
    pub before: f64,
    /// Resident memory while they wait, in MiB.
    pub during: f64,
    /// Seconds of CPU in `over` seconds while nothing happens.
    pub cpu: f64,
    /// Seconds.
    pub over: f64,
}

impl Load {
    /// As many tasks as wished, in graphs of a hundred.
    pub fn small(graphs: usize) -> Self {
        let graph = Shape::layers(100, 10).spec();
        Self {
            name: format!("{graphs} graphs of 100"),
            tasks: graphs * 100,
            graphs: vec![graph; graphs],
            template: None,
        }
    }

    /// One graph of the most tasks that there may be.
    pub fn large() -> Self {
        let shape = Shape::layers(2000, 50);
        Self { name: "1 graph of 2000".into(), tasks: shape.size(), graphs: vec![shape.spec()], template: None }
    }

    /// Ten tasks of a thousand items each.
    pub fn items() -> Self {
        let items: Vec<usize> = (0..1000).collect();
        let task =
            |place: usize| json!({"name": format!("t{place}"), "forEach": {"items": items}, "container": container()});
        let tasks: Vec<Value> = (0..10).map(task).collect();
        let graph = json!({"tasks": tasks, "podDefaults": pod_defaults()});
        Self { name: "10 forEach of 1000".into(), tasks: 10_000, graphs: vec![graph], template: None }
    }

    /// One graph of a hundred child graphs.
    pub fn children() -> Self {
        let task = |place: usize| json!({"name": format!("t{place}"), "templateRef": {"name": TEMPLATE}});
        let tasks: Vec<Value> = (0..100).map(task).collect();
        Self {
            name: "100 child graphs of 100".into(),
            tasks: 10_000,
            graphs: vec![json!({"tasks": tasks})],
            template: Some(json!({"graph": Shape::layers(100, 10).spec()})),
        }
    }

    /// Runs it once.
    pub async fn run(&self, namespace: &Namespace) -> Result<f64> {
        if let Some(template) = &self.template {
            namespace.create_template(TEMPLATE, template.clone()).await?;
        }
        let mut graphs = watcher(namespace.graphs(), watcher::Config::default()).default_backoff().boxed();
        let mut open: BTreeSet<String> = (0..self.graphs.len()).map(|place| format!("g{place}")).collect();
        let begin = Instant::now();
        for (name, spec) in open.iter().zip(&self.graphs) {
            namespace.create(name, spec.clone()).await?;
        }
        while !open.is_empty() {
            let event = graphs.next().await.context("the watch ended")??;
            let (watcher::Event::Apply(graph) | watcher::Event::InitApply(graph)) = event else { continue };
            if let Some(end) = finished(&graph).filter(|_| open.remove(&graph.name_any())) {
                ensure!(end == "Complete", "{} ended as {end}", graph.name_any());
            }
        }
        let seconds = begin.elapsed().as_secs_f64();
        clean(namespace).await?;
        Ok(seconds)
    }
}

/// The comparison of every whole whose name has `part` in it.
pub async fn measure(namespace: &Namespace, part: &str) -> Result<Vec<Measured>> {
    let mut measured = Vec::new();
    for (small, mut wholes) in
        [(Load::small(20), vec![Load::large()]), (Load::small(100), vec![Load::items(), Load::children()])]
    {
        wholes.retain(|whole| whole.name.contains(part));
        if wholes.is_empty() {
            continue;
        }
        let base = small.run(namespace).await?;
        eprintln!("{}: {base:.1} s", small.name);
        measured.push(Measured { name: small.name, tasks: small.tasks, seconds: base, ratio: 1.0 });
        for whole in wholes {
            let seconds = whole.run(namespace).await?;
            eprintln!("{}: {seconds:.1} s", whole.name);
            measured.push(Measured { name: whole.name, tasks: whole.tasks, seconds, ratio: seconds / base });
        }
    }
    Ok(measured)
}

/// What 5,000 tasks that wait for an hour cost.
pub async fn wait(namespace: &Namespace, operator: &Operator) -> Result<Waiting> {
    // by then it has started, and read what lies in the cluster
    let mut tasks = delays(namespace, "w", 1).await?;
    let (before, _) = usage(operator)?;
    for (place, size) in [2000, 2000, 999].into_iter().enumerate() {
        tasks += delays(namespace, &format!("w{place}"), size).await?;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (_, begun) = usage(operator)?;
    tokio::time::sleep(STILL).await;
    let (during, ended) = usage(operator)?;
    clean(namespace).await?;
    Ok(Waiting { tasks, before, during, cpu: ended - begun, over: STILL.as_secs_f64() })
}

/// Creates a graph of so many tasks that wait, and waits until they do; how many.
async fn delays(namespace: &Namespace, name: &str, size: usize) -> Result<usize> {
    let tasks: Vec<Value> =
        (0..size).map(|place| json!({"name": format!("t{place}"), "delay": {"duration": "1h"}})).collect();
    namespace.create(name, json!({"tasks": tasks})).await?;
    let all_wait = |graph: &TaskGraph| {
        let status = graph.status.as_ref();
        status.is_some_and(|status| status.tasks.iter().filter(|task| task.wake_at.is_some()).count() == size)
    };
    namespace.until(name, "all wait", all_wait).await;
    Ok(size)
}

/// Resident memory of the operator in MiB, and its seconds of CPU so far.
fn usage(operator: &Operator) -> Result<(f64, f64)> {
    /// Of every Linux that this could run on.
    const TICKS: f64 = 100.0;
    let dir = format!("/proc/{}", operator.pid().as_raw_nonzero());
    let status = fs::read_to_string(format!("{dir}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kib: f64 = resident.trim().trim_end_matches(" kB").parse()?;
    let stat = fs::read_to_string(format!("{dir}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').context("stat")?.1.split_whitespace().collect();
    let ticks = |place: usize| -> Result<f64> { Ok(fields.get(place).context("stat")?.parse()?) };
    Ok((kib / 1024.0, (ticks(11)? + ticks(12)?) / TICKS))
}

fn pod_defaults() -> Value {
    json!({"nodeSelector": node_selector(), "tolerations": tolerations()})
}

/// Deletes everything, however long it takes.
async fn clean(namespace: &Namespace) -> Result<()> {
    let (all, background) = (ListParams::default(), DeleteParams::background());
    namespace.graphs().delete_collection(&background, &all).await?;
    namespace.api::<taskgraph::api::TaskTemplate>().delete_collection(&background, &all).await?;
    until_none::<TaskGraph>(namespace).await?;
    namespace.jobs().delete_collection(&background, &all).await?;
    until_none::<Job>(namespace).await?;
    until_none::<Pod>(namespace).await
}

async fn until_none<K>(namespace: &Namespace) -> Result<()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    while !namespace.api::<K>().list_metadata(&ListParams::default().limit(1)).await?.items.is_empty() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}
