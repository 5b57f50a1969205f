//! What a session sees of its attempts, and what it has looked for.

use std::{sync::Arc, time::Instant};

use jiff::{SignedDuration, Timestamp};

use super::{Seen, Session};
use crate::{
    api::TaskPhase,
    controller::{
        children,
        index::{Changed, Index, Key},
    },
    engine::{Attempt, Event},
    jobs,
};

impl Session {
    pub(super) fn observe(&mut self, changed: &Changed, now: Timestamp, seen: &mut Seen) {
        let Some(task) = self.graph.find_in_role(changed.key.role, &changed.key.task) else {
            return self.clear_away(changed);
        };
        let attempt = Attempt { task, number: changed.key.attempt, item: changed.key.item };
        if let Some(child) = &changed.cached.child {
            seen.events.extend(children::observe(attempt, child, now));
            self.tell_outdated(attempt, jobs::definition_of(&child.metadata), seen);
            seen.children.push((attempt, Arc::clone(child)));
            return;
        }
        let pods: Vec<_> = changed.cached.pods.values().map(AsRef::as_ref).collect();
        if let Some(job) = &changed.cached.job {
            if jobs::needs_live_pods(job, &pods) {
                if attempt.number > self.run.task(task).attempts || attempt.item.is_some() {
                    // launched by an operator that could not store it any more; of an item it may not be known either
                    let job = job.metadata.name.clone().unwrap_or_default();
                    seen.events.push(Event::Launched { attempt, job });
                }
                seen.podless.push(attempt);
                return;
            }
            if self.is_over(attempt) && jobs::goes_on(job, &pods) {
                self.discard(job);
            }
            if self.is_over(attempt) && attempt.item.is_some() && job.ended() {
                // it stays as long as its graph, and has nothing more to tell
                return;
            }
            if self.is_over(attempt) && job.is_indexed() {
                // of its many pods nothing more is asked; that it is there may be too much
                let job = job.metadata.name.clone().unwrap_or_default();
                return seen.events.push(Event::Launched { attempt, job });
            }
        }
        for mut event in jobs::observe(attempt, changed.cached.job.as_deref(), &pods) {
            if let Event::Finished { time, .. } = &mut event {
                seen.since = Some(seen.since.map_or(changed.since, |other| other.min(changed.since)));
                // Kubernetes cuts times to whole seconds: this one was at most a second later, and not after now
                *time = time.saturating_add(SignedDuration::from_secs(1)).map_or(now, |latest| latest.min(now));
            }
            seen.events.push(event);
        }
        let definition = changed.cached.job.as_deref().and_then(|job| jobs::definition_of(&job.metadata));
        self.tell_outdated(attempt, definition, seen);
        if changed.cached.job_vanished && self.is_live(attempt) {
            self.search(attempt);
        }
    }

    /// Tells of an attempt that was made from another definition than its task has now.
    pub(super) fn tell_outdated(&self, attempt: Attempt, definition: Option<u64>, seen: &mut Seen) {
        let current = self.graph.task(attempt.task);
        if let Some(definition) = definition.filter(|hash| *hash != current.hash && !current.is_removed()) {
            seen.events.push(Event::Outdated { attempt, definition });
        }
    }

    /// Has a Job deleted, or a child graph called off, whose task is not in the graph: it was launched, and its task was removed, by operators that
    /// did not know of each other. Or the task was added by one that is ahead of this: then nothing more is stored here.
    pub(super) fn clear_away(&mut self, changed: &Changed) {
        if let Some(child) = changed.cached.child.as_ref().filter(|child| children::goes_on(child))
            && self.discarded.insert(child.uid().to_owned())
        {
            self.run.affirm();
            self.report.dirty = true;
            self.retired.push((self.run.sequence(), Arc::clone(child)));
        }
        let Some(job) = &changed.cached.job else { return };
        let pods: Vec<_> = changed.cached.pods.values().map(AsRef::as_ref).collect();
        if jobs::goes_on(job, &pods) && !self.discarded.contains(job.metadata.uid.as_deref().unwrap_or_default()) {
            self.run.affirm();
            self.report.dirty = true;
            self.discard(job);
        }
    }

