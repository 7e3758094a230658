//! What was acknowledged survives `kill -9`: real processes write, and are killed at moments that nobody chose.
//!
//! `NINEFOLD_KILL_SEED` repeats the moments of a run that failed.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests too")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use ninefold::lifecycle::Scope;
use ninefold_store::{Config, Event, Key, Op, Revision, Store, Txn, open};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

const ROUNDS: u64 = 20;
/// Writers at once in the process that is killed, so that commits hold several writes.
const WRITERS: u64 = 6;
/// The process is killed at most so long after it was started, or after its first acknowledgement.
const LIFE_MS_MAX: u64 = 120;
/// A process that nobody kills ends by itself.
const LIFE_MAX: Duration = Duration::from_secs(20);
/// Says to the test binary that it is the process to be killed; the folder, and the number of the round.
const FOLDER: &str = "NINEFOLD_KILL_FOLDER";
const ROUND: &str = "NINEFOLD_KILL_ROUND";

fn config(folder: &Path) -> Config {
    Config { path: folder.to_owned(), history_revisions_max: 1_000_000, ..Config::default() }
}

/// Both keys of one write; they are put in one transaction.
fn keys(write: &str) -> [Key; 2] {
    ["left", "right"].map(|side| Key::new(format!("{side}/{write}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_kill_9() {
    if let (Some(folder), Ok(round)) = (std::env::var_os(FOLDER), std::env::var(ROUND)) {
        return write_until_killed(Path::new(&folder), &round).await;
    }
    let seed = std::env::var("NINEFOLD_KILL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("NINEFOLD_KILL_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeMap::new();
    for round in 0..ROUNDS {
        let new = write_and_kill(folder.path(), round, &mut random).await;
        let before = acknowledged.values().max().copied().unwrap_or(Revision(0));
        assert!(new.values().all(|revision| *revision > before), "revisions never go back, not even over a death");
        println!("round {round}: {} writes were acknowledged", new.len());
        acknowledged.extend(new);
        check(folder.path(), &acknowledged, &mut random).await;
    }
    assert!(acknowledged.len() > 100, "only {} writes were acknowledged: too few to tell", acknowledged.len());
}

/// Starts the process, kills it, and tells what it had acknowledged: the writes and their revisions.
async fn write_and_kill(folder: &Path, round: u64, random: &mut fastrand::Rng) -> BTreeMap<String, Revision> {
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "acknowledged_writes_survive_kill_9", "--nocapture", "--test-threads=2"])
        .env(FOLDER, folder)
        .env(ROUND, round.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let mut acknowledged = BTreeMap::new();
    let mut take = |line: String| {
        // The test harness has lines of its own.
        // A line that the death tore has no full stop.
        let told = line.strip_prefix("done ").and_then(|line| line.strip_suffix('.'));
        if let Some((write, revision)) = told.and_then(|told| told.split_once(' ')) {
            acknowledged.insert(write.to_owned(), Revision(revision.parse().unwrap()));
        }
    };
    // One round in four is killed while it opens the file, wherever it has got to.
    if !random.u64(..).is_multiple_of(4) {
        let open = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                let is_first = line.starts_with("done ");
                take(line);
                if is_first {
                    return;
                }
            }
            panic!("the process ended before it wrote anything");
        };
        tokio::time::timeout(LIFE_MAX, open).await.expect("the process writes");
    }
    let life = tokio::time::sleep(Duration::from_millis(random.u64(0..LIFE_MS_MAX)));
    tokio::pin!(life);
    loop {
        tokio::select! {
            () = &mut life => break,
            line = lines.next_line() => take(line.unwrap().expect("the process lives until it is killed")),
        }
    }
    process.kill().await.unwrap();
    // What is still in the pipe was acknowledged too.
    while let Some(line) = lines.next_line().await.unwrap() {
        take(line);
    }
    acknowledged
}

/// Opens the store after a death and looks for whatever could be missing.
async fn check(folder: &Path, acknowledged: &BTreeMap<String, Revision>, random: &mut fastrand::Rng) {
    let scope = Scope::root("check");
    let store = open(&config(folder), &scope).await.expect("a store opens after kill -9");
    let range = store.range(&Key::new(""), None, usize::MAX).await.unwrap();
    let there: BTreeMap<_, _> = range.entries.iter().map(|entry| (entry.key.clone(), entry.modified)).collect();
    for (write, revision) in acknowledged {
        for key in keys(write) {
            assert_eq!(there.get(&key), Some(revision), "{key} was acknowledged at {revision:?}");
        }
    }
    for key in there.keys() {
        let (_, write) = key.as_str().split_once('/').unwrap();
        assert!(keys(write).iter().all(|key| there.contains_key(key)), "{write} is there by half");
    }

    let middle = random.i64(0..=range.revision.0);
    let mut watch = store.watch(&Key::new(""), Revision(middle)).await.unwrap();
    let mut at = middle;
    while at < range.revision.0 {
        let batch = watch.next().await.unwrap().expect("the history is there");
        for pair in batch.events.chunks(2) {
            at += 1;
            for event in pair {
                assert_eq!(event.revision(), Revision(at), "a watch has no gap");
                assert!(matches!(event, Event::Put(entry) if there.get(&entry.key) == Some(&entry.modified)));
            }
        }
    }
    assert!(scope.close(Duration::from_secs(10)).await.is_empty());
}

/// The process that is killed: writes, and prints a line for each write when it is acknowledged.
async fn write_until_killed(folder: &Path, round: &str) {
    let scope = Scope::root("writer");
    let store = open(&config(folder), &scope).await.expect("a store opens after kill -9");
    let writers = join_all((0..WRITERS).map(|writer| write(store.clone(), format!("{round}-{writer}"))));
    let _ = tokio::time::timeout(LIFE_MAX, writers).await;
}

async fn write(store: Arc<dyn Store>, name: String) {
    for number in 0_u64.. {
        let write = format!("{name}-{number}");
        let value = bytes::Bytes::from(write.clone().repeat(20));
        let ops = keys(&write).map(|key| Op::Put { key, value: value.clone(), lease: None }).to_vec();
        let outcome = store.txn(Txn { compares: Vec::new(), ops }).await.expect("the write is acknowledged");
        println!("done {write} {}.", outcome.revision.0);
    }
}
