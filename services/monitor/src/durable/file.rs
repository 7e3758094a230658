//! One Parquet file of the durable tier: how it is written, and how rows are read from it. Blocks.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

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
use parquet::file::metadata::PageIndexPolicy;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::file::statistics::Statistics;
use parquet::schema::types::ColumnPath;

use super::columns::{COUNTED, SEQUENCE, TIME, TRACE, schema};
use super::manifest::Entry;
use crate::model::Nanos;
use crate::tier::Signal;

/// Rows of a row group: what is decoded, or left out, at a time.
const GROUP_ROWS: usize = 64 * 1024;
/// Rows of a page: what is read of a group to find one row.
const PAGE_ROWS: usize = 8 * 1024;
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
    footer: OnceLock<ArrowReaderMetadata>,
    is_retired: AtomicBool,
}

impl Drop for Sheet {
    fn drop(&mut self) {
        // A file that stays although it should not is found at the next start.
        if self.is_retired.load(Ordering::Acquire) {
            let _ = std::fs::remove_file(&self.path);
        }
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
    pub(crate) fn new(folder: &Path, entry: Entry) -> Self {
        let path = path(folder, entry.signal, entry.id);
        Self { entry, path, footer: OnceLock::new(), is_retired: AtomicBool::new(false) }
    }

    /// Says that the manifest does not have it any more.
    pub(crate) fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn footer(&self, file: &File) -> Result<ArrowReaderMetadata, ParquetError> {
        if let Some(known) = self.footer.get() {
            return Ok(known.clone());
        }
        let read = ArrowReaderMetadata::load(
            file,
            ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional),
        )?;
        Ok(self.footer.get_or_init(|| read).clone())
    }

    /// Its row groups, with the times in them.
    pub(crate) fn groups(&self) -> Result<Vec<Group>, ParquetError> {
        let footer = self.footer(&File::open(&self.path)?)?;
        let column = |name: &str| footer.schema().index_of(name).map_err(ParquetError::from);
        let (time, sequence) = (column(TIME)?, column(SEQUENCE)?);
        let group = |(place, group): (usize, &parquet::file::metadata::RowGroupMetaData)| {
            let (time_min, time_max) = bounds(group.column(time).statistics());
            let (first, _) = bounds(group.column(sequence).statistics());
            let rows = u64::try_from(group.num_rows()).unwrap_or(0);
            Group { place, rows, time_min: Nanos(time_min), time_max: Nanos(time_max), first }
        };
        Ok(footer.metadata().row_groups().iter().enumerate().map(group).collect())
    }

    /// The row groups that may hold rows of a trace.
    pub(crate) fn groups_of_trace(&self, trace_id: &str) -> Result<Vec<usize>, ParquetError> {
        let file = File::open(&self.path)?;
        let footer = self.footer(&file)?;
        let column = footer.schema().index_of(TRACE).map_err(ParquetError::from)?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, footer);
        let mut found = Vec::new();
        for place in 0..builder.metadata().num_row_groups() {
            let bloom = builder.get_row_group_column_bloom_filter(place, column)?;
            if bloom.is_none_or(|bloom| bloom.check(trace_id)) {
                found.push(place);
            }
        }
        Ok(found)
    }

    /// All rows, in their order, some at a time.
    pub(crate) fn rows(&self) -> Result<impl Iterator<Item = Result<RecordBatch, ArrowError>> + use<>, ParquetError> {
        let file = File::open(&self.path)?;
        let footer = self.footer(&file)?;
        ParquetRecordBatchReaderBuilder::new_with_metadata(file, footer).with_batch_size(PAGE_ROWS).build()
    }

    /// Reads columns of the rows of some row groups that fulfil all conditions, which are looked at in their order.
    pub(crate) fn read(
        &self,
        groups: Vec<usize>,
        columns: Option<&[&str]>,
        conditions: Vec<Condition>,
    ) -> Result<Vec<RecordBatch>, ParquetError> {
        let file = File::open(&self.path)?;
        let footer = self.footer(&file)?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, footer).with_row_groups(groups);
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

/// A row group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    /// Its place in the file.
    pub(crate) place: usize,
    /// How many rows it has.
    pub(crate) rows: u64,
    /// The earliest time in it.
    pub(crate) time_min: Nanos,
    /// The latest time in it.
    pub(crate) time_max: Nanos,
    /// Sequence number of its first row.
    pub(crate) first: u64,
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
        let entry = Entry {
            id,
            signal,
            level,
            first: u64::MAX,
            last: 0,
            time_min: Nanos(u64::MAX),
            time_max: Nanos(0),
            records: 0,
            bytes: 0,
            written,
        };
        Ok(Self { writer, entry, path, folder: folder.to_owned() })
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
        self.writer.write(batch)
    }

    /// Ends the file; it is on the disk when this returns, and so is its name.
    ///
    /// # Errors
    /// What the disk says; then the file is removed.
    pub(crate) fn finish(mut self) -> Result<Entry, ParquetError> {
        let written = self.writer.finish().map(drop).and_then(|()| Ok(self.writer.inner().sync_all()?));
        let synced = written.and_then(|()| Ok(File::open(&self.folder)?.sync_all()?));
        match synced.and_then(|()| Ok(std::fs::metadata(&self.path)?.len())) {
            Ok(bytes) => Ok(Entry { bytes, ..self.entry }),
            Err(failure) => {
                let _ = std::fs::remove_file(&self.path);
                Err(failure)
            }
        }
    }

    /// Removes what was begun.
    pub(crate) fn abandon(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn properties(signal: Signal) -> WriterProperties {
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
