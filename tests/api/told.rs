//! What Kubernetes events tell of a graph: each thing once.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use k8s_openapi::api::events::v1::Event;
use kube::{ResourceExt, api::ListParams};
use taskgraph::api::{TaskGraph, TaskPhase};

use crate::{
    fixture::Fixture,
    support::namespace::{PATIENCE, finished, status},
};

/// What is to be told of a graph, and how often: by reason, and of a failure with the name of the task.
fn expected(graph: &TaskGraph) -> BTreeMap<String, usize> {
    let mut told: BTreeMap<String, usize> =
        ["Accepted", "Started"].into_iter().chain(finished(graph)).map(|reason| (reason.to_owned(), 1)).collect();
    for task in status(graph).tasks {
        if task.phase == TaskPhase::Failed {
            told.insert(format!("TaskFailed {}", task.name), 1);
        }
        if task.compensation.is_some_and(|undo| undo.phase == TaskPhase::Failed) {
            told.insert(format!("CompensationFailed {}", task.name), 1);
        }
    }
    told
}

/// What was told of a graph.
fn told(events: &[Event], graph: &TaskGraph) -> BTreeMap<String, usize> {
    let mut told = BTreeMap::<String, usize>::new();
    let of_graph = |event: &&Event| event.regarding.as_ref().is_some_and(|regarding| regarding.uid == graph.uid());
    for event in events.iter().filter(of_graph) {
        let reason = event.reason.clone().unwrap_or_default();
        let note = event.note.clone().unwrap_or_default();
        let task = note.split(' ').skip_while(|word| !word.eq_ignore_ascii_case("task")).nth(1);
        let what = if reason.ends_with("Failed") && reason != "Failed" {
            format!("{reason} {}", task.unwrap_or_default())
        } else {
            reason
        };
        let more = event.series.as_ref().map_or(1, |series| series.count);
        *told.entry(what).or_default() += usize::try_from(more).unwrap_or_default();
    }
    told
}

/// Waits until everything is told of a graph that ran to its end; what is told twice by then is found by [`told_once`].
pub async fn until_told(fixture: &Fixture, graph: &TaskGraph) -> Result<()> {
    let (wanted, begin) = (expected(graph), Instant::now());
    loop {
        let events = fixture.namespace.api::<Event>().list(&ListParams::default()).await?.items;
        let found = told(&events, graph);
        if found.keys().eq(wanted.keys()) {
            return Ok(());
        }
        ensure!(begin.elapsed() < PATIENCE, "{}: told: {found:?}, and not {wanted:?}", fixture.namespace.name);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Whether everything was told of it, and once.
pub async fn told_once(fixture: &Fixture, graph: &TaskGraph) -> Result<()> {
    let events = fixture.namespace.api::<Event>().list(&ListParams::default()).await?.items;
    let (found, wanted) = (told(&events, graph), expected(graph));
    ensure!(found == wanted, "told: {found:?}, and not {wanted:?}");
    Ok(())
}
