//! taskgraph: runs graphs of tasks on Kubernetes, each task as a plain Job.
//!
//! Data flows one way: `watch → observe → step → apply → report`.
//!
//! | module | part |
//! |---|---|
//! | [`api`] | the kinds that users write |
//! | [`engine`] | the graph and its rules: pure, no I/O, no clock |
//! | [`jobs`] | attempts as Jobs, Jobs and Pods as events: pure too |
//! | [`validate`] | the one entry for checking what users write |
//! | [`controller`] | watches, asks the engine, applies and reports |
//! | [`operator`] | the operator program, put together |
//! | [`trial`] | the graph that `helm test` runs |
//! | [`webhook`] | what is asked before an object is stored |
//! | [`runtime`] | arguments, lease, telemetry, metrics, health, shutdown |
//! | [`webhook`] | admission: answers the API server whether an object may be stored |
//! | [`cli`] | the verbs of `kubectl taskgraph` |

pub mod api;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "operator")]
pub mod controller;
pub mod engine;
#[cfg(feature = "kubernetes")]
pub mod jobs;
#[cfg(feature = "operator")]
pub mod operator;
#[cfg(feature = "operator")]
pub mod runtime;
#[cfg(feature = "operator")]
pub mod trial;
#[cfg(feature = "kubernetes")]
pub mod validate;
#[cfg(feature = "operator")]
pub mod webhook;
