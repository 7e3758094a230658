//! What a client is told, in both forms.

use super::*;
use crate::words::envoy::config::cluster::v3::Cluster;

fn resource(name: &str, version: &str) -> Found {
    let made = Resource::of(name, &Cluster { name: name.to_owned(), ..Cluster::default() });
    Found::Here(Arc::new(Resource { version: version.to_owned(), ..made }))
}

/// A world of names and versions; "-" is missing for certain, "?" unknown, "!" withheld.
fn world<'w>(all: &'w [(&'w str, &'w str)]) -> impl Fn(&str) -> Found + 'w {
    move |name| match all.iter().find(|(known, _)| *known == name) {
        None | Some((_, "-")) => Found::Missing,
        Some((_, "?")) => Found::Unknown,
        Some((_, "!")) => Found::Withheld("bad".into()),
        Some((_, version)) => resource(name, version),
    }
}

fn due(one: &Subscription, all: &[(&str, &str)]) -> Option<(Vec<String>, Vec<String>)> {
    let names = all.iter().filter(|(_, version)| *version != "-").map(|(name, _)| (*name).to_owned());
    one.due(names, true, world(all)).map(|batch| told(&batch))
}

fn told(batch: &Batch) -> (Vec<String>, Vec<String>) {
    let mut resources: Vec<_> = batch.resources.iter().map(|one| format!("{}{}", one.name, one.version)).collect();
    resources.sort();
    (resources, batch.removed.clone())
}

fn send(one: &mut Subscription, all: &[(&str, &str)], nonce: u64) -> (Vec<String>, Vec<String>) {
    let names = all.iter().filter(|(_, version)| *version != "-").map(|(name, _)| (*name).to_owned());
    let batch = one.due(names, true, world(all)).expect("something is due");
    one.sent(&batch, nonce, nonce.to_string());
    told(&batch)
}

fn asked(names: &[&str]) -> Asked {
    Asked { names: names.iter().map(|name| (*name).to_owned()).collect(), version: String::new() }
}

fn refusal() -> Refusal {
    Refusal {
        time: std::time::SystemTime::UNIX_EPOCH,
        by: String::new(),
        of: "cluster",
        name: String::new(),
        field: String::new(),
        reason: String::new(),
        version: String::new(),
    }
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|one| (*one).to_owned()).collect()
}

#[test]
fn clusters_are_told_whole_and_endpoints_only_where_they_changed() {
    for (of, expected) in [(Type::Cluster, vec!["a2", "b1"]), (Type::Endpoints, vec!["a2"])] {
        let mut one = Subscription::new(of, false);
        one.ask(asked(&["a", "b"]), true);
        assert_eq!(send(&mut one, &[("a", "1"), ("b", "1")], 1).0, ["a1", "b1"]);
        assert!(one.answered("1", None));
        assert_eq!(due(&one, &[("a", "1"), ("b", "1")]), None, "nothing new");
        assert_eq!(send(&mut one, &[("a", "2"), ("b", "1")], 2).0, expected);
    }
}

#[test]
fn what_was_refused_is_not_sent_again_until_it_differs() {
    let mut one = Subscription::new(Type::Cluster, false);
    one.ask(asked(&["a"]), true);
    send(&mut one, &[("a", "1")], 1);
    assert!(one.answered("1", Some(refusal())));
    assert_eq!((one.acknowledged_version.as_str(), one.refusal.is_some()), ("", true));
    one.ask(asked(&["a"]), false);
    assert_eq!(due(&one, &[("a", "1")]), None, "the same bytes would be refused again");
    assert_eq!(send(&mut one, &[("a", "2")], 2).0, ["a2"]);
    assert!(one.answered("2", None));
    assert_eq!((one.acknowledged_version.as_str(), one.refusal.is_some()), ("2", false));
}

#[test]
fn one_response_is_under_way_at_a_time_and_the_latest_is_told_next() {
    let mut one = Subscription::new(Type::Endpoints, false);
    one.ask(asked(&["a"]), true);
    send(&mut one, &[("a", "1")], 1);
    assert_eq!(due(&one, &[("a", "2")]), None);
    assert!(!one.answered("7", None), "an answer to something else is none");
    assert!(one.answered("1", None));
    assert_eq!(send(&mut one, &[("a", "3")], 2).0, ["a3"]);
}

#[test]
fn a_new_name_is_told_although_nothing_changed() {
    let mut one = Subscription::new(Type::Endpoints, false);
    let all = [("a", "1"), ("b", "1")];
    one.ask(asked(&["a"]), true);
    send(&mut one, &all, 1);
    one.answered("1", None);
    one.ask(asked(&["a", "b"]), false);
    assert_eq!(send(&mut one, &all, 2).0, ["b1"]);
    one.answered("2", None);
    one.ask(asked(&["b"]), false);
    assert_eq!(due(&one, &all), None);
    one.ask(asked(&["a", "b"]), false);
    assert_eq!(send(&mut one, &all, 3).0, ["a1"], "whoever left it and comes back has lost it");
}

