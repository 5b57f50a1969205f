//! The one entry for checking what users write: webhook, controller and command line call only this.

use std::{collections::BTreeSet, sync::Arc};

use serde_json::{Map, Value};

use crate::{
    api::{Task, TaskGraphSpec, TaskTemplateSpec, TemplateRef},
    engine::{self, Plan, Problem, Refusal, Templates},
    jobs,
};

/// Checks a graph: the rules of graphs and the types of Kubernetes together. `name` is the graph's, where it has one yet.
///
/// Every problem is reported at once, in the order of the spec, templates last. Not to be called where others wait: a
/// large graph takes tens of milliseconds.
pub fn check(name: Option<&str>, spec: &TaskGraphSpec, templates: &Templates) -> Result<Plan, Refusal> {
    let report = engine::validate::check(spec, templates);
    let (plan, refusal) = match report.outcome {
        Ok(plan) => (Some(plan), Refusal::default()),
        Err(refusal) => (None, refusal),
    };
    let Refusal { mut problems, missing } = refusal;
    let told: BTreeSet<String> = problems.iter().map(|problem| problem.path.clone()).collect();
    let named = name.and_then(jobs::name::check).map(|message| Problem { path: "metadata.name".into(), message });
    let own = spec.pod_defaults.iter().map(|defaults| ("spec.podDefaults", defaults));
    let templates = report.defaults.iter().map(|(path, defaults)| (path.as_str(), defaults));
    let defaults = own.chain(templates).flat_map(|(path, defaults)| jobs::check::check_defaults(defaults, path));
    let claims = report.claims.iter().flat_map(|(path, claim)| jobs::check::check_claim(claim, path));
    let payloads =
        report.payloads.iter().flat_map(|payload| jobs::check::check(payload.kind, &payload.source, &payload.path));
    // of two problems of one field the first is enough
    problems.extend(
        named.into_iter().chain(defaults).chain(claims).chain(payloads).filter(|problem| !told.contains(&problem.path)),
    );
    problems.sort_by_key(|problem| place(&problem.path));
    match plan {
        Some(plan) if problems.is_empty() => Ok(plan),
        _ => Err(Refusal { problems, missing }),
    }
}

/// Checks a template for itself, as a task would use it. `templates`: those that it may run itself; of one that is not
/// there nothing is said.
pub fn check_template(reference: &TemplateRef, template: &TaskTemplateSpec, templates: &Templates) -> Vec<Problem> {
    // an expression, as its type is not known before the graph runs
    let arguments: Map<String, Value> = template
        .parameters
        .iter()
        .filter(|parameter| parameter.required)
        .map(|parameter| (parameter.name.clone(), "${{ graph.name }}".into()))
        .collect();
    let arguments = Some(arguments).filter(|arguments| !arguments.is_empty());
    let task = Task { name: "task".to_owned(), template_ref: Some(reference.clone()), arguments, ..Task::default() };
    let graph = TaskGraphSpec { tasks: vec![task], ..TaskGraphSpec::default() };
    let mut templates = templates.clone();
    templates.insert(reference.clone(), Arc::new(template.clone()));
    let problems = check(None, &graph, &templates).err().map(|refusal| refusal.problems).unwrap_or_default();
    // what is wrong with the others is told of them
    let title = format!("{}: ", engine::validate::title(reference));
    let own = |problem: Problem| {
        let path = match problem.path.strip_prefix(&title) {
            Some(path) => path.to_owned(),
            None if engine::validate::is_shared(&problem) => "spec.graph".to_owned(),
            None => return None,
        };
        Some(Problem { path, ..problem })
    };
    problems.into_iter().filter_map(own).collect()
}

