//! Programs as child processes: started in a process group of their own, their output always read, asked to leave, then
//! killed with all they started.
//!
//! No process outlives its holder: dropping or closing whatever owns a [`Process`] ends it, and on Linux it gets SIGTERM
//! even when this process is killed. One limit: a program that ignores SIGTERM outlives a holder that was killed with
//! SIGKILL, which leaves nobody to count its grace time.

mod family;
mod parent_death;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ninefold::lifecycle::{Scope, Stop};
use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::error::Error;
use crate::lines::{Line, LineSink, Output, Tail, pump};

/// Starts that may wait for the thread that starts processes.
const STARTS_QUEUED_MAX: usize = 16;
/// How long what a program left behind in its group may stay after it ended by itself.
const STRAGGLERS_GRACE: Duration = Duration::from_secs(1);
/// How long the rest of a program's output is read after its end; a process that left the group may hold the pipe.
const OUTPUT_GRACE: Duration = Duration::from_millis(500);
/// How often a group is looked at while it is to become empty.
const GROUP_POLL: Duration = Duration::from_millis(10);

/// What to start.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Service of the instance.
    pub service: String,
    /// Id of the instance.
    pub instance_id: String,
    /// Program and arguments, the program first.
    pub command: Vec<String>,
    /// Variables set for the program.
    pub environment: BTreeMap<String, String>,
    /// Variables of this process that the program is not to see, unless set above.
    pub withheld: Vec<String>,
    /// Folder to run in; this process's own if none is given.
    pub working_directory: Option<PathBuf>,
    /// How long the program may take to leave when its scope closes.
    pub grace: Duration,
    /// Whether the program exports its logs through the SDK; told to the [`LineSink`].
    pub delivers: bool,
}

/// Starts processes. Clones are the same spawner.
///
/// All are started by one thread that lives as long as a spawner or a process does: Linux sends the parent-death signal
/// when the *thread* that started a child ends, and threads of a pool come and go.
#[derive(Clone, Debug)]
pub struct Spawner {
    orders: mpsc::Sender<Order>,
    scope: Scope,
}

#[derive(Debug)]
struct Order {
    command: Command,
    answer: oneshot::Sender<std::io::Result<Child>>,
}

impl Spawner {
    /// Starts the thread. The tasks that hold processes belong to `scope`; closing it stops them.
    ///
    /// # Errors
    /// [`Error::Unstartable`] if the system gives no thread.
    pub fn start(scope: &Scope) -> Result<Self, Error> {
        let (orders, mut orders_seen) = mpsc::channel::<Order>(STARTS_QUEUED_MAX);
        let runtime = tokio::runtime::Handle::current();
        std::thread::Builder::new()
            .name("ninefold-spawn".into())
            .spawn(move || {
                while let Some(mut order) = orders_seen.blocking_recv() {
                    let _entered = runtime.enter();
                    // Nobody waits any more: the child is killed as it is dropped.
                    let _ = order.answer.send(order.command.spawn());
                }
            })
            .map_err(Error::Unstartable)?;
        Ok(Self { orders, scope: scope.clone() })
    }

    /// Starts a program. Cancelling leaves no process behind.
    ///
    /// # Errors
    /// [`Error::Program`] if the system cannot start it; [`Error::Unstartable`] if the thread is gone.
    pub async fn spawn(&self, spec: Spec, lines: Arc<dyn LineSink>) -> Result<Process, Error> {
        let program = spec.command.first().cloned().unwrap_or_default();
        let (answer, answered) = oneshot::channel();
        let gone = || Error::Unstartable(std::io::Error::other("the thread that starts processes has ended"));
        let order = Order { command: command(&spec), answer };
        self.orders.send(order).await.map_err(|_| gone())?;
        let child = answered
            .await
            .map_err(|_| gone())?
            .map_err(|source| Error::Program { program: program.clone(), source })?;
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let pid =
            pid.ok_or_else(|| Error::Program { program, source: std::io::Error::other("it has no process id") })?;
        let (asks, asked) = watch::channel(None);
        let (tells, ended) = watch::channel(None);
        let group = Group(Some(pid));
        let held = Held { spec, child, group, pid, asked, lines, _spawner: self.clone() };
        self.scope.run("control.hold_process", |stop| async move {
            let last = held.until_ended(&stop).await;
            tells.send_replace(Some(last));
        });
        Ok(Process { pid: pid.as_raw_nonzero().get().unsigned_abs(), asks, ended })
    }
}

fn command(spec: &Spec) -> Command {
    let mut words = spec.command.iter();
    let mut command = Command::new(words.next().map_or("", String::as_str));
    command.args(words);
    for name in &spec.withheld {
        command.env_remove(name);
    }
    command.envs(&spec.environment);
    if let Some(folder) = &spec.working_directory {
        command.current_dir(folder);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    parent_death::arm(&mut command);
    command
}

/// A running program. Dropping it stops the program with its spec's grace.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    asks: watch::Sender<Option<Duration>>,
    ended: watch::Receiver<Option<Ended>>,
}

impl Process {
    /// The process id, which is that of its group as well.
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Asks the program to leave: SIGTERM to its group now, SIGKILL after `grace`. Asking again with a shorter grace
    /// shortens it.
    pub fn stop(&self, grace: Duration) {
        self.asks.send_replace(Some(grace));
    }

