//! One Parquet file of the durable tier: how it is written, and how rows are read from it. Blocks.
//!
//! It is read from the node's folder, or, where it went from there, from a copy of what the bucket has.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use arrow::array::{AsArray as _, BooleanArray, RecordBatch};
use arrow::datatypes::{TimestampNanosecondType, UInt64Type};
use arrow::error::ArrowError;
use parquet::arrow::ArrowWriter;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowPredicate, ArrowPredicateFn, ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
    RowFilter,
};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, PageIndexPolicy, ParquetMetaData};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::file::statistics::Statistics;
use parquet::schema::types::ColumnPath;

use super::columns::{BODY, COUNTED, SEQUENCE, TIME, TRACE, schema};
use super::index::{self, BLOCK_ROWS, Block};
use super::manifest::Entry;
use super::need::Need;
use super::place::{Copy, Place};
use super::reading::{Cost, Counted, Piece, Source, selection};
use super::state::lock;
use crate::model::Nanos;
use crate::tier::Signal;

/// Rows of a row group.
pub(crate) const GROUP_ROWS: usize = 8 * BLOCK_ROWS;
/// Rows of a page: what is read of a group to find one row.
const PAGE_ROWS: usize = BLOCK_ROWS;
/// What the footer names the index by: where it begins, and how long it is.
const INDEX: &str = "ninefold.index";
/// How often the bloom filter of trace ids says yes where it is no.
const BLOOM_WRONG: f64 = 0.01;
/// Traces of a row group that the bloom filter is made for.
const BLOOM_TRACES: u64 = 16 * 1024;

/// What ends the name of a file.
pub(crate) const EXTENSION: &str = "parquet";

/// A file that is there. When the last who reads it is done with one that was retired, it is removed.
#[derive(Debug)]
pub(crate) struct Sheet {
    /// What the manifest says of it.
    pub(crate) entry: Entry,
    path: PathBuf,
    place: Arc<Place>,
    footer: OnceLock<ArrowReaderMetadata>,
    index: OnceLock<Option<Index>>,
    is_retired: AtomicBool,
    /// Sums over what the bucket has of it, once that has it whole.
    sums: OnceLock<Arc<[u32]>>,
    /// A copy of what the bucket has, where the file went from the folder.
    copy: Mutex<Option<Arc<Copy>>>,
    is_spoiled: Arc<AtomicBool>,
    /// The number of its last use.
    used: AtomicU64,
}

impl Drop for Sheet {
    fn drop(&mut self) {
        // A file that stays although it should not is found at the next start.
        if self.is_retired.load(Ordering::Acquire) {
            let _ = std::fs::remove_file(&self.path);
            self.place.let_go(&self.entry);
        }
    }
}

/// A file that is copied as it is.
pub(crate) struct Whole {
    /// Its bytes.
    pub(crate) file: Counted,
    /// What it says of its row groups.
    pub(crate) footer: Arc<ParquetMetaData>,
    /// Its index; measurements have none.
    pub(crate) index: Option<WholeIndex>,
}

/// The index of a file, with its filters.
pub(crate) struct WholeIndex {
    /// What is known of the blocks.
    pub(crate) blocks: Vec<Block>,
    /// Their filters, one after the other.
    pub(crate) filters: Vec<u8>,
}

/// The blocks of a file, and where their filters are.
#[derive(Debug)]
struct Index {
    at: u64,
    blocks: Vec<Block>,
    /// Sums over the filters; none in a file of an older ninefold.
    sums: Vec<u32>,
    is_spoiled: AtomicBool,
}

impl Index {
    /// Fills a part of a filter, from a place in the index. One that is spoiled says that everything may be there.
    fn filter(&self, file: &Counted, at: u64, bytes: &mut [u8]) -> std::io::Result<()> {
        let (from, length) = index::filters_of(&self.blocks);
        let place = at.checked_sub(from).and_then(|place| usize::try_from(place).ok()).unwrap_or(0);
        let number = place / index::CHECKED_BYTES;
        let Some(sum) = self.sums.get(number) else { return file.read_at(self.at + at, bytes) };
        let begin = number * index::CHECKED_BYTES;
        let mut read = [0; index::CHECKED_BYTES];
        let read = &mut read[..index::CHECKED_BYTES.min(length.saturating_sub(begin))];
        file.read_at(self.at + from + begin as u64, read)?;
        match read.get(place - begin..place - begin + bytes.len()) {
            Some(part) if index::sum(read) == *sum => bytes.copy_from_slice(part),
            Some(_) | None => {
                bytes.fill(u8::MAX);
                if !self.is_spoiled.swap(true, Ordering::Relaxed) {
                    file.spoiled();
                }
            }
        }
        Ok(())
    }

