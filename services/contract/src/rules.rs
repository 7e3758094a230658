//! The rules that a new revision of a contract must keep. Pure.
//!
//! Those of buf stand here under buf's names and find what buf finds, on the same line; ours are about what buf does not look
//! at: HTTP bindings, validation, field behaviour, deprecation, type URLs. `docs/rules/<RULE>.md` tells of each what breaks
//! and what to do.

mod defaults;
mod draft;
mod enums;
mod fields;
mod files;
mod http;
mod kinds;
mod messages;
mod ours;
mod packages;
mod ranges;
mod reach;
mod rpcs;
mod set;
mod table;
mod validate;

use std::collections::BTreeMap;

pub use http::{SHADOWED, conflicts, shadows};
pub(crate) use set::stability;
pub use set::{Level, RuleSet, UnknownRule};

use crate::schema::Schema;
use draft::{Draft, Pair};

/// A set of rules of buf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Category {
    /// Generated code of any language stays as it is, file by file.
    File,
    /// Generated code stays as it is, package by package.
    Package,
    /// What was written can still be read, as bytes and as JSON.
    WireJson,
    /// What was written can still be read as bytes.
    Wire,
}

impl Category {
    /// All of them, the strictest first.
    pub const ALL: [Self; 4] = [Self::File, Self::Package, Self::WireJson, Self::Wire];

    /// Its name, as buf has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "FILE",
            Self::Package => "PACKAGE",
            Self::WireJson => "WIRE_JSON",
            Self::Wire => "WIRE",
        }
    }
}

/// One rule.
#[derive(Debug)]
pub struct Rule {
    /// Its name in capitals; `docs/rules/<name>.md` is its page.
    pub name: &'static str,
    /// What it asks for, as a sentence fragment.
    pub about: &'static str,
    /// The categories of buf that it is in; none for ours.
    pub categories: &'static [Category],
    /// Whether a break of it harms a running peer or a stored message.
    pub is_runtime: bool,
    /// Whether the level `strict` asks for it. All of `runtime` is in it, and what breaks generated code of every language.
    pub is_strict: bool,
    find: fn(&Pair<'_>) -> Vec<Draft>,
}

/// All rules: buf's, then ours.
pub fn all() -> &'static [Rule] {
    table::RULES
}

/// A break of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// File of the new schema; empty if there is none to point at.
    pub file: String,
    /// Line in it, counted from 1; 1 when the schema does not tell.
    pub line: u32,
    /// Name of the rule.
    pub rule: &'static str,
    /// Full name of what broke it.
    pub element: String,
    /// What was; empty if that is told by the element alone.
    pub old: String,
    /// What is; empty if it is gone.
    pub new: String,
    /// What happened, as a sentence.
    pub message: String,
    /// How to mend it, as a sentence fragment.
    pub fix: String,
}

/// Holds a new schema against an old one. Findings come sorted by file, line and rule; time is linear in both schemas.
pub fn check(old: &Schema, new: &Schema, rules: &RuleSet) -> Vec<Finding> {
    let pair = Pair::new(old, new);
    let mut findings = Vec::new();
    for rule in all().iter().filter(|rule| rules.has(rule.name)) {
        for draft in (rule.find)(&pair) {
            if !rules.ignores(rule.name, &pair, &draft) {
                findings.push(finish(rule.name, new, draft));
            }
        }
    }
    findings.sort();
    findings
}

fn finish(rule: &'static str, new: &Schema, draft: Draft) -> Finding {
    let file = draft.new_file.map(|file| new.file_at(file).name.to_string()).unwrap_or_default();
    let line = draft.line.unwrap_or(1);
    let Draft { element, old, new, message, fix, .. } = draft;
    Finding { file, line, rule, element, old, new, message, fix }
}

/// How many findings there are of each rule.
pub fn count(findings: &[Finding]) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for finding in findings {
        *counts.entry(finding.rule).or_default() += 1;
    }
    counts
}
