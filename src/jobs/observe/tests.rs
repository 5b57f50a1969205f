//! Jobs and Pods as the API server shows them, and what they mean.

#![allow(clippy::needless_pass_by_value, reason = "json! gives values")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::engine::{Blame, TaskId};

const ATTEMPT: Attempt = Attempt::new(TaskId(0), 1);

fn job(conditions: Value) -> JobView {
    serde_json::from_value(json!({
        "metadata": {"name": "j", "uid": "job-uid", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "status": {"conditions": conditions},
    }))
    .unwrap()
}

fn failed(reason: &str) -> JobView {
    job(json!([{"type": "Failed", "status": "True", "reason": reason, "message": "told by the Job"}]))
}

fn complete() -> JobView {
    job(json!([{"type": "SuccessCriteriaMet", "status": "True"}, {"type": "Complete", "status": "True"}]))
}

/// A pod of the Job, with `status`.
fn pod(status: Value) -> PodView {
    serde_json::from_value(json!({
        "metadata": {
            "name": "p", "uid": "pod-uid", "creationTimestamp": "2026-01-01T00:00:01Z",
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "job-uid", "controller": true}],
        },
        "spec": {
            "containers": [{"name": "side"}, {"name": "main"}],
            "initContainers": [{"name": "proxy", "restartPolicy": "Always"}, {"name": "init"}],
        },
        "status": status,
    }))
    .unwrap()
}

fn deleted(mut pod: PodView, asked: &str, grace: i64) -> PodView {
    let asked: jiff::Timestamp = asked.parse().unwrap();
    let end = asked + jiff::SignedDuration::from_secs(grace);
    pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(end));
    pod.metadata.deletion_grace_period_seconds = Some(grace);
    pod
}

fn ended(name: &str, code: i32, reason: &str, message: &str) -> Value {
    json!({"name": name, "state": {"terminated": {
        "exitCode": code, "reason": reason, "message": message, "startedAt": "2026-01-01T00:00:02Z", "finishedAt": "2026-01-01T00:00:05Z",
    }}})
}

fn waiting(name: &str, reason: &str) -> Value {
    json!({"name": name, "state": {"waiting": {"reason": reason, "message": "why"}}})
}

fn disrupted() -> Value {
    json!([{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting"}])
}

/// The events in short, without the first, which is always `Launched`.
fn seen(job: &JobView, pods: &[PodView]) -> Vec<String> {
    let pods: Vec<_> = pods.iter().collect();
    let events = observe(ATTEMPT, Some(job), &pods);
    assert_eq!(events.first(), Some(&Event::Launched { attempt: ATTEMPT, job: "j".into() }));
    assert_eq!(events, observe(ATTEMPT, Some(job), &pods), "the same objects mean the same");
    events.iter().skip(1).map(short).collect()
}

/// An event in a few words.
pub fn short(event: &Event) -> String {
    match event {
        Event::Started { .. } => "started".into(),
        Event::Blocked { reason, message, cluster, .. } => format!("blocked {reason} {cluster}: {message}"),
        Event::Finished { result: AttemptResult::Succeeded { outputs, message }, .. } => {
            format!("succeeded {} {message:?}", Value::Object(outputs.clone()))
        }
        Event::Finished { result: AttemptResult::Failed(failure), .. } => {
            let message = failure.message.as_deref().unwrap_or("-");
            format!("failed {} {:?} {:?}: {message}", failure.reason, failure.blame, failure.exit_code)
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn while_it_runs() {
    let none: [String; 0] = [];
    assert_eq!(observe(ATTEMPT, None, &[]), []);
    assert_eq!(seen(&job(json!([])), &[]), none);
    for (status, expected) in [
        (json!({"phase": "Pending"}), vec![]),
        (json!({"phase": "Pending", "containerStatuses": [waiting("main", "ContainerCreating")]}), vec![]),
        (
            json!({"phase": "Running", "containerStatuses": [{"name": "main", "state": {"running": {"startedAt": "2026-01-01T00:00:02Z"}}}]}),
            vec!["started"],
        ),
        (json!({"phase": "Pending", "initContainerStatuses": [ended("init", 0, "Completed", "")]}), vec!["started"]),
        (
            json!({"phase": "Pending", "containerStatuses": [waiting("main", "ErrImageNeverPull")]}),
            vec!["blocked ErrImageNeverPull false: container \"main\": why"],
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [waiting("init", "CreateContainerConfigError")]}),
            vec!["blocked CreateContainerConfigError false: container \"init\": why"],
        ),
        (
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}]}),
            vec!["blocked Unschedulable true: 0/1 nodes"],
        ),
        (json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "True"}]}), vec![]),
    ] {
        assert_eq!(seen(&job(json!([])), &[pod(status.clone())]), expected, "{status}");
    }
}

