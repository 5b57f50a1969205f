//! A graph that was accepted once, and that the rules of this operator refuse: another version accepted it.
//!
//! Nothing of it can be decided, so nothing is started; what runs goes on. An edit that is valid mends it (or a template
//! that is), and so does an operator that takes it as it is. Until then it can be cancelled and suspended.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tracing::{info, warn};

use super::{
    Context,
    accept::{AcceptError, Taken, check, identity, read_spec},
    aside, children,
    edit::{self, EDIT_REFUSED},
    pin::pin_next,
    report::{RULES_CHANGED, Verdict},
    rest::{Rest, no_pod_runs},
    revision::Pinned,
    templates::Found,
    view::GraphView,
};
use crate::{
    api::{DesiredState, LABEL_GRAPH_UID, TaskGraphStatus, TaskPhase},
    engine::{
        Plan, Run,
        edit::{abandon, call_off},
        reason,
    },
};

/// What is stored of the graph.
pub struct Stored {
    /// Its status.
    pub status: TaskGraphStatus,
    /// The version of the object that has it.
    pub version: String,
    /// What was accepted.
    pub pinned: Pinned,
}

/// Mends the graph, or does what can be done for it as it is.
pub async fn take_up(ctx: &Context, view: &GraphView, stored: Stored) -> Result<Taken, AcceptError> {
    let why = match valid(ctx, view, &stored).await? {
        Ok((plan, pinned)) => match may_be_replaced(&stored.pinned, &stored.status, &plan, &pinned) {
            Ok(()) => return mend(ctx, view, stored, plan, pinned).await,
            Err(verdict) => return Ok(Taken::Not(verdict)),
        },
        Err(Verdict::Refused(_, why) | Verdict::Waiting(_, why)) => why,
        Err(Verdict::Accepted) => String::new(),
    };
    let message = format!(
        "{why}\nThe graph was accepted by another version of the operator, and is not valid for this one: nothing of it is \
         started, and what runs goes on. Mend the spec, or go back to that version."
    );
    let verdict = Verdict::Refused(RULES_CHANGED, message);
    steer(ctx, view).await?;
    let now = super::now();
    let Stored { mut status, mut version, .. } = stored;
    let mut before = status.clone();
    let writers = view.writers();
    if view.desired_state() == DesiredState::Cancel && call_off(&mut status, writers.of(reason::CANCELLED), now) {
        version = aside::store(ctx, view, &version, &before, &mut status).await?;
        before = status.clone();
    }
    if status.is_cancelled() && status.completion_time.is_none() && stop(ctx, view).await? {
        verdict.write(&mut status, view.generation(), now);
        abandon(&mut status, now);
        aside::store(ctx, view, &version, &before, &mut status).await?;
    }
    Ok(Taken::Not(verdict))
}

/// The spec as it is now, if it is valid: with the templates that the graph began with, or else, since it may be one of
/// those that is refused, with those that there are now. A child graph has only those of its parent.
async fn valid(
    ctx: &Context,
    view: &GraphView,
    stored: &Stored,
) -> Result<Result<(Plan, Pinned), Verdict>, AcceptError> {
    let spec = match read_spec(&view.spec) {
        Ok(spec) => edit::without_past_rerun(spec, stored.status.rerun.as_deref()),
        Err(verdict) => return Ok(Err(verdict)),
    };
    let now = if view.parent().is_some() { Found::default() } else { ctx.templates.of(&spec, view.namespace()) };
    let pinned = stored.pinned.found().or(&now, &spec);
    let refusal = match check(view, spec.clone(), pinned.specs.clone()).await? {
        Ok(plan) => return Ok(Ok((plan, Pinned::new(spec, &pinned)))),
        Err(refusal) => refusal,
    };
    if view.parent().is_none()
        && let Ok(plan) = check(view, spec.clone(), now.specs.clone()).await?
    {
        return Ok(Ok((plan, Pinned::new(spec, &now))));
    }
    Ok(Err(ctx.templates.verdict_of(&refusal)))
}

/// Whether what was accepted may be replaced by `next`.
pub fn may_be_replaced(pinned: &Pinned, status: &TaskGraphStatus, plan: &Plan, next: &Pinned) -> Result<(), Verdict> {
    if pinned.claims() != next.claims() {
        return Err(edit::claims_stay());
    }
    let succeeded =
        |name: &str| status.tasks.iter().any(|task| task.name == name && task.phase == TaskPhase::Succeeded);
    let undone = pinned.tasks().iter().filter(|task| task.compensate.is_some());
    let mut lost = undone.filter(|task| succeeded(&task.name) && plan.graph.find(&task.name).is_none());
    match lost.next().filter(|_| status.completion_time.is_none()) {
        Some(task) => {
            let name = &task.name;
            let message = format!("spec.tasks: task {name:?} Succeeded and has `compensate`: it cannot be removed");
            Err(Verdict::Refused(EDIT_REFUSED, message))
        }
        None => Ok(()),
    }
}

/// Stores the graph as it is by the edit; it is taken up anew from there.
async fn mend(
    ctx: &Context,
    view: &GraphView,
    stored: Stored,
    plan: Plan,
    pinned: Pinned,
) -> Result<Taken, AcceptError> {
    let Stored { mut status, version, .. } = stored;
    let before = status.clone();
    let now: Timestamp = super::now();
    let number = pin_next(ctx, view, &pinned, status.revision_number.max(1)).await?;
    let (run, edited) = Run::mend(plan.graph, plan.settings, (*identity(view)).clone(), &status, view.writers(), now);
    status.revision = Some(Pinned::name(view, number));
    status.revision_number = number;
    status.templates = pinned.told();
    Verdict::Accepted.write(&mut status, view.generation(), now);
    run.write(&mut status, now);
    aside::store(ctx, view, &version, &before, &mut status).await?;
    let summary = edited.summary(usize::from(u8::MAX));
    info!(graph = view.name(), namespace = view.namespace(), revision = number, "mended: {summary}");
    Ok(Taken::Late)
}

/// Child graphs are suspended with the graph, and go on with it.
async fn steer(ctx: &Context, view: &GraphView) -> Result<(), AcceptError> {
    let suspended = view.desired_state() == DesiredState::Suspend;
    for child in ctx.index.children_that_go_on(view.uid()) {
        let Some(wanted) = children::wanted(&child, suspended) else { continue };
        match ctx.hands.cluster.set_desired_state(child.namespace(), child.name(), child.uid(), wanted).await {
            Ok(()) => {}
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            Err(error) => return Err(AcceptError::Call("steer a child graph", error)),
        }
    }
    Ok(())
}

/// Has all that runs stopped; true if nothing does.
async fn stop(ctx: &Context, view: &GraphView) -> Result<bool, AcceptError> {
    let rest = Rest::of(view, ctx);
    if !rest.is_empty() {
        warn!(
            graph = view.name(),
            namespace = view.namespace(),
            "stopping what runs of a graph that is not valid any more"
        );
        rest.stop(&ctx.hands);
        return Ok(false);
    }
    let labels = BTreeMap::from([(LABEL_GRAPH_UID, view.uid())]);
    let gone = no_pod_runs(&ctx.hands.cluster, view.namespace(), &labels, true).await;
    gone.map_err(|error| AcceptError::Call("look for pods", error))
}
