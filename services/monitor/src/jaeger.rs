//! Jaeger's query API, so that Grafana and whoever else reads traces from a Jaeger can read them here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::StatusCode;
use ninefold::fault::{self, Fault as _};
use serde_json::{Value, json};

use crate::captured::nanos;
use crate::error::Error;
use crate::model::{Attributes, Kept, Nanos, Origin, Span, SpanKind, TraceFilter, TraceId};
use crate::neighbours::Neighbours;
use crate::neighbours::question::Question;
use crate::service::ANSWER_BYTES_MAX;
use crate::tier::{Limit, Tier, Trace};

const MICROS: u64 = 1000;
/// Most traces of one answer.
const TRACES_MAX: usize = 500;
/// Traces from which services and operations are told: the newest.
const LOOKED_AT: usize = 1000;
/// Traces of a service whose spans are looked at for its operations.
const OPENED: usize = 50;
/// Most spans, and most lines, of one trace.
const RECORDS_MAX: usize = 20_000;
/// What a graph of a day is asked for, where nobody says.
const LOOKBACK: u64 = 24 * 3600 * 1_000_000_000;

type Asked = State<Arc<Neighbours>>;
type Answer = Result<Response, Refusal>;

/// Why there is no answer.
struct Refusal(StatusCode, String);

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self(fault::http_status(error.kind().code()), error.to_string())
    }
}

impl axum::response::IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let errors = json!([{ "code": self.0.as_u16(), "msg": self.1 }]);
        let body = json!({ "data": null, "total": 0, "limit": 0, "offset": 0, "errors": errors });
        (self.0, axum::Json(body)).into_response()
    }
}

fn wrong(why: impl Into<String>) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, why.into())
}

/// The routes.
pub(crate) fn router(neighbours: Arc<Neighbours>) -> Router {
    Router::new()
        .route("/api/services", get(services))
        .route("/api/services/{service}/operations", get(operations))
        .route("/api/operations", get(operations_by_kind))
        .route("/api/traces", get(traces))
        .route("/api/traces/{id}", get(trace))
        .route("/api/dependencies", get(dependencies))
        .with_state(neighbours)
}

fn told(data: &[Value], tier: &Question) -> Response {
    let mut body = json!({ "total": data.len(), "data": data, "limit": 0, "offset": 0, "errors": null });
    // Jaeger has no word for a part that is missing; clients pass over what they do not know.
    let warnings = tier.warnings();
    if !warnings.is_empty() {
        body["warnings"] = warnings.into();
    }
    axum::Json(body).into_response()
}

/// What is asked, by name.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn read(query: Option<&str>) -> Self {
        Self(form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.0.iter().filter(move |(known, value)| known == name && !value.is_empty());
        named.map(|(_, value)| value.as_str())
    }

    fn one(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, value)| known == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let read = |text: &str| text.parse().map_err(|_| wrong(format!("{name}: {text:?} is no number")));
        self.one(name).map(read).transpose()
    }

    /// Microseconds since 1970.
    fn time(&self, name: &str) -> Result<Option<Nanos>, Refusal> {
        Ok(self.number(name)?.map(|micros| Nanos::said(micros.saturating_mul(MICROS))))
    }

    /// A time as Go writes it: `1.5ms`, `3s`.
    fn duration(&self, name: &str) -> Result<Option<u64>, Refusal> {
        self.one(name)
            .map(|text| span_of(text).ok_or_else(|| wrong(format!("{name}: {text:?} is no time"))))
            .transpose()
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is at least zero, and saturates")]
fn span_of(text: &str) -> Option<u64> {
    const UNITS: [(&str, f64); 7] =
        [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 6e10), ("h", 3.6e12)];
    let (number, unit) = UNITS.iter().find_map(|(word, nanos)| Some((text.strip_suffix(word)?, nanos)))?;
    number.parse::<f64>().ok().filter(|number| *number >= 0.0).map(|number| (number * unit) as u64)
}

async fn services(State(neighbours): Asked) -> Answer {
    let tier = neighbours.question(false).await;
    let newest = tier.search_traces(&TraceFilter::default(), None, LOOKED_AT).await?;
    let services: BTreeSet<String> = newest.records.into_iter().flat_map(|summary| summary.services).collect();
    Ok(told(&services.into_iter().map(Value::from).collect::<Vec<_>>(), &tier))
}

async fn operations(State(neighbours): Asked, Path(service): Path<String>) -> Answer {
    let tier = neighbours.question(false).await;
    let known = operations_of(&tier, &service).await?;
    let names: BTreeSet<String> = known.into_iter().map(|(name, _)| name).collect();
    Ok(told(&names.into_iter().map(Value::from).collect::<Vec<_>>(), &tier))
}

async fn operations_by_kind(State(neighbours): Asked, RawQuery(query): RawQuery) -> Answer {
    let tier = neighbours.question(false).await;
    let asked = Parameters::read(query.as_deref());
    let service = asked.one("service").ok_or_else(|| wrong("service: is missing"))?;
    let known = operations_of(&tier, service).await?;
    Ok(told(
        &known.into_iter().map(|(name, kind)| json!({ "name": name, "spanKind": kind })).collect::<Vec<_>>(),
        &tier,
    ))
}

