//! Competes for the Lease, round by round.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream::BoxStream};
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams, WatchEvent, WatchParams},
};
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Config, Leadership, State, expiry,
    record::{Decision, decide, record},
};
use crate::{
    api::{LABEL_SHARD, MANAGER},
    runtime::{status::Shown, telemetry::chain},
};

/// How often a Lease that cannot be renewed is worth a line in the log.
const COMPLAINT_PERIOD: Duration = Duration::from_secs(10);
/// After how many seconds the API server ends a watch of the Lease: it refuses to keep one for more than 295.
const WATCH_SECONDS: u32 = 290;
/// How often it is tried to give the Lease back: a renewal that was under way may come in between.
const RELEASES: usize = 3;

/// What a watch of the Lease tells.
type Changes = BoxStream<'static, kube::Result<WatchEvent<Lease>>>;

/// Takes, renews and releases the Lease.
pub struct Elector {
    api: Api<Lease>,
    config: Config,
    state: watch::Sender<State>,
    /// The record as last seen, with its resourceVersion.
    seen: Option<Lease>,
    observed_at: Instant,
    terms: u64,
    leader: Gauge,
    complained: Option<Instant>,
    /// While another holds the Lease: what becomes of it. `None`: it is read now and then.
    changes: Option<Changes>,
    watch_refused: bool,
    /// For people.
    pub shown: Shown,
}

/// Why a round did not work. The next one tries again.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("failed to read the Lease: {0}")]
    Read(#[source] kube::Error),
    #[error("failed to write the Lease: {0}")]
    Write(#[source] kube::Error),
    #[error("the API server did not answer in time")]
    Timeout,
    #[error("another wrote the Lease first, or deleted it")]
    Changed,
}

impl Error {
    /// What somebody has to do, where it does not pass by itself.
    fn cure(&self) -> Option<&'static str> {
        let (Self::Read(kube::Error::Api(status)) | Self::Write(kube::Error::Api(status))) = self else { return None };
        match status.code {
            403 => Some("the operator lacks rights on its Lease, give it the role of the chart"),
            // of a Lease that is not there, it is not told
            404 => Some("the namespace of the Lease does not exist, see --lease-namespace"),
            _ => None,
        }
    }
}

/// Prepares to compete for the Lease of `config`; [`Elector::run`] does it, and keeps `leader` at 1
/// while it holds.
pub fn elect(client: Client, config: Config, leader: Gauge) -> (Leadership, Elector) {
    let (state, states) = watch::channel(State::Standby);
    let api = Api::namespaced(client, &config.namespace);
    let elector = Elector {
        api,
        config,
        state,
        seen: None,
        observed_at: Instant::now(),
        terms: 0,
        leader,
        complained: None,
        changes: None,
        watch_refused: false,
        shown: Shown::default(),
    };
    (Leadership(states), elector)
}

/// Waits until the watched Lease changes; false: the watch broke. For ever where there is none.
async fn change(changes: &mut Option<Changes>) -> bool {
    let Some(stream) = changes else { return std::future::pending().await };
    matches!(stream.next().await, Some(Ok(WatchEvent::Added(_) | WatchEvent::Modified(_) | WatchEvent::Deleted(_))))
}

