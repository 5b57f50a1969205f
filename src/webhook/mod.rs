//! Admission: two webhooks that the operator serves, on every replica. One judges what is to be stored, one notes who wrote it.
//!
//! | file | part |
//! |---|---|
//! | [`request`] | a request, as the API server sends it |
//! | [`review`] | what a request changes, and what the rules object to: pure |
//! | [`access`] | whether whoever asks may do what the change needs |
//! | [`admission`] | looks up what a review needs, and has it judged |
//! | [`answer`] | what is told of a request, and to whom |
//! | [`certificates`] | certificates and when they are made anew: pure |
//! | [`keeper`] | keeps them in a Secret, and tells the API server whom to trust |
//! | [`tls`] | serves them |
//! | [`writers`] | notes on a graph who wrote it: pure |
//!
//! It has no rules of its own ([`crate::validate`], [`crate::controller::edit::judge`]), changes nothing but those notes, and nothing that
//! must always hold rests on it: the controller judges every spec again.

pub mod access;
pub mod admission;
mod answer;
pub mod certificates;
pub mod keeper;
pub mod request;
pub mod review;
pub mod tls;
pub mod writers;

use std::{future::ready, io, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, RawQuery, State},
    http::{
        HeaderValue, StatusCode,
        header::{CONNECTION, CONTENT_TYPE},
    },
    middleware::map_response,
    response::{IntoResponse, Response},
    routing::post,
};
use kube::Client;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::{
    admission::{Admission, AdmissionError},
    keeper::{Keeper, Own, Source},
    tls::{Connections, Served},
};
use crate::{
    controller::templates::TemplateCache,
    runtime::{args::Args, health::Health, metrics::Metrics},
};

/// Where reviews are sent to.
pub const PATH: &str = "/admit";
/// Where graphs are sent to, to have noted who wrote them.
pub const PATH_OF_WRITERS: &str = "/writers";
/// The longest review. The API server takes objects of 3 MiB, and sends an update's twice.
const MAX_BODY: usize = 16 << 20;
/// How long an API server waits for an answer if it does not say (it does).
const WAITS: Duration = Duration::from_secs(10);
/// How long reviews are still answered after the program was told to end: until then no API server knows of it. On a busy
/// machine its endpoint is withdrawn a second or three after that.
const LINGER: Duration = Duration::from_secs(5);

/// Where the certificate comes from, as the arguments say. `namespace`: the operator's own.
pub fn source(args: &Args, namespace: &str) -> Source {
    if let Some(folder) = &args.webhook_certificates {
        return Source::Files(folder.clone());
    }
    let service = &args.webhook_service;
    let names = ["", ".cluster.local"].map(|domain| format!("{service}.{namespace}.svc{domain}"));
    let policy = certificates::Policy { names: names.into(), validity: args.webhook_validity };
    Source::Own(Own::new(policy, namespace.to_owned(), service.clone(), args.webhook_configuration.clone()))
}

/// What admission works with.
#[derive(Debug)]
pub struct Options {
    /// Where its certificate comes from.
    pub source: Source,
    /// The templates of the cluster.
    pub templates: TemplateCache,
    /// Whether the rights of whoever asks count.
    pub access: access::Mode,
    /// Counts requests, and shows when the certificate expires.
    pub metrics: Metrics,
    /// Tells from now on what is missing.
    pub health: Health,
}

/// Serves reviews on `listener` until `stop`, and a little longer.
pub fn run(
    listener: TcpListener,
    client: Client,
    options: Options,
    stop: CancellationToken,
) -> impl Future<Output = io::Result<()>> + Send + 'static {
    let Options { source, templates, access, metrics, health } = options;
    let served = Served::default();
    let keeper = Keeper::new(client.clone(), source, served.clone(), metrics.clone(), health.clone());
    let admission = Admission::new(client, templates, access, metrics, health);
    async move {
        let ended = CancellationToken::new();
        let kept = tokio::spawn(keeper::keep(keeper, ended.clone()));
        let result = serve(listener, served, admission, stop, LINGER).await;
        ended.cancel();
        let _ = kept.await;
        result
    }
}

/// Serves reviews with the certificate in `served` until `stop`, and for `linger` longer; then lets open requests end.
pub async fn serve(
    listener: TcpListener,
    served: Served,
    admission: Arc<Admission>,
    stop: CancellationToken,
    linger: Duration,
) -> io::Result<()> {
    let router = router(admission, stop.clone());
    let last = async move {
        stop.cancelled().await;
        tokio::time::sleep(linger).await;
    };
    axum::serve(Connections::on(listener, served)?, router).with_graceful_shutdown(last).await
}

/// From `stop` on each answer ends its connection. API servers keep theirs for the next review, and could be cut off in the
/// midst of it when all connections are closed in the end. So those that are busy move to replicas that stay; what is closed
/// in the end has not been used for a while.
fn router(admission: Arc<Admission>, stop: CancellationToken) -> Router {
    let leave = move |mut answer: Response| {
        if stop.is_cancelled() {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        ready(answer)
    };
    Router::new()
        .route(PATH, post(admit))
        .route(PATH_OF_WRITERS, post(note))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(map_response(leave))
        .with_state(admission)
}

async fn note(State(admission): State<Arc<Admission>>, body: Bytes) -> Response {
    respond(admission.note(body).await)
}

async fn admit(State(admission): State<Arc<Admission>>, RawQuery(query): RawQuery, body: Bytes) -> Response {
    respond(admission.answer(body, patience(query.as_deref())).await)
}

fn respond(answer: Result<Vec<u8>, admission::AdmissionError>) -> Response {
    match answer {
        Ok(answer) => ([(CONTENT_TYPE, "application/json")], answer).into_response(),
        Err(error @ AdmissionError::NoReview(_)) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
        Err(error) => {
            warn!(%error, "a review failed");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
        }
    }
}

/// How long all may take that is looked up for a request: half of what the API server waits, as it says in the address
/// (`timeout=10s`). The rest is for the checks, and for the way.
fn patience(query: Option<&str>) -> Duration {
    let timeout = query.into_iter().flat_map(|query| query.split('&')).find_map(|pair| pair.strip_prefix("timeout="));
    let seconds = timeout.and_then(|text| text.strip_suffix('s')?.parse().ok());
    seconds.map_or(WAITS, Duration::from_secs).clamp(Duration::from_secs(1), 3 * WAITS) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_what_the_api_server_waits() {
        for (query, millis) in [
            (None, 5000),
            (Some("timeout=10s"), 5000),
            (Some("a=b&timeout=3s"), 1500),
            (Some("timeout=30s"), 15_000),
            (Some("timeout=99999s"), 15_000),
            (Some("timeout=0s"), 500),
            (Some("timeout=1m0s"), 5000),
            (Some("timeout=-1s"), 5000),
            (Some("timeout="), 5000),
        ] {
            assert_eq!(patience(query), Duration::from_millis(millis), "{query:?}");
        }
    }
}
