//! Loki's HTTP API as far as Grafana and `logcli` need it: what is pushed, and what is asked.

mod find;
mod logql;
pub(crate) mod push;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{Request, StatusCode};
use ninefold::fault::{self, Fault as _};
use serde_json::{Value, json};

use crate::captured::nanos;
use crate::error::Error;
use crate::model::Nanos;
use crate::neighbours::Neighbours;
use crate::neighbours::question::Question;
use crate::tier::Tier as _;
use find::{Asked, Found, Labels, find, raw, stream_labels};
use logql::{Count, Gathered, Numbers, Pipeline, Query};

const SECOND: u64 = 1_000_000_000;
const HOUR: u64 = 3600 * SECOND;
/// Most lines of an answer.
const LINES_MAX: usize = 5000;
/// Most points of a series.
const STEPS_MAX: u64 = 11_000;
/// Most series of an answer.
const SERIES_MAX: usize = 5000;
/// The newest lines, from which labels are told.
const LOOKED_AT: usize = 5000;
/// Longest form.
const FORM_BYTES_MAX: usize = 1024 * 1024;

/// One question.
#[derive(Debug)]
struct Asking {
    tier: Question,
    wait: Duration,
}

/// What questions are asked of.
#[derive(Clone, Debug)]
struct House {
    neighbours: Arc<Neighbours>,
    wait: Duration,
}

type Answer = Result<Value, Refusal>;

/// Why there is no answer.
struct Refusal(StatusCode, String);

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self(fault::http_status(error.kind().code()), error.to_string())
    }
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self(StatusCode::BAD_REQUEST, why)
    }
}

fn told(answer: Answer, tier: &Question) -> Response {
    match answer {
        Ok(data) => {
            let mut body = json!({ "status": "success", "data": data });
            let warnings = tier.warnings();
            if !warnings.is_empty() {
                body["warnings"] = warnings.into();
            }
            axum::Json(body).into_response()
        }
        Err(Refusal(status, why)) => {
            let body = json!({ "status": "error", "errorType": "bad_data", "error": why });
            (status, axum::Json(body)).into_response()
        }
    }
}

/// The routes of questions.
pub(crate) fn router(neighbours: Arc<Neighbours>, wait: Duration) -> Router {
    let at = |path: &str| format!("/loki/api/v1/{path}");
    Router::new()
        .route(&at("query"), get(query).post(query))
        .route(&at("query_range"), get(query_range).post(query_range))
        .route(&at("labels"), get(labels).post(labels))
        .route(&at("label"), get(labels))
        .route(&at("label/{name}/values"), get(values))
        .route(&at("series"), get(series).post(series))
        .route(&at("index/stats"), get(stats))
        .route(&at("index/volume"), get(volume))
        .route(&at("index/volume_range"), get(volume_range))
        .route(&at("status/buildinfo"), get(build_info))
        .with_state(House { neighbours, wait })
}

