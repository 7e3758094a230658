//! Errors have names, and every name a page.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree;

/// Names of gRPC codes, which proto comments may use beside reasons.
const CODES: &[&str] = &[
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "OUT_OF_RANGE",
    "DATA_LOSS",
];

/// The reasons that `fn reason` of the sources answers, and where.
fn reasons() -> BTreeMap<String, String> {
    let mut reasons = BTreeMap::new();
    for file in tree::files(".rs").into_iter().filter(|file| !file.is_test()) {
        let code = file.code();
        for (start, _) in code.match_indices("fn reason(") {
            for literal in literals(block(&code[start..])).filter(|literal| is_name(literal)) {
                reasons.insert(literal.to_owned(), file.path.clone());
            }
        }
    }
    reasons
}

/// The text up to the brace that closes the first one that opens.
fn block(text: &str) -> &str {
    let mut depth = 0_usize;
    for (at, letter) in text.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth <= 1 => return &text[..at],
            '}' => depth -= 1,
            _ => {}
        }
    }
    text
}

/// What stands between quotes.
fn literals(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').skip(1).step_by(2)
}

/// Whether a text is a name in capitals, such as `INSTANCE_TAKEN`.
fn is_name(text: &str) -> bool {
    text.len() > 2
        && text.starts_with(|letter: char| letter.is_ascii_uppercase())
        && text.chars().all(|letter| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_')
}

/// The reasons that have a page.
fn pages() -> BTreeSet<String> {
    tree::files(".md")
        .into_iter()
        .filter_map(|file| {
            let name = file.path.strip_prefix("docs/errors/")?.strip_suffix(".md")?.to_owned();
            is_name(&name).then_some(name)
        })
        .collect()
}

#[test]
fn every_reason_has_its_page() {
    let pages = pages();
    let offences: Vec<String> = reasons()
        .into_iter()
        .filter(|(reason, _)| !pages.contains(reason))
        .map(|(reason, path)| format!("{reason} of {path} has no docs/errors/{reason}.md"))
        .collect();
    tree::none("reasons without a page", &offences);
}

#[test]
fn every_page_has_its_reason() {
    let reasons = reasons();
    // Some reasons are chosen outside of `fn reason`, such as those of exit codes; they are names in quotes all the same.
    let spoken: BTreeSet<String> = tree::files(".rs")
        .iter()
        .filter(|file| !file.is_test())
        .flat_map(|file| literals(file.code()).filter(|text| is_name(text)).map(ToOwned::to_owned).collect::<Vec<_>>())
        .collect();
    let offences: Vec<String> =
        pages().into_iter().filter(|page| !reasons.contains_key(page) && !spoken.contains(page)).collect();
    tree::none("pages of errors that nobody makes", &offences);
}

#[test]
fn every_page_tells_what_happened_and_what_to_do() {
    let offences: Vec<String> = tree::files(".md")
        .into_iter()
        .filter(|file| file.path.starts_with("docs/errors/") && is_name(file.name().trim_end_matches(".md")))
        .filter(|file| {
            let title = format!("# {}", file.name().trim_end_matches(".md"));
            file.text.lines().next().map(str::trim_end) != Some(title.as_str()) || file.text.lines().count() < 5
        })
        .map(|file| file.path)
        .collect();
    tree::none("pages of errors that do not begin with their name, or say nothing", &offences);
}

#[test]
fn every_error_that_a_contract_names_exists() {
    let reasons = reasons();
    let mut offences = Vec::new();
    for file in tree::files(".proto") {
        for promise in promises(&file.text) {
            let names = promise.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
            for name in names.filter(|name| is_name(name) && name.contains('_') && !CODES.contains(name)) {
                if !reasons.contains_key(name) {
                    offences.push(format!("{}: {name}", file.path));
                }
            }
        }
    }
    tree::none("errors that a contract promises and nobody makes", &offences);
}

/// What follows `Errors:` in comments, to the comment's end.
fn promises(proto: &str) -> Vec<String> {
    let mut promises: Vec<String> = Vec::new();
    let mut is_promise = false;
    for line in proto.lines() {
        let Some(comment) = line.trim_start().strip_prefix("//") else {
            is_promise = false;
            continue;
        };
        let comment = comment.trim();
        if let Some(begin) = comment.strip_prefix("Errors:") {
            is_promise = true;
            promises.push(begin.to_owned());
        } else if is_promise && let Some(promise) = promises.last_mut() {
            promise.push(' ');
            promise.push_str(comment);
        }
    }
    promises
}
