use serde_json::json;

use super::*;

fn word(refused: &Refused) -> String {
    match refused {
        Refused::AlreadyExists => "exists".into(),
        Refused::Blocked { reason, cluster, .. } => format!("{reason} {cluster}"),
        Refused::Final(failure) => format!("{} {:?}", failure.reason, failure.blame),
        Refused::Transient(_) => "again".into(),
    }
}

#[test]
fn answers_to_a_create() {
    for (code, reason, message, expected) in [
        (409, "AlreadyExists", "jobs.batch \"x\" already exists", "exists"),
        (409, "Conflict", "the object has been modified", "again"),
        (422, "Invalid", "Job.batch \"x\" is invalid: spec.template...", "JobRefused Final"),
        (400, "BadRequest", "strict decoding error: unknown field \"spec.template.spec.x\"", "JobRefused Final"),
        (413, "RequestEntityTooLarge", "limit is 3145728", "JobRefused Final"),
        (
            403,
            "Forbidden",
            "jobs.batch \"x\" is forbidden: exceeded quota: q, requested: count/jobs.batch=1",
            "QuotaExceeded true",
        ),
        (
            403,
            "Forbidden",
            "jobs.batch \"x\" is forbidden: unable to create new content in namespace n because it is being terminated",
            "NamespaceTerminating true",
        ),
        (403, "Forbidden", "User \"u\" cannot create resource \"jobs\"", "JobForbidden true"),
        (404, "NotFound", "namespaces \"n\" not found", "NamespaceNotFound true"),
        (429, "TooManyRequests", "", "again"),
        (
            500,
            "InternalError",
            "Internal error occurred: failed calling webhook \"x.y\": failed to call webhook: Post \"https://x.y.svc:443\": EOF",
            "WebhookFailed true",
        ),
        (500, "InternalError", "etcdserver: request timed out", "again"),
        (504, "Timeout", "", "again"),
    ] {
        assert_eq!(word(&refusal(code, reason, message)), expected, "{code} {message}");
    }
}

fn event(seen: &str, reason: &str, message: &str) -> ClusterEvent {
    serde_json::from_value(json!({
        "metadata": {"name": seen}, "involvedObject": {}, "lastTimestamp": seen, "reason": reason, "message": message,
    }))
    .unwrap()
}

#[test]
fn why_a_job_has_no_pod() {
    // messages as the Job controller of Kubernetes 1.34 writes them
    for (message, expected) in [
        (
            "Error creating: pods \"x-abc\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1",
            "QuotaExceeded true",
        ),
        (
            "Error creating: pods \"x-abc\" is forbidden: violates PodSecurity \"restricted:latest\": runAsNonRoot != true",
            "PodSecurity Final",
        ),
        (
            "Error creating: pods \"x-abc\" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi",
            "PodRefused Final",
        ),
        (
            "Error creating: pods \"x-abc\" is forbidden: failed quota: q: must specify limits.cpu for: main",
            "PodRefused Final",
        ),
        ("Error creating: pods \"x-abc\" is forbidden: no PriorityClass with name high was found", "PodRefused Final"),
        (
            "Error creating: Pod \"x-abc\" is invalid: spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
            "PodRefused Final",
        ),
        (
            "Error creating: pods \"x-abc\" is forbidden: error looking up service account n/s: serviceaccount \"s\" not found",
            "FailedCreate true",
        ),
        ("Error creating: Internal error occurred: failed calling webhook \"w\"", "FailedCreate true"),
    ] {
        let refused = blocked_by_events(&[event("2026-01-01T00:00:00Z", "FailedCreate", message)]).unwrap();
        assert_eq!(word(&refused), expected, "{message}");
    }
    assert_eq!(blocked_by_events(&[]), None);
    assert_eq!(blocked_by_events(&[event("2026-01-01T00:00:00Z", "SuccessfulCreate", "Created pod")]), None);
}

#[test]
fn the_newest_reason_counts() {
    let old = event("2026-01-01T00:00:00Z", "FailedCreate", "violates PodSecurity");
    let new = event("2026-01-01T00:00:09Z", "FailedCreate", "exceeded quota");
    for events in [[old.clone(), new.clone()], [new, old]] {
        assert_eq!(word(&blocked_by_events(&events).unwrap()), "QuotaExceeded true");
    }
}
