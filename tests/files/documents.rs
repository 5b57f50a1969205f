//! Documents say only what holds: their objects are valid, their links lead somewhere.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;
use taskgraph::{
    api::{TaskGraphSpec, TaskTemplateSpec, TemplateKind, TemplateRef},
    engine::Templates,
    validate,
};

use crate::objects::{Source, blocks, document_paths, documents, examples, files_below, read, relative, root};

#[test]
fn examples_are_valid() {
    let examples = examples();
    assert!(examples.len() >= 5, "only {} examples were found", examples.len());
    for source in &examples {
        check(source);
    }
}

#[test]
fn objects_in_documents_are_valid() {
    let documents = documents();
    assert!(documents.iter().any(|source| !source.objects.is_empty()), "no document shows an object");
    for source in &documents {
        check(source);
    }
}

/// Every graph passes the checks, with the templates that stand beside it; every template can be read.
fn check(source: &Source) {
    let mut templates = Templates::new();
    for (line, object) in &source.objects {
        let kind = match text(object, "/kind") {
            "TaskTemplate" => TemplateKind::TaskTemplate,
            "ClusterTaskTemplate" => TemplateKind::ClusterTaskTemplate,
            _ => continue,
        };
        let reference = TemplateRef { name: text(object, "/metadata/name").to_owned(), kind };
        templates.insert(reference, Arc::new(spec::<TaskTemplateSpec>(source, *line, object)));
    }
    for (line, object) in &source.objects {
        let name = text(object, "/metadata/name");
        assert!(
            !name.is_empty(),
            "{}:{line}: an object without a name (mark a fragment with ```yaml fragment)",
            source.file
        );
        if text(object, "/kind") == "TaskGraph" {
            let checked = validate::check(Some(name), &spec::<TaskGraphSpec>(source, *line, object), &templates);
            assert!(checked.is_ok(), "{}:{line}: {:#?}", source.file, checked.err());
        }
    }
}

/// The spec of one of our objects; no field of it is left over.
fn spec<T: DeserializeOwned>(source: &Source, line: usize, object: &Value) -> T {
    assert_eq!(text(object, "/apiVersion"), "taskgraph.dev/v1alpha1", "{}:{line}", source.file);
    let mut unknown = Vec::new();
    let spec = serde_ignored::deserialize(&object["spec"], |path| unknown.push(path.to_string()));
    assert!(unknown.is_empty(), "{}:{line}: unknown fields: {unknown:?}", source.file);
    spec.unwrap_or_else(|error| panic!("{}:{line}: {error}", source.file))
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[test]
fn every_example_opens_with_what_it_shows() {
    for path in files_below("examples", &["yaml"]) {
        let text = read(&path);
        let opening = text.lines().take_while(|line| line.starts_with('#')).count();
        assert!(opening >= 3, "{}: the first lines do not say what it shows", relative(&path));
    }
}

#[test]
fn fragments_are_marked() {
    for path in document_paths() {
        for block in blocks(&read(&path)) {
            let place = format!("{}:{}", relative(&path), block.line);
            assert!(!block.label.is_empty(), "{place}: a block without a language");
            if block.label == "yaml fragment" {
                let parsed: Result<Value, _> = serde_saphyr::from_str(&block.text);
                assert!(parsed.is_ok(), "{place}: {parsed:?}");
            }
        }
    }
}

#[test]
fn links_lead_somewhere() {
    for path in document_paths() {
        let text = prose(&read(&path));
        for target in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target) {
            if target.contains("://") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let linked = if file.is_empty() { path.clone() } else { path.parent().unwrap_or(root()).join(file) };
            assert!(linked.exists(), "{}: the link to {target} leads nowhere", relative(&path));
            if !heading.is_empty() {
                let headings: Vec<_> = read(&linked).lines().filter(|line| line.starts_with('#')).map(anchor).collect();
                assert!(
                    headings.iter().any(|known| known == heading),
                    "{}: no heading for the link to {target}",
                    relative(&path)
                );
            }
        }
    }
}

#[test]
fn every_reason_of_the_engine_is_explained() {
    let explained = read(&root().join("docs/troubleshooting.md"));
    let source = read(&root().join("src/engine/reason.rs"));
    let words: Vec<_> = source.lines().filter_map(|line| line.strip_prefix("pub const ")?.split('"').nth(1)).collect();
    assert!(words.len() > 10, "{words:?}");
    for word in words {
        assert!(explained.contains(&format!("`{word}`")), "docs/troubleshooting.md does not tell what `{word}` means");
    }
}

/// A document without its code, in which brackets mean other things.
fn prose(markdown: &str) -> String {
    let mut fenced = false;
    let mut text = String::new();
    for line in markdown.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            text.extend(line.split('`').step_by(2));
            text.push('\n');
        }
    }
    text
}

/// The anchor that a heading gets on the web.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_'));
    kept.map(|char| if char == ' ' { '-' } else { char }).collect()
}

#[test]
fn api_reference_is_fresh() {
    assert!(
        read(&root().join("docs/api.md")) == taskgraph::api::reference::markdown(),
        "docs/api.md is not what the types say: run `make generate`"
    );
}
