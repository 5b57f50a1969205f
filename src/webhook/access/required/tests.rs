use k8s_openapi::{api::authentication::v1::UserInfo, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde_json::json;

use super::*;
use crate::{api::TaskGraphSpec, webhook::access::Content};

/// `metadata` and `spec` of an object.
struct Object(ObjectMeta, Value);

impl Object {
    fn new(object: &Value) -> Self {
        Self(serde_json::from_value(object["metadata"].clone()).unwrap_or_default(), object["spec"].clone())
    }

    fn content(&self) -> Content<'_> {
        Content { metadata: &self.0, spec: &self.1 }
    }
}

fn ask(kind: Kind, old: Option<&Value>, new: &Value) -> Vec<Access> {
    let (old, new) = (old.map(Object::new), Object::new(new));
    let namespace = if kind == Kind::ClusterTemplate { "" } else { "team" };
    let user = UserInfo { username: Some("ann".into()), ..UserInfo::default() };
    let old = old.as_ref().map(Object::content);
    required(&Change { kind, namespace, name: "g", old, new: new.content(), user: &user })
}

/// `verb resource name at path`, for each.
fn told(access: &[Access]) -> Vec<String> {
    let line = |access: &Access| {
        let Right { verb, resource, name, .. } = &access.right;
        let name = if name.is_empty() { "*" } else { name };
        let or = access.instead.as_ref().map(|right| format!(" or {}", right.verb)).unwrap_or_default();
        format!("{verb}{or} {resource}/{name} at {}", access.path)
    };
    access.iter().map(line).collect()
}

fn graph(spec: &Value) -> Value {
    json!({"metadata": {"name": "g"}, "spec": spec})
}

fn created(spec: &Value) -> Vec<String> {
    told(&ask(Kind::Graph, None, &graph(spec)))
}

fn updated(old: &Value, new: &Value) -> Vec<String> {
    told(&ask(Kind::Graph, Some(&graph(old)), &graph(new)))
}

fn tasks() -> Value {
    json!([{"name": "a", "container": {"image": "i"}}])
}

#[test]
fn creating_a_graph() {
    let design = ["design taskgraphs/g at spec.tasks", "create jobs/* at spec.tasks"];
    assert_eq!(created(&json!({"tasks": tasks()})), design);
    assert_eq!(created(&json!({"displayName": "x", "desiredState": "Suspend", "tasks": tasks()})), design);

    // running a template
    let run = ["operate or design taskgraphs/g at spec.templateRef"];
    let template = json!({"name": "t"});
    assert_eq!(created(&json!({"templateRef": template})), run);
    let plain = json!({"templateRef": template, "arguments": {"a": 1, "serviceAccountName": "deployer"}, "tags": ["x"],
        "desiredState": "Suspend", "ttlAfterFinished": "1h", "tasks": [], "podDefaults": null});
    assert_eq!(created(&plain), run);
    // and anything more than that
    assert_eq!(
        created(&json!({"templateRef": template, "podDefaults": {"serviceAccountName": "deployer"}})),
        [
            "design taskgraphs/g at spec.podDefaults",
            "create jobs/* at spec.podDefaults",
            "use serviceaccounts/deployer at spec.podDefaults.serviceAccountName",
        ]
    );
    // decided before anybody was asked
    assert_eq!(
        created(&json!({"templateRef": template, "approvals": [{"task": "a"}]})),
        [run[0], "approve taskgraphs/g at spec.approvals"]
    );
    // no spec that is one, and no panic
    for spec in [json!(null), json!("x"), json!([1]), json!({"tasks": "x"}), json!({"tasks": [1, null]})] {
        assert!(!created(&spec).is_empty(), "{spec}");
    }
}

