//! Stops attempts, and looks until nothing of them runs any more.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use kube::ResourceExt;

use super::{Hold, backoff, borrowed};
use crate::{
    api::{LABEL_ATTEMPT, LABEL_ITEM},
    controller::{children::STOP_LOOK, cluster::CallError, rest::no_pod_runs},
    engine::Event,
    jobs::JobView,
};

/// A child graph that is not gone after waits of this length is looked at more rarely.
const SLOW: Duration = Duration::from_secs(2);
/// So many items of an attempt are stopped at a time.
const AT_ONCE: usize = 16;

impl Hold {
    /// Deletes the attempt's Job, or those of its items, and tells when nothing of it runs any more.
    pub async fn stop(self) {
        self.cancel.cancel();
        // what of one item is seen was created; the launches of the others may wait for the room that it takes
        let _gate = if self.attempt.item.is_none() { Some(self.gate.write().await) } else { None };
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

    /// Whether the attempt may have a Job or child graph for each of its items.
    pub(in crate::controller) fn may_have_items(&self) -> bool {
        self.attempt.item.is_none() && (self.per_item || self.was_edited)
    }

    pub(super) async fn try_stop(&self) -> Result<bool, CallError> {
        if self.may_have_items() {
            let stopped = self.try_stop_items().await?;
            if !stopped || !self.was_edited {
                return Ok(stopped);
            }
        }
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
        self.pods_gone(true, true).await
    }

    /// Deletes the Jobs of all items that have not ended, and calls off their child graphs. True: nothing of them runs.
    ///
    /// What has ended stays: its logs tell why.
    async fn try_stop_items(&self) -> Result<bool, CallError> {
        let (cluster, namespace) = (&self.hands.cluster, &self.identity.namespace);
        let labels = self.labels();
        let goes_on = |job: &JobView| self.is_ours(&job.metadata) && !job.ended();
        let jobs: Vec<JobView> =
            cluster.list_jobs(namespace, &borrowed(&labels)).await?.into_iter().filter(goes_on).collect();
        let deleting = jobs.iter().filter(|job| job.metadata.deletion_timestamp.is_none());
        let calls: Vec<_> = deleting.map(|job| self.delete_item(job)).collect();
        stream::iter(calls).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
        let children: Vec<_> = self.children_that_go_on().await?;
        let calls: Vec<_> = children.iter().map(|name| self.try_stop_child_named(name)).collect();
        let stopped: Vec<bool> = stream::iter(calls).buffer_unordered(AT_ONCE).try_collect().await?;
        if !jobs.is_empty() || stopped.contains(&false) {
            return Ok(false);
        }
        self.pods_gone(true, true).await
    }

    async fn delete_item(&self, job: &JobView) -> Result<(), CallError> {
        let (namespace, uid) = (&self.identity.namespace, job.uid().unwrap_or_default());
        match self.hands.cluster.delete_job(namespace, &job.name_any(), &uid).await {
            // it is gone, or another one has its name
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            result => result,
        }
    }

    /// Tells when no pod of the task is left that is not terminal.
    pub async fn await_gone(self) {
        // a create that was not answered yet may bring one more
        drop(self.gate.write().await);
        for pause in backoff() {
            if !self.is_awaited() {
                return;
            }
            match self.pods_gone(false, false).await {
                Ok(true) => return self.mailbox.event(Event::Gone { attempt: self.attempt }),
                Ok(false) => {}
                Err(error) => self.failed_call(&error, "looking for pods"),
            }
            self.wait(pause).await;
        }
    }

    /// Whether a live list shows no pod that is not terminal: of this attempt, or of all the task's. Pods whose Job
    /// is gone are deleted: nobody else would.
    pub(super) async fn pods_gone(&self, of_attempt: bool, orphaned: bool) -> Result<bool, CallError> {
        if self.is_child || self.was_edited {
            let gone = self.child_gone().await?;
            if !gone || !self.was_edited {
                return Ok(gone);
            }
        }
        let (cluster, namespace) = (&self.hands.cluster, &self.identity.namespace);
        let mut labels = self.labels();
        labels.retain(|label, _| of_attempt || ![LABEL_ATTEMPT, LABEL_ITEM].contains(label));
        no_pod_runs(cluster, namespace, &borrowed(&labels), orphaned).await
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
