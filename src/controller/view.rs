//! A graph as the controller watches it: whole enough to decide whether there is work, cheap enough that the echo
//! of every status write costs little.

use std::{borrow::Cow, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, core::NamespaceResourceScope, runtime::reflector::ObjectRef};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::api::{
    ANNOTATION_CREATED_BY, ANNOTATION_DESIGNED_BY, ANNOTATION_HASH, ANNOTATION_NOTED_GENERATION,
    ANNOTATION_OPERATED_BY, ANNOTATION_RESTORED, ANNOTATION_REVISION, ANNOTATION_TRACEPARENT, CONDITION_RECONCILING,
    CloudEventsStatus, DesiredState, GROUP, TaskGraph, noted_user,
};
use crate::engine::Writers;

/// The annotations that are read.
const READ: [&str; 8] = [
    ANNOTATION_REVISION,
    ANNOTATION_HASH,
    ANNOTATION_RESTORED,
    ANNOTATION_TRACEPARENT,
    ANNOTATION_CREATED_BY,
    ANNOTATION_DESIGNED_BY,
    ANNOTATION_OPERATED_BY,
    ANNOTATION_NOTED_GENERATION,
];

/// A `TaskGraph` whose spec is not read yet and of whose status only the head is kept.
///
/// Any object that the API server stores can be read as one, so a malformed graph never breaks the watch.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct GraphView {
    /// Its metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// Its spec, as it stands.
    #[serde(default)]
    pub spec: Arc<Value>,
    /// The head of its status.
    #[serde(default)]
    pub status: StatusHead,
}

/// The parts of a status that are read from the watch. All else is read live, once, when a graph is taken up.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusHead {
    /// See [`crate::api::TaskGraphStatus`].
    pub uid: Option<String>,
    /// See [`crate::api::TaskGraphStatus`].
    pub observed_generation: Option<i64>,
    /// See [`crate::api::TaskGraphStatus`]. A text: a date that is none must not break the watch.
    pub completion_time: Option<String>,
    /// See [`crate::api::TaskGraphStatus`]. A text: a word of another version must not break the watch.
    pub phase: Option<String>,
    /// See [`crate::api::TaskGraphStatus`].
    pub revision: Option<String>,
    /// See [`crate::api::TaskGraphStatus`].
    pub conditions: Vec<ConditionHead>,
    /// See [`crate::api::TaskGraphStatus`].
    pub progress: Option<String>,
    /// See [`crate::api::TaskGraphStatus`].
    pub sequence: u64,
    /// See [`crate::api::TaskGraphStatus`].
    pub cloud_events: Option<CloudEventsStatus>,
    /// What it returned; kept only of a child graph, whose parent reads it.
    pub outputs: Map<String, Value>,
}

/// The parts of a condition that are read from the watch.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ConditionHead {
    /// Which condition.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// A word for programs.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

/// Of a child graph: its parent.
pub fn parent_of(child: &ObjectMeta) -> Option<&OwnerReference> {
    let ours = |owner: &&OwnerReference| {
        owner.controller == Some(true)
            && owner.kind == TaskGraph::kind(&())
            && owner.api_version.starts_with(&format!("{GROUP}/"))
    };
    child.owner_references.iter().flatten().find(ours)
}

impl GraphView {
    /// Its name; empty only for an object that no API server would store.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// Its UID.
    pub fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Generation of its spec.
    pub fn generation(&self) -> i64 {
        self.metadata.generation.unwrap_or_default()
    }

    /// When it finished.
    pub fn completion_time(&self) -> Option<Timestamp> {
        self.status.completion_time.as_deref()?.parse().ok()
    }

    /// A reference to it, as the queue uses.
    pub fn reference(&self) -> ObjectRef<Self> {
        ObjectRef::new(self.name()).within(self.namespace())
    }

    /// Whether a condition stands as told.
    pub fn has_condition(&self, type_: &str, status: &str, reason: &str, message: &str) -> bool {
        let matches =
            |c: &ConditionHead| c.type_ == type_ && c.status == status && c.reason == reason && c.message == message;
        self.status.conditions.iter().any(matches)
    }

    /// What is wanted of it.
    pub fn desired_state(&self) -> DesiredState {
        self.spec.get("desiredState").and_then(|state| DesiredState::deserialize(state).ok()).unwrap_or_default()
    }

