//! What can go wrong at the edge.

use std::time::Duration;

use http::StatusCode;
use ninefold::fault::{self, Fault, Kind, Violation};
use ninefold::link::BoxError;

use crate::guard::{Lack, Refusal};

/// What can go wrong at the edge.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No route matches, and the platform knows none that might.
    #[error("no route matches {verb} {path}")]
    RouteUnknown {
        /// HTTP method of the request.
        verb: String,
        /// Path of the request, cut to a bearable length.
        path: String,
    },
    /// The path is known, but not with this HTTP method.
    #[error("{verb} is not offered here, only {}", allowed.join(", "))]
    VerbNotAllowed {
        /// HTTP method of the request.
        verb: String,
        /// HTTP methods that the path answers.
        allowed: Vec<String>,
    },
    /// A gRPC method that no contract exposes at the edge, or that does not exist.
    #[error("the method {0} is not exposed")]
    MethodNotExposed(String),
    /// The request breaks the rules of HTTP, or those that the edge adds for safety.
    #[error("malformed request: {0}")]
    RequestMalformed(&'static str),
    /// The request target is longer than the edge reads.
    #[error("the request target is longer than {0} bytes")]
    TargetTooLong(usize),
    /// The header section is larger than the edge reads.
    #[error("the header section holds more than {0} bytes")]
    HeadersTooLarge(usize),
    /// The body, or one message in it, is larger than the edge reads.
    #[error("the body is larger than {0} bytes")]
    BodyTooLarge(usize),
    /// The body is of a kind that the route does not take.
    #[error("a body of type {0:?} is not taken, send application/json")]
    MediaTypeUnsupported(String),
    /// A body is packed in a way that is not known here.
    #[error("nothing packed with {0:?} is taken, only gzip and identity")]
    CompressionUnknown(String),
    /// Path, query or body do not fit the contract.
    #[error("invalid request: {}", first_of(.0))]
    RequestInvalid(Vec<Violation>),
    /// The body broke off.
    #[error("the body broke off")]
    BodyBroken(#[source] BoxError),
    /// The body stopped coming.
    #[error("no more of the body arrived for {} s", .0.as_secs())]
    BodyTimeout(Duration),
    /// The edge does not know the landscape yet.
    #[error("the edge is starting and does not know the landscape yet")]
    Starting,
    /// The service could not be reached.
    #[error("could not reach {service}")]
    Unreachable {
        /// The service.
        service: String,
        /// Why.
        source: BoxError,
    },
    /// The service took too long.
    #[error("no answer within {} ms", .0.as_millis())]
    DeadlineExceeded(Duration),
    /// The service answered with what its contract does not allow.
    #[error("{service} broke its contract: {what}")]
    AnswerMalformed {
        /// The service.
        service: String,
        /// What is wrong with the answer.
        what: &'static str,
    },
    /// The caller sent too many requests.
    #[error("too many requests, try again in {} s", .0.as_secs_f32().ceil())]
    RateLimited(Duration),
    /// A page of an origin that is not allowed asks for a socket.
    #[error("pages of this origin may not open sockets here")]
    OriginRefused,
    /// The caller does not say who it is, or is not believed.
    #[error("{why}")]
    CallerUnknown {
        /// Why, in words of ours.
        why: &'static str,
        /// Whether something was shown.
        is_refused: bool,
    },
    /// The caller may not do this.
    #[error("{}", .0.words())]
    CallerDenied(Lack),
    /// Nobody can say whether the caller is who it says: an issuer's keys cannot be had.
    #[error("the keys of {0} are not there")]
    IssuerAway(String),
    /// Nobody is let in from there.
    #[error("the address is not let in")]
    AddressDenied,
    /// The authority that is asked refuses the request, in its own words.
    #[error("the request was refused")]
    Refused(Box<Refusal>),
    /// The authority that is asked says nothing.
    #[error("nobody can say whether the request may pass: {0}")]
    AuthorityAway(String),
    /// There were as many requests as there may be in this window.
    #[error("the quota is spent, come back in {} s", .0.as_secs())]
    QuotaSpent(Duration),
    /// The service is not to be called for now.
    #[error("{}", if text.is_empty() { "the service is being worked on" } else { text })]
    Maintenance {
        /// What callers are told.
        text: String,
        /// When to come again.
        retry_after: Option<Duration>,
    },
    /// The edge is shutting down.
    #[error("the edge is draining")]
    Draining,
    /// A page token that this edge did not give out.
    #[error("the page token {0:?} is not one of ours")]
    PageTokenInvalid(String),
    /// The settings do not allow a start.
    #[error("invalid settings: {}", .0.join("; "))]
    SettingsInvalid(Vec<String>),
}

fn first_of(violations: &[Violation]) -> String {
    match violations {
        [] => "it does not fit the contract".to_owned(),
        [Violation { field, description }, ..] if field.is_empty() => description.clone(),
        [Violation { field, description }, ..] => format!("{field}: {description}"),
    }
}

impl Error {
    /// A request whose `field` is wrong.
    pub(crate) fn invalid(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::RequestInvalid(vec![Violation::new(field, description)])
    }

    /// The HTTP status of the answer. More precise than that of the gRPC code where HTTP has a word of its own.
    pub(crate) fn http_status(&self) -> StatusCode {
        match self {
            Self::VerbNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::MethodNotExposed(_) => StatusCode::NOT_FOUND,
            Self::TargetTooLong(_) => StatusCode::URI_TOO_LONG,
            Self::HeadersTooLarge(_) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MediaTypeUnsupported(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BodyTimeout(_) => StatusCode::REQUEST_TIMEOUT,
            Self::AnswerMalformed { .. } => StatusCode::BAD_GATEWAY,
            Self::Refused(refusal) => refusal.status,
            Self::RouteUnknown { .. }
            | Self::CompressionUnknown(_)
            | Self::RequestMalformed(_)
            | Self::RequestInvalid(_)
            | Self::BodyBroken(_)
            | Self::Starting
            | Self::Unreachable { .. }
            | Self::DeadlineExceeded(_)
            | Self::RateLimited(_)
            | Self::OriginRefused
            | Self::CallerUnknown { .. }
            | Self::CallerDenied(_)
            | Self::IssuerAway(_)
            | Self::AddressDenied
            | Self::AuthorityAway(_)
            | Self::QuotaSpent(_)
            | Self::Maintenance { .. }
            | Self::Draining
            | Self::PageTokenInvalid(_)
            | Self::SettingsInvalid(_) => fault::http_status(self.kind().code()),
        }
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::RouteUnknown { .. } => Kind::NotFound,
            Self::VerbNotAllowed { .. } | Self::MethodNotExposed(_) | Self::CompressionUnknown(_) => {
                Kind::Unimplemented
            }
            Self::RequestMalformed(_)
            | Self::TargetTooLong(_)
            | Self::HeadersTooLarge(_)
            | Self::MediaTypeUnsupported(_)
            | Self::RequestInvalid(_)
            | Self::BodyBroken(_)
            | Self::PageTokenInvalid(_)
            | Self::SettingsInvalid(_) => Kind::InvalidInput,
            Self::BodyTooLarge(_) | Self::RateLimited(_) | Self::QuotaSpent(_) => Kind::Exhausted,
            Self::CallerUnknown { .. } => Kind::Unauthenticated,
            Self::Refused(refusal) if refusal.status == StatusCode::UNAUTHORIZED => Kind::Unauthenticated,
            Self::OriginRefused | Self::CallerDenied(_) | Self::AddressDenied | Self::Refused(_) => Kind::Denied,
            Self::Starting
            | Self::IssuerAway(_)
            | Self::AuthorityAway(_)
            | Self::Unreachable { .. }
            | Self::Maintenance { .. }
            | Self::Draining => Kind::Unavailable,
            Self::DeadlineExceeded(_) | Self::BodyTimeout(_) => Kind::Deadline,
            Self::AnswerMalformed { .. } => Kind::Internal,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::RouteUnknown { .. } => "ROUTE_UNKNOWN",
            Self::VerbNotAllowed { .. } => "VERB_NOT_ALLOWED",
            Self::MethodNotExposed(_) => "METHOD_NOT_EXPOSED",
            Self::RequestMalformed(_) => "REQUEST_MALFORMED",
            Self::TargetTooLong(_) => "TARGET_TOO_LONG",
            Self::HeadersTooLarge(_) => "HEADERS_TOO_LARGE",
            Self::BodyTooLarge(_) => "BODY_TOO_LARGE",
            Self::MediaTypeUnsupported(_) => "MEDIA_TYPE_UNSUPPORTED",
            Self::CompressionUnknown(_) => "COMPRESSION_UNKNOWN",
            Self::RequestInvalid(_) => "REQUEST_INVALID",
            Self::BodyBroken(_) => "BODY_BROKEN",
            Self::BodyTimeout(_) => "BODY_TIMEOUT",
            Self::Starting => "EDGE_STARTING",
            Self::Unreachable { .. } => "SERVICE_UNREACHABLE",
            Self::DeadlineExceeded(_) => "EDGE_DEADLINE_EXCEEDED",
            Self::AnswerMalformed { .. } => "ANSWER_MALFORMED",
            Self::RateLimited(_) => "RATE_LIMITED",
            Self::OriginRefused => "ORIGIN_REFUSED",
            Self::CallerUnknown { .. } => "CALLER_UNKNOWN",
            Self::CallerDenied(_) => "CALLER_DENIED",
            Self::IssuerAway(_) => "ISSUER_AWAY",
            Self::AddressDenied => "ADDRESS_DENIED",
            Self::Refused(_) => "REQUEST_REFUSED",
            Self::AuthorityAway(_) => "AUTHORITY_AWAY",
            Self::QuotaSpent(_) => "QUOTA_SPENT",
            Self::Maintenance { .. } => "MAINTENANCE",
            Self::Draining => "EDGE_DRAINING",
            Self::PageTokenInvalid(_) => "PAGE_TOKEN_INVALID",
            Self::SettingsInvalid(_) => "SETTINGS_INVALID",
        }
    }

    fn violations(&self) -> Vec<Violation> {
        if let Self::RequestInvalid(violations) = self { violations.clone() } else { Vec::new() }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited(delay) | Self::QuotaSpent(delay) => Some(*delay),
            Self::Maintenance { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
