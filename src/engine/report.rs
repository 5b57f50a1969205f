//! What a run tells: its status, and why things are as they are.

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::Map;

use super::{
    compensation,
    graph::TaskId,
    policy::{calloff, outputs, returns, trigger::Outcome},
    reason,
    record::Round,
    state::{Run, whole_millis},
};
use crate::api::{
    CONDITION_COMPLETE, CONDITION_FAILED, CONDITION_SUSPENDED, Condition, GraphPhase, TaskGraphStatus, TaskPhase,
    TaskStatus,
};

/// How many tasks a message about several names.
const MAX_NAMED: usize = 3;

/// How a graph ended.
struct Outlook {
    complete: bool,
    reason: &'static str,
    message: Option<String>,
}

impl Run {
    /// Writes what the run knows into a status: `phase`, `message`, `progress`, `counts`, times, `ending`, `sequence`,
    /// `tasks`, `history`, and the conditions `Complete`, `Failed`, `Suspended`. Other fields stay as they are.
    ///
    /// Tasks that stand there already as they are cost a comparison, the others a copy.
    pub fn write(&self, status: &mut TaskGraphStatus, now: Timestamp) {
        let now = whole_millis(now);
        status.phase = Some(self.graph_phase());
        status.message = self.graph_message();
        status.progress = Some(self.progress());
        status.counts = Some(self.phases.told());
        status.start_time = self.start_time;
        status.compensation_time = self.compensation_time;
        status.finally_time = self.finally_time;
        status.completion_time = self.completion_time;
        status.ending.clone_from(&self.ending);
        match &self.returned {
            Ok(outputs) if self.completion_time.is_some() => status.outputs.clone_from(outputs),
            _ => status.outputs.clear(),
        }
        status.rerun.clone_from(&self.rerun);
        status.reopen_time = self.reopen_time;
        status.sequence = self.sequence;
        if !status.history.iter().eq(&self.history) {
            status.history = self.history.iter().cloned().collect();
        }
        self.write_conditions(status, now);
        self.write_tasks(status);
    }

    fn write_tasks(&self, status: &mut TaskGraphStatus) {
        let told = std::mem::take(&mut status.tasks);
        let rest = outputs::size(status);
        status.tasks = told;
        if self.is_too_large(rest) {
            return self.write_shortly(status, rest);
        }
        status.tasks.truncate(self.graph.first_compensation + self.graph.removed().count());
        for (place, id) in self.graph.told().enumerate() {
            let shown = self.shown(id);
            match status.tasks.get_mut(place) {
                Some(stored) if *stored == *shown => {}
                Some(stored) => *stored = shown.into_owned(),
                None => status.tasks.push(shown.into_owned()),
            }
        }
    }

