//! The last known landscape on disk, for a start while the platform is away.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use ninefold_proto::ninefold::registry::v1 as words;
use prost::Message as _;
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use crate::connect::balance;
use crate::connect::landscape::LandscapeView;

/// How long changes are gathered before they are written.
const GATHER: Duration = Duration::from_secs(2);
/// A landscape that takes more room is not kept, and a larger file not read.
const FILE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A file that holds what was known last of the landscape.
#[derive(Debug)]
pub(crate) struct Shelf {
    file: PathBuf,
    /// Instances of one service may share the file; each writes under a name of its own first.
    draft: PathBuf,
    due: Option<Instant>,
    kept: Vec<u8>,
}

/// The file below `folder` in which a service keeps what it knows of the landscape of one platform. Another landscape of
/// the same machine has another: its instances are not to be called.
pub(crate) fn file_of(folder: &Path, service: &str, endpoints: &[Uri]) -> PathBuf {
    let platform: String = endpoints.iter().map(|endpoint| format!("{endpoint} ")).collect();
    folder.join(format!("{service}.{:016x}.landscape.binpb", balance::hash(platform.as_bytes())))
}

impl Shelf {
    /// Keeps the landscape in a file; its folder is made if it is not there.
    pub(crate) fn new(file: PathBuf) -> Self {
        let draft = file.with_extension(format!("{}.{}.draft", std::process::id(), fastrand::u32(..)));
        Self { file, draft, due: None, kept: Vec::new() }
    }

    /// Notes that there may be something to write.
    pub(crate) fn note(&mut self) {
        self.due.get_or_insert_with(|| Instant::now() + GATHER);
    }

    /// When to write, if there may be something.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// What was known last. Nothing where there is no file, or none that can be read.
    pub(crate) async fn load(&self) -> Option<words::Snapshot> {
        let metadata = tokio::fs::metadata(&self.file).await.ok()?;
        if usize::try_from(metadata.len()).is_ok_and(|bytes| bytes > FILE_BYTES_MAX) {
            return None;
        }
        let bytes = tokio::fs::read(&self.file).await.ok()?;
        let snapshot = words::Snapshot::decode(bytes.as_slice()).ok()?;
        tracing::debug!(instances = snapshot.instances.len(), "began with the last known landscape");
        Some(snapshot)
    }

    /// Writes what is known, if it has changed. What cannot be written is logged: a service runs without a memory as well.
    pub(crate) async fn save(&mut self, view: &LandscapeView) {
        self.due = None;
        let instances = view.services.values().flat_map(|instances| instances.iter());
        let snapshot = words::Snapshot {
            instances: instances.map(|instance| words::Instance::from(&**instance)).collect(),
            policies: view.policies.values().map(|policy| (**policy).clone()).collect(),
        };
        let bytes = snapshot.encode_to_vec();
        // An empty landscape is no help at a start.
        if bytes.is_empty() || bytes.len() > FILE_BYTES_MAX || bytes == self.kept {
            return;
        }
        match self.try_save(&bytes).await {
            Ok(()) => self.kept = bytes,
            Err(error) => {
                tracing::warn!(%error, file = %self.file.display(), "the last known landscape could not be kept");
            }
        }
    }

    async fn try_save(&self, bytes: &[u8]) -> io::Result<()> {
        if let Some(folder) = self.file.parent() {
            tokio::fs::create_dir_all(folder).await?;
        }
        let mut options = tokio::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        options.mode(0o600);
        let mut draft = options.open(&self.draft).await?;
        draft.write_all(bytes).await?;
        draft.sync_all().await?;
        tokio::fs::rename(&self.draft, &self.file).await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::connect::landscape::Instance;

    fn view(ids: &[&str]) -> LandscapeView {
        let instance = |id: &&str| {
            let words = words::Instance {
                service: "pump".to_owned(),
                instance_id: (*id).to_owned(),
                addresses: vec![words::Address { host: "127.0.0.1".to_owned(), port: 7 }],
                state: words::InstanceState::Serving.into(),
                ..words::Instance::default()
            };
            Arc::new(Instance::from(words))
        };
        let instances = ids.iter().map(instance).collect();
        LandscapeView { services: BTreeMap::from([("pump".into(), instances)]), ..LandscapeView::default() }
    }

    #[tokio::test]
    async fn what_was_known_is_read_back_and_an_empty_landscape_does_not_replace_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("new/pump.landscape");
        let mut shelf = Shelf::new(file.clone());
        assert!(shelf.load().await.is_none());
        shelf.save(&view(&["a", "b"])).await;
        shelf.save(&LandscapeView::default()).await;
        let read = Shelf::new(file.clone()).load().await.unwrap();
        assert_eq!(read.instances.iter().map(|one| one.instance_id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        std::fs::write(&file, b"not a landscape").unwrap();
        assert!(shelf.load().await.is_none());
    }
}
