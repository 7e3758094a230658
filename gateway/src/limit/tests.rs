//! Limits, asked with the clock in hand.

use super::*;

fn limiter(per_second: u32, burst: u32) -> Limiter {
    Limiter::of_clients(&RateLimit::alone(per_second, burst)).unwrap()
}

fn step(limiter: &Limiter, subject: Subject, now: Duration) -> Option<u128> {
    let Allowance::Rate(rate) = limiter.allowance else { panic!("a rate") };
    limiter.step_alone(rate, subject, now).err().map(|wait| wait.as_millis())
}

fn at(limiter: &Limiter, address: &str, millis: u64) -> Option<u128> {
    step(limiter, Subject::address(address.parse().unwrap()), Duration::from_millis(millis))
}

#[test]
fn a_client_may_send_its_burst_and_then_its_rate() {
    let limiter = limiter(10, 3);
    for _ in 0..3 {
        assert_eq!(at(&limiter, "10.0.0.1", 0), None);
    }
    assert_eq!(at(&limiter, "10.0.0.1", 0), Some(100));
    assert_eq!(at(&limiter, "10.0.0.1", 60), Some(40), "being refused costs nothing");
    assert_eq!(at(&limiter, "10.0.0.1", 100), None);
    assert_eq!(at(&limiter, "10.0.0.1", 100), Some(100));
    for _ in 0..3 {
        assert_eq!(at(&limiter, "10.0.0.1", 5000), None, "the whole burst is back");
    }
    assert!(at(&limiter, "10.0.0.1", 5000).is_some());
}

#[test]
fn clients_are_counted_each_for_itself() {
    let limiter = limiter(1, 1);
    assert_eq!(at(&limiter, "10.0.0.1", 0), None);
    assert_eq!(at(&limiter, "10.0.0.2", 0), None);
    assert!(at(&limiter, "::ffff:10.0.0.1", 0).is_some(), "one client, however it is written");
    assert_eq!(at(&limiter, "2001:db8:1:2::1", 0), None);
    assert!(at(&limiter, "2001:db8:1:2:ffff::2", 0).is_some(), "one network");
    assert_eq!(at(&limiter, "2001:db8:1:3::1", 0), None);
}

#[test]
fn memory_is_bounded() {
    let limiter = limiter(1, 1);
    for number in 0..u32::try_from(SUBJECTS_MAX).unwrap() + 10 {
        assert_eq!(step(&limiter, Subject::V4(number.to_be_bytes()), Duration::ZERO), None);
    }
    assert_eq!(limiter.alone.lock().unwrap().len(), SUBJECTS_MAX);
    assert_eq!(at(&limiter, "250.0.0.1", 60_000), None);
    assert_eq!(limiter.alone.lock().unwrap().len(), 1, "who has not come for long is forgotten");
}

#[test]
fn a_malformed_address_of_redis_is_told_at_the_start() {
    let limit = RateLimit { redis: Some("nonsense".to_owned()), ..RateLimit::alone(1, 1) };
    assert!(matches!(Limiter::of_clients(&limit), Err(Error::SettingsInvalid(_))));
}

#[tokio::test(start_paused = true)]
async fn what_is_left_is_told() {
    let limit: Limit = serde_json::from_str(r#"{"by": "address", "requests": 10, "per": "1s", "burst": 5}"#).unwrap();
    let limiter = Limiter::of("fair", "limits.fair", &limit, None);
    let mut headers = HeaderMap::new();
    tell(&[limiter.admit(Subject::Everybody).await], &mut headers);
    assert_eq!(
        (&headers["ratelimit-policy"], &headers["ratelimit"]),
        (&HeaderValue::from_static("\"fair\";q=5;w=1"), &HeaderValue::from_static("\"fair\";r=4;t=1"))
    );
    for _ in 0..4 {
        limiter.admit(Subject::Everybody).await.held().unwrap();
    }
    let verdict = limiter.admit(Subject::Everybody).await;
    assert_eq!((verdict.remaining, verdict.wait), (0, Some(Duration::from_millis(100))));
}

#[tokio::test]
async fn a_quota_ends_with_its_window() {
    let limiter = Limiter::of_quotas("day", Window::Day, None);
    let subject = Subject::named(&["key", "a"]);
    for left in [1, 0] {
        assert_eq!(limiter.admit_up_to(subject, Some(2)).await.remaining, left);
    }
    let verdict = limiter.admit_up_to(subject, Some(2)).await;
    assert!(matches!(verdict.held(), Err(Error::QuotaSpent(wait)) if wait <= Duration::from_secs(86_400)));
    assert_eq!(limiter.count_alone(subject, u64::MAX, 2), Some(1), "the next window is another");
    assert_eq!(limiter.admit_up_to(Subject::named(&["key", "b"]), Some(2)).await.remaining, 1);
}
