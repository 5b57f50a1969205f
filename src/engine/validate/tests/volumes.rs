//! Claims of a graph and the tasks that mount them.

use super::*;

fn claims(list: Value) -> Value {
    let mut graph = tasks(json!([{"name": "a"}]));
    graph["volumeClaimTemplates"] = list;
    graph
}

/// A graph with the claims `data` and `logs`, and one task with these fields.
fn mounting(task: Value) -> Value {
    let mut whole = json!({"name": "t"});
    for (name, value) in task.as_object().unwrap() {
        whole[name] = value.clone();
    }
    let mut graph = tasks(json!([whole]));
    graph["volumeClaimTemplates"] = json!([{"name": "data", "spec": {}}, {"name": "logs", "spec": {}}]);
    graph
}

#[test]
fn claims_have_names_and_no_expressions() {
    refused(vec![
        (claims(json!([{"name": "data", "spec": {}}, {"name": "logs", "spec": {}, "labels": {"a": "b"}}])), &[]),
        (
            claims(json!([{"name": "data", "spec": {}}, {"name": "data", "spec": {}}])),
            &["spec.volumeClaimTemplates[1].name: \"data\" is the name of volumeClaimTemplates[0] already"],
        ),
        (
            claims(json!([{"name": "My_Data", "spec": {}}])),
            &[
                "spec.volumeClaimTemplates[0].name: \"My_Data\" is no DNS label: write lower-case letters, digits and dashes, with a letter or digit at both ends",
            ],
        ),
        (
            claims(
                json!([{"name": "data", "labels": {"a": "${{ args.a }}"}, "spec": {"storageClassName": "${{ args.a }}"}}]),
            ),
            &[
                "spec.volumeClaimTemplates[0].labels.a: `${{ }}` may not stand in a claim, which is made before any task runs",
                "spec.volumeClaimTemplates[0].spec.storageClassName: `${{ }}` may not stand in a claim, which is made before any task runs",
            ],
        ),
        (
            claims((0..17).map(|number| json!({"name": format!("v{number}"), "spec": {}})).collect()),
            &["spec.volumeClaimTemplates: 17 claims; the limit is 16"],
        ),
    ]);
}

#[test]
fn mounts_name_claims_and_clean_paths() {
    refused(vec![
        (
            mounting(json!({"volumes": [
                {"name": "data", "mountPath": "/data"}, {"name": "data", "mountPath": "/in", "subPath": "a/b", "readOnly": true},
                {"name": "logs", "mountPath": "/logs"},
            ]})),
            &[],
        ),
        (
            mounting(json!({"volumes": [{"name": "dta", "mountPath": "/data"}]})),
            &["spec.tasks[0].volumes[0].name: spec.volumeClaimTemplates has no \"dta\" (did you mean \"data\"?)"],
        ),
        (
            mounting(json!({"volumes": [
                {"name": "data", "mountPath": "data"}, {"name": "data", "mountPath": "/a:b"}, {"name": "data", "mountPath": "/a/../b"},
                {"name": "data", "mountPath": "/"},
            ]})),
            &[
                "spec.tasks[0].volumes[0].mountPath: \"data\" is no place for a volume: write an absolute path below / without `..` and `:`",
                "spec.tasks[0].volumes[1].mountPath: \"/a:b\" is no place for a volume: write an absolute path below / without `..` and `:`",
                "spec.tasks[0].volumes[2].mountPath: \"/a/../b\" is no place for a volume: write an absolute path below / without `..` and `:`",
                "spec.tasks[0].volumes[3].mountPath: \"/\" is no place for a volume: write an absolute path below / without `..` and `:`",
            ],
        ),
        (
            mounting(json!({"volumes": [
                {"name": "data", "mountPath": "/a", "subPath": "/x"}, {"name": "data", "mountPath": "/b", "subPath": "../x"},
                {"name": "data", "mountPath": "/c", "subPath": "${{ args.x }}"},
            ]})),
            &[
                "spec.tasks[0].volumes[0].subPath: \"/x\" is no folder of a volume: write a relative path without `..`",
                "spec.tasks[0].volumes[1].subPath: \"../x\" is no folder of a volume: write a relative path without `..`",
                "spec.tasks[0].volumes[2].subPath: `${{ }}` may not stand in the path of a volume",
            ],
        ),
        (
            mounting(json!({"volumes": [{"name": "data", "mountPath": "/a"}, {"name": "logs", "mountPath": "/a/"}]})),
            &["spec.tasks[0].volumes[1].mountPath: volumes[0] is mounted at \"/a\" already"],
        ),
        (
            mounting(json!({"volumes": [{"name": "data", "mountPath": "/a", "container": "main"}]})),
            &["spec.tasks[0].volumes[0].container: a task with `container` has only the one: leave it out"],
        ),
        (
            mounting(
                json!({"compensate": {"container": {"image": "i"}, "volumes": [{"name": "data", "mountPath": "/a"}, {"name": "dat", "mountPath": "/b"}]}}),
            ),
            &[
                "spec.tasks[0].compensate.volumes[1].name: spec.volumeClaimTemplates has no \"dat\" (did you mean \"data\"?)",
            ],
        ),
        (
            mounting(
                json!({"decision": {"branches": [{"name": "x"}]}, "volumes": [{"name": "data", "mountPath": "/a"}]}),
            ),
            &["spec.tasks[0].volumes: a decision has no Job: volumes has no meaning"],
        ),
        (
            with(
                tasks(json!([{"name": "a"}])),
                json!({"finally": [{"name": "f", "container": {"image": "i"}, "volumes": [{"name": "data", "mountPath": "/a"}]}]}),
            ),
            &["spec.finally[0].volumes[0].name: spec.volumeClaimTemplates has no \"data\""],
        ),
    ]);
}

