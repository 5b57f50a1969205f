//! A graph is changed while it runs, or tasks of it are told to start afresh.
//!
//! Both are done on the status: what it tells is carried over to the new graph, task by task ([`carry`], [`rerun`]),
//! and the run is restored from that. So a run that was edited is by construction the one that an operator would have
//! taken up that found the edited status; nothing else has to be kept in step.

pub(super) mod carry;
mod refused;
mod rerun;

use std::sync::Arc;

use jiff::Timestamp;

pub use self::{
    carry::Edited,
    refused::{abandon, call_off},
};
use super::{
    graph::{Graph, Settings, TaskId},
    reason,
    record::MAX_MESSAGE,
    state::{Run, whole_millis},
    validate::Problem,
};
use crate::api::{Ending, EndingReason, Rerun, RerunScope, TaskGraphStatus, TaskPhase, TaskStatus};

/// How many removed tasks a graph remembers: attempt numbers must not be used twice.
pub const MAX_REMOVED: usize = 1000;
/// Of how many tasks a status tells, with those that were removed: more would not fit ([`lean`](super::lean)).
pub const MAX_TOLD: usize = 2400;

impl Run {
    /// Puts `graph` in the place of the one that it ran, task by task by name; tells what that means.
    ///
    /// [`TaskId`](super::TaskId)s are those of the new graph from here on. As after [`Run::restore`], the events about
    /// the Jobs and Pods that exist must be given to the next step, and what is asked for may have been asked for before.
    /// The status must be stored before anything that follows from the edit is begun.
    pub fn edit(&mut self, graph: Arc<Graph>, settings: Settings, now: Timestamp) -> Edited {
        let now = whole_millis(now);
        let mut status = self.told(now);
        let edited = carry::carry(&self.graph, &mut status.tasks, &graph);
        // what it returns is asked for at its end
        let returns = |graph: &Graph| -> Vec<(String, String)> {
            graph.outputs.iter().map(|output| (output.name.clone(), output.value.text().to_owned())).collect()
        };
        if edited.reopens() || returns(&self.graph) != returns(&graph) {
            reopen(&mut status, now);
        }
        self.go_on_from(&status, graph, settings);
        self.record_history(now, reason::EDITED, Some(edited.summary(MAX_MESSAGE)));
        edited
    }

    /// Why the graph must not be replaced by `graph`: each problem with its field path.
    pub fn edit_problems(&self, graph: &Graph) -> Vec<Problem> {
        let removed = self.gone(graph).filter(|id| self.task(*id).attempts > 0).count();
        let most = MAX_REMOVED.min(MAX_TOLD.saturating_sub(graph.first_compensation));
        if removed <= most {
            return Vec::new();
        }
        vec![problem(format!(
            "{removed} tasks with attempts would have been removed from this graph; it remembers at most {most}: make a \
             new graph"
        ))]
    }

    /// Why the graph must not be replaced by `graph` before it has finished: what a task did may have to be undone.
    pub fn edit_waits(&self, graph: &Graph) -> Vec<Problem> {
        let undone = self.gone(graph).filter(|id| self.may_be_compensated(*id));
        undone
            .map(|id| {
                let name = &self.task(id).name;
                problem(format!(
                    "task {name:?} Succeeded and has `compensate`: it cannot be removed before the graph has finished"
                ))
            })
            .collect()
    }

    /// The tasks that `graph` does not have.
    fn gone(&self, graph: &Graph) -> impl Iterator<Item = TaskId> {
        self.graph.told().filter(|id| graph.find(&self.task(*id).name).is_none())
    }

    /// Has tasks started afresh, and tells how many. The rules are those of [`edit`](Self::edit).
    pub fn rerun(&mut self, wanted: &Rerun, now: Timestamp) -> usize {
        let now = whole_millis(now);
        let mut status = self.told(now);
        let chosen = rerun::chosen(&self.graph, &status.tasks, wanted);
        for task in status.tasks.iter_mut().filter(|task| chosen.contains(task.name.as_str())) {
            carry::start_afresh(task);
        }
        if !chosen.is_empty() {
            // a deadline that ran out is one of the failures that a rerun is for; a cancel is for good
            status.ending.take_if(|ending| ending.reason == EndingReason::DeadlineExceeded);
            reopen(&mut status, now);
        }
        status.rerun = Some(wanted.id.clone());
        self.go_on_from(&status, Arc::clone(&self.graph), self.settings.clone());
        let scope = match wanted.scope {
            RerunScope::Failed => "what failed",
            RerunScope::All => "all",
            RerunScope::Tasks => "tasks that were named",
        };
        let message = format!("{}: {scope}, and what depends on it: {} tasks", wanted.id, chosen.len());
        self.record_history(now, reason::RERUN, Some(message));
        chosen.len()
    }

    /// Notes an id of a rerun that is not acted on: the graph began with it.
    pub fn note_rerun(&mut self, id: &str) {
        self.rerun = Some(id.to_owned());
    }

    /// The id of the last rerun that was acted on or noted.
    pub fn last_rerun(&self) -> Option<&str> {
        self.rerun.as_deref()
    }

    /// Whether somebody cancelled the graph: nothing undoes that.
    pub fn is_cancelled(&self) -> bool {
        self.ending.as_ref().is_some_and(Ending::is_cancel)
    }

    /// Starts nothing new while `on_hold`: the spec is not valid now. What runs goes on, and so does a cancel, `finally`
    /// included.
    pub fn set_on_hold(&mut self, on_hold: bool) {
        self.on_hold = on_hold;
    }

    /// Asks for the status to be stored though nothing changed: whoever goes by one that is out of date finds out.
    pub fn affirm(&mut self) {
        self.sequence = self.sequence.saturating_add(1);
        self.must_store();
    }

    fn told(&self, now: Timestamp) -> TaskGraphStatus {
        let mut status = TaskGraphStatus::default();
        self.write(&mut status, now);
        status
    }

    /// Becomes the run that `status` tells of, and that is not stored yet.
    fn go_on_from(&mut self, status: &TaskGraphStatus, graph: Arc<Graph>, settings: Settings) {
        let (stored, on_hold, writers) = (self.stored, self.on_hold, std::mem::take(&mut self.writers));
        *self = Self::restore(graph, settings, self.identity.clone(), status);
        self.stored = stored;
        self.on_hold = on_hold;
        self.writers = writers;
        // whoever goes by an older status must find that it is older
        self.affirm();
    }
}

fn problem(message: String) -> Problem {
    Problem { path: "spec.tasks".to_owned(), message }
}

/// Whatever the graph came to is open again, and its times count anew.
fn reopen(status: &mut TaskGraphStatus, now: Timestamp) {
    if status.completion_time.take().is_some() || status.ending.is_none() {
        status.reopen_time = Some(now);
    }
    status.compensation_time = None;
    status.finally_time = None;
}

impl TaskStatus {
    /// Whether a task in this phase may have a pod.
    pub(super) fn is_under_way(&self) -> bool {
        matches!(self.phase, TaskPhase::Running | TaskPhase::Retrying)
    }
}
