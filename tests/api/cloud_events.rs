//! What happens is told as CloudEvents: all of it, at least once, in the order of each graph, whatever becomes of the
//! sink and of the operator.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use anyhow::Result;
use serde_json::{Value, json};
use taskgraph::{
    api::TaskGraph,
    controller::cloud_events::{
        event::{CONTENT_TYPE, GraphName},
        facts::Told,
        render::{Style, render},
    },
};

use crate::{
    fixture::{Fixture, task, task_with},
    support::{
        ControlPlane, Namespace, Operator, Play, Proxy,
        namespace::{PATIENCE, finished, status},
        operator::Settings,
        sink::{Entry, HttpSink, Nats},
    },
};

/// A chain with a retry, a task that is skipped, and one that fails and may.
pub fn spec() -> Value {
    let retry = json!({"retry": {"limit": 2, "backoff": {"initial": "20ms"}}});
    json!({
        "tasks": [
            task("a", &[]),
            task_with("b", &["a"], retry),
            task_with("no", &["a"], json!({"when": "1 > 2"})),
            task_with("bad", &["a"], json!({"allowFailure": true})),
            task("c", &["b"]),
        ],
        "finally": [task("end", &[])],
    })
}

pub fn script(task: &str, attempt: u32) -> Play {
    let play = match (task, attempt) {
        ("b", 1) => Play::fails(7),
        ("bad", _) => Play::fails(1),
        _ => Play::succeeds(r#"{"secret": "x"}"#),
    };
    play.after(Duration::from_millis(200))
}

/// Replaces the operator by one of the same name with more arguments.
pub async fn operate(fixture: &mut Fixture, args: &[String]) -> Result<()> {
    fixture.operator.kill().await?;
    let settings = Settings::new(fixture.proxy.kubeconfig(), &fixture.namespace.name);
    let identity = fixture.operator.identity().to_owned();
    fixture.operator = Operator::start(Settings { identity, args: args.to_vec(), ..settings })?;
    Ok(())
}

fn to_http(sink: &HttpSink) -> Vec<String> {
    vec!["--events-http-url".to_owned(), sink.url()]
}

/// Waits until the status says that all is told.
pub async fn until_told(namespace: &Namespace, name: &str) -> TaskGraph {
    let is_told = |graph: &TaskGraph| {
        let status = status(graph);
        finished(graph).is_some() && status.cloud_events.is_some_and(|owed| !owed.owes(status.sequence))
    };
    namespace.until(name, "told", is_told).await
}

fn id(event: &Value) -> String {
    event["id"].as_str().unwrap_or_default().to_owned()
}

/// What is to be told of a graph, by what its final status tells.
pub fn expected(graph: &TaskGraph) -> Vec<Value> {
    let (status, metadata) = (status(graph), &graph.metadata);
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let name = GraphName { namespace: text(&metadata.namespace), name: text(&metadata.name), uid: text(&metadata.uid) };
    let facts = Told::default().facts(&status);
    let events = facts.iter().filter_map(|fact| render(&Style::default(), &name, fact, &status));
    events.map(|event| serde_json::to_value(event).unwrap()).collect()
}

/// The events of a graph, each once, as they first came.
fn distinct(events: &[Value], graph: &TaskGraph) -> Vec<Value> {
    let (mut seen, name) = (BTreeSet::new(), graph.metadata.name.as_deref().unwrap_or_default());
    let of_graph = |event: &&Value| event["data"]["graph"]["name"] == name;
    events.iter().filter(of_graph).filter(|event| seen.insert(id(event))).cloned().collect()
}

/// All was told of a graph, as it stands in its status: the graph's own events and those of each task in order, its
/// beginning first and its end last.
pub fn judge(events: &[Value], graph: &TaskGraph) {
    let by_subject = |events: &[Value]| {
        let mut lines = BTreeMap::<String, Vec<Value>>::new();
        for event in events {
            lines.entry(event["subject"].as_str().unwrap_or_default().to_owned()).or_default().push(event.clone());
        }
        lines
    };
    let (found, wanted) = (distinct(events, graph), expected(graph));
    assert!(wanted.len() >= 10, "{wanted:?}");
    assert_eq!(by_subject(&found), by_subject(&wanted), "told on the left, stored on the right");
    assert_eq!((found.first(), found.last()), (wanted.first(), wanted.last()));
}

#[tokio::test]
async fn everything_is_told_once_while_the_sink_takes_it() -> Result<()> {
    let mut fixture = Fixture::new("events", script).await?;
    let sink = HttpSink::start().await?;
    let token = ControlPlane::shared().dir().join(format!("{}.token", fixture.namespace.name));
    fs::write(&token, "letmein\n")?;
    let token = ["--events-token-file".to_owned(), token.display().to_string()];
    operate(&mut fixture, &[to_http(&sink), token.into()].concat()).await?;
    fixture.namespace.create("g", spec()).await?;
    let graph = until_told(&fixture.namespace, "g").await;
    let events = sink.taken();
    judge(&events, &graph);
    assert_eq!(events.len(), expected(&graph).len(), "nothing twice");
    let types: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap_or_default()).collect();
    assert_eq!(
        (types.first(), types.last()),
        (Some(&"dev.taskgraph.graph.accepted"), Some(&"dev.taskgraph.graph.succeeded"))
    );
    assert!(!events.iter().any(|event| event.to_string().contains("secret")), "outputs were not asked for");
    for one in sink.received() {
        assert_eq!(one.headers, ["Bearer letmein", CONTENT_TYPE]);
    }
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn a_sink_that_is_away_holds_nothing_up_and_misses_nothing() -> Result<()> {
    let mut fixture = Fixture::new("events", script).await?;
    let mut sink = HttpSink::away()?;
    let args = to_http(&sink);
    operate(&mut fixture, &args).await?;
    for name in ["g1", "g2"] {
        fixture.namespace.create(name, spec()).await?;
    }
    fixture.until_job("b", 2).await;
    // killed in mid-run, and once more when all is done
    operate(&mut fixture, &args).await?;
    for name in ["g1", "g2"] {
        let graph = fixture.namespace.until_finished(name).await;
        let owed = status(&graph).cloud_events.unwrap_or_default();
        assert!(owed.owes(status(&graph).sequence), "it finished, and that is to be told");
    }
    operate(&mut fixture, &args).await?;
    // it comes back, and is not well at first
    let count = std::sync::atomic::AtomicU32::new(0);
    sink.answer(move |_| match count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
        number if number % 5 == 1 => (500, Duration::ZERO),
        number if number % 5 == 3 => (429, Duration::ZERO),
        _ => (200, Duration::from_millis(20)),
    });
    sink.come().await?;
    for name in ["g1", "g2"] {
        let graph = until_told(&fixture.namespace, name).await;
        judge(&sink.taken(), &graph);
    }
    assert!(sink.received().iter().any(|one| one.code == 500), "it was not well");
    Ok(())
}

