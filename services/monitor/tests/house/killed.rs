//! A test's own binary as a process that is killed at a moment that nobody chose.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::Instant;

/// A process that acknowledges nothing for so long, or does not end, has failed.
const LIFE_MAX: Duration = Duration::from_secs(60);

/// The test of this name in a process of its own; variables tell it that it is the one to be killed.
pub(crate) fn again(test: &str) -> Command {
    let mut process = Command::new(std::env::current_exe().unwrap());
    process.args(["--exact", test, "--nocapture", "--test-threads=2"]).stdin(Stdio::null());
    process
}

/// Runs a process that prints `done WHAT.` for each thing that was acknowledged, and kills it so long after the first. Tells
/// what was acknowledged.
pub(crate) async fn killed(mut process: Command, life: Duration) -> BTreeSet<String> {
    let mut process = process.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let mut acknowledged = BTreeSet::new();
    let mut is_killed = false;
    let mut due = Instant::now() + LIFE_MAX;
    loop {
        tokio::select! {
            line = lines.next_line() => match line.unwrap() {
                // A line that the death tore has no full stop.
                Some(line) => if let Some(what) = line.strip_prefix("done ").and_then(|line| line.strip_suffix('.')) {
                    if acknowledged.is_empty() {
                        due = Instant::now() + life;
                    }
                    acknowledged.insert(what.to_owned());
                },
                None => break,
            },
            () = tokio::time::sleep_until(due) => {
                assert!(!acknowledged.is_empty(), "nothing was acknowledged");
                assert!(!is_killed, "it does not end");
                process.start_kill().unwrap();
                (is_killed, due) = (true, Instant::now() + LIFE_MAX);
            }
        }
    }
    process.wait().await.unwrap();
    assert!(is_killed, "the process ended before it was killed");
    acknowledged
}
