//! How the changes of one revision lie in the log. Fields are added, never renumbered: old files must stay readable.

use bytes::Bytes;

use crate::model::{Entry, Event, Key, LeaseId, Revision};

/// The changes of one revision.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Record {
    #[prost(message, repeated, tag = "1")]
    changes: Vec<Change>,
}

/// One change. The revision is that of the record.
#[derive(Clone, PartialEq, prost::Message)]
struct Change {
    #[prost(string, tag = "1")]
    key: String,
    /// The new value; a delete has none.
    #[prost(bytes = "bytes", optional, tag = "2")]
    value: Option<Bytes>,
    #[prost(int64, tag = "3")]
    created: i64,
    /// 0 is none.
    #[prost(int64, tag = "4")]
    lease: i64,
}

impl Record {
    /// Takes the changes of one revision.
    pub(super) fn of(events: &[Event]) -> Self {
        let change = |event: &Event| match event {
            Event::Put(entry) => Change {
                key: entry.key.as_str().to_owned(),
                value: Some(entry.value.clone()),
                created: entry.created.0,
                lease: entry.lease.map_or(0, |lease| lease.0),
            },
            Event::Delete { key, .. } => Change { key: key.as_str().to_owned(), value: None, created: 0, lease: 0 },
        };
        Self { changes: events.iter().map(change).collect() }
    }

    /// The changes of `revision`.
    pub(super) fn into_events(self, revision: Revision) -> Vec<Event> {
        let event = |change: Change| {
            let key = Key::new(change.key);
            match change.value {
                Some(value) => Event::Put(Entry {
                    key,
                    value,
                    created: Revision(change.created),
                    modified: revision,
                    lease: (change.lease != 0).then_some(LeaseId(change.lease)),
                }),
                None => Event::Delete { key, revision },
            }
        };
        self.changes.into_iter().map(event).collect()
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn changes_come_back_as_they_went() {
        let revision = Revision(7);
        let put = |value: &str, lease| {
            let (value, created) = (Bytes::from(value.to_owned()), Revision(3));
            Event::Put(Entry { key: Key::new("a"), value, created, modified: revision, lease })
        };
        let events = vec![put("v", Some(LeaseId(9))), put("", None), Event::Delete { key: Key::new("b"), revision }];
        let bytes = Record::of(&events).encode_to_vec();
        assert_eq!(Record::decode(bytes.as_slice()).unwrap().into_events(revision), events);
    }
}
