//! Where expressions may stand in payloads, and what may be done with their values.

use serde_json::{Value, json};

use super::{container, pod, problems, tasks, with};

const ELSEWHERE: &str =
    "`${{ }}` may stand only in env values, image, resources, nodeSelector, labels, annotations and claim names";

#[track_caller]
fn accepted(json: Value) {
    assert_eq!(problems(json.clone()), Vec::<String>::new(), "{json}");
}

/// Each has one problem, at this place of the task.
#[track_caller]
fn refused(cases: impl IntoIterator<Item = (Value, &'static str, &'static str)>) {
    for (json, at, why) in cases {
        let found = problems(json.clone());
        assert_eq!(found.len(), 1, "{json}: {found:?}");
        assert!(found[0].starts_with(&format!("spec.tasks[1].{at}: ")) && found[0].contains(why), "{json}: {found:?}");
    }
}

#[test]
fn places_of_expressions() {
    let e = "${{ tasks.a.outputs.x }}";
    let allowed = json!({"image": e, "resources": {"limits": {"cpu": e}}, "env": [{"name": "X", "value": e}]});
    for good in [
        container(allowed.clone()),
        pod(json!({
            "metadata": {"labels": {"a/b": e}, "annotations": {"c": e}},
            "spec": {
                "nodeSelector": {"n": e},
                "containers": [allowed], "initContainers": [allowed],
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": e}}],
            },
        })),
        container(json!({"env": "odd", "command": 3, "args": {"a": [null]}})),
        pod(json!({"metadata": [], "spec": {"containers": [3, {"env": [{"name": 3}, null]}], "volumes": {}}})),
    ] {
        accepted(good);
    }
    refused([
        (
            container(json!({"command": ["sh", "-c", e]})),
            "container.command[2]",
            "may not stand in a command or its args",
        ),
        (container(json!({"args": [e]})), "container.args[0]", "may not stand in a command or its args"),
        (
            container(json!({"livenessProbe": {"exec": {"command": [e]}}})),
            "container.livenessProbe.exec.command[0]",
            "may not stand in a command or its args",
        ),
        (container(json!({"securityContext": {"runAsUser": e}})), "container.securityContext.runAsUser", ELSEWHERE),
        (container(json!({"volumeMounts": [{"subPath": e}]})), "container.volumeMounts[0].subPath", ELSEWHERE),
        (container(json!({"env": [{"name": e, "value": "x"}]})), "container.env[0].name", ELSEWHERE),
        (
            container(json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": e}}}]})),
            "container.env[0].valueFrom.secretKeyRef.name",
            ELSEWHERE,
        ),
        (
            container(json!({"resources": {e: 1}})),
            "container.resources[\"${{ tasks.a.outputs.x }}\"]",
            "may not stand in the name of a field",
        ),
        (pod(json!({"spec": {"serviceAccountName": e}})), "job.template.spec.serviceAccountName", ELSEWHERE),
        (
            pod(json!({"spec": {"volumes": [{"hostPath": {"path": e}}]}})),
            "job.template.spec.volumes[0].hostPath.path",
            ELSEWHERE,
        ),
        (
            pod(json!({"spec": {"initContainers": [{"command": [e]}]}})),
            "job.template.spec.initContainers[0].command[0]",
            "may not stand in a command",
        ),
        (pod(json!({"metadata": {"name": e}})), "job.template.metadata.name", ELSEWHERE),
        (container(json!({"image": "${{ tasks.a.outputs.x"})), "container.image", "not closed"),
        (container(json!({"image": "x:${{ }}"})), "container.image", "is empty: put an expression in it"),
        (container(json!({"image": "${{ tasks.b.outputs.x }}"})), "container.image", "no task \"b\""),
    ]);
}

#[test]
fn environments() {
    let e = "${{ tasks.a.outputs.x }}";
    refused([
        (
            container(json!({"env": [{"name": "TASKGRAPH_X", "value": "1"}]})),
            "container.env[0].name",
            "names that begin with TASKGRAPH_ are reserved",
        ),
        (
            pod(json!({"spec": {"initContainers": [{"env": [{"name": "TASKGRAPH_NAME"}]}]}})),
            "job.template.spec.initContainers[0].env[0].name",
            "are reserved",
        ),
        (
            container(json!({"env": [{"name": "X", "value": "$${{ tasks.a.phase }}"}]})),
            "container.env[0].value",
            "as part of `$(NAME)`",
        ),
        (
            container(json!({"env": [{"name": "X", "value": "$(${{ tasks.a.phase }})"}]})),
            "container.env[0].value",
            "as part of `$(NAME)`",
        ),
        (
            container(json!({"env": [{"name": "X", "value": e}], "command": ["sh", "-c", "echo $(X)"]})),
            "container.command[2]",
            "$(X) would put the value of an expression here",
        ),
        (
            container(
                json!({"env": [{"name": "X", "value": e}, {"name": "Y", "value": "a $(X)"}], "args": ["$$(X)", "$$$(Y)"]}),
            ),
            "container.args[1]",
            "$(Y) would put the value of an expression here",
        ),
        (
            pod(
                json!({"spec": {"containers": [{"env": [{"name": "X", "value": e}], "volumeMounts": [{"subPathExpr": "$(X)"}]}]}}),
            ),
            "job.template.spec.containers[0].volumeMounts[0].subPathExpr",
            "$(X) would put the value of an expression here",
        ),
    ]);
    // variables of another container, or without an expression, may be used
    for good in [
        container(json!({"env": [{"name": "X", "value": "fixed"}], "command": ["$(X)", "$X", "${X}"]})),
        container(
            json!({"env": [{"name": "X", "value": e}, {"name": "Y", "value": "$$(X) $$${{ tasks.a.phase }} $(HOME)${{ tasks.a.phase }}"}], "command": ["$(Y"]}),
        ),
        pod(json!({"spec": {"containers": [{"env": [{"name": "X", "value": e}]}, {"command": ["$(X)"]}]}})),
    ] {
        accepted(good);
    }
}

#[test]
fn pod_defaults() {
    assert_eq!(
        problems(with(tasks(json!([{"name": "a"}])), json!({"podDefaults": {"labels": {"x": "${{ args.x }}"}}}))),
        ["spec.podDefaults.labels.x: `${{ }}` may not stand in podDefaults, which all tasks share"]
    );
}
