//! Follows the spec of a graph that runs or has finished: settings count at once; an edit and a rerun are carried out
//! on the status and stored, and the graph is begun anew from there.
//!
//! | crash after | what the next look finds |
//! |---|---|
//! | the revision was created | a spec that differs from the revision that the status names: the same edit, whose revision exists |
//! | the status was stored | the edited graph |
//!
//! The status names the revision that it was made for, so the two can never be of different edits.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde_json::Value;
use tracing::{info, warn};

use super::{
    Context,
    accept::{AcceptError, check, read_spec},
    apply::Hands,
    cluster::CallError,
    pin::{MAX_TAKEN, pin_next},
    registry::StoreError,
    report::{self, Verdict},
    revision::{self, Pinned},
    session::Session,
    view::GraphView,
};
use crate::{
    api::{DesiredState, LABEL_GRAPH_UID, Rerun, TaskGraphSpec, TaskGraphStatus},
    engine::{Plan, Problem, Run, Settings, policy::waiting::approvals},
};

/// How long until an edit is tried again that the cluster did not take: the first time, doubled each time,
const EDIT_SOON: Duration = Duration::from_millis(100);
/// and at most. At once so long, if somebody must mend something first.
const EDIT_AGAIN: Duration = Duration::from_secs(5);
/// How many revisions stay.
const KEPT_REVISIONS: u32 = 10;

/// The reason of an edit that is valid for itself, and not for the graph as it runs.
pub const EDIT_REFUSED: &str = "EditRefused";
/// The reason of an edit that waits until what the graph did is undone.
const COMPENSATING: &str = "Compensating";

/// What is to be done to a graph, its spec having been found valid.
#[derive(Debug)]
pub struct Pending {
    generation: i64,
    plan: Plan,
    /// The spec and its templates, where tasks differ from those that run.
    edit: Option<Pinned>,
    /// Where its id is a new one.
    rerun: Option<Rerun>,
}

/// What came of following the spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    /// The session goes on.
    On,
    /// The graph is another one now, and that is stored: begin anew.
    Anew,
}

/// Follows the spec as far as it was not followed yet.
pub async fn follow(ctx: &Context, session: &mut Session, view: &GraphView) -> Result<Followed, AcceptError> {
    let templates = ctx.templates.version();
    let may_go_on = match session.report.verdict {
        Verdict::Waiting(COMPENSATING, _) => !session.run.is_undoing(),
        Verdict::Waiting(EDIT_REFUSED, _) => session.run.is_finished(),
        Verdict::Waiting(..) => session.templates != templates,
        Verdict::Accepted | Verdict::Refused(..) => false,
    };
    let is_due = session.postponed.is_some_and(|at| at <= Instant::now());
    if session.followed != Some(view.generation()) || may_go_on || is_due {
        session.pending = None;
        session.postponed = None;
        look_at(ctx, session, view).await?;
        session.followed = Some(view.generation());
        session.templates = templates;
    }
    // the first turn takes in Jobs of which the status does not tell; two writes at a time would overtake each other
    if !session.has_turned || session.report.is_storing() {
        return Ok(Followed::On);
    }
    match session.pending.take() {
        Some(pending) => match carry_out(ctx, session, view, *pending).await {
            Ok(()) => Ok(Followed::Anew),
            Err(error) => {
                // the cluster does not take the edit: what runs goes on without it
                let soon = (session.edit_pause * 2).clamp(EDIT_SOON, EDIT_AGAIN);
                session.edit_pause = if error.verdict().is_some() { EDIT_AGAIN } else { soon };
                session.postponed = Some(Instant::now() + session.edit_pause);
                warn!(graph = view.name(), namespace = view.namespace(), %error, pause = ?session.edit_pause, "the edit waits");
                if let Some(verdict) = error.verdict() {
                    session.tell_verdict(verdict, view.generation());
                }
                Ok(Followed::On)
            }
        },
        None => Ok(Followed::On),
    }
}

