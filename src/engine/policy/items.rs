//! The items of a task with `forEach`: the list, and what they left behind.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value};

use super::{
    super::{
        event::{Blame, Failure},
        expr::{EvalError, Scope, describe},
        graph::ForEachDef,
        reason,
    },
    outputs,
};
use crate::api::Output;

/// The most items of one task.
pub const MAX_ITEMS: usize = 1000;
/// How many bytes the items of one task may take together, each as the file that holds it. They lie in one `ConfigMap`,
/// which holds 1 MiB; half of that leaves room for what JSON escapes on the way there.
pub const MAX_BYTES: usize = 512 * 1024;
/// The name of the list among [`ForEachDef::items`].
pub const LIST: &str = "items";

/// The items of an attempt.
pub fn list(rule: &ForEachDef, scope: &Scope<'_>) -> Result<Arc<[Value]>, EvalError> {
    let problem = |why: String| EvalError(format!("forEach.items: {why}"));
    let values = rule.items.merge(scope).map_err(|error| problem(error.0))?;
    match values.get(LIST) {
        Some(Value::Array(list)) => {
            check(list).map_err(problem)?;
            Ok(list.as_slice().into())
        }
        other => {
            let given = other.map_or_else(|| "nothing".to_owned(), describe);
            Err(problem(format!("the value is {given}, and must be a list")))
        }
    }
}

/// What is too much about a list.
pub fn check(list: &[Value]) -> Result<(), String> {
    if list.len() > MAX_ITEMS {
        return Err(format!("{} items; the limit is {MAX_ITEMS}: put several into one", list.len()));
    }
    let bytes: usize = list.iter().map(|item| file(item).len()).sum();
    if bytes > MAX_BYTES {
        return Err(format!(
            "the items take {bytes} bytes; the limit is {MAX_BYTES}: leave large data on a volume or in a store, and its place as the item"
        ));
    }
    Ok(())
}

/// The text of the file that holds an item: a text as it is, all else as JSON.
pub fn file(item: &Value) -> Cow<'_, str> {
    match item {
        Value::String(text) => Cow::Borrowed(text),
        other => Cow::Owned(other.to_string()),
    }
}

/// The outputs of items, by their places, as lists of `total`; `null` where an item left none.
pub fn collect(left: &BTreeMap<u32, Map<String, Value>>, total: u32) -> Result<Map<String, Value>, Failure> {
    let total = usize::try_from(total).unwrap_or(usize::MAX);
    let mut lists: BTreeMap<&String, Vec<Value>> = BTreeMap::new();
    for (place, outputs) in left {
        let Some(place) = usize::try_from(*place).ok().filter(|place| *place < total) else { continue };
        for (name, value) in outputs {
            if !lists.contains_key(name) && too_many(lists.len() + 1, total) {
                let message = format!(
                    "the items left more than {} different outputs, each a list of {total}: give outputs of all items the same names",
                    lists.len()
                );
                return Err(outputs::failure(reason::OUTPUTS_TOO_LARGE, message, Blame::Final));
            }
            let list = lists.entry(name).or_insert_with(|| vec![Value::Null; total]);
            if let Some(slot) = list.get_mut(place) {
                *slot = value.clone();
            }
        }
    }
    Ok(lists.into_iter().map(|(name, list)| (name.clone(), Value::Array(list))).collect())
}

/// Whether so many lists are over the bound on outputs even if they hold nothing but `null`.
fn too_many(lists: usize, total: usize) -> bool {
    lists.saturating_mul(total).saturating_mul("null,".len()) > outputs::MAX_TOTAL
}

