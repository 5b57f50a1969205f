//! The examples, on real containers.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{apps::v1::ControllerRevision, core::v1::PersistentVolumeClaim};
use kube::ResourceExt;
use serde_json::{Value, json};
use taskgraph::api::{LABEL_ROLE, ROLE_CACHE, TaskGraph, TaskPhase};

use crate::{
    support::namespace::{status, task},
    world::{World, file},
};

fn outputs(graph: &TaskGraph, name: &str) -> Value {
    task(graph, name).map(|task| Value::Object(task.outputs)).unwrap_or_default()
}

fn phase(graph: &TaskGraph, name: &str) -> Option<TaskPhase> {
    task(graph, name).map(|task| task.phase)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fan_out_and_in() -> Result<()> {
    let world = World::new("fan").await?;
    world.apply(&file("examples/fan-out-fan-in.yaml")?).await?;
    let graph = world.wait("primes", "complete").await?;
    assert_eq!(outputs(&graph, "sum"), json!({"primes": 2262}));
    world.judge().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries() -> Result<()> {
    let world = World::new("retries").await?;
    world.apply(&file("examples/retries.yaml")?).await?;
    let graph = world.wait("retries", "complete").await?;
    let flaky = task(&graph, "flaky").expect("its status");
    assert_eq!((flaky.attempts, flaky.failed_attempts.len()), (3, 2));
    assert_eq!(outputs(&graph, "count"), json!({"text": "line free after 3 attempts"}));
    world.judge().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_files() -> Result<()> {
    let world = World::new("shared-files").await?;
    world.apply(&file("examples/shared-files.yaml")?).await?;
    let graph = world.wait("shared-files", "complete").await?;
    assert_eq!(outputs(&graph, "write"), json!({"bytes": 1_048_576, "sha256": "a7a14d0926bd"}));
    assert_eq!(
        (outputs(&graph, "check"), outputs(&graph, "count")),
        (json!({"same": true}), json!({"lines": 165_668}))
    );
    world.judge().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_figure_that_is_reused() -> Result<()> {
    let world = World::new("cache").await?;
    let file = file("examples/cache.yaml")?;
    let (first, again) = file.rsplit_once("\n---\n").context("two graphs")?;
    world.apply(first).await?;
    let first = world.wait("figures", "complete").await?;
    // stored beside the status
    let remembered = |revisions: &[ControllerRevision]| {
        revisions.iter().any(|revision| revision.labels().get(LABEL_ROLE).is_some_and(|role| role == ROLE_CACHE))
    };
    world.namespace.until_all::<ControllerRevision>("remembered", remembered).await;
    world.apply(again).await?;
    let second = world.wait("figures-again", "complete").await?;
    assert_eq!((outputs(&first, "count"), outputs(&second, "count")), (json!({"primes": 669}), json!({"primes": 669})));
    let ran = |graph: &TaskGraph, name: &str| task(graph, name).map(|task| (task.attempts, task.reason));
    assert_eq!((ran(&first, "count"), ran(&second, "other")), (Some((1, None)), Some((1, None))));
    assert_eq!(ran(&second, "count"), Some((0, Some("Cached".into()))));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure() -> Result<()> {
    let world = World::new("failure").await?;
    world.apply(&file("examples/failure.yaml")?).await?;
    let graph = world.wait("failure", "failed").await?;
    let failed = task(&graph, "unit-test").expect("its status");
    assert_eq!((failed.phase, failed.failed_attempts[0].exit_code), (TaskPhase::Failed, Some(1)));
    // the last words of its log, as it left no termination message
    let message = failed.failed_attempts[0].message.as_deref().unwrap_or_default();
    assert!(message.contains("sum_of_two: expected 4, got 5"), "{message:?}");
    for (name, expected) in
        [("package", TaskPhase::Omitted), ("alert", TaskPhase::Succeeded), ("tidy", TaskPhase::Succeeded)]
    {
        assert_eq!(phase(&graph, name), Some(expected), "{name}");
    }
    world.judge().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rerun_after_an_edit() -> Result<()> {
    let world = World::new("rerun").await?;
    world.apply(&file("examples/rerun.yaml")?).await?;
    world.wait("rerun", "failed").await?;
    let mend = r#"{"spec": {"arguments": {"month": "11"}, "rerun": {"id": "after the mend", "scope": "Failed"}}}"#;
    world.kubectl(&["patch", "tg", "rerun", "--type=merge", "-p", mend]).await?;
    let graph = world.wait("rerun", "complete").await?;
    let attempts = |name: &str| task(&graph, name).map(|task| task.attempts);
    assert_eq!(["load", "report", "send", "tidy"].map(attempts), [Some(1), Some(2), Some(1), Some(2)]);
    assert_eq!(outputs(&graph, "report"), json!({"month": 11}));
    world.judge().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_of_two_graphs() -> Result<()> {
    let world = World::new("templates").await?;
    world.apply(&file("examples/templates.yaml")?).await?;
    let small = world.wait("primes-small", "complete").await?;
    let large = world.wait("primes-large", "complete").await?;
    assert_eq!(outputs(&small, "say"), json!({"text": "25 primes below 100"}));
    assert_eq!(outputs(&large, "count"), json!({"primes": 1033}));
    world.judge().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graph_template_run_by_tasks_and_as_a_whole() -> Result<()> {
    let world = World::new("graph-templates").await?;
    world.apply(&file("examples/graph-templates.yaml")?).await?;
    let both = world.wait("words-of-both", "complete").await?;
    assert_eq!(outputs(&both, "poem"), json!({"words": 9, "longest": "everywhere"}));
    assert_eq!(outputs(&both, "prose"), json!({"words": 4, "longest": "sentence"}));
    assert_eq!(outputs(&both, "sum"), json!({"words": 13}));
    let one = world.wait("words-of-one", "complete").await?;
    assert_eq!(serde_json::Value::Object(status(&one).outputs), json!({"words": 3, "longest": "three"}));
    world.judge().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waits() -> Result<()> {
    let world = World::new("waiting").await?;
    world.apply(&file("examples/waiting.yaml")?).await?;
    let graph = world.wait("waiting", "complete").await?;
    assert_eq!(outputs(&graph, "publish"), json!({"published": "1.4.0"}));
    let review = task(&graph, "review").expect("its status");
    assert_eq!((review.attempts, review.message.as_deref()), (2, Some("by admin: looks good")));
    assert_eq!(review.failed_attempts[0].message.as_deref(), Some("by admin: the notes lack a date"));
    let settle = task(&graph, "settle").expect("its status");
    let took = settle.completion_time.zip(settle.start_time).map(|(end, start)| end.duration_since(start).as_secs());
    // as soon as time comes to it
    assert!(took.is_some_and(|took| took >= 3), "{took:?}");
    world.judge().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_is_undone() -> Result<()> {
    let world = World::new("order-failing").await?;
    world.apply(&file("examples/orders/failing.yaml")?).await?;
    let graph = world.wait("order-failing", "failed").await?;
    let undo = |name: &str| task(&graph, name).and_then(|task| task.compensation);
    let (refund, release) = (undo("charge-payment").expect("a refund"), undo("reserve-inventory").expect("a release"));
    assert_eq!((refund.phase, refund.attempts), (TaskPhase::Succeeded, 2));
    // what a container leaves that is no JSON object is its message
    assert_eq!(refund.message.as_deref().map(str::trim), Some("refunded 59.8 of P-A-1047"));
    assert_eq!(release.message.as_deref().map(str::trim), Some("released lamp-2"));
    assert!(refund.completion_time <= release.start_time, "the refund first");
    assert!(undo("ship-order").is_none());
    assert_eq!(outputs(&graph, "write-ledger"), json!({"entry": "shipping Failed"}));
    world.judge().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inclusive_decision() -> Result<()> {
    let world = World::new("inclusive").await?;
    world.apply(&file("examples/inclusive.yaml")?).await?;
    let graph = world.wait("inclusive", "complete").await?;
    assert_eq!(task(&graph, "needs").expect("its status").branches, ["bulk", "export"]);
    for (name, expected) in
        [("customs", TaskPhase::Succeeded), ("wrap", TaskPhase::Skipped), ("envelope", TaskPhase::Skipped)]
    {
        assert_eq!(phase(&graph, name), Some(expected), "{name}");
    }
    world.judge().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_goes_well() -> Result<()> {
    let world = World::new("order-complete").await?;
    world.apply(&file("examples/orders/complete.yaml")?).await?;
    let graph = world.wait("order-complete", "complete").await?;
    assert!(status(&graph).tasks.iter().all(|task| task.compensation.is_none()));
    assert_eq!(outputs(&graph, "write-ledger"), json!({"entry": "shipping Succeeded"}));
    world.judge().await
}

/// The pipeline, in a namespace of its own and with a volume of its own.
async fn pipeline(data: &str) -> Result<(World, TaskGraph)> {
    let world = World::new(&format!("orders-{data}")).await?;
    let name = world.namespace.name.clone();
    let volume =
        file("examples/data-processing/volume.yaml")?.replace("/tmp/taskgraph-demo-orders", &format!("/tmp/{name}"));
    let volume = volume
        .replace("taskgraph-demo-orders", &format!("{name}-orders"))
        .replace("namespace: taskgraph-demo", &format!("namespace: {name}"));
    world.apply(&volume).await?;
    // a claim that Kubernetes sees before its volume waits for up to 15 s, of the 60 that fetch-data has
    let bound = |claims: &[PersistentVolumeClaim]| {
        claims.iter().any(|claim| claim.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Bound")))
    };
    world.namespace.until_all::<PersistentVolumeClaim>("bound", bound).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data-processing/make-orders");
    let orders = Command::new(script).arg(data).output()?;
    ensure!(orders.status.success(), "{script}: {}", String::from_utf8_lossy(&orders.stderr));
    let csv = tempfile::NamedTempFile::new()?;
    std::fs::write(csv.path(), &orders.stdout)?;
    let from = format!("--from-file={data}.csv={}", csv.path().display());
    world.kubectl(&["create", "configmap", "orders", &from]).await?;
    let graph = file("examples/data-processing/graph.yaml")?
        .replace("arguments: {data: good}", &format!("arguments: {{data: {data}}}"));
    world.apply(&graph).await?;
    let graph = world.wait("orders-good", "complete").await?;
    // deleted with the namespace's claim; the folder is the machine's
    world.judge().await?;
    world.kubectl(&["delete", "persistentvolume", &format!("{name}-orders"), "--wait=false"]).await?;
    Ok((world, graph))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pipeline_with_good_data() -> Result<()> {
    let (world, graph) = pipeline("good").await?;
    assert_eq!(status(&graph).progress.as_deref(), Some("8/8"));
    assert_eq!(outputs(&graph, "transform")["quality"], json!(0.9925));
    assert_eq!(phase(&graph, "store-primary"), Some(TaskPhase::Succeeded));
    assert_eq!(phase(&graph, "store-backup"), Some(TaskPhase::Skipped));
    let tree = world.plugin(&["tree", "orders-good"]).await?;
    for expected in ["fetch-data", "store-backup", "Skipped", "BranchNotTaken", "quality"] {
        assert!(tree.contains(expected), "{expected} is not in\n{tree}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pipeline_with_poor_data() -> Result<()> {
    let (_world, graph) = pipeline("poor").await?;
    assert_eq!(phase(&graph, "store-primary"), Some(TaskPhase::Skipped));
    assert_eq!(outputs(&graph, "store-backup"), json!({"rows": 516}));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn for_each() -> Result<()> {
    let world = World::new("foreach").await?;
    world.apply(&file("examples/foreach.yaml")?).await?;
    let graph = world.wait("foreach", "complete").await?;
    assert_eq!(outputs(&graph, "check"), json!({"square": [1, 4, 0, 16]}));
    assert_eq!(outputs(&graph, "sum"), json!({"sum": 21}));
    assert_eq!(phase(&graph, "none"), Some(TaskPhase::Skipped));
    let items = task(&graph, "check").and_then(|task| task.items).expect("its items");
    assert_eq!((items.succeeded, items.failed, items.failed_indexes.as_deref()), (3, 1, Some("2")));
    let tree = world.plugin(&["tree", "foreach"]).await?;
    assert!(tree.contains("items 3/4, failed 1"), "{tree}");
    world.judge().await
}
