//! OTLP over gRPC.

use std::sync::Arc;

use ninefold::fault;
use ninefold::tonic::codec::CompressionEncoding;
use ninefold::tonic::service::RoutesBuilder;
use ninefold::tonic::{Request, Response, Status, async_trait};
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;

use super::{Ingest, Refused, Room};
use crate::error::Error;
use crate::tier::Signal;

#[derive(Clone, Debug)]
struct Otlp(Arc<Ingest>);

/// Adds the three services of OTLP.
pub(crate) fn add_to(routes: &mut RoutesBuilder, ingest: &Arc<Ingest>) {
    let bytes_max = ingest.config.body_bytes_max;
    let otlp = Otlp(ingest.clone());
    routes
        .add_service(
            LogsServiceServer::new(otlp.clone())
                .accept_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Zstd)
                .max_decoding_message_size(bytes_max),
        )
        .add_service(
            TraceServiceServer::new(otlp.clone())
                .accept_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Zstd)
                .max_decoding_message_size(bytes_max),
        )
        .add_service(
            MetricsServiceServer::new(otlp)
                .accept_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Zstd)
                .max_decoding_message_size(bytes_max),
        );
}

impl Otlp {
    /// Room for a request that is read already, while it is put into the tier.
    fn room(&self, signal: Signal, request: &impl Message) -> Result<Room, Status> {
        let mut room = self.0.room();
        match room.take(request.encoded_len()) {
            Ok(()) => Ok(room),
            Err(error) => {
                self.0.count_refused(signal);
                Err(fault::status(&error))
            }
        }
    }
}

fn told(outcome: Result<Refused, Error>) -> Result<Option<Refused>, Status> {
    let refused = outcome.map_err(|error| fault::status(&error))?;
    Ok(Some(refused).filter(|refused| refused.records > 0))
}

#[async_trait]
impl LogsService for Otlp {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let request = request.into_inner();
        let _room = self.room(Signal::Logs, &request)?;
        let partial_success = told(self.0.logs(request).await)?.map(|refused| ExportLogsPartialSuccess {
            rejected_log_records: refused.records,
            error_message: refused.why.to_owned(),
        });
        Ok(Response::new(ExportLogsServiceResponse { partial_success }))
    }
}

#[async_trait]
impl TraceService for Otlp {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let request = request.into_inner();
        let _room = self.room(Signal::Spans, &request)?;
        let partial_success = told(self.0.spans(request).await)?.map(|refused| ExportTracePartialSuccess {
            rejected_spans: refused.records,
            error_message: refused.why.to_owned(),
        });
        Ok(Response::new(ExportTraceServiceResponse { partial_success }))
    }
}

#[async_trait]
impl MetricsService for Otlp {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let request = request.into_inner();
        let _room = self.room(Signal::Measurements, &request)?;
        let partial_success = told(self.0.metrics(request).await)?.map(|refused| ExportMetricsPartialSuccess {
            rejected_data_points: refused.records,
            error_message: refused.why.to_owned(),
        });
        Ok(Response::new(ExportMetricsServiceResponse { partial_success }))
    }
}
