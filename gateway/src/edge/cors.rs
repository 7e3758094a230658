//! What pages of other origins may do. Never with credentials.

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use ninefold::tonic::body::Body;

/// How long a browser may remember a permission, in seconds; browsers cut it to two hours or less.
const REMEMBERED_SECONDS: &str = "7200";
/// Headers of answers that pages may read.
const EXPOSED: &str = "grpc-status,grpc-message,grpc-status-details-bin,connect-content-encoding,x-trace-id,\
                       retry-after,ratelimit,ratelimit-policy";

/// What the origin of a request may do.
#[derive(Clone, Debug)]
pub(super) enum Cors {
    /// No page asks.
    NoPage,
    /// A page asks, and its origin is not among those allowed.
    Refused,
    /// A page asks and may; the value is the origin that is told.
    Allowed(HeaderValue),
}

impl Cors {
    pub(super) fn of(head: &Parts, origins: &[String]) -> Self {
        let Some(origin) = head.headers.get(header::ORIGIN) else { return Self::NoPage };
        if origins.iter().any(|allowed| allowed == "*") {
            Self::Allowed(HeaderValue::from_static("*"))
        } else if origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()) {
            Self::Allowed(origin.clone())
        } else {
            Self::Refused
        }
    }

    /// The answer to a browser that asks before it sends; `None` if this is no such question.
    pub(super) fn preflight(&self, head: &Parts) -> Option<Response<Body>> {
        let asked = head.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
        if head.method != Method::OPTIONS || matches!(self, Self::NoPage) {
            return None;
        }
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        if let Self::Allowed(_) = self {
            let headers = answer.headers_mut();
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, asked.clone());
            if let Some(wanted) = head.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
                headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
            }
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(REMEMBERED_SECONDS));
        }
        Some(answer)
    }

    /// Writes the permission into an answer.
    pub(super) fn permit(&self, headers: &mut HeaderMap) {
        // What a service says about origins does not count; the edge decides.
        headers.remove(header::ACCESS_CONTROL_ALLOW_ORIGIN);
        headers.remove(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
        if let Self::Allowed(origin) = self {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
            if origin != "*" {
                headers.append(header::VARY, HeaderValue::from_static("origin"));
            }
        }
    }
}
