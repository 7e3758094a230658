//! A policy in code, and what central configuration makes of it while the process runs.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use ninefold_proto::ninefold::registry::v1 as words;

use crate::connect::policy::Policy;

/// The policy that holds now. Read without a lock on every call.
#[derive(Debug)]
pub(crate) struct Live {
    base: Policy,
    now: ArcSwap<Policy>,
}

impl Live {
    /// What the code says, overlaid by what central configuration says, if it says anything.
    pub(crate) fn new(base: Policy, central: Option<&words::Policy>) -> Self {
        let now = ArcSwap::from_pointee(central.map_or_else(|| base.clone(), |central| base.overlaid(central)));
        Self { base, now }
    }

    /// What the code says.
    pub(crate) fn base(&self) -> &Policy {
        &self.base
    }

    /// What holds now. The same `Arc` as long as nothing changes.
    pub(crate) fn now(&self) -> Guard<Arc<Policy>> {
        self.now.load()
    }

    /// Takes what central configuration says from now on. Tells whether that changes anything.
    pub(crate) fn take(&self, central: Option<&words::Policy>) -> bool {
        let policy = central.map_or_else(|| self.base.clone(), |central| self.base.overlaid(central));
        let is_new = **self.now.load() != policy;
        if is_new {
            self.now.store(Arc::new(policy));
        }
        is_new
    }
}
