//! Whether what must always hold does, of runs whose graph may have been another one before.

use std::collections::BTreeSet;

use super::{
    super::oracle::{barred, may_start, status_of, went_wrong},
    jobs::{Jobs, Key},
};
use crate::{
    api::{ApprovalDecision, DesiredState, GraphPhase, TaskGraphStatus, TaskPhase, TaskStatus},
    engine::{Attempt, AttemptResult, Run, TaskId, Transition, for_each::Launchable, graph::Work},
};

/// What there was of an attempt before something of it is launched for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Nothing.
    No,
    /// Items; what goes before them may be open again since, and slots may be fewer.
    Items,
    /// Items were asked for, of which a restart found none: they are asked for again, whatever was changed since.
    Lost,
}

/// Of an attempt, or an item, that is launched for the first time. `held`: nothing is to be started, since the spec is not
/// valid or about to be another one.
pub fn judge_launch(run: &Run, attempt: Attempt, held: bool, begun: Begun) {
    let (graph, settings) = (run.graph(), run.settings());
    let cancelled = run.is_cancelled();
    assert_eq!(run.task(attempt.task).phase, TaskPhase::Running);
    assert_eq!(run.task(attempt.task).attempts, attempt.number);
    if begun == Begun::Lost {
        return;
    }
    assert!(!held || cancelled || run.is_undoing(), "{attempt:?} is launched though the spec is not valid");
    let suspended = settings.desired_state == DesiredState::Suspend;
    assert!(!suspended || cancelled, "{attempt:?} is launched while suspended");
    if begun == Begun::Items {
        return;
    }
    assert!(may_start(graph, run, attempt.task), "B: {attempt:?} is launched before its gates were passed");
    let live = run.live().count() - run.listless.len();
    let limit = settings.parallelism.map_or(usize::MAX, |limit| limit as usize);
    assert!(live <= limit, "{live} attempts live in {limit} slots");
}

/// B and C: of a transition, and the run after its step.
pub fn judge_transition(run: &Run, transition: &Transition) {
    let Transition { task, from, to, attempt, reason } = transition;
    let reason = reason.as_deref().unwrap_or_default();
    let may_start = || may_start(run.graph(), run, *task);
    assert!(!from.is_final(), "C: {transition:?} leaves a final phase");
    let is_decision = matches!(run.graph().task(*task).work, Work::Decision { .. });
    if *to == TaskPhase::Waiting || (*to == TaskPhase::Succeeded && (is_decision || reason == "Cached")) {
        assert!(may_start(), "B: {transition:?} before its guards and trigger held");
    }
    if reason == "Cached" {
        assert_eq!((*from, *attempt), (TaskPhase::Ready, 0), "{transition:?}");
    }
    let ends_wait = *from == TaskPhase::Waiting && *to != TaskPhase::Cancelled;
    let decided = reason == "Approved" || reason == "Rejected";
    let suspended = run.settings().desired_state == DesiredState::Suspend && !run.is_cancelled();
    assert!(!(ends_wait && suspended && !decided), "{transition:?}: a time came true while suspended");
}

/// C and E: of two statuses that were stored one after the other. `told_to`: by an edit or a rerun.
pub fn judge_store(before: &TaskGraphStatus, after: &TaskGraphStatus, told_to: bool) {
    assert!(after.sequence >= before.sequence);
    let names: BTreeSet<&str> = after.tasks.iter().map(|task| task.name.as_str()).collect();
    assert_eq!(names.len(), after.tasks.len(), "each task is told of once");
    for before in &before.tasks {
        let Some(after) = after.tasks.iter().find(|task| task.name == before.name) else {
            assert_eq!(before.attempts, 0, "E: {} was forgotten", before.name);
            continue;
        };
        judge_task(before, after, told_to);
        let undo =
            |task: &TaskStatus| task.compensation.clone().map(|undo| undo.into_task(format!("undo:{}", task.name)));
        match (undo(before), undo(after)) {
            (Some(before), Some(after)) => judge_task(&before, &after, told_to || after.removed),
            (Some(before), None) => assert_eq!(before.attempts, 0, "E: {} was forgotten", before.name),
            (None, _) => {}
        }
    }
}

fn judge_task(before: &TaskStatus, after: &TaskStatus, told_to: bool) {
    assert!(after.attempts >= before.attempts, "E: attempts of {} fell", before.name);
    if told_to {
        return;
    }
    if before.phase.is_final() {
        let what = |task: &TaskStatus| (task.phase, task.outputs.clone(), task.branch.clone(), task.branches.clone());
        assert!(what(before) == what(after) || after.removed, "C: {before:?} became {after:?}");
    }
    if before.phase == TaskPhase::Waiting && after.phase == TaskPhase::Waiting && before.attempts == after.attempts {
        assert_eq!(before.wake_at, after.wake_at, "the time of {} was drawn again", before.name);
    }
}

