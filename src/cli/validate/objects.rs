//! Documents as objects of Kubernetes: which are ours, and what is wrong with them from outside.

use serde_json::Value;

use super::yaml::{Node, NodeKind};
use crate::{
    api::{GROUP, VERSION},
    cli::suggest,
    engine::Problem,
};

/// The fields of `metadata`.
const METADATA: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

/// The kinds that are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `TaskGraph`
    Graph,
    /// `TaskTemplate`
    Template,
    /// `ClusterTaskTemplate`
    ClusterTemplate,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Graph, Self::Template, Self::ClusterTemplate];

    /// Its name in Kubernetes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Graph => "TaskGraph",
            Self::Template => "TaskTemplate",
            Self::ClusterTemplate => "ClusterTaskTemplate",
        }
    }
}

/// One object of ours.
#[derive(Debug)]
pub struct Object {
    /// The file that it stands in.
    pub file: String,
    /// What it is.
    pub kind: Kind,
    /// The namespace that it names, or else that of the command line; none if neither, and for what has none.
    pub namespace: Option<String>,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// All of it.
    pub node: Node,
}

/// What a document holds.
#[derive(Debug)]
pub enum Content {
    /// An object to check.
    Ours(Object),
    /// An object of another kind.
    Other,
    /// Something that no API server would take: line, path, message.
    Broken(u64, String, String),
}

impl Object {
    /// As messages call it: `TaskGraph/name`.
    pub fn title(&self) -> String {
        let name =
            self.name.as_deref().or_else(|| self.node.get("metadata")?.text("generateName")).unwrap_or("(no name)");
        format!("{}/{}", self.kind.name(), crate::cli::text::one_line(name))
    }

    /// What is wrong with its name and metadata, beside what its kind asks of names.
    pub fn check_metadata(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        let mut report = |path: &str, message: String| found.push(Problem { path: path.to_owned(), message });
        let Some(metadata) = self.node.get("metadata") else {
            report("metadata", "is missing: give the object a name".to_owned());
            return found;
        };
        let NodeKind::Map(members) = &metadata.kind else {
            report("metadata", "must be a map".to_owned());
            return found;
        };
        for (key, value) in members {
            let path = format!("metadata.{}", key.name);
            match (key.name.as_str(), &value.kind) {
                (name, _) if !METADATA.contains(&name) => {
                    report(&path, format!("unknown field{}", suggest::did_you_mean(name, METADATA.into_iter())));
                }
                ("labels" | "annotations", NodeKind::Map(texts)) => {
                    for (key, _) in texts.iter().filter(|(_, text)| !is_text(text)) {
                        report(&format!("{path}.{}", key.name), "must be a string: write it in quotes".to_owned());
                    }
                }
                ("labels" | "annotations", NodeKind::List(_) | NodeKind::Scalar(Value::String(_))) => {
                    report(&path, "must be a map".to_owned());
                }
                ("name" | "generateName" | "namespace", _) if !is_text(value) => {
                    report(&path, "must be a string: write it in quotes".to_owned());
                }
                _ => {}
            }
        }
        if metadata.get("name").is_none() && metadata.get("generateName").is_none() {
            report("metadata.name", "is missing".to_owned());
        }
        let templates_name = self.name.as_deref().filter(|_| self.kind != Kind::Graph);
        if templates_name.is_some_and(|name| !is_subdomain(name)) {
            report(
                "metadata.name",
                "must be made of lower case letters, digits, \"-\" and \".\", at most 253".to_owned(),
            );
        }
        if self.kind == Kind::ClusterTemplate && metadata.get("namespace").is_some() {
            report("metadata.namespace", "a ClusterTaskTemplate has no namespace".to_owned());
        }
        found
    }
}

fn is_text(node: &Node) -> bool {
    matches!(node.kind, NodeKind::Scalar(Value::String(_)))
}

/// A DNS subdomain: labels with dots between them.
fn is_subdomain(name: &str) -> bool {
    let is_label = |label: &str| {
        !(label.is_empty() || label.starts_with('-') || label.ends_with('-'))
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// The objects of a document: itself, or the items if it is a list of them.
pub fn contents(file: &str, namespace: Option<&str>, node: Node) -> Vec<Content> {
    let is_list = node.text("kind").is_some_and(|kind| kind.ends_with("List"));
    match node.kind {
        NodeKind::Scalar(Value::Null) => Vec::new(),
        NodeKind::Map(members) if is_list && members.iter().any(|(key, _)| key.name == "items") => {
            let items = members.into_iter().find_map(|(key, value)| (key.name == "items").then_some(value.kind));
            let Some(NodeKind::List(items)) = items else { return Vec::new() };
            items.into_iter().map(|item| content(file, namespace, item)).collect()
        }
        kind => vec![content(file, namespace, Node { line: node.line, kind })],
    }
}

fn content(file: &str, namespace: Option<&str>, node: Node) -> Content {
    let broken = |path: &str, message: String| Content::Broken(node.line_of(path), path.to_owned(), message);
    if !matches!(node.kind, NodeKind::Map(_)) {
        return broken("", "is no Kubernetes object: a map with apiVersion and kind is wanted".to_owned());
    }
    let (Some(api_version), Some(kind)) = (node.text("apiVersion"), node.text("kind")) else {
        let missing = if node.text("kind").is_none() { "kind" } else { "apiVersion" };
        return broken(missing, "is missing, or no string".to_owned());
    };
    let known = Kind::ALL.into_iter().find(|known| known.name() == kind);
    let ours = format!("{GROUP}/{VERSION}");
    if api_version != ours {
        let group = api_version.split('/').next().unwrap_or_default();
        let near = group == GROUP || known.is_some() && strsim::damerau_levenshtein(group, GROUP) <= 3;
        if near {
            return broken("apiVersion", format!("{} is not known; write {ours}", suggest::quoted(api_version)));
        }
        return Content::Other;
    }
    let Some(kind) = known else {
        let hint = suggest::did_you_mean(kind, Kind::ALL.into_iter().map(Kind::name));
        return broken("kind", format!("{} is no kind of {ours}{hint}", suggest::quoted(kind)));
    };
    let metadata = node.get("metadata");
    let named = |field| metadata.and_then(|metadata| metadata.text(field)).map(str::to_owned);
    let namespace =
        named("namespace").or_else(|| namespace.map(str::to_owned)).filter(|_| kind != Kind::ClusterTemplate);
    Content::Ours(Object { file: file.to_owned(), kind, namespace, name: named("name"), node })
}
