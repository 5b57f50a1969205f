//! `kubectl taskgraph suspend`, `resume` and `cancel`: set a graph's `spec.desiredState`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;

use super::{
    change,
    tree::{ClusterArgs, client::Graphs},
};
use crate::api::{DesiredState, TaskGraph};

/// Arguments of `suspend`, `resume` and `cancel`.
#[derive(Args, Clone, Debug)]
pub struct SteerArgs {
    /// Name of the graph.
    graph: String,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Runs the verb. The exit code is 0 once that is what is wanted of the graph; everything else is an error.
pub fn run(args: &SteerArgs, wanted: DesiredState) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let graphs = Graphs::connect(&args.cluster).await?;
        let graph = graphs.get(&args.graph).await?;
        if may(&graph, wanted)? {
            change::merge(&graphs, &graph, json!({"desiredState": wanted})).await?;
        }
        anstream::println!("{}", told(wanted));
        Ok(ExitCode::SUCCESS)
    })
}

fn told(wanted: DesiredState) -> &'static str {
    match wanted {
        DesiredState::Run => "Resumed",
        DesiredState::Suspend => "Suspended: nothing new is started, what runs goes on",
        DesiredState::Cancel => "Cancelled: what runs is stopped, then compensations and finally run",
    }
}

/// Whether there is something to change; why it would be of no use.
fn may(graph: &TaskGraph, wanted: DesiredState) -> Result<bool> {
    if change::desired_state(graph) == wanted {
        return Ok(false);
    }
    if change::is_cancelled(graph) {
        bail!("the graph was cancelled, which cannot be taken back");
    }
    if change::is_finished(graph) && wanted != DesiredState::Run {
        bail!("the graph has finished");
    }
    if let Some((parent, task)) = change::parent(graph).filter(|_| wanted != DesiredState::Cancel) {
        bail!("the graph is the child of {parent}, whose task {task} it runs: it does as {parent} does");
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn what_is_of_no_use_is_refused() {
        use DesiredState::{Cancel, Run, Suspend};
        let child = json!({"name": "c", "labels": {"taskgraph.dev/task": "load"}, "ownerReferences": [
            {"apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskGraph", "name": "top", "uid": "u", "controller": true}]});
        let graph = |metadata: &Value, state: Option<DesiredState>, status: &Value| -> TaskGraph {
            serde_json::from_value(json!({"apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskGraph",
                "metadata": metadata, "spec": {"desiredState": state, "tasks": []}, "status": status}))
            .unwrap()
        };
        let (name, running) = (json!({"name": "g"}), json!({}));
        let finished = json!({"completionTime": "2026-01-01T00:00:00Z"});
        let cancelled = json!({"ending": {"reason": "Cancelled", "time": "2026-01-01T00:00:00Z"}});
        let as_parent = Err("the graph is the child of top, whose task load it runs: it does as top does");
        let for_good = Err("the graph was cancelled, which cannot be taken back");
        for (metadata, state, status, wanted, expected) in [
            (&name, None, &running, Suspend, Ok(true)),
            (&name, None, &running, Run, Ok(false)),
            (&name, Some(Suspend), &running, Run, Ok(true)),
            (&name, Some(Suspend), &running, Suspend, Ok(false)),
            (&name, Some(Suspend), &running, Cancel, Ok(true)),
            (&name, Some(Cancel), &running, Cancel, Ok(false)),
            (&name, Some(Cancel), &running, Run, for_good),
            (&name, None, &cancelled, Suspend, for_good),
            (&name, None, &finished, Cancel, Err("the graph has finished")),
            (&name, Some(Suspend), &finished, Run, Ok(true)),
            (&child, None, &running, Suspend, as_parent),
            (&child, Some(Suspend), &running, Run, as_parent),
            (&child, None, &running, Cancel, Ok(true)),
        ] {
            let found = may(&graph(metadata, state, status), wanted).map_err(|error| error.to_string());
            assert_eq!(found, expected.map_err(str::to_owned), "{state:?} {wanted:?} {status}");
        }
    }
}
