//! What is drawn at random: a graph, and what is done to it when.

use std::sync::Arc;

use proptest::prelude::*;

use super::{
    super::plan::{self, TaskPlan, policy, task},
    jobs::Limits,
};
use crate::{
    api::{ApprovalDecision, DesiredState, FailurePolicy, RerunScope},
    engine::Graph,
};

/// Names of tasks: `t0` to `t5`, and `t6`, `t7` in `finally`.
pub const SLOTS: usize = 8;
pub const FIRST_FINALLY: usize = 6;
/// Milliseconds after which nobody changes anything any more.
pub const CALM: i64 = 300_000;

/// A task, or none, for each name.
pub type Slots = Vec<Option<TaskPlan>>;

/// Something that somebody does, or that goes wrong.
#[derive(Clone, Debug)]
pub enum Act {
    /// Slots that become something else, or nothing.
    Edit(Vec<(usize, Option<TaskPlan>)>),
    /// The items of a slot: how many, and whether each has a Job, with how many at once and how many that may fail.
    Items(usize, Option<usize>, Option<Limits>),
    /// The slot counts where tasks are named.
    Rerun(RerunScope, usize),
    Desired(DesiredState),
    Policy(FailurePolicy),
    Parallelism(Option<u32>),
    /// On a slot and one of its attempts.
    Approval(usize, u32, ApprovalDecision),
    /// Whether the spec is valid.
    Invalid(bool),
    /// Somebody deletes one of the live Jobs with force: which, counted round.
    Lose(usize),
    Crash,
}

#[derive(Clone, Debug)]
pub struct History {
    pub slots: Slots,
    pub policy: FailurePolicy,
    pub parallelism: Option<u32>,
    /// Seconds.
    pub timeout: Option<u64>,
    /// When, in milliseconds, and what.
    pub acts: Vec<(i64, Act)>,
    pub seed: u64,
}

pub fn graph(slots: &[Option<TaskPlan>]) -> Arc<Graph> {
    let slots: Vec<_> = slots.iter().map(Option::as_ref).collect();
    plan::graph(&slots, FIRST_FINALLY)
}

fn act() -> impl Strategy<Value = Act> {
    use DesiredState::*;
    let change = (0..SLOTS, prop::option::weighted(0.7, task()));
    let per_item = prop::option::of((prop::option::of(1..3u32), prop::option::of(0..3u32)));
    let scope = prop::sample::select(vec![RerunScope::Failed, RerunScope::All, RerunScope::Tasks, RerunScope::Tasks]);
    let decision = prop::sample::select(vec![ApprovalDecision::Approved, ApprovalDecision::Rejected]);
    prop_oneof![
        8 => prop::collection::vec(change, 1..4).prop_map(Act::Edit),
        4 => (0..SLOTS, prop::option::weighted(0.8, 0..4usize), per_item)
            .prop_map(|(slot, items, per_item)| Act::Items(slot, items, per_item)),
        4 => (scope, 0..SLOTS).prop_map(|(scope, slot)| Act::Rerun(scope, slot)),
        3 => prop::sample::select(vec![Run, Suspend]).prop_map(Act::Desired),
        1 => Just(Act::Desired(Cancel)),
        1 => policy().prop_map(Act::Policy),
        1 => prop::option::of(1..4u32).prop_map(Act::Parallelism),
        3 => (0..FIRST_FINALLY, 1..4u32, decision).prop_map(|(slot, number, decision)| Act::Approval(slot, number, decision)),
        2 => any::<bool>().prop_map(Act::Invalid),
        2 => (0..SLOTS).prop_map(Act::Lose),
        3 => Just(Act::Crash),
    ]
}

pub fn history() -> impl Strategy<Value = History> {
    let slots = (task(), prop::collection::vec(prop::option::weighted(0.7, task()), SLOTS - 1));
    let acts = prop::collection::vec((0..CALM, act()), 0..12);
    let limits = (prop::option::of(1..4u32), prop_oneof![3 => Just(None), 1 => (20..200u64).prop_map(Some)]);
    (slots, policy(), limits, acts, any::<u64>()).prop_map(
        |((first, rest), policy, (parallelism, timeout), mut acts, seed)| {
            acts.sort_by_key(|(time, _)| *time);
            let slots = [Some(first)].into_iter().chain(rest).collect();
            History { slots, policy, parallelism, timeout, acts, seed }
        },
    )
}
