//! Rules about contracts have names, and every name a page.

use std::collections::BTreeSet;

use crate::tree;

/// The names of the rules in the table of the contract role, and of those that its gate has of its own.
fn rules() -> BTreeSet<String> {
    let named = |path: &str, before: &str| {
        let text = tree::read(path).unwrap_or_else(|| panic!("{path} is there"));
        let lines = text.lines().filter_map(|line| line.trim().strip_prefix(before));
        lines.filter_map(|line| line.split('"').next()).map(ToOwned::to_owned).collect::<BTreeSet<String>>()
    };
    let gate = named("services/contract/src/gate.rs", "rule: \"");
    assert!(gate.contains("PACKAGE_RETIRED"), "the gate's own rules are found");
    let warnings = named("services/contract/src/rules/http.rs", "pub const SHADOWED: &str = \"");
    let table = named("services/contract/src/rules/table.rs", "rule(\"");
    table.into_iter().chain(gate).chain(warnings).collect()
}

fn pages() -> BTreeSet<String> {
    let files = tree::files(".md").into_iter();
    files.filter_map(|file| Some(file.path.strip_prefix("docs/rules/")?.strip_suffix(".md")?.to_owned())).collect()
}

#[test]
fn every_rule_has_its_page_and_every_page_its_rule() {
    let (rules, pages) = (rules(), pages());
    assert!(rules.len() > 64, "only {} rules were found in the table", rules.len());
    let bare: Vec<String> = rules.difference(&pages).cloned().collect();
    tree::none("rules without a page in docs/rules", &bare);
    let stray: Vec<String> = pages.difference(&rules).cloned().collect();
    tree::none("pages in docs/rules that are of no rule", &stray);
}

#[test]
fn a_page_of_a_rule_says_what_breaks_and_what_to_do() {
    let mut offences = Vec::new();
    for file in tree::files(".md").into_iter().filter(|file| file.path.starts_with("docs/rules/")) {
        for part in ["**What breaks.**", "**Example.**", "```proto", "**What to do.**"] {
            if !file.text.contains(part) {
                offences.push(format!("{} has no {part}", file.path));
            }
        }
    }
    tree::none("pages of rules that lack a part", &offences);
}
