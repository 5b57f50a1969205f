#![allow(clippy::needless_pass_by_value, reason = "json! gives values")]

use serde_json::json;

use super::*;
use crate::{
    engine::TaskId,
    jobs::{goes_on, needs_live_pods, observe},
};

const ATTEMPT: Attempt = Attempt::new(TaskId(3), 2);

fn job(status: Value, tolerated: Option<i32>) -> JobView {
    let spec = json!({"completionMode": "Indexed", "completions": 5, "maxFailedIndexes": tolerated});
    serde_json::from_value(json!({"metadata": {"name": "j", "uid": "job"}, "spec": spec, "status": status})).unwrap()
}

fn ended(kind: &str, reason: &str, completed: &str, failed: &str, tolerated: Option<i32>) -> JobView {
    let conditions = json!([{"type": kind, "status": "True", "reason": reason, "message": "told by the Job"}]);
    job(json!({"conditions": conditions, "completedIndexes": completed, "failedIndexes": failed}), tolerated)
}

fn pod(index: u32, phase: &str, message: &str) -> PodView {
    let state = match phase {
        "Succeeded" => json!({"terminated": {"exitCode": 0, "reason": "Completed", "message": message}}),
        "Failed" => json!({"terminated": {"exitCode": 3, "reason": "Error", "message": message}}),
        "Running" => json!({"running": {}}),
        _ => json!({"waiting": {"reason": "ErrImageNeverPull", "message": "why"}}),
    };
    let labels = json!({"batch.kubernetes.io/job-completion-index": index.to_string()});
    let owner = json!([{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "job", "controller": true}]);
    serde_json::from_value(json!({
        "metadata": {"name": format!("{index}-{phase}"), "uid": format!("{index}-{phase}"), "labels": labels, "ownerReferences": owner},
        "spec": {"containers": [{"name": "main"}]},
        "status": {"phase": phase, "containerStatuses": [{"name": "main", "state": state}]},
    }))
    .unwrap()
}

/// Everything after `Launched`, in short.
fn seen(job: &JobView, pods: &[PodView]) -> Vec<String> {
    let pods: Vec<_> = pods.iter().collect();
    let events = observe(ATTEMPT, Some(job), &pods);
    assert_eq!(events.first(), Some(&Event::Launched { attempt: ATTEMPT, job: "j".into() }));
    let backward: Vec<_> = pods.iter().rev().copied().collect();
    assert_eq!(events, observe(ATTEMPT, Some(job), &backward), "order does not matter");
    events.iter().skip(1).map(short).collect()
}

fn short(event: &Event) -> String {
    match event {
        Event::Blocked { reason, .. } => format!("blocked {reason}"),
        Event::Items { items, .. } => {
            let failed = items.failed_indexes.as_deref().unwrap_or("-");
            format!("items {}+{}/{}, {} active, {failed}", items.succeeded, items.failed, items.total, items.active)
        }
        other => observe::tests::short(other),
    }
}

#[test]
fn while_it_runs() {
    let fresh = || job(json!({"active": 2}), None);
    assert_eq!(seen(&fresh(), &[]), ["items 0+0/5, 2 active, -"]);
    assert_eq!(seen(&fresh(), &[pod(0, "Pending", "")]), ["items 0+0/5, 2 active, -", "blocked ErrImageNeverPull"]);
    // one that succeeded is not the end
    for phase in ["Running", "Succeeded", "Failed"] {
        let pods = [pod(0, phase, "{}"), pod(1, "Pending", "")];
        assert_eq!(seen(&fresh(), &pods), ["items 0+0/5, 2 active, -", "started"], "{phase}");
        assert!(goes_on(&fresh(), &pods.iter().collect::<Vec<_>>()), "{phase}");
    }
    let half = job(json!({"active": 1, "completedIndexes": "0,2-3", "failedIndexes": "1"}), None);
    assert_eq!(seen(&half, &[]), ["items 3+1/5, 1 active, 1", "started"]);
    assert!(!needs_live_pods(&half, &[]));
}