/// Reads and checks the spec; takes its settings, and notes what else there is to do.
async fn look_at(ctx: &Context, session: &mut Session, view: &GraphView) -> Result<(), AcceptError> {
    session.run.set_writers(view.writers());
    let spec = match read_spec(&view.spec) {
        Ok(spec) => without_past_rerun(spec, session.run.last_rerun()),
        Err(verdict) => {
            let desired: Option<DesiredState> =
                view.spec.get("desiredState").cloned().and_then(|state| serde_json::from_value(state).ok());
            let settings = session.run.settings().clone();
            let desired_state = desired.unwrap_or(settings.desired_state);
            refuse(session, view, Settings { desired_state, ..settings }, verdict);
            return Ok(());
        }
    };
    // noted before the templates are read: one that comes in between must not be missed
    ctx.templates.set_waiting(view, true);
    // those that are pinned stay what they were, others are taken as they are now
    let templates = session.pinned.found().or(&ctx.templates.of(&spec, view.namespace()), &spec);
    let next = Pinned::new(spec.clone(), &templates);
    let verdict = match check(view, spec.clone(), templates.specs).await {
        Ok(Ok(plan)) => match judge(&session.run, &session.pinned, &next, &plan) {
            Ok((edited, rerun)) => {
                ctx.templates.set_waiting(view, false);
                take(session, view, plan, edited.then_some(next), rerun);
                return Ok(());
            }
            Err(verdict) => {
                ctx.templates.set_waiting(view, false);
                // the graph goes on as it was accepted
                session.run.set_settings(plan.settings);
                session.run.set_on_hold(false);
                session.tell_verdict(verdict, view.generation());
                return Ok(());
            }
        },
        Ok(Err(refusal)) => ctx.templates.verdict_of(&refusal),
        // what runs goes on all the same
        Err(error) => Verdict::Refused("CheckFailed", format!("{error}; this is a defect of the operator")),
    };
    ctx.templates.set_waiting(view, matches!(verdict, Verdict::Waiting(..)));
    // a spec that is refused must not keep a graph from being called off, nor a task from being approved
    let desired_state = spec.desired_state.unwrap_or_default();
    let approvals = Arc::new(approvals(&spec.approvals));
    let settings = Settings { desired_state, approvals, ..session.run.settings().clone() };
    refuse(session, view, settings, verdict);
    Ok(())
}

/// The spec without a rerun that was acted on: it may name tasks that were removed since.
pub fn without_past_rerun(mut spec: TaskGraphSpec, last: Option<&str>) -> TaskGraphSpec {
    spec.rerun.take_if(|rerun| Some(rerun.id.as_str()) == last);
    spec
}

/// A valid spec, [`without_past_rerun`], against the graph as it runs: whether its tasks differ, and which rerun it asks
/// for. `pinned`: what it was accepted with.
pub fn judge(run: &Run, pinned: &Pinned, next: &Pinned, plan: &Plan) -> Result<(bool, Option<Rerun>), Verdict> {
    let spec = &next.spec;
    let rerun = spec.rerun.clone();
    if rerun.is_some() && (run.is_cancelled() || plan.settings.desired_state == DesiredState::Cancel) {
        let message = "spec.rerun: the graph was cancelled, and a cancel cannot be taken back: make a new graph";
        return Err(Verdict::Refused("RerunRefused", message.to_owned()));
    }
    let edited = pinned.differs_from(spec);
    if (edited || rerun.is_some()) && run.is_undoing() {
        let message = "the graph undoes what it did; it is edited when it has finished";
        return Err(Verdict::Waiting(COMPENSATING, message.to_owned()));
    }
    if pinned.claims() != next.claims() {
        return Err(claims_stay());
    }
    if !edited {
        return Ok((edited, rerun));
    }
    let text = |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let (problems, waits) = (run.edit_problems(&plan.graph), run.edit_waits(&plan.graph));
    if !problems.is_empty() {
        Err(Verdict::Refused(EDIT_REFUSED, text(problems)))
    } else if !waits.is_empty() {
        Err(Verdict::Waiting(EDIT_REFUSED, text(waits)))
    } else {
        Ok((edited, rerun))
    }
}

/// What an edit of the claims comes to.
pub fn claims_stay() -> Verdict {
    let message = "spec.volumeClaimTemplates: stay as they were when the graph was accepted: take the change back";
    Verdict::Refused(EDIT_REFUSED, message.to_owned())
}

/// Takes what a valid spec says.
fn take(session: &mut Session, view: &GraphView, plan: Plan, edit: Option<Pinned>, rerun: Option<Rerun>) {
    session.run.set_settings(plan.settings.clone());
    let is_pending = edit.is_some() || rerun.is_some();
    // tasks that are to be others must not start as what they were
    session.run.set_on_hold(is_pending);
    if is_pending {
        session.pending = Some(Box::new(Pending { generation: view.generation(), plan, edit, rerun }));
    } else {
        session.tell_verdict(Verdict::Accepted, view.generation());
    }
}

