//! Measures `ninefold up` on an embedded store: time from exec to ready, resident memory, and processor use when idle.
//!
//! `cargo build --release -p ninefold-cli && cargo run --release -p bench-startup [-- BINARY]`. Linux only: it reads
//! `/proc`. Each run has a new data folder; figures are of the median run and of the worst.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

/// How often the node is started.
const RUNS: usize = 11;
/// How long the last of them is watched doing nothing.
const IDLE: Duration = Duration::from_secs(10);
/// Ticks a second of the times in `/proc/PID/stat`, as Linux gives them to programs on every architecture of ours.
const TICKS_PER_SECOND: f64 = 100.0;

#[expect(clippy::print_stdout, reason = "the figures are what this program is for")]
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let binary = match std::env::args_os().nth(1) {
        Some(path) => PathBuf::from(path),
        None => std::env::current_exe()?.with_file_name("ninefold"),
    };
    ensure!(binary.exists(), "{} is not built: cargo build --release -p ninefold-cli", binary.display());

    let mut starts = Vec::new();
    let mut last = None;
    for run in 0..RUNS {
        let watch = run + 1 == RUNS;
        let (start, idle) = measure(&binary, watch).await?;
        starts.push(start);
        last = idle.or(last);
    }
    starts.sort();
    let (resident_kib, idle_share) = last.context("the last run is watched")?;
    println!("{:<32} {:>10} {:>10} {:>10}", "ninefold up, embedded store", "median", "worst", "aim");
    let millis = |duration: Duration| format!("{:.0} ms", duration.as_secs_f64() * 1e3);
    println!(
        "{:<32} {:>10} {:>10} {:>10}",
        "exec to ready",
        millis(starts[RUNS / 2]),
        millis(starts[RUNS - 1]),
        "300 ms"
    );
    println!(
        "{:<32} {:>10} {:>10} {:>10}",
        "resident memory",
        format!("{:.0} MB", resident_kib * 1024.0 / 1e6),
        "",
        "60 MB"
    );
    println!("{:<32} {:>10} {:>10} {:>10}", "idle, share of a core", format!("{:.2} %", idle_share * 100.0), "", "1 %");
    Ok(())
}

/// Starts a node; answers the time to its first line, and memory (KiB) and idle share if it is to be watched.
async fn measure(binary: &Path, watch: bool) -> Result<(Duration, Option<(f64, f64)>)> {
    let data = tempfile::tempdir()?;
    let mut command = Command::new(binary);
    command.args(["up", "-o", "json", "--data"]).arg(data.path().join("data"));
    for flag in ["--edge-listen", "--listen", "--otlp-grpc-listen", "--otlp-http-listen"] {
        command.args([flag, "127.0.0.1:0"]);
    }
    let begin = Instant::now();
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("piped")?).read_line(&mut line).await?;
    let start = begin.elapsed();
    ensure!(!line.is_empty(), "the node ended before it was ready");

    let idle = if watch {
        let pid = child.id().context("the node runs")?;
        // What a start leaves to do is done after a moment.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let before = cpu_seconds(pid)?;
        tokio::time::sleep(IDLE).await;
        Some((resident_kib(pid)?, (cpu_seconds(pid)? - before) / IDLE.as_secs_f64()))
    } else {
        None
    };
    child.kill().await?;
    Ok((start, idle))
}

fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().context("a stat line")?.split_whitespace().collect();
    let ticks = fields.get(11).context("utime")?.parse::<f64>()? + fields.get(12).context("stime")?.parse::<f64>()?;
    Ok(ticks / TICKS_PER_SECOND)
}

fn resident_kib(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
