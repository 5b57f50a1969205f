//! `kubectl taskgraph approve`: adds an entry to a graph's `spec.approvals`.

use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::{Api, api::PostParams};
use serde_json::json;

use super::{
    change::{self, Answer},
    suggest, text,
    tree::{ClusterArgs, client::Graphs},
};
use crate::{
    api::{Approval, ApprovalDecision, TaskGraph, TaskPhase, noted_user},
    engine::reason::APPROVAL_PENDING,
};

/// How often a change of the graph by somebody else is followed by another try.
const TRIES: usize = 20;

/// Arguments of `approve`.
#[derive(Args, Clone, Debug)]
pub struct ApproveArgs {
    /// Name of the graph.
    graph: String,
    /// Name of the task that waits for an approval.
    task: String,
    /// Reject the attempt: it fails.
    #[arg(long)]
    reject: bool,
    /// Why.
    #[arg(short, long)]
    message: Option<String>,
    /// Number of the attempt, which may lie ahead. Default: the one that waits now.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    attempt: Option<u32>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Runs the verb. The exit code is 0 once the decision is stored; everything else is an error.
pub fn run(args: &ApproveArgs) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let graphs = Graphs::connect(&args.cluster).await?;
        let graph = graphs.get(&args.graph).await?;
        // what is wrong with the names is told before anybody is asked who they are
        attempt(&graph, args)?;
        let by = who(&graphs).await?;
        let approval = store(&graphs, graph, args, &by).await?;
        anstream::println!("{} attempt {} of task {}", approval.decision.name(), approval.attempt, approval.task);
        Ok(ExitCode::SUCCESS)
    })
}

/// The tasks that ask for an approval, as far as the graph shows: those of a template stand in no spec, and show when they
/// wait.
fn asking(graph: &TaskGraph) -> Vec<&str> {
    let written = graph.spec.tasks.iter().chain(&graph.spec.finally).filter(|task| task.approval.is_some());
    let told = graph.status.iter().flat_map(|status| &status.tasks);
    let waiting =
        told.filter(|task| graph.spec.template_ref.is_some() && task.reason.as_deref() == Some(APPROVAL_PENDING));
    written.map(|task| task.name.as_str()).chain(waiting.map(|task| task.name.as_str())).collect()
}

/// The attempt that is decided on.
fn attempt(graph: &TaskGraph, args: &ApproveArgs) -> Result<u32> {
    let asking = asking(graph);
    if !asking.contains(&args.task.as_str()) {
        let hint = suggest::did_you_mean(&args.task, asking.iter().copied());
        bail!("the graph has no task {} that asks for an approval{hint}", suggest::quoted(&args.task));
    }
    let status = graph.status.iter().flat_map(|status| &status.tasks).find(|task| task.name == args.task);
    let attempt = match (args.attempt, status) {
        (Some(attempt), _) => attempt,
        (None, Some(status)) if status.phase == TaskPhase::Waiting => status.attempts,
        (None, status) => {
            let phase = status.map(|status| status.phase).unwrap_or_default();
            bail!(
                "task {} is {} and waits for no approval now; --attempt N decides on one ahead of time",
                args.task,
                phase.name()
            );
        }
    };
    let known = graph.spec.approvals.iter().find(|known| known.task == args.task && known.attempt == attempt);
    match known {
        Some(Approval { decision, by, .. }) => Err(anyhow!(
            "attempt {attempt} of task {} was {} by {} already",
            args.task,
            decision.name().to_lowercase(),
            text::one_line(by)
        )),
        None => Ok(attempt),
    }
}

/// The name that the cluster knows the user by.
async fn who(graphs: &Graphs) -> Result<String> {
    let reviews: Api<SelfSubjectReview> = Api::all(graphs.api.clone().into_client());
    let review = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await;
    let user = review.context("cannot ask the cluster who you are")?.status.and_then(|status| status.user_info);
    let name = user.and_then(|user| user.username).context("the cluster does not say who you are")?;
    Ok(noted_user(&name).to_owned())
}

/// Adds the entry to those that stand there. Bound to what was read: two who decide at once do not lose each other's.
async fn store(graphs: &Graphs, mut graph: TaskGraph, args: &ApproveArgs, by: &str) -> Result<Approval> {
    let decision = if args.reject { ApprovalDecision::Rejected } else { ApprovalDecision::Approved };
    for _ in 0..TRIES {
        let approval = Approval {
            task: args.task.clone(),
            attempt: attempt(&graph, args)?,
            decision,
            by: by.to_owned(),
            message: args.message.clone(),
        };
        let mut approvals = graph.spec.approvals;
        approvals.push(approval.clone());
        let patch = json!({
            "metadata": {"resourceVersion": graph.metadata.resource_version, "uid": graph.metadata.uid},
            "spec": {"approvals": approvals},
        });
        match change::send(graphs, &args.graph, patch, "the approval").await? {
            Answer::Changed(_) => return Ok(approval),
            // one that is gone is told of by the next look
            Answer::Another(_) => graph = graphs.get(&args.graph).await?,
        }
    }
    bail!("the graph changes too fast; try again")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ApproveArgs,
    }

    fn decides_on(line: &str) -> String {
        let line = Line::parse_from(["approve"].into_iter().chain(line.split(' ')));
        let graph: TaskGraph = serde_json::from_value(json!({
            "apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskGraph", "metadata": {"name": "g"},
            "spec": {
                "tasks": [{"name": "ask", "approval": {}}, {"name": "job"}, {"name": "later", "approval": {}}],
                "approvals": [{"task": "ask", "attempt": 1, "decision": "Rejected", "by": "ann"}],
            },
            "status": {"tasks": [
                {"name": "ask", "phase": "Waiting", "attempts": 2}, {"name": "job", "phase": "Running", "attempts": 1},
            ]},
        }))
        .unwrap();
        attempt(&graph, &line.args).map_or_else(|error| error.to_string(), |attempt| attempt.to_string())
    }

    #[test]
    fn the_tasks_of_a_template_show_when_they_wait() {
        let graph: TaskGraph = serde_json::from_value(json!({
            "apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskGraph", "metadata": {"name": "g"},
            "spec": {"templateRef": {"name": "release"}},
            "status": {"tasks": [
                {"name": "ask", "phase": "Waiting", "reason": "ApprovalPending", "attempts": 3},
                {"name": "night", "phase": "Waiting", "reason": "Delay", "attempts": 1},
            ]},
        }))
        .unwrap();
        let decides = |task: &str| {
            let line = Line::parse_from(["approve", "g", task]);
            attempt(&graph, &line.args).map_err(|error| error.to_string())
        };
        assert_eq!(decides("ask"), Ok(3));
        assert!(decides("night").is_err());
    }

    #[test]
    fn decides_on_the_attempt_that_waits() {
        for (line, expected) in [
            ("g ask", "2"),
            ("g ask --attempt 3", "3"),
            ("g later --attempt 1", "1"),
            ("g ask --attempt 1", "attempt 1 of task ask was rejected by ann already"),
            (
                "g later",
                "task later is Pending and waits for no approval now; --attempt N decides on one ahead of time",
            ),
            ("g job", "the graph has no task \"job\" that asks for an approval"),
            ("g aks", "the graph has no task \"aks\" that asks for an approval (did you mean \"ask\"?)"),
        ] {
            assert_eq!(decides_on(line), expected, "{line}");
        }
    }
}
