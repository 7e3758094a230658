//! Compares two forms of a package by the rules of its level. Pure.

use std::collections::BTreeSet;

use bytes::Bytes;
use ninefold_proto::ninefold::contract::v1 as proto;

use crate::intake::{Flaw, Limits};
use crate::lint;
use crate::names;
use crate::rules::{self, Level, RuleSet};
use crate::schema::Schema;

/// What the rules of a level find in one package. At `runtime`, what would only break the building of callers is a warning,
/// where nothing worse is to be said of the same element.
pub(crate) fn compare(old: &Schema, new: &Schema, package: &str, level: proto::Level) -> Vec<proto::Finding> {
    let of = |level| RuleSet::level(level).in_packages([package.to_owned()]);
    let found = |set: &RuleSet| rules::check(old, new, set).into_iter().map(|finding| told(finding, package));
    match level {
        proto::Level::Off => Vec::new(),
        proto::Level::Strict => found(&of(Level::Strict)).collect(),
        proto::Level::Runtime | proto::Level::Warn | proto::Level::Unspecified => {
            let mut findings: Vec<proto::Finding> = found(&of(Level::Runtime)).collect();
            let known: BTreeSet<String> = findings.iter().map(|finding| finding.element.clone()).collect();
            let more = found(&of(Level::Strict)).filter(|finding| !known.contains(&finding.element));
            findings.extend(more.map(|finding| proto::Finding { warning: true, ..finding }));
            findings
        }
    }
}

/// A finding in the words of the contract.
pub(crate) fn told(finding: rules::Finding, package: &str) -> proto::Finding {
    proto::Finding {
        rule: finding.rule.to_owned(),
        element: finding.element,
        file: finding.file,
        line: finding.line,
        old: finding.old,
        new: finding.new,
        message: finding.message,
        fix: finding.fix,
        package: package.to_owned(),
        ..proto::Finding::default()
    }
}

/// What a check of one descriptor set against another finds, package by package, as the gate would: deleted packages too.
/// `level` instead of the one that follows from the names. What is built in for services, such as the packages of Google, is
/// passed over; `limit_to` names the packages that count, none for all.
///
/// # Errors
/// The first flaw of either set.
pub fn verdict(old: Bytes, new: Bytes, level: Option<Level>, limit_to: &[String]) -> Result<Vec<proto::Finding>, Flaw> {
    let (old, new) = (Schema::parse(old, &Limits::default())?, Schema::parse(new, &Limits::default())?);
    let names: BTreeSet<&str> = old.packages().into_keys().collect();
    let counts =
        |name: &&str| !names::is_foreign(name) && (limit_to.is_empty() || limit_to.iter().any(|one| one == name));
    let mut findings = Vec::new();
    for name in names.into_iter().filter(counts) {
        let level = match level {
            Some(Level::Runtime) => proto::Level::Runtime,
            Some(Level::Strict) => proto::Level::Strict,
            Some(Level::Warn) => proto::Level::Warn,
            Some(Level::Off) => proto::Level::Off,
            None if names::is_unstable(name) => proto::Level::Warn,
            None => proto::Level::Runtime,
        };
        let found = compare(&old, &new, name, level).into_iter();
        findings.extend(found.map(|one| proto::Finding { warning: one.warning || level == proto::Level::Warn, ..one }));
    }
    findings.sort_by_key(|finding| finding.warning);
    Ok(findings)
}

/// What the rules of style find in a descriptor set, save in packages that others keep.
///
/// # Errors
/// The first flaw of the set.
pub fn style(set: Bytes) -> Result<Vec<proto::Finding>, Flaw> {
    let schema = Schema::parse(set, &Limits::default())?;
    let packages = schema.packages().into_keys().filter(|name| !names::is_foreign(name));
    let packages: BTreeSet<String> = packages.map(str::to_owned).collect();
    let package_of = |file: &str| schema.file(file).map(|file| file.package.to_string()).unwrap_or_default();
    let found = lint::lint(&schema, Some(&packages)).into_iter();
    Ok(found.map(|finding| (package_of(&finding.file), finding)).map(|(package, one)| told(one, &package)).collect())
}
