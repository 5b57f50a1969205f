//! Reuse of what an equal task left behind.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::DurationText;

/// When the outputs of an earlier success stand in for a run of the task.
///
/// The success must have been of the same container or Job, with the same values of its expressions, the same `timeout`
/// and `podDefaults`, and the same `key`, of any graph in the namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cache {
    /// A text, with `${{ }}` expressions in it, that must be the same too: what the task reads elsewhere, as a date or
    /// the version of a table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub key: Option<String>,
    /// How old the success may be.
    pub max_age: DurationText,
}
