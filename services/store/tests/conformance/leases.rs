//! Leases: what is kept under them goes when nobody keeps them alive.

use std::time::Duration;

use ninefold::fault::{Fault as _, Kind};
use ninefold_store::{Compare, Error, LeaseId, Txn};
use tokio::time::Instant;

use super::{Bed, Case, put};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        ("a lease that nobody keeps alive takes its keys along", |bed| Box::pin(silence_deletes(bed))),
        ("a lease that is kept alive stays", |bed| Box::pin(life_is_kept(bed))),
        ("a key that is put under a new lease leaves the old", |bed| Box::pin(keys_change_leases(bed))),
        ("a revoked lease takes its keys along at once", |bed| Box::pin(revoked_at_once(bed))),
        ("a lease that is gone is told", |bed| Box::pin(gone_is_told(bed))),
        ("a lease is at least two seconds long", |bed| Box::pin(two_seconds_at_least(bed))),
    ]
}

async fn silence_deletes(bed: Bed) {
    let lease = bed.lease().await;
    let granted = Instant::now();
    let ops = vec![put(bed.key("a"), "1", Some(lease)), put(bed.key("b"), "1", Some(lease))];
    let at = bed.change(Vec::new(), ops).await.revision;
    bed.put("free", "1").await;
    assert_eq!(bed.store.get(&bed.key("a")).await.unwrap().expect("it is there").lease, Some(lease));
    let mut watch = bed.watch(at).await;
    let mut changes = watch.changes(3).await;
    changes.sort();
    assert_eq!(changes, ["a deleted", "b deleted", "free=1"]);
    assert!(granted.elapsed() > Duration::from_millis(1500), "not before its time");
    assert_eq!(bed.value("a").await, None);
    assert!(matches!(bed.store.keep_alive(lease).await, Err(Error::LeaseUnknown(gone)) if gone == lease));
}

async fn life_is_kept(bed: Bed) {
    let lease = bed.lease().await;
    bed.change(Vec::new(), vec![put(bed.key("k"), "1", Some(lease))]).await;
    let start = Instant::now();
    let mut beat = tokio::time::interval(Duration::from_millis(500));
    while start.elapsed() < Duration::from_secs(5) {
        beat.tick().await;
        bed.store.keep_alive(lease).await.expect("it is kept alive");
    }
    assert_eq!(bed.value("k").await.as_deref(), Some("1"));
    bed.store.revoke(lease).await.expect("it is revoked");
}

async fn keys_change_leases(bed: Bed) {
    let (old, new) = (bed.lease().await, bed.lease().await);
    for name in ["moved", "freed", "left"] {
        bed.change(Vec::new(), vec![put(bed.key(name), "1", Some(old))]).await;
    }
    bed.change(Vec::new(), vec![put(bed.key("moved"), "2", Some(new)), put(bed.key("freed"), "2", None)]).await;
    bed.store.revoke(old).await.expect("it is revoked");
    assert_eq!(bed.value("left").await, None);
    assert_eq!(bed.value("moved").await.as_deref(), Some("2"));
    bed.store.revoke(new).await.expect("it is revoked");
    assert_eq!(bed.value("moved").await, None);
    assert_eq!(bed.value("freed").await.as_deref(), Some("2"));
}

async fn revoked_at_once(bed: Bed) {
    let lease = bed.lease().await;
    let at = bed.change(Vec::new(), vec![put(bed.key("k"), "1", Some(lease))]).await.revision;
    bed.store.revoke(lease).await.expect("it is revoked");
    assert_eq!(bed.value("k").await, None);
    assert_eq!(bed.watch(at).await.changes(1).await, ["k deleted"]);
    bed.store.revoke(lease).await.expect("to end what has ended changes nothing");
}

async fn gone_is_told(bed: Bed) {
    let lease = bed.lease().await;
    bed.store.revoke(lease).await.expect("it is revoked");
    for gone in [lease, LeaseId(4_242_424_242)] {
        let refusal = bed.store.keep_alive(gone).await.expect_err("it is gone");
        assert_eq!((refusal.kind(), refusal.reason()), (Kind::Precondition, "STORE_LEASE_UNKNOWN"));
        let ops = vec![put(bed.key("free"), "1", None), put(bed.key("leased"), "1", Some(gone))];
        let refusal = bed.store.txn(Txn { compares: Vec::new(), ops: ops.clone() }).await.expect_err("it is gone");
        assert!(matches!(refusal, Error::LeaseUnknown(told) if told == gone), "{refusal}");
        assert_eq!(bed.value("free").await, None, "nothing of it happened");
        let unmet = vec![Compare::Present(bed.key("nobody"))];
        assert!(!bed.change(unmet, ops).await.committed, "a condition that does not hold comes first");
    }
}

async fn two_seconds_at_least(bed: Bed) {
    let lease = bed.store.grant(Duration::from_millis(1)).await.expect("the lease is granted");
    let granted = Instant::now();
    let at = bed.change(Vec::new(), vec![put(bed.key("k"), "1", Some(lease))]).await.revision;
    bed.watch(at).await.changes(1).await;
    assert!(granted.elapsed() > Duration::from_millis(1500));
}
