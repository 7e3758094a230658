//! What the dialects see goes among the registry's events.

use ninefold_dialect::{Notice, Witness};
use ninefold_registry::{Observation, Observed, Registry};

/// Takes notices for the registry.
#[derive(Debug)]
pub(crate) struct ToRegistry(pub(crate) Registry);

impl Witness for ToRegistry {
    fn note(&self, notice: Notice) {
        self.0.observe(Observation {
            observed: if notice.is_refused { Observed::XdsRefused } else { Observed::XdsWithheld },
            service: notice.service,
            reason: notice.reason,
            observer: notice.observer,
        });
    }
}
