//! From a log line to what was around it: its trace, what its instance measured, and what it was configured with.

use std::sync::Arc;

use ninefold_promql::{Answer, NAME, Query, Span};
use ninefold_proto::ninefold::monitor::v1 as proto;

use crate::error::Error;
use crate::metrics::{Asked, Metrics, encoded};
use crate::model::Nanos;
use crate::neighbours::question::Question;
use crate::tier::{Limit, Tier};
use crate::wire::{answer, query};

/// Most series of an answer.
const SERIES_MAX: usize = 1000;
/// Of a trace only its line is told, but whether it is kept is known from its records.
const LIMIT: Limit = Limit { records_max: 100_000, bytes_max: 64 * 1024 * 1024 };
/// What an instance runs with, as it tells it: see `config.rs` of the SDK.
const REVISION: &str = "ninefold_config_revision";

/// Tells what was around a line.
///
/// # Errors
/// [`Error::QueryInvalid`].
pub(crate) async fn of(
    request: proto::GetLogOriginRequest,
    question: &Question,
    metrics: &Arc<Metrics>,
) -> Result<proto::GetLogOriginResponse, Error> {
    let at = request.time.as_ref().and_then(query::moment).ok_or_else(|| query::wrong("time", "must be given"))?;
    let trace = match request.trace_id.as_str() {
        "" => None,
        id => question.trace(query::trace_id(id)?, LIMIT).await?.and_then(|trace| trace.summary),
    };
    let series = measured(&request, at, (question, metrics)).await?;
    let configured = series.iter().filter(|series| series.labels.get(NAME).is_some_and(|name| name == REVISION));
    let label = |series: &proto::MetricSeries, name: &str| series.labels.get(name).cloned().unwrap_or_default();
    let configured = configured.map(|series| proto::ConfiguredWith {
        service: label(series, "document"),
        environment: label(series, "environment"),
        revision: series.points.first().map(revision).unwrap_or_default(),
    });
    let configured_with = configured.collect();
    Ok(proto::GetLogOriginResponse {
        trace: trace.map(answer::summary),
        configured_with,
        metrics: series,
        missing_nodes: question.missing(),
    })
}

#[expect(clippy::cast_possible_truncation, reason = "revisions are whole numbers below 2^53")]
fn revision(point: &proto::MetricPoint) -> i64 {
    match point.value {
        Some(proto::metric_point::Value::Number(number)) => number as i64,
        Some(proto::metric_point::Value::Histogram(_)) | None => 0,
    }
}

/// The newest values of the instance's series at that time.
async fn measured(
    request: &proto::GetLogOriginRequest,
    at: Nanos,
    (question, metrics): (&Question, &Arc<Metrics>),
) -> Result<Vec<proto::MetricSeries>, Error> {
    if request.service.is_empty() || request.instance_id.is_empty() {
        return Ok(Vec::new());
    }
    let quoted = |text: &str| format!("{text:?}");
    // Debug text of Rust quotes as PromQL does, but for what it writes as \u{…}; no name of ours holds such.
    let text = format!("{{job={}, instance={}}}", quoted(&request.service), quoted(&request.instance_id));
    let query = Query::parse(&text).map_err(|error| query::wrong("instance_id", &error.to_string()))?;
    let millis = i64::try_from(at.0 / 1_000_000).unwrap_or(i64::MAX);
    let asked = metrics.answer(query, Span::instant(millis), Asked::default(), question).await;
    let (answer, _) = asked.map_err(|error| Error::Unreadable(Box::new(error)))?;
    let Answer::Series(mut series) = answer else { return Ok(Vec::new()) };
    series.sort_by(|one, other| one.labels.iter().cmp(other.labels.iter()));
    Ok(series.iter().take(SERIES_MAX).map(encoded).collect())
}
