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
    DeleteLogsResponse, DeleteTracesRequest, DeleteTracesResponse, ForgetNodeRequest, ForgetNodeResponse,
    GetLogOriginRequest, GetLogOriginResponse, GetRetentionRequest, GetRetentionResponse, GetServiceGraphRequest,
    GetServiceGraphResponse, GetTraceRequest, GetTraceResponse, ListNodesRequest, ListNodesResponse,
    ListSamplesRequest, ListSamplesResponse, ListUsageRequest, ListUsageResponse, SearchLogsRequest,
    SearchLogsResponse, SearchTracesRequest, SearchTracesResponse, TailLogsRequest, TailLogsResponse, TelemetryNode,
};
use prost_types::Timestamp;
use tokio::sync::Semaphore;

use crate::captured::nanos;
use crate::context;
use crate::error::Error;
use crate::follow::Follower;
use crate::forward::Forward;
use crate::intake::Intake;
use crate::metrics::Metrics;
use crate::neighbours::question::Question;
use crate::neighbours::tail::{self, Tailed};
use crate::neighbours::{ALONE, Entry, Neighbours};
use crate::origin;
use crate::tier::{Limit, MeantTraces, Tier, Trace};
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
    neighbours: Arc<Neighbours>,
    intake: Arc<Intake>,
    metrics: Arc<Metrics>,
    followers: Arc<Semaphore>,
    followers_max: usize,
    stop: Stop,
}

impl Service {
    pub(crate) fn new(
        (tier, neighbours): (Arc<dyn Tier>, Arc<Neighbours>),
        (intake, metrics): (Arc<Intake>, Arc<Metrics>),
        (followers, followers_max): (Arc<Semaphore>, usize),
        scope: &Scope,
    ) -> Self {
        Self { tier, neighbours, intake, metrics, followers, followers_max, stop: scope.stop() }
    }

    /// A question to all nodes, or to this one if that is said.
    async fn ask<T>(&self, request: &Request<T>) -> Question {
        self.neighbours.question(request.metadata().contains_key(ALONE)).await
    }
}

async fn trace_of(question: &Question, text: &str, limit: Limit) -> Result<Trace, Error> {
    let id = query::trace_id(text)?;
    let found = question.trace(id, limit).await?;
    found.ok_or_else(|| question.or_missing(Error::TraceUnknown(id.to_string())))
}

#[expect(clippy::needless_pass_by_value, reason = "what map_err hands over")]
fn status(error: Error) -> Status {
    fault::status(&error)
}

#[async_trait]
impl MonitorService for Service {
    async fn search_logs(&self, request: Request<SearchLogsRequest>) -> Result<Response<SearchLogsResponse>, Status> {
        let question = self.ask(&request).await;
        let request = request.into_inner();
        let filter = query::line_filter(request.filter).map_err(status)?;
        let before = query::line_cursor(&request.page_token).map_err(status)?;
        let limit = Limit {
            records_max: page::size(request.page_size).map_err(|error| status(error.into()))?,
            bytes_max: ANSWER_BYTES_MAX,
        };
        let page = question.search_lines(&filter, before, limit).await.map_err(status)?;
        let lines = query::context(request.context_lines).map_err(status)?;
        let around = context::around(&question, &page.records, lines).await.map_err(status)?;
        Ok(Response::new(SearchLogsResponse {
            around: around.iter().map(|kept| answer::record(kept)).collect(),
            records: page.records.iter().map(|kept| answer::record(kept)).collect(),
            next_page_token: page.next.map(query::line_token).unwrap_or_default(),
            missing_nodes: question.missing(),
        }))
    }

    type TailLogsStream = BoxStream<'static, Result<TailLogsResponse, Status>>;

