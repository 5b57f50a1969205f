//! Documents say only what holds: their objects are valid, their links lead somewhere.

use serde_json::Value;

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

/// Each is a kind that the cluster knows, and every graph and template of it passes the checks.
fn check(source: &Source) {
    let templates = source.objects.iter().filter(|(_, object)| kind(object).ends_with("TaskTemplate"));
    let templates: Vec<_> = templates.map(|(_, object)| object.clone()).collect();
    for (line, object) in &source.objects {
        let place = format!("{}:{line}", source.file);
        assert!(object["metadata"]["name"].is_string(), "{place}: an object without a name (mark a fragment with ```yaml fragment)");
        if object["apiVersion"] == "taskgraph.dev/v1alpha1" {
            let problems = crate::problems(object, &templates);
            assert!(problems.is_empty(), "{place}: {}", problems.join("\n"));
        }
    }
}

fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap_or_default()
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
        let text = read(&path);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target) {
            if target.contains("://") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let linked = if file.is_empty() { path.clone() } else { path.parent().unwrap_or(root()).join(file) };
            assert!(linked.exists(), "{}: the link to {target} leads nowhere", relative(&path));
            if !heading.is_empty() {
                let headings: Vec<_> = read(&linked).lines().filter(|line| line.starts_with('#')).map(anchor).collect();
                assert!(headings.iter().any(|known| known == heading), "{}: no heading for the link to {target}", relative(&path));
            }
        }
    }
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
        "docs/api.md is not what the types say: run `cargo run --bin crdgen`"
    );
}
