//! The API reference `docs/api.md`, made from the same schemas as the CRDs.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt::Write as _,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value};

use super::{
    ClusterTaskTemplate, GROUP, TaskGraph, TaskGraphSpec, TaskGraphStatus, TaskTemplate, TaskTemplateSpec, VERSION,
    duration,
};

const OPENING: &str = "\
# API reference

<!-- Made from src/api by `make generate`: change the doc comments there, not this file. -->

Every field of every kind. `kubectl explain taskgraph.spec` shows the same on a cluster. What the fields do together
is told by [rules.md](rules.md), what stands in expressions by [expressions.md](expressions.md).

A duration is a text of whole numbers with units, as `90s`, `500ms` or `1h30m` (`ms`, `s`, `m`, `h`, `d`), above zero.
";

/// All kinds with all fields, as Markdown: the content of `docs/api.md`.
pub fn markdown() -> String {
    let mut types = Types::default();
    let mut text = OPENING.to_owned();
    let _ = write!(text, "\nAll kinds belong to `{GROUP}/{VERSION}`.\n");

    write_kind(&mut text, &TaskGraph::crd(), &[("spec", "TaskGraphSpec"), ("status", "TaskGraphStatus")]);
    write_kind(&mut text, &TaskTemplate::crd(), &[("spec", "TaskTemplateSpec")]);
    write_kind(&mut text, &ClusterTaskTemplate::crd(), &[("spec", "TaskTemplateSpec")]);

    types.add::<TaskGraphSpec>("TaskGraphSpec");
    types.add::<TaskTemplateSpec>("TaskTemplateSpec");
    types.add::<TaskGraphStatus>("TaskGraphStatus");
    for (name, schema) in &types.found {
        write_type(&mut text, name, schema);
    }
    text
}

/// A kind: how it is called, and where its parts are described.
fn write_kind(text: &mut String, crd: &CustomResourceDefinition, parts: &[(&str, &str)]) {
    let spec = &crd.spec;
    let names = &spec.names;
    let _ = write!(text, "\n## {}\n\n", names.kind);
    let version = spec.versions.first();
    let description = version
        .and_then(|version| version.schema.as_ref()?.open_api_v3_schema.as_ref()?.description.as_deref())
        .unwrap_or_default();
    let short: Vec<_> = names.short_names.iter().flatten().map(|name| format!("`{name}`")).collect();
    let _ = write!(
        text,
        "{description}\n\n`kubectl get {}`, in short {}. Scope: {}.\n\n",
        names.plural,
        short.join(", "),
        spec.scope.to_lowercase()
    );
    for (field, type_name) in parts {
        let _ = writeln!(text, "- `{field}`: {}", link(type_name));
    }
    let columns: Vec<_> = version
        .and_then(|version| version.additional_printer_columns.as_ref())
        .into_iter()
        .flatten()
        .map(|column| match column.priority {
            Some(1..) => format!("{} (with `-o wide`)", column.name),
            _ => column.name.clone(),
        })
        .collect();
    let _ = writeln!(text, "- printed: {}", columns.join(", "));
}

/// The types in the order in which a reader meets them.
#[derive(Default)]
struct Types {
    found: Vec<(String, Value)>,
    known: BTreeSet<String>,
}

impl Types {
    /// Adds a type, and after it every type that it mentions and that is not there yet, nearest first.
    fn add<T: JsonSchema>(&mut self, name: &str) {
        let root = SchemaSettings::openapi3().into_generator().into_root_schema_for::<T>().to_value();
        let definitions = root.pointer("/components/schemas").cloned().unwrap_or_default();
        let mut queue = VecDeque::from([(name.to_owned(), root)]);
        while let Some((name, schema)) = queue.pop_front() {
            if !self.known.insert(name.clone()) {
                continue;
            }
            let mut mentioned = Vec::new();
            for part in ["properties", "allOf", "oneOf"] {
                collect_references(&schema[part], &mut mentioned);
            }
            for reference in mentioned {
                if let Some(definition) = definitions.get(&reference) {
                    queue.push_back((reference, definition.clone()));
                }
            }
            self.found.push((name, schema));
        }
    }
}

