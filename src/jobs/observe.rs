//! A Job and its Pods as events of the engine.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{
    indexed, item,
    name::{indexed_job_name, item_job_name, job_name},
    outcome,
    view::{ContainerStatusView, JobView, PodView},
};
use crate::{
    api::{LABEL_ATTEMPT, LABEL_GRAPH_UID, LABEL_ITEM, LABEL_ROLE, LABEL_TASK},
    engine::{Attempt, AttemptResult, Event},
};

/// What the labels of a Job or Pod say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key<'a> {
    /// UID of the graph.
    pub graph_uid: &'a str,
    /// What the Job is for, as [`ROLE_TASK`](crate::api::ROLE_TASK).
    pub role: &'a str,
    /// Name of the task.
    pub task: &'a str,
    /// Number of the attempt.
    pub attempt: u32,
    /// Place of the item, where each has a Job or child graph of its own.
    pub item: Option<u32>,
}

impl Key<'_> {
    /// The name of the Job, or child graph, that these are the labels of.
    pub fn job_name(&self, graph: &str, indexed: bool) -> String {
        let Self { graph_uid, role, task, attempt, item } = *self;
        match item {
            Some(item) => item_job_name(graph, graph_uid, role, task, attempt, item),
            None if indexed => indexed_job_name(graph, graph_uid, role, task, attempt),
            None => job_name(graph, graph_uid, role, task, attempt),
        }
    }
}

/// Reads our labels. `None` where one is missing or broken: then the object is none of ours, whatever else it says.
pub fn labels_of(metadata: &ObjectMeta) -> Option<Key<'_>> {
    let labels = metadata.labels.as_ref()?;
    let text = |key: &str| labels.get(key).map(String::as_str).filter(|text| !text.is_empty());
    // only as we write it: no sign, no leading zero
    let exact = |text: &str| text.parse().ok().filter(|number: &u32| number.to_string() == text);
    let attempt = exact(text(LABEL_ATTEMPT)?).filter(|number| *number > 0)?;
    let item = match labels.get(LABEL_ITEM) {
        Some(place) => Some(exact(place)?),
        None => None,
    };
    Some(Key { graph_uid: text(LABEL_GRAPH_UID)?, role: text(LABEL_ROLE)?, task: text(LABEL_TASK)?, attempt, item })
}

/// Whether a Job and Pods from a cache leave out something that only a live list of Pods can tell: the Job ended, and
/// no pod of it is seen. The pod may be gone, or the cache of Pods may lag behind that of Jobs; in the latter case
/// [`observe`] would lose the outputs or the reason of a failure.
pub fn needs_live_pods(job: &JobView, pods: &[&PodView]) -> bool {
    if job.is_indexed() {
        return indexed::needs_live_pods(job, pods);
    }
    if job.is_of_item() {
        return item::needs_live_pods(job, pods);
    }
    job.ended() && owned(job, pods).is_empty()
}

/// What a Job and its Pods mean for `attempt`. The same objects always mean the same events.
///
/// Of a Job with many items (`forEach`) the Job's status decides, and pods tell what items left behind; see
/// [`indexed`]. That of a single item is another matter, too; see [`item`]. Of any other:
///
/// - `job` is `None` where the Job is not seen (yet, or any more): then nothing follows. That a Job is lost can only be
///   told by whoever knows that it was created and asks the API server.
/// - Of `pods` only those count that the Job controls, by UID.
/// - A pod that Succeeded is a success, whatever the Job says: the Job controller takes about a second longer.
/// - A pod that Failed is a failure at once, unless it is being deleted: then a deadline, a disruption or
///   a deletion by hand is behind it, and the Job's condition tells which.
/// - A Job that ended while its pod is seen running: the cache of Pods lags, and nothing is said until it has caught up.
pub fn observe(attempt: Attempt, job: Option<&JobView>, pods: &[&PodView]) -> Vec<Event> {
    let Some(job) = job else { return Vec::new() };
    if job.is_indexed() {
        return indexed::observe(attempt, job, pods);
    }
    if job.is_of_item() {
        return item::observe(attempt, job, pods);
    }
    let pods = owned(job, pods);
    let name = job.metadata.name.clone().unwrap_or_default();
    let mut events = vec![Event::Launched { attempt, job: name }];
    if pods.iter().any(|pod| started(pod)) {
        events.push(Event::Started { attempt });
    }
    if let Some((result, pod)) = ending(job, &pods) {
        events.push(Event::Finished { attempt, result, time: outcome::end_time(job, pod) });
    } else if let Some((reason, message, cluster)) = pods.iter().find_map(|pod| blocked(pod)) {
        events.push(Event::Blocked { attempt, reason, message, cluster });
    }
    events
}

