//! Random histories of graphs on a real API server: edited, rerun, suspended, cancelled, approved, with specs that are not
//! valid, Jobs deleted by hand, pods that fail and are evicted, and the operator killed at no matter what moment.
//!
//! Histories go on side by side, several in one namespace with one operator. In the end all is mended, and each graph
//! must end, and be Complete once what failed is rerun; then it is deleted, and nothing may be left. An independent watch
//! judges what happened.
//!
//! | environment variable | means |
//! |---|---|
//! | `HISTORIES` | how many histories, 200 if absent |
//! | `HISTORY` | the number that a failed test printed: only that namespace's histories |

mod drawn;
mod judge;

use std::{collections::BTreeSet, env, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, future::try_join_all, stream};
use k8s_openapi::api::{
    apps::v1::ControllerRevision,
    batch::v1::Job,
    core::v1::{ConfigMap, Pod},
};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams},
};
use parking_lot::Mutex;
use serde_json::json;
use taskgraph::api::{LABEL_ATTEMPT, LABEL_GRAPH, LABEL_ROLE, LABEL_TASK, TaskGraph, TaskPhase};

use self::drawn::{Act, Dice, Spec, play};
use crate::{
    fixture::{Fixture, container, task},
    support::{
        Namespace, Player,
        namespace::{finished, holds, status},
        player::LABEL_INDEX,
        sight::{Sight, Sighting},
    },
};

/// Histories in one namespace.
const TOGETHER: usize = 8;
/// Namespaces at once.
const SIDE_BY_SIDE: usize = 4;
/// How long nothing may happen before something is done all the same.
const LULL: Duration = Duration::from_millis(400);

/// The histories of one namespace; tells how to play them again if one of them fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("HISTORY={} plays these histories again", self.0);
        }
    }
}

/// The graphs whose pods all succeed from now on.
type Calm = Arc<Mutex<BTreeSet<String>>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_always_holds_does_through_random_histories() -> Result<()> {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("HISTORY") {
        return together(seed).await;
    }
    let first = u64::try_from(jiff::Timestamp::now().as_second())? << 16;
    let count = number("HISTORIES").unwrap_or(200).div_ceil(TOGETHER as u64);
    stream::iter(first..first + count).map(together).buffer_unordered(SIDE_BY_SIDE).try_collect().await
}

/// Some histories in a namespace of their own, whose operator is killed now and then.
async fn together(number: u64) -> Result<()> {
    let seed = Seed(number);
    let calm = Calm::default();
    let mut fixture = Fixture::with_player("history", |namespace| player(namespace, seed.0, Arc::clone(&calm))).await?;
    let namespace = fixture.namespace.clone();
    let load = json!({"graph": {"tasks": [task("read", &[]), task("write", &["read"])]}});
    namespace.create_template("load", load).await?;
    namespace.create_template("plain", json!({"container": container()})).await?;
    let (sight, mut operated) = fixture.split();
    let histories = (0..TOGETHER).map(|place| history(&namespace, sight, seed.0, format!("h{place}"), &calm));
    let kills = async {
        let mut dice = Dice::new(seed.0, "kills");
        for _ in 0..dice.below(4) {
            wait(sight, "", dice.below(150)).await;
            operated.kill_and_restart().await?;
        }
        // what comes after the last kill is as long as the histories
        std::future::pending::<Result<()>>().await
    };
    let ended = tokio::select! {
        ended = try_join_all(histories) => ended.map(|_| ()),
        failed = kills => failed,
    };
    ended.with_context(|| format!("HISTORY={} plays these histories again", seed.0))?;
    fixture.auditor.judge().await?;
    nothing_left(&namespace).await;
    Ok(())
}

fn player(namespace: &Namespace, seed: u64, calm: Calm) -> Player {
    Player::of_pods(namespace, move |pod| {
        let label = |name: &str| pod.labels().get(name).cloned().unwrap_or_default();
        // a child graph is named after its parent
        let graph = label(LABEL_GRAPH);
        let history = graph.split('-').next().unwrap_or_default();
        let what = [LABEL_GRAPH, LABEL_ROLE, LABEL_TASK, LABEL_ATTEMPT, LABEL_INDEX].map(label).join("/");
        let attempt = label(LABEL_ATTEMPT).parse().unwrap_or_default();
        play(&mut Dice::new(seed, &what), attempt, calm.lock().contains(history))
    })
}

