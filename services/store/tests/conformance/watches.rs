//! Watching: everything once, in order, without a gap.

use std::collections::BTreeMap;

use futures_util::future::{join, join_all};
use ninefold_store::{Event, Op, Revision};

use super::{Bed, Case, put};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("a watch tells puts and deletes in order", |bed| Box::pin(in_order(bed))),
        ("a watch from the past catches up and goes on", |bed| Box::pin(from_the_past(bed))),
        ("under many writers a watch has every change once and in order", |bed| Box::pin(every_change_once(bed))),
        ("a watch that resumes misses nothing", |bed| Box::pin(resumes(bed))),
        ("a watch sees its prefix alone", |bed| Box::pin(prefix_alone(bed))),
        ("a range and a watch after it make the whole", |bed| Box::pin(range_then_watch(bed))),
        ("a watch that is not read holds nobody up", |bed| Box::pin(unread_watches_hold_nobody_up(bed))),
    ]
}

async fn in_order(bed: Bed) {
    let before = bed.put("before", "0").await;
    let mut watch = bed.watch(before).await;
    bed.put("a", "1").await;
    bed.put("a", "2").await;
    bed.delete("a").await;
    bed.put("a", "3").await;
    assert_eq!(watch.changes(4).await, ["a=1", "a=2", "a deleted", "a=3"]);
}

async fn from_the_past(bed: Bed) {
    let first = bed.put("n", "0").await;
    for n in 1..40 {
        bed.put("n", &n.to_string()).await;
    }
    let mut watch = bed.watch(first).await;
    assert_eq!(watch.changes(39).await, (1..40).map(|n| format!("n={n}")).collect::<Vec<_>>());
    bed.put("n", "40").await;
    assert_eq!(watch.changes(1).await, ["n=40"]);
}

async fn every_change_once(bed: Bed) {
    const WRITERS: usize = 6;
    const ROUNDS: usize = 40;
    let before = bed.put("before", "0").await;
    let writes = join_all((0..WRITERS).map(|writer| {
        let bed = &bed;
        async move {
            for round in 0..ROUNDS {
                bed.put(writer, &round.to_string()).await;
            }
        }
    }));
    let watches = join_all((0..3).map(|_| async {
        let mut watch = bed.watch(before).await;
        watch.changes(WRITERS * ROUNDS).await
    }));
    let (_, seen) = join(writes, watches).await;
    for changes in &seen {
        assert_eq!(changes, &seen[0], "all watches see one order");
        let mut by_writer: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for change in changes {
            let (writer, round) = change.split_once('=').expect("only puts were made");
            by_writer.entry(writer).or_default().push(round);
        }
        assert_eq!(by_writer.len(), WRITERS);
        let all: Vec<_> = (0..ROUNDS).map(|round| round.to_string()).collect();
        assert!(by_writer.values().all(|rounds| rounds == &all), "{by_writer:?}");
    }
}

async fn resumes(bed: Bed) {
    let mut at = bed.put("n", "0").await;
    let (mut seen, mut next) = (Vec::new(), 1);
    while seen.len() < 60 {
        for _ in 0..3 {
            bed.put("n", &next.to_string()).await;
            next += 1;
        }
        // Each watch is dropped after one batch, wherever that ends.
        let batch = bed.watch(at).await.batch().await.expect("the changes come");
        at = batch.revision;
        for event in batch.events {
            let Event::Put(entry) = event else { panic!("only puts were made") };
            seen.push(String::from_utf8(entry.value.to_vec()).unwrap());
        }
    }
    let expected: Vec<_> = (1..=seen.len()).map(|n| n.to_string()).collect();
    assert_eq!(seen, expected);
}

async fn prefix_alone(bed: Bed) {
    let before = bed.put("before", "0").await;
    let mut watch = bed.watch(before).await;
    watch.batches = bed.store.watch(&bed.key("in/"), before).await.expect("the watch begins");
    let names = ["out", "in/1", "in", "in0", "in/2"];
    bed.change(Vec::new(), names.map(|name| put(bed.key(name), "1", None)).to_vec()).await;
    bed.change(Vec::new(), vec![Op::DeletePrefix(bed.key("in"))]).await;
    assert_eq!(watch.changes(4).await, ["in/1=1", "in/2=1", "in/1 deleted", "in/2 deleted"]);
}

async fn range_then_watch(bed: Bed) {
    const LAST: usize = 150;
    let writes = async {
        for n in 1..=LAST {
            bed.put(n % 7, &n.to_string()).await;
        }
    };
    let reads = async {
        let range = bed.store.range(&bed.all(), None, 100).await.expect("the range is read");
        let mut last = range.entries.iter().map(|entry| String::from_utf8_lossy(&entry.value).parse().unwrap()).max();
        let mut watch = bed.watch(range.revision).await;
        while last.unwrap_or(0) < LAST {
            for change in watch.changes(1).await {
                let n: usize = change.split_once('=').expect("only puts were made").1.parse().unwrap();
                assert_eq!(n, last.unwrap_or(0) + 1, "the watch begins where the range ended");
                last = Some(n);
            }
        }
    };
    join(writes, reads).await;
}

async fn unread_watches_hold_nobody_up(bed: Bed) {
    let before = bed.put("n", "0").await;
    let mut unread = bed.watch(before).await;
    for n in 1..=300 {
        bed.put("n", &n.to_string()).await;
    }
    let changes = unread.changes(300).await;
    assert_eq!(changes.last().map(String::as_str), Some("n=300"));
    // Revisions are of the whole store: a watch from the far future says nothing about the present.
    let mut future = bed.watch(Revision(i64::MAX / 2)).await;
    bed.put("n", "301").await;
    assert!(tokio::time::timeout(std::time::Duration::from_millis(100), future.batch()).await.is_err());
}