impl Elector {
    /// Competes for the Lease until `stop`, then gives it back, so that another need not wait.
    ///
    /// Cancel `stop` only when all that needs the Lease has ended.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let round = async {
                let pause = self.round().await;
                self.pause(pause).await;
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = round => {}
            }
        }
        self.release().await;
    }

    /// One try to take or renew the Lease; how long to wait for the next.
    pub(super) async fn round(&mut self) -> Duration {
        let period = self.config.period();
        let attempt = self.attempt().await;
        self.shown.round(attempt.as_ref().err().map(|error| (chain(error), error.cure())));
        match attempt {
            Ok(Decision::Wait(rest)) => {
                self.stand_by();
                if self.changes.is_none() {
                    self.watch().await;
                }
                // a watch tells of each renewal
                if self.changes.is_some() { rest } else { period.min(rest) }
            }
            Ok(Decision::Acquire | Decision::Renew) => {
                self.changes = None;
                period
            }
            Err(error) => {
                // a renewal that failed leaves us leading until our validity ends
                self.complain(&error);
                // what was seen may be old: read before writing
                self.forget_version();
                period / 4
            }
        }
    }

    /// Reports a failed round, but not again and again while the API server is away.
    fn complain(&mut self, error: &Error) {
        let now = Instant::now();
        if self.complained.is_some_and(|last| now.duration_since(last) < COMPLAINT_PERIOD) {
            return;
        }
        self.complained = Some(now);
        tracing::warn!(
            lease = self.config.name(),
            error = chain(error),
            "the Lease was not taken or renewed; trying again"
        );
    }

    /// Waits, but not past the end of our validity without telling, nor when the Lease of another changes.
    async fn pause(&mut self, pause: Duration) {
        let wake = tokio::time::Instant::now() + pause;
        let state = *self.state.borrow();
        tokio::select! {
            // a watch that was silent for so long is dead, or the holder is
            () = tokio::time::sleep_until(wake) => self.changes = None,
            known = change(&mut self.changes) => if !known {
                // without a watch it is read as often as one without would
                self.changes = None;
                tokio::time::sleep_until(wake.min(tokio::time::Instant::now() + self.config.period())).await;
            },
            () = expiry(state) => {
                self.stand_by();
                tokio::time::sleep_until(wake).await;
            }
        }
    }

    /// Begins to watch the Lease from the version that was read.
    async fn watch(&mut self) {
        let Some(version) = self.seen.as_ref().and_then(|lease| lease.metadata.resource_version.clone()) else {
            return;
        };
        let name = format!("metadata.name={}", self.config.name());
        let parameters = WatchParams::default().fields(&name).timeout(WATCH_SECONDS).disable_bookmarks();
        let answer = tokio::time::timeout(self.config.call_timeout(), self.api.watch(&parameters, &version)).await;
        match answer {
            Ok(Ok(changes)) => {
                self.changes = Some(changes.boxed());
                self.watch_refused = false;
            }
            Ok(Err(error)) if !self.watch_refused => {
                self.watch_refused = true;
                tracing::warn!(
                    lease = self.config.name(),
                    error = chain(&error),
                    "the Lease cannot be watched; it is read now and then, so that taking over takes longer"
                );
            }
            Ok(Err(_)) | Err(_) => {}
        }
    }

    async fn attempt(&mut self) -> Result<Decision, Error> {
        // the holder knows the record: it need not read before it renews
        let ours = self
            .seen
            .as_ref()
            .is_some_and(|lease| self.holds_record(lease) && lease.metadata.resource_version.is_some());
        if !ours {
            self.read().await?;
        }
        let spec = self.seen.as_ref().and_then(|lease| lease.spec.as_ref());
        let sent = Instant::now();
        let decision = decide(spec, self.observed_at, sent, &self.config.identity);
        if matches!(decision, Decision::Wait(_)) {
            return Ok(decision);
        }
        let lease = self.lease(record(spec, decision, &self.config, Timestamp::now()));
        let written = self.write(&lease).await?;
        self.see(Some(written));
        self.lead(sent + self.config.validity());
        Ok(decision)
    }

    pub(super) async fn read(&mut self) -> Result<(), Error> {
        let name = self.config.name();
        let call = tokio::time::timeout(self.config.call_timeout(), self.api.get_opt(&name));
        let lease = call.await.map_err(|_| Error::Timeout)?.map_err(Error::Read)?;
        self.see(lease);
        Ok(())
    }

    async fn write(&mut self, lease: &Lease) -> Result<Lease, Error> {
        let parameters = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        let name = self.config.name();
        let exists = lease.metadata.resource_version.is_some();
        let call = async {
            if exists {
                self.api.replace(&name, &parameters, lease).await
            } else {
                self.api.create(&parameters, lease).await
            }
        };
        let written = tokio::time::timeout(self.config.call_timeout(), call).await;
        written.map_err(|_| Error::Timeout)?.map_err(|error| match &error {
            kube::Error::Api(status) if status.code == 409 || (status.code == 404 && exists) => Error::Changed,
            _ => Error::Write(error),
        })
    }

    /// The object to write: the one seen, so that labels and annotations of others stay, or a new one.
    fn lease(&self, spec: LeaseSpec) -> Lease {
        let new = || ObjectMeta {
            name: Some(self.config.name()),
            namespace: Some(self.config.namespace.clone()),
            labels: Some([(LABEL_SHARD.to_owned(), self.config.shard.to_string())].into()),
            ..ObjectMeta::default()
        };
        let metadata = self.seen.as_ref().map_or_else(new, |lease| lease.metadata.clone());
        Lease { metadata, spec: Some(spec) }
    }

    /// Remembers what the Lease is, and since when.
    fn see(&mut self, lease: Option<Lease>) {
        let spec = |lease: &Option<Lease>| lease.as_ref().and_then(|lease| lease.spec.clone());
        if spec(&self.seen) != spec(&lease) {
            self.observed_at = Instant::now();
        }
        let holder = lease.as_ref().and_then(|lease| lease.spec.as_ref()?.holder_identity.as_deref());
        self.shown.see(holder, self.observed_at);
        self.seen = lease;
    }

    fn forget_version(&mut self) {
        if let Some(lease) = &mut self.seen {
            lease.metadata.resource_version = None;
        }
    }

    fn holds_record(&self, lease: &Lease) -> bool {
        lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_ref()) == Some(&self.config.identity)
    }

    /// Publishes that we lead until `until`.
    fn lead(&mut self, until: Instant) {
        let continued = self.state.borrow().term();
        let term = continued.unwrap_or_else(|| {
            self.terms += 1;
            tracing::info!(
                lease = self.config.name(),
                identity = self.config.identity,
                term = self.terms,
                "took the Lease"
            );
            self.terms
        });
        self.state.send_replace(State::Leading { term, until });
        self.leader.set(1);
        self.shown.lead(true);
    }

    /// Publishes that we do not lead (any more).
    pub(super) fn stand_by(&self) {
        self.leader.set(0);
        self.shown.lead(false);
        if let State::Leading { term, .. } = self.state.send_replace(State::Standby) {
            tracing::warn!(lease = self.config.name(), term, "lost the Lease; standing by");
        }
    }

    /// Gives the Lease back, if it is ours. Without success it just expires.
    async fn release(mut self) {
        self.state.send_replace(State::Standby);
        self.leader.set(0);
        self.shown.lead(false);
        let mut tries = 1;
        loop {
            match self.empty().await {
                Ok(()) => return,
                // the renewal that was under way when we were stopped has come in between
                Err(Error::Changed) if tries < RELEASES => tries += 1,
                Err(error) => {
                    return tracing::warn!(
                        lease = self.config.name(),
                        error = chain(&error),
                        "the Lease was not released and has to expire"
                    );
                }
            }
        }
    }

    /// Empties the record, if it is ours.
    async fn empty(&mut self) -> Result<(), Error> {
        self.read().await?;
        let Some(lease) = self.seen.as_ref().filter(|lease| self.holds_record(lease)) else { return Ok(()) };
        let mut lease = lease.clone();
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
            spec.renew_time = Some(MicroTime(Timestamp::now()));
        }
        self.write(&lease).await?;
        tracing::info!(lease = self.config.name(), "released the Lease");
        Ok(())
    }
}