/// What is asked, by name.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    async fn of(request: Request<Body>) -> Result<Self, Refusal> {
        let (head, body) = request.into_parts();
        let too_large = |_| Refusal::from(format!("the form is larger than {FORM_BYTES_MAX} bytes"));
        let body = to_bytes(body, FORM_BYTES_MAX).await.map_err(too_large)?;
        let query = head.uri.query().unwrap_or_default();
        let pairs = form_urlencoded::parse(query.as_bytes()).into_owned();
        Ok(Self(pairs.chain(form_urlencoded::parse(&body).into_owned()).collect()))
    }

    fn one(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, value)| known == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// Nanoseconds or seconds since 1970, or RFC 3339.
    fn time(&self, name: &str) -> Result<Option<Nanos>, Refusal> {
        let Some(text) = self.one(name) else { return Ok(None) };
        let read = text.parse::<u64>().ok().map(|number| if number < 1 << 40 { number * SECOND } else { number });
        let seconds = || text.parse::<f64>().ok().filter(|seconds| *seconds >= 0.0).map(of_seconds);
        let date = || {
            let time = text.parse::<prost_types::Timestamp>().ok()?;
            Some(u64::try_from(time.seconds).ok()? * SECOND + u64::try_from(time.nanos).ok()?)
        };
        let time = read.or_else(seconds).or_else(date);
        time.map(|time| Some(Nanos::said(time))).ok_or_else(|| format!("{name}: {text:?} is no time").into())
    }

    /// From when to when; the last hour where nobody says.
    fn range(&self) -> Result<(Nanos, Nanos), Refusal> {
        let end = self.time("end")?.unwrap_or_else(|| nanos(SystemTime::now()));
        let since = self.one("since").and_then(logql::duration).unwrap_or(HOUR);
        let start = self.time("start")?.unwrap_or(Nanos(end.0.saturating_sub(since)));
        if start > end { Err("end: is before start".to_owned().into()) } else { Ok((start, end)) }
    }

    fn limit(&self) -> usize {
        let asked = self.one("limit").and_then(|text| text.parse().ok()).unwrap_or(100);
        if asked == 0 { 100 } else { asked.min(LINES_MAX) }
    }

    /// From one time to the next; a 250th of the range where nobody says, but not below a second.
    fn step(&self, (start, end): (Nanos, Nanos)) -> u64 {
        let step = self.one("step").and_then(|text| {
            let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0).map(of_seconds);
            seconds.or_else(|| logql::duration(text))
        });
        step.unwrap_or_else(|| ((end.0 - start.0) / 250).max(SECOND)).max(1)
    }

    fn query(&self) -> Result<Query, Refusal> {
        Ok(Query::parse(self.one("query").ok_or_else(|| "query: is missing".to_owned())?)?)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is at least zero, and saturates")]
fn of_seconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

#[expect(clippy::cast_precision_loss, reason = "seconds with a fraction, as JSON has them")]
fn in_seconds(nanos: u64) -> f64 {
    (nanos / 1_000_000) as f64 / 1e3
}

async fn query_range(State(house): State<House>, request: Request<Body>) -> Response {
    let house = house.ask().await;
    told(house.query_range(request).await, &house.tier)
}

async fn query(State(house): State<House>, request: Request<Body>) -> Response {
    let house = house.ask().await;
    told(house.query(request).await, &house.tier)
}

async fn labels(State(house): State<House>, request: Request<Body>) -> Response {
    let house = house.ask().await;
    let answer = house.streams(request).await.map(|streams| {
        let names: BTreeSet<String> = streams.into_iter().flat_map(Labels::into_keys).collect();
        json!(names)
    });
    told(answer, &house.tier)
}

async fn values(State(house): State<House>, Path(name): Path<String>, request: Request<Body>) -> Response {
    let house = house.ask().await;
    let answer = house.streams(request).await.map(|streams| {
        let values: BTreeSet<String> = streams.into_iter().filter_map(|mut labels| labels.remove(&name)).collect();
        json!(values)
    });
    told(answer, &house.tier)
}

async fn series(State(house): State<House>, request: Request<Body>) -> Response {
    let house = house.ask().await;
    told(house.streams(request).await.map(|streams| json!(streams)), &house.tier)
}

async fn stats(State(house): State<House>, request: Request<Body>) -> Response {
    let house = house.ask().await;
    let answer = house.streams(request).await.map(|streams| {
        let lines = house.tier.retention().lines;
        json!({ "streams": streams.len(), "chunks": lines.files, "entries": lines.records, "bytes": lines.bytes })
    });
    match answer {
        Ok(body) => axum::Json(body).into_response(),
        refused @ Err(_) => told(refused, &house.tier),
    }
}

async fn volume(State(house): State<House>, request: Request<Body>) -> Response {
    let house = house.ask().await;
    told(house.volume(request, true).await, &house.tier)
}

async fn volume_range(State(house): State<House>, request: Request<Body>) -> Response {
    let house = house.ask().await;
    told(house.volume(request, false).await, &house.tier)
}

async fn build_info() -> Response {
    axum::Json(json!({ "version": "3.0.0", "revision": env!("CARGO_PKG_VERSION"), "branch": "", "goVersion": "" }))
        .into_response()
}

impl House {
    async fn ask(&self) -> Asking {
        Asking { tier: self.neighbours.question(false).await, wait: self.wait }
    }
}

impl Asking {
    async fn query_range(&self, request: Request<Body>) -> Answer {
        let asked = Parameters::of(request).await?;
        let (start, end) = asked.range()?;
        match asked.query()? {
            Query::Lines(pipeline) => {
                let is_forward =
                    asked.one("direction").is_some_and(|direction| direction.eq_ignore_ascii_case("forward"));
                self.lines(&pipeline, (start, end), is_forward, asked.limit()).await
            }
            Query::Numbers(numbers) => {
                let step = asked.step((start, end));
                if (end.0 - start.0) / step > STEPS_MAX {
                    return Err(format!("step: there would be more than {STEPS_MAX} points of a series").into());
                }
                let times: Vec<u64> = (0..).map(|at| start.0 + at * step).take_while(|time| *time <= end.0).collect();
                let series = self.numbers(&numbers, &times).await?;
                let result: Vec<Value> = series
                    .into_iter()
                    .map(|(labels, points)| {
                        let values: Vec<Value> =
                            points.iter().map(|(time, value)| json!([in_seconds(*time), value.to_string()])).collect();
                        json!({ "metric": labels, "values": values })
                    })
                    .collect();
                Ok(json!({ "resultType": "matrix", "result": result, "stats": {} }))
            }
            Query::Constant(number) => {
                let values =
                    [json!([in_seconds(start.0), number.to_string()]), json!([in_seconds(end.0), number.to_string()])];
                Ok(json!({ "resultType": "matrix", "result": [{ "metric": {}, "values": values }], "stats": {} }))
            }
        }
    }

    /// How many bytes the lines of streams have, by the labels that are asked for, or by those of the selector: over all of
    /// the time, or for each step. The loudest first.
    async fn volume(&self, request: Request<Body>, is_whole: bool) -> Answer {
        let asked = Parameters::of(request).await?;
        let (start, end) = asked.range()?;
        let Query::Lines(pipeline) = asked.query()? else { return Err("query: is no selector".to_owned().into()) };
        let labels: Vec<String> = match asked.one("targetLabels") {
            Some(names) => names.split(',').map(|name| name.trim().to_owned()).collect(),
            None => pipeline.selector.iter().map(|matcher| matcher.name.clone()).collect(),
        };
        let whole = (end.0 - start.0).max(1);
        let step = if is_whole { whole } else { asked.step((start, end)) };
        if whole / step > STEPS_MAX {
            return Err(format!("step: there would be more than {STEPS_MAX} points of a series").into());
        }
        let times: Vec<u64> = (1..=(whole / step).max(1)).map(|at| start.0 + at * step).collect();
        let gathered = Some(Gathered { labels, without: false });
        let numbers = Numbers { count: Count::Bytes, pipeline, range: step, gathered };
        let mut series: Vec<(Labels, Vec<(u64, f64)>)> = self.numbers(&numbers, &times).await?.into_iter().collect();
        let sum = |points: &[(u64, f64)]| points.iter().map(|(_, bytes)| bytes).sum::<f64>();
        series.sort_by(|left, right| sum(&right.1).total_cmp(&sum(&left.1)));
        series.truncate(asked.limit());
        let point = |(time, bytes): &(u64, f64)| json!([in_seconds(*time), bytes.to_string()]);
        let result: Vec<Value> = series
            .iter()
            .map(|(labels, points)| match is_whole {
                true => json!({ "metric": labels, "value": [in_seconds(end.0), sum(points).to_string()] }),
                false => json!({ "metric": labels, "values": points.iter().map(point).collect::<Vec<_>>() }),
            })
            .collect();
        Ok(json!({ "resultType": if is_whole { "vector" } else { "matrix" }, "result": result, "stats": {} }))
    }

    async fn query(&self, request: Request<Body>) -> Answer {
        let asked = Parameters::of(request).await?;
        let time = asked.time("time")?.unwrap_or_else(|| nanos(SystemTime::now()));
        let series: Vec<(Labels, f64)> = match asked.query()? {
            Query::Lines(pipeline) => {
                let range = (Nanos(time.0.saturating_sub(HOUR)), time);
                return self.lines(&pipeline, range, false, asked.limit()).await;
            }
            Query::Numbers(numbers) => {
                let series = self.numbers(&numbers, &[time.0]).await?;
                series.into_iter().filter_map(|(labels, points)| Some((labels, points.first()?.1))).collect()
            }
            Query::Constant(number) => vec![(Labels::new(), number)],
        };
        let value = |(labels, value): (Labels, f64)| json!({ "metric": labels, "value": [in_seconds(time.0), value.to_string()] });
        let result: Vec<Value> = series.into_iter().map(value).collect();
        Ok(json!({ "resultType": "vector", "result": result, "stats": {} }))
    }

    /// Lines as streams: those with the same labels together.
    async fn lines(&self, pipeline: &Pipeline, (start, end): (Nanos, Nanos), is_forward: bool, limit: usize) -> Answer {
        let mut streams: BTreeMap<Labels, Vec<Value>> = BTreeMap::new();
        let mut left = limit;
        let asked = Asked { pipeline, start, end, wait: self.wait };
        find(&self.tier, asked, is_forward, |Found { kept, labels }| {
            let value = json!([kept.line.time.0.to_string(), raw(&kept.line)]);
            streams.entry(labels).or_default().push(value);
            left -= 1;
            left > 0
        })
        .await?;
        let stream = |(labels, values): (Labels, Vec<Value>)| json!({ "stream": labels, "values": values });
        let result: Vec<Value> = streams.into_iter().map(stream).collect();
        Ok(json!({ "resultType": "streams", "result": result, "stats": {} }))
    }

    /// Series of numbers at times, which go upwards.
    async fn numbers(&self, numbers: &Numbers, times: &[u64]) -> Result<BTreeMap<Labels, Vec<(u64, f64)>>, Refusal> {
        let (Some(first), Some(last)) = (times.first(), times.last()) else { return Ok(BTreeMap::new()) };
        // A range is open at its beginning and closed at its end.
        let start = Nanos(first.saturating_sub(numbers.range).saturating_add(1));
        let asked = Asked { pipeline: &numbers.pipeline, start, end: Nanos(last.saturating_add(1)), wait: self.wait };
        let mut known: BTreeMap<Labels, Vec<(u64, u64)>> = BTreeMap::new();
        find(&self.tier, asked, true, |Found { kept, labels }| {
            let labels = numbers.gathered.as_ref().map_or_else(|| labels.clone(), |gathered| stay(gathered, &labels));
            let weight = match numbers.count {
                Count::Lines | Count::Rate => 1,
                Count::Bytes | Count::BytesRate => raw(&kept.line).len() as u64,
            };
            known.entry(labels).or_default().push((kept.line.time.0, weight));
            known.len() <= SERIES_MAX
        })
        .await?;
        if known.len() > SERIES_MAX {
            return Err(format!("there are more than {SERIES_MAX} series; sum them by a label").into());
        }
        let points = |lines: Vec<(u64, u64)>| over_time(&lines, times, numbers);
        Ok(known.into_iter().map(|(labels, lines)| (labels, points(lines))).collect())
    }

    /// The labels of all streams that have lines, of those that a selector admits.
    async fn streams(&self, request: Request<Body>) -> Result<BTreeSet<Labels>, Refusal> {
        let asked = Parameters::of(request).await?;
        let (start, end) = asked.range()?;
        let selectors = asked.0.iter().filter(|(name, _)| ["match[]", "match", "query"].contains(&name.as_str()));
        let mut pipelines = Vec::new();
        for (_, text) in selectors.filter(|(_, text)| !text.is_empty()) {
            match Query::parse(text)? {
                Query::Lines(pipeline) => pipelines.push(pipeline),
                Query::Numbers(_) | Query::Constant(_) => return Err(format!("{text:?} is no selector").into()),
            }
        }
        if pipelines.is_empty() {
            pipelines.push(Pipeline::default());
        }
        let mut streams = BTreeSet::new();
        for pipeline in &pipelines {
            let mut left = LOOKED_AT;
            let asked = Asked { pipeline, start, end, wait: self.wait };
            find(&self.tier, asked, false, |Found { kept, .. }| {
                streams.insert(stream_labels(&kept.line));
                left -= 1;
                left > 0
            })
            .await?;
        }
        Ok(streams)
    }
}

/// Labels that stay when series become one.
fn stay(gathered: &Gathered, labels: &Labels) -> Labels {
    let is_named = |name: &String| gathered.labels.contains(name);
    labels
        .iter()
        .filter(|(name, _)| is_named(name) != gathered.without)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// What was counted in the range before each time; times without lines have no point.
#[expect(clippy::cast_precision_loss, reason = "counts of lines and bytes are far below 2^53")]
fn over_time(lines: &[(u64, u64)], times: &[u64], numbers: &Numbers) -> Vec<(u64, f64)> {
    let (mut from, mut to, mut sum) = (0, 0, 0);
    let mut points = Vec::new();
    for time in times {
        while to < lines.len() && lines[to].0 <= *time {
            sum += lines[to].1;
            to += 1;
        }
        while from < to && lines[from].0 <= time.saturating_sub(numbers.range) {
            sum -= lines[from].1;
            from += 1;
        }
        if from < to {
            let seconds = numbers.range as f64 / 1e9;
            let value = match numbers.count {
                Count::Lines | Count::Bytes => sum as f64,
                Count::Rate | Count::BytesRate => sum as f64 / seconds,
            };
            points.push((*time, value));
        }
    }
    points
}
