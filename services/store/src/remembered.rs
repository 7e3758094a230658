//! What a role last read of a shared store, in a file of its node: for a start while the store is away.
//!
//! The file is written whole beside the old one and put in its place, so that a crash leaves the one or the other. It has
//! a version and a checksum: what was cut short or changed is refused, not believed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::model::{Entry, Key, Ranged, Revision};

/// What every such file begins with; the last byte is the version of all that follows.
const MAGIC: &[u8; 16] = b"ninefold known \x01";
/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Bytes of a checksum.
const CHECKSUM_BYTES: usize = 32;

/// A file of what was last read of a shared store. Only this user may read it.
#[derive(Clone, Debug)]
pub struct Remembered {
    path: PathBuf,
}

impl Remembered {
    /// The file at a path; its folder is made when it is first written.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether something is remembered, readable or not.
    pub fn is_there(&self) -> bool {
        self.path.is_file()
    }

    /// Reads what is remembered; `None` where nothing is. Leases and the revisions at which keys were made are not.
    ///
    /// # Errors
    /// Those of the file; [`io::ErrorKind::InvalidData`] for one that is damaged, or of a later version.
    pub async fn read(&self) -> io::Result<Option<Ranged>> {
        let path = self.path.clone();
        blocking(move || match fs::metadata(&path) {
            Ok(found) if found.len() > FILE_BYTES_MAX => Err(damaged("it is too large")),
            Ok(_) => decode(&fs::read(&path)?).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        })
        .await
    }

    /// Puts these entries, right at `revision`, in the place of what is remembered. They are made where nobody waits for
    /// them. Dropping it leaves the old or the new.
    ///
    /// # Errors
    /// Those of the file; the old one stays then.
    pub async fn write(
        &self,
        revision: Revision,
        entries: impl FnOnce() -> Vec<Entry> + Send + 'static,
    ) -> io::Result<()> {
        let path = self.path.clone();
        blocking(move || replace(&path, &encode(revision, &entries()))).await
    }
}

/// Runs what waits for a disk where nobody else waits for it.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let beside = path.with_extension("new");
    // One that a crash left behind may be anybody's to read.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(folder)?.sync_all()
}

fn encode(revision: Revision, entries: &[Entry]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(revision.0.to_le_bytes());
    bytes.extend((entries.len() as u64).to_le_bytes());
    for entry in entries {
        bytes.extend(entry.modified.0.to_le_bytes());
        for part in [entry.key.as_str().as_bytes(), &entry.value] {
            bytes.extend((part.len() as u64).to_le_bytes());
            bytes.extend(part);
        }
    }
    let checksum = Sha256::digest(&bytes);
    bytes.extend(checksum);
    bytes
}

fn decode(bytes: &[u8]) -> io::Result<Ranged> {
    let (told, checksum) = bytes
        .len()
        .checked_sub(CHECKSUM_BYTES)
        .and_then(|end| bytes.split_at_checked(end))
        .ok_or_else(|| damaged("it is cut short"))?;
    if Sha256::digest(told)[..] != *checksum {
        return Err(damaged("its checksum does not fit"));
    }
    let mut rest = told.strip_prefix(MAGIC).ok_or_else(|| damaged("it is of another version"))?;
    read_entries(&mut rest).filter(|_| rest.is_empty()).ok_or_else(|| damaged("its lengths do not fit"))
}

fn read_entries(rest: &mut &[u8]) -> Option<Ranged> {
    let revision = Revision(i64::from_le_bytes(number(rest)?));
    let count = u64::from_le_bytes(number(rest)?);
    let mut entries = Vec::new();
    for _ in 0..count {
        let modified = Revision(i64::from_le_bytes(number(rest)?));
        let key = Key::new(String::from_utf8(part(rest)?.to_vec()).ok()?);
        let value = Bytes::copy_from_slice(part(rest)?);
        entries.push(Entry { key, value, created: Revision(0), modified, lease: None });
    }
    Some(Ranged { entries, revision, more: false })
}

fn number(rest: &mut &[u8]) -> Option<[u8; 8]> {
    let (number, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*number)
}

fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(u64::from_le_bytes(number(rest)?)).ok()?;
    let (part, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(part)
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn entry(key: &str, value: &str, modified: i64) -> Entry {
        let (key, value) = (Key::new(key), Bytes::from(value.to_owned()));
        Entry { key, value, created: Revision(0), modified: Revision(modified), lease: None }
    }

    #[tokio::test]
    async fn what_was_written_is_read_and_the_newest_stands() {
        let folder = tempfile::tempdir().unwrap();
        let file = Remembered::at(folder.path().join("registry/known"));
        assert!(!file.is_there() && file.read().await.unwrap().is_none());
        file.write(Revision(3), || vec![entry("a", "old", 3)]).await.unwrap();
        let entries = vec![entry("a", "", 7), entry("b/c", "new", 9)];
        let written = entries.clone();
        file.write(Revision(12), || written).await.unwrap();
        let read = file.read().await.unwrap().unwrap();
        assert_eq!((read.entries, read.revision, read.more), (entries, Revision(12), false));
        let mode = fs::metadata(file.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn what_a_crash_left_beside_it_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = Remembered::at(folder.path().join("known"));
        file.write(Revision(3), || vec![entry("a", "1", 3)]).await.unwrap();
        fs::write(folder.path().join("known.new"), "half").unwrap();
        assert_eq!(file.read().await.unwrap().unwrap().revision, Revision(3));
        file.write(Revision(4), Vec::new).await.unwrap();
        assert_eq!(file.read().await.unwrap().unwrap().revision, Revision(4));
    }

    #[test]
    fn every_damage_is_found_and_none_panics() {
        let whole = encode(Revision(5), &[entry("a", "one", 4), entry("b", "two", 5)]);
        assert!(decode(&whole).is_ok());
        for end in 0..whole.len() {
            assert!(decode(&whole[..end]).is_err(), "cut at {end}");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(decode(&changed).is_err(), "changed at {at}");
        }
        let mut later = whole[..whole.len() - CHECKSUM_BYTES].to_vec();
        later[15] = 2;
        let checksum = Sha256::digest(&later);
        later.extend(checksum);
        assert_eq!(decode(&later).unwrap_err().to_string(), "it is of another version");
    }
}
