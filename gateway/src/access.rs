//! Remembers one request from its first byte to the last of its answer: a span, a trace id, one line in the log.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use ninefold::connect::AnsweredBy;
use ninefold::telemetry::Requests;
use ninefold::tonic::body::Body;
use ninefold::tonic::{Code, Status};
use ninefold::{fault, telemetry};
use tracing::Span;
use tracing::field::Empty;

/// A code that nobody said yet.
const UNKNOWN: i32 = -1;

/// The gRPC code of a request's answer, which may be known only at its end. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Outcome(Arc<AtomicI32>);

impl Default for Outcome {
    fn default() -> Self {
        Self(Arc::new(AtomicI32::new(UNKNOWN)))
    }
}

impl Outcome {
    /// Notes the code that headers or trailers hold, if they hold one.
    pub(crate) fn note(&self, headers: &HeaderMap) {
        if let Some(status) = headers.get("grpc-status") {
            self.set(Code::from_bytes(status.as_bytes()));
        }
    }

    /// Notes a code.
    pub(crate) fn set(&self, code: Code) {
        self.0.store(code.into(), Ordering::Relaxed);
    }

    fn code(&self) -> Option<Code> {
        let code = self.0.load(Ordering::Relaxed);
        (code != UNKNOWN).then(|| Code::from_i32(code))
    }
}

/// What is remembered of a request.
#[derive(Debug)]
pub(crate) struct Record {
    /// The request's span.
    pub(crate) span: Span,
    /// The gRPC code of the answer.
    pub(crate) outcome: Outcome,
    /// What the request speaks, such as `rest`.
    pub(crate) protocol: &'static str,
    trace_id: String,
    is_recorded: bool,
    requests: Requests,
    verb: &'static str,
    began: Instant,
    template: String,
    answered_by: Option<AnsweredBy>,
    status: StatusCode,
    is_ended: bool,
}

impl Record {
    /// Begins with a request: continues its trace, or starts one.
    pub(crate) fn begin(method: &http::Method, headers: &HeaderMap, requests: Requests) -> Self {
        let verb = known_verb(method);
        let span = tracing::info_span!(
            "gateway.request",
            otel.name = verb,
            otel.kind = "server",
            otel.status_code = Empty,
            http.request.method = verb,
            http.route = Empty,
            http.response.status_code = Empty,
            rpc.method = Empty,
        );
        telemetry::continue_trace(&span, headers);
        let recorded = telemetry::trace_id(&span);
        let is_recorded = recorded.is_some();
        let trace_id =
            recorded.or_else(|| trace_of(headers)).unwrap_or_else(|| format!("{:032x}", fastrand::u128(1..)));
        Self {
            span,
            outcome: Outcome::default(),
            protocol: "rest",
            trace_id,
            is_recorded,
            requests,
            verb,
            began: Instant::now(),
            template: String::new(),
            answered_by: None,
            // What holds if the client goes away before there is an answer.
            status: fault::http_status(Code::Cancelled),
            is_ended: false,
        }
    }

    /// Notes the route that the request takes.
    pub(crate) fn routed(&mut self, template: &str, method: &str) {
        template.clone_into(&mut self.template);
        telemetry::rename(&self.span, format!("{} {template}", self.verb));
        self.span.record("http.route", template);
        self.span.record("rpc.method", method);
    }

    /// Notes who answered.
    pub(crate) fn answered_by(&mut self, answered_by: Option<&AnsweredBy>) {
        self.answered_by = answered_by.cloned();
    }

    /// Writes the trace into the headers of a call, where no telemetry does.
    pub(crate) fn trace(&self, headers: &mut HeaderMap) {
        if self.is_recorded {
            return;
        }
        let parent = format!("00-{}-{:016x}-01", self.trace_id, fastrand::u64(1..));
        headers.insert("traceparent", HeaderValue::try_from(parent).expect("hex digits are a header value"));
    }

    /// Takes what is remembered along, to whoever sees the end of the request; what is left here tells of nothing any more.
    pub(crate) fn hand_over(&mut self) -> Self {
        let taken = Self {
            span: self.span.clone(),
            outcome: self.outcome.clone(),
            protocol: self.protocol,
            trace_id: self.trace_id.clone(),
            is_recorded: self.is_recorded,
            requests: self.requests.clone(),
            verb: self.verb,
            began: self.began,
            template: self.template.clone(),
            answered_by: self.answered_by.clone(),
            status: StatusCode::SWITCHING_PROTOCOLS,
            is_ended: self.is_ended,
        };
        self.is_ended = true;
        taken
    }

    /// Ends with the request.
    pub(crate) fn finish(mut self) {
        self.end(false);
    }

    /// Puts the trace id into an answer, and follows it to its end.
    pub(crate) fn follow(mut self, mut answer: http::Response<Body>) -> http::Response<Body> {
        let id = HeaderValue::try_from(self.trace_id.as_str()).expect("hex digits are a header value");
        answer.headers_mut().insert(telemetry::TRACE_ID_HEADER, id);
        self.status = answer.status();
        self.outcome.note(answer.headers());
        if answer.body().is_end_stream() {
            self.end(false);
        }
        answer.map(|body| Body::new(Followed { body, record: self }))
    }

    fn end(&mut self, is_cut: bool) {
        if std::mem::replace(&mut self.is_ended, true) {
            return;
        }
        let duration = self.began.elapsed();
        let duration_ms = (duration.as_secs_f64() * 1e6).round() / 1e3;
        self.requests.record(self.verb, &self.template, self.status.as_u16(), duration);
        let code = self.outcome.code();
        let is_our_failure = self.status.is_server_error()
            || matches!(
                code,
                Some(Code::Unknown | Code::Internal | Code::Unavailable | Code::DataLoss | Code::DeadlineExceeded)
            );
        self.span.record("http.response.status_code", self.status.as_u16());
        if is_our_failure {
            self.span.record("otel.status_code", "ERROR");
        }
        let (instance, address) = match &self.answered_by {
            Some(answered_by) => (&*answered_by.instance_id, &*answered_by.address),
            None => ("", ""),
        };
        self.span.in_scope(|| {
            tracing::info!(
                http.request.method = self.verb,
                http.route = self.template,
                http.response.status_code = self.status.as_u16(),
                grpc.code = code.map(tracing::field::debug),
                protocol = self.protocol,
                upstream.instance = instance,
                upstream.address = address,
                trace_id = self.trace_id,
                duration_ms,
                cut = is_cut,
                "request answered"
            );
        });
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // The client went away before the answer was complete.
        self.end(true);
    }
}

/// Strangers choose their methods; what is not one of these must not become a label.
fn known_verb(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "_OTHER",
    }
}

/// The trace that W3C Trace Context headers speak of.
fn trace_of(headers: &HeaderMap) -> Option<String> {
    let parent = headers.get("traceparent")?.to_str().ok()?;
    let id = parent.split('-').nth(1)?;
    let is_id = id.len() == 32
        && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        && id.bytes().any(|byte| byte != b'0');
    is_id.then(|| id.to_owned())
}

/// The body of an answer, followed to its end.
struct Followed {
    body: Body,
    record: Record,
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let entered = this.record.span.enter();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        drop(entered);
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    this.record.outcome.note(trailers);
                }
                if this.body.is_end_stream() {
                    this.record.end(false);
                }
            }
            Some(Err(_)) => this.record.end(true),
            None => this.record.end(false),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
