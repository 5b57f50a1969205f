//! Successes that are reused, and those that are to be.

use std::sync::Arc;

use super::Session;
use crate::{
    api::TaskPhase,
    controller::cache::Success,
    engine::{CacheKey, Event, Remembered, TaskId, reason::CACHED},
    runtime::metrics::ResultLabel,
};

impl Session {
    /// Answers whether an earlier success is remembered.
    pub(super) fn look_up(&self, task: TaskId, key: CacheKey) {
        let (hands, graph, mailbox) = (Arc::clone(&self.hands), Arc::clone(&self.identity), self.mailbox.clone());
        let (name, ended) = (Arc::clone(&self.graph.task(task).name), self.ended.clone());
        self.hands.spawn(async move {
            let found = tokio::select! {
                () = ended.cancelled() => return,
                found = hands.look_up(&graph, &name, key) => found,
            };
            mailbox.event(Event::LookedUp { task, key, found });
        });
    }

    fn remember(&self, task: TaskId) {
        let (def, status) = (self.graph.task(task), self.run.task(task));
        let (Some(rule), Some(key), Some(time)) = (&def.cache, self.run.to_remember(task), status.completion_time)
        else {
            return;
        };
        let (graph, task) = (self.identity.name.clone(), def.name.to_string());
        let entry = Remembered { outputs: status.outputs.clone(), graph, task, time };
        let success = Success { key, max_age: rule.max_age, entry };
        self.hands.spawn(Arc::clone(&self.hands).remember(Arc::clone(&self.identity), success));
    }

    /// Takes note of a transition: whether the first attempt was spared, and what is to be remembered.
    pub(super) fn note_for_cache(&mut self, task: TaskId, to: TaskPhase, attempt: u32, reason: &str) {
        if self.graph.task(task).cache.is_none() {
            return;
        }
        if to == TaskPhase::Succeeded && attempt > 0 {
            self.successes.push((self.run.sequence(), task));
        }
        let result = match (to, attempt) {
            (TaskPhase::Succeeded, 0) if reason == CACHED => "hit",
            (TaskPhase::Running, 1) => "miss",
            _ => return,
        };
        self.hands.metrics.cache_lookups.get_or_create(&ResultLabel { result }).inc();
    }

    /// Has the successes remembered that are stored by now: before, a restart could still find that there was none.
    pub(super) fn remember_stored(&mut self) {
        let stored = self.report.stored;
        let successes: Vec<_> = self.successes.extract_if(.., |(sequence, _)| *sequence <= stored).collect();
        for (_, task) in successes {
            self.remember(task);
        }
    }
}
