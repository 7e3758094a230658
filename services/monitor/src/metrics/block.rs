//! A file of samples that is written once: series by metric and labels, many of them packed together.
//!
//! `[magic] ([length u32 | crc u32 | zstd])* [place of the last u64 | magic]`. For each metric there are pages of samples, and a
//! list of its series; the last part says what there is, and which files it stands in for. Blocks.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ninefold_promql::{Labels, NAME, Sample, Selection, Series};

use super::code::{Columns, Reader, put, put_labels, put_len, put_signed, put_text, series};

/// What a file begins and ends with; the last byte is the number of the layout.
const MAGIC: &[u8; 8] = b"9foldsm\x01";
/// Length and sum of a part.
const HEADER_BYTES: u64 = 8;
/// Where the last part begins, and the magic.
const TRAILER_BYTES: u64 = 16;
/// Samples that are packed together: what a question about one series unpacks.
const PAGE_SAMPLES: usize = 16 * 1024;
/// Largest part, unpacked. A length beyond it is damage.
const PART_BYTES_MAX: usize = 512 * 1024 * 1024;
/// How hard parts are packed.
const ZSTD_LEVEL: i32 = 3;

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Its number. No other file has it.
    pub(crate) id: u64,
    /// Of two files that tell of one time, the one with the larger is right.
    pub(crate) order: u64,
    /// Up to this frame the journal is in files.
    pub(crate) mark: u64,
    /// How often it was put together.
    pub(crate) level: u64,
    /// Whether it was thinned.
    pub(crate) is_thin: bool,
    /// Files that it stands in for.
    pub(crate) replaces: Vec<u64>,
    /// Time of the first sample, in milliseconds since 1970.
    pub(crate) from: i64,
    /// Time of the last.
    pub(crate) to: i64,
    /// How many series.
    pub(crate) series: u64,
    /// How many samples.
    pub(crate) samples: u64,
}

/// A file.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) facts: Facts,
    /// Its size.
    pub(crate) bytes: u64,
    path: PathBuf,
    file: File,
    /// Where the list of each metric is.
    names: Vec<(Arc<str>, u64)>,
}

/// A series in the list of its metric.
struct Listed {
    labels: Labels,
    from: i64,
    to: i64,
    count: usize,
}

/// The list of a metric: its pages by place and number of series, and all of these.
struct List {
    pages: Vec<(u64, usize)>,
    series: Vec<Listed>,
}

/// Writes a file. It counts once it is finished.
pub(crate) struct Writer {
    file: BufWriter<File>,
    path: PathBuf,
    at: u64,
    facts: Facts,
    names: Vec<(String, u64)>,
    name: Option<String>,
    list: List,
    page: Columns,
    page_series: usize,
}

/// Where a block is in a folder.
fn path(folder: &Path, id: u64) -> PathBuf {
    folder.join(format!("{id:020}.samples"))
}

/// The number of a block by the name of its file.
pub(crate) fn id(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(".samples")?.parse().ok()
}

impl Writer {
    /// Begins a file in a folder. Of the facts, those that samples tell are found out.
    pub(crate) fn new(folder: &Path, facts: Facts) -> io::Result<Self> {
        let path = path(folder, facts.id);
        let mut file = BufWriter::new(File::create(path.with_extension("part"))?);
        file.write_all(MAGIC)?;
        let facts = Facts { from: i64::MAX, to: i64::MIN, series: 0, samples: 0, ..facts };
        Ok(Self {
            file,
            path,
            at: MAGIC.len() as u64,
            facts,
            names: Vec::new(),
            name: None,
            list: List { pages: Vec::new(), series: Vec::new() },
            page: Columns::default(),
            page_series: 0,
        })
    }

