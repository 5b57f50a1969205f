//! Files that tasks share: the claims of a graph.

use anyhow::Result;
use k8s_openapi::api::{batch::v1::Job, core::v1::PersistentVolumeClaim};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};
use taskgraph::{
    api::{TaskGraph, TaskPhase},
    jobs::name::claim_name,
};

use crate::{
    fixture::{Fixture, task, task_with},
    support::{
        Play,
        namespace::{condition, finished, status, task as task_status},
        proxy::Fate,
    },
};

fn claims(storage: &str) -> Value {
    json!([{"name": "files", "labels": {"team": "orders"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}}}])
}

/// A task that mounts the claim.
fn mounting(name: &str, depends_on: &[&str]) -> Value {
    task_with(name, depends_on, json!({"volumes": [{"name": "files", "mountPath": "/files"}]}))
}

fn two_tasks() -> Value {
    json!({"volumeClaimTemplates": claims("1Mi"), "tasks": [mounting("write", &[]), mounting("read", &["write"])]})
}

async fn stored_claims(fixture: &Fixture) -> Result<Vec<PersistentVolumeClaim>> {
    Ok(fixture.namespace.api::<PersistentVolumeClaim>().list(&ListParams::default()).await?.items)
}

#[tokio::test]
async fn a_claim_is_made_and_stored_before_the_first_job_and_goes_with_its_graph() -> Result<()> {
    let fixture = Fixture::new("volume", |_, _| Play::succeeds("")).await?;
    let graph = fixture.run("g", two_tasks()).await?;
    assert_eq!(finished(&graph), Some("Complete"));
    let uid = graph.uid().unwrap_or_default();

    let claims = stored_claims(&fixture).await?;
    assert_eq!(claims.len(), 1);
    assert_eq!(claims[0].name_any(), claim_name("g", &uid, "files"));
    let owner = &claims[0].owner_references()[0];
    assert_eq!((owner.kind.as_str(), &owner.uid, owner.controller), ("TaskGraph", &uid, Some(true)));
    assert_eq!(claims[0].labels()["team"], "orders");
    assert_eq!(claims[0].labels()["taskgraph.dev/graph-uid"], uid);
    let volume = &status(&graph).volumes[0];
    assert_eq!((&volume.claim, Some(&volume.uid)), (&claims[0].name_any(), claims[0].uid().as_ref()));

    // asked whether it would be taken, made, stored, and only then mounted
    let writes: Vec<_> = fixture.proxy.writes().into_iter().map(|write| write.call).collect();
    let place = |resource: &str, from: usize| {
        writes.iter().skip(from).position(|call| call.resource == resource).map(|place| from + place)
    };
    let asked = place("persistentvolumeclaims", 0).expect("a dry run");
    let pinned = place("controllerrevisions", asked).expect("a revision");
    let made = place("persistentvolumeclaims", pinned).expect("a claim");
    let kept = place("taskgraphs/status", made).expect("a status");
    let job = place("jobs", 0).expect("a Job");
    assert!(kept < job, "{asked} {pinned} {made} {kept} {job}");
    assert!(writes[kept].body.to_string().contains(&volume.uid), "{}", writes[kept].body);

    for job in fixture.namespace.jobs().list(&ListParams::default()).await? {
        let pod = serde_json::to_value(job)?["spec"]["template"]["spec"].clone();
        assert_eq!(pod["volumes"][0]["persistentVolumeClaim"]["claimName"], volume.claim);
        assert_eq!(pod["containers"][0]["volumeMounts"], json!([{"name": "files", "mountPath": "/files"}]));
    }
    fixture.judge().await?;

    fixture.namespace.graphs().delete("g", &DeleteParams::default()).await?;
    fixture.namespace.until_all::<PersistentVolumeClaim>("gone", <[PersistentVolumeClaim]>::is_empty).await;
    Ok(())
}

