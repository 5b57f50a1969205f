//! The checks that an API server makes by a CRD's schema, made here without one: all problems at
//! once, each with its field path, instead of the first at which a reader stops.
//!
//! Only the keywords of structural schemas exist, and of those the ones that our CRDs use; a test
//! fails when a CRD begins to use another.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use regex::Regex;
use serde_json::Value;

use super::yaml::{Node, NodeKind};
use crate::{api::duration, cli::suggest, engine::Problem};

/// At most so many problems of one object are told.
pub const MAX_PROBLEMS: usize = 1_000;

/// The pattern of names that are DNS labels.
const DNS_LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// Something that the schema does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What, and where; the path is empty for the object itself.
    pub problem: Problem,
    /// Found by a rule in CEL, which speaks of an object as a whole rather than of one of its fields.
    pub by_rule: bool,
}

/// The schema of one kind, ready to check objects.
pub struct Schema {
    root: Value,
    patterns: BTreeMap<String, Regex>,
    rules: BTreeMap<String, cel::Program>,
}

impl Schema {
    /// The schema of a CRD. Of the object's own fields `metadata` is checked elsewhere, and `status` not at all:
    /// nobody applies it.
    pub fn of(crd: &CustomResourceDefinition) -> Self {
        let schema = crd.spec.versions.first().and_then(|version| version.schema.as_ref()?.open_api_v3_schema.as_ref());
        let mut root = serde_json::to_value(schema).unwrap_or_default();
        if let Some(properties) = root.get_mut("properties").and_then(Value::as_object_mut) {
            for name in ["apiVersion", "kind", "metadata", "status"] {
                properties.insert(name.into(), serde_json::json!({"x-kubernetes-preserve-unknown-fields": true}));
            }
        }
        Self::new(root)
    }

    fn new(root: Value) -> Self {
        let mut schema = Self { root: Value::Null, patterns: BTreeMap::new(), rules: BTreeMap::new() };
        schema.prepare(&root);
        schema.root = root;
        schema
    }

    /// Compiles what patterns and rules the schema holds; it is a tree a dozen levels deep.
    fn prepare(&mut self, schema: &Value) {
        if let Some(pattern) = schema["pattern"].as_str()
            && let Ok(regex) = Regex::new(pattern)
        {
            self.patterns.insert(pattern.to_owned(), regex);
        }
        for rule in rules(schema) {
            for text in std::iter::once(rule.text).chain(rule.message_expression) {
                if let Ok(program) = cel::Program::compile(text) {
                    self.rules.insert(text.to_owned(), program);
                }
            }
        }
        schema["properties"].as_object().into_iter().flatten().for_each(|(_, property)| self.prepare(property));
        for inner in ["items", "additionalProperties"] {
            if schema[inner].is_object() {
                self.prepare(&schema[inner]);
            }
        }
    }

    /// Everything wrong with an object, in the order of the file.
    pub fn check(&self, object: &Node) -> Vec<Finding> {
        let mut check = Check { schema: self, path: String::new(), findings: Vec::new() };
        check.value(&self.root, object);
        check.findings
    }
}

struct Rule<'s> {
    text: &'s str,
    message: &'s str,
    /// Says more exactly what is wrong.
    message_expression: Option<&'s str>,
}

/// The rules of a schema that can be judged from one object (those that compare it with its former self cannot).
fn rules(schema: &Value) -> impl Iterator<Item = Rule<'_>> {
    schema["x-kubernetes-validations"].as_array().into_iter().flatten().filter_map(|rule| {
        let text = rule["rule"].as_str().filter(|text| !text.contains("oldSelf"))?;
        let message = rule["message"].as_str().unwrap_or(text);
        Some(Rule { text, message, message_expression: rule["messageExpression"].as_str() })
    })
}

/// One walk over an object, as deep as the schema is.
struct Check<'s> {
    schema: &'s Schema,
    path: String,
    findings: Vec<Finding>,
}

