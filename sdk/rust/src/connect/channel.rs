//! A way to call a service, whoever keeps it.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::error::Error as _;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::HeaderValue;
use http::header::{TE, USER_AGENT};
use hyper::body::Incoming;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::Service;
use tracing::{Instrument as _, Span};

use crate::connect::answer::{Answer, Listener};
use crate::connect::breaker::Verdict;
use crate::connect::connection::SendError;
use crate::connect::endpoint::{MARK, Ticket, address_to};
use crate::connect::error::Error;
use crate::connect::policy::{self, Policy};
use crate::connect::pool::{Ask, Pool};
use crate::connect::replay::Replay;
use crate::connect::{Among, AnsweredBy, Idempotent, deadline, trace};
use crate::fault::{self, Kind};
use crate::telemetry;

type Request = http::Request<Body>;
type Response = http::Response<Body>;

/// The shortest and the longest wait before a call is repeated.
const REPEAT_WAIT_MS: std::ops::RangeInclusive<u64> = 10..=50;
/// A server's word on when to repeat a call, or not to.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// A way to call a service: a tower service that generated clients take unchanged. Clones are cheap and share endpoints.
///
/// Always ready; what there is to wait for is waited for in the call. Never fails: what keeps a call from being
/// answered becomes an answer with a status. Dropping a call's future, or the answer's body, cancels the call.
#[derive(Clone, Debug)]
pub struct Channel {
    pool: Arc<Pool>,
    policy: Arc<policy::Live>,
}

impl Channel {
    pub(crate) fn new(pool: Arc<Pool>, policy: Policy) -> Self {
        Self { policy: pool.policy(policy), pool }
    }

    /// Name of the service that is called.
    pub fn service(&self) -> &str {
        &self.pool.around.service
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
        let span = trace::client_span(self.service(), request.uri().path());
        let call = Call::new(self, request, span.clone());
        call.answer().instrument(span).map(Ok).boxed()
    }
}

/// One call, through all its attempts.
struct Call {
    pool: Arc<Pool>,
    policy: Arc<Policy>,
    head: http::request::Parts,
    body: Replay,
    among: Option<Arc<BTreeSet<String>>>,
    may_repeat: bool,
    started: Instant,
    /// When the whole call ends, if its caller said so.
    end: Option<Instant>,
    span: Span,
}

/// How an attempt failed.
enum Failure {
    /// Nobody can have begun to work on it.
    Unsent(Error),
    /// An instance may have begun to work on it.
    Lost(Error),
    /// The instance said that it is not available, and perhaps when to come again.
    Refused(Box<Response>, Option<Pushback>),
    /// No attempt can mend it.
    Final(Error),
}

#[derive(Clone, Copy)]
enum Pushback {
    After(Duration),
    Never,
}

impl Call {
    fn new(channel: &Channel, request: Request, span: Span) -> Self {
        let started = Instant::now();
        let policy = channel.policy.now().clone();
        let (mut head, body) = request.into_parts();
        let own = deadline::left(&head.headers).map(|left| started + left);
        let end = own.into_iter().chain(deadline::current()).min();
        head.headers.entry(TE).or_insert(HeaderValue::from_static("trailers"));
        head.headers
            .entry(USER_AGENT)
            .or_insert(HeaderValue::from_static(concat!("ninefold/", env!("CARGO_PKG_VERSION"))));
        telemetry::inject(&span, &mut head.headers);
        Self {
            may_repeat: policy.rules(head.uri.path()).is_idempotent || head.extensions.get::<Idempotent>().is_some(),
            among: head.extensions.get::<Among>().map(|among| among.0.clone()),
            body: Replay::new(body, policy.replay_bytes_max),
            head,
            pool: channel.pool.clone(),
            policy,
            started,
            end,
            span,
        }
    }

