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

/// Takes out the worlds that buf speaks of.
fn drop_told(changes: &mut BTreeMap<String, Change>, said: &str) {
    let is_told = |tag: &str| said.contains(&format!("{tag}/")) || said.contains(&format!("{tag}."));
    let before = changes.len();
    changes.retain(|tag, _| !is_told(tag));
    assert!(changes.len() < before, "buf refused, and did not say which: {said}");
    if std::env::var_os("NINEFOLD_MUTATION_SHOW").is_some() {
        show(said);
    }
}

/// One side, compiled.
fn compile(work: &Path, name: &str, worlds: impl Iterator<Item = World>) -> Result<(PathBuf, Schema), String> {
    let (folder, set) = (work.join(name), work.join(format!("{name}.binpb")));
    worlds.for_each(|world| world.write(&folder));
    let schema = oracle::try_compile(&folder, &set)?;
    Ok((set, schema))
}

/// What buf says, and what we say.
fn compare(changes: &BTreeMap<String, Change>) -> Result<(Verdict, Verdict), String> {
    let work = tempfile::tempdir().expect("a folder can be made");
    let (old_set, old) = compile(work.path(), "old", changes.values().map(|change| change.old.clone()))?;
    let (new_set, new) = compile(work.path(), "new", changes.values().map(|change| change.new.clone()))?;
    let every = RuleSet::named(Category::ALL.map(Category::as_str)).expect("these are categories");
    let buf = oracle::try_breaking(&old_set, &new_set, "{\"use\":[\"FILE\",\"PACKAGE\",\"WIRE_JSON\",\"WIRE\"]}")?;
    Ok((buf, oracle::ours(&rules::check(&old, &new, &every))))
}

#[test]
fn what_random_changes_break_is_what_buf_says() {
    let first = number("NINEFOLD_MUTATION_SEED").unwrap_or_else(|| fastrand::u64(..1 << 32));
    let asked = number("NINEFOLD_MUTATION_ROUNDS");
    let rounds = asked.unwrap_or(ROUNDS);
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
        let (buf, ours) = loop {
            match compare(&changes) {
                Ok(verdicts) => break verdicts,
                Err(said) => drop_told(&mut changes, &said),
            }
        };
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
