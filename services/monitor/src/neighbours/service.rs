//! The contract `ninefold.monitor.v1.NeighbourService`: what this node keeps, for the others.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use ninefold::fault::{self, Fault};
use ninefold::lifecycle::Stop;
use ninefold::tonic::{Request, Response, Status, async_trait};
use ninefold_promql::{Labels, Series};
use ninefold_proto::ninefold::monitor::v1 as proto;
use ninefold_proto::ninefold::monitor::v1::neighbour_service_server::NeighbourService;
use prost::Message;
use tokio::sync::Semaphore;

use super::joined::{IDS_MAX, all_after};
use super::lock;
use crate::error::Error;
use crate::follow::Follower;
use crate::grammar::Part;
use crate::metrics::{Metrics, packed};
use crate::model::{Kept, LineFilter, Nanos, TraceId};
use crate::tallies::Tallies;
use crate::tier::{Limit, Tier};
use crate::wire::{answer, neighbour as wire, query};

/// About how large the messages of a stream are.
const MESSAGE_BYTES: usize = 1024 * 1024;
/// Most samples of one part of a series.
const SAMPLES: usize = 50_000;
/// Most fields that lines are counted by, or read.
const FIELDS_MAX: usize = 64;

/// Answers the contract from what this node keeps.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) tier: Arc<dyn Tier>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) followers: Arc<Semaphore>,
    pub(crate) followers_max: usize,
    /// Most records that are given at once, and most bytes of them.
    pub(crate) room: (u64, usize),
    pub(crate) stop: Stop,
}

type Stream<T> = BoxStream<'static, Result<T, Status>>;

#[expect(clippy::needless_pass_by_value, reason = "what map_err hands over")]
fn status(error: impl Fault) -> Status {
    fault::status(&error)
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Puts records into messages of about [`MESSAGE_BYTES`]; there is at least one message.
fn messages<T: Message, M: Default>(records: Vec<T>, put: impl Fn(&mut M, T)) -> Vec<M> {
    let (mut all, mut bytes) = (vec![M::default()], 0);
    for record in records {
        let more = record.encoded_len();
        if bytes > 0 && bytes + more > MESSAGE_BYTES {
            all.push(M::default());
            bytes = 0;
        }
        bytes += more;
        if let Some(last) = all.last_mut() {
            put(last, record);
        }
    }
    all
}

fn streamed<M: Send + 'static>(messages: Vec<M>) -> Response<Stream<M>> {
    Response::new(stream::iter(messages.into_iter().map(Ok)).boxed())
}

fn lines(kept: &[Arc<Kept>]) -> Vec<proto::KeptLine> {
    kept.iter().map(|kept| wire::line(kept.sequence, &kept.line)).collect()
}

/// Records that are gathered while they are looked for, within bounds.
struct Gathered<T> {
    records: Vec<T>,
    bytes: usize,
    room: (u64, usize),
}

impl<T: Message> Gathered<T> {
    fn new(room: (u64, usize)) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { records: Vec::new(), bytes: 0, room }))
    }

    fn put(&mut self, record: T) -> Result<(), Error> {
        let (records_max, bytes_max) = self.room;
        self.bytes += record.encoded_len();
        self.records.push(record);
        if self.records.len() as u64 > records_max {
            return Err(Error::SqlTooCostly(format!("{records_max} records")));
        }
        if self.bytes > bytes_max {
            return Err(Error::SqlTooCostly(format!("{} MiB of records", bytes_max / (1024 * 1024))));
        }
        Ok(())
    }
}

impl Service {
    async fn found(&self, request: proto::FindLinesRequest) -> Result<Vec<proto::FindLinesResponse>, Error> {
        let filter = wire::line_filter_of(request.filter)?;
        let limit = Limit { records_max: size(request.records_max), bytes_max: size(request.bytes_max) };
        let (records, next) = match request.after.map(wire::line_cursor) {
            Some(after) => (all_after(&*self.tier, &filter, after, limit).await?, None),
            None => {
                let page = self.tier.search_lines(&filter, request.before.map(wire::line_cursor), limit).await?;
                (page.records, page.next)
            }
        };
        let mut all = messages(lines(&records), |to: &mut proto::FindLinesResponse, line| to.lines.push(line));
        if let Some(last) = all.last_mut() {
            last.next = next.map(wire::line_place);
        }
        Ok(all)
    }

