//! Two operators, each for one namespace, in namespaces that hold all pods to the standard `restricted`; each release has a
//! `NetworkPolicy`. Neither touches what is the other's, and each stands what becomes of its webhook.
//!
//! The embedded cluster's network does not enforce policies: that the chart's let through what is needed is what
//! `charts/taskgraph/tests` can show.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use serde_json::{Value, json};
use taskgraph::api::{TaskGraph, TaskPhase};

use crate::{
    installed::{CHARTS, SYSTEM, helm, install, program},
    support::namespace::task,
    world::{World, shell},
};

/// An operator and the namespace that it serves.
struct Team {
    /// Where the operator is.
    system: World,
    /// What it serves.
    served: World,
}

impl Team {
    async fn install(name: &str) -> Result<Self> {
        let system = World::without_operator(&format!("{name}-system")).await?;
        let served = World::without_operator(name).await?;
        for world in [&system, &served] {
            let labels = ["enforce", "warn"].map(|mode| format!("pod-security.kubernetes.io/{mode}=restricted"));
            world.kubectl(&["label", "namespace", &world.namespace.name, &labels[0], &labels[1]]).await?;
        }
        let (place, only) = (&system.namespace.name, format!("operator.namespace={}", served.namespace.name));
        let chart = format!("{CHARTS}/taskgraph");
        helm(&[
            "install",
            "taskgraph",
            &chart,
            "--namespace",
            place,
            "--set",
            &only,
            "--set",
            "networkPolicy.create=true",
            "--wait",
            "--timeout",
            "120s",
        ])
        .await?;
        system.kubectl(&["get", "networkpolicy", "taskgraph"]).await?;
        Ok(Self { system, served })
    }

    /// `helm test`: the chart's own graph runs where pods are restricted.
    async fn test(&self) -> Result<()> {
        let place = &self.system.namespace.name;
        helm(&["test", "taskgraph", "--namespace", place, "--timeout", "3m", "--logs"]).await.map(|_| ())
    }

    async fn scale(&self, replicas: u32) -> Result<()> {
        self.system.kubectl(&["scale", "deployment/taskgraph", &format!("--replicas={replicas}")]).await?;
        if replicas == 0 {
            self.system.namespace.until_all::<Pod>("without an operator", no_operator).await;
            return Ok(());
        }
        self.system.kubectl(&["rollout", "status", "deployment/taskgraph", "--timeout=120s"]).await.map(|_| ())
    }

    /// Whether its operator may do something in a namespace, as the API server's authorizer says.
    async fn may(&self, verb: &str, resource: &str, place: &World) -> bool {
        let account = format!("--as=system:serviceaccount:{}:taskgraph", self.system.namespace.name);
        let answer = place.kubectl(&["auth", "can-i", verb, resource, &account]).await;
        answer.is_ok_and(|answer| answer.trim() == "yes")
    }
}

impl Drop for Team {
    /// Before its namespaces go: some of the release lies in none.
    fn drop(&mut self) {
        let _ = program(&["uninstall", "taskgraph", "--namespace", &self.system.namespace.name, "--ignore-not-found"])
            .map(|mut helm| helm.output());
    }
}

/// The pods of `helm test` stay.
fn no_operator(pods: &[Pod]) -> bool {
    let name = |pod: &Pod| pod.metadata.labels.as_ref()?.get("app.kubernetes.io/name").cloned();
    pods.iter().all(|pod| name(pod).as_deref() != Some("taskgraph"))
}

