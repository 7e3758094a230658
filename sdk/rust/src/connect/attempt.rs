//! One attempt of a call at one endpoint, and what its end means.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::HeaderValue;
use hyper::body::Incoming;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tracing::Span;

use crate::connect::answer::{Answer, End, Listener};
use crate::connect::breaker::Verdict;
use crate::connect::call::Course;
use crate::connect::channel::Response;
use crate::connect::connection::SendError;
use crate::connect::endpoint::{FAILED_AT, Ticket};
use crate::connect::error::Error;
use crate::connect::policy::BalancingMethod;
use crate::connect::{AnsweredBy, PUSHBACK, deadline, orca, plain, trace};
use crate::fault::{self, Kind};

/// How an attempt failed.
pub(crate) enum Failure {
    /// Nobody can have begun to work on it.
    Unsent(Error),
    /// An instance may have begun to work on it.
    Lost(Error),
    /// The attempt's time ran out, not the call's.
    Slow(Error),
    /// The instance refused, and perhaps said when to come again.
    Refused {
        /// What it said.
        code: Code,
        /// All that it said.
        response: Box<Response>,
        /// When to come again.
        pushback: Option<Pushback>,
    },
    /// No attempt can mend it.
    Final(Error),
}

/// A server's word on when to come again.
#[derive(Clone, Copy)]
pub(crate) enum Pushback {
    /// After this time.
    After(Duration),
    /// Not at all.
    Never,
}

impl Failure {
    pub(crate) fn into_answer(self) -> Result<Response, Error> {
        match self {
            Self::Refused { response, .. } => Ok(*response),
            Self::Unsent(error) | Self::Lost(error) | Self::Slow(error) | Self::Final(error) => Err(error),
        }
    }
}

/// A ticket while it is waited for. Given up because another attempt won, it was slow at least so long.
struct Waiting<'a> {
    course: &'a Course,
    ticket: Option<Ticket>,
}

impl Waiting<'_> {
    async fn send(
        &self,
        request: http::Request<Body>,
    ) -> Result<Result<http::Response<Incoming>, SendError>, Impatient> {
        let ticket = self.ticket.as_ref().expect("only dropping it takes it before");
        Ok(ticket.line.send(request).await)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take()
            && self.course.is_won.load(Ordering::Relaxed)
        {
            ticket.observe();
        }
    }
}

/// Whose patience ended.
enum Impatient {
    Call,
    Attempt,
}

impl Course {
    /// Asks one endpoint, and waits for the headers of its answer. Dropped, it cancels the call there.
    pub(crate) async fn attempt(&self, ticket: Ticket) -> Result<Response, Failure> {
        let began = Instant::now();
        let mut head = self.head.clone();
        ticket.line.address(&mut head);
        if let Some(end) = self.end.filter(|_| !self.is_plain()) {
            deadline::write(&mut head.headers, end.saturating_duration_since(began));
        }
        let request = http::Request::from_parts(head, self.body.body());
        self.span.record("instance", &*ticket.endpoint.instance_id);
        let mut waiting = Waiting { course: self, ticket: Some(ticket) };
        let sent = tokio::select! {
            biased;
            sent = waiting.send(request) => sent,
            impatient = self.patience(began) => Err(impatient),
        };
        let ticket = waiting.ticket.take().expect("only dropping it takes it before");
        match sent {
            Ok(Ok(response)) => self.take(ticket, response, began),
            Ok(Err(failure)) => Err(self.failed(ticket, failure)),
            Err(impatient) => {
                let late = self.late();
                ticket.finish(Verdict::Failure(&late.to_string()));
                Err(match impatient {
                    Impatient::Call => Failure::Final(late),
                    Impatient::Attempt => Failure::Slow(late),
                })
            }
        }
    }

    /// Waits as long as response headers may take: until the call's end, or for the policy's deadline, counted anew
    /// while the caller is still sending; and no longer than an attempt may take.
    async fn patience(&self, began: Instant) -> Impatient {
        let timeouts = &self.manners().timeouts;
        let attempt_end = timeouts.attempt.map(|most| began + most);
        if let Some(end) = self.end {
            return match attempt_end.filter(|at| *at < end) {
                Some(at) => {
                    tokio::time::sleep_until(at).await;
                    Impatient::Attempt
                }
                None => {
                    tokio::time::sleep_until(end).await;
                    Impatient::Call
                }
            };
        }
        let (wait, whose) = match timeouts.attempt {
            Some(most) if most < timeouts.call => (most, Impatient::Attempt),
            _ => (timeouts.call, Impatient::Call),
        };
        loop {
            tokio::time::sleep(wait).await;
            if self.body.has_ended() {
                return whose;
            }
        }
    }

