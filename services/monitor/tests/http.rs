//! OTLP over HTTP: what is taken, and what is refused how.

#[path = "house/house.rs"]
mod house;

use std::io::Write as _;
use std::time::Duration;

use axum::body::{Body, Bytes};
use flate2::Compression;
use flate2::write::GzEncoder;
use house::{Answer, House, LineSaid, SpanDone, http, logs_of, spans_of};
use ninefold_monitor::Config;
use ninefold_proto::ninefold::monitor::v1::{GetRetentionRequest, GetTraceRequest, SearchLogsRequest};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use proptest::prelude::*;
use prost::Message as _;

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";
const TRACE: &str = "5b8efff798038103d269b633813fc60c";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

async fn lines(house: &House) -> usize {
    let request = SearchLogsRequest { page_size: 1000, ..SearchLogsRequest::default() };
    house.monitor().search_logs(request).await.expect("the search is answered").into_inner().records.len()
}

#[tokio::test]
async fn protobuf_is_taken_plain_and_in_gzip() {
    let house = House::start(Config::default());
    let body = logs_of(LineSaid { body: "hello", ..LineSaid::default() }).encode_to_vec();
    for (encoding, body) in [("", body.clone()), ("identity", body.clone()), ("gzip", gzip(&body))] {
        let answer = http(&house, "/v1/logs", PROTOBUF, encoding, body).await;
        assert_eq!((answer.status, answer.kind.as_str(), answer.body.len()), (200, PROTOBUF, 0));
    }
    assert_eq!(lines(&house).await, 3);
}

/// The bodies are those of the OTLP specification's examples, shortened.
#[tokio::test]
async fn json_is_taken_as_the_specification_writes_it() {
    let house = House::start(Config::default());
    let resource = r#""resource":{"attributes":[{"key":"service.name","value":{"stringValue":"my.service"}}]}"#;
    let ids = format!(r#""traceId":"{}","spanId":"EEE19B7EC3C1B174""#, TRACE.to_uppercase());
    let spans = format!(
        r#"{{"resourceSpans":[{{{resource},"scopeSpans":[{{"scope":{{"name":"my.library","version":"1.0.0"}},"spans":[{{
        {ids},"parentSpanId":"EEE19B7EC3C1B173","name":"I'm a server span","startTimeUnixNano":"1544712660000000000",
        "endTimeUnixNano":"1544712661000000000","kind":2,"attributes":[{{"key":"my.span.attr","value":
        {{"stringValue":"some value"}}}}]}}]}}]}}]}}"#
    );
    let logs = format!(
        r#"{{"resourceLogs":[{{{resource},"scopeLogs":[{{"logRecords":[{{"timeUnixNano":"1544712660300000000",
        "observedTimeUnixNano":"1544712660300000000","severityNumber":10,"severityText":"Information",{ids},
        "body":{{"stringValue":"Example log record"}},"attributes":[{{"key":"array.attribute","value":{{"arrayValue":
        {{"values":[{{"stringValue":"many"}},{{"stringValue":"values"}}]}}}}}},{{"key":"int.attribute","value":
        {{"intValue":"10"}}}}]}}]}}]}}]}}"#
    );
    for (path, body) in [("/v1/traces", spans), ("/v1/logs", logs)] {
        let answer = http(&house, path, "application/json; charset=utf-8", "", body).await;
        assert_eq!((answer.status, answer.kind.as_str(), answer.body.as_slice()), (200, JSON, b"{}".as_slice()));
    }
    let ask = GetTraceRequest { trace_id: TRACE.to_owned() };
    let trace = house.monitor().get_trace(ask).await.unwrap().into_inner();
    assert_eq!(
        (trace.spans[0].name.as_str(), trace.spans[0].span_id.as_str()),
        ("I'm a server span", "eee19b7ec3c1b174")
    );
    assert_eq!(trace.spans[0].duration.unwrap().seconds, 1);
    assert_eq!(trace.spans[0].attributes["otel.scope.name"], "my.library");
    let record = &trace.records[0];
    assert_eq!((record.body.as_str(), record.service.as_str()), ("Example log record", "my.service"));
    assert_eq!(record.attributes["array.attribute"], r#"["many","values"]"#);
    assert_eq!(record.attributes["int.attribute"], "10");
}

