//! Documents and their revisions in the store.
//!
//! A document is a head, which says what revisions there are, and one key for each revision, which never changes. A
//! write is one transaction: the head must be as it was read, then head and revision are put together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::StreamExt as _;
use ninefold_store::{Compare, Key, Op, Revision as StoreRevision, Store, Txn};

use crate::error::Error;
use crate::model::{Document, DocumentId, Head, Revision, Write};
use crate::wire;

/// How often a write that expects nothing is tried again when others were faster.
const ATTEMPTS_MAX: usize = 32;
/// Most revisions that one write forgets; more are left to the next. The store takes 100 operations at once.
const FORGOTTEN_MAX: i64 = 50;
/// Fewest revisions that are kept.
const REVISIONS_MIN: i64 = 2;
/// Heads that are read at a time.
const HEADS_AT_ONCE: usize = 1000;
/// Revisions that a list reads at a time.
const READS_AT_ONCE: usize = 8;
/// Most bytes of an answer with several documents: clients of gRPC refuse more than 4 MiB unless told otherwise.
const ANSWER_BYTES_MAX: usize = 3 * 1024 * 1024;

/// The documents in the store.
#[derive(Debug)]
pub(crate) struct History {
    store: Arc<dyn Store>,
    revisions_max: i64,
}

/// A page of documents, and where the next begins.
#[derive(Debug)]
pub(crate) struct Page<C> {
    pub(crate) documents: Vec<Document>,
    pub(crate) next: Option<C>,
}

/// A head, and the moment of the store at which it was written.
struct Found {
    head: Head,
    modified: StoreRevision,
}

impl History {
    pub(crate) fn new(store: Arc<dyn Store>, revisions_max: u32) -> Self {
        Self { store, revisions_max: i64::from(revisions_max).max(REVISIONS_MIN) }
    }

    /// Which revisions there are; `None` where there is no document.
    pub(crate) async fn head(&self, id: &DocumentId) -> Result<Option<Head>, Error> {
        Ok(self.find(id).await?.map(|found| found.head))
    }

    async fn find(&self, id: &DocumentId) -> Result<Option<Found>, Error> {
        let key = wire::head_key(id);
        let entry = self.store.get(&key).await.map_err(reading)?;
        entry.map(|entry| Ok(Found { head: wire::head(&key, &entry.value)?, modified: entry.modified })).transpose()
    }

    /// The newest revision; `None` where there is no document.
    pub(crate) async fn newest(&self, id: &DocumentId) -> Result<Option<Document>, Error> {
        match self.head(id).await? {
            Some(head) => self.read(id, head.newest).await.map(Some),
            None => Ok(None),
        }
    }

    /// A revision, the newest where none is named.
    pub(crate) async fn get(&self, id: &DocumentId, revision: Option<i64>) -> Result<Document, Error> {
        let head = self.head(id).await?.ok_or_else(|| unknown(id))?;
        let revision = revision.unwrap_or(head.newest);
        if !head.holds(revision) {
            return Err(Error::RevisionUnknown { id: id.clone(), revision });
        }
        self.read(id, revision).await
    }

    async fn read(&self, id: &DocumentId, revision: i64) -> Result<Document, Error> {
        let key = wire::revision_key(id, revision);
        let entry = self.store.get(&key).await.map_err(reading)?;
        // Between the reading of the head and this, it may have been forgotten.
        let entry = entry.ok_or_else(|| Error::RevisionUnknown { id: id.clone(), revision })?;
        wire::revision(&key, &entry.value)
    }

    /// Writes a new revision.
    pub(crate) async fn put(&self, id: &DocumentId, content: &str, write: &Write) -> Result<Document, Error> {
        for _ in 0..ATTEMPTS_MAX {
            let found = self.find(id).await?;
            let document = next(id, found.as_ref(), content, write, None)?;
            if self.commit(&document, found).await? {
                return Ok(document);
            }
        }
        Err(Error::Contended { id: id.clone(), attempts: ATTEMPTS_MAX })
    }

    /// Tells what [`History::put`] would write, and writes nothing.
    pub(crate) async fn check(&self, id: &DocumentId, content: &str, write: &Write) -> Result<Document, Error> {
        next(id, self.find(id).await?.as_ref(), content, write, None)
    }

    /// Brings a revision back, the one before the newest where none is named.
    pub(crate) async fn rollback(
        &self,
        id: &DocumentId,
        revision: Option<i64>,
        write: &Write,
    ) -> Result<Document, Error> {
        for _ in 0..ATTEMPTS_MAX {
            let found = self.find(id).await?.ok_or_else(|| unknown(id))?;
            let revision = revision.unwrap_or(found.head.newest - 1);
            if !found.head.holds(revision) {
                return Err(Error::RevisionUnknown { id: id.clone(), revision });
            }
            let earlier = self.read(id, revision).await?;
            let document = next(id, Some(&found), &earlier.revision.content, write, Some(revision))?;
            if self.commit(&document, Some(found)).await? {
                return Ok(document);
            }
        }
        Err(Error::Contended { id: id.clone(), attempts: ATTEMPTS_MAX })
    }

