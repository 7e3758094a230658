//! The contract `ninefold.monitor.v1.MonitorService`: decode, ask, encode.

use std::sync::Arc;
use std::time::SystemTime;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use ninefold::fault;
use ninefold::lifecycle::{Scope, Stop};
use ninefold::page;
use ninefold::tonic::{Request, Response, Status, async_trait};
use ninefold_proto::ninefold::monitor::v1::monitor_service_server::MonitorService;
use ninefold_proto::ninefold::monitor::v1::{
    CompareTracesRequest, CompareTracesResponse, CountLogsRequest, CountLogsResponse, DeleteLogsRequest,
    DeleteLogsResponse, DeleteTracesRequest, DeleteTracesResponse, GetLogOriginRequest, GetLogOriginResponse,
    GetRetentionRequest, GetRetentionResponse, GetServiceGraphRequest, GetServiceGraphResponse, GetTraceRequest,
    GetTraceResponse, ListSamplesRequest, ListSamplesResponse, ListUsageRequest, ListUsageResponse, SearchLogsRequest,
    SearchLogsResponse, SearchTracesRequest, SearchTracesResponse, TailLogsRequest, TailLogsResponse,
};
use tokio::sync::Semaphore;

use crate::captured::nanos;
use crate::context;
use crate::error::Error;
use crate::follow::Follower;
use crate::forward::Forward;
use crate::intake::Intake;
use crate::metrics::Metrics;
use crate::origin;
use crate::tier::{Limit, Tier, Trace};
use crate::wire::{answer, query};

/// Most bytes of the records of one answer: clients of gRPC refuse more than 4 MiB unless told otherwise.
pub(crate) const ANSWER_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Most spans, and most lines, of a trace in one answer. The bytes are reached first.
const TRACE_RECORDS_MAX: usize = 100_000;

/// How much of a trace is compared.
const COMPARED: Limit = Limit { records_max: TRACE_RECORDS_MAX, bytes_max: 64 * 1024 * 1024 };

/// Answers the contract from a tier.
#[derive(Debug)]
pub(crate) struct Service {
    tier: Arc<dyn Tier>,
    intake: Arc<Intake>,
    metrics: Arc<Metrics>,
    followers: Arc<Semaphore>,
    followers_max: usize,
    stop: Stop,
}

impl Service {
    pub(crate) fn new(
        tier: Arc<dyn Tier>,
        (intake, metrics): (Arc<Intake>, Arc<Metrics>),
        followers_max: usize,
        scope: &Scope,
    ) -> Self {
        let followers = Arc::new(Semaphore::new(followers_max.min(Semaphore::MAX_PERMITS)));
        Self { tier, intake, metrics, followers, followers_max, stop: scope.stop() }
    }

    async fn trace(&self, text: &str, limit: Limit) -> Result<Trace, Error> {
        let id = query::trace_id(text)?;
        self.tier.trace(id, limit).await?.ok_or_else(|| Error::TraceUnknown(id.to_string()))
    }

    /// What it answers from.
    pub(crate) fn tier(&self) -> Arc<dyn Tier> {
        self.tier.clone()
    }
}

#[expect(clippy::needless_pass_by_value, reason = "what map_err hands over")]
fn status(error: Error) -> Status {
    fault::status(&error)
}

#[async_trait]
impl MonitorService for Service {
    async fn search_logs(&self, request: Request<SearchLogsRequest>) -> Result<Response<SearchLogsResponse>, Status> {
        let request = request.into_inner();
        let filter = query::line_filter(request.filter).map_err(status)?;
        let before = query::line_cursor(&request.page_token).map_err(status)?;
        let limit = Limit {
            records_max: page::size(request.page_size).map_err(|error| status(error.into()))?,
            bytes_max: ANSWER_BYTES_MAX,
        };
        let page = self.tier.search_lines(&filter, before, limit).await.map_err(status)?;
        let lines = query::context(request.context_lines).map_err(status)?;
        let around = context::around(&*self.tier, &page.records, lines).await.map_err(status)?;
        Ok(Response::new(SearchLogsResponse {
            around: around.iter().map(|kept| answer::record(kept)).collect(),
            records: page.records.iter().map(|kept| answer::record(kept)).collect(),
            next_page_token: page.next.map(query::line_token).unwrap_or_default(),
        }))
    }

    type TailLogsStream = BoxStream<'static, Result<TailLogsResponse, Status>>;

    async fn tail_logs(&self, request: Request<TailLogsRequest>) -> Result<Response<Self::TailLogsStream>, Status> {
        let request = request.into_inner();
        let filter = query::line_filter(request.filter).map_err(status)?;
        let permit =
            self.followers.clone().try_acquire_owned().map_err(|_| status(Error::FollowersFull(self.followers_max)))?;
        let backlog = query::backlog(request.backlog);
        let follower = Follower::start(self.tier.clone(), filter, backlog, self.stop.clone()).await.map_err(status)?;
        let stream = follower.stream().map(move |followed| {
            // Held as long as the stream lives.
            let _ = &permit;
            let followed = followed.map_err(status)?;
            Ok(TailLogsResponse {
                records: followed.records.iter().map(|kept| answer::record(kept)).collect(),
                missed: followed.missed,
            })
        });
        Ok(Response::new(stream.boxed()))
    }