/// As [`outputs::check`], for outputs that are lists over the items. What an item left has the declared type; where one
/// left none, the default stands if there is one, else `null`.
pub fn check_outputs(
    declared: &[Output],
    mut outputs: Map<String, Value>,
    total: Option<u32>,
    used: usize,
) -> Result<(Map<String, Value>, usize), Failure> {
    let longest = || outputs.values().filter_map(Value::as_array).map(Vec::len).max().unwrap_or(0);
    let total = total.and_then(|total| usize::try_from(total).ok()).unwrap_or_else(longest);
    for output in declared {
        let value = outputs.entry(output.name.clone()).or_insert_with(|| vec![Value::Null; total].into());
        let Value::Array(list) = value else { continue };
        for (place, item) in list.iter_mut().enumerate() {
            if item.is_null() {
                *item = output.default.clone().unwrap_or_default();
            } else if let Some(wanted) = output.type_.filter(|wanted| !wanted.accepts(item)) {
                let message = format!(
                    "output {:?} of item {place} is {}, but the task declares {}",
                    output.name,
                    outputs::describe(item),
                    wanted.name()
                );
                return Err(outputs::failure(reason::OUTPUT_INVALID, message, Blame::Task));
            }
        }
    }
    outputs::bounded(outputs, used)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_are_bounded() {
        let text = |bytes: usize| Value::from("x".repeat(bytes));
        for (list, fits) in [
            (vec![], true),
            (vec![Value::Null; MAX_ITEMS], true),
            (vec![Value::Null; MAX_ITEMS + 1], false),
            (vec![text(MAX_BYTES)], true),
            (vec![text(MAX_BYTES), text(1)], false),
            // quotes do not count: the file has none
            (vec![text(MAX_BYTES / 2), text(MAX_BYTES / 2)], true),
        ] {
            assert_eq!(check(&list).is_ok(), fits, "{} items", list.len());
        }
    }

    #[test]
    fn texts_are_files_as_they_are() {
        for (item, text) in [
            (json!("a b\n"), "a b\n"),
            (json!(7), "7"),
            (json!(null), "null"),
            (json!({"a": ["b"]}), r#"{"a":["b"]}"#),
            (json!(""), ""),
        ] {
            assert_eq!(file(&item), text);
        }
    }

    fn left(items: Value) -> BTreeMap<u32, Map<String, Value>> {
        let items: BTreeMap<u32, Map<String, Value>> = serde_json::from_value(items).unwrap();
        items
    }

    #[test]
    fn outputs_become_lists() {
        for (items, total, expected) in [
            (json!({}), 3, json!({})),
            (json!({"0": {"a": 1}, "2": {"a": 3, "b": "x"}}), 3, json!({"a": [1, null, 3], "b": [null, null, "x"]})),
            // a place that there is not
            (json!({"3": {"a": 1}}), 3, json!({})),
            (json!({"0": {}}), 1, json!({})),
        ] {
            assert_eq!(Value::Object(collect(&left(items), total).unwrap()), expected);
        }
    }

    #[test]
    fn too_many_different_names_are_refused_before_they_are_made() {
        let items = (0..1000).map(|place: u32| (place, Map::from_iter([(format!("o{place}"), json!(1))]))).collect();
        let failure = collect(&items, 1000).unwrap_err();
        assert_eq!((failure.reason.as_str(), failure.blame), ("OutputsTooLarge", Blame::Final));
    }

    #[test]
    fn declared_outputs_are_checked_item_by_item() {
        let declare = |type_: &str, default: Value| -> Vec<Output> {
            let mut output = json!({"name": "a"});
            for (key, value) in [("type", json!(type_)), ("default", default)] {
                if !value.is_null() && value != "" {
                    output[key] = value;
                }
            }
            vec![serde_json::from_value(output).unwrap()]
        };
        for (declared, outputs, expected) in [
            (declare("", json!(null)), json!({}), Ok(json!({"a": [null, null]}))),
            (declare("integer", json!(7)), json!({}), Ok(json!({"a": [7, 7]}))),
            (declare("integer", json!(7)), json!({"a": [1, null]}), Ok(json!({"a": [1, 7]}))),
            (
                declare("integer", json!(null)),
                json!({"a": [1, null], "b": ["x", null]}),
                Ok(json!({"a": [1, null], "b": ["x", null]})),
            ),
            (
                declare("integer", json!(null)),
                json!({"a": [1, "x"]}),
                Err("OutputInvalid: output \"a\" of item 1 is a string, but the task declares integer"),
            ),
        ] {
            let Value::Object(outputs) = outputs else { unreachable!() };
            let found = check_outputs(&declared, outputs, Some(2), 0)
                .map(|(outputs, _)| Value::Object(outputs))
                .map_err(|failure| format!("{}: {}", failure.reason, failure.message.unwrap_or_default()));
            assert_eq!(found, expected.map_err(str::to_owned));
        }
        let all = Map::from_iter([("a".to_owned(), json!([1]))]);
        let failure = check_outputs(&[], all, Some(1), outputs::MAX_TOTAL).unwrap_err();
        assert_eq!(failure.reason, "OutputsTooLarge");
    }
}
