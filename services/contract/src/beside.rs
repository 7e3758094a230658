//! Contracts that this node read of a store that others may take away, a file each: for a start while the store is away.
//!
//! A contract is named by what it hashes to, so a file is right or refused, and never old.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use ninefold_store::{Entry, Remembered, Revision};

use crate::cache::Kept;
use crate::model::Digest;
use crate::wire;

/// Most files that are kept; the ones written longest ago go first.
const FILES_MAX: usize = 1000;
/// Most bytes of all files.
const BYTES_MAX: u64 = 256 * 1024 * 1024;

/// A folder of contracts.
#[derive(Clone, Debug)]
pub(crate) struct Beside {
    folder: PathBuf,
}

impl Beside {
    pub(crate) fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn file(&self, digest: &Digest) -> Remembered {
        Remembered::at(self.folder.join(digest.as_str().replace(':', "-")))
    }

    /// Keeps a contract. What fails is told in the log: the contract itself lies in the store.
    pub(crate) async fn keep(&self, kept: Arc<Kept>) {
        let digest = &kept.contract.digest;
        let file = self.file(digest);
        if file.is_there() {
            return;
        }
        let entries = [(digest.meta(), wire::record(&kept.contract)), (digest.chunk(0), kept.bytes.clone())];
        let entries = entries.map(|(key, value)| {
            let (created, modified) = (Revision(0), Revision(0));
            Entry { key, value, created, modified, lease: None }
        });
        let written = file.write(Revision(0), || entries.into()).await;
        let folder = self.folder.clone();
        let made_room =
            async { tokio::task::spawn_blocking(move || make_room(&folder)).await.map_err(io::Error::other)? };
        if let Err(error) = async { written.and(made_room.await) }.await {
            tracing::warn!(%digest, %error, "a contract is not remembered beside the store");
        }
    }

    /// A contract that was kept; `None` where it was not, or is damaged.
    pub(crate) async fn find(&self, digest: &Digest) -> Option<Kept> {
        let read = self.file(digest).read().await;
        let read = read.inspect_err(|error| tracing::warn!(%digest, %error, "a remembered contract cannot be read"));
        let [record, bytes] = <[Entry; 2]>::try_from(read.ok()??.entries).ok()?;
        let contract = wire::read_record(&record.value).filter(|contract| contract.digest == *digest)?;
        Some(Kept { contract, bytes: bytes.value })
    }
}

/// Removes the oldest files beyond the bounds.
fn make_room(folder: &std::path::Path) -> io::Result<()> {
    let mut files = Vec::new();
    for found in fs::read_dir(folder)? {
        let found = found?;
        let about = found.metadata()?;
        files.push((about.modified()?, about.len(), found.path()));
    }
    files.sort_unstable_by(|one, other| other.cmp(one));
    let mut bytes = 0;
    for (at, (_, size, path)) in files.into_iter().enumerate() {
        bytes += size;
        if at >= FILES_MAX || bytes > BYTES_MAX {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use bytes::Bytes;

    use super::*;
    use crate::model::{Contract, Promise};

    #[tokio::test]
    async fn what_is_kept_is_found_by_its_digest_and_a_damaged_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let beside = Beside::at(folder.path().join("contract"));
        let bytes = Bytes::from_static(b"a contract");
        let digest = Digest::of(&bytes);
        assert!(beside.find(&digest).await.is_none());
        let promise = Promise { packages: vec!["a.v1".to_owned()], ..Promise::default() };
        let created = SystemTime::UNIX_EPOCH;
        let contract =
            Contract { digest: digest.clone(), service: "a".to_owned(), created, size: bytes.len(), promise };
        beside.keep(Arc::new(Kept { contract, bytes: bytes.clone() })).await;
        let found = beside.find(&digest).await.unwrap();
        assert_eq!((found.bytes, found.contract.promise.packages), (bytes, vec!["a.v1".to_owned()]));

        let path = beside.file(&digest).path().to_owned();
        let mut damaged = fs::read(&path).unwrap();
        damaged[40] ^= 1;
        fs::write(&path, damaged).unwrap();
        assert!(beside.find(&digest).await.is_none());
    }
}
