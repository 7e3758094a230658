//! One call, through all its attempts.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::HeaderValue;
use http::header::{TE, USER_AGENT};
use tokio::time::Instant;
use tonic::Code;
use tracing::Span;

use crate::connect::attempt::{Failure, Pushback};
use crate::connect::channel::{Channel, Request, Response};
use crate::connect::endpoint::{Key, Ticket};
use crate::connect::error::Error;
use crate::connect::fallback::is_refusal;
use crate::connect::landscape::Protocol;
use crate::connect::method::{Manners, Method};
use crate::connect::plain;
use crate::connect::policy::{Hedging, Policy};
use crate::connect::pool::{Ask, Pool};
use crate::connect::priority::{self, Priority};
use crate::connect::replay::Replay;
use crate::connect::{Among, Idempotent, Subset, deadline, trace};
use crate::fault;
use crate::telemetry;

/// A call that its caller has just made.
pub(crate) struct Call {
    channel: Channel,
    method: Arc<Method>,
    policy: Arc<Policy>,
    among: Option<Arc<BTreeSet<String>>>,
    subset: Option<Subset>,
    priority: Priority,
    is_idempotent: bool,
    started: Instant,
    /// When the whole call ends, if its caller said so.
    end: Option<Instant>,
    span: Span,
}

/// A call under way.
pub(crate) struct Course {
    pub(crate) pool: Arc<Pool>,
    pub(crate) method: Arc<Method>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) head: http::request::Parts,
    pub(crate) body: Replay,
    among: Option<Arc<BTreeSet<String>>>,
    subset: Option<Subset>,
    pub(crate) priority: Priority,
    is_idempotent: bool,
    pub(crate) started: Instant,
    pub(crate) end: Option<Instant>,
    pub(crate) span: Span,
    attempts: AtomicU32,
    /// Whether an attempt has won, so that the others are given up for being slow.
    pub(crate) is_won: AtomicBool,
}

impl Call {
    /// Takes what is known when the call is made: the work around it may be gone when it runs.
    pub(crate) fn begin(channel: &Channel, request: &Request, span: &Span) -> Self {
        let started = Instant::now();
        let policy = channel.policy.now().clone();
        let is_plain = channel.pool.around.speech == Protocol::Http;
        let path = if is_plain { plain::path(request.method()) } else { request.uri().path() };
        let method = channel.methods.get(path, &policy, &channel.pool.around.declared);
        let extensions = request.extensions();
        let end = deadline::left(request.headers()).map(|left| started + left);
        let end = end.into_iter().chain(deadline::current()).min();
        let end = match (end, method.manners.timeouts.call_max) {
            (Some(end), Some(most)) => Some(end.min(started + most)),
            (end, _) => end,
        };
        let said = extensions.get::<Priority>().copied().or_else(|| priority::of(request.headers()));
        Self {
            among: extensions.get::<Among>().map(|among| among.0.clone()),
            subset: extensions.get::<Subset>().cloned(),
            priority: said.or_else(priority::current).unwrap_or_default(),
            is_idempotent: method.manners.is_idempotent
                || extensions.get::<Idempotent>().is_some()
                || (is_plain && request.method().is_idempotent()),
            channel: channel.clone(),
            method,
            policy,
            started,
            end,
            span: span.clone(),
        }
    }

