#![allow(clippy::needless_pass_by_value, reason = "json! gives values")]

use serde_json::{Value, json};

use super::*;
use crate::engine::{Templates, compile, graph::ForEachDef};
use crate::{api::VolumeClaimTemplate, jobs::name::claim_name};

const UID: &str = "8a2f6f0e-5a52-4d63-9d0d-7f3b8a1f2c11";

fn graph() -> Identity {
    Identity { name: "data".into(), namespace: "shop".into(), uid: UID.into() }
}

fn order<'a>(graph: &'a Identity, kind: PayloadKind, rendered: &'a Value) -> Order<'a> {
    Order {
        graph,
        role: Role::Task,
        task: "extract",
        attempt: 2,
        item: None,
        definition: 0xab,
        timeout: None,
        kind,
        rendered,
        defaults: None,
        items: None,
        volumes: &[],
    }
}

/// The rule of a task with `forEach`.
fn rule(rule: Value) -> ForEachDef {
    let spec = json!({"tasks": [{"name": "a", "container": {"image": "i"}, "forEach": rule}]});
    let plan = compile(&serde_json::from_value(spec).unwrap(), &Templates::new()).unwrap();
    let graph = std::sync::Arc::try_unwrap(plan.graph).unwrap();
    graph.tasks.into_iter().next().and_then(|task| task.for_each).unwrap()
}

fn labels() -> Value {
    json!({
        "taskgraph.dev/graph": "data", "taskgraph.dev/graph-uid": UID, "taskgraph.dev/role": "task",
        "taskgraph.dev/task": "extract", "taskgraph.dev/attempt": "2", "taskgraph.dev/shard": "47",
    })
}

/// The variables that every container has, before `more`.
fn env(more: &Value) -> Value {
    let mut env = json!([
        {"name": "TASKGRAPH_NAME", "value": "data"}, {"name": "TASKGRAPH_UID", "value": UID},
        {"name": "TASKGRAPH_TASK", "value": "extract"}, {"name": "TASKGRAPH_ATTEMPT", "value": "2"},
    ]);
    if let (Value::Array(env), Value::Array(more)) = (&mut env, more) {
        env.extend(more.clone());
    }
    env
}

fn merged(mut base: Value, more: Value) -> Value {
    if let (Value::Object(base), Value::Object(more)) = (&mut base, more) {
        base.extend(more);
    }
    base
}

#[test]
fn a_container() {
    let graph = graph();
    let container =
        json!({"image": "i", "command": ["true"], "aFieldOfTomorrow": {"x": 1}, "env": [{"name": "A", "value": "b"}]});
    let mut order = order(&graph, PayloadKind::Container, &container);
    order.timeout = Some(Duration::from_millis(60_001));
    assert_eq!(
        order.build(),
        json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": order.name(),
                "namespace": "shop",
                "labels": merged(labels(), json!({"app.kubernetes.io/managed-by": "taskgraph"})),
                "annotations": {"taskgraph.dev/definition-hash": "00000000000000ab"},
                "ownerReferences": [{
                    "apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskGraph", "name": "data", "uid": UID,
                    "controller": true, "blockOwnerDeletion": true,
                }],
            },
            "spec": {
                "backoffLimit": 0,
                "podReplacementPolicy": "Failed",
                "podFailurePolicy": {
                    "rules": [{"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}],
                },
                "activeDeadlineSeconds": 61,
                "template": {
                    "metadata": {"labels": labels()},
                    "spec": {
                        "containers": [{
                            "name": "main", "image": "i", "command": ["true"], "aFieldOfTomorrow": {"x": 1},
                            "env": env(&json!([{"name": "A", "value": "b"}])),
                            "terminationMessagePolicy": "FallbackToLogsOnError",
                        }],
                        "restartPolicy": "Never",
                        "automountServiceAccountToken": false,
                    },
                },
            },
        })
    );
    assert!(order.name().starts_with("data-extract-2-"));
}

