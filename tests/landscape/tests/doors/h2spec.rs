//! h2spec holds the edge to HTTP/2 and its compression of headers.

use anyhow::{Context as _, Result, ensure};
use tests_landscape::{Landscape, tools};
use tokio::process::Command;

/// What begins as no HTTP/2 connection is read as HTTP/1 and answered in it, on the port that both share; h2spec waits for
/// a frame or a silent end.
const KNOWN: [&str; 1] = ["Sends invalid connection preface"];
/// What the edge may have answered before it sees what is wrong, as HTTP/2 allows (RFC 9113, 8.1.1): whether h2spec reads that
/// answer first is a race, which it does not lose every time.
const RACES: [&str; 2] = [
    "closed: Sends a DATA frame after sending RST_STREAM frame",
    "\"content-length\" header field which does not equal the DATA frame payload length",
];
/// How often a race is run at the most.
const RUNS: usize = 3;
/// How many cases h2spec has.
const CASES: usize = 145;

#[tokio::test(flavor = "multi_thread")]
async fn the_edge_speaks_http_2_as_h2spec_has_it() -> Result<()> {
    let house = Landscape::up(&[]).await?;
    let edge = house.address("edge");
    let (host, port) = edge.rsplit_once(':').context("an address and a port")?;
    let mut lost = RACES.to_vec();
    for _ in 0..RUNS {
        let mut command = Command::new(tools::program("h2spec")?);
        command.args(["-h", host, "-p", port, "-o", "10"]);
        let said = tests_landscape::ended(command).await?.stdout;
        let summary = said.lines().last().unwrap_or_default();
        ensure!(summary.starts_with(&format!("{CASES} tests, ")) && summary.contains(" 0 skipped"), "{said}");
        let failed: Vec<&str> = said.lines().filter(|line| line.contains('×')).collect();
        for line in &failed {
            ensure!(KNOWN.iter().chain(&RACES).any(|known| line.contains(known)), "{line}\n{said}");
        }
        lost.retain(|race| failed.iter().any(|line| line.contains(race)));
        if lost.is_empty() {
            return house.stop().await;
        }
    }
    anyhow::bail!("lost every time: {lost:?}")
}
