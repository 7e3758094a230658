//! Streams of answers over plain HTTP.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use ninefold_gateway::Config;
use serde_json::json;

use crate::client::{Answer, Connection, request};
use crate::landscape::Landscape;

async fn watch(house: &Landscape, service: &str, count: u32, accept: &str) -> Answer {
    let mut asked = request("GET", &format!("/v1/documents/{service}/test:watch?knownRevision={count}"), "");
    asked.headers_mut().insert("accept", accept.parse().unwrap());
    Connection::open(house.edge).await.ask(asked).await
}

#[tokio::test]
async fn a_stream_is_lines_of_json_unless_asked_otherwise() {
    let house = Landscape::start().await;
    let answer = watch(&house, "shop", 2, "*/*").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/x-ndjson"));
    assert_eq!(answer.text(), "{\"document\":{\"revision\":\"1\"}}\n{\"document\":{\"revision\":\"2\"}}\n");
}

#[tokio::test]
async fn a_stream_is_events_for_a_browser() {
    let house = Landscape::start().await;
    let answer = watch(&house, "shop", 1, "text/event-stream").await;
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert_eq!(
        answer.text(),
        "event: message\nid: 1\ndata: {\"document\":{\"revision\":\"1\"}}\n\nevent: end\ndata: {}\n\n"
    );
}

#[tokio::test]
async fn a_stream_is_an_array_for_who_wants_json() {
    let house = Landscape::start().await;
    assert_eq!(watch(&house, "shop", 2, "application/json").await.json().as_array().unwrap().len(), 2);
    assert_eq!(watch(&house, "shop", 0, "application/json").await.json(), json!([]));
}

#[tokio::test]
async fn an_error_before_the_first_message_is_an_http_status() {
    let house = Landscape::start().await;
    for accept in ["*/*", "text/event-stream", "application/json"] {
        let answer = watch(&house, "missing", 1, accept).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (404, "application/json"));
    }
}

#[tokio::test]
async fn an_error_after_the_first_message_is_seen_in_the_stream() {
    let house = Landscape::start().await;
    let text = watch(&house, "broken", 1, "*/*").await.text();
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], 5);
    assert!(last["error"]["details"].to_string().contains("DOCUMENT_UNKNOWN"), "{last}");
    let events = watch(&house, "broken", 1, "text/event-stream").await.text();
    assert!(events.contains("event: error\ndata: {\"code\":5,"), "{events}");
    assert!(!events.contains("event: end"));
    let array = watch(&house, "broken", 1, "application/json").await.json();
    assert_eq!(array[1]["error"]["code"], 5);
}

#[tokio::test]
async fn a_silent_stream_of_events_gives_signs_of_life_and_ends_with_its_reader() {
    let config = Config { heartbeat: Duration::from_millis(50), ..Config::default() };
    let house = Landscape::start_with(config).await;
    let mut connection = Connection::open(house.edge).await;
    let mut asked = request("GET", "/v1/documents/endless/test:watch?knownRevision=1", "");
    asked.headers_mut().insert("accept", "text/event-stream".parse().unwrap());
    let mut answer = connection.send(asked).await;
    let mut text = String::new();
    while text.matches(": heartbeat\n\n").count() < 2 {
        let frame = answer.frame().await.unwrap().unwrap();
        text += std::str::from_utf8(frame.data_ref().unwrap()).unwrap();
    }
    // A service that takes its time is silent before it speaks.
    assert!(text.replace(": heartbeat\n\n", "").starts_with("event: message\nid: 1\n"), "{text}");
    assert!(Arc::strong_count(&house.backend.streams) > 1, "the service's stream is open");
    drop((answer, connection));
    let closed = async {
        while Arc::strong_count(&house.backend.streams) > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), closed).await.expect("leaving the stream ends it at the service");
}

#[tokio::test]
async fn a_stopping_edge_tells_the_readers_of_its_streams() {
    let house = Landscape::start().await;
    let mut connection = Connection::open(house.edge).await;
    let answer = connection.send(request("GET", "/v1/documents/endless/test:watch?knownRevision=1", "")).await;
    let (late, body) = tokio::join!(house.door.close(Duration::from_secs(20)), answer.collect());
    assert_eq!(late, Vec::<String>::new(), "nothing had to be dropped");
    let body = body.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&body);
    assert!(text.contains("EDGE_DRAINING"), "{text}");
}
