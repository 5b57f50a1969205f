//! Tells what the operator made from what somebody copied of it, labels and all: to look into a failure, or to run it once
//! more by hand. A copy is not waited for and not deleted.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{
    observe::labels_of,
    view::{JobView, PodView},
};
use crate::api::LABEL_GRAPH;

/// What the Job controller adds to the name of a Job, after a dash: characters that make no words.
const SUFFIX: &str = "bcdfghjklmnpqrstvwxz2456789";
/// How many of them.
const SUFFIX_LENGTH: usize = 5;

/// Whether a Job is not called as its labels say. Whether it still has an owner does not matter: `--cascade=orphan`
/// takes that away.
pub fn is_copied_job(job: &JobView) -> bool {
    let name = jobs_name(&job.metadata, job.is_indexed());
    name.is_none() || name != job.metadata.name
}

/// Whether a graph is not called as the child graph that its labels speak of.
pub fn is_copied_child(metadata: &ObjectMeta) -> bool {
    let name = jobs_name(metadata, false);
    name.is_none() || name != metadata.name
}

/// Whether a pod is controlled by nothing, and is not called as the Job controller calls a pod of the Job that its labels
/// speak of. One whose Job was deleted with `--cascade=orphan` is no copy: it is the attempt's, and runs on.
pub fn is_copied_pod(pod: &PodView) -> bool {
    let is_called = |job: Option<String>, indexed: bool| {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        job.and_then(|job| name.strip_prefix(&job)?.strip_prefix('-')).is_some_and(|rest| is_suffix(rest, indexed))
    };
    pod.owner_uid().is_none()
        && !is_called(jobs_name(&pod.metadata, false), false)
        && !is_called(jobs_name(&pod.metadata, true), true)
}

/// The name of the Job that the labels speak of.
fn jobs_name(metadata: &ObjectMeta, indexed: bool) -> Option<String> {
    Some(labels_of(metadata)?.job_name(metadata.labels.as_ref()?.get(LABEL_GRAPH)?, indexed))
}

/// `x7k2p`, or with the place of an item `12-x7k2p`.
fn is_suffix(rest: &str, indexed: bool) -> bool {
    let (place, random) = rest.split_once('-').map_or((None, rest), |(place, random)| (Some(place), random));
    let is_number = |place: &str| !place.is_empty() && place.bytes().all(|byte| byte.is_ascii_digit());
    place.is_some() == indexed
        && place.is_none_or(is_number)
        && random.len() == SUFFIX_LENGTH
        && random.chars().all(|one| SUFFIX.contains(one))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::jobs::{indexed_job_name, job_name};

    fn metadata(name: &str, more: Value) -> Value {
        let mut metadata = json!({"name": name, "labels": {
            "taskgraph.dev/graph": "g", "taskgraph.dev/graph-uid": "u", "taskgraph.dev/role": "task",
            "taskgraph.dev/task": "t", "taskgraph.dev/attempt": "2"}});
        if let (Value::Object(metadata), Value::Object(more)) = (&mut metadata, more) {
            metadata.extend(more);
        }
        metadata
    }

    fn pod(name: &str, more: Value) -> PodView {
        serde_json::from_value(json!({"metadata": metadata(name, more)})).unwrap()
    }

    #[test]
    fn pods() {
        let (job, indexed) = (job_name("g", "u", "task", "t", 2), indexed_job_name("g", "u", "task", "t", 2));
        let owner = json!({"ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "x", "uid": "j", "controller": true}]});
        for (name, more, copied) in [
            ("mine".to_owned(), json!({}), true),
            ("mine".to_owned(), owner, false),
            (format!("{job}-x7k2p"), json!({}), false),
            (format!("{job}-x7k2p"), json!({"labels": null}), true),
            (format!("{indexed}-12-x7k2p"), json!({}), false),
            (format!("{job}-copy1"), json!({}), true),
            (format!("{job}-x7k2p-debug"), json!({}), true),
            (format!("{job}x7k2p"), json!({}), true),
            (job.clone(), json!({}), true),
        ] {
            assert_eq!(is_copied_pod(&pod(&name, more.clone())), copied, "{name} {more}");
        }
        let other = json!({"labels": {"taskgraph.dev/graph": "g", "taskgraph.dev/attempt": "2"}});
        assert!(is_copied_pod(&pod(&format!("{job}-x7k2p"), other)), "labels that are not whole");
    }

    #[test]
    fn jobs_and_child_graphs() {
        let name = job_name("g", "u", "task", "t", 2);
        let job = |name: &str, mode: &str| -> JobView {
            let spec = json!({"completionMode": mode});
            serde_json::from_value(json!({"metadata": metadata(name, json!({})), "spec": spec})).unwrap()
        };
        assert!(!is_copied_job(&job(&name, "NonIndexed")) && is_copied_job(&job("again", "NonIndexed")));
        assert!(!is_copied_job(&job(&indexed_job_name("g", "u", "task", "t", 2), "Indexed")));
        let child = |name: &str| serde_json::from_value::<ObjectMeta>(metadata(name, json!({}))).unwrap();
        assert!(!is_copied_child(&child(&name)) && is_copied_child(&child("again")));
    }
}