    async fn every_line(&self, filter: &LineFilter, fields: &[String]) -> Result<Vec<proto::KeptLine>, Error> {
        if fields.len() > FIELDS_MAX {
            return Err(query::wrong("fields", &format!("there are more than {FIELDS_MAX}")));
        }
        let parts: BTreeSet<Part> = fields.iter().map(|field| Part::of_field(field)).collect();
        let gathered = Gathered::new(self.room);
        let to = gathered.clone();
        self.tier.each_line(filter, &parts, Box::new(move |line| lock(&to).put(wire::line(0, line)))).await?;
        Ok(std::mem::take(&mut lock(&gathered).records))
    }

    async fn every_span(&self, start: Nanos, end: Nanos) -> Result<Vec<proto::KeptSpan>, Error> {
        let gathered = Gathered::new(self.room);
        let to = gathered.clone();
        self.tier.each_span(start, end, Box::new(move |span| lock(&to).put(wire::span(span)))).await?;
        Ok(std::mem::take(&mut lock(&gathered).records))
    }

    async fn of_trace(&self, request: proto::ReadTraceRequest) -> Result<Vec<proto::ReadTraceResponse>, Error> {
        let id = TraceId::from_bytes(&request.trace_id).ok_or_else(|| query::wrong("trace_id", "must be 16 bytes"))?;
        let limit = Limit { records_max: size(request.records_max), bytes_max: size(request.bytes_max) };
        let Some(trace) = self.tier.trace(id, limit).await? else { return Ok(Vec::new()) };
        let spans = trace.spans.iter().map(|span| wire::span(span)).collect();
        let mut all = messages(spans, |to: &mut proto::ReadTraceResponse, span| to.spans.push(span));
        all.extend(messages(lines(&trace.lines), |to: &mut proto::ReadTraceResponse, line| to.lines.push(line)));
        if let Some(last) = all.last_mut() {
            last.truncated = trace.truncated;
        }
        Ok(all)
    }

    async fn newest(&self, request: proto::TellNewestRequest) -> Result<proto::TellNewestResponse, Error> {
        let mut told = proto::TellNewestResponse::default();
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        if let Some(asked) = request.samples {
            let after = query::series_key(&asked.page_token)?;
            let (metric, service) = (given(asked.metric), given(asked.service));
            let records_max = ninefold::page::size(asked.page_size)?;
            let page = self.tier.samples(metric.as_deref(), service.as_deref(), after.as_ref(), records_max).await?;
            told.has_more = page.next.is_some();
            told.samples = page.records.into_iter().map(answer::sample).collect();
        }
        if let Some(asked) = request.usage {
            let usage = self.tier.usage(given(asked.service).as_deref()).await?;
            told.usage = usage.into_iter().map(answer::usage).collect();
        }
        Ok(told)
    }
}

fn label_set(labels: &Labels) -> proto::LabelSet {
    proto::LabelSet { labels: wire::labels(labels) }
}

/// A series in parts.
fn parts(selection: usize, series: &Series) -> Vec<proto::PackedSeries> {
    let labels = wire::labels(&series.labels);
    let part = |samples| proto::PackedSeries {
        selection: u32::try_from(selection).unwrap_or(u32::MAX),
        labels: labels.clone(),
        samples: packed(samples),
    };
    series.samples.chunks(SAMPLES).map(part).collect()
}

#[async_trait]
impl NeighbourService for Service {
    type FindLinesStream = Stream<proto::FindLinesResponse>;
    type FollowLinesStream = Stream<proto::FollowLinesResponse>;
    type ReadLinesStream = Stream<proto::ReadLinesResponse>;
    type ReadSpansStream = Stream<proto::ReadSpansResponse>;
    type ReadCallsStream = Stream<proto::ReadCallsResponse>;
    type ReadTraceStream = Stream<proto::ReadTraceResponse>;
    type ReadSeriesStream = Stream<proto::ReadSeriesResponse>;
    type ReadLabelsStream = Stream<proto::ReadLabelsResponse>;

    async fn find_lines(
        &self,
        request: Request<proto::FindLinesRequest>,
    ) -> Result<Response<Self::FindLinesStream>, Status> {
        Ok(streamed(self.found(request.into_inner()).await.map_err(status)?))
    }

