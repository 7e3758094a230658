//! The embedded backend: the list, and what comes of owning a file.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ninefold::fault::chain;
use ninefold::lifecycle::Scope;
use ninefold_store::{Config, Error, Revision, Store, open};

use super::{Bed, put, run_all};

const CLOSE: Duration = Duration::from_secs(10);

/// A store on a folder, and the scope that its life hangs on.
struct House {
    store: Arc<dyn Store>,
    scope: Scope,
}

impl House {
    async fn open(path: &Path) -> Self {
        Self::open_with(Config { path: path.to_owned(), ..Config::default() }).await
    }

    async fn open_with(config: Config) -> Self {
        let scope = Scope::root("test");
        Self { store: open(&config, &scope).await.expect("the store opens"), scope }
    }

    fn bed(&self) -> Bed {
        Bed { store: self.store.clone(), folder: "test".to_owned() }
    }

    async fn close(self) {
        assert_eq!(self.scope.close(CLOSE).await, Vec::<String>::new(), "nothing is late");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_backend_keeps_the_list() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path()).await;
    run_all(house.store.clone()).await;
    house.close().await;
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(&folder.path().join("made/with/parents")).await;
    let bed = house.bed();
    let lease = bed.lease().await;
    let first = bed.put("a", "1").await;
    bed.put("a", "2").await;
    bed.change(Vec::new(), vec![put(bed.key("leased"), "1", Some(lease))]).await;
    let last = bed.delete("a").await;
    house.close().await;

    let house = House::open(&folder.path().join("made/with/parents")).await;
    let bed = house.bed();
    assert_eq!(bed.value("a").await, None);
    assert_eq!(bed.watch(first).await.changes(3).await, ["a=2", "leased=1", "a deleted"], "history is kept too");
    assert_eq!(bed.put("b", "1").await, Revision(last.0 + 1), "revisions go on");
    house.store.keep_alive(lease).await.expect("a lease has its whole time again");
    house.store.revoke(lease).await.unwrap();
    assert_eq!(bed.value("leased").await, None);
    house.close().await;
}

#[tokio::test]
async fn a_lease_runs_out_after_a_restart_too() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path()).await;
    let bed = house.bed();
    let lease = bed.lease().await;
    let at = bed.change(Vec::new(), vec![put(bed.key("k"), "1", Some(lease))]).await.revision;
    house.close().await;
    let house = House::open(folder.path()).await;
    assert_eq!(house.bed().watch(at).await.changes(1).await, ["k deleted"]);
    house.close().await;
}

#[tokio::test]
async fn a_folder_in_use_is_refused_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path()).await;
    let config = Config { path: folder.path().to_owned(), ..Config::default() };
    let refusal = open(&config, &Scope::root("second")).await.expect_err("it is in use");
    assert!(matches!(refusal, Error::Open { .. }));
    let text = chain(&refusal);
    assert!(text.contains("in use by another process") && text.contains(&*folder.path().to_string_lossy()), "{text}");
    house.close().await;
    House::open(folder.path()).await.close().await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_refused_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "not a folder").unwrap();
    let damaged = folder.path().join("damaged");
    std::fs::create_dir(&damaged).unwrap();
    std::fs::write(damaged.join("store.redb"), "not a store".repeat(1000)).unwrap();
    for path in [file.join("below"), file, damaged] {
        let config = Config { path, ..Config::default() };
        let refusal = open(&config, &Scope::root("test")).await.expect_err("it cannot be opened");
        assert!(matches!(&refusal, Error::Open { path, .. } if *path == config.path), "{refusal:?}");
        assert!(std::error::Error::source(&refusal).is_some());
    }
}

#[tokio::test]
async fn history_is_bounded_and_who_asks_for_what_is_gone_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { path: folder.path().to_owned(), history_revisions_max: 20, ..Config::default() };
    let house = House::open_with(config.clone()).await;
    let bed = house.bed();
    let first = bed.put("n", "0").await;
    for n in 1..=100 {
        bed.put("n", &n.to_string()).await;
    }
    let last = house.store.get(&bed.key("n")).await.unwrap().unwrap().modified;
    house.close().await;

    // After a restart, so that nothing comes from memory.
    let house = House::open_with(config).await;
    let bed = house.bed();
    let refusal = bed.watch(first).await.batch().await.expect_err("it is gone");
    assert!(matches!(refusal, Error::Compacted { after } if after == first), "{refusal:?}");
    let within = Revision(last.0 - 20);
    assert_eq!(bed.watch(within).await.changes(20).await.len(), 20, "what is kept can be had");
    house.close().await;
}

#[tokio::test]
async fn history_is_bounded_in_bytes_too() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { path: folder.path().to_owned(), history_bytes_max: 10_000, ..Config::default() };
    let house = House::open_with(config.clone()).await;
    let bed = house.bed();
    let first = bed.put("n", "0").await;
    for _ in 0..8 {
        bed.put("n", &"x".repeat(2000)).await;
    }
    house.close().await;
    let house = House::open_with(config).await;
    let refusal = house.bed().watch(first).await.batch().await.expect_err("it is gone");
    assert!(matches!(refusal, Error::Compacted { .. }), "{refusal:?}");
    house.close().await;
}

#[tokio::test]
async fn a_watch_that_history_has_passed_lags() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { path: folder.path().to_owned(), history_revisions_max: 5, ..Config::default() };
    let house = House::open_with(config).await;
    let bed = house.bed();
    let first = bed.put("n", "0").await;
    let mut slow = bed.watch(first).await;
    bed.put("n", "1").await;
    assert_eq!(slow.changes(1).await, ["n=1"]);
    // More than memory keeps, so that the log is asked.
    let big = "x".repeat(1024 * 1024);
    for _ in 0..8 {
        bed.put("n", &big).await;
    }
    let refusal = slow.batch().await.expect_err("it has fallen behind");
    assert!(matches!(refusal, Error::Lagged { at } if at == Revision(first.0 + 1)), "{refusal:?}");
    house.close().await;
}

#[tokio::test]
async fn a_closed_store_says_so_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path()).await;
    let (bed, store) = (house.bed(), house.store.clone());
    let lease = bed.lease().await;
    let mut watch = bed.watch(Revision(0)).await;
    house.close().await;
    assert!(matches!(watch.batch().await, Err(Error::Closed)));
    assert!(matches!(store.get(&bed.key("k")).await, Err(Error::Closed)));
    assert!(matches!(store.txn(ninefold_store::Txn::default()).await, Err(Error::Closed)));
    assert!(matches!(store.grant(CLOSE).await, Err(Error::Closed)));
    assert!(matches!(store.keep_alive(lease).await, Err(Error::Closed)));
    assert!(matches!(store.revoke(lease).await, Err(Error::Closed)));
}

#[tokio::test(start_paused = true)]
async fn held_time_holds_leases_too() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(folder.path()).await;
    let bed = house.bed();
    let lease = house.store.grant(Duration::from_secs(3600)).await.unwrap();
    let at = bed.change(Vec::new(), vec![put(bed.key("k"), "1", Some(lease))]).await.revision;
    tokio::time::advance(Duration::from_secs(3500)).await;
    assert_eq!(bed.value("k").await.as_deref(), Some("1"));
    tokio::time::advance(Duration::from_secs(101)).await;
    assert_eq!(bed.watch(at).await.changes(1).await, ["k deleted"]);
    house.close().await;
}
