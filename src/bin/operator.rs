//! The operator.

use clap::{Parser, Subcommand};
use taskgraph::{operator, runtime::args::Args, trial};

/// Graphs are read, checked and compared as many small pieces: with the C library's allocator, admission takes half as
/// long again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "taskgraph-operator", version)]
struct Line {
    #[command(flatten)]
    args: Args,
    #[command(subcommand)]
    command: Option<Command>,
}

/// What the program does beside operating.
#[derive(Subcommand)]
enum Command {
    /// Run a small graph on the cluster, and check what came of it: `helm test` does that
    Try(trial::TrialArgs),
    /// Leave outputs behind and end, as a task does: the tasks of `try` do that
    Say(trial::SayArgs),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let line = Line::parse();
    match line.command {
        None => operator::run(line.args).await,
        Some(Command::Try(args)) => trial::run(&args).await,
        Some(Command::Say(args)) => trial::say(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Line::command().debug_assert();
        assert!(Line::parse_from(["taskgraph-operator"]).command.is_none());
    }
}
