//! `dependsOn`, `trigger`, `minSucceeded`: who waits for whom, and for what.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    names::{Names, shorten, suggest},
    problems::Problems,
    tasks::{MAX_BRANCHES, Place, all_tasks},
};
use crate::{
    api::{Task, TaskGraphSpec, Trigger},
    engine::graph::{Guard, TaskId, TriggerRule},
};

/// What a task waits for.
#[derive(Debug, Default)]
pub struct Waiting {
    /// What comes before it; each task once, in the order of `dependsOn`.
    pub dependencies: Vec<TaskId>,
    /// Branches that must have been taken.
    pub guards: Vec<Guard>,
}

/// What every task waits for. What is wrong is reported and left out.
pub fn resolve(spec: &TaskGraphSpec, names: &mut Names<'_>, problems: &mut Problems) -> Vec<Waiting> {
    let tasks: Vec<(Place, &Task)> = all_tasks(spec).collect();
    let mut all = Vec::with_capacity(tasks.len());
    for (number, (place, task)) in tasks.iter().enumerate() {
        let mut seen = BTreeMap::new();
        let mut waiting = Waiting::default();
        for (index, entry) in task.depends_on.iter().enumerate() {
            let found = Entry { text: entry, own: number, place: *place, tasks: &tasks }.resolve(
                names,
                &mut seen,
                &mut waiting,
            );
            if let Err(problem) = found {
                problems.add(format!("{}.dependsOn[{index}]", place.path()), problem);
            }
        }
        all.push(waiting);
    }
    all
}

/// One entry of `dependsOn`.
struct Entry<'a> {
    text: &'a str,
    own: usize,
    place: Place,
    tasks: &'a [(Place, &'a Task)],
}

impl<'a> Entry<'a> {
    /// Adds the entry to `waiting`. `seen` holds which tasks were named before, and whether without a branch.
    fn resolve(
        &self,
        names: &mut Names<'_>,
        seen: &mut BTreeMap<TaskId, Vec<Option<&'a str>>>,
        waiting: &mut Waiting,
    ) -> Result<(), String> {
        let (name, branch) = match self.text.split_once('/') {
            Some((name, branch)) => (name, Some(branch)),
            None => (self.text, None),
        };
        let id = names.find(name)?;
        let Some((place, task)) = self.tasks.get(id.index()) else {
            return Err(format!("no task {name:?}"));
        };
        if id.index() == self.own {
            return Err("a task cannot depend on itself".to_owned());
        }
        match (self.place.finally, place.finally) {
            (true, false) => {
                return Err(format!(
                    "{name:?} is in spec.tasks: tasks of finally start after all of those, and depend only on each other"
                ));
            }
            (false, true) => return Err(format!("{name:?} is in spec.finally, which starts after all of spec.tasks")),
            _ => {}
        }
        if let Some(branch) = branch {
            check_branch(task, branch, names)?;
        }
        let before = seen.entry(id).or_default();
        if before.contains(&branch) {
            return Err(format!("{:?} is listed twice", shorten(self.text)));
        }
        if !before.is_empty() && (branch.is_none() || before.contains(&None)) {
            return Err(format!("{name:?} is listed with and without a branch: leave the one without out"));
        }
        if before.is_empty() {
            waiting.dependencies.push(id);
        }
        before.push(branch);
        if let Some(branch) = branch.map(Arc::from) {
            match waiting.guards.iter_mut().find(|guard| guard.decision == id) {
                Some(guard) => guard.branches.push(branch),
                None => waiting.guards.push(Guard { decision: id, branches: vec![branch] }),
            }
        }
        Ok(())
    }
}

fn check_branch(task: &Task, branch: &str, names: &mut Names<'_>) -> Result<(), String> {
    let Some(decision) = &task.decision else {
        return Err(format!("task {:?} is no decision and has no branches: write {0:?} alone", task.name));
    };
    // what is beyond the limit is refused anyway
    let mut known = decision.branches.iter().take(MAX_BRANCHES).map(|known| known.name.as_str());
    if known.clone().any(|known| known == branch) {
        return Ok(());
    }
    let hint = if names.may_hint() { suggest(branch, &mut known) } else { None };
    Err(format!("decision {:?} has no branch {:?}{}", task.name, shorten(branch), hint.unwrap_or_default()))
}

/// The trigger of a task.
pub fn trigger(task: &Task, path: &str, problems: &mut Problems) -> TriggerRule {
    if task.trigger.is_some() && task.min_succeeded.is_some() {
        problems.add(format!("{path}.minSucceeded"), "minSucceeded is a trigger of its own: leave trigger out");
    }
    if task.depends_on.is_empty() {
        for (field, given) in [("trigger", task.trigger.is_some()), ("minSucceeded", task.min_succeeded.is_some())] {
            if given {
                problems.add(
                    format!("{path}.{field}"),
                    format!("a task without dependsOn starts at once: {field} has no meaning"),
                );
            }
        }
    } else if let Some(least) = task.min_succeeded {
        let named: BTreeSet<&str> =
            task.depends_on.iter().map(|entry| entry.split('/').next().unwrap_or_default()).collect();
        let most = named.len();
        if least == 0 {
            problems.add(format!("{path}.minSucceeded"), "0 is out of range: write 1 or more");
        } else if usize::try_from(least).is_ok_and(|least| least > most) {
            problems.add(
                format!("{path}.minSucceeded"),
                format!("{least} cannot be reached: the task has {most} dependencies"),
            );
        }
    }
    match (task.min_succeeded, task.trigger.unwrap_or_default()) {
        (Some(least), _) => TriggerRule::MinSucceeded(least),
        (None, Trigger::NoneFailed) => TriggerRule::NoneFailed,
        (None, Trigger::AllSucceeded) => TriggerRule::AllSucceeded,
        (None, Trigger::AnySucceeded) => TriggerRule::MinSucceeded(1),
        (None, Trigger::AllFinished) => TriggerRule::AllFinished,
        (None, Trigger::AnyFailed) => TriggerRule::AnyFailed,
    }
}
