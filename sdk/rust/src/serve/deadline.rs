//! Honours `grpc-timeout`: a call that takes longer is dropped and answered with DEADLINE_EXCEEDED.
//!
//! tonic's own timeout answers CANCELLED, which tells a caller that it went away itself.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::body::Body;
use tower::{Service, ServiceExt as _};

use crate::connect::deadline;
use crate::fault::{self, Fault, Kind};

/// The caller's time ran out before the answer was complete.
#[derive(Debug, thiserror::Error)]
#[error("the caller's deadline passed before the answer was complete")]
pub(super) struct Passed;

impl Fault for Passed {
    fn kind(&self) -> Kind {
        Kind::Deadline
    }

    fn reason(&self) -> &'static str {
        "DEADLINE_PASSED"
    }
}

/// A service whose calls end at their caller's deadline. Calls without one may take as long as they like.
#[derive(Clone, Debug)]
pub struct Deadlined<S>(S);

impl<S> Deadlined<S> {
    /// Ends the calls of `inner` at their deadlines.
    pub fn new(inner: S) -> Self {
        Self(inner)
    }
}

impl<S> Service<Request<Body>> for Deadlined<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let handler = self.0.clone();
        match deadline::left(request.headers()) {
            Some(timeout) => answer(handler, request, Instant::now() + timeout).boxed(),
            None => handler.oneshot(request).boxed(),
        }
    }
}

async fn answer<S>(handler: S, request: Request<Body>, at: Instant) -> Result<Response<Body>, Infallible>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    match tokio::time::timeout_at(at, deadline::scope(at, handler.oneshot(request))).await {
        Ok(response) => Ok(response?.map(|body| {
            if body.is_end_stream() {
                return body;
            }
            Body::new(Ending { inner: Some(body), at, end: Box::pin(tokio::time::sleep_until(at)) })
        })),
        Err(_) => Ok(fault::status(&Passed).into_http()),
    }
}

/// The body of an answer, cut off at the deadline.
struct Ending {
    /// Gone once the deadline has passed.
    inner: Option<Body>,
    at: Instant,
    end: Pin<Box<Sleep>>,
}

impl http_body::Body for Ending {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.inner else { return Poll::Ready(None) };
        // Streams call others too, while they are read.
        if let Poll::Ready(frame) = deadline::sync_scope(this.at, || Pin::new(body).poll_frame(context)) {
            return Poll::Ready(frame);
        }
        if this.end.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        this.inner = None;
        let mut trailers = HeaderMap::new();
        // A status of our own always fits into headers.
        let outcome = fault::status(&Passed).add_header(&mut trailers);
        Poll::Ready(Some(outcome.map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(SizeHint::default, http_body::Body::size_hint)
    }
}
