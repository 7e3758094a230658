//! The etcd backend: the list on a real etcd, and what comes of a network between.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use ninefold::fault::{Fault as _, Kind, chain};
use ninefold::lifecycle::Scope;
use ninefold_store::{Backend, Config, Error, Key, Revision, Store, Txn, open};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::{Bed, Watch, put, run_all};

const START_DEADLINE: Duration = Duration::from_secs(30);

/// The etcd that the tests run: of the tools that `./check` installs, or else of the system.
fn program() -> PathBuf {
    let tools = std::env::var_os("NINEFOLD_TOOLS").map(|tools| PathBuf::from(tools).join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = tools.into_iter().chain(std::env::split_paths(&path)).map(|folder| folder.join("etcd"));
    found.into_iter().find(|file| file.is_file()).expect("no etcd is found: install etcd-server or run ./check")
}

/// A port that nobody listens on. Somebody else may take it before it is used; then the start is tried again.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// A real member of an etcd cluster, which goes with the value.
struct RealEtcd {
    folder: tempfile::TempDir,
    name: String,
    url: String,
    peer_url: String,
    /// All members, as etcd wants to be told.
    cluster: String,
    process: Child,
}

impl RealEtcd {
    /// Starts a cluster of one.
    async fn start() -> Self {
        Self::start_cluster(1).await.remove(0)
    }

    async fn start_cluster(size: usize) -> Vec<Self> {
        for _ in 0..3 {
            let mut members = Self::spawn_cluster(size);
            if join_all(members.iter_mut().map(Self::is_ready)).await.into_iter().all(|ready| ready) {
                return members;
            }
        }
        panic!("etcd does not start");
    }

    fn spawn_cluster(size: usize) -> Vec<Self> {
        let url = || format!("http://127.0.0.1:{}", free_port());
        let peers: Vec<_> = (0..size).map(|number| (format!("member-{number}"), url())).collect();
        let cluster: Vec<_> = peers.iter().map(|(name, peer_url)| format!("{name}={peer_url}")).collect();
        let member = |(name, peer_url): (String, String)| {
            let (folder, url, cluster) = (tempfile::tempdir().unwrap(), url(), cluster.join(","));
            let process = Self::spawn(&folder, &name, &url, &peer_url, &cluster);
            Self { folder, name, url, peer_url, cluster, process }
        };
        peers.into_iter().map(member).collect()
    }

    fn spawn(folder: &tempfile::TempDir, name: &str, url: &str, peer_url: &str, cluster: &str) -> Child {
        let log = std::fs::File::options().create(true).append(true).open(folder.path().join("log")).unwrap();
        Command::new(program())
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .args(["--name", name, "--listen-client-urls", url, "--advertise-client-urls", url])
            .args(["--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url])
            .args(["--initial-cluster", cluster])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("etcd starts")
    }

    /// Whether it answers; false when it has ended instead.
    async fn is_ready(&mut self) -> bool {
        let start = Instant::now();
        let mut look = tokio::time::interval(Duration::from_millis(50));
        while start.elapsed() < START_DEADLINE {
            look.tick().await;
            if let Some(status) = self.process.try_wait().unwrap() {
                println!("etcd ended with {status}: {}", self.log());
                return false;
            }
            let mut client = etcd_client::Client::connect([&self.url], None).await.unwrap();
            let status = tokio::time::timeout(Duration::from_secs(2), client.status()).await;
            if matches!(status, Ok(Ok(_))) {
                return true;
            }
        }
        panic!("etcd is not ready after {START_DEADLINE:?}: {}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    async fn kill(&mut self) {
        self.process.kill().await.unwrap();
    }

    async fn start_again(&mut self) {
        self.process = Self::spawn(&self.folder, &self.name, &self.url, &self.peer_url, &self.cluster);
        assert!(self.is_ready().await, "etcd starts again");
    }

    fn config(&self) -> Config {
        Config { backend: Backend::Etcd, etcd: vec![self.url.clone()], ..Config::default() }
    }
}

struct House {
    store: Arc<dyn Store>,
    scope: Scope,
}

impl House {
    async fn open(config: &Config) -> Self {
        let scope = Scope::root("test");
        Self { store: open(config, &scope).await.expect("the store opens"), scope }
    }

    fn bed(&self) -> Bed {
        Bed { store: self.store.clone(), folder: "test".to_owned() }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_etcd_backend_keeps_the_list() {
    let etcd = RealEtcd::start().await;
    run_all(House::open(&etcd.config()).await.store).await;
}

#[tokio::test]
async fn a_watch_outlives_a_restart_of_etcd_without_a_gap() {
    const LAST: usize = 120;
    let mut etcd = RealEtcd::start().await;
    let house = House::open(&etcd.config()).await;
    let bed = house.bed();
    let before = bed.put("n", "0").await;
    let mut watch = bed.watch(before).await;
    bed.put("n", "1").await;
    assert_eq!(watch.changes(1).await, ["n=1"]);
    let writes = async {
        for n in 2..=LAST {
            if n == 20 || n == 80 {
                etcd.kill().await;
                etcd.start_again().await;
            }
            put_until_done(&bed, n).await;
        }
    };
    join(writes, read_up_to(&mut watch, LAST)).await;
}

#[tokio::test]
async fn a_cluster_that_loses_members_one_by_one_loses_no_change() {
    const LAST: usize = 90;
    let mut members = RealEtcd::start_cluster(3).await;
    let urls = members.iter().map(|member| member.url.clone()).collect();
    let house = House::open(&Config { etcd: urls, ..members[0].config() }).await;
    let bed = house.bed();
    let before = bed.put("n", "0").await;
    let mut watch = bed.watch(before).await;
    let writes = async {
        for n in 1..=LAST {
            if n % 30 == 10 {
                members[n / 30].kill().await;
            }
            if n % 30 == 20 {
                members[n / 30].start_again().await;
            }
            put_until_done(&bed, n).await;
        }
    };
    join(writes, read_up_to(&mut watch, LAST)).await;
}

/// Puts a number; again after an error, when it may have happened, and then this is the second time.
async fn put_until_done(bed: &Bed, n: usize) {
    let change = || Txn { compares: Vec::new(), ops: vec![put(bed.key("n"), &n.to_string(), None)] };
    while let Err(error) = bed.store.txn(change()).await {
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    }
}

/// Reads numbers, of which none may be missing, up to the last.
async fn read_up_to(watch: &mut Watch, end: usize) {
    let mut last = None;
    while last != Some(end) {
        for change in watch.changes(1).await {
            let n: usize = change.strip_prefix("n=").expect("only puts were made").parse().unwrap();
            assert!(last.is_none_or(|last| n == last || n == last + 1), "{n} comes after {last:?}");
            last = Some(n);
        }
    }
}

#[tokio::test]
async fn while_etcd_is_away_calls_wait_or_say_so() {
    let mut etcd = RealEtcd::start().await;
    let house = House::open(&etcd.config()).await;
    let bed = house.bed();
    let lease = house.store.grant(Duration::from_secs(60)).await.unwrap();
    bed.change(Vec::new(), vec![put(bed.key("k"), "1", Some(lease))]).await;
    etcd.kill().await;
    let start = Instant::now();
    let refusal = house.store.get(&bed.key("k")).await.expect_err("nobody is there");
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    assert_eq!((refusal.kind(), refusal.reason()), (Kind::Unavailable, "STORE_UNAVAILABLE"));
    assert!(chain(&refusal).contains(&etcd.url), "{}", chain(&refusal));
    // A call that begins before etcd is back is answered when it is.
    let (value, ()) = join(bed.value("k"), etcd.start_again()).await;
    assert_eq!(value.as_deref(), Some("1"));
    house.store.keep_alive(lease).await.expect("the lease is kept over the restart");
}

#[tokio::test]
async fn who_asks_for_compacted_history_is_told() {
    let etcd = RealEtcd::start().await;
    let house = House::open(&etcd.config()).await;
    let bed = house.bed();
    let first = bed.put("n", "0").await;
    let mut early = bed.watch(first).await;
    for n in 1..=5 {
        bed.put("n", &n.to_string()).await;
    }
    assert_eq!(early.changes(5).await.len(), 5);
    let last = bed.put("n", "6").await;
    let mut client = etcd_client::Client::connect([&etcd.url], None).await.unwrap();
    client.compact(last.0, None).await.unwrap();
    let refusal = bed.watch(first).await.batch().await.expect_err("it is gone");
    assert!(matches!(refusal, Error::Compacted { after } if after == first), "{refusal:?}");
    assert_eq!(early.changes(1).await, ["n=6"], "who was not behind goes on");
    let mut current = bed.watch(last).await;
    bed.put("n", "7").await;
    assert_eq!(current.changes(1).await, ["n=7"]);
}

#[tokio::test]
async fn a_range_larger_than_one_answer_is_whole_while_it_changes() {
    let etcd = RealEtcd::start().await;
    let house = House::open(&etcd.config()).await;
    let bed = house.bed();
    for page in 0..4 {
        let ops = (0..100).map(|n| put(bed.key(format!("{page}/{n:03}")), "old", None)).collect();
        bed.change(Vec::new(), ops).await;
    }
    let all = bed.all();
    let changes = async {
        for page in (0..4).rev() {
            bed.change(Vec::new(), vec![ninefold_store::Op::DeletePrefix(bed.key(format!("{page}/")))]).await;
        }
    };
    let (found, ()) = join(house.store.range(&all, None, usize::MAX), changes).await;
    let found = found.unwrap();
    assert!(!found.more && found.entries.len() % 100 == 0, "{} entries of one moment", found.entries.len());
    let values = format!("{}/3", bed.folder);
    let page = house.store.range(&Key::new(values), None, 5).await.unwrap();
    assert!(page.entries.is_empty() && page.revision > Revision(0));
}

#[tokio::test]
async fn landscapes_with_different_prefixes_do_not_meet() {
    let etcd = RealEtcd::start().await;
    let one = House::open(&etcd.config()).await;
    let other = House::open(&Config { prefix: "/elsewhere/".to_owned(), ..etcd.config() }).await;
    let before = one.bed().put("k", "one").await;
    other.bed().put("k", "other").await;
    assert_eq!(one.bed().value("k").await.as_deref(), Some("one"));
    assert_eq!(other.bed().value("k").await.as_deref(), Some("other"));
    let mut watch = one.bed().watch(before).await;
    one.bed().put("k", "two").await;
    assert_eq!(watch.changes(1).await, ["k=two"]);
}

#[tokio::test]
async fn members_that_are_away_or_silent_are_passed_over() {
    let etcd = RealEtcd::start().await;
    let away = format!("http://127.0.0.1:{}", free_port());
    // Takes connections and never answers.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    let house = House::open(&Config { etcd: vec![away, silent_url, etcd.url.clone()], ..etcd.config() }).await;
    let bed = house.bed();
    let before = bed.put("k", "1").await;
    let mut watch = bed.watch(before).await;
    let start = Instant::now();
    bed.put("k", "2").await;
    assert_eq!(watch.changes(1).await, ["k=2"]);
    assert!(start.elapsed() < Duration::from_secs(1), "the member that answers stays in use");
}

#[tokio::test]
async fn an_etcd_that_is_not_there_is_told_at_the_start() {
    let url = format!("http://127.0.0.1:{}", free_port());
    let config = Config { backend: Backend::Etcd, etcd: vec![url.clone()], ..Config::default() };
    let start = Instant::now();
    let refusal = open(&config, &Scope::root("test")).await.expect_err("nobody is there");
    assert!(start.elapsed() < Duration::from_secs(8));
    let text = chain(&refusal);
    assert!(text.contains(&url) && text.contains("refused"), "{text}");
    let config = Config { etcd: vec!["localhost:2379".to_owned()], prefix: String::new(), ..config };
    let refusal = open(&config, &Scope::root("test")).await.expect_err("the settings are wrong");
    assert_eq!((refusal.kind(), refusal.violations().len()), (Kind::InvalidInput, 2), "{refusal}");
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let etcd = RealEtcd::start().await;
    let house = House::open(&etcd.config()).await;
    let bed = house.bed();
    let mut watch = bed.watch(Revision(0)).await;
    assert!(house.scope.close(Duration::from_secs(5)).await.is_empty());
    assert!(matches!(watch.batch().await, Err(Error::Closed)));
    assert!(matches!(bed.store.get(&bed.key("k")).await, Err(Error::Closed)));
}
