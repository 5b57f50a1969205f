//! How an attempt ended, as its Job and its Pod tell it.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use super::view::{ContainerStatusView, JobView, PodView, TerminatedView};
use crate::engine::{AttemptResult, Blame, Failure};

/// What a pod that Succeeded left behind.
pub fn success(pod: &PodView) -> AttemptResult {
    let main = pod.output_container();
    let statuses = &pod.status.container_statuses;
    let status = statuses.iter().find(|status| Some(status.name.as_str()) == main);
    let text =
        status.and_then(|status| status.state.terminated.as_ref()).and_then(|terminated| terminated.message.as_deref());
    let (outputs, message) = read_outputs(text.unwrap_or_default());
    AttemptResult::Succeeded { outputs, message }
}

/// A termination message: a JSON object is the outputs, any other text a message.
fn read_outputs(text: &str) -> (Map<String, Value>, Option<String>) {
    let text = text.trim();
    match serde_json::from_str(text) {
        Ok(Value::Object(outputs)) => (outputs, None),
        _ => (Map::new(), Some(text.to_owned()).filter(|text| !text.is_empty())),
    }
}

/// Why a pod Failed of itself. Not for a pod that was being deleted when its containers ended:
/// see [`interrupted`].
pub fn failure(pod: &PodView) -> Failure {
    if let Some(condition) = pod.condition("DisruptionTarget", "True") {
        let reason = condition.reason.clone().unwrap_or_else(|| "DisruptionTarget".to_owned());
        let message = condition.message.clone().or_else(|| pod.status.message.clone());
        return Failure { reason, message, exit_code: None, blame: Blame::Cluster };
    }
    let container = failed_container(pod);
    if let Some(reason) = &pod.status.reason {
        // The kubelet evicts for want of room on the machine with DisruptionTarget, and without it where a pod used
        // more storage than its own limit. Everything else said of a whole pod is the machine's refusal or loss.
        let own = matches!(reason.as_str(), "Evicted" | "DeadlineExceeded");
        return Failure {
            reason: reason.clone(),
            message: pod.status.message.clone(),
            exit_code: container.as_ref().map(|(_, terminated)| terminated.exit_code),
            blame: if own { Blame::Task } else { Blame::Cluster },
        };
    }
    let Some((status, terminated)) = container else {
        let reason = "PodFailed".to_owned();
        return Failure { reason, message: pod.status.message.clone(), exit_code: None, blame: Blame::Cluster };
    };
    let reason = terminated.reason.clone().unwrap_or_else(|| "Error".to_owned());
    // the kubelet found the pod again, but not what became of its container
    let lost = reason == "ContainerStatusUnknown";
    let text = terminated.message.as_deref().map(str::trim).filter(|text| !text.is_empty());
    let message = match text {
        Some(text) if pod.output_container() == Some(&status.name) => Some(text.to_owned()),
        Some(text) => Some(format!("container {:?}: {text}", status.name)),
        None => pod.status.message.clone(),
    };
    let blame = if lost { Blame::Cluster } else { Blame::Task };
    Failure { reason, message, exit_code: Some(terminated.exit_code), blame }
}

/// Why the attempt of a Job failed whose condition `Failed` is `True`. `pod` is its pod, if it has one.
///
/// `None`: the Job failed because of a pod that is not seen as ended yet.
pub fn job_failure(job: &JobView, pod: Option<&PodView>) -> Option<Failure> {
    let condition = job.condition("Failed")?;
    let reason = condition.reason.as_deref().unwrap_or("JobFailed");
    let disrupted = pod.is_some_and(|pod| pod.condition("DisruptionTarget", "True").is_some());
    let told = |reason: &str, blame| {
        let message = condition.message.clone();
        Some(Failure { reason: reason.to_owned(), message, exit_code: None, blame })
    };
    match (reason, pod) {
        ("DeadlineExceeded", _) => told(reason, Blame::Task),
        (_, Some(pod)) if pod.terminal() && (disrupted || !interrupted(pod)) => Some(failure(pod)),
        ("PodFailurePolicy", _) => told("Disrupted", Blame::Cluster),
        (_, Some(pod)) if !pod.terminal() && !pod.deleting() => None,
        // Somebody deleted the pod while its containers ran. Nothing is known against the task.
        (_, Some(_)) => told("PodDeleted", Blame::Cluster),
        // The pod failed or was deleted, and was gone before we saw how: by hand, or with its machine.
        ("BackoffLimitExceeded", None) => told("PodLost", Blame::Cluster),
        (_, None) => told(reason, Blame::Task),
    }
}

/// Whether a pod was asked to go before its containers ended: then their exit codes say nothing.
fn interrupted(pod: &PodView) -> bool {
    let Some(deadline) = &pod.metadata.deletion_timestamp else { return false };
    // the timestamp is the end of the grace period
    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or_default();
    let asked = deadline.0.saturating_sub(SignedDuration::from_secs(grace)).unwrap_or(deadline.0);
    // times are whole seconds: one that ended in the second of the request may have been killed
    failed_container(pod).and_then(|(_, terminated)| terminated.finished_at.as_ref()).is_none_or(|time| time.0 >= asked)
}

/// The container to blame: an init container that failed, else the output container, else the first that failed.
/// Sidecars come last, as they are killed at the end.
fn failed_container(pod: &PodView) -> Option<(&ContainerStatusView, &TerminatedView)> {
    let failed =
        |status: &'_ &ContainerStatusView| status.state.terminated.as_ref().is_some_and(|end| end.exit_code != 0);
    let sidecar = |status: &'_ &ContainerStatusView| {
        let mut specs = pod.spec.init_containers.iter();
        specs.any(|spec| spec.name == status.name && spec.restart_policy.as_deref() == Some("Always"))
    };
    let main = pod.output_container();
    let init = || pod.status.init_container_statuses.iter().filter(failed);
    let plain = || pod.status.container_statuses.iter().filter(failed);
    let status = init()
        .find(|status| !sidecar(status))
        .or_else(|| plain().find(|status| Some(status.name.as_str()) == main))
        .or_else(|| plain().next())
        .or_else(|| init().next())?;
    Some((status, status.state.terminated.as_ref()?))
}

/// When the attempt ended, as far as the pod and the Job know.
pub fn end_time(job: &JobView, pod: Option<&PodView>) -> Timestamp {
    let containers = pod.into_iter().flat_map(|pod| &pod.status.container_statuses);
    let finished =
        containers.filter_map(|status| status.state.terminated.as_ref()?.finished_at.as_ref()).map(|time| time.0).max();
    let condition = job.condition("Complete").or_else(|| job.condition("Failed"));
    finished
        .or_else(|| job.status.completion_time.as_ref().map(|time| time.0))
        .or_else(|| condition?.last_transition_time.as_ref().map(|time| time.0))
        .or_else(|| pod?.metadata.creation_timestamp.as_ref().map(|time| time.0))
        .or_else(|| job.metadata.creation_timestamp.as_ref().map(|time| time.0))
        .unwrap_or_default()
}
