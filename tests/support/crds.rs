//! The CRDs, installed as users do.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{conditions, wait},
};

/// Applies them, and waits until they are served.
pub async fn install(client: &Client) -> Result<()> {
    let crds = taskgraph::api::crd::all();
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in &crds {
        api.patch(&crd.name_any(), &PatchParams::apply("taskgraph-tests").force(), &Patch::Apply(crd)).await?;
    }
    for crd in &crds {
        let name = crd.name_any();
        let established = wait::await_condition(api.clone(), &name, conditions::is_crd_established());
        tokio::time::timeout(Duration::from_secs(30), established).await.context("CRD not established")??;
        // established, and yet "storage is (re)initializing" for a moment: the client tries again
        let path = format!("/apis/{}/{}/{}", crd.spec.group, crd.spec.versions[0].name, crd.spec.names.plural);
        client.request_text(http::Request::get(path).body(Vec::new())?).await?;
    }
    Ok(())
}