    /// The trace context that it was made with.
    pub fn traceparent(&self) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(ANNOTATION_TRACEPARENT).map(String::as_str)
    }

    /// Of a child graph: the UID of its parent, and the parent's `ControllerRevision` with the templates that it runs.
    pub fn parent(&self) -> Option<(&str, &str)> {
        let owner = parent_of(&self.metadata)?;
        let revision = self.metadata.annotations.as_ref()?.get(ANNOTATION_REVISION)?;
        Some((&owner.uid, revision))
    }

    /// Whether its spec waits for something that is not there yet.
    pub fn waits(&self) -> bool {
        self.holds(CONDITION_RECONCILING).is_some()
    }

    /// The condition of this type, if it stands and is `True`.
    pub fn holds(&self, type_: &str) -> Option<&ConditionHead> {
        self.status.conditions.iter().find(|condition| condition.type_ == type_ && condition.status == "True")
    }

    /// Whether its status was written of an object that was there before: it was restored. One of an operator that
    /// did not note the UID shows by a generation that this object has not had.
    pub fn has_status_of_another(&self) -> bool {
        self.status.uid.as_ref().is_some_and(|uid| uid != self.uid())
            || self.status.observed_generation.is_some_and(|observed| observed > self.generation())
    }

    /// The value of an annotation that is kept.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(name).map(String::as_str)
    }

    /// Who wrote it, as admission has noted; where that does not run, as somebody says: at any length, which a status
    /// would not take. Who changed it is not known where a change was stored without a note.
    pub fn writers(&self) -> Writers {
        let noted = |annotation| self.annotation(annotation).map(noted_user).filter(|user| !user.is_empty());
        let user = |annotation| noted(annotation).map(str::to_owned);
        let created = user(ANNOTATION_CREATED_BY);
        let generation = self.annotation(ANNOTATION_NOTED_GENERATION).and_then(|noted| noted.parse().ok());
        if generation != Some(self.generation()) {
            return Writers { created, ..Writers::default() };
        }
        let operated = user(ANNOTATION_OPERATED_BY).or_else(|| created.clone());
        Writers { created, designed: user(ANNOTATION_DESIGNED_BY), operated }
    }

    /// Drops what is never read.
    pub fn prune(&mut self) {
        self.metadata.managed_fields = None;
        if let Some(annotations) = &mut self.metadata.annotations {
            annotations.retain(|name, _| READ.contains(&&**name));
        }
        if self.parent().is_none() {
            self.status.outputs = Map::new();
        }
    }
}

impl Resource for GraphView {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        TaskGraph::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        TaskGraph::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        TaskGraph::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        TaskGraph::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::MAX_USER;

    fn writers(generation: i64, notes: &Value) -> Writers {
        let metadata = json!({"generation": generation, "annotations": notes});
        let mut view: GraphView = serde_json::from_value(json!({"metadata": metadata})).unwrap();
        view.prune();
        view.writers()
    }

    fn expected(created: &str, designed: Option<&str>, operated: Option<&str>) -> Writers {
        let [designed, operated] = [designed, operated].map(|user| user.map(str::to_owned));
        Writers { created: Some(created.to_owned()), designed, operated }
    }

    #[test]
    fn who_wrote_it_is_told_where_it_is_known() {
        let [created, designed, operated, noted] = ["created-by", "designed-by", "operated-by", "noted-generation"]
            .map(|note| format!("taskgraph.dev/{note}"));
        let all = json!({&created: "ann", &designed: "bob", &operated: "eve", &noted: "3"});
        assert_eq!(writers(3, &all), expected("ann", Some("bob"), Some("eve")));
        assert_eq!(writers(4, &all), expected("ann", None, None), "somebody changed it since");
        assert_eq!(writers(1, &json!({&created: "ann", &noted: "1"})), expected("ann", None, Some("ann")));
        assert_eq!(writers(1, &json!({&created: "ann"})), expected("ann", None, None));
        assert_eq!(writers(1, &Value::Null), Writers::default());
        // whatever somebody says, it fits into a status
        let long = json!({&created: "ä".repeat(MAX_USER + 1), &designed: "", &operated: "eve", &noted: "1"});
        assert_eq!(writers(1, &long), expected(&"ä".repeat(MAX_USER), None, Some("eve")));
    }
}