    /// All filters; `None` where they are spoiled.
    fn filters(&self, file: &Counted) -> std::io::Result<Option<Vec<u8>>> {
        let (from, length) = index::filters_of(&self.blocks);
        let mut filters = vec![0; length];
        file.read_at(self.at + from, &mut filters)?;
        let sums = filters.chunks(index::CHECKED_BYTES).map(index::sum);
        let is_whole = self.sums.is_empty() || sums.eq(self.sums.iter().copied());
        Ok(is_whole.then_some(filters))
    }
}

/// A condition on rows, and the columns it looks at.
pub(crate) struct Condition {
    /// Names of the columns.
    pub(crate) columns: Vec<&'static str>,
    /// Which rows are meant.
    pub(crate) test: Test,
}

/// Tells of each row whether it is meant.
pub(crate) type Test = Box<dyn Fn(&RecordBatch) -> Result<BooleanArray, ArrowError> + Send + Sync>;

impl Sheet {
    /// A file that the manifest has.
    pub(crate) fn new(place: &Arc<Place>, entry: Entry) -> Self {
        Self {
            path: place.path(entry.signal, entry.id),
            used: AtomicU64::new(place.use_number()),
            entry,
            place: place.clone(),
            footer: OnceLock::new(),
            index: OnceLock::new(),
            is_retired: AtomicBool::new(false),
            sums: OnceLock::new(),
            copy: Mutex::default(),
            is_spoiled: Arc::default(),
        }
    }

    /// Says that the manifest does not have it any more.
    pub(crate) fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Says that the bucket has it whole.
    pub(crate) fn is_kept_as(&self, sums: Arc<[u32]>) {
        // It is the same file, whoever put it there first.
        let _ = self.sums.set(sums);
    }

    /// Whether the bucket has it whole.
    pub(crate) fn is_kept(&self) -> bool {
        self.sums.get().is_some()
    }

    /// Whether it is in the folder.
    pub(crate) fn is_here(&self) -> bool {
        self.path.exists()
    }

    /// The number of its last use.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes of the node's disk that it takes although the bucket has it.
    pub(crate) fn spare_bytes(&self) -> u64 {
        let copied = lock(&self.copy).as_ref().map_or(0, |copy| copy.bytes());
        let whole = if self.is_kept() && self.is_here() { self.entry.bytes } else { 0 };
        whole + copied
    }

