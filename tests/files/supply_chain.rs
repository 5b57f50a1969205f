//! What is built in has the licences and comes from the places that `deny.toml` allows. cargo-deny (`make audit`) checks
//! more, and needs more.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

use crate::objects::{read, root};

/// The texts of a list in `deny.toml`.
fn list(text: &str, name: &str) -> BTreeSet<String> {
    let begin = text.find(&format!("\n{name} = [")).unwrap_or_else(|| panic!("deny.toml has no {name}"));
    let rest = &text[begin..];
    let end = rest.find("\n]").unwrap_or_else(|| panic!("{name} has no end"));
    let lines = rest[..end].lines().skip(2).map(|line| line.split('#').next().unwrap_or_default());
    lines.filter_map(|line| line.split('"').nth(1)).map(str::to_owned).collect()
}

/// Whether one of the ways to read an SPDX expression needs allowed licences only. `/` is an old way to write `OR`.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ").replace(" WITH ", "_WITH_");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let (result, rest) = any_of(&words, allowed);
    result && rest.is_empty()
}

fn any_of<'a, 'w>(words: &'w [&'a str], allowed: &BTreeSet<String>) -> (bool, &'w [&'a str]) {
    let (mut result, mut rest) = all_of(words, allowed);
    while let ["OR", more @ ..] = rest {
        let (other, left) = all_of(more, allowed);
        (result, rest) = (result | other, left);
    }
    (result, rest)
}

fn all_of<'a, 'w>(words: &'w [&'a str], allowed: &BTreeSet<String>) -> (bool, &'w [&'a str]) {
    let (mut result, mut rest) = licence(words, allowed);
    while let ["AND", more @ ..] = rest {
        let (other, left) = licence(more, allowed);
        (result, rest) = (result & other, left);
    }
    (result, rest)
}

fn licence<'a, 'w>(words: &'w [&'a str], allowed: &BTreeSet<String>) -> (bool, &'w [&'a str]) {
    match words {
        ["(", more @ ..] => match any_of(more, allowed) {
            (result, [")", rest @ ..]) => (result, rest),
            (_, rest) => (false, rest),
        },
        [name, rest @ ..] => (allowed.contains(&name.replace("_WITH_", " WITH ")), rest),
        [] => (false, words),
    }
}

#[test]
fn expressions_are_read() {
    let allowed: BTreeSet<String> = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("MIT OR GPL-3.0", true),
        ("GPL-3.0/MIT", true),
        ("MIT AND GPL-3.0", false),
        ("(MIT OR GPL-3.0) AND Apache-2.0", true),
        ("(MIT OR Apache-2.0) AND ISC", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("MIT AND (GPL-3.0", false),
        ("", false),
    ] {
        assert_eq!(is_allowed(expression, &allowed), expected, "{expression}");
    }
}

#[test]
fn licences_and_sources_are_allowed() {
    let deny = read(&root().join("deny.toml"));
    let (allowed, banned) = (list(&deny, "allow"), list(&deny, "deny"));
    assert!(allowed.contains("MIT") && banned.contains("openssl"), "{allowed:?} {banned:?}");
    let target = "x86_64-unknown-linux-gnu";
    let arguments = ["metadata", "--locked", "--format-version", "1", "--all-features", "--filter-platform", target];
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let resolved: BTreeSet<&str> = metadata
        .pointer("/resolve/nodes")
        .and_then(Value::as_array)
        .unwrap()
        .iter()
        .filter_map(|node| node["id"].as_str())
        .collect();
    assert!(resolved.len() > 100, "only {} crates", resolved.len());
    let mut wrong = Vec::new();
    for package in packages.iter().filter(|package| package["id"].as_str().is_some_and(|id| resolved.contains(id))) {
        let (name, version) = (package["name"].as_str().unwrap(), package["version"].as_str().unwrap());
        let licence = package["license"].as_str().unwrap_or_default();
        if !is_allowed(licence, &allowed) {
            wrong.push(format!("{name} {version}: licence {licence:?}"));
        }
        // none: this repository
        let source = package["source"].as_str();
        if source.is_some_and(|source| source != "registry+https://github.com/rust-lang/crates.io-index") {
            wrong.push(format!("{name} {version}: from {source:?}"));
        }
        if banned.contains(name) {
            wrong.push(format!("{name} {version}: deny.toml says why not"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
