//! The controller: `watch → observe → step → apply → report`.
//!
//! | file | part |
//! |---|---|
//! | [`watch`] | fills the [`index`] and the template cache, wakes the queue |
//! | [`accept`] | takes a graph up: check, pin, or find out how far it has come |
//! | [`pin`] | the revisions in which spec and templates are stored |
//! | [`edit`] | follows the spec while the graph runs: settings, edits, reruns |
//! | [`restored`] | a graph from a backup: another UID, and the status of what was saved |
//! | [`mend`] | a graph that was accepted by another version, and is not valid for this one |
//! | `aside` | a status that no session wrote: stored, and told of |
//! | [`session`] | one graph while it runs: a turn takes what changed to the engine |
//! | [`apply`] | creates and deletes Jobs in the background, answers by note |
//! | [`children`] | child graphs: seen, called off, suspended with their parent |
//! | [`rest`] | what goes on of a graph that is over |
//! | [`orphans`] | what is left of a child graph that is gone |
//! | [`cache`] | looks successes up that are remembered, and remembers them |
//! | [`volumes`] | makes the claims of a graph |
//! | [`cloud_events`] | tells programs elsewhere what happens |
//! | [`report`] | stores the status, coalesced |
//! | [`mod@trace`] | what ended, as spans of a trace |

pub mod accept;
pub mod apply;
mod aside;
pub mod cache;
mod canonical;
pub mod children;
pub mod cloud_events;
pub mod cluster;
pub mod edit;
pub mod events;
pub mod index;
mod items;
pub mod looks;
pub mod mend;
mod orphans;
pub mod pin;
pub mod registry;
pub mod report;
mod rest;
pub mod restored;
pub mod revision;
pub mod session;
pub mod templates;
pub mod trace;
pub mod view;
pub mod volumes;
pub mod watch;

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, Stream, StreamExt, channel::mpsc, future, stream};
use jiff::Timestamp;
use kube::{
    Api, Client,
    runtime::{
        controller::{Action, Config, Controller},
        reflector,
    },
};
use tokio::{sync::watch as channel, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, debug, error, error_span, info, warn};

use self::{
    accept::{AcceptError, Taken},
    apply::Hands,
    cloud_events::Courier,
    cluster::{CallError, Cluster},
    edit::Followed,
    events::Recorder,
    index::Index,
    registry::{Registry, Slot},
    rest::Rest,
    session::{Session, Surroundings, Turn},
    templates::{Caches, TemplateCache},
    view::GraphView,
    watch::Rights,
};
use crate::{
    api::{GraphPhase, TaskGraphSpec},
    jobs::{JobView, PodView},
    runtime::{
        health::Health,
        lease::Leadership,
        metrics::{Metrics, PhaseLabel},
        parts,
        sink::Outlet,
        traces::Tracer,
    },
};

/// How long looks, and then calls, that are under way are waited for when the program ends. They may be ended at any call;
/// a moment spares the next operator some questions, which waits for the Lease meanwhile.
const GRACE: Duration = Duration::from_millis(500);
/// How often the queue shows that it goes round.
const TICK: Duration = Duration::from_secs(5);
/// How long a graph is left alone whose watch lags.
const WATCH_LAG: Duration = Duration::from_millis(200);
/// How often a graph is looked at that something not watched stands in the way of.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// How long a finished graph is kept beyond its time for `CloudEvents` that are not delivered, in seconds.
const EVENTS_BEFORE_DELETION: i64 = 3600;

/// What all reconciles share.
pub struct Context {
    /// Acts on the cluster.
    pub hands: Arc<Hands>,
    /// The cached Jobs and pods.
    pub index: Index,
    /// The graphs that are being run.
    pub registry: Registry,
    /// The cached templates.
    pub templates: TemplateCache,
    /// Tells people.
    pub recorder: Recorder,
    /// Tells programs.
    pub courier: Courier,
}

