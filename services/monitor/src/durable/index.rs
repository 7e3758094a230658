//! The index in a file: what may be in each block of rows, so that a question reads the few blocks that matter.
//!
//! A block is some thousand rows. Of each the index has the times, the first place, and a bloom filter of keys: pieces of
//! texts, pairs of attributes, services with their levels, traces. The filter never says no where it is yes. Readers of
//! Parquet that do not know the index pass over it: it stands between the last row group and the footer, which names it.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use arrow::array::{ArrayRef, AsArray as _, RecordBatch};
use arrow::datatypes::{Int32Type, TimestampNanosecondType, UInt64Type};
use arrow::error::ArrowError;

use super::columns::{
    ATTRIBUTES, BODY, INSTANCE, LEVEL, NAME, RESOURCE, SEQUENCE, SERVICE, TIME, TRACE, pairs, text_at,
};
use super::grams::{Grams, Kind, key, keys_of_pair};
use crate::model::Nanos;

/// Rows of a block. A page has as many, and a row group eight times that. Tests have many blocks of few rows.
pub(crate) const BLOCK_ROWS: usize = if cfg!(test) { 64 } else { 8 * 1024 };
/// Bits of a filter for each key: about one wrong answer in two hundred.
const BITS_PER_KEY: usize = 12;
/// Bytes that one key's bits are in: a line of a processor's memory holds two.
const LANE_BYTES: usize = 32;
/// What the index begins with; the last byte is the number of the layout.
const MAGIC: &[u8; 8] = b"9foldix\x01";
/// What the index has of each block beside its filter.
const HEAD_BYTES: usize = 4 + 4 + 8 + 8 + 8;
/// What the index begins with, and how many blocks it has.
pub(crate) const BEGIN_BYTES: usize = MAGIC.len() + 4;
const SUM_BYTES: usize = 4;
/// Bytes of filters that one sum is over: what is read of them at a time, some lanes.
pub(crate) const CHECKED_BYTES: usize = 16 * LANE_BYTES;

/// A block of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// How many rows it has.
    pub(crate) rows: usize,
    /// Sequence number of its first row, the smallest.
    pub(crate) first: u64,
    /// The earliest time in it.
    pub(crate) time_min: Nanos,
    /// The latest time in it.
    pub(crate) time_max: Nanos,
    /// Where its filter begins, from the beginning of the index.
    at: u64,
    lanes: usize,
}

impl Block {
    /// Whether a key may be in it. `read` fills a part of a filter, from a place in the index.
    pub(crate) fn may_have(
        &self,
        key: u64,
        read: impl FnOnce(u64, &mut [u8]) -> std::io::Result<()>,
    ) -> std::io::Result<bool> {
        let Some((lane, bits)) = places(key, self.lanes) else { return Ok(false) };
        let mut bytes = [0; LANE_BYTES];
        read(self.at + (lane * LANE_BYTES) as u64, &mut bytes)?;
        Ok(bits.iter().all(|bit| bytes[usize::from(*bit / 8)] & (1 << (bit % 8)) != 0))
    }
}

/// Where the bits of a key are: the lane, and one bit in each eighth of it.
fn places(key: u64, lanes: usize) -> Option<(usize, [u8; 8])> {
    if lanes == 0 {
        return None;
    }
    let lane = usize::try_from((u128::from(key) * lanes as u128) >> 64).ok()?;
    let mut mixed = super::grams::mix(key ^ 0x9e37_79b9_7f4a_7c15);
    let mut bits = [0; 8];
    for (eighth, bit) in (0_u8..).zip(&mut bits) {
        *bit = eighth * 32 + u8::try_from(mixed & 31).unwrap_or(0);
        mixed >>= 5;
    }
    Some((lane, bits))
}

fn filter_of(keys: &[u64]) -> Vec<u8> {
    let lanes = (keys.len() * BITS_PER_KEY).div_ceil(LANE_BYTES * 8);
    let mut filter = vec![0; lanes * LANE_BYTES];
    for key in keys {
        if let Some((lane, bits)) = places(*key, lanes) {
            for bit in bits {
                filter[lane * LANE_BYTES + usize::from(bit / 8)] |= 1 << (bit % 8);
            }
        }
    }
    filter
}

/// How many bytes of an index tell of its blocks, from its first bytes on; `None` where they are something else.
pub(crate) fn heads_bytes(begin: &[u8; BEGIN_BYTES]) -> Option<usize> {
    let count = begin.strip_prefix(MAGIC)?.first_chunk::<4>()?;
    usize::try_from(u32::from_le_bytes(*count)).ok()?.checked_mul(HEAD_BYTES)?.checked_add(BEGIN_BYTES + SUM_BYTES)
}

