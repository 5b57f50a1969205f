//! Test helper: files that are generated from code must be what the code says.

use std::{env, fs, path::Path};

/// Fails when the file at `path` (from the project's root) is not `expected`. With `UPDATE=1`, as
/// `make generate` sets it, writes the file instead.
pub(crate) fn check(path: &str, expected: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if env::var_os("UPDATE").is_some_and(|value| value == "1") {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(&file, expected).unwrap();
        return;
    }
    let found = fs::read_to_string(&file).unwrap_or_default();
    assert!(found == expected, "{path} is stale; run `make generate`");
}
