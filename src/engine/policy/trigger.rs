//! When the outcomes of a task's dependencies let it start.

use super::super::{graph::TriggerRule, reason};
use crate::api::TaskPhase;

/// How a dependency ended, as triggers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Well.
    Succeeded,
    /// Failed, with `allowFailure`: a success to all but `AnyFailed`.
    FailedAllowed,
    /// Failed.
    Failed,
    /// Called off while it ran.
    Cancelled,
    /// Not run, by choice.
    Skipped,
    /// Not run, because of a failure.
    Omitted,
}

impl Outcome {
    /// The outcome of a task in `phase`; `None` while it is not final.
    pub fn of(phase: TaskPhase, allow_failure: bool) -> Option<Self> {
        match phase {
            TaskPhase::Succeeded => Some(Self::Succeeded),
            TaskPhase::Failed if allow_failure => Some(Self::FailedAllowed),
            TaskPhase::Failed => Some(Self::Failed),
            TaskPhase::Cancelled => Some(Self::Cancelled),
            TaskPhase::Skipped => Some(Self::Skipped),
            TaskPhase::Omitted => Some(Self::Omitted),
            TaskPhase::Pending | TaskPhase::Ready | TaskPhase::Running | TaskPhase::Waiting | TaskPhase::Retrying => {
                None
            }
        }
    }
}

/// The dependencies of one task, counted by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Not final yet.
    pub open: u32,
    /// Succeeded, or Failed with `allowFailure`.
    pub succeeded: u32,
    /// Of `succeeded`, those that Failed with `allowFailure`.
    pub allowed: u32,
    /// Failed without `allowFailure`.
    pub failed: u32,
    /// Cancelled.
    pub cancelled: u32,
    /// Skipped.
    pub skipped: u32,
    /// Omitted.
    pub omitted: u32,
}

impl Tally {
    /// Of `dependencies` dependencies, none of them final.
    pub fn new(dependencies: usize) -> Self {
        Self { open: u32::try_from(dependencies).unwrap_or(u32::MAX), ..Self::default() }
    }

    /// Counts one more that is final.
    pub fn count(&mut self, outcome: Outcome) {
        self.open = self.open.saturating_sub(1);
        match outcome {
            Outcome::Succeeded => self.succeeded += 1,
            Outcome::FailedAllowed => {
                self.succeeded += 1;
                self.allowed += 1;
            }
            Outcome::Failed => self.failed += 1,
            Outcome::Cancelled => self.cancelled += 1,
            Outcome::Skipped => self.skipped += 1,
            Outcome::Omitted => self.omitted += 1,
        }
    }

    /// Whether a failure is among them.
    fn has_failure(&self) -> bool {
        self.failed + self.cancelled + self.omitted > 0
    }
}

/// What a trigger, or a guard, says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not decided yet.
    Wait,
    /// The task may start.
    Start,
    /// It will never start, by choice; the reason.
    Skip(&'static str),
    /// It will never start, because of a failure; the reason.
    Omit(&'static str),
}

/// What `rule` says of the dependencies counted in `tally`.
///
/// A trigger that cannot hold makes the task Omitted if a failure among the dependencies is to blame, else Skipped. What is
/// decided before all dependencies are final is what would be decided then: the order in which they end never matters.
pub fn decide(rule: TriggerRule, tally: &Tally) -> Verdict {
    let (decided, holds) = match rule {
        TriggerRule::NoneFailed => (tally.open == 0, !tally.has_failure() && tally.succeeded > 0),
        TriggerRule::AllSucceeded => (tally.open == 0, !tally.has_failure() && tally.skipped == 0),
        TriggerRule::AllFinished => (tally.open == 0, true),
        TriggerRule::AnyFailed => (tally.open == 0, tally.failed + tally.allowed + tally.omitted > 0),
        TriggerRule::MinSucceeded(least) => {
            let holds = tally.succeeded >= least;
            let cannot_hold = tally.succeeded.saturating_add(tally.open) < least;
            // while nothing failed, something still may: then it is Omitted, else Skipped
            (holds || tally.open == 0 || (cannot_hold && tally.has_failure()), holds)
        }
    };
    match (decided, holds) {
        (false, _) => Verdict::Wait,
        (true, true) => Verdict::Start,
        (true, false) if tally.has_failure() => Verdict::Omit(reason::DEPENDENCY_FAILED),
        (true, false) if rule == TriggerRule::AnyFailed => Verdict::Skip(reason::NOTHING_FAILED),
        (true, false) => Verdict::Skip(reason::DEPENDENCY_SKIPPED),
    }
}
