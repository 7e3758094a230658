//! An hour of log lines and spans by OTLP into a node, then questions about it, beside SQLite's FTS5 and ClickHouse (chdb)
//! over the same lines.
//!
//! `cargo build --release -p ninefold-cli && cargo run --release -p bench-telemetry -- [LINES] [BINARY] [PYTHON]`. LINES is
//! 2,000,000 unless told; there are half as many spans. PYTHON is one with `chdb`, if that is to be measured. Linux only: it
//! reads `/proc`. Cold is the first question after a restart of the node; the kernel may still have the files.

mod data;
mod node;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use ninefold_proto::ninefold::monitor::v1::monitor_service_client::MonitorServiceClient;
use ninefold_proto::ninefold::monitor::v1::{CountLogsRequest, GetTraceRequest, Level, LogFilter, SearchLogsRequest};
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use serde_json::{Value, json};
use tonic::Code;
use tonic::transport::Channel;

use data::{BATCH, Hour, RARE, SERVICE};
use node::{Node, bytes_of};

/// Senders at a time.
const SENDERS: u64 = 8;
/// How long a sender that was refused waits.
const COME_BACK: Duration = Duration::from_millis(200);
/// How often a question is asked when it is warm; the median counts.
const ASKED: u64 = 15;
const PEERS: &str = include_str!("peers.py");

#[expect(clippy::print_stdout, reason = "the figures are what this program is for")]
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let lines: u64 = args.next().map_or(Ok(2_000_000), |text| text.replace('_', "").parse())?;
    let binary = args.next().map_or_else(
        || std::env::current_exe().map(|exe| exe.with_file_name("ninefold")),
        |path| Ok(PathBuf::from(path)),
    )?;
    let python = args.next().unwrap_or_else(|| "python3".to_owned());
    ensure!(lines >= 10 * BATCH, "at least {} lines make an hour", 10 * BATCH);
    ensure!(binary.exists(), "{} is not built: cargo build --release -p ninefold-cli", binary.display());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let hour = Hour { start: u64::try_from(now.as_nanos())? - 3_700_000_000_000, lines };
    let folder = tempfile::tempdir()?;

    let own = of_node(hour, &binary, &folder.path().join("data")).await?;
    let file = folder.path().join("lines.ndjson");
    write_lines(hour, &file)?;
    let sqlite = of_peer(hour, &python, "sqlite", &file, folder.path());
    let clickhouse = of_peer(hour, &python, "chdb", &file, folder.path());

    println!(
        "{lines} log lines and {} spans of an hour, by OTLP/gRPC, {BATCH} a request, {SENDERS} senders\n",
        lines / 2
    );
    println!("{:<44} {:>14} {:>14} {:>14}", "", "ninefold", "SQLite FTS5", "ClickHouse");
    for (key, what) in [
        ("lines_per_cpu_second", "lines a second of processor time"),
        ("spans_per_cpu_second", "spans a second of processor time"),
        ("line_bytes", "bytes a line on the disk, index included"),
        ("span_bytes", "bytes a span on the disk"),
        ("trace_cold_ms", "a trace by id, first after a start, ms"),
        ("trace_ms", "a trace by id, ms"),
        ("rare_ms", "a word that occurs once, ms"),
        ("last_ms", "last 100 of a service and level, ms"),
        ("count_ms", "count by service and minute, ms"),
        ("trace_kb", "read of files for a trace, kB"),
        ("rare_kb", "read of files for a word that occurs once, kB"),
        ("last_kb", "read of files for the last 100, kB"),
        ("count_kb", "read of files for the count, kB"),
        ("memory_mb", "resident at the most while it takes all in, MB"),
        ("idle_mb", "resident after a start, MB"),
        ("refused", "requests that were told to come back"),
    ] {
        let cell =
            |figures: &Value| figures[key].as_f64().map_or_else(|| "–".to_owned(), |figure| format!("{figure:.1}"));
        println!("{what:<44} {:>14} {:>14} {:>14}", cell(&own), cell(&sqlite), cell(&clickhouse));
    }
    for (name, peer) in [("SQLite", &sqlite), ("ClickHouse", &clickhouse)] {
        if let Some(why) = peer["problem"].as_str() {
            println!("\n{name} was not measured: {why}");
            continue;
        }
        let ratio = |key: &str| Some(peer[key].as_f64()? / own[key].as_f64()?);
        let told = |key| ratio(key).map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"));
        println!(
            "\n{name} ÷ ninefold: lines a processor second {}, bytes a line {}, trace {}, word {}, last {}, count {}",
            told("lines_per_cpu_second"),
            told("line_bytes"),
            told("trace_ms"),
            told("rare_ms"),
            told("last_ms"),
            told("count_ms"),
        );
    }
    Ok(())
}