/// How the controller is run.
pub struct Options {
    /// Only this namespace; `None`: all.
    pub namespace: Option<String>,
    /// Graphs looked at at once.
    pub concurrency: u16,
    /// Filled by the controller; others may read them.
    pub templates: Caches,
    /// Takes the spans of graphs.
    pub tracer: Tracer,
    /// Where `CloudEvents` go.
    pub outlet: Option<Outlet>,
}

/// Why a look at a graph failed. It is tried again, later each time.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// It could not be taken up or told of.
    #[error(transparent)]
    Accept(#[from] AcceptError),
    /// It could not be deleted.
    #[error("failed to delete the finished graph: {0}")]
    Expire(#[source] CallError),
    /// A mistake in this program. Other graphs go on.
    #[error("the look at the graph panicked")]
    Panic,
}

/// Runs until `shutdown`; then ends what is under way. `health` is told when the caches are filled, and that the queue
/// goes round.
pub async fn run(
    client: Client,
    options: Options,
    leadership: Leadership,
    metrics: Metrics,
    health: Health,
    shutdown: CancellationToken,
) {
    let (wake, woken) = mpsc::unbounded();
    let cluster = Cluster::new(client.clone(), leadership.clone());
    let (courier, deliverer) = Courier::new(options.outlet, &cluster, &leadership, &metrics, &health);
    let hands = Arc::new(Hands::new(cluster, leadership.clone(), metrics, options.tracer, health.clone()));
    let ctx = Arc::new(Context {
        recorder: Recorder::new(hands.cluster.clone(), hands.tracker.clone()),
        courier,
        hands,
        index: Index::default(),
        registry: Registry::new(wake),
        templates: options.templates.reader(),
    });

    let namespace = options.namespace.as_deref();
    let mut parts = Parts { all: JoinSet::new(), health: health.clone() };
    if let Some(deliverer) = deliverer {
        parts.spawn("sending CloudEvents", deliverer.run());
    }
    let tidy = Arc::clone(&ctx.hands).keep_tidy(options.namespace.clone(), shutdown.clone());
    parts.spawn("tidying up what is remembered for reuse", tidy);
    let api = watch::api(client.clone(), namespace);
    let templates = watch::templates(Arc::clone(&ctx), api, options.templates.namespaced.1, Rights::Needed);
    parts.spawn("the watch of TaskTemplates", templates);
    // who serves one namespace needs no rights beyond it
    let rights = if namespace.is_some() { Rights::Optional } else { Rights::Needed };
    let writer = options.templates.cluster.1;
    let templates = watch::templates(Arc::clone(&ctx), Api::all(client.clone()), writer, rights);
    parts.spawn("the watch of ClusterTaskTemplates", templates);
    // deciding from half a cache would launch what runs already
    tokio::select! {
        () = fill_caches(&ctx, &client, namespace, &mut parts) => {}
        // an API server that is away is told by not being ready; to start anew would not help
        () = keep_alive(&health) => return,
        () = shutdown.cancelled() => return,
    }
    info!("caches filled");
    health.set_synced(true);

    let (graphs, writer) = reflector::store();
    let seen = watch::graphs(Arc::clone(&ctx), watch::api(client, namespace), writer);
    let led = leadership_changes(Arc::clone(&ctx), leadership);
    let known = graphs.clone();
    parts.spawn("counting graphs", count_graphs(Arc::clone(&ctx), graphs.clone()));
    let results = Controller::for_stream(seen, graphs)
        .with_config(Config::default().concurrency(options.concurrency))
        .reconcile_on(woken)
        .reconcile_all_on(led)
        .graceful_shutdown_on(shutdown.clone().cancelled_owned())
        .run(reconcile, retry, Arc::clone(&ctx));
    tokio::select! {
        () = go_round(results, &health) => {}
        () = patience(&known, &shutdown) => {}
    }
    parts.all.shutdown().await;
    ctx.hands.tracker.close();
    let _ = tokio::time::timeout(GRACE, ctx.hands.tracker.wait()).await;
}

/// Returns when looks under way are not waited for any longer. The controller waits for them when it is shut down; but
/// it waits for ever if the graphs were not listed by then, since it holds back all looks until they are, and takes
/// in nothing any more.
async fn patience(graphs: &reflector::Store<GraphView>, shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    if graphs.wait_until_ready().now_or_never().is_some() {
        tokio::time::sleep(GRACE).await;
    }
}

/// Shows that the program goes round while it waits. Never ends.
async fn keep_alive(health: &Health) {
    let mut interval = tokio::time::interval(TICK);
    loop {
        interval.tick().await;
        health.tick();
    }
}

/// Counts the graphs by phase, while this replica works. Never ends.
async fn count_graphs(ctx: Arc<Context>, graphs: reflector::Store<GraphView>) {
    let mut interval = tokio::time::interval(TICK);
    loop {
        interval.tick().await;
        let mut counts: BTreeMap<&'static str, i64> = GraphPhase::ALL.map(|phase| (phase.name(), 0)).into();
        if ctx.hands.leadership.holds() {
            for graph in graphs.state() {
                let phase = graph.status.phase.as_deref().unwrap_or(GraphPhase::Pending.name());
                counts.entry(phase_name(phase)).and_modify(|count| *count += 1);
            }
        }
        for (phase, count) in counts {
            ctx.hands.metrics.graphs.get_or_create(&PhaseLabel { phase }).set(count);
        }
    }
}

/// The phase of that name; one that only another version knows counts as Pending.
fn phase_name(name: &str) -> &'static str {
    GraphPhase::ALL.map(GraphPhase::name).into_iter().find(|known| *known == name).unwrap_or(GraphPhase::Pending.name())
}