#[test]
fn success() {
    let left = |text: &str| {
        pod(
            json!({"phase": "Succeeded", "containerStatuses": [ended("side", 0, "Completed", "{\"no\": 1}"), ended("main", 0, "Completed", text)]}),
        )
    };
    for (text, expected) in [
        ("{\"quality\": 0.97, \"rows\": [1]}\n", "succeeded {\"quality\":0.97,\"rows\":[1]} None"),
        ("", "succeeded {} None"),
        ("  \n", "succeeded {} None"),
        ("all good", "succeeded {} Some(\"all good\")"),
        ("[1]", "succeeded {} Some(\"[1]\")"),
        ("{\"cut", "succeeded {} Some(\"{\\\"cut\")"),
    ] {
        for job in [job(json!([])), complete(), failed("DeadlineExceeded")] {
            // also while its pod is being deleted, and whatever the Job says
            let plain = left(text);
            let gone = deleted(plain.clone(), "2026-01-01T00:00:03Z", 0);
            assert_eq!(seen(&job, &[plain]), ["started", expected]);
            assert_eq!(seen(&job, &[gone]), ["started", expected]);
        }
    }
}

#[test]
fn outputs_come_from_the_container_that_is_named() {
    let mut named = pod(
        json!({"phase": "Succeeded", "containerStatuses": [ended("side", 0, "Completed", "{\"a\":1}"), ended("main", 0, "Completed", "x")]}),
    );
    let annotation = ("kubectl.kubernetes.io/default-container".to_owned(), "side".to_owned());
    named.metadata.annotations = Some([annotation].into());
    assert_eq!(seen(&complete(), std::slice::from_ref(&named)), ["started", "succeeded {\"a\":1} None"]);
    named.metadata.annotations = None;
    named.spec.containers.retain(|container| container.name == "side");
    assert_eq!(seen(&complete(), &[named]), ["started", "succeeded {\"a\":1} None"]);
}

#[test]
fn a_job_that_ended_without_a_pod() {
    assert_eq!(seen(&complete(), &[]), ["succeeded {} None"]);
    assert_eq!(seen(&failed("BackoffLimitExceeded"), &[]), ["failed PodLost Cluster None: told by the Job"]);
    assert_eq!(seen(&failed("PodFailurePolicy"), &[]), ["failed Disrupted Cluster None: told by the Job"]);
    assert_eq!(seen(&failed("DeadlineExceeded"), &[]), ["failed DeadlineExceeded Task None: told by the Job"]);
    assert!(needs_live_pods(&complete(), &[]) && needs_live_pods(&failed("x"), &[]));
    assert!(!needs_live_pods(&job(json!([])), &[]));
    assert!(!needs_live_pods(&complete(), &[&pod(json!({}))]));
}

#[test]
fn failures_of_containers() {
    let none = job(json!([]));
    for (status, expected) in [
        (
            json!({"containerStatuses": [ended("main", 3, "Error", " last lines\n")]}),
            "failed Error Task Some(3): last lines",
        ),
        (json!({"containerStatuses": [ended("main", 137, "OOMKilled", "")]}), "failed OOMKilled Task Some(137): -"),
        (
            json!({"containerStatuses": [ended("main", 128, "StartError", "no such file")]}),
            "failed StartError Task Some(128): no such file",
        ),
        (
            json!({"containerStatuses": [ended("side", 1, "Error", "s"), ended("main", 2, "Error", "m")]}),
            "failed Error Task Some(2): m",
        ),
        (
            json!({"containerStatuses": [ended("side", 1, "Error", "s"), ended("main", 0, "Completed", "m")]}),
            "failed Error Task Some(1): container \"side\": s",
        ),
        (
            json!({"initContainerStatuses": [ended("proxy", 143, "Error", "p"), ended("init", 4, "Error", "i")], "containerStatuses": [waiting("main", "PodInitializing")]}),
            "failed Error Task Some(4): container \"init\": i",
        ),
        (
            json!({"initContainerStatuses": [ended("proxy", 143, "Error", "p")], "containerStatuses": [ended("main", 1, "Error", "m")]}),
            "failed Error Task Some(1): m",
        ),
        (
            json!({"containerStatuses": [ended("main", 137, "ContainerStatusUnknown", "not found")]}),
            "failed ContainerStatusUnknown Cluster Some(137): not found",
        ),
        (
            json!({"reason": "Evicted", "message": "exceeds its own storage", "containerStatuses": [ended("main", 137, "Error", "")]}),
            "failed Evicted Task Some(137): exceeds its own storage",
        ),
        (
            json!({"reason": "Evicted", "message": "low on memory", "conditions": disrupted()}),
            "failed EvictionByEvictionAPI Cluster None: Eviction API: evicting",
        ),
        (
            json!({"reason": "OutOfcpu", "message": "Node didn't have enough"}),
            "failed OutOfcpu Cluster None: Node didn't have enough",
        ),
        (json!({"reason": "NodeLost"}), "failed NodeLost Cluster None: -"),
        (json!({}), "failed PodFailed Cluster None: -"),
    ] {
        let mut status = status;
        status["phase"] = "Failed".into();
        let pod = pod(status.clone());
        assert_eq!(seen(&none, std::slice::from_ref(&pod)).last().map(String::as_str), Some(expected), "{status}");
        // the Job says nothing else later
        assert_eq!(
            seen(&failed("BackoffLimitExceeded"), &[pod]).last().map(String::as_str),
            Some(expected),
            "{status}"
        );
    }
}

