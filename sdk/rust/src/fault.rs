//! Classified errors, and the one place that turns them into gRPC codes, HTTP statuses and `google.rpc` details.
//!
//! Every crate has one error enum and implements [`Fault`] for it. Nobody else builds a [`tonic::Status`].

use std::error::Error;
use std::fmt::Write as _;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Domain of the `google.rpc.ErrorInfo` that every fault carries.
pub const DOMAIN: &str = "ninefold";

/// The serialized `google.protobuf.FileDescriptorSet` of the types that errors carry: `google.rpc.Status`, `ErrorInfo`,
/// `BadRequest`, `RetryInfo` and their like. For whoever shows a status as JSON.
pub const DETAIL_DESCRIPTORS: &[u8] = tonic_types::pb::FILE_DESCRIPTOR_SET;

/// What a fault means to the caller. Each kind is one gRPC code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request is malformed, whatever the state of the system.
    InvalidInput,
    /// What was asked for is not there.
    NotFound,
    /// What was to be made is there already.
    AlreadyExists,
    /// Somebody else was faster; read again, then retry.
    Conflict,
    /// The system is not in a state that allows it; retrying alone does not help.
    Precondition,
    /// A limit is reached; retry later.
    Exhausted,
    /// The caller did not say who it is.
    Unauthenticated,
    /// The caller may not do this.
    Denied,
    /// A part that is needed cannot be reached; retry.
    Unavailable,
    /// Time ran out.
    Deadline,
    /// The caller went away.
    Cancelled,
    /// The method or protocol is not offered here.
    Unimplemented,
    /// Stored data is damaged.
    DataLoss,
    /// A bug, or something nobody thought of.
    Internal,
}

impl Kind {
    /// The gRPC code of this kind.
    pub const fn code(self) -> Code {
        match self {
            Self::InvalidInput => Code::InvalidArgument,
            Self::NotFound => Code::NotFound,
            Self::AlreadyExists => Code::AlreadyExists,
            Self::Conflict => Code::Aborted,
            Self::Precondition => Code::FailedPrecondition,
            Self::Exhausted => Code::ResourceExhausted,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::Denied => Code::PermissionDenied,
            Self::Unavailable => Code::Unavailable,
            Self::Deadline => Code::DeadlineExceeded,
            Self::Cancelled => Code::Cancelled,
            Self::Unimplemented => Code::Unimplemented,
            Self::DataLoss => Code::DataLoss,
            Self::Internal => Code::Internal,
        }
    }

    /// The kind of a gRPC code that came from elsewhere.
    pub const fn of(code: Code) -> Self {
        match code {
            Code::InvalidArgument | Code::OutOfRange => Self::InvalidInput,
            Code::NotFound => Self::NotFound,
            Code::AlreadyExists => Self::AlreadyExists,
            Code::Aborted => Self::Conflict,
            Code::FailedPrecondition => Self::Precondition,
            Code::ResourceExhausted => Self::Exhausted,
            Code::Unauthenticated => Self::Unauthenticated,
            Code::PermissionDenied => Self::Denied,
            Code::Unavailable => Self::Unavailable,
            Code::DeadlineExceeded => Self::Deadline,
            Code::Cancelled => Self::Cancelled,
            Code::Unimplemented => Self::Unimplemented,
            Code::DataLoss => Self::DataLoss,
            Code::Ok | Code::Unknown | Code::Internal => Self::Internal,
        }
    }

    /// Whether the same call may succeed later without anybody changing anything.
    pub const fn is_passing(self) -> bool {
        matches!(self, Self::Conflict | Self::Exhausted | Self::Unavailable | Self::Deadline)
    }
}

/// The HTTP status of a gRPC code, as `google.rpc.Code` documents it.
pub fn http_status(code: Code) -> http::StatusCode {
    use http::StatusCode;
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        // 499: the caller closed the request; no registered status says it.
        Code::Cancelled => StatusCode::from_u16(499).expect("499 is within 100..=999"),
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// One thing that is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field, such as `instance.addresses[0].port`.
    pub field: String,
    /// What is wrong and what is expected, as a sentence fragment.
    pub description: String,
}

impl Violation {
    /// Says what is wrong with `field`.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self { field: field.into(), description: description.into() }
    }
}

