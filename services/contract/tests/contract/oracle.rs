//! The real buf, which says what it finds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use ninefold_contract::{Finding, Limits, Schema};

/// Where buf is: with the tools that `check` installs, or on the path.
fn buf() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let tools = std::env::var_os("NINEFOLD_TOOLS").map_or_else(|| root.join(".check"), PathBuf::from);
    let candidates = [tools.join("bin/buf"), tools.join("venv/bin/buf")];
    let found = candidates.into_iter().find(|path| path.exists());
    found.unwrap_or_else(|| PathBuf::from("buf"))
}

fn run(arguments: &[&str]) -> std::process::Output {
    let output = Command::new(buf()).args(arguments).output();
    output.unwrap_or_else(|error| panic!("buf cannot be run ({error}); `./check test` installs it"))
}

/// Compiles all files of a folder into a descriptor set.
pub(crate) fn compile(folder: &Path, to: &Path) -> Schema {
    build(folder, to, &["--as-file-descriptor-set"])
}

/// Compiles all files of a folder into an image, which tells imports that are not used as well.
pub(crate) fn image(folder: &Path, to: &Path) -> Schema {
    build(folder, to, &[])
}

/// Compiles all files of a folder into a descriptor set, or tells what buf says against it.
pub(crate) fn try_compile(folder: &Path, to: &Path) -> Result<Schema, String> {
    let (folder, to) = (folder.to_string_lossy(), to.to_string_lossy());
    try_build(&folder, &to, &["--as-file-descriptor-set"])
}

fn build(folder: &Path, to: &Path, more: &[&str]) -> Schema {
    let (folder, to) = (folder.to_string_lossy(), to.to_string_lossy());
    try_build(&folder, &to, more).unwrap_or_else(|said| panic!("{folder}: {said}"))
}

fn try_build(folder: &str, to: &str, more: &[&str]) -> Result<Schema, String> {
    let output = run(&[&["build", folder, "-o", to], more].concat());
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let bytes = std::fs::read(to).expect("buf wrote it");
    Ok(Schema::parse(bytes, &Limits::default()).unwrap_or_else(|flaw| panic!("{folder}: {flaw}")))
}

/// `rule path:line message`, sorted.
pub(crate) type Verdict = BTreeSet<String>;

/// What buf says between two sets.
pub(crate) fn breaking(old: &Path, new: &Path, config: &str) -> Verdict {
    try_breaking(old, new, config).unwrap_or_else(|said| panic!("buf failed: {said}"))
}

/// What buf says between two sets, or what it has against one of them: it looks closer here than where it compiles.
pub(crate) fn try_breaking(old: &Path, new: &Path, config: &str) -> Result<Verdict, String> {
    let config = format!("{{\"version\":\"v2\",\"breaking\":{config}}}");
    let (old, new) = (old.to_string_lossy(), new.to_string_lossy());
    told(&run(&["breaking", &new, "--against", &old, "--config", &config, "--error-format", "json"]))
}

/// What buf says about a set by itself.
pub(crate) fn lint(set: &Path) -> Verdict {
    let config = "{\"version\":\"v2\",\"lint\":{\"use\":[\"STANDARD\"]}}";
    let said = told(&run(&["lint", &set.to_string_lossy(), "--config", config, "--error-format", "json"]));
    said.unwrap_or_else(|said| panic!("buf failed: {said}"))
}

fn told(output: &std::process::Output) -> Result<Verdict, String> {
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !matches!(output.status.code(), Some(0 | 100)) {
        return Err(errors.into_owned());
    }
    let verdict = text.lines().map(|line| {
        let finding: serde_json::Value = serde_json::from_str(line).expect("buf writes JSON");
        let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        let line = finding["start_line"].as_u64().unwrap_or(1).max(1);
        show(&text("type"), &text("path"), line, &text("message"))
    });
    Ok(verdict.collect())
}

fn show(rule: &str, path: &str, line: u64, message: &str) -> String {
    // Of a changed default buf prints what its format string makes of it.
    let message = if rule == "FIELD_SAME_DEFAULT" { "" } else { message };
    // A slip of its format string puts a q after the name of a message.
    format!("{rule} {path}:{line} {}", message.replace("\"q moved", "\" moved"))
}

/// What we say.
pub(crate) fn ours(findings: &[Finding]) -> Verdict {
    let shown = findings.iter().map(|one| show(one.rule, &one.file, u64::from(one.line), &one.message));
    shown.collect()
}

/// What only one side says.
pub(crate) fn differences(name: &str, buf: &Verdict, ours: &Verdict) -> Vec<String> {
    let missing = buf.difference(ours).map(|one| format!("{name}: only buf says {one}"));
    let beyond = ours.difference(buf).map(|one| format!("{name}: only we say {one}"));
    missing.chain(beyond).collect()
}
