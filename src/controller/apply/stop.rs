//! Stops attempts, and looks until nothing of them runs any more.

use std::{collections::BTreeMap, time::Duration};

use kube::ResourceExt;

use super::{Hold, backoff};
use crate::{
    api::{LABEL_ATTEMPT, LABEL_GRAPH_UID, LABEL_ROLE, LABEL_TASK},
    controller::{children::STOP_LOOK, cluster::CallError},
    engine::Event,
    jobs::{self, PodView},
};

/// A child graph that is not gone after waits of this length is looked at more rarely.
const SLOW: Duration = Duration::from_secs(2);

impl Hold {
    /// Deletes the attempt's Job, and tells when nothing of it runs any more.
    pub async fn stop(self) {
        self.cancel.cancel();
        let _gate = self.gate.lock().await;
        for mut pause in backoff() {
            if !self.is_awaited() {
                return;
            }
            match self.try_stop().await {
                Ok(true) => return self.mailbox.event(Event::Gone { attempt: self.attempt }),
                // what takes its time may take an hour, and the watch tells of its end
                Ok(false) if self.is_child && pause > SLOW => pause = STOP_LOOK,
                Ok(false) => {}
                Err(error) => self.failed_call(&error, "stopping an attempt"),
            }
            self.wait(pause).await;
        }
    }

    pub(super) async fn try_stop(&self) -> Result<bool, CallError> {
        if self.is_child || self.was_edited {
            let stopped = self.try_stop_child().await?;
            if !stopped || !self.was_edited {
                return Ok(stopped);
            }
        }
        let (cluster, namespace) = (&self.hands.cluster, &self.identity.namespace);
        match cluster.get_job(namespace, &self.job).await {
            Ok(job) if self.is_ours(&job.metadata) => {
                if job.metadata.deletion_timestamp.is_none() {
                    cluster.delete_job(namespace, &self.job, &job.uid().unwrap_or_default()).await?;
                }
                // its pods go first; until it has followed, one more could be made by a controller that lags
                return Ok(false);
            }
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        self.pods_gone(Some(self.attempt.number), true).await
    }

    /// Tells when no pod of the task is left that is not terminal.
    pub async fn await_gone(self) {
        // a create that was not answered yet may bring one more
        drop(self.gate.lock().await);
        for pause in backoff() {
            if !self.is_awaited() {
                return;
            }
            match self.pods_gone(None, false).await {
                Ok(true) => return self.mailbox.event(Event::Gone { attempt: self.attempt }),
                Ok(false) => {}
                Err(error) => self.failed_call(&error, "looking for pods"),
            }
            self.wait(pause).await;
        }
    }

    /// Whether a live list shows no pod that is not terminal: of one attempt, or of all the task's. Pods whose Job
    /// is gone are deleted: nobody else would.
    pub(super) async fn pods_gone(&self, attempt: Option<u32>, orphaned: bool) -> Result<bool, CallError> {
        if self.is_child || self.was_edited {
            let gone = self.child_gone().await?;
            if !gone || !self.was_edited {
                return Ok(gone);
            }
        }
        let (cluster, namespace) = (&self.hands.cluster, &self.identity.namespace);
        let number = attempt.map(|number| number.to_string());
        let mut labels = BTreeMap::from([
            (LABEL_GRAPH_UID, self.identity.uid.as_str()),
            (LABEL_ROLE, self.role.label()),
            (LABEL_TASK, &*self.task),
        ]);
        if let Some(number) = &number {
            labels.insert(LABEL_ATTEMPT, number);
        }
        // a copy is not ours to wait for, or to delete
        let ours = |pod: &PodView| !pod.terminal() && !jobs::is_copied_pod(pod);
        let live: Vec<_> = cluster.list_pods(namespace, &labels).await?.into_iter().filter(ours).collect();
        for pod in live.iter().filter(|pod| orphaned && pod.metadata.deletion_timestamp.is_none()) {
            cluster.delete_pod(namespace, &pod.name_any(), &pod.uid().unwrap_or_default()).await?;
        }
        Ok(live.is_empty())
    }

    /// Whether somebody waits for what a stop comes to.
    fn is_awaited(&self) -> bool {
        !self.ended.is_cancelled() && self.hands.leadership.holds()
    }

    async fn wait(&self, pause: Duration) {
        tokio::select! {
            () = self.ended.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}