#[test]
fn accounts_and_claims_are_found_wherever_they_stand() {
    let job = |account: &str| json!({"template": {"spec": {"serviceAccountName": account}}});
    let old_name = json!({"template": {"spec": {"serviceAccount": "e"}}});
    let spec = json!({
        "podDefaults": {"serviceAccountName": "a"},
        "volumeClaimTemplates": [{"name": "v", "spec": {}}],
        "tasks": [
            {"name": "1", "job": job("b"), "compensate": {"job": job("c")}},
            {"name": "2", "job": job("default")},
            {"name": "3", "job": job("")},
            {"name": "4", "job": job("b")},
            {"name": "5", "job": old_name},
        ],
        "finally": [{"name": "6", "job": job("d")}],
    });
    let uses = |path: &str| {
        [
            format!("create persistentvolumeclaims/* at {path}.volumeClaimTemplates"),
            format!("use serviceaccounts/a at {path}.podDefaults.serviceAccountName"),
            format!("use serviceaccounts/b at {path}.tasks[0].job.template.spec.serviceAccountName"),
            format!("use serviceaccounts/c at {path}.tasks[0].compensate.job.template.spec.serviceAccountName"),
            format!("use serviceaccounts/e at {path}.tasks[4].job.template.spec.serviceAccount"),
            format!("use serviceaccounts/d at {path}.finally[0].job.template.spec.serviceAccountName"),
        ]
    };
    assert_eq!(created(&spec)[2..], uses("spec"));

    let template = json!({"metadata": {"name": "t"}, "spec": {"graph": spec}});
    for kind in [Kind::Template, Kind::ClusterTemplate] {
        let access = ask(kind, None, &template);
        assert_eq!(told(&access)[0], "create jobs/* at spec.graph");
        assert_eq!(told(&access)[1..], uses("spec.graph"));
        let namespace = if kind == Kind::Template { "team" } else { "" };
        assert!(access.iter().all(|access| access.right.namespace == namespace), "{access:?}");
    }
    let template = json!({"spec": {"job": job("b")}});
    assert_eq!(
        told(&ask(Kind::Template, None, &template)),
        ["create jobs/* at spec.job", "use serviceaccounts/b at spec.job.template.spec.serviceAccountName"]
    );
}

#[test]
fn changing_a_graph_asks_by_what_changes() {
    let base = json!({"tasks": tasks(), "desiredState": "Run", "podDefaults": {"serviceAccountName": "s"}});
    let with = |field: &str, value: Value| {
        let mut spec = base.clone();
        spec[field] = value;
        spec
    };
    let approval = json!([{"task": "a", "attempt": 1, "decision": "Approved", "by": "x"}]);
    let pods = |field: &str| -> Vec<String> {
        [
            format!("design taskgraphs/g at spec.{field}"),
            format!("create jobs/* at spec.{field}"),
            "use serviceaccounts/s at spec.podDefaults.serviceAccountName".to_owned(),
        ]
        .into()
    };
    let one = |verb: &str, field: &str| vec![format!("{verb} taskgraphs/g at spec.{field}")];
    for (field, value, expected) in [
        ("desiredState", json!("Cancel"), one("operate", "desiredState")),
        ("rerun", json!({"id": "1", "scope": "All"}), one("operate", "rerun")),
        ("approvals", approval, one("approve", "approvals")),
        ("parallelism", json!(1), one("design", "parallelism")),
        ("displayName", json!("x"), one("design", "displayName")),
        ("outputs", json!([{"name": "x", "value": "1"}]), one("design", "outputs")),
        ("finally", tasks(), pods("finally")),
        ("arguments", json!({"a": 1}), pods("arguments")),
        ("tasks", json!([{"name": "a", "container": {"image": "other"}}]), pods("tasks")),
        ("whatIsNotKnownYet", json!(true), pods("whatIsNotKnownYet")),
        // the same in other words
        ("desiredState", json!(null), vec![]),
        ("arguments", json!({}), vec![]),
        ("tasks", tasks(), vec![]),
    ] {
        let spec = with(field, value);
        assert_eq!(updated(&base, &spec), expected, "{field}");
        if field != "tasks" {
            assert_eq!(updated(&spec, &base), expected, "{field} taken away");
        }
    }
    let all = json!({"tasks": [], "desiredState": "Suspend", "approvals": [{"task": "b"}]});
    assert_eq!(
        updated(&base, &all),
        [
            "operate taskgraphs/g at spec.desiredState",
            "approve taskgraphs/g at spec.approvals",
            "design taskgraphs/g at spec.tasks",
            "create jobs/* at spec.tasks",
        ]
    );
}

