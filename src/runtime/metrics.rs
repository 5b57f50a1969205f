//! Metrics, in one table: what is registered and what `docs/metrics.md` says are made from it.
//!
//! No label holds the name of an object: a cluster has few outcomes and verbs, but no end of graphs.

use std::{fmt::Write as _, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::api::TaskPhase;

/// Media type of [`encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Label of metrics about tasks that ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// Name of the final phase.
    pub outcome: &'static str,
}

/// Label of metrics about graphs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PhaseLabel {
    /// Name of the phase.
    pub phase: &'static str,
}

/// Label of metrics about graphs that finished.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EndingLabel {
    /// How it finished.
    pub ending: &'static str,
}

/// Label of metrics about what is sent elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FateLabel {
    /// What became of it.
    pub fate: &'static str,
}

/// Label of metrics about what was looked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabel {
    /// Whether it was found.
    pub result: &'static str,
}

/// Label of metrics about what was left out.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DropLabel {
    /// Why.
    pub reason: &'static str,
}

impl DropLabel {
    /// The sink refuses it.
    pub const REFUSED: Self = Self { reason: "refused" };
    /// The status does not tell it any more.
    pub const FORGOTTEN: Self = Self { reason: "forgotten" };
    /// The graph was deleted before it was told.
    pub const DELETED: Self = Self { reason: "deleted" };
}

/// Label of metrics about requests to the API server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct VerbLabel {
    /// As in RBAC rules.
    pub verb: &'static str,
}

/// Labels of metrics about answers of the API server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// As in RBAC rules.
    pub verb: &'static str,
    /// Class of the answer.
    pub code: &'static str,
}

/// Labels of metrics about requests that admission was asked about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AdmissionLabels {
    /// Of the object.
    pub kind: &'static str,
    /// What is to be done with it.
    pub operation: &'static str,
    /// What was answered.
    pub answer: &'static str,
}

/// Label of [`Metrics::build_info`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BuildLabel {
    /// Version of the operator.
    pub version: &'static str,
}

/// What the documentation says about a label: its name and values.
type LabelRow = (&'static str, &'static str);

const VERB: LabelRow =
    ("verb", "`get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, `other`");

trait Labels {
    const ROWS: &'static [LabelRow];
}

impl Labels for OutcomeLabel {
    const ROWS: &'static [LabelRow] = &[("outcome", "`Succeeded`, `Failed`, `Cancelled`, `Skipped`, `Omitted`")];
}

impl Labels for PhaseLabel {
    const ROWS: &'static [LabelRow] = &[(
        "phase",
        "`Pending`, `Running`, `Suspended`, `Cancelling`, `Compensating`, `Finalizing`, `Complete`, `Failed`; `Pending` too where there is no status yet",
    )];
}

impl Labels for EndingLabel {
    const ROWS: &'static [LabelRow] = &[("ending", "`Complete`, `Failed`, `Cancelled`")];
}

impl Labels for FateLabel {
    const ROWS: &'static [LabelRow] = &[("fate", "`sent`, `dropped`")];
}

impl Labels for ResultLabel {
    const ROWS: &'static [LabelRow] = &[("result", "`hit`, `miss`")];
}

impl Labels for DropLabel {
    const ROWS: &'static [LabelRow] = &[(
        "reason",
        "`refused` by the sink, `forgotten` (what the status does not tell any more), `deleted` (a graph before \
         all was told of it; counted once)",
    )];
}

impl Labels for VerbLabel {
    const ROWS: &'static [LabelRow] = &[VERB];
}

impl Labels for RequestLabels {
    const ROWS: &'static [LabelRow] = &[
        VERB,
        ("code", "`2xx`, `3xx`, `4xx`, `5xx`; `none` where no answer came (no connection, time-out, call given up)"),
    ];
}

impl Labels for AdmissionLabels {
    const ROWS: &'static [LabelRow] = &[
        ("kind", "`TaskGraph`, `TaskTemplate`, `ClusterTaskTemplate`; `other` where the request could not be read"),
        ("operation", "`create`, `update`; `other` where the request could not be read"),
        (
            "answer",
            "`allowed`, `refused`, `failed` (it could not be judged, or the API server waited no longer; nothing is let \
             through then)",
        ),
    ];
}

impl Labels for BuildLabel {
    const ROWS: &'static [LabelRow] = &[("version", "of the operator")];
}

