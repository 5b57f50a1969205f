//! Logs. What a line is about (`graph`, `task`, `attempt`) stands in fields, never in the message,
//! so that every line about one graph can be found by its field.

use std::{
    error::Error as StdError,
    io::{self, IsTerminal},
};

use tracing_subscriber::{EnvFilter, Registry, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _};

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
    /// What is logged cannot be changed any more.
    #[error("failed to change what is logged: {0}")]
    Reload(#[from] reload::Error),
    /// Logging was set up already.
    #[error("failed to set up logs: {0}")]
    Init(#[from] tracing_subscriber::util::TryInitError),
}

/// What is logged, to be changed while the program runs. Clones share it.
#[derive(Clone, Debug)]
pub struct Levels(reload::Handle<EnvFilter, Registry>);

impl Levels {
    /// Begins with `filter`; the layer is to be put on the registry.
    pub fn new(filter: &str) -> Result<(Self, reload::Layer<EnvFilter, Registry>), Error> {
        let (layer, handle) = reload::Layer::new(parse(filter)?);
        Ok((Self(handle), layer))
    }

    /// Logs what `filter` lets through, from now on.
    pub fn set(&self, filter: &str) -> Result<(), Error> {
        Ok(self.0.reload(parse(filter)?)?)
    }

    /// The filter, as it is understood.
    pub fn current(&self) -> String {
        self.0.with_current(ToString::to_string).unwrap_or_default()
    }
}

fn parse(filter: &str) -> Result<EnvFilter, Error> {
    let parsed =
        EnvFilter::builder().parse(filter).map_err(|source| Error::Filter { filter: filter.to_owned(), source })?;
    Ok(quiet(parsed, filter))
}

/// Writes logs to standard error from now on, in `format`, as far as `filter` lets them through.
/// Panics are logged too, so that they are found where everything else is.
pub fn init(format: LogFormat, filter: &str) -> Result<Levels, Error> {
    let (levels, layer) = Levels::new(filter)?;
    let registry = tracing_subscriber::registry().with(layer);
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
    Ok(levels)
}

/// A library that tells in the log what comes back to the caller, too, who knows what it means and tells it once: NATS'
/// client would tell of each try, every few seconds, while its server is away.
const QUIET: &str = "async_nats";

/// Turns [`QUIET`] off, unless `filter` speaks of it.
fn quiet(parsed: EnvFilter, filter: &str) -> EnvFilter {
    match format!("{QUIET}=off").parse() {
        Ok(off) if !filter.contains(QUIET) => parsed.add_directive(off),
        // a constant that parses; a test would notice
        _ => parsed,
    }
}

/// An error with all its causes: libraries such as hyper say only `client error (Connect)` and
/// leave the reason to the cause.
pub fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // some errors repeat their cause in their own text
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    #[test]
    fn causes_are_told_once() {
        let inner = Layer { text: "connection refused", source: None };
        let middle = Layer { text: "client error", source: Some(Box::new(inner)) };
        let outer = Layer { text: "failed to read: client error", source: Some(Box::new(middle)) };
        assert_eq!(chain(&outer), "failed to read: client error: connection refused");
    }

    #[test]
    fn a_client_is_quiet_unless_asked() {
        let filter = |text: &str| quiet(EnvFilter::new(text), text).to_string();
        assert_eq!(filter("info"), "async_nats=off,info");
        assert_eq!(filter("info,kube_client=debug"), "kube_client=debug,async_nats=off,info");
        assert_eq!(filter("async_nats=debug"), "async_nats=debug");
    }

    #[test]
    fn a_bad_filter_is_told() {
        let error = init(LogFormat::Json, "taskgraph=loud").unwrap_err().to_string();
        assert!(error.starts_with("--log-level \"taskgraph=loud\": "), "{error}");
    }
}
