//! Random schemas, random changes, our verdict beside buf's.
//!
//! `NINEFOLD_MUTATION_SEED` sets the seed, which is printed; `NINEFOLD_MUTATION_ROUNDS` how many pairs are tried.

use std::path::Path;
use std::time::{Duration, Instant};

use fastrand::Rng;
use ninefold_contract::{Category, RuleSet, rules};

use crate::oracle;
use crate::sample::Sample;

/// Pairs that are tried when nobody says how many.
const ROUNDS: u64 = 25;
/// No pair is begun after this long; a busy machine tries fewer.
const TIME_MAX: Duration = Duration::from_secs(60);

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is {text}, no number")))
}

/// One side, compiled.
fn compile(work: &Path, name: &str, sample: &Sample) -> (std::path::PathBuf, ninefold_contract::Schema) {
    let (folder, set) = (work.join(name), work.join(format!("{name}.binpb")));
    std::fs::create_dir(&folder).expect("a folder can be made");
    std::fs::write(folder.join("sample.proto"), sample.write()).expect("a file can be written");
    let schema = oracle::compile(&folder, &set);
    (set, schema)
}

#[test]
fn what_random_changes_break_is_what_buf_says() {
    let first = number("NINEFOLD_MUTATION_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    let rounds = number("NINEFOLD_MUTATION_ROUNDS").unwrap_or(ROUNDS);
    println!("NINEFOLD_MUTATION_SEED={first}");
    let every = RuleSet::named(Category::ALL.map(Category::as_str)).expect("these are categories");
    let (start, mut tried, mut findings) = (Instant::now(), 0, 0);
    for seed in first..first + rounds {
        if start.elapsed() > TIME_MAX {
            break;
        }
        let mut rng = Rng::with_seed(seed);
        let old = Sample::random(&mut rng);
        let mut new = old.clone();
        (0..rng.usize(1..6)).for_each(|_| new.change(&mut rng));
        let work = tempfile::tempdir().expect("a folder can be made");
        let (old_set, old_schema) = compile(work.path(), "old", &old);
        let (new_set, new_schema) = compile(work.path(), "new", &new);
        let buf = oracle::breaking(&old_set, &new_set, "{\"use\":[\"FILE\",\"PACKAGE\",\"WIRE_JSON\",\"WIRE\"]}");
        let ours = oracle::ours(&rules::check(&old_schema, &new_schema, &every));
        let differing = oracle::differences("", &buf, &ours);
        assert!(
            differing.is_empty(),
            "NINEFOLD_MUTATION_SEED={seed} NINEFOLD_MUTATION_ROUNDS=1\n{}\n--- old\n{}--- new\n{}",
            differing.join("\n"),
            old.write(),
            new.write()
        );
        (tried, findings) = (tried + 1, findings + buf.len());
    }
    println!("{tried} pairs, {findings} findings, all alike");
    assert!(tried > 0, "no pair was tried");
}
