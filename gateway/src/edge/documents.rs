//! What the edge tells of itself: the OpenAPI documents of its REST routes, the page that shows them, and its health. A
//! service's own route for the same path goes before.

use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use ninefold::tonic::body::Body;

use super::Edge;
use crate::access::Record;
use crate::contracts::Published;
use crate::openapi::Piece;
use crate::reply;

impl Edge {
    /// Whether a request is for a document or a page of the edge.
    pub(super) fn is_documented(&self, head: &Parts, published: &Published) -> bool {
        let path = head.uri.path();
        let is_told = self.config.openapi && head.method == Method::GET;
        self.is_asked_for_health(head)
            || is_told
                && (Piece::at(path).is_some()
                    || published.documents.at(path, &published.routes, &self.traffic.all).is_some())
    }

    /// The document or the page that a request asks for. `None` where it asks for something else, or none is to be told.
    pub(super) fn documented(
        &self,
        head: &Parts,
        published: &Published,
        record: &mut Record,
    ) -> Option<Response<Body>> {
        if self.is_asked_for_health(head) {
            record.routed("health", "", "edge");
            return Some(self.health_over_http());
        }
        if !self.config.openapi || head.method != Method::GET {
            return None;
        }
        let path = head.uri.path();
        if let Some(Piece { text, content_type }) = Piece::at(path) {
            record.routed("/docs", "", "edge");
            let mut answer = told(text.as_bytes(), content_type);
            let headers = answer.headers_mut();
            headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(Piece::POLICY));
            headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
            return Some(answer);
        }
        let document = published.documents.at(path, &published.routes, &self.traffic.all)?;
        record.routed("/openapi.json", "", "edge");
        let mark = HeaderValue::try_from(&*document.mark).ok()?;
        let known = head.headers.get_all(header::IF_NONE_MATCH).into_iter();
        let is_known = known.flat_map(|marks| marks.as_bytes().split(|byte| *byte == b',')).any(|known| {
            let known = known.trim_ascii();
            known == b"*" || known.strip_prefix(b"W/").unwrap_or(known) == mark.as_bytes()
        });
        let mut answer = told(&[], "application/json");
        if is_known {
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            *answer.body_mut() = reply::body(document.body);
        }
        answer.headers_mut().insert(header::ETAG, mark);
        Some(answer)
    }
}

impl Edge {
    /// Whether a request asks, by HTTP, how the edge is.
    fn is_asked_for_health(&self, head: &Parts) -> bool {
        let path = self.config.health_path.as_deref();
        path == Some(head.uri.path()) && (head.method == Method::GET || head.method == Method::HEAD)
    }

    /// For balancers that speak no gRPC. An edge that knows no routes yet answers 503 to everything.
    fn health_over_http(&self) -> Response<Body> {
        if self.stop.is_asked() {
            let mut answer = told(b"{\"status\":\"NOT_SERVING\"}", "application/json");
            *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            return answer;
        }
        told(b"{\"status\":\"SERVING\"}", "application/json")
    }
}

fn told(body: &'static [u8], content_type: &'static str) -> Response<Body> {
    let mut answer = Response::new(reply::body(body));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    // Asked for again each time, but sent again only when it has changed.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