/// Every phase at the end has its cause, and so has the graph's.
pub fn judge_end(run: &Run, jobs: &Jobs) {
    let graph = run.graph();
    for id in graph.ids().take(graph.first_compensation) {
        judge_last(run, id, jobs);
    }
    for id in graph.removed() {
        assert!(run.task(id).phase.is_final(), "D: {} was removed and is not stopped", run.task(id).name);
    }
    let told = status_of(run);
    let complete = told.phase == Some(GraphPhase::Complete);
    let wrong = graph.ids().take(graph.first_compensation).any(|id| went_wrong(run, id));
    let undo_failed = graph.compensations().any(|id| run.task(id).phase == TaskPhase::Failed);
    // of what undid tasks, and of `finally`, a deadline is told by those that it cut off
    assert_eq!(complete, told.ending.is_none() && !wrong && !undo_failed, "{:?}: {:?}", told.phase, told.message);
    if told.compensation_time.is_some() {
        let undone =
            |id: &TaskId| graph.task(*id).undoes.is_some_and(|task| run.task(task).phase == TaskPhase::Succeeded);
        for id in graph.compensations().filter(undone).filter(|id| run.task(*id).attempts > 0) {
            assert!(run.task(id).phase.is_final(), "D: {} is not undone", run.task(id).name);
        }
    }
}

/// Of a task that is final.
fn judge_last(run: &Run, id: TaskId, jobs: &Jobs) {
    let (graph, status, def) = (run.graph(), run.task(id), run.graph().task(id));
    let reason = status.reason.as_deref().unwrap_or_default();
    let why = format!("{} is {}/{reason} after {} attempts", status.name, status.phase.name(), status.attempts);
    let key = Key::new(&status.name, status.attempts);
    let result = jobs.result(&key);
    let failed_item = || jobs.items(&key).any(|(.., result)| matches!(result, AttemptResult::Failed(_)));
    let is_job = matches!(def.work, Work::Job(_) | Work::Graph(_));
    match (status.phase, reason) {
        (TaskPhase::Succeeded, "Cached") => {
            assert_eq!((status.attempts, status.outputs.get("attempt")), (0, Some(&serde_json::json!(0))), "{why}");
        }
        (TaskPhase::Succeeded, "") if def.is_per_item() => judge_items(status, jobs, &key, &why),
        (TaskPhase::Succeeded, _) if is_job => {
            let Some(AttemptResult::Succeeded { outputs, .. }) = result else { panic!("{why}, but was {result:?}") };
            assert_eq!(&status.outputs, outputs, "E: {why}");
        }
        (TaskPhase::Succeeded, "Approved") => {
            let of_task = run.settings().approvals.get(&def.name);
            let approval = of_task.and_then(|known| known.get(&status.attempts)).map(|known| known.decision);
            assert_eq!(approval, Some(ApprovalDecision::Approved), "{why}");
        }
        (TaskPhase::Succeeded, _) => {
            let decided = status.taken().next().is_some();
            let is_decision = matches!(def.work, Work::Decision { .. });
            assert!(
                !matches!(def.work, Work::Approval(_)) || reason == "ApprovalTimeout",
                "{why}, but nobody approved"
            );
            assert!(decided == is_decision && (is_decision || status.begun()), "{why}");
        }
        (TaskPhase::Failed, "Rejected" | "ApprovalTimeout") => assert!(status.begun(), "{why}"),
        (TaskPhase::Failed, _) => {
            let may_have_succeeded = reason == "JobLost" || reason == "StartTimeout";
            let was_created = result.is_some() || jobs.items(&key).next().is_some();
            let failed = matches!(result, Some(AttemptResult::Failed(_))) || failed_item();
            assert!(is_job && was_created && (failed || may_have_succeeded), "{why}");
        }
        // a decision may have been a Job before
        (TaskPhase::Cancelled, _) => assert!(status.attempts > 0, "{why}"),
        (TaskPhase::Omitted | TaskPhase::Skipped, _) => {
            assert!(!status.begun(), "{why}");
            if ["DependencyFailed", "DependencySkipped", "NothingFailed", "BranchNotTaken"].contains(&reason) {
                assert_eq!(barred(graph, run, id), (status.phase, reason), "{why}");
            }
            let next = Attempt::new(id, status.attempts + 1);
            let is_empty = || matches!(run.launchable(next), Ok(Launchable::NoItems));
            assert!(reason != "NoItems" || is_empty(), "{why}");
        }
        _ => panic!("D: {why}"),
    }
}

/// Of a task that succeeded, each of whose items had a Job or child graph: in its place, what each left that did.
fn judge_items(status: &TaskStatus, jobs: &Jobs, whole: &Key, why: &str) {
    let left = status.outputs.get("attempt").and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
    let told = status.items.clone().unwrap_or_default();
    let well = |place: usize| left.get(place).is_some_and(|left| *left == serde_json::json!(status.attempts));
    for (index, made, result) in jobs.items(whole) {
        assert_eq!(Some(told.total as usize), made.items, "{why}");
        // one that was lost may have ended well
        let succeeded = matches!(result, AttemptResult::Succeeded { .. });
        assert!(succeeded || !well(index as usize), "E: {why}: item {index} did not succeed");
        let tolerated = made.per_item.and_then(|(_, most)| most).unwrap_or(0);
        assert!(told.failed <= tolerated, "{why}, but {} items failed", told.failed);
    }
    let succeeded = (0..left.len()).filter(|place| well(*place)).count();
    assert_eq!(
        (told.succeeded as usize, told.succeeded + told.failed, told.active),
        (succeeded, told.total, 0),
        "{why}"
    );
    assert_eq!((told.launched, told.ending), (None, None), "{why}");
}
