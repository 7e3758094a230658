//! What files look like.

use crate::tree;

/// Longest source file. Aim for half of it.
const LINES_MAX: usize = 600;

/// Names that say nothing.
const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "helpers", "helper", "manager", "base", "misc"];

#[test]
fn no_file_is_longer_than_one_thought() {
    let offences: Vec<String> = [".rs", ".ts", ".tsx", ".py"]
        .iter()
        .flat_map(|ending| tree::files(ending))
        .map(|file| (file.text.lines().count(), file.path))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .map(|(lines, path)| format!("{path} has {lines} lines"))
        .collect();
    tree::none("files of more than 600 lines", &offences);
}

#[test]
fn modules_are_files_with_names_that_say_something() {
    let offences: Vec<String> = tree::files(".rs")
        .into_iter()
        .filter(|file| {
            let stem = file.name().trim_end_matches(".rs");
            stem == "mod" || EMPTY_NAMES.contains(&stem)
        })
        .map(|file| file.path)
        .collect();
    tree::none("modules named mod, utils, common, helpers, manager, base or the like", &offences);
}

#[test]
fn every_file_says_what_it_is() {
    let offences: Vec<String> = tree::files(".rs")
        .into_iter()
        .filter(|file| !file.text.trim_start_matches("#!/usr/bin/env").starts_with("//!"))
        .map(|file| file.path)
        .collect();
    tree::none("files that do not begin with //!", &offences);
}

#[test]
fn no_test_is_switched_off() {
    let switch = concat!("#[", "ignore");
    let offences: Vec<String> =
        tree::files(".rs").into_iter().filter(|file| file.text.contains(switch)).map(|file| file.path).collect();
    tree::none("tests that are switched off", &offences);
}

#[test]
fn no_machine_is_named() {
    // Spelled in pieces, or this file would offend itself.
    let places = [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/"), concat!("/wo", "rk/")];
    let mut offences = Vec::new();
    for file in tree::files("") {
        for (number, line) in file.text.lines().enumerate() {
            if places.iter().any(|place| mentions(line, place)) {
                offences.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    tree::none("paths of one machine", &offences);
}

/// Whether a line has the place as the beginning of a path, not in the middle of one.
fn mentions(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|letter| !(letter.is_alphanumeric() || "-_./}".contains(letter)))
    })
}
