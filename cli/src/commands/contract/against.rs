//! What a contract is checked against: a file, a folder, a state of the repository, or a platform.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::sources;
use crate::client::Platform;
use crate::exit::Failure;

/// How long a descriptor set may be on its way, in seconds.
const FETCH_SECONDS_MAX: &str = "30";

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
        return match is_file(against) {
            true => Ok(Promised::Set(of_url(against).await?)),
            false => Ok(Promised::Platform(Platform::at(against)?)),
        };
    }
    let path = PathBuf::from(against);
    if path.exists() {
        return Ok(Promised::Set(sources::read(&[path], includes)?));
    }
    Ok(Promised::Set(of_git(against, paths, includes).await?))
}

/// Whether a URL leads to something below a host; a platform is a host.
fn is_file(url: &str) -> bool {
    url.parse::<http::Uri>().is_ok_and(|uri| uri.path() != "/" || uri.query().is_some())
}

/// The descriptor set behind a URL. `curl` gets it, as `git` gets what was: with the proxies and the trust of this machine.
async fn of_url(url: &str) -> Result<Vec<u8>, Failure> {
    let wrong = |why: String| Failure::Failed(format!("cannot get the descriptor set at {url}: {why}"));
    let place = tempfile::tempdir().map_err(|error| wrong(error.to_string()))?;
    let target = place.path().join("set.binpb");
    let got = Command::new("curl")
        .args(["--fail", "--silent", "--show-error", "--location", "--proto", "=http,https"])
        .args(["--max-time", FETCH_SECONDS_MAX, "--max-filesize", "64M", "--output"])
        .arg(&target)
        .args(["--url", url])
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|error| wrong(format!("curl cannot be run ({error}); get it, and name the file")))?;
    if !got.status.success() {
        return Err(wrong(String::from_utf8_lossy(&got.stderr).trim().to_owned()));
    }
    sources::read_set(&target).map_err(|failure| match failure {
        Failure::Failed(why) | Failure::Usage(why) => {
            wrong(why.replace(&target.display().to_string(), "what it answers"))
        }
        other => other,
    })
}

/// What the same folders and files held at a git ref.
async fn of_git(reference: &str, paths: &[PathBuf], includes: &[PathBuf]) -> Result<Vec<u8>, Failure> {
    let unknown = |why: String| {
        Failure::Usage(format!(
            "{reference:?} is no file, no folder, no URL, and no git ref that holds the paths: {why}"
        ))
    };
    let place = tempfile::tempdir().map_err(|error| Failure::Failed(error.to_string()))?;
    let mut then = Vec::new();
    for (number, path) in paths.iter().enumerate() {
        let target = place.path().join(number.to_string());
        if path.is_dir() {
            extract(reference, path, &target).await.map_err(unknown)?;
        } else {
            take_out(reference, path, &target).await.map_err(unknown)?;
        }
        then.push(target);
    }
    // What is imported from outside of the folders is taken as it is now.
    let vendors = paths.iter().map(|path| path.join("vendor")).filter(|folder| folder.is_dir());
    let includes: Vec<PathBuf> = includes.iter().cloned().chain(vendors).collect();
    sources::read(&then, &includes)
}

/// Writes one file as it was at a ref.
async fn take_out(reference: &str, path: &Path, target: &Path) -> Result<(), String> {
    let name = path.file_name().ok_or("it has no name")?.to_str().ok_or("its name is not UTF-8")?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let git = git(reference, folder)?.args(["show", &format!("{reference}:./{name}")]).output().await;
    let git = git.map_err(|error| format!("git cannot be run: {error}"))?;
    if !git.status.success() {
        return Err(String::from_utf8_lossy(&git.stderr).trim().to_owned());
    }
    std::fs::write(target, git.stdout).map_err(|error| error.to_string())
}

/// git, at work in a folder.
fn git(reference: &str, folder: &Path) -> Result<Command, String> {
    if reference.starts_with('-') {
        return Err("a ref does not begin with a hyphen".to_owned());
    }
    let mut git = Command::new("git");
    git.arg("-C").arg(folder).stdin(Stdio::null());
    Ok(git)
}

async fn extract(reference: &str, folder: &Path, target: &Path) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    std::fs::create_dir_all(target).map_err(text)?;
    let archive = target.with_extension("tar");
    let git = git(reference, folder)?
        .args(["archive", "--format=tar", "-o"])
        .arg(&archive)
        .args([reference, "."])
        .output()
        .await
        .map_err(|error| format!("git cannot be run: {error}"))?;
    if !git.status.success() {
        return Err(String::from_utf8_lossy(&git.stderr).trim().to_owned());
    }
    let tar = Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(target).output().await.map_err(text)?;
    if tar.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&tar.stderr).trim().to_owned()) }
}