/// Nothing new is started, and what runs goes on.
fn refuse(session: &mut Session, view: &GraphView, settings: Settings, verdict: Verdict) {
    session.run.set_settings(settings);
    session.run.set_on_hold(true);
    session.tell_verdict(verdict, view.generation());
}

/// Carries out what is pending, and stores it.
async fn carry_out(ctx: &Context, session: &Session, view: &GraphView, pending: Pending) -> Result<(), AcceptError> {
    let now = super::now();
    let mut status = session.report.status.clone();
    ctx.courier.begin(view, &status);
    session.run.write(&mut status, now);
    let before = status.clone();
    // the session's own run stays as it is: it ends with the session, which may have to be begun anew without an edit
    let mut run = Run::restore(
        Arc::clone(session.run.graph()),
        session.run.settings().clone(),
        (*session.identity).clone(),
        &status,
    );
    run.set_writers(view.writers());
    if let Some(pinned) = &pending.edit {
        let number = pin_next(ctx, view, pinned, status.revision_number.max(1)).await?;
        status.revision = Some(Pinned::name(view, number));
        status.revision_number = number;
        status.templates = pinned.told();
        let edited = run.edit(pending.plan.graph, pending.plan.settings, now);
        let summary = edited.summary(usize::from(u8::MAX));
        info!(graph = view.name(), namespace = view.namespace(), revision = number, "edited: {summary}");
    }
    if let Some(rerun) = &pending.rerun {
        let tasks = run.rerun(rerun, now);
        info!(graph = view.name(), namespace = view.namespace(), id = rerun.id, tasks, "rerun");
    }
    Verdict::Accepted.write(&mut status, pending.generation, now);
    run.write(&mut status, now);
    status.cloud_events = ctx.courier.owed(view, &status);
    if store(session, view, &status).await? {
        ctx.courier.superseded(view, &before);
        // of a task that starts afresh nobody could tell later
        session.tell_all(&ctx.recorder, view);
        session.trace_stored(&before, view);
    }
    if pending.edit.is_some() {
        // those with higher numbers are of edits that come, or that were overtaken
        let current = status.revision_number;
        let numbers = current.saturating_sub(KEPT_REVISIONS - 1)..=current.saturating_add(MAX_TAKEN);
        let kept = numbers.map(|number| Some(Pinned::name(view, number))).collect();
        ctx.hands.spawn(prune(Arc::clone(&ctx.hands), view.namespace().to_owned(), view.uid().to_owned(), kept));
    }
    Ok(())
}

/// Stores the edited status. False: somebody else was faster; the next look finds what he has stored.
async fn store(session: &Session, view: &GraphView, status: &TaskGraphStatus) -> Result<bool, AcceptError> {
    let failed = |error| AcceptError::Call("store the edited status", error);
    let value: Value = serde_json::to_value(status).map_err(|error| failed(CallError::Request(error.to_string())))?;
    match report::write(session.report.write_of(session.hands(), view), value).await {
        Ok(_) => Ok(true),
        Err(StoreError::Overtaken | StoreError::Deleted) => Ok(false),
        Err(StoreError::Failed(error)) => Err(failed(error)),
    }
}

/// Deletes old revisions. What fails is tried again after the next edit.
async fn prune(hands: Arc<Hands>, namespace: String, uid: String, kept: Vec<Option<String>>) {
    let revisions = match hands.cluster.list_revisions(Some(&namespace), (LABEL_GRAPH_UID, &uid)).await {
        Ok(revisions) => revisions,
        Err(error) => return warn!(namespace, %error, "old revisions could not be listed"),
    };
    for revision in
        revisions.iter().filter(|one| revision::is_of(&one.metadata, &uid) && !kept.contains(&one.metadata.name))
    {
        let name = revision.metadata.name.as_deref().unwrap_or_default();
        let uid = revision.metadata.uid.as_deref().unwrap_or_default();
        if hands.leadership.holds()
            && let Err(error) = hands.cluster.delete_revision(&namespace, name, uid).await
            && !error.is_not_found()
        {
            warn!(namespace, revision = name, %error, "an old revision could not be deleted");
        }
    }
}

/// Whether a graph that finished must be looked at again: it was edited since, or restored, or an edit of it
/// waits for something.
pub fn is_open(view: &GraphView) -> bool {
    view.status.observed_generation != Some(view.generation()) || view.waits() || view.has_status_of_another()
}

/// When a graph that was not edited since finished. `None`: it did not, or there is more to do.
pub fn finished(view: &GraphView) -> Option<Timestamp> {
    view.completion_time().filter(|_| !is_open(view))
}
