//! End to end on a cluster with real containers, the operator installed with helm: what a user does with kubectl and
//! helm, and what is read back.
//!
//! The cluster is that of `TASKGRAPH_E2E_KUBECONFIG`, else the embedded one (`hack/cluster/cluster up`); the operator
//! must be installed there (`hack/image`, `hack/install`; `make test` does it). Each test has a namespace.

#[path = "../support/mod.rs"]
mod support;

mod examples;
mod gallery;
mod pods;
mod user;
mod world;
