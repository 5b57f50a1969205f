//! Bad input, each with the path and the words that users get; and what good input becomes.

#![allow(clippy::needless_pass_by_value)] // so that json! can stand in a call as it is

mod cache;
mod compensations;
mod for_each;
mod graphs;
mod places;
mod templates;
mod volumes;
mod waiting;

use serde_json::{Value, json};

use super::*;
use crate::{
    api::{Duration, TemplateKind},
    engine::{
        graph::{Guard, TriggerRule, Work},
        payload::PayloadKind,
    },
};

pub(super) fn spec(json: Value) -> TaskGraphSpec {
    serde_json::from_value(json).unwrap()
}

fn templates(list: &[(&str, Value)]) -> Templates {
    list.iter()
        .map(|(name, json)| {
            let reference = TemplateRef { name: (*name).to_owned(), kind: TemplateKind::TaskTemplate };
            (reference, Arc::new(serde_json::from_value(json.clone()).unwrap()))
        })
        .collect()
}

fn problems_with(json: Value, templates: &Templates) -> Vec<String> {
    match compile(&spec(json), templates) {
        Ok(_) => Vec::new(),
        Err(refusal) => refusal.problems.iter().map(ToString::to_string).collect(),
    }
}

fn problems(json: Value) -> Vec<String> {
    problems_with(json, &Templates::new())
}

/// A graph of these tasks; each has a container unless it says what it does.
fn tasks(list: Value) -> Value {
    let Value::Array(list) = list else { panic!("a list") };
    let filled = list.into_iter().map(|mut task| {
        if !["container", "job", "templateRef", "decision", "delay", "approval"]
            .iter()
            .any(|form| task.get(form).is_some())
        {
            task["container"] = json!({"image": "i"});
        }
        task
    });
    json!({"tasks": filled.collect::<Vec<_>>()})
}

/// A task `t` after `a` with this container.
fn container(container: Value) -> Value {
    tasks(json!([{"name": "a"}, {"name": "t", "dependsOn": ["a"], "container": container}]))
}

fn pod(template: Value) -> Value {
    tasks(json!([{"name": "a"}, {"name": "t", "dependsOn": ["a"], "job": {"template": template}}]))
}

fn with(mut base: Value, more: Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        base[name] = value.clone();
    }
    base
}

#[track_caller]
fn refused(cases: Vec<(Value, &[&str])>) {
    for (json, expected) in cases {
        let found = problems(json.clone());
        assert_eq!(found, expected, "{}", serde_json::to_string_pretty(&json).unwrap());
    }
}

#[test]
fn names_and_dependencies() {
    let long = "a".repeat(64);
    refused(vec![
        (json!({"tasks": []}), &["spec.tasks: a graph has at least one task"]),
        (tasks(json!([{"name": ""}])), &["spec.tasks[0].name: the name is empty"]),
        (
            tasks(json!([{"name": long}])),
            &[&format!("spec.tasks[0].name: the name \"{long}\" has 64 characters; the limit is 63")],
        ),
        (
            tasks(json!([{"name": "Fetch_Data"}])),
            &[
                "spec.tasks[0].name: \"Fetch_Data\" is no DNS label: write lower-case letters, digits and dashes, with a letter or digit at both ends",
            ],
        ),
        (
            tasks(json!([{"name": "a"}, {"name": "b"}, {"name": "a"}])),
            &["spec.tasks[2].name: \"a\" is the name of spec.tasks[0] already"],
        ),
        (
            with(tasks(json!([{"name": "a"}])), json!({"finally": [{"name": "a", "container": {}}]})),
            &["spec.finally[0].name: \"a\" is the name of spec.tasks[0] already"],
        ),
        (
            tasks(json!([{"name": "build"}, {"name": "t", "dependsOn": ["biuld"]}])),
            &["spec.tasks[1].dependsOn[0]: no task \"biuld\" (did you mean \"build\"?)"],
        ),
        (
            tasks(json!([{"name": "t", "dependsOn": ["elsewhere"]}])),
            &["spec.tasks[0].dependsOn[0]: no task \"elsewhere\""],
        ),
        (
            tasks(json!([{"name": "t", "dependsOn": ["t"]}])),
            &["spec.tasks[0].dependsOn[0]: a task cannot depend on itself"],
        ),
        (
            tasks(json!([{"name": "a"}, {"name": "t", "dependsOn": ["a", "a"]}])),
            &["spec.tasks[1].dependsOn[1]: \"a\" is listed twice"],
        ),
        (
            tasks(
                json!([{"name": "a", "dependsOn": ["c"]}, {"name": "b", "dependsOn": ["a"]}, {"name": "c", "dependsOn": ["b"]}]),
            ),
            &["spec.tasks: cycle: a → b → c → a"],
        ),
        (
            with(
                tasks(json!([{"name": "a"}])),
                json!({"finally": [{"name": "f", "dependsOn": ["a"], "container": {}}]}),
            ),
            &[
                "spec.finally[0].dependsOn[0]: \"a\" is in spec.tasks: tasks of finally start after all of those, and depend only on each other",
            ],
        ),
        (
            with(
                tasks(json!([{"name": "a", "dependsOn": ["f"]}])),
                json!({"finally": [{"name": "f", "container": {}}]}),
            ),
            &["spec.tasks[0].dependsOn[0]: \"f\" is in spec.finally, which starts after all of spec.tasks"],
        ),
        (
            with(
                tasks(json!([{"name": "a"}])),
                json!({"finally": [
                    {"name": "f", "dependsOn": ["g"], "container": {}}, {"name": "g", "dependsOn": ["f"], "container": {}}
                ]}),
            ),
            &["spec.finally: cycle: f → g → f"],
        ),
    ]);
}

