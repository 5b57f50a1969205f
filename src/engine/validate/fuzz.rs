//! Specs changed at random: whatever a user writes is refused or compiled, and nothing panics.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::{
    api::{TaskPhase, TemplateKind},
    engine::{
        expr::{Scope, TaskLookup},
        graph::{Identity, Work},
    },
};

fn valid() -> Value {
    json!({
        "arguments": {"source": "orders.csv", "list": [1, 2]}, "parallelism": 3, "timeout": "2h", "tags": ["x"],
        "podDefaults": {"labels": {"a": "b"}, "tolerations": [{"key": "k"}]},
        "tasks": [
            {"name": "a", "templateRef": {"name": "x"}, "arguments": {"source": "${{ args.source }}", "n": "${{ size(args.list) }}"},
             "compensate": {"templateRef": {"name": "x"}, "arguments": {"source": "${{ tasks.a.outputs.x }}"}, "timeout": "1m"},
             "retry": {"limit": 3, "backoff": {"initial": "1s", "factor": 2, "max": "5m"}, "when": "exitCode != 2"}},
            {"name": "build-image", "dependsOn": ["a"], "job": {"template": {
                "metadata": {"labels": {"l": "${{ tasks.a.outputs.x }}"}},
                "spec": {"containers": [{"name": "main", "image": "i", "command": ["sh", "-c", "echo \"$X\" $(Y)"],
                    "env": [{"name": "X", "value": "${{ tasks.a.outputs.y }}"}, {"name": "Y", "value": "y"}]}]}}}},
            {"name": "d", "dependsOn": ["a"], "decision": {"branches": [{"name": "good", "when": "tasks.a.outputs.q > 0.95"}, {"name": "poor"}]}},
            {"name": "g", "dependsOn": ["d/good", "build-image"], "compensate": {"retry": {"limit": 2, "when": "exitCode == 1"},
                "container": {"env": [{"name": "G", "value": "${{ tasks.g.outputs.x }} ${{ attempt }}"}]}}, "container": {"image": "${{ tasks['build-image'].phase == '' ? 'a' : 'b' }}"}},
            {"name": "h", "dependsOn": ["d/poor", "build-image"], "trigger": "AnyFailed", "when": "graph.name != ''", "container": {}},
            {"name": "j", "dependsOn": ["g", "h"], "minSucceeded": 1, "container": {}, "outputs": [{"name": "o", "type": "string", "default": ""}]},
        ],
        "finally": [{"name": "f", "container": {}, "when": "tasks.j.phase == 'Failed'"}],
    })
}

fn template() -> Value {
    json!({
        "parameters": [{"name": "source", "required": true, "type": "string"}, {"name": "n", "type": "integer", "default": 1}],
        "container": {"image": "i", "env": [{"name": "S", "value": "${{ args.source }} ${{ args.n }}"}]},
        "retry": {"limit": 1}, "outputs": [{"name": "x"}],
    })
}

/// What is put in the place of something else.
fn replacement() -> impl Strategy<Value = Value> {
    prop_oneof![
        prop::sample::select(vec![
            json!(null),
            json!(true),
            json!(0),
            json!(-1),
            json!(4_294_967_295_u64),
            json!(1e300),
            json!(""),
            json!([]),
            json!({}),
            json!("a"),
            json!("d/good"),
            json!("d/"),
            json!("/"),
            json!("${{"),
            json!("${{ }}"),
            json!("${{ args.source }}"),
            json!("${{ tasks.a.outputs.x + 1 }}"),
            json!("$(X)"),
            json!("$"),
            json!("tasks.build-image.phase"),
            json!("args"),
            json!("((("),
            json!("1 +"),
            json!("0s"),
            json!("9999999999d"),
            json!("TASKGRAPH_X"),
            json!({"name": "a", "container": {}}),
            json!(["a", "a", "j"]),
            json!([null, {"name": 1}]),
            json!({"${{ a }}": "${{ b }}"}),
        ]),
        ".{0,20}".prop_map(Value::String),
    ]
}

/// Replaces, removes or doubles something below `value`; `choices` says where.
fn mutate(value: &mut Value, choices: &[usize], how: usize, replacement: &Value) {
    let Some((choice, rest)) = choices.split_first() else {
        *value = replacement.clone();
        return;
    };
    match value {
        Value::Array(list) if !list.is_empty() => {
            let place = choice % list.len();
            match (rest.is_empty(), how % 3) {
                (true, 1) => drop(list.remove(place)),
                (true, 2) => list.push(list[place].clone()),
                _ => mutate(&mut list[place], rest, how, replacement),
            }
        }
        Value::Object(object) if !object.is_empty() => {
            let name = object.keys().nth(choice % object.len()).cloned().unwrap_or_default();
            match (rest.is_empty(), how % 3) {
                (true, 1) => drop(object.remove(&name)),
                (true, 2) => drop(object.insert("name".to_owned(), replacement.clone())),
                _ => mutate(object.entry(name).or_insert(Value::Null), rest, how, replacement),
            }
        }
        other => *other = replacement.clone(),
    }
}

