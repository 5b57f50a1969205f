//! The kubectl plugin: `kubectl taskgraph`.

use std::process::ExitCode;

fn main() -> ExitCode {
    taskgraph::cli::main()
}
