//! Nobody gains rights by writing a graph.
//!
//! The operator makes Jobs and claims for whoever writes a graph or a template, so the writer must be allowed to make them
//! too. RBAC knows no fields; what an update changes says which verb on `taskgraphs` it needs: `operate`, `approve` or
//! `design`. [`required()`] says what a change asks for, without asking anybody; [`Judge`] asks the API server
//! (`SubjectAccessReview`) whether the requester has it.
//!
//! Who asks is told by the requester's identity alone. Owners, labels and annotations of an object are what its writer made
//! them, and open no door.

mod accounts;
mod answers;
mod claims;
mod judge;
mod required;

use clap::ValueEnum;
use k8s_openapi::{api::authentication::v1::UserInfo, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use judge::{Error, Judge};
pub use required::{changed, changed_fields, is_operated, required};

/// Whether the requester's rights are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize, JsonSchema)]
#[value(rename_all = "PascalCase")]
pub enum Mode {
    /// Whoever writes a graph or a template needs the rights that it asks for.
    #[default]
    Enforce,
    /// Whatever RBAC lets pass is taken: who may write graphs may let pods run as any service account of the namespace.
    Disabled,
}

/// The kinds that admission looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `TaskGraph`.
    Graph,
    /// `TaskTemplate`.
    Template,
    /// `ClusterTaskTemplate`: used in any namespace, so what it asks for is asked for in all.
    ClusterTemplate,
}

/// What of an object is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    /// Its metadata.
    pub metadata: &'a ObjectMeta,
    /// Its spec, as it was written.
    pub spec: &'a Value,
}

/// An object that is about to be stored.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for what belongs to none.
    pub namespace: &'a str,
    /// Its name; empty where the API server is yet to make one.
    pub name: &'a str,
    /// The object as it is stored; absent: it is created.
    pub old: Option<Content<'a>>,
    /// The object as it would be.
    pub new: Content<'a>,
    /// Who asks.
    pub user: &'a UserInfo,
}

/// A right as RBAC knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Right {
    /// What is to be done.
    pub verb: &'static str,
    /// API group; empty for the core.
    pub group: &'static str,
    /// Plural of the kind.
    pub resource: &'static str,
    /// Where; empty: in every namespace.
    pub namespace: String,
    /// To which object; empty: to any.
    pub name: String,
}

/// A right that a change asks for, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The right.
    pub right: Right,
    /// One that is as good.
    pub instead: Option<Right>,
    /// The field that asks for it.
    pub path: String,
    /// What the requester would do with it, after "may not": `run pods in namespace "team"`.
    pub deed: String,
    /// The role of the chart that gives it.
    pub role: &'static str,
}
