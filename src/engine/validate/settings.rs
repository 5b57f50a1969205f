//! Durations, retries and the settings of a graph.

use std::{fmt::Display, sync::Arc};

use super::problems::Problems;
use crate::{
    api::{Backoff, Duration, DurationText, Retry, TaskGraphSpec},
    engine::{graph::Settings, policy::waiting::approvals},
};

/// How long all compensations may take, where the graph does not say.
const COMPENSATION_TIMEOUT: Duration = Duration::from_secs(3600);
/// How long all of `finally` may take, where the graph does not say.
const FINALLY_TIMEOUT: Duration = Duration::from_secs(3600);
const INITIAL_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(300);
const BACKOFF_FACTOR: f64 = 2.0;
const MAX_RETRIES: u32 = 100;
const MAX_PRIORITY: u8 = 10;
const DEFAULT_PRIORITY: u8 = 5;
const MAX_PARALLELISM: u32 = 2000;

/// What of a spec may change while the graph runs.
pub fn settings(spec: &TaskGraphSpec, problems: &mut Problems) -> Settings {
    if let Some(parallelism) = spec.parallelism.filter(|parallelism| !(1..=MAX_PARALLELISM).contains(parallelism)) {
        problems.add(
            "spec.parallelism",
            format!("{parallelism} is out of range: write 1 to {MAX_PARALLELISM}, or leave it out for no limit"),
        );
    }
    Settings {
        desired_state: spec.desired_state.unwrap_or_default(),
        parallelism: spec.parallelism,
        failure_policy: spec.failure_policy.unwrap_or_default(),
        timeout: duration(spec.timeout.as_ref(), "spec.timeout", problems),
        compensation_timeout: duration(spec.compensation_timeout.as_ref(), "spec.compensationTimeout", problems)
            .unwrap_or(COMPENSATION_TIMEOUT),
        finally_timeout: duration(spec.finally_timeout.as_ref(), "spec.finallyTimeout", problems)
            .unwrap_or(FINALLY_TIMEOUT),
        approvals: Arc::new(approvals(&spec.approvals)),
        ttl_after_finished: duration(spec.ttl_after_finished.as_ref(), "spec.ttlAfterFinished", problems),
    }
}

/// The duration that a text means; a problem at `path` if it means none.
pub fn duration(text: Option<&DurationText>, path: impl Display, problems: &mut Problems) -> Option<Duration> {
    match text?.parse() {
        Ok(duration) => Some(duration),
        Err(error) => {
            problems.add(path, error.to_string());
            None
        }
    }
}

/// The priority of a task, with its default.
pub fn priority(priority: Option<u8>, path: impl Display, problems: &mut Problems) -> u8 {
    match priority {
        Some(priority) if priority > MAX_PRIORITY => {
            problems.add(path, format!("{priority} is out of range: write 0 (last) to {MAX_PRIORITY} (first)"));
            DEFAULT_PRIORITY
        }
        priority => priority.unwrap_or(DEFAULT_PRIORITY),
    }
}

/// The numbers of a [`RetryRule`](crate::engine::graph::RetryRule).
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    pub limit: u32,
    pub initial: Duration,
    pub factor: f64,
    pub max: Duration,
}

/// The numbers of `retry`, defaults filled in. A default never contradicts what is written.
pub fn waits(retry: Option<&Retry>, path: impl Display, problems: &mut Problems) -> Waits {
    let Some(retry) = retry else {
        return Waits { limit: 0, initial: INITIAL_BACKOFF, factor: BACKOFF_FACTOR, max: MAX_BACKOFF };
    };
    if retry.limit > MAX_RETRIES {
        problems.add(format!("{path}.limit"), format!("{} is out of range: write 0 to {MAX_RETRIES}", retry.limit));
    }
    let none = Backoff::default();
    let backoff = retry.backoff.as_ref().unwrap_or(&none);
    let initial = duration(backoff.initial.as_ref(), format_args!("{path}.backoff.initial"), problems);
    let max = duration(backoff.max.as_ref(), format_args!("{path}.backoff.max"), problems);
    if let (Some(initial), Some(max)) = (initial, max)
        && max < initial
    {
        problems.add(format!("{path}.backoff.max"), format!("{max} is less than the initial wait of {initial}"));
    }
    let factor = backoff.factor.unwrap_or(BACKOFF_FACTOR);
    // also false for what is no number
    if !(1.0..=10.0).contains(&factor) {
        problems.add(format!("{path}.backoff.factor"), format!("{factor} is out of range: write 1 to 10"));
    }
    let (initial, max) = match (initial, max) {
        (Some(initial), Some(max)) => (initial, max),
        (Some(initial), None) => (initial, MAX_BACKOFF.max(initial)),
        (None, Some(max)) => (INITIAL_BACKOFF.min(max), max),
        (None, None) => (INITIAL_BACKOFF, MAX_BACKOFF),
    };
    Waits { limit: retry.limit, initial, factor, max }
}
