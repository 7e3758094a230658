//! The monitor through its doors: OTLP in, questions out.

#[path = "monitor/guests.rs"]
mod guests;
#[path = "house/house.rs"]
mod house;
#[path = "monitor/intake.rs"]
mod intake;

use std::time::Duration;

use house::{House, LineSaid, SpanDone, attribute, http, nanos};
use ninefold::fault;
use ninefold::tonic::{Code, Request};
use ninefold_monitor::{Config, Copies, Printed, Stream};
use ninefold_proto::ninefold::monitor::v1::{
    GetRetentionRequest, GetTraceRequest, Level, ListSamplesRequest, ListUsageRequest, LogFilter, SearchLogsRequest,
    SearchTracesRequest, SpanKind, TailLogsRequest,
};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric,
    number_data_point,
};
use tokio_stream::StreamExt as _;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn filter(filter: LogFilter) -> SearchLogsRequest {
    SearchLogsRequest { filter: Some(filter), ..SearchLogsRequest::default() }
}

async fn bodies(house: &House, request: SearchLogsRequest) -> Vec<String> {
    let answer = house.monitor().search_logs(request).await.expect("the search is answered").into_inner();
    answer.records.into_iter().map(|record| record.body).collect()
}

#[tokio::test]
async fn a_trace_over_several_services_is_told_with_all_its_lines() {
    let house = House::start(Config::default());
    let spans = [
        SpanDone { service: "review", id: 3, parent: 2, name: "list", start: 20, end: 50, failed: true },
        SpanDone { service: "composite", id: 2, parent: 1, name: "get", start: 10, end: 80, failed: false },
        SpanDone { service: "gateway", id: 1, parent: 0, name: "GET /v1/products", start: 5, end: 90, failed: false },
    ];
    for span in spans {
        house.span(TRACE, span).await;
    }
    for (service, time) in [("review", 30), ("gateway", 6), ("composite", 15)] {
        house.line(LineSaid { service, time, trace: TRACE, body: service, ..LineSaid::default() }).await;
    }
    house.line(LineSaid { service: "gateway", time: 7, body: "of no trace", ..LineSaid::default() }).await;

    let ask = GetTraceRequest { trace_id: TRACE.to_uppercase() };
    let answer = house.monitor().get_trace(ask).await.expect("the trace is kept").into_inner();
    let names: Vec<_> = answer.spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["GET /v1/products", "get", "list"]);
    assert_eq!(answer.spans[0].kind(), SpanKind::Server);
    let lines: Vec<_> = answer.records.iter().map(|record| record.body.as_str()).collect();
    assert_eq!(lines, ["gateway", "composite", "review"]);
    assert!(answer.records.iter().all(|record| record.trace_id == TRACE));
    let summary = answer.summary.expect("a trace has a summary");
    assert_eq!((summary.service.as_str(), summary.name.as_str()), ("gateway", "GET /v1/products"));
    assert_eq!((summary.spans, summary.failed), (3, true));
    assert_eq!(summary.services, ["composite", "gateway", "review"]);
    assert_eq!(summary.duration.expect("it took time").nanos, 85);
    assert!(!answer.truncated);

    let found = house.monitor().search_traces(SearchTracesRequest { failed_only: true, ..Default::default() }).await;
    assert_eq!(found.expect("the search is answered").into_inner().traces, [summary]);
}

#[tokio::test]
async fn a_trace_that_nobody_knows_is_unknown_and_a_malformed_id_is_told() {
    let house = House::start(Config::default());
    let unknown = house.monitor().get_trace(GetTraceRequest { trace_id: TRACE.to_owned() }).await.unwrap_err();
    assert_eq!((unknown.code(), fault::reason(&unknown).as_deref()), (Code::NotFound, Some("TRACE_UNKNOWN")));
    let malformed = house.monitor().get_trace(GetTraceRequest { trace_id: "xyz".to_owned() }).await.unwrap_err();
    assert_eq!(fault::reason(&malformed).as_deref(), Some("QUERY_INVALID"));
    let request = SearchLogsRequest { page_token: "made up".to_owned(), ..SearchLogsRequest::default() };
    let token = house.monitor().search_logs(request).await.unwrap_err();
    assert_eq!(fault::reason(&token).as_deref(), Some("PAGE_TOKEN_INVALID"));
}

