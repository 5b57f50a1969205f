//! What the operator program stands on: arguments, logs, metrics, health, the Lease, the API
//! client and its end. Nothing here knows the rules of graphs.

pub mod args;
pub mod chart;
pub mod client;
pub mod connections;
pub mod health;
pub mod lease;
pub mod metrics;
pub mod parts;
pub mod protobuf;
pub mod seldom;
pub mod settings;
pub mod shutdown;
pub mod sink;
#[cfg(test)]
pub(crate) mod stale;
pub mod status;
pub mod telemetry;
pub mod traces;
