//! SIGKILL of the real operator between any two of its API writes: after a restart the result is the same, no Job was
//! made twice, and events have told everything once.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use taskgraph::api::{TaskGraph, TaskPhase};

use crate::{
    fixture::{Fixture, container, task, task_with},
    support::{
        Play,
        namespace::{finished, outcome},
        proxy::{Side, Write, certain},
    },
    told,
};

/// How many runs go on side by side: they wait more than they work.
const SIDE_BY_SIDE: usize = 8;
/// More writes than a small graph has: a sweep that does not end by itself has found a loop of writes.
const MOST_WRITES: usize = 120;

/// A small graph, and what its pods do.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    spec: fn() -> Value,
    /// Templates by name.
    templates: fn() -> Value,
    script: fn(&str, u32) -> Play,
    condition: &'static str,
}

/// Outputs, an expression, a decision, a skipped branch, a join, and `finally`.
const DECISION: Shape = Shape {
    name: "decision",
    spec: || {
        let store = |name: &str, branch: &str| task(name, &[branch]);
        json!({
            "tasks": [
                task("extract", &[]),
                {"name": "quality", "dependsOn": ["extract"], "decision": {"branches": [
                    {"name": "good", "when": "tasks.extract.outputs.quality > 0.95"}, {"name": "poor"}]}},
                store("primary", "quality/good"),
                store("backup", "quality/poor"),
                task("notify", &["primary", "backup"]),
            ],
            "finally": [task("cleanup", &[])],
        })
    },
    templates: || json!({}),
    script: |task, _| if task == "extract" { Play::succeeds(r#"{"quality": 0.97}"#) } else { Play::succeeds("") },
    condition: "Complete",
};

/// A task that fails twice and then succeeds, beside others.
const RETRY: Shape = Shape {
    name: "retry",
    spec: || {
        let retry = json!({"retry": {"limit": 3, "backoff": {"initial": "20ms", "max": "50ms"}}});
        json!({"tasks": [task_with("flaky", &[], retry), task("beside", &[]), task("join", &["flaky", "beside"])]})
    },
    templates: || json!({}),
    script: |task, attempt| match (task, attempt) {
        ("flaky", 1 | 2) => Play::fails(3),
        _ => Play::succeeds("").after(Duration::from_millis(50)),
    },
    condition: "Complete",
};

/// A failure for good: what depends on it is omitted, a handler runs, and `finally`.
const FAILURE: Shape = Shape {
    name: "failure",
    spec: || {
        json!({
            "tasks": [
                task("bad", &[]), task("after", &["bad"]),
                task_with("handler", &["bad"], json!({"trigger": "AnyFailed"})),
            ],
            "finally": [task("cleanup", &[])],
        })
    },
    templates: || json!({}),
    script: |task, _| if task == "bad" { Play::fails(1) } else { Play::succeeds("") },
    condition: "Failed",
};

/// A child graph that returns something, and a task that takes it.
const CHILD: Shape = Shape {
    name: "child",
    spec: || {
        let mut end = task("end", &["child"]);
        end["container"]["env"] = json!([{"name": "ROWS", "value": "${{ tasks.child.outputs.rows }}"}]);
        json!({"tasks": [
            {"name": "child", "templateRef": {"name": "load"}, "arguments": {"rows": 3}}, end]})
    },
    templates: || {
        let tasks = json!([task("read", &[]), task("write", &["read"])]);
        json!({"load": {"parameters": [{"name": "rows"}], "graph": {
            "tasks": tasks, "outputs": [{"name": "rows", "value": "args.rows + tasks.read.outputs.more"}]}}})
    },
    script: |task, _| match task {
        "read" => Play::succeeds(r#"{"more": 4}"#),
        _ => Play::succeeds(""),
    },
    condition: "Complete",
};

/// A task for each item of an output.
fn for_each(strategy: &str) -> Value {
    let for_each = json!({"items": "${{ tasks.list.outputs.files }}", "strategy": strategy, "parallelism": 2});
    let retry = json!({"limit": 1, "backoff": {"initial": "20ms", "max": "50ms"}});
    let each = task_with("each", &["list"], json!({"forEach": for_each, "retry": retry}));
    json!({"tasks": [task("list", &[]), each, task("after", &["each"])]})
}

/// Items from an output, one of which fails in the first attempt.
const ITEMS: Shape = Shape {
    name: "items",
    spec: || for_each("Indexed"),
    templates: || json!({}),
    script: |task, attempt| match (task, attempt) {
        ("list", _) => Play::succeeds(r#"{"files": ["a", "b", "c"]}"#),
        ("each/1", 1) => Play::fails(3),
        _ => Play::succeeds(r#"{"n": 1}"#),
    },
    condition: "Complete",
};

/// A Job for each item, one of which fails in the first attempt and has the others stopped.
const PER_ITEM: Shape = Shape { name: "each", spec: || for_each("PerItem"), ..ITEMS };

/// A Job for each item; when one fails, those that run are stopped, and the attempt is tried again.
const PER_ITEM_STOP: Shape = Shape {
    name: "each-stop",
    spec: || {
        let for_each = json!({"items": [1, 2, 3], "strategy": "PerItem", "maxFailures": 0});
        let retry = json!({"limit": 1, "backoff": {"initial": "20ms", "max": "50ms"}, "when": "exitCode == 3"});
        json!({"tasks": [task_with("each", &[], json!({"forEach": for_each, "retry": retry}))]})
    },
    templates: || json!({}),
    script: |task, attempt| match (task, attempt) {
        ("each/1", 1) => Play::fails(3),
        (_, 1) => Play::runs_on(),
        _ => Play::succeeds(r#"{"n": 1}"#),
    },
    condition: "Complete",
};

/// A child graph for each item.
const PER_ITEM_CHILDREN: Shape = Shape {
    name: "each-child",
    spec: || {
        let each = json!({"name": "each", "templateRef": {"name": "load"}, "arguments": {"x": "${{ item }}"},
            "forEach": {"items": [1, 2], "parallelism": 1}});
        json!({"tasks": [each, task("end", &["each"])]})
    },
    templates: || {
        json!({"load": {"parameters": [{"name": "x"}], "graph": {
            "tasks": [task("read", &[])], "outputs": [{"name": "x", "value": "args.x"}]}}})
    },
    script: |_, _| Play::succeeds(""),
    condition: "Complete",
};

/// A failure that is undone, one compensation with a retry; then `finally`.
const SAGA: Shape = Shape {
    name: "saga",
    spec: || {
        let undo =
            json!({"compensate": {"container": container(), "retry": {"limit": 1, "backoff": {"initial": "50ms"}}}});
        json!({
            "tasks": [
                task_with("reserve", &[], undo.clone()), task_with("charge", &["reserve"], undo.clone()),
                task_with("ship", &["charge"], undo),
            ],
            "finally": [task("cleanup", &[])],
        })
    },
    templates: || json!({}),
    script: |task, attempt| match (task, attempt) {
        ("ship", _) | ("undo:charge", 1) => Play::fails(1),
        _ => Play::succeeds(""),
    },
    condition: "Failed",
};

/// A claim that two tasks mount: found again after each crash, never made anew.
const VOLUME: Shape = Shape {
    name: "volume",
    spec: || {
        let mount = json!({"volumes": [{"name": "files", "mountPath": "/files"}]});
        let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}});
        json!({
            "volumeClaimTemplates": [{"name": "files", "spec": claim}],
            "tasks": [task_with("write", &[], mount.clone()), task_with("read", &["write"], mount)],
        })
    },
    templates: || json!({}),
    script: |_, _| Play::succeeds(""),
    condition: "Complete",
};

/// A success that is remembered: were it so before it is stored, a restart would find it and not run the task.
const CACHE: Shape = Shape {
    name: "cache",
    spec: || {
        let cache = json!({"cache": {"maxAge": "1h"}});
        json!({"tasks": [task_with("first", &[], cache), task("second", &["first"])]})
    },
    templates: || json!({}),
    script: |task, _| if task == "first" { Play::succeeds(r#"{"n": 1}"#) } else { Play::succeeds("") },
    condition: "Complete",
};

/// What one run came to.
#[derive(Debug)]
struct Ran {
    outcome: Vec<(String, TaskPhase, u32, Option<String>, Value)>,
    condition: Option<&'static str>,
    writes: Vec<Write>,
    crashed: bool,
}

/// Waits until the graph has finished, and all is told.
async fn ended(fixture: &Fixture) -> Result<TaskGraph> {
    let graph = fixture.namespace.until_finished("g").await;
    told::until_told(fixture, &graph).await?;
    Ok(graph)
}

/// Runs a graph of this shape; the operator dies at the given write, and is started again.
async fn run(shape: Shape, crash: Option<(usize, Side)>) -> Result<Ran> {
    let mut fixture = Fixture::new(&format!("crash-{}", shape.name), shape.script).await?;
    if let Some((number, side)) = crash {
        fixture.proxy.crash_at(number, side, fixture.operator.pid());
    }
    for (name, template) in (shape.templates)().as_object().into_iter().flatten() {
        fixture.namespace.create_template(name, template.clone()).await?;
    }
    fixture.namespace.create("g", (shape.spec)()).await?;
    let mut crashed = tokio::select! {
        () = fixture.proxy.crashed() => true,
        graph = ended(&fixture) => graph.map(|_| false)?,
    };
    if !crashed {
        let status = fixture.operator.terminate().await?;
        crashed = status.code() == Some(128 + 9);
        ensure!(crashed || status.success(), "the operator ended with {status}");
    }
    let writes = fixture.proxy.writes();
    if crashed {
        fixture.restart().await?;
    }
    let graph = ended(&fixture).await?;
    let status = fixture.operator.terminate().await?;
    // where all was done but the last event, the second operator may be told to end before it listens for that
    let early = crashed && status.code() == Some(128 + 15);
    ensure!(early || status.success(), "the operator ended with {status}");
    fixture.judge().await?;
    told::told_once(&fixture, &graph).await?;
    Ok(Ran { outcome: outcome(&graph), condition: finished(&graph), writes, crashed })
}

/// Kills at each write, on one side of it and on the other. As the number of writes differs from run to run, where some are
/// coalesced, it goes on until a whole batch was not killed. `killed`: whether that run was. The kills must be more than
/// `certain`.
pub async fn at_each_write<F>(what: &str, certain: usize, killed: impl Fn(usize, Side) -> F) -> Result<()>
where
    F: Future<Output = Result<bool>>,
{
    for side in [Side::Before, Side::After] {
        let (mut number, mut kills) = (0, 0);
        loop {
            let batch = stream::iter(number..number + SIDE_BY_SIDE).map(|number| killed(number, side));
            let batch: Vec<bool> = batch.buffered(SIDE_BY_SIDE).try_collect().await?;
            number += SIDE_BY_SIDE;
            kills += batch.iter().filter(|killed| **killed).count();
            if !batch.contains(&true) {
                break;
            }
            ensure!(number < MOST_WRITES, "{what}: writes without end");
        }
        // and at least one status; a sweep that kills nobody shows nothing
        assert!(kills > certain, "{what}: {certain} writes at least, but only {kills} kills {side:?} one");
    }
    Ok(())
}

async fn sweep(shape: Shape) -> Result<()> {
    let calm = run(shape, None).await?;
    assert_eq!(calm.condition, Some(shape.condition));
    at_each_write(shape.name, certain(&calm.writes), |number, side| {
        let calm = &calm;
        async move {
            let ran = run(shape, Some((number, side))).await?;
            assert_eq!(ran.condition, calm.condition, "{}: killed {side:?} write {number}", shape.name);
            assert_eq!(ran.outcome, calm.outcome, "{}: killed {side:?} write {number}", shape.name);
            assert!(ran.crashed || ran.writes.len() <= number, "{}: not killed {side:?} write {number}", shape.name);
            Ok(ran.crashed)
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_any_two_writes_of_a_decision() -> Result<()> {
    sweep(DECISION).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_any_two_writes_of_a_retry() -> Result<()> {
    sweep(RETRY).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_any_two_writes_of_items() -> Result<()> {
    sweep(ITEMS).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_any_two_writes_of_items_with_a_job_each() -> Result<()> {
    sweep(PER_ITEM).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_any_two_writes_of_items_that_are_stopped() -> Result<()> {
    sweep(PER_ITEM_STOP).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_any_two_writes_of_items_with_a_child_graph_each() -> Result<()> {
    sweep(PER_ITEM_CHILDREN).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_any_two_writes_of_a_failure() -> Result<()> {
    sweep(FAILURE).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_any_two_writes_of_a_child_graph() -> Result<()> {
    sweep(CHILD).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_any_two_writes_of_a_saga() -> Result<()> {
    sweep(SAGA).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_any_two_writes_of_a_volume() -> Result<()> {
    sweep(VOLUME).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_any_two_writes_of_a_cache() -> Result<()> {
    sweep(CACHE).await
}
