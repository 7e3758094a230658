//! Answers that the edge gives itself.

use http::header::{self, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::Full;
use ninefold::fault;
use ninefold::tonic::Status;
use ninefold::tonic::body::Body;
use prost_reflect::DescriptorPool;

use crate::error::Error;
use crate::guard::{self, Lack, Refusal};
use crate::transcode::status;

/// A body of bytes.
pub(crate) fn body(bytes: impl Into<bytes::Bytes>) -> Body {
    Body::new(Full::new(bytes.into()))
}

/// A status as a REST answer. `contract` knows types that its details may have.
pub(crate) fn of_status(status: &Status, http_status: StatusCode, contract: Option<&DescriptorPool>) -> Response<Body> {
    let text = serde_json::to_vec(&status::json(status, contract)).unwrap_or_default();
    let mut answer = Response::new(body(text));
    *answer.status_mut() = http_status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(seconds) = retry_after(status) {
        headers.insert(header::RETRY_AFTER, seconds);
    }
    answer
}

/// When to try again, as HTTP says it.
pub(crate) fn retry_after(status: &Status) -> Option<HeaderValue> {
    let delay = status::retry_after(status)?;
    // Whole seconds are all that HTTP has; rounded up, so that nobody comes too early.
    let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
    Some(HeaderValue::from(seconds.max(1)))
}

/// An error of the edge as a REST answer.
pub(crate) fn of_error(error: &Error) -> Response<Body> {
    let mut answer = of_status(&fault::status(error), error.http_status(), None);
    let headers = answer.headers_mut();
    match error {
        Error::VerbNotAllowed { allowed, .. } => {
            if let Ok(allowed) = HeaderValue::try_from(allowed.join(", ")) {
                headers.insert(header::ALLOW, allowed);
            }
        }
        Error::Refused(refusal) => return in_its_words(answer, refusal),
        Error::CallerUnknown { .. } | Error::CallerDenied(_) => challenge(headers, error),
        // What follows on the connection cannot be trusted to be a request.
        Error::RequestMalformed(_) | Error::HeadersTooLarge(_) | Error::BodyTooLarge(_) => {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Error::RouteUnknown { .. }
        | Error::MethodNotExposed(_)
        | Error::Starting
        | Error::TargetTooLong(_)
        | Error::MediaTypeUnsupported(_)
        | Error::CompressionUnknown(_)
        | Error::RequestInvalid(_)
        | Error::BodyBroken(_)
        | Error::BodyTimeout(_)
        | Error::Unreachable { .. }
        | Error::DeadlineExceeded(_)
        | Error::AnswerMalformed { .. }
        | Error::RateLimited(_)
        | Error::OriginRefused
        | Error::IssuerAway(_)
        | Error::AddressDenied
        | Error::AuthorityAway(_)
        | Error::QuotaSpent(_)
        | Error::Maintenance { .. }
        | Error::Draining
        | Error::PageTokenInvalid(_)
        | Error::SettingsInvalid(_) => {}
    }
    answer
}

/// An answer as an authority words it; the edge's own where it says nothing.
fn in_its_words(mut answer: Response<Body>, refusal: &Refusal) -> Response<Body> {
    if !refusal.body.is_empty() {
        answer = answer.map(|_| body(refusal.body.clone()));
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    let headers = answer.headers_mut();
    for (name, value) in &refusal.headers {
        headers.insert(name, value.clone());
    }
    guard::strip_hop_by_hop(headers);
    answer
}

/// An error of the edge as a gRPC answer.
pub(crate) fn of_error_to_grpc(error: &Error) -> Response<Body> {
    let mut answer = fault::status(error).into_http();
    challenge(answer.headers_mut(), error);
    answer
}

/// Says what a caller must show (RFC 6750).
pub(crate) fn challenge(headers: &mut HeaderMap, error: &Error) {
    let challenge = match error {
        Error::CallerUnknown { is_refused: false, .. } => "Bearer realm=\"edge\"".to_owned(),
        Error::CallerUnknown { why, .. } => {
            format!("Bearer realm=\"edge\", error=\"invalid_token\", error_description=\"{why}\"")
        }
        // Scopes of settings may be any text; what is no header value is left out.
        Error::CallerDenied(Lack::Scopes(scopes)) if !scopes.contains(['"', '\\']) => {
            format!("Bearer realm=\"edge\", error=\"insufficient_scope\", scope=\"{scopes}\"")
        }
        Error::CallerDenied(_) => "Bearer realm=\"edge\", error=\"insufficient_scope\"".to_owned(),
        _ => return,
    };
    if let Ok(challenge) = HeaderValue::try_from(challenge) {
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
}

/// An error of the edge as a gRPC-Web answer: all in the headers.
pub(crate) fn of_error_to_grpc_web(error: &Error) -> Response<Body> {
    let mut answer = of_error_to_grpc(error);
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc-web+proto"));
    answer
}
