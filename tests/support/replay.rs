//! What an independent watch saw of each attempt, played again through the engine's simulator: it must come to the
//! same phases as the operator did on the cluster.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use anyhow::{Context, Result};
use jiff::Timestamp;
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::{Map, Value};
use taskgraph::{
    api::{
        Approval, ClusterTaskTemplate, Duration, ROLE_COMPENSATION, TaskGraph, TaskGraphStatus, TaskPhase,
        TaskTemplate, TemplateKind, TemplateRef,
    },
    engine::{
        Attempt, AttemptResult, Blame, Failure, Graph, Identity, Launch, Run, Settings, TaskId, Templates, compile,
        policy::waiting::Approvals,
        sim::{Block, Fate, World, simulate},
    },
};

use super::{
    namespace::{Namespace, condition, finished, status},
    sight::{self, ItemsEnd, Object, PodState, Sighting},
};

/// How long after a Job vanished its loss is told. Longer than what lies between a watch and the operator.
const LOSS_NOTICED: std::time::Duration = std::time::Duration::from_secs(1);

/// One attempt, as it was seen.
#[derive(Clone, Debug, Default)]
struct Seen {
    stored: Option<Instant>,
    running: Option<Instant>,
    ended: Option<Instant>,
    pod: Option<PodState>,
    job_gone: Option<Instant>,
    /// How its child graph ended.
    child: Option<AttemptResult>,
    waits: Option<String>,
    /// Of an attempt with many items: how its Job ended, and what they left.
    items_end: Option<ItemsEnd>,
    left: BTreeMap<usize, Map<String, Value>>,
    failed: BTreeMap<usize, Failure>,
}

impl Seen {
    /// Takes what an item left; whether there is no more to it, as its pod is not the attempt's end.
    fn add_item(&mut self, item: usize, one: &Sighting) -> bool {
        let Object::Pod(_, state) = &one.object else { return false };
        if !state.is_terminal() {
            return false;
        }
        self.running.get_or_insert(one.at);
        match result(state) {
            AttemptResult::Succeeded { outputs, .. } => _ = self.left.insert(item, outputs),
            AttemptResult::Failed(failure) => _ = self.failed.insert(item, failure),
        }
        true
    }

    /// How an attempt with many items ended.
    fn items_result(&self, end: &ItemsEnd) -> AttemptResult {
        if !end.well {
            let exit_code = self.failed.values().next().and_then(|failure| failure.exit_code);
            let failure = Failure { reason: "ItemsFailed".into(), message: None, exit_code, blame: Blame::Task };
            return AttemptResult::Failed(failure);
        }
        let mut outputs = Map::new();
        for (item, left) in &self.left {
            for (name, value) in left {
                let list = outputs.entry(name.clone()).or_insert_with(|| vec![Value::Null; end.total].into());
                list[*item] = value.clone();
            }
        }
        AttemptResult::Succeeded { outputs, message: None }
    }
}

/// The templates that graphs of the namespace may use.
pub async fn templates(namespace: &Namespace) -> Result<Templates> {
    let own = namespace.api::<TaskTemplate>().list(&ListParams::default()).await?;
    let of_cluster = Api::<ClusterTaskTemplate>::all(namespace.client.clone()).list(&ListParams::default()).await?;
    let own = own.items.into_iter().map(|one| (one.name_any(), TemplateKind::TaskTemplate, one.spec));
    let of_cluster =
        of_cluster.items.into_iter().map(|one| (one.name_any(), TemplateKind::ClusterTaskTemplate, one.spec.0));
    Ok(own.chain(of_cluster).map(|(name, kind, spec)| (TemplateRef { name, kind }, Arc::new(spec))).collect())
}

