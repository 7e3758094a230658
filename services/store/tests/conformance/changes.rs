//! Changing: transactions, their conditions and their limits.

use futures_util::future::join_all;
use ninefold::fault::{Fault as _, Kind};
use ninefold_store::model::{KEY_BYTES_MAX, TXN_BYTES_MAX, TXN_OPS_MAX, VALUE_BYTES_MAX};
use ninefold_store::{Compare, Key, Op, Revision, Txn};

use super::{Bed, Case, put};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("of many who count together nobody is lost", |bed| Box::pin(counters_add_up(bed))),
        ("of many who create one key one succeeds", |bed| Box::pin(one_creator_wins(bed))),
        ("conditions hold or do not", |bed| Box::pin(conditions_hold_or_not(bed))),
        ("who held a key before is fenced out", |bed| Box::pin(old_holders_are_fenced(bed))),
        ("a transaction happens whole or not at all", |bed| Box::pin(all_or_nothing(bed))),
        ("all changes of a transaction have one revision", |bed| Box::pin(one_revision(bed))),
        ("a prefix is deleted with all below it and nothing beside it", |bed| Box::pin(prefixes_are_deleted(bed))),
        ("what changes nothing takes no revision", |bed| Box::pin(nothing_takes_no_revision(bed))),
        ("what is too large is refused", |bed| Box::pin(limits_hold(bed))),
        ("what contradicts itself is refused", |bed| Box::pin(contradictions_are_refused(bed))),
    ]
}

async fn counters_add_up(bed: Bed) {
    const WRITERS: usize = 8;
    const ROUNDS: usize = 10;
    bed.put("count", "0").await;
    join_all((0..WRITERS).map(|_| async {
        let mut left = ROUNDS;
        while left > 0 {
            let entry = bed.store.get(&bed.key("count")).await.expect("the count is read").expect("it is there");
            let count: usize = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
            let unchanged = Compare::Modified(bed.key("count"), entry.modified);
            let add = put(bed.key("count"), &(count + 1).to_string(), None);
            if bed.change(vec![unchanged], vec![add]).await.committed {
                left -= 1;
            }
        }
    }))
    .await;
    assert_eq!(bed.value("count").await, Some((WRITERS * ROUNDS).to_string()));
}

async fn one_creator_wins(bed: Bed) {
    let tries = (0..16).map(|n| {
        let ops = vec![put(bed.key("lock"), &n.to_string(), None)];
        bed.change(vec![Compare::Absent(bed.key("lock"))], ops)
    });
    let outcomes = join_all(tries).await;
    let winners: Vec<_> = (0..16).filter(|&n| outcomes[n].committed).collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(bed.value("lock").await, Some(winners[0].to_string()));
    let won = outcomes[winners[0]].revision;
    assert!(outcomes.iter().all(|outcome| outcome.revision >= won), "a loser is told a revision that has the winner");
}

async fn conditions_hold_or_not(bed: Bed) {
    let created = bed.put("k", "1").await;
    let modified = bed.put("k", "2").await;
    let (k, gone) = (|| bed.key("k"), || bed.key("gone"));
    let holds = async |compare| bed.change(vec![compare], Vec::new()).await.committed;
    assert!(holds(Compare::Present(k())).await && !holds(Compare::Present(gone())).await);
    assert!(holds(Compare::Absent(gone())).await && !holds(Compare::Absent(k())).await);
    assert!(holds(Compare::Modified(k(), modified)).await && !holds(Compare::Modified(k(), created)).await);
    assert!(holds(Compare::Created(k(), created)).await && !holds(Compare::Created(k(), modified)).await);
    assert!(holds(Compare::Modified(gone(), Revision(0))).await && !holds(Compare::Modified(k(), Revision(0))).await);
    assert!(holds(Compare::Created(gone(), Revision(0))).await && !holds(Compare::Created(k(), Revision(0))).await);
    let both = vec![Compare::Present(k()), Compare::Present(gone())];
    assert!(!bed.change(both, Vec::new()).await.committed, "one that does not hold is enough");
}

async fn old_holders_are_fenced(bed: Bed) {
    let mine = bed.put("leader", "a").await;
    let fenced = |by| vec![Compare::Created(bed.key("leader"), by)];
    let write = |value| vec![put(bed.key("data"), value, None)];
    assert!(bed.change(fenced(mine), write("from a")).await.committed);
    bed.delete("leader").await;
    let theirs = bed.put("leader", "b").await;
    assert!(bed.change(fenced(theirs), write("from b")).await.committed);
    assert!(!bed.change(fenced(mine), write("late, from a")).await.committed);
    assert_eq!(bed.value("data").await.as_deref(), Some("from b"));
}

