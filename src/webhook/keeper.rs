//! Keeps the certificate that is served good: the operator's own, in a Secret that its replicas share, or one that
//! somebody else keeps in files. Runs on every replica, whoever holds the Lease, and never ends by itself: whatever is
//! wrong is told, and tried again.

use std::{
    borrow::Cow,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::{
        admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
        core::v1::Secret,
    },
};
use kube::{
    Api, Client, Resource,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
    core::ClusterResourceScope,
    runtime::{WatchStreamExt, watcher::watch_object},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    certificates::{CertificateError, Material, Policy, validity},
    tls::{Served, TlsError},
};
use crate::{
    api::MANAGER,
    runtime::{
        health::{Fault, Health},
        metrics::Metrics,
        telemetry::chain,
    },
};

/// The kinds that tell the API server of webhooks.
trait Configuration: Resource<DynamicType = (), Scope = ClusterResourceScope> {}
impl Configuration for ValidatingWebhookConfiguration {}
impl Configuration for MutatingWebhookConfiguration {}

/// The part that [`Health`] tells of.
const PART: &str = "admission";
/// How often all is looked at, if nothing is seen to change; how often after an error.
const PERIOD: Duration = Duration::from_secs(30);
const PERIOD_AFTER_ERROR: Duration = Duration::from_secs(3);
/// The least time between two looks: somebody else may write the same over and over.
const PAUSE: Duration = Duration::from_millis(250);
/// How often files are looked at.
const PERIOD_OF_FILES: Duration = Duration::from_secs(10);
/// How long the API servers may need to take in a change of the configuration.
const SETTLED: Duration = Duration::from_secs(30);
/// How often a fault that stays is worth a line in the log.
const COMPLAINT_PERIOD: Duration = Duration::from_mins(5);
/// So often within so long whom to trust may be told anew before somebody else is at it too.
const CONTESTED: usize = 5;
const CONTESTED_WITHIN: Duration = Duration::from_mins(1);
/// How often a write is tried that another replica came before.
const TRIES: usize = 5;
/// How long one call may take.
const CALL: Duration = Duration::from_secs(10);

/// Names of the keys of the Secret.
const AUTHORITIES: &str = "ca.crt";
const AUTHORITY_KEY: &str = "ca.key";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// Where the certificate comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// The operator makes it.
    Own(Own),
    /// It lies in a folder, as `tls.crt` and `tls.key`; somebody else renews it there, and tells the API server whom to
    /// trust.
    Files(PathBuf),
}

/// Certificates of the operator's own.
#[derive(Clone, Debug)]
pub struct Own {
    /// What they are to be like.
    pub policy: Policy,
    /// Namespace of the Secret.
    pub namespace: String,
    /// The Secret, which must exist: it may be empty.
    pub secret: String,
    /// The `ValidatingWebhookConfiguration` and the `MutatingWebhookConfiguration` that are told whom to trust.
    pub configuration: String,
    /// How long the API servers may need to take in whom to trust.
    pub settled: Duration,
}

