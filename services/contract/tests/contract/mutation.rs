//! Random worlds, random changes, our verdict beside buf's.
//!
//! `NINEFOLD_MUTATION_SEED` sets the seed, which is printed; `NINEFOLD_MUTATION_ROUNDS` how many batches of pairs are tried.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fastrand::Rng;
use ninefold_contract::{Category, RuleSet, Schema, rules};

use crate::oracle::{self, Verdict};
use crate::world::World;

/// Batches that are tried when nobody says how many.
const ROUNDS: u64 = 6;
/// Pairs that one run of buf compares.
const BATCH: usize = 24;
/// No batch is begun after this long, if nobody says how many; a busy machine tries fewer.
const TIME_MAX: Duration = Duration::from_secs(60);

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} is {text}, no number")))
}

/// A world as it was, and as it is.
struct Change {
    old: World,
    new: World,
}

impl Change {
    fn random(rng: &mut Rng, tag: &str) -> Self {
        let old = World::random(rng, tag);
        let mut new = old.clone();
        (0..rng.usize(1..7)).for_each(|_| new.change(rng));
        Self { old, new }
    }
}

/// One side, compiled. Worlds that turn out to be invalid are dropped.
fn compile(
    work: &Path,
    name: &str,
    changes: &mut BTreeMap<String, Change>,
    side: fn(&Change) -> &World,
) -> (PathBuf, Schema) {
    let (folder, set) = (work.join(name), work.join(format!("{name}.binpb")));
    changes.values().for_each(|change| side(change).write(&folder));
    loop {
        match oracle::try_compile(&folder, &set) {
            Ok(schema) => return (set, schema),
            Err(said) => {
                let is_told = |tag: &str| said.contains(&format!("{tag}/"));
                let gone: Vec<String> = changes.keys().filter(|tag| is_told(tag)).cloned().collect();
                assert!(!gone.is_empty(), "buf refused, and did not say which: {said}");
                for tag in gone {
                    if std::env::var_os("NINEFOLD_MUTATION_SHOW").is_some() {
                        show(&said);
                    }
                    changes.remove(&tag);
                    std::fs::remove_dir_all(folder.join(&tag)).expect("a folder can be taken away");
                }
            }
        }
    }
}

#[test]
fn what_random_changes_break_is_what_buf_says() {
    let first = number("NINEFOLD_MUTATION_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    let asked = number("NINEFOLD_MUTATION_ROUNDS");
    let rounds = asked.unwrap_or(ROUNDS);
    let every = RuleSet::named(Category::ALL.map(Category::as_str)).expect("these are categories");
    let (start, mut tried, mut dropped) = (Instant::now(), 0, 0);
    let (mut by_rule, mut differing) = (BTreeMap::<String, usize>::new(), Vec::new());
    for seed in first..first + rounds {
        if asked.is_none() && tried > 0 && start.elapsed() > TIME_MAX {
            break;
        }
        println!("NINEFOLD_MUTATION_SEED={seed} NINEFOLD_MUTATION_ROUNDS=1");
        let mut rng = Rng::with_seed(seed);
        let tags = (0..BATCH).map(|index| format!("w{index:02}"));
        let mut changes: BTreeMap<String, Change> =
            tags.map(|tag| (tag.clone(), Change::random(&mut rng, &tag))).collect();
        let work = tempfile::tempdir().expect("a folder can be made");
        let (mut old_set, mut old) = compile(work.path(), "before", &mut changes, |change| &change.old);
        let valid = changes.len();
        let (new_set, new) = compile(work.path(), "after", &mut changes, |change| &change.new);
        if changes.len() < valid {
            (old_set, old) = compile(work.path(), "old", &mut changes, |change| &change.old);
        }
        let buf = oracle::breaking(&old_set, &new_set, "{\"use\":[\"FILE\",\"PACKAGE\",\"WIRE_JSON\",\"WIRE\"]}");
        let ours = oracle::ours(&rules::check(&old, &new, &every));
        let told = told(seed, &changes, &buf, &ours);
        told.iter().for_each(|one| println!("{one}"));
        differing.extend(told);
        for one in &buf {
            *by_rule.entry(one.split(' ').next().unwrap_or_default().to_owned()).or_default() += 1;
        }
        tried += changes.len();
        dropped += BATCH - changes.len();
    }
    println!("{tried} pairs ({dropped} were invalid), findings: {by_rule:?}");
    assert!(differing.is_empty(), "we and buf differ, see above");
    assert!(tried > dropped, "most of what is made up must be valid");
}

/// What differs, and the worlds that it is about.
fn told(seed: u64, changes: &BTreeMap<String, Change>, buf: &Verdict, ours: &Verdict) -> Vec<String> {
    let differing = oracle::differences(&format!("seed {seed}"), buf, ours);
    if differing.is_empty() || std::env::var_os("NINEFOLD_MUTATION_BRIEF").is_some() {
        return differing;
    }
    let is_meant =
        |tag: &str| differing.iter().any(|one| one.contains(&format!("{tag}/")) || one.contains(&format!("{tag}.")));
    let worlds = changes
        .iter()
        .filter(|(tag, _)| is_meant(tag))
        .map(|(_, change)| format!("--- old\n{}--- new\n{}", change.old.show(), change.new.show()));
    differing.iter().cloned().chain(worlds.collect::<Vec<_>>()).collect()
}

/// For whoever looks for the reason of a refusal.
#[expect(clippy::print_stdout, reason = "asked for by a variable")]
fn show(said: &str) {
    println!("{said}");
}
