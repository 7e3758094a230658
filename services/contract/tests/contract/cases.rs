//! Cases of this project, `tests/cases`, judged by us and by buf.

use std::path::{Path, PathBuf};

use ninefold_contract::{Category, RuleSet, Schema, rules};

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
