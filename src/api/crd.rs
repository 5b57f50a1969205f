//! The CRDs of all kinds, as they lie in `crds/`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool, ValidationRule,
};
use kube::{CustomResourceExt, ResourceExt};
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::Value;

use super::{
    ApprovalDecision, ClusterTaskTemplate, DesiredState, EndingReason, FailurePolicy, ForEachStrategy, GraphPhase,
    OnTimeout, RerunScope, TaskGraph, TaskGraphSpec, TaskPhase, TaskTemplate, TemplateKind, Trigger, ValueType, schema,
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
    crds.iter_mut().skip(1).flat_map(schemas).for_each(without_one_run);
    if let Some(graph) = crds.first_mut() {
        schemas(graph).for_each(|root| {
            root.x_kubernetes_validations = Some(graph_rules());
            if let Some(status) = root.properties.as_mut().and_then(|fields| fields.get_mut("status")) {
                status.default = Some(JSON(unobserved()));
            }
        });
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

/// The status of a graph that no operator has looked at: without one, tools that follow kstatus would call it current.
fn unobserved() -> Value {
    serde_json::json!({"observedGeneration": -1})
}

/// Rules over a whole graph: they need its name.
fn graph_rules() -> Vec<ValidationRule> {
    let name = ValidationRule {
        rule: "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')".to_owned(),
        message: Some(
            "metadata.name: a graph's name becomes a label of its Jobs: a DNS label of at most 63 characters"
                .to_owned(),
        ),
        ..ValidationRule::default()
    };
    vec![name]
}

/// Takes out of a template's graph what belongs to one run of it: the API server then knows no such field.
fn without_one_run(template: &mut JSONSchemaProps) {
    let graph =
        template.properties.as_mut().and_then(|fields| fields.get_mut("spec")?.properties.as_mut()?.get_mut("graph"));
    let Some(graph) = graph else { return };
    for (field, _) in TaskGraphSpec::default().fields_of_one_run() {
        graph.properties.iter_mut().for_each(|fields| _ = fields.remove(field));
        // a rule over a field that is not there does not compile
        let of_it = |rule: &ValidationRule| rule.rule.contains(&format!("elf.{field}"));
        graph.x_kubernetes_validations.iter_mut().for_each(|rules| rules.retain(|rule| !of_it(rule)));
    }
    graph.required = Some(vec!["tasks".to_owned()]);
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
            of::<RerunScope>(),
            of::<TaskPhase>(),
            of::<OnTimeout>(),
            of::<ForEachStrategy>(),
            of::<ApprovalDecision>(),
        ])
    }

    /// A list of what the names of this enum mean.
    fn explain(&self, names: &[Value]) -> Option<String> {
        let same = |known: &&Vec<(String, String)>| {
            known.iter().map(|(name, _)| name.as_str()).eq(names.iter().filter_map(Value::as_str))
        };
        let known = self.0.iter().find(same)?;
        let lines: Vec<_> = known.iter().map(|(name, meaning)| format!("\n- `{name}`: {meaning}")).collect();
        Some(lines.concat())
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

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::api::CATEGORY;

    /// Calls `look` with every field of every kind and its path.
    fn fields(look: &mut impl FnMut(&str, &JSONSchemaProps)) {
        fn below(path: &str, schema: &JSONSchemaProps, look: &mut impl FnMut(&str, &JSONSchemaProps)) {
            for (name, inner) in schema.properties.iter().flatten() {
                let path = format!("{path}.{name}");
                look(&path, inner);
                below(&path, inner, look);
            }
            if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
                below(&format!("{path}[]"), items, look);
            }
        }
        for mut crd in all() {
            let kind = crd.spec.names.kind.clone();
            schemas(&mut crd).for_each(|root| below(&kind, root, look));
        }
    }

    #[test]
    fn checked_in_as_generated() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
        let files = files().unwrap();
        for (name, text) in &files {
            let stored = fs::read_to_string(folder.join(name)).unwrap_or_default();
            assert!(stored == *text, "crds/{name} is stale: run `make generate`");
            assert!(text.len() < 128 << 10, "{name}: client-side apply stores it in an annotation of 256 KiB");
        }
        assert_eq!(fs::read_dir(folder).unwrap().count(), files.len(), "a file in crds/ is none of ours");
    }

    #[test]
    fn every_field_is_described() {
        let mut count = 0;
        fields(&mut |path, schema| {
            count += 1;
            let text = schema.description.as_deref().unwrap_or_default();
            let markup = text.contains("](") || text.contains("[`");
            assert!(text.len() > 3 && !markup, "{path}: {text:?}");
            let list = text.contains("\n- ");
            assert!(schema.enum_.is_none() || list, "{path}: says nothing of its values");
        });
        assert!(count > 150, "{count} fields: some were not looked at");
    }

    #[test]
    fn everything_is_bounded() {
        fields(&mut |path, schema| {
            let kind = schema.type_.as_deref().unwrap_or_default();
            let fixed = schema.enum_.is_some() || schema.format.is_some();
            let opaque = schema.x_kubernetes_preserve_unknown_fields == Some(true);
            assert!(kind != "string" || fixed || schema.max_length.is_some(), "{path} has no maxLength");
            assert!(kind != "array" || schema.max_items.is_some(), "{path} has no maxItems");
            assert!(kind != "array" || schema.x_kubernetes_list_type.is_some(), "{path} has no list type");
            let map = schema.additional_properties.is_some();
            assert!(!map || schema.max_properties.is_some(), "{path} has no maxProperties");
            assert!(!kind.is_empty() || opaque, "{path} has no type");
            let default = (path == "TaskGraph.status").then(|| JSON(unobserved()));
            assert_eq!((schema.nullable, &schema.default), (None, &default), "{path}");
            let known = matches!(schema.format.as_deref(), None | Some("date-time" | "int32" | "int64" | "double"));
            assert!(known, "{path}: the API server does not know the format {:?}", schema.format);
        });
    }

    #[test]
    fn names_and_columns() {
        let names: Vec<_> = all()
            .into_iter()
            .map(|crd| {
                let names = crd.spec.names;
                let columns =
                    crd.spec.versions.iter().flat_map(|version| version.additional_printer_columns.iter().flatten());
                let columns: Vec<_> = columns.map(|column| column.name.clone()).collect();
                (crd.spec.scope, names.kind, names.short_names, names.categories, columns.join(" "))
            })
            .map(|(scope, kind, short, categories, columns)| {
                format!(
                    "{scope} {kind} {} {}: {columns}",
                    short.unwrap_or_default().join(","),
                    categories.unwrap_or_default().join(",")
                )
            })
            .collect();
        assert_eq!(
            names,
            [
                format!("Namespaced TaskGraph tg {CATEGORY}: Phase Progress Failed Age Template Created-By Message"),
                format!("Namespaced TaskTemplate tt {CATEGORY}: Description Age"),
                format!("Cluster ClusterTaskTemplate ctt {CATEGORY}: Description Age"),
            ]
        );
    }
}