/// What runs beside the queue.
struct Parts {
    all: JoinSet<()>,
    health: Health,
}

impl Parts {
    fn spawn(&mut self, part: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.all.spawn(parts::run(self.health.clone(), part, work));
    }
}

/// Watches Jobs and pods, and waits until they and the templates, which are watched already, are cached.
async fn fill_caches(ctx: &Arc<Context>, client: &Client, namespace: Option<&str>, parts: &mut Parts) {
    let (jobs_synced, mut jobs) = channel::channel(false);
    let (pods_synced, mut pods) = channel::channel(false);
    let watched = watch::index::<JobView>(Arc::clone(ctx), watch::api(client.clone(), namespace), jobs_synced);
    parts.spawn("the watch of Jobs", watched);
    let watched = watch::index::<PodView>(Arc::clone(ctx), watch::api(client.clone(), namespace), pods_synced);
    parts.spawn("the watch of pods", watched);
    for synced in [&mut jobs, &mut pods] {
        if synced.wait_for(|synced| *synced).await.is_err() {
            // the watch has panicked, which is told elsewhere: half a cache is none
            future::pending::<()>().await;
        }
    }
    let _ = ctx.templates.namespaced.wait_until_ready().await;
    ctx.templates.cluster_known().await;
}

/// The time, cut to whole milliseconds as all times of a status are.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}

/// Drives the queue, and shows that it goes round.
async fn go_round<T, E: std::fmt::Display>(results: impl Stream<Item = Result<T, E>>, health: &Health) {
    let mut results = std::pin::pin!(results);
    let mut interval = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            result = results.next() => match result {
                Some(Ok(_)) => {}
                // a graph that was deleted while it waited in the queue
                Some(Err(error)) => debug!(%error, "queue"),
                None => return,
            },
            _ = interval.tick() => health.tick(),
        }
    }
}

/// Every term as leader begins with a look at every graph, and with nothing believed from before.
fn leadership_changes(ctx: Arc<Context>, leadership: Leadership) -> impl Stream<Item = ()> + Send + 'static {
    stream::unfold((leadership, None), |(leadership, term)| async move {
        let term = leadership.changed(term).await;
        Some((term, (leadership, term)))
    })
    .filter_map(move |term| {
        ctx.registry.clear();
        ctx.courier.clear();
        future::ready(term.map(|_| ()))
    })
}

