//! What is remembered of one service for its watchers: what its instances come to, what changed lately, and the bytes
//! that watchers were told, so that they are made once for all of them.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use ninefold_store::Revision;

use crate::model::InstanceKey;
use crate::table::Moment;

/// Most changes of a service that are remembered for watchers that fell behind; who is further behind begins anew.
const CHANGES_MAX: usize = 256;
/// Most pieces of one service that are kept as bytes.
const PIECES_MAX: usize = 4;

/// One service, as its watchers need it.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    /// What its instances come to.
    pub(crate) digest: u64,
    /// Revision at which it last changed.
    pub(crate) revision: Revision,
    changes: VecDeque<(Moment, InstanceKey)>,
    /// The last moment that `changes` has forgotten something of.
    forgotten: Moment,
    cache: Arc<Cache>,
}

impl Lane {
    /// A lane that remembers nothing of what was before.
    pub(crate) fn since(moment: Moment) -> Self {
        Self { forgotten: moment, ..Self::default() }
    }

    /// Remembers that an instance changed.
    pub(crate) fn push(&mut self, moment: Moment, key: InstanceKey) {
        self.changes.push_back((moment, key));
        while self.changes.len() > CHANGES_MAX {
            if let Some((moment, _)) = self.changes.pop_front() {
                self.forgotten = moment;
            }
        }
    }

    /// When it last changed.
    pub(crate) fn last(&self) -> Moment {
        self.changes.back().map_or(self.forgotten, |(moment, _)| *moment)
    }

    /// Which instances changed after a moment, and the last change before it; `None` if that is too long ago to tell.
    pub(crate) fn changed(&self, then: Moment) -> Option<(BTreeSet<&InstanceKey>, Moment)> {
        if then < self.forgotten {
            return None;
        }
        let first = self.changes.partition_point(|(moment, _)| *moment <= then);
        let before = first.checked_sub(1).and_then(|last| self.changes.get(last)).map_or(self.forgotten, |one| one.0);
        Some((self.changes.range(first..).map(|(_, key)| key).collect(), before))
    }

    /// The bytes that were made of it.
    pub(crate) fn cache(&self) -> Arc<Cache> {
        self.cache.clone()
    }
}

/// Which piece of a service's life: all that is there at `to`, or what changed between two moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// `None` for all that is there.
    pub(crate) from: Option<Moment>,
    /// The last change that is in it.
    pub(crate) to: Moment,
}

/// Pieces as bytes, shared by all who are told of them. The oldest is forgotten.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<VecDeque<(Span, Bytes)>>);

impl Cache {
    /// The bytes of a piece, if they are kept.
    pub(crate) fn get(&self, span: Span) -> Option<Bytes> {
        let pieces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pieces.iter().find(|(known, _)| *known == span).map(|(_, bytes)| bytes.clone())
    }

    /// Keeps the bytes of a piece. A snapshot that is no longer the present is dropped.
    pub(crate) fn put(&self, span: Span, bytes: Bytes) {
        let mut pieces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pieces.retain(|(known, _)| *known != span && !(known.from.is_none() && span.from.is_none()));
        pieces.push_back((span, bytes));
        while pieces.len() > PIECES_MAX {
            pieces.pop_front();
        }
    }
}