    /// What the status tells of a task.
    pub(super) fn shown(&self, id: TaskId) -> Cow<'_, TaskStatus> {
        let mut shown = Cow::Borrowed(self.task(id));
        if let Some(undo) = self.shown_compensation(id) {
            shown.to_mut().compensation = Some(compensation::shown(undo.clone()));
        }
        shown
    }

    fn write_conditions(&self, status: &mut TaskGraphStatus, now: Timestamp) {
        if self.suspended_before {
            let running = self.running();
            let message = match (self.suspended, running) {
                (false, _) => "new tasks are started".to_owned(),
                (true, 0) => "nothing runs, and nothing new is started".to_owned(),
                (true, running) => format!("nothing new is started; {running} still running"),
            };
            let word = if self.suspended { reason::SUSPENDED } else { reason::RESUMED };
            set_condition(status, CONDITION_SUSPENDED, self.suspended, word, message, now);
        }
        let Some(end) = self.completion_time else {
            // of a graph that goes on these can only come from elsewhere
            status
                .conditions
                .retain(|condition| condition.type_ != CONDITION_COMPLETE && condition.type_ != CONDITION_FAILED);
            return;
        };
        let outlook = self.outlook();
        let (wanted, other) = if outlook.complete {
            (CONDITION_COMPLETE, CONDITION_FAILED)
        } else {
            (CONDITION_FAILED, CONDITION_COMPLETE)
        };
        status.conditions.retain(|condition| condition.type_ != other);
        set_condition(status, wanted, true, outlook.reason, outlook.message.unwrap_or_default(), end);
    }

    /// All tasks are final: so is the graph.
    pub(super) fn finish(&mut self, round: &mut Round) {
        self.completion_time = Some(round.now);
        self.returned = Ok(Map::new());
        if self.outlook().complete {
            self.returned = returns::evaluate(&self.graph.outputs, &self.scope(), self.output_bytes);
        }
        let outlook = self.outlook();
        let message = if outlook.complete { CONDITION_COMPLETE } else { outlook.reason };
        self.record_history(round.now, reason::FINISHED, Some(message.to_owned()));
        self.sequence = self.sequence.saturating_add(1);
        round.changed = true;
    }

    /// How the graph ended, if it has; else how it would if nothing more went wrong.
    fn outlook(&self) -> Outlook {
        let lost = self.phases.get(TaskPhase::Cancelled) + self.phases.get(TaskPhase::Omitted);
        let failed = joined([self.failure_message(), self.compensation_message()]);
        if let Some(ending) = &self.ending {
            let word = calloff::ending_reason(ending.reason);
            let what =
                if word == reason::CANCELLED { "the graph was cancelled" } else { "the graph's timeout ran out" };
            let message = failed.map_or_else(|| what.to_owned(), |failed| format!("{what}; {failed}"));
            Outlook { complete: false, reason: word, message: Some(message) }
        } else if failed.is_some() {
            Outlook { complete: false, reason: reason::TASKS_FAILED, message: failed }
        } else if self.finally_over {
            let message = Some("the graph's finallyTimeout ran out".to_owned());
            Outlook { complete: false, reason: reason::DEADLINE_EXCEEDED, message }
        } else if lost > 0 {
            // only after a status was edited by hand
            let message = Some(format!("{lost} tasks were cancelled or omitted"));
            Outlook { complete: false, reason: reason::TASKS_FAILED, message }
        } else if let Err((reason, message)) = &self.returned {
            Outlook { complete: false, reason, message: Some(message.clone()) }
        } else {
            Outlook { complete: true, reason: reason::ALL_SUCCEEDED, message: None }
        }
    }

    /// The first few tasks that failed, and why.
    fn failure_message(&self) -> Option<String> {
        let failed = self.failed.range(..self.graph.first_compensation_id());
        let named: Vec<_> = failed.clone().take(MAX_NAMED).map(|id| self.name_with_cause(*id)).collect();
        let more = failed.count().saturating_sub(named.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        (!named.is_empty()).then(|| format!("failed: {}{more}", named.join(", ")))
    }

    /// `build (Error)`
    pub(super) fn name_with_cause(&self, id: TaskId) -> String {
        let status = self.task(id);
        status.reason.as_ref().map_or_else(|| status.name.clone(), |reason| format!("{} ({reason})", status.name))
    }

    fn graph_phase(&self) -> GraphPhase {
        if self.completion_time.is_some() {
            if self.outlook().complete { GraphPhase::Complete } else { GraphPhase::Failed }
        } else if self.suspended {
            GraphPhase::Suspended
        } else if self.compensation_time.is_some() && self.is_compensating() {
            GraphPhase::Compensating
        } else if self.finally_time.is_some() {
            GraphPhase::Finalizing
        } else if self.ending.is_some() {
            GraphPhase::Cancelling
        } else {
            GraphPhase::Running
        }
    }

    fn graph_message(&self) -> Option<String> {
        let blocked = self.blocked.first().filter(|_| self.completion_time.is_none()).map(|id| {
            let status = self.task(*id);
            let text = [status.reason.as_deref(), status.message.as_deref()]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(": ");
            let more = self.blocked.len() - 1;
            let more = if more > 0 { format!(" (and {more} more tasks wait)") } else { String::new() };
            let what = if self.is_compensation(*id) { "the compensation of " } else { "" };
            format!("{what}{} cannot start: {text}{more}", status.name)
        });
        joined([joined([self.outlook().message, blocked]), self.stray_approval()])
    }

    /// `3/7`
    fn progress(&self) -> String {
        let all = self.graph.first_compensation;
        format!("{}/{all}", all.saturating_sub(self.open_tasks + self.open_finally))
    }

    /// Why a task was skipped or omitted, where the reason alone does not say it.
    pub(super) fn why_not(&self, id: TaskId, word: &str) -> Option<String> {
        let def = self.graph.task(id);
        match word {
            reason::BRANCH_NOT_TAKEN => def.guards.iter().find_map(|guard| {
                let decision = self.task(guard.decision);
                let taken: Vec<&str> = decision.taken().collect();
                let passes = taken.iter().any(|taken| guard.branches.iter().any(|name| **name == **taken));
                (!taken.is_empty() && !passes).then(|| format!("{} took {}", decision.name, taken.join(", ")))
            }),
            reason::DEPENDENCY_FAILED => def.dependencies.iter().find_map(|dependency| {
                let status = self.task(*dependency);
                let outcome = Outcome::of(status.phase, self.graph.task(*dependency).allow_failure)?;
                let failed = matches!(outcome, Outcome::Failed | Outcome::Cancelled | Outcome::Omitted);
                failed.then(|| format!("{} is {}", status.name, status.phase.name()))
            }),
            _ => None,
        }
    }
}

/// What there is to say, in one sentence.
pub(super) fn joined(parts: [Option<String>; 2]) -> Option<String> {
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Sets a condition to `True` or `False`.
fn set_condition(
    status: &mut TaskGraphStatus,
    type_: &str,
    holds: bool,
    reason: &str,
    message: String,
    now: Timestamp,
) {
    let condition = Condition {
        type_: type_.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        observed_generation: status.observed_generation,
        last_transition_time: now,
        reason: reason.to_owned(),
        message,
    };
    condition.put_into(&mut status.conditions);
}