#[tokio::test]
async fn lines_are_found_by_all_that_is_said_of_them() {
    let house = House::start(Config::default());
    let said = [
        LineSaid { service: "pump", time: 10, body: "started", severity: 9, ..LineSaid::default() },
        LineSaid { service: "pump", time: 20, body: "no pressure", severity: 17, ..LineSaid::default() },
        LineSaid { service: "pump", time: 30, body: "TIMEOUT", severity: 13, trace: TRACE, ..LineSaid::default() },
        LineSaid { service: "valve", time: 40, body: "closed", severity: 9, attribute: "reason=Timeout", trace: "" },
    ];
    for line in said {
        house.line(line).await;
    }
    let text = |text: &str| text.to_owned();
    let of_trace = LogFilter { trace_id: text(TRACE), ..LogFilter::default() };
    let range = LogFilter { start_time: nanos(20), end_time: nanos(40), ..LogFilter::default() };
    for (asked, expected) in [
        (LogFilter::default(), vec!["closed", "TIMEOUT", "no pressure", "started"]),
        (LogFilter { service: text("pump"), ..LogFilter::default() }, vec!["TIMEOUT", "no pressure", "started"]),
        (LogFilter { instance_id: text("valve-1"), ..LogFilter::default() }, vec!["closed"]),
        (LogFilter { level: Level::Warn.into(), ..LogFilter::default() }, vec!["TIMEOUT", "no pressure"]),
        (LogFilter { text: text("timeout"), ..LogFilter::default() }, vec!["closed", "TIMEOUT"]),
        (of_trace, vec!["TIMEOUT"]),
        (range, vec!["TIMEOUT", "no pressure"]),
    ] {
        assert_eq!(bodies(&house, filter(asked.clone())).await, expected, "{asked:?}");
    }
    let backwards = LogFilter { start_time: nanos(40), end_time: nanos(20), ..LogFilter::default() };
    let refused = house.monitor().search_logs(filter(backwards)).await.unwrap_err();
    assert_eq!(fault::reason(&refused).as_deref(), Some("QUERY_INVALID"));
}

