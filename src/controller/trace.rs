//! Spans of a graph, made from its status: an attempt's once its end is stored, the graph's once it has finished.
//!
//! Which spans there are to send is the difference between what had ended in the status that was stored before and in the
//! one that is stored now. So each is sent once, by whoever stored the end; an operator that takes a graph up begins with
//! what stands there.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{SpanContext, SpanId, SpanKind, Status},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::{
    api::{
        CONDITION_COMPLETE, CONDITION_FAILED, CompensationStatus, FailedAttempt, ROLE_COMPENSATION, ROLE_TASK,
        TaskGraphStatus, TaskPhase, TaskStatus,
    },
    engine::{Identity, reason},
    runtime::traces::Trace,
};

/// Messages are cut to this: what waits for the collector is bounded in number only.
const MESSAGE_BYTES: usize = 512;

/// What has ended of a graph by a stored status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// By role and task: the number of the last attempt that has.
    attempts: BTreeMap<(&'static str, String), u32>,
    finished: Option<Timestamp>,
}

impl Ended {
    /// What has ended by `status`.
    pub fn by(status: &TaskGraphStatus) -> Self {
        let all = entries(status).into_iter().map(|(role, task)| ((role, task.name.clone()), ended(&task)));
        Self { attempts: all.filter(|(_, number)| *number > 0).collect(), finished: status.completion_time }
    }
}

/// The tasks of a status, and their compensations as tasks.
fn entries(status: &TaskGraphStatus) -> Vec<(&'static str, TaskStatus)> {
    let undo = |task: &TaskStatus| {
        let undo = task.compensation.as_deref()?;
        Some((ROLE_COMPENSATION, CompensationStatus::clone(undo).into_task(task.name.clone())))
    };
    // outputs may be large, and are not read
    let lean = |task: &TaskStatus| TaskStatus {
        name: task.name.clone(),
        phase: task.phase,
        reason: task.reason.clone(),
        message: task.message.clone(),
        attempts: task.attempts,
        attempts_before: task.attempts_before,
        job: task.job.clone(),
        start_time: task.start_time,
        completion_time: task.completion_time,
        failed_attempts: task.failed_attempts.clone(),
        ..TaskStatus::default()
    };
    status.tasks.iter().flat_map(|task| [Some((ROLE_TASK, lean(task))), undo(task)]).flatten().collect()
}

/// The number of a task's last attempt that has ended; 0: none has.
fn ended(task: &TaskStatus) -> u32 {
    let goes_on = matches!(task.phase, TaskPhase::Running | TaskPhase::Waiting);
    task.attempts.saturating_sub(u32::from(goes_on))
}

/// Spans for what has ended by `status` and had not by `before`.
pub fn spans(trace: &Trace, graph: &Identity, before: &Ended, status: &TaskGraphStatus) -> Vec<SpanData> {
    let maker = Maker { trace, graph };
    let mut spans = Vec::new();
    for (role, task) in entries(status) {
        let (last, known) = (ended(&task), before.attempts.get(&(role, task.name.clone())).copied().unwrap_or(0));
        // of a number that nobody could have counted to (a status edited by hand) nothing is known
        for number in known.max(last.saturating_sub(64)).saturating_add(1)..=last {
            spans.extend(maker.attempt(role, &task, number));
        }
    }
    if before.finished != status.completion_time {
        spans.extend(maker.graph(status));
    }
    spans
}

struct Maker<'a> {
    trace: &'a Trace,
    graph: &'a Identity,
}

/// How an attempt ended.
struct Outcome<'a> {
    start: Option<Timestamp>,
    end: Option<Timestamp>,
    job: Option<&'a str>,
    phase: TaskPhase,
    reason: Option<&'a str>,
    message: Option<&'a str>,
    exit_code: Option<i32>,
}

/// What is known of an attempt that ended; `None`: the status tells nothing of it any more, or it never had a start.
fn outcome(task: &TaskStatus, number: u32) -> Option<Outcome<'_>> {
    let last = number == task.attempts && task.begun() && task.phase.is_final();
    if let Some(failed) = task.failed_attempts.iter().find(|failed| failed.attempt == number) {
        let FailedAttempt { start_time, completion_time, job, reason, message, exit_code, .. } = failed;
        let phase = if last { task.phase } else { TaskPhase::Failed };
        return Some(Outcome {
            start: *start_time,
            end: *completion_time,
            job: job.as_deref(),
            phase,
            reason: Some(reason),
            message: message.as_deref(),
            exit_code: *exit_code,
        });
    }
    last.then_some(Outcome {
        start: task.start_time,
        end: task.completion_time,
        job: task.job.as_deref(),
        phase: task.phase,
        reason: task.reason.as_deref(),
        message: task.message.as_deref(),
        exit_code: None,
    })
}

/// As the semantic conventions for CI/CD name how a task or pipeline ended.
fn result(phase: TaskPhase, why: Option<&str>) -> &'static str {
    match phase {
        TaskPhase::Succeeded => "success",
        TaskPhase::Cancelled => "cancellation",
        _ if why == Some(reason::DEADLINE_EXCEEDED) => "timeout",
        _ => "failure",
    }
}

