use serde_json::json;

use super::*;

fn container() -> Value {
    json!({"image": "i"})
}

/// Templates, as they are looked up.
fn found(templates: impl IntoIterator<Item = (TemplateRef, TaskTemplateSpec)>) -> Found {
    let specs = templates.into_iter().map(|(reference, spec)| (reference, Arc::new(spec))).collect();
    Found { specs, ..Found::default() }
}

/// A request by `ann` about a graph in namespace `team`.
fn request(operation: &str, kind: &str, old: Option<&Value>, new: &Value) -> Request {
    let object = |object: &Value| {
        let mut object = object.clone();
        object["apiVersion"] = json!("taskgraph.dev/v1alpha1");
        object["kind"] = json!(kind);
        object
    };
    serde_json::from_value(json!({
        "uid": "u", "operation": operation, "namespace": "team",
        "kind": {"group": "taskgraph.dev", "version": "v1alpha1", "kind": kind},
        "resource": {"group": "taskgraph.dev", "version": "v1alpha1", "resource": "any"},
        "userInfo": {"username": "ann"},
        "object": object(new), "oldObject": old.map(object),
    }))
    .unwrap()
}

fn created(spec: &Value) -> Request {
    request("CREATE", "TaskGraph", None, &json!({"metadata": {"name": "g"}, "spec": spec}))
}

fn updated(old: &Value, new: &Value, status: &Value) -> Request {
    let object = |spec: &Value| json!({"metadata": {"name": "g", "uid": "1"}, "spec": spec, "status": status});
    request("UPDATE", "TaskGraph", Some(&object(old)), &object(new))
}

/// What comes of it, where these templates are there.
fn outcome(request: &Request, known: &Known, templates: &Value) -> Outcome {
    let templates: Vec<(String, TaskTemplateSpec)> = serde_json::from_value(templates.clone()).unwrap();
    let all = found(templates.into_iter().map(|(name, spec)| (TemplateRef { name, ..TemplateRef::default() }, spec)));
    let lookup = |spec: &TaskGraphSpec, _: &str| all.needed_by(spec);
    subject(request).map(|subject| subject.judge(known, &lookup)).unwrap_or_default()
}

fn paths(outcome: &Outcome) -> Vec<&str> {
    outcome.problems.iter().map(|problem| problem.path.as_str()).collect()
}

/// What the controller pinned when it accepted this spec.
fn begun(spec: &Value) -> Known {
    let spec: TaskGraphSpec = serde_json::from_value(spec.clone()).unwrap();
    Known { pinned: Some(Pinned::new(spec, &Found::default())), ..Known::default() }
}

fn nothing() -> Value {
    json!([])
}

#[test]
fn all_problems_of_a_new_graph_at_once() {
    let spec = json!({
        "tasks": [
            {"name": "a", "dependsOn": ["biuld"], "container": {"image": "i", "comand": []}},
            {"name": "build", "container": container()},
            {"name": "b", "templateRef": {"name": "gone"}, "container": container()},
        ],
        "approvals": [{"task": "a", "attempt": 1, "decision": "Approved", "by": "bob"}],
    });
    let outcome = outcome(&created(&spec), &Known::default(), &nothing());
    let expected =
        ["spec.tasks[0].dependsOn[0]", "spec.tasks[0].container.comand", "spec.tasks[2]", "spec.approvals[0].by"];
    assert_eq!(paths(&outcome), expected, "{outcome:#?}");
    assert!(outcome.problems[0].message.contains("did you mean \"build\"?"), "{outcome:#?}");
}

#[test]
fn a_spec_of_another_form_and_one_without_any() {
    let wrong = json!({"tasks": [{"name": "a", "dependsOn": "b"}]});
    assert_eq!(paths(&outcome(&created(&wrong), &Known::default(), &nothing())), ["spec.tasks[0].dependsOn"]);
    let none = request("CREATE", "TaskGraph", None, &json!({"metadata": {"generateName": "g-"}}));
    assert_eq!(paths(&outcome(&none, &Known::default(), &nothing())).len(), 1);
}

#[test]
fn templates_that_are_missing_are_waited_for_and_those_that_are_there_count() {
    let spec = json!({"tasks": [{"name": "a", "templateRef": {"name": "t"}, "arguments": {"x": 1}}]});
    let missing = outcome(&created(&spec), &Known::default(), &nothing());
    assert_eq!(missing.problems, []);
    assert_eq!(
        missing.warnings,
        ["spec.tasks[0].templateRef: there is no TaskTemplate named \"t\" yet; the graph waits for it"]
    );
    let there = json!([["t", {"parameters": [{"name": "y", "required": true}], "container": container()}]]);
    let unfit = outcome(&created(&spec), &Known::default(), &there);
    assert_eq!(paths(&unfit), ["spec.tasks[0].arguments.x", "spec.tasks[0].arguments"]);
}

