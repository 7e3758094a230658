//! Measures the registry of one node over real sockets, on the embedded store and on a real etcd.
//!
//! `cargo run --release -p bench-registry [-- WATCHERS ...]`. Linux only: it reads `/proc`. Node and watchers share the
//! machine and the process, so the figures hold both sides. 1,000 services of 10 instances each are there; every watcher
//! follows ten services, one of which is the one that is registered again and again.

mod house;
mod watchers;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures_util::StreamExt as _;
use futures_util::stream;
use ninefold_store::{Key, Op, Store, Txn};

use house::{House, Session};
use watchers::Watchers;

const SERVICES: usize = 1000;
const INSTANCES: usize = 10;
/// How often the service is registered, and taken back, for the times.
const ROUNDS: usize = 50;
/// Writes of each kind that are in work at once.
const AT_ONCE: usize = 64;
/// How long writes are counted.
const COUNTED: Duration = Duration::from_secs(5);

#[expect(clippy::print_stdout, reason = "the figures are what this program is for")]
#[tokio::main]
async fn main() -> Result<()> {
    let crowds: Vec<usize> = std::env::args().skip(1).map(|text| text.parse()).collect::<Result<_, _>>()?;
    let crowds = if crowds.is_empty() { vec![1000, 10_000] } else { crowds };
    println!("{:<44} {:>12} {:>12} {:>12}", "registration to every watcher", "p50", "p99", "bound p99");
    for crowd in &crowds {
        let house = House::embedded().await?;
        house.fill(SERVICES, INSTANCES).await?;
        told(&format!("embedded, {crowd} watchers"), &house, *crowd, if *crowd > 1000 { "250 ms" } else { "20 ms" })
            .await?;
    }
    held().await?;
    println!();
    match House::etcd().await? {
        Some(house) => {
            house.fill(SERVICES, INSTANCES).await?;
            told(&format!("etcd, {} watchers", crowds[0]), &house, crowds[0], "50 ms").await?;
            println!("\n{:<44} {:>12}", "writes each second, 64 at once", "etcd");
            let puts = puts(&house.store).await?;
            let joins = joins(&house).await?;
            println!("{:<44} {puts:>12.0}", "transactions of the store, one put each");
            println!("{:<44} {joins:>12.0}   {:.2} of the puts", "registrations", joins / puts);
        }
        None => println!("etcd is not on the path: its part is left out"),
    }
    Ok(())
}

/// What a node with many instances takes.
#[expect(clippy::print_stdout, reason = "the figures are what this program is for")]
async fn held() -> Result<()> {
    let before = resident_mb()?;
    let house = House::embedded().await?;
    house.fill(SERVICES, 100).await?;
    house.settle(SERVICES * 100).await?;
    println!("\n{:<44} {:>12} {:>12}", "resident", "", "bound");
    let grown = resident_mb()? - before;
    println!("{:<44} {:>12} {:>12}", "100,000 instances on one node", format!("{grown:.0} MB"), "300 MB");
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the figures are what this program is for")]
async fn told(what: &str, house: &House, crowd: usize, bound: &str) -> Result<()> {
    let mut watchers = Watchers::start(house, crowd).await?;
    let mut times = Vec::with_capacity(crowd * ROUNDS);
    for round in 0..ROUNDS {
        let id = format!("probe-{round}");
        let begin = Instant::now();
        let session = Session::join(house, "probe", &id).await?;
        times.extend(watchers.all_saw(&id, begin).await?);
        session.leave().await?;
    }
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    let millis = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    println!("{what:<44} {:>12} {:>12} {bound:>12}", millis(at(50)), millis(at(99)));
    Ok(())
}

/// What the store itself writes in a second.
async fn puts(store: &Arc<dyn Store>) -> Result<f64> {
    let begin = Instant::now();
    let value = vec![b'x'; 250];
    let work = (0..AT_ONCE).map(|worker| {
        let (store, value) = (store.clone(), value.clone());
        async move {
            let mut written = 0_u32;
            while begin.elapsed() < COUNTED {
                let key = Key::new(format!("bench/{worker}/{written}"));
                store
                    .txn(Txn {
                        compares: Vec::new(),
                        ops: vec![Op::Put { key, value: value.clone().into(), lease: None }],
                    })
                    .await?;
                written += 1;
            }
            anyhow::Ok(written)
        }
    });
    rate(work, begin).await
}

/// Registrations in a second; each is taken back at once, which is another two writes that are not counted.
async fn joins(house: &House) -> Result<f64> {
    let begin = Instant::now();
    let work = (0..AT_ONCE).map(|worker| async move {
        let mut joined = 0_u32;
        while begin.elapsed() < COUNTED {
            Session::join(house, &format!("flood-{worker}"), &format!("i-{joined}")).await?.leave().await?;
            joined += 1;
        }
        anyhow::Ok(joined)
    });
    rate(work, begin).await
}

async fn rate(work: impl Iterator<Item = impl Future<Output = Result<u32>>>, begin: Instant) -> Result<f64> {
    let done: Vec<Result<u32>> = stream::iter(work).buffer_unordered(AT_ONCE).collect().await;
    let mut all = 0;
    for one in done {
        all += one?;
    }
    Ok(f64::from(all) / begin.elapsed().as_secs_f64())
}

fn resident_mb() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? * 1024.0 / 1e6)
}
