//! `forEach`.

use serde_json::{Value, json};

use super::{problems, problems_with, spec, tasks, templates};
use crate::engine::{Templates, compile};

/// A task after `a` with these items and this more.
fn each(for_each: Value, more: Value) -> Value {
    let mut task = json!({"name": "each", "dependsOn": ["a"], "forEach": for_each});
    for (key, value) in more.as_object().unwrap() {
        task[key] = value.clone();
    }
    tasks(json!([{"name": "a"}, task]))
}

#[test]
fn good_ones() {
    for (for_each, more) in [
        (json!({"items": []}), json!({})),
        (json!({"items": [1, "a", null, {"b": ["${{ tasks.a.outputs.x }}"]}]}), json!({})),
        (
            json!({"items": "${{ tasks.a.outputs.files }}", "parallelism": 1000, "maxFailures": 0, "retriesPerItem": 100}),
            json!({}),
        ),
        (json!({"items": "${{ [1, 2].map(item, item * 2) }}"}), json!({})),
        (
            json!({"items": [1]}),
            json!({"job": {"template": {"spec": {"containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/var/run/taskgraph/items"}]}], "volumes": [{"name": "v"}]}}}}),
        ),
    ] {
        assert_eq!(problems(each(for_each.clone(), more)), Vec::<String>::new(), "{for_each}");
    }
}

#[test]
fn bad_ones() {
    let many: Vec<u32> = (0..1001).collect();
    let mount = |path: &str| json!({"job": {"template": {"spec": {"containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": path}]}], "volumes": [{"name": "v"}]}}}});
    let env = json!({"container": {"image": "i", "env": [{"name": "JOB_COMPLETION_INDEX", "value": "1"}]}});
    let volume = json!({"job": {"template": {"spec": {"containers": [{"name": "c", "image": "i"}], "volumes": [{"name": "taskgraph-items"}]}}}});
    let uses = |text: &str| json!({"container": {"image": "i", "env": [{"name": "X", "value": text}]}});
    for (for_each, more, at, why) in [
        (json!({"items": "a, b"}), json!({}), "forEach.items", "write a list, or a text ${{ EXPRESSION }}"),
        (json!({"items": null}), json!({}), "forEach.items", "write a list"),
        (json!({"items": {"a": 1}}), json!({}), "forEach.items", "write a list"),
        (json!({"items": "x${{ args }}"}), json!({}), "forEach.items", "it must be a list"),
        (json!({"items": ["${{ tasks.b.outputs.x }}"]}), json!({}), "forEach.items[0]", "no task \"b\""),
        (json!({"items": [{"${{ args }}": 1}]}), json!({}), "forEach.items[0]", "may not stand in the name of a field"),
        (json!({"items": many}), json!({}), "forEach.items", "1001 items; the limit is 1000"),
        (json!({"items": ["x".repeat(524_289)]}), json!({}), "forEach.items", "the limit is 524288"),
        (json!({"items": [], "parallelism": 0}), json!({}), "forEach.parallelism", "from 1 to 1000"),
        (json!({"items": [], "maxFailures": 1001}), json!({}), "forEach.maxFailures", "from 0 to 1000"),
        (json!({"items": [], "retriesPerItem": 101}), json!({}), "forEach.retriesPerItem", "from 0 to 100"),
        (
            json!({"items": []}),
            json!({"decision": {"branches": [{"name": "x"}]}}),
            "forEach",
            "for a task with container, job or templateRef",
        ),
        (json!({"items": []}), mount("/var/run/taskgraph/item/"), "forEach", "where the item will be"),
        (json!({"items": []}), mount("/var/run/taskgraph/item/x"), "forEach", "where the item will be"),
        (json!({"items": []}), volume, "forEach", "taskgraph-items"),
        (json!({"items": []}), env, "forEach", "JOB_COMPLETION_INDEX"),
        (json!({"items": []}), uses("${{ item }}"), "container.env[0].value", "in the file /var/run/taskgraph/item"),
        (
            json!({"items": []}),
            uses("${{ item.name }}"),
            "container.env[0].value",
            "in the file /var/run/taskgraph/item",
        ),
        (
            json!({"items": []}),
            uses("${{ index + 1 }}"),
            "container.env[0].value",
            "in the variable JOB_COMPLETION_INDEX",
        ),
    ] {
        let found = problems(each(for_each.clone(), more));
        assert_eq!(found.len(), 1, "{for_each}: {found:#?}");
        assert!(
            found[0].starts_with(&format!("spec.tasks[1].{at}")) && found[0].contains(why),
            "{for_each}: {found:#?}"
        );
    }
    let mut deep = json!(1);
    for _ in 0..200 {
        deep = json!([deep]);
    }
    assert_eq!(
        problems(each(json!({"items": deep}), json!({}))),
        ["spec.tasks[1].forEach.items: nests more than 128 deep"]
    );
}

#[test]
fn of_a_template() {
    let templates = templates(&[
        (
            "good",
            json!({"parameters": [{"name": "x"}], "container": {"image": "i", "env": [{"name": "X", "value": "${{ args.x }}"}]}}),
        ),
        ("bad", json!({"container": {"image": "i", "env": [{"name": "JOB_COMPLETION_INDEX", "value": "1"}]}})),
    ]);
    let with = |name: &str| each(json!({"items": [1]}), json!({"templateRef": {"name": name}}));
    assert_eq!(problems_with(with("good"), &templates), Vec::<String>::new());
    let found = problems_with(with("bad"), &templates);
    assert!(found.len() == 1 && found[0].starts_with("spec.tasks[1].forEach: a container sets"), "{found:#?}");
}