    async fn get_trace(&self, request: Request<GetTraceRequest>) -> Result<Response<GetTraceResponse>, Status> {
        let limit = Limit { records_max: TRACE_RECORDS_MAX, bytes_max: ANSWER_BYTES_MAX };
        let trace = self.trace(&request.into_inner().trace_id, limit).await.map_err(status)?;
        Ok(Response::new(answer::trace(trace)))
    }

    async fn search_traces(
        &self,
        request: Request<SearchTracesRequest>,
    ) -> Result<Response<SearchTracesResponse>, Status> {
        let request = request.into_inner();
        let before = query::trace_cursor(&request.page_token).map_err(status)?;
        let records_max = page::size(request.page_size).map_err(|error| status(error.into()))?;
        let filter = query::trace_filter(request).map_err(status)?;
        let page = self.tier.search_traces(&filter, before, records_max).await.map_err(status)?;
        Ok(Response::new(SearchTracesResponse {
            traces: page.records.into_iter().map(answer::summary).collect(),
            next_page_token: page.next.map(query::trace_token).unwrap_or_default(),
        }))
    }

    async fn list_usage(&self, request: Request<ListUsageRequest>) -> Result<Response<ListUsageResponse>, Status> {
        let service = Some(request.into_inner().service).filter(|service| !service.is_empty());
        let usage = self.tier.usage(service.as_deref()).await.map_err(status)?;
        Ok(Response::new(ListUsageResponse { usage: usage.into_iter().map(answer::usage).collect() }))
    }

    async fn list_samples(
        &self,
        request: Request<ListSamplesRequest>,
    ) -> Result<Response<ListSamplesResponse>, Status> {
        let request = request.into_inner();
        let after = query::series_key(&request.page_token).map_err(status)?;
        let metric = Some(request.metric.as_str()).filter(|metric| !metric.is_empty());
        let service = Some(request.service.as_str()).filter(|service| !service.is_empty());
        let records_max = page::size(request.page_size).map_err(|error| status(error.into()))?;
        let page = self.tier.samples(metric, service, after.as_ref(), records_max).await.map_err(status)?;
        Ok(Response::new(ListSamplesResponse {
            samples: page.records.into_iter().map(answer::sample).collect(),
            next_page_token: page.next.as_ref().map(query::series_token).unwrap_or_default(),
        }))
    }

    async fn count_logs(&self, request: Request<CountLogsRequest>) -> Result<Response<CountLogsResponse>, Status> {
        let request = request.into_inner();
        let (tallies, values_max) = query::tallies(&request).map_err(status)?;
        let filter = query::line_filter(request.filter).map_err(status)?;
        let tallies = self.tier.count_lines(&filter, tallies).await.map_err(status)?;
        Ok(Response::new(answer::counted(tallies, values_max)))
    }

    async fn get_service_graph(
        &self,
        request: Request<GetServiceGraphRequest>,
    ) -> Result<Response<GetServiceGraphResponse>, Status> {
        let now = nanos(SystemTime::now());
        let (start, end) = query::graph_times(request.get_ref(), now).map_err(status)?;
        let graph = self.tier.graph(start, end).await.map_err(status)?;
        Ok(Response::new(answer::graph(&graph)))
    }

    async fn compare_traces(
        &self,
        request: Request<CompareTracesRequest>,
    ) -> Result<Response<CompareTracesResponse>, Status> {
        let request = request.into_inner();
        let one = self.trace(&request.trace_id, COMPARED).await.map_err(status)?;
        let other = self.trace(&request.other_trace_id, COMPARED).await.map_err(status)?;
        Ok(Response::new(answer::compared(one, other)))
    }

    async fn get_log_origin(
        &self,
        request: Request<GetLogOriginRequest>,
    ) -> Result<Response<GetLogOriginResponse>, Status> {
        let origin = origin::of(request.into_inner(), &*self.tier, &self.metrics).await.map_err(status)?;
        Ok(Response::new(origin))
    }

    async fn delete_logs(&self, request: Request<DeleteLogsRequest>) -> Result<Response<DeleteLogsResponse>, Status> {
        let filter = query::doomed_lines(request.into_inner().filter).map_err(status)?;
        let lines = self.tier.delete_lines(&filter).await.map_err(status)?;
        Ok(Response::new(DeleteLogsResponse { lines }))
    }

    async fn delete_traces(
        &self,
        request: Request<DeleteTracesRequest>,
    ) -> Result<Response<DeleteTracesResponse>, Status> {
        let (id, filter) = query::doomed_traces(request.into_inner()).map_err(status)?;
        let spans = self.tier.delete_traces(id, &filter).await.map_err(status)?;
        Ok(Response::new(DeleteTracesResponse { spans }))
    }

    async fn get_retention(&self, _: Request<GetRetentionRequest>) -> Result<Response<GetRetentionResponse>, Status> {
        Ok(Response::new(answer::retention(
            self.tier.retention(),
            self.intake.masked(),
            self.intake.senders(),
            self.intake.onward().map(Forward::told),
        )))
    }
}
