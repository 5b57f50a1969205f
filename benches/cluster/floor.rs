//! The floor: the least work that any controller could do that launches Jobs. It watches pods and creates the next
//! Jobs the moment that their dependencies' pods succeeded. No validation, no status, no retries.

use std::{sync::Arc, time::Instant};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    ResourceExt,
    api::PostParams,
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    shape::{Shape, container, node_selector, task_name, tolerations},
    support::{Namespace, player::phase},
};

/// How many creates go on at once.
const CREATES: usize = 32;
/// Label of its Jobs and pods: the run. A controller cannot tell its own apart by less than these three.
const RUN: &str = "floor-run";
/// Label of its Jobs and pods: the graph in the run; there is one.
const GRAPH: &str = "floor-graph";
/// Label of its Jobs and pods: the place of the task.
const PLACE: &str = "floor-place";

/// Runs `shape` once; seconds from the first create to the last pod seen as succeeded.
pub async fn run(namespace: &Namespace, shape: &Shape) -> Result<f64> {
    let config = watcher::Config::default().labels(RUN);
    let mut pods = watcher(namespace.pods(), config).default_backoff().boxed();
    while !matches!(pods.next().await.context("the watch ended")??, watcher::Event::InitDone) {}

    let mut creator =
        Creator { namespace: namespace.clone(), slots: Arc::new(Semaphore::new(CREATES)), creates: JoinSet::new() };
    let dependents = shape.dependents();
    let mut left: Vec<usize> = shape.dependencies.iter().map(Vec::len).collect();
    let mut succeeded = vec![false; shape.size()];
    let mut open = shape.size();
    let begin = Instant::now();
    for (place, left) in left.iter().enumerate() {
        if *left == 0 {
            creator.create(place);
        }
    }
    while open > 0 {
        let pod = tokio::select! {
            event = pods.next() => match event.context("the watch ended")?? {
                watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) => pod,
                _ => continue,
            },
            Some(created) = creator.creates.join_next() => {
                created??;
                continue;
            }
        };
        match phase(&pod) {
            Some("Succeeded") => {}
            Some("Failed") => bail!("pod {} failed", pod.name_any()),
            _ => continue,
        }
        let place = place_of(&pod).context("a pod of the floor says its place")?;
        if std::mem::replace(&mut succeeded[place], true) {
            continue;
        }
        open -= 1;
        for dependent in &dependents[place] {
            left[*dependent] -= 1;
            if left[*dependent] == 0 {
                creator.create(*dependent);
            }
        }
    }
    Ok(begin.elapsed().as_secs_f64())
}

fn place_of(pod: &Pod) -> Option<usize> {
    pod.labels().get(PLACE)?.parse().ok()
}

struct Creator {
    namespace: Namespace,
    slots: Arc<Semaphore>,
    creates: JoinSet<Result<()>>,
}

impl Creator {
    fn create(&mut self, place: usize) {
        let (jobs, slots) = (self.namespace.jobs(), Arc::clone(&self.slots));
        self.creates.spawn(async move {
            let _slot = slots.acquire_owned().await?;
            jobs.create(&PostParams::default(), &job(place)?).await?;
            Ok(())
        });
    }
}

fn job(place: usize) -> Result<Job> {
    let labels = json!({RUN: "1", GRAPH: "0", PLACE: place.to_string()});
    let mut container = container();
    container["name"] = json!("main");
    Ok(serde_json::from_value(json!({
        "metadata": {"name": format!("floor-{}", task_name(place)), "labels": labels},
        "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": labels}, "spec": {
            "restartPolicy": "Never", "nodeSelector": node_selector(), "tolerations": tolerations(), "containers": [container]}}},
    }))?)
}
