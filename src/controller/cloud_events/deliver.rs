//! Sends what there is to tell: of each graph in order, of several at once; later, where the sink does not take it.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use futures::FutureExt as _;
use tokio::{
    sync::{Mutex, Notify, mpsc::UnboundedReceiver},
    task::JoinSet,
};
use tracing::{debug, error, info, warn};

use super::{
    desk::{Desk, Origin, Outcome, Place},
    event::Event,
    render::render,
};
use crate::{
    api::TaskGraphStatus,
    controller::{
        accept,
        cluster::{CallError, Cluster},
    },
    runtime::{
        health::{Fault, Health},
        lease::Leadership,
        metrics::DropLabel,
        seldom::Seldom,
        sink::{Outlet, SinkError},
    },
};

/// Graphs told of at once.
const GRAPHS: usize = 16;
/// Events of one graph before others have their turn.
const TURN: usize = 256;
/// The pause after the first failure; doubled with each round, up to [`LONGEST`].
const PAUSE: Duration = Duration::from_millis(250);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(30);
/// After so many rounds in a row the sink is away, and nothing is kept for it that can be read again. Not before: of a sink
/// that fails now and then, what it took would be forgotten, and all be sent again, for ever.
const AWAY: u32 = 4;
/// What `/readyz` and `/status` call it.
const PART: &str = "CloudEvents";
/// How often the backlog is measured.
const MEASURE: Duration = Duration::from_secs(2);

/// Sends.
#[derive(Debug)]
pub struct Deliverer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    outlet: Outlet,
    desk: Arc<Desk>,
    queue: Mutex<UnboundedReceiver<Arc<Place>>>,
    cluster: Cluster,
    leadership: Leadership,
    /// Rounds in a row in which nothing was taken.
    failures: AtomicU32,
    /// Something was taken again.
    well: Notify,
    /// Whom the operator's health is told to.
    health: Health,
    /// The log tells that something is not taken,
    failing: Seldom,
    /// or refused.
    refusing: Seldom,
}

/// What stopped a look at a graph.
enum Stop {
    /// The sink, or the API server, did not take something.
    Failed,
    /// There is nothing more to do here.
    Over,
}

impl Deliverer {
    /// Sends what comes out of `queue` to `outlet`.
    pub fn new(
        outlet: Outlet,
        desk: Arc<Desk>,
        queue: UnboundedReceiver<Arc<Place>>,
        cluster: Cluster,
        leadership: Leadership,
        health: Health,
    ) -> Self {
        let (queue, failures, well) = (Mutex::new(queue), AtomicU32::new(0), Notify::new());
        let (failing, refusing) = (Seldom::default(), Seldom::default());
        Self(Arc::new(Inner { outlet, desk, queue, cluster, leadership, failures, well, health, failing, refusing }))
    }

