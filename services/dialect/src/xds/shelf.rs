//! What was encoded of a service, kept with it and shared by all streams.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prost_types::Any;

use crate::words::Named;

/// A resource as it is sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Resource {
    /// Its name.
    pub(crate) name: String,
    /// Told apart from every other content of the same name; the same after a restart.
    pub(crate) version: String,
    /// Its bytes and their type.
    pub(crate) any: Any,
}

impl Resource {
    /// Encodes a message.
    pub(crate) fn of<M: Named>(name: &str, message: &M) -> Self {
        let any = super::resources::any(message);
        Self { name: name.to_owned(), version: format!("{:016x}", fingerprint(&any.value)), any }
    }
}

/// FNV-1a, which is the same on every machine and in every version of this program.
pub(crate) fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// Resources of one service, or why it has none.
pub(crate) type Kept = Result<Arc<Resource>, Arc<str>>;

/// Names a resource of a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// The cluster, for gRPC or for Envoy.
    Cluster {
        /// Which of the two.
        is_envoy: bool,
    },
    /// The endpoints, as seen from a region and zone.
    Endpoints {
        /// Of the client.
        region: String,
        /// Of the client.
        zone: String,
    },
    /// A gRPC channel's listener, by the name that it asks for.
    Listener(String),
    /// A gRPC channel's routes, by the name that it asks for.
    Routes(String),
}

/// Most resources that are kept of one service; clients of more zones, or that ask by more names, are encoded for anew.
const KEPT_MAX: usize = 64;

/// Resources of one service, encoded when first asked for.
#[derive(Debug, Default)]
pub(crate) struct Shelf(Mutex<HashMap<Place, Kept>>);

impl Shelf {
    /// Takes a resource, or makes it.
    pub(crate) fn take(&self, place: Place, make: impl FnOnce() -> Kept) -> Kept {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = kept.get(&place) {
            return found.clone();
        }
        let made = make();
        if kept.len() < KEPT_MAX {
            kept.insert(place, made.clone());
        }
        made
    }
}
