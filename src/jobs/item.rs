//! The Job of one item of a task, which has a Job for each.
//!
//! The Job controller tries the item again within its Job, so a pod that failed says nothing yet; one that Succeeded says
//! all. When the item has failed for good, the Job alone knows.

use serde_json::Map;

use super::{
    observe::{blocked, owned, started},
    outcome,
    view::{JobView, PodView},
};
use crate::engine::{Attempt, AttemptResult, Event};

/// As [`needs_live_pods`](super::needs_live_pods): the Job ended, and the pod that tells how is not seen.
pub(super) fn needs_live_pods(job: &JobView, pods: &[&PodView]) -> bool {
    let pods = owned(job, pods);
    if job.condition("Complete").is_some() {
        return !pods.iter().any(|pod| pod.phase() == "Succeeded");
    }
    job.condition("Failed").is_some() && !pods.last().is_some_and(|pod| pod.terminal())
}

/// As [`observe`](fn@super::observe).
pub(super) fn observe(attempt: Attempt, job: &JobView, pods: &[&PodView]) -> Vec<Event> {
    let pods = owned(job, pods);
    let name = job.metadata.name.clone().unwrap_or_default();
    let mut events = vec![Event::Launched { attempt, job: name }];
    let began = job.ended() || pods.iter().any(|pod| started(pod));
    if let Some(time) = job.metadata.creation_timestamp.as_ref().filter(|_| !began) {
        events.push(Event::Created { attempt, time: time.0 });
    }
    if began {
        events.push(Event::Started { attempt });
    }
    if let Some((result, pod)) = ending(job, &pods) {
        events.push(Event::Finished { attempt, result, time: outcome::end_time(job, pod) });
    } else if !began && let Some((reason, message, cluster)) = pods.iter().find_map(|pod| blocked(pod)) {
        events.push(Event::Blocked { attempt, reason, message, cluster });
    }
    events
}

/// How the item ended, and by which pod, if it did.
fn ending<'a>(job: &JobView, pods: &[&'a PodView]) -> Option<(AttemptResult, Option<&'a PodView>)> {
    if let Some(pod) = pods.iter().copied().find(|pod| pod.phase() == "Succeeded") {
        return Some((outcome::success(pod), Some(pod)));
    }
    if job.condition("Complete").is_some() {
        // the pod that Succeeded is gone, and what it left with it
        return Some((AttemptResult::Succeeded { outputs: Map::new(), message: None }, None));
    }
    let pod = pods.last().copied();
    let failure = outcome::job_failure(job, pod)?;
    Some((AttemptResult::Failed(failure), pod))
}

/// Whether a pod of the Job has ended it, or soon will have.
pub(super) fn ends(job: &JobView, pods: &[&PodView]) -> bool {
    owned(job, pods).iter().any(|pod| pod.phase() == "Succeeded")
}

#[cfg(test)]
mod tests;
