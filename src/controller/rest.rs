//! What goes on of a graph that is over, or of an attempt, and whether pods are left of it.

use std::{collections::BTreeMap, sync::Arc};

use kube::ResourceExt;

use super::{
    Context,
    apply::Hands,
    cluster::{CallError, Cluster},
    view::GraphView,
};
use crate::jobs::{self, JobView, PodView};

/// The Jobs and child graphs of a graph that may still run something, as they are cached.
#[derive(Debug)]
pub struct Rest {
    jobs: Vec<Arc<JobView>>,
    children: Vec<Arc<GraphView>>,
}

impl Rest {
    /// What goes on of this graph.
    pub fn of(view: &GraphView, ctx: &Context) -> Self {
        Self { jobs: ctx.index.jobs_that_go_on(view.uid()), children: ctx.index.children_that_go_on(view.uid()) }
    }

    /// Whether nothing does.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.children.is_empty()
    }

    /// Has all of it stopped, in the background.
    pub fn stop(self, hands: &Arc<Hands>) {
        for job in self.jobs {
            hands.spawn(Arc::clone(hands).discard(job));
        }
        for child in self.children {
            hands.spawn(Arc::clone(hands).retire(child));
        }
    }
}

/// Whether a live list shows no pod with these labels that is not terminal. With `delete`, those that are not on their way
/// out are deleted: of a pod whose Job is gone, nobody else would.
pub async fn no_pod_runs(
    cluster: &Cluster,
    namespace: &str,
    labels: &BTreeMap<&str, &str>,
    delete: bool,
) -> Result<bool, CallError> {
    // a copy is not ours to wait for, or to delete
    let runs = |pod: &PodView| !pod.terminal() && !jobs::is_copied_pod(pod);
    let running: Vec<_> = cluster.list_pods(namespace, labels).await?.into_iter().filter(runs).collect();
    for pod in running.iter().filter(|pod| delete && !pod.deleting()) {
        cluster.delete_pod(namespace, &pod.name_any(), &pod.uid().unwrap_or_default()).await?;
    }
    Ok(running.is_empty())
}
