//! Pieces of schema that several kinds share.

use schemars::{Schema, SchemaGenerator, json_schema};

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