impl Check<'_> {
    fn report(&mut self, message: impl Into<String>) {
        if self.findings.len() < MAX_PROBLEMS {
            let path = self.path.clone();
            self.findings.push(Finding { problem: Problem { path, message: message.into() }, by_rule: false });
        }
    }

    /// Does `work` with the path longer by `segment`.
    fn within(&mut self, segment: &str, work: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        if !(self.path.is_empty() || segment.starts_with('[')) {
            self.path.push('.');
        }
        self.path.push_str(segment);
        work(self);
        self.path.truncate(length);
    }

    fn value(&mut self, schema: &Value, node: &Node) {
        if let NodeKind::Scalar(Value::Null) = node.kind
            && schema["nullable"] == true
        {
            return;
        }
        if let Some(problem) = wrong_type(schema, node) {
            return self.report(problem);
        }
        // anything goes below, as deep as it likes
        if schema["x-kubernetes-preserve-unknown-fields"] == true && schema["properties"].is_null() {
            return;
        }
        match &node.kind {
            NodeKind::Scalar(Value::String(text)) => self.text(schema, text),
            NodeKind::Scalar(Value::Number(number)) => self.number(schema, number),
            NodeKind::Scalar(_) => {}
            NodeKind::List(items) => self.list(schema, items),
            NodeKind::Map(members) => self.map(schema, members),
        }
        self.rules(schema, node);
    }

    fn text(&mut self, schema: &Value, text: &str) {
        if let Some(values) = schema["enum"].as_array() {
            let values: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
            if !values.contains(&text) {
                let hint = suggest::did_you_mean(text, values.iter().copied());
                self.report(format!("{} is not one of {}{hint}", suggest::quoted(text), values.join(", ")));
            }
            return;
        }
        let length = text.chars().count() as u64;
        if schema["minLength"].as_u64().is_some_and(|min| length < min) && text.is_empty() {
            return self.report("must not be empty");
        }
        if let Some(max) = schema["maxLength"].as_u64().filter(|max| length > *max) {
            return self.report(format!("is {length} characters long; the limit is {max}"));
        }
        if let Some(pattern) = schema["pattern"].as_str()
            && self.schema.patterns.get(pattern).is_some_and(|regex| !regex.is_match(text))
        {
            self.report(pattern_message(pattern, text));
        }
    }

    fn number(&mut self, schema: &Value, number: &serde_json::Number) {
        let Some(value) = number.as_f64() else { return };
        let bound = |key: &str| schema[key].as_f64();
        match (bound("minimum"), bound("maximum")) {
            (Some(min), Some(max)) if value < min || value > max => {
                self.report(format!("{number} is out of range: it must be from {min} to {max}"));
            }
            (Some(min), _) if value < min => self.report(format!("{number} is too small: it must be at least {min}")),
            (_, Some(max)) if value > max => self.report(format!("{number} is too large: it must be at most {max}")),
            _ => {}
        }
    }

    fn list(&mut self, schema: &Value, items: &[Node]) {
        self.size(schema, items.len(), ("minItems", "maxItems"), "entries");
        self.doubles(schema, items);
        for (index, item) in items.iter().enumerate() {
            if self.findings.len() >= MAX_PROBLEMS {
                return;
            }
            self.within(&format!("[{index}]"), |check| check.value(&schema["items"], item));
        }
    }

    fn size(&mut self, schema: &Value, size: usize, (min, max): (&str, &str), what: &str) {
        let size = size as u64;
        if schema[min].as_u64().is_some_and(|min| size < min) {
            self.report("must not be empty");
        }
        if let Some(max) = schema[max].as_u64().filter(|max| size > *max) {
            self.report(format!("has {size} {what}; the limit is {max}"));
        }
    }

    /// Entries of a list that must differ, by their keys or as a whole.
    fn doubles(&mut self, schema: &Value, items: &[Node]) {
        let keys: Vec<&str> = match schema["x-kubernetes-list-type"].as_str() {
            Some("map") => schema["x-kubernetes-list-map-keys"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect(),
            Some("set") => Vec::new(),
            _ => return,
        };
        let mut seen = BTreeMap::new();
        for (index, item) in items.iter().enumerate() {
            let Some(text) = identity(item, &keys) else { continue };
            let quoted = suggest::quoted(&text);
            let first = *seen.entry(text).or_insert(index);
            if first != index {
                let segment = match keys.as_slice() {
                    [key] => format!("[{index}].{key}"),
                    _ => format!("[{index}]"),
                };
                let first = format!("{}[{first}]", self.path);
                self.within(&segment, |check| check.report(format!("{quoted} is there already: {first}")));
            }
        }
    }

    fn map(&mut self, schema: &Value, members: &[(super::yaml::Key, Node)]) {
        let properties = schema["properties"].as_object();
        self.size(schema, members.len(), ("minProperties", "maxProperties"), "members");
        for (key, value) in members {
            let property = properties.and_then(|properties| properties.get(&key.name));
            match (property, &schema["additionalProperties"]) {
                // an absent field: the API server drops it
                (Some(property), _) if is_null(value) && property["nullable"] != true => {}
                (Some(property), _) => self.within(&key.name, |check| check.value(property, value)),
                (None, inner @ Value::Object(_)) => self.within(&key.name, |check| check.value(inner, value)),
                (None, _) if schema["x-kubernetes-preserve-unknown-fields"] == true => {}
                (None, _) => {
                    let known = properties.into_iter().flatten().map(|(name, _)| name.as_str());
                    let hint = suggest::did_you_mean(&key.name, known);
                    self.within(&key.name, |check| check.report(format!("unknown field{hint}")));
                }
            }
        }
        for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !members.iter().any(|(key, value)| key.name == required && !is_null(value)) {
                self.within(required, |check| check.report("is missing"));
            }
        }
    }

    /// Rules look at parts whose form is right, so this comes last; a rule that cannot be
    /// evaluated says nothing that the form has not said.
    fn rules(&mut self, schema: &Value, node: &Node) {
        let mut value = None;
        for rule in rules(schema) {
            let Some(program) = self.schema.rules.get(rule.text) else { continue };
            let value = value.get_or_insert_with(|| cel::to_value(node.to_json()));
            let Ok(value) = value else { return };
            let mut context = cel::Context::default();
            context.add_variable_from_value("self", value.clone());
            if program.execute(&context) == Ok(cel::Value::Bool(false)) && self.findings.len() < MAX_PROBLEMS {
                let exact = rule.message_expression.and_then(|text| self.schema.rules.get(text));
                let exact = match exact.map(|program| program.execute(&context)) {
                    Some(Ok(cel::Value::String(text))) => Some(text),
                    _ => None,
                };
                let message = exact.as_ref().map_or(rule.message, |text| text.as_str());
                let (path, message) = match rule_path(message) {
                    Some((path, message)) if self.path.is_empty() => (path, message),
                    _ => (self.path.as_str(), message),
                };
                let (path, message) = (path.to_owned(), message.to_owned());
                self.findings.push(Finding { problem: Problem { path, message }, by_rule: true });
            }
        }
    }
}

