//! What leaves by OTLP over gRPC: spans, log records, measurements.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::logs::LoggerProvider as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{LogExporter, MetricExporter, RetryPolicy, SpanExporter, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::{BatchConfigBuilder as LogBatch, BatchLogProcessor, SdkLogger, SdkLoggerProvider};
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{BatchConfigBuilder as SpanBatch, BatchSpanProcessor, SdkTracer, SdkTracerProvider};
use tokio::sync::oneshot;
use tonic::service::Interceptor;
use tonic::{Request, Status};
use tracing_opentelemetry::OpenTelemetryLayer;

use super::{Config, Identity, Journal, process, rotate};
use crate::credentials::Credentials;
use crate::error::Error;

/// Most spans or log records in one message.
const BATCH_MAX: usize = 512;

/// The three exporters. Each has a thread of its own, where it may wait.
#[derive(Debug)]
pub(super) struct Exporters {
    spans: SdkTracerProvider,
    logs: SdkLoggerProvider,
    measurements: SdkMeterProvider,
    journals: Mutex<Vec<SdkLoggerProvider>>,
}

impl Exporters {
    /// Makes the exporters. Nothing connects before there is something to send.
    pub(super) fn start(config: &Config, identity: &Identity) -> Result<Self, Error> {
        let failed =
            |what| move |error: opentelemetry_otlp::ExporterBuildError| Error::Telemetry { what, source: error.into() };
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Error::Telemetry { what: "exporters", source: "there is no tokio runtime".into() });
        }
        let channel = rotate::channel(&config.endpoints, &config.credentials);
        let signature = Signature(config.credentials.clone());
        let resource = resource(identity);
        let retry = patience();

        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_channel(channel.clone())
            .with_interceptor(signature.clone())
            .with_retry_policy(retry.clone());
        let batch = SpanBatch::default()
            .with_max_queue_size(config.queue_max)
            .with_max_export_batch_size(BATCH_MAX)
            .with_scheduled_delay(config.batch_delay)
            .build();
        let processor =
            BatchSpanProcessor::builder(exporter.build().map_err(failed("spans"))?).with_batch_config(batch).build();
        let spans = SdkTracerProvider::builder().with_span_processor(processor).with_resource(resource.clone()).build();

        let logs = keeper(config, identity)?;

        let exporter = MetricExporter::builder()
            .with_tonic()
            .with_channel(channel)
            .with_interceptor(signature)
            .with_retry_policy(retry);
        let reader = PeriodicReader::builder(exporter.build().map_err(failed("measurements"))?)
            .with_interval(config.measure_every)
            .build();
        let measurements = SdkMeterProvider::builder().with_reader(reader).with_resource(resource).build();
        Ok(Self { spans, logs, measurements, journals: Mutex::default() })
    }

    /// Opens a journal under another name.
    pub(super) fn journal(&self, config: &Config, identity: &Identity) -> Result<Journal, Error> {
        let keeper = keeper(config, identity)?;
        let journal = Journal::of(keeper.logger("ninefold"));
        self.journals.lock().unwrap_or_else(PoisonError::into_inner).push(keeper);
        Ok(journal)
    }

    /// The layer that turns spans into exported spans.
    pub(super) fn span_layer<S>(&self) -> OpenTelemetryLayer<S, SdkTracer>
    where
        S: tracing::Subscriber + for<'span> tracing_subscriber::registry::LookupSpan<'span>,
    {
        OpenTelemetryLayer::new(self.spans.tracer("ninefold"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
    }

    /// The layer that turns events into exported log records.
    pub(super) fn log_layer(&self) -> OpenTelemetryTracingBridge<SdkLoggerProvider, SdkLogger> {
        OpenTelemetryTracingBridge::new(&self.logs)
    }

    /// Makes the meters and the trace context of this process the ones that everybody gets, and begins to measure the
    /// process itself.
    pub(super) fn measure(&self) {
        opentelemetry::global::set_meter_provider(self.measurements.clone());
        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
        process::measure(&opentelemetry::global::meter("ninefold"));
    }

    /// Sends what waits, for `deadline` at the longest.
    pub(super) async fn flush(&self, deadline: Duration) {
        let (done, is_done) = oneshot::channel();
        let journals = self.journals.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (spans, logs, measurements) = (self.spans.clone(), self.logs.clone(), self.measurements.clone());
        // A thread rather than a blocking task: a runtime that shuts down waits for those, however long they take.
        let flusher = std::thread::Builder::new().name("ninefold.flush".to_owned()).spawn(move || {
            // What cannot be sent is lost; there is no later to keep it for.
            journals.iter().for_each(|journal| drop(journal.force_flush()));
            let _ = (logs.force_flush(), spans.force_flush(), measurements.force_flush());
            let _ = done.send(());
        });
        if flusher.is_ok() {
            let _ = tokio::time::timeout(deadline, is_done).await;
        }
    }
}

/// What sends log records in the name of `identity`.
fn keeper(config: &Config, identity: &Identity) -> Result<SdkLoggerProvider, Error> {
    let exporter = LogExporter::builder()
        .with_tonic()
        .with_channel(rotate::channel(&config.endpoints, &config.credentials))
        .with_interceptor(Signature(config.credentials.clone()))
        .with_retry_policy(patience())
        .build()
        .map_err(|error| Error::Telemetry { what: "logs", source: error.into() })?;
    let batch = LogBatch::default()
        .with_max_queue_size(config.queue_max)
        .with_max_export_batch_size(BATCH_MAX)
        .with_scheduled_delay(config.batch_delay)
        .build();
    let processor = BatchLogProcessor::builder(exporter).with_batch_config(batch).build();
    Ok(SdkLoggerProvider::builder().with_log_processor(processor).with_resource(resource(identity)).build())
}

/// Long enough for a platform that restarts; meanwhile what is new waits in the queue, and drops when that is full.
fn patience() -> RetryPolicy {
    RetryPolicy::default()
        .with_max_retries(5)
        .with_initial_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(1))
}

/// Signs every export with the token as it is then.
#[derive(Clone)]
struct Signature(Credentials);

impl Interceptor for Signature {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(Ok(value)) = self.0.bearer().map(|value| value.as_bytes().try_into()) {
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

/// Who this process is, to whoever reads its telemetry.
fn resource(identity: &Identity) -> Resource {
    let uname = rustix::system::uname();
    Resource::builder()
        .with_attributes([
            KeyValue::new("service.name", identity.service.clone()),
            KeyValue::new("service.instance.id", identity.instance_id.clone()),
            KeyValue::new("service.version", identity.version.clone()),
            KeyValue::new("host.name", uname.nodename().to_string_lossy().into_owned()),
            KeyValue::new("process.pid", i64::from(std::process::id())),
        ])
        .build()
}
