//! The harness itself: it plays what it says, and its judge finds what breaks the rules.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use futures::StreamExt;
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ConfigMap, Pod},
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::watcher,
};
use serde_json::{Value, json};
use taskgraph::{
    api::{ROLE_TASK, TaskGraph},
    runtime::connections::stack,
};

use crate::{
    fixture::task,
    support::{
        Auditor, ControlPlane, Namespace, Play, Player, Proxy,
        auditor::violations,
        player::{Ending, is_terminal, phase},
        process::Program,
        proxy::{Fate, Side},
        sight::{Key, Object, Past, PodState, Sighting},
    },
};

async fn namespace(test: &str) -> Result<Namespace> {
    Namespace::new(&ControlPlane::shared().client().await?, test).await
}

/// A Job as the operator would make it.
async fn job(namespace: &Namespace, name: &str, graph: &str, task: &str, attempt: u32) -> Result<Job> {
    let labels = json!({"taskgraph.dev/graph-uid": graph, "taskgraph.dev/role": "task", "taskgraph.dev/task": task,
        "taskgraph.dev/attempt": attempt.to_string()});
    let job: Job = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": labels}, "spec": {
            "restartPolicy": "Never", "containers": [{"name": "main", "image": "none"}]}}},
    }))?;
    Ok(namespace.jobs().create(&PostParams::default(), &job).await?)
}

async fn until_phase(namespace: &Namespace, wanted: &str) -> Pod {
    let pods = namespace.until_all::<Pod>(wanted, |pods| pods.iter().any(|pod| phase(pod) == Some(wanted))).await;
    pods.into_iter().find(|pod| phase(pod) == Some(wanted)).expect("one is so")
}

fn terminated(pod: &Pod) -> Value {
    serde_json::to_value(pod)
        .map(|pod| pod["status"]["containerStatuses"][0]["state"]["terminated"].clone())
        .unwrap_or_default()
}

