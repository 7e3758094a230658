//! h2spec holds the edge to HTTP/2 and its compression of headers.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use tests_landscape::{Landscape, tools};
use tokio::process::Command;

/// What begins as no HTTP/2 connection is read as HTTP/1 and answered in it, on the port that both share; h2spec waits for
/// a frame or a silent end.
const KNOWN: [&str; 1] = ["Sends invalid connection preface"];
/// How often a case that failed is run again at the most. The edge may have answered before it sees what is wrong, as HTTP/2
/// allows (RFC 9113, 8.1.1); whether h2spec reads that answer first is a race, which it does not lose every time, however busy
/// the machine is.
const RUNS: usize = 20;
/// How many cases h2spec has.
const CASES: usize = 145;
/// The parts of h2spec, by what it calls them and how they are asked for.
const PARTS: [(&str, &str); 3] = [("Generic tests", "generic"), ("Hypertext Transfer", "http2"), ("HPACK", "hpack")];

/// Runs the cases of a section such as `http2/5.1/8`, or all without one: how many there were, and those that failed, with
/// their sections.
async fn failed(edge: &str, section: Option<&str>) -> Result<(String, BTreeMap<String, String>)> {
    let (host, port) = edge.rsplit_once(':').context("an address and a port")?;
    let mut command = Command::new(tools::program("h2spec")?);
    command.args(["-h", host, "-p", port, "-o", "10"]).args(section);
    let said = tests_landscape::ended(command).await?.stdout;
    let summary = said.lines().last().unwrap_or_default();
    ensure!(summary.contains(" 0 skipped"), "{said}");
    let (mut part, mut place, mut failed) = ("", String::new(), BTreeMap::new());
    for line in said.lines() {
        if let Some((_, name)) = PARTS.iter().find(|(begin, _)| line.starts_with(begin)) {
            part = name;
        } else if let Some((_, case)) = line.split_once("× ") {
            let (number, _) = case.split_once(':').with_context(|| line.to_owned())?;
            failed.insert(format!("{part}/{place}/{number}"), case.to_owned());
        } else if let Some((number, _)) = line.trim_start().split_once(". ")
            && number.chars().all(|letter| letter.is_ascii_digit() || letter == '.')
        {
            place = number.to_owned();
        }
    }
    Ok((summary.to_owned(), failed))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_edge_speaks_http_2_as_h2spec_has_it() -> Result<()> {
    let house = Landscape::up(&[]).await?;
    let edge = house.address("edge");
    let (summary, lost) = failed(&edge, None).await?;
    ensure!(summary.starts_with(&format!("{CASES} tests, ")), "{summary}");
    for (section, case) in lost {
        let mut is_lost = !KNOWN.iter().any(|known| case.contains(known));
        for _ in 0..RUNS {
            if !is_lost {
                break;
            }
            let (summary, lost) = failed(&edge, Some(&section)).await?;
            ensure!(summary.starts_with("1 tests, "), "{section} is {case}: {summary}");
            is_lost = !lost.is_empty();
        }
        ensure!(!is_lost, "failed every time: {section}, {case}");
    }
    house.stop().await
}
