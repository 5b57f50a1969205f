use super::*;

fn report(files: &[(&str, &str)], strict: bool) -> Report {
    let mut checker = Checker::new(None, strict);
    for (name, text) in files {
        checker.add(&Source { name: (*name).to_owned(), bytes: text.as_bytes().to_vec() });
    }
    checker.finish()
}

fn lines(files: &[(&str, &str)]) -> Vec<String> {
    report(files, false).to_text().lines().map(str::to_owned).collect()
}

const GRAPH: &str = "apiVersion: taskgraph.dev/v1alpha1\nkind: TaskGraph\nmetadata: {name: g}\nspec:\n  tasks:\n";
const TEMPLATE: &str = "apiVersion: taskgraph.dev/v1alpha1
kind: TaskTemplate
metadata: {name: extract}
spec:
  parameters: [{name: source, type: string, required: true}]
  container: {image: busybox}
";

/// Line 6 of a graph is its first task.
fn graph(tasks: &str) -> String {
    format!("{GRAPH}{tasks}")
}

#[test]
fn each_problem_has_its_line_and_path() {
    let cases: &[(&str, &[&str])] = &[
        ("  - {name: a, container: {image: busybox}}\n", &["1 graph and 0 templates in 1 file: no problems"]),
        (
            "  - {name: build, container: {image: busybox}}\n  - name: test\n    dependsOn:\n    - biuld\n    container: {image: busybox}\n",
            &[
                "f:9: TaskGraph/g: spec.tasks[1].dependsOn[0]: no task \"biuld\" (did you mean \"build\"?)",
                "1 graph and 0 templates in 1 file: 1 problem",
            ],
        ),
        (
            "  - {name: a, dependsOn: [b], container: {image: x}}\n  - {name: b, dependsOn: [a], container: {image: x}}\n",
            &["f:5: TaskGraph/g: spec.tasks: cycle: a → b → a", "1 graph and 0 templates in 1 file: 1 problem"],
        ),
        (
            "  - name: a\n    container:\n      image: busybox\n      imagPullPolicy: Never\n",
            &[
                "f:9: TaskGraph/g: spec.tasks[0].container.imagPullPolicy: unknown field (did you mean \"imagePullPolicy\"?)",
                "1 graph and 0 templates in 1 file: 1 problem",
            ],
        ),
        (
            "  - name: a\n    timeout: 30\n    retrys: 3\n    container: {image: x}\n",
            &[
                "f:7: TaskGraph/g: spec.tasks[0].timeout: must be a duration such as \"90s\" or \"1h30m\", not a number",
                "f:8: TaskGraph/g: spec.tasks[0].retrys: unknown field (did you mean \"retry\"?)",
                "1 graph and 0 templates in 1 file: 2 problems",
            ],
        ),
    ];
    for (tasks, wanted) in cases {
        assert_eq!(lines(&[("f", &graph(tasks))]), *wanted, "{tasks}");
    }
}

#[test]
fn nothing_is_said_twice() {
    // each of these breaks a rule of the CRD and one of the operator
    for tasks in [
        "  - {name: a}\n",
        "  - {name: A, container: {image: x}}\n",
        "  - {name: a, container: {image: x}}\n  - {name: a, container: {image: x}}\n",
        "  - {name: a, container: {image: x}}\n  - {name: b, dependsOn: [a], trigger: AnyFailed, minSucceeded: 1, container: {image: x}}\n",
        "  - {name: a, arguments: {x: 1}, container: {image: x}}\n",
        "  - {name: a, priority: 11, container: {image: x}}\n",
    ] {
        let found = lines(&[("f", &graph(tasks))]);
        assert_eq!(found.len(), 2, "{found:#?}");
    }
    let unnamed = graph("  - {name: a, container: {image: x}}\n").replace("{name: g}", "{name: No.label}");
    assert_eq!(lines(&[("f", &unnamed)]).len(), 2);
}

#[test]
fn templates_come_from_any_of_the_files() {
    let user = graph("  - name: a\n    templateRef: {name: extract}\n    arguments: {source: 3}\n");
    assert_eq!(
        lines(&[("g.yaml", &user), ("t.yaml", TEMPLATE)])[0],
        "g.yaml:8: TaskGraph/g: spec.tasks[0].arguments.source: the number 3: template \"extract\" (TaskTemplate) takes a value of type string"
    );
    let alone = lines(&[("g.yaml", &user)]);
    assert_eq!(
        alone,
        [
            "g.yaml:7: warning: TaskGraph/g: spec.tasks[0].templateRef: TaskTemplate \"extract\" is not among the files, so the arguments were not checked",
            "1 graph and 0 templates in 1 file: no problems, 1 warning",
        ]
    );
    assert_eq!(report(&[("g.yaml", &user)], true).summary.errors, 1);
    let elsewhere = TEMPLATE.replace("{name: extract}", "{name: extract, namespace: prod}");
    let found = lines(&[("g.yaml", &user), ("t.yaml", &elsewhere)]);
    assert!(
        found[0].contains("(the one in the files has namespace \"prod\", the graph no namespace of its own"),
        "{found:#?}"
    );
}

