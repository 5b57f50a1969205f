//! Plays the kubelet of a namespace: pods run and end as a script says.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::{Value, json};
use taskgraph::api::{LABEL_ATTEMPT, LABEL_GRAPH_UID, LABEL_ITEM, LABEL_ROLE, LABEL_TASK, ROLE_COMPENSATION};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::namespace::Namespace;

/// Kubernetes' label for the place of a pod's item.
pub const LABEL_INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// What one pod does.
#[derive(Clone, Debug)]
pub struct Play {
    /// How long its container runs. Zero: it was never seen running.
    pub runs: Duration,
    /// Whether it then runs on until the player lets pods end.
    pub held: bool,
    /// How it ends.
    pub ending: Ending,
    /// On a machine: it lasts this long after it was deleted. Otherwise it is gone at once.
    pub lingers: Option<Duration>,
}

/// How a pod ends.
#[derive(Clone, Debug)]
pub enum Ending {
    /// Its container exits with this code and leaves this text.
    Exit {
        /// Exit code.
        code: i32,
        /// Why, as the kubelet says: `Completed`, `Error`, `OOMKilled`.
        reason: &'static str,
        /// Termination message.
        message: String,
    },
    /// It is evicted.
    Evicted,
    /// Its container waits for this reason and never starts.
    Waits(&'static str),
    /// It runs until it is deleted.
    Never,
}

impl Play {
    /// Succeeds at once and leaves `message`.
    pub fn succeeds(message: impl Into<String>) -> Self {
        Self::ends(Ending::Exit { code: 0, reason: "Completed", message: message.into() })
    }

    /// Fails at once.
    pub fn fails(code: i32) -> Self {
        Self::ends(Ending::Exit { code, reason: "Error", message: format!("exit {code}") })
    }

    /// Runs until it is deleted.
    pub fn runs_on() -> Self {
        Self { runs: Duration::from_millis(1), ..Self::ends(Ending::Never) }
    }

    /// Ends at once.
    pub fn ends(ending: Ending) -> Self {
        Self { runs: Duration::ZERO, held: false, ending, lingers: None }
    }

    /// The same, but it runs for a time.
    pub fn after(self, runs: Duration) -> Self {
        Self { runs, ..self }
    }

    /// The same, but it is seen running, and ends only when [`Player::let_end`] is called: for what is to happen
    /// meanwhile, however slow the machine.
    pub fn held(self) -> Self {
        Self { runs: Duration::from_millis(1), held: true, ..self }
    }

    /// The same, but it lasts for a time after it was deleted.
    pub fn lingering(self, time: Duration) -> Self {
        Self { lingers: Some(time), ..self }
    }
}

/// What a pod does.
type Script = Arc<dyn Fn(&Pod) -> Play + Send + Sync>;

/// Plays the pods of a namespace as long as it lives.
#[derive(Debug)]
pub struct Player {
    playing: JoinHandle<()>,
    let_end: CancellationToken,
}

impl Player {
    /// Begins. The script is by tasks and attempts; what undoes a task is named `undo:TASK`, the pod of an item `TASK/PLACE`.
    pub fn start(namespace: &Namespace, script: impl Fn(&str, u32) -> Play + Send + Sync + 'static) -> Self {
        Self::of_pods(namespace, move |pod| {
            let label = |name: &str| pod.labels().get(name).cloned().unwrap_or_default();
            let item = pod.labels().get(LABEL_INDEX).or_else(|| pod.labels().get(LABEL_ITEM));
            let item = item.map(|index| format!("/{index}")).unwrap_or_default();
            let undo = if label(LABEL_ROLE) == ROLE_COMPENSATION { "undo:" } else { "" };
            script(&format!("{undo}{}{item}", label(LABEL_TASK)), label(LABEL_ATTEMPT).parse().unwrap_or_default())
        })
    }

    /// Begins.
    pub fn of_pods(namespace: &Namespace, script: impl Fn(&Pod) -> Play + Send + Sync + 'static) -> Self {
        let let_end = CancellationToken::new();
        Self { playing: tokio::spawn(play(namespace.pods(), Arc::new(script), let_end.clone())), let_end }
    }

    /// Lets pods end that are held, and all that come.
    pub fn let_end(&self) {
        self.let_end.cancel();
    }