/// What the documentation says about a type of metric.
trait Documented {
    const KIND: &'static str;
    const LABELS: &'static [LabelRow] = &[];
}

impl Documented for Counter {
    const KIND: &'static str = "counter";
}

impl Documented for Gauge {
    const KIND: &'static str = "gauge";
}

impl Documented for Histogram {
    const KIND: &'static str = "histogram";
}

impl<L: Labels, M: Documented, C> Documented for Family<L, M, C> {
    const KIND: &'static str = M::KIND;
    const LABELS: &'static [LabelRow] = L::ROWS;
}

/// One row of the table.
struct Row {
    name: &'static str,
    kind: &'static str,
    labels: &'static [LabelRow],
    help: &'static str,
}

/// A family of histograms by verb.
type HistogramByVerb = Family<VerbLabel, Histogram, fn() -> Histogram>;

/// Declares [`Metrics`], its constructor and the rows of the documentation.
macro_rules! table {
    ($( #[doc = $help:literal] $field:ident: $type:ty = $name:literal, $make:expr; )+) => {
        /// All metrics of the operator. Clones share their values.
        #[derive(Clone, Debug)]
        pub struct Metrics {
            $( #[doc = $help] pub $field: $type, )+
        }

        impl Metrics {
            /// Fresh metrics, all at zero, and the registry that [`encode`] reads.
            fn register(registry: &mut Registry) -> Self {
                let metrics = Self { $( $field: $make, )+ };
                // the library adds `_total` to counters and a full stop to every help text
                $( registry.register($name.trim_end_matches("_total"), help($help), metrics.$field.clone()); )+
                metrics
            }
        }

        const ROWS: &[Row] = &[
            $( Row { name: $name, kind: <$type as Documented>::KIND, labels: <$type as Documented>::LABELS, help: $help }, )+
        ];
    };
}

table! {
    /// Graphs that there are, by phase; counted every five seconds by the replica that works.
    graphs: Family<PhaseLabel, Gauge> = "taskgraph_graphs", Family::default();
    /// Graphs that finished, by how.
    graphs_finished: Family<EndingLabel, Counter> = "taskgraph_graphs_finished_total", Family::default();
    /// From the start of a graph, or from when it was taken up again, to its end.
    graph_duration: Histogram = "taskgraph_graph_duration_seconds", Histogram::new(TASK_BUCKETS);
    /// Tasks whose first attempt was launched.
    tasks_started: Counter = "taskgraph_tasks_started_total", Counter::default();
    /// Tasks that ended, by outcome.
    tasks_finished: Family<OutcomeLabel, Counter> = "taskgraph_tasks_finished_total", Family::default();
    /// Compensations that ended, by outcome.
    compensations_finished: Family<OutcomeLabel, Counter> = "taskgraph_compensations_finished_total", Family::default();
    /// Further attempts that were launched after one had failed.
    retries: Counter = "taskgraph_retries_total", Counter::default();
    /// Tasks, and compensations of tasks, that have a Job now.
    tasks_running: Gauge = "taskgraph_tasks_running", Gauge::default();
    /// Queue depth: tasks and compensations that may start and wait for a slot (`parallelism`).
    tasks_ready: Gauge = "taskgraph_tasks_ready", Gauge::default();
    /// Tasks with `cache` that were to start: a hit reuses the outputs of an earlier success, a miss runs.
    cache_lookups: Family<ResultLabel, Counter> = "taskgraph_cache_lookups_total", Family::default();
    /// Hand-off: from the moment that the operator saw the pod's end that released a task to that task's Job being created.
    handoff_latency: Histogram = "taskgraph_handoff_latency_seconds", Histogram::new(HANDOFF_BUCKETS);
    /// Scheduler lag: from the moment that the operator saw a pod's end to the decision about what follows from it.
    scheduler_lag: Histogram = "taskgraph_scheduler_lag_seconds", Histogram::new(HANDOFF_BUCKETS);
    /// How long an attempt that may start waits: for a slot (`parallelism`), for a place in the queue, for the answer of the API server to its create.
    task_wait: Histogram = "taskgraph_task_wait_seconds", Histogram::new(WAIT_BUCKETS);
    /// From the launch of a task's last attempt to the task's end.
    task_duration: Histogram = "taskgraph_task_duration_seconds", Histogram::new(TASK_BUCKETS);
    /// Time to look at one graph once; Jobs and the status are written in the background, and not counted.
    reconcile_duration: Histogram = "taskgraph_reconcile_duration_seconds", Histogram::new(RECONCILE_BUCKETS);
    /// Writes of graphs' status.
    status_writes: Counter = "taskgraph_status_writes_total", Counter::default();
    /// Requests to the API server, by verb and class of the answer; errors are those that are not `2xx`.
    api_requests: Family<RequestLabels, Counter> = "taskgraph_api_requests_total", Family::default();
    /// Time from sending a request to the API server to the head of its answer.
    api_request_duration: HistogramByVerb = "taskgraph_api_request_duration_seconds", Family::new_with_constructor(api_histogram);
    /// Spans of traces, by what became of them: dropped are those that the collector refused, or for which there was no room while it was away.
    trace_spans: Family<FateLabel, Counter> = "taskgraph_trace_spans_total", Family::default();
    /// What keeps this replica from being ready: the lines that `/readyz` answers.
    problems: Gauge = "taskgraph_problems", Gauge::default();
    /// `CloudEvents` that the sink took.
    cloud_events_delivered: Counter = "taskgraph_cloud_events_delivered_total", Counter::default();
    /// `CloudEvents` that were left out, by reason.
    cloud_events_dropped: Family<DropLabel, Counter> = "taskgraph_cloud_events_dropped_total", Family::default();
    /// Tries to send a `CloudEvent` that came to nothing; it is sent again.
    cloud_events_retries: Counter = "taskgraph_cloud_events_retries_total", Counter::default();
    /// Graphs of which a `CloudEvent` is still to be delivered.
    cloud_events_backlog: Gauge = "taskgraph_cloud_events_backlog", Gauge::default();
    /// How long the first of these graphs has waited for it, in this process.
    cloud_events_lag: Gauge = "taskgraph_cloud_events_lag_seconds", Gauge::default();
    /// Requests that admission was asked about, by kind, operation and answer.
    admission_requests: Family<AdmissionLabels, Counter> = "taskgraph_admission_requests_total", Family::default();
    /// Time from a request to admission to its answer, all that is looked up for it included.
    admission_duration: Histogram = "taskgraph_admission_duration_seconds", Histogram::new(ADMISSION_BUCKETS);
    /// When the certificate that admission serves expires, as Unix time; 0 where it serves none.
    certificate_expiry: Gauge = "taskgraph_admission_certificate_expiry_timestamp_seconds", Gauge::default();
    /// Since when that certificate is good, as Unix time; 0 where there is none.
    certificate_start: Gauge = "taskgraph_admission_certificate_start_timestamp_seconds", Gauge::default();
    /// 1 while this replica holds the Lease and so does the work, 0 while it stands by.
    leader: Gauge = "taskgraph_leader", Gauge::default();
    /// Always 1; its label says what runs.
    build_info: Family<BuildLabel, Gauge> = "taskgraph_build_info", Family::default();
}

const HANDOFF_BUCKETS: [f64; 14] = [0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
const WAIT_BUCKETS: [f64; 14] =
    [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0];
const TASK_BUCKETS: [f64; 13] =
    [0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0];
const RECONCILE_BUCKETS: [f64; 11] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];
const ADMISSION_BUCKETS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
const API_BUCKETS: [f64; 9] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

fn api_histogram() -> Histogram {
    Histogram::new(API_BUCKETS)
}

fn help(text: &str) -> &str {
    text.trim().trim_end_matches('.')
}

impl Metrics {
    /// Fresh metrics, and the registry that [`encode`] prints.
    pub fn new() -> (Self, Registry) {
        let mut registry = Registry::default();
        let metrics = Self::register(&mut registry);
        metrics.build_info.get_or_create(&BuildLabel { version: env!("CARGO_PKG_VERSION") }).set(1);
        (metrics, registry)
    }

    /// Counts a task that ended in the final phase `outcome`, `duration` after its last attempt was
    /// launched (none where it had none).
    pub fn task_finished(&self, outcome: TaskPhase, duration: Option<Duration>) {
        self.tasks_finished.get_or_create(&OutcomeLabel { outcome: outcome.name() }).inc();
        if let Some(duration) = duration {
            self.task_duration.observe(duration.as_secs_f64());
        }
    }

    /// Counts a graph that finished: `Complete`, `Failed` or `Cancelled`.
    pub fn graph_finished(&self, ending: &'static str, duration: Option<Duration>) {
        self.graphs_finished.get_or_create(&EndingLabel { ending }).inc();
        if let Some(duration) = duration {
            self.graph_duration.observe(duration.as_secs_f64());
        }
    }

    /// Counts a compensation that ended in the final phase `outcome`.
    pub fn compensation_finished(&self, outcome: TaskPhase) {
        self.compensations_finished.get_or_create(&OutcomeLabel { outcome: outcome.name() }).inc();
    }
}

/// What `/metrics` answers.
pub fn encode(registry: &Registry) -> String {
    let mut text = String::new();
    // writing to a String cannot fail, and all names are ours
    let _ = text::encode(&mut text, registry);
    text
}

/// The text of `docs/metrics.md`.
pub fn documentation() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         <!-- Generated by `make generate` from src/runtime/metrics.rs; do not edit. -->\n\n\
         The operator serves these at `/metrics` on `--listen` (port 8080), in the OpenMetrics text format. \
         Times are in seconds. No label holds the name of an object.\n\n\
         | metric | type | labels | meaning |\n|---|---|---|---|\n",
    );
    for row in ROWS {
        let labels: Vec<_> = row.labels.iter().map(|(name, _)| format!("`{name}`")).collect();
        let _ = writeln!(page, "| `{}` | {} | {} | {} |", row.name, row.kind, labels.join(", "), row.help.trim());
    }
    page.push_str("\n| label | values |\n|---|---|\n");
    let labels: std::collections::BTreeMap<_, _> = ROWS.iter().flat_map(|row| row.labels).copied().collect();
    for (name, values) in labels {
        let _ = writeln!(page, "| `{name}` | {values} |");
    }
    page
}

