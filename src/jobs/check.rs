//! A task's container or pod template, checked before anything is created.
//!
//! The API server keeps both as they were written (their typed schema would be too large), so this stands in
//! for it: fields and types by [`strict`](super::strict), here what Kubernetes requires of their values where it is easily
//! got wrong, and what belongs to the operator. Whatever else is wrong the API server says when the Job is created.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, PersistentVolumeClaimSpec, PodTemplateSpec};
use serde_json::{Map, Value};

use super::{
    allowed, name,
    strict::{field_path, read},
};
use crate::{
    api::{DEFAULT_CONTAINER, LABEL_PREFIX, PodDefaults, VolumeClaimTemplate, is_dns_label},
    engine::{Problem, payload::PayloadKind, validate::suggest},
};

/// Everything that is wrong with a task's container or pod template, which stands at `path`.
///
/// A text with `${{ }}` in it passes wherever a text may stand. Where expressions may stand, and which names of
/// variables are reserved, is the engine's to say.
pub fn check(kind: PayloadKind, value: &Value, path: &str) -> Vec<Problem> {
    let mut found = Found(Vec::new());
    match kind {
        PayloadKind::Container => {
            found.0.extend(read::<Container>(value, path).1);
            found.container(&At { value, path: path.to_owned() }, Role::Short);
        }
        PayloadKind::PodTemplate => {
            found.0.extend(read::<PodTemplateSpec>(value, path).1);
            found.template(&At { value, path: path.to_owned() });
        }
    }
    found.say_what_is_known();
    found.0
}

/// Everything that is wrong with what all pods of a graph share.
pub fn check_defaults(defaults: &PodDefaults, path: &str) -> Vec<Problem> {
    // as part of a template, so that each field is checked as the template's is
    let mut spec = Map::new();
    let mut put = |key: &str, value: Value| spec.insert(key.to_owned(), value);
    put("containers", serde_json::json!([{"name": "main", "image": "any"}]));
    put("tolerations", defaults.tolerations.clone().into());
    put("nodeSelector", serde_json::json!(defaults.node_selector));
    put("securityContext", defaults.security_context.clone().map_or(Value::Null, Value::Object));
    let template = serde_json::json!({"metadata": {"labels": defaults.labels}, "spec": spec});
    let mut problems = check(PayloadKind::PodTemplate, &template, "");
    for problem in &mut problems {
        let inner = problem.path.trim_start_matches("spec.").trim_start_matches("metadata.");
        problem.path = format!("{path}.{inner}");
    }
    problems
}

/// Everything that is wrong with the claim at `path` that is to be made for a graph, as far as Kubernetes' types tell.
pub fn check_claim(claim: &VolumeClaimTemplate, path: &str) -> Vec<Problem> {
    let spec = Value::Object(claim.spec.clone());
    let at = At { value: &spec, path: field_path(path, "spec") };
    let mut found = Found(read::<PersistentVolumeClaimSpec>(&spec, &at.path).1);
    found.claim(&at);
    let metadata = serde_json::json!({"labels": claim.labels, "annotations": claim.annotations});
    found.metadata(&At { value: &metadata, path: path.to_owned() });
    found.say_what_is_known();
    found.0
}

/// A value and where it stands.
struct At<'a> {
    value: &'a Value,
    path: String,
}

impl<'a> At<'a> {
    /// A member that is there and not `null`.
    fn member(&self, key: &str) -> Option<&'a Value> {
        self.value.get(key).filter(|value| !value.is_null())
    }

    /// The same, and where it stands.
    fn get(&self, key: &str) -> Option<At<'a>> {
        Some(At { value: self.member(key)?, path: self.at(key) })
    }

    /// The members. Their paths are left to whoever finds something wrong with one: most are right.
    fn members(&self) -> impl Iterator<Item = (&'a str, &'a Value)> + use<'a> {
        let members = self.value.as_object().into_iter().flatten();
        members.map(|(key, value)| (key.as_str(), value))
    }

    /// The path of a member.
    fn at(&self, key: &str) -> String {
        field_path(&self.path, key)
    }

    fn items(&self, key: &str) -> impl Iterator<Item = At<'a>> + use<'a> {
        let list = self.get(key);
        let (value, path) = list.map_or((&Value::Null, String::new()), |list| (list.value, list.path));
        let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().enumerate().map(move |(index, value)| At { value, path: format!("{path}[{index}]") })
    }

    fn has(&self, key: &str) -> bool {
        self.member(key).is_some()
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        self.member(key)?.as_str()
    }
}

/// What a container is in its pod.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The only one, written as `container`: its name may be left out.
    Short,
    /// One of `containers`.
    Main,
    /// One of `initContainers`.
    Init,
}

struct Found(Vec<Problem>);