const CREATED_BY: &str = "metadata.annotations[\"taskgraph.dev/created-by\"]";

fn created_by(user: Option<&str>) -> Value {
    json!({"annotations": user.map(|user| json!({"taskgraph.dev/created-by": user}))})
}

#[test]
fn metadata_asks_nothing_unless_it_claims_to_be_the_operators() {
    let spec = json!({"tasks": tasks()});
    let owner = |uid: &str, version: &str| json!([{"apiVersion": version, "kind": "TaskGraph", "name": "p", "uid": uid, "controller": true}]);
    let ours = "taskgraph.dev/v1alpha1";
    for (old, new, expected) in [
        (json!({}), json!({"labels": {"team": "a"}, "annotations": {"a": "b"}, "finalizers": ["x"]}), None),
        (json!({}), json!({"labels": {"taskgraph.dev/task": "a"}}), Some("metadata.labels[\"taskgraph.dev/task\"]")),
        (
            json!({"labels": {"taskgraph.dev/task": "b"}}),
            json!({"labels": {"taskgraph.dev/task": "a"}}),
            Some("metadata.labels[\"taskgraph.dev/task\"]"),
        ),
        (
            json!({"labels": {"taskgraph.dev/task": "a"}}),
            json!({"labels": {"taskgraph.dev/task": "a", "b": "c"}}),
            None,
        ),
        (json!({"labels": {"taskgraph.dev/task": "a"}}), json!({}), Some("metadata.labels[\"taskgraph.dev/task\"]")),
        (
            json!({}),
            json!({"annotations": {"taskgraph.dev/revision": "r"}}),
            Some("metadata.annotations[\"taskgraph.dev/revision\"]"),
        ),
        // nothing is noted of a change of metadata: somebody says it in admission's place, also of himself
        (created_by(None), created_by(Some("ann")), Some(CREATED_BY)),
        (created_by(Some("bob")), created_by(Some("eve")), Some(CREATED_BY)),
        (created_by(Some("bob")), created_by(Some("ann")), Some(CREATED_BY)),
        (created_by(Some("bob")), created_by(None), Some(CREATED_BY)),
        (created_by(Some("bob")), created_by(Some("bob")), None),
        (json!({}), json!({"ownerReferences": owner("1", ours)}), Some("metadata.ownerReferences[0]")),
        (
            json!({"ownerReferences": owner("2", ours)}),
            json!({"ownerReferences": owner("1", ours)}),
            Some("metadata.ownerReferences[0]"),
        ),
        (
            json!({"ownerReferences": owner("1", ours)}),
            json!({"ownerReferences": owner("1", ours), "finalizers": []}),
            None,
        ),
        (json!({"ownerReferences": owner("1", ours)}), json!({}), None),
        // an owner that is not there has the graph deleted
        (json!({}), json!({"ownerReferences": owner("1", "apps/v1")}), Some("metadata.ownerReferences[0]")),
        (
            json!({"ownerReferences": owner("1", "apps/v1")}),
            json!({"ownerReferences": owner("1", ours)}),
            Some("metadata.ownerReferences[0]"),
        ),
        (json!({"ownerReferences": owner("1", "apps/v1")}), json!({}), None),
    ] {
        let [old, new] =
            [old, new].map(|metadata| json!({"metadata": metadata, "spec": spec, "status": {"phase": "Running"}}));
        let expected: Vec<String> = expected.iter().map(|path| format!("design taskgraphs/g at {path}")).collect();
        assert_eq!(told(&ask(Kind::Graph, Some(&old), &new)), expected, "{old} to {new}");
    }
    // running a template is not enough to make what looks like a child graph
    let child =
        json!({"metadata": {"labels": {"taskgraph.dev/graph-uid": "u"}}, "spec": {"templateRef": {"name": "t"}}});
    assert_eq!(
        told(&ask(Kind::Graph, None, &child)),
        ["design taskgraphs/g at metadata.labels[\"taskgraph.dev/graph-uid\"]"]
    );
    // another's object may own what is new
    let child = json!({"metadata": {"ownerReferences": owner("1", "apps/v1")}, "spec": {"templateRef": {"name": "t"}}});
    assert_eq!(told(&ask(Kind::Graph, None, &child)), ["operate or design taskgraphs/g at spec.templateRef"]);
}

