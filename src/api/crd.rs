//! The CRDs of all kinds, as they lie in `crds/`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool, ValidationRule,
};
use kube::{CustomResourceExt, ResourceExt};
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value;

use super::{
    ClusterTaskTemplate, DesiredState, EndingReason, FailurePolicy, GraphPhase, TaskGraph, TaskPhase, TaskTemplate,
    TemplateKind, Trigger, ValueType, schema,
};

/// The first line of every generated file.
const HEADER: &str = "# Generated from src/api by `make generate`; do not edit.\n";

/// The CRDs of all kinds.
pub fn all() -> Vec<CustomResourceDefinition> {
    let mut crds = vec![TaskGraph::crd(), TaskTemplate::crd(), ClusterTaskTemplate::crd()];
    let enums = Enums::new();
    for root in crds.iter_mut().flat_map(schemas) {
        tidy(root, &enums);
    }
    if let Some(graph) = crds.first_mut() {
        schemas(graph).for_each(|root| root.x_kubernetes_validations = Some(graph_rules()));
    }
    crds
}

/// The files of `crds/`: name and text of each.
pub fn files() -> Result<Vec<(String, String)>, String> {
    let file = |crd: CustomResourceDefinition| {
        let mut value = serde_json::to_value(&crd).map_err(|error| error.to_string())?;
        whole_numbers(&mut value);
        let text = serde_saphyr::to_string(&value).map_err(|error| error.to_string())?;
        Ok((format!("{}.yaml", crd.name_any()), format!("{HEADER}{text}")))
    };
    all().into_iter().map(file).collect()
}

/// Rules over a whole graph: they need its name, or what its status says.
fn graph_rules() -> Vec<ValidationRule> {
    let rule = |rule: &str, message: &str| ValidationRule {
        rule: rule.to_owned(),
        message: Some(message.to_owned()),
        ..ValidationRule::default()
    };
    vec![
        rule(
            "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')",
            "metadata.name: a graph's name becomes a label of its Jobs: a DNS label of at most 63 characters",
        ),
        // The rest of an accepted spec cannot be compared here, since the API server does not look into containers:
        // the controller refuses such a change.
        rule(
            "!has(oldSelf.status) || !has(oldSelf.status.revision) || self.spec.tasks.map(t, t.name) == oldSelf.spec.tasks.map(t, t.name)",
            "spec.tasks: the tasks of an accepted graph stay the same: make a new graph",
        ),
    ]
}

fn schemas(crd: &mut CustomResourceDefinition) -> impl Iterator<Item = &mut JSONSchemaProps> {
    crd.spec.versions.iter_mut().filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut())
}

/// What the names of all enums mean.
struct Enums(Vec<Vec<(String, String)>>);

impl Enums {
    fn new() -> Self {
        fn of<T: JsonSchema>() -> Vec<(String, String)> {
            schema::names(&T::json_schema(&mut SchemaGenerator::default())).collect()
        }
        Self(vec![
            of::<FailurePolicy>(),
            of::<DesiredState>(),
            of::<Trigger>(),
            of::<TemplateKind>(),
            of::<ValueType>(),
            of::<GraphPhase>(),
            of::<EndingReason>(),
            of::<TaskPhase>(),
        ])
    }

    /// A list of what the names of this enum mean.
    fn explain(&self, names: &[Value]) -> Option<String> {
        let same = |known: &&Vec<(String, String)>| {
            known.iter().map(|(name, _)| name.as_str()).eq(names.iter().filter_map(Value::as_str))
        };
        let known = self.0.iter().find(same)?;
        Some(known.iter().map(|(name, meaning)| format!("\n- `{name}`: {meaning}")).collect())
    }
}

/// Makes of a derived schema one that reads well and that the API server takes without warnings.
fn tidy(schema: &mut JSONSchemaProps, enums: &Enums) {
    // absent is enough, and the operator fills in defaults itself
    schema.nullable = None;
    schema.default = None;
    if let Some(text) = &mut schema.description {
        *text = text.replace('\n', " ").replace("[`", "`").replace("`]", "`");
    }
    if let (Some(text), Some(names)) = (&mut schema.description, &schema.enum_) {
        let names: Vec<_> = names.iter().map(|name| name.0.clone()).collect();
        text.push_str(&enums.explain(&names).unwrap_or_default());
    }
    // formats that the API server knows
    match schema.format.as_deref() {
        Some("uint8" | "uint16" | "uint32") => schema.format = Some("int32".to_owned()),
        Some("uint64") => schema.format = Some("int64".to_owned()),
        _ => {}
    }
    for inner in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        tidy(inner, enums);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        tidy(items, enums);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        tidy(values, enums);
    }
}

/// Writes `1.0` as `1`: bounds are floating-point numbers in the type of a schema.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) => {
            #[allow(clippy::cast_possible_truncation, reason = "checked: without a fraction and small")]
            if let Some(float) =
                number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0 && float.abs() < 1e15)
            {
                *value = (float as i64).into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(members) => members.values_mut().for_each(whole_numbers),
        _ => {}
    }
}