#[test]
fn templates_are_checked_alone_and_told_once() {
    let broken = TEMPLATE.replace(
        "{image: busybox}",
        "\n    image: busybox\n    comand: [sh]\n    env: [{name: A, value: \"${{ args.sorce }}\"}]",
    );
    let user = graph("  - {name: a, templateRef: {name: extract}, arguments: {source: x}}\n");
    let wanted = [
        "t:8: TaskTemplate/extract: spec.container.comand: unknown field (did you mean \"command\"?)",
        "t:9: TaskTemplate/extract: spec.container.env[0].value: the template has no parameter \"sorce\" (did you mean \"source\"?)",
    ];
    for files in [vec![("t", broken.as_str())], vec![("t", broken.as_str()), ("g", user.as_str())]] {
        let found = lines(&files);
        assert_eq!(found.len(), 3, "{found:#?}");
        for (line, wanted) in found.iter().zip(wanted) {
            assert!(line.starts_with(wanted), "{found:#?}");
        }
    }
    assert_eq!(lines(&[("t", &TEMPLATE.replace("container: {image: busybox}", "{}"))]).len(), 2);
}

#[test]
fn other_objects_are_counted_and_near_misses_told() {
    let other = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n---\napiVersion: apps/v1\nkind: Deployment\n";
    assert_eq!(
        lines(&[("f", other)]),
        ["0 graphs and 0 templates in 1 file: no problems (2 objects of other kinds not looked at)"]
    );
    let cases = [
        (
            "apiVersion: taskgraph.dev/v1\nkind: TaskGraph\n",
            "f:1: apiVersion: \"taskgraph.dev/v1\" is not known; write taskgraph.dev/v1alpha1",
        ),
        (
            "apiVersion: taskgrah.dev/v1alpha1\nkind: TaskGraph\n",
            "f:1: apiVersion: \"taskgrah.dev/v1alpha1\" is not known; write taskgraph.dev/v1alpha1",
        ),
        (
            "apiVersion: taskgraph.dev/v1alpha1\nkind: Taskgraph\n",
            "f:2: kind: \"Taskgraph\" is no kind of taskgraph.dev/v1alpha1 (did you mean \"TaskGraph\"?)",
        ),
        ("kind: TaskGraph\n", "f:1: apiVersion: is missing, or no string"),
        ("- a\n- b\n", "f:1: is no Kubernetes object: a map with apiVersion and kind is wanted"),
        ("a: [\n", "f:1:4: unclosed bracket '['"),
    ];
    for (text, wanted) in cases {
        assert_eq!(lines(&[("f", text)])[0], wanted, "{text}");
    }
    let mut checker = Checker::new(None, false);
    checker.add(&Source { name: "f".into(), bytes: b"a: 1\nb: \xff\n".to_vec() });
    assert_eq!(checker.finish().to_text().lines().next(), Some("f:2: is not UTF-8 text"));
}

#[test]
fn metadata_is_checked() {
    let with = |metadata: &str| graph("  - {name: a, container: {image: x}}\n").replace("{name: g}", metadata);
    let cases: &[(&str, &[&str])] = &[
        ("{generateName: g-}", &[]),
        ("{}", &["metadata.name: is missing"]),
        ("{name: g, lables: {a: b}}", &["metadata.lables: unknown field (did you mean \"labels\"?)"]),
        (
            "{name: g, labels: {a: 1, b: yes, c: ok}}",
            &[
                "metadata.labels.a: must be a string: write it in quotes",
                "metadata.labels.b: must be a string: write it in quotes",
            ],
        ),
        ("{name: g, annotations: [a]}", &["metadata.annotations: must be a map"]),
        ("[g]", &["metadata: must be a map"]),
    ];
    for (metadata, wanted) in cases {
        let found: Vec<String> = report(&[("f", &with(metadata))], false)
            .problems
            .iter()
            .map(|problem| format!("{}: {}", problem.path, problem.message))
            .collect();
        assert_eq!(found, *wanted, "{metadata}");
    }
}

#[test]
fn objects_that_are_there_twice_are_told_with_both_places() {
    let text = format!("{0}---\n{0}", graph("  - {name: a, container: {image: x}}\n"));
    assert_eq!(lines(&[("f", &text)])[0], "f:10: TaskGraph/g: metadata.name: TaskGraph \"g\" is there already: f:1");
    let list = format!(
        "apiVersion: v1\nkind: List\nitems:\n- {0}\n- {0}\n",
        "{apiVersion: taskgraph.dev/v1alpha1, kind: TaskTemplate, metadata: {name: t}, spec: {container: {image: x}}}"
    );
    let found = lines(&[("f", &list)]);
    assert_eq!(
        found,
        [
            "f:5: TaskTemplate/t: metadata.name: TaskTemplate \"t\" is there already: f:4",
            "0 graphs and 2 templates in 1 file: 1 problem"
        ]
    );
    let apart = text.replacen("{name: g}", "{name: g, namespace: other}", 1);
    assert_eq!(lines(&[("f", &apart)]).len(), 1);
}

#[test]
fn a_huge_graph_is_told_its_bounds() {
    let tasks = "  - {name: a, container: {image: x}}\n".repeat(2_001);
    let found = lines(&[("f", &graph(&tasks))]);
    assert!(
        found.iter().any(|line| line.contains("spec.tasks: ") && line.contains("the limit is 2000")),
        "{:#?}",
        &found[..3]
    );
    let names = "a, ".repeat(300_000);
    let found = lines(&[("f", &graph(&format!("  - {{name: a, container: {{image: x}}, dependsOn: [{names}]}}\n")))]);
    assert!(found.iter().any(|line| line.contains("the limit is")), "{:#?}", &found[..3]);
    assert!(found.len() <= MAX_PROBLEMS + 2);
}
