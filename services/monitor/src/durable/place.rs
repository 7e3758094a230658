//! Where files of telemetry lie: in the folder of the node, and, where a bucket is named, in that too.
//!
//! A file is written into the folder. What the bucket has whole may go from the folder; then what questions need of it is
//! fetched into a copy with holes. Everything that is fetched is held against the sums of what was put.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::file::path;
use super::manifest::Entry;
use super::state::lock;
use crate::bucket::{Bucket, Failure};
use crate::tier::Signal;

/// Bytes that one sum is over: the least that is fetched.
const CHUNK: usize = 256 * 1024;
const CHUNK_BYTES: u64 = CHUNK as u64;
/// Most chunks that are fetched at a time.
const RUN_CHUNKS: usize = 16;
/// Chunks that are fetched at least where one is read after the other.
const AHEAD_CHUNKS: usize = 8;
/// Folder of the copies with holes.
const COPIES: &str = "fetched";

/// Where files lie.
#[derive(Debug)]
pub(crate) struct Place {
    folder: PathBuf,
    /// None where files are in the folder alone.
    pub(crate) bucket: Option<Arc<Bucket>>,
    /// Names this folder among all that share the bucket.
    owner: String,
    /// Grows with each use of a file.
    uses: AtomicU64,
    /// Objects that nobody reads any more, and that the list of files does not have.
    let_go: Mutex<Vec<String>>,
}

impl Place {
    /// Files in a folder alone.
    #[cfg(test)]
    pub(crate) fn folder_alone(folder: &Path) -> Arc<Self> {
        Arc::new(Self::new(folder.to_owned(), None, String::new()))
    }

    /// Files in a folder, and perhaps in a bucket too, under the name of the folder's owner.
    pub(crate) fn new(folder: PathBuf, bucket: Option<Arc<Bucket>>, owner: String) -> Self {
        Self { folder, bucket, owner, uses: AtomicU64::new(1), let_go: Mutex::default() }
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a file is in the folder.
    pub(crate) fn path(&self, signal: Signal, id: i64) -> PathBuf {
        path(&self.folder, signal, id)
    }

    /// What names a file in the bucket.
    pub(crate) fn name(&self, entry: &Entry) -> String {
        format!("{}/{}-{:012}.parquet", self.owner, entry.signal.name(), entry.id)
    }

    /// The number of one more use.
    pub(crate) fn use_number(&self) -> u64 {
        self.uses.fetch_add(1, Ordering::Relaxed)
    }

    /// Removes copies of an earlier start: which parts they have is not known any more.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn clean(&self) -> io::Result<()> {
        let copies = self.folder.join(COPIES);
        match std::fs::remove_dir_all(&copies) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        if self.bucket.is_some() { std::fs::create_dir_all(copies) } else { Ok(()) }
    }

    /// Says that nobody reads an object any more.
    pub(crate) fn let_go(&self, entry: &Entry) {
        if self.bucket.is_some() {
            lock(&self.let_go).push(self.name(entry));
        }
    }

    /// The objects that nobody reads any more, each told once.
    pub(crate) fn take_let_go(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.let_go))
    }

    /// Begins a copy of a file with holes.
    ///
    /// # Errors
    /// What the disk says; that there is no bucket.
    pub(crate) fn copy(&self, entry: &Entry, sums: Arc<[u32]>, is_spoiled: Arc<AtomicBool>) -> io::Result<Copy> {
        let bucket = self.bucket.clone().ok_or_else(|| io::Error::other("its bucket is not in the settings"))?;
        // A copy that was given up may still be read, so no other takes its place.
        let name = format!("{}-{:012}.{}", entry.signal.name(), entry.id, self.use_number());
        let path = self.folder.join(COPIES).join(name);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        file.set_len(entry.bytes)?;
        let fetched = Mutex::new(vec![false; sums.len()]);
        let name = self.name(entry);
        let length = entry.bytes;
        Ok(Copy { file, path, bucket, name, length, sums, fetched, bytes: AtomicU64::new(0), is_spoiled })
    }
}

/// A copy of an object, fetched part by part as it is read. Its file goes when it is dropped.
#[derive(Debug)]
pub(crate) struct Copy {
    file: File,
    path: PathBuf,
    bucket: Arc<Bucket>,
    name: String,
    length: u64,
    sums: Arc<[u32]>,
    fetched: Mutex<Vec<bool>>,
    bytes: AtomicU64,
    /// Whether the object was last found to be gone, or something else than what was put there.
    is_spoiled: Arc<AtomicBool>,
}

