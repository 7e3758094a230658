//! The write-ahead log: what is acknowledged is in it first. Blocks; callers are on blocking threads.
//!
//! A journal is a line of segment files. A segment begins with [`MAGIC`]; frames follow, each with its own check sum:
//! `[mark u32 | length u32 | crc u32 | number u64 | payload]`, little-endian. The numbers of frames grow by
//! one over all segments. Frames that a death tore, or that a disk spoiled, are found by their sums and left out.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

/// What a segment begins with; the last byte is the number of the layout.
const MAGIC: &[u8; 8] = b"9foldwa\x01";
/// What a frame begins with, so that one behind damage can be found.
const MARK: u32 = 0x4e39_4652;
/// Mark, length, sum and number.
const HEADER_BYTES: usize = 20;
/// Longest payload of a frame; a length beyond it is damage. Larger than the largest request that is taken in.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 256 * 1024 * 1024;
/// A segment that has grown so large is followed by a new one.
const SEGMENT_BYTES: u64 = 32 * 1024 * 1024;
/// What the names of segments end in.
const EXTENSION: &str = "journal";

/// A batch, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Its place in the journal, from 1.
    pub(crate) number: u64,
    /// The records.
    pub(crate) payload: Vec<u8>,
}

/// What reading a journal found beside frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Bytes at the end that a death tore: nobody was told that they are kept.
    pub(crate) torn_bytes: u64,
    /// Bytes before whole frames, or in a segment that was closed: they may have been acknowledged.
    pub(crate) lost_bytes: u64,
}

/// The journal of a node.
#[derive(Debug)]
pub(crate) struct Journal {
    folder: PathBuf,
    /// Number of the first frame of each segment, the oldest first. The last is the one that is written.
    segments: Vec<u64>,
    open: Option<Open>,
    next: u64,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Up to here all is written and synced.
    bytes: u64,
}

impl Journal {
    /// Opens the journal in a folder, reads every frame after `after` in order, and begins a new segment with the next
    /// append. `read` is given each frame; memory is bounded by one segment.
    pub(crate) fn open(folder: &Path, after: u64, mut read: impl FnMut(Frame)) -> io::Result<(Self, Damage)> {
        std::fs::create_dir_all(folder)?;
        let mut segments = segments(folder)?;
        segments.sort_unstable();
        let mut damage = Damage::default();
        let mut last = after;
        let newest = segments.last().copied();
        for first in &segments {
            let bytes = std::fs::read(path(folder, *first))?;
            let is_newest = Some(*first) == newest;
            let whole = scan(&bytes, is_newest, &mut damage, |frame| {
                if frame.number > last {
                    last = frame.number;
                    read(frame);
                }
            });
            // What a death tore is cut off, so that it is not taken for damage when a newer segment stands behind it.
            if is_newest && whole < bytes.len() {
                let file = OpenOptions::new().write(true).open(path(folder, *first))?;
                file.set_len(whole as u64)?;
                file.sync_data()?;
            }
        }
        Ok((Self { folder: folder.to_owned(), segments, open: None, next: last + 1 }, damage))
    }

    /// The number of the next frame.
    pub(crate) const fn next(&self) -> u64 {
        self.next
    }

    /// Appends batches, and returns once they are on the disk. After a
    /// failure none of them is, as far as the disk allows that to be seen to.
    pub(crate) fn append(&mut self, batches: &[&[u8]]) -> io::Result<()> {
        let mut written = Vec::with_capacity(batches.iter().map(|payload| payload.len() + HEADER_BYTES).sum());
        for (number, payload) in (self.next..).zip(batches) {
            written.extend_from_slice(&header(number, payload));
            written.extend_from_slice(payload);
        }
        let open = self.opened()?;
        let outcome = open.file.write_all(&written).and_then(|()| open.file.sync_data());
        if let Err(failure) = outcome {
            self.give_up(batches.len() as u64);
            return Err(failure);
        }
        open.bytes += written.len() as u64;
        if open.bytes >= SEGMENT_BYTES {
            self.open = None;
        }
        self.next += batches.len() as u64;
        Ok(())
    }

