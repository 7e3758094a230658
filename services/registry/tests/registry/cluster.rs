//! A real etcd of one or more members, which may be killed, and come back.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ninefold::lifecycle::Scope;
use ninefold_store::{self as store, Backend, Store};
use tokio::process::{Child, Command};

/// Longest wait for a member to answer.
const READY_MAX: Duration = Duration::from_secs(30);

/// The etcd that the tests run: of the tools that `./check` installs, or else of the system.
fn program() -> PathBuf {
    let tools = std::env::var_os("NINEFOLD_TOOLS").map(|tools| PathBuf::from(tools).join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = tools.into_iter().chain(std::env::split_paths(&path)).map(|folder| folder.join("etcd"));
    found.find(|file| file.is_file()).expect("no etcd is found: install etcd-server or run ./check")
}

fn free_url() -> String {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    format!("http://127.0.0.1:{}", free.local_addr().expect("it has an address").port())
}

/// A member of a cluster, which goes with the value.
pub(crate) struct Etcd {
    pub(crate) url: String,
    name: String,
    peer_url: String,
    cluster: String,
    process: Child,
    folder: tempfile::TempDir,
}

impl Etcd {
    /// Starts a cluster of one.
    pub(crate) fn start() -> Self {
        Self::cluster(1).remove(0)
    }

    pub(crate) fn cluster(size: usize) -> Vec<Self> {
        let peers: Vec<_> = (0..size).map(|number| (format!("member-{number}"), free_url())).collect();
        let cluster: Vec<_> = peers.iter().map(|(name, peer_url)| format!("{name}={peer_url}")).collect();
        let member = |(name, peer_url): (String, String)| {
            let (url, cluster) = (free_url(), cluster.join(","));
            let folder = tempfile::tempdir().expect("a folder can be made");
            let process = spawn(&folder, &name, &url, &peer_url, &cluster);
            Self { url, name, peer_url, cluster, process, folder }
        };
        peers.into_iter().map(member).collect()
    }

    pub(crate) async fn kill(&mut self) {
        self.process.kill().await.expect("it can be killed");
    }

    /// Starts it again on its data, at its own URL.
    pub(crate) fn start_again(&mut self) {
        self.start_at(&self.url.clone());
    }

    /// Starts it again on its data, where nobody who knows its URL finds it.
    pub(crate) fn start_elsewhere(&mut self) -> String {
        let url = free_url();
        self.start_at(&url);
        url
    }

    fn start_at(&mut self, url: &str) {
        self.process = spawn(&self.folder, &self.name, url, &self.peer_url, &self.cluster);
    }
}

fn spawn(folder: &tempfile::TempDir, name: &str, url: &str, peer_url: &str, cluster: &str) -> Child {
    Command::new(program())
        .arg("--data-dir")
        .arg(folder.path())
        .args(["--name", name, "--listen-client-urls", url, "--advertise-client-urls", url])
        .args(["--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url])
        .args(["--initial-cluster", cluster])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("etcd starts")
}

fn config(urls: &[&str]) -> store::Config {
    let etcd = urls.iter().map(|&url| url.to_owned()).collect();
    store::Config { backend: Backend::Etcd, etcd, ..store::Config::default() }
}

/// Opens a cluster as one node does; waits until it answers.
pub(crate) async fn open(urls: &[&str], scope: &Scope) -> Arc<dyn Store> {
    let begin = Instant::now();
    loop {
        match store::open(&config(urls), scope).await {
            Ok(store) => return store,
            Err(error) => assert!(begin.elapsed() < READY_MAX, "etcd does not answer: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Opens a cluster that is away.
pub(crate) async fn open_away(urls: &[&str], scope: &Scope) -> Arc<dyn Store> {
    let (store, away) = store::open_anyway(&config(urls), scope).await.expect("it is opened all the same");
    assert!(away.is_some(), "it is away");
    store
}

/// Throws away the history of a cluster.
pub(crate) async fn compact(url: &str) {
    let mut client = etcd_client::Client::connect([url], None).await.expect("etcd can be reached");
    let status = client.get("/", None).await.expect("etcd answers");
    let revision = status.header().expect("an answer has a header").revision();
    client.compact(revision, None).await.expect("it can be compacted");
}
