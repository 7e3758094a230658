//! Carries the trace of a call over process borders, as W3C Trace Context says.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Writes the trace of `span` into the headers of a call that is about to leave. Writes nothing for a span that no
/// telemetry records.
pub fn inject(span: &Span, headers: &mut HeaderMap) {
    if span.is_disabled() {
        return;
    }
    TraceContextPropagator::new().inject_context(&span.context(), &mut Headers(headers));
}

/// Reads the trace that a call belongs to. An empty context where the headers have none, or a malformed one.
pub fn extract(headers: &HeaderMap) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), &Incoming(headers))
}

/// Makes `span` a part of the trace that a call belongs to. Does nothing for a span that no telemetry records.
pub fn continue_trace(span: &Span, headers: &HeaderMap) {
    if span.is_disabled() {
        return;
    }
    // Fails only for a span that is not recorded, which has no parent to miss.
    let _ = span.set_parent(extract(headers));
}

/// Names `span` anew, for what is known only after it began, such as the route of a request.
pub fn rename(span: &Span, name: impl FnOnce() -> String) {
    if span.is_disabled() {
        return;
    }
    let name = name();
    span.context().span().update_name(name);
}

/// The id of the trace that `span` belongs to, as 32 hex digits; `None` for a span that no telemetry records.
pub fn trace_id(span: &Span) -> Option<String> {
    if span.is_disabled() {
        return None;
    }
    trace_id_of(&span.context())
}

/// The id of the trace of a context.
pub(crate) fn trace_id_of(context: &Context) -> Option<String> {
    let span = context.span();
    let ids = span.span_context();
    ids.is_valid().then(|| ids.trace_id().to_string())
}

struct Headers<'a>(&'a mut HeaderMap);

impl Injector for Headers<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) = (HeaderName::from_bytes(key.as_bytes()), HeaderValue::from_maybe_shared(value)) {
            self.0.insert(key, value);
        }
    }
}

struct Incoming<'a>(&'a HeaderMap);

impl Extractor for Incoming<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}