impl Maker<'_> {
    fn attempt(&self, role: &'static str, task: &TaskStatus, number: u32) -> Option<SpanData> {
        let of = outcome(task, number)?;
        let (start, end) = (of.start?, of.end?);
        let context = self.trace.attempt(role, &task.name, number);
        let mut attributes = self.attributes();
        attributes.extend([
            KeyValue::new("cicd.pipeline.task.name", task.name.clone()),
            KeyValue::new("cicd.pipeline.task.run.id", context.span_id().to_string()),
            KeyValue::new("cicd.pipeline.task.run.result", result(of.phase, of.reason)),
            KeyValue::new("taskgraph.task", task.name.clone()),
            KeyValue::new("taskgraph.role", role),
            KeyValue::new("taskgraph.attempt", i64::from(number)),
            KeyValue::new("taskgraph.outcome", of.phase.name()),
        ]);
        attributes.extend(of.job.map(|job| KeyValue::new("k8s.job.name", job.to_owned())));
        attributes.extend(of.reason.map(|why| KeyValue::new("taskgraph.reason", why.to_owned())));
        attributes.extend(of.exit_code.map(|code| KeyValue::new("process.exit.code", i64::from(code))));
        let failed = of.phase == TaskPhase::Failed;
        attributes.extend(of.reason.filter(|_| failed).map(|why| KeyValue::new("error.type", why.to_owned())));
        let status = match of.phase {
            TaskPhase::Succeeded => Status::Ok,
            TaskPhase::Failed => Status::error(told(of.reason, of.message)),
            _ => Status::Unset,
        };
        let undo = if role == ROLE_COMPENSATION { "undo " } else { "" };
        let name = format!("{undo}{} #{number}", task.name);
        Some(
            Span { context, parent: Some(self.trace.graph().span_id()), is_remote: false, name, start, end }
                .with(attributes, status),
        )
    }

    /// The graph's own span or, if it had finished before, one of what it did since.
    fn graph(&self, status: &TaskGraphStatus) -> Option<SpanData> {
        let (started, end) = (status.start_time?, status.completion_time?);
        let ends = status.history.iter().filter(|entry| entry.event == reason::FINISHED).count();
        let again = status.reopen_time.filter(|_| ends > 1);
        let holds = |type_: &str| status.conditions.iter().find(|one| one.type_ == type_ && one.status == "True");
        let failed = holds(CONDITION_FAILED);
        let why = failed.map(|failed| failed.reason.as_str());
        let phase = match why {
            None if holds(CONDITION_COMPLETE).is_some() => TaskPhase::Succeeded,
            Some(reason::CANCELLED) => TaskPhase::Cancelled,
            _ => TaskPhase::Failed,
        };
        let mut attributes = self.attributes();
        attributes.push(KeyValue::new("cicd.pipeline.result", result(phase, why)));
        attributes.push(KeyValue::new(
            "taskgraph.outcome",
            if failed.is_none() { CONDITION_COMPLETE } else { CONDITION_FAILED },
        ));
        attributes.extend(why.map(|why| KeyValue::new("taskgraph.reason", why.to_owned())));
        attributes
            .extend(why.filter(|_| phase == TaskPhase::Failed).map(|why| KeyValue::new("error.type", why.to_owned())));
        let span_status = match (phase, failed) {
            (TaskPhase::Succeeded, _) => Status::Ok,
            (TaskPhase::Failed, Some(failed)) => Status::error(told(Some(&failed.reason), Some(&failed.message))),
            _ => Status::Unset,
        };
        let (name, own) = (self.graph.name.clone(), self.trace.graph());
        let span = match again {
            Some(start) => {
                let context = self.trace.reopened(end.as_millisecond());
                Span {
                    context,
                    parent: Some(own.span_id()),
                    is_remote: false,
                    name: format!("{name}, again"),
                    start,
                    end,
                }
            }
            None => Span { context: own, parent: self.trace.parent(), is_remote: true, name, start: started, end },
        };
        Some(span.with(attributes, span_status))
    }

    fn attributes(&self) -> Vec<KeyValue> {
        let Identity { name, namespace, uid } = self.graph;
        vec![
            KeyValue::new("k8s.namespace.name", namespace.clone()),
            KeyValue::new("cicd.pipeline.name", name.clone()),
            KeyValue::new("cicd.pipeline.run.id", uid.clone()),
            KeyValue::new("taskgraph.graph.name", name.clone()),
            KeyValue::new("taskgraph.graph.uid", uid.clone()),
        ]
    }
}

/// What the status of a failed span says.
fn told(reason: Option<&str>, message: Option<&str>) -> String {
    let text = [reason, message].into_iter().flatten().collect::<Vec<_>>().join(": ");
    text[..text.floor_char_boundary(MESSAGE_BYTES)].to_owned()
}

struct Span {
    context: SpanContext,
    parent: Option<SpanId>,
    /// The parent was made by another program.
    is_remote: bool,
    name: String,
    start: Timestamp,
    end: Timestamp,
}

impl Span {
    fn with(self, attributes: Vec<KeyValue>, status: Status) -> SpanData {
        SpanData {
            span_context: self.context,
            parent_span_id: self.parent.unwrap_or(SpanId::INVALID),
            parent_span_is_remote: self.is_remote && self.parent.is_some(),
            span_kind: SpanKind::Internal,
            name: self.name.into(),
            start_time: time(self.start),
            // clocks of machines differ
            end_time: time(self.end.max(self.start)),
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status,
            instrumentation_scope: InstrumentationScope::builder("taskgraph")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        }
    }
}

/// As the library takes it: not before 1970.
fn time(time: Timestamp) -> SystemTime {
    let millis = u64::try_from(time.as_millisecond()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
}

#[cfg(test)]
mod tests;
