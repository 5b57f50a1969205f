//! A table of bad containers and templates, and of good ones.

#![allow(clippy::needless_pass_by_value, reason = "json! gives values")]

use serde_json::json;

use super::*;

fn container(value: &Value) -> Vec<String> {
    check(PayloadKind::Container, value, "c").iter().map(ToString::to_string).collect()
}

fn template(value: &Value) -> Vec<String> {
    check(PayloadKind::PodTemplate, value, "t").iter().map(ToString::to_string).collect()
}

/// A template of one container, with `extra` merged into its spec.
fn pod(extra: Value) -> Value {
    let mut spec = json!({"containers": [{"name": "main", "image": "i"}]});
    if let (Some(spec), Value::Object(extra)) = (spec.as_object_mut(), extra) {
        spec.extend(extra);
    }
    json!({"spec": spec})
}

#[test]
fn good_ones_pass() {
    let none: [String; 0] = [];
    assert_eq!(container(&json!({"image": "i"})), none);
    assert_eq!(
        container(&json!({
            "name": "main", "image": "registry/x:${{ args.tag }}", "command": ["sh", "-c", "echo"], "imagePullPolicy": "Never",
            "env": [{"name": "A", "value": "${{ args.a }}"}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
            "envFrom": [{"configMapRef": {"name": "c"}}],
            "resources": {"requests": {"cpu": "${{ args.cpu }}", "memory": "1Gi"}, "limits": {"cpu": 2}},
            "securityContext": {"runAsNonRoot": true, "capabilities": {"drop": ["ALL"]}},
            "ports": [{"containerPort": 80, "name": null}],
        })),
        none
    );
    assert_eq!(
        template(&json!({
            "metadata": {
                "creationTimestamp": null,
                "labels": {"app.kubernetes.io/name": "x", "team": "${{ args.team }}", "empty": ""},
                "annotations": {"kubectl.kubernetes.io/default-container": "work", "note": "any text: äöü"},
            },
            "spec": {
                "restartPolicy": "Never",
                "schedulingGates": [{"name": "example.com/gate"}],
                "initContainers": [{"name": "sidecar", "image": "i", "restartPolicy": "Always"}, {"name": "init", "image": "i"}],
                "containers": [{"name": "work", "image": "i", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "${{ args.claim }}"}}],
                "nodeSelector": {"zone": "${{ args.zone }}"},
                "tolerations": [{"operator": "Exists"}],
            },
        })),
        none
    );
}

