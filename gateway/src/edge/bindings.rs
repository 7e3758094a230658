//! REST without a landscape: the HTTP bindings of one set of contracts, answered through one link.
//!
//! The platform speaks so to whoever has nothing but HTTP: each of its methods with a `google.api.http` rule, read and
//! written as the edge does it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, Version, header};
use ninefold::Link;
use ninefold::connect::deadline;
use ninefold::lifecycle::Stop;
use ninefold::tonic::Status;
use ninefold::tonic::body::Body;
use tokio::time::Instant;
use tower::ServiceExt as _;

use super::rest::{self, Call, Pace, Patience};
use crate::access::Outcome;
use crate::config::Config;
use crate::contract;
use crate::error::Error;
use crate::frames::{Frames, Packing};
use crate::routes::{Kept, Route, Routes};
use crate::table::Found;
use crate::{guard, reply};

/// The name that answers of the platform itself go by.
const PLATFORM: &str = "platform";

/// Answers HTTP requests by the bindings of contracts. Clones share them.
#[derive(Clone)]
pub struct Bindings(Arc<Inner>);

struct Inner {
    routes: Routes,
    link: Link,
    config: Config,
    stop: Stop,
}

impl fmt::Debug for Bindings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Bindings").field("routes", &self.0.routes.len()).finish_non_exhaustive()
    }
}

impl Bindings {
    /// Reads the bindings of a serialized `google.protobuf.FileDescriptorSet`; calls go through `link`, with the headers of
    /// their requests. Streams end when `stop` is asked.
    ///
    /// # Errors
    /// Why the descriptors cannot be read, or one of their bindings cannot be had.
    pub fn new(descriptor_set: &[u8], link: Link, stop: Stop) -> Result<Self, String> {
        let contract = Arc::new(contract::read(descriptor_set)?);
        let protobuf_services = contract.methods.iter().map(|method| method.protobuf_service.clone()).collect();
        let kept = Kept {
            service: PLATFORM.into(),
            digest: "".into(),
            protobuf_services: Arc::new(protobuf_services),
            contract: Ok(contract),
            created: SystemTime::UNIX_EPOCH,
            is_live: true,
        };
        let routes = Routes::build(&[kept], &Routes::default());
        match routes.refusals.first() {
            Some(refusal) => Err(refusal.reason.clone()),
            None => Ok(Self(Arc::new(Inner { routes, link, config: Config::default(), stop }))),
        }
    }

    /// Answers a request. Whatever happens becomes an answer.
    pub async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        self.0.answer(head, body).await.unwrap_or_else(|error| reply::of_error(&error))
    }
}

impl Inner {
    async fn answer(&self, head: Parts, body: Body) -> Result<Response<Body>, Error> {
        let path = guard::check(&head, &self.config)?;
        let (route, path) = match self.routes.rest(head.method.as_str(), path) {
            Found::Value { value, path } => (value, path),
            Found::OtherVerbs(allowed) => {
                let verb = rest::shown(head.method.as_str());
                return Err(Error::VerbNotAllowed { verb, allowed: allowed.into_iter().collect() });
            }
            Found::Nothing => {
                let (verb, path) = (rest::shown(head.method.as_str()), rest::shown(head.uri.path()));
                return Err(Error::RouteUnknown { verb, path });
            }
        };
        let binding = route.binding.as_deref().expect("routes in the REST table have a binding");
        rest::check_encoding(&head.headers)?;
        let time = self.time_for(route, &head);
        let notation = route.method.notation;
        let read_by = rest::Reading { route, path: &path, notation, promise: None };
        let (message, upload) = rest::message(&self.config, &read_by, &head, body).await?;
        let end = time.map(|time| (time, Instant::now() + time));
        let patience = Patience { deadline: self.config.deadline, end, upload };
        let call = Call { route, binding, notation, outcome: Outcome::default(), upload: patience.upload.clone() };
        let answer = match patience.within(self.link.clone().oneshot(request(&head, route, message, time))).await? {
            Ok(answer) => answer,
            Err(error) => return call.failed(&Status::from_error(error)),
        };
        let (answer, body) = answer.into_parts();
        if let Some(status) = rest::failed_at_once(&answer) {
            return call.failed(&status);
        }
        let packing = Packing::of(&answer.headers, "grpc-encoding");
        let frames = Frames::new(body, self.config.answer_bytes_max).packed(packing);
        let mut response = if route.method.is_server_streaming {
            let end = end.map(|(_, end)| end);
            let pace = Pace { stop: self.stop.clone(), heartbeat: self.config.heartbeat, end };
            rest::stream(&call, frames, &head.headers, pace).await?
        } else {
            patience.within(call.one(frames)).await??
        };
        rest::copy_metadata(&answer.headers, response.headers_mut());
        Ok(response)
    }

    /// As at the edge: what the caller says, and for calls that are no streams the longest time at most.
    fn time_for(&self, route: &Route, head: &Parts) -> Option<Duration> {
        let asked = deadline::left(&head.headers);
        let most = self.config.deadline;
        if route.method.is_server_streaming || route.method.is_client_streaming {
            asked
        } else {
            Some(asked.unwrap_or(most).min(most))
        }
    }
}

/// The call that a request becomes. What says who asks stays with it.
fn request(head: &Parts, route: &Route, message: Body, time: Option<Duration>) -> Request<Body> {
    let mut request = Request::new(message);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = route.method.path.clone().into();
    *request.version_mut() = Version::HTTP_2;
    let mut headers = head.headers.clone();
    guard::strip_hop_by_hop(&mut headers);
    headers.remove(header::HOST);
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    rest::dress(&mut headers, time);
    *request.headers_mut() = headers;
    // Who is at the other end, as the server knows it.
    *request.extensions_mut() = head.extensions.clone();
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_platform_has_a_binding_for_each_of_its_methods_that_http_can_carry() {
        let (link, _) = Link::later();
        let scope = ninefold::lifecycle::Scope::root("test");
        let bindings = Bindings::new(ninefold_proto::DESCRIPTOR_SET, link.clone(), scope.stop()).unwrap();
        assert!(bindings.0.routes.len() > 20);
        assert!(Bindings::new(b"\xff", link, scope.stop()).is_err());
    }

    #[tokio::test]
    async fn what_has_no_binding_is_said_so() {
        let (link, _) = Link::later();
        let scope = ninefold::lifecycle::Scope::root("test");
        let bindings = Bindings::new(ninefold_proto::DESCRIPTOR_SET, link, scope.stop()).unwrap();
        for (verb, path, status) in
            [("GET", "/v1/nothing", 404), ("DELETE", "/v1/services", 405), ("GET", "/v1/services", 503)]
        {
            let request = Request::builder().method(verb).uri(path).header("host", "localhost");
            let answer = bindings.answer(request.body(Body::empty()).unwrap()).await;
            assert_eq!(answer.status(), status, "{verb} {path}");
        }
    }
}