/// Whether a Job whose attempt is over may still run something: it did not end, nobody deletes it, and no pod of it has
/// ended, which would end it soon (if it is not one with many items; of one that tries its item again, if it Succeeded). It was created late, by an operator that was held up, or its controller tries
/// for ever to make a pod that is refused.
pub fn goes_on(job: &JobView, pods: &[&PodView]) -> bool {
    let deleting = job.metadata.deletion_timestamp.is_some();
    let ends = || {
        if job.is_of_item() {
            return item::ends(job, pods);
        }
        !job.is_indexed() && owned(job, pods).iter().any(|pod| pod.terminal())
    };
    !job.ended() && !deleting && !ends()
}

/// The pods that `job` controls, in an order that does not depend on how they were listed.
pub(super) fn owned<'a>(job: &JobView, pods: &[&'a PodView]) -> Vec<&'a PodView> {
    let uid = job.metadata.uid.as_deref();
    let mut owned: Vec<_> = pods.iter().copied().filter(|pod| uid.is_some() && pod.owner_uid() == uid).collect();
    owned.sort_by_key(|pod| (&pod.metadata.creation_timestamp, &pod.metadata.name, &pod.metadata.uid));
    owned
}

/// How the attempt ended, and by which pod, if it did.
fn ending<'a>(job: &JobView, pods: &[&'a PodView]) -> Option<(AttemptResult, Option<&'a PodView>)> {
    if let Some(pod) = pods.iter().copied().find(|pod| pod.phase() == "Succeeded") {
        return Some((outcome::success(pod), Some(pod)));
    }
    if job.condition("Complete").is_some() {
        // a pod of a Job that is Complete has Succeeded: one seen otherwise is seen late
        let nothing = AttemptResult::Succeeded { outputs: serde_json::Map::new(), message: None };
        return pods.is_empty().then_some((nothing, None));
    }
    // more than one pod exists only by a fault; then the last is the one that counts
    let pod = pods.last().copied();
    if job.condition("Failed").is_some() {
        return outcome::job_failure(job, pod).map(|failure| (AttemptResult::Failed(failure), pod));
    }
    let all_failed = pods.iter().all(|pod| pod.phase() == "Failed" && !pod.deleting());
    pod.filter(|_| all_failed).map(|pod| (AttemptResult::Failed(outcome::failure(pod)), Some(pod)))
}

/// Whether any container runs or ran.
pub(super) fn started(pod: &PodView) -> bool {
    let ran = |status: &ContainerStatusView| {
        [&status.state, &status.last_state].iter().any(|state| state.running.is_some() || state.terminated.is_some())
    };
    pod.phase() == "Succeeded" || statuses(pod).any(ran)
}

/// Why a pod does not start, if that is known: reason, message, whether the cluster is to blame.
pub(super) fn blocked(pod: &PodView) -> Option<(String, String, bool)> {
    if let Some(condition) = pod.condition("PodScheduled", "False") {
        let reason = condition.reason.clone().unwrap_or_else(|| "Unschedulable".to_owned());
        return Some((reason, condition.message.clone().unwrap_or_default(), true));
    }
    statuses(pod).find_map(|status| {
        let waiting = status.state.waiting.as_ref()?;
        let reason = waiting.reason.as_deref()?;
        // what every container waits for before it starts
        if matches!(reason, "ContainerCreating" | "PodInitializing") {
            return None;
        }
        let message = waiting.message.as_deref().unwrap_or_default();
        Some((reason.to_owned(), format!("container {:?}: {message}", status.name), false))
    })
}

fn statuses(pod: &PodView) -> impl Iterator<Item = &ContainerStatusView> {
    pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses)
}

#[cfg(test)]
pub(super) mod tests;