#[test]
fn a_template_keeps_what_it_says() {
    let graph = graph();
    let template = json!({
        "metadata": {"labels": {"team": "x", "tier": "own"}, "annotations": {"note": "n"}},
        "spec": {
            "restartPolicy": "Never", "automountServiceAccountToken": true, "serviceAccount": "own",
            "initContainers": [{"name": "init", "image": "i"}],
            "containers": [{"name": "work", "image": "i", "terminationMessagePolicy": "File", "env": null}],
            "nodeSelector": {"zone": "a"}, "tolerations": [{"key": "own"}], "securityContext": {"runAsUser": 1},
        },
    });
    let defaults: PodDefaults = serde_json::from_value(json!({
        "serviceAccountName": "shared", "nodeSelector": {"zone": "b", "disk": "ssd"}, "tolerations": [{"key": "own"}, {"key": "shared"}],
        "securityContext": {"runAsUser": 2, "runAsGroup": 2}, "labels": {"tier": "shared", "cost": "c"},
    }))
    .unwrap();
    let mut order = order(&graph, PayloadKind::PodTemplate, &template);
    order.defaults = Some(&defaults);
    assert_eq!(
        order.build()["spec"]["template"],
        json!({
            "metadata": {
                "labels": merged(json!({"team": "x", "tier": "own", "cost": "c"}), labels()),
                "annotations": {"note": "n"},
            },
            "spec": {
                "restartPolicy": "Never", "automountServiceAccountToken": true, "serviceAccount": "own",
                "initContainers": [{
                    "name": "init", "image": "i", "env": env(&Value::Null), "terminationMessagePolicy": "FallbackToLogsOnError",
                }],
                "containers": [{"name": "work", "image": "i", "terminationMessagePolicy": "File", "env": env(&Value::Null)}],
                "nodeSelector": {"zone": "a", "disk": "ssd"},
                "tolerations": [{"key": "own"}, {"key": "shared"}],
                "securityContext": {"runAsUser": 1, "runAsGroup": 2},
            },
        })
    );
}

#[test]
fn defaults_fill_a_container_in() {
    let graph = graph();
    let container = json!({"image": "i"});
    let defaults = PodDefaults { service_account_name: Some("shared".into()), ..PodDefaults::default() };
    let mut order = order(&graph, PayloadKind::Container, &container);
    order.defaults = Some(&defaults);
    let job = order.build();
    let spec = &job["spec"]["template"]["spec"];
    assert_eq!(spec["serviceAccountName"], "shared");
    assert_eq!(spec.get("nodeSelector").or(spec.get("tolerations")).or(spec.get("securityContext")), None);
    assert_eq!(job["spec"].get("activeDeadlineSeconds"), None);
}

#[test]
fn labels_of_users_never_replace_ours() {
    let graph = graph();
    let template = json!({"metadata": {"labels": {"taskgraph.dev/task": "other"}}, "spec": {"containers": []}});
    let job = order(&graph, PayloadKind::PodTemplate, &template).build();
    assert_eq!(job["spec"]["template"]["metadata"]["labels"], labels());
}

#[test]
fn knows_its_own_job_again() {
    let graph = graph();
    let container = json!({"image": "i"});
    let order = order(&graph, PayloadKind::Container, &container);
    let stored = |change: fn(&mut Value)| -> ObjectMeta {
        let mut metadata = order.build()["metadata"].take();
        change(&mut metadata);
        serde_json::from_value(metadata).unwrap()
    };
    assert!(order.is_ours(&stored(|_| {})));
    assert!(order.is_ours(&stored(|metadata| metadata["labels"]["more"] = "x".into())));
    let edited =
        stored(|metadata| metadata["annotations"]["taskgraph.dev/definition-hash"] = "00000000000000ff".into());
    assert!(order.is_ours(&edited), "its task was edited since");
    assert_eq!(definition_of(&edited), Some(255));
    for (what, change) in [
        ("owner", (|metadata| metadata["ownerReferences"][0]["uid"] = "other".into()) as fn(&mut Value)),
        ("no owner", |metadata| metadata["ownerReferences"] = json!([])),
        ("not the controller", |metadata| metadata["ownerReferences"][0]["controller"] = false.into()),
        ("attempt", |metadata| metadata["labels"]["taskgraph.dev/attempt"] = "3".into()),
        ("no labels", |metadata| metadata["labels"] = Value::Null),
    ] {
        assert!(!order.is_ours(&stored(change)), "{what}");
    }
}

