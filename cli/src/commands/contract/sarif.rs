//! Findings in SARIF 2.1.0 (OASIS), which code review tools show beside the lines.

use std::collections::BTreeMap;

use ninefold_proto::ninefold::contract::v1::Finding;
use serde_json::{Value, json};

use super::check::grade;

/// A log with one run.
pub(super) fn log(findings: &[Finding]) -> Value {
    let rules: BTreeMap<&str, Value> = findings.iter().map(|one| (one.rule.as_str(), rule(&one.rule))).collect();
    let results: Vec<Value> = findings.iter().map(result).collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "ninefold contract",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules.into_values().collect::<Vec<_>>(),
            }},
            "results": results,
        }],
    })
}

fn rule(name: &str) -> Value {
    let mut rule = json!({"id": name, "name": name, "help": {"text": format!("docs/rules/{name}.md")}});
    if let Some(known) = ninefold_contract::rules::all().iter().find(|rule| rule.name == name) {
        rule["shortDescription"] = json!({"text": known.about});
    }
    rule
}

/// A path as a URI: what may not stand in one is written in percent.
fn uri(path: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    path.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn result(finding: &Finding) -> Value {
    let mut text = finding.message.clone();
    if !finding.fix.is_empty() {
        text.push_str(&format!(". {}", finding.fix));
    }
    let element = json!([{"fullyQualifiedName": finding.element}]);
    let mut place = json!({"logicalLocations": element});
    if !finding.file.is_empty() {
        let region = json!({"startLine": finding.line.max(1)});
        place["physicalLocation"] = json!({"artifactLocation": {"uri": uri(&finding.file)}, "region": region});
    }
    json!({
        "ruleId": finding.rule,
        "level": grade(finding),
        "message": {"text": text},
        "locations": [place],
    })
}
