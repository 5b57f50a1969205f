//! `spec.rerun`: tasks to be run once more.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema;

/// Tasks to be run once more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(self.scope == 'Tasks') == has(self.tasks)",
    "fieldPath": ".tasks",
    "message": "tasks are named with scope Tasks, and only there"
}]))]
pub struct Rerun {
    /// Any text; a new one asks for a new rerun.
    #[schemars(length(min = 1, max = 63))]
    pub id: String,
    /// Which tasks. All that depend on them follow, and `finally` if one of `tasks` is among them.
    #[schemars(schema_with = "schema::choice::<RerunScope>")]
    pub scope: RerunScope,
    /// Names of tasks, with scope `Tasks`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 2064), inner(length(min = 1, max = 63)), extend("x-kubernetes-list-type" = "set"))]
    pub tasks: Vec<String>,
}

/// Which tasks are run once more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RerunScope {
    /// Those that are Failed, Omitted or Cancelled.
    #[default]
    Failed,
    /// All.
    All,
    /// Those named in `tasks`.
    Tasks,
}