/// Tasks with pods that keep to the standard.
fn restricted(mut tasks: Vec<Value>) -> Value {
    for task in tasks.iter_mut().filter(|task| task["container"].is_object()) {
        task["container"]["securityContext"] =
            json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    }
    let context = json!({"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}});
    json!({"podDefaults": {"securityContext": context}, "tasks": tasks})
}

/// One after the other; the first takes longer than it takes to end an operator.
fn graph() -> Value {
    restricted(vec![shell("a", &[], "sleep 8"), shell("b", &["a"], "id")])
}

async fn runs_to_its_end(team: &Team, name: &str) -> Result<()> {
    team.served.apply_graph(name, graph()).await?;
    team.served.wait(name, "complete").await?;
    Ok(())
}

/// The API server cannot reach a team's webhook: a graph that runs says so, and goes on when it can.
async fn the_webhook_is_out_of_reach(team: &Team) -> Result<()> {
    let inner = json!({"graph": restricted(vec![shell("x", &[], "true")])});
    let template = json!({"apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskTemplate", "metadata": {"name": "inner"}, "spec": inner});
    team.served.apply(&template.to_string()).await?;
    let child = json!({"name": "child", "dependsOn": ["a"], "templateRef": {"name": "inner"}});
    team.served.apply_graph("parent", restricted(vec![shell("a", &[], "sleep 8"), child])).await?;
    let lead_to = async |service: &str| {
        let name = format!("taskgraph-{}", team.system.namespace.name);
        let patch = json!([{"op": "replace", "path": "/webhooks/0/clientConfig/service/name", "value": service}]);
        team.system
            .kubectl(&["patch", "validatingwebhookconfiguration", &name, "--type=json", "-p", &patch.to_string()])
            .await
    };
    lead_to("nobody").await?;
    let told =
        |graph: &TaskGraph| task(graph, "child").is_some_and(|task| task.reason.as_deref() == Some("WebhookFailed"));
    let graph = team.served.namespace.until("parent", "told why it waits", told).await;
    let message = task(&graph, "child").and_then(|task| task.message).unwrap_or_default();
    assert!(message.contains("failed calling webhook \"admission.taskgraph.dev\""), "{message}");
    let log = team.system.kubectl(&["logs", "deployment/taskgraph"]).await?;
    assert!(log.contains("WebhookFailed"), "{log}");
    lead_to("taskgraph-webhook").await?;
    team.served.wait("parent", "complete").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "removes the operator of the cluster: hack/test runs it alone"]
async fn two_operators_where_pods_are_restricted() -> Result<()> {
    // it would serve both namespaces
    helm(&["uninstall", "taskgraph", "--namespace", SYSTEM, "--ignore-not-found", "--wait"]).await?;
    install(CHARTS.as_ref(), &["kinds"]).await?;
    let (one, other) = tokio::try_join!(Team::install("one"), Team::install("other"))?;
    tokio::try_join!(one.test(), other.test())?;

    for (verb, resource) in [("list", "jobs.batch"), ("create", "jobs.batch"), ("patch", "taskgraphs.taskgraph.dev")] {
        assert!(one.may(verb, resource, &one.served).await, "{verb} {resource}");
        assert!(!one.may(verb, resource, &other.served).await, "{verb} {resource} of the other");
    }

    // one's operator goes away in mid-run: its graph stands still, whatever the other does
    one.served.apply_graph("g", graph()).await?;
    let runs = |graph: &TaskGraph| task(graph, "a").is_some_and(|task| task.phase == TaskPhase::Running);
    one.served.namespace.until("g", "running", runs).await;
    one.scale(0).await?;
    let refused = one.served.apply_graph("new", graph()).await.expect_err("nobody answers for it").to_string();
    assert!(refused.contains("failed calling webhook"), "{refused}");
    runs_to_its_end(&other, "g").await?;
    let done = |pods: &[Pod]| {
        pods.iter().any(|pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Succeeded"))
    };
    one.served.namespace.until_all::<Pod>("done", done).await;
    let graph = one.served.namespace.graphs().get("g").await?;
    let phase = task(&graph, "a").map(|task| task.phase).context("its status")?;
    assert_eq!(
        (phase, one.served.namespace.jobs().list(&ListParams::default()).await?.items.len()),
        (TaskPhase::Running, 1)
    );

    // and goes on when it is back
    one.scale(1).await?;
    one.served.wait("g", "complete").await?;
    // without it, the other's is as it was
    helm(&["uninstall", "taskgraph", "--namespace", &one.system.namespace.name, "--wait"]).await?;
    runs_to_its_end(&other, "h").await?;
    the_webhook_is_out_of_reach(&other).await?;
    tokio::try_join!(one.served.judge(), other.served.judge())?;
    Ok(())
}
