//! What of a graph is called off: by the failure policy, by cancel, by a deadline.

use super::super::reason;
use crate::api::{EndingReason, FailurePolicy, TaskPhase};

/// How far a task got: all that decides what calling it off means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its phase.
    pub phase: TaskPhase,
    /// Whether it has an attempt.
    pub begun: bool,
    /// What it belongs to.
    pub part: Part,
    /// Whether it is a failure handler.
    pub handler: bool,
}

/// The parts of a graph that are called off each for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `tasks`
    Tasks,
    /// What undoes them.
    Compensations,
    /// `finally`
    Finally,
}

/// What the graph as a whole is called off by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Causes {
    /// What ended the graph before its tasks were done.
    pub ending: Option<EndingReason>,
    /// `compensationTimeout` ran out.
    pub compensation_over: bool,
    /// `finallyTimeout` ran out.
    pub finally_over: bool,
    /// The failure policy, if a task has failed that is not of `finally`.
    pub failure: Option<FailurePolicy>,
}

/// What becomes of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOff {
    /// Nothing: it goes on.
    No,
    /// It is Omitted, for this reason.
    Omit(&'static str),
    /// Its attempt is stopped, and it is Cancelled, for this reason.
    Cancel(&'static str),
}

/// The word for what ended a graph.
pub fn ending_reason(ending: EndingReason) -> &'static str {
    match ending {
        EndingReason::Cancelled => reason::CANCELLED,
        EndingReason::DeadlineExceeded => reason::DEADLINE_EXCEEDED,
    }
}

/// What becomes of a task. An ending takes all of `tasks`, and neither compensations nor `finally`; the failure
/// policy spares handlers.
pub fn decide(causes: Causes, task: Standing) -> CallOff {
    if task.phase.is_final() {
        return CallOff::No;
    }
    let off = |reason| if task.begun { CallOff::Cancel(reason) } else { CallOff::Omit(reason) };
    let over = match task.part {
        Part::Tasks => None,
        Part::Compensations => Some(causes.compensation_over),
        Part::Finally => Some(causes.finally_over),
    };
    if let Some(over) = over {
        return if over { off(reason::DEADLINE_EXCEEDED) } else { CallOff::No };
    }
    match (causes.ending, causes.failure) {
        (Some(ending), _) => off(ending_reason(ending)),
        (None, None | Some(FailurePolicy::FinishBranches)) => CallOff::No,
        (None, Some(_)) if task.handler => CallOff::No,
        (None, Some(FailurePolicy::StopLaunching)) if task.begun => CallOff::No,
        (None, Some(FailurePolicy::StopLaunching | FailurePolicy::CancelRunning)) => off(reason::FAILURE_POLICY),
    }
}
