//! Sends what is queued.

use std::time::Duration;

use bytes::Bytes;
use opentelemetry::KeyValue;
use opentelemetry_proto::{
    tonic::collector::trace::v1::ExportTraceServiceRequest,
    transform::{common::tonic::ResourceAttributesWithSchema, trace::tonic::group_spans_by_resource_and_scope},
};
use opentelemetry_sdk::{Resource, trace::SpanData};
use prost::Message as _;
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::post::{Answer, Collector};
use crate::runtime::{
    health::{Fault, Health},
    metrics::{FateLabel, Metrics},
    seldom::Seldom,
};

/// What `/readyz` and `/status` call it.
const PART: &str = "traces";
/// Spans of one request.
const BATCH: usize = 512;
/// How long a span waits for others.
const LINGER: Duration = Duration::from_secs(1);
/// The pauses between tries.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long the last spans are sent when the program ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// The task that sends spans.
#[derive(Debug)]
pub struct Exporter {
    collector: Collector,
    queued: mpsc::Receiver<SpanData>,
    resource: ResourceAttributesWithSchema,
    metrics: Metrics,
    /// Whom the operator's health is told to.
    health: Health,
    /// The log tells that the collector is away,
    failing: Seldom,
    /// or refuses.
    refusing: Seldom,
}

impl Exporter {
    pub(super) fn new(
        collector: Collector,
        queued: mpsc::Receiver<SpanData>,
        metrics: Metrics,
        health: Health,
    ) -> Self {
        // it heeds OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("taskgraph");
        }
        let resource = resource.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))).build();
        let (failing, refusing) = (Seldom::default(), Seldom::default());
        Self { collector, queued, resource: (&resource).into(), metrics, health, failing, refusing }
    }

    /// Sends until `stop`, then what is left, for a moment.
    pub async fn run(mut self, stop: CancellationToken) {
        while let Some(batch) = self.next(&stop).await {
            tokio::select! {
                () = self.deliver(&batch) => {}
                // what has come meanwhile is tried once, below; this batch too
                () = stop.cancelled() => {
                    self.farewell(Some(batch)).await;
                    return;
                }
            }
        }
        self.farewell(None).await;
    }

    /// The spans of the next request; `None`: it is time to end.
    async fn next(&mut self, stop: &CancellationToken) -> Option<Vec<SpanData>> {
        let mut batch = Vec::new();
        tokio::select! {
            count = self.queued.recv_many(&mut batch, BATCH) => if count == 0 { return None },
            () = stop.cancelled() => return None,
        }
        let linger = sleep(LINGER);
        tokio::pin!(linger);
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            tokio::select! {
                count = self.queued.recv_many(&mut batch, room) => if count == 0 { break },
                () = &mut linger => break,
                () = stop.cancelled() => break,
            }
        }
        Some(batch)
    }

    /// Sends a batch, however often it takes: the queue behind it is bounded.
    async fn deliver(&mut self, batch: &[SpanData]) {
        let (body, mut pause) = (self.encoded(batch.to_vec()), FIRST_PAUSE);
        loop {
            match self.collector.post(body.clone()).await {
                Answer::Later(at_least, why) => {
                    if self.failing.tell().is_some() {
                        warn!(error = why, "traces are not taken; trying again, and dropping those that do not fit");
                    }
                    self.note(Some(format!("the collector does not take them: {why}")));
                    sleep(at_least.unwrap_or_default().min(LONGEST_PAUSE).max(pause)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                answer => return self.settle(batch.len(), answer),
            }
        }
    }

    /// What came of a request that is not sent again.
    fn settle(&mut self, spans: usize, answer: Answer) {
        let spans = u64::try_from(spans).unwrap_or(u64::MAX);
        let dropped = match answer {
            Answer::Taken { refused } => {
                if self.failing.over() {
                    info!("traces are taken again");
                }
                self.note(None);
                refused.min(spans)
            }
            Answer::Never(why) | Answer::Later(_, why) => {
                if let Some(more) = self.refusing.tell() {
                    warn!(error = why, spans, more, "traces are refused, and dropped");
                }
                self.note(Some(format!("the collector refuses them, and they are dropped: {why}")));
                spans
            }
        };
        for (fate, count) in [("sent", spans - dropped), ("dropped", dropped)] {
            self.metrics.trace_spans.get_or_create(&FateLabel { fate }).inc_by(count);
        }
    }

    fn note(&self, wrong: Option<String>) {
        self.health.set_fault(PART, wrong.map(|message| Fault { message, stops: false }));
    }

    /// Sends what is left, each batch once.
    async fn farewell(&mut self, first: Option<Vec<SpanData>>) {
        self.queued.close();
        let all = async {
            if let Some(batch) = first {
                let answer = self.collector.post(self.encoded(batch.clone())).await;
                self.settle(batch.len(), answer);
            }
            loop {
                let mut batch = Vec::new();
                if self.queued.recv_many(&mut batch, BATCH).await == 0 {
                    return;
                }
                let spans = batch.len();
                let answer = self.collector.post(self.encoded(batch)).await;
                self.settle(spans, answer);
            }
        };
        if tokio::time::timeout(FAREWELL, all).await.is_err() {
            warn!("the last traces were not sent: the collector does not answer");
        }
    }

    fn encoded(&self, batch: Vec<SpanData>) -> Bytes {
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
    }
}