impl Found {
    fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Problem { path: path.into(), message: message.into() });
    }

    fn say_what_is_known(&mut self) {
        for problem in self.0.iter_mut().filter(|problem| problem.message == "unknown field") {
            problem.message.push_str("; known are the fields of Kubernetes 1.34");
        }
    }

    /// What a claim cannot do without.
    fn claim(&mut self, spec: &At<'_>) {
        let modes = ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"];
        if spec.items("accessModes").next().is_none() {
            let message = format!("required, but missing: write some of {}", modes.join(", "));
            self.add(spec.at("accessModes"), message);
        }
        for mode in spec.items("accessModes") {
            if let Some(text) = mode.value.as_str().filter(|text| !modes.contains(text)) {
                let meant = suggest(text, modes).unwrap_or_default();
                self.add(mode.path, format!("{text:?} is none of {}{meant}", modes.join(", ")));
            }
        }
        if spec.value.pointer("/resources/requests/storage").is_none_or(Value::is_null) {
            let path = format!("{}.resources.requests.storage", spec.path);
            self.add(path, "required, but missing: how large the volume must be, as \"1Gi\"");
        }
    }

    fn template(&mut self, template: &At<'_>) {
        if let Some(metadata) = template.get("metadata") {
            self.metadata(&metadata);
        }
        let Some(spec) = template.get("spec") else {
            self.add(template.at("spec"), "required, but missing");
            return;
        };
        self.only(&spec, allowed::POD, allowed::NOT_OF_POD);
        if let Some(policy) = spec.text("restartPolicy").filter(|policy| *policy != "Never") {
            self.add(
                spec.at("restartPolicy"),
                format!("is {policy:?}, but a task's pod is never restarted: leave it out; use the task's retry"),
            );
        }
        if spec.get("containers").is_some_and(|list| list.value.as_array().is_some_and(Vec::is_empty)) {
            self.add(spec.at("containers"), "needs at least one container");
        }
        let mut names = BTreeSet::new();
        for (key, role) in [("initContainers", Role::Init), ("containers", Role::Main)] {
            for container in spec.items(key) {
                self.unique(&mut names, &container, "name", "container");
                self.container(&container, role);
            }
        }
        let mut volumes = BTreeSet::new();
        for volume in spec.items("volumes") {
            self.unique(&mut volumes, &volume, "name", "volume");
            self.volume(&volume);
        }
        self.mounts(&spec, &volumes);
        self.default_container(template, &spec);
    }

    fn metadata(&mut self, metadata: &At<'_>) {
        for (key, _) in metadata.members().filter(|(key, value)| !value.is_null() && !allowed::METADATA.contains(key)) {
            self.refuse(
                metadata.at(key),
                "belongs to the operator: of metadata only labels and annotations may be given",
            );
        }
        for key in ["labels", "annotations"] {
            let Some(map) = metadata.get(key) else { continue };
            for (name, value) in map.members() {
                let ours = name.contains(LABEL_PREFIX) || name.contains("batch.kubernetes.io/");
                if ours || matches!(name, "job-name" | "controller-uid") {
                    self.add(
                        map.at(name),
                        "belongs to the operator or to Kubernetes' own Job controller: take another name",
                    );
                } else if !is_qualified_name(name) {
                    self.add(map.at(name), "is no valid key: at most 63 letters, digits, '-', '_' and '.', after a domain and '/' if you like");
                } else if let Some(text) = value.as_str().filter(|_| key == "labels") {
                    self.label_value(text, || map.at(name));
                }
            }
        }
    }

    /// The claim of an ephemeral volume is an object of its own: what holds for the pod's metadata holds for its.
    fn volume(&mut self, volume: &At<'_>) {
        self.only(volume, allowed::VOLUME, &[]);
        let claim = volume.get("ephemeral").and_then(|ephemeral| ephemeral.get("volumeClaimTemplate"));
        if let Some(metadata) = claim.and_then(|claim| claim.get("metadata")) {
            self.metadata(&metadata);
        }
    }

    /// Only these fields; of some others it is said why.
    fn only(&mut self, object: &At<'_>, allowed: &[&str], not: &[(&str, &str)]) {
        for (key, _) in object.members().filter(|(key, value)| !value.is_null() && !allowed.contains(key)) {
            let why = not.iter().find(|(field, _)| *field == key).map(|(_, why)| *why);
            self.refuse(object.at(key), why.unwrap_or("is not among the fields that a task may set"));
        }
    }

    /// Adds a problem, unless the field is not even known.
    fn refuse(&mut self, path: String, message: &str) {
        if !self.0.iter().any(|known| known.path == path) {
            self.add(path, message);
        }
    }

    fn label_value(&mut self, text: &str, path: impl Fn() -> String) {
        if !text.contains("${{") && !text.is_empty() && !is_label_text(text) {
            self.add(path(), format!("{text:?} is no label value: at most 63 letters, digits, '-', '_' and '.', a letter or digit at both ends"));
        }
    }

    /// Notes a name that came before.
    fn unique<'a>(&mut self, names: &mut BTreeSet<&'a str>, item: &At<'a>, key: &str, what: &str) {
        if let Some(name) = item.text(key).filter(|name| !names.insert(name)) {
            self.add(item.at(key), format!("there is another {what} {name:?}"));
        }
    }

    fn container(&mut self, container: &At<'_>, role: Role) {
        if !container.value.is_object() {
            return;
        }
        self.only(container, allowed::CONTAINER, allowed::NOT_OF_CONTAINER);
        match container.text("name") {
            Some(text) => {
                if let Some(problem) = name::not_a_label(text) {
                    self.add(container.at("name"), problem);
                }
            }
            None if role != Role::Short && !container.has("name") => {
                self.add(container.at("name"), "required, but missing");
            }
            None => {}
        }
        match container.text("image") {
            Some(image) if image.trim() != image || image.is_empty() => {
                self.add(container.at("image"), format!("{image:?} is no image"));
            }
            None if !container.has("image") => {
                self.add(container.at("image"), "required, but missing");
            }
            _ => {}
        }
        self.restarts(container, role);
        self.choice(container, "imagePullPolicy", &["Always", "IfNotPresent", "Never"]);
        self.choice(container, "terminationMessagePolicy", &["File", "FallbackToLogsOnError"]);
        let mut names = BTreeSet::new();
        for variable in container.items("env") {
            self.variable(&mut names, &variable);
        }
        let mut paths = BTreeSet::new();
        for mount in container.items("volumeMounts") {
            self.unique(&mut paths, &mount, "mountPath", "mount at");
        }
        if role == Role::Short {
            for mount in container.items("volumeMounts") {
                self.add(
                    mount.path,
                    "a container of its own has no volumes: mount those of the graph by the task's volumes, or write the task as job.template",
                );
            }
        }
    }

    /// Restarts inside a pod would be attempts that nobody counts. Sidecars are no attempts.
    fn restarts(&mut self, container: &At<'_>, role: Role) {
        let Some(policy) = container.text("restartPolicy") else { return };
        let sidecar = role == Role::Init && policy == "Always";
        if !sidecar && policy != "Never" {
            self.add(
                container.at("restartPolicy"),
                "a task's container is never restarted: leave it out; use the task's retry",
            );
        }
    }

    fn variable<'a>(&mut self, names: &mut BTreeSet<&'a str>, variable: &At<'a>) {
        let Some(text) = variable.text("name") else { return };
        let ordinary = text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=');
        if text.is_empty() || !ordinary {
            self.add(variable.at("name"), format!("{text:?} cannot be the name of a variable"));
        } else if !names.insert(text) {
            self.add(variable.at("name"), format!("there is another variable {text:?}"));
        }
        if variable.text("value").is_some_and(|value| !value.is_empty()) && variable.has("valueFrom") {
            self.add(variable.at("valueFrom"), "cannot stand beside value");
        }
    }

    fn choice(&mut self, object: &At<'_>, key: &str, choices: &[&str]) {
        let Some(text) = object.text(key) else { return };
        if !choices.contains(&text) {
            let meant = suggest(text, choices.iter().copied());
            self.add(
                object.at(key),
                format!("{text:?} is none of {}{}", choices.join(", "), meant.unwrap_or_default()),
            );
        }
    }

    /// Mounts name volumes of the pod.
    fn mounts(&mut self, spec: &At<'_>, volumes: &BTreeSet<&str>) {
        for container in spec.items("initContainers").chain(spec.items("containers")) {
            for mount in container.items("volumeMounts") {
                let Some(text) = mount.text("name").filter(|text| !volumes.contains(text)) else {
                    continue;
                };
                let meant = suggest(text, volumes.iter().copied());
                self.add(mount.at("name"), format!("no volume {text:?}{}", meant.unwrap_or_default()));
            }
        }
    }

    /// The annotation that names the output container names one.
    fn default_container(&mut self, template: &At<'_>, spec: &At<'_>) {
        let annotations = template.get("metadata").and_then(|metadata| metadata.get("annotations"));
        let Some(annotations) = annotations else { return };
        let Some(text) = annotations.text(DEFAULT_CONTAINER) else { return };
        let names: Vec<_> = spec.items("containers").filter_map(|container| container.text("name")).collect();
        if !names.contains(&text) && !text.contains("${{") {
            let meant = suggest(text, names);
            self.add(annotations.at(DEFAULT_CONTAINER), format!("no container {text:?}{}", meant.unwrap_or_default()));
        }
    }
}

/// Whether a text can be the value of a label or, after the slash, a key.
fn is_label_text(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let ends = text.as_bytes().first().into_iter().chain(text.as_bytes().last());
    text.len() <= 63 && text.bytes().all(inside) && !text.is_empty() && ends.into_iter().all(u8::is_ascii_alphanumeric)
}

/// Whether a text can be the key of a label or annotation.
fn is_qualified_name(text: &str) -> bool {
    let (prefix, name) = text.split_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let is_domain = |prefix: &str| prefix.len() <= 253 && prefix.split('.').all(is_dns_label);
    is_label_text(name) && prefix.is_none_or(is_domain)
}

#[cfg(test)]
mod tests;
