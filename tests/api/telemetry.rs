//! What the operator tells of itself: traces, as a collector receives them; logs; health.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use axum::{Router, body::Bytes, extract::State, routing::post};
use http::StatusCode;
use kube::api::{ListParams, PostParams};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::any_value::Value as Any,
    trace::v1::{Span, Status, status::StatusCode as Code},
};
use parking_lot::Mutex;
use prost::Message as _;
use serde_json::{Value, json};
use taskgraph::api::TaskGraph;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    fixture::{Fixture, task, task_with},
    obstacles::until_ready,
    support::{
        Play,
        namespace::{PATIENCE, status, task as task_status},
    },
};

/// A collector: takes OTLP over HTTP, or refuses while it is away.
pub struct Collector {
    address: SocketAddr,
    shared: Arc<Received>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Received {
    spans: Mutex<Vec<Span>>,
    service: Mutex<Option<String>>,
    away: AtomicBool,
    refused: AtomicBool,
}

impl Collector {
    /// Starts one.
    pub async fn start() -> Result<Self> {
        let shared = Arc::<Received>::default();
        let router = Router::new().route("/v1/traces", post(receive)).with_state(Arc::clone(&shared));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Ok(Self { address, shared, server })
    }

    /// Where it takes traces.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    fn set_away(&self, away: bool) {
        self.shared.away.store(away, Ordering::SeqCst);
    }

    /// What it has taken.
    pub fn spans(&self) -> Vec<Span> {
        self.shared.spans.lock().clone()
    }