#[tokio::test]
async fn an_operator_that_is_killed_while_it_tells_is_followed_by_one_that_goes_on() -> Result<()> {
    let mut fixture = Fixture::new("events", script).await?;
    let sink = HttpSink::start().await?;
    sink.answer(|_| (204, Duration::from_millis(100)));
    let args = to_http(&sink);
    operate(&mut fixture, &args).await?;
    fixture.namespace.create("g", spec()).await?;
    for (task, attempt) in [("a", 1), ("b", 1), ("c", 1), ("end", 1)] {
        fixture.until_job(task, attempt).await;
        operate(&mut fixture, &args).await?;
    }
    let graph = until_told(&fixture.namespace, "g").await;
    judge(&sink.taken(), &graph);
    Ok(())
}

#[tokio::test]
async fn two_operators_tell_the_same() -> Result<()> {
    let mut fixture = Fixture::new("events", script).await?;
    let sink = HttpSink::start().await?;
    let args = to_http(&sink);
    operate(&mut fixture, &args).await?;
    let lease = Namespace::new(&ControlPlane::shared().client().await?, "lease").await?;
    let proxy = Proxy::start(ControlPlane::shared()).await?;
    let settings = Settings::new(proxy.kubeconfig(), &fixture.namespace.name);
    let _another = Operator::start(Settings { lease_namespace: lease.name, args, ..settings })?;
    for name in ["g1", "g2", "g3"] {
        fixture.namespace.create(name, spec()).await?;
    }
    for name in ["g1", "g2", "g3"] {
        let graph = until_told(&fixture.namespace, name).await;
        let (found, wanted) = (distinct(&sink.taken(), &graph), expected(&graph));
        let ids = |events: &[Value]| events.iter().map(id).collect::<BTreeSet<_>>();
        assert!(ids(&found).is_superset(&ids(&wanted)), "{found:#?}");
    }
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn what_the_sink_refuses_is_dropped_and_the_rest_told() -> Result<()> {
    let mut fixture = Fixture::new("events", script).await?;
    let sink = HttpSink::start().await?;
    sink.answer(|event| (if event["subject"] == "bad" { 400 } else { 200 }, Duration::ZERO));
    operate(&mut fixture, &to_http(&sink)).await?;
    fixture.namespace.create("g", spec()).await?;
    let graph = until_told(&fixture.namespace, "g").await;
    let refused: Vec<_> = sink.received().into_iter().filter(|one| one.code == 400).collect();
    assert_eq!(refused.len(), 2, "each once: {refused:?}");
    assert_eq!(sink.taken().len(), expected(&graph).len() - 2);
    Ok(())
}

#[tokio::test]
async fn an_edit_loses_nothing_and_a_deletion_waits() -> Result<()> {
    let mut fixture = Fixture::new("events", script).await?;
    let mut sink = HttpSink::away()?;
    operate(&mut fixture, &to_http(&sink)).await?;
    let mut spec = spec();
    spec["ttlAfterFinished"] = json!("1s");
    fixture.namespace.create("g", spec).await?;
    fixture.until_job("b", 2).await;
    fixture.namespace.edit("g", json!({"rerun": {"id": "1", "scope": "Tasks", "tasks": ["a"]}})).await?;
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(status(&graph).tasks.first().map(|task| task.attempts), Some(2));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(fixture.namespace.graphs().get_opt("g").await?.is_some(), "its end is not told yet");
    sink.come().await?;
    fixture
        .namespace
        .until_object(fixture.namespace.graphs(), "g", "deleted", |graph| graph.is_none().then_some(()))
        .await;
    let ids: Vec<_> = sink.taken().iter().map(id).collect();
    let uid = graph.metadata.uid.unwrap_or_default();
    for end in ["task.succeeded/a/1", "task.succeeded/a/2", "task.succeeded/c/", "graph.rerun/", "graph.succeeded/"] {
        let wanted = format!("{uid}/{end}");
        assert!(ids.iter().any(|id| id.starts_with(&wanted)), "{wanted} is not among {ids:#?}");
    }
    Ok(())
}

#[tokio::test]
async fn nats_stores_each_event_once() -> Result<()> {
    let mut fixture = Fixture::new("events", script).await?;
    let mut nats = Nats::away(Entry::Token("letmein"))?;
    let token = ControlPlane::shared().dir().join(format!("{}.token", fixture.namespace.name));
    fs::write(&token, "letmein\n")?;
    let args: Vec<String> = [
        "--events-nats-url",
        &nats.url(),
        "--events-nats-subject",
        "ops.tg",
        "--events-token-file",
        &token.display().to_string(),
    ]
    .map(String::from)
    .into();
    operate(&mut fixture, &args).await?;
    fixture.namespace.create("g1", spec()).await?;
    fixture.namespace.until_finished("g1").await;
    nats.start()?;
    nats.make_stream("EVENTS", "ops.tg.>").await?;
    let first = until_told(&fixture.namespace, "g1").await;
    fixture.namespace.create("g2", spec()).await?;
    fixture.until_job("a", 1).await;
    // both are killed in mid-run
    fixture.until_job("b", 1).await;
    operate(&mut fixture, &args).await?;
    nats.kill();
    tokio::time::sleep(Duration::from_secs(1)).await;
    nats.start()?;
    let second = until_told(&fixture.namespace, "g2").await;
    let stored = tokio::time::timeout(PATIENCE, nats.stored("EVENTS")).await??;
    let events: Vec<_> = stored.iter().map(|(_, event)| event.clone()).collect();
    judge(&events, &first);
    judge(&events, &second);
    assert_eq!(events.len(), expected(&first).len() + expected(&second).len(), "each once");
    let subject = format!("ops.tg.{}.g1.task.retrying", fixture.namespace.name);
    assert!(stored.iter().any(|(stored, _)| *stored == subject), "{subject}");
    Ok(())
}
