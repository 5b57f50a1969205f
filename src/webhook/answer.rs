//! What is told of a request: to whoever made it, in the log, in the API server's audit log, in metrics.

use std::time::Instant;

use k8s_openapi::api::authentication::v1::UserInfo;
use kube::core::{
    Status,
    admission::{AdmissionResponse, Operation},
    response::{StatusCause, StatusDetails, StatusSummary},
};
use tracing::{debug, info, warn};

use super::{admission::AdmissionError, request::Request, review::Outcome};
use crate::{
    engine::Problem,
    runtime::metrics::{AdmissionLabels, Metrics},
};

/// Name of the audit annotation with the fields of a spec that a request changes; the API server puts the webhook's name
/// and a slash before it.
const CHANGED: &str = "changed";
/// What came of a judgement.
type Judged = Result<Outcome, AdmissionError>;

fn user_of(user: &UserInfo) -> &str {
    user.username.as_deref().unwrap_or_default()
}

/// Writes down who changed what, who was refused, and why. `changed`: fields of the spec. `own`: it is a write of the
/// operator.
pub fn tell(request: &Request, changed: &[&str], judged: &Judged, own: bool) {
    let (kind, name, namespace) = (&request.kind.kind, request.name_of_object(), request.namespace.as_deref());
    let (user, dry_run) = (user_of(&request.user_info), request.dry_run);
    let problems = match judged {
        Err(error) => return warn!(kind, name, namespace, user, dry_run, %error, "a request could not be judged"),
        Ok(outcome) => outcome.forbidden.iter().chain(&outcome.problems).collect::<Vec<_>>(),
    };
    let changed = changed.join(",");
    if let Some(first) = problems.first() {
        let problems = problems.len();
        info!(kind, name, namespace, user, changed, problems, dry_run, "refused: {first}");
    } else if own || dry_run || changed.is_empty() {
        debug!(kind, name, namespace, user, changed, dry_run, "allowed");
    } else {
        info!(kind, name, namespace, user, changed, "allowed");
    }
}

/// The answer, with every problem as a cause.
pub fn respond(request: &Request, changed: &[&str], judged: Judged) -> AdmissionResponse {
    let mut response = request.allowed();
    if !changed.is_empty() {
        response.audit_annotations.insert(CHANGED.to_owned(), changed.join(","));
    }
    let outcome = match judged {
        Ok(outcome) => outcome,
        Err(error) => {
            let (code, reason, retry_after_seconds) = match error {
                // clients try again by themselves
                AdmissionError::Rights(_) | AdmissionError::Slow => (503, "ServiceUnavailable", 1),
                AdmissionError::NoReview(_) | AdmissionError::Broken(_) => (500, "InternalError", 0),
            };
            let details = StatusDetails { retry_after_seconds, ..details(request, Vec::new()) };
            response.result = failure(code, reason, error.to_string(), details);
            response.allowed = false;
            return response;
        }
    };
    let forbidden = outcome.forbidden.len();
    let (code, reason) = if outcome.problems.is_empty() { (403, "Forbidden") } else { (422, "Invalid") };
    let (problems, warnings) = outcome.told();
    response.warnings = Some(warnings).filter(|warnings| !warnings.is_empty());
    if problems.is_empty() {
        return response;
    }
    let message = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let cause = |(index, problem): (usize, Problem)| StatusCause {
        reason: if index < forbidden { "FieldValueForbidden" } else { "FieldValueInvalid" }.to_owned(),
        message: problem.message,
        field: problem.path,
    };
    let causes = problems.into_iter().enumerate().map(cause).collect();
    response.allowed = false;
    response.result = failure(code, reason, message, details(request, causes));
    response
}

fn details(request: &Request, causes: Vec<StatusCause>) -> StatusDetails {
    StatusDetails {
        name: request.name_of_object().to_owned(),
        group: request.kind.group.clone(),
        kind: request.kind.kind.clone(),
        uid: String::new(),
        causes,
        retry_after_seconds: 0,
    }
}

fn failure(code: u16, reason: &str, message: String, details: StatusDetails) -> Status {
    Status {
        status: Some(StatusSummary::Failure),
        code,
        message,
        metadata: None,
        reason: reason.to_owned(),
        details: Some(details),
    }
}

/// Counts a request when it is done with. One that the API server waits for no longer counts as failed.
pub struct Meter<'a> {
    metrics: &'a Metrics,
    begin: Instant,
    labels: AdmissionLabels,
}

impl<'a> Meter<'a> {
    /// Of a request that came in just now.
    pub fn new(metrics: &'a Metrics) -> Self {
        let labels = AdmissionLabels { kind: "other", operation: "other", answer: "failed" };
        Self { metrics, begin: Instant::now(), labels }
    }

    /// It could be read.
    pub fn reads(&mut self, request: &Request) {
        let kinds = ["TaskGraph", "TaskTemplate", "ClusterTaskTemplate"];
        self.labels.kind = kinds.into_iter().find(|kind| *kind == request.kind.kind).unwrap_or("other");
        self.labels.operation = match request.operation {
            Operation::Create => "create",
            Operation::Update => "update",
            Operation::Delete | Operation::Connect => "other",
        };
    }

    /// It is answered.
    pub fn answers(&mut self, response: &AdmissionResponse) {
        self.labels.answer = match response.result.code {
            _ if response.allowed => "allowed",
            500.. => "failed",
            _ => "refused",
        };
    }
}

impl Drop for Meter<'_> {
    fn drop(&mut self) {
        self.metrics.admission_requests.get_or_create(&self.labels).inc();
        self.metrics.admission_duration.observe(self.begin.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests;
