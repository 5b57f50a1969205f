//! Which container of a pod mounts a volume of the graph.

use serde_json::Value;

use crate::api::{DEFAULT_CONTAINER, MAIN_CONTAINER};

/// A container by its place in a pod's spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// `containers` or `initContainers`.
    pub list: &'static str,
    /// Its place there.
    pub index: usize,
}

/// The container named `wanted`, or else the one that leaves the outputs: the one that the annotation
/// `kubectl.kubernetes.io/default-container` names, else `main`, else the first.
pub fn target(metadata: &Value, spec: &Value, wanted: Option<&str>) -> Option<Target> {
    let find = |list: &'static str, name: &str| {
        let containers = spec.get(list)?.as_array()?;
        let index = containers.iter().position(|container| container.get("name").and_then(Value::as_str) == Some(name));
        index.map(|index| Target { list, index })
    };
    if let Some(name) = wanted {
        return find("containers", name).or_else(|| find("initContainers", name));
    }
    let annotated = metadata.get("annotations").and_then(|annotations| annotations.get(DEFAULT_CONTAINER));
    let first = || spec.get("containers")?.as_array()?.first().map(|_| Target { list: "containers", index: 0 });
    annotated
        .and_then(Value::as_str)
        .and_then(|name| find("containers", name))
        .or_else(|| find("containers", MAIN_CONTAINER))
        .or_else(first)
}

/// The names of all containers of a pod.
pub fn container_names(spec: &Value) -> impl Iterator<Item = &str> {
    ["containers", "initContainers"]
        .into_iter()
        .filter_map(|list| spec.get(list)?.as_array())
        .flatten()
        .filter_map(|container| container.get("name")?.as_str())
}
