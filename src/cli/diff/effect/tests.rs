use serde_json::json;

use super::*;

const NOW: &str = "2026-11-21T18:00:00Z";

fn spec(tasks: &Value, more: &Value) -> TaskGraphSpec {
    let mut spec = json!({"tasks": tasks});
    if let (Value::Object(spec), Value::Object(more)) = (&mut spec, more) {
        spec.extend(more.clone());
    }
    serde_json::from_value(spec).unwrap()
}

fn task(name: &str, depends_on: &[&str], image: &str) -> Value {
    json!({"name": name, "dependsOn": depends_on, "container": {"image": image}})
}

/// What `edited` would do to a graph of `tasks` that stands as `status` says.
fn effect(tasks: &Value, status: &Value, edited: &TaskGraphSpec) -> Lines {
    let live: TaskGraph = serde_json::from_value(json!({
        "apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskGraph", "metadata": {"name": "g", "namespace": "ns", "uid": "u"},
        "spec": spec(tasks, &json!({})), "status": status,
    }))
    .unwrap();
    let status = live.status.as_ref().unwrap();
    let pinned = Pinned::new(live.spec.clone(), &Found::default());
    Accepted { live: &live, status, pinned }.edited(edited, &Found::default(), NOW.parse().unwrap()).unwrap()
}

fn ended(name: &str, phase: &str) -> Value {
    json!({"name": name, "phase": phase, "attempts": 1, "job": format!("g-{name}"), "completionTime": NOW})
}

#[test]
fn an_edit_of_a_graph_that_runs() {
    let tasks = json!([task("a", &[], "x"), task("b", &["a"], "x"), task("c", &["b"], "x")]);
    let running = json!({"name": "b", "phase": "Running", "attempts": 1, "job": "g-b"});
    let status = json!({"revision": "r", "startTime": NOW, "sequence": 5, "tasks": [ended("a", "Succeeded"), running]});
    let same = |more: Value| spec(&tasks, &more);
    let edited = json!([task("a", &[], "y"), task("c", &["a"], "y"), task("new", &["a"], "x")]);
    for (edited, expected) in [
        (same(json!({})), vec![]),
        (same(json!({"description": "words"})), vec![]),
        (
            spec(&edited, &json!({})),
            vec![
                "added: new",
                "removed, and stopped: b",
                "changed: c",
                "changed, but would keep what they ran (stale): a",
                "would start at once: c, new",
            ],
        ),
        (same(json!({"parallelism": 3, "timeout": "1h"})), vec!["settings: parallelism, timeout"]),
        (same(json!({"desiredState": "Suspend"})), vec!["the graph would be suspended"]),
        (same(json!({"desiredState": "Cancel"})), vec!["the graph would be cancelled: what runs is stopped"]),
        // c has not run yet
        (
            same(json!({"rerun": {"id": "1", "scope": "Tasks", "tasks": ["a"]}})),
            vec!["run once more: a, b", "would start at once: a"],
        ),
        (
            same(json!({"rerun": {"id": "1", "scope": "All"}, "desiredState": "Cancel"})),
            vec![
                "refused (RerunRefused): spec.rerun: the graph was cancelled, and a cancel cannot be taken back: make a new graph",
            ],
        ),
        (
            spec(
                &json!([task("a", &["b"], "x"), {"name": "b", "dependsOn": ["a"], "templateRef": {"name": "t"}}]),
                &json!({}),
            ),
            vec![
                "refused (Invalid): spec.tasks: cycle: a → b → a",
                "refused (Invalid): spec.tasks[1].templateRef: there is no TaskTemplate named \"t\" yet; the graph waits for it",
            ],
        ),
    ] {
        let lines = effect(&tasks, &status, &edited);
        assert!(
            lines.iter().map(String::as_str).collect::<Vec<_>>().starts_with(&expected),
            "{lines:#?}\nnot\n{expected:#?}"
        );
        assert!(lines.len() <= expected.len() + 1, "{lines:#?}");
    }
}

#[test]
fn an_edit_of_a_graph_that_finished() {
    let tasks = json!([task("a", &[], "x"), task("b", &["a"], "x"), task("c", &["b"], "x")]);
    let status = json!({"revision": "r", "startTime": NOW, "completionTime": NOW, "sequence": 9, "rerun": "0",
        "tasks": [ended("a", "Succeeded"), ended("b", "Failed"), {"name": "c", "phase": "Omitted", "reason": "DependencyFailed"}]});
    let reopened = "the graph had finished, and would be reopened";
    // a rerun that was acted on may name tasks that are removed since
    let past = json!({"rerun": {"id": "0", "scope": "Tasks", "tasks": ["gone"]}});
    for (more, expected) in [
        (past, vec![]),
        (json!({"rerun": {"id": "0", "scope": "All"}}), vec![]),
        (json!({"desiredState": "Suspend"}), vec![]),
        (json!({"rerun": {"id": "1", "scope": "Failed"}}), vec!["run once more: b, c", reopened]),
    ] {
        assert_eq!(effect(&tasks, &status, &spec(&tasks, &more)), expected, "{more}");
    }
}

#[test]
fn an_edit_of_a_graph_that_undoes_what_it_did_waits() {
    let mut a = task("a", &[], "x");
    a["compensate"] = json!({"container": {"image": "x"}});
    let tasks = json!([a, task("b", &["a"], "x")]);
    let mut done = ended("a", "Succeeded");
    done["compensation"] = json!({"phase": "Running", "attempts": 1, "job": "g-undo"});
    let status = json!({"revision": "r", "startTime": NOW, "compensationTime": NOW, "sequence": 9, "tasks": [done, ended("b", "Failed")]});
    let more = json!({"rerun": {"id": "1", "scope": "Failed"}});
    assert_eq!(
        effect(&tasks, &status, &spec(&tasks, &more)),
        ["would wait (Compensating): the graph undoes what it did; it is edited when it has finished"]
    );
}

#[test]
fn a_new_graph() {
    let now = NOW.parse().unwrap();
    let tasks = json!([task("a", &[], "x"), task("b", &["a"], "x")]);
    let lines = begins("g", &spec(&tasks, &json!({})), &Found::default(), now);
    assert_eq!(lines, ["would begin", "would start at once: a"]);
    let template = json!([{"name": "a", "templateRef": {"name": "t"}}]);
    let lines = begins("g", &spec(&template, &json!({})), &Found::default(), now);
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with("would wait (TemplateNotFound): spec.tasks[0].templateRef"), "{lines:?}");
}

#[test]
fn what_a_file_does_not_say_stays_where_others_write_it() {
    let live = json!({"tasks": [], "desiredState": "Suspend", "rerun": {"id": "1"}, "parallelism": 3});
    let edited = json!({"tasks": ["x"], "rerun": {"id": "2"}});
    assert_eq!(applied(edited, Some(&live)), json!({"tasks": ["x"], "rerun": {"id": "2"}, "desiredState": "Suspend"}));
}
