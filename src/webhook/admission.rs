//! Answers reviews: reads a request, looks up what its judgement needs, has it judged away from the threads that serve
//! everything else, and writes the answer. Nothing is ever changed: a dry run is a request like any other.

use std::{collections::BTreeSet, sync::Arc, thread, time::Duration};

use axum::body::Bytes;
use futures::{StreamExt, future, stream};
use kube::{
    Api, Client,
    core::{
        DynamicObject, Status,
        admission::{AdmissionResponse, AdmissionReview, Operation},
        response::{StatusCause, StatusDetails, StatusSummary},
    },
};
use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::{
    access::{self, Change, Content, Judge, Kind, Mode},
    review::{Cached, Known, Outcome, Request, Subject, spec_of, subject},
    writers::notes,
};
use crate::{
    api::{ClusterTaskTemplate, TaskGraphSpec, TaskTemplate, TaskTemplateSpec, TemplateKind, TemplateRef},
    controller::{
        cluster::{CallError, Cluster},
        revision::Pinned,
        templates::TemplateCache,
    },
    engine::Problem,
    runtime::lease::Leadership,
};

/// How long everything may take that is looked up for one request: the API server waits ten seconds for its answer.
const LOOK_UP: Duration = Duration::from_secs(4);
/// How many templates are read anew before a request is refused, and how many at once.
const READ_ANEW: usize = 64;
const AT_ONCE: usize = 8;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// What was sent is no review.
    #[error("this is no AdmissionReview of admission.k8s.io/v1 with a request: {0}")]
    NoReview(String),
    /// Nobody is let through whose rights are not known.
    #[error("the rights of whoever asks could not be looked up: {0}")]
    Rights(#[from] access::Error),
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
    /// Checks at once: more than there are cores would only wait for each other.
    checks: Semaphore,
}

impl Admission {
    /// Looks up templates in `templates`, and all else with `client`. `access`: whether the rights of whoever asks are
    /// looked at.
    pub fn new(client: Client, templates: TemplateCache, access: Mode) -> Arc<Self> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        // admission writes nothing, on any replica
        let cluster = Cluster::new(client.clone(), Leadership::never());
        let judge = Judge::new(client.clone(), access);
        Arc::new(Self { client, cluster, templates, judge, checks: Semaphore::new(cores) })
    }

    /// The answer to a review, both as JSON.
    pub async fn answer(self: Arc<Self>, body: Bytes) -> Result<Vec<u8>, AdmissionError> {
        let request = Arc::new(self.apart(move |_| read(&body)).await??);
        let outcome = self.review(&request).await?;
        tell(&request, &outcome);
        let review = respond(&request, outcome).into_review();
        serde_json::to_vec(&review).map_err(|error| AdmissionError::NoReview(error.to_string()))
    }

    /// The answer to a request for notes on who wrote a graph, both as JSON.
    pub async fn note(self: Arc<Self>, body: Bytes) -> Result<Vec<u8>, AdmissionError> {
        let note = move |_: &Self| {
            let request = read(&body)?;
            let patch = notes(&request);
            let response = AdmissionResponse::from(&request);
            let response = if patch.is_empty() { Ok(response) } else { response.with_patch(patch) };
            let review = response.map(|response| serde_json::to_vec(&response.into_review()));
            review.ok().and_then(Result::ok).ok_or_else(|| AdmissionError::NoReview("it cannot be answered".to_owned()))
        };
        self.apart(note).await?
    }

    /// Everything that is asked about a request. Every check adds its problems.
    async fn review(self: &Arc<Self>, request: &Arc<Request>) -> Result<Outcome, AdmissionError> {
        let (mut outcome, denied) = tokio::try_join!(self.rules(request), self.rights(request))?;
        outcome.problems.splice(0..0, denied);
        Ok(outcome)
    }

    /// Whether whoever asks may do what the change needs.
    async fn rights(&self, request: &Request) -> Result<Vec<Problem>, AdmissionError> {
        match change(request) {
            Some(change) => Ok(self.judge.judge(&change).await?),
            None => Ok(Vec::new()),
        }
    }

    /// Whether the object may stand as it is to.
    async fn rules(self: &Arc<Self>, request: &Arc<Request>) -> Result<Outcome, AdmissionError> {
        let Some(subject) = subject(request) else { return Ok(Outcome::default()) };
        let mut known = match self.look_up(&subject).await {
            Ok(known) => known,
            // the controller judges it, and tells what it finds; an API server that is slow must not refuse for us
            Err(why) => return Ok(subject.unjudged(&why)),
        };
        let mut asked = BTreeSet::new();
        loop {
            let request = Arc::clone(request);
            let (outcome, unsure, judged) = self.apart(move |admission| admission.judge(&request, known)).await?;
            known = judged;
            let fresh = self.read_anew(&subject, unsure, &mut asked).await;
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
    async fn look_up(&self, subject: &Subject<'_>) -> Result<Known, String> {
        let Subject::Graph(change) = subject else { return Ok(Known::default()) };
        let (name, uid, of_parent) = match (change.revision(), &change.old, &change.parent) {
            (Some(revision), Some(old), _) => (revision, old.uid, false),
            (_, _, Some((parent, revision))) => (revision.as_str(), parent.as_str(), true),
            _ => return Ok(Known::default()),
        };
        let read = tokio::time::timeout(LOOK_UP, self.cluster.get_revision(change.namespace, name)).await;
        let pinned = match read.unwrap_or(Err(CallError::Timeout)) {
            Ok(object) => Pinned::of(&object, uid),
            Err(error) if error.is_not_found() => None,
            Err(error) => {
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
        tokio::time::timeout(LOOK_UP, reads).await.unwrap_or_default()
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
        // the semaphore is never closed
        let _place = self.checks.acquire().await;
        let admission = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&admission)).await
    }
}

/// What a request writes; `None`: none of our objects.
fn change(request: &Request) -> Option<Change<'_>> {
    let kind = match request.kind.kind.as_str() {
        "TaskGraph" => Kind::Graph,
        "TaskTemplate" => Kind::Template,
        "ClusterTaskTemplate" => Kind::ClusterTemplate,
        _ => return None,
    };
    let old = match request.operation {
        Operation::Create => None,
        Operation::Update => request.old_object.as_ref(),
        Operation::Delete | Operation::Connect => return None,
    };
    Some(Change {
        kind,
        namespace: request.namespace.as_deref().unwrap_or_default(),
        name: name_of(request),
        old: old.map(content),
        new: content(request.object.as_ref()?),
        user: &request.user_info,
    })
}