    /// Begins a new segment with the next append, so that the present one can be removed.
    pub(crate) fn rotate(&mut self) {
        self.open = None;
    }

    /// Removes the segments all of whose frames have numbers up to `through`.
    pub(crate) fn remove_through(&mut self, through: u64) -> io::Result<()> {
        loop {
            let end = match (self.segments.get(1), &self.open) {
                (Some(second), _) => *second,
                (None, None) if !self.segments.is_empty() => self.next,
                (None, _) => return Ok(()),
            };
            if end > through + 1 {
                return Ok(());
            }
            match std::fs::remove_file(path(&self.folder, self.segments[0])) {
                Ok(()) => {}
                Err(gone) if gone.kind() == io::ErrorKind::NotFound => {}
                Err(failure) => return Err(failure),
            }
            self.segments.remove(0);
        }
    }

    fn opened(&mut self) -> io::Result<&mut Open> {
        if self.open.is_none() {
            let path = path(&self.folder, self.next);
            // One of that name holds nothing that was acknowledged: its frames would have moved the number on.
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
            file.write_all(MAGIC)?;
            file.sync_data()?;
            File::open(&self.folder)?.sync_all()?;
            if self.segments.last() != Some(&self.next) {
                self.segments.push(self.next);
            }
            self.open = Some(Open { file, bytes: MAGIC.len() as u64 });
        }
        self.open.as_mut().ok_or_else(|| io::Error::other("opened above"))
    }

    /// Takes back what a failed append may have written. Where the segment cannot be cut, the numbers are not given again:
    /// of two frames with one number the first would be read, and that one nobody was told of.
    fn give_up(&mut self, frames: u64) {
        let Some(mut open) = self.open.take() else { return };
        let cut = open.file.set_len(open.bytes).and_then(|()| open.file.seek(SeekFrom::Start(open.bytes)));
        if cut.and_then(|_| open.file.sync_data()).is_err() {
            self.next += frames;
        }
    }
}

fn header(number: u64, payload: &[u8]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let length = u32::try_from(payload.len()).expect("a payload is bounded by PAYLOAD_BYTES_MAX");
    header[..4].copy_from_slice(&MARK.to_le_bytes());
    header[4..8].copy_from_slice(&length.to_le_bytes());
    header[12..20].copy_from_slice(&number.to_le_bytes());
    let sum = sum(&header, payload);
    header[8..12].copy_from_slice(&sum.to_le_bytes());
    header
}

fn sum(header: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[4..8]);
    hasher.update(&header[12..HEADER_BYTES]);
    hasher.update(payload);
    hasher.finalize()
}

fn path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}.{EXTENSION}"))
}

fn segments(folder: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let known = name.to_str().and_then(|name| name.strip_suffix(EXTENSION)?.strip_suffix('.'));
        found.extend(known.and_then(|name| name.parse::<u64>().ok()));
    }
    Ok(found)
}

/// Gives every whole frame of a segment, in order; answers where the last of them ends.
fn scan(bytes: &[u8], is_newest: bool, damage: &mut Damage, mut give: impl FnMut(Frame)) -> usize {
    let mut at = if bytes.starts_with(MAGIC) { MAGIC.len() } else { 0 };
    let mut skipped = 0_u64;
    let mut whole = at;
    while at < bytes.len() {
        match frame(&bytes[at..]) {
            Some((frame, length)) => {
                damage.lost_bytes += std::mem::take(&mut skipped);
                at += length;
                whole = at;
                give(frame);
            }
            // What follows is looked through for a frame that is whole: a disk may spoil one sector and not the next.
            None => {
                at += 1;
                skipped += 1;
            }
        }
    }
    if is_newest {
        damage.torn_bytes += skipped;
    } else {
        damage.lost_bytes += skipped;
    }
    whole
}

