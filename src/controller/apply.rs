//! Carries out what the engine asks for: creates and deletes Jobs, and looks until pods are gone.
//!
//! Everything here may be interrupted after any call and begun anew, by this process or another one.

mod look;
mod stop;

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use backon::{BackoffBuilder, ExponentialBuilder};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument as _, debug, warn};

use super::{
    cache::Cache,
    cluster::{CallError, Cluster, Stored},
    registry::Mailbox,
    volumes::{self, VOLUME_LOST},
};
use crate::{
    api::{LABEL_ATTEMPT, LABEL_GRAPH_UID, LABEL_ITEM, LABEL_ROLE, LABEL_TASK, VolumeStatus},
    engine::{Attempt, AttemptResult, Blame, Event, Failure, Identity, Role, payload::PayloadKind},
    jobs::{self, Item, ItemsMap, JobView, Order, Refused},
    runtime::{health::Health, lease::Leadership, metrics::Metrics, traces::Tracer},
};

/// Creates in flight at once, over all graphs: more only makes each slower.
const CREATES: usize = 64;
/// How often something is tried that nothing waits for.
const INSISTS: usize = 20;

/// What all graphs share for acting on the cluster.
#[derive(Debug)]
pub struct Hands {
    /// The API server.
    pub cluster: Cluster,
    /// Whether this process may act.
    pub leadership: Leadership,
    /// What is counted.
    pub metrics: Metrics,
    /// What is traced.
    pub tracer: Tracer,
    /// Shows how the operator does.
    pub health: Health,
    /// All background work.
    pub tracker: TaskTracker,
    /// Successes that are remembered.
    pub cache: Cache,
    creates: Semaphore,
}

impl Hands {
    /// Ready to act.
    pub fn new(cluster: Cluster, leadership: Leadership, metrics: Metrics, tracer: Tracer, health: Health) -> Self {
        Self {
            cluster,
            leadership,
            metrics,
            tracer,
            health,
            tracker: TaskTracker::new(),
            cache: Cache::default(),
            creates: Semaphore::new(CREATES),
        }
    }

