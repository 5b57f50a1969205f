//! The values of `charts/taskgraph`. Its `values.schema.json` is generated from here.

use std::collections::BTreeMap;

use regex::Regex;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::args::LogFormat;
use crate::webhook::access;

/// Values of the chart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Values {
    /// The operator's image.
    pub image: Image,
    /// Secrets to pull the image with, as in a pod.
    pub image_pull_secrets: Vec<LocalReference>,
    /// Replicas: one works, the others stand by and take over when it is gone.
    #[schemars(range(min = 0, max = 10))]
    pub replicas: u8,
    /// Arguments of the operator.
    pub operator: Operator,
    /// Traces of graphs.
    pub tracing: Tracing,
    /// Whom the operator acts as.
    pub service_account: ServiceAccount,
    /// Its permissions.
    pub rbac: Rbac,
    /// Resources of the container.
    pub resources: Resources,
    /// Further environment variables of the container, as in a pod.
    pub extra_env: Vec<Map<String, Value>>,
    /// Further volumes of the pods.
    pub extra_volumes: Vec<Map<String, Value>>,
    /// Where the container mounts them.
    pub extra_volume_mounts: Vec<Map<String, Value>>,
    /// Annotations of the pods.
    pub pod_annotations: BTreeMap<String, String>,
    /// Labels of the pods, beside the chart's own.
    pub pod_labels: BTreeMap<String, String>,
    /// Labels that a machine must have for the pods.
    pub node_selector: BTreeMap<String, String>,
    /// Tolerations of the pods.
    pub tolerations: Vec<Map<String, Value>>,
    /// Affinity of the pods.
    pub affinity: Map<String, Value>,
    /// How the pods are spread; a constraint without `labelSelector` gets that of the pods.
    pub topology_spread_constraints: Vec<Map<String, Value>>,
    /// Priority class of the pods. Empty: the cluster's default.
    #[schemars(regex(pattern = "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$"))]
    pub priority_class_name: String,
    /// How many replicas a drained machine may take away at once.
    pub pod_disruption_budget: DisruptionBudget,
    /// What the pods may talk to.
    pub network_policy: NetworkPolicy,
    /// Admission: what is wrong with an object is told before it is stored.
    pub webhook: Webhook,
    /// What is made for Prometheus and Grafana.
    pub monitoring: Monitoring,
    /// What happens to graphs and tasks, told to other programs as `CloudEvents`.
    pub events: Events,
    /// Further objects to install with the chart; texts in them are templates.
    pub extra_objects: Vec<Map<String, Value>>,
    /// What Helm hands to every subchart; not used.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub global: Map<String, Value>,
}

/// The operator's image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Image {
    /// Name of the image, without the tag.
    #[schemars(regex(pattern = r"^([^@\s]*/)?[^:@/\s]+$"))]
    pub repository: String,
    /// Tag. Empty: the chart's appVersion.
    #[schemars(regex(pattern = "^([A-Za-z0-9_][A-Za-z0-9_.-]*)?$"))]
    pub tag: String,
    /// Digest, as `sha256:...`: counts more than the tag. Empty: by tag.
    #[schemars(regex(pattern = "^(sha256:[0-9a-f]{64})?$"))]
    pub digest: String,
    /// When a machine pulls it.
    pub pull_policy: PullPolicy,
}

/// When a machine pulls an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// At each start.
    Always,
    /// When it is not there.
    IfNotPresent,
    /// Never.
    Never,
}

/// An object of the same namespace, by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LocalReference {
    /// Its name.
    pub name: String,
}

/// Arguments of the operator; see [`super::args::Args`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Operator {
    /// Serve this namespace only; the permissions are then limited to it. Empty: all namespaces.
    #[schemars(length(max = 63), regex(pattern = "^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$"))]
    pub namespace: String,
    /// Graphs that are worked on at once.
    #[schemars(range(min = 1, max = 1024))]
    pub concurrency: u16,
    /// How long the Lease of a dead replica stands before another takes over (2s to 10m).
    #[schemars(regex(pattern = "^(([2-9]|[1-9][0-9]|[1-5][0-9][0-9]|600)s|([1-9]|10)m)$"))]
    pub lease_duration: String,
    /// How logs are written.
    pub log_format: LogFormat,
    /// A level (error, warn, info, debug, trace), or filters by module.
    #[schemars(length(min = 1))]
    pub log_level: String,
    /// Port of /healthz, /readyz, /status and /metrics.
    #[schemars(range(min = 1))]
    pub port: u16,
}

