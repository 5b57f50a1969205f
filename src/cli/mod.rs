//! The verbs of `kubectl taskgraph`.

mod approve;
mod change;
mod diff;
mod rerun;
mod steer;
mod suggest;
mod text;
pub mod tree;
pub mod validate;

use std::{io, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};

use crate::api::DesiredState;

const EXAMPLES: &str = "\
Examples:
  kubectl taskgraph tree data-processing               show a graph and its tasks
  kubectl taskgraph tree data-processing -n prod -w    follow it until it finishes
  kubectl taskgraph approve release ask                let a task go on that waits for an approval
  kubectl taskgraph diff -f graph.yaml                 show what an edit would do
  kubectl taskgraph rerun data-processing              run once more what failed
  kubectl taskgraph suspend data-processing            start nothing new; resume and cancel likewise
  kubectl taskgraph validate -f graph.yaml             check a file, no cluster needed
  kubectl taskgraph validate -f deploy/ -R --strict    check all below a directory";

const TREE_EXAMPLES: &str = "\
Examples:
  kubectl taskgraph tree data-processing
  kubectl taskgraph tree data-processing -n prod --watch && echo Complete

Exit codes: 0 shown (with --watch: Complete), 1 with --watch: Failed or deleted, 2 not found or no answer.";

const DIFF_EXAMPLES: &str = "\
Examples:
  kubectl taskgraph diff -f graph.yaml
  kubectl taskgraph diff -f deploy/ -R -n prod && echo nothing would happen

As after kubectl apply: templates in the files count as applied, and what a file does not say of approvals,
desiredState and rerun stays as it is.

Exit codes: 0 nothing would happen, 1 something would, 2 not found, no answer, or not readable.";

const APPROVE_EXAMPLES: &str = "\
Examples:
  kubectl taskgraph approve release ask -m 'looks good'
  kubectl taskgraph approve release ask --reject -m 'not on a Friday'

The decision stands in spec.approvals under the name that the cluster knows you by, and cannot be changed.

Exit codes: 0 stored, 2 not.";

const RERUN_EXAMPLES: &str = "\
Examples:
  kubectl taskgraph rerun nightly                      what failed, and all that depends on it
  kubectl taskgraph rerun nightly -t load -t check     these tasks, and all that depend on them
  kubectl taskgraph rerun nightly --all -w             all, and follow it until it finishes

The tasks start afresh, as further attempts; what of them runs is stopped first.

Exit codes: 0 asked for (with --watch: Complete), 1 with --watch: Failed or deleted, 2 refused, or no answer.";

const STEER_CODES: &str = "Exit codes: 0 done, or it was so already, 2 not.";

const VALIDATE_EXAMPLES: &str = "\
Examples:
  kubectl taskgraph validate -f graph.yaml -f templates.yaml
  kubectl taskgraph validate -f deploy/ -R --strict
  helm template chart | kubectl taskgraph validate -f - -o json

TaskGraphs, TaskTemplates and ClusterTaskTemplates are checked, all other kinds counted. A graph finds its templates
in any of the files.

Exit codes: 0 no problems, 1 problems, 2 a file could not be read or the command line is wrong.";

/// Shows, checks and steers task graphs.
#[derive(Parser, Debug)]
#[command(name = "kubectl-taskgraph", bin_name = "kubectl taskgraph", version, after_help = EXAMPLES, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Show a graph as a tree of its tasks: phases, attempts, times, outputs, and why a task did not run or failed.
    #[command(after_help = TREE_EXAMPLES)]
    Tree(tree::TreeArgs),
    /// Show what an edited graph would do to the one on the cluster: which tasks start, stop, or keep what they ran.
    #[command(after_help = DIFF_EXAMPLES)]
    Diff(diff::DiffArgs),
    /// Check graphs and templates in files as the operator would, without a cluster.
    #[command(after_help = VALIDATE_EXAMPLES)]
    Validate(validate::ValidateArgs),
    /// Decide on a task that waits for an approval.
    #[command(after_help = APPROVE_EXAMPLES)]
    Approve(approve::ApproveArgs),
    /// Run tasks of a graph once more: what failed, all, or those that are named.
    #[command(after_help = RERUN_EXAMPLES)]
    Rerun(rerun::RerunArgs),
    /// Start nothing new of a graph; what runs goes on.
    #[command(after_help = STEER_CODES)]
    Suspend(steer::SteerArgs),
    /// Let a suspended graph go on.
    #[command(after_help = STEER_CODES)]
    Resume(steer::SteerArgs),
    /// Call a graph off, for good: what runs is stopped, then compensations and `finally` run.
    #[command(after_help = STEER_CODES)]
    Cancel(steer::SteerArgs),
    /// Print a script that completes the command line of kubectl-taskgraph in a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// The program `kubectl-taskgraph`.
pub fn main() -> ExitCode {
    let result = match Cli::parse().verb {
        Verb::Tree(args) => tree::run(&args),
        Verb::Diff(args) => diff::run(&args),
        Verb::Approve(args) => approve::run(&args),
        Verb::Rerun(args) => rerun::run(&args),
        Verb::Suspend(args) => steer::run(&args, DesiredState::Suspend),
        Verb::Resume(args) => steer::run(&args, DesiredState::Run),
        Verb::Cancel(args) => steer::run(&args, DesiredState::Cancel),
        Verb::Validate(args) => Ok(validate::run(&args)),
        Verb::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "kubectl-taskgraph", &mut io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    };
    result.unwrap_or_else(|error| {
        anstream::eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