    async fn tail_logs(&self, request: Request<TailLogsRequest>) -> Result<Response<Self::TailLogsStream>, Status> {
        let is_alone = request.metadata().contains_key(ALONE);
        let request = request.into_inner();
        let filter = query::line_filter(request.filter).map_err(status)?;
        let permit =
            self.followers.clone().try_acquire_owned().map_err(|_| status(Error::FollowersFull(self.followers_max)))?;
        let (backlog, stop) = (query::backlog(request.backlog), self.stop.clone());
        let follower = Follower::start(self.tier.clone(), filter.clone(), backlog, stop.clone()).await;
        let follower = follower.map_err(status)?;
        let stream: BoxStream<'static, Result<Tailed, Error>> = if is_alone {
            let alone = |followed: Result<_, _>| followed.map(|followed| Tailed { followed, ..Tailed::default() });
            follower.stream().map(alone).boxed()
        } else {
            tail::tail(self.neighbours.clone(), follower, filter, backlog, stop).await.boxed()
        };
        let stream = stream.map(move |tailed| {
            // Held as long as the stream lives.
            let _ = &permit;
            let Tailed { followed, missing } = tailed.map_err(status)?;
            Ok(TailLogsResponse {
                records: followed.records.iter().map(|kept| answer::record(kept)).collect(),
                missed: followed.missed,
                missing_nodes: missing,
            })
        });
        Ok(Response::new(stream.boxed()))
    }

    async fn get_trace(&self, request: Request<GetTraceRequest>) -> Result<Response<GetTraceResponse>, Status> {
        let limit = Limit { records_max: TRACE_RECORDS_MAX, bytes_max: ANSWER_BYTES_MAX };
        let question = self.ask(&request).await;
        let trace = trace_of(&question, &request.into_inner().trace_id, limit).await.map_err(status)?;
        Ok(Response::new(GetTraceResponse { missing_nodes: question.missing(), ..answer::trace(trace) }))
    }

    async fn search_traces(
        &self,
        request: Request<SearchTracesRequest>,
    ) -> Result<Response<SearchTracesResponse>, Status> {
        let question = self.ask(&request).await;
        let request = request.into_inner();
        let before = query::trace_cursor(&request.page_token).map_err(status)?;
        let records_max = page::size(request.page_size).map_err(|error| status(error.into()))?;
        let filter = query::trace_filter(request).map_err(status)?;
        let page = question.search_traces(&filter, before, records_max).await.map_err(status)?;
        Ok(Response::new(SearchTracesResponse {
            traces: page.records.into_iter().map(answer::summary).collect(),
            next_page_token: page.next.map(query::trace_token).unwrap_or_default(),
            missing_nodes: question.missing(),
        }))
    }

    async fn list_usage(&self, request: Request<ListUsageRequest>) -> Result<Response<ListUsageResponse>, Status> {
        let question = self.ask(&request).await;
        let service = Some(request.into_inner().service).filter(|service| !service.is_empty());
        let usage = question.usage(service.as_deref()).await.map_err(status)?;
        Ok(Response::new(ListUsageResponse {
            usage: usage.into_iter().map(answer::usage).collect(),
            missing_nodes: question.missing(),
        }))
    }

    async fn list_samples(
        &self,
        request: Request<ListSamplesRequest>,
    ) -> Result<Response<ListSamplesResponse>, Status> {
        let question = self.ask(&request).await;
        let request = request.into_inner();
        let after = query::series_key(&request.page_token).map_err(status)?;
        let metric = Some(request.metric.as_str()).filter(|metric| !metric.is_empty());
        let service = Some(request.service.as_str()).filter(|service| !service.is_empty());
        let records_max = page::size(request.page_size).map_err(|error| status(error.into()))?;
        let page = question.samples(metric, service, after.as_ref(), records_max).await.map_err(status)?;
        Ok(Response::new(ListSamplesResponse {
            samples: page.records.into_iter().map(answer::sample).collect(),
            next_page_token: page.next.as_ref().map(query::series_token).unwrap_or_default(),
            missing_nodes: question.missing(),
        }))
    }

    async fn count_logs(&self, request: Request<CountLogsRequest>) -> Result<Response<CountLogsResponse>, Status> {
        let question = self.ask(&request).await;
        let request = request.into_inner();
        let (tallies, values_max) = query::tallies(&request).map_err(status)?;
        let filter = query::line_filter(request.filter).map_err(status)?;
        let tallies = question.count_lines(&filter, tallies).await.map_err(status)?;
        let counted = answer::counted(tallies, values_max);
        Ok(Response::new(CountLogsResponse { missing_nodes: question.missing(), ..counted }))
    }

    async fn get_service_graph(
        &self,
        request: Request<GetServiceGraphRequest>,
    ) -> Result<Response<GetServiceGraphResponse>, Status> {
        let now = nanos(SystemTime::now());
        let (start, end) = query::graph_times(request.get_ref(), now).map_err(status)?;
        let question = self.ask(&request).await;
        let graph = question.graph(start, end).await.map_err(status)?;
        Ok(Response::new(GetServiceGraphResponse { missing_nodes: question.missing(), ..answer::graph(&graph) }))
    }

    async fn compare_traces(
        &self,
        request: Request<CompareTracesRequest>,
    ) -> Result<Response<CompareTracesResponse>, Status> {
        let question = self.ask(&request).await;
        let request = request.into_inner();
        let one = trace_of(&question, &request.trace_id, COMPARED).await.map_err(status)?;
        let other = trace_of(&question, &request.other_trace_id, COMPARED).await.map_err(status)?;
        let compared = answer::compared(one, other);
        Ok(Response::new(CompareTracesResponse { missing_nodes: question.missing(), ..compared }))
    }

    async fn get_log_origin(
        &self,
        request: Request<GetLogOriginRequest>,
    ) -> Result<Response<GetLogOriginResponse>, Status> {
        let question = self.ask(&request).await;
        let origin = origin::of(request.into_inner(), &question, &self.metrics).await.map_err(status)?;
        Ok(Response::new(origin))
    }

    async fn delete_logs(&self, request: Request<DeleteLogsRequest>) -> Result<Response<DeleteLogsResponse>, Status> {
        let question = self.neighbours.order(request.metadata().contains_key(ALONE)).await;
        let filter = query::doomed_lines(request.into_inner().filter).map_err(status)?;
        let lines = question.delete_lines(&filter).await.map_err(status)?;
        Ok(Response::new(DeleteLogsResponse { lines, missing_nodes: question.missing() }))
    }

    async fn delete_traces(
        &self,
        request: Request<DeleteTracesRequest>,
    ) -> Result<Response<DeleteTracesResponse>, Status> {
        let question = self.neighbours.order(request.metadata().contains_key(ALONE)).await;
        let (id, filter) = query::doomed_traces(request.into_inner()).map_err(status)?;
        let gone = question.delete_traces(MeantTraces::With(id, filter)).await.map_err(status)?;
        Ok(Response::new(DeleteTracesResponse { spans: gone.spans, missing_nodes: question.missing() }))
    }

    async fn get_retention(&self, _: Request<GetRetentionRequest>) -> Result<Response<GetRetentionResponse>, Status> {
        Ok(Response::new(answer::retention(
            self.tier.retention(),
            self.intake.masked(),
            self.intake.senders(),
            self.intake.onward().map(Forward::told),
        )))
    }

    async fn list_nodes(&self, _: Request<ListNodesRequest>) -> Result<Response<ListNodesResponse>, Status> {
        let own = self.neighbours.own().map(|among| among.node.clone());
        let node = |entry: Entry| TelemetryNode {
            answering: own.as_ref() == Some(&entry.node),
            node: entry.node,
            endpoint: entry.endpoint,
            seen_time: Some(Timestamp { seconds: i64::try_from(entry.seen).unwrap_or_default(), nanos: 0 }),
        };
        let (nodes, _) = self.neighbours.nodes().await;
        Ok(Response::new(ListNodesResponse { nodes: nodes.into_iter().map(node).collect() }))
    }

    async fn forget_node(&self, request: Request<ForgetNodeRequest>) -> Result<Response<ForgetNodeResponse>, Status> {
        self.neighbours.forget(&request.into_inner().node).await.map_err(status)?;
        Ok(Response::new(ForgetNodeResponse {}))
    }
}
