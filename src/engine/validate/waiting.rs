//! `delay`, `approval` and `spec.approvals`.

use std::collections::BTreeMap;

use jiff::{Timestamp, tz::TimeZone};

use super::{
    names::{label_problem, shorten},
    problems::Problems,
    settings,
};
use crate::{
    api::{ApprovalTask, Delay, MAX_USER, Task, TaskGraphSpec},
    engine::{cron::Cron, cron::zone, cron::zones, graph::Work, policy::waiting},
};

/// Most entries of `spec.approvals`.
const MAX_APPROVALS: usize = 2000;
/// Longest message, in characters.
const MAX_MESSAGE: usize = 1024;

/// A field that has no meaning for the work of a task.
pub struct Meaningless {
    pub field: &'static str,
    pub given: bool,
}

/// What only tasks with a Job have.
pub fn of_jobs(task: &Task) -> [Meaningless; 4] {
    [
        Meaningless { field: "startTimeout", given: task.start_timeout.is_some() },
        Meaningless { field: "outputs", given: !task.outputs.is_empty() },
        Meaningless { field: "volumes", given: !task.volumes.is_empty() },
        Meaningless { field: "cache", given: task.cache.is_some() },
    ]
}

/// What only tasks with attempts that may fail or take too long have.
pub fn of_attempts(task: &Task) -> [Meaningless; 2] {
    [
        Meaningless { field: "retry", given: task.retry.is_some() },
        Meaningless { field: "timeout", given: task.timeout.is_some() },
    ]
}

/// Reports those fields that are given.
pub fn refuse(what: &str, fields: impl IntoIterator<Item = Meaningless>, path: &str, problems: &mut Problems) {
    for Meaningless { field, .. } in fields.into_iter().filter(|field| field.given) {
        problems.add(format!("{path}.{field}"), format!("{what}: {field} has no meaning"));
    }
}

/// The work of a task with `delay`, if nothing is wrong with it.
pub fn delay(delay: &Delay, task: &Task, path: &str, problems: &mut Problems) -> Option<Work> {
    refuse("a delay has no Job and never fails", of_attempts(task).into_iter().chain(of_jobs(task)), path, problems);
    let path = format!("{path}.delay");
    let forms =
        [("duration", delay.duration.is_some()), ("until", delay.until.is_some()), ("cron", delay.cron.is_some())];
    let given: Vec<&str> = forms.iter().filter(|(_, given)| *given).map(|(form, _)| *form).collect();
    if given.len() != 1 {
        let has = if given.is_empty() { "none".to_owned() } else { given.join(" and ") };
        problems.add(&path, format!("a delay has exactly one of duration, until, cron; this one has {has}"));
    }
    let zone = time_zone(delay, &path, problems);
    let duration = settings::duration(delay.duration.as_ref(), format_args!("{path}.duration"), problems);
    let until = until(delay.until.as_deref(), &format!("{path}.until"), problems);
    let cron = cron(delay.cron.as_deref(), zone.clone(), &format!("{path}.cron"), problems);
    let work = match (duration, until, cron) {
        (Some(duration), None, None) => waiting::Delay::For(duration),
        (None, Some(until), None) => waiting::Delay::Until(until),
        (None, None, Some(cron)) => waiting::Delay::Cron(Box::new(cron)),
        _ => return None,
    };
    zone.filter(|_| given.len() == 1).map(|_| Work::Delay(work))
}

/// The time zone of `cron`; `None` if there is none of that name.
fn time_zone(delay: &Delay, path: &str, problems: &mut Problems) -> Option<TimeZone> {
    let Some(name) = delay.time_zone.as_deref() else { return Some(TimeZone::UTC) };
    let path = format!("{path}.timeZone");
    if delay.cron.is_none() {
        problems.add(&path, "timeZone is for cron: write the offset into `until`, as in 2027-01-31T09:00:00+01:00");
    }
    let found = zone(name);
    if found.is_none() {
        let known = zones();
        // people write the city alone, or with a space
        let spaceless = name.trim().replace(' ', "_");
        let city = |known: &&String| {
            known.rsplit('/').next().is_some_and(|city| city.eq_ignore_ascii_case(&spaceless)) && known.contains('/')
        };
        let hint = match known.iter().find(city) {
            Some(zone) => format!(" (did you mean {zone:?}?)"),
            None => problems.hint(&spaceless, known.iter().map(String::as_str)),
        };
        let name = shorten(name);
        problems.add(path, format!("no time zone {name:?}{hint}; write an IANA name, as in \"Europe/Berlin\""));
    }
    found
}

fn until(text: Option<&str>, path: &str, problems: &mut Problems) -> Option<Timestamp> {
    let text = text?;
    let time = text.parse().ok().filter(|_| text.len() <= 64);
    if time.is_none() {
        let text = shorten(text);
        problems.add(path, format!("{text:?} is no time in RFC 3339: write it as in 2027-01-31T09:00:00+01:00"));
    }
    time
}

fn cron(text: Option<&str>, zone: Option<TimeZone>, path: &str, problems: &mut Problems) -> Option<Cron> {
    // an expression is checked whatever is wrong with its zone
    match Cron::parse(text?, zone.unwrap_or(TimeZone::UTC)) {
        Ok(cron) => Some(cron),
        Err(problem) => {
            problems.add(path, problem);
            None
        }
    }
}

/// The work of a task with `approval`.
pub fn approval(approval: &ApprovalTask, task: &Task, path: &str, problems: &mut Problems) -> Work {
    refuse("an approval has no Job", of_jobs(task), path, problems);
    if approval.on_timeout.is_some() && task.timeout.is_none() {
        let path = format!("{path}.approval.onTimeout");
        problems.add(path, "without a timeout of the task it waits for ever: onTimeout has no meaning");
    }
    Work::Approval(approval.on_timeout.unwrap_or_default())
}

/// Checks the entries of `spec.approvals`. One of a task that the graph does not have, or that asks for no approval, is no
/// problem: entries stay when their task is removed or becomes another. The run tells of it while somebody waits.
pub fn check_approvals(spec: &TaskGraphSpec, problems: &mut Problems) {
    if spec.approvals.len() > MAX_APPROVALS {
        let count = spec.approvals.len();
        problems.add("spec.approvals", format!("{count} approvals; the limit is {MAX_APPROVALS}"));
    }
    let mut seen = BTreeMap::new();
    for (index, approval) in spec.approvals.iter().enumerate() {
        let path = format!("spec.approvals[{index}]");
        if let Some(problem) = label_problem(&approval.task) {
            problems.add(format!("{path}.task"), problem);
        }
        if approval.attempt == 0 {
            problems.add(format!("{path}.attempt"), "0 is out of range: attempts count from 1");
        }
        if let Some(first) = seen.insert((approval.task.as_str(), approval.attempt), index) {
            let attempt = approval.attempt;
            problems.add(&path, format!("spec.approvals[{first}] decides on attempt {attempt} of this task already"));
        }
        if approval.by.is_empty() {
            problems.add(format!("{path}.by"), "write who decided");
        }
        let message = approval.message.as_deref().unwrap_or_default();
        let texts = [("by", approval.by.as_str(), MAX_USER), ("message", message, MAX_MESSAGE)];
        for (field, text, limit) in texts {
            let length = text.chars().count();
            if length > limit {
                problems.add(format!("{path}.{field}"), format!("{length} characters; the limit is {limit}"));
            }
        }
    }
}
