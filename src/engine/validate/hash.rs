//! The hash of what an attempt is made from.

use serde_json::Value;
use xxhash_rust::xxh3::Xxh3;

use crate::{
    api::{Duration, PodDefaults, TaskGraphSpec, VolumeUse},
    engine::{
        graph::{ForEachDef, TaskDef, Work},
        payload::PayloadKind,
        policy::waiting::Delay,
    },
};

/// A hash of all that an attempt's Job is made from, expressions as they were written.
///
/// The order of members counts for nothing, since the API server does not keep it. The hash stands on Jobs that a later
/// version must know again: whatever it is computed from, and how, must not change.
pub fn definition(
    work: &Work,
    for_each: Option<&ForEachDef>,
    pod_defaults: Option<&PodDefaults>,
    timeout: Option<Duration>,
    volumes: &[VolumeUse],
) -> u64 {
    let mut hasher = Xxh3::new();
    of_work(&mut hasher, work, pod_defaults, timeout);
    if let Some(ForEachDef { items, parallelism, max_failures, retries_per_item, per_item }) = for_each {
        hasher.update(b"forEach");
        object(&mut hasher, &items.values);
        for number in [*parallelism, *max_failures, Some(*retries_per_item)] {
            hasher.update(&number.map_or(u64::MAX, u64::from).to_le_bytes());
        }
        // nothing for one Job of all: so did versions that knew of no other form
        if *per_item {
            hasher.update(b"perItem");
        }
    }
    // nothing at all where there are none: so did versions that knew of no volumes
    if let Some(volumes) = Some(volumes).filter(|volumes| !volumes.is_empty())
        && let Ok(volumes) = serde_json::to_value(volumes)
    {
        hasher.update(b"volumes");
        value(&mut hasher, &volumes);
    }
    hasher.digest()
}

fn of_work(hasher: &mut Xxh3, work: &Work, pod_defaults: Option<&PodDefaults>, timeout: Option<Duration>) {
    match work {
        Work::Decision { branches, inclusive } => {
            hasher.update(if *inclusive { b"inclusive".as_slice() } else { b"decision" });
            for branch in branches {
                text(hasher, &branch.name);
                text(hasher, branch.when.as_ref().map_or("", |when| when.text()));
            }
        }
        Work::Graph(child) => {
            hasher.update(b"graph");
            text(hasher, child.template.kind.name());
            text(hasher, &child.template.name);
            hasher.update(&child.content.to_le_bytes());
            object(hasher, &child.arguments.values);
            shared(hasher, pod_defaults, timeout);
        }
        Work::Removed => {}
        Work::Delay(delay) => {
            hasher.update(b"delay");
            match delay {
                Delay::For(duration) => hasher.update(&duration.millis().to_le_bytes()),
                Delay::Until(time) => hasher.update(&time.as_millisecond().to_le_bytes()),
                Delay::Cron(cron) => {
                    text(hasher, cron.text());
                    text(hasher, cron.zone());
                }
            }
        }
        Work::Approval(on_timeout) => {
            hasher.update(b"approval");
            text(hasher, &format!("{on_timeout:?}"));
            hasher.update(&timeout.map_or(0, Duration::millis).to_le_bytes());
        }
        Work::Job(payload) => {
            hasher.update(match payload.kind {
                PayloadKind::Container => b"container",
                PayloadKind::PodTemplate => b"job.templ",
            });
            value(hasher, &payload.source);
            if let Some(arguments) = &payload.arguments {
                object(hasher, &arguments.values);
            }
            shared(hasher, pod_defaults, timeout);
        }
    }
}

/// What all pods of the graph share, and how long an attempt may take.
fn shared(hasher: &mut Xxh3, pod_defaults: Option<&PodDefaults>, timeout: Option<Duration>) {
    if let Some(defaults) = pod_defaults.and_then(|defaults| serde_json::to_value(defaults).ok()) {
        value(hasher, &defaults);
    }
    hasher.update(&timeout.map_or(0, Duration::millis).to_le_bytes());
}

/// A hash of a graph template: what it says, and what its tasks are made from.
pub fn content(graph: &TaskGraphSpec, tasks: &[TaskDef]) -> u64 {
    let mut hasher = Xxh3::new();
    if let Ok(graph) = serde_json::to_value(graph) {
        value(&mut hasher, &graph);
    }
    for task in tasks {
        hasher.update(&task.hash.to_le_bytes());
    }
    hasher.digest()
}

/// Adds a text.
pub fn text(hasher: &mut Xxh3, text: &str) {
    hasher.update(&(text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}

fn object(hasher: &mut Xxh3, object: &serde_json::Map<String, Value>) {
    let mut members: Vec<_> = object.iter().collect();
    members.sort_unstable_by_key(|(name, _)| *name);
    hasher.update(b"{");
    for (name, member) in members {
        text(hasher, name);
        value(hasher, member);
    }
    hasher.update(b"}");
}

/// Adds a JSON value, the order of members left out of account.
pub fn value(hasher: &mut Xxh3, json: &Value) {
    match json {
        Value::Null => hasher.update(b"n"),
        Value::Bool(held) => hasher.update(if *held { b"t" } else { b"f" }),
        Value::Number(number) => {
            hasher.update(b"#");
            text(hasher, &number.to_string());
        }
        Value::String(string) => {
            hasher.update(b"\"");
            text(hasher, string);
        }
        Value::Array(list) => {
            hasher.update(b"[");
            for element in list {
                value(hasher, element);
            }
            hasher.update(b"]");
        }
        Value::Object(members) => object(hasher, members),
    }
}
