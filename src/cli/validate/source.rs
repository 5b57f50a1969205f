//! The files that `-f` names, read with bounds.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 64 * 1024 * 1024;
/// The most files of one directory tree.
const MAX_FILES: usize = 100_000;
/// Endings of the files that are taken from a directory, as `kubectl apply` takes them.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// One file and what stands in it.
#[derive(Debug)]
pub struct Source {
    /// As users know it: its path, or `stdin`.
    pub name: String,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// Reads what `-f` names: a file, a directory (with `recursive`, and all below), or `-` for the standard input.
pub fn read(argument: &Path, recursive: bool) -> Result<Vec<Source>, String> {
    if argument == Path::new("-") {
        let bytes =
            read_bounded(io::stdin().lock()).map_err(|error| format!("cannot read the standard input: {error}"))?;
        return Ok(vec![Source { name: "stdin".to_owned(), bytes }]);
    }
    let paths = if argument.is_dir() { list(argument, recursive)? } else { vec![argument.to_owned()] };
    paths.iter().map(|path| read_file(path)).collect()
}

fn read_file(path: &Path) -> Result<Source, String> {
    let bytes =
        File::open(path).and_then(read_bounded).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(Source { name: path.display().to_string(), bytes })
}

fn read_bounded(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {} MiB", MAX_FILE >> 20)));
    }
    Ok(bytes)
}

/// The files of a directory that may hold objects, by name. Links to directories are not followed, so
/// there are no circles.
fn list(directory: &Path, recursive: bool) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        let failed = |error: io::Error| format!("cannot read {}: {error}", directory.display());
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            if entry.file_type().map_err(failed)?.is_dir() {
                if recursive {
                    open.push(path);
                }
            } else if path.is_file()
                && path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known))
            {
                found.push(path);
            }
            if found.len() > MAX_FILES {
                return Err(format!("{} holds more than {MAX_FILES} files", directory.display()));
            }
        }
    }
    if found.is_empty() {
        let hint = if recursive { "" } else { " (-R looks below it, too)" };
        return Err(format!("no .yaml, .yml or .json file in {}{hint}", directory.display()));
    }
    found.sort();
    Ok(found)
}
