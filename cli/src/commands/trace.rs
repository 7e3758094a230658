//! `ninefold trace`: a request across all services, with all its log lines.

mod beside;

use std::collections::HashMap;
use std::time::Duration;

use clap::Args;
use ninefold_proto::ninefold::monitor::v1::{
    DeleteTracesRequest, GetServiceGraphRequest, GetTraceRequest, GetTraceResponse, SearchTracesRequest, Span,
    TraceSummary,
};

use crate::client::Platform;
use crate::commands::logs;
use crate::exit::Failure;
use crate::output::{self, Format, Table};

/// Width of the bar that shows where in the trace a span lies.
const BAR: usize = 32;
/// Traces that are looked through for those of people.
const SEARCHED: i32 = 1000;

/// What `trace` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct TraceArgs {
    /// Id of the trace: 32 hex digits.
    pub(crate) id: Option<String>,
    /// Only traces in which this service took part.
    #[arg(long, default_value = "")]
    pub(crate) service: String,
    /// Only traces with a failed span.
    #[arg(long)]
    pub(crate) failed: bool,
    /// Only traces that took at least this long, such as 100ms.
    #[arg(long, value_parser = ninefold::settings::duration::parse)]
    pub(crate) min: Option<std::time::Duration>,
    /// Only traces that took at most this long, such as 2s.
    #[arg(long, value_parser = ninefold::settings::duration::parse)]
    pub(crate) max: Option<std::time::Duration>,
    /// Only traces with a span of this name.
    #[arg(long, default_value = "")]
    pub(crate) operation: String,
    /// Only traces with a span that has this, such as http.response.status_code=500. May be repeated.
    #[arg(long = "with", value_name = "NAME=VALUE")]
    pub(crate) attributes: Vec<String>,
    /// Who called whom in the last hour instead: calls, failures and times.
    #[arg(long, conflicts_with_all = ["id", "service", "failed", "min", "max", "operation", "attributes"])]
    pub(crate) graph: bool,
    /// Hold the trace beside another: id of the other.
    #[arg(long, value_name = "ID", requires = "id")]
    pub(crate) compare: Option<String>,
    /// Delete all traces that this means, of all nodes, for good; their log lines stay.
    #[arg(long, conflicts_with_all = ["failed", "min", "max", "graph", "compare"])]
    pub(crate) delete: bool,
    /// Delete without asking.
    #[arg(long, requires = "delete")]
    pub(crate) yes: bool,
    /// How many.
    #[arg(short = 'n', long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) lines: u16,
}

/// Prints one trace, or the newest that match.
pub(crate) async fn trace(platform: &Platform, args: TraceArgs, format: Format) -> Result<(), Failure> {
    if args.graph {
        return graph(platform, format).await;
    }
    if args.delete {
        let TraceArgs { id, service, operation, attributes, yes, .. } = args;
        let trace_id = id.unwrap_or_default().to_lowercase();
        let request = DeleteTracesRequest { service, operation, attributes, trace_id };
        return logs::delete::traces(platform, request, yes, format).await;
    }
    let Some(id) = args.id else { return list(platform, args, format).await };
    if let Some(other) = args.compare {
        return beside::compare(platform, id.to_lowercase(), other.to_lowercase(), format).await;
    }
    let request = GetTraceRequest { trace_id: id.to_lowercase() };
    let trace = platform.search(platform.monitor().get_trace(request)).await?;
    output::missing(&trace.missing_nodes);
    output::print_painted(format, &output::json("ninefold.monitor.v1.GetTraceResponse", &trace), || waterfall(&trace))
}

async fn graph(platform: &Platform, format: Format) -> Result<(), Failure> {
    let graph = platform.search(platform.monitor().get_service_graph(GetServiceGraphRequest::default())).await?;
    output::missing(&graph.missing_nodes);
    if graph.edges.is_empty() {
        output::talk("no calls in the last hour");
    }
    output::print(format, &output::json("ninefold.monitor.v1.GetServiceGraphResponse", &graph), || {
        let mut table = Table::new(&["CALLER", "CALLEE", "CALLS", "FAILED", "P50", "P95", "P99"]);
        for edge in &graph.edges {
            table.row([
                if edge.caller.is_empty() { "-".to_owned() } else { edge.caller.clone() },
                edge.callee.clone(),
                edge.calls.to_string(),
                edge.failed.to_string(),
                millis(duration(edge.p50.as_ref())),
                millis(duration(edge.p95.as_ref())),
                millis(duration(edge.p99.as_ref())),
            ]);
        }
        table.render()
    })
}