#[cfg(test)]
mod used;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::stale;

    #[test]
    fn documentation_is_current() {
        stale::check("docs/metrics.md", &documentation());
    }

    #[test]
    fn everything_in_the_table_is_served_under_its_name() {
        let (metrics, registry) = Metrics::new();
        metrics.task_finished(TaskPhase::Omitted, None);
        metrics.compensation_finished(TaskPhase::Failed);
        metrics.graph_finished("Complete", Some(Duration::from_secs(1)));
        metrics.graphs.get_or_create(&PhaseLabel { phase: "Running" }).set(1);
        metrics.trace_spans.get_or_create(&FateLabel { fate: "sent" }).inc();
        metrics.api_requests.get_or_create(&RequestLabels { verb: "get", code: "2xx" }).inc();
        metrics.api_request_duration.get_or_create(&VerbLabel { verb: "get" }).observe(0.1);
        metrics.cache_lookups.get_or_create(&ResultLabel { result: "hit" }).inc();
        metrics.cloud_events_dropped.get_or_create(&DropLabel::REFUSED).inc();
        let labels = AdmissionLabels { kind: "TaskGraph", operation: "create", answer: "allowed" };
        metrics.admission_requests.get_or_create(&labels).inc();
        let text = encode(&registry);
        for row in ROWS {
            let sample =
                if row.kind == "histogram" { format!("\n{}_bucket{{", row.name) } else { format!("\n{}", row.name) };
            assert!(text.contains(&sample), "{} is missing in\n{text}", row.name);
        }
        assert!(text.contains("taskgraph_tasks_finished_total{outcome=\"Omitted\"} 1\n"), "{text}");
        assert!(
            text.contains("# HELP taskgraph_tasks_running Tasks, and compensations of tasks, that have a Job now.\n"),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn final_phases_are_the_documented_outcomes() {
        let phases =
            [TaskPhase::Succeeded, TaskPhase::Failed, TaskPhase::Cancelled, TaskPhase::Skipped, TaskPhase::Omitted];
        assert!(phases.iter().all(|phase| phase.is_final()));
        assert_eq!(OutcomeLabel::ROWS[0].1, phases.map(|phase| format!("`{}`", phase.name())).join(", "));
    }

    #[test]
    fn a_skipped_task_has_no_duration() {
        let (metrics, registry) = Metrics::new();
        metrics.task_finished(TaskPhase::Skipped, None);
        metrics.task_finished(TaskPhase::Succeeded, Some(Duration::from_millis(1500)));
        let text = encode(&registry);
        for sample in [
            "seconds_count 1\n",
            "seconds_sum 1.5\n",
            "seconds_bucket{le=\"1.0\"} 0\n",
            "seconds_bucket{le=\"2.0\"} 1\n",
        ] {
            assert!(text.contains(&format!("taskgraph_task_duration_{sample}")), "{sample} in\n{text}");
        }
    }
}
