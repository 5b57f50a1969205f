//! The chart's values: each is set by one of the chart's unit tests at least.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::objects::{files_below, parse, read, relative, root};

/// Paths of all values below `value`. What is given as a whole (lists, labels, an affinity) is one value.
fn leaves(value: &Value, path: &str, defaults: Option<&Value>, into: &mut BTreeSet<String>) {
    let members = value.as_object().filter(|members| !members.is_empty());
    // what the defaults do not name further is given as a whole
    let named = defaults.is_none_or(|defaults| defaults.as_object().is_some_and(|members| !members.is_empty()));
    let (Some(members), true) = (members, named) else {
        into.insert(path.to_owned());
        return;
    };
    for (name, member) in members {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match defaults {
            // labels beside those of the default
            Some(defaults) if defaults.get(name).is_none() => drop(into.insert(path)),
            _ => leaves(member, &path, defaults.map(|defaults| &defaults[name]), into),
        }
    }
}

#[test]
fn every_value_of_the_chart_is_tested() {
    let values = root().join("charts/taskgraph/values.yaml");
    let (_, defaults) = parse(&read(&values), "values.yaml", 1).remove(0);
    let mut all = BTreeSet::new();
    leaves(&defaults, "", None, &mut all);
    assert!(all.len() > 50 && all.contains("operator.port"), "{all:?}");
    let mut tested = BTreeSet::new();
    for file in files_below("charts/taskgraph/tests", &["yaml"]) {
        for (_, suite) in parse(&read(&file), &relative(&file), 1) {
            for test in suite["tests"].as_array().into_iter().flatten() {
                if !test["set"].is_null() {
                    leaves(&test["set"], "", Some(&defaults), &mut tested);
                }
            }
        }
    }
    let untested: Vec<&String> = all.difference(&tested).collect();
    assert!(untested.is_empty(), "no test in charts/taskgraph/tests sets these: {untested:?}");
}