/// Reads what [`Builder::finish`] wrote of blocks; `None` where it is something else, or damaged: then rows are read
/// without it.
pub(crate) fn decode(bytes: &[u8]) -> Option<Vec<Block>> {
    let (body, sum) = bytes.split_last_chunk::<SUM_BYTES>()?;
    if crc32fast::hash(body) != u32::from_le_bytes(*sum) {
        return None;
    }
    let mut at = bytes.len() as u64;
    let mut blocks = Vec::new();
    for head in body.get(BEGIN_BYTES..)?.chunks_exact(HEAD_BYTES) {
        let short = |at: usize| head[at..at + 4].try_into().map(u32::from_le_bytes).ok();
        let long = |at: usize| head[at..at + 8].try_into().map(u64::from_le_bytes).ok();
        let lanes = usize::try_from(short(4)?).ok()?;
        blocks.push(Block {
            rows: usize::try_from(short(0)?).ok()?,
            first: long(8)?,
            time_min: Nanos(long(16)?),
            time_max: Nanos(long(24)?),
            at,
            lanes,
        });
        at += (lanes * LANE_BYTES) as u64;
    }
    Some(blocks)
}

/// Where the filters of blocks begin in their index, and how long they are together.
pub(crate) fn filters_of(blocks: &[Block]) -> (u64, usize) {
    let from = BEGIN_BYTES + blocks.len() * HEAD_BYTES + SUM_BYTES;
    (from as u64, blocks.iter().map(|block| block.lanes * LANE_BYTES).sum())
}

/// The sum over a part of the filters.
pub(crate) fn sum(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// How many bytes the sums over so many bytes of filters take.
pub(crate) const fn sums_bytes(filters: usize) -> usize {
    filters.div_ceil(CHECKED_BYTES) * SUM_BYTES
}

/// Reads sums.
pub(crate) fn sums_of(bytes: &[u8]) -> Vec<u32> {
    let one = |bytes: &[u8]| bytes.try_into().map(u32::from_le_bytes).unwrap_or_default();
    bytes.chunks_exact(SUM_BYTES).map(one).collect()
}

/// Makes the index of a file while its rows are written.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    /// The blocks that are full, and after them their filters.
    blocks: Vec<Block>,
    filters: Vec<u8>,
    open: Open,
}

/// The block that is being filled.
#[derive(Debug)]
struct Open {
    rows: usize,
    first: u64,
    time_min: Nanos,
    time_max: Nanos,
    keys: HashSet<u64, BuildHasherDefault<Plain>>,
    grams: Grams,
    /// Texts that were taken apart already.
    seen: HashSet<u64, BuildHasherDefault<Plain>>,
}

impl Default for Open {
    fn default() -> Self {
        Self {
            rows: 0,
            first: u64::MAX,
            time_min: Nanos(u64::MAX),
            time_max: Nanos(0),
            keys: HashSet::default(),
            grams: Grams::default(),
            seen: HashSet::default(),
        }
    }
}

/// Keys are mixed already.
#[derive(Debug, Default)]
pub(crate) struct Plain(u64);

impl Hasher for Plain {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

impl Builder {
    /// Takes rows in, in the order in which they are written.
    pub(crate) fn add(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
        let rows = Columns::of(batch)?;
        for row in 0..batch.num_rows() {
            self.open.add(&rows, row);
            if self.open.rows == BLOCK_ROWS {
                self.close();
            }
        }
        Ok(())
    }

    /// Takes blocks of another file in as they are, with their filters.
    pub(crate) fn copy(&mut self, blocks: &[Block], filters: &[u8]) {
        self.close();
        self.blocks.extend(blocks.iter().cloned());
        self.filters.extend(filters);
    }

    fn close(&mut self) {
        if self.open.rows > 0 {
            let at = self.filters.len() as u64;
            let (block, filter) = self.open.close();
            self.blocks.push(Block { at, lanes: filter.len() / LANE_BYTES, ..block });
            self.filters.extend(filter);
        }
    }

    /// The index as bytes: how many blocks, what is known of each, a sum over that, the filters, and sums over each
    /// [`CHECKED_BYTES`] of those. An older ninefold does not look behind the filters.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        self.close();
        let short = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes();
        let mut bytes = MAGIC.to_vec();
        bytes.extend(short(self.blocks.len()));
        for block in &self.blocks {
            bytes.extend(short(block.rows));
            bytes.extend(short(block.lanes));
            bytes.extend(block.first.to_le_bytes());
            bytes.extend(block.time_min.0.to_le_bytes());
            bytes.extend(block.time_max.0.to_le_bytes());
        }
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        let sums: Vec<u8> = self.filters.chunks(CHECKED_BYTES).flat_map(|some| sum(some).to_le_bytes()).collect();
        bytes.append(&mut self.filters);
        bytes.extend(sums);
        bytes
    }
}

