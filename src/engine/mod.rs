//! The graph and its rules: no I/O, no clock, no randomness, no Kubernetes client.
//!
//! [`compile`](validate::compile) turns a spec into a [`Graph`](graph::Graph) or every problem with its
//! field path. [`Run`](state::Run) is one run of a graph: [`step`](state::Run::step) takes what was
//! observed and the time, and answers what to do. The same code runs in the operator and in the
//! simulator ([`sim`]).

pub mod cache;
mod compensation;
pub mod cron;
pub mod edit;
pub mod event;
pub mod expr;
mod for_each;
pub mod graph;
mod lean;
mod observe;
pub mod payload;
mod per_item;
pub mod policy;
pub mod reason;
mod record;
mod report;
mod restore;
pub mod sim;
pub mod state;
pub mod step;
#[cfg(test)]
mod tests;
pub mod validate;
mod waiting;
mod writers;

pub use cache::{CacheKey, Remembered};
pub use edit::Edited;
pub use event::*;
pub use graph::{Graph, Identity, Role, Settings, TaskId};
pub use state::Run;
pub use validate::{PayloadSource, Plan, Problem, Refusal, Report, Templates, check, compile};
pub use writers::Writers;
