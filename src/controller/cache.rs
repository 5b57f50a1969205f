//! Successes that are remembered, for tasks with `cache`: each one a `ControllerRevision` in the namespace of its graph.
//!
//! A `ControllerRevision` holds any JSON and never changes, and users mostly may not write one, unlike a `ConfigMap`:
//! nobody with the usual rights can give a task outputs that no task left. Their number is bounded, and they go when they
//! are too old for the task that left them. Nothing is lost with one: the next task runs.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    apply::Hands,
    cluster::{CallError, Stored},
};
use crate::{
    api::{ANNOTATION_EXPIRES, LABEL_ROLE, MANAGER, ROLE_CACHE},
    engine::{CacheKey, Identity, Remembered},
};

/// Most successes that are remembered in a namespace; the oldest go.
pub const MOST: usize = 1000;
/// Most bytes of outputs that are remembered of one.
const MOST_BYTES: usize = 64 * 1024;
/// Calls in flight at once.
const CALLS: usize = 16;
/// How long a look may take: the task waits a little longer.
const LOOK: Duration = Duration::from_secs(4);
/// How often the successes of all namespaces are looked through.
const TIDY: Duration = Duration::from_mins(10);
/// A namespace is looked through after so many more were remembered in it, too.
const TIDY_AFTER: u32 = 100;

/// What the cache knows of itself.
#[derive(Debug)]
pub struct Cache {
    calls: Semaphore,
    /// By namespace: how many were remembered since it was last looked through.
    written: Mutex<BTreeMap<String, u32>>,
}

impl Default for Cache {
    fn default() -> Self {
        Self { calls: Semaphore::new(CALLS), written: Mutex::default() }
    }
}

/// What is to be remembered.
#[derive(Clone, Debug)]
pub struct Success {
    /// What it is found by.
    pub key: CacheKey,
    /// How long it counts.
    pub max_age: crate::api::Duration,
    /// What it left, and where it was.
    pub entry: Remembered,
}

fn name(key: CacheKey) -> String {
    format!("taskgraph-cache-{key}")
}

impl Hands {
    /// The success that is remembered under a key. Whatever goes wrong counts as none.
    pub async fn look_up(&self, graph: &Identity, task: &str, key: CacheKey) -> Option<Remembered> {
        let read = async {
            // closed never
            let _permit = self.cache.calls.acquire().await;
            self.cluster.get_revision(&graph.namespace, &name(key)).await
        };
        let error = match tokio::time::timeout(LOOK, read).await {
            Ok(Ok(found)) => {
                return found.data.and_then(|data| serde_json::from_value(data.0).ok());
            }
            Ok(Err(error)) if error.is_not_found() => return None,
            Ok(Err(error)) => error,
            Err(_) => CallError::Timeout,
        };
        warn!(graph = %graph.name, namespace = %graph.namespace, task, %error, "an earlier success could not be looked for; the task runs");
        None
    }

    /// Remembers a success in the place of an older one. Tried once: what is not remembered is done again.
    pub async fn remember(self: Arc<Self>, graph: Arc<Identity>, success: Success) {
        if crate::engine::policy::outputs::size(&success.entry.outputs) > MOST_BYTES || !self.leadership.holds() {
            return;
        }
        let _permit = self.cache.calls.acquire().await;
        if let Err(error) = self.try_remember(&graph.namespace, &success).await {
            debug!(graph = %graph.name, namespace = %graph.namespace, task = success.entry.task, %error, "remembering a success");
            return;
        }
        let due = {
            let mut written = self.cache.written.lock();
            let count = written.entry(graph.namespace.clone()).or_insert(TIDY_AFTER);
            *count = count.saturating_add(1);
            *count > TIDY_AFTER && std::mem::take(count) > 0
        };
        if due && let Err(error) = self.tidy(Some(&graph.namespace)).await {
            debug!(namespace = %graph.namespace, %error, "looking through what is remembered");
        }
    }

    async fn try_remember(&self, namespace: &str, success: &Success) -> Result<(), CallError> {
        let object = object(namespace, success);
        match self.cluster.create_revision(namespace, &object).await {
            Err(error) if error.is_conflict() => {}
            answer => return answer.map(drop),
        }
        let name = name(success.key);
        let old = self.cluster.get_revision(namespace, &name).await?;
        let uid = old.metadata.uid.unwrap_or_default();
        match self.cluster.delete_revision(namespace, &name, &uid).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
        self.cluster.create_revision(namespace, &object).await.map(drop)
    }

