//! The same graphs, run by the operator.

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Result, ensure};
use taskgraph::api::CONDITION_COMPLETE;

use crate::{
    shape::{Shape, task_name},
    support::{
        Namespace,
        namespace::holds,
        sight::{Object, Sight, Sighting},
    },
};

/// Name of the graph; it is deleted after each run.
pub const GRAPH: &str = "bench";

/// Runs `shape` once; seconds from the create of the graph to its stored condition `Complete`, as a watch shows it.
pub async fn run(namespace: &Namespace, shape: &Shape) -> Result<f64> {
    let begin = Instant::now();
    namespace.create(GRAPH, shape.spec()).await?;
    let graph = namespace.until_finished(GRAPH).await;
    let seconds = begin.elapsed().as_secs_f64();
    ensure!(holds(&graph, CONDITION_COMPLETE), "the graph failed");
    Ok(seconds)
}

/// Runs a chain once, watched from outside; for each link the milliseconds from its pod seen as succeeded to the
/// next link's Job seen as stored.
pub async fn hand_offs(namespace: &Namespace, chain: &Shape) -> Result<Vec<f64>> {
    let sight = Sight::start(namespace).await?;
    run(namespace, chain).await?;
    let seen = sight.caught_up().await?;
    let (mut ended, mut stored) = (BTreeMap::<&str, Instant>::new(), BTreeMap::<&str, Instant>::new());
    for one in &seen {
        match &one.object {
            Object::Pod(key, state) if state.phase == "Succeeded" => first(&mut ended, &key.task, one),
            Object::Job(key) if !one.gone => first(&mut stored, &key.task, one),
            _ => {}
        }
    }
    let link = |place: usize| {
        let (before, after) = (ended.get(&*task_name(place - 1))?, stored.get(&*task_name(place))?);
        let since = |later: &Instant, earlier: &Instant| later.saturating_duration_since(*earlier).as_secs_f64();
        Some((since(after, before) - since(before, after)) * 1000.0)
    };
    let hand_offs: Vec<f64> = (1..chain.size()).filter_map(link).collect();
    ensure!(
        hand_offs.len() + 1 == chain.size(),
        "only {} of {} hand-offs were seen",
        hand_offs.len(),
        chain.size() - 1
    );
    Ok(hand_offs)
}

fn first<'a>(times: &mut BTreeMap<&'a str, Instant>, task: &'a str, sighting: &Sighting) {
    times.entry(task).and_modify(|time| *time = (*time).min(sighting.at)).or_insert(sighting.at);
}
