//! The client of the API server: bounded in time, counted, and without retries of its own.

use std::{
    sync::LazyLock,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response, header::USER_AGENT};
use kube::{Client, Config, client::Body};
use tokio::time::Instant;
use tower::{BoxError, Layer, Service};

use super::{
    connections::{self, stack},
    health::Health,
    metrics::{Metrics, RequestLabels, VerbLabel},
    protobuf::ProtobufLayer,
};

/// How long the API server may take to begin its answer. Watches begin theirs at once.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection may take to stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Name and version of this program, as the API server's audit log shows them.
pub static AGENT: LazyLock<HeaderValue> =
    LazyLock::new(|| HeaderValue::from_static(concat!("taskgraph/", env!("CARGO_PKG_VERSION"))));

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither a kubeconfig nor a service account was found.
    #[error("failed to find a cluster: {0}")]
    Config(#[from] kube::config::InferConfigError),
    /// What was found cannot be used (certificates, addresses).
    #[error("failed to set up the connection to the cluster: {0}")]
    Build(#[from] connections::Error),
}

/// A client for the cluster that KUBECONFIG or `~/.kube/config` names, else for the one that the
/// process runs in. Its requests are counted in `metrics`, and answers reported to `health`.
///
/// Nothing is sent yet. No request waits for the head of its answer for more than 30 s; callers
/// that need to know sooner set their own limit. kube's retries of 429, 503 and 504 (up to 15, of
/// POST too, over minutes) are off: whoever sends decides, knowing what has changed in between.
/// The pool of connections has no upper limit, so that every request in flight has its own
/// (HTTP/1.1): callers bound how many they send at once.
///
/// Lists and watches of Jobs and pods bring only what [`crate::jobs::view`] reads; see [`ProtobufLayer`].
pub async fn connect(metrics: &Metrics, health: &Health) -> Result<Client, Error> {
    build(Config::infer().await?, metrics, health)
}

/// As [`connect`], for a configuration that the caller has.
pub fn build(mut config: Config, metrics: &Metrics, health: &Health) -> Result<Client, Error> {
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.headers.push((USER_AGENT, AGENT.clone()));
    let watched = WatchedLayer { metrics: metrics.clone(), health: health.clone(), patience: ANSWER_TIMEOUT };
    Ok(stack(&config)?.with_layer(&watched).with_layer(&ProtobufLayer::default()).build())
}

/// Adds [`Watched`] to a stack.
struct WatchedLayer {
    metrics: Metrics,
    health: Health,
    patience: Duration,
}

impl<S> Layer<S> for WatchedLayer {
    type Service = Watched<S>;

    fn layer(&self, inner: S) -> Watched<S> {
        Watched { inner, metrics: self.metrics.clone(), health: self.health.clone(), patience: self.patience }
    }
}

/// Counts requests, bounds the time until their answer begins.
struct Watched<S> {
    inner: S,
    metrics: Metrics,
    health: Health,
    patience: Duration,
}

impl<S, B> Service<Request<Body>> for Watched<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<B>, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let watched = (verb(&request) == "watch").then(|| request.uri().path().to_owned());
        let mut count =
            Count { metrics: self.metrics.clone(), verb: verb(&request), code: "none", sent: Instant::now() };
        let (health, patience) = (self.health.clone(), self.patience);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = tokio::time::timeout(patience, answer)
                .await
                .map_err(|_| format!("the API server did not begin to answer within {patience:?}"))?
                .map_err(Into::into)?;
            count.answered(answer.status());
            if !answer.status().is_server_error() {
                health.api_answered();
            }
            if let Some(path) = watched.filter(|_| answer.status().is_success()) {
                health.watches().begun(&path);
            }
            Ok(answer)
        })
    }
}

/// Counts on drop, so that calls that their caller gave up are counted too.
struct Count {
    metrics: Metrics,
    verb: &'static str,
    code: &'static str,
    sent: Instant,
}

impl Count {
    /// A method, so that the `async` block above takes all of `self` along, not only this field.
    fn answered(&mut self, status: http::StatusCode) {
        self.code = class(status);
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        let Self { metrics, verb, code, sent } = self;
        metrics.api_requests.get_or_create(&RequestLabels { verb, code }).inc();
        metrics.api_request_duration.get_or_create(&VerbLabel { verb }).observe(sent.elapsed().as_secs_f64());
    }
}

fn class(status: http::StatusCode) -> &'static str {
    match status.as_u16() {
        // 101 switches protocols, and is as good
        100..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        _ => "5xx",
    }
}

