//! Pieces of schema that several kinds share.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

/// An object of Kubernetes that goes through unchanged: `container`, `job.template`.
///
/// Its typed schema would take hundreds of KiB a copy and drop fields newer than our types,
/// so the API server keeps it as it is and `crate::validate` checks it.
pub fn opaque_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "x-kubernetes-map-type": "atomic"})
}

/// A list of opaque objects.
pub fn opaque_objects(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "x-kubernetes-list-type": "atomic",
        "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    })
}

/// Any JSON value.
pub fn any_value(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-preserve-unknown-fields": true})
}

/// A map from names to any JSON values.
///
/// Not `additionalProperties` without a type: CEL rules of the API server do not see such a field at all.
pub fn any_values(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 256,
        "x-kubernetes-preserve-unknown-fields": true,
        "x-kubernetes-map-type": "atomic",
    })
}

/// A map from short names to short texts, as labels and node selectors are.
pub fn short_texts(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "maxProperties": 64, "additionalProperties": {"type": "string", "maxLength": 1024}})
}

/// One of the names of an enum. Where schemas are inlined, as in CRDs, the derived one would put the enum's description
/// in place of the field's; what each name means is added there by `crd.rs`.
pub fn choice<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    if !generator.settings().inline_subschemas {
        return generator.subschema_for::<T>();
    }
    let names: Vec<_> = names(&T::json_schema(generator)).map(|(name, _)| name).collect();
    json_schema!({"type": "string", "enum": names})
}

/// The names of an enum with their descriptions, from its derived schema.
pub fn names(schema: &Schema) -> impl Iterator<Item = (String, String)> {
    let get = |key: &str| schema.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let plain = get("enum").into_iter().map(|name| (name, Value::Null));
    let described = get("oneOf").into_iter().map(|variant| (variant["const"].clone(), variant["description"].clone()));
    let text = |value: &Value| value.as_str().map(str::to_owned);
    plain
        .chain(described)
        .filter_map(move |(name, description)| Some((text(&name)?, text(&description).unwrap_or_default())))
}