/// The field path that the message of a rule over a whole object begins with.
fn rule_path(message: &str) -> Option<(&str, &str)> {
    message
        .split_once(": ")
        .filter(|(path, _)| ["metadata.", "spec."].iter().any(|part| path.starts_with(part)) && !path.contains(' '))
}

/// What tells an entry of a list from the others: the values of its keys, or itself; `None` where one is missing or of
/// another type, which is reported elsewhere.
fn identity(item: &Node, keys: &[&str]) -> Option<String> {
    let scalar = |node: &Node| match &node.kind {
        NodeKind::Scalar(Value::String(text)) => Some(text.clone()),
        NodeKind::Scalar(Value::Number(number)) => Some(number.to_string()),
        _ => None,
    };
    let member = |key: &&str| match &item.kind {
        NodeKind::Map(members) => scalar(&members.iter().find(|(name, _)| name.name == *key)?.1),
        _ => None,
    };
    if keys.is_empty() {
        return scalar(item).filter(|_| matches!(item.kind, NodeKind::Scalar(Value::String(_))));
    }
    let values: Option<Vec<String>> = keys.iter().map(member).collect();
    // no name holds a slash
    Some(values?.join("/"))
}

fn is_null(node: &Node) -> bool {
    matches!(node.kind, NodeKind::Scalar(Value::Null))
}

/// What to say where a value is of another type than the schema wants.
fn wrong_type(schema: &Value, node: &Node) -> Option<String> {
    let wanted = schema["type"].as_str()?;
    let (found, fits) = match &node.kind {
        NodeKind::Scalar(Value::Null) => ("nothing", false),
        NodeKind::Scalar(Value::Bool(_)) => ("a boolean", wanted == "boolean"),
        NodeKind::Scalar(Value::Number(number)) => {
            let whole = number.as_f64().is_some_and(|value| value.fract() == 0.0);
            ("a number", wanted == "number" || wanted == "integer" && whole)
        }
        NodeKind::Scalar(_) => ("a string", wanted == "string"),
        NodeKind::List(_) => ("a list", wanted == "array"),
        NodeKind::Map(_) => ("a map", wanted == "object"),
    };
    if fits {
        return None;
    }
    if schema["pattern"] == duration::PATTERN {
        return Some(format!("must be a duration such as \"90s\" or \"1h30m\", not {found}"));
    }
    let hint = match (wanted, &node.kind) {
        ("string", NodeKind::Scalar(value)) if !value.is_null() => ": write it in quotes".to_owned(),
        ("array", NodeKind::Scalar(Value::String(text))) if text.len() <= 63 => format!(": write [{text}]"),
        _ => String::new(),
    };
    let wanted = match wanted {
        "string" => "a string",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "a map",
        other => other,
    };
    Some(format!("must be {wanted}, not {found}{hint}"))
}

fn pattern_message(pattern: &str, text: &str) -> String {
    match pattern {
        DNS_LABEL => format!(
            "{} is not a DNS label: use lower case letters, digits and \"-\", and begin and end with a letter or digit",
            suggest::quoted(text)
        ),
        duration::PATTERN => match text.parse::<duration::Duration>() {
            Err(error) => error.to_string(),
            Ok(_) => format!("{} does not match {pattern}", suggest::quoted(text)),
        },
        _ => format!("{} does not match {pattern}", suggest::quoted(text)),
    }
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