    fn ask(&self) -> Ask<'_> {
        Ask::new(self.head.uri.path(), &self.head.headers, &self.policy, self.among.as_deref())
    }

    fn rules(&self) -> policy::Rules<'_> {
        self.policy.rules(self.head.uri.path())
    }

    async fn answer(self) -> Response {
        match self.run().await {
            Ok(response) => response,
            Err(error) => {
                let status = fault::status(&error);
                tracing::debug!(error = %fault::chain(&error), "a call was not answered");
                trace::finish(&self.span, status.code(), status.message());
                status.into_http()
            }
        }
    }

    async fn run(&self) -> Result<Response, Error> {
        self.pool.deposit();
        let mut tried = Vec::new();
        let mut attempts = 1;
        let mut ticket = self.wait_for_instance().await?;
        loop {
            self.span.record("attempts", attempts);
            let key = ticket.endpoint.key();
            let failure = match self.attempt(ticket).await {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            let wait = if attempts < self.rules().retry.attempts_max { self.repeat_after(&failure) } else { None };
            let Some(wait) = wait else { return failure.into_answer() };
            if self.end.is_some_and(|end| Instant::now() + wait >= end) {
                return failure.into_answer();
            }
            tokio::time::sleep(wait).await;
            tried.push(key);
            let next = match self.pool.pick(&self.ask(), &tried) {
                Some(ticket) => Ok(ticket),
                // It is alone, and does not want the call.
                None if matches!(failure, Failure::Refused(..)) => return failure.into_answer(),
                None => self.wait_for_instance().await,
            };
            let Ok(next) = next else { return failure.into_answer() };
            ticket = next;
            attempts += 1;
            self.pool.around.observer.repeated(&self.pool.around.service);
        }
    }

    async fn wait_for_instance(&self) -> Result<Ticket, Error> {
        let now = Instant::now();
        if self.end.is_some_and(|end| end <= now) {
            return Err(self.late());
        }
        let most = now + self.rules().timeouts.ready;
        let end = self.end.map_or(most, |end| end.min(most));
        self.pool.pick_until(&self.ask(), end).await
    }

    /// How long to wait before the call is repeated. `None` if it is not to be.
    fn repeat_after(&self, failure: &Failure) -> Option<Duration> {
        if !self.body.is_repeatable() {
            return None;
        }
        let jittered = || Duration::from_millis(fastrand::u64(REPEAT_WAIT_MS));
        match failure {
            // Nobody worked on it, so it costs nobody anything.
            Failure::Unsent(_) => Some(Duration::ZERO),
            Failure::Lost(_) | Failure::Refused(_, None) => (self.may_repeat && self.pool.withdraw()).then(jittered),
            Failure::Refused(_, Some(Pushback::After(wait))) => {
                (self.may_repeat && self.pool.withdraw()).then_some(*wait)
            }
            Failure::Refused(_, Some(Pushback::Never)) | Failure::Final(_) => None,
        }
    }

    async fn attempt(&self, ticket: Ticket) -> Result<Response, Failure> {
        let mut request = http::Request::from_parts(self.head.clone(), self.body.body());
        address_to(&mut request, &ticket.endpoint.authority);
        if let Some(end) = self.end {
            deadline::write(request.headers_mut(), end.saturating_duration_since(Instant::now()));
        }
        self.span.record("instance", &*ticket.endpoint.instance_id);
        let sent = tokio::select! {
            biased;
            sent = ticket.line.send(request) => sent,
            () = self.patience() => {
                let late = self.late();
                ticket.finish(Verdict::Failure(&late.to_string()));
                return Err(Failure::Final(late));
            }
        };
        match sent {
            Ok(response) => self.take(ticket, response),
            Err(failure) => Err(self.failed(ticket, failure)),
        }
    }

    /// Waits as long as response headers may take: until the call's end, or for the policy's deadline, counted anew
    /// while the caller is still sending.
    async fn patience(&self) {
        match self.end {
            Some(end) => tokio::time::sleep_until(end).await,
            None => loop {
                tokio::time::sleep(self.rules().timeouts.call).await;
                if self.body.has_ended() {
                    return;
                }
            },
        }
    }

    fn take(&self, ticket: Ticket, response: http::Response<Incoming>) -> Result<Response, Failure> {
        let (mut head, body) = response.into_parts();
        head.extensions.insert(AnsweredBy {
            service: self.pool.around.service.clone(),
            instance_id: ticket.endpoint.instance_id.clone(),
            address: ticket.endpoint.authority.clone(),
        });
        let status = Status::from_header_map(&head.headers);
        let is_refused = status.as_ref().is_some_and(|status| status.code() == Code::Unavailable);
        if status.as_ref().is_none_or(|status| status.code() == Code::Ok) {
            ticket.answered();
        }
        let pushback = head.headers.get(PUSHBACK).map(|value| {
            let wait = value.to_str().ok().and_then(|text| text.parse().ok());
            wait.map_or(Pushback::Never, |wait| Pushback::After(Duration::from_millis(wait)))
        });
        let is_failed = status.as_ref().is_some_and(|status| status.code() != Code::Ok);
        let listener = Watch {
            service: self.pool.around.service.clone(),
            instance_id: ticket.endpoint.instance_id.clone(),
            ticket: Some(ticket),
            started: self.started,
            span: self.span.clone(),
        };
        let answer = Answer::new(&head.headers, body, listener, self.end);
        if is_failed {
            mark(&mut head.headers, &self.pool.around.service);
        }
        let response = Response::from_parts(head, Body::new(answer));
        if is_refused { Err(Failure::Refused(Box::new(response), pushback)) } else { Ok(response) }
    }

    fn failed(&self, ticket: Ticket, failure: SendError) -> Failure {
        let service = self.pool.around.service.clone();
        let instance_id = ticket.endpoint.instance_id.clone();
        match failure {
            SendError::Unsent(source) => {
                ticket.line_is_over();
                // A connection that went away says nothing about the instance; connecting anew will.
                ticket.finish(Verdict::Nothing);
                Failure::Unsent(lost(service, instance_id, source))
            }
            // A server that ends calls at their deadline may be faster than this clock.
            SendError::Reset(_) if self.end.is_some_and(|end| end <= Instant::now()) => {
                let late = self.late();
                ticket.finish(Verdict::Failure(&late.to_string()));
                Failure::Final(late)
            }
            SendError::Reset(source) | SendError::Lost(source) => {
                let error = broken(service, instance_id, source);
                ticket.finish(Verdict::Failure(&fault::chain(&error)));
                Failure::Lost(error)
            }
        }
    }

    fn late(&self) -> Error {
        late(&self.pool.around.service, self.started)
    }
}

