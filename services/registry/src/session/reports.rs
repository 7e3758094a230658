//! What an instance reports of others: keys in the store under its node's lease, so that every node counts the same, and
//! that go when it takes them back, when they are old, and when it goes itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ninefold::fault;
use ninefold_store::{self as store, Op, Txn};
use tokio::time::Instant;

use super::hub::Hub;
use crate::lease::Slot;
use crate::model::{EventKind, InstanceKey, Report};

/// Most others that one instance reports at a time.
const STANDING_MAX: usize = 64;
/// How long the store may take.
const STEP_WITHIN: Duration = Duration::from_secs(1);

/// What an instance reports of others.
#[derive(Debug)]
pub(super) struct Reports {
    hub: Arc<Hub>,
    by: InstanceKey,
    /// Until when each report stands.
    standing: BTreeMap<InstanceKey, Instant>,
    slot: Option<Slot>,
}

impl Reports {
    /// Nothing is reported yet.
    pub(super) fn new(hub: Arc<Hub>, by: InstanceKey) -> Self {
        Self { hub, by, standing: BTreeMap::new(), slot: None }
    }

    /// Takes in what the instance saw: breakers that opened stand, those that closed do not any more. What concerns nobody
    /// that is there, another namespace, or itself, does not count.
    pub(super) async fn take(&mut self, reports: &[Report]) {
        let mut changes = BTreeMap::new();
        for report in reports {
            let namespace = self.by.service.namespace.as_str();
            if !report.namespace.is_empty() && report.namespace != namespace {
                continue;
            }
            let Some(of) = InstanceKey::parse(namespace, &report.service, &report.instance) else { continue };
            match report.kind {
                EventKind::BreakerOpened if of != self.by && self.hub.view.table().get(&of).is_some() => {
                    _ = changes.insert(of, Some(report.reason.clone()));
                }
                EventKind::BreakerClosed if self.standing.contains_key(&of) => _ = changes.insert(of, None),
                _ => {}
            }
        }
        self.change(changes).await;
    }

    /// When the oldest report ends.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.standing.values().min().copied()
    }

    /// Takes back what is old.
    pub(super) async fn expire(&mut self) {
        let now = Instant::now();
        let old = self.standing.iter().filter(|(_, end)| **end <= now).map(|(of, _)| (of.clone(), None)).collect();
        self.change(old).await;
    }

    /// Takes everything back.
    pub(super) async fn withdraw(&mut self) {
        let all = self.standing.keys().map(|of| (of.clone(), None)).collect();
        self.change(all).await;
    }

    async fn change(&mut self, changes: BTreeMap<InstanceKey, Option<String>>) {
        if changes.is_empty() {
            return;
        }
        let end = Instant::now() + self.hub.config.report_time;
        let mut ops = Vec::new();
        for (of, report) in changes {
            let key = of.report_path(&self.by);
            match report {
                Some(reason) if self.standing.len() < STANDING_MAX || self.standing.contains_key(&of) => {
                    self.standing.insert(of, end);
                    let Some(lease) = self.lease().await else { continue };
                    let value = Bytes::from(format!("breaker opened: {reason}"));
                    ops.push(Op::Put { key, value, lease: Some(lease) });
                }
                Some(_) => {}
                None => {
                    self.standing.remove(&of);
                    ops.push(Op::Delete(key));
                }
            }
        }
        let written = tokio::time::timeout(STEP_WITHIN, self.hub.store.txn(Txn { compares: Vec::new(), ops })).await;
        // Reports are hints: one that is lost is made again by the next breaker, and none outlives its lease.
        match written {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                self.slot = None;
                tracing::debug!(error = %fault::chain(&error), "could not write a report");
            }
            Err(_) => tracing::debug!("could not write a report in time"),
        }
    }

    async fn lease(&mut self) -> Option<store::LeaseId> {
        if let Some(slot) = &self.slot {
            return Some(slot.lease());
        }
        let slot = tokio::time::timeout(STEP_WITHIN, self.hub.leases.slot()).await.ok()?.ok()?;
        Some(self.slot.insert(slot).lease())
    }
}
