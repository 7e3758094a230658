//! Cases of this project, `tests/cases`, judged by us and by buf.

use std::path::{Path, PathBuf};

use ninefold_contract::{Category, RuleSet, Schema, lint, rules};

use crate::oracle::{self, Verdict};

fn folder(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(kind)
}

/// The cases of a kind, by name.
fn cases(kind: &str) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(folder(kind)).expect("there are cases");
    let paths = entries.map(|entry| entry.expect("the folder can be read").path());
    let mut cases: Vec<(String, PathBuf)> =
        paths.map(|path| (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), path)).collect();
    cases.sort();
    cases
}

/// One side of a case, which is a file or a folder of files, as a set.
fn side(case: &Path, name: &str, work: &Path) -> (PathBuf, Schema) {
    let set = work.join(format!("{name}.binpb"));
    let many = case.join(name);
    let sources = if many.is_dir() {
        many
    } else {
        let sources = work.join(name);
        std::fs::create_dir(&sources).expect("a folder can be made");
        std::fs::copy(case.join(format!("{name}.proto")), sources.join("case.proto")).expect("a case has both sides");
        sources
    };
    let schema = oracle::compile(&sources, &set);
    (set, schema)
}

#[test]
fn each_case_breaks_what_buf_says_it_breaks() {
    let (mut differing, mut findings) = (Vec::new(), 0);
    for (name, case) in cases("breaking") {
        let work = tempfile::tempdir().expect("a folder can be made");
        let ((old_set, old), (new_set, new)) = (side(&case, "old", work.path()), side(&case, "new", work.path()));
        let mut compare = |what: &str, config: &str, set: &RuleSet| {
            let buf = oracle::breaking(&old_set, &new_set, config);
            findings += buf.len();
            let ours: Verdict = oracle::ours(&rules::check(&old, &new, set));
            differing.extend(oracle::differences(&format!("{name} {what}"), &buf, &ours));
        };
        for category in Category::ALL {
            let config = format!("{{\"use\":[\"{}\"]}}", category.as_str());
            compare(category.as_str(), &config, &RuleSet::category(category));
        }
        let every =
            RuleSet::named(Category::ALL.map(Category::as_str)).expect("these are categories").without_unstable();
        let config = "{\"use\":[\"FILE\",\"PACKAGE\",\"WIRE_JSON\",\"WIRE\"],\"ignore_unstable_packages\":true}";
        compare("without unstable packages", config, &every);
    }
    println!("{findings} findings of buf");
    assert!(differing.is_empty(), "{} differ:\n{}", differing.len(), differing.join("\n"));
    assert!(findings > 0, "buf found nothing");
}

#[test]
fn each_case_of_style_is_judged_as_buf_judges_it() {
    let (mut differing, mut findings) = (Vec::new(), 0);
    for (name, case) in cases("lint") {
        let work = tempfile::tempdir().expect("a folder can be made");
        let image = work.path().join("image.binpb");
        let schema = oracle::image(&case, &image);
        let buf = oracle::lint(&image);
        findings += buf.len();
        differing.extend(oracle::differences(&name, &buf, &oracle::ours(&lint::lint(&schema, None))));
    }
    println!("{findings} findings of buf");
    assert!(differing.is_empty(), "{} differ:\n{}", differing.len(), differing.join("\n"));
    assert!(findings > 0, "buf found nothing");
}

/// Copies all that is in a folder into another.
fn copy_into(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("the folder can be read") {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).expect("the folder can be read");
        if path.is_dir() {
            std::fs::create_dir_all(to.join(&name)).expect("a folder can be made");
            copy_into(&path, &to.join(&name));
        } else {
            std::fs::copy(&path, to.join(&name)).expect("a file can be copied");
        }
    }
}

#[test]
fn each_case_of_a_rule_that_buf_lacks_breaks_what_it_should() {
    let ours = rules::all().iter().filter(|rule| rule.categories.is_empty()).map(|rule| rule.name);
    let (set, mut met) = (RuleSet::named(ours.clone()).expect("these are rules"), Verdict::new());
    for (name, case) in cases("ours").into_iter().filter(|(name, _)| name != "shared") {
        let work = tempfile::tempdir().expect("a folder can be made");
        let compile = |side: &str| {
            let sources = work.path().join(side);
            std::fs::create_dir(&sources).expect("a folder can be made");
            copy_into(&folder("ours").join("shared"), &sources);
            std::fs::copy(case.join(format!("{side}.proto")), sources.join("case.proto"))
                .expect("a case has both sides");
            oracle::compile(&sources, &work.path().join(format!("{side}.binpb")))
        };
        let found = rules::check(&compile("old"), &compile("new"), &set);
        assert!(found.iter().all(|one| !one.fix.is_empty()), "{name}: a finding does not say how to mend it");
        let verdict: Verdict = found.iter().map(|one| format!("{} {}", one.rule, one.element)).collect();
        let expected = std::fs::read_to_string(case.join("expected.txt")).expect("a case says what is expected");
        assert_eq!(verdict, expected.lines().map(ToOwned::to_owned).collect::<Verdict>(), "{name}");
        met.extend(found.iter().map(|one| one.rule.to_owned()));
    }
    let missing: Vec<&str> = ours.filter(|rule| !met.contains(*rule)).collect();
    assert!(missing.is_empty(), "no case breaks {}", missing.join(", "));
}
