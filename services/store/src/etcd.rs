//! The etcd backend: shared by all nodes that use one cluster. It keeps nothing itself.

mod members;
mod watch;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, GetOptions, GetResponse};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use ninefold::lifecycle::{Scope, Stop};
use tonic::Code;

use crate::model::{Batch, Entry, Key, LEASE_TTL_MIN, LeaseId, Op, Outcome, Ranged, Revision, Txn, VALUE_BYTES_MAX};
use crate::{Config, Error, Store, limits};

use members::{Again, Failure, Members, Said};
use watch::Follower;
use wire::Folder;

/// Most entries of one answer of etcd; larger ranges are read in parts, all at the revision of the first.
const PAGE_ENTRIES_MAX: usize = 128;
/// Largest answer of etcd: a page of the largest values, and room for the rest.
const MESSAGE_BYTES_MAX: usize = PAGE_ENTRIES_MAX * (VALUE_BYTES_MAX + 4096);
/// How often a range is begun anew when its revision is compacted between two parts.
const RANGE_TRIES_MAX: usize = 5;

/// The etcd backend.
#[derive(Debug)]
pub(crate) struct Etcd {
    members: Arc<Members>,
    folder: Folder,
    stop: Stop,
}

/// Connects to etcd; tells why it is away, when no member answers within four seconds. It is asked again by every call.
///
/// # Errors
/// [`Error::Unavailable`] for URLs that cannot be used; whatever else etcd answers than that it is away.
pub(crate) async fn open(config: &Config, scope: &Scope) -> Result<(Etcd, Option<Error>), Error> {
    let members = Arc::new(Members::new(&config.etcd).await?);
    let store = Etcd { members, folder: Folder::new(&config.prefix), stop: scope.child("store").stop() };
    match store.range(&Key::new(""), None, 0).await {
        Ok(range) => {
            tracing::info!(members = config.etcd.join(", "), revision = range.revision.0, "the store is open");
            Ok((store, None))
        }
        Err(away @ Error::Unavailable { .. }) => Ok((store, Some(away))),
        Err(error) => Err(error),
    }
}

impl Etcd {
    async fn call<T, F>(&self, again: Again, call: impl Fn(Client) -> F + Send) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, etcd_client::Error>> + Send,
    {
        if self.stop.is_asked() {
            return Err(Failure::Away(Error::Closed));
        }
        self.members.call(again, call).await
    }

    /// Says to a caller why there is no answer, when there is nothing more to it.
    fn tell(&self, failure: Failure) -> Error {
        match failure {
            Failure::Away(error) => error,
            Failure::Refused(status) => self.members.away(Some(Box::new(Said(status)))),
            Failure::LeaseGone => self.members.away(None),
        }
    }

    /// Reads entries of a prefix from `start` on; at `revision` if one is given.
    async fn page(
        &self,
        start: Vec<u8>,
        prefix: &Key,
        limit: usize,
        revision: Option<Revision>,
    ) -> Result<GetResponse, Failure> {
        let options = GetOptions::new()
            .with_range(self.folder.end(prefix))
            .with_limit(i64::try_from(limit).unwrap_or(i64::MAX))
            .with_revision(revision.map_or(0, |revision| revision.0));
        self.call(Again::Always, |client| {
            let (start, options) = (start.clone(), options.clone());
            async move {
                client.kv_client().max_decoding_message_size(MESSAGE_BYTES_MAX).get(start, Some(options)).await
            }
        })
        .await
    }

    /// Reads a range in parts. `None` when the revision of the first part was compacted before the last was read.
    async fn pages(&self, prefix: &Key, after: Option<&Key>, limit: usize) -> Result<Option<Ranged>, Error> {
        let mut start = self.folder.path(prefix);
        if let Some(after) = after {
            start = start.max(behind(self.folder.path(after)));
        }
        let mut found = Ranged { entries: Vec::new(), revision: Revision(0), more: true };
        let mut revision = None;
        while found.more && (revision.is_none() || found.entries.len() < limit) {
            // Of a range of nothing it is still asked whether there is something.
            let want = (limit - found.entries.len()).clamp(1, PAGE_ENTRIES_MAX);
            let mut page = match self.page(start.clone(), prefix, want, revision).await {
                Ok(page) => page,
                Err(Failure::Refused(status)) if status.code() == Code::OutOfRange => return Ok(None),
                Err(failure) => return Err(self.tell(failure)),
            };
            if revision.is_none() {
                found.revision = Revision(page.header().map_or(0, etcd_client::ResponseHeader::revision));
                revision = Some(found.revision);
            }
            found.more = page.more();
            let rows = page.take_kvs();
            if let Some(last) = rows.last() {
                start = behind(last.key().to_vec());
            }
            for row in &rows {
                found.entries.push(self.folder.entry(row)?);
            }
        }
        if found.entries.len() > limit {
            found.entries.truncate(limit);
            found.more = true;
        }
        Ok(Some(found))
    }
}

