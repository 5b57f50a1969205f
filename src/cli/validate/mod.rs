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

use self::check::Checker;
pub(super) use self::objects::{Content, Kind, Object};

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

/// The objects of what `-f` names, each with its file.
pub(super) fn objects_of(filename: &Path, recursive: bool) -> Result<Vec<(String, Content)>, String> {
    let mut found = Vec::new();
    for source in source::read(filename, recursive)? {
        let text = str::from_utf8(&source.bytes).map_err(|error| format!("{}: {error}", source.name))?;
        for document in yaml::documents(text) {
            let node = yaml::parse(document).map_err(|error| {
                let line = error.line.map(|line| format!("line {line}: ")).unwrap_or_default();
                format!("{}: {line}{}", source.name, error.message)
            })?;
            let contents = objects::contents(&source.name, None, node);
            found.extend(contents.into_iter().map(|content| (source.name.clone(), content)));
        }
    }
    Ok(found)
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