async fn reconcile(view: Arc<GraphView>, ctx: Arc<Context>) -> Result<Action, ReconcileError> {
    if view.metadata.deletion_timestamp.is_some() {
        // nothing new is started; the garbage collector deletes what there is
        ctx.registry.remove(view.uid());
        return Ok(Action::await_change());
    }
    if !ctx.hands.leadership.holds() {
        return Ok(Action::await_change());
    }
    let begun = Instant::now();
    let slot = ctx.registry.slot(view.uid());
    // whatever is logged about the graph carries its trace
    let trace = ctx.hands.tracer.trace(view.uid(), view.traceparent());
    let span = trace.map_or_else(Span::none, |trace| error_span!("graph", trace_id = %trace));
    let result = AssertUnwindSafe(look(&view, &ctx, &slot)).catch_unwind().instrument(span.clone()).await;
    ctx.hands.metrics.reconcile_duration.observe(begun.elapsed().as_secs_f64());
    match result {
        Ok(Ok(action)) => {
            *slot.failures.lock() = 0;
            Ok(action)
        }
        Ok(Err(error)) => Err(error),
        Err(_) => {
            // what the session believes may be half changed
            ctx.registry.renew(view.uid());
            span.in_scope(|| {
                error!(
                    graph = view.name(),
                    namespace = view.namespace(),
                    "a look at the graph panicked; this is a defect"
                );
            });
            Err(ReconcileError::Panic)
        }
    }
}

async fn look(view: &Arc<GraphView>, ctx: &Context, slot: &Arc<Slot>) -> Result<Action, ReconcileError> {
    let mut place = slot.session.lock().await;
    if place.is_none() {
        match begin(view, ctx, slot).await? {
            Ok(session) => *place = Some(*session),
            Err(action) => return Ok(action),
        }
    }
    let Some(session) = place.as_mut() else { return Ok(Action::await_change()) };
    match edit::follow(ctx, session, view).await {
        Ok(Followed::On) => {}
        followed => {
            begin_anew(&mut place, view, ctx).await;
            return followed.map(|_| Action::requeue(Duration::from_millis(1))).map_err(Into::into);
        }
    }
    let around = Surroundings { index: &ctx.index, view, recorder: &ctx.recorder, courier: &ctx.courier };
    match session.turn(&around, slot.take_notes()) {
        Turn::Again(None) => Ok(Action::await_change()),
        Turn::Again(Some(pause)) => Ok(Action::requeue(pause)),
        Turn::Finished => {
            *place = None;
            ctx.index.settle(view.uid());
            match view.completion_time() {
                // the watch was faster than the answer to the write, and brings nothing more
                Some(finished) => expire(view, ctx, finished).await,
                // the watch brings the finished graph once more; its time to live counts from there
                None => Ok(Action::await_change()),
            }
        }
        Turn::OutOfDate => {
            debug!(graph = view.name(), namespace = view.namespace(), "somebody else went on with it; beginning anew");
            begin_anew(&mut place, view, ctx).await;
            Ok(Action::requeue(Duration::from_millis(50)))
        }
    }
}

/// Ends the session of a graph; the next look begins another one.
async fn begin_anew(place: &mut Option<Session>, view: &GraphView, ctx: &Context) {
    if let Some(session) = place.take() {
        session.wind_up().await;
    }
    // with its slot, so that what is still left for this session never reaches the next one
    ctx.registry.renew(view.uid());
}