#[test]
fn what_admission_notes_asks_for_nothing() {
    let graph = |notes: Value, spec: Value| json!({"metadata": {"annotations": notes}, "spec": spec});
    let [created, designed, operated] =
        ["created", "designed", "operated"].map(|what| format!("taskgraph.dev/{what}-by"));
    let spec = json!({"templateRef": {"name": "t"}});
    let run = ["operate or design taskgraphs/g at spec.templateRef"];
    let claim = |note: &str| vec![format!("design taskgraphs/g at metadata.annotations[{note:?}]")];
    let new = |notes: Value| told(&ask(Kind::Graph, None, &graph(notes, spec.clone())));
    assert_eq!(new(json!({&created: "ann"})), run);
    assert_eq!(new(json!({&created: "bob"})), claim(&created));
    assert_eq!(new(json!({&created: "ann", &operated: "ann"})), claim(&operated));

    let old = graph(json!({&created: "bob"}), spec.clone());
    let mut cancelled = spec.clone();
    cancelled["desiredState"] = json!("Cancel");
    let cancel = |notes: Value| told(&ask(Kind::Graph, Some(&old), &graph(notes, cancelled.clone())));
    let operate = "operate taskgraphs/g at spec.desiredState".to_owned();
    assert_eq!(cancel(json!({&created: "bob", &operated: "ann"})), std::slice::from_ref(&operate));
    assert_eq!(cancel(json!({&created: "bob"})), std::slice::from_ref(&operate), "nobody noted it");
    for (notes, note) in [
        (json!({&created: "bob", &operated: "bob"}), &operated),
        (json!({&created: "bob", &designed: "ann"}), &designed),
        (json!({&created: "ann", &operated: "ann"}), &created),
    ] {
        assert_eq!(cancel(notes), [claim(note), vec![operate.clone()]].concat());
    }
}

#[test]
fn changing_a_template() {
    let template =
        |image: &str, description: &str| json!({"spec": {"description": description, "container": {"image": image}}});
    let ask = |new: &Value| told(&ask(Kind::Template, Some(&template("i", "x")), new));
    assert_eq!(ask(&template("i", "other words")), Vec::<String>::new());
    assert_eq!(ask(&template("j", "x")), ["create jobs/* at spec.container"]);
    let parameters = json!({"spec": {"description": "x", "container": {"image": "i"}, "parameters": [{"name": "p"}]}});
    assert_eq!(ask(&parameters), ["create jobs/* at spec.parameters"]);
}

#[test]
fn a_graph_without_a_name_yet() {
    let user = UserInfo::default();
    let new = Object::new(&graph(&json!({"tasks": tasks()})));
    let change = Change { kind: Kind::Graph, namespace: "team", name: "", old: None, new: new.content(), user: &user };
    let access = required(&change);
    assert_eq!(access[0].deed, "design graphs in namespace \"team\"");
    assert_eq!(access[0].right.name, "");
}

/// A field that the API gains is sorted here before it passes.
#[test]
fn every_field_of_a_graph_is_sorted() {
    let schema = serde_json::to_value(schemars::schema_for!(TaskGraphSpec)).unwrap();
    let known: BTreeSet<&str> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
    let pods = ["templateRef", "arguments", "podDefaults", "volumeClaimTemplates", "tasks", "finally"];
    let sorted = [&pods[..], &NO_PODS[..], &OPERATE[..], &[APPROVALS]].concat();
    assert_eq!(sorted.iter().copied().collect::<BTreeSet<_>>(), known);
    assert_eq!(sorted.len(), known.len(), "each in one place");
    assert!(RUNS_TEMPLATE.iter().all(|field| known.contains(field)));
}
