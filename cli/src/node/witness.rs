//! What the dialects and the edge see goes among the registry's events.

use ninefold_dialect::{Notice, Witness};
use ninefold_gateway::Noticed;
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

impl ninefold_gateway::Witness for ToRegistry {
    fn note(&self, notice: ninefold_gateway::Notice) {
        self.0.observe(Observation {
            observed: match notice.noticed {
                Noticed::SettingsChanged => Observed::EdgeChanged,
                Noticed::SettingsRefused => Observed::EdgeRefused,
            },
            service: "edge".to_owned(),
            reason: notice.reason,
            observer: notice.observer,
        });
    }
}
