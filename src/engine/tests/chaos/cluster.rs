//! What the API server and the nodes do. It keeps no secrets from the oracle, and knows nothing of the engine's rules.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::{Plan, Script};
use crate::{
    api::ItemsStatus,
    engine::{Attempt, AttemptResult, Blame, Event, Failure, TaskId},
};

/// Milliseconds from the start.
pub type Millis = i64;

pub struct Cluster {
    pub jobs: BTreeMap<Attempt, Job>,
    /// All Jobs that were ever created.
    pub created: BTreeSet<Attempt>,
    /// Attempts that came to their own end, seen or not.
    pub ended: BTreeSet<Attempt>,
    /// Those of them that ended well.
    pub succeeded: BTreeSet<Attempt>,
}

pub struct Job {
    script: Script,
    items: Option<usize>,
    created: Millis,
    deleted: Option<Millis>,
}

impl Job {
    pub fn started(&self) -> Option<Millis> {
        self.script
            .start
            .map(|delay| self.created + delay)
            .filter(|start| self.deleted.is_none_or(|deleted| *start < deleted))
    }

    /// When it ends by itself.
    pub fn ends(&self) -> Option<Millis> {
        let end = self.started()? + self.script.run;
        // a pod that is told to go may still come to its end, until it is killed
        self.deleted.is_none_or(|deleted| end < deleted + self.script.gone).then_some(end)
    }

    /// When no pod of it is left; `None`: not while nobody deletes it.
    pub fn gone(&self) -> Option<Millis> {
        match (self.ends(), self.deleted) {
            (Some(end), None) => Some(end + self.script.gone),
            (_, Some(deleted)) => Some(deleted + self.script.gone),
            (None, None) => None,
        }
    }

    fn exists(&self, now: Millis) -> bool {
        self.deleted.is_none_or(|deleted| now < deleted + self.script.gone)
    }
}

impl Cluster {
    pub fn new() -> Self {
        Self { jobs: BTreeMap::new(), created: BTreeSet::new(), ended: BTreeSet::new(), succeeded: BTreeSet::new() }
    }

    /// A create; of one that exists it is none.
    pub fn create(&mut self, attempt: Attempt, plan: &Plan, now: Millis) {
        self.forget(now);
        if self.jobs.contains_key(&attempt) {
            return;
        }
        assert!(self.created.insert(attempt), "A: {attempt:?} is created a second time");
        let earlier =
            self.created.iter().filter(|known| known.task == attempt.task && known.whole() != attempt.whole());
        let last = earlier.map(|known| known.number).max().unwrap_or(0);
        assert_eq!(attempt.number, last + 1, "A: attempt numbers of {:?} rise by one", attempt.task);
        for (other, job) in &self.jobs {
            let is_other = other.task == attempt.task && other.whole() != attempt.whole();
            let live = is_other && job.gone().is_none_or(|gone| gone > now);
            assert!(!live, "A: {attempt:?} is created while {other:?} has a pod");
        }
        if let Some((Some(limit), _)) = plan.per_item(attempt.task) {
            let runs = |job: &Job| job.deleted.is_none() && job.ends().is_none_or(|end| end > now);
            let others = self.jobs.range(attempt.whole()..=attempt.of_item(u32::MAX)).filter(|(_, job)| runs(job));
            assert!(others.count() < limit as usize, "{attempt:?} is created beside as many items as may run");
        }
        let done = self.has_succeeded(attempt.task, now);
        assert!(!done, "C: {attempt:?} is created after the task succeeded");
        self.jobs.insert(
            attempt,
            Job { script: plan.script(attempt), items: plan.items(attempt.task), created: now, deleted: None },
        );
    }

    pub fn delete(&mut self, attempt: Attempt, now: Millis) {
        for (known, job) in self.jobs.range_mut(attempt.whole()..=attempt.of_item(u32::MAX)) {
            // of items, what has ended stays
            if known.item.is_none() || job.ends().is_none_or(|end| end > now) {
                job.deleted.get_or_insert(now);
            }
        }
    }

    /// When nothing of an attempt is left: `None`: not while nobody deletes it.
    pub fn gone(&self, attempt: Attempt, now: Millis) -> Option<Millis> {
        let mut all = self.jobs.range(attempt.whole()..=attempt.of_item(u32::MAX)).map(|(_, job)| job.gone());
        all.try_fold(now, |last, gone| Some(last.max(gone?)))
    }

    /// Somebody deletes a Job and its pod with force.
    pub fn lose(&mut self, attempt: Attempt) {
        self.jobs.remove(&attempt);
    }

    fn has_succeeded(&self, task: TaskId, now: Millis) -> bool {
        self.jobs.iter().any(|(attempt, job)| {
            let well = matches!(job.script.result, AttemptResult::Succeeded { .. });
            attempt.task == task
                && attempt.item.is_none()
                && well
                && job.deleted.is_none()
                && job.ends().is_some_and(|end| end <= now)
        })
    }

    /// Deleted Jobs vanish with their pods.
    pub fn forget(&mut self, now: Millis) {
        for (attempt, job) in &self.jobs {
            if job.ends().is_some_and(|end| end <= now) {
                self.ended.insert(*attempt);
                if matches!(job.script.result, AttemptResult::Succeeded { .. }) {
                    self.succeeded.insert(*attempt);
                }
            }
        }
        self.jobs.retain(|_, job| job.exists(now));
    }

    /// All that is, was, or will be to be seen of a Job, and when.
    pub fn events(&self, attempt: Attempt, time: impl Fn(Millis) -> jiff::Timestamp) -> Vec<(Millis, Event)> {
        let Some(job) = self.jobs.get(&attempt) else { return Vec::new() };
        let mut events = vec![(job.created, Event::Launched { attempt, job: name(attempt) })];
        if attempt.item.is_some() {
            events.push((job.created, Event::Created { attempt, time: time(job.created) }));
        }
        match job.started() {
            Some(start) => {
                events.push((start, Event::Started { attempt }));
                if job.script.child {
                    events.push((start, Event::Progress { attempt, progress: format!("{}/9", attempt.number) }));
                }
            }
            None => events.push((
                job.created,
                Event::Blocked {
                    attempt,
                    reason: "Unready".into(),
                    message: "waits".into(),
                    cluster: job.script.blocked_by_cluster,
                },
            )),
        }
        let items = |succeeded: bool| {
            let total = u32::try_from(job.items.filter(|_| attempt.item.is_none())?).unwrap();
            let succeeded = if succeeded { total } else { 0 };
            Some(Event::Items { attempt, items: ItemsStatus { total, succeeded, ..ItemsStatus::default() } })
        };
        events.extend(items(false).map(|event| (job.created, event)));
        if let Some(end) = job.ends() {
            events.extend(items(true).map(|event| (end, event)));
            events.push((end, Event::Finished { attempt, result: job.script.result.clone(), time: time(end) }));
        }
        events
    }
}

pub fn name(attempt: Attempt) -> String {
    let item = attempt.item.map(|index| format!("-{index}")).unwrap_or_default();
    format!("g-{}-{}{item}", attempt.task.0, attempt.number)
}

/// What a controller says of a Job that is not there any more.
pub fn lost(attempt: Attempt, time: jiff::Timestamp) -> Event {
    let failure = Failure { reason: "JobLost".into(), message: None, exit_code: None, blame: Blame::Cluster };
    Event::Finished { attempt, result: AttemptResult::Failed(failure), time }
}

pub fn is_lost(result: &AttemptResult) -> bool {
    matches!(result, AttemptResult::Failed(failure) if failure.reason == "JobLost")
}
