//! What comes in by OTLP, over gRPC and over HTTP: read, bounded, counted, put into the tier.
//!
//! Nothing here writes log lines above `debug`: a line about each batch would come back as a batch.

pub(crate) mod grpc;
pub(crate) mod http;
mod remote_write;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::captured::nanos;
use crate::config::Config;
use crate::error::Error;
use crate::forward;
use crate::intake::Intake;
use crate::live::Rules;
use crate::metrics::{Content, Metrics, Unkept, Written};
use crate::model::Line;
use crate::red::Red;
use crate::tier::Signal;
use crate::wire::onward;
use crate::wire::otlp::{self, Taken};

/// Where telemetry comes in.
#[derive(Debug)]
pub(crate) struct Ingest {
    intake: Arc<Intake>,
    metrics: Arc<Metrics>,
    red: Arc<Red>,
    room: Arc<Semaphore>,
    small: Arc<Semaphore>,
    config: Config,
}

/// What of a batch was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// How many records.
    pub(crate) records: i64,
    /// Why.
    pub(crate) why: &'static str,
}

/// Requests up to this size have room beside large ones.
const SMALL_BYTES: u32 = 64 * 1024;

/// Room for bytes that are being read; given back when dropped.
#[derive(Debug)]
pub(crate) struct Room {
    room: Arc<Semaphore>,
    taken: Option<OwnedSemaphorePermit>,
    /// Room that only small requests have: many large ones leave no other.
    small: Arc<Semaphore>,
    small_taken: Vec<OwnedSemaphorePermit>,
    bytes: u32,
}

impl Room {
    /// Takes room for more bytes.
    ///
    /// # Errors
    /// [`Error::Overloaded`] when there is none.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<(), Error> {
        let bytes = u32::try_from(bytes).map_err(|_| Error::Overloaded)?;
        self.bytes = self.bytes.saturating_add(bytes);
        let Ok(more) = self.room.clone().try_acquire_many_owned(bytes) else {
            if self.bytes > SMALL_BYTES {
                return Err(Error::Overloaded);
            }
            let more = self.small.clone().try_acquire_many_owned(bytes).map_err(|_| Error::Overloaded)?;
            self.small_taken.push(more);
            return Ok(());
        };
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            None => self.taken = Some(more),
        }
        Ok(())
    }
}

impl Ingest {
    /// Makes a door to the intake.
    pub(crate) fn new(intake: Arc<Intake>, metrics: Arc<Metrics>, red: Arc<Red>, config: Config) -> Self {
        // A single request must always fit, compressed and not.
        let bytes = config.in_flight_bytes_max.max(2 * config.body_bytes_max).min(Semaphore::MAX_PERMITS);
        let small = Arc::new(Semaphore::new(bytes / 8));
        Self { intake, metrics, red, room: Arc::new(Semaphore::new(bytes)), small, config }
    }

    /// Room for a request, none of it taken yet.
    pub(crate) fn room(&self) -> Room {
        Room { room: self.room.clone(), taken: None, small: self.small.clone(), small_taken: Vec::new(), bytes: 0 }
    }

    /// Puts log lines into the tier.
    ///
    /// # Errors
    /// Those of [`Intake::lines`].
    pub(crate) async fn logs(&self, request: ExportLogsServiceRequest) -> Result<Refused, Error> {
        let Taken { records, refused, why } =
            otlp::lines(request.resource_logs, nanos(SystemTime::now()), &self.intake.rules().lines);
        let taken = records.len();
        let outcome = self.intake.lines(records).await;
        self.settle(Signal::Logs, taken, outcome, refused, why)
    }

    /// Puts log lines into the tier that came by another way than OTLP.
    ///
    /// # Errors
    /// Those of [`Intake::lines`].
    pub(crate) async fn pushed(&self, lines: Vec<Line>) -> Result<(), Error> {
        let taken = lines.len();
        let outcome = self.intake.lines(lines).await;
        self.settle(Signal::Logs, taken, outcome, 0, "").map(drop)
    }

