//! REST calls.

use std::time::Duration;

use ninefold_gateway::Config;
use serde_json::json;

use crate::client::{Connection, ask, request};
use crate::landscape::Landscape;

#[tokio::test]
async fn a_document_is_read_by_its_path_and_query() {
    let house = Landscape::start().await;
    let answer = ask(house.edge, "GET", "/v1/documents/shop/a%2Fb?revision=3", "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(
        answer.json(),
        json!({"document": {"service": "shop", "environment": "a/b", "content": "revision 3", "revision": "7", "author": "a"}})
    );
    assert_eq!(answer.header("x-answered-with"), "metadata");
    assert_eq!(answer.header("grpc-status"), "");
}

#[tokio::test]
async fn a_document_is_written_by_path_and_body() {
    let house = Landscape::start().await;
    let answer =
        ask(house.edge, "PUT", "/v1/documents/shop/test", r#"{"content": "{}", "expectedRevision": "6"}"#).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["document"]["content"], "{}");
    let nested = "/v1/documents/shop/test:acknowledge";
    let answer = ask(house.edge, "POST", nested, r#"{"revision": 3}"#).await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "{}"));
}

#[tokio::test]
async fn what_no_contract_exposes_is_not_there() {
    let house = Landscape::start().await;
    for path in ["/", "/v1/nothing", "/v1/contracts", "/ninefold.config.v1.ConfigService/GetDocument"] {
        let answer = ask(house.edge, "GET", path, "").await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.json()["details"][0]["reason"], "ROUTE_UNKNOWN");
        assert_eq!(answer.json()["details"][0]["@type"], "type.googleapis.com/google.rpc.ErrorInfo");
        assert_eq!(answer.json()["code"], 5);
    }
    let answer = ask(house.edge, "DELETE", "/v1/documents/shop/test", "").await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "GET, PUT"));
    assert_eq!(answer.json()["details"][0]["reason"], "VERB_NOT_ALLOWED");
}