    /// Gives the disk free of what the bucket has too.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn give_up_copies(&self) -> io::Result<()> {
        lock(&self.copy).take();
        match self.is_kept() && self.is_here() {
            true => std::fs::remove_file(&self.path),
            false => Ok(()),
        }
    }

    /// Whether the bucket was last found not to have it any more, or something else.
    pub(crate) fn is_spoiled(&self) -> bool {
        self.is_spoiled.load(Ordering::Relaxed)
    }

    fn open(&self, cost: &Arc<Cost>) -> Result<Counted, ParquetError> {
        self.used.store(self.place.use_number(), Ordering::Relaxed);
        let source = match (File::open(&self.path), self.sums.get()) {
            (Ok(file), _) => Source::Whole(Arc::new(file)),
            (Err(error), Some(sums)) if error.kind() == io::ErrorKind::NotFound => Source::Copy(self.copied(sums)?),
            (Err(error), _) => return Err(error.into()),
        };
        Ok(Counted::new(source, cost.clone()))
    }

    fn copied(&self, sums: &Arc<[u32]>) -> io::Result<Arc<Copy>> {
        let mut copy = lock(&self.copy);
        if let Some(copy) = &*copy {
            return Ok(copy.clone());
        }
        let begun = Arc::new(self.place.copy(&self.entry, sums.clone(), self.is_spoiled.clone())?);
        *copy = Some(begun.clone());
        Ok(begun)
    }

    fn footer(&self, file: &Counted) -> Result<ArrowReaderMetadata, ParquetError> {
        if let Some(known) = self.footer.get() {
            return Ok(known.clone());
        }
        let read = ArrowReaderMetadata::load(
            file,
            ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional),
        )?;
        Ok(self.footer.get_or_init(|| read).clone())
    }

    /// What is known of the blocks; `None` in a file of an older ninefold, and where that is damaged.
    fn index(&self, file: &Counted, footer: &ArrowReaderMetadata) -> Result<Option<&Index>, ParquetError> {
        if let Some(known) = self.index.get() {
            return Ok(known.as_ref());
        }
        let named = footer.metadata().file_metadata().key_value_metadata();
        let place = named.and_then(|pairs| pairs.iter().find(|pair| pair.key == INDEX)?.value.as_deref());
        let place = place.and_then(|text| text.split_once(':'));
        let place = place.and_then(|(at, length)| Some((at.parse().ok()?, length.parse::<u64>().ok()?)));
        let read = match place {
            Some((at, length)) => read_index(file, at, length)?,
            None => None,
        };
        Ok(self.index.get_or_init(|| read).as_ref())
    }

    /// All that is needed to copy it; `None` where it should have an index and has none.
    pub(crate) fn whole(&self) -> Result<Option<Whole>, ParquetError> {
        let file = self.open(&Arc::default())?;
        let footer = self.footer(&file)?;
        let mut index = None;
        if self.entry.signal != Signal::Measurements {
            let Some(known) = self.index(&file, &footer)? else { return Ok(None) };
            let Some(filters) = known.filters(&file)? else { return Ok(None) };
            index = Some(WholeIndex { blocks: known.blocks.clone(), filters });
        }
        Ok(Some(Whole { file, footer: footer.metadata().clone(), index }))
    }

    /// The pieces of it that may hold what is needed, in their order: blocks, or whole row groups where it has no index.
    pub(crate) fn pieces(
        &self,
        need: &Need,
        is_meant: impl Fn(&Piece) -> bool,
        cost: &Arc<Cost>,
    ) -> Result<Vec<Piece>, ParquetError> {
        let file = self.open(cost)?;
        let footer = self.footer(&file)?;
        let Some(index) = self.index(&file, &footer)? else {
            let mut groups = self.groups(&footer)?;
            groups.retain(is_meant);
            return Ok(groups);
        };
        let mut pieces = Vec::new();
        // Blocks do not go over the ends of row groups.
        let rows = footer.metadata().row_groups().iter().map(|group| usize::try_from(group.num_rows()).unwrap_or(0));
        let (mut rows, mut group, mut row) = (rows.peekable(), 0, 0);
        for block in &index.blocks {
            while rows.next_if(|rows| *rows <= row).is_some() {
                (group, row) = (group + 1, 0);
            }
            if rows.peek().is_none() {
                return Err(ParquetError::General("the index has more rows than the file".to_owned()));
            }
            let piece = Piece {
                group,
                from: row,
                rows: block.rows,
                time_min: block.time_min,
                time_max: block.time_max,
                first: block.first,
            };
            row += block.rows;
            let mut has = |key| block.may_have(key, |at, bytes| index.filter(&file, at, bytes));
            if is_meant(&piece) && need.may_be_met(&mut has)? {
                pieces.push(piece);
            }
        }
        cost.passed_over(index.blocks.len() - pieces.len());
        Ok(pieces)
    }

    /// Its row groups.
    fn groups(&self, footer: &ArrowReaderMetadata) -> Result<Vec<Piece>, ParquetError> {
        let column = |name: &str| footer.schema().index_of(name).map_err(ParquetError::from);
        let (time, sequence) = (column(TIME)?, column(SEQUENCE)?);
        let group = |(group, of): (usize, &parquet::file::metadata::RowGroupMetaData)| {
            let (time_min, time_max) = bounds(of.column(time).statistics());
            let (first, _) = bounds(of.column(sequence).statistics());
            let rows = usize::try_from(of.num_rows()).unwrap_or(0);
            Piece { group, from: 0, rows, time_min: Nanos(time_min), time_max: Nanos(time_max), first }
        };
        Ok(footer.metadata().row_groups().iter().enumerate().map(group).collect())
    }

    /// Those of some pieces whose row groups may hold rows of a trace: for a file without an index.
    pub(crate) fn of_trace(
        &self,
        mut pieces: Vec<Piece>,
        trace_id: &str,
        cost: &Arc<Cost>,
    ) -> Result<Vec<Piece>, ParquetError> {
        let file = self.open(cost)?;
        let footer = self.footer(&file)?;
        if pieces.is_empty() || self.index(&file, &footer)?.is_some() {
            return Ok(pieces);
        }
        let column = footer.schema().index_of(TRACE).map_err(ParquetError::from)?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, footer);
        let mut found = Vec::new();
        for piece in pieces.drain(..) {
            let bloom = builder.get_row_group_column_bloom_filter(piece.group, column)?;
            if bloom.is_none_or(|bloom| bloom.check(trace_id)) {
                found.push(piece);
            }
        }
        Ok(found)
    }

    /// All rows, in their order, some at a time.
    pub(crate) fn rows(&self) -> Result<impl Iterator<Item = Result<RecordBatch, ArrowError>> + use<>, ParquetError> {
        let file = self.open(&Arc::default())?;
        let footer = self.footer(&file)?;
        ParquetRecordBatchReaderBuilder::new_with_metadata(file, footer).with_batch_size(PAGE_ROWS).build()
    }

    /// Reads columns of the rows of some pieces that fulfil all conditions, which are looked at in their order.
    pub(crate) fn read(
        &self,
        pieces: &[Piece],
        columns: Option<&[&str]>,
        conditions: Vec<Condition>,
        cost: &Arc<Cost>,
    ) -> Result<Vec<RecordBatch>, ParquetError> {
        let file = self.open(cost)?;
        let footer = self.footer(&file)?;
        let rows = |group: usize| usize::try_from(footer.metadata().row_group(group).num_rows()).unwrap_or(0);
        let (groups, selected) = selection(pieces, rows);
        cost.read_pieces(pieces);
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, footer).with_row_groups(groups);
        let builder = builder.with_row_selection(selected).with_batch_size(PAGE_ROWS);
        let leaves = |names: &[&str]| ProjectionMask::columns(builder.parquet_schema(), names.iter().copied());
        let mut predicates: Vec<Box<dyn ArrowPredicate>> = Vec::new();
        for condition in conditions {
            let mask = leaves(&condition.columns);
            let test = condition.test;
            predicates.push(Box::new(ArrowPredicateFn::new(mask, move |batch| test(&batch))));
        }
        let mask = columns.map_or_else(ProjectionMask::all, leaves);
        let reader = builder.with_projection(mask).with_row_filter(RowFilter::new(predicates)).build()?;
        reader.map(|batch| batch.map_err(ParquetError::from)).collect()
    }
}

