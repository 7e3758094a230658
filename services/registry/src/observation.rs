//! What other parts of a node tell of the landscape, to be remembered among the events.

use std::time::SystemTime;

use crate::model::{Event, EventKind, NAMESPACE_DEFAULT};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// A client of xDS refused what it was told.
    XdsRefused,
    /// Something was not told by xDS, as its clients would refuse it.
    XdsWithheld,
    /// The edge has new settings.
    EdgeChanged,
    /// The edge was given settings with mistakes.
    EdgeRefused,
}

/// Something that a part of the node saw happen to a service, now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// What.
    pub observed: Observed,
    /// To this service; empty where it is not known.
    pub service: String,
    /// Why, as a sentence fragment of at most some hundred characters.
    pub reason: String,
    /// Who saw it.
    pub observer: String,
}

impl From<Observation> for Event {
    fn from(seen: Observation) -> Self {
        let kind = match seen.observed {
            Observed::XdsRefused => EventKind::XdsRefused,
            Observed::XdsWithheld => EventKind::XdsWithheld,
            Observed::EdgeChanged => EventKind::EdgeChanged,
            Observed::EdgeRefused => EventKind::EdgeRefused,
        };
        Self {
            time: SystemTime::now(),
            namespace: NAMESPACE_DEFAULT.to_owned(),
            service: seen.service,
            instance: String::new(),
            kind,
            reason: seen.reason,
            observer: seen.observer,
        }
    }
}
