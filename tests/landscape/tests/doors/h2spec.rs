//! h2spec holds the edge to HTTP/2 and its compression of headers.

use anyhow::{Context as _, Result, ensure};
use tests_landscape::{Landscape, tools};
use tokio::process::Command;

/// What begins as no HTTP/2 connection is read as HTTP/1 and answered in it, on the port that both share; h2spec waits for
/// a frame or a silent end.
const KNOWN: [&str; 1] = ["Sends invalid connection preface"];
/// What the edge may have answered before it sees what is wrong, as HTTP/2 allows (RFC 9113, 8.1.1), by its section of h2spec:
/// whether h2spec reads that answer first is a race, which it does not lose every time.
const RACES: [(&str, &str); 3] = [
    ("http2/5.1/8", "closed: Sends a DATA frame after sending RST_STREAM frame"),
    ("http2/5.1/9", "closed: Sends a HEADERS frame after sending RST_STREAM frame"),
    ("http2/8.1.2.6/1", "\"content-length\" header field which does not equal the DATA frame payload length"),
];
/// How often a race that was lost is run again at the most: the machine may be busy.
const RUNS: usize = 20;
/// How many cases h2spec has.
const CASES: usize = 145;

/// Runs the cases of a section, or all without one: how many there were, and the lines of those that failed.
async fn failed(edge: &str, section: Option<&str>) -> Result<(String, Vec<String>)> {
    let (host, port) = edge.rsplit_once(':').context("an address and a port")?;
    let mut command = Command::new(tools::program("h2spec")?);
    command.args(["-h", host, "-p", port, "-o", "10"]).args(section);
    let said = tests_landscape::ended(command).await?.stdout;
    let summary = said.lines().last().unwrap_or_default();
    ensure!(summary.contains(" 0 skipped"), "{said}");
    let failed = said.lines().filter(|line| line.contains('×')).map(str::to_owned).collect();
    Ok((summary.to_owned(), failed))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_edge_speaks_http_2_as_h2spec_has_it() -> Result<()> {
    let house = Landscape::up(&[]).await?;
    let edge = house.address("edge");
    let (summary, lost) = failed(&edge, None).await?;
    ensure!(summary.starts_with(&format!("{CASES} tests, ")), "{summary}");
    for line in &lost {
        ensure!(KNOWN.iter().chain(RACES.iter().map(|(_, race)| race)).any(|known| line.contains(known)), "{line}");
    }
    for (section, race) in RACES {
        let mut is_lost = lost.iter().any(|line| line.contains(race));
        for _ in 0..RUNS {
            if !is_lost {
                break;
            }
            let (summary, lost) = failed(&edge, Some(section)).await?;
            ensure!(summary.starts_with("1 tests, "), "{section} is {race}: {summary}");
            is_lost = !lost.is_empty();
        }
        ensure!(!is_lost, "lost every time: {race}");
    }
    house.stop().await
}
