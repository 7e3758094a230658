//! What the stories share: a landscape started from the real binary on free ports and in a temporary folder, the user's
//! tools (the binary's own commands, HTTP), and waiting for what is to come true.

pub mod authority;
pub mod bucket;
pub mod http;
pub mod load;
pub mod python;
pub mod tools;

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// Longest wait for a node, or the sample landscape, to be ready. Generous: the machine may be busy.
const READY_MAX: Duration = Duration::from_secs(60);
/// Longest wait for everything to stop.
const STOP_MAX: Duration = Duration::from_secs(30);
/// What says where a node listens.
const FLAGS: [&str; 4] = ["--edge-listen", "--listen", "--otlp-grpc-listen", "--otlp-http-listen"];
/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A node of the platform, and all it started.
#[derive(Debug)]
pub struct Landscape {
    child: Child,
    facts: Value,
    folder: TempDir,
    around: Surroundings,
    /// What the node was started with, beside its addresses.
    arguments: Vec<String>,
}

/// What a node runs in, where that is not what the test runs in.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// A command that the node, and every command that asks it, is an argument of, such as `ip netns exec NAME`. It must
    /// become the node, not start it.
    pub within: Vec<String>,
    /// Variables of the node alone.
    pub variables: Vec<(String, String)>,
}

impl Surroundings {
    fn ninefold(&self, verb: &str, arguments: &[&str]) -> Result<Command> {
        let Some((program, rest)) = self.within.split_first() else { return ninefold(verb, arguments) };
        let mut command = clean(program);
        command.args(rest).arg(binary()?).arg(verb).args(arguments);
        Ok(command)
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code.
    pub code: i32,
    /// What it printed as data.
    pub stdout: String,
    /// What it printed as talk.
    pub stderr: String,
}

impl Landscape {
    /// Starts the platform with the sample landscape, and waits until it serves.
    ///
    /// # Errors
    /// When it does not come up; the text holds what it said.
    pub async fn demo(arguments: &[&str]) -> Result<Self> {
        let mut landscape = Self::start("demo", arguments).await?;
        let line = landscape.line().await.context("the demo never said that it is ready")?;
        ensure!(line["ready"] == true, "the demo said {line} instead of being ready");
        Ok(landscape)
    }

    /// Starts the platform alone.
    ///
    /// # Errors
    /// As [`Landscape::demo`].
    pub async fn up(arguments: &[&str]) -> Result<Self> {
        Self::start("up", arguments).await
    }

    /// Starts the platform alone, in other surroundings than the test's.
    ///
    /// # Errors
    /// As [`Landscape::demo`].
    pub async fn up_in(around: Surroundings, arguments: &[&str]) -> Result<Self> {
        Self::start_in(tempfile::tempdir()?, around, "up", arguments).await
    }

    /// Starts the platform alone, with settings as a file has them. They hold when it is killed and started anew.
    ///
    /// # Errors
    /// As [`Landscape::demo`].
    pub async fn up_with(settings: &str) -> Result<Self> {
        Self::up_with_and(settings, &[]).await
    }

    /// As [`Landscape::up_with`], with more on the command line.
    ///
    /// # Errors
    /// As [`Landscape::demo`].
    pub async fn up_with_and(settings: &str, arguments: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("ninefold.toml");
        std::fs::write(&file, settings)?;
        let file = file.display().to_string();
        Self::start_in(folder, Surroundings::default(), "up", &[&["--config", &file], arguments].concat()).await
    }

    async fn start(verb: &str, arguments: &[&str]) -> Result<Self> {
        Self::start_in(tempfile::tempdir()?, Surroundings::default(), verb, arguments).await
    }

    /// Kills a node that was started with `up`, and starts another on its data.
    ///
    /// # Errors
    /// When it does not come up again.
    pub async fn restart_after_kill(mut self) -> Result<Self> {
        self.child.kill().await?;
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        Self::start_in(self.folder, self.around, "up", &arguments).await
    }

    /// Kills a node that was started with `up`, and starts another on its data and its addresses.
    ///
    /// # Errors
    /// When it does not come up again.
    pub async fn restart_where_it_was(mut self) -> Result<Self> {
        let was = ["edge", "platform", "otlpGrpc", "otlpHttp"].map(|which| self.address(which));
        self.child.kill().await?;
        let addresses = FLAGS.into_iter().zip(&was).flat_map(|(flag, address)| [flag, address.as_str()]);
        let arguments: Vec<&str> = addresses.chain(self.arguments.iter().map(String::as_str)).collect();
        Self::start_in(self.folder, self.around, "up", &arguments).await
    }

