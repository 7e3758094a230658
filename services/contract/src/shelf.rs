//! Where contracts lie: in the store, in pieces, and the latest in memory.
//!
//! A contract is there when its description is: the description is written last, together with its place in the order.
//! The pieces are named by what they hash to, so writing them twice, or half, harms nobody.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use ninefold_store::{self as store, Compare, Key, Op, Store, Txn};
use tokio::sync::Semaphore;

use crate::beside::Beside;
use crate::cache::{Cache, Kept};
use crate::config::Config;
use crate::error::Error;
use crate::intake;
use crate::model::{CHUNK_BYTES, Contract, Digest, META, ORDER, is_service_name};
use crate::wire;

/// Most contracts that are looked at, written or read from the store at a time; bounds the memory that they take.
const BUSY_MAX: usize = 4;
/// Most descriptions in one read.
const PAGE_ENTRIES: usize = 500;
/// Most pieces in one read: 2 MiB, below what etcd's client takes in one answer.
const CHUNKS_PAGE: usize = 4;

/// All contracts.
#[derive(Debug)]
pub(crate) struct Shelf {
    config: Config,
    store: Arc<dyn Store>,
    beside: Option<Beside>,
    cache: Mutex<Cache>,
    busy: Semaphore,
}

/// A page of contracts, newest first.
#[derive(Debug)]
pub(crate) struct Page {
    /// The contracts.
    pub(crate) contracts: Vec<Contract>,
    /// Where the list goes on; `None` at the end.
    pub(crate) rest: Option<Key>,
}

