//! Random histories: graphs of every kind of task, edited, rerun, suspended, cancelled, approved and given specs that are
//! not valid while attempts fail and Jobs are lost, by an operator that crashes between any two of its acts.
//!
//! A world of its own beside [`cluster`](super::cluster): all is known by the names of tasks, since an edit gives them
//! other ids. [`history`] is what is drawn, [`jobs`] what the cluster does, [`world`] what a user and a controller do, and
//! [`judge`] tells whether what must always hold did hold.

mod history;
mod jobs;
mod judge;
mod world;

use std::sync::Arc;

use proptest::prelude::*;

use self::{
    history::{graph, history},
    world::{World, time},
};
use super::{super::fixture::identity, at_least};
use crate::{api::TaskGraphStatus, engine::Run};

proptest! {
    #![proptest_config(at_least(2_000))]

    /// What must always hold (A to F) holds through edits, reruns and all the rest; `play` panics where it does not.
    #[test]
    fn the_invariants_hold_through_every_history(history in history()) {
        World::new(history).play();
    }
}

proptest! {
    /// An edited run, and the one that is restored from its status, are one and the same.
    #[test]
    fn an_edited_run_is_the_one_that_its_status_tells_of(history in history(), change in history()) {
        let mut world = World::new(history);
        world.history.acts.truncate(3);
        world.play();
        let after = graph(&change.slots);
        world.run.edit(Arc::clone(&after), world.settings.clone(), time(world.now));
        let status = world.told();
        let mut twin = Run::restore(after, world.settings.clone(), identity(), &status);
        let step = (world.run.step([], time(world.now)), twin.step([], time(world.now)));
        prop_assert_eq!(step.0.actions, step.1.actions);
        let mut told = TaskGraphStatus::default();
        twin.write(&mut told, time(world.now));
        prop_assert_eq!(&world.told().tasks, &told.tasks);
        prop_assert_eq!(world.told().completion_time, told.completion_time);
    }
}
