//! taskgraph: runs graphs of tasks on Kubernetes, each task as a plain Job.
//!
//! Data flows one way: `watch → observe → step → apply → report`.
//!
//! | module | part |
//! |---|---|
//! | [`api`] | the kinds that users write |
//! | [`engine`] | the graph and its rules: pure, no I/O, no clock |

//! | [`validate`] | the one entry for checking what users write |
//! | [`controller`] | watches, asks the engine, applies and reports |
//! | [`runtime`] | arguments, lease, telemetry, metrics, health, shutdown |
//! | [`cli`] | the verbs of `kubectl taskgraph` |

pub mod api;
#[cfg(feature = "cli")]
pub mod cli;
pub mod engine;
