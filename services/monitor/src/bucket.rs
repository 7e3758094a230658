//! A bucket that speaks S3: where files of telemetry are kept beside the node's own disk.
//!
//! It knows objects and their bytes, not what is in them. Whoever puts one is told when it is there whole; one that is half
//! sent is not there. Keys are never in the settings: they are in a file of their own, in the environment, or what the
//! machine is given.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Formatter};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ninefold::fault::Violation;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as Place;
use object_store::{ClientOptions, ObjectStoreExt as _, RetryConfig};
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use tokio::runtime::Handle;

const GIB: u64 = 1024 * 1024 * 1024;
/// Bytes that are sent in one request; what a file has beyond them goes in parts.
const PART_BYTES: u64 = 8 * 1024 * 1024;
/// Longest time to connect.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// How often something is read until it is given up.
const TRIES: u32 = 3;
/// Wait before something is read again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Where files of telemetry are kept beside the node's own disk.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `s3://NAME` or `s3://NAME/FOLDER`. Empty for none: files are on the node's disk alone.
    pub url: String,
    /// Address of a store that is not Amazon's, such as `https://s3.example.org`. Empty for Amazon's.
    pub endpoint: String,
    /// The region; stores that have none take any.
    pub region: String,
    /// File with `aws_access_key_id` and `aws_secret_access_key`, one `name = value` a line. Without one the environment
    /// is asked (`AWS_ACCESS_KEY_ID` and its like), then the machine.
    pub credentials: Option<PathBuf>,
    /// Disk for copies of files that the bucket has; the longest unused go to stay below it.
    pub cache_bytes_max: u64,
    /// Disk for files that the bucket has not taken yet. Beyond it what comes in stays in memory, and is refused when that
    /// is full.
    pub waiting_bytes_max: u64,
    /// Longest time for one request.
    #[serde(with = "ninefold::settings::duration")]
    pub wait: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: String::new(),
            endpoint: String::new(),
            region: "us-east-1".to_owned(),
            credentials: None,
            cache_bytes_max: 2 * GIB,
            waiting_bytes_max: 4 * GIB,
            wait: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// What cannot work, although it can be read.
    pub fn mistakes(&self) -> Vec<Violation> {
        let mut wrong = Vec::new();
        if !self.url.is_empty() && self.named().is_none() {
            wrong.push(Violation::new("bucket.url", "must be s3://NAME or s3://NAME/FOLDER, without keys"));
        }
        let endpoint = self.endpoint.parse::<http::Uri>().ok();
        let is_usable = endpoint.is_some_and(|uri| {
            let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
            plain && matches!(uri.scheme_str(), Some("http" | "https"))
        });
        if !self.endpoint.is_empty() && !is_usable {
            wrong.push(Violation::new("bucket.endpoint", "must be a URL such as https://s3.example.org, without keys"));
        }
        if self.url.is_empty() && *self != Self::default() {
            wrong.push(Violation::new("bucket.url", "is missing: s3://NAME or s3://NAME/FOLDER"));
        }
        wrong
    }

    /// Name of the bucket, and the folder in it.
    fn named(&self) -> Option<(&str, &str)> {
        let rest = self.url.strip_prefix("s3://")?;
        let (name, folder) = rest.split_once('/').unwrap_or((rest, ""));
        let is_name = |sign: char| sign.is_ascii_alphanumeric() || ".-_".contains(sign);
        let folder = folder.trim_end_matches('/');
        let is_folder = folder.is_empty() || !rest.contains("//") && Place::parse(folder).is_ok();
        (!name.is_empty() && name.chars().all(is_name) && is_folder).then_some((name, folder))
    }
}

/// What the text of each [`Failure`] begins with.
pub(crate) const NAMED: &str = "the bucket ";

