//! An operator of one namespace, with exactly the rights that the chart gives it there and none in the cluster.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::{
    Api, Config,
    api::{DeleteParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use taskgraph::api::{ClusterTaskTemplate, TaskGraph};

use crate::{
    fixture::{Fixture, container, task},
    support::{
        ControlPlane, Operator, Play, Proxy,
        guarded::until_may,
        namespace::{PATIENCE, condition, finished, task as task_of},
        operator::Settings,
    },
};

/// The rules of the first role in the chart whose text contains `mark`.
fn rules(mark: &str) -> Result<Value> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/taskgraph/templates/rbac.yaml");
    let text = fs::read_to_string(file)?;
    let role = text.split("\n---\n").find(|part| part.contains(mark)).with_context(|| format!("{mark}: no role"))?;
    let (_, rules) = role.split_once("\nrules:\n").context("the role has no rules")?;
    Ok(serde_saphyr::from_str(rules)?)
}

/// Gives the user `reader` the chart's rights in a namespace.
async fn give_rights(fixture: &Fixture) -> Result<()> {
    for (name, mark) in [("operator", "# What the operator does"), ("lease", "# The Lease")] {
        let role: Role = serde_json::from_value(json!({"metadata": {"name": name}, "rules": rules(mark)?}))?;
        fixture.namespace.api().create(&PostParams::default(), &role).await?;
        let binding: RoleBinding = serde_json::from_value(json!({
            "metadata": {"name": name}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "reader"}],
        }))?;
        fixture.namespace.api().create(&PostParams::default(), &binding).await?;
    }
    Ok(())
}

/// Gives the user `reader` what the chart gives with `rbac.clusterTemplates`; takes it away again when `on` is false.
async fn cluster_templates(fixture: &Fixture, on: bool) -> Result<()> {
    let name = fixture.namespace.name.as_str();
    let (roles, bindings): (Api<ClusterRole>, Api<ClusterRoleBinding>) =
        (Api::all(fixture.namespace.client.clone()), Api::all(fixture.namespace.client.clone()));
    if !on {
        bindings.delete(name, &DeleteParams::default()).await?;
        roles.delete(name, &DeleteParams::default()).await?;
        return Ok(());
    }
    let given = rules("# What belongs to no namespace")?;
    let role: ClusterRole = serde_json::from_value(json!({"metadata": {"name": name}, "rules": given}))?;
    roles.create(&PostParams::default(), &role).await?;
    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": {"name": name}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "reader"}],
    }))?;
    bindings.create(&PostParams::default(), &binding).await?;
    Ok(())
}

#[tokio::test]
async fn an_operator_of_one_namespace_needs_no_rights_in_the_cluster() -> Result<()> {
    let mut fixture = Fixture::new("one-namespace", |_, _| Play::succeeds("")).await?;
    fixture.operator.kill().await?;
    give_rights(&fixture).await?;
    let namespace = &fixture.namespace;
    for right in [("list", "taskgraph.dev", "taskgraphs"), ("create", "coordination.k8s.io", "leases")] {
        until_may(&namespace.client, "reader", right, Some(&namespace.name)).await;
    }
    let kubeconfig = Kubeconfig::read_from(ControlPlane::shared().readers_kubeconfig()?)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    fixture.proxy = Proxy::start_as(ControlPlane::shared(), config).await?;
    let settings = Settings::new(fixture.proxy.kubeconfig(), &fixture.namespace.name);
    let identity = fixture.operator.identity().to_owned();
    fixture.operator = Operator::start(Settings { identity, ..settings })?;

    fixture.namespace.create_template("own", json!({"container": container()})).await?;
    let each = json!({"name": "each", "forEach": {"items": [1, 2]}, "container": container()});
    let spec =
        json!({"tasks": [task("a", &[]), each, {"name": "t", "dependsOn": ["a"], "templateRef": {"name": "own"}}]});
    let graph = fixture.run("g", spec).await?;
    assert_eq!(finished(&graph), Some("Complete"), "{:?}", graph.status);

    let name = format!("{}-shared", fixture.namespace.name);
    let spec = json!({"tasks": [{"name": "t", "templateRef": {"kind": "ClusterTaskTemplate", "name": name}}]});
    fixture.namespace.create("waits", spec.clone()).await?;
    let refused = |graph: &TaskGraph| {
        condition(graph, "Accepted").is_some_and(|accepted| accepted.reason == "ClusterTemplatesForbidden")
    };
    let graph = fixture.namespace.until("waits", "told why it waits", refused).await;
    let message = condition(&graph, "Accepted").map(|accepted| accepted.message.clone()).unwrap_or_default();
    assert!(message.starts_with("spec.tasks[0].templateRef: the operator serves this namespace alone"), "{message}");
    let said = fixture.operator.log_tail(usize::MAX).matches("ClusterTaskTemplates may not be read").count();
    assert_eq!(said, 1, "{}", fixture.operator.log_tail(usize::MAX));
    for word in ["forbidden", "WARN", "ERROR"] {
        assert!(!fixture.operator.log_tail(usize::MAX).contains(word), "{}", fixture.operator.log_tail(1000));
    }

    // it is let, and the graph goes on by itself
    let templates: Api<ClusterTaskTemplate> = Api::all(fixture.namespace.client.clone());
    let template = serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"container": container()}}))?;
    templates.create(&PostParams::default(), &template).await?;
    cluster_templates(&fixture, true).await?;
    let graph = fixture.namespace.until_finished("waits").await;
    assert_eq!(task_of(&graph, "t").map(|task| task.attempts), Some(1));

    // the right is taken away, which shows when the watch ends, and given again: no template changes meanwhile
    cluster_templates(&fixture, false).await?;
    let begin = Instant::now();
    while fixture.operator.log_tail(usize::MAX).matches("ClusterTaskTemplates may not be read").count() < 2 {
        ensure!(begin.elapsed() < PATIENCE, "{}", fixture.operator.log_tail(100));
        fixture.proxy.cut();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    fixture.namespace.create("again", spec).await?;
    fixture.namespace.until("again", "told why it waits", refused).await;
    cluster_templates(&fixture, true).await?;
    assert_eq!(finished(&fixture.namespace.until_finished("again").await), Some("Complete"));
    cluster_templates(&fixture, false).await?;
    templates.delete(&name, &DeleteParams::default()).await?;
    // not against the simulator, which knows the templates of the namespace alone
    fixture.auditor.judge().await?;
    Ok(())
}