async fn all_or_nothing(bed: Bed) {
    bed.put("old", "1").await;
    let ops = || vec![put(bed.key("new"), "1", None), Op::Delete(bed.key("old"))];
    assert!(!bed.change(vec![Compare::Present(bed.key("nobody"))], ops()).await.committed);
    assert_eq!((bed.value("old").await.as_deref(), bed.value("new").await), (Some("1"), None));
    assert!(bed.change(vec![Compare::Absent(bed.key("nobody"))], ops()).await.committed);
    assert_eq!((bed.value("old").await, bed.value("new").await.as_deref()), (None, Some("1")));
}

async fn one_revision(bed: Bed) {
    let before = bed.put("gone", "x").await;
    let ops = vec![put(bed.key("a"), "1", None), put(bed.key("b"), "2", None), Op::Delete(bed.key("gone"))];
    let outcome = bed.change(Vec::new(), ops).await;
    let mut watch = bed.watch(before).await;
    let batch = watch.batch().await.expect("the changes come");
    assert_eq!(batch.events.len(), 3, "the changes of a revision come together");
    assert!(batch.events.iter().all(|event| event.revision() == outcome.revision));
}

async fn prefixes_are_deleted(bed: Bed) {
    for name in ["a", "a/1", "a/2", "a/2/3", "a0", "b"] {
        bed.put(name, name).await;
    }
    assert!(bed.change(Vec::new(), vec![Op::DeletePrefix(bed.key("a/"))]).await.committed);
    let left = bed.store.range(&bed.all(), None, 9).await.expect("the range is read").entries;
    assert_eq!(left.into_iter().map(|entry| entry.key).collect::<Vec<_>>(), ["a", "a0", "b"].map(|n| bed.key(n)));
}

async fn nothing_takes_no_revision(bed: Bed) {
    let before = bed.put("k", "1").await;
    for ops in [vec![], vec![Op::Delete(bed.key("nobody"))], vec![Op::DeletePrefix(bed.key("nobody/"))]] {
        assert!(bed.change(Vec::new(), ops).await.committed);
    }
    bed.put("k", "2").await;
    let mut watch = bed.watch(before).await;
    assert_eq!(watch.changes(1).await, ["k=2"], "nothing is between the two");
}

async fn limits_hold(bed: Bed) {
    let big = |key: Key, bytes| Op::Put { key, value: vec![7; bytes].into(), lease: None };
    bed.change(Vec::new(), vec![big(bed.key("fits"), VALUE_BYTES_MAX)]).await;
    let found = bed.store.get(&bed.key("fits")).await.expect("it is read").expect("it is there");
    assert_eq!(found.value.len(), VALUE_BYTES_MAX);
    let longest = Key::new(format!("{}/{}", bed.folder, "k".repeat(KEY_BYTES_MAX - bed.folder.len() - 1)));
    bed.change(Vec::new(), vec![big(longest.clone(), 1)]).await;
    bed.change(Vec::new(), (0..TXN_OPS_MAX).map(|n| big(bed.key(n), 1)).collect()).await;

    let half = TXN_BYTES_MAX / 2;
    for ops in [
        vec![big(bed.key("large"), VALUE_BYTES_MAX + 1)],
        vec![big(Key::new(format!("{longest}k")), 1)],
        (0..=TXN_OPS_MAX).map(|n| big(bed.key(n), 1)).collect(),
        vec![big(bed.key("half"), half), big(bed.key("other half"), half)],
    ] {
        let refusal = bed.store.txn(Txn { compares: Vec::new(), ops }).await.expect_err("it is too large");
        assert_eq!((refusal.kind(), refusal.reason()), (Kind::InvalidInput, "STORE_VALUE_TOO_LARGE"));
    }
}

async fn contradictions_are_refused(bed: Bed) {
    let k = || put(bed.key("a/k"), "1", None);
    for ops in [
        vec![k(), k()],
        vec![k(), Op::Delete(bed.key("a/k"))],
        vec![Op::DeletePrefix(bed.key("a/")), k()],
        vec![put(Key::new(""), "1", None)],
    ] {
        let refusal = bed.store.txn(Txn { compares: Vec::new(), ops }).await.expect_err("it contradicts itself");
        assert_eq!((refusal.kind(), refusal.reason()), (Kind::InvalidInput, "STORE_TXN_MALFORMED"));
    }
    assert_eq!(bed.value("a/k").await, None);
}
