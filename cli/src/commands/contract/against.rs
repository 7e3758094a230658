//! What a contract is checked against: a file, a folder, a state of the repository, or a platform.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::sources;
use crate::client::Platform;
use crate::exit::Failure;

/// What was promised.
pub(super) enum Promised {
    /// What a platform accepted.
    Platform(Platform),
    /// A descriptor set.
    Set(Vec<u8>),
}

/// Finds it.
pub(super) async fn find(
    platform: &Platform,
    against: Option<&str>,
    paths: &[PathBuf],
    includes: &[PathBuf],
) -> Result<Promised, Failure> {
    let Some(against) = against else { return Ok(Promised::Platform(platform.clone())) };
    if against.starts_with("http://") || against.starts_with("https://") {
        return Ok(Promised::Platform(Platform::at(against)?));
    }
    let path = PathBuf::from(against);
    if path.exists() {
        return Ok(Promised::Set(sources::read(&[path], includes)?));
    }
    Ok(Promised::Set(of_git(against, paths, includes).await?))
}

/// What the same folders held at a git ref.
async fn of_git(reference: &str, paths: &[PathBuf], includes: &[PathBuf]) -> Result<Vec<u8>, Failure> {
    let unknown = |why: String| {
        Failure::Usage(format!(
            "{reference:?} is no file, no folder, no URL, and no git ref that holds the paths: {why}"
        ))
    };
    let place = tempfile::tempdir().map_err(|error| Failure::Failed(error.to_string()))?;
    let mut then = Vec::new();
    for (number, path) in paths.iter().enumerate() {
        if !path.is_dir() {
            return Err(Failure::Usage(format!("{}: only a folder has a past in git", path.display())));
        }
        let target = place.path().join(number.to_string());
        extract(reference, path, &target).await.map_err(unknown)?;
        then.push(target);
    }
    // What is imported from outside of the folders is taken as it is now.
    let vendors = paths.iter().map(|path| path.join("vendor")).filter(|folder| folder.is_dir());
    let includes: Vec<PathBuf> = includes.iter().cloned().chain(vendors).collect();
    sources::read(&then, &includes)
}

async fn extract(reference: &str, folder: &Path, target: &Path) -> Result<(), String> {
    if reference.starts_with('-') {
        return Err("a ref does not begin with a hyphen".to_owned());
    }
    let text = |error: std::io::Error| error.to_string();
    std::fs::create_dir_all(target).map_err(text)?;
    let archive = target.with_extension("tar");
    let git = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(["archive", "--format=tar", "-o"])
        .arg(&archive)
        .args([reference, "."])
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(text)?;
    if !git.status.success() {
        return Err(String::from_utf8_lossy(&git.stderr).trim().to_owned());
    }
    let tar = Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(target).output().await.map_err(text)?;
    if tar.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&tar.stderr).trim().to_owned()) }
}
