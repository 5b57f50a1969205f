//! When what a task did is undone.

use super::{
    super::reason,
    trigger::{Tally, Verdict},
};
use crate::api::TaskPhase;

/// What becomes of a compensation: `begun`, whether the graph compensates; `before`, the compensations that come first;
/// `undone`, the phase of its task.
///
/// One that has nothing to undo waits for its turn, too: those behind it wait for no other.
pub fn decide(begun: bool, before: &Tally, undone: TaskPhase) -> Verdict {
    if !begun || before.open > 0 {
        Verdict::Wait
    } else if undone == TaskPhase::Succeeded {
        Verdict::Start
    } else {
        Verdict::Skip(reason::NOTHING_TO_COMPENSATE)
    }
}