    /// Has another process take the place of a node that was started with `up`; checks that the one before ends well.
    ///
    /// # Errors
    /// When the other does not come up, or the one before does not end.
    pub async fn handed_over(mut self) -> Result<Self> {
        let was = ["edge", "platform", "otlpGrpc", "otlpHttp"].map(|which| self.address(which));
        let addresses = FLAGS.into_iter().zip(&was).flat_map(|(flag, address)| [flag, address.as_str()]);
        let before = self.arguments.iter().map(String::as_str).filter(|argument| *argument != "--take-over");
        let mut arguments: Vec<&str> = addresses.chain(before).collect();
        arguments.push("--take-over");
        let next = Self::start_in(self.folder, self.around, "up", &arguments).await?;
        let status = tokio::time::timeout(STOP_MAX, self.child.wait()).await;
        let status = status.with_context(|| format!("the node before does not end; they said:\n{}", next.said()))??;
        ensure!(status.success(), "the node before ended with {status}; they said:\n{}", next.said());
        Ok(next)
    }

    /// The node's data folder.
    pub fn data(&self) -> String {
        self.folder.path().join("data").display().to_string()
    }

    async fn start_in(folder: TempDir, around: Surroundings, verb: &str, arguments: &[&str]) -> Result<Self> {
        let mut command = around.ninefold(verb, arguments)?;
        command.envs(around.variables.iter().map(|(name, value)| (name, value)));
        for flag in FLAGS {
            if !arguments.contains(&flag) {
                command.args([flag, "127.0.0.1:0"]);
            }
        }
        command.arg("--data").arg(folder.path().join("data")).args(["-o", "json"]);
        // What the node says on stderr goes to a file: a full pipe would stop it, and a failed test wants to show it.
        let said = std::fs::File::create(folder.path().join("stderr"))?;
        command.stdout(Stdio::piped()).stderr(said).kill_on_drop(true);
        let child = command.spawn()?;
        let mut landscape = Self { child, facts: Value::Null, folder, around, arguments: without_addresses(arguments) };
        landscape.facts = landscape.line().await?;
        Ok(landscape)
    }

    /// The next line of JSON that the node prints.
    async fn line(&mut self) -> Result<Value> {
        let stdout = self.child.stdout.take().context("stdout is read by one at a time")?;
        let mut reader = BufReader::with_capacity(1, stdout);
        let mut line = String::new();
        let read = tokio::time::timeout(READY_MAX, reader.read_line(&mut line)).await;
        self.child.stdout = Some(reader.into_inner());
        match read {
            Ok(Ok(bytes)) if bytes > 0 => Ok(serde_json::from_str(&line).with_context(|| line.clone())?),
            outcome => bail!("the node printed no line ({outcome:?}); it said:\n{}", self.said()),
        }
    }

    /// What the node said to people so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }

    /// Process id of the node.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the node has not been waited for")
    }

    /// An address of the node: `edge`, `platform`, `otlpGrpc`, `otlpHttp`, or `dns` where it is answered.
    pub fn address(&self, which: &str) -> String {
        self.facts[which].as_str().expect("the node prints its addresses").to_owned()
    }

    /// URL of the platform.
    pub fn endpoint(&self) -> String {
        let scheme = if self.facts["tls"] == true { "https" } else { "http" };
        let address = self.address("platform");
        format!(
            "{scheme}://{}",
            address.strip_prefix("0.0.0.0").map_or(address.clone(), |port| format!("localhost{port}"))
        )
    }

    /// The file with the first administrator's token; empty where nobody is asked for one.
    pub fn admin_token(&self) -> String {
        self.facts["adminToken"].as_str().unwrap_or_default().to_owned()
    }

    /// Asks the edge with GET.
    ///
    /// # Errors
    /// When no whole answer comes.
    pub async fn get(&self, path: &str) -> Result<http::Answer> {
        http::request(&self.address("edge"), "GET", path, &[], None).await
    }

    /// Runs a command of the binary against this node; answers its data as JSON.
    ///
    /// # Errors
    /// When it ends with another code than 0.
    pub async fn ask(&self, arguments: &[&str]) -> Result<Value> {
        let ended = self.run(arguments).await?;
        ensure!(ended.code == 0, "{arguments:?} ended with {}: {}", ended.code, ended.stderr);
        serde_json::from_str(&ended.stdout).with_context(|| format!("{arguments:?} printed {}", ended.stdout))
    }

    /// Runs a command of the binary against this node, whatever its end.
    ///
    /// # Errors
    /// When it cannot be run.
    pub async fn run(&self, arguments: &[&str]) -> Result<Ended> {
        self.run_as(&[("NINEFOLD_TOKEN_FILE", &self.admin_token())], arguments).await
    }

