//! Judges what a run asks for and what it ends with by the rules as design tells them.

use std::collections::BTreeSet;

use jiff::SignedDuration;

use super::{
    super::triggers::{Is, expected},
    cluster::Cluster,
    plan::{Plan, left_by},
};
use crate::{
    api::{ApprovalDecision, OnTimeout, TaskGraphStatus, TaskPhase, TaskStatus},
    engine::{
        Action, Attempt, Graph, Run, Step, TaskId, Transition,
        graph::{Guard, Work},
        policy::waiting::Delay,
    },
};

fn dependencies(graph: &Graph, run: &Run, id: TaskId) -> Vec<Is> {
    let is = |id: &TaskId| Is::of(run.task(*id).phase, graph.task(*id).allow_failure);
    graph.task(id).dependencies.iter().map(is).collect()
}

/// All that depends on a task, at any distance.
fn behind(graph: &Graph, id: TaskId) -> BTreeSet<TaskId> {
    let mut found = BTreeSet::new();
    let mut open = vec![id];
    while let Some(id) = open.pop() {
        let next = graph.ids().filter(|other| graph.task(*other).undoes.is_none());
        open.extend(next.filter(|other| graph.task(*other).dependencies.contains(&id) && found.insert(*other)));
    }
    found
}

pub fn went_wrong(run: &Run, id: TaskId) -> bool {
    match run.task(id).phase {
        TaskPhase::Failed => !run.graph().task(id).allow_failure,
        phase => matches!(phase, TaskPhase::Cancelled | TaskPhase::Omitted),
    }
}

fn is_under_way(phase: TaskPhase) -> bool {
    matches!(phase, TaskPhase::Ready | TaskPhase::Running | TaskPhase::Retrying)
}

pub fn status_of(run: &Run) -> TaskGraphStatus {
    let mut status = TaskGraphStatus::default();
    run.write(&mut status, super::super::fixture::at(0));
    status
}

/// Whether for each decision named, one of the branches listed was taken.
fn guards_hold(graph: &Graph, run: &Run, id: TaskId) -> bool {
    graph.task(id).guards.iter().all(|guard| holds(run, guard))
}

fn holds(run: &Run, guard: &Guard) -> bool {
    let decision = run.task(guard.decision);
    let listed = |taken: &str| guard.branches.iter().any(|branch| **branch == *taken);
    decision.phase == TaskPhase::Succeeded && decision.taken().any(listed)
}

/// What a task comes to whose guards, or else its trigger, do not let it start.
pub fn barred(graph: &Graph, run: &Run, id: TaskId) -> (TaskPhase, &'static str) {
    let fail = |guard: &&Guard| !holds(run, guard);
    let ends = graph.task(id).guards.iter().filter(fail).map(|guard| {
        let decision = guard.decision;
        match Is::of(run.task(decision).phase, graph.task(decision).allow_failure) {
            Is::Skipped => (1, (TaskPhase::Skipped, "DependencySkipped")),
            is if is.is_failure() => (2, (TaskPhase::Omitted, "DependencyFailed")),
            // it took another branch, or none, which is allowed
            _ => (0, (TaskPhase::Skipped, "BranchNotTaken")),
        }
    });
    ends.min().map_or_else(|| expected(graph.task(id).trigger, &dependencies(graph, run, id)), |(_, verdict)| verdict)
}

pub fn may_start(graph: &Graph, run: &Run, id: TaskId) -> bool {
    let task = graph.task(id);
    let dependencies = dependencies(graph, run, id);
    let main_done = graph.ids().take(graph.first_finally).all(|id| run.task(id).phase.is_final());
    if let Some(undone) = task.undoes {
        let wrong =
            status_of(run).ending.is_some() || graph.ids().take(graph.first_finally).any(|id| went_wrong(run, id));
        let after = behind(graph, undone);
        let undone_after =
            graph.compensations().filter(|id| graph.task(*id).undoes.is_some_and(|id| after.contains(&id)));
        return main_done
            && wrong
            && run.task(undone).phase == TaskPhase::Succeeded
            && undone_after.into_iter().all(|id| run.task(id).phase.is_final());
    }
    let undoing = graph.compensations().any(|id| is_under_way(run.task(id).phase));
    (!task.finally || (main_done && !undoing))
        && guards_hold(graph, run, id)
        && (dependencies.is_empty() || expected(task.trigger, &dependencies).0 == TaskPhase::Running)
}