    /// Answers the call, whatever comes.
    pub(crate) async fn answer(self, request: Request) -> Response {
        let (mut head, body) = request.into_parts();
        // Nobody on the way reads them, and every attempt would copy them.
        head.extensions.clear();
        match self.channel.pool.around.speech {
            Protocol::Grpc => {
                head.headers.entry(TE).or_insert(HeaderValue::from_static("trailers"));
                head.headers
                    .entry(USER_AGENT)
                    .or_insert(HeaderValue::from_static(concat!("ninefold/", env!("CARGO_PKG_VERSION"))));
            }
            Protocol::Http => _ = head.headers.remove(deadline::HEADER),
        }
        priority::write(&mut head.headers, self.priority);
        telemetry::inject(&self.span, &mut head.headers);
        let body = Replay::new(body, self.method.manners.replay_bytes_max).await;
        let course = Course {
            pool: self.channel.pool.clone(),
            method: self.method,
            policy: self.policy,
            head,
            body,
            among: self.among,
            subset: self.subset,
            priority: self.priority,
            is_idempotent: self.is_idempotent,
            started: self.started,
            end: self.end,
            span: self.span,
            attempts: AtomicU32::new(0),
            is_won: AtomicBool::new(false),
        };
        let outcome = course.run().await;
        let path = course.path();
        if !self.channel.fallbacks.has(path) {
            return course.conclude(outcome);
        }
        let why = match &outcome {
            Ok(response) => tonic::Status::from_header_map(response.headers()),
            Err(error) => Some(fault::status(error)),
        };
        if let Some(why) = why.filter(|why| is_refusal(why.code()))
            && let Some(response) = self.channel.fallbacks.answer(path, &course.body, &why).await
        {
            tracing::debug!(code = ?why.code(), error = why.message(), "a call was answered by its fallback");
            trace::finish(&course.span, why.code(), why.message());
            return response;
        }
        course.conclude(outcome)
    }
}

impl Course {
    fn conclude(&self, outcome: Result<Response, Error>) -> Response {
        outcome.unwrap_or_else(|error| {
            let status = fault::status(&error);
            tracing::debug!(error = %fault::chain(&error), "a call was not answered");
            trace::finish(&self.span, status.code(), status.message());
            status.into_http()
        })
    }

    pub(crate) fn manners(&self) -> &Manners {
        &self.method.manners
    }

    /// Whether requests pass as they are.
    pub(crate) fn is_plain(&self) -> bool {
        self.pool.around.speech == Protocol::Http
    }

    /// The method, as policies name it.
    fn path(&self) -> &str {
        if self.is_plain() { plain::path(&self.head.method) } else { self.head.uri.path() }
    }

