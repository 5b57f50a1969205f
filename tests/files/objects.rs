//! The objects that the repository shows to users: the examples, and the YAML blocks of its documents.
//!
//! It stands alone so that the end-to-end tests can include it too (`#[path = "../files/objects.rs"]`)
//! and apply the same objects to a cluster.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// Objects that belong together: those of one file of examples, or of one document.
pub struct Source {
    /// Path below the repository.
    pub file: String,
    /// The objects, each with the line on which its text begins.
    pub objects: Vec<(usize, Value)>,
}

/// A block of code of a document.
pub struct Block {
    /// What stands after the opening fence: `yaml`, `yaml fragment`, `sh`, ...
    pub label: String,
    /// Number of its first line.
    pub line: usize,
    /// Its text.
    pub text: String,
}

/// All examples, a file each, in order of their paths.
///
/// # Panics
/// If one cannot be read.
pub fn examples() -> Vec<Source> {
    files_below("examples", &["yaml"])
        .iter()
        .map(|path| Source { file: relative(path), objects: parse(&read(path), &relative(path), 1) })
        .collect()
}

/// All documents with their complete YAML objects (blocks marked `yaml`), in order of their paths.
///
/// # Panics
/// If one cannot be read.
pub fn documents() -> Vec<Source> {
    document_paths()
        .iter()
        .map(|path| {
            let file = relative(path);
            let blocks = blocks(&read(path));
            let complete = blocks.iter().filter(|block| block.label == "yaml");
            Source { objects: complete.flat_map(|block| parse(&block.text, &file, block.line)).collect(), file }
        })
        .collect()
}

/// Paths of all Markdown documents of the repository.
pub fn document_paths() -> Vec<PathBuf> {
    let mut paths = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(|name| root().join(name)).to_vec();
    paths.retain(|path| path.exists());
    paths.extend(files_below("docs", &["md"]));
    paths.extend(files_below("examples", &["md"]));
    paths.extend(files_below("charts", &["md"]));
    paths
}

/// The blocks of code of a Markdown text.
pub fn blocks(markdown: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (index, line) in markdown.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(label), None) => {
                open = Some(Block { label: label.trim().to_owned(), line: index + 2, text: String::new() });
            }
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block of code has no end");
    blocks
}

/// The objects of a YAML stream; `line` is where its text begins in `file`.
pub fn parse(text: &str, file: &str, line: usize) -> Vec<(usize, Value)> {
    let mut objects = Vec::new();
    let mut first = line;
    for document in text.split("\n---\n") {
        let value: Value = serde_saphyr::from_str(document).unwrap_or_else(|error| panic!("{file}:{first}: {error}"));
        objects.push((first, value));
        first += document.lines().count() + 1;
    }
    objects
}

/// Files with one of the endings, in a folder of the repository and in those below it.
pub fn files_below(folder: &str, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| endings.iter().any(|wanted| ending == *wanted)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The text of a file.
pub fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A path as people write it: below the repository.
pub fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
