//! What a task waits for, and what ends the wait: a time for a `delay`, somebody's decision for an `approval`.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;

use super::super::{
    cron::Cron,
    event::{Blame, Failure},
    reason,
    state::{later, whole_millis},
};
use crate::api::{Approval, ApprovalDecision, Duration, OnTimeout};

/// The time that a delay waits for.
#[derive(Clone, Debug)]
pub enum Delay {
    /// So long after the task became Ready.
    For(Duration),
    /// A time, whether it has passed or not.
    Until(Timestamp),
    /// The next firing after the task became Ready.
    Cron(Box<Cron>),
}

impl Delay {
    /// When the delay of a task ends that became Ready at `ready`.
    pub fn end(&self, ready: Timestamp) -> Timestamp {
        match self {
            Self::For(duration) => later(ready, *duration),
            Self::Until(time) => whole_millis(*time),
            // validation refuses what never fires: this is the end of time
            Self::Cron(cron) => cron.after(ready).unwrap_or(Timestamp::MAX),
        }
    }
}

/// What was decided, by task and attempt.
pub type Approvals = BTreeMap<Arc<str>, BTreeMap<u32, Approval>>;

/// The approvals of a spec. Of two for one attempt, which the API server refuses, the first counts.
pub fn approvals(list: &[Approval]) -> Approvals {
    let mut approvals = Approvals::new();
    for approval in list {
        let of_task = approvals.entry(Arc::from(approval.task.as_str())).or_default();
        of_task.entry(approval.attempt).or_insert_with(|| approval.clone());
    }
    approvals
}

/// How the attempt of an approval ended: the reason and message of a success, or a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// A word for programs: what the history calls it.
    pub event: &'static str,
    /// How.
    pub result: Result<(&'static str, String), Failure>,
}

/// What somebody's decision makes of the attempt.
pub fn decided(approval: &Approval) -> Ended {
    let message = match approval.message.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => format!("by {}: {text}", approval.by),
        None => format!("by {}", approval.by),
    };
    match approval.decision {
        ApprovalDecision::Approved => Ended { event: reason::APPROVED, result: Ok((reason::APPROVED, message)) },
        ApprovalDecision::Rejected => {
            Ended { event: reason::REJECTED, result: Err(failure(reason::REJECTED, message)) }
        }
    }
}

/// What it makes of the attempt that nobody decided within `timeout`.
pub fn timed_out(on_timeout: OnTimeout, timeout: Option<Duration>) -> Ended {
    let message = timeout.map_or_else(|| "nobody decided in time".to_owned(), |t| format!("nobody decided within {t}"));
    let result = match on_timeout {
        OnTimeout::Approve => Ok((reason::APPROVAL_TIMEOUT, message)),
        OnTimeout::Reject => Err(failure(reason::REJECTED, message)),
        OnTimeout::Fail => Err(failure(reason::APPROVAL_TIMEOUT, message)),
    };
    Ended { event: reason::APPROVAL_TIMEOUT, result }
}

fn failure(reason: &str, message: String) -> Failure {
    Failure { reason: reason.to_owned(), message: Some(message), exit_code: None, blame: Blame::Task }
}
