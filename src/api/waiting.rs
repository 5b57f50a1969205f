//! What a task may wait for: a time ([`Delay`]), a person's decision ([`ApprovalTask`], answered by an [`Approval`]).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{duration::DurationText, schema};

/// A wait for a time: exactly one of `duration`, `until`, `cron`. The time is drawn once, when the task becomes Ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "(has(self.duration) ? 1 : 0) + (has(self.until) ? 1 : 0) + (has(self.cron) ? 1 : 0) == 1 && (!has(self.timeZone) || has(self.cron))",
        "message": "a delay has exactly one of duration, until, cron; timeZone is for cron"
    },
]))]
pub struct Delay {
    /// So long from when the task became Ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<DurationText>,
    /// Until this time, in RFC 3339: `2027-01-31T09:00:00+01:00`. One that has passed ends the delay at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), extend("format" = "date-time"))]
    pub until: Option<String>,
    /// Until the next firing after the task became Ready: minute, hour, day of the month, month, day of the week, as in
    /// a `CronJob`, or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub cron: Option<String>,
    /// The time zone of `cron`, by its IANA name: `Europe/Berlin`. Default: `UTC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
}

/// A wait for an entry of `spec.approvals` that names this task and its attempt. `timeout` of the task bounds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalTask {
    /// What it means that nobody decided within `timeout`. Default: `Fail`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::choice::<OnTimeout>")]
    pub on_timeout: Option<OnTimeout>,
}

/// What it means that nobody decided in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum OnTimeout {
    /// The attempt fails, reason `ApprovalTimeout`.
    #[default]
    Fail,
    /// The attempt fails, reason `Rejected`, as if somebody had rejected it.
    Reject,
    /// The task Succeeded, reason `ApprovalTimeout`.
    Approve,
}

/// What somebody decided on one attempt of a task with `approval`. Once written it cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self == oldSelf",
        "message": "an approval stays as it was written: a further attempt of the task asks anew"
    },
]))]
pub struct Approval {
    /// The task.
    #[schemars(length(min = 1, max = 63))]
    pub task: String,
    /// Number of the attempt, from 1. An attempt that has not begun finds the decision when it does.
    #[schemars(range(min = 1))]
    pub attempt: u32,
    /// What was decided.
    #[schemars(schema_with = "schema::choice::<ApprovalDecision>")]
    pub decision: ApprovalDecision,
    /// Who decided: admission refuses any name but that of whoever adds the entry. Without admission it is taken as it
    /// is written.
    #[schemars(length(min = 1, max = 253))]
    pub by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ApprovalDecision {
    /// The task Succeeded.
    Approved,
    /// The attempt failed, reason `Rejected`.
    Rejected,
}

impl ApprovalDecision {
    /// Its name, as written in a spec.
    pub fn name(self) -> &'static str {
        match self {
            Self::Approved => "Approved",
            Self::Rejected => "Rejected",
        }
    }
}
