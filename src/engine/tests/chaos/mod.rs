//! Random graphs in random worlds: attempts fail, block, are lost and stopped; events come late, twice and out of order;
//! settings change; the operator crashes between any two of its acts and goes on from what it had stored.
//!
//! [`cluster`] is what the API server and the nodes would do. [`oracle`] judges what is done there by the rules alone.
//! [`operator`] does what a controller does with a run. [`histories`] is a world of its own, in which graphs are edited.

mod cluster;
mod histories;
mod operator;
mod oracle;
mod plan;

use proptest::prelude::*;

use self::{
    operator::{Chaos, Outcome, operate},
    plan::{Plan, TaskPlan, plan},
};
use crate::api::FailurePolicy;

/// So many cases, or as many as the environment variable `PROPTEST_CASES` says.
fn at_least(cases: u32) -> ProptestConfig {
    let config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_some() { config } else { ProptestConfig { cases, ..config } }
}

/// A run in which nothing goes wrong beside the attempts themselves.
fn calm(plan: &Plan) -> Outcome {
    operate(plan, &Chaos { crashes: 0, noise: false, restart_each_step: false })
}

proptest! {
    #![proptest_config(ProptestConfig::default())]

    /// What must always hold (design: A to E) holds; `operate` panics where it does not.
    #[test]
    fn the_invariants_hold_whatever_happens(plan in plan()) {
        operate(&plan, &Chaos { crashes: 6, noise: true, restart_each_step: false });
    }

    /// A restart from the status of that moment changes nothing at all.
    #[test]
    fn a_restart_after_every_step_changes_nothing(plan in plan()) {
        let (through, restarted) = (calm(&plan), operate(&plan, &Chaos { crashes: 0, noise: false, restart_each_step: true }));
        prop_assert_eq!(through.tasks, restarted.tasks);
        prop_assert_eq!(through.phase, restarted.phase);
    }

    /// Where no rule looks at the order of events, crashes and noise change no phase and no output.
    #[test]
    fn crashes_and_noise_change_no_result_that_does_not_hang_on_time(mut plan in plan()) {
        plan.policy = FailurePolicy::FinishBranches;
        plan.changes.clear();
        plan.timeout = None;
        plan.lossy = false;
        plan.tasks.iter_mut().for_each(TaskPlan::stop_no_items);
        let noisy = operate(&plan, &Chaos { crashes: 6, noise: true, restart_each_step: false });
        let calm = calm(&plan);
        prop_assert_eq!(calm.results(), noisy.results());
    }

    /// The same input gives the same actions.
    #[test]
    fn runs_are_determinate(plan in plan()) {
        let chaos = Chaos { crashes: 3, noise: true, restart_each_step: false };
        prop_assert_eq!(operate(&plan, &chaos).log, operate(&plan, &chaos).log);
    }
}
