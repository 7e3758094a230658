//! Who is asked how often.

use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use super::{Gauge, Gauged, Method, Table, hash, subset};

struct Endpoint {
    name: &'static str,
    gauge: Gauge,
}

impl Gauged for Endpoint {
    fn gauge(&self) -> &Gauge {
        &self.gauge
    }
}

fn endpoint(name: &'static str, weight: f32) -> Endpoint {
    let gauge = Gauge::default();
    gauge.set_weight(weight);
    gauge.observe(Duration::ZERO, Duration::from_millis(1));
    Endpoint { name, gauge }
}

fn table(endpoints: Vec<Endpoint>, method: Method) -> Table<Endpoint> {
    Table::new(endpoints, method, |endpoint| endpoint.name)
}

fn shares(table: &Table<Endpoint>) -> Vec<u32> {
    let (turn, mut random) = (AtomicUsize::new(0), fastrand::Rng::with_seed(1));
    let mut shares = vec![0; table.endpoints().len()];
    for _ in 0..10_000 {
        let picked = table.pick(&turn, random.u64(..), None).unwrap();
        shares[table.endpoints().iter().position(|endpoint| endpoint.name == picked.name).unwrap()] += 1;
    }
    shares
}

#[test]
fn idle_endpoints_share_calls_by_weight() {
    let even = shares(&table(vec![endpoint("a", 100.0), endpoint("b", 100.0)], Method::PeakEwma));
    assert!((4_700..5_300).contains(&even[0]), "{even:?}");
    let canary = shares(&table(vec![endpoint("a", 90.0), endpoint("b", 10.0)], Method::PeakEwma));
    assert!((800..1_200).contains(&canary[1]), "{canary:?}");
    let three = [endpoint("a", 100.0), endpoint("b", 300.0), endpoint("c", 600.0)];
    let three = shares(&table(three.into(), Method::PeakEwma));
    assert!((700..1_300).contains(&three[0]) && (2_700..3_300).contains(&three[1]), "{three:?}");
}

#[test]
fn under_load_shares_follow_weights_too() {
    for method in [Method::PeakEwma, Method::LeastRequest] {
        let table = table(vec![endpoint("a", 75.0), endpoint("b", 25.0)], method);
        let (turn, mut random) = (AtomicUsize::new(0), fastrand::Rng::with_seed(3));
        for _ in 0..400 {
            table.pick(&turn, random.u64(..), None).unwrap().gauge.enter();
        }
        assert!(
            (280..320).contains(&table.endpoints()[0].gauge.in_flight()),
            "{table:?}",
            table = table.endpoints()[0].gauge
        );
    }
}

#[test]
fn the_slower_of_two_is_left_alone_until_it_is_forgiven() {
    let table = table(vec![endpoint("slow", 100.0), endpoint("quick", 100.0)], Method::PeakEwma);
    table.endpoints()[0].gauge.observe(Duration::ZERO, Duration::from_secs(1));
    assert_eq!(shares(&table)[0], 0);
    table.endpoints()[0].gauge.refresh(Duration::from_secs(20));
    assert!(shares(&table)[0] > 4_000);
}

#[test]
fn one_that_never_answered_is_judged_by_its_queue() {
    let fresh = Endpoint { name: "fresh", gauge: Gauge::default() };
    fresh.gauge.enter();
    assert_eq!(shares(&table(vec![fresh, endpoint("b", 100.0)], Method::PeakEwma))[0], 0);
}

#[test]
fn a_latency_follows_peaks_at_once_and_forgets_them_over_seconds() {
    let (one, other) = (Gauge::default(), Gauge::default());
    other.observe(Duration::ZERO, Duration::from_millis(100));
    one.observe(Duration::ZERO, Duration::from_millis(100));
    one.observe(Duration::from_secs(1), Duration::from_secs(2));
    assert!(other.is_below(&one));
    for second in 2..20 {
        one.observe(Duration::from_secs(second), Duration::from_millis(100));
    }
    assert!(!other.is_below(&one) && !one.is_below(&other));
}

#[test]
fn round_robin_takes_turns_and_the_weighted_one_spreads_them() {
    let endpoints = || vec![endpoint("a", 100.0), endpoint("b", 100.0), endpoint("c", 200.0)];
    let even = shares(&table(endpoints(), Method::RoundRobin));
    assert!(even.iter().all(|share| (3_333..=3_334).contains(share)), "{even:?}");
    let weighted = table(endpoints(), Method::WeightedRoundRobin);
    assert_eq!(shares(&weighted), [2_500, 2_500, 5_000]);
    let turn = AtomicUsize::new(0);
    let names: Vec<_> = (0..8).map(|_| weighted.pick(&turn, 0, None).unwrap().name).collect();
    assert!(names.windows(2).all(|pair| pair != ["a", "a"] && pair != ["b", "b"]), "{names:?}");
}

#[test]
fn a_key_stays_with_its_endpoint_when_others_come_and_go() {
    const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
    let of = |names: &[&'static str]| table(names.iter().map(|name| endpoint(name, 100.0)).collect(), Method::RingHash);
    let (before, after) = (of(&NAMES[..5]), of(&NAMES[1..]));
    let turn = AtomicUsize::new(0);
    let mut moved = 0;
    for key in 0..10_000_u32 {
        let key = Some(hash(&key.to_be_bytes()));
        let (old, new) = (before.pick(&turn, 0, key).unwrap().name, after.pick(&turn, 0, key).unwrap().name);
        if old != new {
            assert!(old == "a" || new == "f", "{old} -> {new}");
            moved += 1;
        }
    }
    assert!((2_500..5_500).contains(&moved), "{moved}");
}

#[test]
fn only_eligible_ones_are_picked_among() {
    let table = table(vec![endpoint("a", 100.0), endpoint("b", 100.0), endpoint("c", 1.0)], Method::RoundRobin);
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..100 {
        assert_eq!(table.pick_among(random.u64(..), |endpoint| endpoint.name == "c").unwrap().name, "c");
        assert!(table.pick_among(random.u64(..), |_| false).is_none());
    }
}

#[test]
fn every_caller_has_a_subset_of_its_own_that_hardly_changes() {
    let all: Vec<u64> = (0..20).map(|number: u64| hash(&number.to_be_bytes())).collect();
    let of = |caller: u64, items: &[u64]| subset(items.to_vec(), 5, caller, |item| *item);
    let mine = of(1, &all);
    assert_eq!((mine.len(), &mine), (5, &of(1, &all)));
    assert_ne!(mine, of(2, &all));
    // One that leaves is replaced; the others stay.
    let fewer: Vec<u64> = all.iter().copied().filter(|item| *item != mine[0]).collect();
    let after = of(1, &fewer);
    assert_eq!(mine.iter().filter(|item| after.contains(item)).count(), 4);
    // Callers together reach everybody about as often.
    let mut reached = std::collections::HashMap::<u64, u32>::new();
    for caller in 0..1_000_u32 {
        for item in of(hash(&caller.to_be_bytes()), &all) {
            *reached.entry(item).or_default() += 1;
        }
    }
    assert!(reached.len() == 20 && reached.values().all(|times| (180..320).contains(times)), "{reached:?}");
}
