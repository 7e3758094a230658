//! The APIs of Loki and Jaeger, as their clients speak them.

use axum::body::Body;
use http_body_util::BodyExt as _;
use ninefold_monitor::Config;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::house::{House, LineSaid, SpanDone, http};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SECOND: u64 = 1_000_000_000;
/// 2026-11-25T12:00:00Z
const NOON: u64 = 1_795_608_000;

async fn ask(house: &House, path: &str, parameters: &[(&str, &str)]) -> (u16, Value) {
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    let request = http::Request::get(format!("{path}?{query}")).body(Body::empty()).expect("a request");
    let response = house.monitor.guests_router().oneshot(request).await.expect("a router answers");
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.expect("a whole body").to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

async fn push(house: &House) {
    let nanos = |seconds: u64| ((NOON + seconds) * SECOND).to_string();
    let body = json!({ "streams": [
        { "stream": { "app": "shop", "pod": "shop-1", "env": "test" }, "values": [
            [nanos(0), r#"{"level":"info","msg":"served","status":200}"#],
            [nanos(10), r#"{"level":"error","msg":"no room","status":503}"#],
            [nanos(70), "level=warn msg=\"no stock\" order=7", { "trace_id": TRACE }],
        ] },
        { "stream": { "app": "pay", "level": "error" }, "values": [[nanos(20), "declined"]] },
    ] });
    let answer = http(house, "/loki/api/v1/push", "application/json", "", body.to_string()).await;
    assert_eq!((answer.status, answer.body.len()), (204, 0), "{}", String::from_utf8_lossy(&answer.body));
}

fn lines(answer: &Value) -> Vec<&str> {
    assert_eq!(answer["data"]["resultType"], "streams", "{answer}");
    let streams = answer["data"]["result"].as_array().expect("streams");
    let mut values: Vec<_> = streams.iter().flat_map(|stream| stream["values"].as_array().expect("values")).collect();
    values.sort_by_key(|value| value[0].as_str().expect("a time"));
    values.into_iter().map(|value| value[1].as_str().expect("a line")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pushed_as_to_loki_is_found_as_in_loki() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config { path: Some(folder.path().to_owned()), logs_bytes_max: 1, ..Config::default() };
    let house = House::open(config.clone()).await;
    push(&house).await;
    house.close().await;
    // From files.
    let house = House::open(config).await;
    let (start, end) = (NOON.to_string(), (NOON + 3600).to_string());
    for (query, expected) in [
        (r#"{app="shop"}"#, 3),
        (r#"{service_name=~"shop|pay"}"#, 4),
        (r#"{app="shop", env="test"} |= "no " != "stock""#, 1),
        (r#"{app="shop"} |= "NO ""#, 0),
        (r#"{app=~".+"} |~ "no (room|stock)""#, 2),
        (r#"{app="shop"} | json | status >= 500"#, 1),
        (r#"{app="shop"} | logfmt | order="7""#, 1),
        (r#"{level="error"}"#, 2),
        (&format!(r#"{{app="shop"}} | trace_id="{TRACE}""#), 1),
    ] {
        let parameters = [("query", query), ("start", start.as_str()), ("end", end.as_str())];
        let (status, answer) = ask(&house, "/loki/api/v1/query_range", &parameters).await;
        assert_eq!((status, lines(&answer).len()), (200, expected), "{query}: {answer}");
        let forward = [parameters.as_slice(), &[("direction", "forward"), ("limit", "1")]].concat();
        let (_, first) = ask(&house, "/loki/api/v1/query_range", &forward).await;
        assert_eq!(lines(&first).first(), lines(&answer).first(), "{query}");
    }
    let count = r#"sum by (app, service_name) (count_over_time({app=~".+"}[1m]))"#;
    let parameters = [("query", count), ("start", start.as_str()), ("end", end.as_str()), ("step", "60")];
    let (_, answer) = ask(&house, "/loki/api/v1/query_range", &parameters).await;
    let shop = &answer["data"]["result"][1];
    assert_eq!(shop["metric"]["service_name"], "shop", "{answer}");
    let (minute, next) = (NOON as f64 + 60.0, NOON as f64 + 120.0);
    assert_eq!(shop["values"], json!([[NOON as f64, "1"], [minute, "1"], [next, "1"]]), "{answer}");
    let instant = [("query", r#"sum(rate({app="shop"}[2m]))"#), ("time", &(NOON + 75).to_string())];
    let (_, answer) = ask(&house, "/loki/api/v1/query", &instant).await;
    assert_eq!(answer["data"]["result"][0]["value"][1], "0.025", "{answer}");
    let (_, answer) = ask(&house, "/loki/api/v1/query", &[("query", "vector(1)+vector(1)")]).await;
    assert_eq!(answer["data"]["result"][0]["value"][1], "2");

    let range = [("start", start.as_str()), ("end", end.as_str())];
    let (_, answer) = ask(&house, "/loki/api/v1/labels", &range).await;
    assert_eq!(answer["data"], json!(["env", "instance", "level", "service_name"]));
    let (_, answer) = ask(&house, "/loki/api/v1/label/service_name/values", &range).await;
    assert_eq!(answer["data"], json!(["pay", "shop"]));
    let (_, answer) = ask(&house, "/loki/api/v1/series", &[range[0], range[1], ("match[]", r#"{app="pay"}"#)]).await;
    assert_eq!(answer["data"], json!([{ "level": "error", "service_name": "pay" }]));
    for query in ["", "{", r#"{a="b"} | line_format "x""#] {
        let (status, answer) = ask(&house, "/loki/api/v1/query_range", &[("query", query)]).await;
        assert_eq!((status, answer["status"].as_str()), (400, Some("error")), "{query}");
    }
    house.close().await;
}

/// `PushRequest` of logproto, by hand: streams = 1 { labels = 1, entries = 2 { timestamp = 1 { seconds = 1 }, line = 2 } }.
#[tokio::test]
async fn protobuf_in_snappy_is_pushed_too_and_rubbish_is_refused() {
    let house = House::start(Config::default());
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat();
    let mut seconds = vec![1 << 3];
    let mut left = NOON;
    while left > 0 {
        let bits = u8::try_from(left & 0x7f).unwrap();
        left >>= 7;
        seconds.push(bits | if left > 0 { 0x80 } else { 0 });
    }
    let entry = [field(1, &seconds), field(2, b"level=info msg=hello a=1")].concat();
    let stream = [field(1, br#"{job="till", instance="t-1"}"#), field(2, &entry)].concat();
    let packed = snap::raw::Encoder::new().compress_vec(&field(1, &stream)).unwrap();
    let answer = http(&house, "/loki/api/v1/push", "application/x-protobuf", "", packed).await;
    assert_eq!(answer.status, 204, "{}", String::from_utf8_lossy(&answer.body));
    let parameters =
        [("query", r#"{service_name="till", instance="t-1"} | logfmt | a=1"#), ("start", "1"), ("end", "9000000000")];
    let (_, answer) = ask(&house, "/loki/api/v1/query_range", &parameters).await;
    assert_eq!(lines(&answer), ["level=info msg=hello a=1"]);
    for (kind, body) in [("application/x-protobuf", "rubbish"), ("application/json", "{"), ("application/json", "{}")] {
        assert_eq!(http(&house, "/loki/api/v1/push", kind, "", body).await.status, 400, "{kind} {body}");
    }
}

#[tokio::test]
async fn traces_are_read_as_from_jaeger() {
    let house = House::start(Config::default());
    let at = |millis: u64| NOON * SECOND + millis * 1_000_000;
    for done in [
        SpanDone { service: "edge", id: 1, name: "GET /x", start: at(0), end: at(50), ..SpanDone::default() },
        SpanDone { service: "shop", id: 2, parent: 1, name: "get", start: at(5), end: at(40), failed: true },
    ] {
        house.span(TRACE, done).await;
    }
    house.line(LineSaid { service: "shop", time: at(6), body: "hi", trace: TRACE, ..LineSaid::default() }).await;
    let (_, answer) = ask(&house, "/api/services", &[]).await;
    assert_eq!((&answer["data"], &answer["total"]), (&json!(["edge", "shop"]), &json!(2)));
    let (_, answer) = ask(&house, "/api/services/shop/operations", &[]).await;
    assert_eq!(answer["data"], json!(["get"]));
    let (status, answer) = ask(&house, &format!("/api/traces/{TRACE}"), &[]).await;
    let trace = &answer["data"][0];
    assert_eq!((status, trace["traceID"].as_str()), (200, Some(TRACE)));
    let span = &trace["spans"][1];
    assert_eq!((span["operationName"].as_str(), span["duration"].as_u64()), (Some("get"), Some(35_000)));
    assert_eq!(span["references"][0]["spanID"], trace["spans"][0]["spanID"]);
    assert_eq!(trace["processes"][span["processID"].as_str().expect("a name")]["serviceName"], "shop");
    for (parameters, found) in [
        (vec![("service", "shop")], 1),
        (vec![("service", "shop"), ("operation", "get"), ("minDuration", "20ms"), ("tags", r#"{"error":"true"}"#)], 1),
        (vec![("service", "shop"), ("minDuration", "1s")], 0),
        (vec![("service", "nobody")], 0),
    ] {
        let (_, answer) = ask(&house, "/api/traces", &parameters).await;
        assert_eq!(answer["data"].as_array().expect("traces").len(), found, "{parameters:?}");
    }
    let end = ((NOON + 60) * 1000).to_string();
    let (_, answer) = ask(&house, "/api/dependencies", &[("endTs", &end), ("lookback", "3600000")]).await;
    assert_eq!(answer["data"], json!([{ "parent": "edge", "child": "shop", "callCount": 1 }]));
    assert_eq!(ask(&house, "/api/traces/ffff", &[]).await.0, 404);
    assert_eq!(ask(&house, "/api/traces", &[]).await.0, 400);
}