/// Traces of graphs; see `docs/telemetry.md`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tracing {
    /// Where an OpenTelemetry collector takes OTLP over HTTP. Empty: nothing is traced.
    #[schemars(regex(pattern = "^(https?://[^/ ]+[^ ]*)?$"))]
    pub endpoint: String,
    /// Part of graphs that are traced.
    #[schemars(range(min = 0, max = 1))]
    pub ratio: f64,
    /// A Secret with what the collector wants to be sent along.
    pub headers_secret: SecretKey,
    /// The certificates of whom to trust as the collector, as PEM. Without a name: those that browsers trust.
    pub ca_secret: SecretKey,
}

/// One key of a Secret of the same namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretKey {
    /// Name of the Secret. Empty: none.
    pub name: String,
    /// The key.
    #[schemars(length(min = 1))]
    pub key: String,
}

/// A Secret of the same namespace whose keys its type fixes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretName {
    /// Name of the Secret. Empty: none.
    pub name: String,
}

/// Whom the operator acts as.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceAccount {
    /// Whether the chart makes it. Otherwise `name` must exist.
    pub create: bool,
    /// Its name. Empty: the name of the release.
    #[schemars(regex(pattern = "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$"))]
    pub name: String,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Permissions of the operator, and of people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a value of its own")]
pub struct Rbac {
    /// Whether the chart makes roles and bindings for the operator.
    pub create: bool,
    /// Whether an operator of one namespace may read `ClusterTaskTemplates`.
    pub cluster_templates: bool,
    /// Whether the chart makes roles of people, to be bound: viewer, operator, designer and admin.
    pub roles: bool,
    /// Whether the cluster's roles view, edit and admin get rights on graphs and templates.
    pub aggregate: bool,
}

/// What the container asks for, and how much it may take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// What is kept free for it.
    pub requests: Map<String, Value>,
    /// What it may not go beyond.
    pub limits: Map<String, Value>,
}

/// A `PodDisruptionBudget`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DisruptionBudget {
    /// Whether there is one.
    pub create: bool,
    /// Replicas that may be away at once.
    #[schemars(range(min = 1, max = 10))]
    pub max_unavailable: u8,
}

/// A `NetworkPolicy`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkPolicy {
    /// Whether there is one.
    pub create: bool,
    /// Who may read /metrics, as the `from` of a policy. Empty: everybody.
    pub metrics_from: Vec<Map<String, Value>>,
    /// Who may ask the webhook, as the `from` of a policy. Empty: everybody.
    pub webhook_from: Vec<Map<String, Value>>,
    /// Where the API server is.
    pub api_server: ApiServer,
    /// Ports on which traces may leave, beside that of `tracing.endpoint`.
    #[schemars(inner(range(min = 1)))]
    pub collector_ports: Vec<u16>,
    /// Where the sink of `CloudEvents` is, as `egress` of a policy; name servers are let through with it.
    pub events_to: Vec<Map<String, Value>>,
}

/// Where the API server is, for a policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiServer {
    /// Its addresses. Empty: any.
    pub cidrs: Vec<String>,
    /// Its ports, behind its Service too.
    #[schemars(length(min = 1), inner(range(min = 1)))]
    pub ports: Vec<u16>,
}

/// The validating webhook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Webhook {
    /// Whether there is one. Otherwise what is wrong with a graph is told in its status, after it was stored.
    pub enabled: bool,
    /// Port that the operator serves it on.
    #[schemars(range(min = 1))]
    pub port: u16,
    /// Whether whoever writes a graph or a template must have the rights that it asks for.
    pub access: access::Mode,
    /// What the API server does while no replica answers.
    pub failure_policy: WhenDown,
    /// How long the API server waits for an answer.
    #[schemars(range(min = 1, max = 30))]
    pub timeout_seconds: u8,
    /// Namespaces whose objects are checked, as a label selector. Empty: all that the operator serves.
    pub namespace_selector: Selector,
    /// How long a certificate of the operator's own is good.
    #[schemars(regex(pattern = "^([1-9][0-9]{0,2}|1000)(m|h|d)$"))]
    pub certificate_validity: String,
    /// Certificates by cert-manager.
    pub cert_manager: CertManager,
}

/// What the API server does while no replica of the operator answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WhenDown {
    /// Refuses what would have been checked.
    Fail,
    /// Stores it unchecked.
    Ignore,
}

/// A label selector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Selector {
    /// Labels that there must be, with their values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// What else must hold of labels, as {key, operator, values}.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<Map<String, Value>>,
}

/// Certificates by cert-manager.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertManager {
    /// Whether cert-manager makes the certificate, in place of the operator.
    pub enabled: bool,
    /// Its issuer. Without a name: one that signs itself, made by the chart.
    pub issuer_ref: IssuerReference,
}