fn read_index(file: &Counted, at: u64, length: u64) -> Result<Option<Index>, ParquetError> {
    let mut begin = [0; index::BEGIN_BYTES];
    if length < begin.len() as u64 {
        return Ok(None);
    }
    file.ahead(at, length)?;
    file.read_at(at, &mut begin)?;
    let Some(heads) = index::heads_bytes(&begin).filter(|heads| *heads as u64 <= length) else { return Ok(None) };
    let mut bytes = vec![0; heads];
    file.read_at(at, &mut bytes)?;
    let Some(blocks) = index::decode(&bytes) else {
        file.spoiled();
        return Ok(None);
    };
    let (from, filters) = index::filters_of(&blocks);
    let mut sums = Vec::new();
    if length == from + (filters + index::sums_bytes(filters)) as u64 {
        let mut bytes = vec![0; index::sums_bytes(filters)];
        file.read_at(at + from + filters as u64, &mut bytes)?;
        sums = index::sums_of(&bytes);
    }
    Ok(Some(Index { at, blocks, sums, is_spoiled: AtomicBool::new(false) }))
}

fn bounds(statistics: Option<&Statistics>) -> (u64, u64) {
    let known = match statistics {
        Some(Statistics::Int64(known)) => known.min_opt().zip(known.max_opt()),
        Some(_) | None => None,
    };
    let whole = |number: &i64| u64::try_from(*number).unwrap_or(0);
    known.map_or((0, u64::MAX), |(min, max)| (whole(min), whole(max)))
}

/// Where the file of that number is.
pub(crate) fn path(folder: &Path, signal: Signal, id: i64) -> PathBuf {
    folder.join(format!("{}-{id:012}.{EXTENSION}", signal.name()))
}

/// A file while it is written.
pub(crate) struct Writer {
    writer: ArrowWriter<File>,
    /// Measurements have none.
    index: Option<index::Builder>,
    entry: Entry,
    path: PathBuf,
    folder: PathBuf,
}

