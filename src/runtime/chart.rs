//! The values of `charts/taskgraph`. Its `values.schema.json` is generated from here.

use std::collections::BTreeMap;

use schemars::{JsonSchema, generate::SchemaSettings};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::args::LogFormat;
use crate::api::DurationText;

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
    /// Whom the operator acts as.
    pub service_account: ServiceAccount,
    /// Its permissions.
    pub rbac: Rbac,
    /// Resources of the container.
    pub resources: Map<String, Value>,
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
    /// Priority class of the pods. Empty: the cluster's default.
    pub priority_class_name: String,
    /// What Helm hands to every subchart; not used.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub global: Map<String, Value>,
}

/// The operator's image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Image {
    /// Name of the image, without the tag.
    #[schemars(length(min = 1))]
    pub repository: String,
    /// Tag. Empty: the chart's appVersion.
    pub tag: String,
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
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// Graphs that are worked on at once.
    #[schemars(range(min = 1, max = 1024))]
    pub concurrency: u16,
    /// How long the Lease of a dead replica stands before another takes over (2s to 10m).
    pub lease_duration: DurationText,
    /// How logs are written.
    pub log_format: LogFormat,
    /// A level (error, warn, info, debug, trace), or filters by module.
    #[schemars(length(min = 1))]
    pub log_level: String,
    /// Port of /healthz, /readyz and /metrics.
    #[schemars(range(min = 1))]
    pub port: u16,
}

/// Whom the operator acts as.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceAccount {
    /// Whether the chart makes it. Otherwise `name` must exist.
    pub create: bool,
    /// Its name. Empty: the name of the release.
    pub name: String,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// The operator's permissions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rbac {
    /// Whether the chart makes roles and bindings.
    pub create: bool,
}

/// The text of `charts/taskgraph/values.schema.json`. Draft 7, which every Helm reads.
pub fn schema() -> String {
    let mut settings = SchemaSettings::draft07();
    // values that a user sets to null take the chart's default, so nothing is required
    settings.inline_subschemas = true;
    let mut schema = settings.into_generator().into_root_schema_for::<Values>();
    drop_required(schema.as_object_mut());
    serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n"
}

/// Helm checks a user's values merged with the chart's; what is missing then was taken out on
/// purpose (`key: null`).
fn drop_required(schema: Option<&mut Map<String, Value>>) {
    let Some(schema) = schema else { return };
    schema.remove("required");
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        for property in properties.values_mut() {
            drop_required(property.as_object_mut());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use clap::CommandFactory as _;

    use super::*;
    use crate::runtime::{args::Args, stale};

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
        assert_eq!(
            u128::from(values.operator.lease_duration.parse().unwrap().millis()),
            args.lease_duration.as_millis()
        );
        assert!(values.operator.namespace.is_empty() && args.namespace.is_none());
    }

    #[test]
    fn the_deployment_sets_every_argument() {
        let deployment = read("charts/taskgraph/templates/deployment.yaml");
        for argument in Args::command().get_arguments() {
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
