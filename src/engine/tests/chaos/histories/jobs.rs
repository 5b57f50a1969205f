//! What the API server and the nodes do with Jobs, which are known by the names of tasks.

use std::collections::{BTreeMap, BTreeSet};

use super::super::plan::{Script, script};
use crate::{
    api::ItemsStatus,
    engine::{Attempt, AttemptResult, Event},
};

/// An attempt by the name of its task; what undoes a task is named `undo:TASK`.
pub type Key = (String, u32);

/// How an attempt is made.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    /// Hash of its task's definition.
    pub definition: u64,
    /// It is a child graph.
    pub child: bool,
    /// How many items it has, if it has any.
    pub items: Option<usize>,
}

pub struct Job {
    made: Made,
    script: Script,
    created: i64,
    deleted: Option<i64>,
}

impl Job {
    fn started(&self) -> Option<i64> {
        let start = self.created + self.script.start?;
        self.deleted.is_none_or(|deleted| start < deleted).then_some(start)
    }

    /// When it comes to its own end.
    fn end(&self) -> Option<i64> {
        let end = self.started()? + self.script.run;
        // a pod that is told to go may still come to its end, until it is killed
        self.deleted.is_none_or(|deleted| end < deleted + self.script.gone).then_some(end)
    }

    /// When no pod of it is left; `None`: not while nobody deletes it.
    fn gone(&self) -> Option<i64> {
        self.end().or(self.vanishes())
    }

    /// When it is not there any more.
    fn vanishes(&self) -> Option<i64> {
        self.deleted.map(|deleted| deleted + self.script.gone)
    }

    fn exists(&self, now: i64) -> bool {
        self.vanishes().is_none_or(|vanishes| now < vanishes)
    }

    /// When there is something to be seen of it.
    fn news(&self) -> impl Iterator<Item = i64> {
        [Some(self.created), self.started(), self.end(), self.vanishes()].into_iter().flatten()
    }
}

/// All Jobs of a namespace.
pub struct Jobs {
    seed: u64,
    known: BTreeMap<Key, Job>,
    /// All that were ever created, and what they come to if they are let.
    pub results: BTreeMap<Key, AttemptResult>,
    /// Those that somebody deleted with force.
    lost: BTreeSet<Key>,
}

impl Jobs {
    pub fn new(seed: u64) -> Self {
        Self { seed, known: BTreeMap::new(), results: BTreeMap::new(), lost: BTreeSet::new() }
    }

    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.known.keys().chain(&self.lost)
    }

    fn script(&self, key: &Key, made: Made) -> Script {
        let mut bytes = self.seed.to_le_bytes().to_vec();
        bytes.extend(key.0.as_bytes());
        script(&bytes, key.1, made.child, made.items)
    }

    /// How long after it was asked for a Job is created.
    pub fn creation_takes(&self, key: &Key, made: Made) -> i64 {
        self.script(key, made).create
    }

    /// A create; of one that exists it is none.
    pub fn create(&mut self, key: &Key, made: Made, now: i64) {
        self.known.retain(|_, job| job.exists(now));
        if self.known.contains_key(key) {
            return;
        }
        let script = self.script(key, made);
        let known = self.results.insert(key.clone(), script.result.clone());
        assert!(known.is_none(), "A: {key:?} is created a second time");
        let numbers = self.results.keys().filter(|(name, number)| *name == key.0 && *number != key.1);
        // one whose create was lost may have been called off
        assert!(numbers.map(|(_, number)| *number).max().unwrap_or(0) < key.1, "A: numbers of {} rise", key.0);
        for ((name, number), job) in &self.known {
            let live = *name == key.0 && job.gone().is_none_or(|gone| gone > now);
            assert!(!live, "A: {key:?} is created while attempt {number} has a pod");
        }
        self.known.insert(key.clone(), Job { made, script, created: now, deleted: None });
    }

    pub fn delete(&mut self, key: &Key, now: i64) {
        if let Some(job) = self.known.get_mut(key) {
            job.deleted.get_or_insert(now);
        }
    }

    /// Somebody deletes a Job and its pod with force.
    pub fn lose(&mut self, key: &Key) {
        if self.known.remove(key).is_some() {
            self.lost.insert(key.clone());
        }
    }

    pub fn is_lost(&self, key: &Key) -> bool {
        self.lost.contains(key)
    }

    /// When there is something to be seen of a Job.
    pub fn news(&self, key: &Key) -> Vec<i64> {
        self.known.get(key).into_iter().flat_map(Job::news).collect()
    }

    /// When no pod of an attempt is left; `wholly`: and no Job either.
    pub fn gone(&self, key: &Key, wholly: bool, now: i64) -> i64 {
        let gone = |job: &Job| if wholly { job.vanishes() } else { job.gone() };
        self.known.get(key).map_or(Some(now), gone).expect("it waits for pods that stay")
    }

    /// All that is to be seen of an attempt now, `definition` being the one that its task has.
    pub fn look(&self, key: &Key, attempt: Attempt, definition: u64, now: i64) -> Vec<Event> {
        let Some(job) = self.known.get(key).filter(|job| job.exists(now)) else { return Vec::new() };
        let mut events = vec![Event::Launched { attempt, job: format!("g-{}-{}", key.0, key.1) }];
        if job.made.definition != definition {
            events.push(Event::Outdated { attempt, definition: job.made.definition });
        }
        let end = job.end().filter(|end| *end <= now);
        if let Some(total) = job.made.items.and_then(|items| u32::try_from(items).ok()) {
            let succeeded = if end.is_some() { total } else { 0 };
            events.push(Event::Items { attempt, items: ItemsStatus { total, succeeded, ..ItemsStatus::default() } });
        }
        match job.started() {
            Some(started) if started <= now => {
                events.push(Event::Started { attempt });
                if job.made.child {
                    events.push(Event::Progress { attempt, progress: format!("{}/9", key.1) });
                }
            }
            Some(_) => {}
            None => events.push(Event::Blocked {
                attempt,
                reason: "Unready".into(),
                message: "waits".into(),
                cluster: job.script.blocked_by_cluster,
            }),
        }
        if let Some(end) = end {
            events.push(Event::Finished { attempt, result: job.script.result.clone(), time: super::time(end) });
        }
        events
    }
}
