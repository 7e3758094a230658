//! A way to call a service, whoever keeps it.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tonic::Status;
use tonic::body::Body;
use tower::Service;
use tracing::Instrument as _;

use crate::connect::call::Call;
use crate::connect::fallback::Fallbacks;
use crate::connect::landscape::Protocol;
use crate::connect::method::Methods;
use crate::connect::plain;
use crate::connect::policy::{self, Policy};
use crate::connect::pool::Pool;
use crate::connect::trace;

pub(crate) type Request = http::Request<Body>;
pub(crate) type Response = http::Response<Body>;

/// A way to call a service: a tower service that generated clients take unchanged. Clones are cheap and share endpoints.
///
/// Always ready; what there is to wait for is waited for in the call. Never fails: what keeps a call from being
/// answered becomes an answer with a status. Dropping a call's future, or the answer's body, cancels the call.
#[derive(Clone, Debug)]
pub struct Channel {
    pub(crate) pool: Arc<Pool>,
    pub(crate) policy: Arc<policy::Live>,
    pub(crate) methods: Arc<Methods>,
    pub(crate) fallbacks: Fallbacks,
}

impl Channel {
    pub(crate) fn new(pool: Arc<Pool>, policy: Policy) -> Self {
        Self { policy: pool.policy(policy), pool, methods: Arc::default(), fallbacks: Fallbacks::default() }
    }

    /// Name of the service that is called.
    pub fn service(&self) -> &str {
        &self.pool.around.service
    }

    /// Answers calls of one method that cannot be made: when no instance can take them, when they are held back or
    /// refused for want of room, when their time is over or their connection is lost.
    ///
    /// `method` is its full name, such as `shop.review.v1.ReviewService/ListReviews`; it takes one message and gives one.
    /// `answer` is given the request and why there is no answer, and must not wait; `None` lets the failure through.
    /// The answer carries the extension [`FellBack`](crate::connect::FellBack). What an instance itself said, other than
    /// that it has no room, is never replaced.
    ///
    /// ```no_run
    /// # use ninefold::proto::ninefold::config::v1::{GetDocumentRequest, GetDocumentResponse};
    /// # fn example(app: &ninefold::App) {
    /// let config = app.channel("config").or_else(
    ///     "ninefold.config.v1.ConfigService/GetDocument",
    ///     |_: GetDocumentRequest, _| Some(GetDocumentResponse::default()),
    /// );
    /// # }
    /// ```
    #[must_use]
    pub fn or_else<Q, A, F>(mut self, method: &str, answer: F) -> Self
    where
        Q: prost::Message + Default,
        A: prost::Message,
        F: Fn(Q, &Status) -> Option<A> + Send + Sync + 'static,
    {
        self.fallbacks.add(method, answer);
        self
    }
}

impl Service<Request> for Channel {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let span = match self.pool.around.speech {
            Protocol::Grpc => {
                self.pool.around.observer.calls().note(request.uri().path());
                trace::client_span(self.service(), request.uri().path())
            }
            Protocol::Http => trace::plain_span(self.service(), plain::verb(request.method())),
        };
        let call = Call::begin(self, &request, &span);
        if span.is_disabled() {
            return call.answer(request).map(Ok).boxed();
        }
        call.answer(request).instrument(span).map(Ok).boxed()
    }
}
