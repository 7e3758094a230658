//! Where in its file a part was written, and the comments beside it. Pure.
//!
//! A set has a location for every word of its sources. Kept are 16 bytes of each: a hash of its path, and where in the raw
//! bytes the rest is found when it is asked for.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::OnceLock;

use crate::read::{Reader, Value};

/// Where the parts of one file were written.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    /// Hash of the path, place of the location's bytes; sorted, the first of equals first.
    known: Vec<(u64, super::options::Span)>,
    /// Path, order and line of each, sorted; made when somebody asks for what is near.
    sorted: OnceLock<Vec<(Vec<i32>, u32, u32)>>,
}

/// One location, read.
#[derive(Clone, Debug, Default)]
pub(super) struct Location<'a> {
    pub(super) path: Vec<i32>,
    /// Line, counted from 1.
    pub(super) line: u32,
    pub(super) leading: Option<&'a str>,
    pub(super) trailing: Option<&'a str>,
}

/// Hashes a path as it is on the wire, so that no number of the many locations has to be read.
fn hash(packed: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    packed.hash(&mut hasher);
    hasher.finish()
}

fn packed(path: &[i32]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(path.len() + 4);
    for step in path {
        let mut rest = u64::from(step.cast_unsigned());
        while rest >= 0x80 {
            packed.push(u8::try_from(rest & 0x7f).unwrap_or_default() | 0x80);
            rest >>= 7;
        }
        packed.push(u8::try_from(rest).unwrap_or_default());
    }
    packed
}

/// The hash of a location's path, whichever way it is written.
fn hash_of(location: &[u8]) -> u64 {
    let mut reader = Reader::new(location);
    let mut only = None;
    while let Ok(Some((number, value))) = reader.next() {
        match (number, value, only) {
            (1, Value::Bytes(bytes), None) => only = Some(bytes),
            (1, ..) => return hash(&packed(&path_of(location))),
            _ => {}
        }
    }
    hash(only.unwrap_or_default())
}

impl Places {
    /// Indexes a serialized `google.protobuf.SourceCodeInfo` that lies at `base` in the set.
    pub(super) fn index(&mut self, set: &[u8], base: super::options::Span) {
        let info = set.get(base.start as usize..base.end as usize).unwrap_or_default();
        let mut reader = Reader::new(info);
        while let Ok(Some((number, value))) = reader.next() {
            if let (1, Value::Bytes(location)) = (number, value) {
                let span = super::build::span_in(set, location);
                self.known.push((hash_of(location), span));
            }
        }
        self.known.sort_unstable_by_key(|(hash, span)| (*hash, span.start));
        self.known.shrink_to_fit();
    }

    /// The location of a path.
    pub(super) fn find<'a>(&self, set: &'a [u8], path: &[i32]) -> Option<Location<'a>> {
        let wanted = hash(&packed(path));
        let first = self.known.partition_point(|(hash, _)| *hash < wanted);
        let equal = self.known.get(first..)?.iter().take_while(|(hash, _)| *hash == wanted);
        equal.map(|(_, span)| read(bytes(set, *span))).find(|location| location.path == path)
    }

    /// The line of the first location inside of a path, or else of the longest that it is in and that has `least` steps.
    pub(super) fn near(&self, set: &[u8], path: &[i32], least: usize) -> Option<u32> {
        let sorted = self.sorted.get_or_init(|| {
            let locations = self.known.iter().map(|(_, span)| (span.start, read(bytes(set, *span))));
            let mut sorted: Vec<_> = locations.map(|(order, found)| (found.path, order, found.line)).collect();
            sorted.sort_unstable();
            sorted
        });
        let first = sorted.partition_point(|(known, ..)| known.as_slice() < path);
        let inside = sorted.get(first..)?.iter().take_while(|(known, ..)| known.starts_with(path));
        if let Some((.., line)) = inside.min_by_key(|(_, order, _)| *order) {
            return Some(*line);
        }
        (least..path.len()).rev().find_map(|steps| self.find(set, path.get(..steps)?)).map(|location| location.line)
    }

    /// Whether nothing is known.
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

fn bytes(set: &[u8], span: super::options::Span) -> &[u8] {
    set.get(span.start as usize..span.end as usize).unwrap_or_default()
}

fn path_of(location: &[u8]) -> Vec<i32> {
    numbers(location, 1)
}

fn numbers(location: &[u8], wanted: u64) -> Vec<i32> {
    let mut path = Vec::new();
    let mut reader = Reader::new(location);
    while let Ok(Some((number, value))) = reader.next() {
        match value {
            Value::Varint(step) if number == wanted => path.extend(i32::try_from(step)),
            Value::Bytes(packed) if number == wanted => {
                let mut steps = Reader::new(packed);
                while !steps.is_empty() {
                    let Ok(step) = steps.varint() else { break };
                    path.extend(i32::try_from(step));
                }
            }
            _ => {}
        }
    }
    path
}

fn read(location: &[u8]) -> Location<'_> {
    let mut found = Location { path: path_of(location), ..Location::default() };
    let first = numbers(location, 2).first().copied().unwrap_or(0);
    found.line = u32::try_from(first).unwrap_or(0).saturating_add(1);
    let mut reader = Reader::new(location);
    while let Ok(Some((number, value))) = reader.next() {
        match (number, value) {
            (3, Value::Bytes(text)) => found.leading = std::str::from_utf8(text).ok(),
            (4, Value::Bytes(text)) => found.trailing = std::str::from_utf8(text).ok(),
            _ => {}
        }
    }
    found
}
