//! What is written into the Lease, and when.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::{api::coordination::v1::LeaseSpec, apimachinery::pkg::apis::meta::v1::MicroTime};

use super::Config;

/// What to do about the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nobody holds it: write our name.
    Acquire,
    /// We hold it: renew.
    Renew,
    /// Another holds it, for so long at most if it is not renewed.
    Wait(Duration),
}

/// `observed_at` is when the record was first seen as it is now.
pub fn decide(record: Option<&LeaseSpec>, observed_at: Instant, now: Instant, me: &str) -> Decision {
    let Some(record) = record else { return Decision::Acquire };
    match record.holder_identity.as_deref() {
        None | Some("") => Decision::Acquire,
        Some(holder) if holder == me => Decision::Renew,
        Some(_) => {
            let seconds = record.lease_duration_seconds.unwrap_or_default();
            let stands = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
            match stands.saturating_sub(now.saturating_duration_since(observed_at)) {
                Duration::ZERO => Decision::Acquire,
                rest => Decision::Wait(rest),
            }
        }
    }
}

/// The record that we write next.
pub fn record(previous: Option<&LeaseSpec>, decision: Decision, config: &Config, now: Timestamp) -> LeaseSpec {
    let mut next = previous.cloned().unwrap_or_default();
    if decision != Decision::Renew {
        // counts changes of the holder, so not the first
        next.lease_transitions =
            Some(previous.map_or(0, |previous| previous.lease_transitions.unwrap_or_default().saturating_add(1)));
        next.acquire_time = Some(MicroTime(now));
    }
    next.holder_identity = Some(config.identity.clone());
    next.lease_duration_seconds = Some(i32::try_from(config.duration.as_secs()).unwrap_or(i32::MAX).max(1));
    next.renew_time = Some(MicroTime(now));
    next
}