impl Own {
    /// With the default pause before a new authority signs.
    pub fn new(policy: Policy, namespace: String, secret: String, configuration: String) -> Self {
        let settled = SETTLED.min(policy.validity / 20);
        Self { policy, namespace, secret, configuration, settled }
    }
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(
        "the Secret {0}/{1} is missing: it holds the webhook's certificates. `helm upgrade` makes it anew, empty; then \
         the operator fills it"
    )]
    NoSecret(String, String),
    #[error("the operator may not {0}: {1}; its role in the chart gives it that (rbac.create)")]
    Forbidden(String, String),
    #[error("failed to {0}: {1}")]
    Call(String, String),
    #[error("other replicas are writing the Secret with the webhook's certificates too; trying again")]
    Overtaken,
    #[error("there is no ValidatingWebhookConfiguration {0}: nothing is checked before it is stored, only afterwards")]
    NoConfiguration(String),
    #[error("there is no MutatingWebhookConfiguration {0}: who writes a graph is not noted on it")]
    NoNotes(String),
    #[error(
        "somebody else writes caBundle of the {0} {1} over and over: a GitOps tool whose manifest has the field, or another \
         release of this name"
    )]
    Contested(Cow<'static, str>, String),
    #[error("the certificate in {0} expired at {1}: renew it; it is read again when it changes")]
    Expired(PathBuf, Timestamp),
    #[error("failed to read {0}: {1}; it is tried again")]
    File(PathBuf, #[source] io::Error),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Whether the API server accepts the certificate.
#[derive(Clone, Debug, PartialEq)]
enum Trust {
    /// It is not known to.
    No,
    /// It was told these authorities, then.
    Since(Instant, String),
    /// It does not ask, or others see to it.
    NotOurs,
}

/// Keeps a certificate good.
#[derive(Clone)]
pub struct Keeper {
    client: Client,
    source: Source,
    served: Served,
    metrics: Metrics,
    health: Health,
    trust: Trust,
    in_use: Option<InUse>,
    /// Which kind of configuration was told lately whom to trust, and when.
    told: Vec<(Cow<'static, str>, Instant)>,
    complaint: Option<(String, Instant)>,
}

/// The certificate that is served.
#[derive(Clone)]
struct InUse {
    certificate: String,
    good_until: Timestamp,
}

/// Has `keeper` run until `stop`. One that panics, which would be a mistake in this program, is told of and begins anew.
pub async fn keep(keeper: Keeper, stop: CancellationToken) {
    while let Err(error) = tokio::spawn(keeper.clone().run(stop.clone())).await {
        let message = format!("keeping the certificate was broken off: {error}; it begins anew");
        keeper.health.set_fault(PART, Some(Fault { message, stops: false }));
        if stop.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_none() {
            return;
        }
    }
}

impl Keeper {
    /// Keeps the certificate in `served`, and tells `health` what is wrong.
    pub fn new(client: Client, source: Source, served: Served, metrics: Metrics, health: Health) -> Self {
        let trust = if matches!(source, Source::Own(_)) { Trust::No } else { Trust::NotOurs };
        health.set_fault(PART, Some(Fault { message: "there is no certificate yet".to_owned(), stops: true }));
        Self { client, source, served, metrics, health, trust, in_use: None, told: Vec::new(), complaint: None }
    }

    async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            match self.source.clone() {
                Source::Own(own) => self.keep_own(&own).await,
                Source::Files(folder) => self.keep_files(&folder).await,
            }
        })
        .await;
    }

    async fn keep_own(&mut self, own: &Own) {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &own.namespace);
        let configurations: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
        let notes: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        let mut secret_seen = watch_object(secrets, &own.secret).default_backoff().boxed();
        let mut configuration_seen = watch_object(configurations, &own.configuration).default_backoff().boxed();
        let mut notes_seen = watch_object(notes, &own.configuration).default_backoff().boxed();
        loop {
            let result = self.round(own).await;
            let period = if result.is_ok() { PERIOD.min(own.settled) } else { PERIOD_AFTER_ERROR };
            self.tell(result.as_ref().err());
            tokio::time::sleep(PAUSE).await;
            // what a watch fails with, the round meets too
            tokio::select! {
                () = tokio::time::sleep(period) => {}
                Some(Ok(_)) = secret_seen.next() => {}
                Some(Ok(_)) = configuration_seen.next() => {}
                Some(Ok(_)) = notes_seen.next() => {}
            }
        }
    }

    /// One look at all that there is to keep.
    async fn round(&mut self, own: &Own) -> Result<(), KeepError> {
        for _ in 0..TRIES {
            match self.look(own).await {
                Err(KeepError::Overtaken) => {}
                result => return result,
            }
        }
        Err(KeepError::Overtaken)
    }

    async fn look(&mut self, own: &Own) -> Result<(), KeepError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &own.namespace);
        let what = format!("read the Secret {}/{}", own.namespace, own.secret);
        let read = call(&what, api.get_opt(&own.secret)).await?;
        let mut secret = read.ok_or_else(|| KeepError::NoSecret(own.namespace.clone(), own.secret.clone()))?;
        let stored = material(&secret);
        let trusted = matches!(&self.trust, Trust::Since(since, authorities)
            if *authorities == stored.authorities && since.elapsed() >= own.settled);
        let current = match own.policy.renew(&stored, trusted, Timestamp::now())? {
            None => stored,
            Some(next) => {
                put(&next, &mut secret);
                let what = format!("update the Secret {}/{}", own.namespace, own.secret);
                let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
                call(&what, api.replace(&own.secret, &parameters, &secret)).await?;
                info!(until = %validity(&next.certificate)?.1, "the webhook's certificates were renewed");
                next
            }
        };
        self.serve(&current.certificate, &current.key)?;
        self.publish(own, &current.authorities).await
    }

    fn serve(&mut self, certificate: &str, key: &str) -> Result<(), KeepError> {
        if self.in_use.as_ref().is_some_and(|known| known.certificate == certificate) {
            return Ok(());
        }
        let (good_from, good_until) = validity(certificate)?;
        self.served.set(certificate, key)?;
        self.metrics.certificate_start.set(good_from.as_second());
        self.metrics.certificate_expiry.set(good_until.as_second());
        info!(until = %good_until, "the webhook serves a certificate");
        self.in_use = Some(InUse { certificate: certificate.to_owned(), good_until });
        Ok(())
    }

    /// Tells the API server whom to trust, where it has been told something else.
    async fn publish(&mut self, own: &Own, authorities: &str) -> Result<(), KeepError> {
        let bundle = ByteString(authorities.as_bytes().to_vec());
        let checks = self.publish_for_checks(&own.configuration, &bundle, authorities).await;
        // whatever becomes of the one, the other is kept
        let notes = self.publish_for_notes(&own.configuration, &bundle).await;
        checks.and(notes)
    }

    async fn publish_for_checks(
        &mut self,
        name: &str,
        bundle: &ByteString,
        authorities: &str,
    ) -> Result<(), KeepError> {
        let Some(patch) = self.outdated::<ValidatingWebhookConfiguration>(name, bundle).await? else {
            self.trust = Trust::NotOurs;
            return Err(KeepError::NoConfiguration(name.to_owned()));
        };
        let told = !patch.is_null();
        if told {
            self.trust = Trust::No;
            self.tell_whom_to_trust::<ValidatingWebhookConfiguration>(name, patch).await?;
        }
        if !matches!(&self.trust, Trust::Since(_, known) if known == authorities) {
            self.trust = Trust::Since(Instant::now(), authorities.to_owned());
        }
        if told { self.uncontested::<ValidatingWebhookConfiguration>(name, Instant::now()) } else { Ok(()) }
    }

    /// Requests go on without it.
    async fn publish_for_notes(&mut self, name: &str, bundle: &ByteString) -> Result<(), KeepError> {
        match self.outdated::<MutatingWebhookConfiguration>(name, bundle).await? {
            Some(Value::Null) => Ok(()),
            Some(patch) => {
                self.tell_whom_to_trust::<MutatingWebhookConfiguration>(name, patch).await?;
                self.uncontested::<MutatingWebhookConfiguration>(name, Instant::now())
            }
            None => Err(KeepError::NoNotes(name.to_owned())),
        }
    }

    /// What makes all webhooks of the configuration `name` trust `bundle`; null: they do. `None`: there is none of this name.
    async fn outdated<K: Configuration>(&self, name: &str, bundle: &ByteString) -> Result<Option<Value>, KeepError> {
        let what = format!("read the {} {name}", K::kind(&()));
        let Some(configuration) = call(&what, self.configurations::<K>().get_opt(name)).await? else {
            return Ok(None);
        };
        let webhooks = configuration.data.get("webhooks").and_then(Value::as_array).into_iter().flatten();
        let others: Vec<_> = webhooks
            .filter(|webhook| webhook["clientConfig"]["caBundle"] != json!(bundle))
            .map(|webhook| json!({"name": webhook["name"], "clientConfig": {"caBundle": bundle}}))
            .collect();
        if others.is_empty() {
            return Ok(Some(Value::Null));
        }
        // webhooks are merged by name; nothing else of them is touched
        let version = configuration.metadata.resource_version;
        Ok(Some(json!({"metadata": {"resourceVersion": version}, "webhooks": others})))
    }

    async fn tell_whom_to_trust<K: Configuration>(&self, name: &str, patch: Value) -> Result<(), KeepError> {
        let kind = K::kind(&());
        let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Strategic(patch);
        call(&format!("patch the {kind} {name}"), self.configurations::<K>().patch(name, &parameters, &patch)).await?;
        info!(%kind, name, "the API server was told which certificates to trust");
        Ok(())
    }

    fn configurations<K: Configuration>(&self) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), &ApiResource::erase::<K>(&()))
    }

    /// Counts that a configuration was told whom to trust; an error where that was too often by `now`.
    fn uncontested<K: Configuration>(&mut self, name: &str, now: Instant) -> Result<(), KeepError> {
        let kind = K::kind(&());
        self.told.retain(|(_, told)| now.saturating_duration_since(*told) < CONTESTED_WITHIN);
        self.told.push((kind.clone(), now));
        let often = self.told.iter().filter(|(told, _)| *told == kind).count();
        if often > CONTESTED { Err(KeepError::Contested(kind, name.to_owned())) } else { Ok(()) }
    }

    async fn keep_files(&mut self, folder: &Path) {
        loop {
            let result = self.read_files(folder);
            self.tell(result.as_ref().err());
            tokio::time::sleep(PERIOD_OF_FILES).await;
        }
    }

    fn read_files(&mut self, folder: &Path) -> Result<(), KeepError> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).map_err(|error| KeepError::File(path, error))
        };
        self.serve(&read(CERTIFICATE)?, &read(KEY)?)?;
        match &self.in_use {
            Some(InUse { good_until, .. }) if *good_until <= Timestamp::now() => {
                Err(KeepError::Expired(folder.to_owned(), *good_until))
            }
            _ => Ok(()),
        }
    }

    /// Tells what is wrong, and when it is mended.
    fn tell(&mut self, error: Option<&KeepError>) {
        let good = self.in_use.as_ref().is_some_and(|known| known.good_until > Timestamp::now());
        let serves = good && self.trust != Trust::No;
        let message = error.map(|error| chain(error));
        self.health.set_fault(PART, message.clone().map(|message| Fault { message, stops: !serves }));
        match (message, &self.complaint) {
            (Some(message), Some((known, at))) if *known == message && at.elapsed() < COMPLAINT_PERIOD => {}
            (Some(message), _) => {
                warn!(serves, "admission: {message}");
                self.complaint = Some((message, Instant::now()));
            }
            (None, Some(_)) => {
                info!("admission: all is well again");
                self.complaint = None;
            }
            (None, None) => {}
        }
    }
}

