//! Stores the status: at once where it matters, otherwise every half second or, of a large graph, every few; never two
//! writes at a time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde_json::Value;
use tracing::{debug, warn};

use super::{
    apply::Hands,
    cluster::{CallError, LiveGraph},
    registry::{Mailbox, Note, StoreError},
    view::GraphView,
};
use crate::{
    api::{CONDITION_ACCEPTED, CONDITION_RECONCILING, CONDITION_STALLED, Condition, TaskGraphStatus},
    engine::Problem,
};

/// The least time between two writes of a busy graph: each costs the API server and etcd the whole object.
const INTERVAL: Duration = Duration::from_millis(500);
/// The most: people look at large graphs, too.
const MAX_INTERVAL: Duration = Duration::from_secs(5);
/// Writing takes at most one part in so many of the time, since the API server has better to do for the same graph:
/// each write of 500 tasks costs it as much as running two of them.
const SHARE: u32 = 20;
/// Messages are cut to this: the API server takes 32 KiB.
const MESSAGE_BYTES: usize = 16 * 1024;

/// Whether a spec was accepted, for the conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was.
    Accepted,
    /// The user must mend it. A reason, and what to do.
    Refused(&'static str, String),
    /// It waits for something. A reason, and for what.
    Waiting(&'static str, String),
}

/// The reason of a graph whose place for its revision is taken by another object.
pub const REVISION_TAKEN: &str = "RevisionTaken";

/// The reason of a graph of which the cluster does not take the revision.
pub const REVISION_REFUSED: &str = "RevisionRefused";

/// The reason of a graph that was accepted by another version of the operator, and is not valid for this one.
pub const RULES_CHANGED: &str = "RulesChanged";

/// The reason of a graph of which the cluster does not take a claim.
pub const VOLUME_REFUSED: &str = "VolumeRefused";
/// The reason of a graph the place for whose claim is taken by another object.
pub const VOLUME_TAKEN: &str = "VolumeTaken";

impl Verdict {
    /// Whether it speaks of something in the cluster that somebody must mend, and that is not watched; or what runs of
    /// the graph may have to be stopped.
    pub fn in_the_way(&self) -> bool {
        let (Self::Refused(reason, _) | Self::Waiting(reason, _)) = self else { return false };
        [REVISION_REFUSED, REVISION_TAKEN, RULES_CHANGED, VOLUME_REFUSED, VOLUME_TAKEN].contains(reason)
    }

    /// What stands in the way, a problem for each line of the message.
    pub fn problems(&self) -> Vec<Problem> {
        let (Self::Refused(_, message) | Self::Waiting(_, message)) = self else { return Vec::new() };
        let problem = |line: &str| match line.split_once(": ") {
            Some((path, message)) if path.starts_with("spec") || path.starts_with("metadata") => {
                Problem { path: path.to_owned(), message: message.to_owned() }
            }
            _ => Problem { path: "spec".to_owned(), message: line.to_owned() },
        };
        message.lines().map(problem).collect()
    }

    /// Writes the conditions `Accepted`, `Reconciling` and `Stalled` for a generation of the spec.
    pub fn write(&self, status: &mut TaskGraphStatus, generation: i64, now: Timestamp) {
        let (accepted, reason, message) = match self {
            Self::Accepted => (true, "Accepted", "The graph is valid; its templates are pinned."),
            Self::Refused(reason, message) | Self::Waiting(reason, message) => (false, *reason, message.as_str()),
        };
        let word = |truth: bool| if truth { "True" } else { "False" };
        for (type_, truth) in [
            (CONDITION_ACCEPTED, accepted),
            (CONDITION_RECONCILING, matches!(self, Self::Waiting(..))),
            (CONDITION_STALLED, matches!(self, Self::Refused(..))),
        ] {
            let condition = Condition {
                type_: type_.into(),
                status: word(truth).into(),
                observed_generation: Some(generation),
                last_transition_time: now,
                reason: reason.into(),
                message: cut(message).to_owned(),
            };
            condition.put_into(&mut status.conditions);
        }
        status.observed_generation = Some(generation);
    }
}

/// A message, cut between characters.
pub fn cut(message: &str) -> &str {
    &message[..message.floor_char_boundary(MESSAGE_BYTES)]
}

/// The status of one graph: what is stored, and what is to be.
#[derive(Debug)]
pub struct Report {
    /// The status as it should stand, but for what the run knows better.
    pub status: TaskGraphStatus,
    /// Generation of the spec that `verdict` speaks of.
    pub generation: i64,
    /// Whether that generation was accepted.
    pub verdict: Verdict,
    /// Something changed since the last write was begun.
    pub dirty: bool,
    /// Sequence of the run that is stored.
    pub stored: u64,
    resource_version: String,
    storing: bool,
    last: Option<Instant>,
    /// How long to wait after a write began, by how long the last one took.
    interval: Duration,
    failures: u32,
}

/// How many conflicts a write settles at once, before it is tried again later.
const MAX_CONFLICTS: u32 = 4;

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The status is stored.
    Stored,
    /// It is not; it is tried again.
    Failed,
    /// This session is out of date.
    OutOfDate,
}