/// Where a field path stands in the order of a spec: the graph itself, tasks by number, `finally` by number, templates.
fn place(path: &str) -> (u8, usize) {
    for (list, rank) in [("spec.tasks[", 1), ("spec.finally[", 2)] {
        let number =
            path.strip_prefix(list).and_then(|rest| rest.split_once(']')).and_then(|(number, _)| number.parse().ok());
        if let Some(number) = number {
            return (rank, number);
        }
    }
    (if path.starts_with("template ") { 3 } else { 0 }, 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problems(name: Option<&str>, spec: Value, templates: Value) -> Vec<String> {
        let spec: TaskGraphSpec = serde_json::from_value(spec).unwrap();
        let templates: Vec<(String, TaskTemplateSpec)> = serde_json::from_value(templates).unwrap();
        let templates = templates
            .into_iter()
            .map(|(name, template)| (TemplateRef { name, ..TemplateRef::default() }, Arc::new(template)))
            .collect();
        let refusal = check(name, &spec, &templates).err().unwrap_or_default();
        refusal.problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_good_graph() {
        let spec = json!({
            "tasks": [{"name": "a", "container": {"image": "i"}}, {"name": "b", "dependsOn": ["a"], "templateRef": {"name": "t"}}],
        });
        let none: [String; 0] = [];
        assert_eq!(problems(Some("g"), spec, json!([["t", {"container": {"image": "i"}}]])), none);
    }

    #[test]
    fn all_problems_at_once_in_the_order_of_the_spec() {
        let spec = json!({
            "podDefaults": {"tolerations": [{"operater": "Exists"}]},
            "tasks": [
                {"name": "a", "dependsOn": ["biuld"], "container": {"comand": []}},
                {"name": "build", "container": {"image": "i", "command": ["${{ args.x }}"], "env": [{"name": "TASKGRAPH_X", "value": 1}]}},
                {"name": "c", "templateRef": {"name": "t"}},
                {"name": "d", "templateRef": {"name": "t"}, "dependsOn": ["cc"]},
            ],
            "finally": [{"name": "e", "job": {"template": {"spec": {"restartPolicy": "Always", "containers": []}}}}],
        });
        let templates = json!([["t", {"container": {"image": "i", "tty": 1}}]]);
        let found = problems(Some("A"), spec, templates);
        let paths: Vec<_> = found.iter().map(|problem| problem.split(": ").next().unwrap_or_default()).collect();
        assert_eq!(
            paths,
            [
                "metadata.name",
                "spec.podDefaults.tolerations[0].operater",
                "spec.tasks[0].dependsOn[0]",
                "spec.tasks[0].container.comand",
                "spec.tasks[0].container.image",
                "spec.tasks[1].container.command[0]",
                "spec.tasks[1].container.env[0].name",
                "spec.tasks[1].container.env[0].value",
                "spec.tasks[3].dependsOn[0]",
                "spec.finally[0].job.template.spec.restartPolicy",
                "spec.finally[0].job.template.spec.containers",
                "template \"t\" (TaskTemplate)",
            ],
            "{found:#?}"
        );
    }

    #[test]
    fn templates_alone() {
        let check = |template: Value| -> Vec<String> {
            let template = serde_json::from_value(template).unwrap();
            let reference = TemplateRef { name: "t".to_owned(), ..TemplateRef::default() };
            check_template(&reference, &template, &Templates::new()).iter().map(ToString::to_string).collect()
        };
        let none: [String; 0] = [];
        let parameters = json!([{"name": "a", "required": true, "type": "integer"}, {"name": "b"}]);
        let env = json!([{"name": "A", "value": "${{ args.a }}"}]);
        assert_eq!(check(json!({"parameters": parameters, "container": {"image": "i", "env": env}})), none);
        let wrong = check(
            json!({"parameters": parameters, "timeout": "0s", "container": {"imag": "i", "env": [{"name": "A", "value": "${{ args.c }}"}]}}),
        );
        let paths: Vec<_> = wrong.iter().map(|problem| problem.split(": ").next().unwrap_or_default()).collect();
        assert_eq!(
            paths,
            ["spec.timeout", "spec.container.env[0].value", "spec.container.imag", "spec.container.image"],
            "{wrong:#?}"
        );
    }

    #[test]
    fn graph_templates_alone_and_with_those_that_they_run() {
        let reference = |name: &str| TemplateRef { name: name.to_owned(), ..TemplateRef::default() };
        let check = |template: Value, others: Value| -> Vec<String> {
            let others: Vec<(String, TaskTemplateSpec)> = serde_json::from_value(others).unwrap();
            let others = others.into_iter().map(|(name, template)| (reference(&name), Arc::new(template))).collect();
            let template = serde_json::from_value(template).unwrap();
            check_template(&reference("a"), &template, &others).iter().map(ToString::to_string).collect()
        };
        let runs = |name: &str| {
            json!({"parameters": [{"name": "p", "required": true}],
            "graph": {"tasks": [{"name": "t", "templateRef": {"name": name}, "arguments": {"p": "${{ args.p }}"}}]}})
        };
        let none: [String; 0] = [];
        assert_eq!(check(runs("gone"), json!([])), none, "what is not there cannot be judged");
        assert_eq!(
            check(runs("b"), json!([["b", {"container": {"image": "i"}}]])),
            ["spec.graph.tasks[0].arguments.p: template \"b\" (TaskTemplate) has no parameter \"p\""]
        );
        let itself = check(runs("a"), json!([]));
        assert_eq!(itself, ["spec.graph.tasks[0].templateRef: a graph template cannot run itself: a → a"]);
        for (other, way) in [("a", "a → b → a"), ("b", "a → b → b")] {
            let found = check(runs("b"), json!([["b", runs(other)]]));
            assert_eq!(found, [format!("spec.graph: a graph template cannot run itself: {way}")]);
        }

        let wrong = json!({"graph": {
            "podDefaults": {"tolerations": [{"operater": "Exists"}]}, "ttlAfterFinished": "1h",
            "tasks": [{"name": "t", "container": {"imag": "i"}}],
        }});
        let paths: Vec<_> = check(wrong, json!([]))
            .iter()
            .filter_map(|problem| problem.split_once(": ").map(|(path, _)| path.to_owned()))
            .collect();
        assert_eq!(
            paths,
            [
                "spec.graph.ttlAfterFinished",
                "spec.graph.podDefaults.tolerations[0].operater",
                "spec.graph.tasks[0].container.imag",
                "spec.graph.tasks[0].container.image",
            ]
        );
    }
}
