//! Who follows what by xDS, and what was refused lately.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ninefold::telemetry::Count;
use ninefold_proto::ninefold::dialect::v1 as words;

use super::Type;
use super::refusal::{self, Refusal};
use crate::{Notice, Witness};

/// Most refusals that are remembered.
const REFUSALS_MAX: usize = 64;
/// Who refuses what no client has seen.
const VALIDATOR: &str = "validator";

/// Who follows what.
pub(crate) struct Ledger {
    open: Mutex<Open>,
    streams_max: usize,
    witness: Arc<dyn Witness>,
    refused: Count,
    withheld: Count,
    responses: Count,
}

#[derive(Default)]
struct Open {
    next: u64,
    streams: BTreeMap<u64, words::XdsStream>,
    refusals: VecDeque<Refusal>,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Ledger").field("streams", &self.lock().streams.len()).finish_non_exhaustive()
    }
}

/// A stream's place in the ledger; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    ledger: Arc<Ledger>,
    id: u64,
}

impl Ledger {
    /// An empty ledger of at most `streams_max` streams.
    pub(crate) fn new(streams_max: usize, witness: Arc<dyn Witness>) -> Self {
        Self {
            open: Mutex::default(),
            streams_max,
            witness,
            refused: Count::new("ninefold_dialect_xds_refusals_total", "Responses that xDS clients refused"),
            withheld: Count::new("ninefold_dialect_xds_withheld_total", "Resources that clients would have refused"),
            responses: Count::new("ninefold_dialect_xds_responses_total", "Responses sent to xDS clients"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a stream, if there is a place.
    pub(crate) fn enter(self: &Arc<Self>, stream: words::XdsStream) -> Option<Place> {
        let mut open = self.lock();
        if open.streams.len() >= self.streams_max {
            return None;
        }
        open.next += 1;
        let id = open.next;
        open.streams.insert(id, words::XdsStream { stream_id: id, ..stream });
        Some(Place { ledger: self.clone(), id })
    }

    /// Most streams.
    pub(crate) fn streams_max(&self) -> usize {
        self.streams_max
    }

    /// Counts a response.
    pub(crate) fn responded(&self, of: Type) {
        self.responses.add(&[("type", of.word())]);
    }

    /// Notes what a client refused.
    pub(crate) fn refused(&self, refusal: Refusal) {
        self.refused.add(&[("type", refusal.of)]);
        tracing::warn!(
            client = refusal.by,
            of = refusal.of,
            name = refusal.name,
            field = refusal.field,
            reason = refusal.reason,
            "an xDS client refused a response"
        );
        self.witness.note(Notice {
            is_refused: true,
            service: refusal.name.clone(),
            reason: sentence(&refusal),
            observer: refusal.by.clone(),
        });
        self.remember(refusal);
    }

    /// Notes what is withheld from clients.
    pub(crate) fn withheld(&self, of: Type, name: &str, field: &str, reason: &str) {
        self.withheld.add(&[("type", of.word())]);
        tracing::warn!(of = of.word(), name, field, reason, "a resource is withheld from xDS clients");
        let refusal = Refusal {
            time: std::time::SystemTime::now(),
            by: VALIDATOR.to_owned(),
            of: of.word(),
            name: name.to_owned(),
            field: field.to_owned(),
            reason: refusal::cut(reason),
            version: String::new(),
        };
        self.witness.note(Notice {
            is_refused: false,
            service: name.to_owned(),
            reason: sentence(&refusal),
            observer: VALIDATOR.to_owned(),
        });
        self.remember(refusal);
    }

    fn remember(&self, refusal: Refusal) {
        let mut open = self.lock();
        open.refusals.push_front(refusal);
        open.refusals.truncate(REFUSALS_MAX);
    }

    /// Streams after a number, eldest first.
    pub(crate) fn streams(&self, after: u64, limit: usize) -> Vec<words::XdsStream> {
        self.lock().streams.range(after + 1..).take(limit).map(|(_, stream)| stream.clone()).collect()
    }

    /// What was refused lately, newest first.
    pub(crate) fn refusals(&self) -> Vec<words::XdsRefusal> {
        self.lock().refusals.iter().map(to_words).collect()
    }
}

impl Place {
    /// Writes what a stream follows now.
    pub(crate) fn write(&self, subscriptions: Vec<words::XdsSubscription>) {
        if let Some(stream) = self.ledger.lock().streams.get_mut(&self.id) {
            stream.subscriptions = subscriptions;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.ledger.lock().streams.remove(&self.id);
    }
}

fn sentence(refusal: &Refusal) -> String {
    let field = if refusal.field.is_empty() { String::new() } else { format!(" at {}", refusal.field) };
    format!("{}{field}: {}", refusal.of, refusal.reason)
}

/// Tells a refusal.
pub(crate) fn to_words(refusal: &Refusal) -> words::XdsRefusal {
    words::XdsRefusal {
        time: Some(refusal.time.into()),
        refused_by: refusal.by.clone(),
        r#type: refusal.of.to_owned(),
        name: refusal.name.clone(),
        field: refusal.field.clone(),
        reason: refusal.reason.clone(),
        version: refusal.version.clone(),
    }
}
