//! Processor time of a call, and calls a second, through our channel and through tonic's.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use futures_util::future::try_join_all;
use ninefold::lifecycle::Scope;
use ninefold::tonic::transport::Endpoint;
use tokio::time::Instant;

use crate::echo::{self, Word};
use crate::place::{Server, cpu_ns, median};

/// Turns of each; odd, so that there is a middle one.
const TURNS: usize = 11;

struct Case {
    name: &'static str,
    /// Calls at a time on one connection, as the server allows.
    streams: &'static str,
    calls: &'static str,
    at_once: &'static str,
    method: &'static str,
}

const CASES: [Case; 4] = [
    Case { name: "one call at a time", streams: "200", calls: "12000", at_once: "1", method: "Echo" },
    Case { name: "eight at a time", streams: "200", calls: "24000", at_once: "8", method: "Echo" },
    Case { name: "256 at a time, server allows 1000", streams: "1000", calls: "48000", at_once: "256", method: "Echo" },
    Case {
        name: "512 of 20 ms at a time, server allows 100",
        streams: "100",
        calls: "8000",
        at_once: "512",
        method: "Short",
    },
];

/// Prints the table.
pub(crate) async fn compare() -> Result<()> {
    println!(
        "| unary echo of 128 bytes | tonic µs CPU | ours µs CPU | ours / tonic | tonic calls/s | ours calls/s | ours / tonic |"
    );
    println!("|---|---|---|---|---|---|---|");
    for case in CASES {
        let server = Server::start(&["server", case.streams])?;
        let mut turns = Vec::new();
        for turn in 0..TURNS {
            let ask = |kind| measure(kind, server.address, &case);
            // Who is first changes, so that a drift of the machine favours nobody.
            let (plain, ours) = if turn % 2 == 0 {
                (ask("tonic")?, ask("ours")?)
            } else {
                let ours = ask("ours")?;
                (ask("tonic")?, ours)
            };
            turns.push((plain, ours));
        }
        let of = |pick: fn(&(Turn, Turn)) -> f64| median(turns.iter().map(pick).collect());
        println!(
            "| {} | {:.1} | {:.1} | {:.3} | {:.0} | {:.0} | {:.2} |",
            case.name,
            of(|(plain, _)| plain.cpu_us),
            of(|(_, ours)| ours.cpu_us),
            of(|(plain, ours)| ours.cpu_us / plain.cpu_us),
            of(|(plain, _)| plain.per_second),
            of(|(_, ours)| ours.per_second),
            of(|(plain, ours)| ours.per_second / plain.per_second),
        );
    }
    tokio::task::yield_now().await;
    Ok(())
}

struct Turn {
    cpu_us: f64,
    per_second: f64,
}

fn measure(kind: &str, address: SocketAddr, case: &Case) -> Result<Turn> {
    let words = ["client", kind, &address.to_string(), case.calls, case.at_once, case.method];
    let output = Command::new(std::env::current_exe()?).args(words).output()?;
    if !output.status.success() {
        bail!("{kind}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8(output.stdout)?;
    let (cpu, rate) = text.trim().split_once(' ').context("two numbers")?;
    Ok(Turn { cpu_us: cpu.parse()?, per_second: rate.parse()? })
}

/// Calls, and prints microseconds of processor time a call, and calls a second.
pub(crate) async fn client(kind: &str, address: SocketAddr, calls: u32, at_once: u32, method: &str) -> Result<()> {
    let scope = Scope::root("bench");
    let word = Word { body: Bytes::from(vec![7; 128]), number: 0 };
    match kind {
        "tonic" => {
            let channel = Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
            run(calls, at_once, async || echo::ask(channel.clone(), method, word.clone()).await).await
        }
        _ => {
            let channel = echo::channel(address, &scope);
            run(calls, at_once, async || echo::ask(channel.clone(), method, word.clone()).await).await
        }
    }
}

async fn run<E: std::error::Error + Send + Sync + 'static>(
    calls: u32,
    at_once: u32,
    ask: impl AsyncFn() -> Result<Word, E>,
) -> Result<()> {
    let each = async |count: u32| {
        for _ in 0..count {
            ask().await?;
        }
        Ok::<_, anyhow::Error>(())
    };
    // Connections are made, and more of them where that is wanted, before the clock runs.
    let warm = Instant::now();
    while warm.elapsed() < Duration::from_millis(300) {
        try_join_all((0..at_once).map(|_| each(1))).await?;
    }
    let (began, cpu) = (Instant::now(), cpu_ns()?);
    try_join_all((0..at_once).map(|_| each(calls / at_once))).await?;
    let (took, cpu) = (began.elapsed().as_secs_f64(), cpu_ns()? - cpu);
    let cpu_us = Duration::from_nanos(cpu).as_secs_f64() * 1e6;
    println!("{} {}", cpu_us / f64::from(calls), f64::from(calls) / took);
    Ok(())
}
