//! OpenTelemetry traces: a trace a graph, a span an attempt, sent over OTLP (HTTP, protobuf).
//!
//! | file | part |
//! |---|---|
//! | [`context`] | which trace a graph belongs to, and the ids of its spans: pure |
//! | [`send`] | sends what is queued, again and again while the collector is away |
//! | [`post`] | one request to the collector |
//!
//! Nothing here waits for the collector but one task in the background. What it does not take is queued up to
//! [`QUEUE`] spans; further ones are dropped and counted.

pub mod context;
mod post;
mod send;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use opentelemetry_sdk::trace::SpanData;
use tokio::sync::mpsc;

pub use self::{context::Trace, post::Collector, send::Exporter};
use super::{
    health::Health,
    metrics::{FateLabel, Metrics},
};

/// Spans that wait for the collector: about a kilobyte each.
pub const QUEUE: usize = 4096;

/// Why traces could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is none.
    #[error("--otlp-endpoint {0:?}: write http://HOST:PORT or https://HOST:PORT, without /v1/traces")]
    Endpoint(String),
    /// Headers are not `NAME=VALUE`.
    #[error("--otlp-headers: write NAME=VALUE, separated by commas")]
    Headers,
    /// The file that says whom to trust cannot be read.
    #[error("--otlp-certificate {file:?}: {why}")]
    Trust {
        /// The file.
        file: std::path::PathBuf,
        /// Why.
        why: String,
    },
}

/// Takes spans that are to be sent. Clones share one queue.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    queue: mpsc::Sender<SpanData>,
    /// The part of traces that is kept, as the bits of a float from 0 to 1.
    ratio: AtomicU64,
    metrics: Metrics,
}

impl Tracer {
    /// Traces nothing.
    pub fn off() -> Self {
        Self(None)
    }

    /// Traces the part `ratio` (0 to 1) of all graphs; the exporter sends to `collector` once it is run.
    pub fn new(collector: Collector, ratio: f64, metrics: Metrics, health: Health) -> (Self, Exporter) {
        let (queue, queued) = mpsc::channel(QUEUE);
        for fate in ["sent", "dropped"] {
            // there from the beginning: Prometheus sees no rise in the first value of a series
            drop(metrics.trace_spans.get_or_create(&FateLabel { fate }));
        }
        let exporter = Exporter::new(collector, queued, metrics.clone(), health);
        let inner = Inner { queue, ratio: AtomicU64::new(ratio.to_bits()), metrics };
        (Self(Some(Arc::new(inner))), exporter)
    }

    /// Whether an endpoint is configured.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Changes which part of traces is kept. Of a graph that runs, the spans sent from now on follow it.
    pub fn set_ratio(&self, ratio: f64) {
        if let Some(inner) = &self.0 {
            inner.ratio.store(ratio.to_bits(), Ordering::Relaxed);
        }
    }

    /// The trace of the graph `uid`; `parent`: its annotation `traceparent`. `None`: nothing is traced.
    pub fn trace(&self, uid: &str, parent: Option<&str>) -> Option<Trace> {
        let inner = self.0.as_ref()?;
        Some(Trace::new(uid, parent, f64::from_bits(inner.ratio.load(Ordering::Relaxed))))
    }

    /// Queues spans. Never waits: what the queue has no room for is dropped, and counted.
    pub fn send(&self, spans: impl IntoIterator<Item = SpanData>) {
        let Some(inner) = &self.0 else { return };
        for span in spans {
            if inner.queue.try_send(span).is_err() {
                inner.metrics.trace_spans.get_or_create(&FateLabel { fate: "dropped" }).inc();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::traces::context::tests::span;

    #[tokio::test]
    async fn what_does_not_fit_is_dropped_and_counted() {
        let (metrics, _) = Metrics::new();
        let collector = Collector::new("http://localhost:1", "", None).unwrap();
        // nobody takes anything out
        let (tracer, _exporter) = Tracer::new(collector, 1.0, metrics.clone(), Health::default());
        tracer.send((0..QUEUE + 7).map(|_| span("a")));
        assert_eq!(metrics.trace_spans.get_or_create(&FateLabel { fate: "dropped" }).get(), 7);
        assert!(!Tracer::off().is_on());
        Tracer::off().send([span("b")]);
        assert_eq!(Tracer::off().trace("u", None), None);
    }
}
