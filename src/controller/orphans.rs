//! What is left of a child graph that is gone.
//!
//! Mostly the garbage collector deletes it, and this only waits. Whoever deleted the child with `--cascade=orphan` has left
//! its Jobs and its own child graphs running, and nobody else would ever stop them; the next attempt of the task must not
//! run beside them.

use std::collections::BTreeMap;

use kube::ResourceExt;
use tracing::warn;

use super::{
    cluster::{CallError, Cluster, LiveGraph},
    rest::no_pod_runs,
};
use crate::{
    api::LABEL_GRAPH,
    jobs::{self, JobView},
};

/// One look at what the graph of this name, which is gone, has made. True: nothing of it runs any more. What would go on is
/// deleted; what has ended stays as it is, and so does what somebody copied, labels and all.
pub async fn nothing_is_left(cluster: &Cluster, namespace: &str, graph: &str) -> Result<bool, CallError> {
    let labels = BTreeMap::from([(LABEL_GRAPH, graph)]);
    let jobs = cluster.list_jobs(namespace, &labels).await?;
    let jobs: Vec<&JobView> = jobs.iter().filter(|job| !job.ended() && !jobs::is_copied_job(job)).collect();
    for job in jobs.iter().filter(|job| job.metadata.deletion_timestamp.is_none()) {
        warn!(job = job.name_any(), namespace, graph, "deleting a Job whose graph is gone");
        cluster.delete_job(namespace, &job.name_any(), &job.uid().unwrap_or_default()).await?;
    }
    let children = cluster.list_graphs(namespace, &labels).await?;
    let is_left = |child: &&LiveGraph| !child.is_finished() && !jobs::is_copied_child(&child.metadata);
    let children: Vec<&LiveGraph> = children.iter().filter(is_left).collect();
    for child in children.iter().filter(|child| child.metadata.deletion_timestamp.is_none()) {
        let (name, uid) = (child.metadata.name.as_deref(), child.metadata.uid.as_deref());
        warn!(child = name, namespace, graph, "deleting a child graph whose parent is gone");
        cluster.delete_child(namespace, name.unwrap_or_default(), uid.unwrap_or_default()).await?;
    }
    if !(jobs.is_empty() && children.is_empty()) {
        return Ok(false);
    }
    // after the Jobs: none of them can bring up another
    no_pod_runs(cluster, namespace, &labels, true).await
}