/// The phases that the simulator comes to, and those that stand in the graph's status.
pub fn phases(graph: &TaskGraph, templates: &Templates, seen: &[Sighting]) -> Result<(Phases, Phases)> {
    let uid = graph.uid().context("a graph on a cluster has a UID")?;
    let plan = compile(&graph.spec, templates).map_err(|refusal| anyhow::anyhow!("{refusal:?}"))?;
    let attempts = attempts(&uid, seen);
    let identity = Identity { name: graph.name_any(), namespace: graph.namespace().unwrap_or_default(), uid };
    let start = status(graph).start_time.context("the graph was accepted")?;
    let names = Arc::clone(&plan.graph);
    let mut world = Recorded {
        graph: Arc::clone(&plan.graph),
        attempts,
        status: status(graph),
        approvals: Arc::clone(&plan.settings.approvals),
    };
    // each comes when it was acted on
    let settings = Settings { approvals: Arc::default(), ..plan.settings };
    let mut run = Run::new(Arc::clone(&plan.graph), settings, identity, start);
    let trace = simulate(&mut run, &mut world, start);
    // a status does not show compensations that were not begun, or had nothing to undo
    let is_shown = |id: &TaskId, phase: TaskPhase| {
        names.task(*id).undoes.is_none() || !matches!(phase, TaskPhase::Pending | TaskPhase::Skipped)
    };
    let simulated = names.ids().zip(trace.phases).filter(|(id, phase)| is_shown(id, *phase));
    let simulated = simulated.map(|(id, phase)| (name(&names, id), phase)).collect();
    let stored = status(graph).tasks.into_iter().flat_map(|task| {
        let undo = task.compensation.map(|undo| (format!("undo:{}", task.name), undo.phase));
        std::iter::once((task.name, task.phase)).chain(undo)
    });
    let stored = stored.collect();
    Ok((simulated, stored))
}

/// What was seen of the graph.
struct Recorded {
    graph: Arc<Graph>,
    attempts: BTreeMap<Place, Seen>,
    status: TaskGraphStatus,
    approvals: Arc<Approvals>,
}

impl World for Recorded {
    fn fate(&mut self, launch: &Launch, _: Timestamp) -> Fate {
        let Attempt { task, number, item } = launch.attempt;
        let item = item.and_then(|index| usize::try_from(index).ok());
        fate(self.attempts.get(&(name(&self.graph, task), number, item)))
    }

    fn decide(&mut self, asked: Attempt, _: Timestamp) -> Option<(Duration, Approval)> {
        let name = &self.graph.task(asked.task).name;
        let approval = self.approvals.get(name)?.get(&asked.number)?;
        let task = self.status.tasks.iter().find(|task| *task.name == **name)?;
        let failed = task.failed_attempts.iter().find(|failed| failed.attempt == asked.number);
        let (start, end) = failed
            .map_or((task.start_time, task.completion_time), |failed| (failed.start_time, failed.completion_time));
        let millis = end?.duration_since(start?).as_millis();
        Some((Duration::from_millis(millis.try_into().ok()?), approval.clone()))
    }
}

/// `TASK`, or `undo:TASK`.
fn name(graph: &Graph, id: TaskId) -> String {
    let task = graph.task(id);
    format!("{}{}", if task.undoes.is_some() { "undo:" } else { "" }, task.name)
}

/// The phase of each task, and of what undoes it.
pub type Phases = BTreeMap<String, TaskPhase>;

/// `TASK` or `undo:TASK`, number of the attempt, and place of the item where each has a Job of its own.
type Place = (String, u32, Option<usize>);

