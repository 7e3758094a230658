//! Remembers one request from its first byte to the last of its answer: a span, a trace id, a measurement, one entry in the
//! access log.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use ninefold::connect::AnsweredBy;
use ninefold::telemetry::Requests;
use ninefold::telemetry::journal::{Entry, Gravity, Value};
use ninefold::tonic::body::Body;
use ninefold::tonic::{Code, Status};
use ninefold::{fault, telemetry};
use tracing::Span;
use tracing::field::Empty;

use crate::journal::Journal;
use crate::limit::Verdict;

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

/// How many bytes of a body came. Clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bytes(Arc<AtomicU64>);

impl Bytes {
    /// Counts some.
    pub(crate) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A body that is counted while it passes.
    pub(crate) fn counting(&self, body: Body) -> Body {
        Body::new(Counted { body, count: self.clone() })
    }

    fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed).try_into().unwrap_or(i64::MAX)
    }
}

/// A body that is counted.
struct Counted {
    body: Body,
    count: Bytes,
}

impl http_body::Body for Counted {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, Status>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            this.count.add(frame.data_ref().map_or(0, bytes::Bytes::len));
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

/// What is remembered of a request.
#[derive(Debug)]
pub(crate) struct Record {
    /// The request's span.
    pub(crate) span: Span,
    /// The gRPC code of the answer.
    pub(crate) outcome: Outcome,
    /// What the request speaks, such as `rest`.
    pub(crate) protocol: &'static str,
    /// Where it is told. `None` for nowhere.
    pub(crate) journal: Option<Journal>,
    /// Who asks, as far as that was proven.
    pub(crate) identity: String,
    /// What limits said of it.
    pub(crate) verdicts: Vec<Verdict>,
    /// How much of its body came.
    pub(crate) received: Bytes,
    trace_id: String,
    is_recorded: bool,
    requests: Requests,
    verb: &'static str,
    began: Instant,
    template: String,
    method: String,
    service: String,
    sent_at: Option<Duration>,
    answered_at: Option<Duration>,
    began_to_answer: Option<Duration>,
    answer_bytes: u64,
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
            journal: None,
            identity: String::new(),
            verdicts: Vec::new(),
            received: Bytes::default(),
            trace_id,
            is_recorded,
            requests,
            verb,
            began: Instant::now(),
            template: String::new(),
            method: String::new(),
            service: String::new(),
            sent_at: None,
            answered_at: None,
            began_to_answer: None,
            answer_bytes: 0,
            answered_by: None,
            // What holds if the client goes away before there is an answer.
            status: fault::http_status(Code::Cancelled),
            is_ended: false,
        }
    }

    /// Notes the route that the request takes.
    pub(crate) fn routed(&mut self, template: &str, method: &str, service: &str) {
        template.clone_into(&mut self.template);
        method.clone_into(&mut self.method);
        service.clone_into(&mut self.service);
        telemetry::rename(&self.span, || format!("{} {template}", self.verb));
        self.span.record("http.route", template);
        self.span.record("rpc.method", method);
    }

    /// Notes that the call of a request is made.
    pub(crate) fn sent(&mut self) {
        self.sent_at = Some(self.began.elapsed());
    }

    /// Notes who answered, at the head of the answer.
    pub(crate) fn answered_by(&mut self, answered_by: Option<&AnsweredBy>) {
        self.answered_at = Some(self.began.elapsed());
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
            method: self.method.clone(),
            service: self.service.clone(),
            sent_at: self.sent_at,
            answered_at: self.answered_at,
            began_to_answer: self.began_to_answer,
            answer_bytes: self.answer_bytes,
            journal: self.journal.take(),
            identity: self.identity.clone(),
            verdicts: Vec::new(),
            received: self.received.clone(),
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
        self.began_to_answer = Some(self.began.elapsed());
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
        let code = self.outcome.code();
        let is_our_failure = self.status.is_server_error()
            || matches!(
                code,
                Some(Code::Unknown | Code::Internal | Code::Unavailable | Code::DataLoss | Code::DeadlineExceeded)
            );
        let error = is_our_failure.then(|| match code {
            Some(code) if code != Code::Ok => word(code),
            Some(_) | None => "HTTP",
        });
        self.requests.record(self.verb, &self.template, self.status.as_u16(), error, duration);
        self.span.record("http.response.status_code", self.status.as_u16());
        if is_our_failure {
            self.span.record("otel.status_code", "ERROR");
        }
        if let Some(journal) = self.journal.take().filter(|one| one.tells(&self.template, is_our_failure, duration)) {
            journal.write(self.entry(code, is_our_failure, is_cut, duration));
        }
    }

    /// The request in the words of the access log.
    fn entry(&mut self, code: Option<Code>, is_our_failure: bool, is_cut: bool, duration: Duration) -> Entry {
        let millis = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        let status = self.status.as_u16();
        let shown = if self.template.is_empty() { "(no route)" } else { &self.template };
        let body = format!("{} {shown} {status} in {} ms", self.verb, millis(duration));
        let gravity = match () {
            () if is_our_failure => Gravity::Error,
            () if self.status.is_client_error() || is_cut => Gravity::Warn,
            () => Gravity::Info,
        };
        let mut values = Vec::with_capacity(20);
        values.extend([
            ("http.request.method", Value::Word(self.verb)),
            ("http.response.status_code", Value::Number(status.into())),
            ("network.protocol", Value::Word(self.protocol)),
            ("duration_ms", Value::Real(millis(duration))),
            ("request_bytes", Value::Number(self.received.get())),
            ("answer_bytes", Value::Number(self.answer_bytes.try_into().unwrap_or(i64::MAX))),
        ]);
        let texts = [
            ("http.route", std::mem::take(&mut self.template)),
            ("rpc.method", std::mem::take(&mut self.method)),
            ("upstream.service", std::mem::take(&mut self.service)),
            ("identity", std::mem::take(&mut self.identity)),
        ];
        values.extend(
            texts.into_iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| (name, Value::Text(text))),
        );
        if let Some(code) = code {
            values.push(("grpc.code", Value::Word(word(code))));
        }
        if let Some(answered_by) = &self.answered_by {
            values.push(("upstream.instance", Value::Text(answered_by.instance_id.to_string())));
            values.push(("upstream.address", Value::Text(answered_by.address.to_string())));
        }
        if let (Some(sent), Some(answered)) = (self.sent_at, self.answered_at) {
            values.push(("upstream_ms", Value::Real(millis(answered.saturating_sub(sent)))));
        }
        if let Some(first) = self.began_to_answer {
            values.push(("first_byte_ms", Value::Real(millis(first))));
        }
        if is_cut {
            values.push(("cut", Value::Bool(true)));
        }
        Entry { gravity, body, trace_id: self.trace_id.clone(), values }
    }
}

/// A code as gRPC writes it.
const fn word(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
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
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, Status>>> {
        let this = self.get_mut();
        let entered = this.record.span.enter();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        drop(entered);
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    this.record.outcome.note(trailers);
                }
                this.record.answer_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
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
