//! The files of the repository that must agree with the code.
#![cfg(feature = "kubernetes")]

mod documents;
mod objects;