#[tokio::test]
async fn pods_are_played() -> Result<()> {
    let namespace = namespace("player").await?;
    let _player = Player::start(&namespace, |task, attempt| match (task, attempt) {
        ("good", _) => Play::succeeds(r#"{"rows": 3}"#).after(Duration::from_millis(20)),
        ("bad", 1) => Play::fails(7),
        _ => Play::ends(Ending::Evicted),
    });
    job(&namespace, "good", "g", "good", 1).await?;
    let pod = until_phase(&namespace, "Succeeded").await;
    assert_eq!(terminated(&pod)["message"], r#"{"rows": 3}"#);
    job(&namespace, "bad", "g", "bad", 1).await?;
    let pod = until_phase(&namespace, "Failed").await;
    assert_eq!(terminated(&pod)["exitCode"], 7);
    job(&namespace, "evicted", "g", "bad", 2).await?;
    let disrupted = |pod: &Pod| serde_json::to_string(pod).is_ok_and(|json| json.contains("DisruptionTarget"));
    namespace.until_all::<Pod>("evicted", |pods| pods.iter().any(disrupted)).await;
    Ok(())
}

#[tokio::test]
async fn a_lingering_pod_outlives_its_deletion() -> Result<()> {
    let namespace = namespace("linger").await?;
    let _player = Player::start(&namespace, |_, _| Play::runs_on().lingering(Duration::from_millis(300)));
    job(&namespace, "one", "g", "one", 1).await?;
    until_phase(&namespace, "Running").await;
    namespace.jobs().delete("one", &DeleteParams::foreground()).await?;
    let terminating =
        |pods: &[Pod]| pods.iter().any(|pod| pod.metadata.deletion_timestamp.is_some() && !is_terminal(pod));
    namespace.until_all::<Pod>("terminating", terminating).await;
    namespace.until_all::<Pod>("gone", <[Pod]>::is_empty).await;
    namespace.until_all::<Job>("gone", <[Job]>::is_empty).await;
    Ok(())
}

#[tokio::test]
async fn the_auditor_finds_what_breaks_the_rules() -> Result<()> {
    let namespace = namespace("auditor").await?;
    let auditor = Auditor::start(&namespace).await?;
    let _player =
        Player::start(&namespace, |task, _| if task == "slow" { Play::runs_on() } else { Play::succeeds("") });
    let graph = namespace.create("g", json!({"tasks": [task("slow", &[]), task("next", &["slow"])]})).await?;
    let uid = graph.uid().unwrap_or_default();
    job(&namespace, "slow-1", &uid, "slow", 1).await?;
    until_phase(&namespace, "Running").await;
    assert_eq!(violations(&auditor.sight().caught_up().await?), Vec::<String>::new());
    job(&namespace, "slow-again", &uid, "slow", 1).await?;
    job(&namespace, "slow-2", &uid, "slow", 2).await?;
    job(&namespace, "next-1", &uid, "next", 1).await?;
    namespace.until_all::<Pod>("four", |pods| pods.len() == 4).await;
    let found = violations(&auditor.sight().caught_up().await?).join("\n");
    for expected in [
        "A: 2 Jobs for",
        "A: two live pods of slow",
        "A: attempt 2 of slow began",
        "B: next began before slow had ended",
    ] {
        assert!(found.contains(expected), "{expected} is not among {found}");
    }
    Ok(())
}

#[tokio::test]
async fn the_auditor_sees_a_final_task_run_again() -> Result<()> {
    let namespace = namespace("auditor").await?;
    let auditor = Auditor::start(&namespace).await?;
    let graph = namespace.create("g", json!({"tasks": [task("a", &[])]})).await?;
    let status = |phase: &str| json!({"status": {"tasks": [{"name": "a", "phase": phase, "attempts": 1}]}});
    let patch = |phase: &str| Patch::Merge(status(phase));
    namespace.graphs().patch_status("g", &PatchParams::default(), &patch("Succeeded")).await?;
    job(&namespace, "a-2", &graph.uid().unwrap_or_default(), "a", 2).await?;
    namespace.graphs().patch_status("g", &PatchParams::default(), &patch("Running")).await?;
    let found = violations(&auditor.sight().caught_up().await?).join("\n");
    for expected in ["C: a was Succeeded and became Running", "C: attempt 2 of a began after it was Succeeded"] {
        assert!(found.contains(expected), "{expected} is not among {found}");
    }
    Ok(())
}

/// What runs two tasks before: it must have ended if the task between has begun, and need not if that was skipped since a
/// branch was not taken.
#[test]
fn the_auditor_knows_what_a_task_that_did_not_begin_waits_for() {
    for (phase, expected) in [("Succeeded", vec!["B: c began before a had ended".to_owned()]), ("Skipped", vec![])] {
        let object = json!({"metadata": {"name": "g", "uid": "u"},
            "spec": {"tasks": [task("a", &[]), task("b", &["a"]), task("c", &["b"])]},
            "status": {"tasks": [{"name": "b", "phase": phase}]}});
        let graph: TaskGraph = serde_json::from_value(object).expect("a graph");
        let key =
            |task: &str| Key { graph: "u".into(), role: ROLE_TASK.into(), task: task.into(), attempt: 1, item: None };
        let pod = Object::Pod(key("a"), PodState { phase: "Running".into(), ..PodState::default() });
        let objects = [Object::Graph(Arc::new(graph)), Object::Job(key("a")), pod, Object::Job(key("c"))];
        let all: Vec<_> = (10..).zip(objects).map(|(version, object)| seen(version, object)).collect();
        assert_eq!(violations(&all), expected, "{phase}");
    }
}

/// One of a kind, made by hand.
fn seen(version: u64, object: Object) -> Sighting {
    let uid = if matches!(object, Object::Graph(_)) { "u".to_owned() } else { format!("u-{version}") };
    Sighting { version, since: version, at: Instant::now(), name: uid.clone(), uid, gone: false, object }
}

/// An API server that was restarted does not remember what a watch had not told yet: what is found in a list then may have
/// come to be so long before.
#[test]
fn the_auditor_accuses_nobody_of_what_it_missed() {
    let object = json!({"metadata": {"name": "g", "uid": "u"}, "spec": {"tasks": [task("a", &[]), task("b", &["a"])]}});
    let graph: TaskGraph = serde_json::from_value(object).expect("a graph");
    let seen = |version: u64, uid: &str, object: Object| {
        let (uid, name) = (uid.to_owned(), uid.to_owned());
        Sighting { version, since: version, at: Instant::now(), uid, name, gone: false, object }
    };
    let key = |task: &str| Key { graph: "u".into(), role: ROLE_TASK.into(), task: task.into(), attempt: 1, item: None };
    let pod = |phase: &str| Object::Pod(key("a"), PodState { phase: phase.into(), ..PodState::default() });
    for missed in [false, true] {
        let mut pods = Past::default();
        let began = pods.watched(seen(12, "pod-a", pod("Running")));
        let ended = seen(30, "pod-a", pod("Succeeded"));
        let ended = if missed {
            pods.begin_list();
            pods.listed(ended)
        } else {
            pods.watched(ended)
        };
        assert!(pods.end_list().is_empty());
        assert_eq!(ended.since, if missed { 13 } else { 30 });
        let jobs = [(11, "a"), (20, "b")].map(|(version, task)| seen(version, task, Object::Job(key(task))));
        let mut all = vec![seen(10, "u", Object::Graph(Arc::new(graph.clone()))), began, ended];
        all.extend(jobs);
        all.sort_by_key(|one| one.version);
        let expected = if missed { vec![] } else { vec!["B: b began before a had ended".to_owned()] };
        assert_eq!(violations(&all), expected);
        // what a list does not hold was deleted meanwhile
        pods.begin_list();
        let gone: Vec<_> = pods.end_list().iter().map(|one| (one.uid.clone(), one.gone, one.since)).collect();
        assert_eq!(gone, [("pod-a".to_owned(), true, 31)]);
    }
}

/// A client that speaks through the proxy, as the operator does.
async fn through(proxy: &Proxy) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(proxy.kubeconfig())?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    Ok(stack(&config)?.build())
}

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}})).expect("a ConfigMap")
}