/// B, slots and suspension: of a step, and the run after it.
pub fn judge_step(run: &Run, step: &Step, suspended: bool, first_after_restart: bool) {
    let graph = run.graph();
    let launches: Vec<_> = step
        .actions
        .iter()
        .filter_map(|action| match action {
            Action::Launch(launch) => Some(launch.attempt),
            _ => None,
        })
        .collect();
    for attempt in &launches {
        assert!(may_start(graph, run, attempt.task), "B: {attempt:?} is launched before its guards and trigger held");
        assert_eq!(run.task(attempt.task).phase, TaskPhase::Running);
        assert_eq!(run.task(attempt.task).attempts, attempt.number);
    }
    for id in graph.ids().filter(|id| run.task(*id).taken().next().is_some()) {
        assert!(may_start(graph, run, id), "B: {id:?} decided before its guards and trigger held");
    }
    for transition in step.transitions.iter().filter(|transition| transition.reason.as_deref() == Some("Cached")) {
        assert!(may_start(graph, run, transition.task), "B: {transition:?} before its guards and trigger held");
        assert_eq!((transition.from, transition.attempt), (TaskPhase::Ready, 0), "{transition:?}");
    }
    // what had begun before a restart is asked for again, whatever the settings are now
    if !launches.is_empty() && !first_after_restart {
        assert!(!suspended, "launched while suspended: {launches:?}");
    }
    // further items of an attempt that has its slot take none
    let begins = |attempt: &Attempt| {
        let began = |transition: &Transition| transition.task == attempt.task && transition.to == TaskPhase::Running;
        attempt.item.is_none() || step.transitions.iter().any(began)
    };
    if launches.iter().any(begins) && !first_after_restart {
        let live = run.live().count() - run.listless.len();
        let limit = run.settings().parallelism.map_or(usize::MAX, |limit| limit as usize);
        assert!(live <= limit, "{live} attempts live in {limit} slots");
    }
    for transition in &step.transitions {
        assert!(!transition.from.is_final(), "C: {transition:?} leaves a final phase");
        if transition.to == TaskPhase::Waiting {
            assert!(
                may_start(graph, run, transition.task),
                "B: {transition:?} waits before its guards and trigger held"
            );
        }
        let ends_wait = transition.from == TaskPhase::Waiting && transition.to != TaskPhase::Cancelled;
        let decided = transition.reason.as_deref().is_some_and(|reason| reason == "Approved" || reason == "Rejected");
        assert!(!(ends_wait && suspended && !decided), "{transition:?}: a time came true while suspended");
    }
    assert!(step.wake_at.is_none() || !run.is_finished());
}

/// E: what was stored as final stays as it was.
pub fn judge_store(before: &TaskGraphStatus, after: &TaskGraphStatus) {
    assert!(after.sequence >= before.sequence);
    for (before, after) in before.tasks.iter().zip(&after.tasks) {
        judge_compensation(before, after);
        let (before, after) = (&alone(before), &alone(after));
        assert!(after.attempts >= before.attempts, "E: attempts of {} fell", before.name);
        if before.phase.is_final() {
            assert_eq!(before, after, "C: {} was final", before.name);
        }
        if before.taken().next().is_some() {
            assert!(before.taken().eq(after.taken()), "{} decided again", before.name);
        }
        if before.phase == TaskPhase::Waiting && after.phase == TaskPhase::Waiting && before.attempts == after.attempts
        {
            assert_eq!(before.wake_at, after.wake_at, "the time of {} was drawn again", before.name);
        }
    }
}

/// A task without its compensation, which comes after its end.
fn alone(task: &TaskStatus) -> TaskStatus {
    TaskStatus { compensation: None, ..task.clone() }
}

