//! The revisions of a graph, in which its spec and templates are pinned: one is stored before anything follows from it, and
//! read again after a restart.

use tracing::warn;

use super::{
    Context,
    accept::{AcceptError, check_current},
    cluster::CallError,
    report::{REVISION_TAKEN, Verdict},
    revision::Pinned,
    view::GraphView,
};
use crate::api::TaskGraphStatus;

/// How many numbers are tried for a revision: each that is taken belongs to an edit that was overtaken.
pub const MAX_TAKEN: u32 = 100;

/// What came of pinning a graph.
pub enum Pin {
    /// This is the first revision: nothing was launched before.
    First,
    /// There was one: the graph has begun.
    Stored(Option<Box<Pinned>>),
}

/// The revision of a graph that has begun.
pub enum Stored {
    /// Still to be read.
    Unread,
    /// It was read; `None`: it is gone.
    Read(Option<Box<Pinned>>),
}

/// Stores a revision of this number, or finds the one that is there.
pub async fn pin(ctx: &Context, view: &GraphView, pinned: &Pinned, number: u32) -> Result<Pin, AcceptError> {
    match ctx.hands.cluster.create_revision(view.namespace(), &pinned.to_object(view, number)).await {
        Ok(_) => Ok(Pin::First),
        Err(error) if error.is_conflict() => {
            let stored = read_revision(ctx, view, &Pinned::name(view, number)).await?;
            Ok(Pin::Stored(stored.map(Box::new)))
        }
        Err(error) => Err(AcceptError::Pin(error)),
    }
}

/// `None`: it is gone or not ours; somebody deleted or replaced it by hand.
async fn read_revision(ctx: &Context, view: &GraphView, name: &str) -> Result<Option<Pinned>, AcceptError> {
    match ctx.hands.cluster.get_revision(view.namespace(), name).await {
        Ok(object) => Ok(Pinned::from_object(&object, view)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(AcceptError::Call("read the graph's ControllerRevision", error)),
    }
}

/// What the graph was accepted with, or edited to last.
pub async fn recall(
    ctx: &Context,
    view: &GraphView,
    stored: Stored,
    status: &TaskGraphStatus,
    number: u32,
) -> Result<Result<Pinned, Verdict>, AcceptError> {
    let stored = match (stored, &status.revision) {
        (Stored::Read(stored), _) => stored.map(|stored| *stored),
        (Stored::Unread, Some(name)) => read_revision(ctx, view, name).await?,
        (Stored::Unread, None) => read_revision(ctx, view, &Pinned::name(view, number)).await?,
    };
    match stored {
        Some(pinned) => Ok(Ok(pinned)),
        None => pin_again(ctx, view, number, status.rerun.as_deref()).await,
    }
}

/// Its revision is gone: the spec as it is now takes its place.
pub async fn pin_again(
    ctx: &Context,
    view: &GraphView,
    number: u32,
    last_rerun: Option<&str>,
) -> Result<Result<Pinned, Verdict>, AcceptError> {
    let pinned = match check_current(ctx, view, last_rerun).await? {
        Ok((_, pinned)) => pinned,
        Err(verdict) => return Ok(Err(verdict)),
    };
    warn!(
        graph = view.name(),
        namespace = view.namespace(),
        "its ControllerRevision is gone; pinning the spec as it is now"
    );
    Ok(match pin(ctx, view, &pinned, number).await? {
        Pin::First => Ok(pinned),
        // another operator was faster: there is one revision
        Pin::Stored(Some(stored)) => Ok(*stored),
        Pin::Stored(None) => Err(foreign_revision(view, number)),
    })
}

fn foreign_revision(view: &GraphView, number: u32) -> Verdict {
    let name = Pinned::name(view, number);
    Verdict::Refused(
        REVISION_TAKEN,
        format!("a ControllerRevision named {name} that is not this graph's stands in its way; delete it"),
    )
}

/// Stores a revision under the first number after `current` that is free, or that has it already.
pub async fn pin_next(ctx: &Context, view: &GraphView, pinned: &Pinned, current: u32) -> Result<u32, AcceptError> {
    let (cluster, namespace) = (&ctx.hands.cluster, view.namespace());
    for number in (1..=MAX_TAKEN).filter_map(|more| current.checked_add(more)) {
        match cluster.create_revision(namespace, &pinned.to_object(view, number)).await {
            Ok(_) => return Ok(number),
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(AcceptError::Pin(error)),
        }
        match cluster.get_revision(namespace, &Pinned::name(view, number)).await {
            Ok(object) if Pinned::from_object(&object, view).as_ref() == Some(pinned) => return Ok(number),
            Ok(_) => {}
            // deleted by the operator that is ahead of this one
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(AcceptError::Call("read the graph's ControllerRevision", error)),
        }
    }
    Err(AcceptError::Pin(CallError::Request(format!("{MAX_TAKEN} numbers of revisions are taken"))))
}