/// Names of all types that a piece of schema refers to, in order.
fn collect_references(schema: &Value, into: &mut Vec<String>) {
    match schema {
        Value::Object(members) => {
            into.extend(reference(members).map(str::to_owned));
            members.values().for_each(|member| collect_references(member, into));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, into)),
        _ => {}
    }
}

/// The type that a schema stands for, if it is a reference.
fn reference(schema: &Map<String, Value>) -> Option<&str> {
    schema.get("$ref")?.as_str()?.strip_prefix("#/components/schemas/")
}

/// A type: a table of its fields, or of its values.
fn write_type(text: &mut String, name: &str, schema: &Value) {
    let _ = write!(text, "\n## {name}\n\n");
    if let Some(description) = schema["description"].as_str() {
        let _ = write!(text, "{}\n\n", description.trim());
    }
    if let Some(fields) = schema["properties"].as_object() {
        let required: Vec<_> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        text.push_str("| field | type | |\n|---|---|---|\n");
        for (field, schema) in fields {
            let mark = if required.contains(&field.as_str()) { " **required**" } else { "" };
            let _ = writeln!(
                text,
                "| `{field}`{mark} | {} | {} |",
                cell(&describe_type(schema)),
                cell(schema["description"].as_str().unwrap_or_default())
            );
        }
    } else {
        text.push_str("| value | |\n|---|---|\n");
        for (value, meaning) in values(schema) {
            let _ = writeln!(text, "| `{value}` | {} |", cell(&meaning));
        }
    }
    let rules: Vec<_> = schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|rule| rule["message"].as_str())
        .collect();
    if !rules.is_empty() {
        let _ = writeln!(text, "\nChecked by the API server: {}.", rules.join("; "));
    }
}

/// The values of an enumeration and what they mean. schemars lists those with a comment one by
/// one, those without in groups.
fn values(schema: &Value) -> Vec<(String, String)> {
    let one = |schema: &Value| {
        let meaning = schema["description"].as_str().unwrap_or_default().to_owned();
        let listed = schema["enum"].as_array().into_iter().flatten();
        let values: Vec<_> = listed.chain(schema.get("const")).filter_map(Value::as_str).map(str::to_owned).collect();
        values.into_iter().map(move |value| (value, meaning.clone()))
    };
    match schema["oneOf"].as_array() {
        Some(alternatives) => alternatives.iter().flat_map(one).collect(),
        None => one(schema).collect(),
    }
}

/// The type of a field in words, with its bounds.
fn describe_type(schema: &Value) -> String {
    let Some(members) = schema.as_object() else { return "any JSON value".to_owned() };
    if let Some(name) = reference(members) {
        return link(name);
    }
    // A reference with words of its own, or one that may be absent.
    for wrapper in ["allOf", "anyOf", "oneOf"] {
        if let Some(parts) = members.get(wrapper).and_then(Value::as_array)
            && let Some(name) = parts.iter().filter_map(Value::as_object).find_map(reference)
        {
            return link(name);
        }
    }
    let bound = |low, high, unit| range(schema, low, high, unit);
    match type_name(schema) {
        Some("string") => {
            match (members.get("format").and_then(Value::as_str), members.get("pattern").and_then(Value::as_str)) {
                (Some("date-time"), _) => "time".to_owned(),
                (_, Some(duration::PATTERN)) => "duration".to_owned(),
                (_, Some(pattern)) => format!("text{}, `{pattern}`", bound("minLength", "maxLength", " characters")),
                _ => format!("text{}", bound("minLength", "maxLength", " characters")),
            }
        }
        Some("integer") => format!("whole number{}", bound("minimum", "maximum", "")),
        Some("number") => format!("number{}", bound("minimum", "maximum", "")),
        Some("boolean") => "true or false".to_owned(),
        Some("array") => {
            format!("list of {}{}", inner_type(&schema["items"]), bound("minItems", "maxItems", " entries"))
        }
        Some("object") => match members.get("additionalProperties") {
            Some(values) if values.is_object() => {
                format!("map to {}{}", inner_type(values), bound("minProperties", "maxProperties", " entries"))
            }
            _ => "object".to_owned(),
        },
        _ => "any JSON value".to_owned(),
    }
}

