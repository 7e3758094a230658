//! The node that is measured: its own process, with what the kernel says of it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tonic::transport::Channel;

/// Ticks a second of the times in `/proc/PID/stat`, as Linux gives them to programs on every architecture of ours.
const TICKS_PER_SECOND: f64 = 100.0;
/// Longest time for a node to end.
const END_WITHIN: Duration = Duration::from_secs(60);

/// A node that runs.
pub(crate) struct Node {
    child: Child,
    pid: u32,
    facts: Value,
}

impl Node {
    /// Starts one on a folder.
    pub(crate) async fn start(binary: &Path, data: &Path) -> Result<Self> {
        let mut command = Command::new(binary);
        command.args(["up", "-o", "json", "--data"]).arg(data);
        for flag in ["--edge-listen", "--listen", "--otlp-grpc-listen", "--otlp-http-listen"] {
            command.args([flag, "127.0.0.1:0"]);
        }
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("piped")?).read_line(&mut line).await?;
        ensure!(!line.is_empty(), "the node ended before it was ready");
        let pid = child.id().context("the node runs")?;
        Ok(Self { child, pid, facts: serde_json::from_str(&line)? })
    }

    /// A connection to one of its doors.
    pub(crate) async fn door(&self, name: &str) -> Result<Channel> {
        let address = self.facts[name].as_str().context("the node tells its addresses")?;
        Ok(Channel::from_shared(format!("http://{address}"))?.connect().await?)
    }

    /// Ends it as an operator does, so that nothing is left to be read again from its journal.
    pub(crate) async fn end(mut self) -> Result<()> {
        let killed = Command::new("kill").arg(self.pid.to_string()).status().await?;
        ensure!(killed.success(), "the node was told to end");
        tokio::time::timeout(END_WITHIN, self.child.wait()).await.context("the node did not end")??;
        Ok(())
    }

    /// Processor time that it has used, in seconds.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        let fields: Vec<&str> = stat.rsplit(')').next().context("a stat line")?.split_whitespace().collect();
        let ticks =
            fields.get(11).context("utime")?.parse::<f64>()? + fields.get(12).context("stime")?.parse::<f64>()?;
        Ok(ticks / TICKS_PER_SECOND)
    }

    /// Bytes that it has read of files, from the disk or from the kernel's memory of it.
    pub(crate) fn read_bytes(&self) -> Result<u64> {
        let told = std::fs::read_to_string(format!("/proc/{}/io", self.pid))?;
        let line = told.lines().find_map(|line| line.strip_prefix("rchar: ")).context("a line of reads")?;
        Ok(line.trim().parse()?)
    }

    /// Memory in MB: `VmRSS` now, `VmHWM` at the most.
    pub(crate) fn memory_mb(&self, what: &str) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix(what)).context("a line of memory")?;
        let kib: f64 = line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024.0 / 1e6)
    }
}

/// Bytes of the files in a folder whose paths have a text in them.
pub(crate) fn bytes_of(folder: &Path, part: &str) -> Result<u64> {
    let (mut bytes, mut folders) = (0, vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().contains(part) {
                bytes += path.metadata()?.len();
            }
        }
    }
    Ok(bytes)
}