#[test]
fn templates_are_checked_too() {
    for kind in ["TaskTemplate", "ClusterTaskTemplate"] {
        let template = |spec: &Value| json!({"metadata": {"name": "t"}, "spec": spec});
        let create = |spec: &Value| request("CREATE", kind, None, &template(spec));
        let good = json!({"container": container()});
        assert_eq!(outcome(&create(&good), &Known::default(), &nothing()), Outcome::default());
        let bad = json!({"container": {"imag": "i"}, "timeout": "0s"});
        let found = outcome(&create(&bad), &Known::default(), &nothing());
        assert_eq!(paths(&found), ["spec.timeout", "spec.container.imag", "spec.container.image"]);
        let unread = json!({"container": 3});
        assert_eq!(paths(&outcome(&create(&unread), &Known::default(), &nothing())), ["spec.container"]);

        // mended in part
        let better = json!({"container": {"imag": "i"}});
        let update = |old: &Value, new: &Value| request("UPDATE", kind, Some(&template(old)), &template(new));
        let mended = outcome(&update(&bad, &better), &Known::default(), &nothing());
        assert_eq!((mended.problems.len(), mended.warnings.len()), (0, 2), "{mended:#?}");
        assert_eq!(paths(&outcome(&update(&good, &better), &Known::default(), &nothing())).len(), 2);
    }
}

#[test]
fn what_leaves_the_spec_alone_passes_whatever_the_spec_is() {
    let old = json!({"metadata": {"name": "g", "finalizers": ["x"]}, "spec": {"tasks": [{"name": "A"}]}});
    for (what, new) in [
        ("labels", json!({"metadata": {"name": "g", "labels": {"a": "b"}, "finalizers": ["x"]}, "spec": old["spec"]})),
        (
            "finalizers",
            json!({"metadata": {"name": "g", "deletionTimestamp": "2030-01-01T00:00:00Z"}, "spec": old["spec"]}),
        ),
        ("status", json!({"metadata": {"name": "g"}, "spec": old["spec"], "status": {"phase": "Running"}})),
    ] {
        for kind in ["TaskGraph", "TaskTemplate", "ClusterTaskTemplate"] {
            assert!(subject(&request("UPDATE", kind, Some(&old), &new)).is_none(), "{kind}: {what}");
        }
    }
    let changed = json!({"metadata": {"name": "g"}, "spec": {"tasks": [{"name": "B"}]}});
    let update = request("UPDATE", "TaskGraph", Some(&old), &changed);
    assert!(!outcome(&update, &Known::default(), &nothing()).problems.is_empty());
    let deleted =
        json!({"metadata": {"name": "g", "deletionTimestamp": "2030-01-01T00:00:00Z"}, "spec": changed["spec"]});
    assert_eq!(
        outcome(&request("UPDATE", "TaskGraph", Some(&old), &deleted), &Known::default(), &nothing()),
        Outcome::default()
    );
}

#[test]
fn nothing_else_is_judged() {
    let wrong = json!({"metadata": {"name": "g"}, "spec": {"tasks": [{"name": "A"}]}});
    assert!(subject(&request("DELETE", "TaskGraph", Some(&wrong), &wrong)).is_none());
    assert!(subject(&request("CONNECT", "TaskGraph", None, &wrong)).is_none());
    assert!(subject(&request("CREATE", "Job", None, &wrong)).is_none());
    let mut status = request("CREATE", "TaskGraph", None, &wrong);
    status.sub_resource = Some("status".to_owned());
    assert!(subject(&status).is_none());
    let mut other = request("CREATE", "TaskGraph", None, &wrong);
    other.kind.group = "example.org".to_owned();
    assert!(subject(&other).is_none());
}

#[test]
fn what_was_wrong_before_is_not_held_against_an_update() {
    let broken = json!({"tasks": [{"name": "a", "dependsOn": ["gone"], "container": container()}, {"name": "B", "container": container()}]});
    let with = |fields: Value| {
        let mut spec = broken.clone();
        spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        spec
    };
    let none = json!({});
    for (what, new, passes) in [
        ("cancelled", with(json!({"desiredState": "Cancel"})), true),
        (
            "approved",
            with(json!({"approvals": [{"task": "a", "attempt": 1, "decision": "Approved", "by": "ann"}]})),
            true,
        ),
        (
            "mended in part",
            json!({"tasks": [{"name": "a", "container": container()}, {"name": "B", "container": container()}]}),
            true,
        ),
        ("broken further", with(json!({"timeout": "0s"})), false),
    ] {
        let found = outcome(&updated(&broken, &new, &none), &Known::default(), &nothing());
        assert_eq!(found.problems.is_empty(), passes, "{what}: {found:#?}");
        assert_eq!(passes, !found.warnings.is_empty(), "{what}: what is still wrong is told");
    }
}