/// An issuer of cert-manager.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IssuerReference {
    /// Its name. Empty: none.
    pub name: String,
    /// Its kind: Issuer, `ClusterIssuer`, or that of an issuer from elsewhere.
    #[schemars(length(min = 1))]
    pub kind: String,
    /// The API group of its kind.
    #[schemars(length(min = 1))]
    pub group: String,
}

/// What is made for Prometheus and Grafana.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Monitoring {
    /// Where the project's folder `docs` can be read; the alerts' runbook links begin with it. Empty: paths in the
    /// repository.
    #[schemars(regex(pattern = "^(https?://[^ ]+)?$"))]
    pub documents: String,
    /// How Prometheus finds the operator.
    pub service_monitor: ServiceMonitor,
    /// The alerts.
    pub rules: Watched,
    /// The dashboards, as `ConfigMaps` that Grafana's sidecar finds by their labels.
    pub dashboards: Watched,
}

/// Where `CloudEvents` go, and how; see [`super::sink::SinkArgs`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Events {
    /// Over HTTP.
    pub http: HttpEvents,
    /// Into NATS.
    pub nats: NatsEvents,
    /// The token for the sink: a bearer token (with a scheme before it: all of `Authorization`), or that of NATS.
    pub token_secret: SecretKey,
    /// User and password for the sink, under the keys `username` and `password`.
    pub login_secret: SecretName,
    /// The certificates of whom to trust for the sink, as PEM. Without a name: those that browsers trust.
    pub ca_secret: SecretKey,
    /// Name of the cluster in the source of events. Empty: none.
    #[schemars(length(max = 253), regex(pattern = "^[A-Za-z0-9._-]*$"))]
    pub cluster: String,
    /// Whether outputs are sent along.
    pub outputs: bool,
}

/// An HTTP address that takes events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpEvents {
    /// Its address. Empty: nothing is sent.
    #[schemars(regex(pattern = "^(https?://[^@ ]+)?$"))]
    pub url: String,
}

/// A stream of NATS that takes events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NatsEvents {
    /// Its servers, with commas between. Empty: nothing is sent.
    #[schemars(regex(pattern = "^((nats|tls)://[^@, ]+(,(nats|tls)://[^@, ]+)*)?$"))]
    pub url: String,
    /// What subjects begin with.
    #[schemars(length(max = 128), regex(pattern = "^[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+)*$"))]
    pub subject: String,
}

/// Whether an object is made that not every cluster can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum When {
    /// Where the cluster has the kinds of the Prometheus Operator.
    Auto,
    /// In any case.
    Always,
    /// Never.
    Never,
}

/// A `ServiceMonitor`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceMonitor {
    /// Whether it is made.
    pub create: When,
    /// Its labels, where Prometheus looks for some only.
    pub labels: BTreeMap<String, String>,
    /// How often the metrics are read.
    #[schemars(regex(pattern = "^[1-9][0-9]*(ms|s|m)$"))]
    pub interval: String,
}

/// An object that some program of the cluster looks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Watched {
    /// Whether it is made.
    pub create: When,
    /// Its labels, by which it is found.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// The text of `charts/taskgraph/values.schema.json`. Draft 7, which every Helm reads.
pub fn schema() -> String {
    let mut settings = SchemaSettings::draft07();
    settings.inline_subschemas = true;
    let mut schema = settings.into_generator().into_root_schema_for::<Values>();
    make_readable(schema.as_object_mut());
    serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n"
}

/// Helm checks a user's values merged with the chart's: what is missing then was taken out (`key: null`), or is newer than
/// the values that `--reuse-values` brings. That is refused here, and not by a template that finds nothing, unless the
/// value may be empty anyway. Choices are told in one message.
fn make_readable(schema: Option<&mut Map<String, Value>>) {
    let Some(schema) = schema else { return };
    schema.remove("default");
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        let required = properties.iter().filter(|(_, property)| !may_be_empty(property));
        let required: Vec<Value> = required.map(|(name, _)| name.as_str().into()).collect();
        schema.remove("required");
        if !required.is_empty() {
            schema.insert("required".into(), required.into());
        }
    }
    if let Some(choices) = schema.remove("oneOf") {
        let choices = choices.as_array().cloned().unwrap_or_default();
        let told = choices.iter().filter_map(|choice| {
            let (word, what) = (choice["const"].as_str()?, choice["description"].as_str()?);
            Some(format!(" {word}: {}{}", what[..1].to_lowercase(), &what[1..]))
        });
        let told: String = told.collect();
        if let Some(Value::String(description)) = schema.get_mut("description") {
            description.push_str(&told);
        }
        schema.insert("enum".into(), choices.into_iter().map(|mut choice| choice["const"].take()).collect());
    }
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        for property in properties.values_mut() {
            make_readable(property.as_object_mut());
        }
    }
}

