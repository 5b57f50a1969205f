//! Which rights a change asks for.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Access, Change, Kind, Right, accounts, claims};
use crate::api::GROUP;

/// What a graph that only runs a template has in its spec.
const RUNS_TEMPLATE: [&str; 8] =
    ["templateRef", "arguments", "displayName", "description", "tags", "desiredState", "rerun", "ttlAfterFinished"];
/// Fields of a graph that steer its run.
const OPERATE: [&str; 2] = ["desiredState", "rerun"];
const APPROVALS: &str = "approvals";
/// Fields of a graph that no pod or claim comes from. Any other, also one that is not known here, counts as one that pods come
/// from.
const NO_PODS: [&str; 10] = [
    "displayName",
    "description",
    "tags",
    "parallelism",
    "failurePolicy",
    "timeout",
    "compensationTimeout",
    "finallyTimeout",
    "ttlAfterFinished",
    "outputs",
];

const DESIGNER: &str = "taskgraph-designer";
const OPERATOR: &str = "taskgraph-operator";
const ADMIN: &str = "taskgraph-admin";

/// The rights that a change asks for beyond those that RBAC has looked at, in the order of the fields that ask for them,
/// each once. None where only metadata or the status changes.
pub fn required(change: &Change<'_>) -> Vec<Access> {
    let mut wanted = Wanted { change, found: Vec::new(), seen: BTreeSet::new() };
    match (change.kind, change.old) {
        (Kind::Graph, None) => wanted.new_graph(),
        (Kind::Graph, Some(_)) => wanted.changed_graph(),
        (Kind::Template | Kind::ClusterTemplate, _) => wanted.template(),
    }
    wanted.found
}

/// The fields of the spec that a change sets, takes away, or sets to something else.
pub fn changed<'a>(change: &Change<'a>) -> Vec<&'a str> {
    changed_fields(change.old.map_or(&Value::Null, |old| old.spec), change.new.spec)
}

struct Wanted<'a> {
    change: &'a Change<'a>,
    found: Vec<Access>,
    seen: BTreeSet<Right>,
}

