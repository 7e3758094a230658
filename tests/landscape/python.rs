//! Python as its users write it: stubs generated from contracts, and a greeter of plain grpcio.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Result, ensure};
use tokio::process::{Child, Command};

use crate::{Ended, Landscape, ended, ninefold, tools};

/// The folder of the programs in other languages.
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("polyglot")
}

/// Generates Python from all contracts below a folder, as a user of that language would.
///
/// # Errors
/// When the generator is not installed or refuses.
pub async fn generate(protos: &Path, out: &Path) -> Result<()> {
    let vendor = tools::repository().join("proto/vendor");
    let mut command = Command::new(tools::python("python")?);
    command.args(["-m", "grpc_tools.protoc", "-I"]).arg(protos).arg("-I").arg(&vendor);
    command.arg(format!("--python_out={}", out.display())).arg(format!("--grpc_python_out={}", out.display()));
    command.args(files(protos)?);
    done(command).await.map(drop)
}

/// Starts the greeter with `ninefold run`. It finds its stubs in `stubs`, and what is said goes to `stubs/said`.
///
/// # Errors
/// When a program is not there.
pub fn greeter(house: &Landscape, stubs: &Path) -> Result<Child> {
    let mut command = ninefold("run", &["--name", "greeter", "--endpoint", &house.endpoint(), "--"])?;
    command.arg(tools::python("python")?).arg(folder().join("serve_greetings.py"));
    let said = std::fs::File::create(stubs.join("said"))?;
    command.env("PYTHONPATH", stubs).stdout(said.try_clone()?).stderr(said).stdin(Stdio::null());
    Ok(command.spawn()?)
}

/// Runs a command to its end, which must be a good one.
///
/// # Errors
/// When it is not; the text holds what it said.
pub async fn done(command: Command) -> Result<Ended> {
    let shown = format!("{command:?}");
    let ended = ended(command).await?;
    ensure!(ended.code == 0, "{shown} ended with {}:\n{}{}", ended.code, ended.stdout, ended.stderr);
    Ok(ended)
}

/// All contracts below a folder.
///
/// # Errors
/// When it cannot be read.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|ending| ending == "proto") {
            found.push(path);
        }
    }
    Ok(found)
}
