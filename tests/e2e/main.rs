//! End to end on a cluster with real containers, the operator installed with helm: what a user does with kubectl and
//! helm, and what is read back.
//!
//! The cluster is that of `TASKGRAPH_E2E_KUBECONFIG`, else the embedded one (`hack/cluster/cluster up`); the operator
//! must be installed there (`hack/image`, `hack/install`; `make test` does it). Each test has a namespace.
//!
//! Tests that install, replace or kill that operator are ignored here, for the others rest on it: `hack/test` runs each of
//! them alone, before the others.

#[path = "../support/mod.rs"]
mod support;

mod examples;
mod gallery;
mod installed;
mod pods;
mod roles;
mod shapes;
mod side_by_side;
mod upgrade;
mod user;
mod world;
