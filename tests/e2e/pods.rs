//! What happens to real pods, and what the status says of it.

use std::time::{Duration, Instant};

use anyhow::Result;
use k8s_openapi::api::core::v1::{Event, Pod};
use serde_json::json;
use taskgraph::api::{TaskGraph, TaskPhase, TaskStatus};

use crate::{
    support::namespace::{condition, task},
    world::{World, shell},
};

/// A cause that only the user can mend shows within this, once Kubernetes tells of it.
const SECONDS: Duration = Duration::from_secs(20);

/// The first failed attempt of a task.
fn first_failure(graph: &TaskGraph, name: &str) -> (String, Option<i32>, String) {
    let task = task(graph, name).unwrap_or_default();
    let first = task.failed_attempts.into_iter().next().unwrap_or_default();
    (first.reason, first.exit_code, first.message.unwrap_or_default())
}

fn says(task: &TaskStatus, word: &str) -> bool {
    [&task.reason, &task.message].into_iter().flatten().any(|text| text.contains(word))
}

fn lacks_its_image(pod: &Pod) -> bool {
    let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let waiting = containers.filter_map(|container| container.state.as_ref()?.waiting.as_ref()?.reason.as_deref());
    waiting.into_iter().any(|reason| reason == "ErrImageNeverPull")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exit_codes_and_last_words() -> Result<()> {
    let world = World::new("exit").await?;
    let spec = json!({"failurePolicy": "FinishBranches", "tasks": [
        shell("code", &[], "echo all is lost; exit 42"),
        shell("killed", &[], "sleep 600 & kill -9 $!; wait $!"),
        shell("told", &[], "printf 'no such table' > /dev/termination-log; exit 3"),
    ]});
    world.apply_graph("g", spec).await?;
    let graph = world.wait("g", "failed").await?;
    let (_, code, message) = first_failure(&graph, "code");
    assert_eq!((code, message.trim()), (Some(42), "all is lost"));
    assert_eq!(first_failure(&graph, "killed").1, Some(137));
    let (_, code, message) = first_failure(&graph, "told");
    assert_eq!((code, message.as_str()), (Some(3), "no such table"));
    world.judge().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn out_of_memory() -> Result<()> {
    let world = World::new("oom").await?;
    // tail keeps a line that has no end
    let mut hungry = shell("hungry", &[], "tail /dev/zero");
    hungry["container"]["resources"] = json!({"limits": {"memory": "16Mi"}});
    world.apply_graph("g", json!({"tasks": [hungry]})).await?;
    let graph = world.wait("g", "failed").await?;
    let (reason, code, _) = first_failure(&graph, "hungry");
    assert_eq!((reason.as_str(), code), ("OOMKilled", Some(137)));
    world.judge().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_image_shows_within_seconds() -> Result<()> {
    let world = World::new("image").await?;
    let mut missing = shell("missing", &[], "true");
    missing["container"]["image"] = json!("localhost/no-such-image:1");
    missing["container"]["imagePullPolicy"] = json!("Never");
    world.apply_graph("g", json!({"tasks": [missing]})).await?;
    world.namespace.until_all::<Pod>("told by the kubelet", |pods| pods.iter().any(lacks_its_image)).await;
    let begin = Instant::now();
    let shows = |graph: &TaskGraph| task(graph, "missing").is_some_and(|task| says(&task, "ErrImageNeverPull"));
    world.namespace.until("g", "showing the missing image", shows).await;
    assert!(begin.elapsed() < SECONDS, "{:?}", begin.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_refused_by_pod_security_shows_within_seconds() -> Result<()> {
    let world = World::new("refused").await?;
    let name = world.namespace.name.clone();
    world.kubectl(&["label", "namespace", &name, "pod-security.kubernetes.io/enforce=restricted"]).await?;
    world.apply_graph("g", json!({"tasks": [shell("a", &[], "true")]})).await?;
    let refused = |event: &Event| event.reason.as_deref() == Some("FailedCreate");
    world.namespace.until_all::<Event>("told by Kubernetes", |events| events.iter().any(refused)).await;
    let begin = Instant::now();
    let shows = |graph: &TaskGraph| {
        task(graph, "a").is_some_and(|task| says(&task, "PodSecurity") || says(&task, "restricted"))
    };
    world.namespace.until("g", "showing the refusal", shows).await;
    assert!(begin.elapsed() < SECONDS, "{:?}", begin.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_timeout() -> Result<()> {
    let world = World::new("timeout").await?;
    let mut slow = shell("slow", &[], "sleep 600");
    slow["timeout"] = json!("3s");
    world.apply_graph("g", json!({"tasks": [slow]})).await?;
    let graph = world.wait("g", "failed").await?;
    assert_eq!(first_failure(&graph, "slow").0, "DeadlineExceeded");
    world.judge().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_argument_is_ever_read_as_shell() -> Result<()> {
    let world = World::new("quotes").await?;
    let nasty = "$(touch /tmp/pwned) `id` \"quoted\" 'single' $(HOME)\n\t𝄞 $$";
    let mut echo = shell(
        "echo",
        &[],
        "printf '%s' \"$VALUE\" | sha256sum | cut -c1-16 | sed 's/.*/{\"sum\":\"&\"}/' > /dev/termination-log",
    );
    echo["container"]["env"] = json!([{"name": "VALUE", "value": "${{ args.value }}"}]);
    let mut check = shell("check", &[], "[ ! -e /tmp/pwned ]; printf '%s' \"$VALUE\" > /dev/termination-log");
    check["container"]["env"] = json!([{"name": "VALUE", "value": "${{ args.value }}"}]);
    world.apply_graph("g", json!({"arguments": {"value": nasty}, "tasks": [echo, check]})).await?;
    let graph = world.wait("g", "complete").await?;
    assert_eq!(task(&graph, "check").and_then(|task| task.message).as_deref(), Some(nasty));
    world.judge().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_stops_containers_and_runs_finally() -> Result<()> {
    let world = World::new("cancel").await?;
    let spec = json!({"tasks": [shell("long", &[], "trap 'exit 143' TERM; sleep 600 & wait")], "finally": [shell("cleanup", &[], "true")]});
    world.apply_graph("g", spec).await?;
    world
        .namespace
        .until("g", "running", |graph| task(graph, "long").is_some_and(|task| task.phase == TaskPhase::Running))
        .await;
    world.kubectl(&["patch", "tg", "g", "--type=merge", "-p", r#"{"spec":{"desiredState":"Cancel"}}"#]).await?;
    let graph = world.wait("g", "failed").await?;
    assert_eq!(condition(&graph, "Failed").map(|condition| condition.reason.as_str()), Some("Cancelled"));
    assert_eq!(task(&graph, "long").map(|task| task.phase), Some(TaskPhase::Cancelled));
    assert_eq!(task(&graph, "cleanup").map(|task| task.phase), Some(TaskPhase::Succeeded));
    Ok(())
}
