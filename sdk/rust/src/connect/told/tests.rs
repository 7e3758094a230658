//! What a watcher makes of what it is told.

use super::*;

fn at(revision: i64, service: &str, id: &str) -> words::Instance {
    let address = words::Address { host: "127.0.0.1".to_owned(), port: 1 };
    words::Instance {
        service: service.to_owned(),
        instance_id: id.to_owned(),
        addresses: vec![address],
        state: words::InstanceState::Serving.into(),
        revision,
        ..words::Instance::default()
    }
}

fn instance(service: &str, id: &str) -> words::Instance {
    at(1, service, id)
}

/// A message of a registry that says nothing but its news.
fn plain(news: News) -> Message {
    Message { news, revision: 1, digest: None, is_sure: None, all_policies: false }
}

fn snapshot(instances: &[words::Instance]) -> Message {
    plain(News::Snapshot(words::Snapshot { instances: instances.to_vec(), ..words::Snapshot::default() }))
}

fn sure(message: Message, is_sure: bool) -> Message {
    Message { is_sure: Some(is_sure), ..message }
}

fn delta(upserts: &[words::Instance], removes: &[(&str, &str)]) -> Message {
    let removes = removes.iter().map(|(service, id)| words::InstanceKey {
        service: (*service).to_owned(),
        instance_id: (*id).to_owned(),
        ..words::InstanceKey::default()
    });
    plain(News::Delta(words::Delta { upserts: upserts.to_vec(), removes: removes.collect(), policies: Vec::new() }))
}

fn told(told: &mut Told, message: Message) {
    told.take(message, Instant::now()).unwrap();
}

fn ids(told: &mut Told, service: &str) -> Vec<String> {
    told.view().instances(service).iter().map(|instance| instance.id.to_string()).collect()
}

#[test]
fn a_delta_adds_and_removes() {
    let mut known = Told::default();
    told(&mut known, snapshot(&[instance("pump", "a")]));
    told(&mut known, delta(&[instance("pump", "b")], &[("pump", "a"), ("valve", "x")]));
    assert_eq!(ids(&mut known, "pump"), ["b"]);
    told(&mut known, delta(&[], &[("pump", "b")]));
    assert!(known.view().services.is_empty());
}

#[test]
fn a_snapshot_of_a_registry_that_is_sure_replaces_everything_at_once() {
    let mut known = Told::default();
    told(&mut known, snapshot(&[instance("pump", "a"), instance("pump", "b"), instance("valve", "c")]));
    told(&mut known, sure(snapshot(&[instance("pump", "b")]), true));
    assert_eq!(ids(&mut known, "pump"), ["b"]);
    assert!(ids(&mut known, "valve").is_empty());
}

#[test]
fn what_vanished_from_a_registry_that_is_not_sure_is_believed_in_until_it_is() {
    let mut known = Told::default();
    told(&mut known, sure(snapshot(&[instance("pump", "a"), instance("valve", "c")]), true));
    told(&mut known, sure(snapshot(&[]), false));
    told(&mut known, sure(delta(&[instance("pump", "b")], &[]), false));
    known.expire(Instant::now() + 1000 * GRACE);
    assert_eq!(ids(&mut known, "pump"), ["a", "b"]);
    assert_eq!(ids(&mut known, "valve"), ["c"]);
    told(&mut known, sure(plain(News::None), true));
    assert_eq!(ids(&mut known, "pump"), ["b"]);
    assert!(ids(&mut known, "valve").is_empty());
}

#[test]
fn what_vanished_from_a_registry_that_does_not_say_is_believed_in_for_a_while() {
    let mut known = Told::default();
    let now = Instant::now();
    told(&mut known, snapshot(&[instance("pump", "a")]));
    known.take(snapshot(&[]), now).unwrap();
    // A second empty snapshot does not make the wait longer.
    known.take(snapshot(&[]), now + GRACE / 2).unwrap();
    known.expire(now + GRACE / 2);
    assert_eq!(ids(&mut known, "pump"), ["a"]);
    assert_eq!(known.expiry(), Some(now + GRACE));
    known.expire(now + GRACE);
    assert!(known.view().services.is_empty());
    assert!(known.view().is_known);
}

#[test]
fn a_word_about_an_instance_ends_the_belief_in_it() {
    let mut known = Told::default();
    told(&mut known, snapshot(&[instance("pump", "a"), instance("pump", "b")]));
    told(&mut known, snapshot(&[]));
    told(&mut known, delta(&[instance("pump", "a")], &[("pump", "b")]));
    assert_eq!(ids(&mut known, "pump"), ["a"]);
    assert_eq!(known.expiry(), None);
}

#[test]
fn a_lost_message_is_noticed_with_the_next() {
    let mut known = Told::default();
    let all = [at(1, "pump", "a"), at(2, "pump", "b")];
    let digest = |instances: &[words::Instance]| {
        instances.iter().fold(0, |sum, one| sum ^ digest("", &one.service, &one.instance_id, one.revision))
    };
    told(&mut known, Message { digest: Some(digest(&all)), ..snapshot(&all) });
    let now = [at(3, "pump", "a"), at(2, "pump", "b")];
    // The change of "a" was lost on the way.
    let beat = Message { digest: Some(digest(&now)), ..plain(News::None) };
    assert!(known.take(beat, Instant::now()).is_err());
    told(&mut known, Message { digest: Some(digest(&now)), ..snapshot(&now) });
}

#[test]
fn a_policy_stays_the_same_until_it_changes_and_is_taken_back_by_name() {
    let policy = |service: &str, percent| words::Policy {
        service: service.to_owned(),
        breaker: Some(words::Breaker { failure_percent: Some(percent), ..words::Breaker::default() }),
        ..words::Policy::default()
    };
    let mut known = Told::default();
    let all = vec![policy("pump", 30), policy("valve", 40)];
    told(&mut known, plain(News::Snapshot(words::Snapshot { policies: all.clone(), ..words::Snapshot::default() })));
    let before = known.view().policy("pump").unwrap();
    told(&mut known, plain(News::Snapshot(words::Snapshot { policies: all, ..words::Snapshot::default() })));
    told(&mut known, plain(News::Snapshot(words::Snapshot::default())));
    assert!(Arc::ptr_eq(&before, &known.view().policy("pump").unwrap()));
    let none = words::Policy { service: "valve".to_owned(), ..words::Policy::default() };
    let policies = vec![policy("pump", 50), none];
    told(&mut known, plain(News::Delta(words::Delta { policies, ..words::Delta::default() })));
    assert!(!Arc::ptr_eq(&before, &known.view().policy("pump").unwrap()));
    assert_eq!(known.view().policy("valve"), None);
    let resumed = plain(News::Delta(words::Delta::default()));
    told(&mut known, Message { all_policies: true, ..resumed });
    assert_eq!(known.view().policies.len(), 0);
}

#[test]
fn what_a_former_life_knew_serves_until_the_registry_speaks() {
    let mut known = Told::default();
    let instances = vec![instance("pump", "a"), instance("pump", "b")];
    known.remember(words::Snapshot { instances, ..words::Snapshot::default() });
    assert_eq!(ids(&mut known, "pump"), ["a", "b"]);
    assert!(!known.view().is_known);
    assert_eq!(known.revision(), 0);
    told(&mut known, sure(snapshot(&[instance("pump", "b")]), true));
    assert_eq!(ids(&mut known, "pump"), ["b"]);
}