#[test]
fn bad_containers() {
    for (value, expected) in [
        (json!({"image": "i", "comand": []}), &["c.comand: unknown field (did you mean \"command\"?)"][..]),
        (json!({"image": "i", "zzzzzz": 1}), &["c.zzzzzz: unknown field; known are the fields of Kubernetes 1.34"]),
        (json!({}), &["c.image: required, but missing"]),
        (json!({"image": ""}), &["c.image: \"\" is no image"]),
        (json!({"image": " i"}), &["c.image: \" i\" is no image"]),
        (json!({"image": null}), &["c.image: required, but missing"]),
        (json!([]), &["c: expected an object, found a list"]),
        (
            json!({"image": "i", "name": "Main"}),
            &[
                "c.name: \"Main\" is no DNS label: use 1 to 63 lower-case letters, digits and dashes, with a letter or digit at both ends",
            ],
        ),
        (
            json!({"image": "i", "env": [{"name": "A"}, {"name": "A"}, {"name": "A=B"}, {"name": ""}]}),
            &[
                "c.env[1].name: there is another variable \"A\"",
                "c.env[2].name: \"A=B\" cannot be the name of a variable",
                "c.env[3].name: \"\" cannot be the name of a variable",
            ],
        ),
        (
            json!({"image": "i", "env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
            &["c.env[0].valueFrom: cannot stand beside value"],
        ),
        (
            json!({"image": "i", "imagePullPolicy": "IfNotPresnt"}),
            &[
                "c.imagePullPolicy: \"IfNotPresnt\" is none of Always, IfNotPresent, Never (did you mean \"IfNotPresent\"?)",
            ],
        ),
        (
            json!({"image": "i", "restartPolicy": "Always"}),
            &["c.restartPolicy: a task's container is never restarted: leave it out; use the task's retry"],
        ),
        (
            json!({"image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}),
            &[
                "c.volumeMounts[0]: a container of its own has no volumes: mount those of the graph by the task's volumes, or write the task as job.template",
            ],
        ),
        (
            json!({"image": "i", "ports": [{"containerPort": "${{ args.port }}"}]}),
            &[
                "c.ports[0].containerPort: expected a whole number, found the text \"${{ args.port }}\"; an expression gives a text, so it cannot stand here",
            ],
        ),
        (
            json!({"image": "i", "resources": {"limits": {"cpu": "1x"}}}),
            &[
                "c.resources.limits.cpu: \"1x\" is no quantity; write a number with a unit, as in \"500m\", \"2\" or \"1Gi\"",
            ],
        ),
    ] {
        assert_eq!(container(&value), expected, "{value}");
    }
}

#[test]
fn bad_templates() {
    let owned = "belongs to the operator: of metadata only labels and annotations may be given";
    let reserved = "belongs to the operator or to Kubernetes' own Job controller: take another name";
    for (value, expected) in [
        (json!({}), vec!["t.spec: required, but missing".to_owned()]),
        (json!({"spec": {}}), vec!["t.spec.containers: required, but missing".to_owned()]),
        (pod(json!({"containers": []})), vec!["t.spec.containers: needs at least one container".to_owned()]),
        (pod(json!({"containers": [{"image": "i"}]})), vec!["t.spec.containers[0].name: required, but missing".to_owned()]),
        (
            pod(json!({"initContainers": [{"name": "main", "image": "i"}]})),
            vec![
                "t.spec.containers[0].name: there is another container \"main\"".to_owned(),
            ],
        ),
        (
            pod(json!({"restartPolicy": "OnFailure"})),
            vec!["t.spec.restartPolicy: is \"OnFailure\", but a task's pod is never restarted: leave it out; use the task's retry".to_owned()],
        ),
        (
            pod(json!({"activeDeadlineSeconds": 5})),
            vec!["t.spec.activeDeadlineSeconds: belongs to the operator; use the task's timeout".to_owned()],
        ),
        (
            pod(json!({"ephemeralContainers": [{"name": "x"}]})),
            vec!["t.spec.ephemeralContainers: belongs to the operator; a task's pod starts without any".to_owned()],
        ),
        (
            pod(json!({"nodeName": "m", "overhead": {"cpu": "1"}, "priority": 5, "zzz": 1})),
            vec![
                "t.spec.zzz: unknown field; known are the fields of Kubernetes 1.34".to_owned(),
                "t.spec.nodeName: is the scheduler's to say, which heeds taints and free room: use nodeSelector or affinity".to_owned(),
                "t.spec.overhead: comes from the runtime class: use runtimeClassName".to_owned(),
                "t.spec.priority: comes from the priority class: use priorityClassName".to_owned(),
            ],
        ),
        (
            pod(json!({"containers": [{"name": "a", "image": "i", "restartPolicyRules": [{"action": "Restart"}]}]})),
            vec!["t.spec.containers[0].restartPolicyRules: restarts inside a pod would be attempts that nobody counts; use the task's retry".to_owned()],
        ),
        // an object inside the template
        (
            pod(json!({"volumes": [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {
                "metadata": {"labels": {"taskgraph.dev/x": "y"}, "ownerReferences": [], "namespace": "other"}, "spec": {},
            }}}]})),
            vec![
                format!("t.spec.volumes[0].ephemeral.volumeClaimTemplate.metadata.ownerReferences: {owned}"),
                format!("t.spec.volumes[0].ephemeral.volumeClaimTemplate.metadata.namespace: {owned}"),
                format!("t.spec.volumes[0].ephemeral.volumeClaimTemplate.metadata.labels[\"taskgraph.dev/x\"]: {reserved}"),
            ],
        ),
        (
            pod(json!({"volumes": [{"name": "data"}, {"name": "data"}], "containers": [
                {"name": "a", "image": "i", "volumeMounts": [{"name": "dta", "mountPath": "/a"}, {"name": "data", "mountPath": "/a"}]},
            ]})),
            vec![
                "t.spec.containers[0].volumeMounts[1].mountPath: there is another mount at \"/a\"".to_owned(),
                "t.spec.volumes[1].name: there is another volume \"data\"".to_owned(),
                "t.spec.containers[0].volumeMounts[0].name: no volume \"dta\" (did you mean \"data\"?)".to_owned(),
            ],
        ),
        (
            json!({"metadata": {"name": "x", "namespace": "y", "ownerReferences": [], "finalizers": ["f"]}, "spec": pod(json!({}))["spec"]}),
            ["name", "namespace", "ownerReferences", "finalizers"].map(|key| format!("t.metadata.{key}: {owned}")).to_vec(),
        ),
        (
            json!({
                "metadata": {
                    "labels": {"taskgraph.dev/graph": "x", "job-name": "x", "batch.kubernetes.io/job-name": "y", "a b": "", "ok": "-x", "long": "x".repeat(64)},
                    "annotations": {"taskgraph.dev/definition-hash": "x", "kubectl.kubernetes.io/default-container": "man"},
                },
                "spec": pod(json!({}))["spec"],
            }),
            vec![
                format!("t.metadata.labels[\"taskgraph.dev/graph\"]: {reserved}"),
                format!("t.metadata.labels.job-name: {reserved}"),
                format!("t.metadata.labels[\"batch.kubernetes.io/job-name\"]: {reserved}"),
                "t.metadata.labels[\"a b\"]: is no valid key: at most 63 letters, digits, '-', '_' and '.', after a domain and '/' if you like".to_owned(),
                "t.metadata.labels.ok: \"-x\" is no label value: at most 63 letters, digits, '-', '_' and '.', a letter or digit at both ends".to_owned(),
                format!("t.metadata.labels.long: {:?} is no label value: at most 63 letters, digits, '-', '_' and '.', a letter or digit at both ends", "x".repeat(64)),
                format!("t.metadata.annotations[\"taskgraph.dev/definition-hash\"]: {reserved}"),
                "t.metadata.annotations[\"kubectl.kubernetes.io/default-container\"]: no container \"man\" (did you mean \"main\"?)".to_owned(),
            ],
        ),
    ] {
        assert_eq!(template(&value), expected, "{value}");
    }
}

/// What opens the machine to a pod is for Pod Security to judge, of this pod as of any other: it goes through as it was
/// written.
#[test]
fn pod_security_is_the_judge_of_what_a_pod_may_do_to_its_machine() {
    let none: [String; 0] = [];
    for spec in [
        json!({"volumes": [{"name": "machine", "hostPath": {"path": "/"}}]}),
        json!({"hostNetwork": true, "hostPID": true, "hostIPC": true}),
        json!({"containers": [{"name": "main", "image": "i", "securityContext": {"privileged": true, "capabilities": {"add": ["ALL"]}}}]}),
        json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}),
        json!({"automountServiceAccountToken": true, "serviceAccountName": "deployer"}),
    ] {
        assert_eq!(template(&pod(spec.clone())), none, "{spec}");
    }
}

