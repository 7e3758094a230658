//! A disk that is full: told to those who write, and forgotten when there is room again.
//!
//! The limit on file sizes stands in for the disk. It counts for the whole process, so this file has one test.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::time::Duration;

use futures_util::StreamExt as _;
use ninefold::fault::{Fault as _, chain};
use ninefold::lifecycle::Scope;
use ninefold_store::{Config, Error, Event, Key, Op, Outcome, Revision, Store, Txn, open};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

const FULL_BYTES: u64 = 24 * 1024 * 1024;

async fn put(store: &dyn Store, number: usize) -> Result<Outcome, Error> {
    let value = vec![u8::try_from(number % 256).unwrap(); 512 * 1024].into();
    let ops = vec![Op::Put { key: Key::new(format!("big/{number:03}")), value, lease: None }];
    store.txn(Txn { compares: Vec::new(), ops }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_and_forgotten_when_there_is_room() {
    // Without a handler the signal would end the process; with one, the write fails as on a full disk.
    let _handler = signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let scope = Scope::root("test");
    let store = open(&Config { path: folder.path().to_owned(), ..Config::default() }, &scope).await.unwrap();
    let mut watch = store.watch(&Key::new("big/"), Revision(0)).await.unwrap();
    let lease = store.grant(Duration::from_secs(600)).await.unwrap();

    let before = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: Some(FULL_BYTES), ..before }).unwrap();
    let mut number = 0;
    let refusal = loop {
        match put(&*store, number).await {
            Ok(_) => number += 1,
            Err(refusal) => break refusal,
        }
        assert!(number < 200, "the disk is full before so much is written");
    };
    assert_eq!(refusal.reason(), "STORE_UNAVAILABLE");
    assert!(chain(&refusal).contains(&*folder.path().to_string_lossy()), "{}", chain(&refusal));
    assert!(number > 2, "{number} writes found room");
    for known in 0..number {
        let entry = store.get(&Key::new(format!("big/{known:03}"))).await.expect("a full disk can be read");
        assert!(entry.is_some());
    }
    assert!(put(&*store, number).await.is_err(), "the disk is still full");

    setrlimit(Resource::Fsize, before).unwrap();
    for more in number..number + 3 {
        put(&*store, more).await.expect("there is room again");
    }
    store.keep_alive(lease).await.expect("leases live on");
    let mut seen = Vec::new();
    while seen.len() < number + 3 {
        let batch = tokio::time::timeout(Duration::from_secs(20), watch.next()).await.unwrap().unwrap();
        for event in batch.expect("the watch goes on").events {
            let Event::Put(entry) = event else { panic!("only puts were made") };
            // A write that seemed to fail may have happened; then its number comes twice.
            if seen.last() != Some(&entry.key) {
                seen.push(entry.key);
            }
        }
    }
    let expected: Vec<_> = (0..number + 3).map(|number| Key::new(format!("big/{number:03}"))).collect();
    assert_eq!(seen, expected, "every write is seen, in order");
    assert!(scope.close(Duration::from_secs(10)).await.is_empty());
}
