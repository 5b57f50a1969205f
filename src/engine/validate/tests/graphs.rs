//! Templates of graphs: as the whole of a graph, as child graphs; what graphs return.

use serde_json::{Value, json};

use super::{problems, problems_with, spec, templates};
use crate::{
    api::{FailurePolicy, TaskTemplateSpec},
    engine::{
        Templates, compile,
        graph::{Graph, Work},
        validate::{MAX_DEPTH, check},
    },
};

/// A graph template of these tasks.
fn graph(tasks: Value) -> Value {
    json!({"graph": {"tasks": tasks}})
}

/// A graph template with one task, which runs the named template.
fn running(name: &str) -> Value {
    graph(json!([{"name": "t", "templateRef": {"name": name}}]))
}

fn leaf() -> Value {
    graph(json!([{"name": "t", "container": {"image": "i"}}]))
}

/// A graph with one task, which runs `a`.
fn user_of_a() -> Value {
    json!({"tasks": [{"name": "t", "templateRef": {"name": "a"}}]})
}

fn load() -> Value {
    json!({
        "parameters": [{"name": "source", "required": true, "type": "string"}, {"name": "rows", "type": "integer", "default": 10}],
        "timeout": "1h", "retry": {"limit": 2},
        "graph": {
            "parallelism": 3, "failurePolicy": "FinishBranches", "podDefaults": {"serviceAccountName": "loader", "labels": {"a": "1"}},
            "tasks": [
                {"name": "read", "container": {"image": "i", "env": [{"name": "S", "value": "${{ args.source }}:${{ args.rows }}"}]}},
                {"name": "write", "dependsOn": ["read"], "when": "args.rows > 1", "container": {"image": "i"}},
            ],
            "outputs": [{"name": "rows", "value": "tasks.read.outputs.rows"}, {"name": "place", "value": "args.source + '/out'"}],
        },
    })
}

fn plan(json: Value, templates: &Templates) -> std::sync::Arc<Graph> {
    match compile(&spec(json), templates) {
        Ok(plan) => plan.graph,
        Err(refusal) => panic!("{refusal:#?}"),
    }
}

#[test]
fn what_a_graph_returns_is_checked() {
    let of = |outputs: Value| {
        json!({"arguments": {"x": 1}, "outputs": outputs, "finally": [{"name": "last", "container": {"image": "i"}}], "tasks": [
            {"name": "a", "container": {"image": "i"}},
            {"name": "choice", "decision": {"branches": [{"name": "only"}]}},
        ]})
    };
    for (outputs, expected) in [
        (json!([{"name": "o", "value": "tasks.a.outputs.x"}, {"name": "p", "value": "tasks.last.phase"}]), None),
        (json!([{"name": "o", "value": "args.x + 1"}]), None),
        (json!([{"name": "", "value": "1"}]), Some("spec.outputs[0].name: the name is empty")),
        (
            json!([{"name": "o", "value": "1"}, {"name": "o", "value": "2"}]),
            Some("spec.outputs[1].name: \"o\" is the name of outputs[0] already"),
        ),
        (json!([{"name": "o", "value": "tasks.b.phase"}]), Some("spec.outputs[0].value: no task \"b\"")),
        (json!([{"name": "o", "value": "args.y"}]), Some("spec.outputs[0].value: spec.arguments has no \"y\"")),
        (
            json!([{"name": "o", "value": "attempt"}]),
            Some("spec.outputs[0].value: the graph as a whole has no attempts"),
        ),
        (
            json!([{"name": "o", "value": "tasks.choice.outputs.z"}]),
            Some("spec.outputs[0].value: task \"choice\" is a decision and leaves no outputs, so no \"z\""),
        ),
    ] {
        let found = problems(of(outputs.clone()));
        match expected {
            Some(expected) => assert_eq!(found, [expected], "{outputs}"),
            None => assert!(found.is_empty(), "{outputs}: {found:?}"),
        }
    }
    let many: Vec<_> = (0..65).map(|place| json!({"name": format!("o{place}"), "value": "1"})).collect();
    assert_eq!(problems(of(many.into())), ["spec.outputs: 65 outputs; the limit is 64"]);
}

