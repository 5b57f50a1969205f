//! The Job of a task with `forEach`: one pod for each item.
//!
//! Here the Job's own status decides, and pods only tell what items left behind: which pods of an item still count,
//! and when an item has failed for good, the Job controller alone knows.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    observe::{blocked, owned, started},
    outcome,
    view::{JobView, PodView},
};
use crate::{
    api::ItemsStatus,
    engine::{
        Attempt, AttemptResult, Blame, Event, Failure,
        policy::{indexes::Indexes, items, per_item::of_item},
        reason,
    },
};

/// What a Job says of its items.
struct Standing {
    total: u32,
    completed: Indexes,
    failed: Indexes,
}

impl Standing {
    fn of(job: &JobView) -> Self {
        let total = job.spec.completions.and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
        let read = |text: &Option<String>| Indexes::read(text.as_deref(), total);
        Self { total, completed: read(&job.status.completed_indexes), failed: read(&job.status.failed_indexes) }
    }

    fn told(&self, job: &JobView) -> ItemsStatus {
        ItemsStatus {
            total: self.total,
            succeeded: self.completed.count(),
            failed: self.failed.count(),
            active: u32::try_from(job.status.active).unwrap_or(0),
            failed_indexes: self.failed.told(),
            ..ItemsStatus::default()
        }
    }

    /// Whether the Job, which ended, is a success: every item was tried, and no more failed than may.
    fn succeeded(&self, job: &JobView) -> bool {
        let tolerated = job.spec.max_failed_indexes.and_then(|limit| u32::try_from(limit).ok()).unwrap_or(0);
        let all = job.condition("Failed").is_some_and(|failed| failed.reason.as_deref() == Some("FailedIndexes"));
        job.condition("Complete").is_some() || (all && self.failed.count() <= tolerated)
    }
}

/// As [`needs_live_pods`](super::needs_live_pods): the Job ended, and pods that the outcome asks for are not seen, or not
/// seen as ended.
pub(super) fn needs_live_pods(job: &JobView, pods: &[&PodView]) -> bool {
    let standing = Standing::of(job);
    let pods = last_pods(job, pods);
    let seen = |index: u32, phase: &str| pods.get(&index).is_some_and(|pod| pod.phase() == phase);
    job.ended()
        && if standing.succeeded(job) {
            !standing.completed.iter().all(|index| seen(index, "Succeeded"))
        } else {
            !standing.failed.iter().all(|index| seen(index, "Failed"))
        }
}

/// As [`observe`](fn@super::observe).
pub(super) fn observe(attempt: Attempt, job: &JobView, pods: &[&PodView]) -> Vec<Event> {
    let standing = Standing::of(job);
    let name = job.metadata.name.clone().unwrap_or_default();
    let told = standing.told(job);
    let uid = job.metadata.uid.as_deref();
    let mut ours = pods.iter().filter(|pod| uid.is_some() && pod.owner_uid() == uid);
    let began = told.succeeded > 0 || told.failed > 0 || ours.any(|pod| started(pod));
    let mut events = vec![Event::Launched { attempt, job: name }, Event::Items { attempt, items: told }];
    if began {
        events.push(Event::Started { attempt });
    }
    if job.ended() {
        let pods = last_pods(job, pods);
        let result = if standing.succeeded(job) { success(&standing, &pods) } else { failure(job, &standing, &pods) };
        events.push(Event::Finished { attempt, result, time: outcome::end_time(job, None) });
    } else if !began && let Some((reason, message, cluster)) = owned(job, pods).iter().find_map(|pod| blocked(pod)) {
        events.push(Event::Blocked { attempt, reason, message, cluster });
    }
    events
}

/// The pod of each item that counts: one that Succeeded, else the last.
fn last_pods<'a>(job: &JobView, pods: &[&'a PodView]) -> BTreeMap<u32, &'a PodView> {
    let mut last: BTreeMap<u32, &PodView> = BTreeMap::new();
    for pod in owned(job, pods) {
        let Some(index) = pod.completion_index() else { continue };
        let known = last.entry(index).or_insert(pod);
        if known.phase() != "Succeeded" {
            *known = pod;
        }
    }
    last
}

/// What the items left behind. One whose pod is gone left nothing.
fn success(standing: &Standing, pods: &BTreeMap<u32, &PodView>) -> AttemptResult {
    let left: BTreeMap<u32, Map<String, Value>> = pods
        .iter()
        .filter(|(index, pod)| standing.completed.holds(**index) && pod.phase() == "Succeeded")
        .map(|(index, pod)| match outcome::success(pod) {
            AttemptResult::Succeeded { outputs, .. } => (*index, outputs),
            AttemptResult::Failed(_) => (*index, Map::new()),
        })
        .collect();
    match items::collect(&left, standing.total) {
        // which items failed even so stands beside the outputs
        Ok(outputs) => AttemptResult::Succeeded { outputs, message: None },
        Err(failure) => AttemptResult::Failed(failure),
    }
}

/// Why the attempt failed: how many items did, and why the first of them.
fn failure(job: &JobView, standing: &Standing, pods: &BTreeMap<u32, &PodView>) -> AttemptResult {
    let condition = job.condition("Failed");
    let told = condition.and_then(|condition| condition.reason.as_deref()).unwrap_or("JobFailed");
    if !matches!(told, "FailedIndexes" | "MaxFailedIndexesExceeded") {
        let message = condition.and_then(|condition| condition.message.clone());
        let blame = Blame::Task;
        return AttemptResult::Failed(Failure { reason: told.to_owned(), message, exit_code: None, blame });
    }
    let mut failures = standing.failed.iter().filter_map(|index| {
        let pod = pods.get(&index).filter(|pod| pod.phase() == "Failed")?;
        Some((index, outcome::failure(pod)))
    });
    let first = failures.next();
    let by_cluster = first.as_ref().is_some_and(|(_, failure)| failure.blame == Blame::Cluster)
        && failures.all(|(_, failure)| failure.blame == Blame::Cluster);
    let mut message = standing.failed.failed_of(standing.total);
    if let Some((index, failure)) = &first {
        message = format!("{message}; {}", of_item(*index, failure.clone()).message.unwrap_or_default());
    }
    AttemptResult::Failed(Failure {
        reason: reason::ITEMS_FAILED.to_owned(),
        message: Some(message),
        exit_code: first.and_then(|(_, failure)| failure.exit_code),
        blame: if by_cluster { Blame::Cluster } else { Blame::Task },
    })
}

#[cfg(test)]
mod tests;