#[test]
fn mounts_do_not_clash_with_the_pod() {
    let job = |volumes: Value| {
        mounting(json!({
            "job": {"template": {
                "metadata": {"annotations": {"kubectl.kubernetes.io/default-container": "work"}},
                "spec": {
                    "initContainers": [{"name": "prepare"}],
                    "containers": [
                        {"name": "side", "volumeMounts": [{"name": "own", "mountPath": "/side"}]},
                        {"name": "work", "volumeMounts": [{"name": "own", "mountPath": "/work/"}]},
                    ],
                    "volumes": [{"name": "own", "emptyDir": {}}, {"name": "logs", "emptyDir": {}}],
                },
            }},
            "volumes": volumes,
        }))
    };
    refused(vec![
        (
            job(
                json!([{"name": "data", "mountPath": "/side"}, {"name": "data", "mountPath": "/work", "container": "side"}]),
            ),
            &[],
        ),
        (
            job(
                json!([{"name": "data", "mountPath": "/data", "container": "prepare"}, {"name": "data", "mountPath": "/data"}]),
            ),
            &[],
        ),
        (
            job(json!([{"name": "data", "mountPath": "/work"}])),
            &["spec.tasks[0].volumes[0].mountPath: volume \"own\" of the pod template is mounted at \"/work\" already"],
        ),
        (
            job(json!([{"name": "logs", "mountPath": "/logs"}])),
            &[
                "spec.tasks[0].volumes[0].name: the pod template has a volume \"logs\" of its own: give one another name",
            ],
        ),
        (
            job(json!([{"name": "data", "mountPath": "/data", "container": "prepaer"}])),
            &[
                "spec.tasks[0].volumes[0].container: the pod template has no container \"prepaer\" (did you mean \"prepare\"?)",
            ],
        ),
    ]);
    // a template's pod is looked at just so
    let template =
        json!({"job": {"template": {"spec": {"containers": [{"name": "x"}], "volumes": [{"name": "data"}]}}}});
    let mut graph =
        mounting(json!({"templateRef": {"name": "t"}, "volumes": [{"name": "data", "mountPath": "/data"}]}));
    assert_eq!(
        problems_with(graph.clone(), &templates(&[("t", template)])),
        ["spec.tasks[0].volumes[0].name: the pod template has a volume \"data\" of its own: give one another name"]
    );
    graph["tasks"][0]["volumes"][0]["name"] = "logs".into();
    assert_eq!(problems_with(graph, &templates(&[("t", json!({"container": {"image": "i"}}))])), Vec::<String>::new());
}

#[test]
fn nothing_is_mounted_into_a_template_that_has_an_account() {
    let template =
        |pod: Value| json!({"job": {"template": {"spec": with(json!({"containers": [{"name": "x"}]}), pod)}}});
    let volumes = json!([{"name": "data", "mountPath": "/bin"}]);
    let message = "the template's pod runs as the service account \"deployer\", and with it whatever is mounted into it: let the \
        template name its volumes itself, or leave the account out of it and write it in podDefaults";
    let mounts = mounting(json!({"templateRef": {"name": "t"}, "volumes": volumes}));
    let undoes = mounting(json!({"container": {}, "compensate": {"templateRef": {"name": "t"}, "volumes": volumes}}));
    for (graph, pod, expected) in [
        (&mounts, json!({"serviceAccountName": "deployer"}), vec![format!("spec.tasks[0].volumes: {message}")]),
        (&mounts, json!({"serviceAccount": "deployer"}), vec![format!("spec.tasks[0].volumes: {message}")]),
        (
            &undoes,
            json!({"serviceAccountName": "deployer"}),
            vec![format!("spec.tasks[0].compensate.volumes: {message}")],
        ),
        (&mounts, json!({"serviceAccountName": "default"}), vec![]),
        (&mounts, json!({}), vec![]),
        (&mounting(json!({"templateRef": {"name": "t"}})), json!({"serviceAccountName": "deployer"}), vec![]),
    ] {
        assert_eq!(problems_with(graph.clone(), &templates(&[("t", template(pod))])), expected, "{graph}");
    }
    // the graph's own account is that of who wrote the graph
    let mut own = mounts.clone();
    own["podDefaults"] = json!({"serviceAccountName": "deployer"});
    assert_eq!(problems_with(own, &templates(&[("t", template(json!({})))])), Vec::<String>::new());
}

#[test]
fn mounts_are_part_of_what_attempts_are_made_from() {
    let hash = |volumes: Value| {
        compile(&spec(mounting(json!({"volumes": volumes}))), &Templates::new()).unwrap().graph.tasks[0].hash
    };
    let none = hash(json!([]));
    let plain = compile(&spec(tasks(json!([{"name": "t"}]))), &Templates::new()).unwrap().graph.tasks[0].hash;
    assert_eq!(none, plain, "claims that a task does not mount mean nothing to it");
    let data = hash(json!([{"name": "data", "mountPath": "/data"}]));
    assert_ne!(none, data);
    assert_ne!(data, hash(json!([{"name": "data", "mountPath": "/data", "readOnly": true}])));
}