/// Whether a value that is not there at all means the same as an empty one, which is allowed.
fn may_be_empty(schema: &Value) -> bool {
    match schema["type"].as_str() {
        Some("object") => schema["additionalProperties"] != Value::Bool(false),
        Some("array") => schema.get("minItems").is_none(),
        Some("string") => {
            let matches = |pattern: &str| Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(""));
            schema.get("minLength").is_none() && schema["pattern"].as_str().is_none_or(matches)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use clap::CommandFactory as _;

    use super::*;
    use crate::{
        api,
        runtime::{args::Args, stale},
    };

    fn read(path: &str) -> String {
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
    }

    #[test]
    fn schema_is_current() {
        stale::check("charts/taskgraph/values.schema.json", &schema());
    }

    /// That every key has a type, and every type its key.
    #[test]
    fn values_are_what_the_types_say() {
        let values: Values = serde_saphyr::from_str(&read("charts/taskgraph/values.yaml")).unwrap();
        let again: Values = serde_json::from_value(serde_json::to_value(&values).unwrap()).unwrap();
        assert_eq!(values, again);
    }

    #[test]
    fn values_defaults_are_those_of_the_arguments() {
        let values: Values = serde_saphyr::from_str(&read("charts/taskgraph/values.yaml")).unwrap();
        let args = <Args as clap::Parser>::try_parse_from(["taskgraph-operator"]).unwrap();
        assert_eq!(values.operator.concurrency, args.concurrency);
        assert_eq!(values.operator.port, args.listen.port());
        assert_eq!(values.operator.log_level, args.log_level);
        assert!((values.tracing.ratio - args.trace_ratio).abs() < f64::EPSILON);
        assert!(values.tracing.endpoint.is_empty() && args.otlp_endpoint.is_none());
        let lease: api::Duration = values.operator.lease_duration.parse().unwrap();
        assert_eq!(u128::from(lease.millis()), args.lease_duration.as_millis());
        let validity: api::Duration = values.webhook.certificate_validity.parse().unwrap();
        assert_eq!(u128::from(validity.millis()), args.webhook_validity.as_millis());
        assert_eq!(values.webhook.access, args.webhook_access);
        assert!(values.operator.namespace.is_empty() && args.namespace.is_none());
        assert!(values.events.http.url.is_empty() && args.sink.events_http_url.is_none());
        assert!(values.events.nats.url.is_empty() && args.sink.events_nats_url.is_none());
        assert_eq!(values.events.nats.subject, args.sink.events_nats_subject);
        assert_eq!(values.events.outputs, args.sink.events_outputs);
    }

    #[test]
    fn the_deployment_sets_every_argument() {
        let deployment = read("charts/taskgraph/templates/deployment.yaml");
        let settings = read("charts/taskgraph/templates/settings.yaml");
        for argument in Args::command().get_arguments() {
            // what may be changed without a restart stands in the file of TASKGRAPH_SETTINGS
            let key = match argument.get_id().as_str() {
                "log_level" => "logLevel",
                "trace_ratio" => "traceRatio",
                _ => "",
            };
            if !key.is_empty() && settings.contains(&format!("{key}: ")) {
                continue;
            }
            let Some(variable) = argument.get_env().and_then(|name| name.to_str()) else { continue };
            assert!(deployment.contains(&format!("name: {variable}")), "{variable} is not set by the chart");
        }
    }

    #[test]
    fn the_version_is_the_same_everywhere() {
        for chart in ["taskgraph", "taskgraph-crds"] {
            let text = read(&format!("charts/{chart}/Chart.yaml"));
            for key in ["version", "appVersion"] {
                assert!(text.contains(&format!("\n{key}: {}\n", env!("CARGO_PKG_VERSION"))), "{key} of chart {chart}");
            }
        }
    }

    #[test]
    fn the_chart_of_the_kinds_holds_the_generated_ones() {
        let folder = |path: &str| -> BTreeMap<String, String> {
            let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
            let files = entries
                .map(|entry| entry.unwrap())
                .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "yaml"));
            files
                .map(|file| (file.file_name().into_string().unwrap(), fs::read_to_string(file.path()).unwrap()))
                .collect()
        };
        let generated = folder("crds");
        assert!(!generated.is_empty());
        assert!(
            folder("charts/taskgraph-crds/files") == generated,
            "charts/taskgraph-crds/files is stale; run `make generate`"
        );
    }
}