#[tokio::test]
async fn pages_stay_where_they_are_while_lines_come_in() {
    let house = House::start(Config::default());
    let names: Vec<String> = (0..25).map(|number| format!("line {number}")).collect();
    for (time, body) in (1..).zip(&names) {
        house.line(LineSaid { time, body, ..LineSaid::default() }).await;
    }
    let mut seen = Vec::new();
    let mut request = SearchLogsRequest { page_size: 10, ..SearchLogsRequest::default() };
    loop {
        let answer = house.monitor().search_logs(request.clone()).await.expect("the search is answered").into_inner();
        assert!(answer.records.len() <= 10);
        seen.extend(answer.records.into_iter().map(|record| record.body));
        house.line(LineSaid { time: 1000 + seen.len() as u64, body: "new", ..LineSaid::default() }).await;
        if answer.next_page_token.is_empty() {
            break;
        }
        request.page_token = answer.next_page_token;
    }
    let expected: Vec<String> = names.into_iter().rev().collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn an_answer_stays_below_what_clients_take() {
    let house = House::start(Config::default());
    let long = "x".repeat(60_000);
    for time in 1..=150 {
        house.line(LineSaid { time, body: &long, trace: TRACE, ..LineSaid::default() }).await;
    }
    let mut request = SearchLogsRequest { page_size: 1000, ..SearchLogsRequest::default() };
    let mut lines = 0;
    loop {
        let answer = house.monitor().search_logs(request.clone()).await.expect("a page is small enough").into_inner();
        lines += answer.records.len();
        request.page_token = answer.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(lines, 150);
    let ask = GetTraceRequest { trace_id: TRACE.to_owned() };
    let trace = house.monitor().get_trace(ask).await.expect("a trace is small enough").into_inner();
    assert!(trace.truncated && !trace.records.is_empty());
}

#[tokio::test]
async fn a_follower_sees_the_newest_lines_and_then_each_as_it_comes() {
    let house = House::start(Config::default());
    for (time, body) in [(1, "one"), (2, "two"), (3, "three")] {
        house.line(LineSaid { service: "pump", time, body, ..LineSaid::default() }).await;
    }
    let only_pump = LogFilter { service: "pump".to_owned(), ..LogFilter::default() };
    let request = TailLogsRequest { filter: Some(only_pump), backlog: 2 };
    let mut tail = house.monitor().tail_logs(request).await.expect("it can be followed").into_inner();
    let mut seen = Vec::new();
    for (service, body) in [("valve", "not meant"), ("pump", "four"), ("pump", "five")] {
        house.line(LineSaid { service, time: 9, body, ..LineSaid::default() }).await;
    }
    while seen.len() < 4 {
        let message = tail.next().await.expect("the stream goes on").expect("and does not fail");
        assert_eq!(message.missed, 0);
        seen.extend(message.records.into_iter().map(|record| record.body));
    }
    assert_eq!(seen, ["two", "three", "four", "five"]);
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_hears_nothing_gets_signs_of_life() {
    let house = House::start(Config::default());
    let mut tail =
        house.monitor().tail_logs(TailLogsRequest::default()).await.expect("it can be followed").into_inner();
    let begun = tokio::time::Instant::now();
    for _ in 0..3 {
        let message = tail.next().await.expect("the stream goes on").expect("and does not fail");
        assert!(message.records.is_empty());
    }
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
    house.scope.close(Duration::from_secs(1)).await;
    assert!(tail.next().await.is_none(), "the stream ends with the monitor");
}

#[tokio::test]
async fn a_follower_that_falls_behind_is_told_how_much_it_missed() {
    let house = House::start(Config { logs_bytes_max: 20_000, ..Config::default() });
    let mut tail =
        house.monitor().tail_logs(TailLogsRequest::default()).await.expect("it can be followed").into_inner();
    tail.next().await.expect("the first message comes at once").expect("and does not fail");
    for time in 1..=1000 {
        house.line(LineSaid { time, body: "drip", ..LineSaid::default() }).await;
    }
    let (mut seen, mut missed) = (0, 0);
    while seen + missed < 1000 {
        let message = tail.next().await.expect("the stream goes on").expect("and does not fail");
        seen += message.records.len() as u64;
        missed += message.missed;
    }
    assert_eq!(seen + missed, 1000);
    assert!(missed > 0 && seen > 0, "seen {seen}, missed {missed}");
}

#[tokio::test]
async fn memory_has_a_bound_and_what_is_forgotten_is_counted() {
    let config = Config { logs_bytes_max: 30_000, spans_bytes_max: 30_000, ..Config::default() };
    let house = House::start(config);
    for number in 1..=500 {
        house.line(LineSaid { time: number, body: "drip", ..LineSaid::default() }).await;
        let trace = format!("{number:032x}");
        house.span(&trace, SpanDone { id: 1, name: "drip", start: number, end: number, ..SpanDone::default() }).await;
        let kept = house.monitor().get_retention(GetRetentionRequest {}).await.expect("it is told").into_inner();
        for kept in [kept.logs.expect("lines are counted"), kept.spans.expect("spans are counted")] {
            assert!(kept.bytes <= kept.bytes_max && kept.bytes_max == 30_000);
            assert_eq!((kept.received, kept.records + kept.forgotten), (number, number));
        }
    }
    let kept = house.monitor().get_retention(GetRetentionRequest {}).await.expect("it is told").into_inner();
    assert!(kept.logs.expect("lines are counted").forgotten > 0);
    let found = house.monitor().search_traces(SearchTracesRequest::default()).await.expect("it is answered");
    assert_eq!(found.into_inner().traces.len() as u64, kept.spans.expect("spans are counted").records);
}

#[tokio::test]
async fn what_an_instance_uses_and_the_newest_samples_are_told() {
    let house = House::start(Config::default());
    let point = |seconds: u64, value: f64| NumberDataPoint {
        attributes: vec![attribute("mode", "user")],
        time_unix_nano: seconds * 1_000_000_000,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..NumberDataPoint::default()
    };
    let named = |name: &str, data: metric::Data| Metric { name: name.into(), data: Some(data), ..Metric::default() };
    for (seconds, cpu) in [(100, 7.0), (110, 12.0)] {
        let total = Sum { data_points: vec![point(seconds, cpu)], aggregation_temporality: 2, is_monotonic: true };
        let latency =
            HistogramDataPoint { time_unix_nano: seconds, count: 4, sum: Some(0.5), ..HistogramDataPoint::default() };
        let latency = Histogram { data_points: vec![latency], aggregation_temporality: 2 };
        let metrics = vec![
            named("process.cpu.time", metric::Data::Sum(total)),
            named("process.memory.usage", metric::Data::Gauge(Gauge { data_points: vec![point(seconds, 4096.0)] })),
            named("rpc.latency", metric::Data::Histogram(latency)),
            Metric { name: "of no kind".into(), ..Metric::default() },
        ];
        let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
        let batch = ResourceMetrics { resource: house::resource("pump"), scope_metrics, ..ResourceMetrics::default() };
        let request = ExportMetricsServiceRequest { resource_metrics: vec![batch] };
        let answer = house.metrics().export(request).await.expect("metrics are taken").into_inner();
        assert_eq!(answer.partial_success.expect("one is refused").rejected_data_points, 1);
    }
    let usage = house.monitor().list_usage(ListUsageRequest::default()).await.expect("it is told").into_inner().usage;
    assert_eq!((usage.len(), usage[0].service.as_str(), usage[0].instance_id.as_str()), (1, "pump", "pump-1"));
    assert_eq!((usage[0].cpu_cores, usage[0].memory_bytes), (0.5, 4096));

    let request = ListSamplesRequest { page_size: 2, ..ListSamplesRequest::default() };
    let first = house.monitor().list_samples(request.clone()).await.expect("they are told").into_inner();
    let request = ListSamplesRequest { page_token: first.next_page_token, ..request };
    let second = house.monitor().list_samples(request).await.expect("they are told").into_inner();
    assert!(second.next_page_token.is_empty());
    let names: Vec<_> = first.samples.iter().chain(&second.samples).map(|sample| sample.metric.as_str()).collect();
    assert_eq!(names, ["process.cpu.time", "process.memory.usage", "rpc.latency"]);
    assert_eq!((second.samples[0].value, second.samples[0].count), (0.5, 4));
    assert_eq!(first.samples[0].labels["mode"], "user");
}

#[tokio::test]
async fn what_programs_print_is_found_beside_what_they_export() {
    let house = House::start(Config::default());
    for (text, copies) in [
        ("INFO: ready", Copies::Never),
        (r#"{"level":"error","msg":"no room","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736"}"#, Copies::Never),
        (r#"{"level":"info","message":"x","target":"t","service":"py","instance_id":"py-1"}"#, Copies::OfSdk),
    ] {
        house.monitor.lines().append(Printed {
            service: "py".to_owned(),
            instance_id: "py-1".to_owned(),
            stream: Stream::Stdout,
            copies,
            text: text.to_owned(),
            time: std::time::SystemTime::now(),
        });
    }
    // What waits is taken when the monitor ends.
    house.scope.close(Duration::from_secs(5)).await;
    let mut found = bodies(&house, filter(LogFilter { service: "py".to_owned(), ..LogFilter::default() })).await;
    found.sort();
    assert_eq!(found, ["no room", "ready"]);
    let ask = GetTraceRequest { trace_id: TRACE.to_owned() };
    let trace = house.monitor().get_trace(ask).await.expect("its line is kept").into_inner();
    assert_eq!(trace.records[0].level(), Level::Error);
}

#[tokio::test]
async fn compressed_grpc_is_taken_and_bombs_are_not() {
    let house = House::start(Config { body_bytes_max: 100_000, ..Config::default() });
    let mut client = house.logs().send_compressed(ninefold::tonic::codec::CompressionEncoding::Gzip);
    let body = "x".repeat(50_000);
    client.export(house::logs_of(LineSaid { body: &body, ..LineSaid::default() })).await.expect("it is taken");
    let body = "x".repeat(10_000_000);
    let refused = client.export(Request::new(house::logs_of(LineSaid { body: &body, ..LineSaid::default() }))).await;
    assert!(matches!(refused.unwrap_err().code(), Code::ResourceExhausted | Code::OutOfRange));
    assert_eq!(bodies(&house, SearchLogsRequest::default()).await.len(), 1);
}

#[tokio::test]
async fn a_line_that_came_by_grpc_and_one_by_http_stand_side_by_side() {
    let house = House::start(Config::default());
    house.line(LineSaid { time: 1, body: "by gRPC", ..LineSaid::default() }).await;
    let json = br#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"2","severityText":"Warning",
        "body":{"stringValue":"by HTTP"}}]}]}]}"#;
    let answer = http(&house, "/v1/logs", "application/json", "", json.to_vec()).await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"{}".as_slice()));
    assert_eq!(bodies(&house, SearchLogsRequest::default()).await, ["by HTTP", "by gRPC"]);
    assert_eq!(
        bodies(&house, filter(LogFilter { level: Level::Warn.into(), ..Default::default() })).await,
        ["by HTTP"]
    );
}
