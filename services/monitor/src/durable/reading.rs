//! What of a file is read, and what that costs.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use super::place::Copy;
use crate::model::Nanos;

/// Rows of a file that are read together: of one row group, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The place of the row group.
    pub(crate) group: usize,
    /// The place of the first row in it.
    pub(crate) from: usize,
    /// How many rows it has.
    pub(crate) rows: usize,
    /// The earliest time in it.
    pub(crate) time_min: Nanos,
    /// The latest time in it.
    pub(crate) time_max: Nanos,
    /// Sequence number of its first row.
    pub(crate) first: u64,
}

/// The row groups of some pieces in their order, and which rows of those are meant.
pub(crate) fn selection(pieces: &[Piece], rows_of: impl Fn(usize) -> usize) -> (Vec<usize>, RowSelection) {
    let mut pieces = pieces.to_vec();
    pieces.sort_by_key(|piece| (piece.group, piece.from));
    let (mut groups, mut selectors) = (Vec::new(), Vec::new());
    for of_group in pieces.chunk_by(|one, next| one.group == next.group) {
        let group = of_group[0].group;
        let mut row = 0;
        for piece in of_group {
            selectors.push(RowSelector::skip(piece.from - row));
            selectors.push(RowSelector::select(piece.rows));
            row = piece.from + piece.rows;
        }
        selectors.push(RowSelector::skip(rows_of(group).saturating_sub(row)));
        groups.push(group);
    }
    (groups, RowSelection::from(selectors))
}

/// What questions have cost.
#[derive(Debug, Default)]
pub(crate) struct Cost {
    /// Files that were opened, each as often as it was.
    pub(crate) files: AtomicU64,
    /// Bytes that were read of them.
    pub(crate) bytes: AtomicU64,
    /// Blocks, or row groups, that were read.
    pub(crate) pieces: AtomicU64,
    /// Rows of those.
    pub(crate) rows: AtomicU64,
    /// Blocks that the index said need not be read.
    pub(crate) passed_over: AtomicU64,
    /// Indexes that were found spoiled.
    pub(crate) spoiled: AtomicU64,
}

impl Cost {
    /// Counts pieces that are read.
    pub(crate) fn read_pieces(&self, pieces: &[Piece]) {
        self.pieces.fetch_add(pieces.len() as u64, Ordering::Relaxed);
        self.rows.fetch_add(pieces.iter().map(|piece| piece.rows as u64).sum(), Ordering::Relaxed);
    }

    /// Counts blocks that are not.
    pub(crate) fn passed_over(&self, blocks: usize) {
        self.passed_over.fetch_add(blocks as u64, Ordering::Relaxed);
    }

    fn add_bytes(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Adds what another has counted.
    pub(crate) fn add(&self, other: &Self) {
        let pairs = [
            (&self.files, &other.files),
            (&self.bytes, &other.bytes),
            (&self.pieces, &other.pieces),
            (&self.rows, &other.rows),
            (&self.passed_over, &other.passed_over),
            (&self.spoiled, &other.spoiled),
        ];
        for (sum, part) in pairs {
            sum.fetch_add(part.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

/// Where the bytes of a file come from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// The disk.
    Whole(Arc<File>),
    /// The disk, once they are fetched.
    Copy(Arc<Copy>),
}

impl Source {
    fn length(&self) -> u64 {
        match self {
            Self::Whole(file) => file.metadata().map(|about| about.len()).unwrap_or(0),
            Self::Copy(copy) => copy.length(),
        }
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        match self {
            Self::Whole(file) => file.read_at(bytes, at),
            Self::Copy(copy) => copy.read_at(bytes, at),
        }
    }

    fn fill_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        match self {
            Self::Whole(file) => file.read_exact_at(bytes, at),
            Self::Copy(copy) if copy.read_at(bytes, at)? == bytes.len() => Ok(()),
            Self::Copy(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// A file whose reads are counted.
#[derive(Debug)]
pub(crate) struct Counted {
    source: Source,
    cost: Arc<Cost>,
}

impl Counted {
    /// Counts the reads of a file.
    pub(crate) fn new(source: Source, cost: Arc<Cost>) -> Self {
        cost.files.fetch_add(1, Ordering::Relaxed);
        Self { source, cost }
    }

    /// Says that some bytes are about to be read, so that what is not on the disk is fetched together.
    pub(crate) fn ahead(&self, at: u64, count: u64) -> io::Result<()> {
        match &self.source {
            Source::Whole(_) => Ok(()),
            Source::Copy(copy) => copy.fetch(at, count),
        }
    }

    /// Counts that its index is spoiled, and says so: rows are read without it.
    pub(crate) fn spoiled(&self) {
        self.cost.spoiled.fetch_add(1, Ordering::Relaxed);
        tracing::warn!("the index of a file of telemetry is spoiled; its rows are read without it");
    }

    /// Fills bytes from a place on.
    pub(crate) fn read_at(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.cost.add_bytes(bytes.len());
        self.source.fill_at(bytes, at)
    }
}

impl Length for Counted {
    fn len(&self) -> u64 {
        self.source.length()
    }
}

impl ChunkReader for Counted {
    type T = io::BufReader<From>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(io::BufReader::new(From { source: self.source.clone(), at: start, cost: self.cost.clone() }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let mut bytes = vec![0; length];
        self.read_at(start, &mut bytes)?;
        Ok(bytes.into())
    }
}

/// Reads a file from a place on.
#[derive(Debug)]
pub(crate) struct From {
    source: Source,
    at: u64,
    cost: Arc<Cost>,
}

impl Read for From {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read_at(bytes, self.at)?;
        self.at += read as u64;
        self.cost.add_bytes(read);
        Ok(read)
    }
}
