use serde_json::json;

use super::*;
use crate::webhook::access;

fn request() -> Request {
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "77", "operation": "CREATE", "namespace": "team",
            "kind": {"group": "taskgraph.dev", "version": "v1alpha1", "kind": "TaskGraph"},
            "resource": {"group": "taskgraph.dev", "version": "v1alpha1", "resource": "taskgraphs"},
            "userInfo": {"username": "ann"}, "object": {"metadata": {"name": "g"}, "spec": {}},
        },
    });
    Request::read(review.to_string().as_bytes()).unwrap()
}

fn problem(path: &str) -> Problem {
    Problem { path: path.to_owned(), message: "is wrong".to_owned() }
}

fn unanswered() -> Judged {
    let status = Status { code: 500, message: "etcd is away".to_owned(), ..Status::default() };
    let source = Box::new(kube::Error::Api(Box::new(status)));
    Err(access::Error::Review { question: "what the requester may do", source }.into())
}

#[test]
fn what_is_answered() {
    let good = || Ok(Outcome::default());
    let forbidden = || Ok(Outcome { forbidden: vec![problem("spec.tasks")], ..Outcome::default() });
    let wrong = || Ok(Outcome { problems: vec![problem("spec.a"), problem("spec.b")], ..Outcome::default() });
    let both = || {
        Ok(Outcome { forbidden: vec![problem("spec.tasks")], problems: vec![problem("spec.a")], ..Outcome::default() })
    };
    for (judged, allowed, code, reason, causes, retry) in [
        (good(), true, 0, "", vec![], 0),
        (forbidden(), false, 403, "Forbidden", vec!["FieldValueForbidden"], 0),
        (wrong(), false, 422, "Invalid", vec!["FieldValueInvalid"; 2], 0),
        (both(), false, 422, "Invalid", vec!["FieldValueForbidden", "FieldValueInvalid"], 0),
        // never a gap that a failurePolicy could let somebody through
        (unanswered(), false, 503, "ServiceUnavailable", vec![], 1),
        (Err(AdmissionError::Slow), false, 503, "ServiceUnavailable", vec![], 1),
    ] {
        let told = format!("{judged:?}");
        let response = respond(&request(), &["tasks"], judged);
        let details = response.result.details.as_ref();
        assert_eq!((response.allowed, response.result.code, response.result.reason.as_str()), (allowed, code, reason));
        let reasons: Vec<_> =
            details.iter().flat_map(|details| &details.causes).map(|cause| cause.reason.as_str()).collect();
        let after = details.map_or(0, |details| details.retry_after_seconds);
        assert_eq!((reasons, after), (causes, retry), "{told}");
        assert_eq!(response.audit_annotations.get("changed").map(String::as_str), Some("tasks"));
    }
}

#[test]
fn every_request_is_counted_once() {
    let (metrics, _) = Metrics::new();
    let count = |kind, operation, answer| {
        metrics.admission_requests.get_or_create(&AdmissionLabels { kind, operation, answer }).get()
    };
    // it could not be read
    drop(Meter::new(&metrics));
    // nobody waited for the answer
    Meter::new(&metrics).reads(&request());
    for judged in
        [Ok(Outcome::default()), Ok(Outcome { problems: vec![problem("spec")], ..Outcome::default() }), unanswered()]
    {
        let mut meter = Meter::new(&metrics);
        meter.reads(&request());
        meter.answers(&respond(&request(), &[], judged));
    }
    assert_eq!(count("other", "other", "failed"), 1);
    assert_eq!(["allowed", "refused", "failed"].map(|answer| count("TaskGraph", "create", answer)), [1, 1, 2]);
}
