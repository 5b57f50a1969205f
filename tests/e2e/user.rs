//! What a user does with kubectl and reads from it.

use anyhow::Result;
use k8s_openapi::api::{apps::v1::ControllerRevision, batch::v1::Job, core::v1::Pod};
use serde_json::json;
use taskgraph::api::TaskPhase;

use crate::{
    installed::{CHARTS, helm},
    support::namespace::{holds, task},
    world::{World, shell},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_outputs_and_the_tree() -> Result<()> {
    let world = World::new("user").await?;
    let mut second = shell("second", &["first"], "echo \"{\\\"twice\\\": $((ROWS * 2))}\" > /dev/termination-log");
    second["container"]["env"] = json!([{"name": "ROWS", "value": "${{ tasks.first.outputs.rows }}"}]);
    let first = shell("first", &[], "echo '{\"rows\": 21}' > /dev/termination-log");
    world.apply_graph("g", json!({"tasks": [first, second]})).await?;
    world.wait("g", "complete").await?;
    let table = world.kubectl(&["get", "tg"]).await?;
    let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["NAME", "PHASE", "PROGRESS", "FAILED", "AGE"]);
    assert_eq!(words[1][..4], ["g", "Complete", "2/2", "0"]);
    let path = "jsonpath={.status.tasks[?(@.name=='second')].outputs.twice}";
    assert_eq!(world.kubectl(&["get", "tg", "g", "-o", path]).await?, "42");
    let described = world.kubectl(&["describe", "tg", "g"]).await?;
    assert!(described.contains("Events:") && described.contains("The graph is valid"), "{described}");
    let tree = world.plugin(&["tree", "g"]).await?;
    for expected in ["g", "Complete", "first", "second", "Succeeded", "rows", "21", "twice", "42"] {
        assert!(tree.contains(expected), "{expected} is not in\n{tree}");
    }
    world.kubectl(&["get", "taskgraph", "-o", "name"]).await?;
    world.judge().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_field_is_explained() -> Result<()> {
    let world = World::new("explain").await?;
    let text = world.kubectl(&["explain", "taskgraph.spec.tasks"]).await?;
    for field in ["dependsOn", "trigger", "when", "retry", "timeout", "decision", "templateRef", "allowFailure"] {
        assert!(text.contains(field), "{field} is not in\n{text}");
    }
    let text = world.kubectl(&["explain", "taskgraph.spec.desiredState"]).await?;
    assert!(text.contains("Suspend") && text.contains("Cancel"), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspend_and_resume() -> Result<()> {
    let world = World::new("suspend").await?;
    world.apply_graph("g", json!({"desiredState": "Suspend", "tasks": [shell("a", &[], "true")]})).await?;
    let graph = world.wait("g", "suspended").await?;
    assert_eq!(task(&graph, "a").map(|task| task.attempts), Some(0));
    world.kubectl(&["patch", "tg", "g", "--type=merge", "-p", r#"{"spec":{"desiredState":"Run"}}"#]).await?;
    let graph = world.wait("g", "complete").await?;
    assert!(!holds(&graph, "Suspended"));
    world.judge().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_graph_leaves_nothing() -> Result<()> {
    let world = World::new("delete").await?;
    let tasks = json!([shell("done", &[], "true"), shell("long", &["done"], "sleep 600")]);
    world.apply_graph("g", json!({"tasks": tasks})).await?;
    let long_runs =
        |graph: &taskgraph::api::TaskGraph| task(graph, "long").is_some_and(|task| task.phase == TaskPhase::Running);
    world.namespace.until("g", "running", long_runs).await;
    world.kubectl(&["delete", "tg", "g", "--timeout=60s"]).await?;
    world.namespace.until_all::<Job>("gone", <[Job]>::is_empty).await;
    world.namespace.until_all::<Pod>("gone", <[Pod]>::is_empty).await;
    world.namespace.until_all::<ControllerRevision>("gone", <[ControllerRevision]>::is_empty).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_values_are_refused_with_their_place() -> Result<()> {
    let world = World::new("values").await?;
    let chart = format!("{CHARTS}/taskgraph");
    for (value, told) in [
        ("operator.logformat=json", "at '/operator': additional properties 'logformat' not allowed"),
        ("replicas=many", "at '/replicas': got string, want integer"),
        ("serviceAccount.create=false", "serviceAccount.name is needed where serviceAccount.create is false"),
    ] {
        let place = &world.namespace.name;
        let refused = helm(&["install", "wrong", &chart, "--namespace", place, "--set", value]).await;
        let refused = refused.expect_err("refused").to_string();
        assert!(refused.contains(told), "{value}: {refused}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_refused_at_once() -> Result<()> {
    let world = World::new("bad").await?;
    let two = json!({"name": "a", "container": {"image": "x"}, "decision": {"branches": [{"name": "b"}]}});
    let error = world.apply_graph("two", json!({"tasks": [two]})).await.expect_err("two kinds of work").to_string();
    assert!(error.contains("exactly one of container, job, templateRef, decision"), "{error}");
    let mut typo = shell("a", &["biuld"], "true");
    typo["container"]["imagePullPolice"] = json!("Never");
    let typo = json!({"tasks": [typo, shell("build", &[], "true")]});
    let message = world.apply_graph("typo", typo).await.expect_err("admission refuses it").to_string();
    for expected in ["spec.tasks[0].dependsOn[0]", "did you mean \"build\"", "imagePullPolice"] {
        assert!(message.contains(expected), "{expected} is not in {message:?}");
    }
    Ok(())
}
