//! Two nodes on a real etcd.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ninefold::lifecycle::Scope;
use ninefold_registry::Config;
use ninefold_store::{self as store, Backend, Store};
use tokio::process::{Child, Command};

use crate::house::House;

/// The etcd that the tests run: of the tools that `./check` installs, or else of the system.
fn program() -> PathBuf {
    let tools = std::env::var_os("NINEFOLD_TOOLS").map(|tools| PathBuf::from(tools).join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = tools.into_iter().chain(std::env::split_paths(&path)).map(|folder| folder.join("etcd"));
    found.find(|file| file.is_file()).expect("no etcd is found: install etcd-server or run ./check")
}

fn free_ports() -> [u16; 2] {
    let bind = |()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    [(); 2].map(bind).map(|free| free.local_addr().expect("it has an address").port())
}

/// A real etcd of one member, which goes with the value.
struct Etcd {
    url: String,
    _process: Child,
    _folder: tempfile::TempDir,
}

impl Etcd {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let [url, peer] = free_ports().map(|port| format!("http://127.0.0.1:{port}"));
        let process = Command::new(program())
            .arg("--data-dir")
            .arg(folder.path())
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("etcd starts");
        Self { url, _process: process, _folder: folder }
    }

    /// Opens it as one node does; waits until it answers.
    async fn open(&self, scope: &Scope) -> Arc<dyn Store> {
        let config = store::Config { backend: Backend::Etcd, etcd: vec![self.url.clone()], ..store::Config::default() };
        let begin = Instant::now();
        loop {
            match store::open(&config, scope).await {
                Ok(store) => return store,
                Err(error) => assert!(begin.elapsed() < Duration::from_secs(30), "etcd does not answer: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_agree_through_etcd_and_one_may_die() {
    let etcd = Etcd::start();
    let scope = Scope::root("stores");
    let config = Config { lease: Duration::from_secs(2), ..Config::default() };
    let first = House::on("node-1", etcd.open(&scope).await, config.clone()).await;
    let second = House::on("node-2", etcd.open(&scope).await, config).await;
    let mut watch = second.watch(&[]).await;
    let (stays, dies) = (first.join("pump", "p-1").await, first.join("pump", "p-2").await);
    let leaves = second.join("pump", "p-3").await;
    watch.until(&["p-1 SERVING", "p-2 SERVING", "p-3 SERVING"]).await;
    leaves.leave("done").await;
    first.until("pump", &["p-1 SERVING", "p-2 SERVING"]).await;

    first.stop().await;
    drop((stays, dies));
    let back = second.join("pump", "p-1").await;
    watch.until(&["p-1 SERVING"]).await;
    assert_eq!(second.story("pump").await.last().unwrap(), "p-2 EXPIRED its lease ran out");
    assert_eq!(watch.removed, 2, "p-1 was never away");
    back.leave("done").await;
    watch.until(&[]).await;
    second.stop().await;
    scope.close(Duration::from_secs(5)).await;
}
