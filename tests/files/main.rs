//! The files of the repository that must agree with the code: examples, documents.
#[test]
fn print() { std::fs::write("/tmp/api.md", taskgraph::api::reference::markdown()).unwrap(); }
