//! Changes of one graph's spec, asked for by name: what verbs have in common.

use anyhow::{Result, anyhow, bail};
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{suggest, tree::client::Graphs};
use crate::{
    api::{DesiredState, LABEL_TASK, TaskGraph, TaskGraphStatus},
    controller::view::parent_of,
};

/// Field manager of what the verbs write. Not `kubectl-…`: Flux takes whatever such managers wrote for drift, and undoes it.
pub const MANAGER: &str = "taskgraph-plugin";

/// Merges `spec` into the graph's, if it is still the graph that was read; the graph as it is then.
pub async fn merge(graphs: &Graphs, graph: &TaskGraph, spec: Value) -> Result<TaskGraph> {
    let patch = json!({"metadata": {"uid": graph.metadata.uid}, "spec": spec});
    let name = graph.name_any();
    match send(graphs, &name, patch, "to change the graph").await? {
        Answer::Changed(graph) => Ok(*graph),
        Answer::Another(why) => bail!("the graph was deleted meanwhile: {why}"),
    }
}

/// What the cluster says to a change of a graph.
pub enum Answer {
    /// The graph as it is now.
    Changed(Box<TaskGraph>),
    /// It is gone, or is not the one that the change was made for; why.
    Another(String),
}

/// Merges a patch into a graph. What the cluster `refuses` for another reason is an error.
pub async fn send(graphs: &Graphs, name: &str, patch: Value, refuses: &str) -> Result<Answer> {
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    match graphs.api.patch(name, &parameters, &Patch::Merge(patch)).await {
        Ok(graph) => Ok(Answer::Changed(Box::new(graph))),
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {
            Ok(Answer::Another(status.message))
        }
        Err(kube::Error::Api(status)) => bail!("the cluster refuses {refuses}: {}", status.message),
        Err(error) => Err(anyhow!(error).context("cannot ask the cluster")),
    }
}

/// What is wanted of the graph.
pub fn desired_state(graph: &TaskGraph) -> DesiredState {
    graph.spec.desired_state.unwrap_or_default()
}

/// Whether it was cancelled, which is for good.
pub fn is_cancelled(graph: &TaskGraph) -> bool {
    desired_state(graph) == DesiredState::Cancel || graph.status.as_ref().is_some_and(TaskGraphStatus::is_cancelled)
}

/// Whether it has ended.
pub fn is_finished(graph: &TaskGraph) -> bool {
    graph.status.as_ref().is_some_and(|status| status.completion_time.is_some())
}

/// Of a child graph: the name of its parent, and of the parent's task that it runs.
pub fn parent(graph: &TaskGraph) -> Option<(String, String)> {
    let parent = parent_of(&graph.metadata)?;
    Some((parent.name.clone(), graph.labels().get(LABEL_TASK)?.clone()))
}

/// The names of its tasks: of the spec, or, where those are a template's, of the status.
pub fn tasks(graph: &TaskGraph) -> Vec<&str> {
    let written = graph.spec.tasks.iter().chain(&graph.spec.finally).map(|task| task.name.as_str());
    let told = graph.status.iter().flat_map(|status| &status.tasks).filter(|task| !task.removed);
    if graph.spec.template_ref.is_some() { told.map(|task| task.name.as_str()).collect() } else { written.collect() }
}

/// That there is no such task, and what may be meant.
pub fn no_task(graph: &TaskGraph, name: &str, what: &str) -> anyhow::Error {
    let hint = suggest::did_you_mean(name, tasks(graph).into_iter());
    anyhow!("the graph has no task {}{what}{hint}", suggest::quoted(name))
}
