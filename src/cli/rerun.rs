//! `kubectl taskgraph rerun`: asks for tasks to be run once more, by a graph's `spec.rerun`.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use futures::StreamExt;
use jiff::Timestamp;
use kube::{ResourceExt, runtime::watcher};
use serde_json::{Value, json};

use super::{
    change,
    tree::{self, ClusterArgs, client::Graphs},
};
use crate::api::{CONDITION_RECONCILING, Rerun, RerunScope, TaskGraph, TaskPhase};

/// Arguments of `rerun`.
#[derive(Args, Clone, Debug)]
pub struct RerunArgs {
    /// Name of the graph.
    graph: String,
    /// Run once more what is Failed, Omitted or Cancelled, and what was undone. This is the default.
    #[arg(long, conflicts_with_all = ["all", "tasks"])]
    failed: bool,
    /// Run all tasks once more.
    #[arg(long, conflicts_with = "tasks")]
    all: bool,
    /// Run this task once more, and all that depend on it; may be given several times.
    #[arg(short, long = "task", value_name = "TASK")]
    tasks: Vec<String>,
    /// Follow the graph until it finishes. The exit code is 0 if it is Complete, 1 if it Failed or refused the rerun.
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Runs the verb. The exit code is 0 once the rerun is asked for; see [`RerunArgs::watch`].
pub fn run(args: &RerunArgs) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let graphs = Graphs::connect(&args.cluster).await?;
        let graph = graphs.get(&args.graph).await?;
        let rerun = rerun(&graph, args, Timestamp::now())?;
        if let Some(other) = unheard(&graph) {
            anstream::eprintln!("note: the rerun {other} was not carried out yet, and never is now");
        }
        let asked = change::merge(&graphs, &graph, patch(&rerun)).await?;
        anstream::println!("Rerun {}", rerun.id);
        if !args.watch {
            return Ok(ExitCode::SUCCESS);
        }
        let heard = heard(&graphs, asked, &rerun.id).await?;
        tree::follow(&graphs, heard).await
    })
}

/// What is asked for; why it would be of no use.
fn rerun(graph: &TaskGraph, args: &RerunArgs, now: Timestamp) -> Result<Rerun> {
    if change::is_cancelled(graph) {
        bail!("the graph was cancelled, which cannot be taken back: make a new graph");
    }
    if let Some((parent, task)) = change::parent(graph) {
        bail!(
            "the graph is the child of {parent}: run its task once more (kubectl taskgraph rerun {parent} --task {task})"
        );
    }
    let known = change::tasks(graph);
    if let Some(unknown) = args.tasks.iter().find(|task| !known.contains(&task.as_str())) {
        return Err(change::no_task(graph, unknown, ""));
    }
    let scope = match (args.all, args.tasks.is_empty()) {
        (true, _) => RerunScope::All,
        (false, false) => RerunScope::Tasks,
        (false, true) => RerunScope::Failed,
    };
    if scope == RerunScope::Failed && !has_failed(graph) {
        bail!("no task is Failed, Omitted or Cancelled: say which with --task, or --all");
    }
    let mut tasks = args.tasks.clone();
    tasks.sort();
    tasks.dedup();
    // readable, as it stands in the history; no two within a millisecond
    Ok(Rerun { id: format!("{now:.3}"), scope, tasks })
}

fn has_failed(graph: &TaskGraph) -> bool {
    graph.status.iter().flat_map(|status| &status.tasks).filter(|task| !task.removed).any(|task| {
        let undone = task.compensation.as_ref().is_some_and(|undo| undo.attempts > undo.attempts_before);
        undone || matches!(task.phase, TaskPhase::Failed | TaskPhase::Omitted | TaskPhase::Cancelled)
    })
}

/// What merges into a spec so that it asks for exactly this.
fn patch(rerun: &Rerun) -> Value {
    let tasks = (rerun.scope == RerunScope::Tasks).then_some(&rerun.tasks);
    json!({"rerun": {"id": rerun.id, "scope": rerun.scope, "tasks": tasks}})
}

/// The id of a rerun that was asked for before, and that the operator has not acted on.
fn unheard(graph: &TaskGraph) -> Option<&str> {
    let id = graph.spec.rerun.as_ref()?.id.as_str();
    let status = graph.status.as_ref().filter(|status| status.revision.is_some())?;
    (status.rerun.as_deref() != Some(id)).then_some(id)
}