/// Takes up a graph that has no session; `Err`: when to look again at one that is to have none.
async fn begin(
    view: &Arc<GraphView>,
    ctx: &Context,
    slot: &Arc<Slot>,
) -> Result<Result<Box<Session>, Action>, ReconcileError> {
    if let Some(finished) = edit::finished(view) {
        ctx.recorder.tell_again(view);
        ctx.courier.unfollowed(view);
        clear_away(view, ctx).await?;
        return expire(view, ctx, finished).await.map(Err);
    }
    // noted before the templates are read: one that comes in between must not be missed
    ctx.templates.set_waiting(view, true);
    let taken = match Box::pin(accept::take_up(ctx, view, slot)).await {
        Ok(taken) => taken,
        Err(error) => return tell_error(ctx, view, error).await.map(Err),
    };
    Ok(match taken {
        Taken::Up(session) => {
            ctx.templates.set_waiting(view, false);
            Ok(session)
        }
        Taken::Not(verdict) => {
            // it waits on for templates: one that is there may be what is wrong
            accept::report_refusal(ctx, view, &verdict).await?;
            if !view.has_status_of_another() {
                ctx.courier.unfollowed(view);
            }
            // nothing is watched that would tell of other obstacles
            Err(if verdict.in_the_way() { Action::requeue(LOOK_AGAIN) } else { Action::await_change() })
        }
        Taken::Finished => {
            ctx.templates.set_waiting(view, false);
            Err(Action::await_change())
        }
        Taken::Late => Err(Action::requeue(WATCH_LAG)),
    })
}

/// Tells in the graph what the API server does not let the operator do for it, which is tried again then. Other errors pass by
/// themselves.
async fn tell_error(ctx: &Context, view: &GraphView, error: AcceptError) -> Result<Action, ReconcileError> {
    let Some(verdict) = error.verdict() else { return Err(error.into()) };
    accept::report_refusal(ctx, view, &verdict).await?;
    Ok(Action::requeue(LOOK_AGAIN))
}

/// Deletes Jobs of a finished graph that go on: created late, by an operator that was held up, or left by one that was
/// not able to delete them any more. Not of one that was taken up again and is watched with a delay.
async fn clear_away(view: &GraphView, ctx: &Context) -> Result<(), ReconcileError> {
    let rest = Rest::of(view, ctx);
    if !rest.is_empty() && accept::live_status(&ctx.hands.cluster, view).await?.0.completion_time.is_some() {
        rest.stop(&ctx.hands);
    }
    Ok(())
}

/// Deletes a finished graph when its time is over.
async fn expire(view: &GraphView, ctx: &Context, finished: Timestamp) -> Result<Action, ReconcileError> {
    let Ok(spec) = serde_json::from_value::<TaskGraphSpec>((*view.spec).clone()) else {
        return Ok(Action::await_change());
    };
    let Some(ttl) = spec.ttl_after_finished.and_then(|ttl| ttl.parse().ok()) else {
        return Ok(Action::await_change());
    };
    let left = finished.duration_since(Timestamp::now()).saturating_add(ttl.into());
    if let Ok(left) = Duration::try_from(left)
        && !left.is_zero()
    {
        return Ok(Action::requeue(left));
    }
    // what happened to it is told first; not at any price
    if ctx.courier.owes(view) && left.as_secs() > -EVENTS_BEFORE_DELETION {
        return Ok(Action::requeue(LOOK_AGAIN));
    }
    info!(graph = view.name(), namespace = view.namespace(), "its time to live after finishing is over; deleting it");
    // not one that was edited meanwhile
    let version = view.metadata.resource_version.as_deref().unwrap_or_default();
    match ctx.hands.cluster.delete_graph(view.namespace(), view.name(), view.uid(), version).await {
        Ok(()) => Ok(Action::await_change()),
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(Action::await_change()),
        Err(error) => Err(ReconcileError::Expire(error)),
    }
}

/// Backoff per graph: from 100 ms, doubled, to 30 s; reset by a success.
#[allow(clippy::needless_pass_by_value)] // the signature is kube's
fn retry(view: Arc<GraphView>, error: &ReconcileError, ctx: Arc<Context>) -> Action {
    let failures = ctx.registry.failed(view.uid());
    let pause = Duration::from_millis(100 << failures.min(8)).min(Duration::from_secs(30));
    warn!(graph = view.name(), namespace = view.namespace(), %error, ?pause, "trying again");
    Action::requeue(pause)
}