fn content(object: &DynamicObject) -> Content<'_> {
    Content { metadata: &object.metadata, spec: spec_of(object) }
}

fn read(body: &[u8]) -> Result<Request, AdmissionError> {
    let review: AdmissionReview<DynamicObject> =
        serde_json::from_slice(body).map_err(|error| AdmissionError::NoReview(error.to_string()))?;
    review.try_into().map_err(|error: kube::core::admission::ConvertAdmissionReviewError| {
        AdmissionError::NoReview(error.to_string())
    })
}

fn tell(request: &Request, outcome: &Outcome) {
    let (kind, name, namespace) = (&request.kind.kind, name_of(request), request.namespace.as_deref());
    let user = request.user_info.username.as_deref();
    if let Some(first) = outcome.problems.first() {
        let problems = outcome.problems.len();
        info!(kind, name, namespace, user, problems, dry_run = request.dry_run, "refused: {first}");
    }
}

/// An object that is created may only have its name by now.
fn name_of(request: &Request) -> &str {
    let own = request.object.as_ref().and_then(|object| object.metadata.name.as_deref());
    if request.name.is_empty() { own.unwrap_or_default() } else { &request.name }
}

/// The answer, with every problem as a cause.
fn respond(request: &Request, outcome: Outcome) -> AdmissionResponse {
    let mut response = AdmissionResponse::from(request);
    let (problems, warnings) = outcome.told();
    response.warnings = Some(warnings).filter(|warnings| !warnings.is_empty());
    if problems.is_empty() {
        return response;
    }
    let message = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let cause = |problem: Problem| StatusCause {
        reason: "FieldValueInvalid".to_owned(),
        message: problem.message,
        field: problem.path,
    };
    let details = StatusDetails {
        name: name_of(request).to_owned(),
        group: request.kind.group.clone(),
        kind: request.kind.kind.clone(),
        uid: String::new(),
        causes: problems.into_iter().map(cause).collect(),
        retry_after_seconds: 0,
    };
    response.allowed = false;
    response.result = Status {
        status: Some(StatusSummary::Failure),
        code: 422,
        message,
        metadata: None,
        reason: "Invalid".to_owned(),
        details: Some(details),
    };
    response
}

#[cfg(test)]
mod tests;
