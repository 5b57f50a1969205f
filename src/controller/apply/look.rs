//! Looks live into attempts of which the caches do not show enough.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use super::{Hold, backoff, borrowed};
use crate::{
    controller::{cluster::CallError, registry::Note},
    engine::{Blame, Failure, reason},
    jobs::{self, Refused},
};

impl Hold {
    /// The Job seems to have vanished: a live look, and if it is so, the attempt is lost once its pods are gone.
    pub async fn confirm_lost(self) {
        for pause in backoff() {
            if !self.may_act() {
                return;
            }
            match self.try_confirm_lost().await {
                Ok(Some(true)) => {
                    let (reason, kind) =
                        if self.is_child { (reason::CHILD_LOST, "child graph") } else { (reason::JOB_LOST, "Job") };
                    return self.mailbox.event(self.failed(Failure {
                        reason: reason.into(),
                        message: Some(format!("the {kind} {} was deleted while the attempt ran", self.job)),
                        exit_code: None,
                        blame: Blame::Cluster,
                    }));
                }
                Ok(Some(false)) => return self.mailbox.post(Note::Looked(self.attempt)),
                Ok(None) => {}
                Err(error) => self.failed_call(&error, "looking for a Job"),
            }
            self.pause(pause).await;
        }
    }

    /// `None`: lost, but something of it still runs.
    async fn try_confirm_lost(&self) -> Result<Option<bool>, CallError> {
        if self.is_there().await? {
            return Ok(Some(false));
        }
        Ok(self.pods_gone(true, true).await?.then_some(true))
    }

    /// Whether the attempt's Job, or child graph, exists.
    async fn is_there(&self) -> Result<bool, CallError> {
        let (cluster, namespace) = (&self.hands.cluster, &self.identity.namespace);
        let ours = |found: Result<ObjectMeta, CallError>| match found {
            Ok(metadata) => Ok(self.is_ours(&metadata)),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        };
        if (self.is_child || self.was_edited)
            && ours(cluster.get_graph(namespace, &self.job).await.map(|child| child.metadata))?
        {
            return Ok(true);
        }
        if self.is_child && !self.was_edited {
            return Ok(false);
        }
        ours(cluster.get_job(namespace, &self.job).await.map(|job| job.metadata))
    }

    /// Looks why the attempt's Job has no pod.
    pub async fn diagnose(self) {
        let namespace = &self.identity.namespace;
        let found = async {
            let job = self.hands.cluster.get_job(namespace, &self.job).await?;
            let events = self.hands.cluster.list_events(namespace, &job.uid().unwrap_or_default()).await?;
            Ok::<_, CallError>((job, events))
        };
        match found.await {
            // it has a pod by now, and the cache lags; what its events tell is over
            Ok((job, _)) if job.ended() || job.status.active > 0 => {}
            Ok((job, events)) => {
                let refused = jobs::blocked_by_events(&events);
                // the Job controller would try for ever
                let hopeless = matches!(refused, Some(Refused::Final(_)));
                if let Some(event) = refused.and_then(|refused| refused.event(self.attempt, crate::controller::now())) {
                    self.mailbox.event(event);
                }
                if hopeless {
                    self.mailbox.post(Note::Discard(self.attempt, Arc::new(job)));
                }
            }
            Err(error) => self.failed_call(&error, "looking why a Job has no pod"),
        }
        self.mailbox.post(Note::Looked(self.attempt));
    }

    /// The Job ended and the cache shows no pod of it: a live look, so that neither outputs nor a reason are lost.
    pub async fn observe_live(self) {
        let namespace = &self.identity.namespace;
        for pause in backoff() {
            if !self.may_act() {
                return;
            }
            let labels = self.labels();
            // the pods after the Job: what the Job's end followed from is there, or gone for good
            let seen = async {
                let job = self.hands.cluster.get_job(namespace, &self.job).await?;
                Ok::<_, CallError>((job, self.hands.cluster.list_pods(namespace, &borrowed(&labels)).await?))
            };
            match seen.await {
                Ok((job, pods)) => {
                    let pods: Vec<_> = pods.iter().collect();
                    for event in jobs::observe(self.attempt, Some(&job), &pods) {
                        self.mailbox.event(event);
                    }
                    return self.mailbox.post(Note::Looked(self.attempt));
                }
                // vanished since
                Err(error) if error.is_not_found() => return self.confirm_lost().await,
                Err(error) => self.failed_call(&error, "looking at an ended Job"),
            }
            self.pause(pause).await;
        }
    }
}
