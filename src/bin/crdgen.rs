//! Writes the CRDs into `crds/`; with `--check` tells whether they are as they should be.

use std::{env, fs, path::Path, process::ExitCode};

use taskgraph::api::crd;

fn main() -> ExitCode {
    let check = match env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--check" => true,
        _ => {
            eprintln!("usage: crdgen [--check]");
            return ExitCode::from(2);
        }
    };
    match run(Path::new("crds"), check) {
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
fn run(folder: &Path, check: bool) -> Result<Vec<String>, String> {
    let mut stale = Vec::new();
    for (name, text) in crd::files()? {
        let path = folder.join(&name);
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            continue;
        }
        if !check {
            fs::create_dir_all(folder)
                .and_then(|()| fs::write(&path, text))
                .map_err(|error| format!("{}: {error}", path.display()))?;
        }
        stale.push(name);
    }
    Ok(stale)
}