#[test]
fn nobody_approves_in_anothers_name() {
    let entry = |task: &str, by: &str| json!({"task": task, "attempt": 1, "decision": "Approved", "by": by});
    let spec = |approvals: Value| json!({"tasks": [{"name": "a", "approval": {}}, {"name": "b", "approval": {}}], "approvals": approvals});
    let none = json!({});
    for (what, request, expected) in [
        ("created", created(&spec(json!([entry("a", "ann"), entry("b", "bob")]))), vec!["spec.approvals[1].by"]),
        ("added", updated(&spec(json!([])), &spec(json!([entry("a", "bob")])), &none), vec!["spec.approvals[0].by"]),
        (
            "there before",
            updated(&spec(json!([entry("a", "bob")])), &spec(json!([entry("b", "ann"), entry("a", "bob")])), &none),
            vec![],
        ),
        (
            "changed",
            updated(&spec(json!([entry("a", "bob")])), &spec(json!([entry("a", "cat")])), &none),
            vec!["spec.approvals[0].by"],
        ),
        ("taken out", updated(&spec(json!([entry("a", "bob")])), &spec(json!([])), &none), vec![]),
    ] {
        assert_eq!(paths(&outcome(&request, &Known::default(), &nothing())), expected, "{what}");
    }
    let mut long = created(&spec(json!([entry("a", &"ä".repeat(253))])));
    long.user_info.username = Some("ä".repeat(300));
    assert_eq!(outcome(&long, &Known::default(), &nothing()), Outcome::default(), "as the command line writes it");
}

