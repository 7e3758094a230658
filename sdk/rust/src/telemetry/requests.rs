//! Measures HTTP requests that are no gRPC calls, as OpenTelemetry's conventions for HTTP servers name them.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Histogram;

/// Bounds of the duration histogram, in seconds, as the conventions give them.
const BOUNDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// How many HTTP requests were answered, how, and how long it took: `http.server.request.duration`.
#[derive(Clone, Debug)]
pub struct Requests {
    duration: Histogram<f64>,
}

impl Requests {
    /// Begins to measure. Make it after telemetry was started.
    #[expect(clippy::new_without_default, reason = "what it measures into is global, so two are not two")]
    pub fn new() -> Self {
        let meter = opentelemetry::global::meter("ninefold");
        let duration = meter
            .f64_histogram("http.server.request.duration")
            .with_description("Time from the first byte of a request to the last of its answer")
            .with_unit("s")
            .with_boundaries(BOUNDS.to_vec())
            .build();
        Self { duration }
    }

    /// Counts a request. `method` and `route` become labels, so they must come from closed sets: a known method, and the
    /// template of a route, never a path. `error` is the kind of failure, such as a gRPC code in words, if it was one.
    pub fn record(
        &self,
        method: &'static str,
        route: &str,
        status: u16,
        error: Option<&'static str>,
        duration: Duration,
    ) {
        let [method, route, status] = [
            KeyValue::new("http.request.method", method),
            KeyValue::new("http.route", route.to_owned()),
            KeyValue::new("http.response.status_code", i64::from(status)),
        ];
        let duration = duration.as_secs_f64();
        match error {
            Some(error) => self.duration.record(duration, &[method, route, status, KeyValue::new("error.type", error)]),
            None => self.duration.record(duration, &[method, route, status]),
        }
    }
}
