//! What docs/install.md says of restoring, and docs/gitops.md of drift and of two managers.

use anyhow::Result;
use k8s_openapi::api::batch::v1::Job;
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use taskgraph::api::{LABEL_GRAPH_UID, MANAGER, TaskGraph, TaskPhase};

use crate::{
    fixture::{Fixture, container, task},
    support::{Namespace, Play},
};

/// Deletes a graph and makes it anew, as the document says: another UID, the first generation, and the status put back.
async fn restore(namespace: &Namespace, name: &str) -> Result<TaskGraph> {
    let graphs = namespace.graphs();
    let backup = graphs.get(name).await?;
    graphs.delete(name, &DeleteParams::background()).await?;
    namespace.until_all::<TaskGraph>("deleted", |graphs| graphs.iter().all(|graph| graph.name_any() != name)).await;
    namespace.until_all::<Job>("deleted", |jobs| jobs.iter().all(|job| graph_uid(job) != backup.uid())).await;
    let metadata = ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() };
    let again = TaskGraph { metadata, spec: backup.spec.clone(), status: None };
    let made = graphs.create(&PostParams::default(), &again).await?;
    assert_eq!((made.metadata.generation, made.uid() == backup.uid()), (Some(1), false));
    let mut status = serde_json::to_value(&backup.status)?;
    status["observedGeneration"] = json!(1);
    Ok(graphs.patch_status(name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await?)
}

fn graph_uid(job: &Job) -> Option<String> {
    job.labels().get(LABEL_GRAPH_UID).cloned()
}

/// `TASK/ATTEMPT` of the Jobs of a graph.
async fn attempts(namespace: &Namespace, graph: &TaskGraph) -> Result<Vec<String>> {
    let uid = graph.uid().unwrap_or_default();
    let of_it = ListParams::default().labels(&format!("{LABEL_GRAPH_UID}={uid}"));
    let label = |job: &Job, name: &str| job.labels().get(&format!("taskgraph.dev/{name}")).cloned().unwrap_or_default();
    let jobs = namespace.jobs().list(&of_it).await?;
    let mut names: Vec<_> =
        jobs.iter().map(|job| format!("{}/{}", label(job, "task"), label(job, "attempt"))).collect();
    names.sort();
    Ok(names)
}

#[tokio::test]
async fn a_restored_graph_goes_on_and_nothing_runs_again() -> Result<()> {
    let script = |task: &str, attempt| match (task, attempt) {
        ("slow", 1) => Play::runs_on(),
        _ => Play::succeeds(r#"{"rows": 3}"#),
    };
    let mut fixture = Fixture::new("restore", script).await?;
    let namespace = fixture.namespace.clone();
    fixture.run("done", json!({"tasks": [task("first", &[]), task("second", &["first"])]})).await?;
    // edited after its end, so that the generation of the backup is not that of a new object
    namespace.edit("done", json!({"parallelism": 7})).await?;
    let seen = |graph: &TaskGraph| graph.status.as_ref().and_then(|status| status.observed_generation) == Some(2);
    namespace.until("done", "the edit is seen", seen).await;
    namespace.create("halfway", json!({"tasks": [task("first", &[]), task("slow", &["first"])]})).await?;
    fixture.until_pod_runs("slow").await;
    let runs = |graph: &TaskGraph| {
        let mut tasks = graph.status.iter().flat_map(|status| &status.tasks);
        tasks.any(|task| task.name == "slow" && task.phase == TaskPhase::Running && task.job.is_some())
    };
    namespace.until("halfway", "the status says that slow runs", runs).await;
    fixture.operator.kill().await?;

    let done = restore(&namespace, "done").await?;
    restore(&namespace, "halfway").await?;
    fixture.restart().await?;

    let halfway = namespace.until_finished("halfway").await;
    let status = halfway.status.clone().unwrap_or_default();
    let ended: Vec<_> = status.tasks.iter().map(|task| (task.phase, task.attempts)).collect();
    assert_eq!(ended, [(TaskPhase::Succeeded, 1), (TaskPhase::Succeeded, 2)]);
    assert_eq!(status.tasks.first().map(|task| task.outputs.len()), Some(1), "its outputs were kept");
    assert_eq!(attempts(&namespace, &halfway).await?, ["slow/2"]);
    assert_eq!(attempts(&namespace, &done).await?, Vec::<String>::new());
    let after = namespace.graphs().get("done").await?;
    assert_eq!(after.status, done.status, "nothing is to be told of a graph that had finished");
    Ok(())
}

/// A graph as a manager applies it.
fn applied(spec: &Value) -> Patch<Value> {
    Patch::Apply(json!({
        "apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskGraph", "metadata": {"name": "g"}, "spec": spec,
    }))
}

#[tokio::test]
async fn two_managers_apply_and_the_operator_does_not_drift() -> Result<()> {
    let fixture = Fixture::new("managers", |_, _| Play::succeeds("")).await?;
    let graphs = fixture.namespace.graphs();
    let (ann, bob) = (PatchParams::apply("ann"), PatchParams::apply("bob"));
    let hers = json!({"tasks": [task("first", &[])]});
    let his = json!({"parallelism": 2, "tasks": [task("second", &["first"])]});
    graphs.patch("g", &ann, &applied(&hers)).await?;
    graphs.patch("g", &bob, &applied(&his)).await?;
    let both =
        |graph: &TaskGraph| graph.status.as_ref().is_some_and(|status| status.progress.as_deref() == Some("2/2"));
    let graph = fixture.namespace.until("g", "both tasks have ended", both).await;
    let names: Vec<_> = graph.spec.tasks.iter().map(|task| task.name.as_str()).collect();
    assert_eq!((names, graph.spec.parallelism), (vec!["first", "second"], Some(2)));

    // applied once more nothing changes
    fixture.namespace.until_finished("g").await;
    let before = graphs.get("g").await?;
    for (manager, spec) in [(&ann, &hers), (&bob, &his)] {
        let after = graphs.patch("g", manager, &applied(spec)).await?;
        assert_eq!(after.metadata.resource_version, before.metadata.resource_version);
    }
    // what the other owns is not taken unasked
    let mut taken = json!({"name": "first", "container": container()});
    taken["container"]["image"] = json!("localhost/busybox:2");
    let refused = graphs.patch("g", &bob, &applied(&json!({"tasks": [taken]}))).await;
    assert!(
        matches!(&refused, Err(kube::Error::Api(status)) if status.code == 409 && status.message.contains("\"ann\"")),
        "{refused:?}"
    );
    // the operator owns the status and nothing else
    let managers: Vec<_> = before
        .managed_fields()
        .iter()
        .map(|entry| (entry.manager.as_deref().unwrap_or_default(), entry.subresource.as_deref().unwrap_or_default()))
        .collect();
    assert_eq!(managers.iter().filter(|(name, _)| *name == MANAGER).collect::<Vec<_>>(), [&(MANAGER, "status")]);
    assert_eq!(managers.len(), 3, "{managers:?}");
    assert!(before.finalizers().is_empty() && before.annotations().is_empty() && before.labels().is_empty());

    // who names a task no more gives it up
    graphs.patch("g", &bob, &applied(&json!({"parallelism": 2}))).await?;
    let names: Vec<_> = graphs.get("g").await?.spec.tasks.into_iter().map(|task| task.name).collect();
    assert_eq!(names, ["first"]);
    Ok(())
}
