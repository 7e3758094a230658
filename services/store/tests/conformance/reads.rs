//! Reading: entries, ranges, pages.

use ninefold_store::{Key, Op};

use super::{Bed, Case, put};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("a read sees every write that was acknowledged before", |bed| Box::pin(reads_are_linearizable(bed))),
        ("an entry tells its revisions", |bed| Box::pin(entries_tell_their_revisions(bed))),
        ("a range is a prefix in the order of keys", |bed| Box::pin(ranges_are_prefixes(bed))),
        ("pages join without gap or overlap", |bed| Box::pin(pages_join(bed))),
        ("a prefix and a key need not exist", |bed| Box::pin(nothing_is_found(bed))),
    ]
}

async fn reads_are_linearizable(bed: Bed) {
    for round in 0..50 {
        let revision = bed.put("k", &round.to_string()).await;
        assert_eq!(bed.value("k").await, Some(round.to_string()));
        let range = bed.store.range(&bed.all(), None, 9).await.expect("the range is read");
        assert!(range.revision >= revision);
        assert_eq!(range.entries[0].modified, revision);
    }
}

async fn entries_tell_their_revisions(bed: Bed) {
    let first = bed.put("k", "1").await;
    let second = bed.put("k", "2").await;
    assert!(second > first);
    let entry = bed.store.get(&bed.key("k")).await.expect("the key is read").expect("the key is there");
    assert_eq!((entry.created, entry.modified, entry.lease), (first, second, None));
    assert_eq!((entry.key, entry.value.as_ref()), (bed.key("k"), b"2".as_slice()));
    bed.delete("k").await;
    let again = bed.put("k", "3").await;
    let entry = bed.store.get(&bed.key("k")).await.expect("the key is read").expect("the key is there");
    assert_eq!((entry.created, entry.modified), (again, again), "a key that was deleted begins anew");
}

async fn ranges_are_prefixes(bed: Bed) {
    let ops = ["b/2", "b/1", "a", "b", "b0", "c", "b/é"].map(|name| put(bed.key(name), name, None)).to_vec();
    let revision = bed.change(Vec::new(), ops).await.revision;
    let found = bed.store.range(&bed.key("b/"), None, 100).await.expect("the range is read");
    let keys: Vec<_> = found.entries.iter().map(|entry| entry.key.clone()).collect();
    assert_eq!(keys, ["b/1", "b/2", "b/é"].map(|name| bed.key(name)));
    assert!(!found.more && found.revision >= revision);
}

async fn pages_join(bed: Bed) {
    let names: Vec<_> = (0..25).map(|n| format!("{n:03}")).collect();
    let ops = names.iter().map(|name| put(bed.key(name), name, None)).collect();
    bed.change(Vec::new(), ops).await;
    let (mut found, mut after) = (Vec::new(), None::<Key>);
    loop {
        let page = bed.store.range(&bed.all(), after.as_ref(), 10).await.expect("the page is read");
        found.extend(page.entries.into_iter().map(|entry| entry.key));
        if !page.more {
            break;
        }
        after = found.last().cloned();
    }
    assert_eq!(found, names.iter().map(|name| bed.key(name)).collect::<Vec<_>>());

    let page = async |after, limit: usize| bed.store.range(&bed.all(), after, limit).await.expect("the page is read");
    let (none, exact, all) = (page(None, 0).await, page(None, 25).await, page(None, usize::MAX).await);
    assert!(none.entries.is_empty() && none.more);
    assert!(exact.entries.len() == 25 && !exact.more);
    assert!(all.entries.len() == 25 && !all.more);
}

async fn nothing_is_found(bed: Bed) {
    assert_eq!(bed.value("nobody").await, None);
    let found = bed.store.range(&bed.all(), None, 10).await.expect("the range is read");
    assert!(found.entries.is_empty() && !found.more);
    assert!(bed.change(Vec::new(), vec![Op::Delete(bed.key("nobody"))]).await.committed);
}
