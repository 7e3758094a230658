//! Pages that a Prometheus scrapes: what the node says of itself (`/metrics`), and what it keeps of others (`/federate`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderValue, Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use ninefold_promql::{Labels, Query, Selection};

use super::about::About;
use super::ask::Parameters;
use super::exposition::{Form, Shown, page};
use super::{Metrics, Unanswered, now};

/// What the node says of itself. Whoever scrapes gives it names of its own, so these are not told.
const OWN: &str = "{job=\"ninefold\"}";
const NAMES: [&str; 2] = ["instance", "job"];
/// How long a sample speaks for its series, in milliseconds.
const NEW_MILLIS: i64 = 300_000;

/// The routes.
pub(crate) fn router(metrics: Arc<Metrics>) -> Router {
    Router::new().route("/metrics", get(own)).route("/federate", get(federated)).with_state(metrics)
}

async fn own(State(metrics): State<Arc<Metrics>>, request: Request<Body>) -> Response {
    let selection = Query::parse(OWN).ok().and_then(|query| query.selector());
    let form = form(&request);
    match shown(&metrics, selection.into_iter().collect()).await {
        Ok(mut series) => {
            for one in &mut series {
                one.labels = one.labels.without(&NAMES);
                one.at = None;
            }
            told(&metrics, series, form)
        }
        Err(refused) => refused,
    }
}

async fn federated(State(metrics): State<Arc<Metrics>>, request: Request<Body>) -> Response {
    let form = form(&request);
    let parameters = Parameters::read(request.uri().query().unwrap_or_default(), b"");
    match parameters.selections() {
        Err(odd) => refused(StatusCode::BAD_REQUEST, &odd.0),
        Ok(none) if none.is_empty() => {
            refused(StatusCode::BAD_REQUEST, "the parameter \"match[]\" is missing: give a series selector")
        }
        Ok(selections) => match shown(&metrics, selections).await {
            Ok(series) => told(&metrics, series, form),
            Err(refused) => refused,
        },
    }
}

fn form(request: &Request<Body>) -> Form {
    Form::of(request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default())
}

fn refused(status: StatusCode, why: &str) -> Response {
    (status, format!("{why}\n")).into_response()
}

/// The newest numbers of series, with the newest exemplar of each. Native histograms have no place on a page of text.
async fn shown(metrics: &Arc<Metrics>, mut selections: Vec<Selection>) -> Result<Vec<Shown>, Response> {
    let to = now();
    for selection in &mut selections {
        (selection.from, selection.to) = (to.saturating_sub(NEW_MILLIS), to);
    }
    let mut exemplars: HashMap<Labels, _> = HashMap::new();
    for (labels, mut all) in metrics.exemplars_of(&selections, to.saturating_sub(NEW_MILLIS), to) {
        exemplars.extend(all.pop().map(|last| (labels, last)));
    }
    let newest = metrics.newest(selections).await.map_err(|why| {
        let status = match &why {
            Unanswered::Odd(_) | Unanswered::Wrong(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Unanswered::Own(_) | Unanswered::Broken(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        refused(status, &why.to_string())
    })?;
    let shown = newest.into_iter().filter_map(|(labels, sample)| {
        let value = sample.point.float()?;
        let exemplar = exemplars.remove(&labels);
        Some(Shown { labels, value, at: Some(sample.at), exemplar })
    });
    Ok(shown.collect())
}

fn told(metrics: &Metrics, series: Vec<Shown>, form: Form) -> Response {
    let about: BTreeMap<String, About> = metrics.about(None).into_iter().collect();
    let mut response = Response::new(Body::from(page(series, &about, form)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(form.content_type()));
    response
}
