//! Templates and their arguments.

use serde_json::{Value, json};

use super::{problems_with, spec, templates, with};
use crate::{
    api::{Duration, TemplateKind},
    engine::validate::{Templates, check, compile},
};

const TITLE: &str = "template \"copy\" (TaskTemplate)";

fn copy_template() -> Value {
    json!({
        "parameters": [
            {"name": "source", "required": true, "type": "string"},
            {"name": "rows", "type": "integer", "default": 10},
            {"name": "extra"},
        ],
        "container": {"image": "i", "env": [{"name": "SOURCE", "value": "${{ args.source }}:${{ args.rows }}:${{ args.extra }}"}]},
        "retry": {"limit": 4}, "timeout": "3m", "priority": 7, "outputs": [{"name": "x"}, {"name": "y", "default": 1}],
    })
}

#[test]
fn template_arguments() {
    let templates = templates(&[("copy", copy_template())]);
    let using = |arguments: Value| {
        json!({"arguments": {"file": "f"}, "tasks": [
            {"name": "a", "container": {}},
            {"name": "t", "dependsOn": ["a"], "templateRef": {"name": "copy"}, "arguments": arguments},
        ]})
    };
    for (arguments, expected) in [
        (json!({"source": "x"}), None),
        (
            json!({"source": "${{ args.file }}", "rows": "${{ tasks.a.outputs.rows }}", "extra": [{"x": "a ${{ args.file }}"}]}),
            None,
        ),
        (json!({"source": "a ${{ args.file }}", "rows": 2.0}), None),
        (json!({}), Some(format!("spec.tasks[1].arguments: {TITLE} requires the argument \"source\""))),
        (
            json!({"source": 3}),
            Some(format!("spec.tasks[1].arguments.source: the number 3: {TITLE} takes a value of type string")),
        ),
        (
            json!({"source": "x", "rows": "1${{ args.file }}"}),
            Some(format!(
                "spec.tasks[1].arguments.rows: the text \"1${{{{ args.file }}}}\": {TITLE} takes a value of type integer"
            )),
        ),
        (
            json!({"source": "x", "row": 1}),
            Some(format!("spec.tasks[1].arguments.row: {TITLE} has no parameter \"row\" (did you mean \"rows\"?)")),
        ),
        (
            json!({"source": "${{ args.fil }}"}),
            Some("spec.tasks[1].arguments.source: spec.arguments has no \"fil\" (did you mean \"file\"?)".to_owned()),
        ),
        (
            json!({"source": "x", "extra": {"${{ a }}": 1}}),
            Some(
                "spec.tasks[1].arguments.extra[\"${{ a }}\"]: `${{ }}` may not stand in the name of a field".to_owned(),
            ),
        ),
        (
            json!({"source": "x", "extra": ["${{ 1"]}),
            Some("spec.tasks[1].arguments.extra[0]: `${{` is not closed by `}}`".to_owned()),
        ),
    ] {
        let found = problems_with(using(arguments.clone()), &templates);
        assert_eq!(found, Vec::from_iter(expected), "{arguments}");
    }
    let plan = compile(&spec(using(json!({"source": "x"}))), &templates).unwrap();
    let task = plan.graph.task(plan.graph.find("t").unwrap());
    assert_eq!((task.retry.limit, task.timeout, task.priority), (4, Some(Duration::from_secs(180)), 7));
    assert_eq!(task.outputs.len(), 2);
    let mut own = using(json!({"source": "x"}));
    own["tasks"][1] = with(
        own["tasks"][1].clone(),
        json!({"retry": {"limit": 1}, "timeout": "1s", "priority": 0, "outputs": [{"name": "y"}, {"name": "z"}]}),
    );
    let plan = compile(&spec(own), &templates).unwrap();
    let task = plan.graph.task(plan.graph.find("t").unwrap());
    assert_eq!((task.retry.limit, task.timeout, task.priority), (1, Some(Duration::from_secs(1)), 0));
    assert_eq!(
        task.outputs.iter().map(|o| (o.name.as_str(), o.default.is_some())).collect::<Vec<_>>(),
        [("x", false), ("y", false), ("z", false)]
    );
}