    /// Runs until it is dropped.
    pub async fn run(self) {
        let mut workers = JoinSet::new();
        for _ in 0..GRAPHS {
            workers.spawn(Arc::clone(&self.0).work());
        }
        workers.spawn(self.0.measure());
        while let Some(ended) = workers.join_next().await {
            // whoever runs this tells that it is broken
            if let Err(error) = ended
                && let Ok(panic) = error.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

impl Inner {
    async fn work(self: Arc<Self>) {
        loop {
            let next = self.queue.lock().await.recv().await;
            let Some(place) = next else { return };
            // only now: workers that waited for a graph know nothing of what failed meanwhile
            let round = if place.has_ended() { 0 } else { self.rest().await };
            Desk::take(&place);
            let outcome = match AssertUnwindSafe(self.tell(&place)).catch_unwind().await {
                Err(_) => {
                    let (graph, namespace) = (&place.graph.name, &place.graph.namespace);
                    error!(graph, namespace, "telling of the graph panicked; this is a defect: it is not told");
                    place.give_up();
                    Outcome::Settled
                }
                Ok(Ok(outcome)) => outcome,
                Ok(Err(Stop::Over)) => Outcome::Settled,
                Ok(Err(Stop::Failed)) => {
                    if self.failures.load(Ordering::Relaxed) >= AWAY {
                        place.forget();
                    }
                    // those that failed in the same round count once
                    let next = round.saturating_add(1);
                    let _ = self.failures.compare_exchange(round, next, Ordering::Relaxed, Ordering::Relaxed);
                    Outcome::Later
                }
            };
            self.desk.put_back(&place, outcome);
        }
    }

    /// Waits while nothing is taken. How many rounds that has been so.
    async fn rest(&self) -> u32 {
        let round = self.failures.load(Ordering::Relaxed);
        if let Some(doublings) = round.checked_sub(1) {
            let pause = PAUSE.saturating_mul(1 << doublings.min(16)).min(LONGEST);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.well.notified() => {}
            }
        }
        self.failures.load(Ordering::Relaxed)
    }

    async fn tell(&self, place: &Place) -> Result<Outcome, Stop> {
        // the place was left, or another operator leads, while it stood in the queue
        if place.has_ended() || !self.leadership.holds() {
            return Err(Stop::Over);
        }
        let mut left = TURN;
        loop {
            let (status, origin) = self.status_of(place).await?;
            for fact in &place.facts(&status) {
                let Some(rest) = left.checked_sub(1) else { return Ok(Outcome::Later) };
                left = rest;
                // two that tell the same do no harm: it has the same id
                if place.has_ended() || !self.leadership.holds() {
                    return Err(Stop::Over);
                }
                if let Some(event) = render(&self.outlet.style, &place.graph, fact, &status) {
                    self.send(place, &event).await?;
                }
                let lost = place.take(fact, &status);
                self.desk.metrics.cloud_events_dropped.get_or_create(&DropLabel::FORGOTTEN).inc_by(lost.into());
            }
            if place.told(&status) {
                continue;
            }
            // whoever follows a graph that runs says so himself, with his next write
            let is_followed = status.completion_time.is_none() && origin != Origin::Read;
            if is_followed || place.is_deleted() {
                return Ok(Outcome::Told);
            }
            return self.settle(place, &status).await;
        }
    }

    async fn status_of(&self, place: &Place) -> Result<(Arc<TaskGraphStatus>, Origin), Stop> {
        if let Some(first) = place.first() {
            return Ok(first);
        }
        if place.is_deleted() {
            return Err(Stop::Over);
        }
        let graph = &place.graph;
        let live = self.cluster.get_graph(&graph.namespace, &graph.name).await;
        match live {
            Ok(live) if live.metadata.uid.as_deref() == Some(&graph.uid) => {
                let status = Arc::new(accept::read_status(live.status).0);
                place.read(&status);
                Ok((status, Origin::Read))
            }
            Ok(_) => Err(Stop::Over),
            Err(error) if error.is_not_found() => Err(Stop::Over),
            Err(error) => {
                debug!(graph = graph.name, namespace = graph.namespace, %error, "reading what is to be told of a graph");
                Err(Stop::Failed)
            }
        }
    }

    async fn send(&self, place: &Place, event: &Event) -> Result<(), Stop> {
        let metrics = &self.desk.metrics;
        let (graph, namespace) = (&place.graph.name, &place.graph.namespace);
        match self.outlet.sink.send(&place.graph, event).await {
            Ok(()) => {
                metrics.cloud_events_delivered.inc();
                let rounds = self.failures.swap(0, Ordering::Relaxed);
                if rounds > 0 {
                    self.well.notify_waiters();
                    self.health.set_fault(PART, None);
                }
                if rounds >= AWAY && self.failing.over() {
                    info!("the sink takes CloudEvents again");
                }
                Ok(())
            }
            Err(SinkError::Refused(why)) => {
                metrics.cloud_events_dropped.get_or_create(&DropLabel::REFUSED).inc();
                let id = &event.id;
                if let Some(more) = self.refusing.tell() {
                    warn!(graph, namespace, id, why, more, "the sink refuses a CloudEvent; it is dropped");
                } else {
                    debug!(graph, namespace, id, why, "the sink refuses a CloudEvent");
                }
                Ok(())
            }
            Err(SinkError::Failed(why)) => {
                metrics.cloud_events_retries.inc();
                if self.failing.tell().is_some() {
                    warn!(graph, namespace, why, "the sink does not take CloudEvents; they are sent later");
                } else {
                    debug!(graph, namespace, why, "a CloudEvent is not taken");
                }
                if self.failures.load(Ordering::Relaxed) >= AWAY {
                    let message = format!("the sink does not take them: {why}");
                    self.health.set_fault(PART, Some(Fault { message, stops: false }));
                }
                Err(Stop::Failed)
            }
        }
    }

    /// Stores that all is told of a graph that nobody follows any more.
    async fn settle(&self, place: &Place, status: &TaskGraphStatus) -> Result<Outcome, Stop> {
        let sequence = status.sequence;
        if status.cloud_events.as_ref().is_some_and(|owed| !owed.owes(sequence)) {
            return Ok(Outcome::Settled);
        }
        let graph = &place.graph;
        match self.cluster.settle_events(&graph.namespace, &graph.name, &graph.uid, sequence).await {
            // if not: it was deleted, or somebody went on with it, who tells what there is to tell
            Ok(()) | Err(CallError::Api { code: 404 | 409 | 422, .. }) => Ok(Outcome::Settled),
            Err(error) => {
                warn!(graph = graph.name, namespace = graph.namespace, %error, "failed to store that all is told");
                Err(Stop::Failed)
            }
        }
    }

    /// Measures how much is to be told.
    async fn measure(self: Arc<Self>) {
        let mut interval = tokio::time::interval(MEASURE);
        loop {
            interval.tick().await;
            if !self.leadership.holds() {
                // how the sink does is another's to tell
                self.failures.store(0, Ordering::Relaxed);
            }
            if self.failures.load(Ordering::Relaxed) == 0 {
                // it may have been told by one whose try ended late
                self.health.set_fault(PART, None);
            }
            let (graphs, since) = self.desk.backlog();
            let metrics = &self.desk.metrics;
            metrics.cloud_events_backlog.set(graphs.try_into().unwrap_or(i64::MAX));
            let lag = since.map_or(Duration::ZERO, |since| Instant::now().saturating_duration_since(since));
            metrics.cloud_events_lag.set(lag.as_secs().try_into().unwrap_or(i64::MAX));
        }
    }
}
