//! `kubectl taskgraph` against a real API server: what its verbs do to a graph, and what they say.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use anyhow::Result;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::{ResourceExt, api::PostParams};
use serde_json::{Value, json};
use taskgraph::api::{GraphPhase, TaskGraph, TaskPhase};

use crate::{
    fixture::{Fixture, task},
    support::{
        ControlPlane, Play,
        guarded::until_may,
        namespace::{condition, finished, holds, status, task as task_status},
    },
};

/// What a verb printed, its complaint, and its exit code.
pub async fn plugin(fixture: &Fixture, arguments: &[&str], input: Value) -> Result<(String, String, Option<i32>)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-taskgraph"));
    command.args(arguments).args(["--namespace", &fixture.namespace.name, "--kubeconfig"]);
    command.arg(fixture.proxy.kubeconfig());
    output(command, input).await
}

async fn output(mut command: Command, input: Value) -> Result<(String, String, Option<i32>)> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // the proxy that it talks to needs this thread
    let output = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // a verb that reads nothing closes it
            let _ = stdin.write_all(input.to_string().as_bytes());
        }
        child.wait_with_output()
    });
    let output = output.await??;
    Ok((String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?, output.status.code()))
}

#[tokio::test]
async fn suspend_resume_and_cancel() -> Result<()> {
    let fixture = Fixture::new("verbs", |task, _| match task {
        "first" => Play::succeeds("").held(),
        _ => Play::runs_on(),
    })
    .await?;
    fixture.namespace.create("g", json!({"tasks": [task("first", &[]), task("long", &["first"])]})).await?;
    fixture.until_job("first", 1).await;
    for _ in 0..2 {
        let (out, err, code) = plugin(&fixture, &["suspend", "g"], Value::Null).await?;
        assert_eq!((out.starts_with("Suspended"), err.as_str(), code), (true, "", Some(0)));
    }
    fixture.namespace.until("g", "suspended", |graph| holds(graph, "Suspended")).await;
    fixture.player.let_end();
    assert_eq!(plugin(&fixture, &["resume", "g"], Value::Null).await?.0, "Resumed\n");
    fixture.until_pod_runs("long").await;
    assert_eq!(plugin(&fixture, &["cancel", "g"], Value::Null).await?.2, Some(0));
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(condition(&graph, "Failed").map(|failed| failed.reason.as_str()), Some("Cancelled"));
    // a manager of its own, by which GitOps tools tell it from `kubectl edit`: docs/gitops.md
    let fields = |manager: &str| {
        let mut entries = graph.managed_fields().iter();
        let entry = entries.find(|entry| entry.manager.as_deref() == Some(manager))?;
        Some(entry.fields_v1.as_ref()?.0["f:spec"]["f:desiredState"].is_object())
    };
    assert_eq!(fields("taskgraph-plugin"), Some(true), "{:?}", graph.managed_fields());
    for verb in [&["resume", "g"][..], &["rerun", "g", "--all"]] {
        let (_, err, code) = plugin(&fixture, verb, Value::Null).await?;
        assert_eq!(code, Some(2));
        assert!(err.contains("was cancelled, which cannot be taken back"), "{err}");
    }
    Ok(())
}

#[tokio::test]
async fn rerun_runs_once_more_and_follows() -> Result<()> {
    let fixture = Fixture::new("verb-rerun", |task, attempt| match (task, attempt) {
        ("bad", 1) => Play::fails(1),
        _ => Play::succeeds(""),
    })
    .await?;
    fixture.run("g", json!({"tasks": [task("good", &[]), task("bad", &["good"]), task("after", &["bad"])]})).await?;
    let (out, err, code) = plugin(&fixture, &["rerun", "g", "--watch"], Value::Null).await?;
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.starts_with("Rerun 20") && out.contains("graph: Complete"), "{out}");
    let graph = fixture.namespace.until_finished("g").await;
    assert_eq!(finished(&graph), Some("Complete"));
    assert_eq!(task_status(&graph, "bad").map(|task| (task.phase, task.attempts)), Some((TaskPhase::Succeeded, 2)));
    let (_, err, code) = plugin(&fixture, &["rerun", "g"], Value::Null).await?;
    assert_eq!((err.contains("no task is Failed"), code), (true, Some(2)));
    plugin(&fixture, &["rerun", "g", "-t", "after"], Value::Null).await?;
    let again = |graph: &TaskGraph| {
        finished(graph).is_some() && task_status(graph, "after").is_some_and(|task| task.attempts == 2)
    };
    fixture.namespace.until("g", "run once more", again).await;
    let (out, _, _) = plugin(&fixture, &["tree", "g"], Value::Null).await?;
    assert!(out.contains("history") && out.contains("ago  Rerun: 20"), "{out}");
    fixture.judge().await?;
    Ok(())
}

