//! The files of the repository that must agree with the code.
#![cfg(feature = "kubernetes")]

mod charts;
mod documents;
#[cfg(feature = "operator")]
mod gitops;
mod objects;
mod reasons;
mod supply_chain;