#[tokio::test]
async fn what_of_a_batch_cannot_be_kept_is_told() {
    let house = House::start(Config::default());
    let mut batch = spans_of(TRACE, SpanDone { id: 1, ..SpanDone::default() });
    let mut nameless = batch.resource_spans[0].clone();
    nameless.scope_spans[0].spans[0].trace_id = vec![0; 16];
    batch.resource_spans.push(nameless);
    let answer = http(&house, "/v1/traces", PROTOBUF, "", batch.encode_to_vec()).await;
    let told = ExportTraceServiceResponse::decode(answer.body.as_slice()).unwrap().partial_success.unwrap();
    assert_eq!((answer.status, told.rejected_spans), (200, 1));
    assert!(told.error_message.contains("trace id"));
    let answer = http(&house, "/v1/traces", JSON, "", serde_json::to_vec(&batch).unwrap()).await;
    let told: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(told["partialSuccess"]["rejectedSpans"], "1");
    let kept = house.monitor().get_retention(GetRetentionRequest {}).await.unwrap().into_inner().spans.unwrap();
    assert_eq!((kept.records, kept.refused), (1, 2), "a span that is sent again is kept once");
}

fn reason(answer: &Answer) -> String {
    if answer.kind == JSON {
        let status: serde_json::Value = serde_json::from_slice(&answer.body).expect("the body is JSON");
        assert!(status["code"].is_i64() && status["message"].is_string());
        return status["details"][0]["reason"].as_str().expect("it has a reason").to_owned();
    }
    let status =
        ninefold::tonic::Status::with_details(ninefold::tonic::Code::Unknown, "", Bytes::from(answer.body.clone()));
    ninefold::fault::reason(&status).expect("it has a reason")
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_a_status_that_tells_why() {
    let house = House::start(Config { body_bytes_max: 10_000, ..Config::default() });
    let large = logs_of(LineSaid { body: &"x".repeat(20_000), ..LineSaid::default() }).encode_to_vec();
    for (kind, encoding, body, status, expected) in [
        (PROTOBUF, "", vec![0xff; 40], 400, "TELEMETRY_MALFORMED"),
        (JSON, "", b"{".to_vec(), 400, "TELEMETRY_MALFORMED"),
        (JSON, "", b"[]x".to_vec(), 400, "TELEMETRY_MALFORMED"),
        (JSON, "", br#"{"resourceLogs":3}"#.to_vec(), 400, "TELEMETRY_MALFORMED"),
        (JSON, "", "[".repeat(5_000).into_bytes(), 400, "TELEMETRY_MALFORMED"),
        (PROTOBUF, "gzip", b"no gzip".to_vec(), 400, "TELEMETRY_MALFORMED"),
        (PROTOBUF, "gzip", gzip(&large)[..30].to_vec(), 400, "TELEMETRY_MALFORMED"),
        (PROTOBUF, "", large.clone(), 413, "TELEMETRY_TOO_LARGE"),
        (PROTOBUF, "gzip", gzip(&large), 413, "TELEMETRY_TOO_LARGE"),
        (PROTOBUF, "gzip", gzip(&vec![0; 5_000_000]), 413, "TELEMETRY_TOO_LARGE"),
        ("text/plain", "", b"hello".to_vec(), 415, "TELEMETRY_TYPE_UNSUPPORTED"),
        ("", "", b"hello".to_vec(), 415, "TELEMETRY_TYPE_UNSUPPORTED"),
        (JSON, "br", b"{}".to_vec(), 415, "TELEMETRY_TYPE_UNSUPPORTED"),
    ] {
        let answer = http(&house, "/v1/logs", kind, encoding, body).await;
        assert_eq!((answer.status, reason(&answer).as_str()), (status, expected), "{kind} {encoding}");
    }
    assert_eq!(lines(&house).await, 0);
    let kept = house.monitor().get_retention(GetRetentionRequest {}).await.unwrap().into_inner().logs.unwrap();
    assert_eq!(kept.refused, 13);
    assert_eq!(http(&house, "/v1/unknown", JSON, "", b"{}".to_vec()).await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn a_sender_is_told_to_come_back_when_there_is_no_room_and_a_slow_one_does_not_stay() {
    let house = House::start(Config { body_bytes_max: 1000, in_flight_bytes_max: 0, ..Config::default() });
    let slow = Body::from_stream(tokio_stream::StreamExt::chain(
        tokio_stream::iter([Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 1000]))]),
        tokio_stream::pending(),
    ));
    let another = Body::from_stream(tokio_stream::StreamExt::chain(
        tokio_stream::iter([Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 1000]))]),
        tokio_stream::pending(),
    ));
    let flood = async {
        // Polled after both slow ones, which have taken all the room.
        let small = logs_of(LineSaid { body: "hello", ..LineSaid::default() });
        house.logs().export(small).await.expect("an eighth beside it is for small requests");
        let body = logs_of(LineSaid { body: &"x".repeat(400), ..LineSaid::default() });
        let refused = house.logs().export(body.clone()).await.unwrap_err();
        assert_eq!(refused.code(), ninefold::tonic::Code::ResourceExhausted);
        assert_eq!(ninefold::fault::reason(&refused).as_deref(), Some("MONITOR_OVERLOADED"));
        http(&house, "/v1/logs", PROTOBUF, "", body.encode_to_vec()).await
    };
    let (slow, another, refused) =
        tokio::join!(http(&house, "/v1/logs", JSON, "", slow), http(&house, "/v1/logs", JSON, "", another), flood);
    assert_eq!((refused.status, refused.retry_after.as_str()), (429, "1"));
    assert_eq!(reason(&refused), "MONITOR_OVERLOADED");
    assert_eq!((slow.status, reason(&slow).as_str()), (408, "TELEMETRY_TOO_SLOW"));
    assert_eq!(another.status, 408);
    // Their room is given back.
    house.line(LineSaid { body: &"x".repeat(400), ..LineSaid::default() }).await;
    assert_eq!(lines(&house).await, 2);
    tokio::time::advance(Duration::from_secs(1)).await;
}