    /// Puts a revision behind what was found, unless somebody else was faster; tells whether it is there.
    async fn commit(&self, document: &Document, found: Option<Found>) -> Result<bool, Error> {
        let id = &document.id;
        let newest = document.revision.number;
        let head_key = wire::head_key(id);
        let oldest = found.as_ref().map_or(newest, |found| found.head.first);
        let first = (newest - self.revisions_max + 1).clamp(oldest, oldest + FORGOTTEN_MAX);
        let mut ops: Vec<Op> = vec![
            put(head_key.clone(), wire::head_value(Head { first, newest })),
            put(wire::revision_key(id, newest), wire::revision_value(document)),
        ];
        ops.extend((oldest..first).map(|forgotten| Op::Delete(wire::revision_key(id, forgotten))));
        let compare = match found {
            Some(found) => Compare::Modified(head_key, found.modified),
            None => Compare::Absent(head_key),
        };
        let outcome = self.store.txn(Txn { compares: vec![compare], ops }).await;
        outcome.map(|outcome| outcome.committed).map_err(|source| Error::Store { what: "write the document", source })
    }

    /// Newest revisions of documents, by name, of one service where it is given, behind `after`.
    pub(crate) async fn documents(
        &self,
        service: Option<&str>,
        after: Option<&DocumentId>,
        documents_max: usize,
    ) -> Result<Page<DocumentId>, Error> {
        let after = after.map(wire::head_key);
        let heads = self.store.range(&wire::heads_of(service), after.as_ref(), documents_max).await.map_err(reading)?;
        let mut wanted = Vec::new();
        for entry in &heads.entries {
            let id = wire::id_of_head(&entry.key)
                .ok_or_else(|| wire::damaged(&entry.key, "its name is malformed".to_owned()))?;
            wanted.push((id, wire::head(&entry.key, &entry.value)?.newest));
        }
        let documents = self.read_fitting(wanted.clone()).await?;
        let is_last = documents.len() == wanted.len() && !heads.more;
        let next = wanted.into_iter().take(documents.len()).next_back().filter(|_| !is_last).map(|(id, _)| id);
        Ok(Page { documents, next })
    }

    /// Documents of an environment that are newer than what is `told`, as many as fit into an answer, and whether those
    /// are all.
    pub(crate) async fn newer(
        &self,
        environment: &str,
        told: &BTreeMap<DocumentId, i64>,
    ) -> Result<(Vec<Document>, bool), Error> {
        let mut wanted = Vec::new();
        let mut after = None;
        loop {
            let heads =
                self.store.range(&wire::heads_of(None), after.as_ref(), HEADS_AT_ONCE).await.map_err(reading)?;
            for entry in &heads.entries {
                let Some(id) = wire::id_of_head(&entry.key).filter(|id| id.environment() == environment) else {
                    continue;
                };
                let newest = wire::head(&entry.key, &entry.value)?.newest;
                // What was told may be ahead of a store that was set back; the store is right.
                if told.get(&id) != Some(&newest) {
                    wanted.push((id, newest));
                }
            }
            after = heads.entries.last().filter(|_| heads.more).map(|last| last.key.clone());
            if after.is_none() {
                break;
            }
        }
        let wanted_count = wanted.len();
        let documents = self.read_fitting(wanted).await?;
        let are_all = documents.len() == wanted_count;
        Ok((documents, are_all))
    }

    /// Revisions of a document, newest first, from one on.
    pub(crate) async fn revisions(
        &self,
        id: &DocumentId,
        from: Option<i64>,
        revisions_max: usize,
    ) -> Result<Page<i64>, Error> {
        let head = self.head(id).await?.ok_or_else(|| unknown(id))?;
        let newest = from.map_or(head.newest, |from| from.min(head.newest));
        let wanted = (head.first..=newest).rev().take(revisions_max).map(|number| (id.clone(), number)).collect();
        let documents = self.read_fitting(wanted).await?;
        let next = documents.last().map(|last| last.revision.number - 1).filter(|next| *next >= head.first);
        Ok(Page { documents, next })
    }

    /// Reads the first of the revisions, as many as fit into an answer, and at least one. One that was forgotten
    /// meanwhile ends the list.
    async fn read_fitting(&self, wanted: Vec<(DocumentId, i64)>) -> Result<Vec<Document>, Error> {
        let mut reads = futures_util::stream::iter(wanted)
            .map(|(id, revision)| async move { self.read(&id, revision).await })
            .buffered(READS_AT_ONCE);
        let mut documents: Vec<Document> = Vec::new();
        let mut bytes = 0;
        while let Some(read) = reads.next().await {
            let document = match read {
                Ok(document) => document,
                Err(Error::RevisionUnknown { .. }) if !documents.is_empty() => break,
                Err(error) => return Err(error),
            };
            let revision = &document.revision;
            bytes += revision.content.len() + revision.author.len() + revision.reason.len() + 256;
            if bytes > ANSWER_BYTES_MAX && !documents.is_empty() {
                break;
            }
            documents.push(document);
        }
        Ok(documents)
    }
}

/// The revision behind what was found.
fn next(
    id: &DocumentId,
    found: Option<&Found>,
    content: &str,
    write: &Write,
    rollback_of: Option<i64>,
) -> Result<Document, Error> {
    let newest = found.map_or(0, |found| found.head.newest);
    if let Some(expected) = write.expected.filter(|expected| *expected != newest) {
        return Err(Error::RevisionConflict { id: id.clone(), expected, found: newest });
    }
    let revision = Revision {
        number: newest + 1,
        content: content.to_owned(),
        time: SystemTime::now(),
        author: write.author.clone(),
        reason: write.reason.clone(),
        rollback_of,
    };
    Ok(Document { id: id.clone(), revision })
}

fn put(key: Key, value: bytes::Bytes) -> Op {
    Op::Put { key, value, lease: None }
}

fn unknown(id: &DocumentId) -> Error {
    Error::DocumentUnknown(id.to_string())
}

fn reading(source: ninefold_store::Error) -> Error {
    Error::Store { what: "read the document", source }
}