    /// Adds a series. They come by metric and labels, none twice, none without samples.
    pub(crate) fn push(&mut self, labels: &Labels, samples: &[Sample]) -> io::Result<()> {
        let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return Ok(()) };
        if self.name.as_deref() != Some(labels.get(NAME)) {
            self.end_name()?;
            self.name = Some(labels.get(NAME).to_owned());
        }
        self.page.push(samples);
        self.page_series += 1;
        let listed = Listed { labels: labels.clone(), from: first.at, to: last.at, count: samples.len() };
        self.list.series.push(listed);
        self.facts.from = self.facts.from.min(first.at);
        self.facts.to = self.facts.to.max(last.at);
        self.facts.series += 1;
        self.facts.samples += samples.len() as u64;
        if self.page.samples >= PAGE_SAMPLES { self.end_page() } else { Ok(()) }
    }

    fn end_page(&mut self) -> io::Result<()> {
        if self.page_series > 0 {
            let page = std::mem::take(&mut self.page);
            let place = self.part(&page.bytes())?;
            self.list.pages.push((place, std::mem::take(&mut self.page_series)));
        }
        Ok(())
    }

    fn end_name(&mut self) -> io::Result<()> {
        self.end_page()?;
        let Some(name) = self.name.take() else { return Ok(()) };
        let list = std::mem::replace(&mut self.list, List { pages: Vec::new(), series: Vec::new() });
        let place = self.part(&list.bytes())?;
        self.names.push((name, place));
        Ok(())
    }

    fn part(&mut self, plain: &[u8]) -> io::Result<u64> {
        let packed = zstd::bulk::compress(plain, ZSTD_LEVEL)?;
        let place = self.at;
        let length = u32::try_from(packed.len()).map_err(io::Error::other)?;
        self.file.write_all(&length.to_le_bytes())?;
        self.file.write_all(&crc32fast::hash(&packed).to_le_bytes())?;
        self.file.write_all(&packed)?;
        self.at += HEADER_BYTES + packed.len() as u64;
        Ok(place)
    }

    /// Ends the file: from here on it counts. `None` if nothing is in it.
    pub(crate) fn finish(mut self) -> io::Result<Option<Block>> {
        self.end_name()?;
        let part = self.path.with_extension("part");
        if self.facts.series == 0 {
            std::fs::remove_file(part)?;
            return Ok(None);
        }
        let last = encode_facts(&self.facts, &self.names);
        let place = self.part(&last)?;
        self.file.write_all(&place.to_le_bytes())?;
        self.file.write_all(MAGIC)?;
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        std::fs::rename(part, &self.path)?;
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Block::open(&self.path).map(Some)
    }
}