/// What RBAC calls a request.
fn verb<B>(request: &Request<B>) -> &'static str {
    let watch =
        || request.uri().query().unwrap_or_default().split('&').any(|pair| pair == "watch=true" || pair == "watch=1");
    let named = || names_one_object(request.uri().path());
    match *request.method() {
        Method::GET if watch() => "watch",
        Method::GET if named() => "get",
        Method::GET => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if named() => "delete",
        Method::DELETE => "deletecollection",
        _ => "other",
    }
}

/// Whether a path ends at an object, as in `/api/v1/namespaces/NS/pods/NAME`, rather than at a
/// collection. Paths outside the groups (`/version`) count as objects.
fn names_one_object(path: &str) -> bool {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let rest: Vec<_> = match parts.next() {
        Some("api") => parts.skip(1).collect(),
        Some("apis") => parts.skip(2).collect(),
        _ => return true,
    };
    match rest.as_slice() {
        [] => true,
        ["namespaces", _, rest @ ..] if !rest.is_empty() => rest.len() >= 2,
        rest => rest.len() >= 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_named_as_in_rbac() {
        for (method, uri, expected) in [
            ("GET", "/apis/batch/v1/jobs?labelSelector=a&watch=true", "watch"),
            ("GET", "/apis/batch/v1/jobs?&labelSelector=a", "list"),
            ("GET", "/apis/batch/v1/namespaces/x/jobs", "list"),
            ("GET", "/apis/batch/v1/namespaces/x/jobs/y", "get"),
            ("GET", "/api/v1/namespaces/x/pods/y/log", "get"),
            ("GET", "/api/v1/namespaces", "list"),
            ("GET", "/api/v1/namespaces/x", "get"),
            ("GET", "/version", "get"),
            ("POST", "/apis/batch/v1/namespaces/x/jobs?fieldValidation=Strict", "create"),
            ("PUT", "/apis/coordination.k8s.io/v1/namespaces/x/leases/y", "update"),
            ("PATCH", "/apis/taskgraph.dev/v1alpha1/namespaces/x/taskgraphs/y/status", "patch"),
            ("DELETE", "/apis/batch/v1/namespaces/x/jobs/y", "delete"),
            ("DELETE", "/apis/batch/v1/namespaces/x/jobs", "deletecollection"),
            ("OPTIONS", "/", "other"),
        ] {
            let request = Request::builder().method(method).uri(uri).body(()).unwrap();
            assert_eq!(verb(&request), expected, "{method} {uri}");
        }
    }

    /// Answers `status` after `delay`.
    fn server(
        status: u16,
        delay: Duration,
    ) -> impl Service<Request<Body>, Response = Response<()>, Error = BoxError, Future: Send> {
        tower::service_fn(move |_| async move {
            tokio::time::sleep(delay).await;
            Ok(Response::builder().status(status).body(())?)
        })
    }

    /// Sends one GET through the layer, which waits for `patience`, and gives up after `limit`. The
    /// error, and what was counted, by code.
    async fn send(status: u16, delay: u64, patience: u64, limit: u64) -> (Option<String>, Vec<(&'static str, u64)>) {
        let (metrics, _) = Metrics::new();
        let patience = Duration::from_millis(patience);
        let layer = WatchedLayer { metrics: metrics.clone(), health: Health::default(), patience };
        let mut service = layer.layer(server(status, Duration::from_millis(delay)));
        let request = Request::get("/version").body(Body::empty()).unwrap();
        let answer = tokio::time::timeout(Duration::from_millis(limit), service.call(request)).await;
        let counts = ["2xx", "3xx", "4xx", "5xx", "none"]
            .into_iter()
            .map(|code| (code, metrics.api_requests.get_or_create(&RequestLabels { verb: "get", code }).get()))
            .filter(|(_, count)| *count > 0)
            .collect();
        (answer.ok().and_then(Result::err).map(|error| error.to_string()), counts)
    }

    #[tokio::test]
    async fn every_request_is_counted_once() {
        const LONG: u64 = 60_000;
        for (status, code) in [(200, "2xx"), (201, "2xx"), (301, "3xx"), (409, "4xx"), (429, "4xx"), (503, "5xx")] {
            assert_eq!(send(status, 0, LONG, LONG).await, (None, vec![(code, 1)]));
        }
        let late = Some("the API server did not begin to answer within 1ms".into());
        assert_eq!(send(200, LONG, 1, LONG).await, (late, vec![("none", 1)]));
        assert_eq!(send(200, LONG, LONG, 1).await, (None, vec![("none", 1)]), "the caller gave up");
    }
}
