//! h2spec holds the edge to HTTP/2 and its compression of headers.

use anyhow::{Context as _, Result, ensure};
use tests_landscape::{Landscape, tools};
use tokio::process::Command;

/// What begins as no HTTP/2 connection is read as HTTP/1 and answered in it, on the port that both share; h2spec waits for
/// a frame or a silent end.
const KNOWN: [&str; 1] = ["Sends invalid connection preface"];
/// h2spec resets a stream and sends on it: an answer that was already on its way may reach it before the GOAWAY does.
const RACE: &str = "closed: Sends a DATA frame after sending RST_STREAM frame";
/// How many cases h2spec has.
const CASES: usize = 145;

#[tokio::test(flavor = "multi_thread")]
async fn the_edge_speaks_http_2_as_h2spec_has_it() -> Result<()> {
    let house = Landscape::up(&[]).await?;
    let edge = house.address("edge");
    let (host, port) = edge.rsplit_once(':').context("an address and a port")?;
    let mut command = Command::new(tools::program("h2spec")?);
    command.args(["-h", host, "-p", port, "-o", "10"]);
    let said = tests_landscape::ended(command).await?.stdout;
    let summary = said.lines().last().unwrap_or_default();
    ensure!(summary.starts_with(&format!("{CASES} tests, ")) && summary.contains(" 0 skipped"), "{said}");
    for failed in said.lines().filter(|line| line.contains('×')) {
        ensure!(KNOWN.iter().chain([&RACE]).any(|known| failed.contains(known)), "{failed}\n{said}");
    }
    house.stop().await
}
