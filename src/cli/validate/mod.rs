//! `kubectl taskgraph validate`: what the operator would say of the objects in files, without a cluster.

mod check;
mod objects;
mod report;
mod schema;
mod source;
mod yaml;

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use serde_json::Value;

use self::check::Checker;
use crate::api::TaskGraphSpec;

/// Arguments of `validate`.
#[derive(Args, Clone, Debug)]
pub struct ValidateArgs {
    /// A file of YAML or JSON, a directory, or - for the standard input; may be given several times.
    #[arg(short, long = "filename", value_name = "FILE|DIR|-", required = true)]
    filename: Vec<PathBuf>,
    /// Look into the directories below, too.
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Namespace of the objects that name none.
    #[arg(short, long)]
    namespace: Option<String>,
    /// A template that is not among the files is a problem, not a warning.
    #[arg(long)]
    strict: bool,
    /// How to print what was found.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// How to print what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A line for each problem.
    Text,
    /// One JSON object.
    Json,
}

/// The graphs of a file, by name.
pub(super) fn graphs_of(filename: &Path) -> Result<Vec<(String, TaskGraphSpec)>, String> {
    let mut graphs = Vec::new();
    for source in source::read(filename, false)? {
        let text = str::from_utf8(&source.bytes).map_err(|error| format!("{}: {error}", source.name))?;
        for document in yaml::documents(text) {
            let object =
                yaml::parse(document).map_err(|error| format!("{}: {}", source.name, error.message))?.to_json();
            if object.get("kind").and_then(Value::as_str) != Some("TaskGraph") {
                continue;
            }
            let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
            let spec = serde_path_to_error::deserialize(object.get("spec").unwrap_or(&Value::Null))
                .map_err(|error| format!("{}: {name}: spec.{}: {}", source.name, error.path(), error.inner()))?;
            graphs.push((name, spec));
        }
    }
    Ok(graphs)
}

/// Runs the verb. Exit code: 0 nothing wrong, 1 problems, 2 a file could not be read.
pub fn run(args: &ValidateArgs) -> ExitCode {
    let mut checker = Checker::new(args.namespace.as_deref(), args.strict);
    let mut unreadable = false;
    for filename in &args.filename {
        match source::read(filename, args.recursive) {
            Ok(sources) => sources.iter().for_each(|source| checker.add(source)),
            Err(message) => {
                unreadable = true;
                anstream::eprintln!("error: {message}");
            }
        }
    }
    let report = checker.finish();
    let printed = match args.output {
        Output::Text => report.to_text(),
        Output::Json => serde_json::to_string_pretty(&report).unwrap_or_default() + "\n",
    };
    // a reader that has gone away (`| head`) is no problem of ours
    let _ = io::stdout().lock().write_all(printed.as_bytes());
    match (unreadable, report.summary.errors) {
        (true, _) => ExitCode::from(2),
        (false, 0) => ExitCode::SUCCESS,
        (false, _) => ExitCode::FAILURE,
    }
}