#[test]
fn the_outputs_of_all_items_are_lists() {
    let complete = ended("Complete", "CompletionsReached", "0-4", "", None);
    let pods = [
        pod(0, "Succeeded", "{\"a\": 1}"),
        pod(4, "Succeeded", "{\"a\": 2, \"b\": true}"),
        pod(2, "Succeeded", "words"),
    ];
    let told = "items 5+0/5, 0 active, -";
    let outputs = "succeeded {\"a\":[1,null,null,null,2],\"b\":[null,null,null,null,true]} None";
    assert_eq!(seen(&complete, &pods), [told, "started", outputs]);
    assert_eq!(seen(&complete, &[]), [told, "started", "succeeded {} None"]);
    // an earlier pod of an item failed, and a later one was left behind
    let retried = [pod(0, "Failed", "no"), pod(0, "Succeeded", "{\"a\": 1}"), pod(0, "Running", "")];
    assert_eq!(
        seen(&complete, &retried).last().map(String::as_str),
        Some("succeeded {\"a\":[1,null,null,null,null]} None")
    );
}

#[test]
fn pods_that_lag_behind_are_looked_for() {
    let complete = ended("Complete", "CompletionsReached", "0-4", "", None);
    let lacks = |job: &JobView, pods: &[PodView]| needs_live_pods(job, &pods.iter().collect::<Vec<_>>());
    let mut pods: Vec<_> = (0..5).map(|index| pod(index, "Succeeded", "{}")).collect();
    assert!(!lacks(&complete, &pods));
    pods[3] = pod(3, "Running", "");
    assert!(lacks(&complete, &pods));
    pods.remove(3);
    assert!(lacks(&complete, &pods));
    // of a failure only those that failed count
    let failed = ended("Failed", "FailedIndexes", "0,2-4", "1", None);
    assert!(lacks(&failed, &[]) && lacks(&failed, &pods));
    assert!(!lacks(&failed, &[pod(1, "Failed", "")]));
    let tolerated = ended("Failed", "FailedIndexes", "0,2-4", "1", Some(1));
    assert!(lacks(&tolerated, &[pod(1, "Failed", "")]));
    assert!(!lacks(&ended("Failed", "DeadlineExceeded", "", "", None), &[]));
}

#[test]
fn how_many_items_may_fail() {
    let failure = "failed ItemsFailed Task Some(3): 2 of 5 items failed: 1,3; item 1: Error, exit code 3: no";
    for (reason, tolerated, expected) in [
        ("FailedIndexes", None, failure),
        ("FailedIndexes", Some(0), failure),
        ("FailedIndexes", Some(1), failure),
        ("FailedIndexes", Some(2), "succeeded {\"a\":[7,null,null,null,null]} None"),
        // the others were not all tried
        ("MaxFailedIndexesExceeded", Some(1), failure),
        ("MaxFailedIndexesExceeded", Some(2), failure),
        ("DeadlineExceeded", Some(5), "failed DeadlineExceeded Task None: told by the Job"),
    ] {
        let job = ended("Failed", reason, "0,2,4", "1,3", tolerated);
        let pods = [pod(0, "Succeeded", "{\"a\": 7}"), pod(1, "Failed", "no"), pod(3, "Failed", "neither")];
        assert_eq!(seen(&job, &pods), ["items 3+2/5, 0 active, 1,3", "started", expected], "{reason} {tolerated:?}");
    }
}

#[test]
fn items_that_the_cluster_failed_are_its_fault_if_all_are() {
    let by_cluster = |index| {
        let mut pod = pod(index, "Failed", "");
        pod.status.reason = Some("OutOfcpu".into());
        pod
    };
    let job = ended("Failed", "FailedIndexes", "0,2,4", "1,3", None);
    let blamed = |pods: [PodView; 2]| seen(&job, &pods).last().cloned().unwrap_or_default();
    assert!(blamed([by_cluster(1), by_cluster(3)]).contains(" Cluster "));
    assert!(blamed([by_cluster(1), pod(3, "Failed", "")]).contains(" Task "));
    // nothing is known of them
    assert_eq!(
        seen(&job, &[]).last().map(String::as_str),
        Some("failed ItemsFailed Task None: 2 of 5 items failed: 1,3")
    );
}

#[test]
fn pods_of_others_do_not_count() {
    let mut other = pod(0, "Succeeded", "{\"a\": 1}");
    other.metadata.owner_references = None;
    let mut odd = pod(1, "Succeeded", "{\"a\": 1}");
    odd.metadata.labels = None;
    let complete = ended("Complete", "CompletionsReached", "0-4", "", None);
    assert_eq!(seen(&complete, &[other, odd]).last().map(String::as_str), Some("succeeded {} None"));
}
