//! A question to all nodes is a tier: every door asks it as it would ask one node.
//!
//! Pages hold over the join, because every node goes on from the same place: what came behind the last record that was
//! told. A node that has more to tell than it did sets how far the page may go.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use ninefold_proto::ninefold::monitor::v1 as proto;
use tokio::sync::watch;

use super::lock;
use super::question::{Failed, Question, drained};
use crate::error::Error;
use crate::grammar::Part;
use crate::graph::Graph;
use crate::hot::{shorten, whole};
use crate::model::{
    Kept, Line, LineFilter, Measurement, Nanos, Sample, SeriesKey, Span, SpanId, Summary, TraceFilter, TraceId, Usage,
};
use crate::summary::Part as TracePart;
use crate::tallies::Tallies;
use crate::tier::{
    Deleted, Followed, Limit, LineCursor, Lines, MeantTraces, Page, Retention, Signal, TakeLine, TakeSpan, Tier, Trace,
    TraceCursor,
};
use crate::wire::{neighbour as wire, query};

/// Traces that other nodes are asked about at a time.
pub(crate) const IDS_MAX: usize = 4096;

fn cursor(kept: &Kept) -> LineCursor {
    LineCursor { time: kept.line.time, sequence: kept.sequence }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

impl Question {
    /// Lines of the others before or after a place, and where each goes on.
    async fn find(
        &self,
        filter: &LineFilter,
        (before, after): (Option<LineCursor>, Option<LineCursor>),
        limit: Limit,
    ) -> Result<Vec<Lines>, Error> {
        let asked = proto::FindLinesRequest {
            filter: Some(wire::line_filter(filter)),
            before: before.map(wire::line_place),
            after: after.map(wire::line_place),
            records_max: number(limit.records_max),
            bytes_max: number(limit.bytes_max),
        };
        self.each(|mut client| {
            let request = self.request(asked.clone());
            async move {
                let mut stream = client.find_lines(request).await?.into_inner();
                let (mut records, mut next) = (Vec::new(), None);
                let take = |some: proto::FindLinesResponse| {
                    records.extend(some.lines.into_iter().filter_map(wire::line_of).map(Arc::new));
                    next = some.next.map(wire::line_cursor).or(next);
                };
                drained(&mut stream, take).await?;
                Ok(Page { records, next })
            }
        })
        .await
    }

    /// What is known of traces by all nodes, joined.
    async fn known(&self, ids: &[TraceId]) -> Result<Vec<TracePart>, Error> {
        let mut known: HashMap<TraceId, TracePart> = HashMap::new();
        for some in ids.chunks(IDS_MAX) {
            let asked = proto::TellTracesRequest { trace_ids: wire::trace_ids(some) };
            let others = self.each(|mut client| {
                let request = self.request(asked.clone());
                async move {
                    let parts = client.tell_traces(request).await?.into_inner().parts;
                    Ok(parts.into_iter().filter_map(wire::part_of).collect::<Vec<_>>())
                }
            });
            let (own, others) = tokio::join!(self.tier.parts(some), others);
            for part in own?.into_iter().chain(others?.into_iter().flatten()) {
                match known.get_mut(&part.trace_id) {
                    Some(known) => known.join(&part),
                    None => drop(known.insert(part.trace_id, part)),
                }
            }
        }
        Ok(known.into_values().collect())
    }

    async fn candidates(
        &self,
        filter: &TraceFilter,
        before: Option<TraceCursor>,
        records_max: usize,
    ) -> Result<Vec<(Vec<TraceId>, Option<TraceCursor>)>, Error> {
        let asked = proto::FindTracesRequest {
            filter: Some(wire::trace_filter(filter)),
            before: before.map(wire::trace_place),
            records_max: number(records_max),
        };
        self.each(|mut client| {
            let request = self.request(asked.clone());
            async move {
                let found = client.find_traces(request).await?.into_inner();
                Ok((wire::trace_ids_of(&found.trace_ids), found.next.as_ref().and_then(wire::trace_cursor)))
            }
        })
        .await
    }

    async fn forget_traces(&self, meant: &MeantTraces) -> Result<Vec<Deleted>, Error> {
        let asked = wire::meant(meant);
        self.each(|mut client| {
            let request = self.request(asked.clone());
            async move {
                let gone = client.forget_traces(request).await?.into_inner();
                Ok(Deleted { spans: gone.spans, traces: wire::trace_ids_of(&gone.trace_ids) })
            }
        })
        .await
    }

    async fn newest(&self, asked: proto::TellNewestRequest) -> Result<Vec<proto::TellNewestResponse>, Error> {
        self.each(|mut client| {
            let request = self.request(asked.clone());
            async move { Ok(client.tell_newest(request).await?.into_inner()) }
        })
        .await
    }
}

/// Joins pages of lines, newest first. A page never ends between lines of one place: those of another node at the place
/// would be passed over by the next.
fn join_pages(pages: Vec<Lines>, limit: Limit) -> Lines {
    let floor = pages.iter().filter_map(|page| page.next).max();
    let mut records: Vec<Arc<Kept>> = pages.into_iter().flat_map(|page| page.records).collect();
    records.retain(|kept| floor.is_none_or(|floor| cursor(kept) >= floor));
    records.sort_by_key(|kept| std::cmp::Reverse(cursor(kept)));
    let is_cut_off = cut_off(&mut records, limit);
    let next = records.last().filter(|_| is_cut_off || floor.is_some()).map(|kept| cursor(kept));
    Page { records, next }
}

/// Leaves what fits, and what is at the place of the last of that; tells whether something was left out.
fn cut_off(records: &mut Vec<Arc<Kept>>, limit: Limit) -> bool {
    let mut fitting = records.clone();
    shorten(&mut fitting, limit, |kept| kept.line.bytes());
    let last = fitting.last().map(|kept| cursor(kept));
    let tied = records[fitting.len()..].iter().take_while(|kept| Some(cursor(kept)) == last).count();
    let stays = fitting.len() + tied;
    let is_cut_off = stays < records.len();
    records.truncate(stays);
    is_cut_off
}

/// All lines of one node after a place, as many as are asked for: a limit of bytes does not end them.
pub(crate) async fn all_after(
    tier: &dyn Tier,
    filter: &LineFilter,
    mut after: LineCursor,
    limit: Limit,
) -> Result<Vec<Arc<Kept>>, Error> {
    let mut all: Vec<Arc<Kept>> = Vec::new();
    loop {
        let left = Limit { records_max: limit.records_max - all.len(), ..limit };
        let some = tier.lines_after(filter, after, left).await?;
        let bytes: usize = some.iter().map(|kept| kept.line.bytes()).sum();
        let is_end = some.len() >= left.records_max || bytes < limit.bytes_max / 2;
        after = some.last().map_or(after, |kept| cursor(kept));
        all.extend(some);
        if is_end {
            return Ok(all);
        }
    }
}

#[tonic::async_trait]
impl Tier for Question {
    async fn append_lines(&self, lines: Vec<Line>, up_to: usize) -> Result<(), Error> {
        self.tier.append_lines(lines, up_to).await
    }

    async fn append_spans(&self, spans: Vec<Span>, up_to: usize) -> Result<(), Error> {
        self.tier.append_spans(spans, up_to).await
    }

    async fn append_measurements(&self, measurements: Vec<Measurement>, up_to: usize) -> Result<(), Error> {
        self.tier.append_measurements(measurements, up_to).await
    }

    fn unfiled_bytes_max(&self) -> usize {
        self.tier.unfiled_bytes_max()
    }

    fn count_refused(&self, signal: Signal, records: u64) {
        self.tier.count_refused(signal, records);
    }

    async fn search_lines(
        &self,
        filter: &LineFilter,
        before: Option<LineCursor>,
        limit: Limit,
    ) -> Result<Lines, Error> {
        let own = self.tier.search_lines(filter, before, limit);
        if self.is_alone() {
            return own.await;
        }
        let (own, others) = tokio::join!(own, self.find(filter, (before, None), limit));
        let mut pages = others?;
        pages.push(own?);
        Ok(join_pages(pages, limit))
    }

    async fn lines_after(&self, filter: &LineFilter, after: LineCursor, limit: Limit) -> Result<Vec<Arc<Kept>>, Error> {
        if self.is_alone() {
            return self.tier.lines_after(filter, after, limit).await;
        }
        let own = all_after(&*self.tier, filter, after, limit);
        let (own, others) = tokio::join!(own, self.find(filter, (None, Some(after)), limit));
        let mut all = others?;
        all.push(Page { records: own?, next: None });
        // A node that has told as many as were asked for may have more behind its last.
        let full = all.iter().filter(|page| page.records.len() >= limit.records_max);
        let ceiling = full.filter_map(|page| page.records.last()).map(|kept| cursor(kept)).min();
        let mut lines: Vec<Arc<Kept>> = all.into_iter().flat_map(|page| page.records).collect();
        lines.retain(|kept| ceiling.is_none_or(|ceiling| cursor(kept) <= ceiling));
        lines.sort_by_key(|kept| cursor(kept));
        cut_off(&mut lines, Limit { bytes_max: usize::MAX, ..limit });
        Ok(lines)
    }

    /// Of this node alone: sequence numbers are its own.
    async fn follow_lines(&self, filter: &LineFilter, after: u64, limit: Limit) -> Result<Followed, Error> {
        self.tier.follow_lines(filter, after, limit).await
    }

    /// Of this node alone.
    fn newest_line(&self) -> watch::Receiver<u64> {
        self.tier.newest_line()
    }

    async fn trace(&self, id: TraceId, limit: Limit) -> Result<Option<Trace>, Error> {
        let own = self.tier.trace(id, limit);
        if self.is_alone() {
            return own.await;
        }
        let (records_max, bytes_max) = (number(limit.records_max), number(limit.bytes_max));
        let asked = proto::ReadTraceRequest { trace_id: id.0.to_vec(), records_max, bytes_max };
        let others = self.each(|mut client| {
            let request = self.request(asked.clone());
            async move {
                let mut stream = client.read_trace(request).await?.into_inner();
                let mut trace = Trace { summary: None, spans: Vec::new(), lines: Vec::new(), truncated: false };
                let take = |some: proto::ReadTraceResponse| {
                    trace.spans.extend(some.spans.into_iter().filter_map(wire::span_of).map(Arc::new));
                    trace.lines.extend(some.lines.into_iter().filter_map(wire::line_of).map(Arc::new));
                    trace.truncated |= some.truncated;
                };
                drained(&mut stream, take).await?;
                Ok(trace)
            }
        });
        let ids = [id];
        let (own, others, known) = tokio::join!(own, others, self.known(&ids));
        let traces: Vec<Trace> = own?.into_iter().chain(others?).collect();
        let truncated = traces.iter().any(|trace| trace.truncated);
        let (mut spans, mut lines) = (Vec::new(), Vec::new());
        for trace in traces {
            spans.extend(trace.spans);
            lines.extend(trace.lines);
        }
        let mut seen: HashSet<SpanId> = HashSet::new();
        spans.retain(|span| seen.insert(span.span_id));
        if spans.is_empty() && lines.is_empty() {
            return Ok(None);
        }
        // What the spans say is nearer to the truth, as long as all are there.
        let summary = if truncated { known?.pop() } else { TracePart::of_spans(&spans).pop() };
        let trace = whole(summary.map(|part| part.summary()), spans, lines, limit);
        Ok(Some(Trace { truncated: truncated || trace.truncated, ..trace }))
    }

    async fn search_traces(
        &self,
        filter: &TraceFilter,
        before: Option<TraceCursor>,
        records_max: usize,
    ) -> Result<Page<Summary, TraceCursor>, Error> {
        let own = self.tier.search_traces(filter, before, records_max);
        if self.is_alone() {
            return own.await;
        }
        let (own, others) = tokio::join!(own, self.candidates(filter, before, records_max));
        let own = own?;
        let mut found = others?;
        found.push((own.records.iter().map(|summary| summary.trace_id).collect(), own.next));
        let floor = found.iter().filter_map(|(_, next)| *next).max();
        let ids: BTreeSet<TraceId> = found.into_iter().flat_map(|(ids, _)| ids).collect();
        let ids: Vec<TraceId> = ids.into_iter().collect();
        // A node knows a part of a trace; what is asked for is asked of the whole.
        let place = |summary: &Summary| TraceCursor { start: summary.start, trace_id: summary.trace_id };
        let is_here =
            |at: TraceCursor| before.is_none_or(|before| at < before) && floor.is_none_or(|floor| at >= floor);
        let whole = self.known(&ids).await?.into_iter().map(|part| part.summary());
        let mut records: Vec<Summary> =
            whole.filter(|summary| filter.admits(summary) && is_here(place(summary))).collect();
        records.sort_by_key(|summary| std::cmp::Reverse(place(summary)));
        let is_cut_off = records.len() > records_max;
        records.truncate(records_max);
        let next = if is_cut_off { records.last().map(place) } else { floor };
        Ok(Page { records, next })
    }

    async fn parts(&self, ids: &[TraceId]) -> Result<Vec<TracePart>, Error> {
        self.known(ids).await
    }

    async fn count_lines(&self, filter: &LineFilter, tallies: Tallies) -> Result<Tallies, Error> {
        let asked = proto::TallyLinesRequest {
            filter: Some(wire::line_filter(filter)),
            step_nanos: tallies.step(),
            fields: tallies.fields().map(str::to_owned).collect(),
        };
        let others = self.each(|mut client| {
            let request = self.request(asked.clone());
            async move { Ok(wire::tallies_of(client.tally_lines(request).await?.into_inner())) }
        });
        let (own, others) = tokio::join!(self.tier.count_lines(filter, tallies), others);
        let mut all = own?;
        others?.into_iter().for_each(|told| all.join(told));
        Ok(all)
    }

    async fn each_line(&self, filter: &LineFilter, parts: &BTreeSet<Part>, mut take: TakeLine) -> Result<(), Error> {
        if self.is_alone() {
            return self.tier.each_line(filter, parts, take).await;
        }
        let asked = proto::ReadLinesRequest {
            filter: Some(wire::line_filter(filter)),
            fields: parts.iter().map(|part| wire::field(*part).to_owned()).collect(),
        };
        let taking: Arc<Mutex<TakeLine>> = Arc::new(Mutex::new(Box::new(move |line| take(line))));
        let (own, given) = (taking.clone(), taking);
        let own = self.tier.each_line(filter, parts, Box::new(move |line| (lock(&own))(line)));
        let others = self.each(|mut client| {
            let (request, given) = (self.request(asked.clone()), given.clone());
            async move {
                let mut stream = client.read_lines(request).await?.into_inner();
                while let Some(some) = stream.message().await? {
                    for kept in some.lines.into_iter().filter_map(wire::line_of) {
                        (lock(&given))(&kept.line).map_err(Failed::Own)?;
                    }
                }
                Ok(())
            }
        });
        let (own, others) = tokio::join!(own, others);
        own.and(others.map(drop))
    }

    async fn each_span(&self, start: Nanos, end: Nanos, mut take: TakeSpan) -> Result<(), Error> {
        if self.is_alone() {
            return self.tier.each_span(start, end, take).await;
        }
        let asked = proto::ReadSpansRequest { start_unix_nanos: start.0, end_unix_nanos: end.0 };
        // A sender that lost its node repeats at another what it does not know to have been taken.
        let mut seen: HashSet<(TraceId, SpanId)> = HashSet::new();
        let once = move |span: &Span| {
            if seen.insert((span.trace_id, span.span_id)) { take(span) } else { Ok(()) }
        };
        let taking: Arc<Mutex<TakeSpan>> = Arc::new(Mutex::new(Box::new(once)));
        let (own, given) = (taking.clone(), taking);
        let own = self.tier.each_span(start, end, Box::new(move |span| (lock(&own))(span)));
        let others = self.each(|mut client| {
            let (request, given) = (self.request(asked), given.clone());
            async move {
                let mut stream = client.read_spans(request).await?.into_inner();
                while let Some(some) = stream.message().await? {
                    for span in some.spans.into_iter().filter_map(wire::span_of) {
                        (lock(&given))(&span).map_err(Failed::Own)?;
                    }
                }
                Ok(())
            }
        });
        let (own, others) = tokio::join!(own, others);
        own.and(others.map(drop))
    }

    async fn graph(&self, start: Option<Nanos>, end: Option<Nanos>) -> Result<Graph, Error> {
        let asked = proto::ReadCallsRequest {
            start_unix_nanos: start.map(|start| start.0),
            end_unix_nanos: end.map(|end| end.0),
        };
        let others = self.each(|mut client| {
            let request = self.request(asked);
            async move {
                let mut stream = client.read_calls(request).await?.into_inner();
                let mut told = Vec::new();
                drained(&mut stream, |some| told.push(some)).await?;
                Ok(told)
            }
        });
        let (own, others) = tokio::join!(self.tier.graph(start, end), others);
        let mut graph = own?;
        for some in others?.into_iter().flatten() {
            graph.is_truncated |= some.truncated;
            for span in some.spans {
                let ids = (TraceId::from_bytes(&span.trace_id), SpanId::from_bytes(&span.span_id));
                let (Some(trace), Some(id)) = ids else { continue };
                let parent = SpanId::from_bytes(&span.parent_span_id);
                graph.call(trace, id, parent, &span.service, (Nanos(0), Nanos(span.nanos)), span.failed);
            }
        }
        Ok(graph)
    }

    async fn delete_lines(&self, filter: &LineFilter) -> Result<u64, Error> {
        let asked = proto::ForgetLinesRequest { filter: Some(wire::line_filter(filter)) };
        let others = self.each(|mut client| {
            let request = self.request(asked.clone());
            async move { Ok(client.forget_lines(request).await?.into_inner().lines) }
        });
        let (own, others) = tokio::join!(self.tier.delete_lines(filter), others);
        Ok(own? + others?.into_iter().sum::<u64>())
    }

    async fn delete_traces(&self, meant: MeantTraces) -> Result<Deleted, Error> {
        let (own, others) = tokio::join!(self.tier.delete_traces(meant.clone()), self.forget_traces(&meant));
        let mut all = own?;
        for gone in others? {
            all.spans += gone.spans;
            all.traces.extend(gone.traces);
        }
        let ids: BTreeSet<TraceId> = std::mem::take(&mut all.traces).into_iter().collect();
        all.traces = ids.into_iter().collect();
        if self.is_alone() || all.traces.is_empty() || matches!(meant, MeantTraces::These(_)) {
            return Ok(all);
        }
        // A trace goes whole: what one node knew it by may be what another does not have.
        let these = MeantTraces::These(all.traces.clone());
        let (own, others) = tokio::join!(self.tier.delete_traces(these.clone()), self.forget_traces(&these));
        all.spans += own?.spans + others?.iter().map(|gone| gone.spans).sum::<u64>();
        Ok(all)
    }

    async fn samples(
        &self,
        metric: Option<&str>,
        service: Option<&str>,
        after: Option<&SeriesKey>,
        records_max: usize,
    ) -> Result<Page<(SeriesKey, Sample), SeriesKey>, Error> {
        let own = self.tier.samples(metric, service, after, records_max);
        if self.is_alone() {
            return own.await;
        }
        let samples = proto::ListSamplesRequest {
            metric: metric.unwrap_or_default().to_owned(),
            service: service.unwrap_or_default().to_owned(),
            page_size: i32::try_from(records_max).unwrap_or(i32::MAX),
            page_token: after.map(query::series_token).unwrap_or_default(),
        };
        let asked = proto::TellNewestRequest { samples: Some(samples), usage: None };
        let (own, others) = tokio::join!(own, self.newest(asked));
        let own = own?;
        let mut ceiling = own.next.clone();
        let mut all = own.records;
        for told in others? {
            let some: Vec<_> = told.samples.into_iter().filter_map(wire::sample_of).collect();
            let last = some.last().filter(|_| told.has_more).map(|(key, _)| key.clone());
            ceiling = ceiling.into_iter().chain(last).min();
            all.extend(some);
        }
        all.retain(|(key, _)| ceiling.as_ref().is_none_or(|ceiling| key <= ceiling));
        all.sort_by(|(one, first), (other, second)| one.cmp(other).then(second.time.cmp(&first.time)));
        all.dedup_by(|(later, _), (kept, _)| later == kept);
        let is_cut_off = all.len() > records_max;
        all.truncate(records_max);
        let next = all.last().filter(|_| is_cut_off || ceiling.is_some()).map(|(key, _)| key.clone());
        Ok(Page { records: all, next })
    }

    async fn usage(&self, service: Option<&str>) -> Result<Vec<Usage>, Error> {
        let usage = proto::ListUsageRequest { service: service.unwrap_or_default().to_owned() };
        let asked = proto::TellNewestRequest { samples: None, usage: Some(usage) };
        let (own, others) = tokio::join!(self.tier.usage(service), self.newest(asked));
        let others = others?.into_iter().flat_map(|told| told.usage).filter_map(wire::usage_of);
        let mut all: Vec<Usage> = own?.into_iter().chain(others).collect();
        let who = |usage: &Usage| (usage.service.clone(), usage.instance_id.clone());
        all.sort_by(|one, other| who(one).cmp(&who(other)).then(other.time.cmp(&one.time)));
        all.dedup_by(|later, kept| who(later) == who(kept));
        Ok(all)
    }

    /// Of this node alone.
    fn retention(&self) -> Retention {
        self.tier.retention()
    }
}

#[cfg(test)]
#[path = "joined/tests.rs"]
mod tests;