impl Shelf {
    pub(crate) fn new(config: Config, store: Arc<dyn Store>, beside: Option<Beside>) -> Self {
        let cache = Mutex::new(Cache::new(config.cache_bytes_max));
        Self { config, store, beside, cache, busy: Semaphore::new(BUSY_MAX) }
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a contract is; `None` if it is not kept.
    pub(crate) async fn find(&self, digest: &Digest) -> Result<Option<Contract>, Error> {
        if let Some(kept) = self.cache().get(digest) {
            return Ok(Some(kept.contract.clone()));
        }
        let entry = self.store.get(&digest.meta()).await.map_err(failed("read the contract"))?;
        entry.map(|entry| wire::read_record(&entry.value).ok_or_else(|| Error::Damaged(digest.clone()))).transpose()
    }

    /// Looks at what a service hands in, and names it.
    ///
    /// # Errors
    /// [`Error::ServiceNameInvalid`]; [`Error::TooLarge`]; [`Error::Malformed`].
    pub(crate) async fn look(&self, service: &str, bytes: &Bytes) -> Result<Contract, Error> {
        if !is_service_name(service) {
            return Err(Error::ServiceNameInvalid(service.to_owned()));
        }
        let (size, max) = (bytes.len(), self.config.contract_bytes_max);
        if size > max {
            return Err(Error::TooLarge { size, max });
        }
        let _busy = self.busy.acquire().await.expect("the semaphore is never closed");
        let digest = aside(bytes.clone(), |bytes| Digest::of(&bytes)).await;
        if let Some(known) = self.find(&digest).await? {
            return Ok(known);
        }
        let promise = aside(bytes.clone(), |bytes| intake::look(&bytes)).await.map_err(Error::Malformed)?;
        Ok(Contract { digest, service: service.to_owned(), created: SystemTime::now(), size, promise })
    }

    /// Writes the bytes of a contract. It is not there yet: see [`Shelf::ops`].
    pub(crate) async fn write_bytes(&self, digest: &Digest, bytes: &Bytes) -> Result<(), Error> {
        for (number, chunk) in (0..).zip(bytes.chunks(CHUNK_BYTES)) {
            let key = digest.chunk(number);
            let ops = vec![Op::Put { key, value: Bytes::copy_from_slice(chunk), lease: None }];
            let txn = Txn { compares: Vec::new(), ops };
            self.store.txn(txn).await.map_err(failed("write the contract's bytes"))?;
        }
        Ok(())
    }

    /// What makes a contract be there, if it is not: its description and its place in the order.
    ///
    /// # Errors
    /// [`Error::Full`].
    pub(crate) async fn ops(&self, contract: &Contract) -> Result<(Vec<Compare>, Vec<Op>), Error> {
        if self.find(&contract.digest).await?.is_some() {
            return Ok((Vec::new(), Vec::new()));
        }
        if self.count().await? >= self.config.contracts_max {
            return Err(Error::Full { max: self.config.contracts_max });
        }
        let (meta, record) = (contract.digest.meta(), wire::record(contract));
        let ops = vec![
            Op::Put { key: meta.clone(), value: record.clone(), lease: None },
            Op::Put { key: contract.order(), value: record, lease: None },
        ];
        Ok((vec![Compare::Absent(meta)], ops))
    }

    /// Forgets the bytes of a contract that never came to be there.
    pub(crate) async fn forget_bytes(&self, digest: &Digest) -> Result<(), Error> {
        if self.find(digest).await?.is_some() {
            return Ok(());
        }
        let txn = Txn { compares: vec![Compare::Absent(digest.meta())], ops: vec![Op::DeletePrefix(digest.chunks())] };
        self.store.txn(txn).await.map_err(failed("forget a refused contract"))?;
        Ok(())
    }

    async fn count(&self) -> Result<usize, Error> {
        let mut count = 0;
        let mut after = None;
        loop {
            let page = self.store.range(&Key::new(META), after.as_ref(), PAGE_ENTRIES).await;
            let page = page.map_err(failed("count the contracts"))?;
            count += page.entries.len();
            after = page.entries.last().map(|last| last.key.clone());
            if !page.more {
                return Ok(count);
            }
        }
    }

    /// A contract with its bytes; while the store is away, one that this node remembers.
    pub(crate) async fn get(&self, digest: &Digest) -> Result<Arc<Kept>, Error> {
        if let Some(kept) = self.cache().get(digest) {
            return Ok(kept);
        }
        let kept = match self.read(digest).await {
            Ok(kept) => {
                let kept = Arc::new(kept);
                if let Some(beside) = &self.beside {
                    beside.keep(kept.clone()).await;
                }
                kept
            }
            Err(error @ Error::Store { .. }) => Arc::new(self.remembered(digest).await.ok_or(error)?),
            Err(error) => return Err(error),
        };
        self.cache().put(kept.clone());
        Ok(kept)
    }

    async fn read(&self, digest: &Digest) -> Result<Kept, Error> {
        let contract = self.find(digest).await?.ok_or_else(|| Error::Unknown(digest.clone()))?;
        let bytes = self.read_bytes(digest, contract.size).await?;
        Ok(Kept { contract, bytes })
    }

    async fn remembered(&self, digest: &Digest) -> Option<Kept> {
        self.beside.as_ref()?.find(digest).await
    }

    /// The bytes of a contract, be it there or refused.
    ///
    /// # Errors
    /// [`Error::Damaged`] if they are not what they were.
    pub(crate) async fn read_bytes(&self, digest: &Digest, size: usize) -> Result<Bytes, Error> {
        let _busy = self.busy.acquire().await.expect("the semaphore is never closed");
        let mut bytes = BytesMut::with_capacity(size.min(self.config.contract_bytes_max));
        let mut after = None;
        loop {
            let page = self.store.range(&digest.chunks(), after.as_ref(), CHUNKS_PAGE).await;
            let page = page.map_err(failed("read the contract's bytes"))?;
            page.entries.iter().for_each(|entry| bytes.extend_from_slice(&entry.value));
            after = page.entries.last().map(|last| last.key.clone());
            if !page.more {
                break;
            }
        }
        let bytes = bytes.freeze();
        if aside(bytes.clone(), |bytes| Digest::of(&bytes)).await != *digest {
            return Err(Error::Damaged(digest.clone()));
        }
        Ok(bytes)
    }

    /// At most `limit` contracts, newest first, of one service or of all, behind the key `after`.
    pub(crate) async fn page(&self, service: &str, mut after: Option<Key>, limit: usize) -> Result<Page, Error> {
        let mut contracts = Vec::new();
        loop {
            let page = self.store.range(&Key::new(ORDER), after.as_ref(), PAGE_ENTRIES).await;
            let page = page.map_err(failed("list the contracts"))?;
            let records = page.entries.iter().filter_map(|entry| {
                let contract = wire::read_record(&entry.value);
                if contract.is_none() {
                    tracing::warn!(key = %entry.key, "skipped a record that is no contract");
                }
                contract
            });
            contracts.extend(records.filter(|one| service.is_empty() || one.service == service));
            if contracts.len() > limit {
                contracts.truncate(limit);
                let rest = contracts.last().map(Contract::order);
                return Ok(Page { contracts, rest });
            }
            after = page.entries.last().map(|last| last.key.clone());
            if !page.more {
                return Ok(Page { contracts, rest: None });
            }
        }
    }
}

/// Works on many bytes without holding up other calls. The work ends by itself, even if nobody waits for it any more.
pub(crate) async fn aside<T: Send + 'static>(bytes: Bytes, work: impl FnOnce(Bytes) -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(move || work(bytes)).await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // Work that has begun cannot be cancelled; what has not begun is, when the runtime itself goes away.
        Err(Err(_)) => std::future::pending().await,
    }
}

fn failed(doing: &'static str) -> impl FnOnce(store::Error) -> Error {
    move |source| Error::Store { doing, source }
}
