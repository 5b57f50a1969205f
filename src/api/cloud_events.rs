//! What a status remembers of the delivery of its graph's CloudEvents.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::status::is_zero;

/// What of a status is still to be delivered as CloudEvents. All else of it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CloudEventsStatus {
    /// `sequence` of the status that this speaks of; of a status with another one, all is to be delivered.
    #[serde(skip_serializing_if = "is_zero")]
    pub sequence: u64,
    /// How many of the last entries of `history` are to be delivered.
    #[serde(skip_serializing_if = "is_zero")]
    pub history: u32,
    /// The tasks of which something is to be delivered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 63)), extend("x-kubernetes-list-type" = "atomic"))]
    pub tasks: Vec<String>,
    /// More tasks than could be named: all may be.
    #[serde(skip_serializing_if = "is_zero")]
    pub all_tasks: bool,
}

impl CloudEventsStatus {
    /// How many tasks are named at most.
    pub const MAX_TASKS: usize = 64;

    /// Whether something of the status of this `sequence` is to be delivered.
    pub fn owes(&self, sequence: u64) -> bool {
        self.sequence != sequence || self.history > 0 || self.all_tasks || !self.tasks.is_empty()
    }
}
