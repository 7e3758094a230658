//! Tells other nodes what is there: states in the store, under a lease of this node, so that nobody shows the states of
//! a node that is gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ninefold::fault;
use ninefold::lifecycle::Scope;
use ninefold_proto::ninefold::control::v1::Slot;
use ninefold_store::LeaseId;
use tokio::sync::watch;

use crate::book::Book;
use crate::error::Error;
use crate::mirror::spread;

/// What is there of this node's services.
pub(crate) type States = Arc<BTreeMap<String, Vec<Slot>>>;

/// Shortest time between two writes; what changes meanwhile is told together.
const WRITE_EVERY: Duration = Duration::from_millis(250);
/// Wait after a failure.
const RETRY: Duration = Duration::from_secs(1);
/// The lease is kept this many times within its term.
const KEEPS_A_TERM: u32 = 3;
/// How long the end of the lease may take when the node goes.
const VANISH_WITHIN: Duration = Duration::from_secs(1);

/// Keeps the store's view of this node's states right until the scope closes.
pub(crate) fn publish(book: Book, states: watch::Receiver<States>, term: Duration, scope: &Scope) {
    scope.run("control.publish", |stop| async move {
        let mut lease = None;
        let publish = async {
            loop {
                if let Err(error) = publish_while_reachable(&book, states.clone(), term, &mut lease).await {
                    tracing::warn!(error = %fault::chain(&error), "states cannot be told to other nodes");
                }
                tokio::time::sleep(spread(RETRY)).await;
            }
        };
        tokio::select! {
            () = stop.asked() => {}
            () = publish => {}
        }
        if let Some(lease) = lease {
            // Best effort: if the store is out of reach, the lease runs out by itself.
            let _ = tokio::time::timeout(VANISH_WITHIN, book.vanish(lease)).await;
        }
    });
}

async fn publish_while_reachable(
    book: &Book,
    mut states: watch::Receiver<States>,
    term: Duration,
    held: &mut Option<LeaseId>,
) -> Result<(), Error> {
    let lease = book.appear(term).await?;
    *held = Some(lease);
    let mut told = States::default();
    let mut keep = tokio::time::interval(term / KEEPS_A_TERM);
    loop {
        let now = states.borrow_and_update().clone();
        let changed = now.iter().filter(|(service, slots)| told.get(*service) != Some(slots));
        let gone = told.keys().filter(|service| !now.contains_key(*service));
        let changes: Vec<_> =
            changed.map(|(service, slots)| (service, Some(slots))).chain(gone.map(|service| (service, None))).collect();
        if !changes.is_empty() {
            book.tell(lease, changes.into_iter()).await?;
            told = now;
        }
        let changed = async {
            tokio::time::sleep(WRITE_EVERY).await;
            states.changed().await
        };
        let mut changed = std::pin::pin!(changed);
        loop {
            tokio::select! {
                _ = keep.tick() => book.stay(lease).await?,
                changed = &mut changed => match changed {
                    Ok(()) => break,
                    Err(_) => return Ok(()),
                },
            }
        }
    }
}