#[tokio::test]
async fn what_does_not_fit_the_contract_is_told_field_by_field() {
    let house = Landscape::start().await;
    for (verb, target, body, field) in [
        ("PUT", "/v1/documents/shop/test", r#"{"service": "other"}"#, "service"),
        ("PUT", "/v1/documents/shop/test", r#"{"content": 7}"#, "content"),
        ("PUT", "/v1/documents/shop/test?content=x", "{}", "content"),
        ("GET", "/v1/documents/shop/test?revision=new", "", "revision"),
        ("GET", "/v1/documents/shop/test?nope=1", "", "nope"),
        ("GET", "/v1/documents/shop/test?service=other", "", "service"),
        ("POST", "/v1/documents/shop/test:acknowledge", r#"{"time": "noon"}"#, "acknowledgement.time"),
    ] {
        let answer = ask(house.edge, verb, target, body).await;
        assert_eq!(answer.status, 400, "{verb} {target}: {}", answer.text());
        let violations = &answer.json()["details"][1];
        assert_eq!(violations["@type"], "type.googleapis.com/google.rpc.BadRequest");
        assert_eq!(violations["fieldViolations"][0]["field"], field, "{violations}");
    }
    let answer = ask(house.edge, "PUT", "/v1/documents/shop/test", r#"{"nope": 1}"#).await;
    assert_eq!(answer.status, 400);
    assert!(answer.json()["message"].as_str().unwrap().contains("nope"));
    let both = ask(house.edge, "GET", "/v1/documents/shop/test?nope=1&revision=x", "").await;
    assert_eq!(both.json()["details"][1]["fieldViolations"].as_array().unwrap().len(), 2, "all at once");
}

#[tokio::test]
async fn an_error_of_the_service_comes_home_with_its_details() {
    let house = Landscape::start().await;
    let answer = ask(house.edge, "GET", "/v1/documents/missing/test", "").await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.header("retry-after"), "2");
    let body = answer.json();
    assert_eq!(body["code"], 5);
    assert_eq!(body["message"], "no document \"missing\" is there");
    let types: Vec<_> = body["details"].as_array().unwrap().iter().map(|detail| &detail["@type"]).collect();
    assert!(types.contains(&&json!("type.googleapis.com/google.rpc.RetryInfo")), "{types:?}");
    assert!(types.contains(&&json!("type.googleapis.com/google.rpc.ErrorInfo")), "{types:?}");
}

#[tokio::test]
async fn rule_25_codes_become_http_statuses() {
    let house = Landscape::start().await;
    let mut connection = Connection::open(house.edge).await;
    for (code, status) in [
        (1, 499),
        (2, 500),
        (3, 400),
        (4, 504),
        (5, 404),
        (6, 409),
        (7, 403),
        (8, 429),
        (9, 400),
        (10, 409),
        (11, 400),
        (12, 501),
        (13, 500),
        (15, 500),
        (16, 401),
    ] {
        let answer = connection.ask(request("GET", &format!("/v1/documents/code-{code}/test"), "")).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (status, &json!(code)), "{}", answer.text());
        assert_eq!(answer.header("www-authenticate"), "");
    }
}

#[tokio::test]
async fn a_slow_service_is_given_up_in_time() {
    let config = Config { deadline: Duration::from_millis(200), ..Config::default() };
    let house = Landscape::start_with(config).await;
    let answer = ask(house.edge, "GET", "/v1/documents/slow/test", "").await;
    assert_eq!(answer.status, 504, "{}", answer.text());
    let house = Landscape::start().await;
    let mut asked = request("GET", "/v1/documents/slow/test", "");
    asked.headers_mut().insert("grpc-timeout", "100m".parse().unwrap());
    assert_eq!(Connection::open(house.edge).await.ask(asked).await.status, 504);
}

#[tokio::test]
async fn headers_cross_the_edge_or_end_there() {
    let house = Landscape::start().await;
    let mut asked = request("GET", "/v1/documents/shop/test", "");
    for (name, value) in [
        ("authorization", "Bearer x"),
        ("x-forwarded-for", "6.6.6.6"),
        ("x-ninefold-identity", "admin"),
        ("grpc-status", "0"),
        ("x-under_score", "1"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ] {
        asked.headers_mut().insert(name, value.parse().unwrap());
    }
    let answer = Connection::open(house.edge).await.ask(asked).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-trace-id"), "0af7651916cd43dd8448eb211c80319c");
    let seen = house.backend.seen.lock().unwrap().clone();
    let seen = |name: &str| seen.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    assert_eq!(seen("authorization"), "Bearer x");
    assert_eq!(seen("x-forwarded-for"), "127.0.0.1");
    assert_eq!(seen("x-forwarded-host"), "edge.example");
    assert_eq!(seen("x-ninefold-identity"), "");
    assert_eq!(seen("x-under_score"), "");
    assert!(seen("traceparent").starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{}", seen("traceparent"));
}

#[tokio::test]
async fn every_answer_names_its_trace() {
    let house = Landscape::start().await;
    let mut ids = std::collections::HashSet::new();
    for (verb, path) in
        [("GET", "/v1/documents/shop/test"), ("GET", "/nothing"), ("GET", "/a/../b"), ("PUT", "/v1/documents")]
    {
        let answer = ask(house.edge, verb, path, "").await;
        let id = answer.header("x-trace-id").to_owned();
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{path}: {id:?}");
        assert!(ids.insert(id), "each has its own");
    }
}

#[tokio::test]
async fn a_page_of_another_origin_may_ask_without_credentials() {
    let house = Landscape::start().await;
    let mut asked = request("OPTIONS", "/v1/documents/shop/test", "");
    for (name, value) in [
        ("origin", "https://page.example"),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "content-type,x-grpc-web"),
    ] {
        asked.headers_mut().insert(name, value.parse().unwrap());
    }
    let answer = Connection::open(house.edge).await.ask(asked.clone()).await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert_eq!(answer.header("access-control-allow-methods"), "PUT");
    assert_eq!(answer.header("access-control-allow-headers"), "content-type,x-grpc-web");
    assert_eq!(answer.header("access-control-allow-credentials"), "");
    let picky = Config { origins: vec!["https://shop.example".to_owned()], ..Config::default() };
    let house = Landscape::start_with(picky).await;
    let answer = Connection::open(house.edge).await.ask(asked).await;
    assert_eq!(answer.header("access-control-allow-origin"), "");
}

#[tokio::test]
async fn until_the_landscape_is_known_nothing_is_said_to_be_missing() {
    let house = Landscape::empty(Config::default()).await;
    house.until("GET", "/", false).await;
    // The registry answers at once, so this may be either; what it must not be is another 404 than that of a known edge.
    let answer = ask(house.edge, "GET", "/v1/documents", "").await;
    let reason = answer.json()["details"][0]["reason"].clone();
    assert!(
        (answer.status == 503 && reason == "EDGE_STARTING") || (answer.status == 404 && reason == "ROUTE_UNKNOWN"),
        "{}",
        answer.text()
    );
}
