//! What the API server and the nodes do with Jobs, which are known by the names of tasks.

use std::collections::{BTreeMap, BTreeSet};

use super::super::plan::{Script, script};
use crate::{
    api::ItemsStatus,
    engine::{Attempt, AttemptResult, Event},
};

/// An attempt, or an item of one, by the name of its task; what undoes a task is named `undo:TASK`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub name: String,
    pub number: u32,
    /// Where each has a Job or child graph.
    pub item: Option<u32>,
}

impl Key {
    pub fn new(name: &str, number: u32) -> Self {
        Self { name: name.to_owned(), number, item: None }
    }

    /// The attempt that an item belongs to.
    pub fn whole(&self) -> Self {
        Self { item: None, ..self.clone() }
    }
}

/// How many items of an attempt may run at once and fail.
pub type Limits = (Option<u32>, Option<u32>);

/// How an attempt is made.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    /// Hash of its task's definition.
    pub definition: u64,
    /// It is a child graph.
    pub child: bool,
    /// How many items it has, if it has any.
    pub items: Option<usize>,
    /// Where each item has a Job or child graph.
    pub per_item: Option<Limits>,
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

    fn has_ended(&self, now: i64) -> bool {
        self.end().is_some_and(|end| end <= now)
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
    ever: BTreeMap<Key, (Made, AttemptResult)>,
    /// Those that somebody deleted with force.
    lost: BTreeSet<Key>,
}

impl Jobs {
    pub fn new(seed: u64) -> Self {
        Self { seed, known: BTreeMap::new(), ever: BTreeMap::new(), lost: BTreeSet::new() }
    }

    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.known.keys().chain(&self.lost)
    }

    /// What an attempt comes to if it is let, if it was created.
    pub fn result(&self, key: &Key) -> Option<&AttemptResult> {
        self.ever.get(key).map(|(_, result)| result)
    }

    /// How the items of an attempt were made, and what each that was created comes to if it is let.
    pub fn items(&self, whole: &Key) -> impl Iterator<Item = (u32, Made, &AttemptResult)> {
        let whole = whole.clone();
        let of_attempt = move |key: &Key| key.whole() == whole;
        self.ever
            .iter()
            .filter_map(move |(key, (made, result))| Some((key.item.filter(|_| of_attempt(key))?, *made, result)))
    }

    fn script(&self, key: &Key, made: Made) -> Script {
        let mut bytes = self.seed.to_le_bytes().to_vec();
        bytes.extend(key.name.as_bytes());
        bytes.extend(key.item.into_iter().flat_map(u32::to_le_bytes));
        script(&bytes, key.number, made.child, made.items.filter(|_| key.item.is_none()))
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
        let known = self.ever.insert(key.clone(), (made, script.result.clone()));
        assert!(known.is_none(), "A: {key:?} is created a second time");
        for other in self.ever.keys().filter(|known| known.name == key.name) {
            // one whose create was lost may have been called off
            assert!(other.number <= key.number, "A: numbers of {} rise", key.name);
            let same_form = other.item.is_some() == key.item.is_some();
            assert!(other.number < key.number || same_form, "A: {key:?} and {other:?} are of one attempt");
        }
        for (other, job) in self.known.iter().filter(|(other, _)| other.whole() != key.whole()) {
            let live = other.name == key.name && job.gone().is_none_or(|gone| gone > now);
            assert!(!live, "A: {key:?} is created while {other:?} has a pod");
        }
        if let Some((Some(limit), _)) = made.per_item {
            let runs = |job: &Job| job.deleted.is_none() && !job.has_ended(now);
            let beside = self.of_attempt(&key.whole()).filter(|(_, job)| runs(job)).count();
            assert!(beside < limit as usize, "{key:?} is created beside as many items as may run");
        }
        self.known.insert(key.clone(), Job { made, script, created: now, deleted: None });
    }

    /// The Job of an attempt, or those of its items.
    fn of_attempt(&self, whole: &Key) -> impl Iterator<Item = (&Key, &Job)> {
        self.known.iter().filter(move |(key, _)| key.whole() == *whole)
    }

    /// Deletes the Job of an attempt, or those of its items that have not ended.
    pub fn delete(&mut self, whole: &Key, now: i64) {
        for (key, job) in self.known.iter_mut().filter(|(key, _)| key.whole() == *whole) {
            if key.item.is_none() || !job.has_ended(now) {
                job.deleted.get_or_insert(now);
            }
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

    pub fn has_ended(&self, key: &Key, now: i64) -> bool {
        self.known.get(key).is_some_and(|job| job.has_ended(now))
    }

    /// When there is something to be seen of a Job.
    pub fn news(&self, key: &Key) -> Vec<i64> {
        self.known.get(key).into_iter().flat_map(Job::news).collect()
    }

    /// When no pod of an attempt is left; `wholly`: and no Job either, but those of items that have ended.
    pub fn gone(&self, whole: &Key, wholly: bool, now: i64) -> i64 {
        let gone = |(key, job): (&Key, &Job)| match (wholly, key.item) {
            (false, _) => job.gone(),
            (true, None) => job.vanishes(),
            (true, Some(_)) => job.vanishes().or(job.end()),
        };
        let mut all = self.of_attempt(whole).map(gone);
        all.try_fold(now, |last, gone| Some(last.max(gone?))).expect("it waits for pods that stay")
    }

    /// All that is to be seen of an attempt, or item, now; `definition` is the one that its task has.
    pub fn look(&self, key: &Key, attempt: Attempt, definition: u64, now: i64) -> Vec<Event> {
        let Some(job) = self.known.get(key).filter(|job| job.exists(now)) else { return Vec::new() };
        let mut events = vec![Event::Launched { attempt, job: format!("g-{}-{}", key.name, key.number) }];
        if key.item.is_some() {
            events.push(Event::Created { attempt, time: super::time(job.created) });
        }
        if job.made.definition != definition {
            events.push(Event::Outdated { attempt, definition: job.made.definition });
        }
        let end = job.end().filter(|end| *end <= now);
        let items = job.made.items.filter(|_| key.item.is_none());
        if let Some(total) = items.and_then(|items| u32::try_from(items).ok()) {
            let succeeded = if end.is_some() { total } else { 0 };
            events.push(Event::Items { attempt, items: ItemsStatus { total, succeeded, ..ItemsStatus::default() } });
        }
        match job.started() {
            Some(started) if started <= now => {
                events.push(Event::Started { attempt });
                if job.made.child {
                    events.push(Event::Progress { attempt, progress: format!("{}/9", key.number) });
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
