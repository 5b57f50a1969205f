//! `compensate`: what it may be, what it may read, and what is made of it.

use super::*;
use crate::engine::graph::Role;

/// A task with this `compensate`, after `a` and before `z`.
fn undone(compensate: Value) -> Value {
    tasks(json!([
        {"name": "a"},
        {"name": "t", "dependsOn": ["a"], "compensate": compensate},
        {"name": "z", "dependsOn": ["t"]},
    ]))
}

#[test]
fn forms_and_places() {
    let container = json!({"container": {"image": "i"}});
    refused(vec![
        (
            undone(json!({})),
            &["spec.tasks[1].compensate: compensate has exactly one of container, job, templateRef; this one has none"],
        ),
        (
            undone(json!({"container": {}, "templateRef": {"name": "x"}})),
            &[
                "spec.tasks[1].compensate: compensate has exactly one of container, job, templateRef; this one has container and templateRef",
            ],
        ),
        (
            undone(json!({"container": {}, "arguments": {"a": 1}})),
            &["spec.tasks[1].compensate.arguments: arguments are for a task with templateRef"],
        ),
        (
            undone(json!({"container": {}, "timeout": "0s", "startTimeout": "x", "retry": {"limit": 101}})),
            &[
                "spec.tasks[1].compensate.timeout: \"0s\" is not a duration; write whole numbers above zero with units, as in \"90s\" or \"1h30m\" (ms, s, m, h, d)",
                "spec.tasks[1].compensate.startTimeout: \"x\" is not a duration; write whole numbers above zero with units, as in \"90s\" or \"1h30m\" (ms, s, m, h, d)",
                "spec.tasks[1].compensate.retry.limit: 101 is out of range: write 0 to 100",
            ],
        ),
        (
            tasks(json!([{"name": "d", "decision": {"branches": [{"name": "x"}]}, "compensate": container}])),
            &["spec.tasks[0].compensate: a decision does nothing that could be undone: compensate what comes after it"],
        ),
        (
            tasks(json!([{"name": "d", "delay": {"duration": "1s"}, "compensate": container}])),
            &["spec.tasks[0].compensate: a delay does nothing that could be undone: compensate what comes after it"],
        ),
        (
            with(
                tasks(json!([{"name": "a"}])),
                json!({"finally": [{"name": "f", "container": {}, "compensate": container}]}),
            ),
            &["spec.finally[0].compensate: a task of finally runs when all is decided, and is not compensated"],
        ),
        (
            with(tasks(json!([{"name": "a"}])), json!({"compensationTimeout": "soon"})),
            &[
                "spec.compensationTimeout: \"soon\" is not a duration; write whole numbers above zero with units, as in \"90s\" or \"1h30m\" (ms, s, m, h, d)",
            ],
        ),
    ]);
}

#[test]
fn at_most_so_many() {
    let list = |count: usize| {
        let undo = json!({"container": {}});
        let task = |place| json!({"name": format!("t{place}"), "compensate": undo});
        tasks(Value::Array((0..count).map(task).collect()))
    };
    assert_eq!(problems(list(MAX_COMPENSATIONS)), Vec::<String>::new());
    assert_eq!(problems(list(MAX_COMPENSATIONS + 1)), ["spec.tasks: 501 tasks with compensate; the limit is 500"]);
}

#[test]
fn what_it_may_read() {
    let env = |expression: &str| {
        undone(json!({"container": {"env": [{"name": "X", "value": format!("${{{{ {expression} }}}}")}]}}))
    };
    for good in ["tasks.t.outputs.id", "tasks.a.outputs.id", "attempt", "graph.uid", "tasks.t.attempts"] {
        assert_eq!(problems(env(good)), Vec::<String>::new(), "{good}");
    }
    refused(vec![
        (
            env("tasks.z.outputs.id"),
            &[
                "spec.tasks[1].compensate.container.env[0].value: task \"z\" does not come before the task that is undone, so it may not have run",
            ],
        ),
        (env("args.x"), &["spec.tasks[1].compensate.container.env[0].value: spec.arguments has no \"x\""]),
        (env("reason"), &["spec.tasks[1].compensate.container.env[0].value: reason is known only in retry.when"]),
    ]);
}

#[test]
fn templates_of_compensations() {
    let graph = |arguments: Value| {
        undone(json!({"templateRef": {"name": "undo"}, "arguments": arguments, "retry": {"limit": 2}}))
    };
    let used = templates(&[(
        "undo",
        json!({
            "parameters": [{"name": "id", "required": true}], "timeout": "9s", "retry": {"limit": 7},
            "container": {"image": "u", "env": [{"name": "ID", "value": "${{ args.id }}"}]},
        }),
    )]);
    assert_eq!(problems_with(graph(json!({"id": "${{ tasks.t.outputs.id }}"})), &used), Vec::<String>::new());
    let found = problems_with(graph(json!({})), &used);
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("spec.tasks[1].compensate.arguments: "), "{found:?}");
    let plan = compile(&spec(graph(json!({"id": 1}))), &used).unwrap();
    let undo = plan.graph.task(plan.graph.find_in_role(Role::Compensation, "t").unwrap());
    assert_eq!((undo.timeout, undo.retry.limit), (Some(Duration::from_secs(9)), 2));
    let refusal = compile(&spec(graph(json!({"id": 1}))), &Templates::new()).unwrap_err();
    assert_eq!(
        refusal.missing.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(),
        ["spec.tasks[1].compensate.templateRef"]
    );
}

#[test]
fn payloads_are_listed_with_their_paths() {
    let report = check(&spec(undone(json!({"job": {"template": {"spec": {}}}}))), &Templates::new());
    let paths: Vec<_> = report.payloads.iter().map(|payload| payload.path.as_str()).collect();
    assert!(paths.contains(&"spec.tasks[1].compensate.job.template"), "{paths:?}");
}

#[test]
fn what_undoes_a_task_stands_behind_all_tasks() {
    let container = json!({"container": {"image": "u"}});
    let graph = with(
        tasks(json!([
            {"name": "a", "compensate": container, "priority": 9},
            {"name": "b", "dependsOn": ["a"]},
            {"name": "c", "dependsOn": ["b"], "compensate": container},
            {"name": "d", "dependsOn": ["b"], "compensate": container},
            {"name": "e", "dependsOn": ["c", "a"], "compensate": container},
        ])),
        json!({"finally": [{"name": "f", "container": {}}]}),
    );
    let plan = compile(&spec(graph.clone()), &Templates::new()).unwrap();
    let graph_ = &plan.graph;
    assert_eq!((graph_.first_finally, graph_.first_compensation, graph_.tasks.len()), (5, 6, 10));
    let before: Vec<(&str, Vec<&str>)> = graph_
        .compensations()
        .map(|id| {
            let task = graph_.task(id);
            let before = task.dependencies.iter().map(|id| &*graph_.task(*id).name).collect();
            (&*task.name, before)
        })
        .collect();
    assert_eq!(before, [("a", vec!["c", "d", "e"]), ("c", vec!["e"]), ("d", vec![]), ("e", vec![])]);
    assert_eq!(graph_.task(graph_.compensations().next().unwrap()).priority, 9);
    assert!(graph_.ids().take(6).all(|id| graph_.task(id).dependencies.iter().all(|id| id.index() < 6)));
    // a task's hash is of what does it, not of what undoes it
    let alone = compile(&spec(tasks(json!([{"name": "a"}]))), &Templates::new()).unwrap();
    assert_eq!(graph_.tasks[0].hash, alone.graph.tasks[0].hash);
    assert_ne!(graph_.tasks[0].hash, graph_.tasks[6].hash);
}