#[test]
fn a_job_for_each_item() {
    let graph = graph();
    let container = json!({"image": "i"});
    let rule = rule(json!({"items": [], "parallelism": 5, "maxFailures": 7, "retriesPerItem": 2}));
    let list = [json!("a b"), json!({"n": [1]}), json!(3)];
    let mut order = order(&graph, PayloadKind::Container, &container);
    order.items = Some(Items { rule: &rule, list: &list });
    let map = order.items_map().unwrap();
    let job = order.build();
    let owner = json!([{
        "apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskGraph", "name": "data", "uid": UID,
        "controller": true, "blockOwnerDeletion": true,
    }]);
    let all_labels = merged(labels(), json!({"app.kubernetes.io/managed-by": "taskgraph"}));
    assert_eq!(
        job,
        json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": order.name(), "namespace": "shop", "labels": all_labels, "ownerReferences": owner,
                "annotations": {"taskgraph.dev/definition-hash": "00000000000000ab"},
            },
            "spec": {
                "completionMode": "Indexed",
                "completions": 3,
                "parallelism": 3,
                "backoffLimitPerIndex": 2,
                "maxFailedIndexes": 3,
                "podReplacementPolicy": "Failed",
                "podFailurePolicy": {
                    "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}],
                },
                "template": {
                    "metadata": {"labels": labels()},
                    "spec": {
                        "containers": [{
                            "name": "main", "image": "i", "env": env(&json!([])),
                            "terminationMessagePolicy": "FallbackToLogsOnError",
                            "volumeMounts": [{
                                "name": "taskgraph-items", "mountPath": "/var/run/taskgraph/item",
                                "subPathExpr": "$(JOB_COMPLETION_INDEX)", "readOnly": true,
                            }],
                        }],
                        "volumes": [{"name": "taskgraph-items", "configMap": {"name": map.name}}],
                        "restartPolicy": "Never",
                        "automountServiceAccountToken": false,
                    },
                },
            },
        })
    );
    assert_eq!(
        map.object,
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": format!("{}-{}", order.name(), map.hash), "namespace": "shop", "labels": all_labels,
                "ownerReferences": owner, "annotations": {"taskgraph.dev/items-hash": map.hash},
            },
            "immutable": true,
            "data": {"0": "a b", "1": "{\"n\":[1]}", "2": "3"},
        })
    );
    // other items, another ConfigMap
    let other = [json!("a"), json!("b"), json!(3)];
    order.items = Some(Items { rule: &rule, list: &other });
    assert_ne!(order.items_map().unwrap().name, map.name);
}

#[test]
fn items_join_the_volumes_of_a_template() {
    let graph = graph();
    let template = json!({"spec": {
        "volumes": [{"name": "own", "emptyDir": {}}],
        "initContainers": [{"name": "init", "image": "i", "volumeMounts": null}],
        "containers": [{"name": "work", "image": "i", "volumeMounts": [{"name": "own", "mountPath": "/own"}]}],
    }});
    let (rule, list) = (rule(json!({"items": []})), [json!(1)]);
    let mut order = order(&graph, PayloadKind::PodTemplate, &template);
    order.items = Some(Items { rule: &rule, list: &list });
    let job = order.build();
    let spec = &job["spec"]["template"]["spec"];
    let names = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(names(&spec["volumes"]), ["own", "taskgraph-items"]);
    assert_eq!(names(&spec["initContainers"][0]["volumeMounts"]), ["taskgraph-items"]);
    assert_eq!(names(&spec["containers"][0]["volumeMounts"]), ["own", "taskgraph-items"]);
    assert_eq!(job["spec"]["maxFailedIndexes"], Value::Null);
    assert_eq!(job["spec"]["backoffLimitPerIndex"], 0);
}

