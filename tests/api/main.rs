//! The controller against a real API server without machines: the real operator as a process, the pods played by
//! the test, faults made by a proxy, and what must always hold judged by an independent watch.
//!
//! One control plane (etcd, API server, Job controller, garbage collector) serves all tests; each has a namespace.
//! Tests wait more than they work: `RUST_TEST_THREADS=8`, as `make test` sets it, suits two cores.

#[path = "../support/mod.rs"]
mod support;

mod cache;
mod children;
mod cloud_events;
mod control;
mod crash;
mod edits;
mod faults;
mod fixture;
mod flux;
mod gitops;
mod harness;
mod histories;
mod items;
mod leaders;
mod leftovers;
mod mend;
mod obstacles;
mod one_namespace;
mod per_item;
mod prometheus;
mod protobuf;
mod restore;
mod rights;
mod roles;
mod runs;
mod sagas;
mod sinks;
mod takeover;
mod telemetry;
mod told;
mod verbs;
mod volumes;
mod waiting;
mod webhook;