    fn take(
        &self,
        mut ticket: Ticket,
        response: http::Response<Incoming>,
        began: Instant,
    ) -> Result<Response, Failure> {
        let (mut head, body) = response.into_parts();
        let service = &self.pool.around.service;
        let instance_id = ticket.endpoint.instance_id.clone();
        head.extensions.insert(AnsweredBy {
            service: service.clone(),
            instance_id: instance_id.clone(),
            address: ticket.endpoint.authority.clone(),
        });
        let code = if self.is_plain() {
            Some(plain::code(head.status))
        } else {
            head.headers.get(Status::GRPC_STATUS).map(|status| Code::from_bytes(status.as_bytes()))
        };
        if code.is_none_or(|code| code == Code::Ok) {
            ticket.answered();
        }
        let now = self.pool.now();
        match code {
            Some(Code::ResourceExhausted) => self.pool.restraint.refused(now),
            _ => self.pool.restraint.accepted(&self.method, self.priority, now, began.elapsed()),
        }
        let pushback = if self.is_plain() {
            plain::retry_after(&head.headers).map(Pushback::After)
        } else {
            head.headers.get(PUSHBACK).map(|value| {
                let wait = value.to_str().ok().and_then(|text| text.parse().ok());
                wait.map_or(Pushback::Never, |wait| Pushback::After(Duration::from_millis(wait)))
            })
        };
        let listener = Watch {
            service: service.clone(),
            instance_id,
            ticket: Some(ticket),
            is_weighed: self.policy.balancing.method == BalancingMethod::WeightedRoundRobin,
            started: self.started,
            span: self.span.clone(),
        };
        let response = if self.is_plain() {
            self.span.record("http.response.status_code", head.status.as_u16());
            let answer = plain::Answer::new(body, head.status, listener);
            Response::from_parts(head, Body::new(answer))
        } else {
            let answer = Answer::new(&head.headers, body, listener, self.end);
            if code.is_some_and(|code| code != Code::Ok) {
                mark(&mut head.headers, service);
            }
            Response::from_parts(head, Body::new(answer))
        };
        match code {
            Some(code)
                if code != Code::Ok && (self.manners().retry.codes.has(code) || code == Code::ResourceExhausted) =>
            {
                Err(Failure::Refused { code, response: Box::new(response), pushback })
            }
            _ => Ok(response),
        }
    }

    fn failed(&self, ticket: Ticket, failure: SendError) -> Failure {
        let service = self.pool.around.service.clone();
        let instance_id = ticket.endpoint.instance_id.clone();
        match failure {
            SendError::Unreached(cause) => {
                // The keeper of the endpoint connects anew, and tells the breaker how that went.
                ticket.finish(Verdict::Nothing);
                Failure::Unsent(Error::Unreachable { service, source: Some(cause) })
            }
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
            // The caller's own body broke off.
            SendError::Lost(source) if source.is_user() => {
                ticket.finish(Verdict::Nothing);
                Failure::Final(lost(service, instance_id, source))
            }
            SendError::Reset(source) | SendError::Lost(source) => {
                let error = broken(service, instance_id, source);
                ticket.finish(Verdict::Failure(&fault::chain(&error)));
                Failure::Lost(error)
            }
        }
    }
}

/// Watches an answer to its end.
struct Watch {
    service: Arc<str>,
    instance_id: Arc<str>,
    ticket: Option<Ticket>,
    /// Whether what the instance says of its load decides how often it is called.
    is_weighed: bool,
    started: Instant,
    span: Span,
}

impl Listener<hyper::Error> for Watch {
    fn broken(&self, error: hyper::Error) -> Error {
        broken(self.service.clone(), self.instance_id.clone(), error)
    }

    fn late(&self) -> Error {
        Error::Deadline { service: self.service.clone(), after: self.started.elapsed() }
    }

    fn heard(&self, trailers: &http::HeaderMap) {
        if let Some(ticket) = self.ticket.as_ref().filter(|_| self.is_weighed)
            && let Some(report) = orca::report(trailers)
        {
            let utilization = report.application_utilization.max(report.cpu_utilization);
            ticket.endpoint.report_load(report.rps_fractional, report.eps, utilization);
        }
    }

    fn mark(&self, trailers: &mut http::HeaderMap) {
        mark(trailers, &self.service);
    }

    fn ended(&mut self, end: End<'_>) {
        trace::finish(&self.span, end.status.code(), end.status.message());
        let Some(ticket) = self.ticket.take() else { return };
        if end.is_begun && end.status.code() == Code::DeadlineExceeded {
            // A stream, quiet or not, that went on for as long as its caller wanted to listen.
            ticket.finish(Verdict::Success);
            return;
        }
        match end.broken {
            // Not by its status: that one looks as if the instance had passed on the failure of another.
            Some(broken) => ticket.finish(Verdict::Failure(&fault::chain(broken))),
            None => ticket.finish_with(end.status),
        }
    }
}

/// Notes where a call failed, for whoever the status is passed on to. What was noted before stays.
fn mark(headers: &mut http::HeaderMap, service: &str) {
    if let Ok(value) = HeaderValue::from_str(service) {
        headers.entry(FAILED_AT).or_insert(value);
    }
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