    async fn follow_lines(
        &self,
        request: Request<proto::FollowLinesRequest>,
    ) -> Result<Response<Self::FollowLinesStream>, Status> {
        let request = request.into_inner();
        let filter = wire::line_filter_of(request.filter).map_err(status)?;
        let full = |_| status(Error::FollowersFull(self.followers_max));
        let permit = self.followers.clone().try_acquire_owned().map_err(full)?;
        let backlog = query::backlog(i32::try_from(request.backlog).unwrap_or(i32::MAX));
        let follower = Follower::start(self.tier.clone(), filter, backlog, self.stop.clone()).await.map_err(status)?;
        let stream = follower.stream().map(move |followed| {
            // Held as long as the stream lives.
            let _ = &permit;
            let followed = followed.map_err(status)?;
            Ok(proto::FollowLinesResponse { lines: lines(&followed.records), missed: followed.missed })
        });
        Ok(Response::new(stream.boxed()))
    }

    async fn read_lines(
        &self,
        request: Request<proto::ReadLinesRequest>,
    ) -> Result<Response<Self::ReadLinesStream>, Status> {
        let request = request.into_inner();
        let filter = wire::line_filter_of(request.filter).map_err(status)?;
        let found = self.every_line(&filter, &request.fields).await.map_err(status)?;
        Ok(streamed(messages(found, |to: &mut proto::ReadLinesResponse, line| to.lines.push(line))))
    }

    async fn tally_lines(
        &self,
        request: Request<proto::TallyLinesRequest>,
    ) -> Result<Response<proto::TallyLinesResponse>, Status> {
        let request = request.into_inner();
        let filter = wire::line_filter_of(request.filter).map_err(status)?;
        let tallies = Tallies::new(request.step_nanos, &request.fields);
        let tallies = self.tier.count_lines(&filter, tallies).await.map_err(status)?;
        Ok(Response::new(wire::tallied(tallies)))
    }

    async fn read_spans(
        &self,
        request: Request<proto::ReadSpansRequest>,
    ) -> Result<Response<Self::ReadSpansStream>, Status> {
        let request = request.into_inner();
        let (start, end) = (Nanos(request.start_unix_nanos), Nanos(request.end_unix_nanos));
        let found = self.every_span(start, end).await.map_err(status)?;
        Ok(streamed(messages(found, |to: &mut proto::ReadSpansResponse, span| to.spans.push(span))))
    }

    async fn read_calls(
        &self,
        request: Request<proto::ReadCallsRequest>,
    ) -> Result<Response<Self::ReadCallsStream>, Status> {
        let request = request.into_inner();
        let (start, end) = (request.start_unix_nanos.map(Nanos), request.end_unix_nanos.map(Nanos));
        let graph = self.tier.graph(start, end).await.map_err(status)?;
        let spans = graph.spans().map(wire::call).collect();
        let mut all = messages(spans, |to: &mut proto::ReadCallsResponse, span| to.spans.push(span));
        if let Some(last) = all.last_mut() {
            last.truncated = graph.is_truncated;
        }
        Ok(streamed(all))
    }

    async fn read_trace(
        &self,
        request: Request<proto::ReadTraceRequest>,
    ) -> Result<Response<Self::ReadTraceStream>, Status> {
        Ok(streamed(self.of_trace(request.into_inner()).await.map_err(status)?))
    }

    async fn find_traces(
        &self,
        request: Request<proto::FindTracesRequest>,
    ) -> Result<Response<proto::FindTracesResponse>, Status> {
        let request = request.into_inner();
        let filter = query::trace_filter(request.filter.unwrap_or_default()).map_err(status)?;
        let before = request.before.as_ref().and_then(wire::trace_cursor);
        let page = self.tier.search_traces(&filter, before, size(request.records_max)).await.map_err(status)?;
        let ids: Vec<TraceId> = page.records.iter().map(|summary| summary.trace_id).collect();
        let next = page.next.map(wire::trace_place);
        Ok(Response::new(proto::FindTracesResponse { trace_ids: wire::trace_ids(&ids), next }))
    }