#[test]
fn a_template_as_the_whole_of_a_graph() {
    let templates = templates(&[("load", load()), ("task", json!({"container": {"image": "i"}}))]);
    let whole = |more: Value| {
        let mut spec = json!({"templateRef": {"name": "load"}, "arguments": {"source": "s"}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let title = "template \"load\" (TaskTemplate)";
    for (more, expected) in [
        (json!({}), vec![]),
        (json!({"arguments": {}}), vec![format!("spec.arguments: {title} requires the argument \"source\"")]),
        (
            json!({"arguments": {"source": 1, "rwos": 2}}),
            vec![
                format!("spec.arguments.rwos: {title} has no parameter \"rwos\" (did you mean \"rows\"?)"),
                format!("spec.arguments.source: the number 1: {title} takes a value of type string"),
            ],
        ),
        (
            json!({"tasks": [{"name": "a", "container": {"image": "i"}}], "outputs": [{"name": "o", "value": "1"}]}),
            vec![
                "spec.tasks: with templateRef the tasks are the template's: leave them out, or templateRef".to_owned(),
                "spec.outputs: with templateRef the outputs are the template's: leave them out, or templateRef"
                    .to_owned(),
            ],
        ),
        (
            json!({"templateRef": {"name": "task"}, "arguments": {}}),
            vec!["spec.templateRef: template \"task\" (TaskTemplate) is no graph: run it as a task of one".to_owned()],
        ),
        (
            json!({"parallelism": 0}),
            vec!["spec.parallelism: 0 is out of range: write 1 to 2000, or leave it out for no limit".to_owned()],
        ),
    ] {
        assert_eq!(problems_with(whole(more.clone()), &templates), expected, "{more}");
    }
    let missing = compile(&spec(json!({"templateRef": {"name": "gone"}})), &templates).unwrap_err();
    assert_eq!((missing.problems.len(), missing.missing[0].0.as_str()), (0, "spec.templateRef"));
}

#[test]
fn settings_of_the_graph_win_over_the_templates() {
    let templates = templates(&[("load", load())]);
    let plan =
        compile(&spec(json!({"templateRef": {"name": "load"}, "arguments": {"source": "s"}})), &templates).unwrap();
    assert_eq!((plan.settings.parallelism, plan.settings.failure_policy), (Some(3), FailurePolicy::FinishBranches));
    assert_eq!(plan.settings.timeout.map(|timeout| timeout.to_string()), Some("1h".to_owned()));
    assert_eq!(serde_json::Value::Object((*plan.graph.arguments).clone()), json!({"source": "s", "rows": 10}));
    let own = json!({
        "templateRef": {"name": "load"}, "arguments": {"source": "s", "rows": 2}, "parallelism": 1,
        "failurePolicy": "CancelRunning", "timeout": "5s", "podDefaults": {"serviceAccountName": "own", "labels": {"b": "2"}},
    });
    let plan = compile(&spec(own), &templates).unwrap();
    assert_eq!((plan.settings.parallelism, plan.settings.failure_policy), (Some(1), FailurePolicy::CancelRunning));
    assert_eq!(plan.settings.timeout.map(|timeout| timeout.to_string()), Some("5s".to_owned()));
    let defaults = serde_json::to_value(&plan.graph.pod_defaults).unwrap();
    assert_eq!(defaults, json!({"serviceAccountName": "own", "labels": {"a": "1", "b": "2"}}));
}

#[test]
fn what_is_wrong_in_a_template_has_its_path_there() {
    let bad = json!({"parameters": [{"name": "p"}], "graph": {
        "parallelism": 0, "desiredState": "Cancel", "arguments": {"x": 1}, "tags": ["t"],
        "tasks": [
            {"name": "a", "dependsOn": ["b"], "container": {"image": "${{ args.q }}"}},
            {"name": "c", "when": "args.p == 1", "templateRef": {"name": "task"}},
        ],
        "outputs": [{"name": "o", "value": "tasks.z.phase"}],
    }});
    let task = json!({"container": {"image": "i", "command": ["${{ graph.name }}"]}});
    let templates = templates(&[("bad", bad), ("task", task)]);
    let paths = |json: Value| -> Vec<String> {
        let refusal = compile(&spec(json), &templates).unwrap_err();
        refusal.problems.into_iter().map(|problem| problem.path).collect()
    };
    let at = |field: &str| format!("template \"bad\" (TaskTemplate): spec.graph.{field}");
    let nested: Vec<String> = ["parallelism", "tasks[0].dependsOn[0]", "tasks[0].container.image"].map(at).into();
    let rest = ["template \"task\" (TaskTemplate): spec.container.command[0]".to_owned(), at("outputs[0].value")];
    let run: Vec<String> = ["arguments", "desiredState", "tags"].map(at).into();
    let child = paths(
        json!({"tasks": [{"name": "t", "templateRef": {"name": "bad"}}, {"name": "u", "templateRef": {"name": "bad"}}]}),
    );
    assert_eq!(child, [run.clone(), nested.clone(), rest.to_vec()].concat(), "once, however many tasks run it");
    let whole = paths(json!({"templateRef": {"name": "bad"}}));
    assert_eq!(whole, [run, nested, rest.to_vec()].concat());
}

#[test]
fn a_template_that_runs_itself_is_refused_with_the_way_there() {
    for (list, spec, path, chain) in [
        (vec![("a", running("a"))], user_of_a(), "a", "a → a"),
        (vec![("a", running("b")), ("b", running("a"))], user_of_a(), "b", "a → b → a"),
        (vec![("a", running("a"))], json!({"templateRef": {"name": "a"}}), "a", "a → a"),
        (vec![("a", running("b")), ("b", running("c")), ("c", running("b"))], user_of_a(), "c", "a → b → c → b"),
    ] {
        let expected = format!(
            "template \"{path}\" (TaskTemplate): spec.graph.tasks[0].templateRef: a graph template cannot run itself: {chain}"
        );
        assert_eq!(problems_with(spec, &templates(&list)), [expected]);
    }
}

#[test]
fn child_graphs_nest_five_deep_and_no_deeper() {
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    let chain = |depth: usize| -> Vec<(&str, Value)> {
        let last = depth - 1;
        (0..depth).map(|place| (names[place], if place == last { leaf() } else { running(names[place + 1]) })).collect()
    };
    let none: [String; 0] = [];
    assert_eq!(problems_with(user_of_a(), &templates(&chain(MAX_DEPTH))), none);
    let too_deep = problems_with(user_of_a(), &templates(&chain(MAX_DEPTH + 1)));
    assert_eq!(
        too_deep,
        [
            "template \"e\" (TaskTemplate): spec.graph.tasks[0].templateRef: child graphs nest more than 5 deep: a → b → c → d → e → f"
        ]
    );
    // the whole of a graph is no child
    let whole = json!({"templateRef": {"name": "a"}});
    assert_eq!(problems_with(whole.clone(), &templates(&chain(MAX_DEPTH + 1))), none);
    assert_eq!(problems_with(whole, &templates(&chain(MAX_DEPTH + 2))).len(), 1);
    // a template that is known already is as deep as it is, wherever it is used
    let mut shared = chain(MAX_DEPTH);
    shared.push(("x", running("a")));
    let spec =
        json!({"tasks": [{"name": "t", "templateRef": {"name": "a"}}, {"name": "u", "templateRef": {"name": "x"}}]});
    assert_eq!(
        problems_with(spec, &templates(&shared)),
        ["template \"x\" (TaskTemplate): spec.graph.tasks[0].templateRef: child graphs nest more than 5 deep: x → a"]
    );
}

#[test]
fn templates_shared_by_many_are_checked_once() {
    // 2^5 ways lead to the last one
    let twice = |name: &str| {
        graph(json!([{"name": "t", "templateRef": {"name": name}}, {"name": "u", "templateRef": {"name": name}}]))
    };
    let list = [("a", twice("b")), ("b", twice("c")), ("c", twice("d")), ("d", twice("e")), ("e", leaf())];
    let report = check(&spec(user_of_a()), &templates(&list));
    assert_eq!(report.payloads.len(), 1);
    assert!(report.outcome.is_ok());
}

#[test]
fn a_task_that_runs_a_graph() {
    let templates = templates(&[("load", load())]);
    let using = |more: Value| {
        let mut task = json!({"name": "t", "dependsOn": ["a"], "templateRef": {"name": "load"}, "arguments": {"source": "${{ tasks.a.outputs.x }}"}});
        task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"tasks": [{"name": "a", "container": {"image": "i"}}, task]})
    };
    let graph = plan(using(json!({})), &templates);
    let task = graph.task(graph.find("t").unwrap());
    let Work::Graph(child) = &task.work else { panic!("{:?}", task.work) };
    assert_eq!((child.template.name.as_str(), child.depth, task.retry.limit), ("load", 1, 2));
    assert_eq!((task.timeout.map(|timeout| timeout.to_string()).as_deref(), task.starts_within()), (Some("1h"), None));

    let declared = json!({"outputs": [{"name": "rows", "type": "integer"}, {"name": "more", "default": 1}]});
    assert_eq!(plan(using(declared), &templates).task(graph.find("t").unwrap()).outputs.len(), 2);
    for (more, expected) in [
        (
            json!({"outputs": [{"name": "row"}]}),
            "spec.tasks[1].outputs: the graph template returns no output \"row\" (did you mean \"rows\"?)",
        ),
        (
            json!({"startTimeout": "1m"}),
            "spec.tasks[1].startTimeout: a child graph has no pod to wait for: its own tasks have a startTimeout each",
        ),
        (
            json!({"cache": {"maxAge": "1h"}}),
            "spec.tasks[1].cache: a child graph has no cache: its own tasks have them, in the template",
        ),
        (
            json!({"arguments": {"source": 1}}),
            "spec.tasks[1].arguments.source: the number 1: template \"load\" (TaskTemplate) takes a value of type string",
        ),
    ] {
        assert_eq!(problems_with(using(more), &templates), [expected]);
    }
}

#[test]
fn the_hash_of_a_child_follows_all_that_it_runs() {
    let image = |image: &str| json!({"container": {"image": image}});
    let hash = |inner: &str, arguments: Value| {
        let list = [("a", graph(json!([{"name": "t", "templateRef": {"name": "b"}}]))), ("b", image(inner))];
        let mut list: Vec<_> = list.into();
        list[0].1["parameters"] = json!([{"name": "p"}]);
        let json = json!({"tasks": [{"name": "t", "templateRef": {"name": "a"}, "arguments": arguments}]});
        plan(json, &templates(&list)).tasks[0].hash
    };
    assert_eq!(hash("i", json!({"p": 1})), hash("i", json!({"p": 1})));
    assert_ne!(hash("i", json!({"p": 1})), hash("i", json!({"p": 2})));
    assert_ne!(hash("i", json!({"p": 1})), hash("j", json!({"p": 1})));
}

#[test]
fn a_graph_with_all_its_templates_is_bounded() {
    let big = "x".repeat(300 << 10);
    let large = |name: &'static str| (name, json!({"container": {"image": "i", "env": [{"name": "A", "value": big}]}}));
    let names = ["a", "b", "c", "d"];
    let tasks: Vec<_> = names.iter().map(|name| json!({"name": name, "templateRef": {"name": name}})).collect();
    let found = problems_with(json!({"tasks": tasks}), &templates(&names.map(large)));
    assert!(found.len() == 1 && found[0].starts_with("spec: 12") && found[0].contains("the limit is"), "{found:?}");
}

#[test]
fn a_missing_template_of_a_template_is_waited_for() {
    let refusal = compile(&spec(user_of_a()), &templates(&[("a", running("gone"))])).unwrap_err();
    assert!(refusal.problems.is_empty());
    assert_eq!(refusal.missing[0].0, "template \"a\" (TaskTemplate): spec.graph.tasks[0].templateRef");
    let template: TaskTemplateSpec = serde_json::from_value(running("gone")).unwrap();
    assert!(template.graph.is_some());
}
