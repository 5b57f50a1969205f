//! Flux' own kustomize-controller applies graphs from Git, by the manifests of docs/gitops.md, with the rights of
//! docs/security.md.
//!
//! Left out unless asked for, since the controller takes long to build: `make test TESTS=flux`.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Pod, ServiceAccount},
    rbac::v1::{ClusterRole, RoleBinding},
};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use taskgraph::api::{DesiredState, GraphPhase, TaskGraph, TaskPhase, TaskTemplate};

use crate::{
    fixture::{Fixture, task, task_with},
    support::{
        ControlPlane, Play, control_plane,
        flux::{Flux, Kustomization},
        guarded::until_may,
        namespace::{condition, finished, holds, line, status, task as task_status},
        rights::rules,
    },
    verbs::plugin,
};

/// The Kustomization and the `GitRepository` of the page.
const NAME: &str = "team-graphs";
/// The account that the page lets Flux apply as.
const ACCOUNT: &str = "gitops";

/// The objects of the first YAML block below a heading of a document.
fn manifests(document: &str, heading: &str) -> Result<Vec<Value>> {
    let text = fs::read_to_string(format!("{}/{document}", env!("CARGO_MANIFEST_DIR")))?;
    let (_, below) = text.split_once(&format!("\n{heading}\n")).with_context(|| format!("{document}: no {heading}"))?;
    let (_, block) = below.split_once("```yaml\n").context("no YAML")?;
    let (block, _) = block.split_once("\n```").context("no end")?;
    block.split("\n---\n").map(|object| Ok(serde_saphyr::from_str(object)?)).collect()
}

/// A namespace with an operator, and with Flux, which applies what is in Git as the page says.
struct Stage {
    // first: it is dropped before the operator
    flux: Flux,
    fixture: Fixture,
}

impl Stage {
    /// With what a test changes in the spec of the page's Kustomization, and more arguments for Flux.
    async fn new(
        test: &str,
        change: &Value,
        args: &[&str],
        script: impl Fn(&str, u32) -> Play + Send + Sync + 'static,
    ) -> Result<Self> {
        let fixture = Fixture::new(test, script).await?;
        let flux = Flux::start(ControlPlane::shared(), &fixture.namespace, args).await?;
        let stage = Self { flux, fixture };
        stage.grant().await?;
        for mut manifest in manifests("docs/gitops.md", "## Graphs with Flux")? {
            let team = json!(stage.fixture.namespace.name);
            ensure!(manifest["metadata"]["name"] == NAME && manifest["metadata"]["namespace"] == "team");
            manifest["metadata"]["namespace"] = team.clone();
            if manifest["kind"] == "Kustomization" {
                ensure!(
                    manifest["spec"]["targetNamespace"] == "team" && manifest["spec"]["serviceAccountName"] == ACCOUNT
                );
                manifest["spec"]["targetNamespace"] = team;
                for (field, value) in change.as_object().into_iter().flatten() {
                    manifest["spec"][field] = value.clone();
                }
            }
            stage.flux.apply(&manifest).await?;
        }
        Ok(stage)
    }