    /// What changed while a look was under way is taken as it stands now.
    pub(super) fn look_again(&mut self, attempt: Attempt, index: &Index, now: Timestamp, seen: &mut Seen) {
        let key = self.key(attempt);
        let cached = index.attempt(&self.identity.uid, &key);
        if cached.job.is_some() || cached.child.is_some() {
            self.observe(&Changed { key, cached, since: Instant::now() }, now, seen);
        } else if self.is_live(attempt) {
            self.search(attempt);
        }
    }

    /// The Job of an attempt ended, and no pod of it is seen. Mostly the watch of pods lags: asking at once, for each of a
    /// burst of Jobs, would make it lag more.
    pub(super) fn look_soon(&mut self, attempt: Attempt) {
        if self.is_live(attempt) {
            self.looks.hasten(attempt, Instant::now());
        }
    }

    /// Looks live for the Job of a live attempt that the cache does not show.
    pub fn search(&mut self, attempt: Attempt) {
        if self.searched.insert(attempt) {
            let hold = self.hold(attempt);
            self.hands.spawn(hold.confirm_lost());
        } else {
            self.changed_since.insert(attempt);
        }
    }

    pub(super) fn watch_for_pods(&mut self, events: &[Event]) {
        let now = Instant::now();
        for event in events {
            match event {
                // a child graph has no pod of its own
                Event::Launched { attempt, .. } if self.is_child(*attempt) => {}
                Event::Launched { attempt, .. } => self.looks.expect(*attempt, now),
                Event::Started { attempt } | Event::Finished { attempt, .. } => self.looks.settle(*attempt, now),
                Event::Gone { attempt } => self.looks.forget(*attempt),
                Event::Blocked { .. }
                | Event::Created { .. }
                | Event::Progress { .. }
                | Event::Outdated { .. }
                | Event::Items { .. }
                | Event::LookedUp { .. } => {}
            }
        }
    }

    /// Looks into those Jobs that should have a pod by now and have none.
    pub(super) fn look_for_pods(&mut self, index: &Index) {
        let identity = Arc::clone(&self.identity);
        let cached = |key: &Key| index.attempt(&identity.uid, key);
        let mut looks = std::mem::take(&mut self.looks);
        let waits = |attempt| {
            let cached = cached(&self.key(attempt));
            let pods: Vec<_> = cached.pods.values().map(AsRef::as_ref).collect();
            let lacks = pods.is_empty() || cached.job.is_some_and(|job| jobs::needs_live_pods(&job, &pods));
            self.is_live(attempt) && lacks
        };
        let due = looks.take_due(Instant::now(), waits);
        self.looks = looks;
        for attempt in due {
            let ended = cached(&self.key(attempt)).job.is_some_and(|job| job.ended());
            let hold = self.hold(attempt);
            if ended {
                self.hands.spawn(hold.observe_live());
            } else {
                self.hands.spawn(hold.diagnose());
            }
        }
    }

    /// Looks live for the Jobs that the status tells of and the cache does not show: they may have been deleted while
    /// no operator ran.
    pub fn search_for_missing(&mut self, index: &Index) {
        let live = self.run.live().filter(|live| live.job.is_some()).map(|live| live.attempt);
        let known: Vec<_> = live.chain(self.run.live_items()).collect();
        let over: Vec<_> = self
            .graph
            .ids()
            .map(|task| (task, self.run.task(task)))
            .filter(|(_, status)| status.phase != TaskPhase::Running)
            .map(|(task, status)| (task, status.attempts))
            .collect();
        // whoever recorded their end may not have come so far
        for (task, number) in over {
            self.drop_items(task, number);
        }
        for attempt in known {
            let cached = index.attempt(&self.identity.uid, &self.key(attempt));
            if cached.job.is_none() && cached.child.is_none() {
                self.search(attempt);
            }
        }
    }
}
