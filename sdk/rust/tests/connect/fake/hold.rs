//! Watches that acknowledge: with a digest of what the watcher should know, and deltas that may be lost on the way.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, future};
use ninefold::connect::digest;
use ninefold::proto::ninefold::registry::v1 as words;
use ninefold::tonic::{Status, Streaming};
use tokio::sync::watch;
use words::hold_watch_request::Message as Said;
use words::hold_watch_response::Message as Told;

use super::{Known, delta};

/// What a registry says of watches that acknowledge, and what it heard of them.
#[derive(Clone, Default)]
pub(crate) struct Holding {
    opened: Arc<Mutex<Vec<words::OpenWatch>>>,
    acknowledged: Arc<Mutex<Vec<i64>>>,
    revision: Arc<AtomicI64>,
    loses_next: Arc<AtomicBool>,
    is_unsure: Arc<AtomicBool>,
}

impl Holding {
    /// How the watches were opened, one after the other.
    pub(crate) fn opened(&self) -> Vec<words::OpenWatch> {
        self.opened.lock().unwrap().clone()
    }

    /// The revisions that were acknowledged, one after the other.
    pub(crate) fn acknowledged(&self) -> Vec<i64> {
        self.acknowledged.lock().unwrap().clone()
    }

    /// The revision of the last message that was made.
    pub(crate) fn revision(&self) -> i64 {
        self.revision.load(Ordering::SeqCst)
    }

    /// Makes the next delta, and does not send it.
    pub(crate) fn lose_next(&self) {
        self.loses_next.store(true, Ordering::SeqCst);
    }

    /// Says from the next message on whether what is not named is surely not there.
    pub(crate) fn be_sure(&self, is_sure: bool) {
        self.is_unsure.store(!is_sure, Ordering::SeqCst);
    }

    pub(super) async fn open(
        &self,
        mut said: Streaming<words::HoldWatchRequest>,
        mut known: watch::Receiver<Known>,
    ) -> Result<BoxStream<'static, Result<words::HoldWatchResponse, Status>>, Status> {
        let Some(Said::Open(open)) = said.message().await?.and_then(|first| first.message) else {
            return Err(Status::invalid_argument("a watch begins with what it follows"));
        };
        let services = open.services.clone();
        self.opened.lock().unwrap().push(open);
        let holding = self.clone();
        let heard = said.filter_map(move |said| {
            if let Ok(Some(Said::Acknowledge(words::AcknowledgeRevision { revision }))) = said.map(|said| said.message)
            {
                holding.acknowledged.lock().unwrap().push(revision);
            }
            future::ready(None)
        });
        known.mark_changed();
        let holding = self.clone();
        let told = stream::unfold((known, None), move |(mut known, mut last): (_, Option<Known>)| {
            let (services, holding) = (services.clone(), holding.clone());
            async move {
                loop {
                    known.changed().await.ok()?;
                    let mut now = known.borrow_and_update().clone();
                    now.retain(|(service, _), _| services.is_empty() || services.contains(service));
                    let message = holding.message(last.as_ref(), &now);
                    let is_lost = last.is_some() && holding.loses_next.swap(false, Ordering::SeqCst);
                    last = Some(now);
                    if !is_lost {
                        return Some((Ok(message), (known, last)));
                    }
                }
            }
        });
        Ok(stream::select(heard, told).boxed())
    }

    fn message(&self, last: Option<&Known>, now: &Known) -> words::HoldWatchResponse {
        let told = match last {
            None => {
                Told::Snapshot(words::Snapshot { instances: now.values().cloned().collect(), policies: Vec::new() })
            }
            Some(last) => Told::Delta(delta(last, now)),
        };
        let of = |instance: &words::Instance| {
            digest(&instance.namespace, &instance.service, &instance.instance_id, instance.revision)
        };
        words::HoldWatchResponse {
            message: Some(told),
            revision: self.revision.fetch_add(1, Ordering::SeqCst) + 1,
            digest: Some(now.values().fold(0, |sum, instance| sum ^ of(instance))),
            authoritative: !self.is_unsure.load(Ordering::SeqCst),
            ..words::HoldWatchResponse::default()
        }
    }
}
