//! Child graphs: what the parent is told of them, and what it does to them.
//!
//! A child is a graph like any other: it has a session of its own, and its parent looks at nothing but its status.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tracing::{debug, warn};

use super::{
    apply::{Hands, Hold, backoff, borrowed},
    cluster::{CallError, LiveGraph},
    orphans::nothing_is_left,
    view::{ConditionHead, GraphView},
};
use crate::{
    api::{CONDITION_ACCEPTED, CONDITION_COMPLETE, CONDITION_FAILED, CONDITION_STALLED, DesiredState},
    engine::{Attempt, AttemptResult, Blame, Event, Failure},
};

/// The reason of a child graph whose templates are gone with its parent's revision.
pub const PARENT_GONE: &str = "ParentRevisionGone";
/// How often a child that is being stopped is looked at, beside what the watch brings: its end may take an hour.
pub const STOP_LOOK: Duration = Duration::from_secs(15);

/// What is told of an attempt's child graph, as it stands now.
pub fn observe(attempt: Attempt, child: &GraphView, now: Timestamp) -> Vec<Event> {
    let mut events = vec![Event::Launched { attempt, job: child.name().to_owned() }];
    if child.status.revision.is_none() {
        events.extend(not_accepted(attempt, child, now));
        return events;
    }
    events.push(Event::Started { attempt });
    if let Some(progress) = child.status.progress.clone() {
        events.push(Event::Progress { attempt, progress });
    }
    if let Some(time) = child.completion_time() {
        events.push(Event::Finished { attempt, result: result(child), time });
        events.push(Event::Gone { attempt });
    }
    events
}

fn not_accepted(attempt: Attempt, child: &GraphView, now: Timestamp) -> Option<Event> {
    // what else stands in its way, somebody may take out of it
    let for_good = |one: &&ConditionHead| ["Invalid", PARENT_GONE].contains(&&*one.reason);
    if let Some(refused) = child.holds(CONDITION_STALLED).filter(for_good) {
        let message = Some(format!("the child graph was refused: {}", refused.message));
        let failure = Failure { reason: "ChildRefused".into(), message, exit_code: None, blame: Blame::Final };
        return Some(Event::Finished { attempt, result: AttemptResult::Failed(failure), time: now });
    }
    let not_accepted = |one: &&ConditionHead| one.type_ == CONDITION_ACCEPTED && one.status == "False";
    let waits = child.status.conditions.iter().find(not_accepted)?;
    Some(Event::Blocked { attempt, reason: waits.reason.clone(), message: waits.message.clone(), cluster: true })
}

/// How a finished child ended: what it returned, or the reason and message of its failure.
fn result(child: &GraphView) -> AttemptResult {
    if child.holds(CONDITION_COMPLETE).is_some() {
        return AttemptResult::Succeeded { outputs: child.status.outputs.clone(), message: None };
    }
    let (reason, message) = child
        .holds(CONDITION_FAILED)
        .map_or(("ChildFailed", None), |failed| (failed.reason.as_str(), Some(failed.message.clone())));
    AttemptResult::Failed(Failure { reason: reason.to_owned(), message, exit_code: None, blame: Blame::Task })
}

/// Whether a child may still run something.
pub fn goes_on(child: &GraphView) -> bool {
    child.completion_time().is_none() && child.metadata.deletion_timestamp.is_none()
}

/// What a child is to be told so that it stands as its parent does; `None` if it does. A cancel cannot be taken back.
pub fn wanted(child: &GraphView, suspended: bool) -> Option<DesiredState> {
    let wanted = if suspended { DesiredState::Suspend } else { DesiredState::Run };
    let now = child.desired_state();
    (goes_on(child) && now != DesiredState::Cancel && now != wanted).then_some(wanted)
}