/// Names and kinds of the spans of a service, from its newest traces.
async fn operations_of(tier: &dyn Tier, service: &str) -> Result<BTreeSet<(String, &'static str)>, Refusal> {
    let filter = TraceFilter { service: Some(service.to_owned()), ..TraceFilter::default() };
    let newest = tier.search_traces(&filter, None, OPENED).await?;
    let mut known = BTreeSet::new();
    for summary in newest.records {
        let Some(trace) = tier.trace(summary.trace_id, limit()).await? else { continue };
        let own = trace.spans.iter().filter(|span| span.origin.service == service);
        known.extend(own.map(|span| (span.name.clone(), kind(span.kind).unwrap_or_default())));
    }
    Ok(known)
}

const fn limit() -> Limit {
    Limit { records_max: RECORDS_MAX, bytes_max: ANSWER_BYTES_MAX }
}

async fn traces(State(neighbours): Asked, RawQuery(query): RawQuery) -> Answer {
    let tier = neighbours.question(false).await;
    let asked = Parameters::read(query.as_deref());
    let mut found = Vec::new();
    let ids: Vec<&str> = asked.all("traceID").collect();
    if !ids.is_empty() {
        for id in ids.into_iter().take(TRACES_MAX) {
            if let Some(trace) = tier.trace(id_of(id)?, limit()).await? {
                found.push(trace_of(&trace, &tier));
            }
        }
        return Ok(told(&found, &tier));
    }
    let filter = TraceFilter {
        service: Some(asked.one("service").ok_or_else(|| wrong("service: is missing"))?.to_owned()),
        operation: asked.one("operation").filter(|name| *name != "all").map(str::to_owned),
        attributes: tags(&asked)?,
        nanos_min: asked.duration("minDuration")?.unwrap_or(0),
        nanos_max: asked.duration("maxDuration")?,
        start: asked.time("start")?,
        end: asked.time("end")?,
        failed_only: false,
    };
    let (filter, is_failed) = without_error(filter);
    let filter = TraceFilter { failed_only: is_failed, ..filter };
    let most = asked.number("limit")?.map_or(20, |most| usize::try_from(most).unwrap_or(TRACES_MAX));
    let page = tier.search_traces(&filter, None, most.clamp(1, TRACES_MAX)).await?;
    for summary in page.records {
        if let Some(trace) = tier.trace(summary.trace_id, limit()).await? {
            found.push(trace_of(&trace, &tier));
        }
    }
    Ok(told(&found, &tier))
}

/// `error=true` is how Jaeger asks for what failed; no attribute says so here.
fn without_error(mut filter: TraceFilter) -> (TraceFilter, bool) {
    let before = filter.attributes.len();
    filter.attributes.retain(|(name, value)| !(name == "error" && value == "true"));
    let is_failed = filter.attributes.len() < before;
    (filter, is_failed)
}

/// Tags: `tags={"a":"b"}`, and `tag=a:b`, as often as is wanted.
fn tags(asked: &Parameters) -> Result<Attributes, Refusal> {
    let mut attributes = Attributes::new();
    for text in asked.all("tags") {
        let known: BTreeMap<String, Value> =
            serde_json::from_str(text).map_err(|error| wrong(format!("tags: {error}")))?;
        attributes.extend(known.into_iter().map(|(name, value)| match value {
            Value::String(text) => (name, text),
            other => (name, other.to_string()),
        }));
    }
    for text in asked.all("tag") {
        let (name, value) = text.split_once(':').ok_or_else(|| wrong(format!("tag: {text:?} is no name:value")))?;
        attributes.push((name.to_owned(), value.to_owned()));
    }
    Ok(attributes)
}

fn id_of(text: &str) -> Result<TraceId, Refusal> {
    // Jaeger leaves out the zeroes before an id.
    TraceId::parse(&format!("{text:0>32}")).ok_or_else(|| wrong(format!("{text:?} is no id of a trace")))
}

async fn trace(State(neighbours): Asked, Path(id): Path<String>) -> Answer {
    let tier = neighbours.question(false).await;
    let id = id_of(&id)?;
    let trace = tier.trace(id, limit()).await?;
    let not_found = || match tier.missing().is_empty() {
        true => Refusal(StatusCode::NOT_FOUND, "trace not found".to_owned()),
        false => Refusal::from(tier.or_missing(Error::TraceUnknown(id.to_string()))),
    };
    let trace = trace.ok_or_else(not_found)?;
    Ok(told(&[trace_of(&trace, &tier)], &tier))
}