async fn list(platform: &Platform, args: TraceArgs, format: Format) -> Result<(), Failure> {
    // The platform's own calls, such as this one, are left out unless they are asked for.
    let is_wanted = |trace: &TraceSummary| !args.service.is_empty() || !trace.name.starts_with("ninefold.");
    let request = SearchTracesRequest {
        service: args.service.clone(),
        failed_only: args.failed,
        min_duration: args.min.and_then(|min| prost_types::Duration::try_from(min).ok()),
        max_duration: args.max.and_then(|max| prost_types::Duration::try_from(max).ok()),
        operation: args.operation.clone(),
        attributes: args.attributes.clone(),
        page_size: if args.service.is_empty() { SEARCHED } else { i32::from(args.lines) },
        ..SearchTracesRequest::default()
    };
    let answer = platform.search(platform.monitor().search_traces(request)).await?;
    output::missing(&answer.missing_nodes);
    let mut traces = answer.traces;
    traces.retain(is_wanted);
    traces.truncate(usize::from(args.lines));
    if traces.is_empty() {
        output::talk("no matching traces");
    }
    output::print(format, &output::json_all("ninefold.monitor.v1.TraceSummary", &traces), || {
        let mut table = Table::new(&["TRACE", "AGE", "DURATION", "SPANS", "FAILED", "FIRST", "SERVICES"]);
        for trace in &traces {
            table.row([
                trace.trace_id.clone(),
                output::ago(trace.start_time.as_ref()),
                millis(duration(trace.duration.as_ref())),
                trace.spans.to_string(),
                if trace.failed { "yes".to_owned() } else { "-".to_owned() },
                format!("{} {}", trace.service, trace.name),
                trace.services.join(","),
            ]);
        }
        table.render()
    })
}

/// A trace as text: its spans as a tree with bars, then its log lines.
fn waterfall(trace: &GetTraceResponse) -> String {
    let summary = trace.summary.clone().unwrap_or_default();
    let whole = duration(summary.duration.as_ref());
    let mut text = format!(
        "trace {}  {}  {} spans  {} services{}\n\n",
        output::cell(&summary.trace_id),
        millis(whole),
        summary.spans,
        summary.services.len(),
        if summary.failed { "  failed" } else { "" }
    );
    let known: HashMap<&str, &Span> = trace.spans.iter().map(|span| (span.span_id.as_str(), span)).collect();
    let mut children: HashMap<&str, Vec<&Span>> = HashMap::new();
    for span in &trace.spans {
        let parent = if known.contains_key(span.parent_span_id.as_str()) { span.parent_span_id.as_str() } else { "" };
        children.entry(parent).or_default().push(span);
    }
    let begin = trace.spans.iter().map(|span| nanos(span.start_time.as_ref())).min().unwrap_or(0);
    // A stack, not recursion: a hostile trace may be deep. Each span is taken once, so a loop of parents ends.
    let mut stack: Vec<(usize, &Span)> =
        children.remove("").unwrap_or_default().into_iter().rev().map(|span| (0, span)).collect();
    let mut waited: HashMap<&str, Duration> = HashMap::new();
    for step in &trace.critical_path {
        *waited.entry(step.span_id.as_str()).or_default() += duration(step.duration.as_ref());
    }
    let mut rows = Table::new(&["SERVICE", "SPAN", "DURATION", "WAITED FOR", ""]);
    while let Some((depth, span)) = stack.pop() {
        let took = duration(span.duration.as_ref());
        let mark = if span.failed { format!("  {}", failure(span)) } else { String::new() };
        rows.row([
            span.instance_id.clone(),
            format!("{}{}", "  ".repeat(depth.min(16)), span.name),
            millis(took),
            waited.get(span.span_id.as_str()).map_or_else(|| "-".to_owned(), |waited| millis(*waited)),
            format!("{}{mark}", bar(nanos(span.start_time.as_ref()) - begin, took, whole)),
        ]);
        for child in children.remove(span.span_id.as_str()).unwrap_or_default().into_iter().rev() {
            stack.push((depth + 1, child));
        }
    }
    text.push_str(&rows.render());
    text.push_str(&format!("\n{} log lines\n", trace.records.len()));
    for record in &trace.records {
        let mut record = record.clone();
        record.trace_id.clear();
        text.push_str(&logs::text(&record));
        text.push('\n');
    }
    text
}

fn failure(span: &Span) -> String {
    if span.status_message.is_empty() { "failed".to_owned() } else { span.status_message.clone() }
}

fn bar(offset: i128, took: Duration, whole: Duration) -> String {
    let scale = |part: i128| {
        let share =
            part.max(0).saturating_mul(BAR as i128) / i128::try_from(whole.as_nanos().max(1)).unwrap_or(i128::MAX);
        usize::try_from(share).unwrap_or(0).min(BAR)
    };
    let start = scale(offset).min(BAR - 1);
    let length = scale(i128::try_from(took.as_nanos()).unwrap_or(0)).clamp(1, BAR - start);
    format!("{}{}{}", "·".repeat(start), "█".repeat(length), "·".repeat(BAR - start - length))
}

fn nanos(time: Option<&prost_types::Timestamp>) -> i128 {
    time.map_or(0, |time| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos))
}

fn duration(duration: Option<&prost_types::Duration>) -> Duration {
    duration.and_then(|duration| Duration::try_from(*duration).ok()).unwrap_or_default()
}

fn millis(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}