    fn ask(&self) -> Ask<'_> {
        Ask::new(self.path(), &self.head.headers, &self.policy, self.among.as_deref()).within(self.subset.as_ref())
    }

    async fn run(&self) -> Result<Response, Error> {
        let restraint = &self.pool.restraint;
        let now = self.pool.now();
        restraint.budget.deposit(now);
        let ready = self.started + self.manners().timeouts.ready;
        let ready = self.end.map_or(ready, |end| end.min(ready));
        if self.end.is_some_and(|end| end <= self.started) {
            return Err(self.late());
        }
        let _leave = restraint.leave(&self.method, self.priority, now, ready).await?;
        let mut tried = Vec::new();
        let mut ticket = self.pool.pick_until(&self.ask(), ready).await?;
        loop {
            let failure = match self.round(ticket, &mut tried).await {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            let Some(wait) = self.repeat_after(&failure) else { return failure.into_answer() };
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            ticket = match self.pool.pick(&self.ask(), &tried) {
                Some(ticket) => ticket,
                // It is alone, and does not want the call.
                None if matches!(failure, Failure::Refused { .. }) => return failure.into_answer(),
                None => {
                    let ready = Instant::now() + self.manners().timeouts.ready;
                    let ready = self.end.map_or(ready, |end| end.min(ready));
                    match self.pool.pick_until(&self.ask(), ready).await {
                        Ok(ticket) => ticket,
                        Err(_) => return failure.into_answer(),
                    }
                }
            };
            self.pool.around.observer.repeated(&self.pool.around.service);
        }
    }

    /// One attempt; or several at once, of which the first that is answered wins and the others are given up.
    async fn round(&self, ticket: Ticket, tried: &mut Vec<Key>) -> Result<Response, Failure> {
        let Some((hedging, delay)) = self.hedging() else { return self.count(ticket, tried).await };
        let mut under_way = FuturesUnordered::new();
        under_way.push(self.count(ticket, tried));
        let mut is_another_allowed = true;
        loop {
            let is_room = is_another_allowed && under_way.len() < usize::try_from(hedging.attempts_max).unwrap_or(2);
            tokio::select! {
                biased;
                Some(done) = under_way.next() => match done {
                    Ok(response) => {
                        self.is_won.store(true, Ordering::Relaxed);
                        return Ok(response);
                    }
                    Err(failure) if under_way.is_empty() => return Err(failure),
                    // The others may still be answered.
                    Err(_) => {}
                },
                () = tokio::time::sleep(delay), if is_room => match self.second(tried) {
                    Some(ticket) => under_way.push(self.count(ticket, tried)),
                    None => is_another_allowed = false,
                },
            }
        }
    }

    /// How this call is hedged. `None` if it is not.
    fn hedging(&self) -> Option<(&Hedging, Duration)> {
        let is_safe = self.is_idempotent && self.body.whole().is_some();
        let hedging = self.manners().hedging.as_ref().filter(|_| is_safe)?;
        let delay = hedging.delay.or_else(|| self.method.learned.most.get())?;
        Some((hedging, delay))
    }

    /// Another endpoint for a call that is under way, if there is one and the budget allows.
    fn second(&self, tried: &[Key]) -> Option<Ticket> {
        let ticket = self.pool.pick(&self.ask(), tried)?;
        if !self.pool.restraint.budget.withdraw(self.pool.now(), self.manners().allowance()) {
            return None;
        }
        self.pool.restraint.hedged();
        Some(ticket)
    }

    /// Notes an attempt, and makes it.
    fn count<'a>(
        &'a self,
        ticket: Ticket,
        tried: &mut Vec<Key>,
    ) -> impl Future<Output = Result<Response, Failure>> + use<'a> {
        tried.push(ticket.endpoint.key());
        let attempts = self.attempts.fetch_add(1, Ordering::Relaxed) + 1;
        self.span.record("attempts", attempts);
        self.attempt(ticket)
    }

    /// How long to wait before the call is repeated. `None` if it is not to be.
    fn repeat_after(&self, failure: &Failure) -> Option<Duration> {
        let (attempts, manners) = (self.attempts.load(Ordering::Relaxed), self.manners());
        if attempts >= manners.retry.attempts_max || !self.body.is_repeatable() {
            return None;
        }
        let usual = manners.wait(attempts + 1);
        let (is_allowed, is_free, wait) = match failure {
            // Nobody worked on it, so it costs nobody anything.
            Failure::Unsent(_) => (true, true, Duration::ZERO),
            Failure::Lost(_) | Failure::Slow(_) => (self.is_idempotent, false, usual),
            Failure::Refused { code, pushback, .. } => {
                // An instance that has no room, and says when to come again, has not begun to work on it.
                let is_unbegun = *code == Code::ResourceExhausted;
                let is_told = is_unbegun && matches!(pushback, Some(Pushback::After(_)));
                let is_allowed = is_told || (self.is_idempotent && manners.retry.codes.has(*code));
                match pushback {
                    Some(Pushback::Never) => return None,
                    Some(Pushback::After(wait)) => (is_allowed, false, *wait),
                    None => (is_allowed, false, usual),
                }
            }
            Failure::Final(_) => return None,
        };
        if !is_allowed {
            return None;
        }
        if let Some(end) = self.end {
            // An attempt that most likely comes too late only adds to what is wrong.
            let typical = if is_free { None } else { self.method.learned.half.get() };
            if Instant::now() + wait + typical.unwrap_or_default() >= end {
                return None;
            }
        }
        (is_free || self.pool.restraint.budget.withdraw(self.pool.now(), manners.allowance())).then_some(wait)
    }

    pub(crate) fn late(&self) -> Error {
        Error::Deadline { service: self.pool.around.service.clone(), after: self.started.elapsed() }
    }
}