#[test]
fn naming_nothing_means_all_at_first_and_nothing_later() {
    let mut one = Subscription::new(Type::Cluster, false);
    one.ask(asked(&[]), true);
    assert_eq!(send(&mut one, &[("a", "1"), ("b", "1")], 1).0, ["a1", "b1"]);
    one.answered("1", None);
    one.ask(asked(&[]), false);
    assert!(one.is_all(), "an answer that names nothing is no change of mind");
    let mut one = Subscription::new(Type::Cluster, false);
    one.ask(asked(&["a"]), true);
    send(&mut one, &[("a", "1")], 1);
    one.answered("1", None);
    one.ask(asked(&[]), false);
    assert!(!one.is_all());
    assert_eq!(due(&one, &[("a", "2")]), None);
}

#[test]
fn a_name_that_is_nobodys_is_told_once_and_again_when_it_appears() {
    let mut one = Subscription::new(Type::Route, false);
    one.ask(asked(&["a"]), true);
    let batch = one.due(std::iter::empty(), true, world(&[])).unwrap();
    assert_eq!(batch.errors, [("a".to_owned(), Trouble::Missing)]);
    one.sent(&batch, 1, String::new());
    one.answered("1", None);
    assert_eq!(due(&one, &[]), None);
    assert_eq!(send(&mut one, &[("a", "1")], 2).0, ["a1"]);
}

#[test]
fn what_is_withheld_leaves_what_the_client_has() {
    let mut one = Subscription::new(Type::Cluster, false);
    one.ask(asked(&["a", "b"]), true);
    send(&mut one, &[("a", "1"), ("b", "1")], 1);
    one.answered("1", None);
    assert_eq!(due(&one, &[("a", "!"), ("b", "1")]), None);
    assert_eq!(send(&mut one, &[("a", "!"), ("b", "2")], 2).0, ["a1", "b2"], "its absence would delete it");
}

#[test]
fn whoever_comes_back_to_a_fresh_platform_keeps_what_it_has_until_the_platform_is_sure() {
    let mut one = Subscription::new(Type::Cluster, false);
    one.ask(Asked { names: texts(&["a", "b"]), version: "7".to_owned() }, true);
    assert_eq!(due(&one, &[("a", "1"), ("b", "?")]), None);
    assert!(due(&one, &[("a", "1"), ("b", "1")]).is_some());
    let mut all = Subscription::new(Type::Cluster, true);
    let has = [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "1".to_owned())].into();
    all.ask_delta(AskedDelta { has, ..AskedDelta::default() }, true);
    assert!(all.due(std::iter::once("a".to_owned()), false, world(&[("a", "1")])).is_none());
    let batch = all.due(std::iter::once("a".to_owned()), true, world(&[("a", "1")])).unwrap();
    assert_eq!(told(&batch), (vec![], texts(&["b"])));
}

#[test]
fn a_delta_tells_only_what_changed_and_what_is_gone() {
    let mut one = Subscription::new(Type::Cluster, true);
    one.ask_delta(AskedDelta::default(), true);
    assert_eq!(send(&mut one, &[("a", "1"), ("b", "1")], 1).0, ["a1", "b1"]);
    one.answered("1", None);
    assert_eq!(send(&mut one, &[("a", "1"), ("b", "2"), ("c", "1")], 2), (texts(&["b2", "c1"]), vec![]));
    one.answered("2", None);
    assert_eq!(send(&mut one, &[("b", "2"), ("c", "1")], 3), (vec![], texts(&["a"])));
    one.answered("3", None);
    assert_eq!(due(&one, &[("b", "2"), ("c", "1")]), None);
}

#[test]
fn a_delta_tells_again_what_is_asked_for_again() {
    let mut one = Subscription::new(Type::Endpoints, true);
    one.ask_delta(AskedDelta { subscribe: texts(&["a"]), ..AskedDelta::default() }, true);
    send(&mut one, &[("a", "1")], 1);
    one.answered("1", None);
    one.ask_delta(AskedDelta { subscribe: texts(&["a"]), ..AskedDelta::default() }, false);
    assert_eq!(send(&mut one, &[("a", "1")], 2).0, ["a1"]);
    one.answered("2", None);
    one.ask_delta(AskedDelta { unsubscribe: texts(&["a"]), ..AskedDelta::default() }, false);
    assert_eq!(due(&one, &[("a", "2")]), None);
}