/// JSON that looks like OTLP here and there.
fn strange_json() -> impl Strategy<Value = serde_json::Value> {
    let names = prop::sample::select(vec![
        "resourceLogs",
        "resourceSpans",
        "resourceMetrics",
        "resource",
        "attributes",
        "scopeLogs",
        "scopeSpans",
        "scopeMetrics",
        "scope",
        "logRecords",
        "spans",
        "metrics",
        "key",
        "value",
        "stringValue",
        "intValue",
        "doubleValue",
        "arrayValue",
        "kvlistValue",
        "bytesValue",
        "values",
        "traceId",
        "spanId",
        "timeUnixNano",
        "startTimeUnixNano",
        "name",
        "gauge",
        "sum",
        "histogram",
        "dataPoints",
        "asDouble",
        "asInt",
        "body",
        "status",
    ]);
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        "[0-9a-f]{32}".prop_map(Into::into),
        "[0-9a-f]{16}".prop_map(Into::into),
        "NaN|-Infinity|18446744073709551616|\\PC{0,8}".prop_map(Into::into),
    ];
    leaf.prop_recursive(9, 120, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map(names.clone(), inner, 0..5)
                .prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        ]
    })
}

fn post_all(kind: &'static str, body: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime starts");
    runtime.block_on(async {
        let house = House::start(Config::default());
        for path in ["/v1/logs", "/v1/traces", "/v1/metrics"] {
            let answer = http(&house, path, kind, "", body.to_vec()).await;
            assert!(matches!(answer.status, 200 | 400), "{}", answer.status);
        }
        lines(&house).await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn strange_json_is_taken_or_refused(body in strange_json()) {
        post_all(JSON, &serde_json::to_vec(&body).unwrap());
        let body = serde_json::json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [body]}]}]});
        post_all(JSON, &serde_json::to_vec(&body).unwrap());
    }

    #[test]
    fn strange_bytes_are_taken_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
        post_all(PROTOBUF, &body);
        post_all(JSON, &body);
    }

    #[test]
    fn a_batch_with_a_few_bytes_changed_is_taken_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let line = LineSaid { service: "pump", body: "hello", trace: TRACE, attribute: "a=b", ..LineSaid::default() };
        let spans = spans_of(TRACE, SpanDone { service: "pump", id: 1, name: "turn", ..SpanDone::default() });
        for mut body in [logs_of(line).encode_to_vec(), spans.encode_to_vec()] {
            for (at, byte) in &changes {
                let at = at.index(body.len());
                body[at] = *byte;
            }
            post_all(PROTOBUF, &body);
        }
    }
}
