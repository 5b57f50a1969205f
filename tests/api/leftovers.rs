//! What is left of attempts that are over, and what only looks like it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, PropagationPolicy},
};
use serde_json::json;
use taskgraph::api::{LABEL_GRAPH, TaskGraph};

use crate::{
    fixture::{Fixture, task, task_with},
    support::{
        Play,
        namespace::{finished, task as task_status},
        sight::{Object, Sighting},
    },
};

fn orphan() -> DeleteParams {
    DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() }
}

#[tokio::test]
async fn a_copied_pod_neither_blocks_a_retry_nor_is_deleted() -> Result<()> {
    let copied = Arc::new(AtomicBool::new(false));
    let is_copied = Arc::clone(&copied);
    let fixture = Fixture::new("copy", move |task, attempt| match attempt {
        _ if task != "a" => Play::succeeds(""),
        1 if is_copied.load(Ordering::Relaxed) => Play::runs_on(),
        1 => Play::fails(1).held(),
        _ => Play::succeeds(""),
    })
    .await?;
    let retry = json!({"retry": {"limit": 1, "backoff": {"initial": "20ms"}}});
    fixture.namespace.create("g", json!({"tasks": [task_with("a", &[], retry), task("b", &["a"])]})).await?;
    fixture.until_pod_runs("a").await;
    let pods = fixture.namespace.until_all::<Pod>("one", |pods| pods.len() == 1).await;
    copied.store(true, Ordering::Relaxed);
    let metadata = ObjectMeta {
        name: Some("mine".to_owned()),
        labels: pods[0].metadata.labels.clone(),
        annotations: pods[0].metadata.annotations.clone(),
        ..ObjectMeta::default()
    };
    let mut copy = Pod { metadata, spec: pods[0].spec.clone(), status: None };
    // what the Job controller would take for its own
    for label in ["controller-uid", "batch.kubernetes.io/controller-uid"] {
        copy.labels_mut().remove(label);
    }
    fixture.namespace.pods().create(&PostParams::default(), &copy).await?;
    fixture.player.let_end();
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(finished(&graph), Some("Complete"));
    assert_eq!(task_status(&graph, "a").map(|task| task.attempts), Some(2));
    let kept = fixture.namespace.pods().get("mine").await?;
    assert!(kept.metadata.deletion_timestamp.is_none());
    Ok(())
}

#[tokio::test]
async fn a_pod_that_outlives_its_job_is_ended_before_the_next_attempt() -> Result<()> {
    let fixture = Fixture::new("orphan", |_, attempt| match attempt {
        1 => Play::runs_on().lingering(Duration::from_millis(500)),
        _ => Play::succeeds(""),
    })
    .await?;
    fixture.namespace.create("g", json!({"tasks": [task("a", &[])]})).await?;
    let job = fixture.until_job("a", 1).await;
    fixture.until_pod_runs("a").await;
    // stored: a Job that vanishes before anything tells of it cannot be missed by anyone
    let stored = |graph: &TaskGraph| task_status(graph, "a").is_some_and(|task| task.job.is_some());
    fixture.namespace.until("g", "stored", stored).await;
    fixture.namespace.jobs().delete(&job, &orphan()).await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(finished(&graph), Some("Complete"));
    let told = task_status(&graph, "a").expect("its status");
    assert_eq!((told.attempts, told.failed_attempts[0].reason.as_str()), (2, "JobLost"));
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn what_a_lost_child_left_running_is_ended_before_the_next_attempt() -> Result<()> {
    let lost = Arc::new(AtomicBool::new(false));
    let is_lost = Arc::clone(&lost);
    let fixture = Fixture::new("childorphan", move |_, _| {
        let play = if is_lost.load(Ordering::Relaxed) { Play::succeeds("") } else { Play::runs_on() };
        play.lingering(Duration::from_millis(500))
    })
    .await?;
    // a child, and a child of the child, each with a pod
    fixture.namespace.create_template("inner", json!({"graph": {"tasks": [task("deep", &[])]}})).await?;
    let run = json!({"name": "run", "templateRef": {"name": "inner"}});
    fixture.namespace.create_template("outer", json!({"graph": {"tasks": [run, task("beside", &[])]}})).await?;
    let child = json!({"name": "child", "templateRef": {"name": "outer"}});
    let graph = fixture.namespace.create("g", json!({"tasks": [child]})).await?;
    fixture.until_pod_runs("deep").await;
    fixture.until_pod_runs("beside").await;
    let first = taskgraph::jobs::job_name("g", &graph.uid().unwrap_or_default(), "task", "child", 1);
    lost.store(true, Ordering::Relaxed);
    // as `--cascade=orphan` does; the garbage collector of the tests takes its time to learn of kinds that are not built in
    let owned = ListParams::default().labels(&format!("{LABEL_GRAPH}={first}"));
    let no_owner = Patch::Merge(json!({"metadata": {"ownerReferences": null}}));
    for job in fixture.namespace.jobs().list(&owned).await? {
        fixture.namespace.jobs().patch(&job.name_any(), &PatchParams::default(), &no_owner).await?;
    }
    for graph in fixture.namespace.graphs().list(&owned).await? {
        fixture.namespace.graphs().patch(&graph.name_any(), &PatchParams::default(), &no_owner).await?;
    }
    fixture.namespace.graphs().delete(&first, &DeleteParams::background()).await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(finished(&graph), Some("Complete"));
    let told = task_status(&graph, "child").expect("its status");
    assert_eq!((told.attempts, told.failed_attempts[0].reason.as_str()), (2, "ChildLost"));
    let seen = fixture.judge().await?;
    let second = seen.iter().find(|one| Some(&one.name) == told.job.as_ref()).expect("the second child");
    let ended = |one: &&Sighting| {
        let is_over = |pod: &crate::support::sight::PodState| one.gone || pod.is_terminal();
        matches!(&one.object, Object::Pod(_, pod) if is_over(pod)) && one.version < second.version
    };
    let mut over: Vec<_> = seen.iter().filter(ended).map(|one| one.uid.as_str()).collect();
    over.sort_unstable();
    over.dedup();
    assert_eq!(over.len(), 2, "both pods of the first had ended when the second was made");
    let left = fixture.namespace.graphs().list(&ListParams::default().labels(LABEL_GRAPH)).await?.items;
    assert_eq!(left.len(), 2, "the second child and its own: {left:?}");
    Ok(())
}
