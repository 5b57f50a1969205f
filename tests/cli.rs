//! The real `kubectl-taskgraph`, where it needs no cluster: what it prints and its exit codes.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

const GOOD: &str = "apiVersion: taskgraph.dev/v1alpha1
kind: TaskGraph
metadata: {name: good}
spec:
  tasks:
  - {name: a, container: {image: busybox}}
";

fn run(arguments: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kubectl-taskgraph"))
        .args(arguments)
        .env_remove("KUBECONFIG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // a program that ends without reading closes the pipe
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

/// Standard output, standard error and exit code.
fn validate(arguments: &[&str], stdin: &str) -> (String, String, Option<i32>) {
    let output = run(&[&["validate"], arguments].concat(), stdin);
    (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap(), output.status.code())
}

fn write(directory: &Path, name: &str, text: &str) {
    let path = directory.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

#[test]
fn exit_codes_of_validate() {
    let bad = GOOD.replace("container", "contianer");
    let (out, err, code) = validate(&["-f", "-"], GOOD);
    assert_eq!((out.as_str(), err.as_str(), code), ("1 graph and 0 templates in 1 file: no problems\n", "", Some(0)));
    let (out, _, code) = validate(&["-f", "-"], &bad);
    assert_eq!(code, Some(1));
    assert!(
        out.contains("stdin:6: TaskGraph/good: spec.tasks[0].contianer: unknown field (did you mean \"container\"?)\n"),
        "{out}"
    );
    let (out, err, code) = validate(&["-f", "/does/not/exist.yaml", "-f", "-"], GOOD);
    assert_eq!(code, Some(2));
    assert!(err.starts_with("error: cannot read /does/not/exist.yaml: "), "{err}");
    assert!(out.ends_with("no problems\n"), "what can be read is still checked: {out}");
    assert_eq!(validate(&[], "").2, Some(2));
    assert_eq!(validate(&["-f", "-", "--nonsense"], "").2, Some(2));
}

#[test]
fn directories() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let (_, err, code) = validate(&["-f", path], "");
    assert_eq!(code, Some(2));
    assert!(err.contains("no .yaml, .yml or .json file"), "{err}");
    write(directory.path(), "b.yml", GOOD);
    write(directory.path(), "a.json", &GOOD_JSON.replace("GRAPH", "one"));
    write(directory.path(), "notes.txt", "not: [looked at");
    write(
        directory.path(),
        "deep/er/c.yaml",
        &GOOD.replace("{name: good}", "{name: other}").replace("image", "imagee"),
    );
    let (out, _, code) = validate(&["-f", path], "");
    assert_eq!((out.as_str(), code), ("2 graphs and 0 templates in 2 files: no problems\n", Some(0)));
    let (out, _, code) = validate(&["-f", path, "-R"], "");
    assert_eq!(code, Some(1));
    assert!(out.starts_with(&format!("{path}/deep/er/c.yaml:6: TaskGraph/other: spec.tasks[0].container")), "{out}");
    #[cfg(unix)]
    {
        // a circle of links ends
        std::os::unix::fs::symlink(directory.path(), directory.path().join("deep/again")).unwrap();
        assert!(validate(&["-f", path, "-R"], "").0.contains(" in 3 files"));
    }
}

const GOOD_JSON: &str = r#"{
	"apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskGraph", "metadata": {"name": "GRAPH"},
	"spec": {"displayName": "\ud83d\ude00", "tasks": [{"name": "a", "container": {"image": "busybox"}}]}
}
"#;

#[test]
fn templates_that_are_not_there() {
    let graph = GOOD.replace("container: {image: busybox}", "templateRef: {name: extract}");
    let (out, _, code) = validate(&["-f", "-"], &graph);
    assert_eq!(code, Some(0));
    assert!(out.contains(": warning: TaskGraph/good: spec.tasks[0].templateRef: "), "{out}");
    assert_eq!(validate(&["-f", "-", "--strict"], &graph).2, Some(1));
}

#[test]
fn output_for_programs() {
    let (out, _, code) = validate(&["-f", "-", "-o", "json"], &GOOD.replace("name: a", "name: a, when: true"));
    assert_eq!(code, Some(1));
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let problem = serde_json::json!({
        "file": "stdin", "line": 6, "object": "TaskGraph/good", "path": "spec.tasks[0].when",
        "message": "must be a string, not a boolean: write it in quotes", "severity": "error",
    });
    assert_eq!(report["problems"], serde_json::json!([problem]));
    assert_eq!(report["summary"]["errors"], 1);
    assert_eq!(report["summary"]["graphs"], 1);
}

#[test]
fn nothing_makes_it_panic() {
    let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    let laughs = (1..10).fold("a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, level| {
        format!("{text}a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 9].join(", "))
    });
    for text in [deep.as_str(), laughs.as_str(), "\0", "!!binary x", "? [a]\n: b\n", "a: *nothing\n", "- - - -\n  -\n"]
    {
        let (out, err, code) = validate(&["-f", "-"], text);
        assert_eq!(code, Some(1), "{out}{err}");
        assert!(!err.contains("panicked"), "{err}");
    }
    assert_eq!(validate(&["-f", "-"], "").2, Some(0));
}

#[test]
fn help_version_and_completion() {
    for (arguments, text) in [
        (&["--version"][..], concat!("kubectl-taskgraph ", env!("CARGO_PKG_VERSION"))),
        (&["--help"], "kubectl taskgraph tree data-processing -n prod -w"),
        (&["tree", "--help"], "--watch"),
        (&["validate", "--help"], "--strict"),
        (&["rerun", "--help"], "kubectl taskgraph rerun nightly"),
        (&["cancel", "--help"], "for good"),
        (&["diff", "--help"], "As after kubectl apply"),
        (&["completion", "bash"], "complete -F _kubectl__taskgraph"),
    ] {
        let output = run(arguments, "");
        assert!(output.status.success());
        let out = String::from_utf8(output.stdout).unwrap();
        assert!(out.contains(text), "{out}");
    }
}

#[test]
fn command_lines_that_contradict_themselves() {
    for arguments in
        [&["rerun", "g", "--all", "-t", "a"][..], &["rerun", "g", "--failed", "--all"], &["suspend"], &["diff"]]
    {
        let output = run(arguments, "");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
    let output =
        run(&["diff", "-f", "-", "-n", "mine"], &GOOD.replace("{name: good}", "{name: good, namespace: other}"));
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(error, "error: TaskGraph/good is of namespace \"other\", and --namespace says \"mine\"\n");
}

#[test]
fn a_cluster_that_is_not_there() {
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("kubeconfig");
    let output = run(&["tree", "g", "--kubeconfig", kubeconfig.to_str().unwrap()], "");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("error: cannot read "));
    fs::write(
        &kubeconfig,
        "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}], \
         clusters: [{name: c, cluster: {server: \"http://127.0.0.1:1\"}}], users: [{name: u, user: {}}]}",
    )
    .unwrap();
    let output = run(&["tree", "g", "--kubeconfig", kubeconfig.to_str().unwrap()], "");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("error: cannot ask the cluster: "));
}