impl Wanted<'_> {
    fn new_graph(&mut self) {
        let spec = self.change.new.spec;
        let claim = claims::first(self.change);
        let fields: Vec<&str> = set_fields(spec).collect();
        let designed = fields.iter().find(|field| !RUNS_TEMPLATE.contains(field) && **field != APPROVALS);
        match (claim, designed) {
            (Some(path), _) => self.design(path),
            (None, Some(field)) => self.design(format!("spec.{field}")),
            (None, None) => self.run_template(),
        }
        if let Some(field) = designed {
            self.pods(field);
        }
        if fields.contains(&APPROVALS) {
            self.approve();
        }
    }

    fn changed_graph(&mut self) {
        if let Some(path) = claims::first(self.change) {
            self.design(path);
        }
        let changed = changed(self.change);
        for field in &changed {
            match *field {
                APPROVALS => self.approve(),
                field if is_operated(field) => self.operate(field),
                field => self.design(format!("spec.{field}")),
            }
        }
        let no_pods = |field: &&&str| **field == APPROVALS || is_operated(field) || NO_PODS.contains(field);
        if let Some(field) = changed.iter().find(|field| !no_pods(field)) {
            self.pods(field);
        }
    }

    fn template(&mut self) {
        let spec = self.change.new.spec;
        let Some(field) = changed(self.change).into_iter().find(|field| *field != "description") else { return };
        self.jobs(format!("spec.{field}"));
        self.claims(&spec["graph"], "spec.graph");
        self.accounts(accounts::of_template(spec));
    }

    /// Whatever a graph makes in the name of its writer. Who changes one task answers for all of them: what one leaves
    /// behind another is given.
    fn pods(&mut self, field: &str) {
        let spec = self.change.new.spec;
        self.jobs(format!("spec.{field}"));
        self.claims(spec, "spec");
        self.accounts(accounts::of_graph(spec, "spec"));
    }

    fn jobs(&mut self, path: String) {
        let right = self.right("create", "batch", "jobs", "");
        let deed = format!("create Jobs in {}, which this leads to", self.place());
        self.add(right, path, deed, DESIGNER);
    }

    fn claims(&mut self, spec: &Value, path: &str) {
        if is_set("volumeClaimTemplates", &spec["volumeClaimTemplates"]) {
            let right = self.right("create", "", "persistentvolumeclaims", "");
            let deed = format!("create PersistentVolumeClaims in {}, which this leads to", self.place());
            self.add(right, format!("{path}.volumeClaimTemplates"), deed, DESIGNER);
        }
    }

    fn accounts(&mut self, accounts: Vec<(String, &str)>) {
        for (path, account) in accounts {
            let right = self.right("use", "", "serviceaccounts", account);
            let deed = format!("let pods run as the service account {account:?} of {}", self.place());
            self.add(right, path, deed, ADMIN);
        }
    }

    fn design(&mut self, path: String) {
        self.on_graph("design", path, "design", DESIGNER);
    }

    fn operate(&mut self, field: &str) {
        self.on_graph("operate", format!("spec.{field}"), "operate", OPERATOR);
    }

    fn approve(&mut self) {
        self.on_graph("approve", format!("spec.{APPROVALS}"), "approve tasks of", OPERATOR);
    }

    /// The author of the template was allowed to create Jobs; who runs it chooses its arguments only. One who may design
    /// graphs could write it out.
    fn run_template(&mut self) {
        self.on_graph("operate", "spec.templateRef".to_owned(), "run a template as", OPERATOR);
        let design = self.graph_right("design");
        if let Some(access) = self.found.last_mut() {
            access.instead = Some(design);
        }
    }

    fn on_graph(&mut self, verb: &'static str, path: String, deed: &str, role: &'static str) {
        let deed = match self.change.name {
            "" => format!("{deed} graphs in {}", self.place()),
            name => format!("{deed} the graph {name:?} in {}", self.place()),
        };
        self.add(self.graph_right(verb), path, deed, role);
    }

    fn graph_right(&self, verb: &'static str) -> Right {
        self.right(verb, GROUP, "taskgraphs", self.change.name)
    }

    fn right(&self, verb: &'static str, group: &'static str, resource: &'static str, name: &str) -> Right {
        Right { verb, group, resource, namespace: self.change.namespace.to_owned(), name: name.to_owned() }
    }

    fn place(&self) -> String {
        match self.change.namespace {
            "" => "every namespace".to_owned(),
            namespace => format!("namespace {namespace:?}"),
        }
    }

    fn add(&mut self, right: Right, path: String, deed: String, role: &'static str) {
        if self.seen.insert(right.clone()) {
            self.found.push(Access { right, instead: None, path, deed, role });
        }
    }
}

static NOTHING: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);

fn fields(spec: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let fields = spec.as_object().unwrap_or(&NOTHING);
    fields.iter().filter(|(field, value)| is_set(field, value)).map(|(field, value)| (field.as_str(), value))
}

fn set_fields(spec: &Value) -> impl Iterator<Item = &str> {
    fields(spec).map(|(field, _)| field)
}

/// Whether a field of a graph steers its run.
pub fn is_operated(field: &str) -> bool {
    OPERATE.contains(&field)
}

/// The fields of a spec that are not what they were, in the order of the new one, those that are gone last.
pub fn changed_fields<'a>(old: &'a Value, new: &'a Value) -> Vec<&'a str> {
    let said = |spec: &'a Value, field: &str| spec.get(field).filter(|value| is_set(field, value));
    let changed = fields(new).filter(|(field, value)| said(old, field) != Some(*value)).map(|(field, _)| field);
    changed.chain(set_fields(old).filter(|field| said(new, field).is_none())).collect()
}

/// Whether a field says anything: what is empty says what its absence says.
fn is_set(field: &str, value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::String(text) => field != "desiredState" || text != "Run",
        Value::Bool(_) | Value::Number(_) => true,
    }
}

#[cfg(test)]
mod tests;