#[test]
fn templates_are_checked_once() {
    let templates = templates(&[(
        "bad",
        json!({
            "parameters": [{"name": "a", "required": true, "default": 1}, {"name": "a"}, {"name": "b", "type": "string", "default": 1}, {"name": "c", "default": "${{ 1 }}"}],
            "container": {"image": "${{ args.d }}", "command": ["${{ args.b }}"], "env": [{"name": "X", "value": "${{ tasks.t.outputs.x }}"}]},
            "job": {"template": {}}, "timeout": "1", "priority": 11, "retry": {"limit": 101, "when": "args.a"}, "outputs": [{"name": ""}],
        }),
    )]);
    let json = json!({"tasks": [
        {"name": "t", "templateRef": {"name": "bad"}, "arguments": {"a": 1}},
        {"name": "u", "templateRef": {"name": "bad"}, "arguments": {"a": 1}},
    ]});
    let at = |path: &str| format!("template \"bad\" (TaskTemplate): spec{path}: ");
    let found = problems_with(json.clone(), &templates);
    let expected = [
        (".parameters[0].default", "a required parameter has no default"),
        (".parameters[1].name", "\"a\" is the name of parameters[0] already"),
        (".parameters[2].default", "the number 1: the type is string"),
        (".parameters[3].default", "may not stand in a default"),
        (".timeout", "is not a duration"),
        (".priority", "11 is out of range"),
        (".retry.limit", "101 is out of range"),
        (".retry.when", "knows only exitCode"),
        (".outputs[0].name", "the name is empty"),
        ("", "exactly one of container, job, graph"),
        (".container.image", "the template has no parameter \"d\""),
        (".container.command[0]", "may not stand in a command"),
        (".container.env[0].value", "no task \"t\""),
    ];
    for ((path, why), found) in expected.iter().zip(&found) {
        assert!(found.starts_with(&at(path)), "{found} at {path}");
        assert!(found.contains(why) || path.ends_with("env[0].value"), "{found}: {why}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    let payloads: Vec<String> =
        check(&spec(json), &templates).payloads.into_iter().map(|payload| payload.path).collect();
    assert_eq!(
        payloads,
        ["template \"bad\" (TaskTemplate): spec.container", "template \"bad\" (TaskTemplate): spec.job.template"]
    );
}

#[test]
fn a_template_sees_no_tasks() {
    let templates = templates(&[("x", json!({"container": {"image": "${{ tasks.a.outputs.image }}"}}))]);
    let json = json!({"tasks": [{"name": "a", "container": {}}, {"name": "t", "dependsOn": ["a"], "templateRef": {"name": "x"}}]});
    let expected = "template \"x\" (TaskTemplate): spec.container.image: a template sees its arguments and no tasks: \
                    hand what task \"a\" leaves over as an argument";
    assert_eq!(problems_with(json, &templates), [expected]);
}

#[test]
fn missing_templates_are_waited_for_and_the_rest_is_checked() {
    let json = json!({"tasks": [
        {"name": "t", "templateRef": {"name": "gone"}},
        {"name": "u", "templateRef": {"name": "gone", "kind": "ClusterTaskTemplate"}, "timeout": "x",
         "arguments": {"x": ["${{ tasks.t.phase }}"]}},
        {"name": "v", "templateRef": {"name": ""}},
    ]});
    let refusal = compile(&spec(json), &Templates::new()).unwrap_err();
    let missing: Vec<(&str, TemplateKind)> =
        refusal.missing.iter().map(|(path, reference)| (path.as_str(), reference.kind)).collect();
    assert_eq!(
        missing,
        [
            ("spec.tasks[0].templateRef", TemplateKind::TaskTemplate),
            ("spec.tasks[1].templateRef", TemplateKind::ClusterTaskTemplate)
        ]
    );
    let paths: Vec<&str> = refusal.problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["spec.tasks[1].timeout", "spec.tasks[1].arguments.x[0]", "spec.tasks[2].templateRef.name"]);
}