#[tokio::test]
async fn lost_answers_make_no_second_claim() -> Result<()> {
    let fixture = Fixture::new("volume-lost-answer", |_, _| Play::succeeds("")).await?;
    fixture.proxy.inject_times(3, Fate::AnswerLost, |call| {
        call.verb == http::Method::POST && call.resource == "persistentvolumeclaims"
    });
    let graph = fixture.run("g", two_tasks()).await?;
    assert_eq!(finished(&graph), Some("Complete"));
    assert_eq!(stored_claims(&fixture).await?.len(), 1);
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn a_claim_that_is_not_the_graphs_is_not_mounted() -> Result<()> {
    let fixture = Fixture::new("volume-taken", |_, _| Play::succeeds("")).await?;
    fixture.operator.freeze();
    let graph = fixture.namespace.create("g", two_tasks()).await?;
    let name = claim_name("g", &graph.uid().unwrap_or_default(), "files");
    let foreign: PersistentVolumeClaim =
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": claims("1Mi")[0]["spec"]}))?;
    fixture.namespace.api().create(&PostParams::default(), &foreign).await?;
    fixture.operator.thaw();
    let refused =
        |graph: &TaskGraph| condition(graph, "Accepted").is_some_and(|accepted| accepted.reason == "VolumeTaken");
    let graph = fixture.namespace.until("g", "refused", refused).await;
    let message = condition(&graph, "Accepted").map(|accepted| accepted.message.clone()).unwrap_or_default();
    assert!(message.contains(&name), "{message}");
    assert_eq!(fixture.namespace.jobs().list(&ListParams::default()).await?.items.len(), 0);
    Ok(())
}

#[tokio::test]
async fn a_claim_that_the_cluster_refuses_can_be_mended() -> Result<()> {
    let fixture = Fixture::new("volume-refused", |_, _| Play::succeeds("")).await?;
    let mut spec = two_tasks();
    spec["volumeClaimTemplates"] = claims("0");
    fixture.namespace.create("g", spec).await?;
    let refused =
        |graph: &TaskGraph| condition(graph, "Accepted").is_some_and(|accepted| accepted.reason == "VolumeRefused");
    let graph = fixture.namespace.until("g", "refused", refused).await;
    let message = condition(&graph, "Accepted").map(|accepted| accepted.message.clone()).unwrap_or_default();
    assert!(message.starts_with("spec.volumeClaimTemplates[0] (files): "), "{message}");
    fixture.namespace.edit("g", json!({"volumeClaimTemplates": claims("1Mi")})).await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(finished(&graph), Some("Complete"));
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn a_claim_that_is_deleted_in_mid_run_is_never_made_anew() -> Result<()> {
    let fixture = Fixture::new("volume-deleted", |task, _| match task {
        "between" => Play::succeeds("").held(),
        _ => Play::succeeds(""),
    })
    .await?;
    let mut read = mounting("read", &["between"]);
    read["retry"] = json!({"limit": 3, "backoff": {"initial": "20ms"}});
    let spec = json!({
        "volumeClaimTemplates": claims("1Mi"),
        "tasks": [mounting("write", &[]), task("between", &["write"]), read],
        "finally": [task("tidy", &[])],
    });
    fixture.namespace.create("g", spec).await?;
    fixture.until_job("between", 1).await;
    let claim = stored_claims(&fixture).await?.first().map(ResourceExt::name_any).unwrap_or_default();
    fixture.namespace.api::<PersistentVolumeClaim>().delete(&claim, &DeleteParams::default()).await?;
    fixture.player.let_end();
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(finished(&graph), Some("Failed"));
    let read = task_status(&graph, "read").expect("its status");
    assert_eq!((read.phase, read.reason.as_deref(), read.attempts), (TaskPhase::Failed, Some("VolumeLost"), 1));
    assert!(read.message.unwrap_or_default().contains(&claim));
    assert_eq!(task_status(&graph, "tidy").map(|task| task.phase), Some(TaskPhase::Succeeded));
    let jobs = fixture.namespace.api::<Job>().list(&ListParams::default()).await?.items;
    assert_eq!(jobs.len(), 3, "read has no Job");
    Ok(())
}

#[tokio::test]
async fn claims_stay_as_they_are_once_the_graph_is_accepted() -> Result<()> {
    let fixture = Fixture::new("volume-edit", |_, _| Play::succeeds("").held()).await?;
    fixture.namespace.create("g", two_tasks()).await?;
    fixture.until_job("write", 1).await;
    fixture.namespace.edit("g", json!({"volumeClaimTemplates": claims("2Mi")})).await?;
    let refused = |graph: &TaskGraph| {
        condition(graph, "Accepted").is_some_and(|accepted| {
            accepted.reason == "EditRefused" && accepted.message.contains("spec.volumeClaimTemplates")
        })
    };
    fixture.namespace.until("g", "refused", refused).await;
    fixture.player.let_end();
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(finished(&graph), Some("Complete"));
    Ok(())
}
