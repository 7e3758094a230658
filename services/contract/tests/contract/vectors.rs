//! Cases from elsewhere: pairs of descriptor sets, and what buf finds between them.
//!
//! `NINEFOLD_BREAKING_VECTORS` names a file of them, gzipped, one JSON object a line: `name`; `config`, a `buf.yaml`; `old` and
//! `new`, raw descriptor sets in base64; `expected`, a list of `{rule, path, line}` for each category and for `case-config`,
//! which is the case's own configuration. Without the variable there is nothing to run: the cases of this project are files
//! beside this one.

use std::collections::BTreeMap;
use std::io::Read as _;

use base64::Engine as _;
use ninefold_contract::{Limits, RuleSet, Schema, rules};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    name: String,
    config: String,
    old: String,
    new: String,
    expected: BTreeMap<String, Vec<Expected>>,
}

#[derive(Deserialize)]
struct Expected {
    rule: String,
    path: String,
    line: u32,
}

#[derive(Default, Deserialize)]
struct BufYaml {
    version: Option<String>,
    #[serde(default)]
    build: Build,
    breaking: Option<Breaking>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Build {
    roots: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Breaking {
    r#use: Vec<String>,
    except: Vec<String>,
    ignore: Vec<String>,
    ignore_only: BTreeMap<String, Vec<String>>,
    ignore_unstable_packages: bool,
}

/// Rules that came with version 2 of `buf.yaml`.
const SINCE_V2: [&str; 3] = ["EXTENSION_NO_DELETE", "FIELD_SAME_DEFAULT", "PACKAGE_EXTENSION_NO_DELETE"];

fn configuration(yaml: &str) -> BufYaml {
    let file: Option<BufYaml> = serde_norway::from_str(yaml).expect("a case's configuration is YAML");
    file.unwrap_or_default()
}

/// The rules that a `buf.yaml` asks for.
fn configured(BufYaml { version, breaking, .. }: BufYaml) -> RuleSet {
    let breaking = breaking.unwrap_or_default();
    let names = if breaking.r#use.is_empty() { vec!["FILE".to_owned()] } else { breaking.r#use };
    let mut set = RuleSet::named(names.iter().map(String::as_str)).expect("a case names rules that there are");
    if version.as_deref() != Some("v2") {
        set = set.without(SINCE_V2).expect("these rules exist");
    }
    set = set.without(breaking.except.iter().map(String::as_str)).expect("a case names rules that there are");
    for path in breaking.ignore {
        set = set.without_path(path);
    }
    for (rule, paths) in breaking.ignore_only {
        for path in paths {
            set = set.without_path_for(&rule, path).expect("a case names rules that there are");
        }
    }
    if breaking.ignore_unstable_packages { set.without_unstable() } else { set }
}

fn decoded(text: &str) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(text).expect("a case is base64")
}

/// The set as if its files lay below a folder.
fn below(root: &str, bytes: &[u8]) -> Vec<u8> {
    let mut set = FileDescriptorSet::decode(bytes).expect("a case is a descriptor set");
    let move_down = |name: &mut String| *name = format!("{root}/{name}");
    for file in &mut set.file {
        file.name.iter_mut().for_each(move_down);
        file.dependency.iter_mut().for_each(move_down);
    }
    set.encode_to_vec()
}

fn schema(bytes: Vec<u8>) -> Schema {
    Schema::parse(bytes, &Limits::default()).unwrap_or_else(|flaw| panic!("{flaw}"))
}

fn cases(path: &str) -> Vec<Case> {
    let file = std::fs::File::open(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("the file is gzipped");
    text.lines().map(|line| serde_json::from_str(line).expect("a line is a case")).collect()
}

/// `rule path:line`, sorted, equal ones as often as they are.
type Verdict = Vec<String>;

fn differences(name: &str, wanted: &mut Verdict, found: &mut Verdict) -> Vec<String> {
    let mut differences = Vec::new();
    for one in wanted.iter() {
        match found.iter().position(|other| other == one) {
            Some(index) => _ = found.remove(index),
            None => differences.push(format!("{name}: missing {one}")),
        }
    }
    differences.extend(found.iter().map(|one| format!("{name}: beyond {one}")));
    differences
}

#[test]
fn cases_from_elsewhere_are_judged_as_buf_judges_them() {
    let Ok(path) = std::env::var("NINEFOLD_BREAKING_VECTORS") else { return };
    let (mut differing, mut checks, mut findings) = (Vec::new(), 0, 0);
    for case in cases(&path) {
        let (old, new) = (schema(decoded(&case.old)), schema(decoded(&case.new)));
        let root = configuration(&case.config).build.roots.first().cloned();
        for (category, expected) in &case.expected {
            let is_own = category == "case-config";
            let set = match is_own {
                true => configured(configuration(&case.config)),
                false => RuleSet::named([category.as_str()]).expect("a case names categories that there are"),
            };
            // A case with a root has its paths from the checkout. Only its own configuration says so to both sides; with
            // the categories the new side was found below the root, and the old side was not.
            let moved = root.as_ref().filter(|_| !is_own).map(|root| schema(below(root, &decoded(&case.new))));
            let prefix = root.as_ref().filter(|_| is_own).map(|root| format!("{root}/")).unwrap_or_default();
            let mut wanted: Verdict =
                expected.iter().map(|one| format!("{} {}:{}", one.rule, one.path, one.line)).collect();
            let mut found: Verdict = rules::check(&old, moved.as_ref().unwrap_or(&new), &set)
                .iter()
                .map(|one| format!("{} {prefix}{}:{}", one.rule, one.file, one.line))
                .collect();
            checks += 1;
            findings += wanted.len();
            differing.extend(differences(&format!("{} {category}", case.name), &mut wanted, &mut found));
        }
    }
    println!("{checks} checks, {findings} findings expected, {} differ", differing.len());
    assert!(differing.is_empty(), "{} of {findings} differ:\n{}", differing.len(), differing.join("\n"));
    assert!(checks > 0, "{path} has no case");
}
