//! Instances that die, or fall silent with their connections open.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tests_landscape::{Landscape, ninefold, signal, until};
use tokio::process::Child;

use crate::watcher::Watcher;

const SOON: Duration = Duration::from_secs(30);
/// What is promised of a crash and of a silent death, and how much more a busy machine may take.
const CRASH: Duration = Duration::from_secs(1);
const SILENCE: Duration = Duration::from_secs(6);
const SLACK: u32 = 3;

/// Starts an instance of the sample landscape that nobody controls.
fn instance(endpoint: &str, data: &std::path::Path, id: &str) -> Result<Child> {
    let folder = data.join(id);
    std::fs::create_dir_all(&folder)?;
    let mut command = ninefold("demo-service", &["recommendation"])?;
    command.env("NINEFOLD_ENDPOINT", endpoint).env("NINEFOLD_DATA", folder).env("NINEFOLD_INSTANCE_ID", id);
    Ok(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
}

/// Waits until a watcher has seen an instance no longer serving, and tells how long after `begin` that was.
async fn fell(watcher: &Watcher, id: &str, begin: Instant) -> Result<Duration> {
    until("the instance is out of rotation", SOON, || async { Ok(watcher.seen().fell.contains_key(id)) }).await?;
    let at = watcher.seen().fell.get(id).copied().context("it fell")?;
    Ok(at.duration_since(begin))
}

async fn serving(watcher: &Watcher, count: usize) -> Result<()> {
    let what = format!("{count} serve");
    until(&what, SOON, || async { Ok(watcher.seen().serving() == count && watcher.seen().instances.len() == count) })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_stopped_is_out_of_rotation_in_time_and_comes_back_as_itself() -> Result<()> {
    let house = Landscape::up(&[]).await?;
    let data = tempfile::tempdir()?;
    let one = instance(&house.endpoint(), data.path(), "one")?;
    let _two = instance(&house.endpoint(), data.path(), "two")?;
    let watcher = Watcher::start(&house.endpoint(), "recommendation")?;
    serving(&watcher, 2).await?;

    let pid = one.id().context("it runs")?;
    let begin = Instant::now();
    signal(pid, Signal::STOP)?;
    let took = fell(&watcher, "one", begin).await?;
    println!("out of rotation {took:?} after SIGSTOP");
    ensure!(took < SILENCE * SLACK, "{took:?}");
    serving(&watcher, 1).await?;
    signal(pid, Signal::CONT)?;
    serving(&watcher, 2).await?;
    ensure!(house.serving("recommendation").await? == 2 && watcher.seen().diverged == 0);
    let story = house.ask(&["why", "one"]).await?.to_string();
    ensure!(story.contains("suspect") && story.contains("nothing was heard"), "{story}");
    house.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_killed_is_out_of_rotation_within_a_second() -> Result<()> {
    let house = Landscape::up(&[]).await?;
    let data = tempfile::tempdir()?;
    let mut one = instance(&house.endpoint(), data.path(), "one")?;
    let _two = instance(&house.endpoint(), data.path(), "two")?;
    let watcher = Watcher::start(&house.endpoint(), "recommendation")?;
    serving(&watcher, 2).await?;
    let begin = Instant::now();
    one.kill().await?;
    let took = fell(&watcher, "one", begin).await?;
    serving(&watcher, 1).await?;
    println!("out of rotation {took:?} after kill -9, gone after {:?}", begin.elapsed());
    ensure!(begin.elapsed() < CRASH * SLACK, "{:?}", begin.elapsed());
    // The same id, from a process that has nothing to do with the one before.
    let _again = instance(&house.endpoint(), data.path(), "one")?;
    serving(&watcher, 2).await?;
    ensure!(watcher.seen().diverged == 0);
    house.stop().await
}
