//! What an attempt is launched with; and how far the items of one with `forEach` are.

use super::{
    event::{Attempt, Launch},
    expr::{EvalError, Scope},
    graph::TaskId,
    policy::items,
    record::Round,
    state::Run,
};
use crate::api::ItemsStatus;

/// What there is to launch.
pub(super) enum Launchable {
    /// A Job, or a child graph.
    Job(Launch),
    /// The list of `forEach` is empty.
    NoItems,
    /// The task has neither.
    Nothing,
}

impl Run {
    /// An attempt with all its expressions evaluated. The same attempt always comes out the same: expressions see only
    /// what is final.
    pub(super) fn launchable(&self, attempt: Attempt) -> Result<Launchable, EvalError> {
        let task = self.graph.task(attempt.task);
        if !self.has_job(attempt.task) {
            return Ok(Launchable::Nothing);
        }
        let scope = Scope { attempt: Some(attempt.number), ..self.scope() };
        let items = task.for_each.as_ref().map(|rule| items::list(rule, &scope)).transpose()?;
        if items.as_ref().is_some_and(|items| items.is_empty()) {
            return Ok(Launchable::NoItems);
        }
        let Some(rendered) = task.work.render(&scope) else { return Ok(Launchable::Nothing) };
        Ok(Launchable::Job(Launch { attempt, rendered: rendered?, items }))
    }

    /// Notes how many items there are, none of which has begun.
    pub(super) fn expect_items(&mut self, launch: &Launch) {
        let total = launch.items.as_ref().map(|items| u32::try_from(items.len()).unwrap_or(u32::MAX));
        self.tasks[launch.attempt.task.index()].status.items =
            total.map(|total| ItemsStatus { total, ..ItemsStatus::default() });
    }

    pub(super) fn on_items(&mut self, id: TaskId, items: ItemsStatus, round: &mut Round) {
        let status = &mut self.tasks[id.index()].status;
        if status.items.as_ref() != Some(&items) {
            status.items = Some(items);
            round.changed = true;
        }
    }
}
