//! How many durable writes a second the store acknowledges, and how long each waits.
//!
//! `cargo run -p ninefold-store --example commit_rate`, and with `-- http://127.0.0.1:2379` the same on an etcd. Each line
//! is one run of five seconds: so many writers, each of which waits for its write before it makes the next.

#![expect(clippy::print_stdout, reason = "it is what the program is for")]

use std::time::Duration;

use futures_util::future::join_all;
use ninefold::lifecycle::Scope;
use ninefold_store::{Backend, Config, Error, Key, Op, Store, Txn, open};
use tokio::time::Instant;

const RUN: Duration = Duration::from_secs(5);
const WRITERS: [usize; 4] = [1, 8, 64, 512];
const VALUE_BYTES: usize = 256;
const KEYS: usize = 1000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let config = match std::env::args().nth(1) {
        Some(url) => Config { backend: Backend::Etcd, etcd: vec![url], ..Config::default() },
        None => Config { path: folder.path().to_owned(), ..Config::default() },
    };
    let scope = Scope::root("commit_rate");
    let store = open(&config, &scope).await?;
    println!("{:?}, {VALUE_BYTES} B a value", config.backend);
    println!("writers  writes/s  p50 ms  p99 ms  max ms");
    for writers in WRITERS {
        let end = Instant::now() + RUN;
        let runs = join_all((0..writers).map(|writer| write(&*store, writer, end))).await;
        let mut waits = Vec::new();
        for run in runs {
            waits.extend(run?);
        }
        waits.sort();
        let millis = |permille: usize| waits[(waits.len() - 1) * permille / 1000].as_secs_f64() * 1000.0;
        let rate = waits.len() / usize::try_from(RUN.as_secs())?;
        println!("{writers:>7}  {rate:>8}  {:>6.2}  {:>6.2}  {:>6.2}", millis(500), millis(990), millis(1000));
    }
    scope.close(Duration::from_secs(10)).await;
    Ok(())
}

/// Writes until `end`; tells how long each write waited.
async fn write(store: &dyn Store, writer: usize, end: Instant) -> Result<Vec<Duration>, Error> {
    let mut waits = Vec::new();
    for number in 0.. {
        let start = Instant::now();
        if start >= end {
            break;
        }
        let key = Key::new(format!("rate/{:04}", (writer * 31 + number) % KEYS));
        let op = Op::Put { key, value: vec![b'v'; VALUE_BYTES].into(), lease: None };
        store.txn(Txn { compares: Vec::new(), ops: vec![op] }).await?;
        waits.push(start.elapsed());
    }
    Ok(waits)
}