    /// Forgets what is too old or too much, in one namespace or in all.
    async fn tidy(&self, namespace: Option<&str>) -> Result<(), CallError> {
        let listed = self.cluster.list_revisions(namespace, (LABEL_ROLE, ROLE_CACHE)).await?;
        let mut by_namespace: BTreeMap<String, Vec<ObjectMeta>> = BTreeMap::new();
        for Stored { metadata } in listed {
            by_namespace.entry(metadata.namespace.clone().unwrap_or_default()).or_default().push(metadata);
        }
        for (namespace, remembered) in by_namespace {
            for gone in surplus(remembered, super::now()) {
                let (name, uid) = (gone.name.unwrap_or_default(), gone.uid.unwrap_or_default());
                match self.cluster.delete_revision(&namespace, &name, &uid).await {
                    Err(error) if !error.is_not_found() && !error.is_conflict() => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Looks through what is remembered now and then, until `ended`.
    pub async fn keep_tidy(self: Arc<Self>, namespace: Option<String>, ended: CancellationToken) {
        loop {
            tokio::select! {
                () = ended.cancelled() => return,
                () = tokio::time::sleep(TIDY) => {}
            }
            if self.leadership.holds()
                && let Err(error) = self.tidy(namespace.as_deref()).await
            {
                debug!(%error, "looking through what is remembered");
            }
        }
    }
}

fn object(namespace: &str, success: &Success) -> Value {
    let expires = success.entry.time.checked_add(SignedDuration::from(success.max_age)).unwrap_or(Timestamp::MAX);
    json!({
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": name(success.key),
            "namespace": namespace,
            "labels": {LABEL_ROLE: ROLE_CACHE, "app.kubernetes.io/managed-by": MANAGER},
            "annotations": {ANNOTATION_EXPIRES: expires.to_string()},
        },
        "revision": 1,
        "data": success.entry,
    })
}

/// Those of one namespace that are to be forgotten: all that are too old, and the oldest of too many.
fn surplus(mut remembered: Vec<ObjectMeta>, now: Timestamp) -> Vec<ObjectMeta> {
    let expired = |metadata: &mut ObjectMeta| {
        let text = metadata.annotations.as_ref().and_then(|annotations| annotations.get(ANNOTATION_EXPIRES));
        // what cannot be read was changed by hand
        text.and_then(|text| text.parse::<Timestamp>().ok()).is_none_or(|expires| expires < now)
    };
    let mut gone: Vec<_> = remembered.extract_if(.., expired).collect();
    remembered.sort_by_key(|metadata| metadata.creation_timestamp.as_ref().map(|time| time.0));
    let over = remembered.len().saturating_sub(MOST);
    gone.extend(remembered.drain(..over));
    gone
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn remembered(name: &str, created: i64, expires: Option<&str>) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            creation_timestamp: Some(Time(at(created))),
            annotations: expires.map(|text| BTreeMap::from([(ANNOTATION_EXPIRES.to_owned(), text.to_owned())])),
            ..ObjectMeta::default()
        }
    }

    fn names(list: Vec<ObjectMeta>) -> Vec<String> {
        list.into_iter().filter_map(|metadata| metadata.name).collect()
    }

    #[test]
    fn what_is_too_old_goes() {
        let list = vec![
            remembered("old", 5, Some("1970-01-01T00:01:39Z")),
            remembered("young", 1, Some("1970-01-01T00:01:40Z")),
            remembered("odd", 2, Some("never")),
            remembered("bare", 3, None),
        ];
        assert_eq!(names(surplus(list, at(100))), ["old", "odd", "bare"]);
    }

    #[test]
    fn of_too_many_the_oldest_go() {
        let until = at(10_000).to_string();
        let list = (0..1003).rev().map(|number| remembered(&number.to_string(), number, Some(&until))).collect();
        assert_eq!(names(surplus(list, at(5000))), ["0", "1", "2"]);
    }

    #[test]
    fn an_object() {
        let entry = Remembered {
            outputs: json!({"rows": 3}).as_object().unwrap().clone(),
            graph: "g".into(),
            task: "t".into(),
            time: at(40),
        };
        let success = Success { key: CacheKey(1, 0xab), max_age: crate::api::Duration::from_secs(60), entry };
        assert_eq!(
            object("n", &success),
            json!({
                "apiVersion": "apps/v1",
                "kind": "ControllerRevision",
                "metadata": {
                    "name": "taskgraph-cache-000000000000000100000000000000ab",
                    "namespace": "n",
                    "labels": {"taskgraph.dev/role": "cache", "app.kubernetes.io/managed-by": "taskgraph"},
                    "annotations": {"taskgraph.dev/expires": "1970-01-01T00:01:40Z"},
                },
                "revision": 1,
                "data": {"outputs": {"rows": 3}, "graph": "g", "task": "t", "time": "1970-01-01T00:00:40Z"},
            })
        );
    }
}
