//! Prometheus' HTTP API of rules and alerts, so that Grafana shows them: `/api/v1/rules` and `/api/v1/alerts`.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Response};
use axum::routing::get;
use prost_types::Timestamp;
use serde_json::{Value, json};

use crate::state::Alert;
use crate::watch::{Board, Known};

/// The one group that there is: rules are asked together.
const GROUP: &str = "ninefold";

/// The routes.
pub(crate) fn router(board: Arc<Board>) -> Router {
    Router::new().route("/api/v1/rules", get(rules)).route("/api/v1/alerts", get(alerts)).with_state(board)
}

fn answer(data: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(json!({ "status": "success", "data": data }).to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn alerts(State(board): State<Arc<Board>>) -> Response<Body> {
    let all = board.read();
    let told: Vec<Value> = all.values().flat_map(|known| known.alerts.values()).map(alert).collect();
    answer(&json!({ "alerts": told }))
}

async fn rules(State(board): State<Arc<Board>>, RawQuery(query): RawQuery) -> Response<Body> {
    let kind = parameter(query.as_deref(), "type");
    let wanted = |known: &Known| match kind.as_str() {
        "alert" => known.rule.record.is_none(),
        "record" => known.rule.record.is_some(),
        _ => true,
    };
    let all = board.read();
    let rules: Vec<Value> =
        all.iter().filter(|(_, known)| wanted(known)).map(|(name, known)| rule(name, known)).collect();
    answer(&json!({ "groups": [{ "name": GROUP, "file": "alerts", "interval": 0, "limit": 0, "rules": rules }] }))
}

/// A parameter of a query, of those that need no escapes.
fn parameter(query: Option<&str>, name: &str) -> String {
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(other, _)| *other == name).map(|(_, value)| value.to_owned()).next_back().unwrap_or_default()
}

const fn state(alert: &Alert) -> &'static str {
    if alert.firing.is_some() { "firing" } else { "pending" }
}

fn alert(alert: &Alert) -> Value {
    json!({
        "labels": alert.labels, "annotations": alert.annotations, "state": state(alert),
        "activeAt": time(alert.active), "value": alert.value.to_string(),
    })
}

fn rule(name: &str, known: &Known) -> Value {
    if let Some(metric) = &known.rule.record {
        return json!({
            "type": "recording", "name": metric, "query": known.rule.expr.clone().unwrap_or_default(),
            "labels": known.rule.labels, "health": health(known), "lastError": known.problem,
            "lastEvaluation": known.evaluated.map(time).unwrap_or_default(), "evaluationTime": 0,
        });
    }
    let all = known.alerts.values();
    let worst = all.map(state).max_by_key(|state| *state == "firing").unwrap_or("inactive");
    json!({
        "type": "alerting", "name": name, "query": known.rule.expr.clone().unwrap_or_default(),
        "duration": known.rule.wait.as_secs_f64(), "keepFiringFor": known.rule.keep_firing_for.as_secs_f64(),
        "labels": known.rule.labels, "annotations": known.rule.annotations, "state": worst,
        "health": health(known), "lastError": known.problem,
        "lastEvaluation": known.evaluated.map(time).unwrap_or_default(), "evaluationTime": 0,
        "alerts": known.alerts.values().map(alert).collect::<Vec<_>>(),
    })
}

const fn health(known: &Known) -> &'static str {
    match (known.evaluated.is_some(), known.problem.is_empty()) {
        (false, _) => "unknown",
        (true, true) => "ok",
        (true, false) => "err",
    }
}

fn time(seconds: i64) -> String {
    Timestamp { seconds, nanos: 0 }.to_string()
}
