//! The webhook without a Service: the API server asks by URL.

use std::net::SocketAddr;

use anyhow::Result;
use k8s_openapi::{ByteString, api::admissionregistration::v1::ValidatingWebhookConfiguration};
use serde_json::json;
use taskgraph::webhook;

/// The configuration of the chart for the objects of one namespace, whose name it has. `authorities`: whom the API server
/// is to trust; empty: it will be told.
pub fn configuration(
    namespace: &str,
    address: SocketAddr,
    authorities: &str,
) -> Result<ValidatingWebhookConfiguration> {
    let bundle = (!authorities.is_empty()).then(|| ByteString(authorities.as_bytes().to_vec()));
    Ok(serde_json::from_value(json!({
        "metadata": {"name": namespace},
        "webhooks": [{
            "name": "admission.taskgraph.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "failurePolicy": "Fail", "matchPolicy": "Equivalent", "timeoutSeconds": 10,
            "clientConfig": {"url": format!("https://{address}{}", webhook::PATH), "caBundle": bundle},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "rules": [{"apiGroups": ["taskgraph.dev"], "apiVersions": ["v1alpha1"], "operations": ["CREATE", "UPDATE"],
                "resources": ["taskgraphs", "tasktemplates"], "scope": "Namespaced"}],
        }],
    }))?)
}
