//! What stands in the operator's way in the cluster is told in its log, in `/readyz` and `/status`, and in the status of graphs
//! that it keeps from running; once somebody has mended it, the operator goes on by itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Namespace as CoreNamespace;
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use serde_json::{Value, json};
use taskgraph::api::{TaskGraph, TaskPhase};
use tokio::sync::watch;

use crate::{
    fixture::{Fixture, task},
    support::{
        Operator, Play, Proxy,
        namespace::{PATIENCE, condition, finished, line, task as task_of},
        operator::Settings,
        proxy::{Call, Fate},
    },
};

/// Waits until `/readyz` answers with this code, and what stands there.
pub async fn until_ready(operator: &Operator, wanted: u16, told: &str) -> Result<()> {
    let begin = Instant::now();
    loop {
        let (code, body) = operator.get("/readyz").await?;
        if code == wanted && body.contains(told) {
            return Ok(());
        }
        assert!(begin.elapsed() < 2 * PATIENCE, "{code} {body:?}, not {wanted} {told:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// It is told, everywhere.
async fn is_told(operator: &Operator, told: &str) -> Result<()> {
    until_ready(operator, 503, told).await?;
    let (_, page) = operator.get("/status").await?;
    let page: Value = serde_json::from_str(&page)?;
    assert_eq!(page["ready"], false);
    assert!(page["problems"].to_string().contains(told), "{page:#}");
    Ok(())
}

/// Calls meet a fate until it is mended.
fn obstacle(proxy: &Proxy, fate: Fate, matching: impl Fn(&Call) -> bool + Send + 'static) -> Arc<AtomicBool> {
    let stands = Arc::new(AtomicBool::new(true));
    let refuses = Arc::clone(&stands);
    proxy.inject(move |call| (refuses.load(Ordering::SeqCst) && matching(call)).then_some(fate));
    stands
}

fn at_once(_: &str, _: u32) -> Play {
    Play::succeeds("")
}

/// A kind that is not there, or may not be read or written, once the caches are filled. `ends`: how watches end.
async fn refused(resource: &'static str, code: u16, told: &str, ends: fn(&Proxy)) -> Result<()> {
    let fixture = Fixture::new("obstacle", at_once).await?;
    until_ready(&fixture.operator, 200, "ok").await?;
    let stands = obstacle(&fixture.proxy, Fate::Refused(code), move |call| call.resource == resource);
    // what is watched already goes on: only a watch that begins anew meets it
    ends(&fixture.proxy);
    is_told(&fixture.operator, told).await?;
    if resource != "leases" {
        let log = fixture.operator.log_tail(usize::MAX);
        assert_eq!(log.matches(told).count(), 1, "told once: {log}");
    }
    stands.store(false, Ordering::SeqCst);
    // nothing happens meanwhile that a watch would tell of
    until_ready(&fixture.operator, 200, "ok").await?;
    fixture.run("g", json!({"tasks": [task("a", &[])]})).await?;
    Ok(())
}

#[tokio::test]
async fn what_may_not_be_used_is_told_and_used_again() -> Result<()> {
    let no_kind = "the cluster has no kind TaskTemplate: install the chart taskgraph-crds";
    let no_right = "the operator lacks rights, give it the role of the chart";
    let cases = [
        ("tasktemplates", 404, no_kind, Proxy::gone as fn(&Proxy)),
        ("tasktemplates", 404, no_kind, Proxy::cut),
        ("pods", 403, no_right, Proxy::gone),
        ("pods", 403, no_right, Proxy::cut),
        ("leases", 403, "the operator lacks rights on its Lease, give it the role of the chart", Proxy::cut),
    ];
    try_join_all(cases.map(|(resource, code, told, ends)| refused(resource, code, told, ends))).await?;
    Ok(())
}

/// What is wrong from the start.
#[tokio::test]
async fn an_operator_that_is_started_too_early_says_what_it_waits_for() -> Result<()> {
    let old = r#"{"major": "1", "minor": "32", "gitVersion": "v1.32.0", "gitCommit": "", "gitTreeState": "", "buildDate": "",
        "goVersion": "", "compiler": "", "platform": ""}"#;
    let mut fixture = Fixture::new("early", at_once).await?;
    fixture.operator.kill().await?;
    let no_kind = obstacle(&fixture.proxy, Fate::Refused(404), |call| call.resource == "taskgraphs");
    let too_old = obstacle(&fixture.proxy, Fate::Answered(old), |call| call.path == "/version");
    let later = format!("{}-later", fixture.namespace.name);
    let settings = Settings::new(fixture.proxy.kubeconfig(), &fixture.namespace.name);
    fixture.operator = Operator::start(Settings { lease_namespace: later.clone(), ..settings })?;
    for told in [
        "the cluster has no kind TaskGraph: install the chart taskgraph-crds",
        "the cluster runs Kubernetes 1.32: taskgraph needs 1.33 or newer",
        "the namespace of the Lease does not exist, see --lease-namespace",
    ] {
        is_told(&fixture.operator, told).await?;
    }
    let log = fixture.operator.log_tail(usize::MAX);
    assert_eq!(log.matches("the cluster has no kind TaskGraph").count(), 1, "told once: {log}");
    assert_eq!(log.matches("the cluster runs Kubernetes 1.32").count(), 1, "told once: {log}");

    fixture.namespace.create("g", json!({"tasks": [task("a", &[])]})).await?;
    no_kind.store(false, Ordering::SeqCst);
    too_old.store(false, Ordering::SeqCst);
    let object = CoreNamespace {
        metadata: ObjectMeta { name: Some(later), ..ObjectMeta::default() },
        ..CoreNamespace::default()
    };
    Api::all(fixture.namespace.client.clone()).create(&PostParams::default(), &object).await?;
    assert_eq!(finished(&fixture.namespace.until_finished("g").await), Some("Complete"));
    until_ready(&fixture.operator, 200, "ok").await
}

/// A quota, say, or a right that is missing.
#[tokio::test]
async fn a_revision_that_the_cluster_does_not_take_is_told_and_tried_again() -> Result<()> {
    let fixture = Fixture::new("revision", |task, _| match task {
        "b" => Play::succeeds("").held(),
        _ => Play::succeeds(""),
    })
    .await?;
    let stored = |call: &Call| call.resource == "controllerrevisions" && call.verb == http::Method::POST;
    let full = obstacle(&fixture.proxy, Fate::Refused(403), stored);
    fixture.namespace.create("g", json!({"tasks": [task("a", &[])]})).await?;
    let told = |graph: &TaskGraph| {
        condition(graph, "Accepted").is_some_and(|accepted| {
            accepted.status == "False"
                && accepted.reason == "RevisionRefused"
                && accepted.message.contains("cannot be stored in a ControllerRevision: made by the test")
        })
    };
    fixture.namespace.until("g", "told", told).await;
    // one that runs goes on, and its edit waits
    full.store(false, Ordering::SeqCst);
    fixture.namespace.create("runs", json!({"tasks": [task("b", &[])]})).await?;
    fixture.until_job("b", 1).await;
    full.store(true, Ordering::SeqCst);
    fixture.namespace.edit("runs", json!({"tasks": [task("b", &[]), task("c", &["b"])]})).await?;
    fixture.namespace.until("runs", "told", told).await;
    fixture.player.let_end();
    let ended = |graph: &TaskGraph| told(graph) && line(graph).starts_with("b=Succeeded/1");
    fixture.namespace.until("runs", "told, and gone on", ended).await;
    full.store(false, Ordering::SeqCst);
    let joined = |graph: &TaskGraph| line(graph) == "b=Succeeded/1 c=Succeeded/1";
    fixture.namespace.until("runs", "edited", joined).await;
    assert_eq!(finished(&fixture.namespace.until_finished("g").await), Some("Complete"));
    Ok(())
}

/// What passes by itself is not told, and holds up as little: what ended is stored while the edit is tried again.
#[tokio::test]
async fn an_edit_that_cannot_be_stored_holds_up_nothing_of_what_runs() -> Result<()> {
    let fixture = Fixture::new("edit-fails", |_, _| Play::succeeds("").held()).await?;
    fixture.namespace.create("g", json!({"tasks": [task("b", &[])]})).await?;
    fixture.until_job("b", 1).await;
    let (count, mut tried) = watch::channel(0);
    let stored = move |call: &Call| {
        let is_it = call.resource == "controllerrevisions" && call.verb == http::Method::POST;
        count.send_modify(|count| *count += u32::from(is_it));
        is_it
    };
    let fails = obstacle(&fixture.proxy, Fate::Refused(500), stored);
    fixture.namespace.edit("g", json!({"tasks": [task("b", &[]), task("c", &["b"])]})).await?;
    tokio::time::timeout(PATIENCE, tried.wait_for(|count| *count > 0)).await??;
    fixture.player.let_end();
    fixture.namespace.until("g", "gone on", |graph| line(graph) == "b=Succeeded/1").await;
    fails.store(false, Ordering::SeqCst);
    fixture.namespace.until("g", "edited", |graph| line(graph) == "b=Succeeded/1 c=Succeeded/1").await;
    fixture.judge().await?;
    Ok(())
}

/// A policy, say, or a right that is missing.
#[tokio::test]
async fn a_job_that_the_cluster_forbids_is_told_and_tried_again() -> Result<()> {
    let fixture = Fixture::new("job-forbidden", at_once).await?;
    let created = |call: &Call| call.resource == "jobs" && call.verb == http::Method::POST;
    let forbids = obstacle(&fixture.proxy, Fate::Refused(403), created);
    fixture.namespace.create("g", json!({"tasks": [task("a", &[]), task("b", &["a"])]})).await?;
    let told = |graph: &TaskGraph| {
        task_of(graph, "a").is_some_and(|a| {
            (a.phase, a.reason.as_deref()) == (TaskPhase::Running, Some("JobForbidden"))
                && a.message.is_some_and(|message| message.contains("made by the test"))
        })
    };
    fixture.namespace.until("g", "told", told).await;
    forbids.store(false, Ordering::SeqCst);
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!((finished(&graph), line(&graph).as_str()), (Some("Complete"), "a=Succeeded/1 b=Succeeded/1"));
    fixture.judge().await?;
    Ok(())
}

/// An operator of one namespace goes on without `ClusterTaskTemplates`, and asks for them now and then.
#[tokio::test]
async fn who_may_list_and_not_watch_does_not_ask_without_end() -> Result<()> {
    let fixture = Fixture::new("list-only", at_once).await?;
    until_ready(&fixture.operator, 200, "ok").await?;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    fixture.proxy.inject(move |call| {
        let is_it = call.resource == "clustertasktemplates";
        count.fetch_add(usize::from(is_it), Ordering::SeqCst);
        (is_it && call.watch).then_some(Fate::Refused(403))
    });
    fixture.proxy.cut();
    let begun = async {
        while asked.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, begun).await.context("it does not ask at all")?;
    // long enough for a loop to show
    tokio::time::sleep(Duration::from_secs(3)).await;
    let asked = asked.load(Ordering::SeqCst);
    assert!(asked < 10, "asked {asked} times");
    fixture.run("g", json!({"tasks": [task("a", &[])]})).await?;
    Ok(())
}