fn frame(bytes: &[u8]) -> Option<(Frame, usize)> {
    let number_at = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let long_at = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    if number_at(0)? != MARK {
        return None;
    }
    let length = usize::try_from(number_at(4)?).ok().filter(|length| *length <= PAYLOAD_BYTES_MAX)?;
    let payload = bytes.get(HEADER_BYTES..HEADER_BYTES + length)?;
    if number_at(8)? != sum(bytes.get(..HEADER_BYTES)?, payload) {
        return None;
    }
    let frame = Frame { number: long_at(12)?, payload: payload.to_vec() };
    Some((frame, HEADER_BYTES + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(folder: &Path, after: u64) -> (Journal, Vec<String>, Damage) {
        let mut found = Vec::new();
        let (journal, damage) = Journal::open(folder, after, |frame| {
            found.push(format!("{}:{}", frame.number, String::from_utf8(frame.payload).unwrap()));
        })
        .unwrap();
        (journal, found, damage)
    }

    fn newest(folder: &Path) -> PathBuf {
        path(folder, segments(folder).unwrap().into_iter().max().unwrap())
    }

    #[test]
    fn frames_come_back_in_order_over_segments_and_those_done_with_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, found, _) = read(folder.path(), 0);
        assert!(found.is_empty());
        journal.append(&[b"a", b"b"]).unwrap();
        journal.rotate();
        journal.append(&[b"c"]).unwrap();
        assert_eq!(read(folder.path(), 0).1, ["1:a", "2:b", "3:c"]);
        assert_eq!(read(folder.path(), 2).1, ["3:c"]);
        journal.remove_through(1).unwrap();
        assert_eq!(segments(folder.path()).unwrap().len(), 2);
        journal.remove_through(3).unwrap();
        assert_eq!(read(folder.path(), 0).1, ["3:c"], "the segment that is written stays");
        journal.rotate();
        journal.remove_through(3).unwrap();
        assert!(segments(folder.path()).unwrap().is_empty());
        let (mut journal, _, _) = read(folder.path(), 3);
        journal.append(&[b"d"]).unwrap();
        assert_eq!(read(folder.path(), 3).1, ["4:d"]);
    }

    #[test]
    fn a_tail_that_a_death_tore_is_left_out_wherever_it_was_torn() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _, _) = read(folder.path(), 0);
        journal.append(&[b"first"]).unwrap();
        let whole = std::fs::metadata(newest(folder.path())).unwrap().len();
        journal.append(&[b"second"]).unwrap();
        let bytes = std::fs::read(newest(folder.path())).unwrap();
        for length in whole..bytes.len() as u64 {
            let file = OpenOptions::new().write(true).open(newest(folder.path())).unwrap();
            file.set_len(length).unwrap();
            let (_, found, damage) = read(folder.path(), 0);
            assert_eq!(found, ["1:first"], "cut at {length}");
            assert_eq!(damage, Damage { torn_bytes: length - whole, lost_bytes: 0 });
            assert_eq!(read(folder.path(), 0).2, Damage::default(), "a torn tail is told once");
            std::fs::write(newest(folder.path()), &bytes).unwrap();
        }
    }

    #[test]
    fn damage_before_whole_frames_is_told_and_the_frames_behind_it_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _, _) = read(folder.path(), 0);
        journal.append(&[b"first", b"second", b"third"]).unwrap();
        let path = newest(folder.path());
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(6).position(|window| window == b"second").unwrap();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let (journal, found, damage) = read(folder.path(), 0);
        assert_eq!(found, ["1:first", "3:third"]);
        assert_eq!(damage.lost_bytes, (HEADER_BYTES + 6) as u64);
        assert_eq!(journal.next(), 4);
    }

    #[test]
    fn whatever_stands_in_a_segment_nothing_breaks() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let mut bytes: Vec<u8> = (0..random.usize(0..300)).map(|_| random.u8(..)).collect();
            if random.bool() {
                bytes.splice(0..0, MARK.to_le_bytes());
            }
            scan(&bytes, true, &mut Damage::default(), |_| {});
        }
    }
}