#[test]
fn defaults_of_pods() {
    let defaults: PodDefaults = serde_json::from_value(json!({
        "labels": {"taskgraph.dev/x": "y"},
        "tolerations": [{"operater": "Exists"}],
        "securityContext": {"runAsUser": "0"},
        "nodeSelector": {"a": "b"},
    }))
    .unwrap();
    let problems: Vec<_> = check_defaults(&defaults, "spec.podDefaults").iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            "spec.podDefaults.tolerations[0].operater: unknown field (did you mean \"operator\"?)",
            "spec.podDefaults.securityContext.runAsUser: expected a whole number, found the text \"0\"",
            "spec.podDefaults.labels[\"taskgraph.dev/x\"]: belongs to the operator or to Kubernetes' own Job controller: take another name",
        ]
    );
    assert_eq!(check_defaults(&PodDefaults::default(), "spec.podDefaults"), []);
}

proptest::proptest! {
    #[test]
    fn never_panics(value in crate::jobs::strict::tests::json()) {
        check(PayloadKind::Container, &value, "c");
        check(PayloadKind::PodTemplate, &value, "t");
        // what the operator makes of it is a Job, however broken the template
        let graph = crate::engine::Identity { name: "g".into(), namespace: "n".into(), uid: "u".into() };
        for kind in [PayloadKind::Container, PayloadKind::PodTemplate] {
            let order = crate::jobs::Order {
                role: crate::engine::Role::Task,
                graph: &graph, task: "t", attempt: 1, item: None,
                definition: 0, timeout: None, kind, rendered: &value, defaults: None,
                items: None,
                volumes: &[],
            };
            proptest::prop_assert!(order.build()["spec"]["template"]["spec"].is_object());
        }
    }
}

#[test]
fn claims() {
    let claim = |change: Value| -> Vec<String> {
        let mut claim = json!({
            "name": "data",
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        });
        for (path, value) in change.as_object().unwrap() {
            let (parent, key) = path.rsplit_once('/').unwrap();
            claim.pointer_mut(parent).unwrap()[key] = value.clone();
        }
        let claim = serde_json::from_value(claim).unwrap();
        check_claim(&claim, "v").iter().map(ToString::to_string).collect()
    };
    let missing = "required, but missing: how large the volume must be, as \"1Gi\"";
    let modes = "ReadWriteOnce, ReadOnlyMany, ReadWriteMany, ReadWriteOncePod";
    for (change, expected) in [
        (json!({}), vec![]),
        (json!({"/spec/storageClassName": "fast", "/spec/volumeMode": "Filesystem", "/labels": {"team": "x"}}), vec![]),
        (
            json!({"/spec/storageClasName": "fast"}),
            vec!["v.spec.storageClasName: unknown field (did you mean \"storageClassName\"?)".to_owned()],
        ),
        (
            json!({"/spec/accessModes": []}),
            vec![format!("v.spec.accessModes: required, but missing: write some of {modes}")],
        ),
        (
            json!({"/spec/accessModes": ["ReadWriteOnly"]}),
            vec![format!("v.spec.accessModes[0]: \"ReadWriteOnly\" is none of {modes} (did you mean \"ReadWriteOnce\"?)")],
        ),
        (json!({"/spec/resources": {}}), vec![format!("v.spec.resources.requests.storage: {missing}")]),
        (json!({"/spec/resources": Value::Null}), vec![format!("v.spec.resources.requests.storage: {missing}")]),
        (
            json!({"/spec/resources/requests/storage": "1 GB"}),
            vec!["v.spec.resources.requests.storage: \"1 GB\" is no quantity; write a number with a unit, as in \"500m\", \"2\" or \"1Gi\"".to_owned()],
        ),
        (
            json!({"/labels": {"taskgraph.dev/graph": "x"}}),
            vec!["v.labels[\"taskgraph.dev/graph\"]: belongs to the operator or to Kubernetes' own Job controller: take another name".to_owned()],
        ),
    ] {
        assert_eq!(claim(change.clone()), expected, "{change}");
    }
}