/// What a report needs of the graph.
pub struct Storing<'a> {
    /// What all graphs share.
    pub hands: &'a Arc<Hands>,
    /// Where the answer goes.
    pub mailbox: &'a Mailbox,
    /// The graph.
    pub view: &'a GraphView,
}

impl Report {
    /// A report that begins with a stored status.
    pub fn new(status: TaskGraphStatus, resource_version: String, generation: i64) -> Self {
        Self {
            stored: status.sequence,
            status,
            generation,
            verdict: Verdict::Accepted,
            dirty: true,
            resource_version,
            storing: false,
            last: None,
            interval: INTERVAL,
            failures: 0,
        }
    }

    /// When the next write may begin; `None` while there is nothing to write or a write is under way.
    pub fn due(&self, urgent: bool) -> Option<Instant> {
        if !self.dirty || self.storing {
            return None;
        }
        let Some(last) = self.last else { return Some(Instant::now()) };
        let pause = match (self.failures, urgent) {
            (0, true) => Duration::ZERO,
            (0, false) => self.interval,
            (n, _) => Duration::from_millis(100 << n.min(6)),
        };
        Some(last + pause)
    }

    /// Begins a write of `self.status`, as of the run's `sequence`.
    pub fn store(&mut self, sequence: u64, to: &Storing<'_>) {
        self.dirty = false;
        self.storing = true;
        self.last = Some(Instant::now());
        let (mailbox, target) = (to.mailbox.clone(), self.write_of(to.hands, to.view));
        let status = serde_json::to_value(&self.status);
        to.hands.spawn(async move {
            let result = match status {
                Ok(status) => write(target, status).await,
                Err(error) => Err(StoreError::Failed(CallError::Request(error.to_string()))),
            };
            mailbox.post(Note::Stored(sequence, result));
        });
    }

    /// Takes the answer of a write.
    pub fn on_stored(&mut self, sequence: u64, result: Result<String, StoreError>, view: &GraphView) -> Answer {
        self.storing = false;
        match result {
            Ok(resource_version) => {
                let took = self.last.map(|last| last.elapsed()).unwrap_or_default();
                debug!(graph = view.name(), namespace = view.namespace(), ?took, "the status is stored");
                self.interval = (took * SHARE).clamp(INTERVAL, MAX_INTERVAL);
                self.resource_version = resource_version;
                self.stored = sequence;
                self.failures = 0;
                Answer::Stored
            }
            Err(StoreError::Overtaken | StoreError::Deleted) => Answer::OutOfDate,
            Err(StoreError::Failed(error)) => {
                warn!(graph = view.name(), namespace = view.namespace(), %error, "the status could not be stored");
                self.dirty = true;
                self.failures += 1;
                Answer::Failed
            }
        }
    }

    /// Whether a write is under way.
    pub fn is_storing(&self) -> bool {
        self.storing
    }

    /// A write of this graph's status.
    pub fn write_of(&self, hands: &Arc<Hands>, view: &GraphView) -> Write {
        Write {
            hands: Arc::clone(hands),
            namespace: view.namespace().to_owned(),
            name: view.name().to_owned(),
            uid: view.uid().to_owned(),
            resource_version: self.resource_version.clone(),
            stored: self.stored,
        }
    }

    /// Whether all of the run up to `sequence` is stored.
    pub fn is_settled(&self, sequence: u64) -> bool {
        !self.dirty && !self.storing && self.stored >= sequence
    }
}

/// Where a status is written to, and in the place of which.
#[derive(Debug)]
pub struct Write {
    hands: Arc<Hands>,
    namespace: String,
    name: String,
    uid: String,
    resource_version: String,
    /// Sequence of the status that stands there.
    stored: u64,
}

/// Writes a status. A conflict with an edit of the spec is settled here; one with another status is not, unless it is
/// the very same: then an answer was lost. Where each try meets a conflict, it has failed, as by any other error.
pub async fn write(to: Write, status: Value) -> Result<String, StoreError> {
    let Write { hands, namespace, name, uid, mut resource_version, stored } = to;
    let (namespace, name) = (namespace.as_str(), name.as_str());
    let mut conflicts = 0;
    loop {
        if !hands.leadership.holds() {
            return Err(StoreError::Overtaken);
        }
        hands.metrics.status_writes.inc();
        match hands.cluster.put_status(namespace, name, &resource_version, status.clone()).await {
            Ok(new) => return Ok(new),
            Err(error) if error.is_not_found() => return Err(StoreError::Deleted),
            Err(error) if error.is_conflict() && conflicts < MAX_CONFLICTS => {
                conflicts += 1;
                debug!(graph = name, namespace, "status conflict; reading the graph anew");
                let live = hands.cluster.get_graph(namespace, name).await.map_err(StoreError::Failed)?;
                if live.metadata.uid.as_ref() != Some(&uid) {
                    return Err(StoreError::Deleted);
                }
                if sequence_of(&live) != stored && live.status == status {
                    return Ok(live.metadata.resource_version.unwrap_or_default());
                }
                if sequence_of(&live) != stored {
                    return Err(StoreError::Overtaken);
                }
                resource_version = live.metadata.resource_version.unwrap_or_default();
            }
            Err(error) => return Err(StoreError::Failed(error)),
        }
    }
}

fn sequence_of(live: &LiveGraph) -> u64 {
    live.status.get("sequence").and_then(Value::as_u64).unwrap_or_default()
}