/// One look at a child that is to end. True: it has, or is gone.
async fn try_stop(
    hands: &Hands,
    namespace: &str,
    name: &str,
    ours: impl Fn(&LiveGraph) -> bool,
) -> Result<bool, CallError> {
    let child = match hands.cluster.get_graph(namespace, name).await {
        Ok(child) if ours(&child) => child,
        // somebody else's: ours is gone
        Ok(_) => return Ok(true),
        Err(error) if error.is_not_found() => return nothing_is_left(&hands.cluster, namespace, name).await,
        Err(error) => return Err(error),
    };
    let uid = child.metadata.uid.clone().unwrap_or_default();
    if child.is_finished() {
        return Ok(true);
    }
    if child.metadata.deletion_timestamp.is_none() {
        if !child.has_begun() {
            // there is nothing to call off, and one that is refused would never come to an end
            hands.cluster.delete_child(namespace, name, &uid).await?;
        } else if child.spec.desired_state() != DesiredState::Cancel {
            hands.cluster.set_desired_state(namespace, name, &uid, DesiredState::Cancel).await?;
        }
    }
    Ok(false)
}

impl Hold {
    /// Calls the child off. True: it is final, or gone.
    pub(super) async fn try_stop_child(&self) -> Result<bool, CallError> {
        self.try_stop_child_named(&self.job).await
    }

    /// As [`Self::try_stop_child`], of the child graph of an item.
    pub(super) async fn try_stop_child_named(&self, name: &str) -> Result<bool, CallError> {
        try_stop(&self.hands, &self.identity.namespace, name, |child| self.is_ours(&child.metadata)).await
    }

    /// The names of the attempt's child graphs that are not final.
    pub(super) async fn children_that_go_on(&self) -> Result<Vec<String>, CallError> {
        let labels = self.labels();
        let children = self.hands.cluster.list_graphs(&self.identity.namespace, &borrowed(&labels)).await?;
        let going = children.into_iter().filter(|child| self.is_ours(&child.metadata) && !child.is_finished());
        Ok(going.filter_map(|child| child.metadata.name).collect())
    }

    /// Whether the child is final or gone.
    pub(super) async fn child_gone(&self) -> Result<bool, CallError> {
        let namespace = &self.identity.namespace;
        if self.may_have_items() && !self.children_that_go_on().await?.is_empty() {
            return Ok(false);
        }
        match self.hands.cluster.get_graph(namespace, &self.job).await {
            Ok(child) => Ok(child.is_finished() || !self.is_ours(&child.metadata)),
            Err(error) if error.is_not_found() => nothing_is_left(&self.hands.cluster, namespace, &self.job).await,
            Err(error) => Err(error),
        }
    }

    /// Suspends or resumes the child with its parent. Gives up where the API server says no: the child was cancelled
    /// or deleted meanwhile.
    pub(super) async fn steer(self, uid: String, wanted: DesiredState) {
        let namespace = &self.identity.namespace;
        for pause in backoff() {
            if !self.may_act() {
                return;
            }
            match self.hands.cluster.set_desired_state(namespace, &self.job, &uid, wanted).await {
                Ok(()) => return,
                Err(error) if error.code().is_some_and(|code| (400..429).contains(&code)) => {
                    return debug!(graph = self.job, namespace, %error, "the child graph takes no {wanted:?}");
                }
                Err(error) => self.failed_call(&error, "telling a child graph what its parent is told"),
            }
            self.pause(pause).await;
        }
    }
}

impl Hands {
    /// Calls off a child whose parent is finished. Gives up in the end: whoever sees it again asks again.
    pub async fn retire(self: Arc<Self>, child: Arc<GraphView>) {
        let (namespace, name, uid) = (child.namespace(), child.name(), child.uid());
        warn!(graph = name, namespace, "calling off a child graph whose parent is finished");
        let call_off = || async {
            let live = self.cluster.get_graph(namespace, name).await?;
            let ours = live.metadata.uid.as_deref() == Some(uid) && live.spec.desired_state() != DesiredState::Cancel;
            if !ours || live.is_finished() {
                return Ok(());
            }
            try_stop(&self, namespace, name, |live| live.metadata.uid.as_deref() == Some(uid)).await.map(|_| ())
        };
        self.insist(call_off, |error| debug!(graph = name, %error, "calling off a child graph")).await;
    }
}

#[cfg(test)]
mod tests;
