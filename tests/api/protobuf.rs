//! Jobs and pods as the operator reads them, in protobuf, and as everybody else does, in JSON: the same to the last field.

#![allow(clippy::needless_pass_by_value, reason = "json! gives values")]

use std::{fmt::Debug, pin::pin, time::Duration};

use anyhow::{Context, Result, bail};
use futures::{Stream, StreamExt, TryStreamExt};
use http::{
    Request,
    header::{ACCEPT, CONTENT_TYPE},
};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{batch::v1::Job, core::v1::Pod},
};
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    api::{
        DeleteParams, ListParams, ObjectList, Patch, PatchParams, PostParams, VersionMatch, WatchEvent, WatchParams,
    },
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
    core::Status,
    runtime::watcher::{self, watcher},
};
use prost::Message;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use taskgraph::{
    jobs::{JobView, PodView},
    runtime::{client, health::Health, metrics::Metrics},
};

use crate::support::{
    ControlPlane, Namespace, Proxy,
    namespace::PATIENCE,
    wire::{envelope, field},
};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// The last object that is made; who watches has seen all when it has seen this.
const LAST: &str = "z-last";

/// The client that the operator has.
fn operators(config: Config) -> Result<Client> {
    Ok(client::build(config, &Metrics::new().0, &Health::default())?)
}

/// A kind that is watched by its view.
trait View:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + DeserializeOwned
    + Clone
    + Debug
    + PartialEq
    + Send
    + 'static
{
}
impl View for JobView {}
impl View for PodView {}

/// The two ways to read objects.
struct Both<K> {
    protobuf: Api<K>,
    json: Api<K>,
}

impl<K: View> Both<K> {
    async fn in_namespace(namespace: &Namespace) -> Result<Self> {
        let protobuf = operators(ControlPlane::shared().config().await?)?;
        Ok(Self { protobuf: Api::namespaced(protobuf, &namespace.name), json: namespace.api() })
    }

    async fn everywhere(namespace: &Namespace) -> Result<Self> {
        let protobuf = operators(ControlPlane::shared().config().await?)?;
        Ok(Self { protobuf: Api::all(protobuf), json: Api::all(namespace.client.clone()) })
    }

    /// Lists both ways; they must bring the same.
    async fn list(&self, params: &ListParams) -> Result<ObjectList<K>> {
        let [protobuf, json] = [self.protobuf.list(params).await?, self.json.list(params).await?];
        assert_eq!(protobuf.types, json.types);
        assert_eq!(protobuf.metadata.remaining_item_count, json.metadata.remaining_item_count);
        assert_eq!(protobuf.metadata.continue_.is_some(), json.metadata.continue_.is_some());
        assert!(protobuf.metadata.resource_version.is_some_and(|version| version.parse::<u64>().is_ok()));
        assert_eq!(protobuf.items, json.items);
        Ok(json)
    }

    /// Watches both ways until the last object is there; both must tell the same.
    async fn watch(&self, params: &WatchParams, from: &str) -> Result<Vec<(&'static str, K)>> {
        let [protobuf, json] = [watched(&self.protobuf, params, from).await?, watched(&self.json, params, from).await?];
        assert_eq!(protobuf, json);
        Ok(json)
    }

    /// What the API server says to a list that it refuses: the same both ways.
    async fn refused(&self, params: &ListParams) -> Result<Status> {
        let [protobuf, json] = [status(self.protobuf.list(params).await)?, status(self.json.list(params).await)?];
        // versions rise between the two
        let without_numbers = |status: &Status| {
            let message = status.message.chars().filter(|char| !char.is_ascii_digit()).collect();
            Status { message, ..status.clone() }
        };
        assert_eq!(without_numbers(&protobuf), without_numbers(&json));
        Ok(json)
    }
}

fn status<T: Debug>(answer: kube::Result<T>) -> Result<Status> {
    match answer {
        Err(kube::Error::Api(status)) => Ok(*status),
        other => bail!("not a refusal: {other:?}"),
    }
}

