//! Results that are reused.

#![allow(clippy::needless_pass_by_value, reason = "json! gives values")]

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};
use taskgraph::api::{TaskGraph, TaskPhase, TaskStatus};

use crate::{
    fixture::{Fixture, task_with},
    support::{
        Play,
        namespace::{finished, task as task_status},
        proxy::Fate,
    },
};

/// A graph of `count`, which has a cache and an argument, and `after`.
fn spec(argument: &str, cache: Value) -> Value {
    let env = json!([{"name": "X", "value": "${{ args.x }}"}]);
    json!({"arguments": {"x": argument}, "tasks": [
        {"name": "count", "cache": cache, "container": {"image": "localhost/busybox:1", "env": env}},
        task_with("after", &["count"], json!({})),
    ]})
}

fn hour() -> Value {
    json!({"maxAge": "1h"})
}

async fn fixture(test: &str) -> Result<Fixture> {
    Fixture::new(test, |task, _| if task == "count" { Play::succeeds(r#"{"n": 7}"#) } else { Play::succeeds("") }).await
}

fn count(graph: &TaskGraph) -> TaskStatus {
    task_status(graph, "count").expect("its status")
}

/// Whether the task ran, having come to its outputs either way.
fn ran(graph: &TaskGraph) -> bool {
    let status = count(graph);
    assert_eq!((finished(graph), status.phase), (Some("Complete"), TaskPhase::Succeeded));
    assert_eq!(Value::Object(status.outputs), json!({"n": 7}));
    assert_eq!(status.reason.as_deref() == Some("Cached"), status.attempts == 0);
    status.attempts > 0
}

fn stored(fixture: &Fixture) -> Api<ControllerRevision> {
    fixture.namespace.api()
}

fn of_cache() -> ListParams {
    ListParams::default().labels("taskgraph.dev/role=cache")
}

/// Waits until so many successes are remembered; they.
async fn remembered(fixture: &Fixture, number: usize) -> Vec<ControllerRevision> {
    let is_one = |object: &&ControllerRevision| object.labels().contains_key("taskgraph.dev/role");
    let enough = |objects: &[ControllerRevision]| objects.iter().filter(is_one).count() == number;
    let all = fixture.namespace.until_all::<ControllerRevision>("remembered", enough).await;
    all.into_iter().filter(|object| is_one(&object)).collect()
}

#[tokio::test]
async fn a_second_graph_reuses_what_the_first_left() -> Result<()> {
    let fixture = fixture("cache").await?;
    assert!(ran(&fixture.run("first", spec("a", hour())).await?));
    let entries = remembered(&fixture, 1).await;
    assert!(entries[0].owner_references().is_empty(), "it outlives its graph");
    fixture.namespace.graphs().delete("first", &DeleteParams::default()).await?;

    let second = fixture.run("second", spec("a", hour())).await?;
    assert!(!ran(&second));
    let message = count(&second).message.unwrap_or_default();
    assert!(message.starts_with("outputs of task count of graph first, "), "{message}");
    let jobs = fixture.namespace.jobs().list(&ListParams::default().labels("taskgraph.dev/graph=second")).await?;
    assert_eq!(jobs.items.len(), 1, "only `after` has a Job");

    // other arguments, another key, too old
    assert!(ran(&fixture.run("arguments", spec("b", hour())).await?));
    let keyed = |key: &str| json!({"maxAge": "1h", "key": key});
    assert!(ran(&fixture.run("key", spec("a", keyed("1"))).await?));
    remembered(&fixture, 3).await;
    assert!(!ran(&fixture.run("same-key", spec("a", keyed("1"))).await?));
    assert!(ran(&fixture.run("old", spec("a", json!({"maxAge": "1ms"}))).await?));
    Ok(())
}

#[tokio::test]
async fn a_newer_success_takes_the_place_of_an_older_one_and_the_old_are_forgotten() -> Result<()> {
    let fixture = fixture("cache-age").await?;
    let old: ControllerRevision = serde_json::from_value(json!({
        "metadata": {
            "name": "taskgraph-cache-old", "labels": {"taskgraph.dev/role": "cache"},
            "annotations": {"taskgraph.dev/expires": "2020-01-01T00:00:00Z"},
        },
        "revision": 1, "data": {},
    }))?;
    stored(&fixture).create(&PostParams::default(), &old).await?;
    assert!(ran(&fixture.run("first", spec("a", hour())).await?));
    let gone = |object: Option<&ControllerRevision>| object.is_none().then_some(());
    fixture.namespace.until_object(stored(&fixture), "taskgraph-cache-old", "forgotten", gone).await;
    let first = remembered(&fixture, 1).await.remove(0);

    assert!(ran(&fixture.run("second", spec("a", json!({"maxAge": "1ms"}))).await?));
    let newer = |object: Option<&ControllerRevision>| object.filter(|object| object.uid() != first.uid()).map(|_| ());
    fixture.namespace.until_object(stored(&fixture), &first.name_any(), "the newer one", newer).await;
    Ok(())
}

#[tokio::test]
async fn a_cache_that_cannot_be_read_holds_nothing_up() -> Result<()> {
    let fixture = fixture("cache-fault").await?;
    assert!(ran(&fixture.run("first", spec("a", hour())).await?));
    let mut last = remembered(&fixture, 1).await.remove(0);
    for (name, fate) in
        [("refused", Fate::Refused(500)), ("lost", Fate::AnswerLost), ("slow", Fate::Delayed(Duration::from_secs(30)))]
    {
        fixture
            .proxy
            .inject_times(1, fate, |call| call.verb == http::Method::GET && call.name.starts_with("taskgraph-cache-"));
        assert!(ran(&fixture.run(name, spec("a", hour())).await?), "{name}");
        // it reads too when it takes the place of the older one
        let newer = |object: Option<&ControllerRevision>| object.filter(|object| object.uid() != last.uid()).cloned();
        last = fixture.namespace.until_object(stored(&fixture), &last.name_any(), "the newer one", newer).await;
    }
    // what is no success of ours counts as none
    let entry = stored(&fixture).list(&of_cache()).await?.items.remove(0);
    stored(&fixture).delete(&entry.name_any(), &DeleteParams::default()).await?;
    let odd: ControllerRevision =
        serde_json::from_value(json!({"metadata": {"name": entry.name_any()}, "revision": 1, "data": {"outputs": 5}}))?;
    stored(&fixture).create(&PostParams::default(), &odd).await?;
    assert!(ran(&fixture.run("odd", spec("a", hour())).await?));
    Ok(())
}