#[test]
fn the_hash_tells_items_and_their_rules_apart() {
    let hash = |json: Value| compile(&spec(json), &Templates::new()).unwrap().graph.tasks[1].hash;
    let all = [
        tasks(json!([{"name": "a"}, {"name": "each", "dependsOn": ["a"]}])),
        each(json!({"items": [1]}), json!({})),
        each(json!({"items": [2]}), json!({})),
        each(json!({"items": "${{ tasks.a.outputs.x }}"}), json!({})),
        each(json!({"items": [1], "parallelism": 1}), json!({})),
        each(json!({"items": [1], "maxFailures": 0}), json!({})),
        each(json!({"items": [1], "retriesPerItem": 1}), json!({})),
    ]
    .map(hash);
    let distinct: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len(), "{all:x?}");
}

/// A container that reads this.
fn reads(text: &str) -> Value {
    json!({"container": {"image": "i", "env": [{"name": "X", "value": text}]}})
}

#[test]
fn items_with_a_job_each() {
    let templates = templates(&[
        (
            "task",
            json!({"parameters": [{"name": "x"}], "container": {"image": "i", "env": [{"name": "X", "value": "${{ args.x }}"}]}}),
        ),
        ("nosy", json!({"container": {"image": "i", "env": [{"name": "X", "value": "${{ item }}"}]}})),
        (
            "graph",
            json!({"parameters": [{"name": "x"}], "graph": {"tasks": [{"name": "t", "container": {"image": "i"}}]}}),
        ),
    ]);
    let rule = |more: Value| {
        let mut rule = json!({"items": [{"a": [1]}], "strategy": "PerItem"});
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rule
    };
    let given = |name: &str, x: &str| json!({"templateRef": {"name": name}, "arguments": {"x": x}});
    let job = json!({"job": {"template": {"spec": {"nodeSelector": {"disk": "${{ item.a[0] }}"}, "containers": [{"name": "c", "image": "i:${{ index }}"}]}}}});
    let mount = json!({"job": {"template": {"spec": {"containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/var/run/taskgraph/item"}]}], "volumes": [{"name": "v"}]}}}});
    let indexed = json!({"items": [1], "strategy": "Indexed"});
    let no_strategy = json!({"items": [1]});
    for (for_each, more, wrong) in [
        (
            rule(json!({})),
            reads("${{ item.a[0] }} ${{ index + 1 }} ${{ has(item.b) }} ${{ tasks.a.phase }} ${{ attempt }}"),
            None,
        ),
        (rule(json!({"retriesPerItem": 3})), job, None),
        // there is no such file in this form
        (rule(json!({})), mount, None),
        (rule(json!({})), given("task", "${{ item }}"), None),
        (rule(json!({})), given("graph", "${{ item.a }}"), None),
        (no_strategy.clone(), given("graph", "${{ [item, index] }}"), None),
        (rule(json!({"retriesPerItem": 0})), given("graph", "x"), None),
        (indexed.clone(), given("task", "x"), None),
        (rule(json!({"items": ["${{ item }}"]})), json!({}), Some(("forEach.items[0]", "not in the list itself"))),
        (rule(json!({})), json!({"when": "index > 0"}), Some(("when", "looked at once for all items"))),
        (
            rule(json!({})),
            json!({"retry": {"limit": 1, "when": "item > 0"}}),
            Some(("retry.when", "knows only exitCode")),
        ),
        (no_strategy.clone(), reads("${{ item }}"), Some(("container.env[0].value", "or write `strategy: PerItem`"))),
        (indexed.clone(), given("task", "${{ item }}"), Some(("arguments.x", "or write `strategy: PerItem`"))),
        (rule(json!({})), json!({"templateRef": {"name": "nosy"}}), Some(("", "hand item over as one, `${{ item }}`"))),
        (indexed, given("graph", "x"), Some(("forEach.strategy", "write PerItem, or leave strategy out"))),
        (
            rule(json!({"retriesPerItem": 1})),
            given("graph", "x"),
            Some(("forEach.retriesPerItem", "give the tasks of the template a retry")),
        ),
        (
            rule(json!({})),
            json!({"templateRef": {"name": "graph"}, "startTimeout": "1m"}),
            Some(("startTimeout", "has no pod")),
        ),
    ] {
        let found = problems_with(each(for_each.clone(), more.clone()), &templates);
        match wrong {
            None => assert_eq!(found, Vec::<String>::new(), "{for_each} {more}"),
            Some((at, why)) => {
                assert_eq!(found.len(), 1, "{for_each} {more}: {found:#?}");
                let at = if at.is_empty() { "template \"nosy\"".to_owned() } else { format!("spec.tasks[1].{at}") };
                assert!(found[0].starts_with(&at) && found[0].contains(why), "{for_each} {more}: {found:#?}");
            }
        }
    }
    // where the template is not there yet, what it is is not known
    let missing = json!({"templateRef": {"name": "later"}, "arguments": {"x": "${{ item }}"}});
    let refusal = compile(&spec(each(no_strategy, missing)), &templates).unwrap_err();
    assert_eq!((refusal.problems, refusal.missing.len()), (vec![], 1));
}

#[test]
fn the_hash_tells_the_strategies_apart() {
    let hash = |json: Value| compile(&spec(json), &Templates::new()).unwrap().graph.tasks[1].hash;
    let (plain, indexed) = (json!({"items": [1]}), json!({"items": [1], "strategy": "Indexed"}));
    let per_item = json!({"items": [1], "strategy": "PerItem"});
    let [plain, indexed, per_item] = [plain, indexed, per_item].map(|rule| hash(each(rule, json!({}))));
    assert_eq!(plain, indexed, "what is the default need not be written");
    assert_ne!(plain, per_item);
}
