//! Writes what is made from the kinds: the CRDs in `crds/` and the reference `docs/api.md`. With `--check` it
//! writes nothing, and tells whether they are as they should be.

use std::{env, fs, path::Path, process::ExitCode};

use taskgraph::api::{crd, reference};

fn main() -> ExitCode {
    let check = match env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--check" => true,
        _ => {
            eprintln!("usage: crdgen [--check]");
            return ExitCode::from(2);
        }
    };
    match run(check) {
        Ok(stale) if check && !stale.is_empty() => {
            eprintln!("stale, run `make generate`: {}", stale.join(", "));
            ExitCode::FAILURE
        }
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("crdgen: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes the files that differ, unless only `check` is asked for; answers which those are.
fn run(check: bool) -> Result<Vec<String>, String> {
    let crds = crd::files()?.into_iter().map(|(name, text)| (format!("crds/{name}"), text));
    let mut stale = Vec::new();
    for (name, text) in crds.chain([("docs/api.md".to_owned(), reference::markdown())]) {
        let path = Path::new(&name);
        if fs::read_to_string(path).is_ok_and(|old| old == text) {
            continue;
        }
        if !check {
            let folder = path.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(folder)
                .and_then(|()| fs::write(path, text))
                .map_err(|error| format!("{name}: {error}"))?;
        }
        stale.push(name);
    }
    Ok(stale)
}