impl Open {
    fn add(&mut self, columns: &Columns<'_>, row: usize) {
        self.rows += 1;
        self.first = self.first.min(columns.sequences[row]);
        let time = Nanos(u64::try_from(columns.times[row]).unwrap_or(0));
        self.time_min = self.time_min.min(time);
        self.time_max = self.time_max.max(time);
        // Mostly who spoke, and how gravely, is as in the row before.
        if self.rows == 1 || !columns.is_as_before(row) {
            self.words(columns, row);
        }
        if let Some(body) = columns.body.and_then(|column| text_at(column, row))
            && self.seen.insert(key(Kind::Seen, body))
        {
            self.grams.add(body);
        }
        if let Some(trace) = columns.trace.and_then(|column| text_at(column, row)).filter(|id| !id.is_empty()) {
            self.keys.insert(key(Kind::Trace, trace));
            self.keys.insert(key(Kind::TraceAgain, trace));
        }
        if let Some(name) = columns.name.and_then(|column| text_at(column, row)) {
            self.keys.insert(key(Kind::Name, name));
        }
        if let Some(object) = columns.attributes.and_then(|column| text_at(column, row)) {
            self.attributes(object, columns.body.is_some());
        }
    }

    fn words(&mut self, columns: &Columns<'_>, row: usize) {
        let text = |column: &ArrayRef| text_at(column, row).unwrap_or_default().to_ascii_lowercase();
        let (service, instance) = (text(columns.service), text(columns.instance));
        self.keys.insert(key(Kind::Service, &service));
        self.keys.insert(key(Kind::Instance, &instance));
        if let Some(level) = columns.level.and_then(|column| text_at(column, row)) {
            self.keys.insert(key(Kind::Level, level));
            self.keys.insert(key(Kind::ServiceLevel, &format!("{service}\n{level}")));
        }
        let resource = text_at(columns.resource, row).unwrap_or_default();
        self.attributes(resource, columns.body.is_some());
    }

    fn attributes(&mut self, object: &str, with_grams: bool) {
        if object == "{}" || !self.seen.insert(key(Kind::Seen, object)) {
            return;
        }
        for (name, value) in pairs(object) {
            self.keys.extend(keys_of_pair(&name, &value));
            if with_grams && self.seen.insert(key(Kind::Seen, &value)) {
                self.grams.add(&value);
            }
        }
    }

    fn close(&mut self) -> (Block, Vec<u8>) {
        let mut keys: Vec<u64> = self.keys.drain().collect();
        self.grams.take(&mut keys);
        self.seen.clear();
        let block = Block {
            rows: self.rows,
            first: self.first,
            time_min: self.time_min,
            time_max: self.time_max,
            at: 0,
            lanes: 0,
        };
        (self.rows, self.first) = (0, u64::MAX);
        (self.time_min, self.time_max) = (Nanos(u64::MAX), Nanos(0));
        (block, filter_of(&keys))
    }
}

/// The columns of a batch that the index looks at.
struct Columns<'a> {
    sequences: &'a [u64],
    times: &'a [i64],
    service: &'a ArrayRef,
    instance: &'a ArrayRef,
    resource: &'a ArrayRef,
    level: Option<&'a ArrayRef>,
    name: Option<&'a ArrayRef>,
    trace: Option<&'a ArrayRef>,
    body: Option<&'a ArrayRef>,
    attributes: Option<&'a ArrayRef>,
}

impl<'a> Columns<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self, ArrowError> {
        let column = |name: &str| {
            batch.column_by_name(name).ok_or_else(|| ArrowError::SchemaError(format!("there is no column {name}")))
        };
        Ok(Self {
            sequences: column(SEQUENCE)?.as_primitive::<UInt64Type>().values(),
            times: column(TIME)?.as_primitive::<TimestampNanosecondType>().values(),
            service: column(SERVICE)?,
            instance: column(INSTANCE)?,
            resource: column(RESOURCE)?,
            level: batch.column_by_name(LEVEL),
            name: batch.column_by_name(NAME),
            trace: batch.column_by_name(TRACE),
            body: batch.column_by_name(BODY),
            attributes: batch.column_by_name(ATTRIBUTES),
        })
    }

    /// Whether the words of a row are those of the row before it.
    fn is_as_before(&self, row: usize) -> bool {
        let columns = [Some(self.service), Some(self.instance), Some(self.resource), self.level];
        row > 0 && columns.into_iter().flatten().all(|column| is_same(column, row))
    }
}

fn is_same(column: &ArrayRef, row: usize) -> bool {
    match column.as_dictionary_opt::<Int32Type>() {
        Some(words) => words.keys().value(row) == words.keys().value(row - 1),
        None => text_at(column, row) == text_at(column, row - 1),
    }
}