async fn watched<K: View>(api: &Api<K>, params: &WatchParams, from: &str) -> Result<Vec<(&'static str, K)>> {
    let mut events = pin!(api.watch(params, from).await?);
    let mut seen = Vec::new();
    while let Some(event) = tokio::time::timeout(PATIENCE, events.try_next()).await?? {
        let (r#type, object) = match event {
            WatchEvent::Added(object) => ("ADDED", object),
            WatchEvent::Modified(object) => ("MODIFIED", object),
            WatchEvent::Deleted(object) => ("DELETED", object),
            // they come with time, not with what happens
            WatchEvent::Bookmark(_) => continue,
            WatchEvent::Error(status) => bail!("{status:?}"),
        };
        let is_last = object.name_any() == LAST;
        seen.push((r#type, object));
        if is_last {
            return Ok(seen);
        }
    }
    bail!("the watch has ended after {} events", seen.len())
}

/// Creates an object, with this status.
async fn create<K>(api: &Api<K>, object: Value, status: Value) -> Result<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + serde::Serialize,
{
    let object: K = serde_json::from_value(object)?;
    let created = api.create(&PostParams::default(), &object).await?;
    let patch = Patch::Merge(json!({"status": status}));
    Ok(api.patch_status(&created.name_any(), &PatchParams::default(), &patch).await?)
}

fn job(name: &str, spec: Value) -> Value {
    let mut job = json!({
        "metadata": {
            "name": name, "finalizers": ["example.com/kept"],
            "labels": {"taskgraph.dev/graph-uid": "g", "taskgraph.dev/task": "t", "app": "other"},
            "annotations": {"taskgraph.dev/hash": "h", "example.com/other": "x".repeat(5000)},
        },
        "spec": {
            // no controller touches it
            "managedBy": "example.com/test",
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "i"}]}},
        },
    });
    extend(&mut job["spec"], spec);
    job
}

fn extend(object: &mut Value, with: Value) {
    if let (Value::Object(object), Value::Object(with)) = (object, with) {
        object.extend(with);
    }
}

/// Jobs in every state; the first owns pods.
async fn make_jobs(namespace: &Namespace) -> Result<Job> {
    let api = namespace.jobs();
    let (start, end) = ("2026-01-02T03:04:05Z", "2026-01-02T03:05:06Z");
    let ended = |kind: &str, first: &str, rest: Value| {
        let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": "R", "message": "ends \"so\"\n", "lastProbeTime": end, "lastTransitionTime": end});
        let mut status = json!({"conditions": [condition(first), condition(kind)], "startTime": start});
        extend(&mut status, rest);
        status
    };
    let indexed = json!({"completionMode": "Indexed", "completions": 4, "parallelism": 2, "backoffLimitPerIndex": 0, "maxFailedIndexes": 2});
    let owner = create(
        &api,
        job("a-complete", json!({"completions": 1})),
        ended("Complete", "SuccessCriteriaMet", json!({"completionTime": end, "succeeded": 1})),
    )
    .await?;
    create(
        &api,
        job("b-failed", indexed.clone()),
        ended(
            "Failed",
            "FailureTarget",
            json!({"completedIndexes": "0,2", "failedIndexes": "1,3", "succeeded": 2, "failed": 2}),
        ),
    )
    .await?;
    create(&api, job("c-active", indexed), json!({"startTime": start, "active": 2, "ready": 1, "failedIndexes": ""}))
        .await?;
    create(&api, job("d-deleted", json!({"suspend": true})), json!({})).await?;
    api.delete("d-deleted", &DeleteParams::foreground()).await?;
    // the garbage collector takes its own finalizer away, some time
    let kept = |jobs: &[Job]| {
        let deleted = jobs.iter().find(|job| job.name_any() == "d-deleted");
        deleted.is_some_and(|job| job.finalizers() == ["example.com/kept"])
    };
    namespace.until_all("left by the garbage collector", kept).await;
    create(&api, job(LAST, json!({})), json!({})).await?;
    Ok(owner)
}