    /// Runs a command of the binary against this node with these variables, such as `NINEFOLD_TOKEN_FILE`.
    ///
    /// # Errors
    /// When it cannot be run.
    pub async fn run_as(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Result<Ended> {
        let (verb, rest) = arguments.split_first().context("a command has a verb")?;
        let mut command = self.around.ninefold(verb, rest)?;
        command.args(["-o", "json", "--endpoint", &self.endpoint()]).envs(variables.iter().copied());
        ended(command).await
    }

    /// Instances of a service as `ps` shows them; of all for an empty name.
    ///
    /// # Errors
    /// As [`Landscape::ask`].
    pub async fn instances(&self, service: &str) -> Result<Vec<Value>> {
        let view = self.ask(&["ps"]).await?;
        let instances = view["instances"].as_array().cloned().unwrap_or_default();
        Ok(instances.into_iter().filter(|instance| service.is_empty() || instance["service"] == service).collect())
    }

    /// How many instances of a service serve.
    ///
    /// # Errors
    /// As [`Landscape::ask`].
    pub async fn serving(&self, service: &str) -> Result<usize> {
        let instances = self.instances(service).await?;
        Ok(instances.iter().filter(|instance| instance["state"] == "INSTANCE_STATE_SERVING").count())
    }

    /// Process ids of a service's slots, as the control loop knows them.
    ///
    /// # Errors
    /// As [`Landscape::ask`].
    pub async fn pids(&self, service: &str) -> Result<Vec<u32>> {
        let view = self.ask(&["ps"]).await?;
        let workloads = view["workloads"].as_array().cloned().unwrap_or_default();
        let slots = workloads.iter().filter(|status| service.is_empty() || status["workload"]["service"] == service);
        let pids = slots.flat_map(|status| status["slots"].as_array().cloned().unwrap_or_default());
        Ok(pids.filter_map(|slot| slot["pid"].as_u64()).filter_map(|pid| u32::try_from(pid).ok()).collect())
    }

    /// Kills the node as a power cut would.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub async fn kill(mut self) -> Result<()> {
        self.child.kill().await?;
        Ok(())
    }

    /// Stops the node as Ctrl-C would, and checks that it ends well and leaves no process behind.
    ///
    /// # Errors
    /// When it does not.
    pub async fn stop(mut self) -> Result<()> {
        let children = self.pids("").await.unwrap_or_default();
        signal(self.pid(), Signal::INT)?;
        let status = tokio::time::timeout(STOP_MAX, self.child.wait()).await.context("the node does not stop")??;
        ensure!(status.success(), "the node ended with {status}; it said:\n{}", self.said());
        for pid in children {
            ensure!(!is_alive(pid), "process {pid} was left behind; the node said:\n{}", self.said());
        }
        Ok(())
    }
}

/// The arguments that say nothing of where a node listens.
fn without_addresses(arguments: &[&str]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if FLAGS.contains(argument) {
            rest.next();
        } else {
            kept.push((*argument).to_owned());
        }
    }
    kept
}

/// Sends a signal to a process that a test started.
///
/// # Errors
/// When it is gone.
pub fn signal(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a process id is positive")?;
    Ok(kill_process(pid, signal)?)
}

/// Whether a process is there and not merely waiting to be reaped.
pub fn is_alive(pid: u32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')),
        Err(_) => false,
    }
}

/// Resident memory of a process, in mebibytes.
///
/// # Errors
/// When it is gone.
pub fn resident_mib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("it has memory")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? / 1024)
}

/// Waits until a condition holds.
///
/// # Errors
/// When it does not hold within `within`; the text is the last thing that was seen.
pub async fn until<F>(what: &str, within: Duration, mut look: impl FnMut() -> F) -> Result<()>
where
    F: Future<Output = Result<bool>>,
{
    let end = Instant::now() + within;
    loop {
        let seen = look().await;
        if matches!(seen, Ok(true)) {
            return Ok(());
        }
        if Instant::now() >= end {
            bail!("not within {within:?}: {what} ({seen:?})");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The binary with a verb, in a clean environment.
///
/// # Errors
/// When it is not built.
pub fn ninefold(verb: &str, arguments: &[&str]) -> Result<Command> {
    let mut command = clean(binary()?);
    command.arg(verb).args(arguments);
    Ok(command)
}

/// A program in a clean environment, gone when dropped.
fn clean(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("NINEFOLD_") || name.to_string_lossy().starts_with("OTEL_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs a command to its end, at most 60 s.
///
/// # Errors
/// When it cannot be run or does not end.
pub async fn ended(mut command: Command) -> Result<Ended> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (mut out, mut err) = (child.stdout.take().context("piped")?, child.stderr.take().context("piped")?);
    let (mut stdout, mut stderr) = (String::new(), String::new());
    let all = async { tokio::join!(out.read_to_string(&mut stdout), err.read_to_string(&mut stderr), child.wait()) };
    let (_, _, status) = tokio::time::timeout(READY_MAX, all).await.context("the command does not end")?;
    Ok(Ended { code: status?.code().unwrap_or(-1), stdout, stderr })
}

/// Where the binary was built: beside the tests, or where `NINEFOLD_BINARY` says.
///
/// # Errors
/// When it is not there.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("NINEFOLD_BINARY") {
        return Ok(path.into());
    }
    let test = std::env::current_exe()?;
    let profile = test.ancestors().nth(2).context("a test lies in target/<profile>/deps")?;
    let path = profile.join("ninefold");
    ensure!(path.exists(), "{} is not built: run `cargo build -p ninefold-cli`, or ./check", path.display());
    Ok(path)
}
