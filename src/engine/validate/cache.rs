//! `cache` of a task.

use super::{Checker, expressions::Site, settings, tasks::Place};
use crate::{
    api::Task,
    engine::graph::{CacheRule, Work},
};

/// Longest key, in bytes.
const MAX_KEY: usize = 2048;

impl Checker<'_> {
    /// When the outputs of an earlier success stand in for the task; `None` also where something is wrong with it.
    pub(super) fn cache(&mut self, number: usize, place: Place, task: &Task, work: Option<&Work>) -> Option<CacheRule> {
        let cache = task.cache.as_ref()?;
        let path = format!("{}.cache", place.path());
        let (key_path, age_path) = (format!("{path}.key"), format!("{path}.maxAge"));
        if place.finally {
            self.problems.add(&path, "a task of finally always runs: leave it out");
        }
        if task.compensate.is_some() {
            self.problems.add(&path, "what a task with compensate does must not be left out: leave one of the two out");
        }
        if task.for_each.is_some() {
            self.problems.add(&path, "cache is for a task that runs once, not for each item: leave one of the two out");
        }
        for (index, _) in task.volumes.iter().enumerate().filter(|(_, volume)| volume.read_only != Some(true)) {
            let message =
                "what the task leaves on a volume is not kept with its outputs: mount it readOnly, or leave cache out";
            self.problems.add(format!("{}.volumes[{index}]", place.path()), message);
        }
        let max_age = settings::duration(Some(&cache.max_age), &age_path, &mut self.problems);
        let key = match cache.key.as_deref() {
            None => None,
            Some(text) if text.is_empty() || text.len() > MAX_KEY => {
                self.problems.add(key_path, format!("{} bytes; write 1 to {MAX_KEY}, or leave it out", text.len()));
                return None;
            }
            Some(text) => Some(self.expressions.text(text, Site::Condition(number), &key_path, &mut self.problems)?),
        };
        matches!(work, Some(Work::Job(_))).then_some(CacheRule { key, max_age: max_age? })
    }
}
