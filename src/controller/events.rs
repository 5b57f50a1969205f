//! Kubernetes events on graphs: accepted, refused, edited, rerun, started, a task failed for good, finished. Not one for
//! each success.
//!
//! What an event tells stands in the stored status first. Its name is made from what it tells, so it exists once however
//! often it is created: an operator that takes a graph up tells once more what happened lately, since nobody knows how far
//! the one before it came.

mod telling;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, debug};

pub use self::telling::Telling;
use super::{
    accept,
    apply::backoff,
    cluster::{CallError, Cluster},
    view::GraphView,
};
use crate::{
    api::{GROUP, MANAGER, VERSION},
    jobs,
};

/// What happened longer ago is not told again. Kubernetes forgets events after an hour: told again later, one would be
/// there twice.
pub const LATELY: Duration = Duration::from_mins(10);
/// Events being sent at once: nothing waits for them.
const SENDS: usize = 8;
/// Tries to send one, over about a minute.
const TRIES: usize = 16;

/// Tells people what happened to a graph. In the background: an event that is not taken holds nothing up.
#[derive(Clone, Debug)]
pub struct Recorder {
    cluster: Cluster,
    tracker: TaskTracker,
    sends: Arc<Semaphore>,
    told: Arc<Mutex<Told>>,
}

/// Names of what this process told lately.
#[derive(Debug)]
struct Told {
    names: HashMap<String, Instant>,
    swept: Instant,
}

impl Told {
    /// Whether a name was not told yet; it counts as told now.
    fn is_new(&mut self, name: &str, now: Instant) -> bool {
        if now.saturating_duration_since(self.swept) >= LATELY {
            // twice the time: what is told of a moment ago must still be known when that moment is not lately any more
            self.names.retain(|_, at| now.saturating_duration_since(*at) < 2 * LATELY);
            self.swept = now;
        }
        self.names.insert(name.to_owned(), now).is_none()
    }
}

impl Recorder {
    /// Sends to `cluster`.
    pub fn new(cluster: Cluster, tracker: TaskTracker) -> Self {
        let told = Told { names: HashMap::new(), swept: Instant::now() };
        Self { cluster, tracker, sends: Arc::new(Semaphore::new(SENDS)), told: Arc::new(Mutex::new(told)) }
    }

    /// Tells something of a graph, unless this process did.
    pub fn tell(&self, view: &GraphView, telling: &Telling) {
        let name = jobs::event_name(view.name(), view.uid(), &telling.reason, &telling.mark);
        if !self.told.lock().is_new(&name, Instant::now()) {
            return;
        }
        let (to, namespace) = (self.clone(), view.namespace().to_owned());
        let event = event(view, &name, telling, super::now());
        self.tracker.spawn(async move { to.send(&namespace, &name, &event).await }.in_current_span());
    }

    /// Tells what happened lately to a graph that finished, if this process did not see it: who did may have been ended
    /// before he could tell.
    pub fn tell_again(&self, view: &Arc<GraphView>) {
        let looked = format!("{}/{}", view.uid(), view.metadata.resource_version.as_deref().unwrap_or_default());
        if view.completion_time().is_none_or(|time| !is_lately(time))
            || !self.told.lock().is_new(&looked, Instant::now())
        {
            return;
        }
        let (to, view) = (self.clone(), Arc::clone(view));
        let again = async move {
            match accept::live_status(&to.cluster, &view).await {
                Ok((status, _)) => Telling::lately(&status).iter().for_each(|telling| to.tell(&view, telling)),
                Err(error) => debug!(graph = view.name(), %error, "looking at what is to be told of a graph"),
            }
        };
        self.tracker.spawn(again.in_current_span());
    }

    async fn send(&self, namespace: &str, name: &str, event: &Value) {
        for pause in backoff().take(TRIES) {
            let sent = {
                // closed never
                let _permit = self.sends.acquire().await;
                self.cluster.create_event(namespace, event).await
            };
            match sent {
                Ok(_) => return,
                // it was told before; or it is not taken: by a namespace that goes away, without the rights
                Err(error) if is_final(&error) => return debug!(name, %error, "an event is not taken"),
                Err(error) => debug!(name, %error, "sending an event"),
            }
            tokio::time::sleep(pause).await;
        }
        self.told.lock().names.remove(name);
    }
}

/// Whether another try would come to the same.
fn is_final(error: &CallError) -> bool {
    error.code().is_some_and(|code| (400..500).contains(&code) && code != 429)
}

/// Whether a time is so close that what happened then may have to be told again.
pub fn is_lately(time: Timestamp) -> bool {
    Timestamp::now().duration_since(time) < jiff::SignedDuration::try_from(LATELY).unwrap_or_default()
}

fn event(view: &GraphView, name: &str, telling: &Telling, now: Timestamp) -> Value {
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": view.namespace()},
        // microseconds are asked for
        "eventTime": format!("{now:.6}"),
        "reportingController": MANAGER,
        "reportingInstance": MANAGER,
        "action": telling.action,
        "reason": telling.reason,
        "type": if telling.warning { "Warning" } else { "Normal" },
        "note": telling.note,
        "regarding": {
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": "TaskGraph",
            "name": view.name(),
            "namespace": view.namespace(),
            "uid": view.uid(),
            "resourceVersion": view.metadata.resource_version,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_lately_is_known() {
        let begin = Instant::now();
        let mut told = Told { names: HashMap::new(), swept: begin };
        assert!(told.is_new("a", begin));
        assert!(!told.is_new("a", begin + LATELY));
        assert!(told.is_new("b", begin + 2 * LATELY), "another name");
        assert!(!told.is_new("a", begin + 2 * LATELY));
        told.is_new("b", begin + 9 * LATELY);
        assert_eq!(told.names.len(), 1, "nothing is remembered for ever");
    }
}