#[test]
fn an_edit_that_cannot_be_honoured_is_refused() {
    let old = json!({"tasks": [
        {"name": "book", "container": container(), "compensate": {"container": container()}},
        {"name": "pay", "dependsOn": ["book"], "container": container()},
    ]});
    let status = json!({"revision": "r", "tasks": [
        {"name": "book", "phase": "Succeeded", "attempts": 1}, {"name": "pay", "phase": "Running", "attempts": 1},
    ]});
    let cancelled = json!({"revision": "r", "ending": {"reason": "Cancelled", "time": "2030-01-01T00:00:00Z"}, "tasks": status["tasks"]});
    let undoing = json!({
        "revision": "r", "compensationTime": "2030-01-01T00:00:00Z",
        "ending": {"reason": "Cancelled", "time": "2030-01-01T00:00:00Z"},
        "tasks": [
            {"name": "book", "phase": "Succeeded", "attempts": 1, "compensation": {"phase": "Running", "attempts": 1}},
            {"name": "pay", "phase": "Failed", "attempts": 1},
        ],
    });
    let pay_only = json!({"tasks": [{"name": "pay", "container": container()}]});
    let with = |fields: Value| {
        let mut spec = old.clone();
        spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        spec
    };
    let claims = with(
        json!({"volumeClaimTemplates": [{"name": "v", "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]}),
    );
    let rerun = with(json!({"rerun": {"id": "2", "scope": "All"}}));
    let more = json!({"tasks": [old["tasks"][0], old["tasks"][1], {"name": "mail", "container": container()}]});
    for (what, new, status, expected) in [
        ("a task that may have to be undone", &pay_only, &status, vec!["spec.tasks"]),
        ("claims", &claims, &status, vec!["spec.volumeClaimTemplates"]),
        ("a rerun of what was cancelled", &rerun, &cancelled, vec!["spec.rerun"]),
        ("a rerun", &rerun, &status, vec![]),
        ("a new task", &more, &status, vec![]),
        ("a new task, while the graph is undone", &more, &undoing, vec![]),
    ] {
        let found = outcome(&updated(&old, new, status), &begun(&old), &nothing());
        assert_eq!(paths(&found), expected, "{what}: {found:#?}");
        assert_eq!(
            !found.warnings.is_empty(),
            what.contains("undone,") || what.contains("is undone"),
            "{what}: {found:#?}"
        );
    }
    // refused once, where there was no webhook: it can still be cancelled
    let both = json!({"tasks": pay_only["tasks"], "desiredState": "Cancel"});
    assert_eq!(paths(&outcome(&updated(&pay_only, &both, &status), &begun(&old), &nothing())), Vec::<&str>::new());
    // not begun: it is as good as new
    assert_eq!(outcome(&updated(&old, &pay_only, &json!({})), &Known::default(), &nothing()), Outcome::default());
}

#[test]
fn what_another_version_accepted_is_mended() {
    // a spec that no version accepts any more
    let old = json!({"tasks": [{"name": "A", "container": container()}]});
    let new = json!({"tasks": [{"name": "a", "container": container()}]});
    let status = json!({"revision": "r", "tasks": [{"name": "A", "phase": "Running", "attempts": 1}]});
    assert_eq!(outcome(&updated(&old, &new, &status), &begun(&old), &nothing()), Outcome::default());
}

#[test]
fn a_graph_keeps_the_templates_that_it_began_with() {
    let old = json!({"tasks": [{"name": "a", "templateRef": {"name": "t"}, "arguments": {"x": 1}}]});
    let new = json!({"tasks": [{"name": "a", "templateRef": {"name": "t"}, "arguments": {"x": 2}}]});
    let template = json!({"parameters": [{"name": "x"}], "container": container()});
    let spec: TaskGraphSpec = serde_json::from_value(old.clone()).unwrap();
    let name = TemplateRef { name: "t".to_owned(), ..TemplateRef::default() };
    let then = found([(name, serde_json::from_value(template).unwrap())]);
    let known = Known { pinned: Some(Pinned::new(spec, &then)), ..Known::default() };
    let now = json!([["t", {"container": container()}]]);
    let update = updated(&old, &new, &json!({"revision": "r"}));
    assert_eq!(outcome(&update, &known, &now), Outcome::default());
    assert_eq!(paths(&outcome(&created(&new), &Known::default(), &now)), ["spec.tasks[0].arguments.x"]);

    // what it rests on is read again, but for what does not change any more
    let all = found([(TemplateRef { name: "t".to_owned(), ..TemplateRef::default() }, TaskTemplateSpec::default())]);
    let there = |spec: &TaskGraphSpec, _: &str| all.needed_by(spec);
    let nowhere = |_: &TaskGraphSpec, _: &str| Found::default();
    let lookups: [Lookup<'_>; 2] = [&there, &nowhere];
    for (known, refused, expected) in
        [(&known, true, [0, 0]), (&Known::default(), true, [1, 1]), (&Known::default(), false, [0, 1])]
    {
        let unsure = lookups.map(|lookup| subject(&update).unwrap().unsure(known, lookup, refused).len());
        assert_eq!(unsure, expected, "refused: {refused}");
    }
}

#[test]
fn a_template_is_found_wherever_a_graph_names_one() {
    let template = json!({"name": "t"});
    let nowhere = |_: &TaskGraphSpec, _: &str| Found::default();
    for (spec, expected) in [
        (json!({"templateRef": template}), 1),
        (json!({"tasks": [{"name": "a", "container": container()}, {"name": "b", "templateRef": template}]}), 1),
        (json!({"tasks": [{"name": "a", "container": container(), "compensate": {"templateRef": template}}]}), 1),
        (
            json!({"tasks": [{"name": "a", "container": container()}], "finally": [{"name": "b", "templateRef": template}]}),
            1,
        ),
        (json!({"tasks": [{"name": "a", "container": container(), "templateRef": null}]}), 0),
        (json!({"tasks": "x"}), 0),
    ] {
        let request = created(&spec);
        let unsure = subject(&request).unwrap().unsure(&Known::default(), &nowhere, false);
        assert_eq!(unsure.len(), expected, "{spec}");
    }
}

#[test]
fn a_child_graph_is_judged_by_the_templates_of_its_parent() {
    let child = json!({
        "metadata": {"name": "g", "annotations": {"taskgraph.dev/revision": "r"}, "ownerReferences": [
            {"apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskGraph", "name": "p", "uid": "2", "controller": true},
        ]},
        "spec": {"templateRef": {"name": "t"}},
    });
    let request = request("CREATE", "TaskGraph", None, &child);
    let Some(Subject::Graph(change)) = subject(&request) else { panic!("a graph") };
    assert_eq!(change.parent, Some(("2".to_owned(), "r".to_owned())));
    let of_parent: TaskTemplateSpec =
        serde_json::from_value(json!({"graph": {"tasks": [{"name": "a", "container": container()}]}})).unwrap();
    let parents = found([(TemplateRef { name: "t".to_owned(), ..TemplateRef::default() }, of_parent)]);
    let known = Known { parents: Some(parents), ..Known::default() };
    let now = json!([["t", {"graph": {"tasks": [{"name": "A", "container": container()}]}}]]);
    assert_eq!(outcome(&request, &known, &now), Outcome::default());
}

#[test]
fn no_more_is_told_than_people_read() {
    let tasks: Vec<Value> =
        (0..300).map(|number| json!({"name": format!("T{number}"), "container": container()})).collect();
    let (problems, _) = outcome(&created(&json!({"tasks": tasks})), &Known::default(), &nothing()).told();
    assert_eq!(problems.len(), 101);
    assert_eq!(problems[100].message, "... and 200 more problems");
}
