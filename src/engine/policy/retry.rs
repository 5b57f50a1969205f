//! Whether and when a failed attempt is tried again.

use xxhash_rust::xxh3::Xxh3;

use super::super::{event::Blame, graph::RetryRule};
use crate::api::Duration;

/// How many attempts of one task the cluster may fail without using up `retry.limit`.
pub const MAX_DISRUPTIONS: u32 = 20;

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another attempt that counts against `limit`, if `retry.when` holds too.
    Retry,
    /// Another attempt that counts as a disruption.
    RetryDisrupted,
    /// None.
    Fail,
}

/// What follows attempt number `attempt`, which failed by `blame` after `disruptions` earlier ones that the cluster failed.
pub fn next(blame: Blame, attempt: u32, disruptions: u32, limit: u32) -> Next {
    match blame {
        Blame::Cluster if disruptions < MAX_DISRUPTIONS => Next::RetryDisrupted,
        // of the earlier attempts, each that was no disruption has used up one retry
        Blame::Task if attempt.saturating_sub(1).saturating_sub(disruptions) < limit => Next::Retry,
        Blame::Task | Blame::Cluster | Blame::Final => Next::Fail,
    }
}

/// How long to wait after attempt number `attempt` failed: `initial · factor^(attempt - 1)`, at most `max`, give or
/// take up to 10 %.
///
/// The jitter is a hash of the graph's UID, the task and the attempt: spread out over tasks, the same each time.
pub fn wait(rule: &RetryRule, uid: &str, task: &str, attempt: u32) -> Duration {
    let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
    let longest = precise(rule.max.millis());
    let plain = precise(rule.initial.millis()) * rule.factor.powi(exponent);
    // a factor that is no number cannot pass validation, but must not panic either: `min` drops it
    let capped = plain.min(longest).max(1.0);
    let millis = (capped * (0.9 + 0.2 * fraction(uid, task, attempt))).round();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "above zero, and bounded by a Duration"
    )]
    Duration::from_millis((millis as u64).max(1))
}

/// A number from 0 to 1, evenly spread.
fn fraction(uid: &str, task: &str, attempt: u32) -> f64 {
    let mut hash = Xxh3::new();
    for part in [uid.as_bytes(), &[0], task.as_bytes(), &[0], &attempt.to_le_bytes()] {
        hash.update(part);
    }
    precise(hash.digest() >> 12) / precise(u64::MAX >> 12)
}

/// The number as a float; exact below 2^53, as all durations are.
#[expect(clippy::cast_precision_loss, reason = "durations are below 2^53 ms, and the hash is cut to 52 bits")]
fn precise(number: u64) -> f64 {
    number as f64
}