    /// The account, and what the page on security binds to it: no more.
    async fn grant(&self) -> Result<()> {
        let namespace = &self.fixture.namespace;
        let roles: Api<ClusterRole> = Api::all(namespace.client.clone());
        let designer = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": "taskgraph-designer"}, "rules": rules("roles.yaml", "{{ $name }}-designer")?,
        });
        roles.patch("taskgraph-designer", &PatchParams::apply("tests").force(), &Patch::Apply(designer)).await?;
        let mut all = manifests("docs/security.md", "### With GitOps")?.into_iter();
        let mut next = || -> Result<Value> {
            let mut object = all.next().context("the page shows less")?;
            object["metadata"]["namespace"] = json!(namespace.name);
            Ok(object)
        };
        let account: ServiceAccount = serde_json::from_value(next()?)?;
        ensure!(account.name_any() == ACCOUNT);
        namespace.api().create(&PostParams::default(), &account).await?;
        let mut binding = next()?;
        ensure!(binding["roleRef"]["name"] == "taskgraph-designer" && binding["subjects"][0]["namespace"] == "team");
        binding["subjects"][0]["namespace"] = json!(namespace.name);
        let binding: RoleBinding = serde_json::from_value(binding)?;
        namespace.api().create(&PostParams::default(), &binding).await?;
        let user = format!("system:serviceaccount:{}:{ACCOUNT}", namespace.name);
        until_may(&namespace.client, &user, ("patch", "taskgraph.dev", "taskgraphs"), Some(&namespace.name)).await;
        Ok(())
    }

    /// Git has these graphs from now on, by name and spec, and a template; the revision.
    async fn commit(&self, graphs: &[(&str, &Value)]) -> Result<String> {
        let graphs: Vec<_> =
            graphs.iter().map(|(name, spec)| object("TaskGraph", &json!({"name": name}), spec)).collect();
        self.commit_objects(&graphs).await
    }

    async fn commit_objects(&self, graphs: &[Value]) -> Result<String> {
        let template = object("TaskTemplate", &json!({"name": "kept"}), &json!({"graph": {"tasks": [task("a", &[])]}}));
        let text = |objects: &[Value]| objects.iter().map(Value::to_string).collect::<Vec<_>>().join("\n---\n");
        let mut files = vec![("graphs/template.yaml", text(&[template])), ("README.md", "Graphs.\n".to_owned())];
        if !graphs.is_empty() {
            files.push(("graphs/graphs.yaml", text(graphs)));
        }
        self.flux.commit(NAME, &files).await
    }

    async fn until_ready(&self, revision: &str) -> Kustomization {
        self.flux.until(NAME, "ready", |kustomization| kustomization.is_ready(revision)).await
    }

    /// Waits until Flux says that this revision failed; reason and message.
    async fn until_failed(&self, revision: &str) -> (String, String) {
        let failed = self.flux.until(NAME, "failed", |kustomization| kustomization.failure(revision).is_some()).await;
        let (reason, message) = failed.failure(revision).unwrap_or_default();
        (reason.to_owned(), message.to_owned())
    }

    /// Waits until Flux has applied a revision and waits for its health.
    async fn until_awaited(&self, revision: &str) -> Kustomization {
        let awaited = |kustomization: &Kustomization| {
            let healthy = kustomization.condition("Healthy");
            kustomization
                .status
                .as_ref()
                .is_some_and(|status| status.last_attempted_revision.as_deref() == Some(revision))
                && healthy.is_some_and(|(value, _, message)| value == "Unknown" && message.contains(revision))
        };
        self.flux.until(NAME, "awaited", awaited).await
    }

    /// Flux reconciles, and finds nothing to write: the graph is the very same, and has the same Jobs.
    async fn nothing_to_apply(&self, graph: &str) -> Result<()> {
        let graphs = self.fixture.namespace.graphs();
        let (before, jobs) = (graphs.get(graph).await?, self.jobs().await?);
        self.flux.reconcile(NAME).await?;
        let after = graphs.get(graph).await?;
        assert_eq!(after.metadata, before.metadata);
        assert_eq!(self.jobs().await?, jobs);
        let unchanged = format!("\"TaskGraph/{}/{graph}\":\"unchanged\"", self.fixture.namespace.name);
        let log = self.flux.log();
        let last = log.lines().rfind(|line| line.contains("server-side apply completed")).unwrap_or_default();
        assert!(last.contains(&unchanged), "{last}");
        Ok(())
    }

    /// UIDs of its Jobs.
    async fn jobs(&self) -> Result<Vec<String>> {
        let jobs = self.fixture.namespace.jobs().list(&ListParams::default()).await?;
        let mut uids: Vec<_> = jobs.into_iter().filter_map(|job| job.metadata.uid).collect();
        uids.sort();
        Ok(uids)
    }

    /// What a user does with kubectl itself.
    fn kubectl(&self, args: &[&str]) -> Result<()> {
        let mut command = Command::new(control_plane::bin_dir()?.join("kubectl"));
        command.arg("--kubeconfig").arg(ControlPlane::shared().kubeconfig());
        command.args(["--namespace", &self.fixture.namespace.name]).args(args);
        let output = command.output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

fn object(kind: &str, metadata: &Value, spec: &Value) -> Value {
    json!({"apiVersion": "taskgraph.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
}

/// A task that waits for somebody.
fn ask(depends_on: &[&str]) -> Value {
    json!({"name": "ask", "dependsOn": depends_on, "approval": {}})
}

fn asks(graph: &TaskGraph) -> bool {
    task_status(graph, "ask").is_some_and(|ask| ask.phase == TaskPhase::Waiting)
}

/// The whole life of a graph in Git.
#[tokio::test]
#[ignore = "needs Flux' controller: make test TESTS=flux"]
async fn a_graph_in_git_is_applied_awaited_edited_and_pruned() -> Result<()> {
    let stage = Stage::new("flux", &json!({}), &[], |_, _| Play::succeeds("")).await?;
    let namespace = &stage.fixture.namespace;
    let inner = json!({"name": "inner", "dependsOn": ["ask"], "templateRef": {"name": "kept"}});
    let spec = json!({"tasks": [task("first", &[]), ask(&["first"]), inner]});
    let revision = stage.commit(&[("order", &spec)]).await?;

    // applied, and awaited: ready when the graph is complete, and not before
    namespace.until("order", "asked", asks).await;
    let awaited = stage.until_awaited(&revision).await;
    assert_eq!(awaited.condition("Ready").map(|(value, ..)| value), Some("Unknown"));
    let (out, err, code) = plugin(&stage.fixture, &["approve", "order", "ask"], Value::Null).await?;
    assert_eq!(code, Some(0), "{out}{err}");
    let ready = stage.until_ready(&revision).await;
    assert_eq!(ready.condition("Ready").map(|(_, reason, _)| reason), Some("ReconciliationSucceeded"));
    let graph = namespace.graphs().get("order").await?;
    assert_eq!(
        (finished(&graph), line(&graph).as_str()),
        (Some("Complete"), "first=Succeeded/1 ask=Succeeded/1 inner=Succeeded/1")
    );

    // Flux' marks are the graph's alone: nothing that the operator made is taken for Flux' own
    let mark = |labels: &std::collections::BTreeMap<String, String>| labels.keys().any(|key| key.contains("fluxcd.io"));
    assert!(mark(graph.labels()));
    let jobs: Api<Job> = namespace.jobs();
    assert!(jobs.list(&ListParams::default()).await?.iter().all(|job| !mark(job.labels())));
    let children = namespace.graphs().list(&ListParams::default()).await?;
    assert_eq!(children.iter().map(|graph| mark(graph.labels())).filter(|marked| *marked).count(), 1);

    // what the operator wrote and what was approved is no drift, however often Flux looks
    for _ in 0..2 {
        stage.nothing_to_apply("order").await?;
    }
    assert_eq!(namespace.graphs().get("order").await?.spec.approvals.len(), 1);

    // an edit in Git is an edit of this graph: what has run is not run again
    let jobs = stage.jobs().await?;
    let mut more = spec.clone();
    more["tasks"].as_array_mut().context("tasks")?.push(task("more", &["inner"]));
    let revision = stage.commit(&[("order", &more)]).await?;
    stage.until_ready(&revision).await;
    let edited = namespace.graphs().get("order").await?;
    assert_eq!(
        (finished(&edited), edited.uid(), edited.metadata.generation > graph.metadata.generation),
        (Some("Complete"), graph.uid(), true)
    );
    assert_eq!(line(&edited), "first=Succeeded/1 ask=Succeeded/1 inner=Succeeded/1 more=Succeeded/1");
    let after = stage.jobs().await?;
    assert!(after.len() == jobs.len() + 1 && jobs.iter().all(|job| after.contains(job)));
    stage.nothing_to_apply("order").await?;

    // removed from Git it is gone, with all that it had made; what is still there stays
    let revision = stage.commit(&[]).await?;
    let ready = stage.until_ready(&revision).await;
    namespace.until_object(namespace.graphs(), "order", "pruned", |graph| graph.is_none().then_some(())).await;
    namespace.until_all::<TaskGraph>("gone", <[TaskGraph]>::is_empty).await;
    namespace.until_all::<Job>("gone", <[Job]>::is_empty).await;
    namespace.until_all::<Pod>("gone", <[Pod]>::is_empty).await;
    let inventory = ready.status.map(|status| status.inventory.to_string()).unwrap_or_default();
    assert!(inventory.contains("TaskTemplate") && !inventory.contains("TaskGraph"), "{inventory}");
    namespace.api::<TaskTemplate>().get("kept").await?;
    Ok(())
}

/// Flux fails early on what will not come right by itself, waits for what may, and is right again after an edit in Git.
#[tokio::test]
#[ignore = "needs Flux' controller: make test TESTS=flux"]
async fn failed_and_refused_graphs_fail_and_are_mended_by_an_edit() -> Result<()> {
    let script = |task: &str, attempt| match (task, attempt) {
        ("flaky", 1) => Play::fails(1),
        _ => Play::succeeds(""),
    };
    let stage = Stage::new("flux-fails", &json!({}), &[], script).await?;
    let namespace = &stage.fixture.namespace;
    let failure = format!("TaskGraph/{}/order status: 'Failed'", namespace.name);
    let fails = |(reason, message): (String, String)| {
        assert_eq!(reason, "HealthCheckFailed", "{message}");
        assert!(message.contains("failed early") && message.contains(&failure), "{message}");
    };

    let tasks = json!([task("flaky", &[]), task("last", &["flaky"])]);
    let revision = stage.commit(&[("order", &json!({"tasks": tasks}))]).await?;
    fails(stage.until_failed(&revision).await);
    // each reconciliation fails anew, and none runs the graph again
    stage.nothing_to_apply("order").await?;
    fails(stage.until_failed(&revision).await);
    let rerun = json!({"tasks": tasks, "rerun": {"id": "mended", "scope": "Failed"}});
    let revision = stage.commit(&[("order", &rerun)]).await?;
    stage.until_ready(&revision).await;
    let graph = namespace.graphs().get("order").await?;
    assert_eq!((finished(&graph), line(&graph).as_str()), (Some("Complete"), "flaky=Succeeded/2 last=Succeeded/1"));

    // an edit that is refused: the run goes on as it was, and Flux says that Git is wrong
    let refused =
        json!({"tasks": [task("flaky", &[]), task("last", &["flakey"])], "rerun": {"id": "mended", "scope": "Failed"}});
    let revision = stage.commit(&[("order", &refused)]).await?;
    fails(stage.until_failed(&revision).await);
    let graph = namespace.graphs().get("order").await?;
    assert!(
        condition(&graph, "Stalled")
            .is_some_and(|stalled| stalled.status == "True" && stalled.message.contains("flaky"))
    );
    let revision = stage.commit(&[("order", &rerun)]).await?;
    stage.until_ready(&revision).await;
    assert_eq!(line(&namespace.graphs().get("order").await?), "flaky=Succeeded/2 last=Succeeded/1");

    // what is still to come may come
    let waits = json!({"tasks": [{"name": "a", "templateRef": {"name": "later"}}]});
    let revision = stage.commit(&[("order", &rerun), ("waits", &waits)]).await?;
    stage.until_awaited(&revision).await;
    namespace.until("waits", "held up", |graph| holds(graph, "Reconciling")).await;
    namespace.create_template("later", json!({"graph": {"tasks": [task("in", &[])]}})).await?;
    stage.until_ready(&revision).await;
    Ok(())
}

/// What an edit in Git needs to reach a graph that Flux still waits for.
#[tokio::test]
#[ignore = "needs Flux' controller: make test TESTS=flux"]
async fn an_edit_reaches_a_graph_that_runs() -> Result<()> {
    let gate = "--feature-gates=CancelHealthCheckOnNewRevision=true";
    let stage = Stage::new("flux-edits", &json!({}), &[gate], |_, _| Play::succeeds("")).await?;
    let namespace = &stage.fixture.namespace;
    let revision = stage.commit(&[("order", &json!({"tasks": [ask(&[])]}))]).await?;
    namespace.until("order", "asked", asks).await;
    stage.until_awaited(&revision).await;
    let revision = stage.commit(&[("order", &json!({"tasks": [ask(&[]), task("more", &[])]}))]).await?;
    let ran = |graph: &TaskGraph| task_status(graph, "more").is_some_and(|more| more.phase == TaskPhase::Succeeded);
    let graph = namespace.until("order", "edited while it runs", ran).await;
    assert!(asks(&graph));
    // ended in order: Git says so
    let cancelled = json!({"tasks": [ask(&[]), task("more", &[])], "desiredState": "Cancel"});
    stage.until_awaited(&revision).await;
    let revision = stage.commit(&[("order", &cancelled)]).await?;
    let (_, message) = stage.until_failed(&revision).await;
    assert!(message.contains("status: 'Failed'"), "{message}");
    let graph = namespace.graphs().get("order").await?;
    assert_eq!(condition(&graph, "Failed").map(|failed| failed.reason.as_str()), Some("Cancelled"));
    Ok(())
}

/// What people decide on the cluster, where Git says nothing of it: the plugin's word stays, kubectl's is undone.
#[tokio::test]
#[ignore = "needs Flux' controller: make test TESTS=flux"]
async fn the_plugins_word_stays_and_kubectls_is_undone() -> Result<()> {
    // as the page says of graphs that nothing waits for
    let change = json!({"wait": false, "healthCheckExprs": []});
    let stage = Stage::new("flux-drift", &change, &[], |_, _| Play::succeeds("")).await?;
    let namespace = &stage.fixture.namespace;
    let spec = json!({"tasks": [ask(&[]), task_with("last", &["ask"], json!({}))]});
    let merged = json!({"name": "merged", "annotations": {"kustomize.toolkit.fluxcd.io/ssa": "Merge"}});
    let named = |name: &str| object("TaskGraph", &json!({"name": name}), &spec);
    let graphs = [named("order"), named("other"), object("TaskGraph", &merged, &spec)];
    let revision = stage.commit_objects(&graphs).await?;
    // applied, and no more is waited for
    stage.until_ready(&revision).await;
    namespace.until("order", "asked", asks).await;

    let verb = async |verb: &str, graph: &str| plugin(&stage.fixture, &[verb, graph], Value::Null).await;
    verb("suspend", "order").await?;
    namespace.until("order", "suspended", |graph| holds(graph, "Suspended")).await;
    stage.nothing_to_apply("order").await?;
    verb("resume", "order").await?;
    namespace.until("order", "resumed", |graph| !holds(graph, "Suspended")).await;

    let suspend = json!({"spec": {"desiredState": "Suspend"}}).to_string();
    for graph in ["order", "merged"] {
        stage.kubectl(&["patch", "taskgraph", graph, "--type=merge", "--patch", &suspend])?;
        namespace.until(graph, "suspended", |graph| holds(graph, "Suspended")).await;
    }
    stage.flux.reconcile(NAME).await?;
    let graph = namespace.until("order", "resumed", |graph| !holds(graph, "Suspended")).await;
    assert_eq!(graph.spec.desired_state, None);
    // the annotation keeps what kubectl wrote
    assert_eq!(namespace.graphs().get("merged").await?.spec.desired_state, Some(DesiredState::Suspend));

    verb("cancel", "order").await?;
    namespace.until_finished("order").await;
    stage.nothing_to_apply("order").await?;
    // a Cancel of kubectl's would be undone, and cannot be
    let cancel = json!({"spec": {"desiredState": "Cancel"}}).to_string();
    stage.kubectl(&["patch", "taskgraph", "other", "--type=merge", "--patch", &cancel])?;
    namespace.until_finished("other").await;
    let refused = stage.flux.reconcile(NAME).await?;
    let (reason, message) = refused.failure(&revision).context("it is refused")?;
    let told = message.contains("a cancel cannot be taken back");
    assert_eq!((reason, told), ("ReconciliationFailed", true), "{message}");
    // until Git says it too
    let mut cancelled = graphs.clone();
    cancelled[1]["spec"]["desiredState"] = json!("Cancel");
    let revision = stage.commit_objects(&cancelled).await?;
    stage.until_ready(&revision).await;
    assert_eq!(status(&namespace.graphs().get("other").await?).phase.map(GraphPhase::name), Some("Failed"));
    Ok(())
}
