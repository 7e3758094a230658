//! Keeps what must not be lost: a revisioned map with transactions, watches and leases, after etcd's semantics.
//!
//! Two backends answer one [`Store`] trait: embedded (one process, durable on local disk) and etcd (shared by nodes). It
//! knows nothing of what the roles keep in it.

mod config;
mod error;
pub mod model;

mod limits;

mod embedded;
mod etcd;
mod remembered;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use ninefold::lifecycle::Scope;

pub use config::{Backend, Config};
pub use error::Error;
pub use model::{Batch, Compare, Entry, Event, Key, LeaseId, Op, Outcome, Ranged, Revision, Txn};
pub use remembered::Remembered;

/// Opens the store that the settings ask for. Its tasks live in `scope`; when that closes, the store does.
///
/// # Errors
/// [`Error::Misconfigured`] with all mistakes in the settings; [`Error::Open`] when the embedded backend's folder cannot
/// be used; [`Error::Unavailable`] when etcd does not answer within four seconds.
pub async fn open(config: &Config, scope: &Scope) -> Result<Arc<dyn Store>, Error> {
    let (store, away) = open_anyway(config, scope).await?;
    away.map_or(Ok(store), Err)
}

/// As [`open`], save that an etcd that does not answer is opened all the same, for a node that remembers what it last read
/// there: it is told as the second of the two, and asked again by whatever is done with the store.
///
/// # Errors
/// As [`open`].
pub async fn open_anyway(config: &Config, scope: &Scope) -> Result<(Arc<dyn Store>, Option<Error>), Error> {
    let mistakes = config.mistakes();
    if !mistakes.is_empty() {
        return Err(Error::Misconfigured(mistakes));
    }
    match config.backend {
        Backend::Embedded => Ok((Arc::new(embedded::open(config, scope).await?), None)),
        Backend::Etcd => {
            let (store, away) = etcd::open(config, scope).await?;
            Ok((Arc::new(store), away))
        }
    }
}

/// The law: every write has one revision, greater than all before; reads are linearizable; a transaction happens whole
/// or not at all; a watch has no gap.
#[tonic::async_trait]
pub trait Store: Debug + Send + Sync + 'static {
    /// Reads all entries whose keys begin with `prefix`, in the order of keys, at most `limit` of them, beginning after
    /// the key `after` if one is given (for paging). All entries of one call are of one moment; those of another page are
    /// of a later one. A limit of 0 reads none and tells whether there are any.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the backend cannot be reached in time.
    async fn range(&self, prefix: &Key, after: Option<&Key>, limit: usize) -> Result<Ranged, Error>;

    /// Reads one entry.
    ///
    /// # Errors
    /// As [`Store::range`].
    async fn get(&self, key: &Key) -> Result<Option<Entry>, Error>;

    /// If all compares hold, does all operations at one new revision; otherwise does nothing. The answer tells which.
    /// Durable when it returns. Dropping the call leaves it open whether it happens.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; [`Error::LeaseUnknown`] for a put under a lease that is gone; [`Error::TooLarge`] over the
    /// limits of [`model`]; [`Error::Malformed`] for one that contradicts itself. After [`Error::Unavailable`] the transaction may or may not have happened.
    async fn txn(&self, txn: Txn) -> Result<Outcome, Error>;

    /// Follows all changes to keys that begin with `prefix` and have a revision greater than `after`. One item holds all
    /// events of one or more whole revisions, in order, and is never empty. Reconnects by itself, without a gap: while
    /// etcd is away the stream is silent. A reader may be slow, as long as the history reaches back to where it is; it
    /// holds up nobody. `after` may be any revision; after one that is still to come, everything before it is left out.
    ///
    /// The call itself fails only for a prefix that is too long; what is wrong with the watch is told in the stream.
    ///
    /// The stream ends after an error: [`Error::Compacted`] when the history before is gone (read the range again and
    /// compare), [`Error::Lagged`] when the reader was too slow (the same), [`Error::Closed`] when the store closes.
    async fn watch(&self, prefix: &Key, after: Revision) -> Result<BoxStream<'static, Result<Batch, Error>>, Error>;

    /// Grants a lease: keys put under it are deleted when nobody has kept it alive for `ttl` (at least 2 s; etcd rounds up
    /// to whole seconds, and ends it up to 0.5 s late). After a restart of the backend it has its whole time again. No id is
    /// granted twice: who still holds one that ran out must not keep another's alive.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn grant(&self, ttl: Duration) -> Result<LeaseId, Error>;

    /// Keeps a lease alive for another `ttl`.
    ///
    /// # Errors
    /// [`Error::LeaseUnknown`] when it is gone; [`Error::Unavailable`].
    async fn keep_alive(&self, lease: LeaseId) -> Result<(), Error>;

    /// Whether other processes may use it too.
    fn is_shared(&self) -> bool {
        true
    }

    /// Ends a lease and deletes its keys. Ending one that is gone changes nothing.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn revoke(&self, lease: LeaseId) -> Result<(), Error>;
}
