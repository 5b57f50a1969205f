//! `compensate`: what undoes tasks, and in which order.

use super::{
    Checker, hash,
    problems::Problems,
    settings,
    tasks::{Place, START_TIMEOUT, all_tasks},
};
use crate::{
    api::{Compensate, Task, TaskGraphSpec},
    engine::graph::{TaskDef, TaskId, TriggerRule, order::Order},
};

/// The places of the tasks of `spec.tasks` that have `compensate`, in order. The compensation of the nth has the nth
/// place behind all tasks.
pub fn compensated(spec: &TaskGraphSpec) -> impl Iterator<Item = usize> {
    spec.tasks.iter().enumerate().filter(|(_, task)| task.compensate.is_some()).map(|(place, _)| place)
}

/// Reports `compensate` where it has no meaning.
pub fn check_places(spec: &TaskGraphSpec, problems: &mut Problems) {
    for (place, task) in all_tasks(spec).filter(|(_, task)| task.compensate.is_some()) {
        let path = format!("{}.compensate", place.path());
        if place.finally {
            problems.add(path, "a task of finally runs when all is decided, and is not compensated");
        } else if let Some(form) = idle(task) {
            problems.add(path, format!("{form} does nothing that could be undone: compensate what comes after it"));
        }
    }
}

/// What a task is that does nothing. Somebody who approved may have to be told.
fn idle(task: &Task) -> Option<&'static str> {
    let forms = [("a decision", task.decision.is_some()), ("a delay", task.delay.is_some())];
    forms.into_iter().find(|(_, given)| *given).map(|(form, _)| form)
}

impl Checker<'_> {
    /// The definitions of all compensations, those with problems left out; dependencies are left to be filled in.
    pub(super) fn compensations(&mut self) -> Vec<TaskDef> {
        let spec = self.spec;
        check_places(spec, &mut self.problems);
        let first = spec.tasks.len() + spec.finally.len();
        let undone = compensated(spec).zip(first..).filter_map(|(index, number)| {
            let task = spec.tasks.get(index)?;
            let compensate = task.compensate.as_ref()?;
            self.compensation(number, index, task, compensate)
        });
        undone.collect()
    }

    /// What undoes the task at `index`, `number` being its own place.
    fn compensation(&mut self, number: usize, index: usize, undone: &Task, compensate: &Compensate) -> Option<TaskDef> {
        let path = format!("{}.compensate", Place { finally: false, index }.path());
        let forms = [
            ("container", compensate.container.is_some()),
            ("job", compensate.job.is_some()),
            ("templateRef", compensate.template_ref.is_some()),
        ];
        let given: Vec<&str> = forms.iter().filter(|(_, given)| *given).map(|(form, _)| *form).collect();
        if given.len() != 1 {
            let has = if given.is_empty() { "none".to_owned() } else { given.join(" and ") };
            let problem = format!("compensate has exactly one of container, job, templateRef; this one has {has}");
            self.problems.add(&path, problem);
            return None;
        }
        let task = as_task(compensate);
        let timeout = settings::duration(task.timeout.as_ref(), format_args!("{path}.timeout"), &mut self.problems);
        let start_timeout =
            settings::duration(task.start_timeout.as_ref(), format_args!("{path}.startTimeout"), &mut self.problems);
        let template = self.template(&task, &path);
        let defaults = template.as_ref().map(|template| &*template.spec);
        let retry = self.retry(
            task.retry.as_ref(),
            defaults.and_then(|known| known.retry.as_ref()),
            format_args!("{path}.retry"),
        );
        let timeout = timeout.or_else(|| defaults.and_then(|defaults| defaults.timeout.as_ref()?.parse().ok()));
        let work = self.work(number, &task, &path, template.as_ref())?;
        self.volumes(&task, &path, Some(&work));
        Some(TaskDef {
            name: undone.name.as_str().into(),
            undoes: Some(id(index)),
            compensation: None,
            finally: false,
            dependencies: Vec::new(),
            dependents: Vec::new(),
            guards: Vec::new(),
            trigger: TriggerRule::AllFinished,
            handler: false,
            when: None,
            for_each: None,
            hash: hash::definition(&work, None, self.spec.pod_defaults.as_ref(), timeout, &task.volumes),
            volumes: task.volumes,
            cache: None,
            work,
            retry: retry?,
            timeout,
            start_timeout: start_timeout.unwrap_or(START_TIMEOUT),
            allow_failure: false,
            // that of its task, once they are put together
            priority: 0,
            // nothing could read them
            outputs: Vec::new(),
        })
    }
}

