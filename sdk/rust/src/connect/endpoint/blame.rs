//! Who is ill: the instance that answered, or somebody behind it.
//!
//! A service that cannot work because another one fails passes that failure on. Whoever calls it must not take it for
//! ill: its breaker would open, and what it can do without the other would be lost as well. Two marks tell the one from
//! the other, and both travel with a status that is passed on as it is. It counts as an answer: the instance is alive.
//!
//! - what a channel itself made up (no instance, an open breaker, a lost connection) names a reason that no instance
//!   says of itself;
//! - what an instance answered gets, from the channel that received it, a trailer that names where it failed.

use tonic::{Code, Status};

use crate::connect::breaker::Verdict;
use crate::fault;

/// The trailer that names the service where a call failed. Set by the channel that received the failure; whoever answers
/// somebody outside the landscape takes it out.
pub const FAILED_AT: &str = "x-ninefold-failed-at";

/// Reasons that only a caller's channel gives.
const REASONS: [&str; 7] = [
    "NO_INSTANCE",
    "INSTANCE_UNREACHABLE",
    "BREAKER_OPEN",
    "CONNECTION_LOST",
    "STREAM_RESET",
    "CALL_DEADLINE",
    "PLATFORM_UNREACHABLE",
];

/// Whether a status that an instance answered with tells of somebody behind it.
fn is_passed_on(status: &Status) -> bool {
    let is_made_up = || fault::reason(status).is_some_and(|reason| REASONS.contains(&reason.as_str()));
    status.metadata().contains_key(FAILED_AT) || is_made_up()
}

/// Tells `judge` what a status says about the health of the instance that sent it.
pub(crate) fn verdict<T>(status: &Status, judge: impl FnOnce(Verdict<'_>) -> T) -> T {
    match status.code() {
        Code::Unavailable | Code::Internal | Code::Unknown | Code::DeadlineExceeded | Code::DataLoss => {
            if is_passed_on(status) {
                return judge(Verdict::Success);
            }
            let why = format!("{:?}: {}", status.code(), status.message());
            judge(Verdict::Failure(&why))
        }
        Code::ResourceExhausted if is_passed_on(status) => judge(Verdict::Success),
        Code::ResourceExhausted => {
            let why = format!("{:?}: {}", status.code(), status.message());
            judge(Verdict::Overload(&why))
        }
        Code::Cancelled => judge(Verdict::Nothing),
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unauthenticated => judge(Verdict::Success),
    }
}

#[cfg(test)]
mod tests {
    use tonic::metadata::MetadataValue;

    use super::*;
    use crate::connect::Error;

    fn is_failure(status: &Status) -> bool {
        verdict(status, |verdict| matches!(verdict, Verdict::Failure(_)))
    }

    #[test]
    fn what_an_instance_says_of_itself_is_its_failure() {
        assert!(is_failure(&Status::unavailable("starting")) && is_failure(&Status::internal("a bug")));
        assert!(!is_failure(&Status::not_found("no such product")));
    }

    #[test]
    fn what_it_passes_on_is_not() {
        let mut status = Status::unavailable("starting");
        status.metadata_mut().insert(FAILED_AT, MetadataValue::from_static("review"));
        assert!(!is_failure(&status));
        assert!(!is_failure(&fault::status(&Error::NoInstance { service: "review".into() })));
    }
}
