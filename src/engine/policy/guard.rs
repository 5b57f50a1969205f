//! Whether the branches that a task is for were taken.

use super::{
    super::{graph::Guard, reason},
    trigger::{Outcome, Verdict},
};

/// What all guards of a task say: `barred` is what those come to that are decided (see [`outweigh`]), `open` counts the
/// others. `None`: the task passes.
///
/// A branch that was not taken decides at once, since nothing outweighs it. Whatever else bars the task waits for the other
/// guards: so the order in which decisions end never matters.
pub fn all(barred: Option<Verdict>, open: usize) -> Option<Verdict> {
    match barred {
        Some(Verdict::Skip(reason::BRANCH_NOT_TAKEN)) => barred,
        _ if open > 0 => Some(Verdict::Wait),
        _ => barred,
    }
}

/// What stands when one more guard has decided; `None`: none of them bars the task.
///
/// A branch that was not taken outweighs a decision that was not made: the task is not for this run, whatever the other
/// decision would have come to. And that it was not to be made outweighs that it failed.
pub fn outweigh(known: Option<Verdict>, next: Verdict) -> Option<Verdict> {
    known.into_iter().chain([next]).filter(|verdict| weight(*verdict) > 0).max_by_key(|verdict| weight(*verdict))
}

fn weight(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Skip(reason::BRANCH_NOT_TAKEN) => 3,
        Verdict::Skip(_) => 2,
        Verdict::Omit(_) => 1,
        Verdict::Start | Verdict::Wait => 0,
    }
}

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
