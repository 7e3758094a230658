//! API keys of the platform, as this edge follows them. It knows their digests, and never a key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use ninefold::Link;
use ninefold::fault;
use ninefold::lifecycle::Stop;
use ninefold::tonic::Streaming;
use ninefold_proto::ninefold::access::v1::key_service_client::KeyServiceClient;
use ninefold_proto::ninefold::access::v1::{Key, KeyRecord, WatchKeysRequest, WatchKeysResponse};
use ring::digest;
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::time::timeout;

use super::caller::{Caller, Proof, Quota};
use super::issuers::Refused;

/// How every key begins.
pub(crate) const PREFIX: &str = "nfk_";
/// Pause before a watch that broke is opened again.
const PAUSE: Duration = Duration::from_millis(500);
/// Longest wait of a request for the first word on keys.
const KEYS_WAIT: Duration = Duration::from_secs(3);
/// Most keys of one message that tells all, and of all such messages.
const KEYS_MAX: usize = 1_000_000;

/// All keys. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Keys(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    known: ArcSwap<HashMap<String, Arc<Entry>>>,
    /// Whether all keys have been told at least once.
    is_told: watch::Sender<bool>,
    /// Of one who changes them.
    next: Mutex<HashMap<String, Arc<Entry>>>,
}

#[derive(Debug)]
struct Entry {
    sha256: Vec<u8>,
    caller: Arc<Caller>,
}

impl Entry {
    fn read(record: KeyRecord) -> Option<(String, Arc<Self>)> {
        let KeyRecord { key: Some(key), sha256 } = record else { return None };
        let Key { id, subject, scopes, claims, quota, expire_time, .. } = key;
        let expires = match expire_time {
            Some(time) => Some(SystemTime::try_from(time).ok()?),
            None => None,
        };
        let subject = if subject.is_empty() { id.clone() } else { subject };
        let mut said: Map<_, _> = claims.into_iter().map(|(name, text)| (name, Value::String(text))).collect();
        said.insert("sub".to_owned(), subject.clone().into());
        let quota = quota.map(|quota| Quota { day_max: quota.day_max, month_max: quota.month_max });
        let caller = Caller {
            proof: Proof::Key,
            subject,
            scopes: scopes.into_iter().collect(),
            claims: Arc::new(said),
            expires,
            key: Some(id.clone()),
            quota,
            ..Caller::default()
        };
        Some((id, Arc::new(Self { sha256, caller: Arc::new(caller) })))
    }
}

impl Keys {
    /// No keys are told yet.
    pub(crate) fn new() -> Self {
        let inner = Inner { known: ArcSwap::default(), is_told: watch::Sender::new(false), next: Mutex::default() };
        Self(Arc::new(inner))
    }

    /// Who the bearer of a key is. Waits for the first word on keys, for three seconds at most.
    ///
    /// # Errors
    /// Why it is not believed.
    pub(crate) async fn verify(&self, text: &str) -> Result<Arc<Caller>, Refused> {
        let refused = Refused::Token("the key is not known, or was revoked");
        if !*self.0.is_told.borrow() {
            let mut told = self.0.is_told.subscribe();
            let told = timeout(KEYS_WAIT, told.wait_for(|told| *told)).await;
            if !matches!(told, Ok(Ok(_))) {
                return Err(Refused::Away("the platform".to_owned()));
            }
        }
        let id = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_')).map(|(id, _)| id);
        let known = self.0.known.load();
        let entry = id.and_then(|id| known.get(id)).ok_or(refused.clone())?;
        // The digest of a long random secret tells nothing, so how long it takes to compare two tells nothing either.
        if digest::digest(&digest::SHA256, text.as_bytes()).as_ref() != entry.sha256 {
            return Err(refused);
        }
        match entry.caller.expires {
            Some(end) if SystemTime::now() >= end => Err(Refused::Token("the key has expired")),
            Some(_) | None => Ok(entry.caller.clone()),
        }
    }

    /// Follows the platform's keys until it is asked to stop. Keys that were told hold while the platform is away.
    pub(crate) async fn follow(self, access: Link, stop: Stop) {
        let mut client = KeyServiceClient::new(access);
        loop {
            let watched = async {
                let told = client.watch_keys(WatchKeysRequest {}).await?.into_inner();
                self.take_in(told).await
            };
            tokio::select! {
                () = stop.asked() => return,
                ended = watched => if let Err(status) = ended {
                    let error = status.message();
                    tracing::debug!(error, reason = fault::reason(&status), "the keys cannot be followed");
                },
            }
            tokio::select! {
                () = stop.asked() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    async fn take_in(&self, mut told: Streaming<WatchKeysResponse>) -> Result<(), ninefold::tonic::Status> {
        let mut is_complete = false;
        self.0.next.lock().unwrap_or_else(PoisonError::into_inner).clear();
        while let Some(change) = told.message().await? {
            let mut next = self.0.next.lock().unwrap_or_else(PoisonError::into_inner);
            next.extend(change.keys.into_iter().filter_map(Entry::read).take(KEYS_MAX));
            for id in change.revoked {
                next.remove(&id);
            }
            is_complete |= change.complete;
            // Until all are told, what was known before holds.
            if is_complete {
                self.0.known.store(Arc::new(next.clone()));
                drop(next);
                self.0.is_told.send_replace(true);
            }
        }
        Ok(())
    }
}
