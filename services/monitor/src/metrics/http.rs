//! Prometheus' HTTP API, so that Grafana, promtool and whoever else speaks it can ask.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Request, StatusCode};
use axum::response::Response;
use axum::routing::get;
use ninefold_promql::{Error as Wrong, Query, Span};
use serde_json::{Value, json};

use super::ask::{Odd, Parameters};
use super::{Asked, Metrics, Unanswered, json, now};
use crate::error::Error;
use crate::neighbours::Neighbours;

/// Longest form.
const FORM_BYTES_MAX: usize = 1024 * 1024;
/// Of which version of Prometheus the answers are: clients choose what they may ask by it.
const PROMETHEUS_VERSION: &str = "3.0.0";

/// What is asked.
#[derive(Clone, Debug)]
struct House {
    metrics: Arc<Metrics>,
    neighbours: Arc<Neighbours>,
}

/// What is asked of it.
type Asking = (State<House>, Request<Body>);

/// The routes.
pub(crate) fn router(metrics: Arc<Metrics>, neighbours: Arc<Neighbours>) -> Router {
    let ask = |path: &str| format!("/api/v1/{path}");
    Router::new()
        .route(&ask("query"), get(query).post(query))
        .route(&ask("query_range"), get(query_range).post(query_range))
        .route(&ask("format_query"), get(format_query).post(format_query))
        .route(&ask("parse_query"), get(parse_query).post(parse_query))
        .route(&ask("query_exemplars"), get(exemplars).post(exemplars))
        .route(&ask("series"), get(series).post(series))
        .route(&ask("labels"), get(labels).post(labels))
        .route(&ask("label/{name}/values"), get(values))
        .route(&ask("metadata"), get(metadata))
        .route(&ask("status/buildinfo"), get(build_info))
        .route(&ask("status/tsdb"), get(sizes))
        .with_state(House { metrics, neighbours })
}

