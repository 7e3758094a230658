//! What senders should not say and do say: a thousand attributes, lines of megabytes, times that are long gone or yet to come;
//! and a folder that cannot be written to any more.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ninefold_proto::ninefold::monitor::v1::{
    GetRetentionRequest, GetTraceRequest, LogFilter, LogRecord as Line, SearchLogsRequest,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::json;
use tests_landscape::{Landscape, Surroundings, http, until};
use tonic::Code;

use super::sender::{Sender, comes_back, now, text, trace_of};
use super::{WITHIN, each_once, lines, monitor};

/// A time in the year 2200.
const YET_TO_COME: u64 = 7_258_118_400_000_000_000;

fn pairs(count: usize) -> Vec<KeyValue> {
    let pair = |number| KeyValue {
        key: format!("key.{number}"),
        value: text(format!("value {number}")),
        ..KeyValue::default()
    };
    (0..count).map(pair).collect()
}

fn line(body: &str, time: u64, attributes: Vec<KeyValue>) -> LogRecord {
    let body = text(body.to_owned());
    LogRecord { time_unix_nano: time, severity_number: 9, body, attributes, ..LogRecord::default() }
}

/// The one line that a search finds.
async fn found(landscape: &Landscape, query: &str) -> Result<Line> {
    let filter = Some(LogFilter { query: query.to_owned(), ..LogFilter::default() });
    let request = SearchLogsRequest { filter, page_size: 10, ..SearchLogsRequest::default() };
    let mut records = monitor(landscape).await?.search_logs(request).await?.into_inner().records;
    ensure!(records.len() == 1, "{query}: {} lines", records.len());
    records.pop().context("one")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_attributes_and_lines_of_megabytes_are_kept_as_far_as_is_said() -> Result<()> {
    let landscape = Landscape::up_with("[monitor]\nfile_every = \"50ms\"\n").await?;
    let mut sender = Sender::connect(&landscape.address("otlpGrpc")).await?;
    sender.line("pump", line("a thousand keys", now(), pairs(1000))).await?;
    sender.line("pump", line("more than are kept", now(), pairs(1100))).await?;
    let kept = found(&landscape, "\"a thousand keys\" key.999:\"value 999\"").await?;
    ensure!(kept.attributes.len() == 1000, "{} attributes", kept.attributes.len());
    let kept = found(&landscape, "\"more than are kept\"").await?;
    let left_out = kept.attributes.get("otel.dropped_attributes_count");
    ensure!(kept.attributes.len() == 1025 && left_out.is_some_and(|count| count == "76"), "{left_out:?}");
    let trace = trace_of(1, 1, 1);
    let (trace_id, span_id) = (trace.to_be_bytes().to_vec(), vec![1; 8]);
    let span = Span { trace_id, span_id, name: "wide".to_owned(), attributes: pairs(1100), ..Span::default() };
    let dropped = Span { dropped_attributes_count: 4, start_time_unix_nano: now(), end_time_unix_nano: now(), ..span };
    sender.span("pump", dropped).await?;
    let asked = GetTraceRequest { trace_id: format!("{trace:032x}") };
    let spans = monitor(&landscape).await?.get_trace(asked).await?.into_inner().spans;
    ensure!(spans[0].attributes["otel.dropped_attributes_count"] == "80", "what its sender left out counts, too");

    let long = format!("long {}", "x".repeat(10 * 1024 * 1024));
    sender.line("pump", line(&long, now(), Vec::new())).await?;
    let kept = found(&landscape, "log.body.bytes:*").await?;
    ensure!(kept.body.len() <= 64 * 1024 && kept.body.starts_with("long x"), "{} bytes", kept.body.len());
    ensure!(kept.attributes["log.body.bytes"] == long.len().to_string(), "how long it was is told");
    let longer = "x".repeat(20 * 1024 * 1024);
    let refusal = sender.line("pump", line(&longer, now(), Vec::new())).await.err().context("too long")?;
    ensure!(refusal.message().contains("16777216"), "it is told how much may come: {refusal:?}");
    let body = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": longer}}]}]}]});
    let refused = http::request(&landscape.address("otlpHttp"), "POST", "/v1/logs", &[], Some(body)).await?;
    ensure!(refused.status == 413, "{}", refused.status);
    sender.lines("pump", &["afterwards".to_owned()]).await?;
    found(&landscape, "afterwards").await?;
    landscape.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_that_are_long_gone_or_yet_to_come_hide_nothing() -> Result<()> {
    let landscape = Landscape::up_with("[monitor]\nfile_every = \"50ms\"\n").await?;
    let mut sender = Sender::connect(&landscape.address("otlpGrpc")).await?;
    sender.line("pump", line("of the future", YET_TO_COME, Vec::new())).await?;
    sender.line("pump", line("of the past", 1_000_000_000, Vec::new())).await?;
    sender.line("pump", line("of today", now(), Vec::new())).await?;
    let future = found(&landscape, "\"of the future\"").await?;
    let soon = i64::try_from(now() / 1_000_000_000)? + 3600;
    ensure!(future.time.is_some_and(|time| time.seconds < soon), "it is dated when it came: {future:?}");
    ensure!(future.attributes["log.time.told"] == YET_TO_COME.to_string(), "and what it said is told: {future:?}");
    let past = found(&landscape, "\"of the past\"").await?;
    ensure!(past.time.is_some_and(|time| time.seconds == 1), "{past:?}");

    let trace = trace_of(2, 2, 2);
    let span = |id: u8, start: u64, end: u64| Span {
        trace_id: trace.to_be_bytes().to_vec(),
        span_id: vec![id; 8],
        name: format!("step {id}"),
        start_time_unix_nano: start,
        end_time_unix_nano: end,
        ..Span::default()
    };
    sender.span("pump", span(1, YET_TO_COME, YET_TO_COME + 5_000_000)).await?;
    sender.span("pump", span(2, 0, u64::MAX)).await?;
    let asked = GetTraceRequest { trace_id: format!("{trace:032x}") };
    let spans = monitor(&landscape).await?.get_trace(asked).await?.into_inner().spans;
    let first = spans.iter().find(|span| span.name == "step 1").context("it is there")?;
    let seconds = first.start_time.map(|time| time.seconds).context("a time")?;
    ensure!(spans.len() == 2 && seconds < soon && seconds > soon - 7200, "{spans:?}");
    ensure!(first.attributes["span.time.told"] == YET_TO_COME.to_string(), "{first:?}");

    let point = |time: u64, value: f64| json!({"timeUnixNano": time.to_string(), "asDouble": value});
    let of = |points: Vec<serde_json::Value>| {
        let metrics = json!([{"name": "level", "gauge": {"dataPoints": points}}]);
        json!({"resourceMetrics": [{"resource": {"attributes": []}, "scopeMetrics": [{"metrics": metrics}]}]})
    };
    let body = of(vec![point(YET_TO_COME, 9.0), point(now(), 3.0)]);
    let told = http::request(&landscape.address("otlpHttp"), "POST", "/v1/metrics", &[], Some(body)).await?.json()?;
    let partial = &told["partialSuccess"];
    ensure!(partial["rejectedDataPoints"] == "1", "{told}");
    ensure!(partial["errorMessage"].as_str().is_some_and(|why| why.contains("an hour ahead")), "{told}");
    let told = landscape.ask(&["metrics", "level"]).await?;
    ensure!(told["series"][0]["points"][0]["number"] == 3.0, "the newest is of now: {told}");
    landscape.stop().await
}

/// Everything in a folder may be written to, or nothing more is made in it.
fn permit(folder: &Path, mode: u32) -> Result<()> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_becomes_read_only_is_said_and_loses_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("ninefold.toml");
    std::fs::write(&file, "[monitor]\nfile_every = \"50ms\"\nunfiled_bytes_max = 262144\nlogs_bytes_max = 1\n")?;
    // Whoever runs the tests may write everywhere; the node may not.
    let within = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"].map(ToOwned::to_owned).to_vec();
    let around = Surroundings { within, ..Surroundings::default() };
    let landscape = Landscape::up_in(around, &["--config", &file.display().to_string()]).await?;
    let telemetry = PathBuf::from(landscape.data()).join("telemetry");
    let mut sender = Sender::connect(&landscape.address("otlpGrpc")).await?;
    let mut told = vec!["before".to_owned()];
    sender.lines("pump", &told).await?;
    permit(&telemetry, 0o500)?;
    let mut number = 0;
    let refusal = loop {
        number += 1;
        let body = format!("told {number} {}", "x".repeat(10_000));
        match sender.lines("pump", std::slice::from_ref(&body)).await {
            Ok(()) => told.push(body),
            Err(refusal) => break refusal,
        }
        ensure!(number < 1000, "what is in no file is bounded");
    };
    ensure!(matches!(refusal.code(), Code::ResourceExhausted | Code::Unavailable), "{refusal:?}");
    ensure!(comes_back(&refusal), "{refusal:?}");
    let problem = || async {
        Ok::<_, anyhow::Error>(
            monitor(&landscape).await?.get_retention(GetRetentionRequest {}).await?.into_inner().problem,
        )
    };
    until("it is said to whoever asks", WITHIN, || async { Ok(problem().await?.contains("Permission denied")) })
        .await?;
    ensure!(landscape.said().contains("Permission denied"), "and in the node's own lines: {}", landscape.said());
    each_once(&told, &lines(&landscape, "service:pump").await?, "while nothing can be written")?;
    permit(&telemetry, 0o700)?;
    until("telemetry is taken again", WITHIN, || {
        let mut sender = sender.clone();
        async move { Ok(sender.lines("pump", &["after".to_owned()]).await.is_ok()) }
    })
    .await?;
    told.push("after".to_owned());
    until("nothing is wrong any more", WITHIN, || async { Ok(problem().await?.is_empty()) }).await?;
    let landscape = landscape.restart_after_kill().await?;
    tokio::time::timeout(Duration::from_secs(60), lines(&landscape, "service:pump")).await.context("an answer")??;
    each_once(&told, &lines(&landscape, "service:pump").await?, "after a death")?;
    landscape.stop().await
}