#[test]
fn a_pod_that_is_being_deleted_waits_for_its_job() {
    let status = |conditions: Value| json!({"phase": "Failed", "conditions": conditions, "containerStatuses": [ended("main", 143, "Error", "m")]});
    let killed = deleted(pod(status(json!([]))), "2026-01-01T00:00:05Z", 30);
    assert_eq!(seen(&job(json!([])), std::slice::from_ref(&killed)), ["started"]);
    assert_eq!(
        seen(&failed("DeadlineExceeded"), std::slice::from_ref(&killed)),
        ["started", "failed DeadlineExceeded Task None: told by the Job"]
    );
    assert_eq!(
        seen(&failed("BackoffLimitExceeded"), &[killed]),
        ["started", "failed PodDeleted Cluster None: told by the Job"]
    );
    // it had failed of itself before anybody asked for its deletion
    let earlier = deleted(pod(status(json!([]))), "2026-01-01T00:00:06Z", 0);
    assert_eq!(seen(&failed("BackoffLimitExceeded"), &[earlier]), ["started", "failed Error Task Some(143): m"]);
    let evicted = deleted(pod(status(disrupted())), "2026-01-01T00:00:05Z", 30);
    assert_eq!(
        seen(&failed("PodFailurePolicy"), &[evicted]),
        ["started", "failed EvictionByEvictionAPI Cluster None: Eviction API: evicting"]
    );
}

#[test]
fn a_pod_that_is_seen_late_is_waited_for() {
    let running =
        || pod(json!({"phase": "Running", "containerStatuses": [{"name": "main", "state": {"running": {}}}]}));
    assert_eq!(seen(&complete(), &[running()]), ["started"]);
    assert_eq!(seen(&failed("BackoffLimitExceeded"), &[running()]), ["started"]);
    // here the Job knows all there is to know
    assert_eq!(
        seen(&failed("DeadlineExceeded"), &[running()]),
        ["started", "failed DeadlineExceeded Task None: told by the Job"]
    );
}

#[test]
fn pods_of_others_do_not_count() {
    let mut other = pod(json!({"phase": "Failed"}));
    other.metadata.owner_references.as_mut().unwrap()[0].uid = "other".into();
    let mut orphan = pod(json!({"phase": "Succeeded"}));
    orphan.metadata.owner_references = None;
    let mut guest = pod(json!({"phase": "Succeeded"}));
    guest.metadata.owner_references.as_mut().unwrap()[0].controller = None;
    let none: [String; 0] = [];
    assert_eq!(seen(&job(json!([])), &[other, orphan, guest]), none);
}

#[test]
fn of_two_pods_a_success_counts_and_a_failure_waits() {
    let failed = pod(json!({"phase": "Failed", "containerStatuses": [ended("main", 1, "Error", "m")]}));
    let mut other = pod(json!({"phase": "Running"}));
    other.metadata.uid = Some("pod-2".into());
    assert_eq!(seen(&job(json!([])), &[failed.clone(), other.clone()]), ["started"]);
    other.status.phase = Some("Succeeded".into());
    for pods in [[failed.clone(), other.clone()], [other, failed]] {
        assert_eq!(seen(&job(json!([])), &pods), ["started", "succeeded {} None"]);
    }
}

