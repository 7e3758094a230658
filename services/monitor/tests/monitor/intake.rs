//! What comes in: masked, shared, read, and bounded, whatever it is.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use ninefold::fault;
use ninefold::tonic::codec::CompressionEncoding;
use ninefold::tonic::{Code, Request};
use ninefold_monitor::{Config, Copies, Printed, Stream};
use ninefold_proto::ninefold::monitor::v1::{
    GetRetentionRequest, Level, LogFilter, LogRecord, SearchLogsRequest, SearchTracesRequest,
};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{ResourceLogs, ScopeLogs};
use prost::Message as _;

use crate::house::{House, LineSaid, SpanDone, attribute, http, logs_of, resource, spans_of, until};

const PROTOBUF: &str = "application/x-protobuf";

fn settings(text: &str) -> Config {
    serde_json::from_str(text).expect("settings")
}

async fn records(house: &House, query: &str) -> Vec<LogRecord> {
    let filter = Some(LogFilter { query: query.to_owned(), ..LogFilter::default() });
    let request = SearchLogsRequest { filter, page_size: 1000, ..SearchLogsRequest::default() };
    house.monitor().search_logs(request).await.expect("the search is answered").into_inner().records
}

fn logs(service: &str, records: Vec<opentelemetry_proto::tonic::logs::v1::LogRecord>) -> ExportLogsServiceRequest {
    let scope_logs = vec![ScopeLogs { log_records: records, ..ScopeLogs::default() }];
    let batch = ResourceLogs { resource: resource(service), scope_logs, ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![batch] }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_in_no_answer_and_in_no_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config {
        path: Some(folder.path().to_owned()),
        file_every: Duration::from_millis(20),
        ..settings(
            r#"{"mask":{"shipped":["password","bearer","card","email"],"rules":{"order":{"pattern":"ord-\\d+"}}}}"#,
        )
    };
    let house = House::open(config).await;
    let body = "login ann@example.org password=hunter2 for ord-4711, card 4111 1111 1111 1111";
    house.line(LineSaid { service: "pump", body, attribute: "api_key=hunter2", ..LineSaid::default() }).await;
    let mut request = spans_of(
        "4bf92f3577b34da6a3ce929d0e0e4736",
        SpanDone { service: "pump", id: 1, name: "GET /?token=hunter2", start: 1, end: 2, ..SpanDone::default() },
    );
    request.resource_spans[0].resource = Some(opentelemetry_proto::tonic::resource::v1::Resource {
        attributes: vec![attribute("service.name", "pump"), attribute("process.command", "run --password=hunter2")],
        ..Default::default()
    });
    TraceServiceClient::new(house.monitor.otlp_routes()).export(request).await.expect("it is taken");
    let record = records(&house, "login").await.remove(0);
    assert_eq!(record.body, "login [masked] password=[masked] for [masked], card [masked]");
    assert_eq!(record.attributes["api_key"], "[masked]");
    let traces = house.monitor().search_traces(SearchTracesRequest::default()).await.expect("told").into_inner();
    assert_eq!(traces.traces[0].name, "GET /?token=[masked]");
    let kept = house.monitor().get_retention(GetRetentionRequest {}).await.expect("told").into_inner();
    let masked: BTreeMap<_, _> = kept.masked.into_iter().map(|masked| (masked.rule, masked.values)).collect();
    assert_eq!((masked["password"], masked["order"], masked["card"], masked["email"]), (4, 1, 1, 1));
    house.close().await;
    let mut files = vec![folder.path().to_owned()];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
            continue;
        }
        let bytes = std::fs::read(&path).expect("a file");
        let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|part| part == needle);
        assert!(!holds(b"hunter2") && !holds(b"4111 1111") && !holds(b"ord-4711"), "{}", path.display());
    }
}