    async fn tell_traces(
        &self,
        request: Request<proto::TellTracesRequest>,
    ) -> Result<Response<proto::TellTracesResponse>, Status> {
        let mut ids = wire::trace_ids_of(&request.into_inner().trace_ids);
        ids.truncate(IDS_MAX);
        let parts = self.tier.parts(&ids).await.map_err(status)?;
        Ok(Response::new(proto::TellTracesResponse { parts: parts.into_iter().map(wire::part).collect() }))
    }

    async fn tell_newest(
        &self,
        request: Request<proto::TellNewestRequest>,
    ) -> Result<Response<proto::TellNewestResponse>, Status> {
        Ok(Response::new(self.newest(request.into_inner()).await.map_err(status)?))
    }

    async fn read_series(
        &self,
        request: Request<proto::ReadSeriesRequest>,
    ) -> Result<Response<Self::ReadSeriesStream>, Status> {
        let request = request.into_inner();
        let selections = wire::selections_of(request.selections).map_err(status)?;
        let found = self.metrics.series(selections, size(request.samples_max)).await.map_err(status)?;
        let (found, unread) = found;
        let all: Vec<_> = found
            .iter()
            .enumerate()
            .flat_map(|(place, series)| series.iter().flat_map(move |one| parts(place, one)))
            .collect();
        let mut all = messages(all, |to: &mut proto::ReadSeriesResponse, series| to.series.push(series));
        if let Some(last) = all.last_mut() {
            last.unread = unread as u64;
        }
        Ok(streamed(all))
    }

    async fn read_labels(
        &self,
        request: Request<proto::ReadLabelsRequest>,
    ) -> Result<Response<Self::ReadLabelsStream>, Status> {
        let request = request.into_inner();
        let part = request.part();
        let selections = wire::selections_of(request.selections).map_err(status)?;
        let sets = |labels: Vec<Labels>| {
            let sets = labels.iter().map(label_set).collect();
            messages(sets, |to: &mut proto::ReadLabelsResponse, set| to.series.push(set))
        };
        let all = match part {
            proto::LabelsPart::Unspecified => return Err(status(query::wrong("part", "must be given"))),
            proto::LabelsPart::Series => sets(self.metrics.labels(selections).await.map_err(status)?),
            proto::LabelsPart::Metrics => {
                let metric = |(name, about): (String, crate::metrics::About)| proto::Metric {
                    name,
                    series: 0,
                    r#type: about.of.word().to_owned(),
                    unit: about.unit,
                    help: about.help,
                };
                let about = self.metrics.about(None).into_iter().map(metric).collect();
                let mut all = sets(self.metrics.recent_labels());
                all.extend(messages(about, |to: &mut proto::ReadLabelsResponse, metric| to.metrics.push(metric)));
                all
            }
            proto::LabelsPart::Exemplars => {
                let one = |(labels, exemplar): (Labels, crate::metrics::Exemplar)| proto::SeriesExemplar {
                    series: Some(label_set(&labels)),
                    own: Some(label_set(&exemplar.labels)),
                    at_millis: exemplar.at,
                    value: exemplar.value,
                };
                let found = self.metrics.selected_exemplars(&selections).into_iter().map(one).collect();
                messages(found, |to: &mut proto::ReadLabelsResponse, one| to.exemplars.push(one))
            }
        };
        Ok(streamed(all))
    }

    async fn forget_lines(
        &self,
        request: Request<proto::ForgetLinesRequest>,
    ) -> Result<Response<proto::ForgetLinesResponse>, Status> {
        let filter = wire::line_filter_of(request.into_inner().filter).map_err(status)?;
        query::something(&filter).map_err(status)?;
        let lines = self.tier.delete_lines(&filter).await.map_err(status)?;
        Ok(Response::new(proto::ForgetLinesResponse { lines }))
    }

    async fn forget_traces(
        &self,
        request: Request<proto::ForgetTracesRequest>,
    ) -> Result<Response<proto::ForgetTracesResponse>, Status> {
        let meant = wire::meant_of(request.into_inner()).map_err(status)?;
        let gone = self.tier.delete_traces(meant).await.map_err(status)?;
        let trace_ids = wire::trace_ids(&gone.traces);
        Ok(Response::new(proto::ForgetTracesResponse { spans: gone.spans, trace_ids }))
    }
}