#[test]
fn times() {
    let at = |job: &JobView, pods: &[&PodView]| match observe(ATTEMPT, Some(job), pods).pop() {
        Some(Event::Finished { time, .. }) => time.to_string(),
        other => format!("{other:?}"),
    };
    let succeeded = pod(json!({"phase": "Succeeded", "containerStatuses": [ended("main", 0, "Completed", "")]}));
    assert_eq!(at(&job(json!([])), &[&succeeded]), "2026-01-01T00:00:05Z");
    let condition = json!([{"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "lastTransitionTime": "2026-01-01T00:01:00Z"}]);
    assert_eq!(at(&job(condition), &[]), "2026-01-01T00:01:00Z");
    assert_eq!(at(&complete(), &[]), "2026-01-01T00:00:00Z");
}

#[test]
fn labels() {
    let read = |labels: Value| {
        let metadata: ObjectMeta = serde_json::from_value(json!({"labels": labels})).unwrap();
        labels_of(&metadata).map(|key| format!("{key:?}"))
    };
    let good = json!({"taskgraph.dev/graph-uid": "u", "taskgraph.dev/role": "task", "taskgraph.dev/task": "t", "taskgraph.dev/attempt": "12"});
    assert_eq!(
        read(good.clone()).as_deref(),
        Some("Key { graph_uid: \"u\", role: \"task\", task: \"t\", attempt: 12, item: None }")
    );
    assert_eq!(read(Value::Null), None);
    for key in ["graph-uid", "role", "task", "attempt"] {
        for bad in [Value::Null, "".into()] {
            let mut labels = good.clone();
            let _ = labels.as_object_mut().unwrap().shift_remove(&format!("taskgraph.dev/{key}"));
            if !bad.is_null() {
                labels[format!("taskgraph.dev/{key}")] = bad;
            }
            assert_eq!(read(labels), None, "{key}");
        }
    }
    for attempt in ["0", "-1", "+1", "01", "1.0", "x", "4294967296", " 1"] {
        let mut labels = good.clone();
        labels["taskgraph.dev/attempt"] = attempt.into();
        assert_eq!(read(labels), None, "{attempt}");
    }
}

fn any_pod() -> impl Strategy<Value = PodView> {
    let phase = proptest::sample::select(vec!["Pending", "Running", "Succeeded", "Failed", "Unknown"]);
    let status = proptest::option::of(
        (0..3i32, "[A-Z][a-z]{0,5}", ".{0,9}")
            .prop_map(|(code, reason, message)| ended("main", code, &reason, &message)),
    );
    (phase, status, any::<bool>(), any::<bool>(), 0..3u8).prop_map(|(phase, status, deleting, disruption, uid)| {
        let conditions = if disruption { disrupted() } else { json!([]) };
        let mut pod = pod(json!({"phase": phase, "containerStatuses": status.map_or(json!([]), |status| json!([status])), "conditions": conditions}));
        pod.metadata.uid = Some(uid.to_string());
        if deleting { deleted(pod, "2026-01-01T00:00:05Z", 30) } else { pod }
    })
}

proptest! {
    #[test]
    fn a_success_is_never_told_as_a_failure_and_order_does_not_matter(
        pods in proptest::collection::vec(any_pod(), 0..4),
        job in proptest::sample::select(vec![job(json!([])), complete(), failed("DeadlineExceeded"), failed("BackoffLimitExceeded"), failed("PodFailurePolicy")]),
    ) {
        let forward: Vec<_> = pods.iter().collect();
        let events = observe(ATTEMPT, Some(&job), &forward);
        let finished: Vec<_> = events.iter().filter_map(|event| match event {
            Event::Finished { result, .. } => Some(result),
            _ => None,
        }).collect();
        prop_assert!(finished.len() <= 1);
        let failed = matches!(finished.first(), Some(AttemptResult::Failed(_)));
        prop_assert!(!(failed && pods.iter().any(|pod| pod.phase() == "Succeeded")));
        // a pod that was disrupted or deleted is not held against the task, unless its deadline had passed
        let all_disrupted = pods.iter().all(|pod| pod.condition("DisruptionTarget", "True").is_some());
        if let Some(AttemptResult::Failed(failure)) = finished.first() && all_disrupted && failure.reason != "DeadlineExceeded" {
            prop_assert_eq!(failure.blame, Blame::Cluster);
        }
        let mut backward = pods.clone();
        backward.sort_by_key(|pod| std::cmp::Reverse(pod.metadata.uid.clone()));
        let unique: std::collections::BTreeSet<_> = pods.iter().map(|pod| pod.metadata.uid.clone()).collect();
        if unique.len() == pods.len() {
            prop_assert_eq!(events, observe(ATTEMPT, Some(&job), &backward.iter().collect::<Vec<_>>()));
        }
    }
}
