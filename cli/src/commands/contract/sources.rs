//! Contracts on this machine: folders of `.proto` files, or descriptor sets.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use ninefold_contract::{Limits, Schema};

use crate::exit::Failure;

/// Largest descriptor set that is read, in bytes.
const SET_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The descriptor set of some paths, as one.
pub(super) fn read(paths: &[PathBuf], includes: &[PathBuf]) -> Result<Vec<u8>, Failure> {
    let (folders, files): (Vec<PathBuf>, Vec<PathBuf>) = paths.iter().cloned().partition(|path| path.is_dir());
    let mut set = Vec::new();
    for file in &files {
        // Descriptor sets add up when they are written one after the other.
        set.extend(read_set(file)?);
    }
    if !folders.is_empty() {
        set.extend(compile(&folders, includes)?);
    }
    Ok(set)
}

/// Reads a descriptor set, and looks at it, so that what is wrong with it is told by its name.
pub(super) fn read_set(path: &Path) -> Result<Vec<u8>, Failure> {
    let wrong = |why: String| Failure::Usage(format!("cannot read {}: {why}", path.display()));
    if path.extension().is_some_and(|ending| ending == "proto") {
        return Err(wrong("name the folder that its imports begin in, not the file".to_owned()));
    }
    let file = std::fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
    let mut bytes = Vec::new();
    // Not by the size that it says it has: a pipe has none.
    file.take(SET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| wrong(error.to_string()))?;
    if bytes.len() as u64 > SET_BYTES_MAX {
        return Err(wrong(format!("it has more than {SET_BYTES_MAX} bytes")));
    }
    Schema::parse(bytes.clone(), &Limits::default()).map_err(|flaw| {
        Failure::Failed(format!(
            "{} is no descriptor set that can be used: {flaw}\n  make one with `buf build -o now.binpb`, or `protoc \
             --include_imports --descriptor_set_out=now.binpb`",
            path.display()
        ))
    })?;
    Ok(bytes)
}

/// Compiles all `.proto` files below folders, as a service's build script would.
fn compile(folders: &[PathBuf], includes: &[PathBuf]) -> Result<Vec<u8>, Failure> {
    let mut files = Vec::new();
    for folder in folders {
        let found = ninefold_build::files_below(folder).map_err(|error| Failure::Usage(error.to_string()))?;
        for file in &found {
            if let Some(edition) = edition(&folder.join(file)) {
                return Err(Failure::Usage(format!(
                    "{}: files of an edition ({edition}) are not compiled here; let buf do it: buf build -o now.binpb, \
                     then name now.binpb",
                    folder.join(file).display()
                )));
            }
        }
        files.extend(found);
    }
    let vendors = folders.iter().map(|folder| folder.join("vendor")).filter(|folder| folder.is_dir());
    let all: Vec<PathBuf> = folders.iter().cloned().chain(includes.iter().cloned()).chain(vendors).collect();
    ninefold_build::descriptor_set(&all, &files).map_err(|error| Failure::Failed(error.to_string()))
}

/// The edition that a file says it is of.
fn edition(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().map(str::trim).find(|line| line.starts_with("edition") || line.starts_with("syntax"))?;
    let value = line.strip_prefix("edition")?.trim_start().strip_prefix('=')?;
    Some(value.trim_matches([' ', '"', '\'', ';']).to_owned())
}
