//! What an attempt is launched with; and how far the items of one with `forEach` are.

use std::sync::Arc;

use serde_json::Value;

use super::{
    edit::carry,
    event::{Attempt, Launch},
    expr::{EvalError, Scope},
    graph::TaskId,
    policy::items,
    reason,
    record::Round,
    state::Run,
};
use crate::api::{ItemsStatus, TaskPhase};

/// What there is to launch.
pub(super) enum Launchable {
    /// A Job, or a child graph.
    Job(Launch),
    /// A Job, or a child graph, for each of these.
    Items(Arc<[Value]>),
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
        if let Some(list) = items.as_ref().filter(|_| task.is_per_item()) {
            return Ok(Launchable::Items(Arc::clone(list)));
        }
        let Some(rendered) = task.work.render(&scope) else { return Ok(Launchable::Nothing) };
        Ok(Launchable::Job(Launch { attempt, rendered: rendered?, items }))
    }

    /// Begins an attempt with a Job or child graph for each of these; not if one of them cannot be made.
    pub(super) fn launch_each(
        &mut self,
        attempt: Attempt,
        list: Arc<[Value]>,
        round: &mut Round,
    ) -> Result<(), EvalError> {
        // before any runs; they are evaluated again each in its turn, and come out the same
        for index in (0..).take(list.len()) {
            self.render_item(attempt, index, &list)?;
        }
        self.begin_items(attempt, list, round);
        Ok(())
    }

    /// Skips a task of which the list is empty. An edit may have emptied it after attempts that failed: those count as
    /// ones of before, so that the task has begun nothing, and a further edit decides it again.
    pub(super) fn skip_without_items(&mut self, id: TaskId, round: &mut Round) {
        let status = &mut self.tasks[id.index()].status;
        let phase = status.phase;
        carry::reset(status);
        // `enter` counts from there
        status.phase = phase;
        self.enter(id, TaskPhase::Skipped, Some(reason::NO_ITEMS), None, round);
        self.must_store();
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
