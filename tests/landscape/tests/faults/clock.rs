//! The wall clock jumps under a running node: leases, beats and silence are counted by another clock.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests_landscape::{Landscape, Surroundings, tools, until};

use crate::fleet::Fleet;
use crate::watcher::Watcher;

const SOON: Duration = Duration::from_secs(30);
/// Longer than a lease, which is 10 s unless set.
const LEASE: Duration = Duration::from_secs(12);
const INSTANCES: usize = 20;

/// The library of Debian's package `faketime` that answers for the clock.
fn faketime() -> Option<String> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let found = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|library| library.exists());
    found.map(|library| library.display().to_string())
}

/// Seconds since 1970 of the newest event of a service.
async fn newest_event(house: &Landscape, service: &str) -> Result<String> {
    let events = house.ask(&["why", service]).await?;
    let times = times(&events);
    times.into_iter().max().context("there are events")
}

/// Everything that looks like a time, in an answer.
fn times(value: &Value) -> Vec<String> {
    match value {
        Value::Array(all) => all.iter().flat_map(times).collect(),
        Value::Object(fields) => {
            let own = fields.get("time").and_then(Value::as_str).map(ToOwned::to_owned);
            own.into_iter().chain(fields.values().flat_map(times)).collect()
        }
        _ => Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_clock_that_jumps_loses_nobody() -> Result<()> {
    let Some(library) = faketime() else {
        return tools::skip("clock jumps: libfaketime is not installed (apt-get install faketime)");
    };
    let folder = tempfile::tempdir()?;
    let offset = folder.path().join("offset");
    std::fs::write(&offset, "+0\n")?;
    let variables = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", &offset.display().to_string()),
        ("FAKETIME_NO_CACHE", "1"),
        // The clock that never jumps is left alone: no kernel makes it jump either.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let house = Landscape::up_in(Surroundings { within: Vec::new(), variables }, &[]).await?;
    let fleet = Fleet::register(&house.endpoint(), "pump", INSTANCES).await?;
    let watcher = Watcher::start(&house.endpoint(), "pump")?;
    until("all are seen", SOON, || async { Ok(watcher.seen().serving() == INSTANCES) }).await?;

    let year = |time: &str| time.get(..4).and_then(|year| year.parse::<u64>().ok()).unwrap_or_default();
    let now = 1970 + SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs() / (365 * 86_400 + 20_952);
    for (jump, years) in [("+3650d", 10_i64), ("-3650d", -10)] {
        std::fs::write(&offset, format!("{jump}\n"))?;
        let other = Fleet::register(&house.endpoint(), "valve", 1).await?;
        let seen = year(&newest_event(&house, "valve").await?);
        if years > 0 {
            ensure!(seen.abs_diff(now.saturating_add_signed(years)) <= 1, "the node lives in {seen} after {jump}");
        }
        // Through a whole lease and more, in which nobody may be missed.
        let end = tokio::time::Instant::now() + LEASE;
        until("a lease has passed", LEASE * 2, || async {
            ensure!(watcher.seen().fell.is_empty(), "{jump}: {:?} fell", watcher.seen().fell.keys());
            Ok(tokio::time::Instant::now() > end)
        })
        .await?;
        ensure!(fleet.held() == INSTANCES && house.serving("pump").await? == INSTANCES);
        // Who dies is noticed all the same.
        other.die().await;
        until("who died is gone", SOON, || async { Ok(house.instances("valve").await?.is_empty()) }).await?;
    }
    ensure!(watcher.seen().diverged == 0);
    fleet.die().await;
    house.stop().await
}