    /// Works in the background; what is logged there is about the same graph.
    pub fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) {
        self.tracker.spawn(work.in_current_span());
    }

    /// Deletes the Job of an attempt that is over, unless it has ended or is about to. Gives up in the end: whoever sees
    /// the Job again asks again.
    pub async fn discard(self: Arc<Self>, job: Arc<JobView>) {
        let note = |error: &CallError| debug!(job = job.name_any(), %error, "discarding a Job");
        self.insist(|| self.try_discard(&job), note).await;
    }

    /// Tries something until it works, or what it is about is gone or another one has its name. Gives up in the end.
    pub(super) async fn insist<T, F>(&self, attempt: T, note: impl Fn(&CallError))
    where
        T: Fn() -> F,
        F: Future<Output = Result<(), CallError>>,
    {
        for pause in backoff().take(INSISTS) {
            if !self.leadership.holds() {
                return;
            }
            match attempt().await {
                Ok(()) => return,
                Err(error) if error.is_not_found() || error.is_conflict() => return,
                Err(error) => note(&error),
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn try_discard(&self, job: &JobView) -> Result<(), CallError> {
        let (Some(namespace), Some(uid), Some(key)) =
            (job.namespace(), &job.metadata.uid, jobs::labels_of(&job.metadata))
        else {
            return Ok(());
        };
        let live = self.cluster.get_job(&namespace, &job.name_any()).await?;
        if live.metadata.uid.as_ref() != Some(uid) {
            return Ok(());
        }
        let labels = labels(&key);
        let pods = self.cluster.list_pods(&namespace, &borrowed(&labels)).await?;
        if !jobs::goes_on(&live, &pods.iter().collect::<Vec<_>>()) {
            return Ok(());
        }
        warn!(job = job.name_any(), namespace, "deleting a Job whose attempt is over");
        self.cluster.delete_job(&namespace, &job.name_any(), uid).await
    }
}

/// One attempt, and all that is needed to act on it.
#[derive(Clone, Debug)]
pub struct Hold {
    /// What all graphs share.
    pub hands: Arc<Hands>,
    /// The graph.
    pub identity: Arc<Identity>,
    /// Where the answers go.
    pub mailbox: Mailbox,
    /// Creates in flight of this graph: one graph's burst must not starve another's single task.
    pub creates: Arc<Semaphore>,
    /// Which attempt, or item of one.
    pub attempt: Attempt,
    /// Whether each item of it has a Job or child graph of its own.
    pub per_item: bool,
    /// Whether it does its task or undoes it.
    pub role: Role,
    /// Name of its task.
    pub task: Arc<str>,
    /// Name of its Job, or child graph.
    pub job: String,
    /// Whether it has a child graph in place of a Job.
    pub is_child: bool,
    /// The graph was edited: the attempt may have been of the other kind.
    pub was_edited: bool,
    /// The claims that its pod mounts.
    pub volumes: Vec<VolumeStatus>,
    /// Ends the attempt's work in the background, but for stopping it and looking until its pods are gone.
    pub cancel: CancellationToken,
    /// Ends that, too: nobody waits for the answer any more.
    pub ended: CancellationToken,
    /// Held by the launches of the attempt while they run: a stop must not look before the last create was answered.
    pub gate: Arc<tokio::sync::RwLock<()>>,
}

/// Waits between tries: from 100 ms, doubled, to 5 s, with jitter, without end.
pub fn backoff() -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build()
}

/// The labels that a key was read from.
fn labels(key: &jobs::Key<'_>) -> BTreeMap<&'static str, String> {
    let fixed = [
        (LABEL_GRAPH_UID, key.graph_uid.to_owned()),
        (LABEL_ROLE, key.role.to_owned()),
        (LABEL_TASK, key.task.to_owned()),
        (LABEL_ATTEMPT, key.attempt.to_string()),
    ];
    fixed.into_iter().chain(key.item.map(|item| (LABEL_ITEM, item.to_string()))).collect()
}

/// Labels, as a selector takes them.
pub(super) fn borrowed<'a>(labels: &'a BTreeMap<&'static str, String>) -> BTreeMap<&'a str, &'a str> {
    labels.iter().map(|(key, value)| (*key, value.as_str())).collect()
}

/// What a launch creates.
#[derive(Debug)]
pub struct Prepared {
    job: Value,
    /// What must be there before the Job.
    items: Option<ItemsMap>,
}

impl Prepared {
    /// The objects of an order.
    pub fn new(order: &Order<'_>) -> Self {
        Self { job: order.build(), items: order.items_map() }
    }

    /// A child graph.
    pub fn child(graph: Value) -> Self {
        Self { job: graph, items: None }
    }

    /// With a trace context, which is handed on to what runs.
    #[must_use]
    pub fn traced(mut self, traceparent: Option<&str>) -> Self {
        if let Some(traceparent) = traceparent {
            jobs::trace::hand_on(&mut self.job, traceparent);
        }
        self
    }
}

/// What became of one try to create a Job.
pub(super) enum Try {
    Done(Event),
    Again,
}

impl Hold {
    /// Creates the attempt's Job, and its items before it, however often it takes. `since`: when the pod was seen to end that made it possible.
    pub async fn launch(self, order: Prepared, since: Option<Instant>) {
        let _gate = self.gate.read().await;
        let Prepared { job, mut items } = order;
        let mut shown = None;
        for pause in backoff() {
            if !self.may_act() {
                return;
            }
            if let Some(map) = &items {
                match self.try_create_items(map, &mut shown).await {
                    Ok(()) => items = None,
                    Err(Try::Done(event)) => return self.mailbox.event(event),
                    Err(Try::Again) => {
                        self.pause(pause).await;
                        continue;
                    }
                }
            }
            match self.try_create(&job, &mut shown).await {
                Try::Done(event) => {
                    if matches!(event, Event::Launched { .. }) {
                        self.count(since);
                    }
                    return self.mailbox.event(event);
                }
                Try::Again => self.pause(pause).await,
            }
        }
    }

    fn count(&self, since: Option<Instant>) {
        let metrics = &self.hands.metrics;
        if self.attempt.item.is_some_and(|index| index > 0) {
            // the items of an attempt are one task
            return;
        }
        match (self.attempt.number, self.role) {
            (1, Role::Task) => _ = metrics.tasks_started.inc(),
            (1, Role::Compensation) => {}
            _ => _ = metrics.retries.inc(),
        }
        if let Some(since) = since {
            metrics.handoff_latency.observe(since.elapsed().as_secs_f64());
        }
    }

    async fn try_create(&self, job: &Value, shown: &mut Option<&'static str>) -> Try {
        if let Some(instead) = self.look_at_volumes().await {
            return instead;
        }
        let created = {
            // closed never: both live as long as `self`
            let turn = async { (self.creates.acquire().await, self.hands.creates.acquire().await) };
            let turn = self.cancel.run_until_cancelled(turn).await;
            if turn.is_none() || !self.may_act() {
                return Try::Again;
            }
            self.create(job).await
        };
        let launched = || Event::Launched { attempt: self.attempt, job: self.job.clone() };
        match created {
            Ok(_) => Try::Done(launched()),
            Err(CallError::Api { code, reason, message }) => match jobs::refusal(code, &reason, &message) {
                Refused::AlreadyExists => self.meet_existing(launched).await,
                refused => self.refused(refused, shown),
            },
            // it may have been created: the next try finds out
            Err(error) => {
                self.failed_call(&error, "creating a Job");
                Try::Again
            }
        }
    }

    async fn create(&self, object: &Value) -> Result<Stored, CallError> {
        let (cluster, namespace) = (&self.hands.cluster, &self.identity.namespace);
        if self.is_child {
            cluster.create_graph(namespace, object).await
        } else {
            cluster.create_job(namespace, object).await
        }
    }

    /// The metadata of what has the attempt's name.
    async fn existing(&self) -> Result<ObjectMeta, CallError> {
        let (cluster, namespace) = (&self.hands.cluster, &self.identity.namespace);
        if self.is_child {
            Ok(cluster.get_graph(namespace, &self.job).await?.metadata)
        } else {
            Ok(cluster.get_job(namespace, &self.job).await?.metadata)
        }
    }

    /// What follows from a refusal to create something.
    pub(super) fn refused(&self, refused: Refused, shown: &mut Option<&'static str>) -> Try {
        match refused {
            Refused::Final(failure) => Try::Done(self.failed(failure)),
            Refused::Blocked { reason, message, cluster } => {
                if *shown != Some(reason) {
                    warn!(graph = %self.identity.name, namespace = %self.identity.namespace, role = self.role.label(), task = %self.task,
                        attempt = self.attempt.number, reason, error = message, "the Job cannot be created yet");
                    *shown = Some(reason);
                    let reason = reason.to_owned();
                    self.mailbox.event(Event::Blocked { attempt: self.attempt, reason, message, cluster });
                }
                Try::Again
            }
            Refused::Transient(message) => {
                self.failed_call(&message, "creating a Job");
                Try::Again
            }
            // what is there may be gone by the next try
            Refused::AlreadyExists => Try::Again,
        }
    }

    /// A Job must not mount a claim that is not the one the tasks before it left their files on.
    async fn look_at_volumes(&self) -> Option<Try> {
        match volumes::lost(&self.hands.cluster, &self.identity.namespace, &self.volumes).await {
            Ok(None) => None,
            Ok(Some(lost)) => {
                let failed = || {
                    let (reason, message) = (VOLUME_LOST.to_owned(), Some(lost));
                    Try::Done(self.failed(Failure { reason, message, exit_code: None, blame: Blame::Final }))
                };
                // it may have been launched before, by a call that was not answered or before a restart
                Some(match self.hands.cluster.get_job(&self.identity.namespace, &self.job).await {
                    Ok(job) if self.is_ours(&job.metadata) => {
                        Try::Done(Event::Launched { attempt: self.attempt, job: self.job.clone() })
                    }
                    Ok(_) => failed(),
                    Err(error) if error.is_not_found() => failed(),
                    Err(error) => {
                        self.failed_call(&error, "looking for a Job");
                        Try::Again
                    }
                })
            }
            Err(error) => {
                self.failed_call(&error, "looking at a PersistentVolumeClaim");
                Some(Try::Again)
            }
        }
    }

    /// A Job of that name is there: ours, made by an earlier try or another operator, or somebody else's.
    async fn meet_existing(&self, launched: impl FnOnce() -> Event) -> Try {
        match self.existing().await {
            Ok(metadata) if self.is_ours(&metadata) => Try::Done(launched()),
            Ok(_) => Try::Done(self.failed(Failure {
                reason: "NameTaken".into(),
                message: Some(format!(
                    "a {} named {} that is not this attempt's stands in its way; delete or rename it",
                    if self.is_child { "TaskGraph" } else { "Job" },
                    self.job
                )),
                exit_code: None,
                blame: Blame::Task,
            })),
            Err(error) => {
                self.failed_call(&error, "looking at an existing Job");
                Try::Again
            }
        }
    }

    pub(super) fn is_ours(&self, existing: &ObjectMeta) -> bool {
        let order = Order {
            graph: &self.identity,
            role: self.role,
            task: &self.task,
            attempt: self.attempt.number,
            item: self.attempt.item.map(|index| Item { index, retries: 0 }),
            definition: 0,
            timeout: None,
            kind: PayloadKind::Container,
            rendered: &Value::Null,
            defaults: None,
            items: None,
            volumes: &[],
        };
        order.is_ours(existing)
    }

    /// What stands on all objects of the attempt, or of the item.
    pub(super) fn labels(&self) -> BTreeMap<&'static str, String> {
        labels(&jobs::Key {
            graph_uid: &self.identity.uid,
            role: self.role.label(),
            task: &self.task,
            attempt: self.attempt.number,
            item: self.attempt.item,
        })
    }

    /// Notes a call that did not work; it is made again.
    pub(super) fn failed_call(&self, error: &impl fmt::Display, doing: &str) {
        debug!(graph = %self.identity.name, namespace = %self.identity.namespace, role = self.role.label(),
            task = %self.task, attempt = self.attempt.number, %error, "{doing}");
    }

    pub(super) fn failed(&self, failure: Failure) -> Event {
        Event::Finished { attempt: self.attempt, result: AttemptResult::Failed(failure), time: super::now() }
    }

    pub(super) fn may_act(&self) -> bool {
        !self.cancel.is_cancelled() && self.hands.leadership.holds()
    }

    pub(super) async fn pause(&self, pause: Duration) {
        tokio::select! {
            () = self.cancel.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}
