//! Kubernetes events on graphs: accepted, refused, started, a task failed for good, finished. Not one for each success.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder as Publisher, Reporter},
};
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::view::GraphView;
use crate::{
    api::{GROUP, MANAGER, VERSION},
    engine::Role,
};

/// The API server takes 1,024 characters.
const NOTE_CHARS: usize = 1000;

/// Tells people what happened to a graph. In the background: an event that is lost holds nothing up.
#[derive(Clone)]
pub struct Recorder {
    publisher: Publisher,
    tracker: TaskTracker,
}

impl Recorder {
    /// Publishes through `client`.
    pub fn new(client: Client, tracker: TaskTracker) -> Self {
        let reporter = Reporter { controller: MANAGER.into(), instance: None };
        Self { publisher: Publisher::new(client, reporter), tracker }
    }

    /// The graph is valid and begins.
    pub fn accepted(&self, view: &GraphView, tasks: usize) {
        self.publish(view, EventType::Normal, "Accepted", "Accept", &format!("The graph is valid: {tasks} tasks."));
    }

    /// The graph is not valid.
    pub fn refused(&self, view: &GraphView, reason: &str, message: &str) {
        self.publish(view, EventType::Warning, reason, "Accept", message);
    }

    /// The graph was edited.
    pub fn edited(&self, view: &GraphView, revision: u32, what: &str) {
        self.publish(view, EventType::Normal, "Edited", "Edit", &format!("Revision {revision}: {what}."));
    }

    /// Tasks were told to start afresh.
    pub fn rerun(&self, view: &GraphView, id: &str, tasks: usize) {
        self.publish(view, EventType::Normal, "Rerun", "Rerun", &format!("Rerun {id}: {tasks} tasks start afresh."));
    }

    /// The first tasks are launched.
    pub fn started(&self, view: &GraphView) {
        self.publish(view, EventType::Normal, "Started", "Launch", "The first tasks are launched.");
    }

    /// A task, or its compensation, failed for good.
    pub fn task_failed(
        &self,
        view: &GraphView,
        role: Role,
        task: &str,
        attempt: u32,
        reason: &str,
        message: Option<&str>,
    ) {
        let (what, word) = match role {
            Role::Task => ("Task", "TaskFailed"),
            Role::Compensation => ("The compensation of task", "CompensationFailed"),
        };
        let detail = message.map(|message| format!(": {message}")).unwrap_or_default();
        let note = match attempt {
            0 => format!("{what} {task} failed ({reason}){detail}"),
            n => format!("{what} {task} failed for good at attempt {n} ({reason}){detail}"),
        };
        self.publish(view, EventType::Warning, word, "Run", &note);
    }

    /// The graph finished.
    pub fn finished(&self, view: &GraphView, complete: bool, message: &str) {
        let (type_, reason) = if complete { (EventType::Normal, "Complete") } else { (EventType::Warning, "Failed") };
        self.publish(view, type_, reason, "Finish", message);
    }

    fn publish(&self, view: &GraphView, type_: EventType, reason: &str, action: &str, note: &str) {
        let reference = ObjectReference {
            api_version: Some(format!("{GROUP}/{VERSION}")),
            kind: Some("TaskGraph".into()),
            name: view.metadata.name.clone(),
            namespace: view.metadata.namespace.clone(),
            uid: view.metadata.uid.clone(),
            resource_version: view.metadata.resource_version.clone(),
            field_path: None,
        };
        let note = note.chars().take(NOTE_CHARS).collect();
        let event = Event { type_, reason: reason.into(), note: Some(note), action: action.into(), secondary: None };
        let publisher = self.publisher.clone();
        self.tracker.spawn(async move {
            let call = publisher.publish(&event, &reference);
            match tokio::time::timeout(std::time::Duration::from_secs(30), call).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "publishing an event"),
                Err(_) => debug!("publishing an event took too long"),
            }
        });
    }
}