fn pod(name: &str, owner: Option<&Job>) -> Value {
    let owners = owner.map(|job| {
        json!([{"apiVersion": "batch/v1", "kind": "Job", "name": job.name_any(), "uid": job.uid(), "controller": true, "blockOwnerDeletion": true}])
    });
    json!({
        "metadata": {
            "name": name, "ownerReferences": owners,
            "labels": {"taskgraph.dev/graph-uid": "g", "batch.kubernetes.io/job-completion-index": "3", "app": "other"},
            "annotations": {"kubectl.kubernetes.io/default-container": "main", "example.com/other": "x".repeat(5000)},
        },
        "spec": {
            "restartPolicy": "Never",
            "initContainers": [{"name": "side", "image": "i", "restartPolicy": "Always"}, {"name": "first", "image": "i"}],
            "containers": [{"name": "main", "image": "i", "env": [{"name": "A", "value": "b"}]}, {"name": "other", "image": "i"}],
        },
    })
}

fn rich_status() -> Value {
    let (start, end) = ("2026-01-02T03:04:05Z", "2026-01-02T03:05:06Z");
    let of = |name: &str, state: Value, last: Value| json!({"name": name, "ready": false, "restartCount": 1, "image": "i", "imageID": "", "state": state, "lastState": last});
    let terminated = |code: i32, message: &str| json!({"terminated": {"exitCode": code, "signal": 9, "reason": "OOMKilled", "message": message, "startedAt": start, "finishedAt": end, "containerID": "c://1"}});
    json!({
        "phase": "Failed", "reason": "Evicted", "message": "the node was low on resource: \u{1f980}", "startTime": start, "qosClass": "BestEffort",
        "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes", "lastProbeTime": null, "lastTransitionTime": start},
            {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "lastTransitionTime": end},
            {"type": "Ready", "status": "Unknown", "lastTransitionTime": null},
        ],
        "initContainerStatuses": [
            of("side", json!({"running": {"startedAt": start}}), terminated(1, "before")),
            of("first", json!({"waiting": {"reason": "ErrImagePull", "message": "no such image"}}), json!({})),
        ],
        "containerStatuses": [of("main", terminated(137, "{\"a\": \"\\u0000 <&> \"}"), json!({})), of("other", terminated(-1, ""), json!({}))],
    })
}

async fn make_pods(namespace: &Namespace, owner: &Job) -> Result<()> {
    let api = namespace.pods();
    create(&api, pod("a-rich", Some(owner)), rich_status()).await?;
    create(&api, pod("b-new", None), json!({})).await?;
    let mut deleted = pod("c-deleted", Some(owner));
    deleted["metadata"]["finalizers"] = json!(["example.com/kept"]);
    create(&api, deleted, json!({"phase": "Running"})).await?;
    api.delete("c-deleted", &DeleteParams::default()).await?;
    create(&api, pod("d-gone", None), json!({})).await?;
    api.delete("d-gone", &DeleteParams::default()).await?;
    let bare = json!({"metadata": {"name": "e-bare"}, "spec": {"containers": [{"name": "only", "image": "i"}]}});
    create(&api, bare, json!({})).await?;
    create(&api, pod("f-not-utf-8", None), json!({})).await?;
    set_broken_text(namespace, "f-not-utf-8").await?;
    create(&api, pod(LAST, None), json!({})).await?;
    Ok(())
}

/// `runtime.Unknown`.
#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(bytes = "vec", tag = "1")]
    types: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    object: Vec<u8>,
}

/// A container left a message that is no text, and the kubelet wrote that down as it is, as it can in protobuf.
async fn set_broken_text(namespace: &Namespace, name: &str) -> Result<()> {
    let path = format!("/api/v1/namespaces/{}/pods/{name}", namespace.name);
    let request = Request::get(&path).header(ACCEPT, PROTOBUF).body(Body::empty())?;
    let answer = namespace.client.send(request).await?.into_body().collect_bytes().await?;
    let Envelope { types, mut object } = Envelope::decode(answer.strip_prefix(b"k8s\0").context("protobuf")?)?;
    let terminated = field(3, &field(4, b"\xffout \xe2\x82 put"));
    let container = [field(1, b"main"), field(2, &terminated)].concat();
    object.extend(field(3, &[field(1, b"Failed"), field(8, &container)].concat()));
    let request = Request::put(format!("{path}/status")).header(CONTENT_TYPE, PROTOBUF);
    let answer = namespace.client.send(request.body(Body::from(envelope(&types, &object)))?).await?;
    let code = answer.status();
    let text = answer.into_body().collect_bytes().await?;
    anyhow::ensure!(code.is_success(), "{}", String::from_utf8_lossy(&text));
    Ok(())
}