/// Why something is not in a bucket, or cannot be had from it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// It is not there.
    #[error("the bucket has no {0}")]
    Gone(String),
    /// It is something else than what was put there.
    #[error("the bucket has something else than what was put there as {0}")]
    Spoiled(String),
    /// The bucket does not take part.
    #[error("the bucket cannot be used")]
    Away(#[source] Box<object_store::Error>),
    /// The bucket does not answer.
    #[error("the bucket did not answer within {0:?}")]
    Slow(Duration),
    /// The disk.
    #[error("the bucket has it, and its copy on the disk could not be read or written")]
    Disk(#[from] std::io::Error),
    /// The keys.
    #[error("the bucket needs keys that cannot be read from {}: {why}", path.display())]
    Keys {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
}

impl From<Failure> for std::io::Error {
    fn from(failure: Failure) -> Self {
        Self::other(failure)
    }
}

/// What was done with a bucket since the node started.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Bytes that were put there.
    pub(crate) sent_bytes: AtomicU64,
    /// Bytes that were read from there.
    pub(crate) read_bytes: AtomicU64,
    /// Requests that failed.
    pub(crate) failures: AtomicU64,
}

/// A bucket.
pub(crate) struct Bucket {
    store: AmazonS3,
    /// What is before the names of all objects.
    folder: Place,
    wait: Duration,
    /// Threads that may block wait for it here.
    runtime: Handle,
    pub(crate) counts: Counts,
}

impl Debug for Bucket {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        out.debug_struct("Bucket").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Bucket {
    /// The bucket of the settings; none where they name none. Nobody is asked yet.
    ///
    /// # Errors
    /// [`Failure::Keys`]; [`Failure::Away`] where the settings mean nothing.
    pub(crate) fn of(config: &Config) -> Result<Option<Self>, Failure> {
        let Some((name, folder)) = config.named() else { return Ok(None) };
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(name).with_region(&config.region);
        if !config.endpoint.is_empty() {
            builder = builder.with_endpoint(config.endpoint.trim_end_matches('/'));
        }
        if let Some(path) = &config.credentials {
            let keys = keys(path)?;
            let said = |name: &str| keys.get(name).cloned().unwrap_or_default();
            builder = builder
                .with_access_key_id(said("aws_access_key_id"))
                .with_secret_access_key(said("aws_secret_access_key"));
            if let Some(token) = keys.get("aws_session_token") {
                builder = builder.with_token(token);
            }
        }
        let is_plain = config.endpoint.starts_with("http://");
        let options = ClientOptions::new()
            .with_connect_timeout(CONNECT_WITHIN)
            .with_timeout(config.wait)
            .with_allow_http(is_plain);
        // It would say each failure, and wait on its own.
        let once = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        let store = builder.with_client_options(options).with_retry(once).build().map_err(away)?;
        let folder = Place::from(folder);
        Ok(Some(Self { store, folder, wait: config.wait, runtime: Handle::current(), counts: Counts::default() }))
    }

    fn place(&self, name: &str) -> Place {
        let parts = self.folder.parts().map(|part| part.as_ref().to_owned());
        parts.chain(name.split('/').map(str::to_owned)).collect()
    }

    /// Puts a file there; it is there whole when this returns. `sent` is given its bytes in their order.
    ///
    /// # Errors
    /// [`Failure::Away`], [`Failure::Slow`], [`Failure::Disk`]. Then it is not there, or whole.
    pub(crate) async fn put(&self, name: &str, path: &Path, mut sent: impl FnMut(&[u8])) -> Result<(), Failure> {
        let mut file = tokio::fs::File::open(path).await?;
        let length = file.metadata().await?.len();
        let place = self.place(name);
        if length <= PART_BYTES {
            let bytes = part_of(&mut file, length).await?;
            sent(&bytes);
            self.within(self.store.put(&place, bytes.into()), name).await?;
            self.counts.sent_bytes.fetch_add(length, Ordering::Relaxed);
            return Ok(());
        }
        let mut upload = self.within(self.store.put_multipart(&place), name).await?;
        let outcome = async {
            let mut left = length;
            while left > 0 {
                let bytes = part_of(&mut file, left.min(PART_BYTES)).await?;
                left -= bytes.len() as u64;
                sent(&bytes);
                let count = bytes.len() as u64;
                self.within(upload.put_part(bytes.into()), name).await?;
                self.counts.sent_bytes.fetch_add(count, Ordering::Relaxed);
            }
            self.within(upload.complete(), name).await.map(drop)
        };
        let outcome = outcome.await;
        if outcome.is_err() {
            // Parts of what is not finished cost room until somebody takes them away.
            let _ = self.within(upload.abort(), name).await;
        }
        outcome
    }

    /// Reads a part of an object, on a thread that may block.
    ///
    /// # Errors
    /// [`Failure::Gone`]; [`Failure::Away`] and [`Failure::Slow`] after some tries.
    pub(crate) fn read(&self, name: &str, range: Range<u64>) -> Result<Bytes, Failure> {
        let place = self.place(name);
        let work = async {
            let mut tries = 1;
            loop {
                match self.within(self.store.get_range(&place, range.clone()), name).await {
                    Err(Failure::Away(_)) if tries < TRIES => {
                        tokio::time::sleep(AGAIN_AFTER * tries).await;
                        tries += 1;
                    }
                    outcome => return outcome,
                }
            }
        };
        let bytes = self.runtime.block_on(work)?;
        self.counts.read_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes)
    }

    /// Removes an object; one that is not there is removed.
    ///
    /// # Errors
    /// [`Failure::Away`], [`Failure::Slow`].
    pub(crate) async fn remove(&self, name: &str) -> Result<(), Failure> {
        let place = self.place(name);
        match self.within(self.store.delete(&place), name).await {
            Err(Failure::Gone(_)) => Ok(()),
            outcome => outcome,
        }
    }

    async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, object_store::Error>>,
        name: &str,
    ) -> Result<T, Failure> {
        let outcome = match tokio::time::timeout(self.wait, work).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => failure(error, name),
            Err(_) => Failure::Slow(self.wait),
        };
        self.counts.failures.fetch_add(1, Ordering::Relaxed);
        Err(outcome)
    }
}