fn judge_compensation(before: &TaskStatus, after: &TaskStatus) {
    let Some(before) = &before.compensation else { return };
    let after = after.compensation.as_ref().expect("E: a compensation is not forgotten");
    assert!(after.attempts >= before.attempts, "E: attempts fell");
    if before.phase.is_final() {
        assert_eq!(before, after, "C: it was final");
    }
}

/// A graph that fails has undone all that Succeeded, as far as that went; another one nothing.
fn judge_undoing(run: &Run, cluster: &Cluster) {
    let graph = run.graph();
    let failed = status_of(run).ending.is_some() || graph.ids().take(graph.first_finally).any(|id| went_wrong(run, id));
    for id in graph.compensations() {
        let undone = graph.task(id).undoes.expect("it undoes one");
        let status = run.task(id);
        let attempt = Attempt::new(id, status.attempts);
        let why = format!("undo {}: {:?} {:?}", status.name, status.phase, status.reason);
        match status.phase {
            TaskPhase::Succeeded => assert!(failed && cluster.succeeded.contains(&attempt), "{why}"),
            TaskPhase::Failed => assert!(failed && cluster.created.contains(&attempt), "{why}"),
            // all of it was not done in time
            TaskPhase::Cancelled if status.reason.as_deref() == Some("DeadlineExceeded") => {
                assert!(failed && cluster.created.contains(&attempt), "{why}");
            }
            _ => {
                assert!(!failed || run.task(undone).phase != TaskPhase::Succeeded, "{why}");
                assert!(!cluster.created.iter().any(|created| created.task == id), "{why}");
            }
        }
    }
}

/// Every phase at the end has its cause.
pub fn judge_end(run: &Run, cluster: &Cluster, plan: &Plan) {
    judge_undoing(run, cluster);
    let graph = run.graph();
    for id in graph.ids().take(graph.first_compensation) {
        let status = run.task(id);
        let def = graph.task(id);
        let reason = status.reason.as_deref().unwrap_or_default();
        let attempt = Attempt::new(id, status.attempts);
        let why = format!("{} is {}/{reason}", status.name, status.phase.name());
        let is_job = matches!(def.work, Work::Job(_) | Work::Graph(_));
        let is_child = matches!(def.work, Work::Graph(_));
        assert!(!is_child || reason != "StartTimeout", "{why}: a child graph waits for no pod");
        assert!(is_child || status.progress.is_none(), "{why}");
        let items = plan.items(id).filter(|_| def.for_each.is_some());
        let created = cluster.created.range(attempt..=attempt.of_item(u32::MAX)).next().is_some();
        match (status.phase, reason) {
            (TaskPhase::Succeeded, "") if def.is_per_item() => judge_items(run, id, cluster, plan, &why),
            (TaskPhase::Succeeded, "Cached") => {
                assert!(def.cache.is_some() && status.attempts == 0, "{why}");
                assert_eq!(status.outputs.get("attempt"), Some(&serde_json::json!(0)), "{why}");
            }
            (TaskPhase::Succeeded, _) if is_job => {
                assert!(cluster.succeeded.contains(&attempt), "{why}, but its attempt did not succeed");
                assert_eq!(status.outputs.get("attempt"), Some(&left_by(status.attempts, items)), "{why}");
                assert_eq!(status.items.as_ref().map(|items| items.total as usize), items, "{why}");
            }
            (TaskPhase::Succeeded, _) | (TaskPhase::Failed, "Rejected" | "ApprovalTimeout") => {
                judge_without_job(run, id, &why);
            }
            (TaskPhase::Failed, _) => {
                assert!(is_job && created, "{why}");
                assert!(
                    !cluster.succeeded.contains(&attempt) || reason == "JobLost" || reason == "StartTimeout",
                    "{why}"
                );
            }
            // its dependency came to another end after its success was lost in a crash, with its Job
            (TaskPhase::Cancelled, "DependencyFailed") => assert!(status.attempts > 0, "{why}"),
            (TaskPhase::Cancelled, "FailurePolicy" | "Cancelled" | "DeadlineExceeded") => {
                assert!(status.attempts > 0, "{why}");
            }
            (TaskPhase::Omitted, "FailurePolicy" | "Cancelled" | "DeadlineExceeded") => {
                assert_eq!(status.attempts, 0, "{why}");
            }
            (TaskPhase::Skipped, "NoItems") => {
                assert!(items == Some(0) && status.attempts == 0 && may_start(graph, run, id), "{why}");
            }
            (TaskPhase::Omitted | TaskPhase::Skipped, _) => {
                assert_eq!(status.attempts, 0, "{why}");
                assert_eq!(barred(graph, run, id), (status.phase, reason), "{why}");
            }
            _ => panic!("{why}"),
        }
    }
}