#[tokio::test]
async fn the_proxy_refuses_loses_and_records() -> Result<()> {
    let namespace = namespace("proxy").await?;
    let proxy = Proxy::start(ControlPlane::shared()).await?;
    let maps: Api<ConfigMap> = Api::namespaced(through(&proxy).await?, &namespace.name);
    proxy.inject_times(1, Fate::Refused(409), |call| call.name == "refused");
    proxy.inject_times(1, Fate::AnswerLost, |call| call.name == "lost");
    let refused = maps.create(&PostParams::default(), &config_map("refused")).await;
    assert!(matches!(&refused, Err(kube::Error::Api(status)) if status.code == 409), "{refused:?}");
    assert!(maps.create(&PostParams::default(), &config_map("lost")).await.is_err());
    assert!(maps.get_opt("lost").await?.is_some(), "the write itself was done");
    assert!(maps.get_opt("refused").await?.is_none());
    let writes: Vec<String> = proxy.writes().iter().map(ToString::to_string).collect();
    assert_eq!(writes, ["POST configmaps refused → not forwarded", "POST configmaps lost → 201"]);
    Ok(())
}

#[tokio::test]
async fn the_proxy_kills_before_or_after_a_write() -> Result<()> {
    for (side, stored) in [(Side::Before, false), (Side::After, true)] {
        let namespace = namespace("crash").await?;
        let proxy = Proxy::start(ControlPlane::shared()).await?;
        let log = proxy.kubeconfig().with_extension("log");
        let mut victim = Program::start("/bin/sleep".as_ref(), ["1000"], &[], &log)?;
        let maps: Api<ConfigMap> = Api::namespaced(through(&proxy).await?, &namespace.name);
        proxy.crash_at(1, side, victim.pid());
        maps.create(&PostParams::default(), &config_map("first")).await?;
        let (params, second) = (PostParams::default(), config_map("second"));
        tokio::select! {
            answer = maps.create(&params, &second) => panic!("answered: {answer:?}"),
            () = proxy.crashed() => {}
        }
        assert_eq!(victim.wait()?.code(), Some(128 + 9));
        let direct = namespace.api::<ConfigMap>();
        assert_eq!(direct.get_opt("second").await?.is_some(), stored, "{side:?}");
    }
    Ok(())
}

#[tokio::test]
async fn the_proxy_holds_and_breaks_watches() -> Result<()> {
    let namespace = namespace("watch").await?;
    let proxy = Proxy::start(ControlPlane::shared()).await?;
    let maps: Api<ConfigMap> = Api::namespaced(through(&proxy).await?, &namespace.name);
    let direct = namespace.api::<ConfigMap>();
    let mut events = watcher(maps, watcher::Config::default()).boxed();
    let mut next = async || tokio::time::timeout(Duration::from_secs(20), events.next()).await;
    while !matches!(next().await?, Some(Ok(watcher::Event::InitDone))) {}
    proxy.hold("configmaps");
    direct.create(&PostParams::default(), &config_map("held")).await?;
    assert!(tokio::time::timeout(Duration::from_millis(200), next()).await.is_err(), "the event is held back");
    proxy.release();
    let event = next().await?;
    assert!(matches!(&event, Some(Ok(watcher::Event::Apply(map))) if map.name_any() == "held"), "{event:?}");
    proxy.gone();
    let event = next().await?;
    assert!(matches!(&event, Some(Err(watcher::Error::WatchError(status))) if status.code == 410), "{event:?}");
    while !matches!(next().await?, Some(Ok(watcher::Event::InitDone))) {}
    proxy.cut();
    direct.create(&PostParams::default(), &config_map("after-cut")).await?;
    let event = next().await?;
    assert!(matches!(&event, Some(Ok(watcher::Event::Apply(map))) if map.name_any() == "after-cut"), "{event:?}");
    Ok(())
}