#[test]
fn what_undoes_a_task_is_told_from_the_task() {
    let (graph, rendered) = (graph(), json!({"image": "i"}));
    let task = order(&graph, PayloadKind::Container, &rendered);
    let undo = Order { role: Role::Compensation, ..task };
    assert_ne!(task.name(), undo.name());
    let job = undo.build();
    for labels in [&job["metadata"]["labels"], &job["spec"]["template"]["metadata"]["labels"]] {
        assert_eq!(
            (&labels["taskgraph.dev/role"], &labels["taskgraph.dev/task"]),
            (&json!("compensation"), &json!("extract"))
        );
    }
    let stored: ObjectMeta = serde_json::from_value(job["metadata"].clone()).unwrap();
    assert!(undo.is_ours(&stored) && !task.is_ours(&stored));
}

#[test]
fn volumes_of_the_graph_are_mounted() {
    let graph = graph();
    let uses: Vec<VolumeUse> = serde_json::from_value(json!([
        {"name": "files", "mountPath": "/in", "subPath": "orders", "readOnly": true},
        {"name": "files", "mountPath": "/all"},
    ]))
    .unwrap();
    let container = json!({"image": "i"});
    let order = Order { volumes: &uses, ..order(&graph, PayloadKind::Container, &container) };
    let job = order.build();
    let spec = &job["spec"]["template"]["spec"];
    assert_eq!(
        spec["volumes"],
        json!([{"name": "files", "persistentVolumeClaim": {"claimName": claim_name("data", UID, "files")}}])
    );
    assert_eq!(
        spec["containers"][0]["volumeMounts"],
        json!([{"name": "files", "mountPath": "/in", "subPath": "orders", "readOnly": true}, {"name": "files", "mountPath": "/all"}])
    );
}

#[test]
fn the_container_that_leaves_the_outputs_mounts_them_unless_another_is_named() {
    let graph = graph();
    let uses: Vec<VolumeUse> = serde_json::from_value(json!([
        {"name": "files", "mountPath": "/files"},
        {"name": "logs", "mountPath": "/logs", "container": "prepare"},
        {"name": "logs", "mountPath": "/logs", "container": "none"},
    ]))
    .unwrap();
    let pod = |annotation: &str, names: [&str; 2]| {
        let template = json!({
            "metadata": {"annotations": {"kubectl.kubernetes.io/default-container": annotation}},
            "spec": {
                "initContainers": [{"name": "prepare", "image": "i"}],
                "containers": [
                    {"name": names[0], "image": "i", "volumeMounts": [{"name": "own", "mountPath": "/own"}]},
                    {"name": names[1], "image": "i"},
                ],
                "volumes": [{"name": "own", "emptyDir": {}}],
            },
        });
        let order = Order { volumes: &uses, ..order(&graph, PayloadKind::PodTemplate, &template) };
        order.build()["spec"]["template"]["spec"].clone()
    };
    let claim =
        |name: &str| json!({"name": name, "persistentVolumeClaim": {"claimName": claim_name("data", UID, name)}});
    let (own, files) = (json!({"name": "own", "mountPath": "/own"}), json!({"name": "files", "mountPath": "/files"}));
    for (annotation, names, first, second) in [
        ("second", ["main", "second"], json!([own]), json!([files])),
        ("none", ["side", "main"], json!([own]), json!([files])),
        ("none", ["first", "second"], json!([own, files]), Value::Null),
    ] {
        let spec = pod(annotation, names);
        assert_eq!(spec["volumes"], json!([{"name": "own", "emptyDir": {}}, claim("files"), claim("logs")]));
        assert_eq!(spec["containers"][0]["volumeMounts"], first, "{annotation} {names:?}");
        assert_eq!(
            spec["containers"][1].get("volumeMounts").cloned().unwrap_or_default(),
            second,
            "{annotation} {names:?}"
        );
        assert_eq!(spec["initContainers"][0]["volumeMounts"], json!([{"name": "logs", "mountPath": "/logs"}]));
    }
}

