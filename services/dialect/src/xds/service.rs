//! The gRPC faces: aggregated discovery for clients, and the listing of streams for people.

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use ninefold::{Caller, fault};
use ninefold_proto::ninefold::dialect::v1 as words;
use tonic::{Request, Response, Status, Streaming};
use words::dialect_service_server::DialectService;

use super::stream::{self, Delta, Form, Shared, Whole};
use crate::error::Error;
use crate::words::envoy::service::discovery::v3 as wire;
use wire::aggregated_discovery_service_server::AggregatedDiscoveryService;

/// Answers for xDS.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    /// What all streams share.
    pub(crate) shared: Shared,
}

impl Service {
    fn open<F: Form>(
        &self,
        request: Request<Streaming<F::Request>>,
    ) -> Response<BoxStream<'static, Result<F::Response, Status>>> {
        let caller = Caller::of(request.extensions());
        let told = stream::tell::<F>(self.shared.clone(), request.into_inner().boxed(), caller);
        Response::new(told.map(|told| told.map_err(|error| fault::status(&error))).boxed())
    }

    fn streams(&self, request: &words::ListXdsStreamsRequest) -> Result<words::ListXdsStreamsResponse, Error> {
        let size = ninefold::page::size(request.page_size)?;
        let after = match request.page_token.as_str() {
            "" => 0,
            token => token.parse::<u64>().ok().filter(|after| *after > 0).ok_or(Error::PageTokenInvalid)?,
        };
        let mut streams = self.shared.ledger.streams(after, size + 1);
        let has_more = streams.len() > size;
        streams.truncate(size);
        let last = streams.last().filter(|_| has_more);
        let next_page_token = last.map(|last| last.stream_id.to_string()).unwrap_or_default();
        let refusals = if after == 0 { self.shared.ledger.refusals() } else { Vec::new() };
        Ok(words::ListXdsStreamsResponse { streams, next_page_token, refusals })
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = BoxStream<'static, Result<wire::DiscoveryResponse, Status>>;
    type DeltaAggregatedResourcesStream = BoxStream<'static, Result<wire::DeltaDiscoveryResponse, Status>>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<wire::DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Ok(self.open::<Whole>(request))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<wire::DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        Ok(self.open::<Delta>(request))
    }
}

#[tonic::async_trait]
impl DialectService for Service {
    async fn list_xds_streams(
        &self,
        request: Request<words::ListXdsStreamsRequest>,
    ) -> Result<Response<words::ListXdsStreamsResponse>, Status> {
        self.streams(request.get_ref()).map(Response::new).map_err(|error| fault::status(&error))
    }
}