/// The fields that a compensation shares with a task.
fn as_task(compensate: &Compensate) -> Task {
    let Compensate { container, job, template_ref, arguments, retry, timeout, start_timeout, volumes } =
        compensate.clone();
    Task { container, job, template_ref, arguments, retry, timeout, start_timeout, volumes, ..Task::default() }
}

fn id(place: usize) -> TaskId {
    TaskId(u32::try_from(place).unwrap_or(u32::MAX))
}

/// Puts the compensations behind the tasks, each after those of the nearest tasks behind its own that have one.
/// `tasks` have their `dependents` already.
///
/// What is farther is waited for through those: a compensation of a task that did not succeed is skipped only when those
/// before it are done.
pub fn attach(tasks: &mut Vec<TaskDef>, compensations: Vec<TaskDef>, order: &Order) {
    if compensations.is_empty() {
        return;
    }
    let first = tasks.len();
    let before = nearest(tasks, &compensations, order);
    tasks.extend(compensations);
    for (place, before) in (first..).zip(before) {
        let Some(undone) = tasks.get(place).and_then(|task| task.undoes) else { continue };
        let mut priority = 0;
        if let Some(task) = tasks.get_mut(undone.index()) {
            task.compensation = Some(id(place));
            priority = task.priority;
        }
        let before: Vec<TaskId> = before.into_iter().map(|other| id(first + other)).collect();
        for other in &before {
            if let Some(other) = tasks.get_mut(other.index()) {
                other.dependents.push(id(place));
            }
        }
        if let Some(task) = tasks.get_mut(place) {
            task.dependencies = before;
            task.priority = priority;
        }
    }
}

/// For each compensation, those of the nearest tasks behind its task.
fn nearest(tasks: &[TaskDef], compensations: &[TaskDef], order: &Order) -> Vec<Vec<usize>> {
    let words = compensations.len().div_ceil(64);
    let mut own: Vec<Option<usize>> = vec![None; tasks.len()];
    for (place, compensation) in compensations.iter().enumerate() {
        if let Some(slot) = compensation.undoes.and_then(|undone| own.get_mut(undone.index())) {
            *slot = Some(place);
        }
    }
    // for each task the set of compensations that are reached first on the ways from it, as bits
    let mut reached: Vec<Vec<u64>> = vec![Vec::new(); tasks.len()];
    let sorted: Vec<usize> = order.sorted().collect();
    for place in sorted.into_iter().rev() {
        let mut all = vec![0_u64; words];
        for dependent in tasks.get(place).map(|task| task.dependents.as_slice()).unwrap_or_default() {
            if let Some(Some(found)) = own.get(dependent.index()) {
                if let Some(word) = all.get_mut(found / 64) {
                    *word |= 1 << (found % 64);
                }
            } else if let Some(behind) = reached.get(dependent.index()) {
                all.iter_mut().zip(behind).for_each(|(into, from)| *into |= from);
            }
        }
        if let Some(slot) = reached.get_mut(place) {
            *slot = all;
        }
    }
    let places = |bits: &Vec<u64>| {
        let held = |place: &usize| bits.get(place / 64).is_some_and(|word| word & (1 << (place % 64)) != 0);
        (0..compensations.len()).filter(held).collect()
    };
    compensations
        .iter()
        .map(|compensation| {
            compensation.undoes.and_then(|undone| reached.get(undone.index())).map(places).unwrap_or_default()
        })
        .collect()
}