#[test]
fn a_claim() {
    let template: VolumeClaimTemplate = serde_json::from_value(json!({
        "name": "files", "labels": {"team": "x", "taskgraph.dev/graph": "other"}, "annotations": {"note": "n"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "aFieldOfTomorrow": 1},
    }))
    .unwrap();
    let claim = volumes::claim(&graph(), &template);
    assert_eq!(
        claim,
        json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": claim_name("data", UID, "files"),
                "namespace": "shop",
                "labels": {
                    "team": "x", "taskgraph.dev/graph": "data", "taskgraph.dev/graph-uid": UID, "taskgraph.dev/role": "volume",
                    "taskgraph.dev/volume": "files", "taskgraph.dev/shard": "47", "app.kubernetes.io/managed-by": "taskgraph",
                },
                "annotations": {"note": "n"},
                "ownerReferences": [{
                    "apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskGraph", "name": "data", "uid": UID,
                    "controller": true, "blockOwnerDeletion": true,
                }],
            },
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "aFieldOfTomorrow": 1},
        })
    );
    let ours = |change: fn(&mut Value)| {
        let mut metadata = claim["metadata"].clone();
        change(&mut metadata);
        volumes::is_ours(&graph(), "files", &serde_json::from_value(metadata).unwrap())
    };
    assert!(ours(|_| {}));
    assert!(!ours(|metadata| metadata["ownerReferences"][0]["uid"] = "other".into()));
    assert!(!ours(|metadata| metadata["ownerReferences"][0]["controller"] = false.into()));
    assert!(!ours(|metadata| metadata["labels"]["taskgraph.dev/volume"] = "logs".into()));
    assert!(!ours(|metadata| metadata["labels"] = Value::Null));
}

#[test]
fn a_job_of_an_item() {
    let graph = graph();
    let container = json!({"image": "i"});
    let mut order = order(&graph, PayloadKind::Container, &container);
    order.timeout = Some("90s".parse().unwrap());
    let whole = order.name();
    order.item = Some(Item { index: 7, retries: 3 });
    let job = order.build();
    assert_ne!(order.name(), whole);
    for metadata in [&job["metadata"], &job["spec"]["template"]["metadata"]] {
        assert_eq!(
            (&metadata["labels"]["taskgraph.dev/item"], &metadata["labels"]["taskgraph.dev/attempt"]),
            (&json!("7"), &json!("2"))
        );
    }
    let mut spec = job["spec"].clone();
    spec.as_object_mut().unwrap().remove("template");
    assert_eq!(
        spec,
        json!({
            "backoffLimit": 3,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}],
            },
            // the operator ends all items together before
            "activeDeadlineSeconds": 120,
        })
    );
    assert_eq!(order.items_map(), None);
    // neither another item's nor the attempt's Job is taken for it
    let stored = |item| {
        let order = Order { item, ..order };
        serde_json::from_value(order.build()["metadata"].clone()).unwrap()
    };
    assert!(order.is_ours(&stored(order.item)));
    assert!(!order.is_ours(&stored(Some(Item { index: 8, retries: 3 }))) && !order.is_ours(&stored(None)));
    let key = crate::jobs::labels_of(&stored(order.item)).map(|key| (key.item, key.job_name("data", false)));
    assert_eq!(key, Some((Some(7), order.name())));
}
