//! Contracts on this machine: folders of `.proto` files, or descriptor sets.

use std::path::{Path, PathBuf};

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

fn read_set(path: &Path) -> Result<Vec<u8>, Failure> {
    let wrong = |why: String| Failure::Usage(format!("cannot read {}: {why}", path.display()));
    let size = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?.len();
    if size > SET_BYTES_MAX {
        return Err(wrong(format!("it has {size} bytes, at most {SET_BYTES_MAX}")));
    }
    if path.extension().is_some_and(|ending| ending == "proto") {
        return Err(wrong("name the folder that its imports begin in, not the file".to_owned()));
    }
    std::fs::read(path).map_err(|error| wrong(error.to_string()))
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
