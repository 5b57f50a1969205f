//! Graphs that are restored from a backup of objects: what docs/install.md says, by the commands that it shows.

use std::{collections::BTreeMap, ffi::OsString, fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use taskgraph::api::{ANNOTATION_RESTORED, LABEL_GRAPH_UID, TaskGraph, TaskPhase, VELERO_RESTORE};

use crate::{
    fixture::{Fixture, container, task, task_with},
    support::{
        ControlPlane, Namespace, Operator, Play, Player, Proxy,
        control_plane::bin_dir,
        namespace::{condition, finished, holds, status},
        operator::Settings,
    },
};

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

/// Whether it says that it was restored, and so is accepted or not.
fn restored(accepted: &'static str) -> impl Fn(&TaskGraph) -> bool {
    move |graph| condition(graph, "Accepted").is_some_and(|one| one.status == accepted && one.reason == "Restored")
}

async fn annotate(namespace: &Namespace, name: &str, word: &str) -> Result<TaskGraph> {
    let patch = json!({"metadata": {"annotations": {ANNOTATION_RESTORED: word}}});
    Ok(namespace.graphs().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?)
}

/// Deletes a graph with all that it owns.
async fn delete(namespace: &Namespace, name: &str) -> Result<TaskGraph> {
    let graphs = namespace.graphs();
    let backup = graphs.get(name).await?;
    graphs.delete(name, &DeleteParams::background()).await?;
    namespace.until_all::<TaskGraph>("deleted", |graphs| graphs.iter().all(|graph| graph.name_any() != name)).await;
    namespace.until_all::<Job>("deleted", |jobs| jobs.iter().all(|job| graph_uid(job) != backup.uid())).await;
    Ok(backup)
}

/// Makes a graph anew without its status, as a tool for backups does; another UID, the first generation.
async fn create(namespace: &Namespace, backup: &TaskGraph, metadata: ObjectMeta) -> Result<TaskGraph> {
    let again = TaskGraph {
        metadata: ObjectMeta { name: backup.metadata.name.clone(), ..metadata },
        spec: backup.spec.clone(),
        status: None,
    };
    let made = namespace.graphs().create(&PostParams::default(), &again).await?;
    ensure!((made.metadata.generation, made.uid() == backup.uid()) == (Some(1), false), "{made:?}");
    Ok(made)
}

async fn put_status(namespace: &Namespace, backup: &TaskGraph) -> Result<TaskGraph> {
    let status = json!({"status": backup.status});
    let name = backup.name_any();
    Ok(namespace.graphs().patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await?)
}

fn script(task: &str, attempt: u32) -> Play {
    match (task, attempt) {
        ("slow", 1) => Play::runs_on(),
        _ => Play::succeeds(r#"{"rows": 3}"#),
    }
}

/// A graph that finished and was edited since, and one in the middle of its run.
async fn two_graphs(fixture: &Fixture) -> Result<()> {
    let namespace = &fixture.namespace;
    fixture.run("done", json!({"tasks": [task("first", &[]), task("second", &["first"])]})).await?;
    // edited after its end, so that the generation of the backup is not that of a new object
    namespace.edit("done", json!({"parallelism": 7})).await?;
    let seen = |graph: &TaskGraph| status(graph).observed_generation == Some(2);
    namespace.until("done", "the edit is seen", seen).await;
    namespace.create("halfway", json!({"tasks": [task("first", &[]), task("slow", &["first"])]})).await?;
    fixture.until_pod_runs("slow").await;
    let runs = |graph: &TaskGraph| {
        let slow = |task: &taskgraph::api::TaskStatus| task.name == "slow" && task.job.is_some();
        status(graph).tasks.iter().any(|task| slow(task) && task.phase == TaskPhase::Running)
    };
    namespace.until("halfway", "the status says that slow runs", runs).await;
    Ok(())
}

/// The two graphs under other UIDs: one stays finished, the other waits for a word and goes on.
async fn go_on_right(namespace: &Namespace) -> Result<()> {
    let done = namespace.until("done", "kept", restored("True")).await;
    let told = status(&done);
    assert_eq!((told.uid, told.observed_generation), (done.uid(), Some(1)));
    assert!(holds(&done, "Complete") && !holds(&done, "Stalled"));
    let halfway = namespace.until("halfway", "held", restored("False")).await;
    assert!(holds(&halfway, "Stalled"));
    tokio::time::sleep(Duration::from_secs(2)).await;
    for graph in [&done, &halfway] {
        assert_eq!(attempts(namespace, graph).await?, Vec::<String>::new(), "{}", graph.name_any());
    }
    // a word from before
    annotate(namespace, "halfway", "Hold").await?;
    annotate(namespace, "halfway", "Continue").await?;
    let halfway = namespace.until_finished("halfway").await;
    let ended: Vec<_> = status(&halfway).tasks.iter().map(|task| (task.phase, task.attempts)).collect();
    assert_eq!(ended, [(TaskPhase::Succeeded, 1), (TaskPhase::Succeeded, 2)]);
    assert_eq!(status(&halfway).tasks.first().map(|task| task.outputs.len()), Some(1), "its outputs were kept");
    assert_eq!(attempts(namespace, &halfway).await?, ["slow/2"]);
    assert!(holds(&halfway, "Accepted") && status(&halfway).uid == halfway.uid());
    // what is edited now is an edit, and runs no more than that
    let tasks = json!([task("first", &[]), task("second", &["first"]), task("third", &["second"])]);
    namespace.edit("done", json!({"tasks": tasks})).await?;
    let all = |graph: &TaskGraph| status(graph).progress.as_deref() == Some("3/3") && finished(graph).is_some();
    let done = namespace.until("done", "edited and finished", all).await;
    assert_eq!(attempts(namespace, &done).await?, ["third/1"]);
    Ok(())
}

#[tokio::test]
async fn what_finished_stays_so_and_what_had_begun_waits_for_a_word() -> Result<()> {
    let fixture = Fixture::new("restore", script).await?;
    let namespace = &fixture.namespace;
    two_graphs(&fixture).await?;
    let annotations = BTreeMap::from([(ANNOTATION_RESTORED.to_owned(), "Hold".to_owned())]);
    for name in ["done", "halfway"] {
        let backup = delete(namespace, name).await?;
        let metadata = ObjectMeta { annotations: Some(annotations.clone()), ..ObjectMeta::default() };
        create(namespace, &backup, metadata).await?;
        // the operator has looked at it by the time that its status is put back
        namespace.until(name, "held", restored("False")).await;
        put_status(namespace, &backup).await?;
    }
    go_on_right(namespace).await
}

#[tokio::test]
async fn the_operator_sees_restored_graphs_by_their_status_alone() -> Result<()> {
    let mut fixture = Fixture::new("restored", script).await?;
    two_graphs(&fixture).await?;
    fixture.operator.kill().await?;
    for name in ["done", "halfway"] {
        let mut backup = delete(&fixture.namespace, name).await?;
        create(&fixture.namespace, &backup, ObjectMeta::default()).await?;
        if let Some(status) = backup.status.as_mut().filter(|_| name == "done") {
            // as an operator stored it that did not note the UID
            status.uid = None;
        }
        put_status(&fixture.namespace, &backup).await?;
    }
    fixture.restart().await?;
    go_on_right(&fixture.namespace).await
}

#[tokio::test]
async fn what_velero_restored_waits_for_its_status_and_then_for_a_word() -> Result<()> {
    let fixture = Fixture::new("velero", script).await?;
    let namespace = &fixture.namespace;
    let labels = BTreeMap::from([(VELERO_RESTORE.to_owned(), "r1".to_owned())]);
    let metadata = || ObjectMeta { labels: Some(labels.clone()), ..ObjectMeta::default() };
    fixture.run("done", json!({"tasks": [task("first", &[])]})).await?;
    let backup = delete(namespace, "done").await?;
    let done = create(namespace, &backup, metadata()).await?;
    let lone = TaskGraph { metadata: ObjectMeta { name: Some("lone".into()), ..metadata() }, ..backup.clone() };
    let lone = namespace.graphs().create(&PostParams::default(), &lone).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let untouched = namespace.graphs().get("done").await?;
    assert_eq!(untouched.resource_version(), done.resource_version(), "Velero writes its status over this version");
    put_status(namespace, &backup).await?;
    let done = namespace.until("done", "kept", restored("True")).await;
    assert_eq!(attempts(namespace, &done).await?, Vec::<String>::new());
    let lone = namespace.until("lone", "held", |graph| restored("False")(graph) && graph.uid() == lone.uid()).await;
    assert_eq!(attempts(namespace, &lone).await?, Vec::<String>::new());
    annotate(namespace, "lone", "Continue").await?;
    assert_eq!(finished(&namespace.until_finished("lone").await), Some("Complete"));
    Ok(())
}

/// The shell blocks of the document's section on backups.
fn documented() -> Result<Vec<String>> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/install.md"))?;
    let (_, section) = text.split_once("\n## Backup and restore\n").context("no such section")?;
    let blocks = section.split("```sh\n").skip(1).filter_map(|rest| Some(rest.split_once("\n```")?.0.to_owned()));
    Ok(blocks.collect())
}

/// Runs a block as a person would who has the cluster's kubectl.
async fn run(block: &str, kubeconfig: &Path, dir: &Path) -> Result<()> {
    let mut path = OsString::from(bin_dir()?);
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", block]).current_dir(dir).env("KUBECONFIG", kubeconfig).env("PATH", path);
    let output = tokio::task::spawn_blocking(move || command.output())
        .await?
        .context("bash runs the document's commands, which need jq")?;
    ensure!(output.status.success(), "{block}\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[tokio::test]
async fn the_documented_commands_move_all_graphs_to_another_cluster() -> Result<()> {
    let blocks = documented()?;
    let [backup, restore, ..] = blocks.as_slice() else { anyhow::bail!("the document shows no commands") };
    let first = ControlPlane::own();
    let fixture = Fixture::on(first, "moved", script).await?;
    let name = fixture.namespace.name.clone();
    fixture.namespace.create_template("own", json!({"container": container()})).await?;
    two_graphs(&fixture).await?;
    let graph = json!({"graph": {"tasks": [task("inner", &[])]}});
    fixture.namespace.create_template("child", graph).await?;
    let runs_child = json!({"name": "child", "templateRef": {"name": "child"}});
    fixture.run("parent", json!({"tasks": [runs_child, task_with("after", &["child"], json!({}))]})).await?;
    let dir = tempfile::tempdir()?;
    run(backup, first.kubeconfig(), dir.path()).await?;
    drop(fixture);
    first.stop();

    let second = ControlPlane::shared();
    let client = second.client().await?;
    let namespace = Namespace { name, client };
    let object = json!({"metadata": {"name": namespace.name}});
    let namespaces = kube::Api::<k8s_openapi::api::core::v1::Namespace>::all(namespace.client.clone());
    namespaces.create(&PostParams::default(), &serde_json::from_value::<_>(object)?).await?;
    let _player = Player::start(&namespace, script);
    let proxy = Proxy::start(second).await?;
    let _operator = Operator::start(Settings::new(proxy.kubeconfig(), &namespace.name))?;
    run(restore, second.kubeconfig(), dir.path()).await?;

    let parent = namespace.until("parent", "kept", restored("True")).await;
    assert_eq!(status(&parent).tasks.len(), 2);
    let names: Vec<_> =
        namespace.graphs().list(&ListParams::default()).await?.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["done", "halfway", "parent"], "child graphs are their parents' to make");
    go_on_right(&namespace).await?;
    let jobs = namespace.jobs().list(&ListParams::default()).await?;
    let of_parent = jobs.iter().filter(|job| graph_uid(job) == parent.uid()).count();
    assert_eq!(of_parent, 0);
    Ok(())
}

/// What the API server shows of a graph that no operator has looked at.
#[tokio::test]
async fn a_new_graph_is_not_current() -> Result<()> {
    let mut fixture = Fixture::new("unseen", script).await?;
    fixture.operator.kill().await?;
    let made = fixture.namespace.create("g", json!({"tasks": [task("a", &[])]})).await?;
    let read = fixture.namespace.graphs().get("g").await?;
    for graph in [made, read] {
        let status: Value = serde_json::to_value(&graph.status)?;
        assert_eq!(status["observedGeneration"], json!(-1), "{status}");
        assert_eq!(graph.metadata.generation, Some(1));
    }
    fixture.restart().await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(status(&graph).observed_generation, Some(1));
    Ok(())
}