    /// Waits for a span.
    pub async fn until(&self, name: &str) -> Span {
        let begin = Instant::now();
        loop {
            if let Some(span) = self.spans().into_iter().find(|span| span.name == name) {
                return span;
            }
            let names: Vec<_> = self.spans().into_iter().map(|span| span.name).collect();
            assert!(begin.elapsed() < PATIENCE, "no span {name} among {names:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn receive(State(received): State<Arc<Received>>, body: Bytes) -> StatusCode {
    if received.away.load(Ordering::SeqCst) {
        received.refused.store(true, Ordering::SeqCst);
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    let Ok(request) = ExportTraceServiceRequest::decode(body) else { return StatusCode::BAD_REQUEST };
    for resource in request.resource_spans {
        let attributes = resource.resource.map(|resource| resource.attributes).unwrap_or_default();
        let name = attributes.into_iter().find(|one| one.key == "service.name").and_then(|one| one.value?.value);
        if let Some(Any::StringValue(name)) = name {
            *received.service.lock() = Some(name);
        }
        received.spans.lock().extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
    }
    StatusCode::OK
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let value = span.attributes.iter().find(|one| one.key == key)?.value.clone()?.value?;
    Some(match value {
        Any::StringValue(text) => text,
        Any::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The `TRACEPARENT` of each Job, by its name.
async fn handed_on(fixture: &Fixture) -> Result<BTreeMap<String, String>> {
    let jobs = fixture.namespace.jobs().list(&ListParams::default()).await?;
    let variable = |job: &k8s_openapi::api::batch::v1::Job| {
        let container = job.spec.as_ref()?.template.spec.as_ref()?.containers.first()?.clone();
        container.env?.into_iter().find(|variable| variable.name == "TRACEPARENT")?.value
    };
    Ok(jobs.iter().filter_map(|job| Some((job.metadata.name.clone()?, variable(job)?))).collect())
}

/// One span for the graph and one for each attempt, none twice, all of one trace; what ran was told its span.
async fn judge(fixture: &Fixture, collector: &Collector, graph: &TaskGraph) -> Result<Vec<Span>> {
    let name = graph.metadata.name.clone().unwrap_or_default();
    let root = collector.until(&name).await;
    let mut expected = BTreeSet::from([name]);
    for task in status(graph).tasks {
        for attempt in 1..=task.attempts {
            let name = format!("{} #{attempt}", task.name);
            collector.until(&name).await;
            expected.insert(name);
        }
    }
    let spans = collector.spans();
    let names: Vec<_> = spans.iter().map(|span| span.name.clone()).collect();
    assert_eq!(names.len(), expected.len(), "{names:?}");
    assert_eq!(names.into_iter().collect::<BTreeSet<_>>(), expected);
    let handed_on = handed_on(fixture).await?;
    for span in &spans {
        assert_eq!(span.trace_id, root.trace_id);
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
        if span.span_id == root.span_id {
            continue;
        }
        assert_eq!(span.parent_span_id, root.span_id, "{}", span.name);
        let job = attribute(span, "k8s.job.name").context("its Job")?;
        let expected = format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id));
        assert_eq!(handed_on.get(&job), Some(&expected), "{job} was told its span");
    }
    Ok(spans)
}

fn script(task: &str, attempt: u32) -> Play {
    match (task, attempt) {
        ("flaky", 1) => Play::fails(3),
        ("slow", _) => Play::succeeds("").held(),
        _ => Play::succeeds(""),
    }
}

#[tokio::test]
async fn a_graph_is_one_trace_through_a_restart() -> Result<()> {
    let collector = Collector::start().await?;
    let args = ["--otlp-endpoint", &collector.endpoint(), "--log-format", "json"];
    let mut fixture = Fixture::with_args("trace", &args, script).await?;
    let retry = json!({"retry": {"limit": 1, "backoff": {"initial": "100ms"}}});
    let spec = json!({"tasks": [task("first", &[]), task("slow", &["first"]), task_with("flaky", &["slow"], retry)]});
    fixture.namespace.create("g", spec).await?;
    // what is not sent when it is killed is lost
    collector.until("first #1").await;
    fixture.until_pod_runs("slow").await;
    fixture.operator.kill().await?;
    fixture.restart().await?;
    fixture.player.let_end();
    let graph = fixture.namespace.until_finished("g").await;
    let spans = judge(&fixture, &collector, &graph).await?;
    assert_eq!(spans.len(), 5);
    assert_eq!(collector.shared.service.lock().as_deref(), Some("taskgraph"));
    let failed = collector.until("flaky #1").await;
    assert_eq!(failed.status.as_ref().map(Status::code), Some(Code::Error));
    assert_eq!(attribute(&failed, "process.exit.code").as_deref(), Some("3"));
    assert_eq!(attribute(&failed, "taskgraph.attempt").as_deref(), Some("1"));
    let root = collector.until("g").await;
    assert_eq!(attribute(&root, "taskgraph.graph.uid"), graph.metadata.uid);
    assert!(root.parent_span_id.is_empty());
    // what is logged about it carries its trace
    let trace = hex(&root.trace_id);
    let log = fixture.operator.log_tail(usize::MAX);
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_graph: Vec<_> = lines.filter(|line| line["graph"] == "g").collect();
    assert!(!of_graph.is_empty());
    assert!(of_graph.iter().all(|line| line["trace_id"] == *trace), "{of_graph:#?}");
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn an_edit_or_a_rerun_doubles_nothing() -> Result<()> {
    let collector = Collector::start().await?;
    let fixture = Fixture::with_args("trace", &["--otlp-endpoint", &collector.endpoint()], script).await?;
    fixture.run("g", json!({"tasks": [task("a", &[]), task("b", &["a"])]})).await?;
    collector.until("g").await;
    fixture.namespace.edit("g", json!({"rerun": {"id": "1", "scope": "Tasks", "tasks": ["b"]}})).await?;
    collector.until("g, again").await;
    collector.until("b #2").await;
    let names: Vec<_> = collector.spans().into_iter().map(|span| span.name).collect();
    let unique: BTreeSet<_> = names.iter().collect();
    assert_eq!(names.len(), unique.len(), "{names:?}");
    assert_eq!(names.len(), 5, "{names:?}");
    Ok(())
}

#[tokio::test]
async fn a_graph_is_part_of_the_trace_of_whoever_made_it() -> Result<()> {
    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let collector = Collector::start().await?;
    // nothing of its own would be traced
    let args = ["--otlp-endpoint", &collector.endpoint(), "--trace-ratio", "0"];
    let fixture = Fixture::with_args("trace", &args, script).await?;
    let inner = json!({"graph": {"tasks": [task("inner", &[])]}});
    fixture.namespace.create_template("child", inner).await?;
    fixture.run("untraced", json!({"tasks": [task("a", &[])]})).await?;
    let child = json!({"name": "child", "templateRef": {"name": "child"}});
    let graph: TaskGraph = serde_json::from_value(json!({
        "apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskGraph",
        "metadata": {"name": "traced", "annotations": {"traceparent": PARENT}},
        "spec": {"tasks": [child]},
    }))?;
    fixture.namespace.graphs().create(&PostParams::default(), &graph).await?;
    fixture.namespace.until_finished("traced").await;
    let root = collector.until("traced").await;
    let attempt = collector.until("child #1").await;
    let leaf = collector.until("inner #1").await;
    assert_eq!(hex(&root.parent_span_id), "b7ad6b7169203331");
    for span in collector.spans() {
        assert_eq!(hex(&span.trace_id), "0af7651916cd43dd8448eb211c80319c", "{}", span.name);
    }
    let child = collector.spans().into_iter().find(|span| span.span_id == leaf.parent_span_id);
    assert_eq!(child.context("the child graph's span")?.parent_span_id, attempt.span_id);
    assert_eq!(collector.spans().len(), 4);
    Ok(())
}

#[tokio::test]
async fn a_collector_that_is_away_holds_nothing_up() -> Result<()> {
    let collector = Collector::start().await?;
    collector.set_away(true);
    let fixture = Fixture::with_args("trace", &["--otlp-endpoint", &collector.endpoint()], script).await?;
    let graph = fixture.run("g", json!({"tasks": [task("a", &[]), task("b", &["a"])]})).await?;
    let begin = Instant::now();
    while !collector.shared.refused.load(Ordering::SeqCst) {
        assert!(begin.elapsed() < PATIENCE, "nothing was sent");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(collector.spans().is_empty());
    collector.set_away(false);
    judge(&fixture, &collector, &graph).await?;
    let (_, metrics) = fixture.operator.get("/metrics").await?;
    assert!(metrics.contains("taskgraph_trace_spans_total{fate=\"sent\"} 3"), "{metrics}");
    Ok(())
}

#[tokio::test]
async fn without_a_collector_jobs_are_as_they_were() -> Result<()> {
    let fixture = Fixture::new("trace", script).await?;
    let graph = fixture.run("g", json!({"tasks": [task("a", &[])]})).await?;
    assert!(task_status(&graph, "a").is_some());
    assert_eq!(handed_on(&fixture).await?, BTreeMap::new());
    Ok(())
}

#[tokio::test]
async fn the_status_page_tells_each_part() -> Result<()> {
    let fixture = Fixture::new("status", script).await?;
    until_ready(&fixture.operator, 200, "ok").await?;
    fixture.run("g", json!({"tasks": [task("a", &[]), task("b", &["a"])]})).await?;
    let (code, page) = fixture.operator.get("/healthz?verbose").await?;
    let page: Value = serde_json::from_str(&page)?;
    assert_eq!((code, &page["healthy"], &page["ready"]), (200, &true.into(), &true.into()), "{page:#}");
    assert_eq!(page["apiServer"]["reachable"], true);
    assert!(page["apiServer"]["kubernetes"].as_str().is_some_and(|version| version.starts_with("1.")), "{page:#}");
    assert_eq!(page["lease"]["holder"], fixture.operator.identity());
    assert_eq!(page["lease"]["leading"], true);
    for kind in ["TaskGraph", "TaskTemplate", "ClusterTaskTemplate", "Job", "Pod"] {
        let watch = &page["watches"][kind];
        assert_eq!(watch["synced"], true, "{kind}: {page:#}");
        assert!(watch["ageSeconds"].as_u64().is_some_and(|age| age < 300), "{kind}: {page:#}");
    }
    assert!(page["work"]["lagMillis"].is_u64(), "{page:#}");
    Ok(())
}

#[tokio::test]
async fn how_much_is_logged_is_changed_at_run_time() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("settings.yaml");
    fs::write(&file, "logLevel: warn\n")?;
    let path = file.display().to_string();
    let fixture = Fixture::with_args("levels", &["--settings", &path], script).await?;
    fixture.run("quiet", json!({"tasks": [task("a", &[])]})).await?;
    assert!(!fixture.operator.log_tail(usize::MAX).contains("accepted"));
    fs::write(&file, "logLevel: nonsense=loud\n")?;
    let until = async |told: &str| {
        let begin = Instant::now();
        while !fixture.operator.log_tail(usize::MAX).contains(told) {
            assert!(begin.elapsed() < PATIENCE, "the log does not say {told:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    until("what was set before goes on").await;
    fs::write(&file, "logLevel: info\n")?;
    until("settings changed").await;
    fixture.run("told", json!({"tasks": [task("a", &[])]})).await?;
    until("accepted").await;
    Ok(())
}
