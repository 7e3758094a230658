//! What people read is there, and is true as far as a test can tell.

use std::collections::BTreeSet;

use crate::tree;

/// What a newcomer looks for.
const EXPECTED: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LICENSE",
    "docs/glossary.md",
    "compose.yaml",
    "deploy/Dockerfile",
    "check",
];

/// The roles of the one binary. Each is a word of the glossary.
const ROLES: &[&str] = &["store", "contract", "registry", "config", "monitor", "control", "gateway", "access"];

/// Words that the code may use because the glossary says what they mean.
const WORDS: &[&str] = &["service", "instance", "document", "role", "link", "scope", "fault"];

#[test]
fn what_a_newcomer_looks_for_is_there() {
    let offences: Vec<String> = EXPECTED
        .iter()
        .filter(|path| tree::read(path).is_none_or(|text| text.trim().is_empty()))
        .map(ToString::to_string)
        .collect();
    tree::none("documents that are missing or empty", &offences);
}

#[test]
fn the_glossary_has_every_role_and_every_word() {
    let glossary = tree::read("docs/glossary.md").expect("the glossary is there").to_lowercase();
    let explained: BTreeSet<&str> = glossary
        .split(|letter: char| !(letter.is_alphanumeric() || letter == '-'))
        .filter(|word| !word.is_empty())
        .collect();
    let offences: Vec<String> =
        ROLES.iter().chain(WORDS).filter(|word| !explained.contains(*word)).map(ToString::to_string).collect();
    tree::none("words that the glossary does not explain", &offences);
}

#[test]
fn decisions_are_numbered_once() {
    let mut numbers = BTreeSet::new();
    let mut offences = Vec::new();
    for file in tree::files(".md") {
        let Some(name) = file.path.strip_prefix("docs/decisions/").filter(|name| *name != "README.md") else {
            continue;
        };
        let is_numbered = name.len() > 5 && name.as_bytes()[..4].iter().all(u8::is_ascii_digit) && &name[4..5] == "-";
        if !is_numbered || !numbers.insert(name[..4].to_owned()) {
            offences.push(file.path.clone());
        }
    }
    tree::none("decisions whose number is missing or taken, as in 0007-what-was-decided.md", &offences);
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut offences = Vec::new();
    for file in tree::files(".md") {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (at, _) in file.text.match_indices("](") {
            let target = file.text[at + 2..].split([')', '#', ' ']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            if !tree::root().join(folder).join(target).exists() {
                offences.push(format!("{} → {target}", file.path));
            }
        }
    }
    tree::none("links that lead nowhere", &offences);
}

#[test]
fn commands_that_documents_show_exist() {
    let commands = commands();
    let mut offences = Vec::new();
    for file in tree::files(".md").into_iter().filter(|file| !file.path.starts_with("docs/decisions/")) {
        for shown in shown_commands(&file.text).into_iter().filter(|shown| !commands.contains(shown)) {
            offences.push(format!("{}: ninefold {shown}", file.path));
        }
    }
    tree::none("commands that do not exist", &offences);
}

/// The verbs of the command line: the variants of its enums of subcommands, as clap writes them.
fn commands() -> BTreeSet<String> {
    let mut commands = BTreeSet::from(["help".to_owned()]);
    for file in tree::files(".rs").into_iter().filter(|file| file.path.starts_with("cli/src/")) {
        for (at, _) in file.text.match_indices("Subcommand)]") {
            let body = file.text[at..].split_once('{').map_or("", |(_, body)| body);
            let body = body.split("\n}").next().unwrap_or_default();
            for line in body.lines() {
                // Variants stand one level deep; their fields deeper.
                let Some(line) = line.strip_prefix("    ") else { continue };
                if let Some((_, alias)) = line.split_once("alias = \"") {
                    commands.extend(alias.split('"').next().map(ToOwned::to_owned));
                }
                if line.starts_with(|letter: char| letter.is_ascii_uppercase()) {
                    let variant = line.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default();
                    commands.insert(kebab(variant));
                }
            }
        }
    }
    commands
}

fn kebab(variant: &str) -> String {
    let mut name = String::new();
    for letter in variant.chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

/// The verbs that stand after `ninefold` or `cargo run --release --` where a line of a code block begins with them, or in
/// backticks.
fn shown_commands(text: &str) -> Vec<String> {
    let mut shown = Vec::new();
    let mut is_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
            continue;
        }
        let spans: Vec<&str> = if is_code { vec![line] } else { line.split('`').skip(1).step_by(2).collect() };
        for span in spans {
            let span = span.trim().trim_start_matches("$ ");
            let rest = span.strip_prefix("ninefold ").or_else(|| span.strip_prefix("cargo run --release -- "));
            let verb = rest.and_then(|rest| rest.split_whitespace().next()).unwrap_or_default();
            if verb.starts_with(|letter: char| letter.is_ascii_lowercase()) {
                shown.push(verb.trim_end_matches(|letter: char| !letter.is_ascii_alphanumeric()).to_owned());
            }
        }
    }
    shown
}