#[tokio::test]
async fn diff_tells_what_an_apply_then_does() -> Result<()> {
    let fixture = Fixture::new("verb-diff", |_, _| Play::succeeds("")).await?;
    fixture.namespace.create_template("later", json!({"graph": {"tasks": [task("in", &[])]}})).await?;
    fixture.run("g", json!({"tasks": [task("a", &[])]})).await?;
    let namespace = &fixture.namespace.name;
    let object = |name: &str, spec: &Value| json!({"apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskGraph", "metadata": {"name": name}, "spec": spec});
    let diff = async |spec: &Value| plugin(&fixture, &["diff", "-f", "-"], object("g", spec)).await;
    let same = json!({"tasks": [task("a", &[])]});
    assert_eq!(diff(&same).await?, (format!("{namespace}/g: nothing would happen\n"), String::new(), Some(0)));
    let edit = json!({"tasks": [task("a", &[]), {"name": "b", "dependsOn": ["a"], "templateRef": {"name": "later"}}]});
    let told = format!(
        "{namespace}/g:\n  added: b\n  would start at once: b\n  the graph had finished, and would be reopened\n"
    );
    assert_eq!(diff(&edit).await?, (told, String::new(), Some(1)));
    // what is refused is told in the words of the condition
    for bad in [
        json!({"tasks": [task("a", &["a"])]}),
        json!({"tasks": [task("a", &[]), {"name": "b", "templateRef": {"name": "nobody"}}]}),
        json!({"tasks": [task("a", &[])], "rerun": {"id": "1", "scope": "Tasks", "tasks": ["nobody"]}}),
    ] {
        let (out, _, code) = diff(&bad).await?;
        assert_eq!(code, Some(1));
        let before = fixture.namespace.edit("g", bad).await?;
        let refused = |graph: &TaskGraph| {
            status(graph).observed_generation >= before.metadata.generation && !holds(graph, "Accepted")
        };
        let graph = fixture.namespace.until("g", "refused", refused).await;
        let accepted = condition(&graph, "Accepted").cloned().expect("it is there");
        for problem in accepted.message.lines() {
            assert!(out.contains(&format!("({}): {problem}", accepted.reason)), "{problem} is not in {out}");
        }
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [object("new", &same), object("g", &same)]});
    let (out, _, _) = plugin(&fixture, &["diff", "-f", "-"], list).await?;
    assert!(out.starts_with(&format!("{namespace}/new:\n  would begin\n  would start at once: a\n")), "{out}");
    Ok(())
}

#[tokio::test]
async fn what_somebody_may_not_do_is_said() -> Result<()> {
    let fixture = Fixture::new("verb-rights", |_, _| Play::runs_on()).await?;
    fixture.namespace.create("g", json!({"tasks": [task("a", &[])]})).await?;
    fixture.namespace.until("g", "running", |graph| status(graph).phase == Some(GraphPhase::Running)).await;
    let rules = json!([{"apiGroups": ["taskgraph.dev"], "resources": ["taskgraphs"], "verbs": ["get", "list"]}]);
    let role: Role = serde_json::from_value(json!({"metadata": {"name": "reader"}, "rules": rules}))?;
    fixture.namespace.api().create(&PostParams::default(), &role).await?;
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": {"name": "reader"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "reader"}],
    }))?;
    fixture.namespace.api().create(&PostParams::default(), &binding).await?;
    let namespace = &fixture.namespace;
    until_may(&namespace.client, "reader", ("get", "taskgraph.dev", "taskgraphs"), Some(&namespace.name)).await;
    for (verb, arguments) in [("cancel", &[][..]), ("rerun", &["--all"])] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-taskgraph"));
        command.args([verb, "g"]).args(arguments).args(["--namespace", &fixture.namespace.name, "--kubeconfig"]);
        command.arg(ControlPlane::shared().readers_kubeconfig()?);
        let (_, err, code) = output(command, Value::Null).await?;
        assert_eq!(code, Some(2));
        assert!(
            err.starts_with("error: the cluster refuses to change the graph: ") && err.contains("cannot patch"),
            "{err}"
        );
    }
    Ok(())
}