/// What a task left whose items have a Job or child graph each: in its place, what each that succeeded left.
fn judge_items(run: &Run, id: TaskId, cluster: &Cluster, plan: &Plan, why: &str) {
    let status = run.task(id);
    let total = plan.items(id).and_then(|items| u32::try_from(items).ok()).unwrap_or(0);
    let attempt = Attempt::new(id, status.attempts);
    let well = |index: &u32| cluster.succeeded.contains(&attempt.of_item(*index));
    let left = |index: u32| if well(&index) { serde_json::json!(status.attempts) } else { serde_json::Value::Null };
    let lists: Vec<_> = (0..total).map(left).collect();
    let succeeded = u32::try_from((0..total).filter(well).count()).unwrap();
    let tolerated = plan.per_item(id).and_then(|(_, max_failures)| max_failures).unwrap_or(0);
    assert!(total - succeeded <= tolerated, "{why}, but {succeeded} of {total} items did");
    let outputs = (succeeded > 0).then(|| lists.into());
    assert_eq!(status.outputs.get("attempt"), outputs.as_ref(), "{why}");
    let told = status.items.clone().unwrap_or_default();
    assert_eq!(
        (told.total, told.succeeded, told.failed, told.active),
        (total, succeeded, total - succeeded, 0),
        "{why}"
    );
    assert_eq!((told.launched, told.ending), (None, None), "{why}");
}

/// What ended a task without a Job: a branch, its time, or what stands in the approvals.
fn judge_without_job(run: &Run, id: TaskId, why: &str) {
    let (status, def) = (run.task(id), run.graph().task(id));
    let reason = status.reason.as_deref().unwrap_or_default();
    let waited = status.completion_time.zip(status.start_time).map(|(end, start)| end.duration_since(start).as_secs());
    match &def.work {
        Work::Decision { .. } => assert!(status.taken().next().is_some(), "{why}"),
        Work::Delay(Delay::For(duration)) => {
            let waited = status.completion_time.zip(status.ready_time).map(|(end, ready)| end.duration_since(ready));
            assert!(waited >= Some(SignedDuration::from(*duration)), "{why} after {waited:?}");
        }
        Work::Approval(on_timeout) => {
            let of_task = run.settings().approvals.get(&def.name);
            let decided = of_task.and_then(|known| known.get(&status.attempts)).map(|known| known.decision);
            let timed_out = waited >= def.timeout.map(|timeout| i64::try_from(timeout.millis() / 1000).unwrap());
            match (status.phase, reason) {
                (TaskPhase::Succeeded, "Approved") => assert_eq!(decided, Some(ApprovalDecision::Approved), "{why}"),
                (TaskPhase::Succeeded, "ApprovalTimeout") => {
                    assert!(timed_out && *on_timeout == OnTimeout::Approve, "{why}");
                }
                (TaskPhase::Failed, "ApprovalTimeout") => assert!(timed_out && *on_timeout == OnTimeout::Fail, "{why}"),
                (TaskPhase::Failed, "Rejected") => {
                    let by_time = timed_out && *on_timeout == OnTimeout::Reject;
                    assert!(by_time || decided == Some(ApprovalDecision::Rejected), "{why}");
                }
                _ => panic!("{why}"),
            }
        }
        Work::Delay(_) | Work::Job(_) | Work::Graph(_) | Work::Removed => panic!("{why}"),
    }
}