/// What a node makes of the hour.
async fn of_node(hour: Hour, binary: &Path, data: &Path) -> Result<Value> {
    let node = Node::start(binary, data).await?;
    let refused = Arc::new(AtomicU64::new(0));
    let before = node.cpu_seconds()?;
    send(&node, hour, Kind::Lines, &refused).await?;
    let lines_cpu = node.cpu_seconds()? - before;
    let before = node.cpu_seconds()?;
    send(&node, hour, Kind::Spans, &refused).await?;
    let spans_cpu = node.cpu_seconds()? - before;
    let memory = node.memory_mb("VmHWM")?;
    node.end().await?;

    let telemetry = data.join("telemetry");
    let (line_bytes, span_bytes) = (bytes_of(&telemetry, "logs")?, bytes_of(&telemetry, "spans")?);
    let node = Node::start(binary, data).await?;
    let idle = node.memory_mb("VmRSS")?;
    let mut monitor = MonitorServiceClient::new(node.door("platform").await?).max_decoding_message_size(64 << 20);
    let begun = Instant::now();
    trace(&mut monitor, hour, 1).await?;
    let cold = begun.elapsed();
    let asked = ask(&node, &mut monitor, hour).await?;
    node.end().await?;
    #[expect(clippy::cast_precision_loss, reason = "figures for a table")]
    let (lines, spans) = (hour.lines as f64, (hour.lines / 2) as f64);
    #[expect(clippy::cast_precision_loss, reason = "figures for a table")]
    let each = |bytes: u64, of: f64| bytes as f64 / of;
    Ok(json!({
        "lines_per_cpu_second": lines / lines_cpu,
        "spans_per_cpu_second": spans / spans_cpu,
        "line_bytes": each(line_bytes, lines),
        "span_bytes": each(span_bytes, spans),
        "trace_cold_ms": cold.as_secs_f64() * 1e3,
        "trace_ms": asked[0].0,
        "rare_ms": asked[1].0,
        "last_ms": asked[2].0,
        "count_ms": asked[3].0,
        "trace_kb": asked[0].1,
        "rare_kb": asked[1].1,
        "last_kb": asked[2].1,
        "count_kb": asked[3].1,
        "memory_mb": memory,
        "idle_mb": idle,
        "refused": refused.load(Ordering::Relaxed),
    }))
}

/// Asks the four questions: milliseconds of each, the median, and kilobytes of files that one takes on the average.
async fn ask(node: &Node, monitor: &mut MonitorServiceClient<Channel>, hour: Hour) -> Result<[(f64, f64); 4]> {
    let mut times: [Vec<Duration>; 4] = Default::default();
    let mut bytes = [0; 4];
    for round in 0..ASKED {
        for (question, (times, bytes)) in times.iter_mut().zip(&mut bytes).enumerate() {
            let before = node.read_bytes()?;
            let begun = Instant::now();
            match question {
                0 => trace(monitor, hour, hour.lines / 20 / (ASKED + 1) * (round + 1)).await?,
                1 => {
                    let found = search(monitor, LogFilter { query: RARE.to_owned(), ..LogFilter::default() }).await?;
                    ensure!(found == 1, "the word that occurs once was found {found} times");
                }
                2 => {
                    let (service, level) = (SERVICE.to_owned(), Level::Error.into());
                    let found = search(monitor, LogFilter { service, level, ..LogFilter::default() }).await?;
                    ensure!(found > 0, "the service has errors");
                }
                _ => count(monitor, hour).await?,
            }
            times.push(begun.elapsed());
            *bytes += node.read_bytes()? - before;
        }
    }
    let mut asked = [(0.0, 0.0); 4];
    for ((asked, times), bytes) in asked.iter_mut().zip(times).zip(bytes) {
        #[expect(clippy::cast_precision_loss, reason = "figures for a table")]
        let each = bytes as f64 / ASKED as f64 / 1e3;
        *asked = (median(times), each);
    }
    Ok(asked)
}

