//! The last good document on disk, for a start while the platform is away.

use std::io;
use std::path::{Path, PathBuf};

use ninefold_proto::ninefold::config::v1::Document;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;

/// A file that holds the last good document of one service in one environment.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    file: PathBuf,
    /// Instances of one service share the file; each writes under a name of its own first.
    draft: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    revision: i64,
    content: String,
}

impl Cache {
    /// The cache below `folder`.
    pub(crate) fn new(folder: &Path, service: &str, environment: &str, instance_id: &str) -> Self {
        // An id is free text; a file's name is not.
        let id: String = instance_id.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
        let name = format!("{service}.{environment}.config.json");
        let draft = folder.join(format!("{name}.{id}.{}", std::process::id()));
        Self { file: folder.join(name), draft }
    }

    /// Keeps a document. What cannot be written is logged: the service runs without a cache as well.
    pub(crate) async fn save(&self, document: &Document) {
        if let Err(error) = self.try_save(document).await {
            tracing::warn!(%error, file = %self.file.display(), "the last good config could not be kept");
        }
    }

    async fn try_save(&self, document: &Document) -> io::Result<()> {
        let kept = Kept { revision: document.revision, content: document.content.clone() };
        let text = serde_json::to_vec(&kept)?;
        if let Some(folder) = self.file.parent() {
            tokio::fs::create_dir_all(folder).await?;
        }
        let mut options = tokio::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        // Config may hold what others on the machine are not to read.
        #[cfg(unix)]
        options.mode(0o600);
        let mut draft = options.open(&self.draft).await?;
        draft.write_all(&text).await?;
        draft.sync_all().await?;
        tokio::fs::rename(&self.draft, &self.file).await
    }

    /// The last good document, if there is one.
    pub(crate) async fn load(&self) -> Option<Document> {
        let text = tokio::fs::read(&self.file).await.ok()?;
        let Kept { revision, content } = serde_json::from_slice(&text).ok()?;
        Some(Document { revision, content, ..Document::default() })
    }
}