#[tokio::test]
async fn a_service_over_its_limit_is_told_when_to_come_back_and_others_are_heard() {
    let house = House::start(settings(r#"{"limits":{"services":{"loud":1000}}}"#));
    let said = |service| LineSaid { service, body: "x", ..LineSaid::default() };
    let body = "x".repeat(60_000);
    house.line(LineSaid { service: "loud", body: &body, ..LineSaid::default() }).await;
    let refused = house.logs().export(logs_of(said("loud"))).await.expect_err("its ten seconds are used");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(fault::reason(&refused).as_deref(), Some("SENDER_TOO_LOUD"));
    let details = String::from_utf8_lossy(refused.details()).into_owned();
    assert!(details.contains("google.rpc.RetryInfo"), "{details}");
    let answer = http(&house, "/v1/logs", PROTOBUF, "", logs_of(said("loud")).encode_to_vec()).await;
    assert_eq!(answer.status, 429);
    assert!(answer.retry_after.parse::<u64>().is_ok_and(|seconds| seconds > 0), "{}", answer.retry_after);
    house.line(said("quiet")).await;
    let kept = house.monitor().get_retention(GetRetentionRequest {}).await.expect("told").into_inner();
    let told: Vec<_> =
        kept.senders.iter().map(|sender| (sender.service.as_str(), sender.records, sender.refused)).collect();
    assert_eq!(told, [("loud", 1, 2), ("quiet", 1, 0)]);
    assert_eq!(kept.logs.expect("of logs").refused, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_does_not_starve_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config {
        path: Some(folder.path().to_owned()),
        unfiled_bytes_max: 4 * 1024 * 1024,
        file_every: Duration::from_secs(3600),
        ..Config::default()
    };
    let house = House::open(config).await;
    let body = "x".repeat(40_000);
    let (mut refused, mut taken) = (0, 0);
    for _ in 0..400 {
        let said = LineSaid { service: "flood", body: &body, ..LineSaid::default() };
        match house.logs().export(logs_of(said)).await {
            Ok(_) => taken += 1,
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted);
                refused += 1;
            }
        }
        house.line(LineSaid { service: "small", body: "heard", ..LineSaid::default() }).await;
    }
    assert!(taken > 20 && refused + taken == 400, "{taken} were taken, {refused} refused");
    assert_eq!(records(&house, "service:small").await.len(), 400);
    house.close().await;
}

#[tokio::test]
async fn zstd_is_taken_by_both_doors_and_bombs_are_not() {
    let house = House::start(Config { body_bytes_max: 100_000, ..Config::default() });
    let mut client = house.logs().send_compressed(CompressionEncoding::Zstd);
    client.export(logs_of(LineSaid { body: "by gRPC", ..LineSaid::default() })).await.expect("it is taken");
    let packed = |body: &str| {
        let plain = logs_of(LineSaid { body, ..LineSaid::default() }).encode_to_vec();
        zstd::encode_all(plain.as_slice(), 1).expect("memory takes it")
    };
    assert_eq!(http(&house, "/v1/logs", PROTOBUF, "zstd", packed("by HTTP")).await.status, 200);
    let bomb = "x".repeat(10_000_000);
    assert_eq!(http(&house, "/v1/logs", PROTOBUF, "zstd", packed(&bomb)).await.status, 413);
    let refused = client.export(Request::new(logs_of(LineSaid { body: &bomb, ..LineSaid::default() }))).await;
    assert!(matches!(refused.expect_err("a bomb").code(), Code::ResourceExhausted | Code::OutOfRange));
    assert_eq!(http(&house, "/v1/logs", PROTOBUF, "zstd", b"(\xb5/\xfdrubbish".to_vec()).await.status, 400);
    assert_eq!(records(&house, "").await.len(), 2);
}

fn print(house: &House, text: &str) {
    house.monitor.lines().append(Printed {
        service: "py".to_owned(),
        instance_id: "py-1".to_owned(),
        stream: Stream::Stderr,
        copies: Copies::Never,
        text: text.to_owned(),
        time: SystemTime::now(),
    });
}

#[tokio::test]
async fn printed_lines_are_read_and_stack_traces_are_one() {
    let house =
        House::start(settings(r#"{"lines":{"formats":{"own":"^<(?<level>\\w+)> (?<order>\\d+) (?<body>.*)$"}}}"#));
    let trace = "Traceback (most recent call last):\n  File \"a.py\", line 1, in f\n    g()\nKeyError: 'x'";
    print(&house, "INFO:shop.db:ready");
    trace.lines().for_each(|line| print(&house, line));
    print(&house, "<warn> 77 no stock");
    until("the lines are taken", || async { records(&house, "").await.len() == 3 }).await;
    let record = records(&house, "KeyError").await.remove(0);
    assert_eq!((record.body.as_str(), record.level()), (trace, Level::Error));
    let record = records(&house, "order=77 level:warn").await.remove(0);
    assert_eq!(record.body, "no stock");
    assert_eq!(record.attributes["log.record.original"], "<warn> 77 no stock");
    assert_eq!(records(&house, "code.namespace:shop.db").await.len(), 1);

    // A carrier that only hands lines on, as `ninefold run` and collectors do.
    let said = LineSaid {
        body: "2026-11-23 12:00:00,123 - shop - ERROR - no",
        attribute: "log.iostream=stdout",
        ..LineSaid::default()
    };
    house.line(said).await;
    let record = records(&house, "level:error code.namespace:shop").await.remove(0);
    assert_eq!((record.body.as_str(), record.attributes["log.iostream"].as_str()), ("no", "stdout"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_records_are_kept_within_bounds() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config { path: Some(folder.path().to_owned()), ..Config::default() };
    let house = House::open(config.clone()).await;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let now = u64::try_from(now.as_nanos()).expect("before 2554");
    let line = |body: &str, attributes: Vec<KeyValue>, time| opentelemetry_proto::tonic::logs::v1::LogRecord {
        time_unix_nano: time,
        body: Some(AnyValue { value: Some(any_value::Value::StringValue(body.to_owned())) }),
        attributes,
        ..Default::default()
    };
    let number = KeyValue {
        key: "status".to_owned(),
        value: Some(AnyValue { value: Some(any_value::Value::IntValue(503)) }),
        ..KeyValue::default()
    };
    let thousand = (0..1000).map(|key| attribute(&format!("key.{key}"), "v")).collect();
    let ahead = now + 10 * 365 * 24 * 3600 * 1_000_000_000;
    let request = logs(
        "odd",
        vec![
            line(&"x".repeat(10 * 1024 * 1024), Vec::new(), now),
            line("many", thousand, now),
            line("a number", vec![number], now),
            line("a text", vec![attribute("status", "teapot")], now),
            line("from tomorrow", Vec::new(), ahead),
            line("from long ago", Vec::new(), 1),
        ],
    );
    let answer = house.logs().export(request).await.expect("they are taken").into_inner();
    assert_eq!(answer.partial_success, None);
    let check = async |house: &House| {
        let long = records(house, "log.body.bytes=10485760").await.remove(0);
        assert_eq!(long.body.len(), 64 * 1024);
        let many = records(house, "key.999:v").await.remove(0);
        assert_eq!(many.attributes.len(), 1000);
        assert_eq!(records(house, "status>=500").await[0].body, "a number");
        assert_eq!(records(house, "status:teapot").await[0].body, "a text");
        let early = records(house, "body=~tomorrow").await.remove(0);
        let told = early.time.expect("a time");
        assert!(u64::try_from(told.seconds).expect("after 1970").abs_diff(now / 1_000_000_000) < 3600);
        assert_eq!(early.attributes["log.time.told"], ahead.to_string());
        assert_eq!(records(house, "body=~\"long ago\"").await[0].time.expect("a time").seconds, 0);
    };
    check(&house).await;
    house.close().await;
    let house = House::open(config).await;
    check(&house).await;
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_around_a_line_are_those_of_its_instance() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config { path: Some(folder.path().to_owned()), logs_bytes_max: 1, ..Config::default() };
    let house = House::open(config.clone()).await;
    for time in 1..=40 {
        let body = format!("a{time}");
        house.line(LineSaid { service: "a", time: time * 10, body: &body, ..LineSaid::default() }).await;
        house.line(LineSaid { service: "b", time: time * 10 + 1, body: "noise", ..LineSaid::default() }).await;
    }
    let check = async |house: &House, expected: &[&str]| {
        let filter = Some(LogFilter { query: "body=~\"^(a20|a22)$\"".to_owned(), ..LogFilter::default() });
        let request = SearchLogsRequest { filter, context_lines: 2, ..SearchLogsRequest::default() };
        let answer = house.monitor().search_logs(request).await.expect("it is answered").into_inner();
        let bodies = |records: Vec<LogRecord>| records.into_iter().map(|record| record.body).collect::<Vec<_>>();
        assert_eq!(bodies(answer.records), ["a22", "a20"]);
        assert_eq!(bodies(answer.around), expected);
    };
    let around = ["a24", "a23", "a21", "a19", "a18"];
    check(&house, &around).await;
    house.close().await;
    // From files, and with newer lines in memory.
    let house = House::open(config).await;
    check(&house, &around).await;
    house.line(LineSaid { service: "a", time: 235, body: "late", ..LineSaid::default() }).await;
    check(&house, &["late", "a23", "a21", "a19", "a18"]).await;
    let request = SearchLogsRequest { context_lines: 101, ..SearchLogsRequest::default() };
    assert_eq!(house.monitor().search_logs(request).await.expect_err("too many").code(), Code::InvalidArgument);
    house.close().await;
}

/// A backend that is another monitor, behind a socket; it may come late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_in_is_handed_on_masked_to_a_backend_that_comes_late() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let settings = serde_json::json!({ "forward": { "endpoint": format!("http://{address}") } });
    let house = House::start(settings_of(&settings));
    house.line(LineSaid { service: "pump", body: "password=hunter2", ..LineSaid::default() }).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let done =
        SpanDone { service: "pump", id: 1, name: "GET /?token=hunter2", start: 1, end: 2, ..SpanDone::default() };
    house.span(trace, done).await;
    let forwarding = async || {
        let kept = house.monitor().get_retention(GetRetentionRequest {}).await.expect("told").into_inner();
        kept.forwarding.expect("a backend is named")
    };
    until("the backend is away", || async { !forwarding().await.problem.is_empty() }).await;
    assert!(forwarding().await.waiting_bytes > 0);

    let backend = House::start(Config::default());
    let listener = tokio::net::TcpListener::bind(address).await.expect("the port is free still");
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = ninefold::tonic::transport::Server::builder().add_routes(backend.monitor.otlp_routes());
    backend.scope.run("test.backend", |stop| async move {
        let _ = server.serve_with_incoming_shutdown(incoming, async move { stop.asked().await }).await;
    });
    until("all is handed on", || async { forwarding().await.sent == 2 }).await;
    assert_eq!(records(&backend, "service:pump").await[0].body, "password=[masked]");
    let traces = backend.monitor().search_traces(SearchTracesRequest::default()).await.expect("told").into_inner();
    assert_eq!(traces.traces[0].name, "GET /?token=[masked]");
    let told = forwarding().await;
    assert_eq!((told.dropped, told.waiting_bytes, told.problem.as_str()), (0, 0, ""));
}

fn settings_of(value: &serde_json::Value) -> Config {
    settings(&value.to_string())
}
