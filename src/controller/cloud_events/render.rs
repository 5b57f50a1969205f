//! A fact as the event that is sent: the same however late it is told.

use super::{
    event::{Data, Event, GraphData, GraphName, Kind, TaskData, Times},
    facts::{Fact, Life, Origin},
};
use crate::{
    api::{
        CONDITION_FAILED, FailedAttempt, GROUP, GraphPhase, HistoryEntry, TaskGraphStatus, TaskPhase, TaskStatus,
        VERSION,
    },
    engine::reason,
};

/// How events are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Name of the cluster, for `source`.
    pub cluster: Option<String>,
    /// Whether outputs are sent along.
    pub outputs: bool,
}

/// What an event says of a fact of a status. `None`: the fact is not of this status.
pub fn render(style: &Style, graph: &GraphName, fact: &Fact, status: &TaskGraphStatus) -> Option<Event> {
    let (id, subject, data) = match fact.origin {
        Origin::History(at) => {
            let data = graph_data(style, graph, fact.kind, status.history.get(at)?, status);
            (format!("{}{}", fact.kind.name(), stamp(fact)), None, Data::Graph(Box::new(data)))
        }
        Origin::Task { place, undo, failed } => {
            let task = status.tasks.get(place)?;
            let life = Life::of(task, undo)?;
            let failure = failed.and_then(|at| life.failed.get(at));
            // one end a task and attempt; but of what is told to start afresh and is not run, there may be several
            let several = fact.kind.is_end() && failure.is_none() && !life.begun();
            let stamp = if several { stamp(fact) } else { String::new() };
            let id = format!("{}/{}/{}{stamp}", fact.kind.name(), task.name, fact.attempt);
            let data = task_data(style, graph, fact, task, life, failure);
            (id, Some(task.name.clone()), Data::Task(Box::new(data)))
        }
    };
    Some(Event {
        specversion: "1.0".to_owned(),
        id: format!("{}/{id}", graph.uid),
        source: source(style, graph),
        type_: fact.kind.type_(),
        subject,
        time: fact.time,
        datacontenttype: "application/json".to_owned(),
        data,
    })
}

fn stamp(fact: &Fact) -> String {
    fact.time.map(|time| format!("/{}", time.as_millisecond())).unwrap_or_default()
}

fn source(style: &Style, graph: &GraphName) -> String {
    let cluster = style.cluster.as_ref().map(|cluster| format!("//{cluster}")).unwrap_or_default();
    format!("{cluster}/apis/{GROUP}/{VERSION}/namespaces/{}/taskgraphs/{}", graph.namespace, graph.name)
}

fn graph_data(
    style: &Style,
    graph: &GraphName,
    kind: Kind,
    entry: &HistoryEntry,
    status: &TaskGraphStatus,
) -> GraphData {
    let phase = match kind {
        Kind::GraphAccepted | Kind::GraphResumed => Some(GraphPhase::Running),
        Kind::GraphSuspended => Some(GraphPhase::Suspended),
        Kind::GraphCancelling => Some(GraphPhase::Cancelling),
        Kind::GraphCompensating => Some(GraphPhase::Compensating),
        Kind::GraphSucceeded => Some(GraphPhase::Complete),
        Kind::GraphFailed | Kind::GraphCancelled => Some(GraphPhase::Failed),
        _ => None,
    };
    let mut data = GraphData {
        graph: graph.clone(),
        phase,
        reason: None,
        message: None,
        times: Times::new(status.start_time, None),
        counts: None,
        outputs: serde_json::Map::new(),
    };
    if !kind.is_graph_end() {
        data.reason = (kind == Kind::GraphCancelling).then(|| entry.event.clone());
        data.message.clone_from(&entry.message);
        return data;
    }
    data.reason =
        if kind == Kind::GraphSucceeded { Some(reason::ALL_SUCCEEDED.to_owned()) } else { entry.message.clone() };
    data.times = Times::new(status.start_time, Some(entry.time));
    // else it was taken up again since
    if status.completion_time == Some(entry.time) {
        let failed = status.conditions.iter().find(|one| one.type_ == CONDITION_FAILED && one.status == "True");
        data.message = failed.map(|failed| failed.message.clone()).filter(|message| !message.is_empty());
        data.counts.clone_from(&status.counts);
        if style.outputs {
            data.outputs.clone_from(&status.outputs);
        }
    }
    data
}

fn task_data(
    style: &Style,
    graph: &GraphName,
    fact: &Fact,
    task: &TaskStatus,
    life: Life<'_>,
    failure: Option<&FailedAttempt>,
) -> TaskData {
    let is_end = fact.kind.is_end();
    let (start_time, job) = match failure {
        Some(one) => (one.start_time, one.job.clone()),
        None => (life.start_time, life.job.map(str::to_owned)),
    };
    let (reason, message) = match failure {
        _ if !is_end => (None, None),
        Some(one) => (Some(one.reason.clone()), one.message.clone()),
        None => (life.reason.map(str::to_owned), life.message.map(str::to_owned)),
    };
    let succeeded = fact.kind == Kind::TaskSucceeded;
    TaskData {
        graph: graph.clone(),
        task: task.name.clone(),
        phase: phase_of(fact.kind, &life, failure),
        attempt: fact.attempt,
        reason,
        message,
        exit_code: exit_code(fact, &life, failure),
        job,
        times: Times::new(start_time, fact.time.filter(|_| is_end)),
        branches: if succeeded { task.taken().map(str::to_owned).collect() } else { Vec::new() },
        outputs: if succeeded && style.outputs { task.outputs.clone() } else { serde_json::Map::new() },
    }
}

fn phase_of(kind: Kind, life: &Life<'_>, failure: Option<&FailedAttempt>) -> TaskPhase {
    match (kind, failure) {
        (Kind::TaskStarted | Kind::CompensationStarted, _) => TaskPhase::Running,
        (Kind::TaskRetrying | Kind::CompensationRetrying, _) => TaskPhase::Retrying,
        (_, Some(_)) => TaskPhase::Failed,
        (_, None) => life.phase,
    }
}

/// Where the end of the last attempt is told, that of its own record.
fn exit_code(fact: &Fact, life: &Life<'_>, failure: Option<&FailedAttempt>) -> Option<i32> {
    let is_it = |one: &&FailedAttempt| one.attempt == fact.attempt && life.phase == TaskPhase::Failed;
    let record = failure.or_else(|| life.failed.iter().find(is_it));
    record.filter(|_| fact.kind.is_end()).and_then(|one| one.exit_code)
}
