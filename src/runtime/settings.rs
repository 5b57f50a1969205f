//! What may be changed while the operator runs: how much is logged, and which part of graphs is traced.
//!
//! They stand in a file, which the chart mounts from a `ConfigMap`: who may change them is who may change that object. The
//! file is read again every few seconds; what it does not say is as the arguments say. A file that is missing or wrong
//! changes nothing, and is told once.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{telemetry::Levels, traces::Tracer};

/// How often the file is read. The kubelet itself brings a changed `ConfigMap` into a pod within about a minute.
const PERIOD: Duration = Duration::from_secs(5);
/// More than any such file needs.
const MAX_BYTES: u64 = 64 * 1024;

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// As `--log-level`.
    pub log_level: Option<String>,
    /// As `--trace-ratio`.
    pub trace_ratio: Option<f64>,
}

/// Why a file says nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("failed to read {0}: {1}")]
    Read(PathBuf, #[source] io::Error),
    /// It is no such file.
    #[error("{0}: {1}")]
    Parse(PathBuf, String),
}

impl Settings {
    /// What the file at `path` says.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let read = |error| Error::Read(path.to_owned(), error);
        let wrong = |text: &str| Error::Parse(path.to_owned(), text.to_owned());
        if fs::metadata(path).map_err(read)?.len() > MAX_BYTES {
            return Err(wrong("it is larger than 64 KiB"));
        }
        let text = fs::read_to_string(path).map_err(read)?;
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let settings: Self = serde_saphyr::from_str(&text).map_err(|error| wrong(&error.to_string()))?;
        match settings.trace_ratio {
            Some(ratio) if !(0.0..=1.0).contains(&ratio) => Err(wrong("traceRatio: write a number from 0 to 1")),
            _ => Ok(settings),
        }
    }
}

/// Follows a file.
#[derive(Debug)]
pub struct Follower {
    /// Where the file is.
    pub path: PathBuf,
    /// How much is logged.
    pub levels: Levels,
    /// What is traced.
    pub tracer: Tracer,
    /// What holds where the file says nothing.
    pub arguments: Settings,
    /// What it said last.
    pub last: Settings,
}

impl Follower {
    /// Follows it until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut told = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                () = stop.cancelled() => return,
            }
            match self.look() {
                Ok(()) => told = None,
                Err(error) => {
                    if told.as_ref() != Some(&error) {
                        warn!("{error}; what was set before goes on");
                        told = Some(error);
                    }
                }
            }
        }
    }

    /// One look at the file.
    fn look(&mut self) -> Result<(), String> {
        let next = Settings::read(&self.path).map_err(|error| error.to_string())?;
        if next == self.last {
            return Ok(());
        }
        let level = next.log_level.as_ref().or(self.arguments.log_level.as_ref());
        if let Some(level) = level {
            self.levels.set(level).map_err(|error| error.to_string())?;
        }
        let ratio = next.trace_ratio.or(self.arguments.trace_ratio).unwrap_or(1.0);
        self.tracer.set_ratio(ratio);
        info!(log_level = level, trace_ratio = ratio, "settings changed");
        self.last = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.yaml");
        assert!(matches!(Settings::read(&path), Err(Error::Read(..))), "it is missing");
        for (text, expected) in [
            ("", Some((None, None))),
            ("# nothing\n", Some((None, None))),
            ("logLevel: debug\n", Some((Some("debug"), None))),
            ("traceRatio: 0.25\nlogLevel: info,taskgraph=trace\n", Some((Some("info,taskgraph=trace"), Some(0.25)))),
            ("traceRatio: 1\n", Some((None, Some(1.0)))),
            ("traceRatio: 1.5\n", None),
            ("traceRatio: .nan\n", None),
            ("traceRatio: all\n", None),
            ("loglevel: debug\n", None),
            ("- a\n", None),
        ] {
            fs::write(&path, text).unwrap();
            let read = Settings::read(&path).ok();
            let expected =
                expected.map(|(level, ratio)| Settings { log_level: level.map(str::to_owned), trace_ratio: ratio });
            assert_eq!(read, expected, "{text}");
        }
    }

    #[tokio::test]
    async fn a_change_counts_at_once_and_a_mistake_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.yaml");
        let (levels, _layer) = Levels::new("info").unwrap();
        let collector = crate::runtime::traces::Collector::new("http://localhost:1", "", None).unwrap();
        let metrics = crate::runtime::metrics::Metrics::new().0;
        let (tracer, _exporter) = Tracer::new(collector, 1.0, metrics, crate::runtime::health::Health::default());
        let arguments = Settings { log_level: Some("info".into()), trace_ratio: Some(1.0) };
        let last = Settings::default();
        let mut follower =
            Follower { path: path.clone(), levels: levels.clone(), tracer: tracer.clone(), arguments, last };
        let mut after = |text: &str| {
            fs::write(&path, text).unwrap();
            let told = follower.look().is_err();
            (told, levels.current(), tracer.trace("u", None).unwrap().is_sampled())
        };
        let quiet = "async_nats=off";
        assert_eq!(after("logLevel: debug\ntraceRatio: 0\n"), (false, format!("{quiet},debug"), false));
        assert_eq!(after("logLevel: nonsense=loud\n"), (true, format!("{quiet},debug"), false));
        assert_eq!(after("traceRatio: 2\n"), (true, format!("{quiet},debug"), false));
        assert_eq!(after(""), (false, format!("{quiet},info"), true));
    }
}