/// One graph from its creation until it is deleted.
async fn history(namespace: &Namespace, sight: &Sight, seed: u64, name: String, calm: &Calm) -> Result<()> {
    let mut dice = Dice::new(seed, &name);
    let mut spec = Spec::draw(&mut dice);
    namespace.create(&name, spec.render()).await?;
    for _ in 0..3 + dice.below(6) {
        wait(sight, &name, dice.below(12)).await;
        match spec.act(&mut dice) {
            Act::Patch => _ = namespace.edit(&name, spec.render()).await?,
            Act::DeleteJob => delete_a_job(namespace, &name, &mut dice).await?,
            Act::Approve => {
                let graph = namespace.graphs().get(&name).await?;
                let decision = if dice.one_in(3) { "Rejected" } else { "Approved" };
                for (task, attempt) in asked(&graph) {
                    spec.approve(&task, attempt, decision);
                }
                namespace.edit(&name, spec.render()).await?;
            }
        }
    }
    calm.lock().insert(name.clone());
    spec.mend();
    let mut graph = come_to_an_end(namespace, &name, &mut spec).await?;
    if !spec.is_cancelled() && finished(&graph) == Some("Failed") {
        spec.rerun(json!({"scope": "Failed"}));
        graph = come_to_an_end(namespace, &name, &mut spec).await?;
    }
    // a cancel that comes when nothing is left to call off changes nothing: `violations` tells whether it came so late
    let expected = if spec.is_cancelled() { ["Failed", "Complete"].as_slice() } else { &["Complete"] };
    let is_expected = finished(&graph).is_some_and(|end| expected.contains(&end));
    ensure!(is_expected, "D: {name} is not {}: {:#?}", expected.join(" or "), status(&graph));
    let broken = judge::violations(&name, &sight.caught_up().await?);
    ensure!(broken.is_empty(), "{}/{name}: {}", namespace.name, broken.join("\n"));
    namespace.graphs().delete(&name, &DeleteParams::default()).await?;
    Ok(())
}

/// Waits until so many more things of a graph were seen, or nothing was for a while. Of an empty name: of any.
async fn wait(sight: &Sight, name: &str, more: usize) {
    let of_graph = |one: &Sighting| {
        let rest = one.name.strip_prefix(name);
        rest.is_some_and(|rest| name.is_empty() || rest.is_empty() || rest.starts_with('-'))
    };
    sight.until_more(more, LULL, of_graph).await;
}

/// The approvals that a graph waits for.
fn asked(graph: &TaskGraph) -> Vec<(String, u32)> {
    let waits = |task: &taskgraph::api::TaskStatus| {
        task.phase == TaskPhase::Waiting && task.reason.as_deref() == Some("ApprovalPending")
    };
    status(graph).tasks.into_iter().filter(waits).map(|task| (task.name, task.attempts)).collect()
}

/// Stores the spec, approves what is asked, and waits until the graph has finished as the spec wants it.
async fn come_to_an_end(namespace: &Namespace, name: &str, spec: &mut Spec) -> Result<TaskGraph> {
    loop {
        namespace.edit(name, spec.render()).await?;
        let done = |graph: &TaskGraph| {
            let followed = status(graph).observed_generation == graph.metadata.generation && holds(graph, "Accepted");
            followed && finished(graph).is_some()
        };
        let is_new = |graph: &TaskGraph| asked(graph).iter().any(|(task, attempt)| !spec.has_approved(task, *attempt));
        let graph = namespace.until(name, "at its end", |graph| done(graph) || is_new(graph)).await;
        if done(&graph) {
            return Ok(graph);
        }
        for (task, attempt) in asked(&graph) {
            spec.approve(&task, attempt, "Approved");
        }
    }
}

/// Deletes one of the Jobs that the stored status tells of. One that vanishes before anything tells of it can be missed by
/// nobody: an operator that is killed meanwhile, or begins anew after an edit, creates it once more. That is the gap of
/// rule A which docs/operations.md names.
async fn delete_a_job(namespace: &Namespace, graph: &str, dice: &mut Dice) -> Result<()> {
    let told = told_jobs(&namespace.graphs().get(graph).await?);
    let of_graph = ListParams::default().labels(&format!("{LABEL_GRAPH}={graph}"));
    let mut jobs = namespace.jobs().list(&of_graph).await?.items;
    jobs.retain(|job| told.contains(&job.name_any()));
    let Some(job) = jobs.get(dice.below(jobs.len().max(1))) else { return Ok(()) };
    match namespace.jobs().delete(&job.name_any(), &DeleteParams::background()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        answer => Ok(answer.map(|_| ())?),
    }
}

/// The names of all Jobs that the status of a graph tells of, those of failed attempts and of what undoes tasks too.
fn told_jobs(graph: &TaskGraph) -> BTreeSet<String> {
    let tasks = status(graph).tasks.into_iter().flat_map(|task| {
        let undo = task.compensation.clone().map(|undo| undo.into_task(String::new()));
        std::iter::once(task).chain(undo)
    });
    let names = tasks.flat_map(|task| {
        let failed = task.failed_attempts.into_iter().filter_map(|failure| failure.job);
        task.job.into_iter().chain(failed)
    });
    names.collect()
}

/// Waits until nothing is there any more of graphs that were deleted.
async fn nothing_left(namespace: &Namespace) {
    namespace.until_all::<TaskGraph>("gone", <[_]>::is_empty).await;
    namespace.until_all::<Job>("gone", <[_]>::is_empty).await;
    namespace.until_all::<Pod>("gone", <[_]>::is_empty).await;
    namespace.until_all::<ControllerRevision>("gone", <[_]>::is_empty).await;
    namespace.until_all::<ConfigMap>("gone", <[_]>::is_empty).await;
}
