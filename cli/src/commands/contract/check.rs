//! `contract check` and `contract lint`: findings for people, programs and code review.

use std::path::PathBuf;

use ninefold_contract::{Level, style, verdict};
use ninefold_proto::ninefold::contract::v1::{Finding, JudgeContractRequest};
use serde_json::{Value, json};

use super::against::{self, Promised};
use super::{CheckArgs, LintArgs, Strictness, sarif, sources};
use crate::client::Platform;
use crate::exit::Failure;
use crate::output::{self, Format};

const FINDING: &str = "ninefold.contract.v1.Finding";

/// Checks contracts against what was promised.
pub(super) async fn check(platform: &Platform, args: CheckArgs, format: Format) -> Result<(), Failure> {
    let set = sources::read(&args.paths, &args.includes)?;
    let promised = against::find(platform, args.against.as_deref(), &args.paths, &args.includes).await?;
    let findings = match promised {
        Promised::Set(old) => {
            let level = args.level.and_then(level);
            let judged = verdict(old.into(), set.into(), level, &args.packages);
            judged.map_err(|flaw| Failure::Failed(format!("the descriptor set is malformed: {flaw}")))?
        }
        Promised::Platform(platform) => {
            let request =
                JudgeContractRequest { service: args.service, descriptor_set: set, protobuf_services: Vec::new() };
            let mut findings = platform.ask(platform.packages().judge_contract(request)).await?.findings;
            findings.retain(|finding| args.packages.is_empty() || args.packages.contains(&finding.package));
            findings
        }
    };
    tell(&located(findings, &args.paths, format), format)
}

/// Findings with the files as they lie here, for people and for code review; programs get the names that contracts have.
fn located(mut findings: Vec<Finding>, paths: &[PathBuf], format: Format) -> Vec<Finding> {
    if !matches!(format, Format::Table | Format::Sarif) {
        return findings;
    }
    for finding in findings.iter_mut().filter(|finding| !finding.file.is_empty()) {
        let here = paths.iter().map(|path| path.join(&finding.file)).find(|path| path.is_file());
        if let Some(here) = here {
            finding.file = here.components().as_path().display().to_string().trim_start_matches("./").to_owned();
        }
    }
    findings
}

fn level(strictness: Strictness) -> Option<Level> {
    match strictness {
        Strictness::Default => None,
        Strictness::Runtime => Some(Level::Runtime),
        Strictness::Strict => Some(Level::Strict),
        Strictness::Warn => Some(Level::Warn),
        Strictness::Off => Some(Level::Off),
    }
}

/// Checks contracts against the rules of style.
pub(super) fn lint(args: &LintArgs, format: Format) -> Result<(), Failure> {
    let set = sources::read(&args.paths, &args.includes)?;
    let findings =
        style(set.into()).map_err(|flaw| Failure::Failed(format!("the descriptor set is malformed: {flaw}")))?;
    tell(&located(findings, &args.paths, format), format)
}

/// Prints findings; fails if one of them is a break.
fn tell(findings: &[Finding], format: Format) -> Result<(), Failure> {
    let breaks = findings.iter().filter(|finding| !finding.warning).count();
    if format == Format::Sarif {
        let text = serde_json::to_string_pretty(&sarif::log(findings)).expect("a JSON value has a text form");
        output::line(text);
    } else {
        let value = json!({"accepted": breaks == 0, "findings": output::json_all(FINDING, findings)});
        output::print(format, &value, || table(findings))?;
    }
    let warnings = findings.len() - breaks;
    match (breaks, warnings) {
        (0, 0) => {}
        (0, _) => output::talk(format!("{} to be told, nothing breaks", plural(warnings, "warning"))),
        (_, 0) => return Err(Failure::Breaks(plural(breaks, "finding"))),
        (..) => {
            return Err(Failure::Breaks(format!("{}, and {}", plural(breaks, "finding"), plural(warnings, "warning"))));
        }
    }
    if format == Format::Table && findings.is_empty() {
        output::talk("nothing breaks");
    }
    Ok(())
}

fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn table(findings: &[Finding]) -> String {
    findings.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A finding for people: where, what, and how to mend it.
pub(super) fn line(finding: &Finding) -> String {
    let place = match (finding.file.as_str(), finding.line) {
        ("", _) => finding.element.clone(),
        (file, 0) => file.to_owned(),
        (file, line) => format!("{file}:{line}"),
    };
    let grade = if finding.warning { "warning " } else { "" };
    let mut text = format!("{place}: {grade}{}: {}", finding.rule, output::cell(&finding.message));
    if !finding.against.is_empty() {
        text.push_str(&format!("\n    against {}", finding.against));
    }
    if !finding.fix.is_empty() {
        text.push_str(&format!("\n    {}", output::cell(&finding.fix)));
    }
    text
}

/// A finding's level in SARIF.
pub(super) fn grade(finding: &Finding) -> Value {
    json!(if finding.warning { "warning" } else { "error" })
}