#[test]
fn forms_of_a_task() {
    refused(vec![
        (
            json!({"tasks": [{"name": "a"}]}),
            &[
                "spec.tasks[0]: a task has exactly one of container, job, templateRef, decision, delay, approval; this one has none",
            ],
        ),
        (
            json!({"tasks": [{"name": "a", "container": {}, "job": {"template": {}}}]}),
            &[
                "spec.tasks[0]: a task has exactly one of container, job, templateRef, decision, delay, approval; this one has container and job",
            ],
        ),
        (
            tasks(json!([{"name": "a", "arguments": {}}])),
            &["spec.tasks[0].arguments: arguments are for a task with templateRef"],
        ),
        (
            tasks(json!([{"name": "a", "trigger": "AllFinished", "when": "true"}, {"name": "b", "minSucceeded": 1}])),
            &[
                "spec.tasks[0].trigger: a task without dependsOn starts at once: trigger has no meaning",
                "spec.tasks[1].minSucceeded: a task without dependsOn starts at once: minSucceeded has no meaning",
            ],
        ),
        (
            tasks(json!([{"name": "a"}, {"name": "b", "dependsOn": ["a"], "minSucceeded": 2}])),
            &["spec.tasks[1].minSucceeded: 2 cannot be reached: the task has 1 dependencies"],
        ),
        (
            tasks(json!([{"name": "a"}, {"name": "b", "dependsOn": ["a"], "minSucceeded": 0}])),
            &["spec.tasks[1].minSucceeded: 0 is out of range: write 1 or more"],
        ),
        (
            tasks(json!([{"name": "a"}, {"name": "b", "dependsOn": ["a"], "minSucceeded": 1, "trigger": "AnyFailed"}])),
            &["spec.tasks[1].minSucceeded: minSucceeded is a trigger of its own: leave trigger out"],
        ),
        (
            tasks(
                json!([{"name": "a", "type": "x".repeat(51), "displayName": "ä".repeat(256), "tags": ["y".repeat(64)]}]),
            ),
            &[
                "spec.tasks[0].displayName: 256 characters; the limit is 255",
                "spec.tasks[0].type: 51 characters; the limit is 50",
                "spec.tasks[0].tags[0]: 64 characters; the limit is 63",
            ],
        ),
        (
            tasks(json!([{"name": "a", "outputs": [
                {"name": "x"}, {"name": "x"}, {"name": "2"}, {"name": "n", "type": "integer", "default": "1"}
            ]}])),
            &[
                "spec.tasks[0].outputs[1].name: \"x\" is the name of outputs[0] already",
                "spec.tasks[0].outputs[2].name: \"2\" is no name: write a letter or _, then letters, digits, _ and dashes",
                "spec.tasks[0].outputs[3].default: the text \"1\": the type is integer",
            ],
        ),
        (
            tasks(json!([{"name": "a", "priority": 11}])),
            &["spec.tasks[0].priority: 11 is out of range: write 0 (last) to 10 (first)"],
        ),
    ]);
}

