//! Rights as RBAC counts them: those that a request needs, and those that the chart's roles give.

use std::{collections::BTreeSet, fmt, fs};

use anyhow::{Context, Result};
use http::Method;
use k8s_openapi::api::rbac::v1::PolicyRule;
use regex::Regex;

/// One verb on one kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// API group; empty for the core.
    pub group: String,
    /// The plural, and after a slash the subresource.
    pub resource: String,
    /// The verb of RBAC.
    pub verb: String,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, resource, verb } = self;
        if group.is_empty() { write!(f, "{verb} {resource}") } else { write!(f, "{verb} {resource} ({group})") }
    }
}

impl Right {
    /// What a request needs; `None` for what is no object, as `/version`.
    pub fn of_request(method: &Method, path: &str, query: &str) -> Option<Self> {
        let mut parts = path.trim_matches('/').split('/');
        let group = match parts.next()? {
            "api" => "",
            "apis" => parts.next()?,
            _ => return None,
        };
        let _version = parts.next()?;
        let rest: Vec<&str> = parts.collect();
        let rest = match rest.as_slice() {
            ["namespaces", _, inner @ ..] if !inner.is_empty() => inner,
            all => all,
        };
        let (resource, named, subresource) = match rest {
            [] => return None,
            [resource] => (*resource, false, None),
            [resource, _] => (*resource, true, None),
            [resource, _, subresource, ..] => (*resource, true, Some(*subresource)),
        };
        let watches = query.split('&').any(|part| matches!(part, "watch=true" | "watch=1"));
        let verb = match (method.as_str(), named) {
            ("GET", true) => "get",
            ("GET", false) if watches => "watch",
            ("GET", false) => "list",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", true) => "delete",
            ("DELETE", false) => "deletecollection",
            _ => return None,
        };
        let resource = subresource.map_or_else(|| resource.to_owned(), |sub| format!("{resource}/{sub}"));
        Some(Self { group: group.to_owned(), resource, verb: verb.to_owned() })
    }

    /// All that some rules give.
    pub fn of_rules(rules: &[PolicyRule]) -> BTreeSet<Self> {
        let one = |rule: &PolicyRule| {
            let (groups, resources) =
                (rule.api_groups.clone().unwrap_or_default(), rule.resources.clone().unwrap_or_default());
            let mut all = Vec::new();
            for group in &groups {
                for resource in &resources {
                    for verb in &rule.verbs {
                        all.push(Self { group: group.clone(), resource: resource.clone(), verb: verb.clone() });
                    }
                }
            }
            all
        };
        rules.iter().flat_map(one).collect()
    }
}

/// The rules of a role in `charts/taskgraph/templates/FILE`, the one whose `metadata.name` ends in `name`. Rules are plain
/// YAML in all of them, but for names of objects: a role with anything else in its rules is not understood.
pub fn rules(file: &str, name: &str) -> Result<Vec<PolicyRule>> {
    let path = format!("{}/charts/taskgraph/templates/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let is_it = |document: &&str| {
        let mut lines = document.lines().skip_while(|line| *line != "metadata:");
        document.contains("\nrules:\n") && lines.nth(1).is_some_and(|line| line.trim() == format!("name: {name}"))
    };
    let document = text.split("\n---\n").find(is_it).with_context(|| format!("{path}: no role {name}"))?;
    let (_, rules) = document.split_once("\nrules:\n").context("rules")?;
    // conditions around rules: the test counts them all
    let plain: Vec<&str> = rules.lines().filter(|line| !line.trim_start().starts_with("{{")).collect();
    // names of objects
    let plain = Regex::new(r"\{\{.*?\}\}")?.replace_all(&plain.join("\n"), "a-name").into_owned();
    serde_saphyr::from_str(&plain).with_context(|| format!("{path}: rules of {name}"))
}

#[test]
fn what_a_request_needs() {
    for (method, path, query, expected) in [
        ("GET", "/api/v1/pods", "watch=true&x=y", Some("watch pods")),
        ("GET", "/api/v1/namespaces/a/pods", "", Some("list pods")),
        ("DELETE", "/api/v1/namespaces/a/configmaps", "labelSelector=x", Some("deletecollection configmaps")),
        (
            "PATCH",
            "/apis/taskgraph.dev/v1alpha1/namespaces/a/taskgraphs/g/status",
            "",
            Some("patch taskgraphs/status (taskgraph.dev)"),
        ),
        (
            "GET",
            "/apis/taskgraph.dev/v1alpha1/clustertasktemplates/t",
            "",
            Some("get clustertasktemplates (taskgraph.dev)"),
        ),
        ("GET", "/api/v1/namespaces/a", "", Some("get namespaces")),
        (
            "POST",
            "/apis/authorization.k8s.io/v1/subjectaccessreviews",
            "",
            Some("create subjectaccessreviews (authorization.k8s.io)"),
        ),
        ("GET", "/version", "", None),
        ("GET", "/apis/batch/v1", "", None),
    ] {
        let right = Right::of_request(&Method::from_bytes(method.as_bytes()).expect("a method"), path, query);
        assert_eq!(right.map(|right| right.to_string()).as_deref(), expected, "{method} {path}");
    }
}
