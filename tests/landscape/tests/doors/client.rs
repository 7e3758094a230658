//! Clients in other languages, told what to do line by line.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use tests_landscape::{Landscape, ninefold, tools};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Longest wait for an answer. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(90);

/// A program that calls.
pub(crate) struct Client {
    _child: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    said: PathBuf,
    _folder: tempfile::TempDir,
}

/// What became of calls.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Tally {
    /// Good answers, by who answered.
    #[serde(default)]
    pub(crate) by: BTreeMap<String, u64>,
    /// Failures, by code.
    #[serde(default)]
    pub(crate) failed: BTreeMap<String, u64>,
    /// What the first failures said.
    #[serde(default)]
    #[expect(dead_code, reason = "it is shown where a test fails")]
    pub(crate) words: Vec<String>,
    /// How long all took.
    #[serde(default)]
    pub(crate) seconds: f64,
}

impl Tally {
    /// Good answers.
    pub(crate) fn good(&self) -> u64 {
        self.by.values().sum()
    }

    /// Failures.
    pub(crate) fn bad(&self) -> u64 {
        self.failed.values().sum()
    }
}

/// The folder of the clients.
fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("doors")
}

/// Libraries that speak xDS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Library {
    /// grpcio, on gRPC's C core.
    Python,
    /// grpc-js, with grpc-js-xds.
    Node,
}

impl Client {
    /// Starts a client that calls `xds:///SERVICE` with a bootstrap that the binary printed.
    pub(crate) async fn xds(library: Library, house: &Landscape, service: &str, zone: &str) -> Result<Self> {
        Self::xds_with(library, house, service, &["--zone", zone]).await
    }

    /// As [`Client::xds`], with more to say to `ninefold xds bootstrap`.
    pub(crate) async fn xds_with(library: Library, house: &Landscape, service: &str, form: &[&str]) -> Result<Self> {
        let node = format!("{library:?}-client").to_lowercase();
        let mut command = ninefold("xds", &["bootstrap", "--node", &node])?;
        command.args(["--endpoint", &house.endpoint()]).args(form);
        let bootstrap = tests_landscape::ended(command).await?;
        ensure!(bootstrap.code == 0, "{bootstrap:?}");
        let mut command = match library {
            Library::Python => {
                let mut command = Command::new(tools::python("python")?);
                command.arg(folder().join("xds_client.py"));
                command
            }
            Library::Node => {
                let mut command = Command::new("node");
                command.arg(folder().join("xds_client.js")).env("NODE_PATH", tools::node_modules()?);
                command
            }
        };
        command.arg(format!("xds:///{service}")).env("GRPC_XDS_BOOTSTRAP_CONFIG", bootstrap.stdout);
        Self::start(command)
    }

    /// Starts a client that calls an address, in the name of a service.
    pub(crate) fn plain(address: &str, authority: &str) -> Result<Self> {
        let mut command = Command::new(tools::python("python")?);
        command.arg(folder().join("xds_client.py")).args([address, authority]);
        Self::start(command)
    }

    fn start(mut command: Command) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let said = folder.path().join("said");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(std::fs::File::create(&said)?).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
        let commands = child.stdin.take().context("piped")?;
        let answers = BufReader::new(child.stdout.take().context("piped")?).lines();
        Ok(Self { _child: child, commands, answers, said, _folder: folder })
    }

    async fn ask(&mut self, command: String) -> Result<Tally> {
        self.commands.write_all(format!("{command}\n").as_bytes()).await?;
        let answer = tokio::time::timeout(PATIENCE, self.answers.next_line()).await;
        let said = || std::fs::read_to_string(&self.said).unwrap_or_default();
        let line = answer.with_context(said)??.with_context(said)?;
        serde_json::from_str(&line).with_context(|| line.clone())
    }

    /// Calls one after the other.
    pub(crate) async fn calls(&mut self, count: u32) -> Result<Tally> {
        self.ask(format!("calls {count}")).await
    }

    /// Calls at once.
    pub(crate) async fn flood(&mut self, count: u32) -> Result<Tally> {
        self.ask(format!("flood {count}")).await
    }

    /// Begins to call steadily.
    pub(crate) async fn begin(&mut self) -> Result<()> {
        self.ask("begin".to_owned()).await.map(drop)
    }

    /// Ends the steady calls; tells what became of them.
    pub(crate) async fn end(&mut self) -> Result<Tally> {
        self.ask("end".to_owned()).await
    }

    /// What the program said to people.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap_or_default()
    }
}