struct Nothing(Map<String, Value>);

impl TaskLookup for Nothing {
    fn task(&self, _: TaskId) -> (TaskPhase, &Map<String, Value>, u32) {
        (TaskPhase::Succeeded, &self.0, 1)
    }
}

/// Everything that can be asked of a compiled graph.
fn exercise(plan: &Plan) {
    let identity = Identity::default();
    let tasks = Nothing(Map::new());
    let scope = Scope {
        identity: &identity,
        arguments: &plan.graph.arguments,
        tasks: &tasks,
        attempt: Some(1),
        item: Some((0, &serde_json::Value::Null)),
        failure: Some((Some(1), "x")),
    };
    for id in plan.graph.ids() {
        let task = plan.graph.task(id);
        assert_eq!(plan.graph.find_in_role(task.role(), &task.name), Some(id));
        for before in &task.dependencies {
            assert!(plan.graph.task(*before).dependents.contains(&id));
        }
        drop(task.when.as_ref().map(|when| when.eval_bool(&scope)));
        drop(task.retry.when.as_ref().map(|when| when.eval_bool(&scope)));
        match &task.work {
            Work::Job(_) | Work::Graph(_) => drop(task.work.render(&scope)),
            Work::Delay(_) | Work::Approval(_) => {}
            Work::Decision { branches, .. } => {
                assert!(branches.iter().rev().skip(1).all(|branch| branch.when.is_some()));
            }
            Work::Removed => panic!("nothing was removed"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn changed_specs(
        changes in prop::collection::vec((prop::collection::vec(0..12_usize, 1..8), 0..3_usize, replacement()), 1..4),
        template_changes in prop::collection::vec((prop::collection::vec(0..6_usize, 1..6), 0..3_usize, replacement()), 0..2),
    ) {
        let (mut graph, mut used) = (valid(), template());
        for (choices, how, value) in &changes {
            mutate(&mut graph, choices, *how, value);
        }
        for (choices, how, value) in &template_changes {
            mutate(&mut used, choices, *how, value);
        }
        // what is no spec at all is refused by the API server
        if let (Ok(spec), Ok(used)) = (serde_json::from_value::<TaskGraphSpec>(graph), serde_json::from_value(used)) {
            let reference = TemplateRef { name: "x".to_owned(), kind: TemplateKind::TaskTemplate };
            let report = check(&spec, &Templates::from([(reference, Arc::new(used))]));
            match report.outcome {
                Ok(plan) => exercise(&plan),
                Err(refusal) => {
                    prop_assert!(!refusal.problems.is_empty() || !refusal.missing.is_empty());
                    for problem in refusal.problems {
                        prop_assert!(problem.path.starts_with("spec") || problem.path.starts_with("template \""), "{}", problem);
                        prop_assert!(!problem.message.is_empty() && problem.message.len() < 2000, "{}", problem);
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn changed_graph_templates(
        changes in prop::collection::vec((prop::collection::vec(0..12_usize, 1..8), 0..3_usize, replacement()), 0..4),
        arguments in prop::collection::btree_map("[a-c]", replacement(), 0..3),
    ) {
        let mut graph = valid();
        for field in ["arguments", "desiredState", "ttlAfterFinished", "displayName", "description", "tags"] {
            graph.as_object_mut().unwrap().remove(field);
        }
        for (choices, how, value) in &changes {
            mutate(&mut graph, choices, *how, value);
        }
        let outer = json!({"parameters": [{"name": "source"}, {"name": "a", "default": 1}], "graph": graph});
        let inner = serde_json::from_value(template()).unwrap();
        if let Ok(outer) = serde_json::from_value(outer) {
            let reference = |name: &str| TemplateRef { name: name.to_owned(), kind: TemplateKind::TaskTemplate };
            let templates = Templates::from([(reference("x"), Arc::new(inner)), (reference("g"), Arc::new(outer))]);
            for spec in [
                json!({"templateRef": {"name": "g"}, "arguments": arguments}),
                json!({"tasks": [{"name": "t", "templateRef": {"name": "g"}, "arguments": arguments}]}),
            ] {
                match check(&serde_json::from_value(spec).unwrap(), &templates).outcome {
                    Ok(plan) => exercise(&plan),
                    Err(refusal) => {
                        prop_assert!(!refusal.problems.is_empty() || !refusal.missing.is_empty());
                        for problem in refusal.problems {
                            prop_assert!(problem.path.starts_with("spec") || problem.path.starts_with("template \""), "{}", problem);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_changed_is_valid() {
    let reference = TemplateRef { name: "x".to_owned(), kind: TemplateKind::TaskTemplate };
    let templates = Templates::from([(reference, Arc::new(serde_json::from_value(template()).unwrap()))]);
    let spec = serde_json::from_value(valid()).unwrap();
    exercise(&compile(&spec, &templates).unwrap());
}