/// One call; what it fails with, in words.
async fn call<T>(what: &str, call: impl Future<Output = kube::Result<T>>) -> Result<T, KeepError> {
    let failed = |why: String| KeepError::Call(what.to_owned(), why);
    match tokio::time::timeout(CALL, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => Err(match status.code {
            401 | 403 => KeepError::Forbidden(what.to_owned(), status.message.clone()),
            409 => KeepError::Overtaken,
            _ => failed(status.message.clone()),
        }),
        Ok(Err(error)) => Err(failed(chain(&error))),
        Err(_) => Err(failed("the API server does not answer".to_owned())),
    }
}

fn material(secret: &Secret) -> Material {
    let text = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.clone());
        bytes.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
    };
    Material {
        authorities: text(AUTHORITIES),
        authority_key: text(AUTHORITY_KEY),
        certificate: text(CERTIFICATE),
        key: text(KEY),
    }
}

fn put(material: &Material, secret: &mut Secret) {
    let data = secret.data.get_or_insert_default();
    for (key, text) in [
        (AUTHORITIES, &material.authorities),
        (AUTHORITY_KEY, &material.authority_key),
        (CERTIFICATE, &material.certificate),
        (KEY, &material.key),
    ] {
        data.insert(key.to_owned(), ByteString(text.clone().into_bytes()));
    }
}

#[cfg(test)]
mod tests;
