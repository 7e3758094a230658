//! Programs as child processes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ninefold::lifecycle::Scope;
use ninefold_control::process::{Ended, Exit, Process, Spawner, Spec, Step};
use ninefold_control::{Error, Line, LineSink};

use crate::house::{is_alive, until};

/// Remembers lines.
#[derive(Debug, Default)]
struct Lines {
    bytes: Mutex<usize>,
    kept: Mutex<Vec<String>>,
}

impl LineSink for Lines {
    fn line(&self, line: Line<'_>) {
        *self.bytes.lock().unwrap() += line.text.len();
        let mut kept = self.kept.lock().unwrap();
        if kept.len() < 100 {
            kept.push(format!("{:?} {}", line.output, line.text));
        }
    }
}

struct Fixture {
    scope: Scope,
    spawner: Spawner,
    lines: Arc<Lines>,
}

impl Fixture {
    fn new() -> Self {
        let scope = Scope::root("test");
        let spawner = Spawner::start(&scope).unwrap();
        Self { scope, spawner, lines: Arc::default() }
    }

    async fn try_start(&self, command: &[&str]) -> Result<Process, Error> {
        let spec = Spec {
            service: "pump".into(),
            instance_id: "pump-0".into(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            environment: BTreeMap::from([("COLOUR".to_owned(), "green".to_owned())]),
            withheld: vec!["HOME".into()],
            working_directory: Some(std::env::temp_dir()),
            grace: Duration::from_millis(200),
            delivers: false,
        };
        self.spawner.spawn(spec, self.lines.clone()).await
    }

    async fn shell(&self, script: &str) -> Process {
        self.try_start(&["sh", "-c", script]).await.unwrap()
    }

    async fn said(&self, word: &str) -> String {
        let find = || self.lines.kept.lock().unwrap().iter().find(|line| line.contains(word)).cloned();
        until(&format!("the program says {word:?}"), async || find().is_some()).await;
        find().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_sees_its_environment_and_its_end_is_told() {
    let fixture = Fixture::new();
    let process = fixture.shell("echo $COLOUR-$HOME; pwd; echo 'no pump' >&2; exit 3").await;
    let ended = process.ended().await;
    assert_eq!(ended, Ended { exit: Exit::Code(3), step: Step::ByItself, last_word: Some("no pump".into()) });
    assert_eq!(ended.to_string(), "exited with code 3: no pump");
    fixture.said("Stdout green-").await;
    fixture.said(&format!("Stdout {}", std::env::temp_dir().display())).await;
    fixture.said("Stderr no pump").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_noticed_at_once() {
    let fixture = Fixture::new();
    let process = fixture.shell("exec sleep 60").await;
    let pid = rustix::process::Pid::from_raw(i32::try_from(process.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let begin = Instant::now();
    assert_eq!(process.ended().await.to_string(), "ended by signal 9 (SIGKILL)");
    assert!(begin.elapsed() < Duration::from_millis(500), "{:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_megabytes_of_output_do_not_stop_a_program() {
    let fixture = Fixture::new();
    // 10 MiB on each output, one of them without a line end.
    let script = "head -c 10485760 /dev/zero | tr '\\0' 'x'; yes 0123456789abcde | head -c 10485760 >&2";
    let ended = fixture.shell(script).await.ended().await;
    assert_eq!((ended.exit, ended.step), (Exit::Code(0), Step::ByItself));
    let bytes = *fixture.lines.bytes.lock().unwrap();
    assert_eq!(bytes, 10 * 1024 * 1024 + 10 * 1024 * 1024 / 16 * 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_leaves_when_asked_is_not_killed() {
    let fixture = Fixture::new();
    let process = fixture.shell("trap 'echo leaving; exit 0' TERM; echo ready; while :; do sleep 0.05; done").await;
    fixture.said("ready").await;
    process.stop(Duration::from_secs(10));
    let ended = process.ended().await;
    assert_eq!((ended.exit, ended.step), (Exit::Code(0), Step::Asked));
    fixture.said("leaving").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_will_not_leave_is_killed_with_its_children_wherever_they_hide() {
    let fixture = Fixture::new();
    let script = "trap '' TERM; sleep 61 & echo child $!; setsid sleep 62 & echo hidden $!; echo ready; \
                  while :; do sleep 0.05; done";
    let process = fixture.shell(script).await;
    fixture.said("ready").await;
    let pid = |line: String| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap();
    let family = [process.pid(), pid(fixture.said("child").await), pid(fixture.said("hidden").await)];
    let begin = Instant::now();
    process.stop(Duration::from_millis(300));
    let ended = process.ended().await;
    assert!(begin.elapsed() >= Duration::from_millis(300), "it had its grace time");
    assert_eq!((ended.exit, ended.step), (Exit::Signal(9), Step::Killed));
    assert_eq!(ended.to_string(), "ended by signal 9 (SIGKILL) after its grace time");
    for pid in family {
        until(&format!("process {pid} is gone"), async || !is_alive(pid)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grace_time_can_be_cut_short() {
    let fixture = Fixture::new();
    let process = fixture.shell("trap '' TERM; echo ready; while :; do sleep 0.05; done").await;
    fixture.said("ready").await;
    process.stop(Duration::from_secs(600));
    process.stop(Duration::from_millis(10));
    assert_eq!(process.ended().await.step, Step::Killed);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_program_leaves_behind_goes_too() {
    let fixture = Fixture::new();
    let process = fixture.shell("sleep 63 & echo child $!; exit 1").await;
    let child: u32 = fixture.said("child").await.rsplit(' ').next().unwrap().parse().unwrap();
    assert_eq!(process.ended().await.exit, Exit::Code(1));
    assert!(!is_alive(child));
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_the_scope_leaves_no_process() {
    let fixture = Fixture::new();
    let mut pids = Vec::new();
    let mut processes = Vec::new();
    for script in ["exec sleep 64", "trap '' TERM; echo ready; while :; do sleep 0.05; done"] {
        let process = fixture.shell(script).await;
        pids.push(process.pid());
        processes.push(process);
    }
    fixture.said("ready").await;
    assert!(fixture.scope.close(Duration::from_secs(10)).await.is_empty());
    assert!(pids.iter().all(|pid| !is_alive(*pid)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_that_has_no_time_left_kills() {
    let fixture = Fixture::new();
    let process = fixture.shell("trap '' TERM; echo ready; while :; do sleep 0.05; done").await;
    fixture.said("ready").await;
    let late = fixture.scope.close(Duration::from_millis(50)).await;
    assert_eq!(late, ["test"]);
    assert_eq!(process.ended().await.step, Step::Killed);
    until("it is gone", async || !is_alive(process.pid())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_ends_when_nobody_holds_it() {
    let fixture = Fixture::new();
    let process = fixture.shell("exec sleep 65").await;
    let (pid, ended) = (process.pid(), process.ended());
    drop(process);
    assert_eq!(ended.await.step, Step::Asked);
    assert!(!is_alive(pid));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_there_is_told_by_name() {
    let error = Fixture::new().try_start(&["/no/such/pump"]).await.unwrap_err();
    let text = ninefold::fault::chain(&error);
    assert!(text.starts_with("\"/no/such/pump\" cannot be started: No such file"), "{text}");
}

/// Has the test binary run this same test as a platform that is killed.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_program_does_not_outlive_a_killed_platform() {
    use std::io::{BufRead as _, BufReader};

    const PART: &str = "TEST_PLAYS_THE_PLATFORM";
    if std::env::var_os(PART).is_some() {
        let process = Fixture::new().shell("exec sleep 67").await;
        println!("\nchild {}", process.pid());
        std::future::pending::<()>().await;
    }
    let mut platform = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "processes::a_program_does_not_outlive_a_killed_platform", "--nocapture"])
        .env(PART, "1")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(platform.stdout.take().unwrap()).lines().map_while(Result::ok);
    let pid = lines.filter_map(|line| line.strip_prefix("child ").map(|pid| pid.parse().unwrap())).next();
    let pid: u32 = pid.expect("the platform says which child it has");
    assert!(is_alive(pid));
    platform.kill().unwrap();
    platform.wait().unwrap();
    until("the child is gone", async || !is_alive(pid)).await;
}