/// The next possible path.
fn behind(mut path: Vec<u8>) -> Vec<u8> {
    path.push(0);
    path
}

/// The lease that a transaction puts keys under; the first, if there are several.
fn lease_of(txn: &Txn) -> Option<LeaseId> {
    txn.ops.iter().find_map(|op| match op {
        Op::Put { lease, .. } => *lease,
        Op::Delete(_) | Op::DeletePrefix(_) => None,
    })
}

#[tonic::async_trait]
impl Store for Etcd {
    async fn range(&self, prefix: &Key, after: Option<&Key>, limit: usize) -> Result<Ranged, Error> {
        limits::prefix_bytes(prefix)?;
        for _ in 0..RANGE_TRIES_MAX {
            if let Some(found) = self.pages(prefix, after, limit).await? {
                return Ok(found);
            }
        }
        Err(self.members.away(Some("its history is compacted faster than it can be read".into())))
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>, Error> {
        limits::key_bytes(key)?;
        let path = self.folder.path(key);
        let answer = self.call(Again::Always, |client| {
            let path = path.clone();
            async move { client.kv_client().get(path, None).await }
        });
        let answer = answer.await.map_err(|failure| self.tell(failure))?;
        answer.kvs().first().map(|row| self.folder.entry(row)).transpose()
    }

    async fn txn(&self, txn: Txn) -> Result<Outcome, Error> {
        limits::check(&txn)?;
        let request = self.folder.txn(&txn);
        let answer = self.call(Again::Unseen, |client| {
            let request = request.clone();
            async move { client.kv_client().txn(request).await }
        });
        match answer.await {
            Ok(answer) => Ok(Outcome {
                committed: answer.succeeded(),
                revision: Revision(answer.header().map_or(0, etcd_client::ResponseHeader::revision)),
            }),
            Err(Failure::Refused(status)) if status.code() == Code::NotFound => match lease_of(&txn) {
                Some(lease) => Err(Error::LeaseUnknown(lease)),
                None => Err(self.tell(Failure::Refused(status))),
            },
            Err(failure) => Err(self.tell(failure)),
        }
    }

    async fn watch(&self, prefix: &Key, after: Revision) -> Result<BoxStream<'static, Result<Batch, Error>>, Error> {
        limits::prefix_bytes(prefix)?;
        let (members, folder) = (self.members.clone(), self.folder.clone());
        let follower = Follower::new(members, folder, prefix.clone(), after, self.stop.clone());
        Ok(stream::unfold(Some(follower), async |follower| Some(follower?.next().await)).boxed())
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, Error> {
        // etcd counts in seconds.
        let ttl = ttl.max(LEASE_TTL_MIN);
        let seconds = i64::try_from(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0)).unwrap_or(i64::MAX);
        // A grant that is made twice leaves a lease without keys behind, which runs out.
        let answer = self.call(Again::Always, |client| async move { client.lease_client().grant(seconds, None).await });
        answer.await.map(|answer| LeaseId(answer.id())).map_err(|failure| self.tell(failure))
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), Error> {
        let answer =
            self.call(Again::Always, |client| async move { client.lease_client().keep_alive(lease.0).await.map(drop) });
        match answer.await {
            Ok(()) => Ok(()),
            Err(Failure::LeaseGone) => Err(Error::LeaseUnknown(lease)),
            Err(failure) => Err(self.tell(failure)),
        }
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), Error> {
        let answer =
            self.call(Again::Always, |client| async move { client.lease_client().revoke(lease.0).await.map(drop) });
        match answer.await {
            Ok(()) => Ok(()),
            Err(Failure::Refused(status)) if status.code() == Code::NotFound => Ok(()),
            Err(failure) => Err(self.tell(failure)),
        }
    }
}