/// Waits until the operator has acted on the rerun; the graph then. A refusal is an error.
async fn heard(graphs: &Graphs, asked: TaskGraph, id: &str) -> Result<TaskGraph> {
    let name = asked.name_any();
    let mut seen = watcher::watch_object(graphs.api.clone(), &name).boxed();
    let mut told = String::new();
    while let Some(graph) = seen.next().await {
        let graph = match graph {
            Ok(Some(graph)) => graph,
            Ok(None) => bail!("the graph was deleted"),
            // the watcher goes on by itself after a pause
            Err(_) => continue,
        };
        let Some(status) = &graph.status else { continue };
        if status.rerun.as_deref() == Some(id) {
            return Ok(graph);
        }
        if status.observed_generation < asked.metadata.generation {
            continue;
        }
        let Some(refusal) = tree::refusal(&graph) else { continue };
        if status.holds(CONDITION_RECONCILING).is_none() {
            bail!("the rerun is refused ({}): {}", refusal.reason, refusal.problems.join("; "));
        }
        let now = format!("{}: {}", refusal.reason, refusal.problems.join("; "));
        if told != now {
            anstream::eprintln!("waiting: {now}");
            told = now;
        }
    }
    None.context("the watch ended")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: RerunArgs,
    }

    fn graph(change: &Value) -> TaskGraph {
        let mut graph = json!({
            "apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskGraph", "metadata": {"name": "g"},
            "spec": {"tasks": [{"name": "build"}, {"name": "test"}], "finally": [{"name": "tidy"}]},
            "status": {"revision": "r", "tasks": [{"name": "build", "phase": "Succeeded", "attempts": 1}, {"name": "test"}]},
        });
        merge(&mut graph, change);
        serde_json::from_value(graph).unwrap()
    }

    /// As a merge patch does.
    fn merge(into: &mut Value, change: &Value) {
        if let (Value::Object(into), Value::Object(change)) = (&mut *into, change) {
            for (name, value) in change {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        } else {
            *into = change.clone();
        }
    }

    fn asks(line: &str, change: &Value) -> String {
        let line = Line::parse_from(["rerun"].into_iter().chain(line.split(' ')));
        let now = "2026-11-21T18:00:00.1234Z".parse().unwrap();
        rerun(&graph(change), &line.args, now).map_or_else(|error| error.to_string(), |rerun| patch(&rerun).to_string())
    }

    #[test]
    fn asks_for_what_the_line_says() {
        let asked = |scope: &str, tasks: Value| {
            json!({"rerun": {"id": "2026-11-21T18:00:00.123Z", "scope": scope, "tasks": tasks}}).to_string()
        };
        let failed = json!({"status": {"tasks": [{"name": "build", "phase": "Failed"}]}});
        let undone =
            json!({"status": {"tasks": [{"name": "build", "phase": "Succeeded", "compensation": {"attempts": 1}}]}});
        let nothing = "no task is Failed, Omitted or Cancelled: say which with --task, or --all";
        let template = json!({"spec": {"templateRef": {"name": "t"}, "tasks": [], "finally": []}});
        let cancelled = json!({"spec": {"desiredState": "Cancel"}});
        let child = json!({"metadata": {"labels": {"taskgraph.dev/task": "load"}, "ownerReferences": [
            {"apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskGraph", "name": "top", "uid": "u", "controller": true}]}});
        for (line, change, expected) in [
            ("g", &failed, asked("Failed", Value::Null)),
            ("g --failed", &undone, asked("Failed", Value::Null)),
            ("g", &json!({}), nothing.to_owned()),
            ("g --all", &json!({}), asked("All", Value::Null)),
            ("g -t test --task build --task test", &json!({}), asked("Tasks", json!(["build", "test"]))),
            ("g -t tidy", &json!({}), asked("Tasks", json!(["tidy"]))),
            ("g -t biuld", &json!({}), "the graph has no task \"biuld\" (did you mean \"build\"?)".to_owned()),
            ("g -t build", &template, asked("Tasks", json!(["build"]))),
            ("g --all", &cancelled, "the graph was cancelled, which cannot be taken back: make a new graph".to_owned()),
            (
                "g --all",
                &child,
                "the graph is the child of top: run its task once more (kubectl taskgraph rerun top --task load)"
                    .to_owned(),
            ),
        ] {
            assert_eq!(asks(line, change), expected, "{line}");
        }
    }

    #[test]
    fn a_rerun_that_is_replaced_is_known() {
        let asked = json!({"spec": {"rerun": {"id": "1", "scope": "All"}}});
        assert_eq!(unheard(&graph(&asked)), Some("1"));
        let mut done = asked.clone();
        done["status"] = json!({"rerun": "1"});
        assert_eq!((unheard(&graph(&done)), unheard(&graph(&json!({})))), (None, None));
        let fresh = json!({"spec": asked["spec"], "status": {"revision": null}});
        assert_eq!(unheard(&graph(&fresh)), None, "one that is there at the beginning is only noted");
    }
}