    /// All pods succeed at once and leave nothing.
    pub fn all_succeed(namespace: &Namespace) -> Self {
        Self::start(namespace, |_, _| Play::succeeds(""))
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.playing.abort();
    }
}

async fn play(pods: Api<Pod>, script: Script, let_end: CancellationToken) {
    let config = watcher::Config::default().labels(LABEL_GRAPH_UID);
    let mut stream = watcher(pods.clone(), config).default_backoff().applied_objects().boxed();
    let (mut begun, mut deleted) = (BTreeSet::new(), BTreeSet::new());
    // dropped with the player, and the plays with it
    let mut plays = JoinSet::new();
    loop {
        let pod = match stream.try_next().await {
            Ok(Some(pod)) => pod,
            Ok(None) => return,
            Err(error) => {
                eprintln!("player: {error}");
                continue;
            }
        };
        while plays.try_join_next().is_some() {}
        let uid = pod.uid().unwrap_or_default();
        let part = script(&pod);
        if pod.metadata.deletion_timestamp.is_some() {
            if on_machine(&pod) && deleted.insert(uid) {
                plays.spawn(let_go(pods.clone(), pod, part.lingers.unwrap_or_default()));
            }
        } else if begun.insert(uid) && !is_terminal(&pod) {
            plays.spawn(act(pods.clone(), pod, part, let_end.clone()));
        }
    }
}

fn on_machine(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())
}

/// Whether its containers have ended.
pub fn is_terminal(pod: &Pod) -> bool {
    phase(pod).is_some_and(|phase| phase == "Succeeded" || phase == "Failed")
}

/// Its phase.
pub fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

async fn let_go(pods: Api<Pod>, pod: Pod, lingers: Duration) {
    tokio::time::sleep(lingers).await;
    let name = pod.name_any();
    let now = DeleteParams::default()
        .grace_period(0)
        .preconditions(Preconditions { uid: pod.uid(), ..Preconditions::default() });
    until_taken(&format!("deleting {name}"), || pods.delete(&name, &now)).await;
}

/// Makes a call until the API server takes it, as a kubelet does while that is away, or says that it never will: the pod is
/// gone, or another one has its name.
async fn until_taken<T, F>(what: &str, call: impl Fn() -> F)
where
    F: Future<Output = kube::Result<T>>,
{
    loop {
        let Err(error) = call().await else { return };
        let code = if let kube::Error::Api(status) = &error { status.code } else { 0 };
        if ![404, 409].contains(&code) {
            eprintln!("player: {what}: {error}");
        }
        if (400..500).contains(&code) && code != 429 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

async fn act(pods: Api<Pod>, pod: Pod, part: Play, let_end: CancellationToken) {
    let name = pod.name_any();
    if part.lingers.is_some() {
        bind(&pods, &name).await;
    }
    let begin = Timestamp::now();
    if !part.runs.is_zero() {
        let state = json!({"running": {"startedAt": seconds(begin)}});
        set_status(&pods, &pod, "Running", state, &json!([])).await;
        tokio::time::sleep(part.runs).await;
        if part.held {
            let_end.cancelled().await;
        }
    }
    match part.ending {
        Ending::Exit { code, reason, message } => {
            let state = json!({"terminated": {"exitCode": code, "reason": reason, "message": message,
                "startedAt": seconds(begin), "finishedAt": seconds(Timestamp::now())}});
            set_status(&pods, &pod, if code == 0 { "Succeeded" } else { "Failed" }, state, &json!([])).await;
        }
        Ending::Evicted => {
            let state = json!({"terminated": {"exitCode": 137, "reason": "Error",
                "startedAt": seconds(begin), "finishedAt": seconds(Timestamp::now())}});
            let conditions = json!([{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
                "message": "Eviction API: evicting", "lastTransitionTime": seconds(Timestamp::now())}]);
            set_status(&pods, &pod, "Failed", state, &conditions).await;
        }
        Ending::Waits(reason) => {
            let state = json!({"waiting": {"reason": reason, "message": format!("{reason}: played")}});
            set_status(&pods, &pod, "Pending", state, &json!([])).await;
        }
        Ending::Never => {}
    }
}

/// Times in a pod's status have whole seconds.
fn seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).map(|time| time.to_string()).unwrap_or_default()
}

async fn bind(pods: &Api<Pod>, name: &str) {
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "played"}});
    let result: kube::Result<Value> = pods.create_subresource("binding", name, &PostParams::default(), &binding).await;
    if let Err(error) = result {
        eprintln!("player: binding {name}: {error}");
    }
}

async fn set_status(pods: &Api<Pod>, pod: &Pod, phase: &str, state: Value, conditions: &Value) {
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let statuses: Vec<Value> = containers
        .iter()
        .map(|container| {
            json!({"name": container.name, "image": container.image, "imageID": "", "restartCount": 0,
                "ready": phase == "Running", "state": state})
        })
        .collect();
    let status = json!({"phase": phase, "startTime": seconds(Timestamp::now()), "containerStatuses": statuses, "conditions": conditions});
    // its UID as a precondition: a pod of the same name is not this one
    let patch = json!({"metadata": {"uid": pod.uid()}, "status": status});
    let name = pod.name_any();
    let params = PatchParams::default();
    let patch = Patch::Strategic(&patch);
    until_taken(&format!("status of {name}"), || pods.patch_status(&name, &params, &patch)).await;
}
