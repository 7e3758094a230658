//! Disks that are full, and disks that cannot be written to: real ones, of memory, that only the node sees.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use ninefold::fault;
use ninefold_proto::ninefold::monitor::v1::GetRetentionRequest;
use tests_landscape::{Landscape, Surroundings, until};
use tonic::{Code, Status};

use super::sender::{Sender, comes_back};
use super::{WITHIN, each_once, lines, monitor};

/// The disk of the node's telemetry. `{}` is the folder.
const MOUNT: &str = "mount -t tmpfs -o size=12m none '{}' && ";

/// Surroundings with a small disk in a folder, and what else is done before the node starts.
fn small_disk(folder: &Path, then: &str) -> Surroundings {
    let script = format!("{}{then} exec \"$0\" \"$@\"", MOUNT.replace("{}", &folder.display().to_string()));
    let within = ["unshare", "-m", "sh", "-c", &script].map(ToOwned::to_owned).to_vec();
    Surroundings { within, ..Surroundings::default() }
}

fn settings(folder: &Path) -> Result<PathBuf> {
    let file = folder.join("ninefold.toml");
    let path = folder.join("disk/telemetry");
    std::fs::create_dir(folder.join("disk"))?;
    std::fs::write(&file, format!("[monitor]\npath = {path:?}\nfile_every = \"50ms\"\nlogs_bytes_max = 1\n"))?;
    Ok(file)
}

fn is_full(refusal: &Status) -> bool {
    refusal.code() == Code::Unavailable
        && fault::reason(refusal).as_deref() == Some("TELEMETRY_UNWRITABLE")
        && comes_back(refusal)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_said_and_telemetry_goes_on_when_there_is_room() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = settings(folder.path())?;
    let disk = folder.path().join("disk");
    let landscape = Landscape::up_in(small_disk(&disk, ""), &["--config", &file.display().to_string()]).await?;
    let mut sender = Sender::connect(&landscape.address("otlpGrpc")).await?;
    let mut told = vec!["before".to_owned()];
    sender.lines("pump", &told).await?;

    // The node's own view of its disk, which nobody else has.
    let ballast = PathBuf::from(format!("/proc/{}/root{}/ballast", landscape.pid(), disk.display()));
    let mut number = 0;
    let refusal = loop {
        let _full = std::fs::write(&ballast, vec![0_u8; 16 * 1024 * 1024]);
        number += 1;
        let body = format!("told {number} {}", "x".repeat(20_000));
        match sender.lines("pump", std::slice::from_ref(&body)).await {
            Ok(()) => told.push(body),
            Err(refusal) => break refusal,
        }
        ensure!(number < 2000, "the disk is full before so much is told");
    };
    ensure!(is_full(&refusal), "a full disk is said, and when to come back: {refusal:?}");
    each_once(&told, &lines(&landscape, "service:pump").await?, "while the disk is full")?;
    let kept = monitor(&landscape).await?.get_retention(GetRetentionRequest {}).await?.into_inner();
    ensure!(
        kept.problem.contains("full") || kept.problem.contains("No space left"),
        "it is said to whoever asks: {:?}",
        kept.problem
    );

    std::fs::remove_file(&ballast)?;
    until("telemetry is taken again", WITHIN, || {
        let mut sender = sender.clone();
        async move { Ok(sender.lines("pump", &["after".to_owned()]).await.is_ok()) }
    })
    .await?;
    until("nothing is wrong any more", WITHIN, || async {
        let kept = monitor(&landscape).await?.get_retention(GetRetentionRequest {}).await?.into_inner();
        Ok(kept.problem.is_empty())
    })
    .await?;
    told.push("after".to_owned());
    each_once(&told, &lines(&landscape, "service:pump").await?, "when there is room again")?;
    landscape.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_says_that_its_disk_cannot_be_written_to() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = settings(folder.path())?;
    let disk = folder.path().join("disk");
    let then = format!("mount -o remount,ro '{}' &&", disk.display());
    let started = Landscape::up_in(small_disk(&disk, &then), &["--config", &file.display().to_string()]).await;
    let said = started.err().context("a node does not start on a disk that cannot be written to")?.to_string();
    ensure!(said.contains("telemetry cannot be kept in") && said.contains("Read-only file system"), "{said}");
    Ok(())
}
