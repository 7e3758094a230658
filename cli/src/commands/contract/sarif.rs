//! Findings in SARIF 2.1.0 (OASIS), which code review tools show beside the lines.

use std::collections::BTreeMap;

use ninefold_proto::ninefold::contract::v1::Finding;
use serde_json::{Value, json};

use super::check::grade;

/// A log with one run.
pub(super) fn log(findings: &[Finding]) -> Value {
    let rules: BTreeMap<&str, Value> = findings
        .iter()
        .map(|one| (one.rule.as_str(), json!({"id": one.rule, "name": one.rule, "help": {"text": help(&one.rule)}})))
        .collect();
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

fn help(rule: &str) -> String {
    format!("docs/rules/{rule}.md")
}

fn result(finding: &Finding) -> Value {
    let mut text = finding.message.clone();
    if !finding.fix.is_empty() {
        text.push_str(&format!(". {}", finding.fix));
    }
    let mut result = json!({
        "ruleId": finding.rule,
        "level": grade(finding),
        "message": {"text": text},
        "logicalLocations": [{"fullyQualifiedName": finding.element}],
    });
    if !finding.file.is_empty() {
        let region = json!({"startLine": finding.line.max(1)});
        let place = json!({"artifactLocation": {"uri": finding.file}, "region": region});
        let logical = result["logicalLocations"].take();
        result["locations"] = json!([{"physicalLocation": place, "logicalLocations": logical}]);
    } else {
        let logical = result["logicalLocations"].take();
        result["locations"] = json!([{"logicalLocations": logical}]);
    }
    if let Some(result) = result.as_object_mut() {
        result.remove("logicalLocations");
    }
    result
}
