//! Whether the branches that a task is for were taken.

use super::{
    super::{graph::Guard, reason},
    trigger::{Outcome, Verdict},
};

/// What `guard` says, its decision having ended as `outcome` (`None`: not yet) and having taken the branches `taken`.
///
/// A decision that was itself Skipped skips what it guards, and one that failed omits it: a failure is not laundered.
pub fn decide<'a>(guard: &Guard, outcome: Option<Outcome>, mut taken: impl Iterator<Item = &'a str>) -> Verdict {
    match outcome {
        None => Verdict::Wait,
        Some(Outcome::Succeeded) if taken.any(|taken| guard.branches.iter().any(|name| &**name == taken)) => {
            Verdict::Start
        }
        Some(Outcome::Succeeded | Outcome::FailedAllowed) => Verdict::Skip(reason::BRANCH_NOT_TAKEN),
        Some(Outcome::Skipped) => Verdict::Skip(reason::DEPENDENCY_SKIPPED),
        Some(Outcome::Failed | Outcome::Cancelled | Outcome::Omitted) => Verdict::Omit(reason::DEPENDENCY_FAILED),
    }
}
