//! Answers reviews: reads a request, looks up what its judgement needs, and has it judged away from the threads that serve
//! everything else. A dry run is a request like any other: nothing is changed but the notes on who wrote a graph.

use std::{collections::BTreeSet, sync::Arc, thread, time::Duration};

use axum::body::Bytes;
use futures::{StreamExt, future, stream};
use kube::{Api, Client};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use tracing::warn;

use super::{
    access::{self, Judge, Mode},
    answer::{self, Meter},
    request::Request,
    review::{Cached, Known, Outcome, Subject, subject},
    writers,
};
use crate::{
    api::{ClusterTaskTemplate, TaskGraphSpec, TaskTemplate, TaskTemplateSpec, TemplateKind, TemplateRef},
    controller::{cluster::Cluster, revision::Pinned, templates::TemplateCache},
    engine::Problem,
    runtime::{
        health::{Fault, Health},
        lease::Leadership,
        metrics::Metrics,
        telemetry::chain,
    },
};

/// The part that [`Health`] tells of when nobody's rights can be looked up.
const PART: &str = "admission, rights";
/// How many templates are read anew before a request is refused, and how many at once.
const READ_ANEW: usize = 64;
const AT_ONCE: usize = 8;

/// Why a request was not judged.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// What was sent is no review.
    #[error("this is no AdmissionReview of admission.k8s.io/v1 with a request: {0}")]
    NoReview(String),
    /// Nobody is let through whose rights are not known.
    #[error("the rights of whoever asks could not be looked up: {0}")]
    Rights(#[from] access::Error),
    /// The same, for lack of an answer.
    #[error("the rights of whoever asks could not be looked up: the API server did not answer in time")]
    Slow,
    /// A mistake in this program.
    #[error("the check was broken off: {0}; this is a defect of the operator")]
    Broken(#[from] tokio::task::JoinError),
}

/// Answers reviews.
pub struct Admission {
    client: Client,
    cluster: Cluster,
    templates: TemplateCache,
    judge: Judge,
    metrics: Metrics,
    health: Health,
    /// Checks at once: more than there are cores would only wait for each other.
    checks: Arc<Semaphore>,
}

impl Admission {
    /// Looks up templates in `templates`, and all else with `client`. `access`: whether the rights of whoever asks are
    /// looked at.
    pub fn new(client: Client, templates: TemplateCache, access: Mode, metrics: Metrics, health: Health) -> Arc<Self> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        // admission writes nothing, on any replica
        let cluster = Cluster::new(client.clone(), Leadership::never());
        let judge = Judge::new(client.clone(), access);
        Arc::new(Self { client, cluster, templates, judge, metrics, health, checks: Arc::new(Semaphore::new(cores)) })
    }

    /// The answer to a review, both as JSON. `patience`: how long all may take that is looked up for it.
    ///
    /// A request that could be read is always answered: one that could not be judged is refused, whatever the API server
    /// would make of no answer.
    pub async fn answer(self: Arc<Self>, body: Bytes, patience: Duration) -> Result<Vec<u8>, AdmissionError> {
        let until = Instant::now() + patience;
        let mut meter = Meter::new(&self.metrics);
        let request = Arc::new(self.apart(move |_| read(&body)).await??);
        meter.reads(&request);
        let result = self.review(&request, until).await;
        let changed = request.change().map(|change| access::changed(&change)).unwrap_or_default();
        let own = self.judge.knows_as_own(&request.user_info);
        answer::tell(&request, &changed, &result, own);
        let response = answer::respond(&request, &changed, result);
        meter.answers(&response);
        serde_json::to_vec(&response.into_review()).map_err(|error| AdmissionError::NoReview(error.to_string()))
    }

    /// The answer to a request for notes on who wrote a graph, both as JSON.
    pub async fn note(self: Arc<Self>, body: Bytes) -> Result<Vec<u8>, AdmissionError> {
        let note = move |_: &Self| {
            let review = writers::answer(&read(&body)?).into_review();
            serde_json::to_vec(&review).map_err(|error| AdmissionError::NoReview(error.to_string()))
        };
        self.apart(note).await?
    }

    /// Everything that is asked about a request. Every check adds its problems.
    async fn review(self: &Arc<Self>, request: &Arc<Request>, until: Instant) -> Result<Outcome, AdmissionError> {
        let (outcome, forbidden) = tokio::try_join!(self.rules(request, until), self.rights(request, until))?;
        Ok(Outcome { forbidden, ..outcome })
    }

    /// What the change needs and whoever asks may not do.
    async fn rights(&self, request: &Request, until: Instant) -> Result<Vec<Problem>, AdmissionError> {
        let Some(change) = request.change() else { return Ok(Vec::new()) };
        let judged = timeout_at(until, self.judge.judge(&change)).await.map_err(|_| AdmissionError::Slow)?;
        match &judged {
            Err(error) if error.is_forbidden() => {
                let message = format!(
                    "{}: nobody can create or change a graph until it may (templates/webhook-rbac.yaml of the chart)",
                    chain(error)
                );
                self.health.set_fault(PART, Some(Fault { message, stops: false }));
            }
            Ok(Some(_)) => self.health.set_fault(PART, None),
            // nobody was asked, or it failed for another reason: that tells nothing of the operator's rights
            Ok(None) | Err(_) => {}
        }
        Ok(judged?.unwrap_or_default())
    }

    /// Whether the object may stand as it is to.
    async fn rules(self: &Arc<Self>, request: &Arc<Request>, until: Instant) -> Result<Outcome, AdmissionError> {
        let Some(subject) = subject(request) else { return Ok(Outcome::default()) };
        let mut known = match self.look_up(&subject, until).await {
            Ok(known) => known,
            // the controller judges it, and tells what it finds; an API server that is slow must not refuse for us
            Err(why) => return Ok(subject.unjudged(&why)),
        };
        let mut asked = BTreeSet::new();
        loop {
            let request = Arc::clone(request);
            let (outcome, unsure, judged) = self.apart(move |admission| admission.judge(&request, known)).await?;
            known = judged;
            let fresh = self.read_anew(&subject, unsure, &mut asked, until).await;
            if fresh.is_empty() {
                return Ok(outcome);
            }
            known.fresh.specs.extend(fresh);
        }
    }

    /// The outcome, and what it rests on that may be another by now.
    fn judge(&self, request: &Request, known: Known) -> (Outcome, Vec<Cached>, Known) {
        let lookup = |spec: &TaskGraphSpec, namespace: &str| self.templates.of(spec, namespace);
        let Some(subject) = subject(request) else { return (Outcome::default(), Vec::new(), known) };
        let outcome = subject.judge(&known, &lookup);
        let unsure = subject.unsure(&known, &lookup, !outcome.problems.is_empty());
        (outcome, unsure, known)
    }

    /// What the graph was accepted with; of a child graph, its parent's templates. Or why that cannot be told.
    async fn look_up(&self, subject: &Subject<'_>, until: Instant) -> Result<Known, String> {
        let Subject::Graph(change) = subject else { return Ok(Known::default()) };
        let (name, uid, of_parent) = match (change.revision(), &change.old, &change.parent) {
            (Some(revision), Some(old), _) => (revision, old.uid, false),
            (_, _, Some((parent, revision))) => (revision.as_str(), parent.as_str(), true),
            _ => return Ok(Known::default()),
        };
        let pinned = match timeout_at(until, self.cluster.get_revision(change.namespace, name)).await {
            Ok(Ok(object)) => Pinned::of(&object, uid),
            Ok(Err(error)) if error.is_not_found() => None,
            Err(_) => return Err(format!("the ControllerRevision {name} could not be read in time")),
            Ok(Err(error)) => {
                warn!(revision = name, namespace = change.namespace, %error, "a ControllerRevision could not be read");
                return Err(format!("the ControllerRevision {name} could not be read: {error}"));
            }
        };
        match pinned {
            Some(parents) if of_parent => Ok(Known { parents: Some(parents.found()), ..Known::default() }),
            None if of_parent => Err(format!("the ControllerRevision {name} of the parent graph is not there")),
            pinned => Ok(Known { pinned, ..Known::default() }),
        }
    }

    /// Templates, read live, that are not as the cache has them: whoever asks may just have applied them. None is read
    /// twice, and no more than so many.
    async fn read_anew(
        &self,
        subject: &Subject<'_>,
        unsure: Vec<Cached>,
        asked: &mut BTreeSet<TemplateRef>,
        until: Instant,
    ) -> Vec<(TemplateRef, Arc<TaskTemplateSpec>)> {
        let namespace = match subject {
            Subject::Graph(change) => change.namespace,
            Subject::Template(change) => change.namespace,
        };
        let left = READ_ANEW.saturating_sub(asked.len());
        let new: Vec<Cached> =
            unsure.into_iter().filter(|(reference, _)| asked.insert(reference.clone())).take(left).collect();
        let reads = new.into_iter().map(|(reference, cached)| async move {
            let live = self.read_template(&reference, namespace).await?;
            cached.is_none_or(|cached| *cached != live).then(|| (reference, Arc::new(live)))
        });
        let reads = stream::iter(reads).buffer_unordered(AT_ONCE).filter_map(future::ready).collect();
        timeout_at(until, reads).await.unwrap_or_default()
    }

    async fn read_template(&self, reference: &TemplateRef, namespace: &str) -> Option<TaskTemplateSpec> {
        let (client, name) = (self.client.clone(), reference.name.as_str());
        match reference.kind {
            TemplateKind::TaskTemplate => {
                let api: Api<TaskTemplate> = Api::namespaced(client, namespace);
                Some(api.get(name).await.ok()?.spec)
            }
            TemplateKind::ClusterTaskTemplate => {
                let api: Api<ClusterTaskTemplate> = Api::all(client);
                Some(api.get(name).await.ok()?.spec.0)
            }
        }
    }

    /// Does what takes milliseconds away from the threads that serve everything else.
    async fn apart<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, tokio::task::JoinError> {
        // never closed; held until the work is done, also where nobody waits for it any more
        let place = Arc::clone(&self.checks).acquire_owned().await;
        let admission = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let _place = place;
            work(&admission)
        })
        .await
    }
}

fn read(body: &[u8]) -> Result<Request, AdmissionError> {
    Request::read(body).map_err(AdmissionError::NoReview)
}

#[cfg(test)]
mod tests;
