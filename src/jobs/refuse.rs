//! Why a Job was not created, or its Job controller could not create its pod.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event as ClusterEvent;

use crate::engine::{Attempt, AttemptResult, Blame, Event, Failure};

/// What a refusal means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A Job of this name exists: ours or not (see [`Order::is_ours`](super::Order::is_ours)).
    AlreadyExists,
    /// Not now: it may be accepted later without a change of the graph.
    Blocked {
        /// A word for programs, as `QuotaExceeded`.
        reason: &'static str,
        /// What the cluster said.
        message: String,
        /// Whether the cluster is to blame rather than the task.
        cluster: bool,
    },
    /// Never, as things are: the same request gets the same answer.
    Final(Failure),
    /// The API server could not answer, or not in time; nothing is known. Try again soon.
    Transient(String),
}

impl Refused {
    /// What the engine is told of it, if anything.
    pub fn event(self, attempt: Attempt, time: Timestamp) -> Option<Event> {
        match self {
            Self::Blocked { reason, message, cluster } => {
                Some(Event::Blocked { attempt, reason: reason.to_owned(), message, cluster })
            }
            Self::Final(failure) => Some(Event::Finished { attempt, result: AttemptResult::Failed(failure), time }),
            Self::AlreadyExists | Self::Transient(_) => None,
        }
    }
}

fn blocked(reason: &'static str, message: &str, cluster: bool) -> Refused {
    Refused::Blocked { reason, message: message.to_owned(), cluster }
}

fn never(reason: &str, message: &str) -> Refused {
    let message = Some(message.to_owned());
    Refused::Final(Failure { reason: reason.to_owned(), message, exit_code: None, blame: Blame::Final })
}

/// What the API server's refusal to create a Job means: `code`, `reason` and `message` of its `Status`.
pub fn refusal(code: u16, reason: &str, message: &str) -> Refused {
    match code {
        409 if reason == "AlreadyExists" => Refused::AlreadyExists,
        // too large; not decodable or, under strict validation, with unknown fields; not valid
        400 | 413 | 422 => never("JobRefused", message),
        403 if message.contains("exceeded quota") => blocked("QuotaExceeded", message, true),
        // "unable to create new content in namespace ... because it is being terminated"
        403 if message.contains("is being terminated") => blocked("NamespaceTerminating", message, true),
        // an admission webhook or policy, or missing rights of the operator: both can be mended in the cluster
        403 => blocked("JobForbidden", message, true),
        404 => blocked("NamespaceNotFound", message, true),
        // of Jobs somebody else's, of child graphs our own: what does not answer is mended by people, in their time
        500 if message.contains("failed calling webhook") => blocked("WebhookFailed", message, true),
        _ => Refused::Transient(message.to_owned()),
    }
}

/// Why a Job has no pod, by the newest of its events that says so.
///
/// A [`Refused::Final`] leaves behind a Job whose controller goes on trying: whoever records the
/// failure must delete that Job.
pub fn blocked_by_events(events: &[ClusterEvent]) -> Option<Refused> {
    let newest = events
        .iter()
        .filter(|event| event.reason.as_deref() == Some("FailedCreate"))
        .max_by_key(|event| (last_seen(event), &event.metadata.name))?;
    let message = newest.message.as_deref().unwrap_or_default();
    let says = |text: &str| message.contains(text);
    let limits = ["maximum ", "minimum "].iter().any(|bound| says(bound)) && says("usage per");
    let ratio = says("max limit to request ratio");
    Some(if says("exceeded quota") {
        blocked("QuotaExceeded", message, true)
    } else if says("violates PodSecurity") {
        never("PodSecurity", message)
    } else if limits || ratio || says("failed quota") || says("is invalid:") || says("no PriorityClass with name") {
        // a LimitRange, a quota on resources that the pod does not name, or fields that do not fit together
        never("PodRefused", message)
    } else {
        blocked("FailedCreate", message, true)
    })
}

fn last_seen(event: &ClusterEvent) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    let first = event.event_time.as_ref().map(|time| time.0);
    series.max(last).max(first)
}

#[cfg(test)]
mod tests;
