//! Watches the calls that a server answers: a span, a log line and two measurements each.
//!
//! A call's outcome is known at its trailers, not at its headers: a failed gRPC call is an HTTP 200.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::{Body as _, Frame, SizeHint};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram};
use tonic::Code;
use tonic::body::Body;
use tower::{Service, ServiceExt as _};
use tracing::field::Empty;
use tracing::{Instrument as _, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::context;

/// Calls that are not watched: probes, and the telemetry of others, which would beget telemetry without end.
const UNWATCHED: [&str; 3] = ["/grpc.health.", "/grpc.reflection.", "/opentelemetry.proto.collector."];

/// Header of a response that names the trace of its call.
pub const TRACE_ID_HEADER: &str = "x-trace-id";

/// Bounds of the duration histogram, in milliseconds.
const BOUNDS: [f64; 14] =
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0, 30_000.0];

/// A service whose gRPC calls are watched. Other requests pass untouched.
#[derive(Clone, Debug)]
pub struct Served<S> {
    inner: S,
    meters: Meters,
}

#[derive(Clone, Debug)]
struct Meters {
    calls: Counter<u64>,
    duration: Histogram<f64>,
}

impl<S> Served<S> {
    /// Watches the calls of `inner`. Make it after telemetry was started.
    pub fn new(inner: S) -> Self {
        let meter = opentelemetry::global::meter("ninefold");
        let calls = meter.u64_counter("rpc.server.calls").with_description("Calls answered").build();
        let duration = meter
            .f64_histogram("rpc.server.duration")
            .with_description("Time from the first byte of a call to the last of its answer")
            .with_unit("ms")
            .with_boundaries(BOUNDS.to_vec())
            .build();
        Self { inner, meters: Meters { calls, duration } }
    }
}

impl<S> Service<Request<Body>> for Served<S>
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
        let handler = self.inner.clone();
        if !is_watched(&request) {
            return handler.oneshot(request).boxed();
        }
        let call = Call::begin(&request, self.meters.clone());
        answer(handler, request, call).boxed()
    }
}

fn is_watched<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let is_grpc = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    is_grpc && !UNWATCHED.iter().any(|prefix| request.uri().path().starts_with(prefix))
}

async fn answer<S>(handler: S, request: Request<Body>, mut call: Call) -> Result<Response<Body>, Infallible>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let mut response = handler.oneshot(request).instrument(call.span.clone()).await?;
    if let Some(id) = context::trace_id(&call.span)
        && let Ok(id) = HeaderValue::from_maybe_shared(id)
    {
        response.headers_mut().insert(TRACE_ID_HEADER, id);
    }
    // A call that fails at once has its outcome in the headers.
    if let Some(code) = grpc_code(response.headers()) {
        call.end(code);
    } else if response.body().is_end_stream() {
        call.end(Code::Unknown);
    }
    Ok(response.map(|body| Body::new(Watched { inner: body, call })))
}

fn grpc_code(headers: &HeaderMap) -> Option<Code> {
    headers.get("grpc-status").map(|status| Code::from_bytes(status.as_bytes()))
}

/// One call under way. Dropped before its end, it was cancelled.
struct Call {
    span: Span,
    service: String,
    method: String,
    began: Instant,
    meters: Meters,
    ended: bool,
}

impl Call {
    fn begin(request: &Request<Body>, meters: Meters) -> Self {
        let path = request.uri().path().trim_start_matches('/');
        let (service, method) = path.split_once('/').unwrap_or((path, ""));
        let span = tracing::info_span!(
            "serve.call",
            otel.name = path,
            otel.kind = "server",
            otel.status_code = Empty,
            rpc.system = "grpc",
            rpc.service = service,
            rpc.method = method,
            rpc.grpc.status_code = Empty,
        );
        // Fails only for a span that is not recorded, which has no parent to miss.
        let _ = span.set_parent(context::extract(request.headers()));
        let (service, method) = (service.to_owned(), method.to_owned());
        Self { span, service, method, began: Instant::now(), meters, ended: false }
    }

    fn end(&mut self, code: Code) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let number = i64::from(i32::from(code));
        let duration_ms = self.began.elapsed().as_secs_f64() * 1e3;
        self.span.record("rpc.grpc.status_code", number);
        if is_our_failure(code) {
            self.span.record("otel.status_code", "ERROR");
        }
        self.span.in_scope(|| {
            tracing::info!(
                rpc.service = self.service,
                rpc.method = self.method,
                grpc.code = ?code,
                duration_ms = (duration_ms * 1e3).round() / 1e3,
                "request served"
            );
        });
        // The names of calls that nobody offers come from strangers and must not become labels.
        let (service, method) = match code {
            Code::Unimplemented => ("unknown", "unknown"),
            _ => (self.service.as_str(), self.method.as_str()),
        };
        let labels = [
            KeyValue::new("rpc.system", "grpc"),
            KeyValue::new("rpc.service", service.to_owned()),
            KeyValue::new("rpc.method", method.to_owned()),
            KeyValue::new("rpc.grpc.status_code", number),
        ];
        self.meters.calls.add(1, &labels);
        self.meters.duration.record(duration_ms, &labels);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(if std::thread::panicking() { Code::Internal } else { Code::Cancelled });
    }
}

/// Whether a code is the server's failure rather than the caller's, as OpenTelemetry's conventions for gRPC say.
fn is_our_failure(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// The body of an answer, watched for its trailers.
struct Watched {
    inner: Body,
    call: Call,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let entered = this.call.span.enter();
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(context));
        drop(entered);
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    this.call.end(grpc_code(trailers).unwrap_or(Code::Unknown));
                }
            }
            Some(Err(_)) => this.call.end(Code::Internal),
            // gRPC-Web puts its trailers into the data; a body that ends in order is taken as success.
            None => this.call.end(Code::Ok),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
