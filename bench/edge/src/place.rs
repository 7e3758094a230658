//! Processes of this bench, and what the system says of them.

use std::io::BufRead as _;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result};

/// Ticks a second of the times in `/proc/PID/stat`, as Linux gives them to programs on every architecture of ours.
const TICKS_PER_SECOND: f64 = 100.0;

/// The processor that proxies have to themselves.
pub(crate) const OF_PROXIES: &str = "0";
/// The processor of all else.
pub(crate) const OF_OTHERS: &str = "1";

/// A process on one processor. Killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    out: std::io::BufReader<ChildStdout>,
}

impl Process {
    /// Starts a program on a processor, with a changed environment.
    pub(crate) fn start(processor: &str, words: &[&str], environment: &[(&str, &str)]) -> Result<Self> {
        let mut command = Command::new("taskset");
        command.args(["-c", processor]).args(words).envs(environment.iter().copied());
        let said = if std::env::var_os("BENCH_SAYS").is_some() { Stdio::inherit() } else { Stdio::null() };
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(said).spawn()?;
        let out = std::io::BufReader::new(child.stdout.take().context("its output is piped")?);
        Ok(Self { child, out })
    }

    /// Starts this program with a word, on the processor of all but proxies.
    pub(crate) fn own(words: &[&str], environment: &[(&str, &str)]) -> Result<Self> {
        let own = std::env::current_exe()?.display().to_string();
        Self::start(OF_OTHERS, &[&[own.as_str()], words].concat(), environment)
    }

    /// The next line that it prints.
    pub(crate) fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.out.read_line(&mut line)?;
        anyhow::ensure!(!line.is_empty(), "it ended without a word; BENCH_SAYS=1 shows what it said");
        Ok(line.trim().to_owned())
    }

    /// Its id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Seconds that a process has spent on the processors.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().context("a stat line")?.split_whitespace().collect();
    let ticks = fields.get(11).context("utime")?.parse::<f64>()? + fields.get(12).context("stime")?.parse::<f64>()?;
    Ok(ticks / TICKS_PER_SECOND)
}

/// Resident memory of a process in MB.
pub(crate) fn resident_mb(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? * 1024.0 / 1e6)
}

/// The middle one of some numbers.
pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}
