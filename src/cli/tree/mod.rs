//! `kubectl taskgraph tree`: a graph as a tree of its tasks.

mod changes;
pub(super) mod client;
mod history;
mod layout;
mod render;
mod style;
mod watch;
mod words;

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;

pub(super) use self::words::refusal;
pub use self::{render::render, style::Style};
use crate::api::{CONDITION_COMPLETE, CONDITION_FAILED, TaskGraph};

/// Width where there is no terminal to ask.
const DEFAULT_WIDTH: usize = 120;

/// Arguments of `tree`.
#[derive(Args, Clone, Debug)]
pub struct TreeArgs {
    /// Name of the graph.
    name: String,
    /// Follow the graph until it finishes. The exit code is 0 if it is Complete, 1 if it Failed or was deleted.
    #[arg(short, long)]
    watch: bool,
    /// Draw with ASCII characters only.
    #[arg(long)]
    ascii: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Which cluster and namespace to ask.
#[derive(Args, Clone, Debug)]
pub(super) struct ClusterArgs {
    /// Namespace of the graph. Default: that of the context.
    #[arg(short, long)]
    namespace: Option<String>,
    /// Context of the kubeconfig to use.
    #[arg(long)]
    context: Option<String>,
    /// The kubeconfig file. Default: $KUBECONFIG, then ~/.kube/config.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

impl ClusterArgs {
    /// The namespace that the command line names.
    pub(super) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }
}

/// How a graph ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Complete,
    Failed,
}

/// How the graph ended, if it has.
fn outcome(graph: &TaskGraph) -> Option<Outcome> {
    let status = graph.status.as_ref()?;
    let failed = status.holds(CONDITION_FAILED).map(|_| Outcome::Failed);
    failed.or_else(|| status.holds(CONDITION_COMPLETE).map(|_| Outcome::Complete))
}

/// Where the picture goes.
#[derive(Clone, Copy, Debug)]
struct Screen {
    terminal: bool,
    style: Style,
}

impl Screen {
    fn new(ascii: bool) -> Self {
        let stdout = io::stdout();
        let colour = anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never;
        Self { terminal: stdout.is_terminal(), style: Style { colour, ascii } }
    }

    /// Columns and lines, as they are now: a terminal may change while a graph is watched.
    fn size(self) -> (usize, usize) {
        let size = self.terminal.then(terminal_size::terminal_size).flatten();
        size.map_or((DEFAULT_WIDTH, usize::MAX), |(width, height)| (width.0.into(), height.0.into()))
    }
}

/// Runs the verb. Exit code: 0; watching, 1 if the graph Failed or was deleted. Everything else that goes wrong is an error.
pub fn run(args: &TreeArgs) -> Result<ExitCode> {
    let screen = Screen::new(args.ascii);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let graphs = client::Graphs::connect(&args.cluster).await?;
        let graph = graphs.get(&args.name).await?;
        if args.watch {
            return watch::run(&graphs, graph, screen).await;
        }
        let picture = render(&graph, Timestamp::now(), screen.size().0, screen.style);
        // a reader that has gone away (`| head`) is no problem of ours
        let _ = io::stdout().lock().write_all(picture.as_bytes());
        Ok(ExitCode::SUCCESS)
    })
}

/// Shows every change of a graph until it finishes.
pub(super) async fn follow(graphs: &client::Graphs, graph: TaskGraph) -> Result<ExitCode> {
    watch::run(graphs, graph, Screen::new(false)).await
}
