//! `forEach` of a task.

use serde_json::{Map, Value};

use super::{Checker, expressions::Site, problems::Problems, tasks::Reported, templates::Template};
use crate::{
    api::{ForEach, ForEachStrategy, ITEM_INDEX_VARIABLE, ITEM_PATH, ITEM_VOLUME, Task},
    engine::{
        graph::{ForEachDef, Work},
        payload::{
            Arguments, Payload, PayloadKind,
            places::argument_spots,
            text::{OPEN, Part},
        },
        policy::items::{self, LIST, MAX_ITEMS},
    },
};

/// Most retries of one item.
const MAX_RETRIES: u32 = 100;

/// Where the expressions in the payload or arguments of a task stand.
pub(super) fn site<'a>(number: usize, task: &Task, template: Option<&Template>) -> Site<'a> {
    let per_item = task.for_each.as_ref().is_some_and(|rule| match rule.strategy {
        Some(strategy) => strategy == ForEachStrategy::PerItem,
        // of a template that is not there it is not known
        None => task.template_ref.is_some() && template.is_none_or(|template| template.spec.graph.is_some()),
    });
    if per_item { Site::Item(number) } else { Site::Attempt(number) }
}

/// What a graph template cannot have said of its items.
fn check_children(rule: &ForEach, path: &str, problems: &mut Problems) {
    if rule.strategy == Some(ForEachStrategy::Indexed) {
        let problem = "a graph template runs as a child graph for each item: write PerItem, or leave strategy out";
        problems.add(format!("{path}.strategy"), problem);
    }
    if rule.retries_per_item.is_some_and(|retries| retries > 0) {
        let problem = "a child graph is not tried again for its item: give the tasks of the template a retry";
        problems.add(format!("{path}.retriesPerItem"), problem);
    }
}

impl Checker<'_> {
    /// The items of a task, if it has any.
    pub(super) fn for_each(
        &mut self,
        number: usize,
        task: &Task,
        work: Option<&Work>,
        path: &str,
    ) -> Result<Option<ForEachDef>, Reported> {
        let Some(rule) = &task.for_each else { return Ok(None) };
        let found = self.problems.list.len();
        let path = format!("{path}.forEach");
        if task.container.is_none() && task.job.is_none() && task.template_ref.is_none() {
            self.problems.add(&path, "forEach is for a task with container, job or templateRef");
        }
        check_numbers(rule, &path, &mut self.problems);
        let is_graph = matches!(work, Some(Work::Graph(_)));
        let per_item = is_graph || rule.strategy == Some(ForEachStrategy::PerItem);
        if is_graph {
            check_children(rule, &path, &mut self.problems);
        }
        if !per_item && task.volumes.iter().any(|volume| volume.name == ITEM_VOLUME || is_item_path(&volume.mount_path))
        {
            self.problems.add(
                &path,
                format!("{ITEM_VOLUME:?} and {ITEM_PATH} are the items': mount another volume at another path"),
            );
        }
        if let Some(Work::Job(payload)) = work.filter(|_| !per_item) {
            check_payload(payload, &path, &mut self.problems);
        }
        let items = self.items(number, &rule.items, &format!("{path}.items"));
        if self.problems.list.len() > found {
            return Err(Reported);
        }
        Ok(Some(ForEachDef {
            items,
            parallelism: rule.parallelism,
            max_failures: rule.max_failures,
            retries_per_item: rule.retries_per_item.unwrap_or(0),
            per_item,
        }))
    }

    /// The list, its expressions compiled.
    fn items(&mut self, number: usize, value: &Value, path: &str) -> Arguments {
        let trimmed = value.as_str().map(|text| Value::from(text.trim()));
        let value = trimmed.as_ref().unwrap_or(value);
        let mut compiled =
            Arguments { values: Map::from_iter([(LIST.to_owned(), value.clone())]), ..Arguments::default() };
        match value {
            Value::Array(list) => {
                // what expressions add is known only once they are evaluated
                if let Err(problem) = items::check(list) {
                    self.problems.add(path, problem);
                }
            }
            Value::String(text) if text.contains(OPEN) => {}
            other => {
                let given = crate::engine::expr::describe(other);
                let problem = format!("{given}: write a list, or a text ${{{{ EXPRESSION }}}} whose value is one");
                self.problems.add(path, problem);
                return compiled;
            }
        }
        for (below, pointer, text, is_name) in argument_spots(value) {
            let at = format!("{path}{below}");
            if is_name {
                self.problems.add(at, "`${{ }}` may not stand in the name of a field");
                continue;
            }
            let Some(text) = self.expressions.text(text, Site::Items(number), &at, &mut self.problems) else {
                continue;
            };
            if pointer.is_empty() && !matches!(text.0.as_slice(), [Part::Expression(_)]) {
                self.problems.add(at, "a text around `${{ }}` makes the value a text, and it must be a list");
            }
            compiled.slots.push((format!("/{LIST}{pointer}"), text));
        }
        compiled
    }
}

fn check_numbers(rule: &ForEach, path: &str, problems: &mut Problems) {
    let most = u32::try_from(MAX_ITEMS).unwrap_or(u32::MAX);
    for (field, value, least, most) in [
        ("parallelism", rule.parallelism, 1, most),
        ("maxFailures", rule.max_failures, 0, most),
        ("retriesPerItem", rule.retries_per_item, 0, MAX_RETRIES),
    ] {
        if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
            problems.add(format!("{path}.{field}"), format!("{value}: from {least} to {most} is possible"));
        }
    }
}

/// What stands in the way of the operator's own volume and of Kubernetes' own variable.
fn check_payload(payload: &Payload, path: &str, problems: &mut Problems) {
    let source = &*payload.source;
    let none = Value::Null;
    let spec = source.get("spec").unwrap_or(&none);
    let containers: Vec<&Value> = match payload.kind {
        PayloadKind::Container => vec![source],
        PayloadKind::PodTemplate => {
            ["initContainers", "containers"].into_iter().flat_map(|field| list(spec, field)).collect()
        }
    };
    let is = |object: &Value, field: &str, text: &str| object.get(field).and_then(Value::as_str) == Some(text);
    if list(spec, "volumes").any(|volume| is(volume, "name", ITEM_VOLUME)) {
        problems
            .add(path, format!("the pod has a volume {ITEM_VOLUME:?}, which is the name of the items': take another"));
    }
    for container in containers {
        let taken = |mount: &Value| mount.get("mountPath").and_then(Value::as_str).is_some_and(is_item_path);
        if list(container, "volumeMounts").any(taken) {
            problems.add(
                path,
                format!("a container mounts something at {ITEM_PATH}, where the item will be: take another path"),
            );
        }
        if list(container, "env").any(|variable| is(variable, "name", ITEM_INDEX_VARIABLE)) {
            problems.add(path, format!("a container sets {ITEM_INDEX_VARIABLE}, which Kubernetes sets to the place of the item: take another name"));
        }
    }
}

/// Whether a path is that of the item, or below it.
fn is_item_path(path: &str) -> bool {
    path.trim_end_matches('/') == ITEM_PATH || path.starts_with(&format!("{ITEM_PATH}/"))
}

fn list<'a>(object: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    object.get(field).and_then(Value::as_array).into_iter().flatten()
}
