//! Jobs and pods from the API server as protobuf rather than JSON.
//!
//! Whoever else watches Jobs and pods (the scheduler, the kubelets, the Job controller) has them as protobuf, and the API
//! server encodes an event once for all watchers of one encoding. JSON it would make for us alone.
//!
//! kube knows JSON only. So this layer of its client asks for protobuf where collections of Jobs or pods are listed or
//! watched, and gives kube JSON of those fields that [`crate::jobs::view`] reads.
//!
//! | module | part |
//! |---|---|
//! | `messages` | the fields that are read, by their numbers, and their names in JSON |
//! | `json` | an object or event of the wire as JSON |
//! | `body` | the same for bodies of answers, as they come in |

mod body;
mod json;
mod messages;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http::{
    HeaderValue, Method, Request, Response,
    header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE},
};
use kube::client::Body;
use tower::{BoxError, Layer, Service};
use tracing::warn;

pub use body::Answer;

/// JSON is for what stands between us and the API server and knows no protobuf. client-go says the same.
const ACCEPTED: HeaderValue = HeaderValue::from_static("application/vnd.kubernetes.protobuf,application/json");

/// Asks for Jobs and pods as protobuf; what comes back is JSON, lean: of an object only what a
/// [`JobView`](crate::jobs::JobView) or [`PodView`](crate::jobs::PodView) reads.
///
/// It acts on GETs of collections (lists and watches) that do not say themselves what they accept. An answer in JSON
/// passes unchanged. If one in protobuf cannot be read, its body ends with an error, and from then on JSON is asked for.
#[derive(Clone, Debug, Default)]
pub struct ProtobufLayer {
    trust: Trust,
}

impl<S> Layer<S> for ProtobufLayer {
    type Service = Protobuf<S>;

    fn layer(&self, inner: S) -> Protobuf<S> {
        Protobuf { inner, trust: self.trust.clone() }
    }
}

/// What [`ProtobufLayer`] makes.
#[derive(Debug)]
pub struct Protobuf<S> {
    inner: S,
    trust: Trust,
}

impl<S, B> Service<Request<Body>> for Protobuf<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
{
    type Response = Response<Answer<B>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Answer<B>>, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let trust = self.trust.clone();
        if is_for_views(&request) && trust.is_held() {
            request.headers_mut().insert(ACCEPT, ACCEPTED);
        }
        let answer = self.inner.call(request);
        Box::pin(async move { Ok(as_json(answer.await.map_err(Into::into)?, trust)) })
    }
}

/// Whether answers in protobuf can be read, as far as is known.
#[derive(Clone, Debug, Default)]
struct Trust {
    lost: Arc<AtomicBool>,
}

impl Trust {
    fn is_held(&self) -> bool {
        !self.lost.load(Ordering::Relaxed)
    }

    /// An object that cannot be read once would stand in the way of all behind it, each time.
    fn lose(&self, error: &json::Unreadable) {
        if !self.lost.swap(true, Ordering::Relaxed) {
            warn!(%error, "failed to read protobuf from the API server; asking for JSON from now on");
        }
    }
}

/// Whether a request lists or watches Jobs or pods, and leaves open in which form.
fn is_for_views<B>(request: &Request<B>) -> bool {
    let path = request.uri().path();
    let collection = path.strip_prefix("/api/v1/").map(|rest| (rest, "pods"));
    let collection = collection.or_else(|| path.strip_prefix("/apis/batch/v1/").map(|rest| (rest, "jobs")));
    let is_it = collection.is_some_and(|(rest, plural)| match rest.strip_prefix("namespaces/") {
        Some(rest) => rest.split_once('/').is_some_and(|(_, rest)| rest == plural),
        None => rest == plural,
    });
    is_it && request.method() == Method::GET && !request.headers().contains_key(ACCEPT)
}

/// How the API server encodes a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    /// JSON, or whatever else: none of our business.
    Other,
    /// One object: a list, or a `Status` where it refuses.
    Object,
    /// The events of a watch.
    Events,
}

impl Encoding {
    fn of(content_type: Option<&HeaderValue>) -> Self {
        let text = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut parts = text.split(';').map(|part| part.trim().to_ascii_lowercase());
        match parts.next().as_deref() {
            Some("application/vnd.kubernetes.protobuf") if parts.any(|part| part == "stream=watch") => Self::Events,
            Some("application/vnd.kubernetes.protobuf") => Self::Object,
            _ => Self::Other,
        }
    }
}

fn as_json<B>(response: Response<B>, trust: Trust) -> Response<Answer<B>> {
    let (mut parts, body) = response.into_parts();
    let encoding = Encoding::of(parts.headers.get(CONTENT_TYPE));
    if encoding != Encoding::Other {
        parts.headers.remove(CONTENT_LENGTH);
        parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    Response::from_parts(parts, Answer::new(body, encoding, trust))
}
