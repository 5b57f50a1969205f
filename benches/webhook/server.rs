//! Through an API server, which stores the graphs. Nobody runs them.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use futures::future::try_join_all;
use k8s_openapi::api::{admissionregistration::v1::ValidatingWebhookConfiguration, rbac::v1::ClusterRoleBinding};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use taskgraph::{api::TaskGraph, webhook::access::Mode};

use crate::{
    Pace, TASKS, endpoint, graph, print,
    support::{ControlPlane, Namespace, webhook::configuration},
};

/// Measures it, and prints what came out.
pub async fn measure(pace: Pace) -> Result<()> {
    let client = ControlPlane::shared().client().await?;
    let namespace = Namespace::new(&client, "bench").await?;
    let (port, material) = endpoint::start(reviewer(&client).await?, Mode::Enforce).await?;
    let configurations: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let webhook = configuration(&namespace.name, address, &material.authorities)?;
    println!("through an API server, {} creates a second for {} s, milliseconds:", pace.rate, pace.seconds);
    for tasks in [50, TASKS] {
        let spec = graph(tasks, None);
        print(&format!("{tasks} tasks, no webhook"), round(&namespace, &spec, pace).await?);
        configurations.create(&PostParams::default(), &webhook).await?;
        until_refused(&namespace).await?;
        print(&format!("{tasks} tasks, webhook"), round(&namespace, &spec, pace).await?);
        configurations.delete(&namespace.name, &DeleteParams::default()).await?;
    }
    Ok(())
}

/// A client of somebody else than who writes the graphs: whose own they are is asked for no rights.
async fn reviewer(client: &Client) -> Result<Client> {
    let group = "rbac.authorization.k8s.io";
    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": {"name": "bench-reviews"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "system:auth-delegator"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "reader"}],
    }))?;
    Api::all(client.clone()).create(&PostParams::default(), &binding).await?;
    let kubeconfig = Kubeconfig::read_from(ControlPlane::shared().readers_kubeconfig()?)?;
    Ok(Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)?)
}

/// The first second is not counted. What was stored is deleted.
async fn round(namespace: &Namespace, spec: &Value, pace: Pace) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for (name, pace) in [("warm", Pace { seconds: 1, ..pace }), ("bench", pace)] {
        times = drive(namespace, name, spec, pace).await?;
        namespace.graphs().delete_collection(&DeleteParams::background(), &ListParams::default()).await?;
        namespace.until_all::<TaskGraph>("gone", <[_]>::is_empty).await;
    }
    Ok(times)
}

async fn drive(namespace: &Namespace, name: &str, spec: &Value, pace: Pace) -> Result<Vec<f64>> {
    let spec = spec.to_string();
    let (spec, begin) = (spec.as_str(), Instant::now());
    let create = |number: u32| async move {
        let due = begin + pace.due(number);
        tokio::time::sleep_until(due.into()).await;
        send(&namespace.client, &namespace.name, &format!("{name}-{number}"), spec).await?;
        anyhow::Ok(due.elapsed().as_secs_f64() * 1000.0)
    };
    try_join_all((0..pace.requests()).map(create)).await
}

/// Only the metadata of the answer is asked for: to read it all is not the API server's time.
async fn send(client: &Client, namespace: &str, name: &str, spec: &str) -> Result<()> {
    let body = format!(
        r#"{{"apiVersion":"taskgraph.dev/v1alpha1","kind":"TaskGraph","metadata":{{"name":"{name}"}},"spec":{spec}}}"#
    );
    let request = http::Request::post(format!("/apis/taskgraph.dev/v1alpha1/namespaces/{namespace}/taskgraphs"))
        .header("Content-Type", "application/json")
        .header("Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")
        .body(body.into_bytes())?;
    client.request_text(request).await.with_context(|| format!("creating {name}"))?;
    Ok(())
}

/// The API server takes a moment to know of a webhook.
async fn until_refused(namespace: &Namespace) -> Result<()> {
    let wrong: TaskGraph = serde_json::from_value(json!({
        "apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskGraph", "metadata": {"name": "wrong"},
        "spec": {"tasks": [{"name": "a", "dependsOn": ["gone"], "container": {"image": "none"}}]},
    }))?;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    while namespace.graphs().create(&dry, &wrong).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
