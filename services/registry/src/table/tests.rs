//! What readers of the table may rely on.

use std::time::SystemTime;

use super::*;
use crate::model::Protocol;

fn key(service: &str, id: &str) -> InstanceKey {
    InstanceKey::parse("", service, id).unwrap()
}

fn at(revision: i64, service: &str, id: &str, state: State) -> Instance {
    Instance {
        key: key(service, id),
        addresses: Vec::new(),
        version: String::new(),
        zone: String::new(),
        labels: BTreeMap::new(),
        protobuf_services: Vec::new(),
        contract_digest: String::new(),
        weight: 100,
        protocol: Protocol::Grpc,
        is_tls: false,
        state,
        state_reason: String::new(),
        started: None,
        changed: SystemTime::UNIX_EPOCH,
        revision: Revision(revision),
        node: String::new(),
        region: String::new(),
        check: None,
        reported: String::new(),
        decided: None,
        written: Revision(revision),
    }
}

fn written(revision: i64, id: &str, state: State) -> News {
    News::Written(Arc::new(at(revision, "pump", id, state)))
}

fn ids(table: &Table) -> Vec<String> {
    table.snapshot(&Interest::All).iter().map(|one| one.key.id.to_string()).collect()
}

#[test]
fn news_that_is_older_than_what_is_known_changes_nothing() {
    let mut table = Table::default();
    table.apply(Revision(5), [written(5, "a", State::Serving)]);
    let moment = table.moment();
    assert!(table.apply(Revision(4), [written(4, "a", State::Draining)]).is_empty());
    assert!(table.apply(Revision(4), [News::Erased(key("pump", "a"), Revision(4))]).is_empty());
    assert_eq!((table.moment(), table.revision(), ids(&table)), (moment, Revision(5), vec!["a".to_owned()]));
}

#[test]
fn who_left_is_told_once_with_the_word_it_left() {
    let mut table = Table::default();
    table.apply(Revision(1), [written(1, "a", State::Serving)]);
    let steps = table.apply(Revision(2), [written(2, "a", State::Gone)]);
    assert!(matches!(&steps[..], [Step { now: Now::Left(_), before: Some(_), .. }]), "{steps:?}");
    assert!(table.apply(Revision(3), [News::Erased(key("pump", "a"), Revision(3))]).is_empty());
    assert!(table.apply(Revision(4), [written(4, "b", State::Gone)]).is_empty(), "who was never seen cannot leave");
}

#[test]
fn a_reader_is_told_what_changed_since_it_looked_each_instance_once() {
    let mut table = Table::default();
    table.apply(Revision(1), [written(1, "a", State::Serving), written(1, "b", State::Serving)]);
    let then = table.moment();
    table.apply(Revision(2), [written(2, "a", State::Draining)]);
    table.apply(Revision(3), [written(3, "a", State::Serving), News::Erased(key("pump", "b"), Revision(3))]);
    table.apply(Revision(3), [News::GivenUp(key("pump", "b"))]);
    table.apply(Revision(4), [News::Written(Arc::new(at(4, "valve", "c", State::Serving)))]);
    let changes = table.since(then, &Interest::All).unwrap();
    assert_eq!(changes.upserts.iter().map(|one| one.revision.0).collect::<Vec<_>>(), [3, 4]);
    assert_eq!(changes.removes, [key("pump", "b")]);
    let valve = Interest::Named([key("valve", "c").service].into());
    assert_eq!(table.since(then, &valve).unwrap().upserts.len(), 1);
    let nothing = table.since(table.moment(), &Interest::All).unwrap();
    assert!(nothing.upserts.is_empty() && nothing.removes.is_empty());
}

#[test]
fn a_reader_that_looked_too_long_ago_begins_anew() {
    let mut table = Table::default();
    table.apply(Revision(1), [written(1, "a", State::Serving)]);
    let then = table.moment();
    for revision in 2..(2 + i64::try_from(CHANGES_MAX).unwrap()) {
        table.apply(Revision(revision), [written(revision, "a", State::Serving)]);
    }
    assert!(table.since(then, &Interest::All).is_some());
    let last = table.revision().0 + 1;
    table.apply(Revision(last), [written(last, "a", State::Serving)]);
    assert!(table.since(then, &Interest::All).is_none());
    assert_eq!(table.changes.len(), CHANGES_MAX);
}

#[test]
fn a_whole_reading_tells_only_the_difference() {
    let mut table = Table::default();
    table.apply(Revision(3), [written(1, "a", State::Serving), written(3, "b", State::Serving)]);
    let then = table.moment();
    let read = vec![written(1, "a", State::Serving), written(7, "c", State::Starting)];
    let steps = table.replace(Revision(9), read);
    assert_eq!(steps.iter().map(|step| step.key.id.to_string()).collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(table.get(&key("pump", "b")).unwrap().state, State::Suspect, "nobody said that it left");
    table.apply(Revision(9), [News::GivenUp(key("pump", "b"))]);
    let changes = table.since(then, &Interest::All).unwrap();
    assert_eq!((changes.upserts.len(), changes.removes.len()), (1, 1));
}

#[test]
fn a_store_that_was_restored_from_an_older_copy_is_believed() {
    let mut table = Table::default();
    table.apply(Revision(100), [written(90, "a", State::Draining), written(100, "b", State::Serving)]);
    let then = table.moment();
    table.replace(Revision(50), vec![written(40, "a", State::Serving)]);
    table.apply(Revision(50), [News::GivenUp(key("pump", "b"))]);
    assert_eq!((table.revision(), ids(&table)), (Revision(50), vec!["a".to_owned()]));
    assert_eq!(table.get(&key("pump", "a")).unwrap().state, State::Serving);
    let changes = table.since(then, &Interest::All).unwrap();
    assert_eq!((changes.upserts.len(), changes.removes), (1, vec![key("pump", "b")]));
    assert_eq!(table.apply(Revision(51), [written(51, "a", State::Draining)]).len(), 1);
}
