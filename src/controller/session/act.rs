//! What a session has done for its attempts.

use std::{sync::Arc, time::Instant};

use super::Session;
use crate::{
    api::VolumeStatus,
    controller::{
        apply::{Hold, Prepared},
        index::Key,
        view::GraphView,
    },
    engine::{Action, Attempt, Launch, TaskId, graph::Work},
    jobs::{self, JobView, Order},
    runtime::traces::context,
};

impl Session {
    /// Has a Job deleted whose attempt is over, once that is stored.
    pub(super) fn discard(&mut self, job: &Arc<JobView>) {
        if self.discarded.insert(job.metadata.uid.clone().unwrap_or_default()) {
            self.discards.push((self.run.sequence(), Arc::clone(job)));
        }
    }

    pub(super) fn key(&self, attempt: Attempt) -> Key {
        let task = self.graph.task(attempt.task);
        Key { role: task.role(), task: task.name.to_string(), attempt: attempt.number, item: attempt.item }
    }

    /// The name of an attempt's Job: the one that the run was told, else the one that it will have.
    pub(super) fn job_name(&self, attempt: Attempt) -> String {
        let (task, status) = (self.graph.task(attempt.task), self.run.task(attempt.task));
        let known = status.job.clone().filter(|_| status.attempts == attempt.number && attempt.item.is_none());
        known.unwrap_or_else(|| {
            let Attempt { number, item, .. } = attempt;
            let (graph_uid, role) = (&*self.identity.uid, task.role().label());
            let key = jobs::Key { graph_uid, role, task: &task.name, attempt: number, item };
            key.job_name(&self.identity.name, task.for_each.is_some())
        })
    }

    pub(super) fn hold(&mut self, attempt: Attempt) -> Hold {
        let task = self.graph.task(attempt.task);
        let role = task.role();
        let fresh = || (self.ended.child_token(), Arc::default());
        let (cancel, gate) = self.holds.entry(attempt.whole()).or_insert_with(fresh).clone();
        // what ends the attempt ends its items, not the other way round
        let cancel = if attempt.item.is_some() { cancel.child_token() } else { cancel };
        Hold {
            hands: Arc::clone(&self.hands),
            identity: Arc::clone(&self.identity),
            mailbox: self.mailbox.clone(),
            creates: Arc::clone(&self.creates),
            attempt,
            per_item: task.is_per_item(),
            role,
            task: Arc::clone(&task.name),
            is_child: matches!(task.work, Work::Graph(_)),
            was_edited: self.report.status.revision_number > 1,
            job: self.job_name(attempt),
            volumes: self.claims_of(attempt.task),
            cancel,
            ended: self.ended.clone(),
            gate,
        }
    }

    /// The claims that a task mounts.
    pub(super) fn claims_of(&self, task: TaskId) -> Vec<VolumeStatus> {
        let mounts = &self.graph.task(task).volumes;
        let known = self.report.status.volumes.iter();
        known.filter(|volume| mounts.iter().any(|mount| mount.name == volume.name)).cloned().collect()
    }

    pub(super) fn perform(&mut self, actions: Vec<Action>, since: Option<Instant>, view: &GraphView) {
        for action in actions {
            match action {
                Action::Launch(launch) => {
                    let Some(prepared) = self.prepare(&launch) else { continue };
                    let prepared = prepared.traced(self.traceparent(launch.attempt, view).as_deref());
                    let hold = self.hold(launch.attempt);
                    self.hands.spawn(hold.launch(prepared, since));
                }
                Action::Stop { attempt } => {
                    if self.stopping.insert(attempt) {
                        let hold = self.hold(attempt);
                        self.hands.spawn(hold.stop());
                    }
                }
                Action::LookUp { task, key } => self.look_up(task, key),
                Action::AwaitGone { attempt } => {
                    let hold = self.hold(attempt);
                    self.hands.spawn(hold.await_gone());
                }
            }
        }
    }

    /// What makes that which an attempt runs a part of its span, where it is traced.
    fn traceparent(&self, attempt: Attempt, view: &GraphView) -> Option<String> {
        let task = self.graph.task(attempt.task);
        let span = self.trace_of(view)?.attempt(task.role().label(), &task.name, attempt.number);
        Some(context::traceparent(&span))
    }

    /// The Job or child graph of an attempt.
    pub(super) fn prepare(&self, launch: &Launch) -> Option<Prepared> {
        let (task, defaults) = (self.graph.task(launch.attempt.task), self.graph.pod_defaults.as_ref());
        let order = Order::new(&self.identity, task, launch, defaults)?;
        let Work::Graph(child) = &task.work else { return Some(Prepared::new(&order)) };
        let revision = self.report.status.revision.as_deref().unwrap_or_default();
        let template = self.pinned.template(&child.template);
        Some(Prepared::child(order.child(&child.template, template, revision)))
    }

    /// Has the items of an attempt of a task deleted, if it has any: the attempt is over, and nothing reads them any more.
    pub fn drop_items(&mut self, task: TaskId, number: u32) {
        let one_job = self.graph.task(task).for_each.as_ref().is_some_and(|rule| !rule.per_item);
        if one_job && number > 0 {
            let hold = self.hold(Attempt::new(task, number));
            self.hands.spawn(hold.drop_items());
        }
    }
}