impl Drop for Copy {
    fn drop(&mut self) {
        // One that stays although it should not is removed at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Copy {
    /// How long the object is.
    pub(crate) const fn length(&self) -> u64 {
        self.length
    }

    /// Bytes on the disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Reads what is there from a place on, fetching it first; as much as `bytes` takes, less at the end.
    pub(crate) fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        let count = self.length.saturating_sub(at).min(bytes.len() as u64);
        self.fetch(at, count)?;
        let count = usize::try_from(count).unwrap_or(bytes.len());
        self.file.read_exact_at(&mut bytes[..count], at)?;
        Ok(count)
    }

    /// Fetches what is missing of some bytes.
    pub(crate) fn fetch(&self, at: u64, count: u64) -> io::Result<()> {
        let (from, to) = (number(at), number((at + count).min(self.length).next_multiple_of(CHUNK_BYTES)));
        while let Some(run) = self.missing(from, to) {
            let outcome = self.fetch_run(&run);
            match &outcome {
                Ok(()) => self.is_spoiled.store(false, Ordering::Relaxed),
                Err(Failure::Gone(_) | Failure::Spoiled(_)) => self.is_spoiled.store(true, Ordering::Relaxed),
                Err(Failure::Away(_) | Failure::Slow(_) | Failure::Disk(_) | Failure::Keys { .. }) => {}
            }
            outcome?;
        }
        Ok(())
    }

    /// The first chunks that are missing, one after the other.
    fn missing(&self, from: usize, to: usize) -> Option<std::ops::Range<usize>> {
        let fetched = lock(&self.fetched);
        let first = (from..to.min(fetched.len())).find(|chunk| !fetched[*chunk])?;
        // Whoever reads on is likely to go on reading.
        let is_next = first > 0 && fetched[first - 1];
        let wanted = if is_next { to.max(first + AHEAD_CHUNKS) } else { to };
        let end = (first..wanted.min(fetched.len()).min(first + RUN_CHUNKS)).take_while(|chunk| !fetched[*chunk]);
        Some(first..first + end.count())
    }

    fn fetch_run(&self, run: &std::ops::Range<usize>) -> Result<(), Failure> {
        let begin = run.start as u64 * CHUNK_BYTES;
        let end = (run.end as u64 * CHUNK_BYTES).min(self.length);
        let bytes = self.bucket.read(&self.name, begin..end)?;
        let spoiled = || Failure::Spoiled(self.name.clone());
        if bytes.len() as u64 != end - begin {
            return Err(spoiled());
        }
        let mut sums = bytes.chunks(CHUNK).map(crc32fast::hash).zip(&self.sums[run.clone()]);
        if !sums.all(|(read, put)| read == *put) {
            return Err(spoiled());
        }
        self.file.write_all_at(&bytes, begin)?;
        let mut fetched = lock(&self.fetched);
        for chunk in run.clone() {
            if !std::mem::replace(&mut fetched[chunk], true) {
                let length = ((chunk as u64 + 1) * CHUNK_BYTES).min(self.length) - chunk as u64 * CHUNK_BYTES;
                self.bytes.fetch_add(length, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

fn number(at: u64) -> usize {
    usize::try_from(at / CHUNK_BYTES).unwrap_or(usize::MAX)
}

/// Sums over each [`CHUNK`] of bytes that come in pieces.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    done: Vec<u32>,
    open: crc32fast::Hasher,
    bytes: usize,
}

impl Sums {
    /// Takes bytes in, in their order.
    pub(crate) fn add(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK - self.bytes));
            self.open.update(now);
            self.bytes += now.len();
            if self.bytes == CHUNK {
                self.close();
            }
            bytes = later;
        }
    }

    fn close(&mut self) {
        self.done.push(std::mem::take(&mut self.open).finalize());
        self.bytes = 0;
    }

    /// The sums, as the list of files has them.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        if self.bytes > 0 {
            self.close();
        }
        self.done.iter().flat_map(|sum| sum.to_le_bytes()).collect()
    }

    /// Reads what [`Sums::finish`] wrote.
    pub(crate) fn read(bytes: &[u8]) -> Arc<[u32]> {
        let one = |bytes: &[u8]| bytes.try_into().map(u32::from_le_bytes).unwrap_or_default();
        bytes.chunks_exact(4).map(one).collect()
    }
}