/// A namespace with Jobs and pods, and the versions from which they can be watched coming to be.
async fn furnished(test: &str) -> Result<(Namespace, String)> {
    let namespace = Namespace::new(&ControlPlane::shared().client().await?, test).await?;
    let begin = namespace.pods().list(&ListParams::default()).await?.metadata.resource_version.context("a version")?;
    let owner = make_jobs(&namespace).await?;
    make_pods(&namespace, &owner).await?;
    Ok((namespace, begin))
}

#[tokio::test]
async fn lists_bring_the_same_in_both_encodings() -> Result<()> {
    let (namespace, _) = furnished("wire-lists").await?;
    let jobs = Both::<JobView>::in_namespace(&namespace).await?;
    let list = jobs.list(&ListParams::default()).await?;
    let [complete, failed, active, deleted, _] = &list.items[..] else { bail!("{list:#?}") };
    assert!(complete.condition("Complete").is_some() && complete.status.completion_time.is_some());
    assert!(failed.is_indexed() && failed.ended() && failed.spec.max_failed_indexes == Some(2));
    assert_eq!(failed.status.completed_indexes.as_deref(), Some("0,2"));
    assert_eq!(failed.status.failed_indexes.as_deref(), Some("1,3"));
    assert_eq!((active.status.active, active.spec.completions), (2, Some(4)));
    assert!(deleted.metadata.deletion_timestamp.is_some());

    let pods = Both::<PodView>::in_namespace(&namespace).await?;
    let list = pods.list(&ListParams::default()).await?;
    let [rich, new, deleted, bare, broken, _] = &list.items[..] else { bail!("{list:#?}") };
    assert_eq!(rich.owner_uid(), complete.metadata.uid.as_deref());
    assert_eq!((rich.completion_index(), rich.output_container()), (Some(3), Some("main")));
    assert!(
        rich.condition("DisruptionTarget", "True").is_some_and(|condition| condition.last_transition_time.is_some())
    );
    assert_eq!(rich.spec.init_containers[0].restart_policy.as_deref(), Some("Always"));
    let ended = rich.status.container_statuses[0].state.terminated.as_ref().context("terminated")?;
    assert!(ended.finished_at.is_some() && ended.exit_code == 137 && ended.reason.as_deref() == Some("OOMKilled"));
    assert!(rich.status.init_container_statuses[0].last_state.terminated.is_some());
    assert!(new.phase() == "Pending" && deleted.deleting() && bare.metadata.labels.is_none());
    let ended = broken.status.container_statuses[0].state.terminated.as_ref().context("terminated")?;
    assert_eq!(ended.message.as_deref(), Some("\u{fffd}out \u{fffd}\u{fffd} put"));

    // in pages, by label, and of all namespaces
    let mut page = pods.list(&ListParams::default().limit(4)).await?;
    assert_eq!(page.metadata.remaining_item_count, Some(2));
    page =
        pods.list(&ListParams::default().limit(4).continue_token(&page.metadata.continue_.context("a token")?)).await?;
    assert_eq!(page.items.len(), 2);
    assert_eq!(pods.list(&ListParams::default().labels("taskgraph.dev/graph-uid")).await?.items.len(), 5);
    assert!(pods.list(&ListParams::default().labels("taskgraph.dev/graph-uid=none")).await?.items.is_empty());
    let params = ListParams::default().fields(&format!("metadata.namespace={}", namespace.name));
    assert_eq!(Both::<PodView>::everywhere(&namespace).await?.list(&params).await?.items, list.items);
    assert_eq!(Both::<JobView>::everywhere(&namespace).await?.list(&params).await?.items.len(), 5);
    Ok(())
}

