//! Bytes of people who mean harm: a named flaw, or a schema that can be used, within bounded time; never a panic.

use std::time::{Duration, Instant};

use fastrand::Rng;
use ninefold_contract::{Level, Limits, RuleSet, Schema, lint, rules};
use prost::Message as _;
use prost_types::FileDescriptorSet;

/// Far above what any of it takes on a busy machine, far below what a quadratic reader would.
const TIME_MAX: Duration = Duration::from_secs(30);

/// A set with some of everything: this project's own contracts.
fn sample() -> Vec<u8> {
    ninefold_proto::DESCRIPTOR_SET.to_vec()
}

/// Reads bytes, and uses what comes out as the gate would.
fn use_all(bytes: Vec<u8>, old: &Schema) -> bool {
    let Ok(schema) = Schema::parse(bytes, &Limits::default()) else { return false };
    rules::check(old, &schema, &RuleSet::level(Level::Strict));
    rules::check(&schema, old, &RuleSet::named(["FILE", "WIRE"]).expect("these are categories"));
    lint::lint(&schema, None);
    true
}

#[test]
fn bytes_that_are_changed_at_random_are_read_or_refused() {
    const ROUNDS: usize = 60;
    let seed = std::env::var("NINEFOLD_HOSTILE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("NINEFOLD_HOSTILE_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let whole = sample();
    let old = Schema::parse(whole.clone(), &Limits::default()).expect("our own contracts are well");
    let (start, mut read) = (Instant::now(), 0);
    for _ in 0..ROUNDS {
        let mut bytes = whole.clone();
        for _ in 0..rng.usize(1..4) {
            let place = rng.usize(..bytes.len());
            match rng.u8(..5) {
                0 => bytes[place] ^= 1 << rng.u8(..8),
                1 => bytes[place] = rng.u8(..),
                2 => bytes.truncate(place.max(1)),
                3 => _ = bytes.drain(place..(place + rng.usize(1..9)).min(bytes.len())),
                _ => bytes.splice(place..place, [0xff; 9]).for_each(drop),
            }
            if bytes.is_empty() {
                bytes.push(0);
            }
        }
        read += usize::from(use_all(bytes, &old));
        if start.elapsed() > TIME_MAX {
            break;
        }
    }
    println!("{read} of {ROUNDS} could still be read");
}

#[test]
fn what_is_too_much_is_refused_by_name() {
    let mut file = FileDescriptorSet::decode(&sample()[..]).expect("our own contracts decode").file.remove(0);
    file.dependency.clear();
    (file.message_type, file.enum_type, file.service, file.extension) = Default::default();
    let refused = |set: FileDescriptorSet| {
        let start = Instant::now();
        let flaw = Schema::parse(set.encode_to_vec(), &Limits::default()).expect_err("this is too much");
        assert!(start.elapsed() < TIME_MAX, "{flaw} took {:?}", start.elapsed());
        flaw.to_string()
    };
    let mut deep = prost_types::DescriptorProto { name: Some("Deep".to_owned()), ..Default::default() };
    for _ in 0..200 {
        let inner = std::mem::replace(
            &mut deep,
            prost_types::DescriptorProto { name: Some("Deep".to_owned()), ..Default::default() },
        );
        deep.nested_type.push(inner);
    }
    let with = |message| FileDescriptorSet {
        file: vec![prost_types::FileDescriptorProto { message_type: vec![message], ..file.clone() }],
    };
    assert!(refused(with(deep)).contains("nested more than 32 deep"));
    let field = |number| prost_types::FieldDescriptorProto {
        name: Some(format!("f{number}")),
        number: Some(number),
        r#type: Some(5),
        label: Some(1),
        ..Default::default()
    };
    let many = prost_types::DescriptorProto {
        name: Some("Many".to_owned()),
        field: (20_000..1_020_000).map(field).collect(),
        ..Default::default()
    };
    assert!(refused(with(many)).contains("over 500000 parts"));
    let cycle = |name: &str, other: &str| prost_types::FileDescriptorProto {
        name: Some(name.to_owned()),
        dependency: vec![other.to_owned()],
        ..Default::default()
    };
    let set = FileDescriptorSet { file: vec![cycle("a.proto", "b.proto"), cycle("b.proto", "a.proto")] };
    assert!(refused(set).contains("imports itself"));
    // A length of a gigabyte, and nothing after it.
    let flaw = Schema::parse(vec![0x0a, 0x80, 0x80, 0x80, 0x80, 0x04], &Limits::default()).expect_err("it is cut off");
    assert!(flaw.to_string().contains("is cut off"), "{flaw}");
}
