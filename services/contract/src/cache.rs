//! Contracts that were asked for lately. Pure. They never change, so nothing here is ever stale.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::model::{Contract, Digest};

/// A contract with its bytes.
#[derive(Debug)]
pub(crate) struct Kept {
    /// What it is.
    pub(crate) contract: Contract,
    /// Its raw bytes.
    pub(crate) bytes: Bytes,
}

/// A memory of contracts, bounded by their bytes.
#[derive(Debug)]
pub(crate) struct Cache {
    kept: HashMap<Digest, Arc<Kept>>,
    /// Which were used when, the latest last.
    order: VecDeque<Digest>,
    bytes: usize,
    bytes_max: usize,
}

impl Cache {
    /// Remembers nothing yet, and never more than `bytes_max` bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { kept: HashMap::new(), order: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// One contract, if it is remembered.
    pub(crate) fn get(&mut self, digest: &Digest) -> Option<Arc<Kept>> {
        let kept = self.kept.get(digest)?.clone();
        self.order.retain(|known| known != digest);
        self.order.push_back(digest.clone());
        Some(kept)
    }

    /// Remembers a contract, and forgets those that were not asked for the longest.
    pub(crate) fn put(&mut self, kept: Arc<Kept>) {
        let size = kept.bytes.len();
        let digest = kept.contract.digest.clone();
        if size > self.bytes_max || self.kept.contains_key(&digest) {
            return;
        }
        while self.bytes + size > self.bytes_max {
            let Some(oldest) = self.order.pop_front() else { break };
            self.bytes -= self.kept.remove(&oldest).map_or(0, |gone| gone.bytes.len());
        }
        self.bytes += size;
        self.order.push_back(digest.clone());
        self.kept.insert(digest, kept);
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::model::Promise;

    fn kept(fill: u8, size: usize) -> Arc<Kept> {
        let bytes = Bytes::from(vec![fill; size]);
        let (digest, created, promise) = (Digest::of(&bytes), SystemTime::UNIX_EPOCH, Promise::default());
        Arc::new(Kept { contract: Contract { digest, service: String::new(), created, size, promise }, bytes })
    }

    #[test]
    fn what_was_not_asked_for_the_longest_is_forgotten_first() {
        let mut cache = Cache::new(100);
        let all = [kept(1, 40), kept(2, 40), kept(3, 40), kept(4, 101)];
        cache.put(all[0].clone());
        cache.put(all[1].clone());
        assert!(cache.get(&all[0].contract.digest).is_some());
        cache.put(all[2].clone());
        cache.put(all[3].clone());
        let known: Vec<bool> = all.iter().map(|one| cache.get(&one.contract.digest).is_some()).collect();
        assert_eq!(known, [true, false, true, false]);
        assert_eq!(cache.bytes, 80);
    }
}
