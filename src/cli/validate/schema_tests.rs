use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::{api::crd, cli::validate::yaml};

/// The schema of `TaskGraph`, the first of the CRDs.
fn graphs() -> Schema {
    Schema::of(&crd::all()[0])
}

fn check(text: &str) -> Vec<String> {
    let node = yaml::parse(yaml::documents(text)[0]).unwrap();
    graphs().check(&node).into_iter().map(|finding| finding.problem.to_string()).collect()
}

#[test]
fn every_way_in_which_a_form_is_wrong() {
    let cases: &[(&str, &[&str])] = &[
        ("spec: {tasks: [{name: a, container: {}}]}", &[]),
        ("specs: {}", &["specs: unknown field (did you mean \"spec\"?)", "spec: is missing"]),
        (
            "spec: {}",
            &[
                "spec: a graph has either tasks, or templateRef without tasks, finally, outputs and volumeClaimTemplates, which are the template's",
            ],
        ),
        ("spec: {tasks: []}", &["spec.tasks: must not be empty"]),
        ("spec: {tasks: a}", &["spec.tasks: must be a list, not a string: write [a]"]),
        ("spec: {tasks: {a: 1}}", &["spec.tasks: must be a list, not a map"]),
        ("spec: {tasks: [a]}", &["spec.tasks[0]: must be a map, not a string"]),
        (
            "spec: {tasks: [{name: a, container: {}, dependson: [b]}]}",
            &["spec.tasks[0].dependson: unknown field (did you mean \"dependsOn\"?)"],
        ),
        (
            "spec: {tasks: [{name: a, container: {}, dependsOn: b}]}",
            &["spec.tasks[0].dependsOn: must be a list, not a string: write [b]"],
        ),
        (
            "spec: {tasks: [{name: a, container: {}, dependsOn: [\"\"]}]}",
            &["spec.tasks[0].dependsOn[0]: must not be empty"],
        ),
        (
            "spec: {tasks: [{name: a, container: {}, when: yes}]}",
            &["spec.tasks[0].when: must be a string, not a boolean: write it in quotes"],
        ),
        (
            "spec: {tasks: [{name: a, container: {}, timeout: 30}]}",
            &["spec.tasks[0].timeout: must be a duration such as \"90s\" or \"1h30m\", not a number"],
        ),
        (
            "spec: {tasks: [{name: a, container: {}, timeout: -3s}]}",
            &[
                "spec.tasks[0].timeout: \"-3s\" is not a duration; write whole numbers above zero with units, as in \"90s\" or \"1h30m\" (ms, s, m, h, d)",
            ],
        ),
        (
            "spec: {tasks: [{name: a, container: {}, trigger: allSucceeded}]}",
            &[
                "spec.tasks[0].trigger: \"allSucceeded\" is not one of NoneFailed, AllSucceeded, AnySucceeded, AllFinished, AnyFailed (did you mean \"AllSucceeded\"?)",
            ],
        ),
        (
            "spec: {tasks: [{name: a, container: {}, priority: 11}]}",
            &["spec.tasks[0].priority: 11 is out of range: it must be from 0 to 10"],
        ),
        (
            "spec: {tasks: [{name: a, container: {}, retry: {limit: 1.5}}]}",
            &["spec.tasks[0].retry.limit: must be a whole number, not a number"],
        ),
        ("spec: {tasks: [{name: a, container: {}, retry: {}}]}", &["spec.tasks[0].retry.limit: is missing"]),
        ("spec: {tasks: [{name: a, container: {}, retry: {limit: ~}}]}", &["spec.tasks[0].retry.limit: is missing"]),
        ("spec: {tasks: [{name: a, container: {}, retry: ~}]}", &[]),
        ("spec: {tasks: [{name: a, container: {image: {any: thing}}}], arguments: {a: [1, {b: ~}]}}", &[]),
        (
            "spec: {tasks: [{name: A_b, container: {}}]}",
            &[
                "spec.tasks[0].name: \"A_b\" is not a DNS label: use lower case letters, digits and \"-\", and begin and end with a letter or digit",
            ],
        ),
        (
            "spec: {tasks: [{name: a, container: {}}, {name: a, container: {}}]}",
            &["spec.tasks[1].name: \"a\" is there already: spec.tasks[0]"],
        ),
        (
            "spec: {tags: [a, b, a], tasks: [{name: a, container: {}}]}",
            &["spec.tags[2]: \"a\" is there already: spec.tags[0]"],
        ),
        (
            "spec: {tasks: [{name: a}]}",
            &["spec.tasks[0]: a task has exactly one of container, job, templateRef, decision, delay, approval"],
        ),
        (
            "spec: {tasks: [{name: a, container: {}, decision: {branches: [{name: x}]}}]}",
            &["spec.tasks[0]: a task has exactly one of container, job, templateRef, decision, delay, approval"],
        ),
        (
            "spec: {tasks: [{name: a, delay: {duration: 1h, cron: '@daily'}}]}",
            &["spec.tasks[0].delay: a delay has exactly one of duration, until, cron; timeZone is for cron"],
        ),
        (
            "spec: {tasks: [{name: a, approval: {}}], approvals: [{task: a, attempt: 1, decision: Approved, by: x}, {task: a, attempt: 2, decision: Rejected, by: x}, {task: a, attempt: 1, decision: Maybe}]}",
            &[
                "spec.approvals[2]: \"a/1\" is there already: spec.approvals[0]",
                "spec.approvals[2].decision: \"Maybe\" is not one of Approved, Rejected",
                "spec.approvals[2].by: is missing",
            ],
        ),
        (
            "metadata: {name: Not.good}\nspec: {tasks: [{name: a, container: {}}]}",
            &["metadata.name: a graph's name becomes a label of its Jobs: a DNS label of at most 63 characters"],
        ),
        ("status: {anything: goes}\nspec: {tasks: [{name: a, container: {}}]}", &[]),
    ];
    for (text, wanted) in cases {
        assert_eq!(check(text), *wanted, "{text}");
    }
    let long = format!("spec: {{tasks: [{{name: {}, container: {{}}}}]}}", "a".repeat(64));
    assert_eq!(check(&long), ["spec.tasks[0].name: is 64 characters long; the limit is 63"]);
}