#[test]
fn decisions() {
    let branches = |branches: Value| tasks(json!([{"name": "d", "decision": {"branches": branches}}]));
    let joined = |depends_on: Value| {
        tasks(json!([
            {"name": "a"},
            {"name": "d", "decision": {"branches": [{"name": "good", "when": "true"}, {"name": "poor"}]}},
            {"name": "t", "dependsOn": depends_on},
        ]))
    };
    refused(vec![
        (branches(json!([])), &["spec.tasks[0].decision.branches: a decision has at least one branch"]),
        (
            branches(json!([{"name": "x"}, {"name": "y", "when": "true"}])),
            &[
                "spec.tasks[0].decision.branches[0]: a branch without `when` is taken if no other is, so it must be the last",
            ],
        ),
        (
            branches(json!([{"name": "x", "when": "true"}, {"name": "x"}])),
            &["spec.tasks[0].decision.branches[1].name: \"x\" is the name of branches[0] already"],
        ),
        (
            branches(json!([{"name": "X"}])),
            &[
                "spec.tasks[0].decision.branches[0].name: \"X\" is no DNS label: write lower-case letters, digits and dashes, with a letter or digit at both ends",
            ],
        ),
        (
            branches(json!([{"name": "x", "when": "attempt > 1"}])),
            &["spec.tasks[0].decision.branches[0].when: there is no attempt yet when this is looked at"],
        ),
        (
            tasks(json!([{
                "name": "d", "decision": {"branches": [{"name": "x"}]}, "retry": {"limit": 1}, "timeout": "1s", "startTimeout": "1s", "outputs": [{"name": "o"}]
            }])),
            &[
                "spec.tasks[0].retry: a decision has no Job: retry has no meaning",
                "spec.tasks[0].timeout: a decision has no Job: timeout has no meaning",
                "spec.tasks[0].startTimeout: a decision has no Job: startTimeout has no meaning",
                "spec.tasks[0].outputs: a decision has no Job: outputs has no meaning",
            ],
        ),
        (joined(json!(["d/good", "d/poor"])), &[]),
        (joined(json!(["d"])), &[]),
        (
            joined(json!(["d/god"])),
            &["spec.tasks[2].dependsOn[0]: decision \"d\" has no branch \"god\" (did you mean \"good\"?)"],
        ),
        (
            joined(json!(["a/good"])),
            &["spec.tasks[2].dependsOn[0]: task \"a\" is no decision and has no branches: write \"a\" alone"],
        ),
        (joined(json!(["d/good", "d/good"])), &["spec.tasks[2].dependsOn[1]: \"d/good\" is listed twice"]),
        (
            joined(json!(["d", "d/good"])),
            &["spec.tasks[2].dependsOn[1]: \"d\" is listed with and without a branch: leave the one without out"],
        ),
        (
            joined(json!(["d/good", "d"])),
            &["spec.tasks[2].dependsOn[1]: \"d\" is listed with and without a branch: leave the one without out"],
        ),
        (joined(json!(["d/good", "d/"])), &["spec.tasks[2].dependsOn[1]: decision \"d\" has no branch \"\""]),
    ]);
}

