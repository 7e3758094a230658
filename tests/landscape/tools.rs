//! Programs of others that stories need: found in the folder that `./check` fills, or on the path.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// The folder that `./check` fills, if it says so.
fn folder() -> Option<PathBuf> {
    std::env::var_os("NINEFOLD_TOOLS").map(PathBuf::from)
}

/// A program of the Python environment of the tests, such as `python`.
///
/// # Errors
/// When it is not there.
pub fn python(program: &str) -> Result<PathBuf> {
    let root = folder().unwrap_or_else(|| repository().join(".check"));
    let path = root.join("venv/bin").join(program);
    if path.exists() { Ok(path) } else { bail!("{} is missing: run ./check once, which installs it", path.display()) }
}

/// A program that `./check` puts into the tools' own folder of programs, such as `h2spec`.
///
/// # Errors
/// When it is not there.
pub fn program(name: &str) -> Result<PathBuf> {
    let root = folder().unwrap_or_else(|| repository().join(".check"));
    let path = root.join("bin").join(name);
    if path.exists() { Ok(path) } else { bail!("{} is missing: run ./check once, which installs it", path.display()) }
}

/// The `node_modules` of the tests.
///
/// # Errors
/// When it is not there.
pub fn node_modules() -> Result<PathBuf> {
    let root = folder().unwrap_or_else(|| repository().join(".check"));
    let path = root.join("node_modules");
    if path.exists() { Ok(path) } else { bail!("{} is missing: run ./check once, which installs it", path.display()) }
}

/// Says that this machine cannot do what a test needs: in the test's output, and, where `./check` runs it, among what it
/// says last.
///
/// # Errors
/// When the folder of `./check` cannot be written.
#[expect(clippy::print_stdout, reason = "a run says what it skipped")]
pub fn skip(what: &str) -> Result<()> {
    println!("skipped: {what}");
    let Some(folder) = folder() else { return Ok(()) };
    let mut file = std::fs::File::options().create(true).append(true).open(folder.join("skips"))?;
    Ok(std::io::Write::write_all(&mut file, format!("{what}\n").as_bytes())?)
}

/// The repository's root.
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// An address on loopback that was free a moment ago, for programs that cannot pick one themselves.
///
/// # Errors
/// When there is none.
pub fn free_address() -> Result<String> {
    Ok(format!("127.0.0.1:{}", free_port()?))
}

/// An address at which nobody answers, for as long as this lives: its port is taken, and not listened on.
#[derive(Debug)]
pub struct Nobody {
    /// The URL.
    pub url: String,
    _socket: tokio::net::TcpSocket,
}

impl Nobody {
    /// Takes a port, so that no node of another test can be given it.
    ///
    /// # Errors
    /// When there is none.
    pub fn there() -> Result<Self> {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind("127.0.0.1:0".parse()?)?;
        Ok(Self { url: format!("http://{}", socket.local_addr()?), _socket: socket })
    }
}

/// A real etcd on loopback, gone when dropped.
#[derive(Debug)]
pub struct Etcd {
    /// Its client URL.
    pub url: String,
    peer_url: String,
    child: Child,
    data: TempDir,
}

impl Etcd {
    /// Starts etcd and waits until it takes connections.
    ///
    /// # Errors
    /// When it is not installed or does not come up.
    pub async fn start() -> Result<Self> {
        let data = tempfile::tempdir()?;
        let (client, peer) = (free_port()?, free_port()?);
        let url = format!("http://127.0.0.1:{client}");
        let peer_url = format!("http://127.0.0.1:{peer}");
        let child = Self::spawn(&url, &peer_url, &data)?;
        let etcd = Self { url, peer_url, child, data };
        etcd.until_ready().await?;
        Ok(etcd)
    }

    fn spawn(url: &str, peer_url: &str, data: &TempDir) -> Result<Child> {
        Command::new("etcd")
            .args(["--name", "one", "--listen-client-urls", url, "--advertise-client-urls", url])
            .args(["--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url])
            .args(["--initial-cluster", &format!("one={peer_url}"), "--data-dir"])
            .arg(data.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("etcd is not installed: apt-get install etcd-server, or run ./check")
    }

    async fn until_ready(&self) -> Result<()> {
        let address = self.url.trim_start_matches("http://");
        crate::until("etcd takes connections", Duration::from_secs(20), || async {
            Ok(TcpStream::connect(address).await.is_ok())
        })
        .await
    }

    /// Kills it as a power cut would.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub async fn kill(&mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Starts it again on its data, where it was.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn start_again(&mut self) -> Result<()> {
        self.child = Self::spawn(&self.url, &self.peer_url, &self.data)?;
        self.until_ready().await
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it has ended, which only its drop makes it do.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("etcd has not been waited for")
    }
}

/// Sends bytes as they are, and reads all that comes back until the server hangs up.
///
/// # Errors
/// When it does not hang up in 20 s.
pub async fn raw(server: &str, bytes: &str) -> Result<String> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(bytes.as_bytes()).await?;
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await??;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
