//! How a refusal is told, in the caller's own language: a gRPC status, or JSON.

use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderValue, Response};
use ninefold::fault::{self, Fault as _, Kind};
use serde_json::json;
use tonic::body::Body;

use crate::error::Error;

pub(super) fn of(head: &Parts, error: &Error) -> Response<Body> {
    tracing::debug!(reason = error.reason(), path = head.uri.path(), %error, "refused a request");
    let status = fault::status(error);
    let kind = head.headers.get(CONTENT_TYPE).filter(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if let Some(kind) = kind {
        // gRPC-Web reads a status in the headers as well, if the answer is of its own type.
        let mut response = status.into_http();
        response.headers_mut().insert(CONTENT_TYPE, kind.clone());
        return response;
    }
    let body = json!({
        "code": i32::from(status.code()),
        "message": status.message(),
        "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": error.reason(), "domain": fault::DOMAIN}],
    });
    let mut response = Response::new(Body::new(http_body_util::Full::from(body.to_string())));
    *response.status_mut() = fault::http_status(status.code());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if error.kind() == Kind::Unauthenticated {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"ninefold\""));
    }
    response
}
