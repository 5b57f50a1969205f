//! What people may try on graphs and templates, and which of the chart's roles may do it.

#![allow(clippy::needless_pass_by_value, reason = "json! gives values")]

use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use taskgraph::{
    api::{GROUP, VERSION},
    webhook::access::Kind,
};

/// The chart's roles of people.
pub const ROLES: [&str; 4] = ["viewer", "operator", "designer", "admin"];

const ALL: &[&str] = &ROLES;
const WRITERS: &[&str] = &["operator", "designer", "admin"];
const OPERATE: &[&str] = &["operator", "admin"];
const DESIGN: &[&str] = &["designer", "admin"];
const ADMIN: &[&str] = &["admin"];

/// Something that somebody may try. What is there already is the graph `g`.
pub struct Act {
    /// In words.
    pub what: &'static str,
    /// On objects of which kind.
    pub kind: Kind,
    /// What exactly.
    pub deed: Deed,
    /// Roles that may, bound in one namespace.
    pub who: &'static [&'static str],
}

/// A request.
pub enum Deed {
    /// All objects of the kind are read.
    List,
    /// `g` is deleted.
    Delete,
    /// This object is created.
    Create(Value),
    /// This is merged into `g`.
    Patch(Value),
    /// This is merged into the status of `g`.
    PatchStatus(Value),
}

impl Act {
    /// The resource that the request is about.
    pub fn resource(&self) -> ApiResource {
        ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, VERSION, kind_name(self.kind)))
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Graph => "TaskGraph",
        Kind::Template => "TaskTemplate",
        Kind::ClusterTemplate => "ClusterTaskTemplate",
    }
}

fn create(kind: Kind, spec: Value) -> Deed {
    Deed::Create(json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": kind_name(kind), "metadata": {"name": "new"}, "spec": spec,
    }))
}

/// Creates a graph.
pub fn graph(spec: Value) -> Deed {
    create(Kind::Graph, spec)
}

/// Creates a template.
pub fn template(kind: Kind, spec: Value) -> Deed {
    create(kind, spec)
}

/// A Job whose pod acts as a service account.
pub fn as_account(account: &str) -> Value {
    json!({"template": {"spec": {"serviceAccountName": account, "containers": [{"name": "main", "image": "none"}]}}})
}

fn spec(change: Value) -> Deed {
    Deed::Patch(json!({"spec": change}))
}

fn task(name: &str) -> Value {
    json!({"name": name, "container": {"image": "localhost/busybox:1", "command": ["true"]}})
}

/// All of it, tried by the user `by`.
#[rustfmt::skip]
pub fn acts(by: &str) -> Vec<Act> {
    let run = json!({"name": "t"});
    let claim = json!([{"name": "v", "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]);
    let approval = json!([{"task": "a", "attempt": 1, "decision": "Approved", "by": by}]);
    let child = json!({"metadata": {
        "labels": {"taskgraph.dev/graph-uid": "u", "taskgraph.dev/task": "a"},
        "ownerReferences": [{"apiVersion": "taskgraph.dev/v1alpha1", "kind": "TaskGraph", "name": "p", "uid": "u"}],
    }});
    let act = |what, deed, who| Act { what, kind: Kind::Graph, deed, who };
    let of = |kind, what, deed, who| Act { what, kind, deed, who };
    vec![
        act("read", Deed::List, ALL),
        act("create", graph(json!({"tasks": [task("a")]})), DESIGN),
        act("create with a claim", graph(json!({"tasks": [task("a")], "volumeClaimTemplates": claim})), DESIGN),
        act("create with the account that every pod has", graph(json!({"tasks": [{"name": "a", "job": as_account("default")}]})), DESIGN),
        act("create with another account", graph(json!({"tasks": [{"name": "a", "job": as_account("deployer")}]})), ADMIN),
        act("run a template", graph(json!({"templateRef": run, "arguments": {"a": 1}})), WRITERS),
        act("run a template as another account", graph(json!({"templateRef": run, "podDefaults": {"serviceAccountName": "deployer"}})), ADMIN),
        act("run a template, approved beforehand", graph(json!({"templateRef": run, "approvals": approval})), OPERATE),
        act("suspend", spec(json!({"desiredState": "Suspend"})), OPERATE),
        act("cancel", spec(json!({"desiredState": "Cancel"})), OPERATE),
        act("rerun", spec(json!({"rerun": {"id": "1", "scope": "All"}})), OPERATE),
        act("approve", spec(json!({"approvals": approval})), OPERATE),
        act("edit tasks", spec(json!({"tasks": [task("b")]})), DESIGN),
        act("edit words", spec(json!({"displayName": "x"})), DESIGN),
        act("edit tasks and cancel", spec(json!({"tasks": [task("b")], "desiredState": "Cancel"})), ADMIN),
        act("edit with another account", spec(json!({"podDefaults": {"serviceAccountName": "deployer"}})), ADMIN),
        act("label", Deed::Patch(json!({"metadata": {"labels": {"team": "a"}}})), WRITERS),
        act("pass for a child graph", Deed::Patch(child), DESIGN),
        act("delete", Deed::Delete, DESIGN),
        act("write a status", Deed::PatchStatus(json!({"status": {"phase": "Succeeded"}})), &[]),
        of(Kind::Template, "read templates", Deed::List, ALL),
        of(Kind::Template, "write a template", template(Kind::Template, json!({"container": {"image": "none"}})), DESIGN),
        of(Kind::Template, "write one with another account", template(Kind::Template, json!({"job": as_account("deployer")})), ADMIN),
        // the roles are bound in one namespace
        of(Kind::ClusterTemplate, "write a template of the cluster", template(Kind::ClusterTemplate, json!({"container": {"image": "none"}})), &[]),
    ]
}