#[tokio::test]
async fn watches_tell_the_same_in_both_encodings() -> Result<()> {
    let (namespace, begin) = furnished("wire-watches").await?;
    let pods = Both::<PodView>::in_namespace(&namespace).await?;
    let told = pods.watch(&WatchParams::default(), &begin).await?;
    for (r#type, name) in
        [("ADDED", "a-rich"), ("MODIFIED", "a-rich"), ("DELETED", "d-gone"), ("MODIFIED", "c-deleted")]
    {
        assert!(told.iter().any(|(told, pod)| *told == r#type && pod.name_any() == name), "{type} {name}");
    }
    let labelled = pods.watch(&WatchParams::default().labels("taskgraph.dev/graph-uid=g"), &begin).await?;
    assert_eq!(labelled.len() + 1, told.len(), "one has no labels");
    let jobs = Both::<JobView>::in_namespace(&namespace).await?.watch(&WatchParams::default(), &begin).await?;
    assert!(jobs.iter().any(|(told, job)| *told == "MODIFIED" && job.metadata.deletion_timestamp.is_some()));
    let params = WatchParams::default().fields(&format!("metadata.namespace={}", namespace.name));
    assert_eq!(Both::everywhere(&namespace).await?.watch(&params, &begin).await?, jobs);
    Ok(())
}

/// The objects of a first list, however it is asked for.
async fn listed<K: View>(events: impl Stream<Item = watcher::Result<watcher::Event<K>>>) -> Result<Vec<K>> {
    let mut events = pin!(events);
    let mut seen = Vec::new();
    loop {
        match tokio::time::timeout(PATIENCE, events.next()).await?.context("a watcher does not end")?? {
            watcher::Event::Init => {}
            watcher::Event::InitApply(object) => seen.push(object),
            watcher::Event::InitDone => break,
            other => bail!("{other:?}"),
        }
    }
    seen.sort_by_key(ResourceExt::name_any);
    Ok(seen)
}

#[tokio::test]
async fn lists_may_be_streamed_and_paged() -> Result<()> {
    let (namespace, _) = furnished("wire-streams").await?;
    let pods = Both::<PodView>::in_namespace(&namespace).await?;
    let all = pods.list(&ListParams::default()).await?.items;
    for config in [watcher::Config::default().streaming_lists(), watcher::Config::default().page_size(2)] {
        assert_eq!(listed(watcher(pods.protobuf.clone(), config.clone())).await?, all, "{config:?}");
    }
    Ok(())
}

#[tokio::test]
async fn refusals_are_the_same_in_both_encodings() -> Result<()> {
    let namespace = Namespace::new(&ControlPlane::shared().client().await?, "wire-refusals").await?;
    let both = |mut config: Config| {
        // neither asks again after a 504
        config.default_retry = false;
        let json = Client::try_from(config.clone())?;
        let protobuf = Api::<PodView>::namespaced(operators(config)?, &namespace.name);
        anyhow::Ok(Both { protobuf, json: Api::namespaced(json, &namespace.name) })
    };
    let pods = both(ControlPlane::shared().config().await?)?;
    let too_new = ListParams::default().at("999999999").matching(VersionMatch::NotOlderThan);
    let status = pods.refused(&too_new).await?;
    let details = status.details.as_ref().context("details")?;
    assert_eq!((status.code, details.retry_after_seconds, details.causes.len()), (504, 1, 1));
    assert_eq!(pods.refused(&ListParams::default().continue_token("nonsense")).await?.code, 400);

    let reader = Kubeconfig::read_from(ControlPlane::shared().readers_kubeconfig()?)?;
    let reader = Config::from_custom_kubeconfig(reader, &KubeConfigOptions::default()).await?;
    let mut nobody = reader.clone();
    nobody.auth_info.token = Some("wrong".to_owned().into());
    for (config, code) in [(reader, 403), (nobody, 401)] {
        let pods = both(config)?;
        assert_eq!(pods.refused(&ListParams::default()).await?.code, code);
        assert_eq!(status_of_watch(&pods.protobuf).await?, status_of_watch(&pods.json).await?);
    }
    Ok(())
}

/// What a watch from the first version of all is told.
async fn told_too_old(api: &Api<PodView>) -> Result<Status> {
    let event =
        tokio::time::timeout(PATIENCE, pin!(api.watch(&WatchParams::default(), "1").await?).try_next()).await??;
    let Some(WatchEvent::Error(status)) = event else { bail!("{event:?}") };
    Ok(*status)
}

#[tokio::test]
async fn a_version_that_is_too_old_is_told_the_same_in_both_encodings() -> Result<()> {
    let plane = ControlPlane::own();
    let namespace = Namespace::new(&plane.client().await?, "wire-old").await?;
    create(&namespace.pods(), pod("any", None), json!({})).await?;
    // an API server that has just begun knows nothing of what was before
    plane.restart("kube-apiserver", Duration::ZERO).await?;
    let pods = Api::<PodView>::namespaced(operators(plane.config().await?)?, &namespace.name);
    let status = told_too_old(&pods).await?;
    assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
    assert_eq!(status, told_too_old(&Api::namespaced(plane.client().await?, &namespace.name)).await?);
    plane.stop();
    Ok(())
}

async fn status_of_watch(api: &Api<PodView>) -> Result<Status> {
    status(api.watch(&WatchParams::default(), "0").await.map(|_| ()))
}

#[tokio::test]
async fn only_what_is_read_is_written_down() -> Result<()> {
    let (namespace, _) = furnished("wire-lean").await?;
    let client = operators(ControlPlane::shared().config().await?)?;
    let [pods, jobs] = [
        format!("/api/v1/namespaces/{}/pods", namespace.name),
        format!("/apis/batch/v1/namespaces/{}/jobs", namespace.name),
    ];
    // nothing else tells from outside that it was protobuf
    for path in [&pods, &jobs] {
        let text = client.request_text(Request::get(path).body(Vec::new())?).await?;
        assert!(text.contains("a-") && !text.contains("managedFields"), "{text}");
    }
    // who asks for JSON, or for something else, has it as it is
    let json = Request::get(&pods).header(ACCEPT, "application/json").body(Vec::new())?;
    assert!(client.request_text(json).await?.contains("managedFields"));
    let one = client.request_text(Request::get(format!("{pods}/a-rich")).body(Vec::new())?).await?;
    assert!(one.contains("managedFields"));
    let metadata = Api::<Pod>::namespaced(client, &namespace.name).list_metadata(&ListParams::default()).await?;
    assert!(metadata.items[0].metadata.managed_fields.is_some());
    Ok(())
}

#[tokio::test]
async fn a_watch_goes_on_after_it_was_cut_or_is_too_old() -> Result<()> {
    let namespace = Namespace::new(&ControlPlane::shared().client().await?, "wire-breaks").await?;
    let proxy = Proxy::start(ControlPlane::shared()).await?;
    let config =
        Config::from_custom_kubeconfig(Kubeconfig::read_from(proxy.kubeconfig())?, &KubeConfigOptions::default())
            .await?;
    let pods: Api<PodView> = Api::namespaced(operators(config)?, &namespace.name);
    let mut events = watcher(pods, watcher::Config::default()).boxed();
    let mut next = async || tokio::time::timeout(PATIENCE, events.next()).await?.context("a watcher does not end");
    while !matches!(next().await??, watcher::Event::InitDone) {}
    create(&namespace.pods(), pod("first", None), json!({})).await?;
    while !matches!(next().await??, watcher::Event::Apply(pod) if pod.name_any() == "first") {}
    proxy.cut();
    create(&namespace.pods(), pod("second", None), rich_status()).await?;
    while !matches!(next().await??, watcher::Event::Apply(pod) if pod.name_any() == "second" && pod.terminal()) {}
    proxy.gone();
    let event = next().await?;
    assert!(
        matches!(&event, Err(watcher::Error::WatchError(status)) if status.code == 410 && status.reason == "Expired"),
        "{event:?}"
    );
    while !matches!(next().await??, watcher::Event::InitApply(pod) if pod.name_any() == "second") {}
    Ok(())
}