#[test]
fn all_problems_at_once_but_not_without_end() {
    let found = check("spec:\n  paralelism: 3\n  timeout: 5\n  tasks:\n  - nam: a\n    container: {}\n  finaly: []\n");
    assert_eq!(
        found,
        [
            "spec.paralelism: unknown field (did you mean \"parallelism\"?)",
            "spec.timeout: must be a duration such as \"90s\" or \"1h30m\", not a number",
            "spec.tasks[0].nam: unknown field (did you mean \"name\"?)",
            "spec.tasks[0].name: is missing",
            "spec.finaly: unknown field (did you mean \"finally\"?)",
        ]
    );
    let many = format!("spec: {{tasks: [{}]}}", "{name: A, container: {}},".repeat(3_000));
    let found = check(&many);
    assert_eq!(found.len(), MAX_PROBLEMS);
    assert_eq!(found[0], "spec.tasks: has 3000 entries; the limit is 2000");
}

/// Keywords that the walk looks at, or may pass over: what is only for people, what only a writer needs, and formats (which
/// always stand beside bounds, or in the status).
const KNOWN: [&str; 26] = [
    "additionalProperties",
    "default",
    "description",
    "enum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "nullable",
    "pattern",
    "properties",
    "required",
    "title",
    "type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
    "x-kubernetes-embedded-resource",
];

#[test]
fn the_crds_use_no_keyword_that_is_not_known() {
    for schema in crd::all().iter().map(Schema::of) {
        let mut open = vec![&schema.root];
        let (mut keywords, mut patterns, mut texts) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        while let Some(part) = open.pop() {
            keywords.extend(part.as_object().into_iter().flatten().map(|(keyword, _)| keyword.as_str()));
            patterns.extend(part["pattern"].as_str());
            texts.extend(rules(part).map(|rule| rule.text));
            open.extend(part["properties"].as_object().into_iter().flatten().map(|(_, property)| property));
            open.extend([&part["items"], &part["additionalProperties"]].into_iter().filter(|inner| inner.is_object()));
        }
        let unknown: Vec<_> = keywords.iter().filter(|keyword| !KNOWN.contains(keyword)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
        assert!(!patterns.is_empty() && patterns.iter().all(|pattern| schema.patterns.contains_key(*pattern)));
        assert!(!texts.is_empty() && texts.iter().all(|text| schema.rules.contains_key(*text)));
    }
}

#[test]
fn a_required_null_is_missing_and_a_null_entry_is_wrong() {
    let schema = Schema::new(
        json!({"type": "object", "properties": {"list": {"type": "array", "items": {"type": "string"}}}, "required": ["list"]}),
    );
    let check = |text| {
        let node = yaml::parse(yaml::documents(text)[0]).unwrap();
        schema.check(&node).into_iter().map(|finding| finding.problem.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(check("list:"), ["list: is missing"]);
    assert_eq!(check("list: [a, ~]"), ["list[1]: must be a string, not nothing"]);
}