#[test]
fn durations_and_retries() {
    let malformed = |text: &str| {
        format!(
            "{text:?} is not a duration; write whole numbers above zero with units, as in \"90s\" or \"1h30m\" (ms, s, m, h, d)"
        )
    };
    let retry = |retry: Value| tasks(json!([{"name": "a", "retry": retry}]));
    refused(vec![
        (
            with(
                tasks(json!([{"name": "a", "timeout": "0s", "startTimeout": "-1s"}])),
                json!({"timeout": "x", "finallyTimeout": "", "ttlAfterFinished": "99999999d"}),
            ),
            &[
                &format!("spec.timeout: {}", malformed("x")),
                &format!("spec.finallyTimeout: {}", malformed("")),
                "spec.ttlAfterFinished: \"99999999d\" is too long a duration; the limit is 36500d",
                &format!("spec.tasks[0].timeout: {}", malformed("0s")),
                &format!("spec.tasks[0].startTimeout: {}", malformed("-1s")),
            ],
        ),
        (retry(json!({"limit": 101})), &["spec.tasks[0].retry.limit: 101 is out of range: write 0 to 100"]),
        (
            retry(json!({"limit": 1, "backoff": {"initial": "10s", "max": "1s", "factor": 0.5}})),
            &[
                "spec.tasks[0].retry.backoff.max: 1s is less than the initial wait of 10s",
                "spec.tasks[0].retry.backoff.factor: 0.5 is out of range: write 1 to 10",
            ],
        ),
        (
            retry(json!({"limit": 1, "backoff": {"factor": 11}})),
            &["spec.tasks[0].retry.backoff.factor: 11 is out of range: write 1 to 10"],
        ),
        (retry(json!({"limit": 1, "when": "exitCode != 2 && reason != 'x' && attempt < 5"})), &[]),
        (
            retry(json!({"limit": 1, "when": "args.x == 1"})),
            &["spec.tasks[0].retry.when: retry.when knows only exitCode, reason and attempt, and no \"args\""],
        ),
        (
            with(tasks(json!([{"name": "a"}])), json!({"parallelism": 0})),
            &["spec.parallelism: 0 is out of range: write 1 to 2000, or leave it out for no limit"],
        ),
    ]);
    let mut nan = spec(retry(json!({"limit": 1, "backoff": {"factor": 1}})));
    nan.tasks[0].retry.as_mut().unwrap().backoff.as_mut().unwrap().factor = Some(f64::NAN);
    assert!(compile(&nan, &Templates::new()).unwrap_err().problems[0].path.ends_with("factor"));
}

#[test]
fn expressions() {
    let when = |when: &str| {
        json!({"arguments": {"source": "x"}, "tasks": [
            {"name": "build-image", "container": {}},
            {"name": "other", "container": {}},
            {"name": "d", "dependsOn": ["build-image"], "decision": {"branches": [{"name": "b"}]}},
            {"name": "t", "dependsOn": ["d"], "when": when, "container": {}},
            {"name": "u", "dependsOn": ["t"], "container": {}},
        ], "finally": [{"name": "f", "container": {}}]})
    };
    for (text, wrong) in [
        ("tasks[\"build-image\"].phase == 'Succeeded' && args.source == 'x' && graph.name != ''", None),
        ("has(args.other) && args.other == 1", None),
        ("1 +", Some("the expression does not parse: line 1, column 4")),
        ("args.sorce == 'x'", Some("spec.arguments has no \"sorce\" (did you mean \"source\"?)")),
        ("tasks.build-image.phase == ''", Some("tasks.build-image is a subtraction: write tasks[\"build-image\"]")),
        ("tasks.build_image.phase == ''", Some("no task \"build_image\" (did you mean \"build-image\"?)")),
        (
            "tasks.other.phase == ''",
            Some("task \"other\" does not come before this one, so it may not be final: add \"other\" to dependsOn"),
        ),
        ("tasks.u.phase == ''", Some("task \"u\" does not come before this one")),
        ("tasks.t.phase == ''", Some("a task cannot look at itself")),
        ("tasks.f.phase == ''", Some("task \"f\" is in spec.finally, which starts after all of spec.tasks")),
        ("tasks.gone.phase == ''", Some("no task \"gone\"")),
        ("tasks.d.outputs.x == 1", Some("task \"d\" is a decision and leaves no outputs, so no \"x\"")),
        ("attempt == 1", Some("there is no attempt yet")),
        ("exitCode == 1", Some("exitCode is known only in retry.when")),
        ("item == 1", Some("item is known only in a task with `forEach` and `strategy: PerItem`")),
        ("", Some("is empty")),
        (&format!("{}true{}", "(".repeat(1000), ")".repeat(1000)), Some("nests more than 24 deep")),
        (&format!("{}true{}", "(".repeat(5000), ")".repeat(5000)), Some("bytes; the limit is 2048")),
        (&format!("1{} > 0", "+1".repeat(250)), Some("operators; the limit is 200")),
    ] {
        let found = problems(when(text));
        match wrong {
            None => assert!(found.is_empty(), "{text}: {found:?}"),
            Some(wrong) => {
                assert_eq!(found.len(), 1, "{text}: {found:?}");
                assert!(found[0].starts_with("spec.tasks[3].when: ") && found[0].contains(wrong), "{text}: {found:?}");
            }
        }
    }
    // a task of finally may look at every other task, and at those of finally that it comes after
    let finally = |when: &str| {
        with(
            tasks(json!([{"name": "a"}])),
            json!({"finally": [
                {"name": "f", "container": {}}, {"name": "g", "container": {}, "dependsOn": ["f"], "when": when}, {"name": "h", "container": {}}
            ]}),
        )
    };
    assert_eq!(problems(finally("tasks.a.phase == tasks.f.phase")), Vec::<String>::new());
    assert!(problems(finally("tasks.h.phase == ''"))[0].contains("does not come before this one"));
}