/// The JSON type of a field; that it may also be null goes without saying.
fn type_name(schema: &Value) -> Option<&str> {
    match &schema["type"] {
        Value::Array(names) => names.iter().filter_map(Value::as_str).find(|name| *name != "null"),
        name => name.as_str(),
    }
}

/// The type of the entries of a list or map, its bounds set apart from those of the whole.
fn inner_type(schema: &Value) -> String {
    let text = describe_type(schema);
    match text.split_once(", ") {
        Some((name, bounds)) => format!("{name} ({bounds})"),
        None => text,
    }
}

/// Bounds in words. A lower one of 0 or 1 character goes without saying.
fn range(schema: &Value, low: &str, high: &str, unit: &str) -> String {
    let low = schema[low].as_f64().filter(|low| !unit.is_empty() || *low != 0.0 || schema[high].is_number());
    match (low, schema[high].as_f64()) {
        (Some(low), Some(high)) if unit.is_empty() => format!(", {low} to {high}"),
        (Some(low), Some(high)) if low > 1.0 => format!(", {low} to {high}{unit}"),
        (_, Some(high)) => format!(", at most {high}{unit}"),
        (Some(low), None) if unit.is_empty() => format!(", at least {low}"),
        _ => String::new(),
    }
}

/// A link to a type's own section.
fn link(name: &str) -> String {
    format!("[{name}](#{})", name.to_lowercase())
}

/// A text that stands in a cell of a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn types_in_words() {
        for (schema, words) in [
            (json!({"type": "string"}), "text"),
            (json!({"type": ["string", "null"], "minLength": 1, "maxLength": 63}), "text, at most 63 characters"),
            (json!({"type": "string", "pattern": duration::PATTERN, "maxLength": 32}), "duration"),
            (json!({"type": "string", "format": "date-time"}), "time"),
            (json!({"type": "integer", "minimum": 0, "maximum": 10}), "whole number, 0 to 10"),
            (json!({"type": "integer", "format": "uint32", "minimum": 0}), "whole number"),
            (json!({"type": "boolean"}), "true or false"),
            (json!({"$ref": "#/components/schemas/Task"}), "[Task](#task)"),
            (json!({"anyOf": [{"$ref": "#/components/schemas/Retry"}, {"type": "null"}]}), "[Retry](#retry)"),
            (
                json!({"type": "array", "maxItems": 3, "items": {"type": "string", "maxLength": 5}}),
                "list of text (at most 5 characters), at most 3 entries",
            ),
            (json!({"type": "object", "additionalProperties": {"type": "string"}}), "map to text"),
            (json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}), "object"),
            (json!({"x-kubernetes-preserve-unknown-fields": true}), "any JSON value"),
        ] {
            assert_eq!(describe_type(&schema), words, "{schema}");
        }
    }

    #[test]
    fn every_type_that_is_linked_has_a_section() {
        let text = markdown();
        let sections: BTreeSet<_> =
            text.lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_lowercase).collect();
        for (_, rest) in text.match_indices("](#").map(|(place, found)| text.split_at(place + found.len())) {
            let target = rest.split(')').next().unwrap_or_default();
            assert!(sections.contains(target), "no section {target}");
        }
        assert!(sections.len() > 20, "{sections:?}");
    }

    #[test]
    fn every_field_has_a_meaning() {
        for line in markdown().lines().filter(|line| line.starts_with("| `")) {
            assert!(!line.ends_with("|  |"), "{line}");
        }
    }
}
