//! The span of a call that goes out.

use tracing::Span;
use tracing::field::Empty;

/// Opens the span of a call, as a child of the current one.
pub(crate) fn client_span(service: &str, path: &str) -> Span {
    let name = path.trim_start_matches('/');
    let (rpc_service, rpc_method) = name.split_once('/').unwrap_or((name, ""));
    tracing::info_span!(
        "connect.call",
        otel.name = name,
        otel.kind = "client",
        otel.status_code = Empty,
        otel.status_message = Empty,
        rpc.system = "grpc",
        rpc.service = rpc_service,
        rpc.method = rpc_method,
        rpc.grpc.status_code = Empty,
        service,
        instance = Empty,
        attempts = Empty,
    )
}

/// Opens the span of a plain request that goes out, as a child of the current one.
pub(crate) fn plain_span(service: &str, verb: &str) -> Span {
    tracing::info_span!(
        "connect.request",
        otel.name = verb,
        otel.kind = "client",
        otel.status_code = Empty,
        otel.status_message = Empty,
        http.request.method = verb,
        http.response.status_code = Empty,
        service,
        instance = Empty,
        attempts = Empty,
    )
}

/// Notes how the call ended.
pub(crate) fn finish(span: &Span, code: tonic::Code, message: &str) {
    span.record("rpc.grpc.status_code", i32::from(code));
    if code != tonic::Code::Ok {
        span.record("otel.status_code", "ERROR");
        span.record("otel.status_message", message);
    }
}
