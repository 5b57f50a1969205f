//! Logs. What a line is about (`graph`, `task`, `attempt`) stands in fields, never in the message,
//! so that every line about one graph can be found by its field.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use super::args::LogFormat;

mod json;

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter does not parse.
    #[error(
        "--log-level {filter:?}: {source}; write a level (error, warn, info, debug, trace) or MODULE=LEVEL, separated by commas"
    )]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Logging was set up already.
    #[error("failed to set up logs: {0}")]
    Init(#[from] tracing_subscriber::util::TryInitError),
}

/// Writes logs to standard error from now on, in `format`, as far as `filter` lets them through.
/// Panics are logged too, so that they are found where everything else is.
pub fn init(format: LogFormat, filter: &str) -> Result<(), Error> {
    let parsed =
        EnvFilter::builder().parse(filter).map_err(|source| Error::Filter { filter: filter.to_owned(), source })?;
    let registry = tracing_subscriber::registry().with(parsed);
    match format {
        LogFormat::Human => {
            let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
            registry.with(lines).try_init()?;
        }
        LogFormat::Json => registry.with(json::Lines::new(io::stderr)).try_init()?,
    }
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let message = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(target: "panic", place, panic = message, "a part of the operator panicked");
    }));
    Ok(())
}
