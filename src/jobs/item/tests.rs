use serde_json::{Value, json};

use super::*;
use crate::{
    engine::TaskId,
    jobs::{goes_on, observe},
};

const ITEM: Attempt = Attempt { task: TaskId(0), number: 1, item: Some(4) };

fn job(condition: Option<(&str, &str)>) -> JobView {
    let conditions: Vec<Value> =
        condition.iter().map(|(type_, reason)| json!({"type": type_, "status": "True", "reason": reason})).collect();
    serde_json::from_value(json!({
        "metadata": {"name": "g-each-1-x", "uid": "j", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"taskgraph.dev/item": "4"}},
        "status": {"conditions": conditions},
    }))
    .unwrap()
}

/// A pod by its phase: `Pending`, `Running`, `Succeeded`, `Failed`, or `Evicted`, or `Pulling`.
fn pod(place: usize, kind: &str) -> PodView {
    let phase = if kind == "Evicted" {
        "Failed"
    } else if kind == "Pulling" {
        "Pending"
    } else {
        kind
    };
    let state = match kind {
        "Pending" => json!({}),
        "Pulling" => json!({"waiting": {"reason": "ErrImagePull", "message": "no such image"}}),
        "Running" => json!({"running": {}}),
        "Succeeded" => json!({"terminated": {"exitCode": 0, "message": "{\"n\": 1}"}}),
        _ => json!({"terminated": {"exitCode": 3, "reason": "Error", "message": "no"}}),
    };
    let conditions =
        if kind == "Evicted" { json!([{"type": "DisruptionTarget", "status": "True"}]) } else { json!([]) };
    serde_json::from_value(json!({
        "metadata": {"name": format!("p{place}"), "uid": format!("p{place}"),
            "creationTimestamp": format!("2026-01-01T00:00:0{place}Z"),
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "j", "controller": true}]},
        "spec": {"containers": [{"name": "main"}]},
        "status": {"phase": phase, "conditions": conditions, "containerStatuses": [{"name": "main", "state": state}]},
    }))
    .unwrap()
}

fn told(job: &JobView, pods: &[&str]) -> String {
    let pods: Vec<PodView> = pods.iter().enumerate().map(|(place, kind)| pod(place, kind)).collect();
    let pods: Vec<&PodView> = pods.iter().collect();
    let mut words = vec![if crate::jobs::needs_live_pods(job, &pods) { "look" } else { "" }.to_owned()];
    words.extend(observe(ITEM, Some(job), &pods).into_iter().map(|event| match event {
        Event::Launched { attempt, .. } => {
            assert_eq!(attempt, ITEM);
            String::new()
        }
        Event::Created { .. } => "created".into(),
        Event::Started { .. } => "started".into(),
        Event::Blocked { reason, cluster, .. } => format!("{reason}/{cluster}"),
        Event::Finished { result: AttemptResult::Succeeded { outputs, .. }, .. } => Value::Object(outputs).to_string(),
        Event::Finished { result: AttemptResult::Failed(failure), .. } => {
            format!("{}/{:?}/{:?}", failure.reason, failure.exit_code, failure.blame)
        }
        other => format!("{other:?}"),
    }));
    words.retain(|word| !word.is_empty());
    words.join(" ")
}

#[test]
fn the_job_says_when_an_item_failed_and_a_pod_when_it_succeeded() {
    let exceeded = Some(("Failed", "BackoffLimitExceeded"));
    for (condition, pods, expected) in [
        (None, &[][..], "created"),
        (None, &["Pending"], "created"),
        (None, &["Pulling"], "created ErrImagePull/false"),
        (None, &["Running"], "started"),
        // it is tried again, or will be told as failed
        (None, &["Failed"], "started"),
        (None, &["Failed", "Pulling"], "started"),
        (None, &["Evicted", "Running"], "started"),
        // the Job controller takes about a second longer
        (None, &["Failed", "Succeeded"], r#"started {"n":1}"#),
        (Some(("Complete", "")), &["Failed", "Succeeded"], r#"started {"n":1}"#),
        (exceeded, &["Failed", "Failed"], "started Error/Some(3)/Task"),
        (exceeded, &["Evicted", "Failed"], "started Error/Some(3)/Task"),
        (Some(("Failed", "DeadlineExceeded")), &["Failed"], "started DeadlineExceeded/None/Task"),
        // pods that are gone, or not seen yet
        (Some(("Complete", "")), &["Failed"], "look started {}"),
        (Some(("Complete", "")), &[], "look started {}"),
        (exceeded, &["Running"], "look started"),
        (exceeded, &[], "look started PodLost/None/Cluster"),
    ] {
        assert_eq!(told(&job(condition), pods), expected, "{condition:?} {pods:?}");
    }
}

#[test]
fn a_job_that_may_try_again_goes_on() {
    for (condition, pods, expected) in [
        (None, &[][..], true),
        (None, &["Failed"], true),
        (None, &["Failed", "Succeeded"], false),
        (Some(("Failed", "BackoffLimitExceeded")), &["Failed"], false),
    ] {
        let views: Vec<PodView> = pods.iter().enumerate().map(|(place, kind)| pod(place, kind)).collect();
        assert_eq!(goes_on(&job(condition), &views.iter().collect::<Vec<_>>()), expected, "{condition:?} {pods:?}");
    }
}
