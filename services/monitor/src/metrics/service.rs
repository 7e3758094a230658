//! The contract `ninefold.monitor.v1.MetricService`: decode, ask, encode.

use std::collections::BTreeMap;
use std::sync::Arc;

use ninefold::fault::{self, Fault, Kind, Violation};
use ninefold::tonic::{Request, Response, Status, async_trait};
use ninefold_promql::{Answer, Error as Wrong, Histogram, NAME, Point, Query, Sample, Series, Span};
use ninefold_proto::ninefold::monitor::v1 as proto;
use ninefold_proto::ninefold::monitor::v1::metric_service_server::MetricService;
use prost_types::{Duration, Timestamp};

use super::record::{Recording, Unrecorded};
use super::{Asked, Metrics, Unanswered, now};
use crate::neighbours::question::Question;
use crate::neighbours::{ALONE, Neighbours};

/// Most series of an answer.
const SERIES_MAX: usize = 10_000;
/// How many steps a range has if nobody says.
const STEPS: i64 = 100;
/// The shortest step that is chosen where nobody says one, in milliseconds.
const STEP_MIN: i64 = 1000;

/// Answers the contract.
#[derive(Debug)]
pub(crate) struct Service(pub(crate) Arc<Metrics>, pub(crate) Arc<Neighbours>);

impl Fault for Unanswered {
    fn kind(&self) -> Kind {
        match self {
            Self::Wrong(Wrong::Deadline) => Kind::Deadline,
            Self::Wrong(Wrong::TooManySamples(_)) => Kind::Exhausted,
            Self::Wrong(_) | Self::Odd(_) => Kind::InvalidInput,
            Self::Own(error) => error.kind(),
            Self::Broken(_) => Kind::Internal,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Wrong(Wrong::Deadline) => "METRIC_QUERY_TOO_SLOW",
            Self::Wrong(Wrong::TooManySamples(_)) => "METRIC_QUERY_TOO_COSTLY",
            Self::Wrong(_) | Self::Odd(_) => "QUERY_INVALID",
            Self::Own(error) => error.reason(),
            Self::Broken(_) => "METRIC_QUERY_BROKEN",
        }
    }

    fn violations(&self) -> Vec<Violation> {
        match self {
            Self::Wrong(Wrong::Deadline | Wrong::TooManySamples(_)) | Self::Broken(_) => Vec::new(),
            Self::Wrong(wrong) => vec![Violation::new("query", wrong.to_string())],
            Self::Odd(violation) => vec![violation.clone()],
            Self::Own(error) => error.violations(),
        }
    }
}

#[async_trait]
impl MetricService for Service {
    async fn query_metrics(
        &self,
        request: Request<proto::QueryMetricsRequest>,
    ) -> Result<Response<proto::QueryMetricsResponse>, Status> {
        let question = self.1.question(request.metadata().contains_key(ALONE)).await;
        let answered = self.query(request.into_inner(), &question).await;
        Ok(Response::new(answered.map_err(|error| fault::status(&error))?))
    }

    async fn record_metrics(
        &self,
        request: Request<proto::RecordMetricsRequest>,
    ) -> Result<Response<proto::RecordMetricsResponse>, Status> {
        let question = self.1.question(request.metadata().contains_key(ALONE)).await;
        let series = self.record(request.into_inner(), &question).await.map_err(|error| fault::status(&error))?;
        Ok(Response::new(proto::RecordMetricsResponse { series: u64::try_from(series).unwrap_or(u64::MAX) }))
    }

    async fn list_metrics(
        &self,
        request: Request<proto::ListMetricsRequest>,
    ) -> Result<Response<proto::ListMetricsResponse>, Status> {
        let question = self.1.question(request.metadata().contains_key(ALONE)).await;
        let (mut all, mut about) = question.metrics().await.map_err(|error| fault::status(&error))?;
        all.extend(self.0.recent_labels());
        about.extend(self.0.about(None));
        let mut series: BTreeMap<String, u64> = BTreeMap::new();
        for labels in all {
            *series.entry(labels.get(NAME).to_owned()).or_default() += 1;
        }
        let metrics = series.into_iter().map(|(name, series)| {
            let family = ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end));
            let about = about.get(&name).or_else(|| about.get(family?));
            proto::Metric {
                series,
                r#type: about.map(|about| about.of.word().to_owned()).unwrap_or_default(),
                unit: about.map(|about| about.unit.clone()).unwrap_or_default(),
                help: about.map(|about| about.help.clone()).unwrap_or_default(),
                name,
            }
        });
        Ok(Response::new(proto::ListMetricsResponse { metrics: metrics.collect(), warnings: question.warnings() }))
    }
}