fn encode_facts(facts: &Facts, names: &[(String, u64)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let numbers = [facts.id, facts.order, facts.mark, facts.level, facts.series, facts.samples];
    numbers.into_iter().for_each(|number| put(&mut bytes, number));
    put(&mut bytes, u64::from(facts.is_thin));
    put_signed(&mut bytes, facts.from);
    put_signed(&mut bytes, facts.to);
    put_len(&mut bytes, facts.replaces.len());
    facts.replaces.iter().for_each(|id| put(&mut bytes, *id));
    put_len(&mut bytes, names.len());
    for (name, place) in names {
        put_text(&mut bytes, name);
        put(&mut bytes, *place);
    }
    bytes
}

type Names = Vec<(Arc<str>, u64)>;

fn decode_facts(bytes: &[u8]) -> Option<(Facts, Names)> {
    let mut reader = Reader(bytes);
    let mut number = || reader.number();
    let (id, order, mark, level) = (number()?, number()?, number()?, number()?);
    let (series, samples, is_thin) = (number()?, number()?, number()? != 0);
    let (from, to) = (reader.signed()?, reader.signed()?);
    let replaces = (0..reader.len()?).map(|_| reader.number()).collect::<Option<_>>()?;
    let names =
        (0..reader.len()?).map(|_| Some((Arc::from(reader.text()?), reader.number()?))).collect::<Option<_>>()?;
    Some((Facts { id, order, mark, level, is_thin, replaces, from, to, series, samples }, names))
}

impl List {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_len(&mut bytes, self.pages.len());
        for (place, series) in &self.pages {
            put(&mut bytes, *place);
            put_len(&mut bytes, *series);
        }
        put_len(&mut bytes, self.series.len());
        for one in &self.series {
            put_labels(&mut bytes, &one.labels);
            put_signed(&mut bytes, one.from);
            put_signed(&mut bytes, one.to.wrapping_sub(one.from));
            put_len(&mut bytes, one.count);
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let pages = (0..reader.len()?).map(|_| Some((reader.number()?, usize::try_from(reader.number()?).ok()?)));
        let pages = pages.collect::<Option<_>>()?;
        let series = (0..reader.len()?).map(|_| {
            let (labels, from) = (reader.labels()?, reader.signed()?);
            let to = from.wrapping_add(reader.signed()?);
            Some(Listed { labels, from, to, count: usize::try_from(reader.number()?).ok()? })
        });
        Some(Self { pages, series: series.collect::<Option<_>>()? })
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a block of samples is damaged")
}

impl Block {
    /// Opens a file.
    ///
    /// # Errors
    /// Those of the disk, and that it is damaged.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let mut trailer = [0; 16];
        let end = bytes.checked_sub(TRAILER_BYTES).ok_or_else(damaged)?;
        file.read_exact_at(&mut trailer, end)?;
        let place = u64::from_le_bytes(trailer[..8].try_into().map_err(|_| damaged())?);
        if &trailer[8..] != MAGIC || place >= end {
            return Err(damaged());
        }
        let (facts, names) = decode_facts(&part(&file, place)?).ok_or_else(damaged)?;
        Ok(Self { facts, bytes, path: path.to_owned(), file, names })
    }

    /// Removes the file. Whoever reads it may read on.
    pub(crate) fn remove(&self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }

    fn list(&self, place: u64) -> io::Result<List> {
        List::read(&part(&self.file, place)?).ok_or_else(damaged)
    }

    fn lists<'a>(&'a self, name: Option<&'a str>) -> impl Iterator<Item = io::Result<List>> + 'a {
        let is_asked = move |known: &str| name.is_none_or(|name| name == known);
        self.names.iter().filter(move |(known, _)| is_asked(known)).map(|(_, place)| self.list(*place))
    }

    /// Whether a time that is asked about may be in it: after `from`, until `to`.
    pub(crate) const fn may_have(&self, from: i64, to: i64) -> bool {
        from < self.facts.to && self.facts.from <= to
    }

    /// Series that match, with their samples. `None` if there are more than `samples_max`.
    pub(crate) fn select(&self, selection: &Selection, samples_max: usize) -> io::Result<Option<Vec<Series>>> {
        let mut found = Vec::new();
        let mut left = samples_max;
        for list in self.lists(selection.name()) {
            let list = list?;
            let mut rest = list.series.as_slice();
            for (place, many) in &list.pages {
                let (here, behind) = rest.split_at_checked(*many).ok_or_else(damaged)?;
                rest = behind;
                let is_asked = |one: &Listed| {
                    selection.from < one.to && one.from <= selection.to && selection.matches(&one.labels)
                };
                let asked: Vec<bool> = here.iter().map(is_asked).collect();
                if !asked.contains(&true) {
                    continue;
                }
                let page = series(&part(&self.file, *place)?).filter(|page| page.len() == here.len());
                for ((one, mut samples), _) in
                    here.iter().zip(page.ok_or_else(damaged)?).zip(asked).filter(|(_, asked)| *asked)
                {
                    samples.retain(|sample| selection.from < sample.at && sample.at <= selection.to);
                    let Some(rest) = left.checked_sub(samples.len()) else { return Ok(None) };
                    left = rest;
                    found.push(Series { labels: one.labels.clone(), samples });
                }
            }
        }
        found.retain(|series| !series.samples.is_empty());
        Ok(Some(found))
    }

    /// Labels of series that match and have a sample in the time of the selection; of all, without one.
    pub(crate) fn labels(&self, selection: Option<&Selection>) -> io::Result<Vec<Labels>> {
        let mut found = Vec::new();
        for list in self.lists(selection.and_then(Selection::name)) {
            let is_asked = |one: &Listed| {
                selection.is_none_or(|asked| asked.from < one.to && one.from <= asked.to && asked.matches(&one.labels))
            };
            found.extend(list?.series.into_iter().filter(is_asked).map(|one| one.labels));
        }
        Ok(found)
    }

    /// The last sample of a series.
    pub(crate) fn last(&self, labels: &Labels) -> io::Result<Option<Sample>> {
        for list in self.lists(Some(labels.get(NAME))) {
            let list = list?;
            let Some(mut at) = list.series.iter().position(|one| one.labels == *labels) else { continue };
            for (place, many) in &list.pages {
                if at < *many {
                    let mut page = series(&part(&self.file, *place)?).ok_or_else(damaged)?;
                    return Ok(page.get_mut(at).and_then(Vec::pop));
                }
                at -= many;
            }
        }
        Ok(None)
    }

    /// All series, in the order in which they were written; a page of them in memory at a time.
    pub(crate) fn walk(self: &Arc<Self>) -> Walk {
        Walk { block: self.clone(), name: 0, list: None, page: 0, ready: BTreeMap::new(), given: 0 }
    }
}

fn part(file: &File, place: u64) -> io::Result<Vec<u8>> {
    let mut header = [0; 8];
    file.read_exact_at(&mut header, place)?;
    let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let length = usize::try_from(number(0)).ok().filter(|length| *length <= PART_BYTES_MAX).ok_or_else(damaged)?;
    let mut packed = vec![0; length];
    file.read_exact_at(&mut packed, place + HEADER_BYTES)?;
    if crc32fast::hash(&packed) != number(4) {
        return Err(damaged());
    }
    let plain = zstd::zstd_safe::get_frame_content_size(&packed).ok().flatten();
    let plain = plain.and_then(|bytes| usize::try_from(bytes).ok()).filter(|bytes| *bytes <= PART_BYTES_MAX);
    zstd::bulk::decompress(&packed, plain.ok_or_else(damaged)?)
}

/// Goes through all series of a block.
pub(crate) struct Walk {
    block: Arc<Block>,
    name: usize,
    list: Option<List>,
    page: usize,
    ready: BTreeMap<usize, (Labels, Vec<Sample>)>,
    /// How many of the list were read.
    given: usize,
}

impl Iterator for Walk {
    type Item = io::Result<(Labels, Vec<Sample>)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((_, ready)) = self.ready.pop_first() {
                return Some(Ok(ready));
            }
            if let Err(failure) = self.load()? {
                self.name = usize::MAX;
                self.list = None;
                return Some(Err(failure));
            }
        }
    }
}

impl Walk {
    /// Reads the next page. `None` at the end.
    fn load(&mut self) -> Option<io::Result<()>> {
        let Some(list) = &self.list else {
            let (_, place) = self.block.names.get(self.name)?;
            return Some(self.block.list(*place).map(|list| {
                (self.list, self.page, self.given) = (Some(list), 0, 0);
            }));
        };
        let Some((place, many)) = list.pages.get(self.page).copied() else {
            self.list = None;
            self.name += 1;
            return Some(Ok(()));
        };
        let read = || {
            let page = series(&part(&self.block.file, place)?).filter(|page| page.len() == many);
            let here = list.series.get(self.given..self.given + many);
            let (page, here) = page.zip(here).ok_or_else(damaged)?;
            let counts_fit = here.iter().zip(&page).all(|(one, samples)| one.count == samples.len());
            if !counts_fit {
                return Err(damaged());
            }
            Ok(here.iter().map(|one| one.labels.clone()).zip(page).enumerate().collect())
        };
        let outcome: io::Result<BTreeMap<_, _>> = read();
        self.page += 1;
        self.given += many;
        Some(outcome.map(|ready| self.ready = ready))
    }
}