fn attempts(uid: &str, seen: &[Sighting]) -> BTreeMap<Place, Seen> {
    let mut attempts = BTreeMap::<Place, Seen>::new();
    for one in seen {
        let key = match &one.object {
            Object::Job(key) | Object::Pod(key, _) | Object::Items(key, _) => key.clone(),
            Object::Graph(graph) => sight::key(&**graph),
        };
        if key.graph != uid {
            continue;
        }
        let undo = if key.role == ROLE_COMPENSATION { "undo:" } else { "" };
        let attempt = attempts.entry((format!("{undo}{}", key.task), key.attempt, key.item)).or_default();
        match &one.object {
            Object::Job(_) | Object::Graph(_) if one.gone => attempt.job_gone = Some(one.at),
            Object::Job(_) => _ = attempt.stored.get_or_insert(one.at),
            Object::Items(_, end) => {
                attempt.ended.get_or_insert(one.at);
                attempt.items_end = Some(end.clone());
            }
            Object::Pod(_, PodState { item: Some(item), .. }) if attempt.add_item(*item, one) => {}
            Object::Pod(_, state) if state.is_terminal() => {
                attempt.ended.get_or_insert(one.at);
                attempt.pod.get_or_insert_with(|| state.clone());
            }
            Object::Pod(_, state) if state.phase == "Running" => _ = attempt.running.get_or_insert(one.at),
            Object::Pod(_, PodState { waits: Some(reason), .. }) => attempt.waits = Some(reason.clone()),
            Object::Graph(graph) => {
                attempt.stored.get_or_insert(one.at);
                if let Some(end) = finished(graph) {
                    attempt.ended.get_or_insert(one.at);
                    attempt.child.get_or_insert_with(|| child_result(graph, end == "Complete"));
                }
            }
            Object::Pod(..) => {}
        }
    }
    attempts
}

fn fate(seen: Option<&Seen>) -> Fate {
    let at_once = Duration::from_millis(0);
    let never = Fate { start: None, run: None, ..Fate::success(at_once) };
    let Some(seen) = seen else { return never };
    // a container that waits for an image or a ConfigMap: that is the task's own doing
    let block = |reason: &String| Block { reason: reason.clone(), message: String::new(), cluster: false };
    let never = Fate { blocked: seen.waits.as_ref().map(block), ..never };
    let Some(stored) = seen.stored else { return never };
    let since = |later: Instant, earlier: Instant| {
        let millis = later.saturating_duration_since(earlier).as_millis();
        Duration::from_millis(millis.try_into().unwrap_or(u64::MAX))
    };
    let start = seen.running.map(|running| since(running, stored));
    // a Job that vanished may have been stopped by the operator, for a reason that the simulator must find first
    let vanished = seen.job_gone.map(|gone| gone + LOSS_NOTICED);
    let Some(ended) = seen.ended.or(vanished) else { return Fate { start, ..never } };
    // one that ended so fast that it was never seen running did run; one of which nothing is left perhaps not
    let start = start.or_else(|| seen.ended.map(|ended| since(ended, stored)));
    let begin = seen.running.or(seen.ended).unwrap_or(stored);
    let of_pod = || seen.pod.as_ref().map_or_else(lost, result);
    let of_job = || seen.items_end.as_ref().map_or_else(of_pod, |end| seen.items_result(end));
    let result = seen.child.clone().unwrap_or_else(of_job);
    Fate { start, run: Some(since(ended, begin)), result, ..never }
}

fn child_result(graph: &TaskGraph, complete: bool) -> AttemptResult {
    if complete {
        return AttemptResult::Succeeded { outputs: status(graph).outputs, message: None };
    }
    let reason = condition(graph, "Failed").map(|failed| failed.reason.clone()).unwrap_or_default();
    AttemptResult::Failed(Failure { reason, message: None, exit_code: None, blame: Blame::Task })
}

fn lost() -> AttemptResult {
    AttemptResult::Failed(Failure { reason: "JobLost".into(), message: None, exit_code: None, blame: Blame::Cluster })
}

fn result(pod: &PodState) -> AttemptResult {
    let terminated = pod.terminated.clone().unwrap_or_default();
    if pod.phase == "Succeeded" {
        let text = terminated.message.unwrap_or_default();
        return match serde_json::from_str::<Map<String, Value>>(&text) {
            Ok(outputs) => AttemptResult::Succeeded { outputs, message: None },
            Err(_) => AttemptResult::Succeeded { outputs: Map::new(), message: Some(text) },
        };
    }
    AttemptResult::Failed(Failure {
        reason: terminated.reason.unwrap_or_else(|| "Error".into()),
        message: terminated.message,
        exit_code: Some(terminated.exit_code),
        blame: if pod.disrupted { Blame::Cluster } else { Blame::Task },
    })
}
