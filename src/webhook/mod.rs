//! Admission: a validating webhook that the operator serves, on every replica.
//!
//! | file | part |
//! |---|---|
//! | [`review`] | what a request changes, and what the rules object to: pure |
//! | [`access`] | whether whoever asks may do what the change needs |
//! | [`admission`] | looks up what a review needs, and answers |
//! | [`certificates`] | certificates and when they are made anew: pure |
//! | [`keeper`] | keeps them in a Secret, and tells the API server whom to trust |
//! | [`tls`] | serves them |
//!
//! It has no rules of its own ([`crate::validate`], [`crate::controller::edit::judge`]), changes nothing, and nothing that
//! must always hold rests on it: the controller judges every spec again.

pub mod access;
pub mod admission;
pub mod certificates;
pub mod keeper;
pub mod review;
pub mod tls;

use std::{io, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::post,
};
use kube::Client;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::{
    admission::Admission,
    keeper::{Keeper, Own, Source},
    tls::{Connections, Served},
};
use crate::{
    controller::templates::TemplateCache,
    runtime::{args::Args, health::Health, parts},
};

/// Where reviews are sent to.
pub const PATH: &str = "/admit";
/// The longest review. The API server takes objects of 3 MiB, and sends an update's twice.
const MAX_BODY: usize = 16 << 20;
/// How long reviews are still answered after the program was told to end: until then no API server knows of it.
const LINGER: Duration = Duration::from_secs(3);

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

/// Serves reviews on `listener` until `stop`, and a little longer. `access`: whether the rights of whoever asks count. `health` tells from now on what is missing.
pub fn run(
    listener: TcpListener,
    source: Source,
    client: Client,
    templates: TemplateCache,
    access: access::Mode,
    health: Health,
    stop: CancellationToken,
) -> impl Future<Output = io::Result<()>> + Send + 'static {
    let served = Served::default();
    let keeper = Keeper::new(client.clone(), source, served.clone(), health.clone());
    let admission = Admission::new(client, templates, access);
    async move {
        let ended = CancellationToken::new();
        let kept = tokio::spawn(parts::run(health, "keeping the certificates of admission", keeper.run(ended.clone())));
        let last = async move {
            stop.cancelled().await;
            tokio::time::sleep(LINGER).await;
        };
        let result = serve(listener, served, admission, last).await;
        ended.cancel();
        // one that panicked has been told of
        let _ = kept.await;
        result
    }
}

/// Serves reviews with the certificate in `served` until `stop`, then lets open requests end.
pub async fn serve(
    listener: TcpListener,
    served: Served,
    admission: Arc<Admission>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let router = Router::new().route(PATH, post(admit)).layer(DefaultBodyLimit::max(MAX_BODY)).with_state(admission);
    axum::serve(Connections::on(listener, served)?, router).with_graceful_shutdown(stop).await
}

async fn admit(State(admission): State<Arc<Admission>>, body: Bytes) -> Response {
    match admission.answer(body).await {
        Ok(answer) => ([(CONTENT_TYPE, "application/json")], answer).into_response(),
        Err(error @ admission::AdmissionError::NoReview(_)) => {
            (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response()
        }
        Err(error) => {
            warn!(%error, "a review failed");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
        }
    }
}