    /// The rules as they are now.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        self.intake.rules()
    }

    /// Largest request, after decompression.
    pub(crate) const fn body_bytes_max(&self) -> usize {
        self.config.body_bytes_max
    }

    /// Longest wait for a body.
    pub(crate) const fn body_wait(&self) -> Duration {
        self.config.body_wait
    }

    /// Puts spans into the tier.
    ///
    /// # Errors
    /// Those of [`Intake::spans`].
    pub(crate) async fn spans(&self, request: ExportTraceServiceRequest) -> Result<Refused, Error> {
        let onward = self.intake.onward().map(|forward| (forward, request.clone()));
        let Taken { records, refused, why } = otlp::spans(request.resource_spans, nanos(SystemTime::now()));
        let taken = records.len();
        self.red.count(&records);
        let outcome = self.intake.spans(records).await;
        if let (Some((forward, mut request)), Ok(())) = (onward, &outcome) {
            onward::mask_spans(&self.rules().masks, &mut request);
            forward.give(forward::Request::Spans(request));
        }
        self.settle(Signal::Spans, taken, outcome, refused, why)
    }

    /// Puts measurements into the tier.
    ///
    /// # Errors
    /// Those of [`Intake::measurements`].
    pub(crate) async fn metrics(&self, request: ExportMetricsServiceRequest) -> Result<Refused, Error> {
        let resources = request.resource_metrics.clone();
        let Taken { records, refused, why } = otlp::measurements(resources, nanos(SystemTime::now()));
        let taken = records.len();
        let mut unkept = Unkept::default();
        // The samples last: what is added to a total would be added twice, were it sent again because the other failed.
        let outcome = match self.intake.measurements(records).await {
            Ok(()) => self.metrics.take_otlp(&request.resource_metrics).await.map(|left| unkept = left),
            Err(error) => Err(error),
        };
        if let (Some(forward), Ok(())) = (self.intake.onward(), &outcome) {
            forward.give(forward::Request::Metrics(request));
        }
        // A point that is refused is refused by both; what only the samples' bounds leave out is told all the same.
        let (refused, why) = if refused == 0 { (unkept.readings, unkept.why) } else { (refused, why) };
        self.settle(Signal::Measurements, taken, outcome, refused, why)
    }

    /// Puts readings into the metrics.
    ///
    /// # Errors
    /// Those of [`Metrics::take_written`].
    pub(crate) async fn written(&self, written: Written) -> Result<Unkept, Error> {
        let unkept = self.metrics.take_written(written).await?;
        if unkept.readings > 0 {
            self.intake.count_refused(Signal::Measurements, unkept.readings);
        }
        Ok(unkept)
    }

    /// Puts readings of remote write 2.0 into the metrics.
    ///
    /// # Errors
    /// Those of [`Metrics::take_content`].
    pub(crate) async fn content(&self, content: Content) -> Result<Unkept, Error> {
        let unkept = self.metrics.take_content(content).await?;
        if unkept.readings > 0 {
            self.intake.count_refused(Signal::Measurements, unkept.readings);
        }
        Ok(unkept)
    }

    /// Counts a request that was turned away before its records were known, as one record.
    pub(crate) fn count_refused(&self, signal: Signal) {
        self.intake.count_refused(signal, 1);
    }

    fn settle(
        &self,
        signal: Signal,
        taken: usize,
        outcome: Result<(), Error>,
        refused: u64,
        why: &'static str,
    ) -> Result<Refused, Error> {
        let lost = if outcome.is_err() { taken as u64 } else { 0 };
        if refused + lost > 0 {
            self.intake.count_refused(signal, refused + lost);
        }
        outcome.map(|()| Refused { records: i64::try_from(refused).unwrap_or(i64::MAX), why })
    }
}