impl Failure {
    fn into_answer(self) -> Result<Response, Error> {
        match self {
            Self::Refused(response, _) => Ok(*response),
            Self::Unsent(error) | Self::Lost(error) | Self::Final(error) => Err(error),
        }
    }
}

/// Watches an answer to its end.
struct Watch {
    service: Arc<str>,
    instance_id: Arc<str>,
    ticket: Option<Ticket>,
    started: Instant,
    span: Span,
}

impl Listener<hyper::Error> for Watch {
    fn broken(&self, error: hyper::Error) -> Error {
        broken(self.service.clone(), self.instance_id.clone(), error)
    }

    fn late(&self) -> Error {
        late(&self.service, self.started)
    }

    fn mark(&self, trailers: &mut http::HeaderMap) {
        mark(trailers, &self.service);
    }

    fn ended(&mut self, status: &Status) {
        trace::finish(&self.span, status.code(), status.message());
        if let Some(ticket) = self.ticket.take() {
            ticket.finish_with(status);
        }
    }
}

/// Notes where a call failed, for whoever the status is passed on to. What was noted before stays.
fn mark(headers: &mut http::HeaderMap, service: &str) {
    if let Ok(value) = HeaderValue::from_str(service) {
        headers.entry(MARK).or_insert(value);
    }
}

fn late(service: &Arc<str>, started: Instant) -> Error {
    Error::Deadline { service: service.clone(), after: started.elapsed() }
}

fn lost(service: Arc<str>, instance_id: Arc<str>, source: hyper::Error) -> Error {
    Error::ConnectionLost { service, instance_id, source: Arc::new(source) }
}

/// What a broken stream means: the instance gave the call up, or the connection is gone.
fn broken(service: Arc<str>, instance_id: Arc<str>, source: hyper::Error) -> Error {
    let cause = source.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    let Some(reason) = cause.filter(|cause| cause.is_reset()).and_then(h2::Error::reason) else {
        return lost(service, instance_id, source);
    };
    let kind = match reason {
        h2::Reason::REFUSED_STREAM => Kind::Unavailable,
        h2::Reason::ENHANCE_YOUR_CALM => Kind::Exhausted,
        h2::Reason::INADEQUATE_SECURITY => Kind::Denied,
        // Also CANCEL: the caller did not cancel, so the callee broke off.
        _ => Kind::Internal,
    };
    Error::StreamReset { service, instance_id, kind, source: Arc::new(source) }
}