impl Service {
    async fn record(&self, request: proto::RecordMetricsRequest, question: &Question) -> Result<usize, Unrecorded> {
        let proto::RecordMetricsRequest { query, metric, labels } = request;
        self.0.record(Recording { query, metric, labels: labels.into_iter().collect() }, now(), question).await
    }

    async fn query(
        &self,
        request: proto::QueryMetricsRequest,
        question: &Question,
    ) -> Result<proto::QueryMetricsResponse, Unanswered> {
        let span = span(&request)?;
        let query = Query::parse(&request.query)?;
        let (answer, mut warnings) = self.0.answer(query, span, Asked::default(), question).await?;
        let mut text = String::new();
        let mut series: Vec<proto::MetricSeries> = match answer {
            Answer::Text(said) => {
                text = said;
                Vec::new()
            }
            Answer::Scalar(values) => {
                let points = values.into_iter().map(|(at, value)| number(at, value)).collect();
                vec![proto::MetricSeries { points, ..proto::MetricSeries::default() }]
            }
            Answer::Series(series) | Answer::Raw(series) => series.iter().map(encoded).collect(),
        };
        if series.len() > SERIES_MAX {
            warnings.push(format!("of {} series only {SERIES_MAX} are told: ask for fewer", series.len()));
            series.truncate(SERIES_MAX);
        }
        Ok(proto::QueryMetricsResponse { series, text, warnings })
    }
}

fn span(request: &proto::QueryMetricsRequest) -> Result<Span, Unanswered> {
    let odd = |field: &str, why: &str| Unanswered::Odd(Violation::new(field, why));
    let Some(start) = request.start_time else {
        if request.end_time.is_some() || request.step.is_some() {
            return Err(odd("start_time", "must be given with an end or a step"));
        }
        return Ok(Span::instant(request.time.map_or_else(now, millis)));
    };
    if request.time.is_some() {
        return Err(odd("time", "must not be given with a range"));
    }
    let (from, to) = (millis(start), request.end_time.map_or_else(now, millis));
    if to < from {
        return Err(odd("end_time", "must not be before the start"));
    }
    let step = match request.step {
        None => ((to - from) / STEPS).max(STEP_MIN),
        Some(Duration { seconds, nanos }) => seconds.saturating_mul(1000).saturating_add(i64::from(nanos / 1_000_000)),
    };
    if step < 1 { Err(odd("step", "must be at least 1 ms")) } else { Ok(Span { from, to, step }) }
}

/// A series as the contract writes it.
pub(crate) fn encoded(series: &Series) -> proto::MetricSeries {
    let labels = series.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    proto::MetricSeries { labels, points: series.samples.iter().map(point).collect() }
}

fn point(sample: &Sample) -> proto::MetricPoint {
    match &sample.point {
        Point::Float(value) => number(sample.at, *value),
        Point::Histogram(of) => proto::MetricPoint {
            time: Some(timestamp(sample.at)),
            value: Some(proto::metric_point::Value::Histogram(histogram(of))),
        },
    }
}

fn number(at: i64, value: f64) -> proto::MetricPoint {
    proto::MetricPoint { time: Some(timestamp(at)), value: Some(proto::metric_point::Value::Number(value)) }
}

fn histogram(of: &Histogram) -> proto::MetricHistogram {
    let buckets = of.buckets().into_iter().map(|bucket| proto::MetricBucket {
        lower: bucket.lower,
        upper: bucket.upper,
        count: bucket.count,
    });
    proto::MetricHistogram { count: of.count, sum: of.sum, buckets: buckets.collect() }
}

fn millis(time: Timestamp) -> i64 {
    time.seconds.saturating_mul(1000).saturating_add(i64::from(time.nanos / 1_000_000))
}

fn timestamp(at: i64) -> Timestamp {
    let nanos = i32::try_from(at.rem_euclid(1000)).unwrap_or_default() * 1_000_000;
    Timestamp { seconds: at.div_euclid(1000), nanos }
}