    /// A wait for the end of the program and of all that was in its group. Cancel safe.
    pub fn ended(&self) -> impl Future<Output = Ended> + Send + use<> {
        let mut ended = self.ended.clone();
        async move {
            match ended.wait_for(Option::is_some).await {
                Ok(told) => told.clone().expect("waited for"),
                // Its holder was dropped at the end of its scope's deadline, and killed it.
                Err(_) => Ended { exit: Exit::Unknown, step: Step::Killed, last_word: None },
            }
        }
    }
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// What the system said of it.
    pub exit: Exit,
    /// What it took.
    pub step: Step,
    /// The last line it printed, on standard error if it printed any there.
    pub last_word: Option<String>,
}

impl fmt::Display for Ended {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.exit)?;
        match (&self.step, &self.last_word) {
            (Step::ByItself, Some(word)) => write!(formatter, ": {word}"),
            (Step::ByItself, None) => Ok(()),
            (Step::Asked, _) => write!(formatter, " after SIGTERM"),
            (Step::Killed, _) => write!(formatter, " after its grace time"),
        }
    }
}

/// What the system says of an ended process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It ended with a code.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// Nobody can say.
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "exited with code {code}"),
            Self::Signal(signal) => match signal_name(*signal) {
                Some(name) => write!(formatter, "ended by signal {signal} ({name})"),
                None => write!(formatter, "ended by signal {signal}"),
            },
            Self::Unknown => write!(formatter, "ended"),
        }
    }
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Unknown,
        }
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    let names = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::TERM, "SIGTERM"),
    ];
    names.iter().find(|(known, _)| known.as_raw() == signal).map(|(_, name)| *name)
}

/// What it took to end a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nobody asked it to.
    ByItself,
    /// SIGTERM was enough.
    Asked,
    /// It was killed after its grace time.
    Killed,
}

/// Kills its group when it is dropped before the group has ended.
#[derive(Debug)]
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
    }
}

struct Held {
    spec: Spec,
    child: Child,
    group: Group,
    pid: Pid,
    asked: watch::Receiver<Option<Duration>>,
    lines: Arc<dyn LineSink>,
    /// Keeps the thread that started the child.
    _spawner: Spawner,
}

impl Held {
    async fn until_ended(mut self, stop: &Stop) -> Ended {
        let tail = Tail::default();
        let read = futures_util::future::join(
            read(self.child.stdout.take(), Output::Stdout, &self.spec, &*self.lines, &tail),
            read(self.child.stderr.take(), Output::Stderr, &self.spec, &*self.lines, &tail),
        );
        let mut read = std::pin::pin!(read);
        let mut all_read = false;
        let (exit, step) = {
            let life = live(&mut self.child, self.pid, &mut self.asked, self.spec.grace, stop);
            let mut life = std::pin::pin!(life);
            loop {
                tokio::select! {
                    end = &mut life => break end,
                    _ = &mut read, if !all_read => all_read = true,
                }
            }
        };
        self.group.0 = None;
        if !all_read {
            let _ = tokio::time::timeout(OUTPUT_GRACE, read).await;
        }
        Ended { exit, step, last_word: tail.last_word() }
    }
}

async fn read(
    source: Option<impl tokio::io::AsyncRead + Unpin>,
    output: Output,
    spec: &Spec,
    lines: &dyn LineSink,
    tail: &Tail,
) {
    let Some(source) = source else { return };
    pump(source, |text| {
        tail.push(output, text);
        lines.line(Line {
            service: &spec.service,
            instance_id: &spec.instance_id,
            output,
            time: SystemTime::now(),
            text,
            delivers: spec.delivers,
        });
    })
    .await;
}

/// Waits for the end of a program and of its group; asks it to leave, and kills it, when it is time.
async fn live(
    child: &mut Child,
    pid: Pid,
    asked: &mut watch::Receiver<Option<Duration>>,
    grace: Duration,
    stop: &Stop,
) -> (Exit, Step) {
    let first_grace = tokio::select! {
        status = child.wait() => {
            let exit = status.map_or(Exit::Unknown, Exit::from);
            empty_group(pid, Instant::now() + STRAGGLERS_GRACE).await;
            return (exit, Step::ByItself);
        }
        asked = ask(asked) => asked.unwrap_or(grace),
        () = stop.asked() => grace,
    };
    let _ = rustix::process::kill_process_group(pid, Signal::TERM);
    let begin = Instant::now();
    let mut end = begin + first_grace;
    let mut is_held = true;
    loop {
        tokio::select! {
            status = child.wait() => {
                empty_group(pid, end).await;
                return (status.map_or(Exit::Unknown, Exit::from), Step::Asked);
            }
            again = ask(asked), if is_held => match again {
                Some(grace) => end = end.min(begin + grace),
                None => is_held = false,
            },
            () = tokio::time::sleep_until(end) => break,
        }
    }
    family::kill(pid).await;
    let status = child.wait().await;
    empty_group(pid, Instant::now()).await;
    (status.map_or(Exit::Unknown, Exit::from), Step::Killed)
}

/// Waits until the program is asked to leave, and answers the grace; `None` when nobody is left who could ask.
async fn ask(asked: &mut watch::Receiver<Option<Duration>>) -> Option<Duration> {
    asked.changed().await.ok()?;
    *asked.borrow_and_update()
}

/// Sees to it that nothing is left of a group whose leader has ended: until `end` it may leave, then it is killed.
///
/// The number of a group is not given away while it has members; between its last member's end and a look at it, process
/// ids would have to go all the way round to make this signal meet a stranger.
async fn empty_group(pid: Pid, end: Instant) {
    let mut is_asked = false;
    while family::is_alive(pid).await {
        if Instant::now() >= end {
            family::kill_group(pid).await;
            return;
        }
        if !is_asked {
            is_asked = true;
            let _ = rustix::process::kill_process_group(pid, Signal::TERM);
        }
        tokio::time::sleep(GROUP_POLL).await;
    }
}
