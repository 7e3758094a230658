//! Tells callers how busy this instance is, at the end of each answer: an ORCA load report
//! (`xds.data.orca.v3.OrcaLoadReport`) in the trailer `endpoint-load-metrics-bin`.
//!
//! A report is made at most four times a second and its bytes are shared, so that a trailer that says the same as the one
//! before costs one byte on the connection.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response};
use http_body::{Frame, SizeHint};
use prost::Message as _;
use tonic::body::Body;
use tonic::metadata::{BinaryMetadataValue, MetadataValue};

use crate::connect::orca;
use crate::connect::priority::{self, Priority};
use crate::connect::ring::{Ring, SECONDS};
use crate::telemetry;

/// How old a report may be.
const AGE_MAX: Duration = Duration::from_millis(250);

/// What is known of the load.
#[derive(Debug, Default)]
pub(super) struct Load {
    calls: Ring,
    failures: Arc<Ring>,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    at: Option<Duration>,
    cpu_at: Duration,
    cpu_seconds: f64,
    cpu_utilization: f64,
    value: Option<HeaderValue>,
}

impl Load {
    /// Counts an answer, and lets it end with a report. `share` is how much of what may be in work is, `priority` what
    /// the call said, `now` the time since any fixed moment.
    pub(super) fn tell(
        &self,
        mut response: Response<Body>,
        share: impl FnOnce() -> f64,
        priority: Option<Priority>,
        now: Duration,
    ) -> Response<Body> {
        self.calls.add(now);
        let report = self.report(share, now);
        if let Some(status) = response.headers().get("grpc-status") {
            if status.as_bytes() != b"0" {
                self.failures.add(now);
            }
            if let Some(report) = report {
                response.headers_mut().insert(orca::TRAILER, report);
            }
            return response;
        }
        let failures = self.failures.clone();
        response.map(|inner| Body::new(Telling { inner, report, priority, failures, now }))
    }

    fn report(&self, share: impl FnOnce() -> f64, now: Duration) -> Option<HeaderValue> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.at.is_some_and(|at| now.saturating_sub(at) < AGE_MAX) {
            return last.value.clone();
        }
        if let Some(cpu_seconds) = telemetry::cpu_seconds() {
            let since = now.saturating_sub(last.cpu_at).as_secs_f64();
            if since > 0.0 && last.at.is_some() {
                last.cpu_utilization = ((cpu_seconds - last.cpu_seconds) / since / processors()).max(0.0);
            }
            (last.cpu_seconds, last.cpu_at) = (cpu_seconds, now);
        }
        let seconds = now.as_secs_f64().clamp(1.0, f64::from(SECONDS));
        let rate = |ring: &Ring| f64::from(u32::try_from(ring.sum(now)).unwrap_or(u32::MAX)) / seconds;
        let report = orca::LoadReport {
            cpu_utilization: round(last.cpu_utilization),
            application_utilization: round(share().max(last.cpu_utilization)),
            rps_fractional: round(rate(&self.calls)),
            eps: round(rate(&self.failures)),
        };
        last.at = Some(now);
        last.value = encode(&report);
        last.value.clone()
    }
}

/// Two digits are enough, and let reports be alike.
fn round(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

fn processors() -> f64 {
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

fn encode(report: &orca::LoadReport) -> Option<HeaderValue> {
    let value: BinaryMetadataValue = MetadataValue::from_bytes(&report.encode_to_vec());
    HeaderValue::from_bytes(value.as_encoded_bytes()).ok()
}

/// The body of an answer that ends with a report.
struct Telling {
    inner: Body,
    report: Option<HeaderValue>,
    /// Streams call others too, while they are read.
    priority: Option<Priority>,
    failures: Arc<Ring>,
    now: Duration,
}

impl http_body::Body for Telling {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let this = &mut *self;
        let polled = match this.priority {
            Some(priority) => priority::sync_scope(priority, || Pin::new(&mut this.inner).poll_frame(context)),
            None => Pin::new(&mut this.inner).poll_frame(context),
        };
        let mut frame = std::task::ready!(polled);
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            if trailers.get("grpc-status").is_some_and(|status| status.as_bytes() != b"0") {
                self.failures.add(self.now);
            }
            if let Some(report) = self.report.take() {
                trailers.insert(orca::TRAILER, report);
            }
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
