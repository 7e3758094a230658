//! The time by which a caller wants its answer, carried from call to call.
//!
//! A server sets the deadline of the call it works on with [`scope`]; every channel called inside takes it over. On the
//! wire it is the header `grpc-timeout`: time left, not time of day, so clocks need not agree.

use std::future::Future;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;

/// The header that carries the time left.
pub const HEADER: &str = "grpc-timeout";

tokio::task_local! {
    static DEADLINE: Instant;
}

/// Runs `work` under a deadline that the calls it makes take over. Does not itself end `work`.
pub async fn scope<F: Future>(deadline: Instant, work: F) -> F::Output {
    // A call inside a call cannot have more time than the one around it.
    let deadline = current().map_or(deadline, |outer| outer.min(deadline));
    DEADLINE.scope(deadline, work).await
}

/// Runs a synchronous part of some work, such as polling a stream, under a deadline, as [`scope`] does.
pub(crate) fn sync_scope<T>(deadline: Instant, work: impl FnOnce() -> T) -> T {
    let deadline = current().map_or(deadline, |outer| outer.min(deadline));
    DEADLINE.sync_scope(deadline, work)
}

/// The deadline of the work around the caller, if it has one.
pub fn current() -> Option<Instant> {
    DEADLINE.try_with(|deadline| *deadline).ok()
}

/// The time that a `grpc-timeout` header leaves. `None` where it is missing or malformed.
pub fn left(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(HEADER)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    // The protocol allows eight digits.
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// Writes the time left into the headers of a call.
pub(crate) fn write(headers: &mut HeaderMap, left: Duration) {
    const MOST: u128 = 99_999_999;
    let text = if left.as_micros() <= MOST {
        format!("{}u", left.as_micros())
    } else if left.as_millis() <= MOST {
        format!("{}m", left.as_millis())
    } else {
        format!("{}S", u128::from(left.as_secs()).min(MOST))
    };
    headers.insert(HEADER, HeaderValue::try_from(text).expect("digits and a letter are a header value"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::from_str(text).unwrap());
        left(&headers)
    }

    #[test]
    fn the_time_left_survives_the_wire() {
        for time in [Duration::ZERO, Duration::from_micros(1), Duration::from_secs(5), Duration::from_secs(100_000_000)]
        {
            let mut headers = HeaderMap::new();
            write(&mut headers, time);
            let read = left(&headers).unwrap();
            assert!(read <= time && time - read <= Duration::from_secs(1), "{time:?} became {read:?}");
        }
    }

    #[test]
    fn a_malformed_timeout_is_no_timeout() {
        for text in ["", "S", "5", "5 S", "-1S", "123456789S", "5x", "+5S"] {
            assert_eq!(read(text), None, "{text:?}");
        }
        assert_eq!(read("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(read("15m"), Some(Duration::from_millis(15)));
    }

    #[tokio::test]
    async fn an_inner_deadline_is_never_later_than_the_outer() {
        let now = Instant::now();
        let soon = now + Duration::from_secs(1);
        scope(soon, scope(now + Duration::from_secs(9), async { assert_eq!(current(), Some(soon)) })).await;
        assert_eq!(current(), None);
    }
}
