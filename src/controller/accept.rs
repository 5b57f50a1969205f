//! Takes a graph up: checks it, pins what it began with, or finds out how far it has come.

use std::sync::Arc;

use serde::Deserialize as _;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};
use tracing::{info, warn};

use super::{
    Context,
    children::PARENT_GONE,
    cluster::{CallError, Cluster},
    edit,
    events::Telling,
    mend,
    pin::{Pin, Stored, pin, recall},
    registry::Slot,
    report::{REVISION_REFUSED, Report, Verdict, cut},
    restored,
    revision::Pinned,
    session::Session,
    templates::Found,
    view::GraphView,
    volumes,
};
use crate::{
    api::{CONDITION_ACCEPTED, CONDITION_RECONCILING, TaskGraphSpec, TaskGraphStatus},
    engine::{self, Identity, Plan, Refusal, Run, Templates},
    validate,
};

/// A stored status of which more fields than that cannot be read is none.
const BROKEN_FIELDS: usize = 256;
/// At most so many problems are told at once.
const PROBLEMS: usize = 100;

/// Why a graph could not be taken up. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// A call failed.
    #[error("failed to {0}: {1}")]
    Call(&'static str, #[source] CallError),
    /// Its spec and templates could not be stored.
    #[error("failed to pin the graph in a ControllerRevision: {0}")]
    Pin(#[source] CallError),
    /// Another graph of its name stands in its place, and the watch has not told yet. Nothing of the other one's status
    /// may be taken for this one's, or the other way round.
    #[error("the graph was deleted, and there is another one of its name")]
    Replaced,
    /// A check did not come to its end.
    #[error("the check of the graph was broken off: {0}")]
    Check(#[source] tokio::task::JoinError),
}

impl AcceptError {
    /// What is told of it in the graph: the API server has said that somebody must do something.
    pub fn verdict(&self) -> Option<Verdict> {
        let Self::Pin(CallError::Api { code, message, .. }) = self else { return None };
        let message = format!("the spec and its templates cannot be stored in a ControllerRevision: {message}");
        match code {
            400 | 413 | 422 => Some(Verdict::Refused(REVISION_REFUSED, message)),
            // a quota, a policy, missing rights: all may pass
            403 => Some(Verdict::Waiting(REVISION_REFUSED, message)),
            _ => None,
        }
    }
}

/// What came of taking up a graph.
pub enum Taken {
    /// It runs.
    Up(Box<Session>),
    /// It is refused or waits; that is told in its status.
    Not(Verdict),
    /// It finished before.
    Finished,
    /// The graph as it was watched is older than what is stored of it: the watch brings more.
    Late,
}

/// Takes a graph up for the first time in this process; its session will live in `slot`.
pub async fn take_up(ctx: &Context, view: &GraphView, slot: &Arc<Slot>) -> Result<Taken, AcceptError> {
    if let Some(taken) = restored::take_up(ctx, view).await? {
        return Ok(taken);
    }
    // Acting on a cache that lags could run again what has ended: how far the graph has come is read live, once.
    let has_begun = view.status.revision.is_some();
    let plan = if has_begun { None } else { Some(check_current(ctx, view, None).await?) };
    match plan {
        Some(Err(verdict)) => Ok(Taken::Not(verdict)),
        Some(Ok((plan, pinned))) => {
            let claims = pinned.claims();
            if let Some(verdict) = volumes::rehearse(&ctx.hands.cluster, &identity(view), claims).await? {
                return Ok(Taken::Not(verdict));
            }
            match pin(ctx, view, &pinned, 1).await? {
                Pin::First => begin(ctx, view, slot, plan, pinned).await,
                Pin::Stored(stored) => Box::pin(resume(ctx, view, slot, Stored::Read(stored))).await,
            }
        }
        None => Box::pin(resume(ctx, view, slot, Stored::Unread)).await,
    }
}

/// Checks the spec as it is now; `last_rerun`: the id of the last rerun that was acted on.
pub async fn check_current(
    ctx: &Context,
    view: &GraphView,
    last_rerun: Option<&str>,
) -> Result<Result<(Plan, Pinned), Verdict>, AcceptError> {
    let spec = match read_spec(&view.spec) {
        Ok(spec) => edit::without_past_rerun(spec, last_rerun),
        Err(verdict) => return Ok(Err(verdict)),
    };
    let templates = match view.parent() {
        Some((parent, revision)) => match parents_templates(ctx, view, parent, revision).await? {
            Some(templates) => templates.needed_by(&spec),
            None => return Ok(Err(no_parent(revision))),
        },
        None => ctx.templates.of(&spec, view.namespace()),
    };
    Ok(match check(view, spec.clone(), templates.specs.clone()).await? {
        Ok(plan) => Ok((plan, Pinned::new(spec, &templates))),
        Err(refusal) => Err(ctx.templates.verdict_of(&refusal)),
    })
}

/// The templates that the parent of a child graph began with: the child runs those, whatever they are by now.
async fn parents_templates(
    ctx: &Context,
    view: &GraphView,
    parent: &str,
    revision: &str,
) -> Result<Option<Found>, AcceptError> {
    match ctx.hands.cluster.get_revision(view.namespace(), revision).await {
        Ok(object) => Ok(Pinned::of(&object, parent).map(|pinned| pinned.found())),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(AcceptError::Call("read the ControllerRevision of the parent graph", error)),
    }
}

fn no_parent(revision: &str) -> Verdict {
    let message = format!("the ControllerRevision {revision} of the parent graph, which holds the templates, is gone");
    Verdict::Refused(PARENT_GONE, message)
}

/// Reads a spec; what is wrong with its form is a verdict.
pub fn read_spec(spec: &Value) -> Result<TaskGraphSpec, Verdict> {
    // to keep the path costs as much as to read the spec: it is asked for where something is wrong
    TaskGraphSpec::deserialize(spec).or_else(|_| serde_path_to_error::deserialize(spec)).map_err(|error| {
        let path = error.path().to_string();
        Verdict::Refused("Invalid", format!("spec.{path}: {}", error.into_inner()))
    })
}

/// Checks a spec away from the threads that serve everything else: a large one takes a while.
pub async fn check(
    view: &GraphView,
    spec: TaskGraphSpec,
    templates: Templates,
) -> Result<Result<Plan, Refusal>, AcceptError> {
    let name = view.name().to_owned();
    tokio::task::spawn_blocking(move || validate::check(Some(&name), &spec, &templates))
        .await
        .map_err(AcceptError::Check)
}

/// What a refusal means for the graph.
pub fn verdict_of(refusal: &Refusal) -> Verdict {
    let missing = refusal.missing.iter().map(|(path, reference)| {
        format!("{path}: there is no {:?} named {:?} yet; the graph waits for it", reference.kind, reference.name)
    });
    if refusal.problems.is_empty() {
        return Verdict::Waiting("TemplateNotFound", missing.collect::<Vec<_>>().join("\n"));
    }
    let mut lines: Vec<_> = refusal.problems.iter().map(ToString::to_string).chain(missing).collect();
    if lines.len() > PROBLEMS {
        let more = lines.len() - PROBLEMS;
        lines.truncate(PROBLEMS);
        lines.push(format!("... and {more} more"));
    }
    Verdict::Refused("Invalid", lines.join("\n"))
}

/// Which graph it is.
pub fn identity(view: &GraphView) -> Arc<Identity> {
    Arc::new(Identity { name: view.name().into(), namespace: view.namespace().into(), uid: view.uid().into() })
}

async fn begin(
    ctx: &Context,
    view: &GraphView,
    slot: &Arc<Slot>,
    plan: Plan,
    pinned: Pinned,
) -> Result<Taken, AcceptError> {
    // A graph that was refused before has conditions; their transition times are kept. Claims are stored at once, over
    // the version that is.
    let fresh = view.status.conditions.is_empty() && pinned.claims().is_empty();
    let (mut status, mut version) = if fresh {
        (TaskGraphStatus::default(), view_version(view))
    } else {
        live_status(&ctx.hands.cluster, view).await?
    };
    status.templates = pinned.told();
    status.uid = Some(view.uid().to_owned());
    status.revision = Some(Pinned::name(view, 1));
    status.revision_number = 1;
    if let Some(verdict) = provide_volumes(ctx, view, &pinned, &mut status, &mut version).await? {
        return Ok(Taken::Not(verdict));
    }
    let identity = identity(view);
    info!(graph = view.name(), namespace = view.namespace(), tasks = plan.graph.first_compensation, "accepted");
    let mut run = Run::new(plan.graph, plan.settings, (*identity).clone(), super::now());
    run.set_writers(view.writers());
    if let Some(rerun) = &pinned.spec.rerun {
        run.note_rerun(&rerun.id);
    }
    let report = Report::new(status, version, view.generation());
    let mailbox = ctx.registry.mailbox(view, slot);
    let mut session = Session::new(run, identity, pinned, report, Arc::clone(&ctx.hands), mailbox);
    session.followed = Some(view.generation());
    Ok(Taken::Up(Box::new(session)))
}

/// Makes the claims of a graph, and stores which they are before anything mounts them. `Some`: one cannot be made.
async fn provide_volumes(
    ctx: &Context,
    view: &GraphView,
    pinned: &Pinned,
    status: &mut TaskGraphStatus,
    version: &mut String,
) -> Result<Option<Verdict>, AcceptError> {
    let (claims, known) = (pinned.claims(), status.volumes.len());
    let refused = volumes::provide(&ctx.hands.cluster, &identity(view), claims, &mut status.volumes).await?;
    if refused.is_none() && status.volumes.len() > known {
        *version = put_status(ctx, view, version, status).await?;
    }
    Ok(refused)
}

/// Goes on with a graph from what is stored.
async fn resume(ctx: &Context, view: &GraphView, slot: &Arc<Slot>, stored: Stored) -> Result<Taken, AcceptError> {
    let (mut status, mut version) = live_status(&ctx.hands.cluster, view).await?;
    if status.observed_generation.is_some_and(|observed| observed > view.generation()) {
        // somebody has followed a newer spec than the one that was watched
        return Ok(Taken::Late);
    }
    if status.uid.as_ref().is_some_and(|uid| uid != view.uid()) {
        // a status was restored, and the watch has not told yet
        return Ok(Taken::Late);
    }
    status.uid = Some(view.uid().to_owned());
    if status.completion_time.is_some() && !waits_or_was_edited(&status, view) {
        return Ok(Taken::Finished);
    }
    let number = status.revision_number.max(1);
    let pinned = match recall(ctx, view, stored, &status, number).await? {
        Ok(pinned) => pinned,
        Err(verdict) => return Ok(Taken::Not(verdict)),
    };
    status.templates = pinned.told();
    let has_begun = status.revision.is_some();
    status.revision = Some(Pinned::name(view, number));
    status.revision_number = number;
    let Ok(plan) = compile_pinned(&pinned).await? else {
        // accepted once, by an operator with other rules
        return mend::take_up(ctx, view, mend::Stored { status, version, pinned }).await;
    };
    if let Some(verdict) = provide_volumes(ctx, view, &pinned, &mut status, &mut version).await? {
        return Ok(Taken::Not(verdict));
    }
    let identity = identity(view);
    info!(graph = view.name(), namespace = view.namespace(), "taken up again");
    let mut run = Run::restore(plan.graph, plan.settings, (*identity).clone(), &status);
    run.set_writers(view.writers());
    if let Some(rerun) = pinned.spec.rerun.as_ref().filter(|_| !has_begun) {
        // of its beginning nothing but the revision was stored
        run.note_rerun(&rerun.id);
    }
    // -1 is the CRD's default: the status was never written
    let observed = status.observed_generation.filter(|observed| *observed > 0).unwrap_or_else(|| view.generation());
    let report = Report::new(status, version, observed);
    let mailbox = ctx.registry.mailbox(view, slot);
    let mut session = Session::new(run, identity, pinned, report, Arc::clone(&ctx.hands), mailbox);
    session.tell_again();
    ctx.index.touch(view.uid());
    session.search_for_missing(&ctx.index);
    Ok(Taken::Up(Box::new(session)))
}

/// Whether there may be something to do for a graph that finished.
fn waits_or_was_edited(status: &TaskGraphStatus, view: &GraphView) -> bool {
    status.observed_generation != Some(view.generation()) || status.holds(CONDITION_RECONCILING).is_some()
}

/// Makes a pinned spec ready to run. Containers are not checked again: what an operator with other rules accepted goes
/// on, and the API server judges each Job.
async fn compile_pinned(pinned: &Pinned) -> Result<Result<Plan, Refusal>, AcceptError> {
    let (spec, templates) = (pinned.spec.clone(), pinned.templates());
    tokio::task::spawn_blocking(move || engine::compile(&spec, &templates)).await.map_err(AcceptError::Check)
}

fn view_version(view: &GraphView) -> String {
    view.metadata.resource_version.clone().unwrap_or_default()
}

/// The status as it stands, and the version of the object.
pub async fn live_status(cluster: &Cluster, view: &GraphView) -> Result<(TaskGraphStatus, String), AcceptError> {
    let live = cluster.get_graph(view.namespace(), view.name()).await;
    let live = live.map_err(|error| AcceptError::Call("read the graph", error))?;
    if live.metadata.uid.as_deref() != Some(view.uid()) {
        return Err(AcceptError::Replaced);
    }
    let (status, broken) = read_status(live.status);
    if !broken.is_empty() {
        warn!(graph = view.name(), namespace = view.namespace(), ?broken, "fields of the stored status cannot be read");
    }
    Ok((status, live.metadata.resource_version.unwrap_or_default()))
}

/// Stores a status over the one of `version`; the new version.
pub async fn put_status(
    ctx: &Context,
    view: &GraphView,
    version: &str,
    status: &TaskGraphStatus,
) -> Result<String, AcceptError> {
    let value = serde_json::to_value(status)
        .map_err(|e| AcceptError::Call("write the status", CallError::Request(e.to_string())))?;
    let written = ctx.hands.cluster.put_status(view.namespace(), view.name(), version, value).await;
    written.map_err(|error| AcceptError::Call("store the status", error))
}

/// What a stored status tells, and the fields that had to be left out: edited by hand, or written by a newer operator.
/// One that cannot be read must not cost the others.
pub fn read_status(mut stored: Value) -> (TaskGraphStatus, Vec<String>) {
    let mut broken = Vec::new();
    if !stored.is_object() {
        return (TaskGraphStatus::default(), broken);
    }
    while broken.len() < BROKEN_FIELDS {
        match serde_path_to_error::deserialize(&stored) {
            Ok(status) => return (status, broken),
            Err(error) => {
                broken.push(error.to_string());
                if !leave_out(&mut stored, error.path()) {
                    break;
                }
            }
        }
    }
    (TaskGraphStatus::default(), broken)
}

/// Takes out the value at `path`. False where there is none.
fn leave_out(root: &mut Value, path: &Path) -> bool {
    let mut steps: Vec<_> = path.iter().collect();
    // no step into a value that was expected to be of several forms
    steps.retain(|step| matches!(step, Segment::Map { .. } | Segment::Seq { .. }));
    let Some(last) = steps.pop() else { return false };
    let parent = steps.into_iter().try_fold(root, |value, step| match step {
        Segment::Map { key } => value.get_mut(key),
        Segment::Seq { index } => value.get_mut(*index),
        Segment::Enum { .. } | Segment::Unknown => None,
    });
    match (parent, last) {
        (Some(Value::Object(fields)), Segment::Map { key }) => fields.remove(key).is_some(),
        (Some(Value::Array(items)), Segment::Seq { index }) if *index < items.len() => {
            items.remove(*index);
            true
        }
        _ => false,
    }
}

/// Stores that a graph is refused or waits, unless it says so already.
pub async fn report_refusal(ctx: &Context, view: &GraphView, verdict: &Verdict) -> Result<(), AcceptError> {
    let (Verdict::Refused(reason, message) | Verdict::Waiting(reason, message)) = verdict else { return Ok(()) };
    let told = view.has_condition(CONDITION_ACCEPTED, "False", reason, cut(message));
    if told && view.status.observed_generation == Some(view.generation()) {
        return Ok(());
    }
    let (mut status, version) = live_status(&ctx.hands.cluster, view).await?;
    verdict.write(&mut status, view.generation(), super::now());
    status.phase = status.phase.or(Some(crate::api::GraphPhase::Pending));
    status.message = Some(summary(message));
    put_status(ctx, view, &version, &status).await?;
    info!(graph = view.name(), namespace = view.namespace(), reason, "not accepted");
    ctx.recorder.tell(view, &Telling::refused(view.generation(), reason, message));
    Ok(())
}

/// The first line, and how many more there are.
fn summary(message: &str) -> String {
    let mut lines = message.lines();
    let first = lines.next().unwrap_or_default();
    // a cycle of all tasks is one long line
    let first = cut(first);
    match lines.count() {
        0 => first.to_owned(),
        more => format!("{first} (and {more} more)"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::TaskPhase;

    #[test]
    fn a_field_that_cannot_be_read_costs_no_other() {
        let (status, broken) = read_status(json!({
            "sequence": 7,
            "startTime": "yesterday",
            "conditions": [
                {"type": "Odd"},
                {"type": "Accepted", "status": "True", "reason": "Accepted", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            ],
            "tasks": [
                {"name": "a", "phase": "Succeeded", "attempts": 1, "outputs": {"x": 1}},
                {"name": "b", "phase": "Dreaming", "attempts": 2},
                "c",
            ],
        }));
        assert_eq!(broken.len(), 4, "{broken:?}");
        assert_eq!((status.sequence, status.start_time, status.conditions.len()), (7, None, 1));
        let tasks: Vec<_> = status.tasks.iter().map(|task| (task.name.as_str(), task.phase, task.attempts)).collect();
        assert_eq!(tasks, [("a", TaskPhase::Succeeded, 1), ("b", TaskPhase::Pending, 2)]);
        assert_eq!(status.tasks[0].outputs.len(), 1);
        for nothing in [Value::Null, json!({}), json!("x"), json!([1])] {
            assert_eq!(read_status(nothing).0, TaskGraphStatus::default());
        }
    }
}