/// Something about the state of the system that stands in the way of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Precondition {
    /// Which rule is not met, in capitals.
    pub kind: String,
    /// What it is about.
    pub subject: String,
    /// What is wrong and how to mend it, as a sentence fragment.
    pub description: String,
}

/// Most bytes of all preconditions of one status: a status travels in headers, and peers take 8 KiB of those.
const PRECONDITION_BYTES_MAX: usize = 4 * 1024;

/// An error that can reach a caller.
pub trait Fault: Error {
    /// What the error means to the caller.
    fn kind(&self) -> Kind;

    /// Name of the error in capitals, such as `INSTANCE_TAKEN`. Each has a page in `docs/errors/`.
    fn reason(&self) -> &'static str;

    /// What is wrong with the request, for [`Kind::InvalidInput`].
    fn violations(&self) -> Vec<Violation> {
        Vec::new()
    }

    /// What stands in the way, for [`Kind::Precondition`]. As many travel as fit into 4 KiB; the text says how many there are.
    fn preconditions(&self) -> Vec<Precondition> {
        Vec::new()
    }

    /// When to try again, if the server knows.
    fn retry_after(&self) -> Option<Duration> {
        None
    }
}

/// Turns a fault into the status that travels to the caller, with `ErrorInfo`, and `BadRequest`, `PreconditionFailure` or
/// `RetryInfo` where they apply. The message is the fault's text without its sources.
pub fn status(fault: &dyn Fault) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(fault.reason(), DOMAIN, std::collections::HashMap::new());
    for violation in fault.violations() {
        details.add_bad_request_violation(violation.field, violation.description);
    }
    let mut room = PRECONDITION_BYTES_MAX;
    for one in fault.preconditions() {
        let size = one.kind.len() + one.subject.len() + one.description.len();
        if size > room {
            break;
        }
        room -= size;
        details.add_precondition_failure_violation(one.kind, one.subject, one.description);
    }
    if let Some(delay) = fault.retry_after() {
        details.set_retry_info(Some(delay));
    }
    Status::with_error_details(fault.kind().code(), fault.to_string(), details)
}

/// The reason that a status carries, if it came from a fault.
pub fn reason(status: &Status) -> Option<String> {
    status.get_details_error_info().map(|info| info.reason)
}

/// What a status says is wrong with the request, if it says so.
pub fn violations(status: &Status) -> Vec<Violation> {
    let told = status.get_details_bad_request().map(|details| details.field_violations).unwrap_or_default();
    told.into_iter().map(|told| Violation::new(told.field, told.description)).collect()
}

/// What a status says stands in the way, if it says so.
pub fn preconditions(status: &Status) -> Vec<Precondition> {
    let told = status.get_details_precondition_failure().map(|details| details.violations).unwrap_or_default();
    let one = |told: tonic_types::PreconditionViolation| Precondition {
        kind: told.r#type,
        subject: told.subject,
        description: told.description,
    };
    told.into_iter().map(one).collect()
}

/// An error's text followed by those of its sources, for the log and the terminal.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Some libraries repeat their source in their own text; once is enough.
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            write!(text, ": {cause_text}").expect("writing to a string cannot fail");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the name {0:?} is malformed")]
    struct Malformed(&'static str);

    impl Fault for Malformed {
        fn kind(&self) -> Kind {
            Kind::InvalidInput
        }
        fn reason(&self) -> &'static str {
            "NAME_MALFORMED"
        }
        fn violations(&self) -> Vec<Violation> {
            vec![Violation::new("name", "must be lowercase")]
        }
    }

    #[test]
    fn a_fault_travels_with_its_reason_and_violations() {
        let status = status(&Malformed("A"));
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "the name \"A\" is malformed");
        assert_eq!(reason(&status).as_deref(), Some("NAME_MALFORMED"));
        assert_eq!(violations(&status), [Violation::new("name", "must be lowercase")]);
    }

    #[test]
    fn every_kind_survives_its_code() {
        for code in
            (0..=16).map(Code::from_i32).filter(|code| !matches!(code, Code::Ok | Code::Unknown | Code::OutOfRange))
        {
            assert_eq!(Kind::of(code).code(), code);
        }
    }
}
