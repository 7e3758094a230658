//! A client that refuses what it is told.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use tests_landscape::{Landscape, python, tools};
use tokio::process::Command;

use crate::backend::Backend;

/// Generates what a Python program needs to speak xDS, from the contracts that the platform was built from.
async fn generate(out: &Path) -> Result<()> {
    let vendor = tools::repository().join("proto/vendor");
    let mut command = Command::new(tools::python("python")?);
    command.args(["-m", "grpc_tools.protoc", "-I"]).arg(&vendor);
    command.arg(format!("--python_out={}", out.display())).arg(format!("--grpc_python_out={}", out.display()));
    command.args(python::files(&vendor.join("envoy"))?).arg(vendor.join("google/rpc/status.proto"));
    python::done(command).await?;
    // Packages that are installed have an `envoy` of their own; a whole package of that name comes before it.
    Ok(std::fs::write(out.join("envoy/__init__.py"), "")?)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_refuses_is_shown_with_its_field_and_not_sent_again() -> Result<()> {
    let stubs = tempfile::tempdir()?;
    generate(stubs.path()).await?;
    let house = Landscape::up(&[]).await?;
    let one = Backend::start(&house.endpoint(), "pump", "one", "").await?;
    let mut command = Command::new(tools::python("python")?);
    let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("doors/refuse.py");
    command.arg(program).arg(house.address("platform")).env("PYTHONPATH", stubs.path());
    let ended = python::done(command).await?;
    ensure!(ended.stdout.trim() == "1", "the same bytes are not sent twice: {ended:?}");
    let view = house.ask(&["xds"]).await?;
    let refusal = &view["refusals"][0];
    for (field, value) in [("refusedBy", "picky"), ("type", "cluster"), ("name", "pump"), ("field", "lb_policy")] {
        ensure!(refusal[field] == value, "{field}: {refusal}");
    }
    let story = house.ask(&["why", "pump"]).await?.to_string();
    ensure!(story.contains("lb_policy") && story.contains("picky"), "{story}");
    one.die().await;
    house.stop().await
}