async fn dependencies(State(neighbours): Asked, RawQuery(query): RawQuery) -> Answer {
    let tier = neighbours.question(false).await;
    let asked = Parameters::read(query.as_deref());
    let millis = |millis: u64| millis.saturating_mul(1_000_000);
    let end = asked.number("endTs")?.map_or_else(|| nanos(SystemTime::now()), |end| Nanos::said(millis(end)));
    let back = asked.number("lookback")?.map_or(LOOKBACK, millis);
    let graph = tier.graph(Some(Nanos(end.0.saturating_sub(back))), Some(end)).await?;
    let edges = graph.edges().into_iter().filter(|edge| !edge.caller.is_empty());
    let edge =
        |edge: crate::graph::Edge| json!({ "parent": edge.caller, "child": edge.callee, "callCount": edge.calls });
    Ok(told(&edges.map(edge).collect::<Vec<_>>(), &tier))
}

const fn kind(kind: SpanKind) -> Option<&'static str> {
    match kind {
        SpanKind::Unknown => None,
        SpanKind::Internal => Some("internal"),
        SpanKind::Server => Some("server"),
        SpanKind::Client => Some("client"),
        SpanKind::Producer => Some("producer"),
        SpanKind::Consumer => Some("consumer"),
    }
}

/// A trace as Jaeger writes it: its lines are the logs of its spans.
fn trace_of(trace: &Trace, tier: &Question) -> Value {
    let mut origins: Vec<&Arc<Origin>> = Vec::new();
    let mut spans = Vec::with_capacity(trace.spans.len());
    let mut lines: BTreeMap<_, Vec<&Arc<Kept>>> = BTreeMap::new();
    for kept in &trace.lines {
        lines.entry(kept.line.span_id).or_default().push(kept);
    }
    for span in &trace.spans {
        let place = origins.iter().position(|known| **known == span.origin).unwrap_or_else(|| {
            origins.push(&span.origin);
            origins.len() - 1
        });
        let own = lines.get(&Some(span.span_id)).map_or(&[][..], Vec::as_slice);
        spans.push(span_json(span, place, own));
    }
    let processes = origins.iter().enumerate().map(|(place, origin)| (format!("p{place}"), process(origin)));
    let id = trace.spans.first().map(|span| span.trace_id).or_else(|| trace.lines.first()?.line.trace_id);
    let mut warnings = tier.warnings();
    if trace.truncated {
        warnings.push("the trace is larger than an answer may be; the latest is left out".to_owned());
    }
    json!({
        "traceID": id.map(|id| id.to_string()).unwrap_or_default(),
        "spans": spans,
        "processes": processes.collect::<serde_json::Map<_, _>>(),
        "warnings": Some(warnings).filter(|warnings| !warnings.is_empty()),
    })
}

fn process(origin: &Origin) -> Value {
    let mut tags = tags_of(&origin.attributes);
    tags.push(json!({ "key": "service.instance.id", "type": "string", "value": origin.instance_id }));
    json!({ "serviceName": origin.service, "tags": tags })
}

fn tags_of(attributes: &Attributes) -> Vec<Value> {
    let tag = |(name, value): &(String, String)| json!({ "key": name, "type": "string", "value": value });
    attributes.iter().map(tag).collect()
}

fn span_json(span: &Span, process: usize, lines: &[&Arc<Kept>]) -> Value {
    let id = span.trace_id.to_string();
    let mut tags = tags_of(&span.attributes);
    tags.extend(kind(span.kind).map(|kind| json!({ "key": "span.kind", "type": "string", "value": kind })));
    if span.failed {
        tags.push(json!({ "key": "error", "type": "bool", "value": true }));
        tags.push(json!({ "key": "otel.status_code", "type": "string", "value": "ERROR" }));
        tags.push(json!({ "key": "otel.status_description", "type": "string", "value": span.status_message }));
    }
    let parents =
        span.parent.map(|parent| json!({ "refType": "CHILD_OF", "traceID": id, "spanID": parent.to_string() }));
    let log = |kept: &&Arc<Kept>| {
        let mut fields = tags_of(&kept.line.attributes);
        fields.push(json!({ "key": "event", "type": "string", "value": kept.line.body }));
        fields.push(json!({ "key": "level", "type": "string", "value": kept.line.level.word() }));
        json!({ "timestamp": kept.line.time.0 / MICROS, "fields": fields })
    };
    json!({
        "traceID": id,
        "spanID": span.span_id.to_string(),
        "operationName": span.name,
        "references": parents.into_iter().collect::<Vec<_>>(),
        "startTime": span.start.0 / MICROS,
        "duration": span.end.0.saturating_sub(span.start.0) / MICROS,
        "tags": tags,
        "logs": lines.iter().map(log).collect::<Vec<_>>(),
        "processID": format!("p{process}"),
        "warnings": null,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_go_writes_them() {
        for (text, nanos) in [("1.5ms", 1_500_000), ("3s", 3_000_000_000), ("20us", 20_000), ("2m", 120_000_000_000)] {
            assert_eq!(span_of(text), Some(nanos), "{text}");
        }
        assert_eq!((span_of("5"), span_of("-1s"), span_of("ms")), (None, None, None));
    }
}