impl Writer {
    /// Begins a file.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn create(
        folder: &Path,
        signal: Signal,
        id: i64,
        level: i64,
        written: Nanos,
    ) -> Result<Self, ParquetError> {
        let path = path(folder, signal, id);
        let file = File::create(&path)?;
        let writer = ArrowWriter::try_new(file, schema(signal), Some(properties(signal)))?;
        let entry = Entry::empty(id, signal, level, written);
        let index = (signal != Signal::Measurements).then(index::Builder::default);
        Ok(Self { writer, index, entry, path, folder: folder.to_owned() })
    }

    /// Adds rows.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), ParquetError> {
        let column = |name: &str| {
            batch.column_by_name(name).ok_or_else(|| ParquetError::General(format!("rows without {name}")))
        };
        let sequences = column(SEQUENCE)?.as_primitive::<UInt64Type>().values();
        let times = column(TIME)?.as_primitive::<TimestampNanosecondType>().values();
        self.entry.first = sequences.iter().copied().min().map_or(self.entry.first, |low| low.min(self.entry.first));
        self.entry.last = sequences.iter().copied().max().map_or(self.entry.last, |high| high.max(self.entry.last));
        let time = |time: Option<&i64>| time.and_then(|time| u64::try_from(*time).ok()).map(Nanos);
        self.entry.time_min = time(times.iter().min()).map_or(self.entry.time_min, |low| low.min(self.entry.time_min));
        self.entry.time_max =
            time(times.iter().max()).map_or(self.entry.time_max, |high| high.max(self.entry.time_max));
        self.entry.records += batch.num_rows() as u64;
        if let Some(index) = &mut self.index {
            index.add(batch)?;
        }
        self.writer.write(batch)
    }

    /// Ends the file; it is on the disk when this returns, and so is its name.
    ///
    /// # Errors
    /// What the disk says; then the file is removed.
    pub(crate) fn finish(mut self) -> Result<Entry, ParquetError> {
        let written = self.write_end().and_then(|()| Ok(self.writer.inner().try_clone()?));
        seal(&self.path, &self.folder, written).map(|bytes| Entry { bytes, ..self.entry })
    }

    /// Writes the index behind the last row group, and the footer that names it.
    fn write_end(&mut self) -> Result<(), ParquetError> {
        if let Some(mut index) = self.index.take() {
            let bytes = index.finish();
            self.writer.flush()?;
            let at = self.writer.bytes_written();
            self.writer.write_all(&bytes)?;
            self.writer.append_key_value_metadata(name_index(at, bytes.len()));
        }
        self.writer.finish().map(drop)
    }

    /// Removes what was begun.
    pub(crate) fn abandon(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What the footer says of an index that begins there and is so long.
pub(crate) fn name_index(at: usize, length: usize) -> KeyValue {
    KeyValue::new(INDEX.to_owned(), format!("{at}:{length}"))
}

/// Brings a file that was written to the disk, and its name; answers how long it is.
///
/// # Errors
/// Why it was not written, or what the disk says; then the file is removed.
pub(crate) fn seal(path: &Path, folder: &Path, written: Result<File, ParquetError>) -> Result<u64, ParquetError> {
    let synced = written.and_then(|file| Ok(file.sync_all()?));
    let synced = synced.and_then(|()| Ok(File::open(folder)?.sync_all()?));
    let length = synced.and_then(|()| Ok(std::fs::metadata(path)?.len()));
    if length.is_err() {
        let _ = std::fs::remove_file(path);
    }
    length
}

/// How the files of a signal are written.
pub(crate) fn properties(signal: Signal) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_2_0)
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_created_by("ninefold".to_owned());
    for name in COUNTED {
        let column = ColumnPath::from(name);
        properties = properties
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
    }
    if signal == Signal::Logs {
        // Texts repeat themselves in part, which is not for a dictionary; and one would be read for each page.
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(BODY), false);
    }
    if signal != Signal::Measurements {
        let trace = ColumnPath::from(TRACE);
        properties = properties
            .set_column_bloom_filter_fpp(trace.clone(), BLOOM_WRONG)
            .set_column_bloom_filter_max_ndv(trace, BLOOM_TRACES)
            .set_column_dictionary_enabled(ColumnPath::from("span_id"), false);
    }
    properties.build()
}

/// Removes files that the manifest does not know: what a death left half done.
pub(crate) fn sweep(folder: &Path, known: impl Fn(&Path) -> bool) -> io::Result<u64> {
    let mut swept = 0;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let is_ours = path.extension().is_some_and(|extension| extension == EXTENSION);
        if is_ours && !known(&path) {
            std::fs::remove_file(&path)?;
            swept += 1;
        }
    }
    Ok(swept)
}
