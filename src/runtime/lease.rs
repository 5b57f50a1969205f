//! The Lease that tells replicas which of them works.
//!
//! It spares the API server double work and keeps logs readable. Nothing is unsafe without it: two
//! operators at once create no Job twice.
//!
//! Clocks of machines are never compared. A holder counts its validity from the moment *before* it
//! sent its last renewal, on its own monotonic clock; others count from the moment *after* they
//! first saw the record as it is. So a holder stops before another starts, whatever the wall
//! clocks say, and stops in time after it was frozen (SIGSTOP), as its clock went on meanwhile.
//! Every write carries the resourceVersion that was read: of two that want the Lease one gets it.
//!
//! Who stands by watches the Lease, so that it sees at once that it was given back, and knows to
//! the moment when it was last renewed. Where the watch is refused or breaks, it reads the Lease
//! now and then instead.

mod elector;
mod record;

use std::{
    future::poll_fn,
    pin::pin,
    task::Poll,
    time::{Duration, Instant},
};

use tokio::sync::watch;

pub use self::elector::{Elector, elect};

/// Which Lease, and for whom.
#[derive(Clone, Debug)]
pub struct Config {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Shard of the graphs that its holder works on.
    pub shard: u64,
    /// Name of this process; no two share one.
    pub identity: String,
    /// How long a record stands without being renewed; whole seconds.
    pub duration: Duration,
}

impl Config {
    /// Name of the Lease.
    pub fn name(&self) -> String {
        format!("taskgraph-shard-{}", self.shard)
    }

    /// How often the record is renewed by its holder and read by the others.
    fn period(&self) -> Duration {
        self.duration / 5
    }

    /// How long a renewal is good for its holder. What is missing to `duration` is time to finish
    /// writes that are under way, before another takes over.
    fn validity(&self) -> Duration {
        self.duration * 2 / 3
    }

    /// Limit of each call: two more tries fit into the validity after one that hangs.
    fn call_timeout(&self) -> Duration {
        self.duration / 5
    }
}

/// Whether this replica works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Another does, or nobody.
    Standby,
    /// This one does.
    Leading {
        /// Counts the times that this process took the Lease, from 1. A process that lost it and
        /// took it again between two looks is told by this.
        term: u64,
        /// Until when, unless renewed.
        until: Instant,
    },
}

impl State {
    /// The term, if it has not run out.
    fn term(self) -> Option<u64> {
        match self {
            Self::Leading { term, until } if Instant::now() < until => Some(term),
            _ => None,
        }
    }
}

/// Waits until a term runs out that is not renewed; for ever on standby.
async fn expiry(state: State) {
    match state {
        State::Leading { until, .. } => tokio::time::sleep_until(until.into()).await,
        State::Standby => std::future::pending().await,
    }
}

/// What the rest of the operator sees of the Lease. Clones share it.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<State>);

impl Leadership {
    /// Of what never works: it may read.
    pub fn never() -> Self {
        Self(watch::channel(State::Standby).1)
    }

    /// Whether this replica may work now. Turns false by itself when the Lease could not be
    /// renewed in time; ask before each write.
    pub fn holds(&self) -> bool {
        self.term().is_some()
    }

    /// The term in which this replica may work now.
    pub fn term(&self) -> Option<u64> {
        self.0.borrow().term()
    }

    /// Waits until the term is not `term` any more (`None`: this replica stands by), and gives the
    /// new one. Never returns on standby when the elector has ended.
    pub async fn changed(&self, term: Option<u64>) -> Option<u64> {
        let mut states = self.0.clone();
        loop {
            let state = *states.borrow_and_update();
            let now = state.term();
            if now != term {
                return now;
            }
            tokio::select! {
                changed = states.changed() => if changed.is_err() {
                    // the elector has ended, and renews nothing any more
                    expiry(state).await;
                },
                () = expiry(state) => {}
            }
        }
    }

    /// Does `work` as long as the term lasts in which it was begun. `None`: there is none, or it ended first; what
    /// was sent by then may have been carried out.
    pub async fn fence<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let term = self.term()?;
        let (mut lost, mut work) = (pin!(self.changed(Some(term))), pin!(work));
        poll_fn(|context| {
            // asked each time: a process that was stopped for a while may come here before its timers fire
            if self.term() != Some(term) || lost.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
            work.as_mut().poll(context).map(Some)
        })
        .await
    }
}

#[cfg(test)]
mod tests;