#[test]
fn sizes() {
    let chain = |length: usize| {
        let task = |number: usize| {
            let before: Vec<String> = number.checked_sub(1).map(|before| format!("t{before}")).into_iter().collect();
            json!({"name": format!("t{number}"), "dependsOn": before, "container": {}})
        };
        json!({"tasks": (0..length).map(task).collect::<Vec<_>>()})
    };
    assert_eq!(problems(chain(2000)), Vec::<String>::new());
    assert_eq!(problems(chain(2001)), ["spec.tasks: 2001 tasks; the limit is 2000"]);
    let mut ring = chain(2000);
    ring["tasks"][0]["dependsOn"] = json!(["t1999"]);
    let found = problems(ring);
    assert!(
        found[0].starts_with("spec.tasks: cycle: t0 → t1 → ") && found[0].ends_with("→ … (2000 tasks in all) → t0"),
        "{found:?}"
    );

    let mut dense = spec(chain(500));
    for task in &mut dense.tasks {
        task.depends_on = (0..1000).map(|number| format!("t{number}")).collect();
    }
    let start = std::time::Instant::now();
    let found = compile(&dense, &Templates::new()).unwrap_err().problems;
    assert_eq!(found[0].to_string(), "spec.tasks: 500000 dependencies in all; the limit is 100000");
    assert!(start.elapsed() < std::time::Duration::from_secs(2));

    let big = container(json!({"env": [{"name": "X", "value": "x".repeat(MAX_SPEC_BYTES)}]}));
    assert!(problems(big)[0].ends_with("bytes as JSON; the limit is 655360: split the graph"));
    let mut deep = json!(1);
    for _ in 0..127 {
        deep = json!([deep]);
    }
    assert_eq!(problems(container(json!({"x": deep}))), Vec::<String>::new());
    assert_eq!(problems(container(json!({"x": [deep]}))), ["spec.tasks[1].container: nests more than 128 deep"]);
    let mut abyss = spec(json!({"tasks": [{"name": "a", "container": {}}]}));
    for _ in 0..2000 {
        deep = Value::Array(vec![deep]);
    }
    abyss.arguments = Some([("x".to_owned(), deep)].into_iter().collect());
    assert_eq!(compile(&abyss, &Templates::new()).unwrap_err().problems[0].path, "spec.arguments");

    let long = "x".repeat(200_000);
    let found = problems(tasks(json!([{"name": long, "dependsOn": [long], "when": long}])));
    assert!(found.len() == 3 && found.iter().all(|problem| problem.len() < 1600), "{}", found.len());
    // many problems at once, all told, in good time
    let typos: Vec<Value> = (0..2000)
        .map(|n| json!({"name": format!("task-{n}"), "dependsOn": [format!("tsak-{n}")], "container": {}}))
        .collect();
    let start = std::time::Instant::now();
    assert_eq!(problems(json!({"tasks": typos})).len(), 2000);
    assert!(start.elapsed() < std::time::Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn a_valid_graph() {
    let json = json!({
        "arguments": {"source": "orders.csv"}, "parallelism": 3, "timeout": "2h",
        "tasks": [
            {"name": "a", "container": {}, "retry": {"limit": 2, "backoff": {"initial": "10m"}}},
            {"name": "d", "dependsOn": ["a"], "decision": {"branches": [{"name": "x", "when": "tasks.a.outputs.n > 1"}, {"name": "y"}]}},
            {"name": "b", "dependsOn": ["d/x", "a", "d/y"], "minSucceeded": 1, "container": {}},
            {"name": "h", "dependsOn": ["a"], "trigger": "AnyFailed", "container": {}, "retry": {"limit": 1, "backoff": {"max": "500ms"}}},
            {"name": "i", "dependsOn": ["h"], "job": {"template": {}}},
            {"name": "j", "dependsOn": ["h", "a"], "trigger": "AnySucceeded", "allowFailure": true, "container": {}},
        ],
        "finally": [{"name": "f", "container": {}, "when": "tasks.b.phase == 'Failed'"}],
    });
    let report = check(&spec(json), &Templates::new());
    let Plan { graph, settings } = report.outcome.unwrap();
    assert_eq!(
        (settings.parallelism, settings.timeout, settings.finally_timeout),
        (Some(3), Some(Duration::from_secs(7200)), Duration::from_secs(3600))
    );
    let id = |name: &str| graph.find(name).unwrap();
    let task = |name: &str| graph.task(id(name));
    assert_eq!((graph.first_finally, task("f").finally, task("j").finally), (6, true, false));
    assert_eq!(task("b").dependencies, [id("d"), id("a")]);
    assert_eq!(task("b").guards, [Guard { decision: id("d"), branches: vec!["x".into(), "y".into()] }]);
    assert_eq!(task("a").dependents, [id("d"), id("b"), id("h"), id("j")]);
    assert_eq!(task("b").trigger, TriggerRule::MinSucceeded(1));
    assert_eq!(task("j").trigger, TriggerRule::MinSucceeded(1));
    assert_eq!(task("i").trigger, TriggerRule::NoneFailed);
    let handlers: Vec<&str> = graph.tasks.iter().filter(|task| task.handler).map(|task| &*task.name).collect();
    assert_eq!(handlers, ["h", "i"]);
    let waits = |name: &str| (task(name).retry.limit, task(name).retry.initial.millis(), task(name).retry.max.millis());
    assert_eq!(waits("a"), (2, 600_000, 600_000));
    assert_eq!(waits("h"), (1, 500, 500));
    assert_eq!(waits("i"), (0, 1000, 300_000));
    assert!(
        matches!(&task("d").work, Work::Decision { branches, inclusive: false } if branches.len() == 2 && branches[1].when.is_none())
    );
    let payloads: Vec<(&str, PayloadKind)> =
        report.payloads.iter().map(|payload| (payload.path.as_str(), payload.kind)).collect();
    assert_eq!(payloads[3], ("spec.tasks[4].job.template", PayloadKind::PodTemplate));
    assert_eq!(payloads.len(), 6);
}

#[test]
fn the_hash_is_of_what_attempts_are_made_from() {
    let hash = |json: Value| compile(&spec(json), &Templates::new()).unwrap().graph.tasks[0].hash;
    let base = tasks(json!([{"name": "a", "container": {"image": "i", "env": [{"name": "X", "value": "1"}]}}]));
    let original = hash(base.clone());
    assert_eq!(
        original,
        hash(tasks(
            json!([{"name": "b", "container": {"env": [{"value": "1", "name": "X"}], "image": "i"}, "priority": 1}])
        ))
    );
    assert_eq!(original, hash(with(base.clone(), json!({"parallelism": 4}))));
    // stored on Jobs: a changed algorithm would not know them again
    assert_eq!(format!("{original:016x}"), "14026c7865ad1885");
    for other in [
        tasks(json!([{"name": "a", "container": {"image": "j", "env": [{"name": "X", "value": "1"}]}}])),
        tasks(
            json!([{"name": "a", "container": {"image": "i", "env": [{"name": "X", "value": "1"}]}, "timeout": "1s"}]),
        ),
        with(base, json!({"podDefaults": {"labels": {"a": "b"}}})),
        tasks(json!([{"name": "a", "job": {"template": {"image": "i", "env": [{"name": "X", "value": "1"}]}}}])),
    ] {
        assert_ne!(original, hash(other));
    }
}
