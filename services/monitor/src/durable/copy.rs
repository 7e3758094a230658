//! Files put behind each other in one: their row groups are copied as they are, and so are the blocks of their indexes, so
//! that what was written once is not made into columns and packed anew each time files are put together.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::arrow::ArrowWriter;
use parquet::bloom_filter::Sbbf;
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::writer::SerializedFileWriter;

use super::columns::schema;
use super::file::{GROUP_ROWS, Sheet, Whole, name_index, path, properties, seal};
use super::index;
use super::manifest::Entry;
use crate::tier::Signal;

/// Row groups that have on average so few rows are better written anew: small ones pack badly, and each costs a look.
const ROWS_MIN: usize = GROUP_ROWS / 4;

/// Puts files of one signal behind each other into one, for which `entry` is; `None` where their rows are to be
/// written anew: they are in small row groups, or in a file without an index.
///
/// # Errors
/// What the disk says; then nothing of the new file stays.
pub(crate) fn copy(folder: &Path, entry: &Entry, some: &[Arc<Sheet>]) -> Result<Option<Entry>, ParquetError> {
    let mut wholes = Vec::with_capacity(some.len());
    for sheet in some {
        let Some(whole) = sheet.whole()? else { return Ok(None) };
        wholes.push(whole);
    }
    let groups: usize = wholes.iter().map(|whole| whole.footer.num_row_groups()).sum();
    let records: u64 = some.iter().map(|sheet| sheet.entry.records).sum();
    if records < (groups * ROWS_MIN) as u64 {
        return Ok(None);
    }
    let path = path(folder, entry.signal, entry.id);
    let mut entry = entry.clone();
    some.iter().for_each(|sheet| entry.take_in(&sheet.entry));
    let written = write(&path, entry.signal, &wholes);
    seal(&path, folder, written).map(|bytes| Some(Entry { bytes, ..entry }))
}

fn write(path: &Path, signal: Signal, wholes: &[Whole]) -> Result<File, ParquetError> {
    let writer = ArrowWriter::try_new(File::create(path)?, schema(signal), Some(properties(signal)))?;
    let (mut writer, _) = writer.into_serialized_writer()?;
    let mut blocks = index::Builder::default();
    for whole in wholes {
        for group in 0..whole.footer.num_row_groups() {
            copy_group(&mut writer, whole, group)?;
        }
        if let Some(known) = &whole.index {
            blocks.copy(&known.blocks, &known.filters);
        }
    }
    if signal != Signal::Measurements {
        let bytes = blocks.finish();
        writer.flush()?;
        let at = writer.bytes_written();
        writer.write_all(&bytes)?;
        writer.append_key_value_metadata(name_index(at, bytes.len()));
    }
    writer.into_inner()
}

fn copy_group(writer: &mut SerializedFileWriter<File>, whole: &Whole, group: usize) -> Result<(), ParquetError> {
    let footer: &ParquetMetaData = &whole.footer;
    let of = footer.row_group(group);
    let mut copied = writer.next_row_group()?;
    for (place, column) in of.columns().iter().enumerate() {
        let column_index = footer.column_index().and_then(|all| all.get(group)?.get(place)).cloned();
        let offset_index = footer.offset_index().and_then(|all| all.get(group)?.get(place)).cloned();
        let closed = ColumnCloseResult {
            bytes_written: u64::try_from(column.compressed_size()).unwrap_or(0),
            rows_written: u64::try_from(of.num_rows()).unwrap_or(0),
            metadata: column.clone(),
            bloom_filter: Sbbf::read_from_column_chunk(column, &whole.file)?,
            column_index,
            offset_index,
        };
        copied.append_column(&whole.file, closed)?;
    }
    copied.close().map(drop)
}