async fn count(monitor: &mut MonitorServiceClient<Channel>, hour: Hour) -> Result<()> {
    let step = Some(prost_types::Duration { seconds: 60, nanos: 0 });
    let request =
        CountLogsRequest { step, fields: vec!["service".to_owned()], values_max: 100, ..CountLogsRequest::default() };
    let counted = monitor.count_logs(request).await?.into_inner();
    ensure!(counted.lines >= hour.lines, "{} of {} lines were counted", counted.lines, hour.lines);
    Ok(())
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times.get(times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

async fn trace(monitor: &mut MonitorServiceClient<Channel>, hour: Hour, number: u64) -> Result<()> {
    let trace_id = format!("{:032x}", hour.trace(number));
    let trace = monitor.get_trace(GetTraceRequest { trace_id }).await?.into_inner();
    ensure!(trace.spans.len() == 10, "a trace of ten spans has {}", trace.spans.len());
    Ok(())
}

async fn search(monitor: &mut MonitorServiceClient<Channel>, filter: LogFilter) -> Result<usize> {
    let request = SearchLogsRequest { filter: Some(filter), page_size: 100, ..SearchLogsRequest::default() };
    Ok(monitor.search_logs(request).await?.into_inner().records.len())
}

#[derive(Clone, Copy)]
enum Kind {
    Lines,
    Spans,
}

/// Sends all batches; each is sent again until it is acknowledged.
async fn send(node: &Node, hour: Hour, kind: Kind, refused: &Arc<AtomicU64>) -> Result<()> {
    let next = Arc::new(AtomicU64::new(0));
    let batches = match kind {
        Kind::Lines => hour.batches(),
        Kind::Spans => hour.batches() / 2,
    };
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..SENDERS {
        let (channel, next, refused) = (node.door("otlpGrpc").await?, next.clone(), refused.clone());
        senders.spawn(async move {
            let (mut logs, mut traces) = (LogsServiceClient::new(channel.clone()), TraceServiceClient::new(channel));
            loop {
                let batch = next.fetch_add(1, Ordering::Relaxed);
                if batch >= batches {
                    return Ok::<_, tonic::Status>(());
                }
                loop {
                    let outcome = match kind {
                        Kind::Lines => logs.export(hour.logs(batch)).await.map(drop),
                        Kind::Spans => traces.export(hour.spans(batch)).await.map(drop),
                    };
                    match outcome {
                        Ok(()) => break,
                        Err(status) if status.code() == Code::ResourceExhausted => {
                            refused.fetch_add(1, Ordering::Relaxed);
                            tokio::time::sleep(COME_BACK).await;
                        }
                        Err(status) => return Err(status),
                    }
                }
            }
        });
    }
    while let Some(sender) = senders.join_next().await {
        sender?.context("a batch was refused for good")?;
    }
    Ok(())
}

/// Writes the lines for the peers.
fn write_lines(hour: Hour, path: &Path) -> Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    for batch in 0..hour.batches() {
        for said in hour.said(batch) {
            let line = json!({
                "time": said.time,
                "service": said.service,
                "instance": said.instance,
                "level": said.level,
                "body": said.body,
                "trace": said.trace.map(|id| format!("{id:032x}")).unwrap_or_default(),
                "attributes": json!({ "http.route": said.path, "http.response.status_code": said.status.to_string() }).to_string(),
            });
            writeln!(file, "{line}")?;
        }
    }
    file.flush()?;
    Ok(())
}

/// What a peer makes of the same lines; where it is not there, why.
fn of_peer(hour: Hour, python: &str, peer: &str, file: &Path, folder: &Path) -> Value {
    let trace = format!("{:032x}", hour.trace(hour.lines / 40));
    let data = folder.join(peer);
    let mut command = std::process::Command::new(python);
    command.arg("-c").arg(PEERS).arg(peer).arg(file).arg(data).args([&trace, RARE, SERVICE]).arg(ASKED.to_string());
    match command.output() {
        Ok(output) if output.status.success() => {
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| json!({ "problem": error.to_string() }))
        }
        Ok(output) => {
            let told = String::from_utf8_lossy(&output.stderr);
            json!({ "problem": told.lines().last().unwrap_or("it ended without a word") })
        }
        Err(error) => json!({ "problem": format!("{python}: {error}") }),
    }
}
