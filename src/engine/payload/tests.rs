//! What payloads become when they are rendered.

#![allow(clippy::needless_pass_by_value)] // so that json! can stand in a call as it is

use serde_json::{Map, Value, json};

use crate::{
    api::{TaskGraphSpec, TaskPhase, TemplateRef},
    engine::{
        TaskId, Templates, compile,
        expr::{Scope, TaskLookup},
        graph::{Identity, Work},
    },
};

struct One(Map<String, Value>);

impl TaskLookup for One {
    fn task(&self, _: TaskId) -> (TaskPhase, &Map<String, Value>, u32) {
        (TaskPhase::Succeeded, &self.0, 1)
    }
}

/// The payload of the last task, rendered over these outputs of task `a`.
fn rendered(spec: Value, template: Option<Value>, outputs: Value) -> Result<Value, String> {
    let spec: TaskGraphSpec = serde_json::from_value(spec).unwrap();
    let reference = TemplateRef { name: "x".into(), ..TemplateRef::default() };
    let templates: Templates =
        template.into_iter().map(|json| (reference.clone(), serde_json::from_value(json).unwrap())).collect();
    let plan = compile(&spec, &templates).unwrap();
    let Work::Job(payload) = &plan.graph.tasks.last().unwrap().work else { panic!("a Job") };
    let Value::Object(outputs) = outputs else { panic!("an object") };
    let identity = Identity { name: "g".into(), namespace: "ns".into(), uid: "u".into() };
    let tasks = One(outputs);
    let scope = Scope {
        identity: &identity,
        arguments: &plan.graph.arguments,
        tasks: &tasks,
        attempt: Some(3),
        item: None,
        failure: None,
    };
    payload.render(&scope).map(|value| Value::clone(&value)).map_err(|error| error.0)
}

fn with_container(container: Value) -> Value {
    json!({"arguments": {"n": 1, "o": {"k": [1, "x"]}}, "tasks": [{"name": "a", "container": {}}, {"name": "t", "dependsOn": ["a"], "container": container}]})
}

fn env(value: &str, outputs: Value) -> Result<Value, String> {
    let container = with_container(json!({"env": [{"name": "X", "value": value}]}));
    rendered(container, None, outputs).map(|rendered| rendered["env"][0]["value"].clone())
}

#[test]
fn values_become_text() {
    for (text, expected) in [
        ("plain $HOME", "plain $HOME"),
        ("${{ args.n }}", "1"),
        ("${{ 0.5 + args.n }} and ${{ null }} and ${{ true }}", "1.5 and null and true"),
        ("${{ args.o }}", r#"{"k":[1,"x"]}"#),
        ("${{ graph.name }}-${{ attempt }}", "g-3"),
        ("${{ tasks.a.outputs.s }}", "s"),
    ] {
        assert_eq!(env(text, json!({"s": "s"})), Ok(json!(expected)), "{text}");
    }
    assert!(env("${{ tasks.a.outputs.gone }}", json!({})).unwrap_err().contains("task \"a\" has no output \"gone\""));
}

#[test]
fn kubernetes_finds_nothing_to_expand_in_a_value() {
    let hostile = "$(rm -rf) $HOME $$ ${X} `id` \"'\n\u{1F4A5}";
    let value = env("a $(HOME) $$${{ tasks.a.outputs.s }}", json!({"s": hostile})).unwrap();
    assert_eq!(value, json!(format!("a $(HOME) $${}", hostile.replace('$', "$$"))));
    // elsewhere nothing expands, and a dollar stays one
    let image =
        rendered(with_container(json!({"image": "x:${{ tasks.a.outputs.s }}"})), None, json!({"s": "a$b"})).unwrap();
    assert_eq!(image["image"], json!("x:a$b"));
}

#[test]
fn only_the_texts_with_expressions_change() {
    let container = json!({"zeta": 1, "image": "${{ args.n }}", "alpha": {"b": [null, 1.50], "a": "$"}, "resources": {"limits": {"a/b~c": "${{ args.n }}"}}});
    let mut expected = container.clone();
    expected["image"] = json!("1");
    expected["resources"]["limits"]["a/b~c"] = json!("1");
    let result = rendered(with_container(container), None, json!({})).unwrap();
    assert_eq!(result.to_string(), expected.to_string(), "also the order of members stays");
}

#[test]
fn arguments_keep_their_types() {
    let template = json!({
        "parameters": [{"name": "rows", "type": "integer"}, {"name": "list"}, {"name": "text", "type": "string", "default": "d"}, {"name": "free"}],
        "container": {"env": [
            {"name": "X", "value": "${{ args.rows + 1 }} ${{ size(args.list) }} ${{ args.list[0].k }} ${{ args.text }} ${{ args.free }}"},
        ]},
    });
    let spec = |arguments: Value| {
        json!({"arguments": {"rows": "the graph's"}, "tasks": [
            {"name": "a", "container": {}},
            {"name": "t", "dependsOn": ["a"], "templateRef": {"name": "x"}, "arguments": arguments},
        ]})
    };
    let run = |arguments: Value, outputs: Value| {
        rendered(spec(arguments), Some(template.clone()), outputs)
            .map(|rendered| rendered["env"][0]["value"].as_str().unwrap().to_owned())
    };
    let list = json!([{"k": "${{ tasks.a.outputs.n * 2 }}"}, "${{ args.rows }}!"]);
    assert_eq!(
        run(json!({"rows": "${{ tasks.a.outputs.n }}", "list": list}), json!({"n": 4})),
        Ok("5 2 8 d null".to_owned())
    );
    assert_eq!(
        run(json!({"rows": 1, "list": [{"k": 1}], "text": "a ${{ 1 }}", "free": "x"}), json!({})),
        Ok("2 1 1 a 1 x".to_owned())
    );
    let error = run(json!({"rows": "${{ tasks.a.outputs.n }}", "list": []}), json!({"n": "4"})).unwrap_err();
    assert_eq!(error, "argument \"rows\" is the text \"4\", and must be of type integer");
}