fn away(error: object_store::Error) -> Failure {
    Failure::Away(Box::new(error))
}

fn failure(error: object_store::Error, name: &str) -> Failure {
    match error {
        // A bucket that is not there has lost nothing yet.
        object_store::Error::NotFound { ref source, .. } if !said(source.as_ref()).contains("NoSuchBucket") => {
            Failure::Gone(name.to_owned())
        }
        error => away(error),
    }
}

fn said(error: &(dyn std::error::Error + 'static)) -> String {
    ninefold::fault::chain(error)
}

async fn part_of(file: &mut tokio::fs::File, length: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    file.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// The keys of a file: its first section, as Amazon's tools write it.
fn keys(path: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let wrong = |why: &str| Failure::Keys { path: path.to_owned(), why: why.to_owned() };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error.to_string()))?;
    let mut keys = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';'])) {
        if line.starts_with('[') {
            if !keys.is_empty() {
                break;
            }
            continue;
        }
        let (name, value) = line.split_once('=').ok_or_else(|| wrong("a line is not `name = value`"))?;
        keys.insert(name.trim().to_owned(), value.trim().trim_matches('"').to_owned());
    }
    for name in ["aws_access_key_id", "aws_secret_access_key"] {
        if keys.get(name).is_none_or(String::is_empty) {
            return Err(wrong(&format!("it has no {name}")));
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_told_by_name() {
        let wrong = |config: Config| config.mistakes().into_iter().map(|wrong| wrong.field).collect::<Vec<_>>();
        assert!(wrong(Config::default()).is_empty());
        let with = |url: &str| Config { url: url.to_owned(), ..Config::default() };
        for url in ["s3://telemetry", "s3://telemetry/ninefold", "s3://telemetry/a/b/"] {
            assert!(wrong(with(url)).is_empty(), "{url}");
        }
        for url in ["telemetry", "https://telemetry", "s3://", "s3://key:secret@telemetry", "s3://a//b"] {
            assert_eq!(wrong(with(url)), ["bucket.url"], "{url}");
        }
        let endpoint = |text: &str| Config { endpoint: text.to_owned(), ..with("s3://telemetry") };
        assert!(wrong(endpoint("http://127.0.0.1:9000")).is_empty());
        assert_eq!(wrong(endpoint("127.0.0.1:9000")), ["bucket.endpoint"]);
        assert_eq!(wrong(endpoint("http://key:secret@store")), ["bucket.endpoint"]);
        assert_eq!(wrong(Config { endpoint: "http://store".to_owned(), ..Config::default() }), ["bucket.url"]);
    }

    #[test]
    fn keys_are_read_as_amazons_tools_write_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            keys(&path).map(|keys| keys["aws_secret_access_key"].clone()).map_err(|error| error.to_string())
        };
        let one = "# ours\n[default]\naws_access_key_id = a\naws_secret_access_key=b=\n\n";
        assert_eq!(read(one).unwrap(), "b=");
        assert_eq!(read(&format!("{one}[other]\naws_secret_access_key = c\n")).unwrap(), "b=");
        assert!(read("aws_access_key_id = a\n").unwrap_err().contains("it has no aws_secret_access_key"));
        let told = read("aws_access_key_id = a\nhunter2\n").unwrap_err();
        assert!(told.contains("a line is not") && !told.contains("hunter2"), "{told}");
    }
}
