//! Who wrote a graph is noted, and told.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use taskgraph::api::TaskGraph;

use super::{Admitted, good};
use crate::{
    fixture::{Fixture, task},
    support::{
        ControlPlane, Play,
        namespace::{self, PATIENCE},
    },
};

impl Admitted {
    /// Takes the webhook away that notes, and waits until the API server knows.
    async fn until_unnoted(&self, graphs: &Api<TaskGraph>) -> Result<()> {
        let notes: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        notes.delete(&self.namespace.name, &DeleteParams::default()).await?;
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        let probe = TaskGraph::new("probe", serde_json::from_value(good())?);
        let unnoted = async {
            while graphs.create(&dry, &probe).await?.annotations().contains_key("taskgraph.dev/created-by") {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        };
        tokio::time::timeout(PATIENCE, unnoted).await.context("it notes still")?
    }
}

/// The graphs of a namespace, as a user with all rights sees them.
async fn as_user(admitted: &Admitted, user: &str) -> Result<Api<TaskGraph>> {
    let kubeconfig = Kubeconfig::read_from(ControlPlane::shared().kubeconfig())?;
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.auth_info.impersonate = Some(user.to_owned());
    config.auth_info.impersonate_groups = Some(vec!["system:masters".to_owned()]);
    Ok(Api::namespaced(Client::try_from(config)?, &admitted.namespace.name))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_writes_a_graph_is_noted_and_told() -> Result<()> {
    let fixture = Fixture::new("writers", |_, _| Play::succeeds("")).await?;
    let (admitted, _server) = Admitted::over(&fixture.namespace)?.installed().await?;
    let mut users = Vec::new();
    for user in ["ann", "bob", "eve"] {
        users.push(as_user(&admitted, user).await?);
    }
    let [ann, bob, eve] = &users[..] else { anyhow::bail!("three users") };
    ann.create(&PostParams::default(), &suspended_graph("g")?).await?;
    let suspended = |graph: &TaskGraph| {
        graph.status.as_ref().is_some_and(|status| status.history.iter().any(|entry| entry.event == "Suspended"))
    };
    fixture.namespace.until("g", "suspended", suspended).await;
    let merge = |patch: Value| Patch::Merge(patch);
    bob.patch("g", &PatchParams::default(), &merge(json!({"spec": {"desiredState": "Run"}}))).await?;
    fixture.namespace.until_finished("g").await;
    let lie =
        json!({"metadata": {"annotations": {"taskgraph.dev/created-by": "eve", "taskgraph.dev/operated-by": null}}});
    eve.patch("g", &PatchParams::default(), &merge(lie)).await?;
    let tasks = json!({"spec": {"tasks": [task("a", &[]), task("b", &[])]}});
    eve.patch("g", &PatchParams::default(), &merge(tasks)).await?;
    let edited = |graph: &TaskGraph| {
        namespace::finished(graph).is_some() && graph.status.as_ref().is_some_and(|status| status.revision_number == 2)
    };
    let graph = fixture.namespace.until("g", "edited and finished", edited).await;
    let notes: Vec<_> = graph.annotations().iter().filter(|(key, _)| key.starts_with("taskgraph.dev/")).collect();
    let users: Vec<_> = notes.iter().map(|(_, user)| user.as_str()).collect();
    assert_eq!(users, ["ann", "eve", "3", "bob"], "created, designed, noted generation, operated: {notes:?}");
    let expected = [
        ("Accepted", Some("ann")),
        ("Suspended", Some("ann")),
        ("Resumed", Some("bob")),
        ("Finished", None),
        ("Edited", Some("eve")),
        ("Finished", None),
    ];
    assert_eq!(doers(&graph), expected);

    // what is stored without a note is nobody's, and not that of who wrote before
    ann.create(&PostParams::default(), &suspended_graph("h")?).await?;
    fixture.namespace.until("h", "suspended", suspended).await;
    admitted.until_unnoted(ann).await?;
    bob.patch("h", &PatchParams::default(), &merge(json!({"spec": {"desiredState": "Run"}}))).await?;
    let graph = fixture.namespace.until_finished("h").await;
    let expected = [("Accepted", Some("ann")), ("Suspended", Some("ann")), ("Resumed", None), ("Finished", None)];
    assert_eq!(doers(&graph), expected);
    fixture.judge().await?;
    Ok(())
}

/// The events of a graph's history, each with whose doing it is.
fn doers(graph: &TaskGraph) -> Vec<(&str, Option<&str>)> {
    let history = graph.status.iter().flat_map(|status| &status.history);
    history.map(|entry| (entry.event.as_str(), entry.by.as_deref())).collect()
}

/// One whose creator says that it is another's.
fn suspended_graph(name: &str) -> Result<TaskGraph> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskGraph",
        "metadata": {"name": name, "annotations": {"taskgraph.dev/created-by": "eve"}},
        "spec": {"desiredState": "Suspend", "tasks": [task("a", &[])]},
    }))?)
}
