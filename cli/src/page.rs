//! The landscape page: one small file of HTML, and the JSON it shows.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use ninefold::tonic::service::Routes;
use ninefold_gateway::Bindings;
use serde_json::json;
use tonic_web::GrpcWebLayer;

use crate::client::Platform;
use crate::commands::ps::View;
use crate::node::Facts;
use crate::output;

const HTML: &str = include_str!("page/index.html");
/// Nothing is loaded from elsewhere, and the page runs in nobody's frame.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; frame-ancestors 'none'";

#[derive(Clone)]
struct Page {
    platform: Platform,
    facts: Facts,
}

/// Where the contracts' HTTP bindings lie.
const BINDINGS: &str = "/v1/{*path}";

/// The page's routes, and the HTTP bindings of the platform's contracts.
pub(crate) fn router(platform: Platform, facts: Facts, bindings: Bindings) -> Router {
    let page = Router::new().route("/", get(index)).route("/landscape.json", get(landscape));
    let bound = Router::new().route(BINDINGS, any(bound)).with_state(bindings);
    page.with_state(Page { platform, facts }).merge(bound)
}

async fn bound(State(bindings): State<Bindings>, request: Request) -> Response {
    bindings.answer(request.map(ninefold::tonic::body::Body::new)).await.map(axum::body::Body::new)
}

/// The platform's gRPC routes, spoken as gRPC and gRPC-Web, and the page beside them.
pub(crate) fn with(routes: Routes, page: Router) -> Routes {
    let spoken = routes.prepare().into_axum_router().layer(GrpcWebLayer::new());
    Routes::from(spoken.layer(axum::middleware::from_fn(only_grpc)).merge(page))
}

/// Answers whoever looks for a page that is not there; the layers below know gRPC only.
async fn only_grpc(request: Request, next: Next) -> Response {
    let kind = request.headers().get(header::CONTENT_TYPE).map_or(b"".as_slice(), |kind| kind.as_bytes());
    if kind.starts_with(b"application/grpc") || request.method() == Method::OPTIONS {
        return next.run(request).await;
    }
    (StatusCode::NOT_FOUND, "There is a page at /, JSON below /v1, and gRPC everywhere.\n").into_response()
}

async fn index() -> impl IntoResponse {
    let head = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (head, HTML)
}

async fn landscape(State(page): State<Page>) -> Response {
    match View::of(&page.platform, "").await {
        Ok(view) => {
            let mut value = view.json();
            let routes = page.platform.routes("").await.unwrap_or_default();
            value["node"] = page.facts.json();
            value["routes"] = output::json_all("ninefold.gateway.v1.Route", &routes);
            axum::Json(value).into_response()
        }
        Err(failure) => {
            (StatusCode::SERVICE_UNAVAILABLE, axum::Json(json!({"error": failure.to_string()}))).into_response()
        }
    }
}
