//! A real store that speaks S3 (SeaweedFS), and a door before it that can be shut, held or slammed.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::tools;

/// The keys that the store knows, as a file of keys has them.
pub const KEYS: &str =
    "[default]\naws_access_key_id = ninefold\naws_secret_access_key = not-a-secret-but-long-enough\n";

/// A store on loopback, gone when dropped.
#[derive(Debug)]
pub struct Weed {
    /// Where it takes S3.
    pub url: String,
    /// A file with [`KEYS`].
    pub keys: PathBuf,
    _child: Child,
    _folder: TempDir,
}

impl Weed {
    /// Starts it and waits until it answers. Buckets are made by whoever puts something there first.
    ///
    /// # Errors
    /// When it is not installed or does not come up.
    pub async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut ports = Vec::new();
        for _ in 0..8 {
            ports.push(tools::free_address()?.rsplit(':').next().unwrap_or_default().to_owned());
        }
        let identity = r#"{"identities":[{"name":"ninefold","actions":["Admin","Read","Write","List"],"credentials":
            [{"accessKey":"ninefold","secretKey":"not-a-secret-but-long-enough"}]}]}"#;
        std::fs::write(folder.path().join("s3.json"), identity)?;
        let keys = folder.path().join("keys");
        std::fs::write(&keys, KEYS)?;
        let data = folder.path().join("data");
        std::fs::create_dir(&data)?;
        let of = [
            "master.port",
            "master.port.grpc",
            "volume.port",
            "volume.port.grpc",
            "filer.port",
            "filer.port.grpc",
            "s3.port",
            "s3.port.grpc",
        ];
        let child = Command::new(tools::python("weed")?)
            .args(["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", "-s3.iam=false"])
            .args(["-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=16", "-master.volumeSizeLimitMB=64"])
            .arg(format!("-dir={}", data.display()))
            .arg(format!("-s3.config={}", folder.path().join("s3.json").display()))
            .args(of.iter().zip(&ports).map(|(name, port)| format!("-{name}={port}")))
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log"))?)
            .kill_on_drop(true)
            .spawn()
            .context("SeaweedFS does not start")?;
        let weed = Self { url: format!("http://127.0.0.1:{}", ports[6]), keys, _child: child, _folder: folder };
        let address = weed.url.trim_start_matches("http://").to_owned();
        // It listens before it can answer.
        crate::until("the store answers", Duration::from_secs(60), || async {
            Ok(answers(&address).await.unwrap_or(false))
        })
        .await?;
        Ok(weed)
    }

    /// A door before it.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn door(&self) -> Result<Door> {
        Door::before(self.url.trim_start_matches("http://").to_owned()).await
    }
}

async fn answers(address: &str) -> Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: store\r\nconnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut answer)).await??;
    Ok(answer.starts_with(b"HTTP/1.1 4") || answer.starts_with(b"HTTP/1.1 2"))
}

/// How a door stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    /// All goes through.
    Open,
    /// Who comes is sent away, and so is who is in.
    Shut,
    /// Who comes waits; nothing goes through any more.
    Held,
    /// A connection breaks after so many bytes to the store.
    Slams(u64),
}

/// A door before a server.
#[derive(Debug)]
pub struct Door {
    /// Where to knock.
    pub url: String,
    stands: watch::Sender<Stand>,
    slammed: Arc<AtomicU64>,
    _keeper: JoinSet<()>,
}

impl Door {
    /// A door before an address.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn before(behind: String) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let stands = watch::Sender::new(Stand::Open);
        let (seen, slammed) = (stands.subscribe(), Arc::new(AtomicU64::new(0)));
        let mut keeper = JoinSet::new();
        let count = slammed.clone();
        keeper.spawn(async move {
            let mut guests = JoinSet::new();
            while let Ok((guest, _)) = listener.accept().await {
                guests.spawn(through(guest, behind.clone(), seen.clone(), count.clone()));
                while guests.try_join_next().is_some() {}
            }
        });
        Ok(Self { url, stands, slammed, _keeper: keeper })
    }

    /// Makes it stand otherwise.
    pub fn stand(&self, stand: Stand) {
        self.stands.send_replace(stand);
    }

    /// How often it was slammed.
    pub fn slammed(&self) -> u64 {
        self.slammed.load(Ordering::Relaxed)
    }
}

async fn through(mut guest: TcpStream, behind: String, mut seen: watch::Receiver<Stand>, slammed: Arc<AtomicU64>) {
    let stand = *seen.borrow_and_update();
    match stand {
        Stand::Shut => return,
        Stand::Held => {
            let _ = seen.wait_for(|stand| *stand != Stand::Held).await;
            return;
        }
        Stand::Open | Stand::Slams(_) => {}
    }
    let Ok(mut server) = TcpStream::connect(behind).await else { return };
    let bytes_max = if let Stand::Slams(bytes) = stand { bytes } else { u64::MAX };
    let (mut from_guest, mut to_guest) = guest.split();
    let (mut from_server, mut to_server) = server.split();
    let mut limited = (&mut from_guest).take(bytes_max);
    let inward = async {
        let passed = tokio::io::copy(&mut limited, &mut to_server).await;
        if passed.is_ok_and(|passed| passed == bytes_max) {
            slammed.fetch_add(1, Ordering::Relaxed);
        }
    };
    tokio::select! {
        () = inward => {}
        _ = tokio::io::copy(&mut from_server, &mut to_guest) => {}
        _ = seen.wait_for(|now| *now != stand) => {}
    }
}