/// Why a question has no answer: HTTP's word, Prometheus' word, and what to do.
struct Refusal(StatusCode, &'static str, String);

impl From<Odd> for Refusal {
    fn from(odd: Odd) -> Self {
        Self(StatusCode::BAD_REQUEST, "bad_data", odd.0)
    }
}

impl From<Unanswered> for Refusal {
    fn from(why: Unanswered) -> Self {
        let (status, word) = match &why {
            Unanswered::Odd(_)
            | Unanswered::Wrong(Wrong::Syntax(_) | Wrong::Type { .. } | Wrong::TooManySteps { .. }) => {
                (StatusCode::BAD_REQUEST, "bad_data")
            }
            Unanswered::Wrong(Wrong::Deadline) => (StatusCode::SERVICE_UNAVAILABLE, "timeout"),
            Unanswered::Wrong(_) => (StatusCode::UNPROCESSABLE_ENTITY, "execution"),
            Unanswered::Own(_) => (StatusCode::SERVICE_UNAVAILABLE, "execution"),
            Unanswered::Broken(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        };
        Self(status, word, why.to_string())
    }
}

/// What is answered, and what is to be known beside it.
struct Told {
    data: Value,
    warnings: Vec<String>,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Unanswered::Own(error).into()
    }
}

impl From<Value> for Told {
    fn from(data: Value) -> Self {
        Self { data, warnings: Vec::new() }
    }
}

fn answer(outcome: Result<Told, Refusal>) -> Response {
    let (status, body) = match outcome {
        Ok(Told { data, warnings }) => {
            let mut body = json!({ "status": "success", "data": data });
            if !warnings.is_empty() {
                body["warnings"] = warnings.into();
            }
            (StatusCode::OK, body)
        }
        Err(Refusal(status, kind, why)) => (status, json!({ "status": "error", "errorType": kind, "error": why })),
    };
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn parameters(request: Request<Body>) -> Result<Parameters, Refusal> {
    let (head, body) = request.into_parts();
    let too_large = |_| {
        let why = format!("the form cannot be read, or is larger than {FORM_BYTES_MAX} bytes");
        Refusal(StatusCode::BAD_REQUEST, "bad_data", why)
    };
    let body = to_bytes(body, FORM_BYTES_MAX).await.map_err(too_large)?;
    Ok(Parameters::read(head.uri.query().unwrap_or_default(), &body))
}

fn asked(parameters: &Parameters) -> Result<Asked, Odd> {
    let lookback = parameters.duration("lookback_delta")?.map(super::millis);
    Ok(Asked { time_max: parameters.duration("timeout")?, lookback })
}

async fn query((State(house), request): Asking) -> Response {
    answer(
        async {
            let parameters = parameters(request).await?;
            let span = Span::instant(parameters.time("time")?.unwrap_or_else(now));
            evaluated(&house, &parameters, span, true).await
        }
        .await,
    )
}

async fn query_range((State(house), request): Asking) -> Response {
    answer(
        async {
            let parameters = parameters(request).await?;
            let span = parameters.span()?;
            evaluated(&house, &parameters, span, false).await
        }
        .await,
    )
}

async fn evaluated(house: &House, parameters: &Parameters, span: Span, is_instant: bool) -> Result<Told, Refusal> {
    let limit = parameters.limit()?;
    let query = parameters.query()?;
    let question = house.neighbours.question(false).await;
    let (said, mut warnings) = house.metrics.answer(query, span, asked(parameters)?, &question).await?;
    let (data, was_cut) = json::answer(&said, is_instant, limit);
    if was_cut {
        warnings.push(LIMITED.to_owned());
    }
    Ok(Told { data, warnings })
}

/// What is said of an answer that was cut.
const LIMITED: &str = "results truncated due to limit";

async fn format_query((State(_), request): Asking) -> Response {
    answer(
        async {
            let query: Query = parameters(request).await?.query()?;
            Ok(Value::from(query.text()).into())
        }
        .await,
    )
}

/// The shape of a query: what is selected, and how it is written. Enough for editors, which Grafana's is.
async fn parse_query((State(_), request): Asking) -> Response {
    answer(
        async {
            let query: Query = parameters(request).await?.query()?;
            let selectors: Vec<Value> = query
                .needs(Span::instant(0), &ninefold_promql::Limits::default())
                .iter()
                .map(|one| json!({ "name": one.name() }))
                .collect();
            Ok(json!({ "text": query.text(), "selectors": selectors }).into())
        }
        .await,
    )
}

async fn exemplars((State(house), request): Asking) -> Response {
    answer(
        async {
            let parameters = parameters(request).await?;
            let query = parameters.query()?;
            let (from, to) = (parameters.time("start")?.unwrap_or(0), parameters.time("end")?.unwrap_or_else(now));
            if to < from {
                return Err(Odd("invalid parameter \"end\": the range ends before it starts".to_owned()).into());
            }
            let question = house.neighbours.question(false).await;
            let found = house.metrics.exemplars(&query, (from, to), &question).await?;
            let data: Vec<Value> = found.into_iter().map(|(labels, all)| json::exemplars(&labels, &all)).collect();
            Ok(Told { data: data.into(), warnings: question.warnings() })
        }
        .await,
    )
}

async fn series((State(house), request): Asking) -> Response {
    answer(
        async {
            let parameters = parameters(request).await?;
            let selections = parameters.selections()?;
            if selections.is_empty() {
                return Err(Odd("the parameter \"match[]\" is missing: give a series selector".to_owned()).into());
            }
            let question = house.neighbours.question(false).await;
            let found = house.metrics.labels_of_all(selections, &question).await?;
            let told = found.iter().map(json::labels).collect();
            Ok(limited(told, parameters.limit()?, question.warnings()))
        }
        .await,
    )
}

async fn labels((State(house), request): Asking) -> Response {
    answer(
        async {
            let parameters = parameters(request).await?;
            let question = house.neighbours.question(false).await;
            let found = house.metrics.labels_of_all(parameters.selections()?, &question).await?;
            let names: BTreeSet<&str> = found.iter().flat_map(|labels| labels.iter().map(|(name, _)| name)).collect();
            let told = names.into_iter().map(Value::from).collect();
            Ok(limited(told, parameters.limit()?, question.warnings()))
        }
        .await,
    )
}

async fn values(State(house): State<House>, Path(name): Path<String>, request: Request<Body>) -> Response {
    answer(
        async {
            let parameters = parameters(request).await?;
            let question = house.neighbours.question(false).await;
            let found = house.metrics.labels_of_all(parameters.selections()?, &question).await?;
            let values: BTreeSet<&str> = found.iter().map(|labels| labels.get(&name)).collect();
            let told = values.into_iter().filter(|value| !value.is_empty()).map(Value::from).collect();
            Ok(limited(told, parameters.limit()?, question.warnings()))
        }
        .await,
    )
}

fn limited(mut told: Vec<Value>, limit: usize, mut warnings: Vec<String>) -> Told {
    if told.len() > limit {
        warnings.push(LIMITED.to_owned());
    }
    told.truncate(limit);
    Told { data: told.into(), warnings }
}

async fn metadata((State(house), request): Asking) -> Response {
    answer(
        async {
            let parameters = parameters(request).await?;
            let limit = parameters.limit()?;
            let question = house.neighbours.question(false).await;
            let (_, mut about) = question.metrics().await?;
            about.extend(house.metrics.about(None));
            let is_asked = |name: &String| parameters.get("metric").is_none_or(|asked| asked == name);
            let asked = about.into_iter().filter(|(name, _)| is_asked(name)).take(limit);
            let about: BTreeMap<_, _> = asked.map(|(name, one)| (name, [one])).collect();
            Ok(Told { data: json!(about), warnings: question.warnings() })
        }
        .await,
    )
}

async fn build_info() -> Response {
    answer(Ok(json!({
        "version": PROMETHEUS_VERSION, "revision": "", "branch": "", "buildUser": "", "buildDate": "", "goVersion": "",
    })
    .into()))
}

async fn sizes(State(house): State<House>) -> Response {
    let sizes = house.metrics.sizes();
    answer(Ok(json!({
        "headStats": { "numSeries": sizes.series, "numSamples": sizes.samples, "numBytes": sizes.bytes },
        "diskStats": { "numSamples": sizes.samples_on_disk, "numBytes": sizes.bytes_on_disk },
    })
    .into()))
}
