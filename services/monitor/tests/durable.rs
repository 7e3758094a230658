//! What was acknowledged is on the disk: over restarts, deaths, and disks that are full.
//!
//! `NINEFOLD_KILL_SEED` repeats the moments of a run that failed.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are tests too")]

#[path = "house/house.rs"]
mod house;
#[path = "house/killed.rs"]
mod killed;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use house::{House, LineSaid, SpanDone, http};
use killed::{again, killed};
use ninefold::fault;
use ninefold::lifecycle::Scope;
use ninefold_monitor::{Config, Monitor};
use ninefold_proto::ninefold::monitor::v1::sql_service_client::SqlServiceClient;
use ninefold_proto::ninefold::monitor::v1::{
    CountLogsRequest, GetRetentionRequest, GetServiceGraphRequest, GetTraceRequest, LogFilter, QuerySqlRequest,
    SearchLogsRequest, SearchTracesRequest,
};
use prost::Message as _;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const ROUNDS: u64 = 50;
/// Senders at once in the process that is killed, so that commits hold several requests.
const SENDERS: u64 = 6;
/// The process is killed at most so long after its first acknowledgement.
const LIFE_MS_MAX: u64 = 400;
/// A process that nobody kills ends by itself.
const LIFE_MAX: Duration = Duration::from_secs(30);
/// Say to the test binary that it is the process to be killed: the folder, and the number of the round.
const FOLDER: &str = "NINEFOLD_KILL_FOLDER";
const ROUND: &str = "NINEFOLD_KILL_ROUND";
/// Says to the test binary that it is the process whose disk is full.
const FULL: &str = "NINEFOLD_FULL_FOLDER";

fn config(folder: &Path) -> Config {
    Config { path: Some(folder.to_owned()), ..Config::default() }
}

/// Memory goes to files all the time, and files are put together all the time.
fn restless(folder: &Path) -> Config {
    let quick = Duration::from_millis(20);
    Config { file_every: quick, tidy_every: quick, logs_bytes_max: 1, ..config(folder) }
}

fn nanos_ago(ago: Duration) -> u64 {
    let since = (SystemTime::now() - ago).duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_nanos()).unwrap()
}

/// All lines that match, page by page, newest first.
async fn all(house: &House, filter: LogFilter) -> Vec<String> {
    let mut bodies = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = SearchLogsRequest {
            filter: Some(filter.clone()),
            page_size: 7,
            page_token,
            ..SearchLogsRequest::default()
        };
        let answer = house.monitor().search_logs(request).await.unwrap().into_inner();
        bodies.extend(answer.records.into_iter().map(|record| record.body));
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            return bodies;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_told_is_there_after_a_restart_from_files_and_from_memory_alike() {
    let folder = tempfile::tempdir().unwrap();
    let house = House::open(restless(folder.path())).await;
    let start = nanos_ago(Duration::from_secs(60));
    let mut expected = Vec::new();
    for number in 0..60 {
        let body = format!("line {number}");
        let service = if number % 2 == 0 { "pump" } else { "valve" };
        let trace = if number % 10 == 0 { TRACE } else { "" };
        // Told in another order than that of time.
        let time = start + (number * 37) % 60;
        house.line(LineSaid { service, time, body: &body, trace, severity: 9, attribute: "color=blue" }).await;
        expected.push((time, body));
    }
    for (id, name) in [(1, "first"), (2, "second")] {
        let done = SpanDone { service: "pump", id, parent: id - 1, name, start, end: start + 90, failed: id == 2 };
        house.span(TRACE, done).await;
    }
    expected.sort();
    expected.reverse();
    let expected: Vec<_> = expected.into_iter().map(|(_, body)| body).collect();
    let asked = |house: House| async {
        assert_eq!(all(&house, LogFilter::default()).await, expected);
        let service = LogFilter { service: "pump".to_owned(), ..LogFilter::default() };
        assert_eq!(all(&house, service).await.len(), 30);
        let text = LogFilter { text: "LINE 5".to_owned(), ..LogFilter::default() };
        assert_eq!(all(&house, text).await.len(), 11);
        let text = LogFilter { text: "Blue".to_owned(), ..LogFilter::default() };
        assert_eq!(all(&house, text).await.len(), 60, "values of attributes are looked through");
        let of_trace = LogFilter { trace_id: TRACE.to_owned(), ..LogFilter::default() };
        assert_eq!(all(&house, of_trace).await.len(), 6);
        let ask = GetTraceRequest { trace_id: TRACE.to_owned() };
        let trace = house.monitor().get_trace(ask).await.unwrap().into_inner();
        assert_eq!((trace.spans.len(), trace.records.len()), (2, 6));
        let mut monitor = house.monitor();
        let found = monitor.search_traces(SearchTracesRequest { failed_only: true, ..Default::default() });
        let found = found.await.unwrap().into_inner().traces;
        assert_eq!((found.len(), found[0].spans, found[0].name.as_str()), (1, 2, "first"));
        for (query, lines) in [
            ("service:pump level>=info", 30),
            ("\"line 5\" -service:valve", 5),
            ("color:blue (\"line 7\" OR \"line 8\")", 2),
            ("color:red", 0),
            ("trace:*", 6),
            ("level>info", 0),
        ] {
            let asked = LogFilter { query: query.to_owned(), ..LogFilter::default() };
            assert_eq!(all(&house, asked).await.len(), lines, "{query}");
        }
        counts(&house, start).await;
        sql(&house).await;
        house
    };
    let house = asked(house).await;
    house.close().await;
    let house = asked(House::open(restless(folder.path())).await).await;
    house.close().await;
    let house = asked(House::open(config(folder.path())).await).await;
    let second = Monitor::open(config(folder.path()), &Scope::root("second")).await.unwrap_err();
    assert!(fault::chain(&second).contains(&*folder.path().to_string_lossy()), "{}", fault::chain(&second));
    house.close().await;
}

async fn sql(house: &House) {
    let statement = "select l.service, count(*), sum(l.trace_id is not null), max(l.attributes ->> 'color'), \
                     (select group_concat(s.name || s.failed) from (select * from spans order by time, name) s) \
                     from logs l group by 1 order by 1";
    let ask =
        QuerySqlRequest { statement: statement.to_owned(), query: "line".to_owned(), ..QuerySqlRequest::default() };
    let answer = SqlServiceClient::new(house.link()).query_sql(ask).await.unwrap().into_inner();
    let told: Vec<String> = answer.rows.iter().map(|row| format!("{:?}", row.values)).collect();
    assert_eq!((answer.records, told.len()), (62, 2), "{told:?}");
    for (row, words) in
        [(0, ["pump", "30", "6", "blue", "first0,second1"]), (1, ["valve", "30", "0", "blue", "first0"])]
    {
        assert!(words.iter().all(|word| told[row].contains(word)), "{told:?} lacks one of {words:?}");
    }
}

async fn counts(house: &House, start: u64) {
    let filter = Some(LogFilter { query: "color:blue".to_owned(), ..LogFilter::default() });
    let fields = vec!["service".to_owned(), "color".to_owned()];
    let step = Some(prost_types::Duration { seconds: 3600, nanos: 0 });
    let ask = CountLogsRequest { filter, fields, step, values_max: 1 };
    let counted = house.monitor().count_logs(ask).await.unwrap().into_inner();
    assert_eq!((counted.lines, counted.steps.iter().map(|step| step.lines).sum::<u64>()), (60, 60));
    assert_eq!((counted.facets[0].values[0].lines, counted.facets[0].others), (30, 30));
    assert_eq!((counted.facets[1].values[0].value.as_str(), counted.facets[1].values[0].lines), ("blue", 60));

    let graph = house.monitor().get_service_graph(GetServiceGraphRequest::default()).await.unwrap().into_inner();
    let edges: Vec<_> =
        graph.edges.iter().map(|edge| (edge.caller.as_str(), edge.callee.as_str(), edge.calls)).collect();
    assert_eq!(edges, [("", "pump", 1)], "a step inside a service is no call");
    for (operation, attribute, traces) in
        [("second", "", 1), ("third", "", 0), ("", "service.name=pump", 0), ("second", "color=blue", 0)]
    {
        let attributes = Some(attribute.to_owned()).filter(|pair| !pair.is_empty()).into_iter().collect();
        let ask = SearchTracesRequest { operation: operation.to_owned(), attributes, ..SearchTracesRequest::default() };
        let found = house.monitor().search_traces(ask).await.unwrap().into_inner().traces;
        assert_eq!(found.len(), traces, "{operation} {attribute} at {start}");
    }
    let malformed = LogFilter { query: "(a".to_owned(), ..LogFilter::default() };
    let request = SearchLogsRequest { filter: Some(malformed), ..SearchLogsRequest::default() };
    let refusal = house.monitor().search_logs(request).await.unwrap_err();
    assert_eq!(fault::reason(&refusal).as_deref(), Some("QUERY_INVALID"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_telemetry_survives_kill_9() {
    if let (Some(folder), Ok(round)) = (std::env::var_os(FOLDER), std::env::var(ROUND)) {
        return tell_until_killed(Path::new(&folder), &round).await;
    }
    let seed = std::env::var("NINEFOLD_KILL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("NINEFOLD_KILL_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        let mut process = again("acknowledged_telemetry_survives_kill_9");
        process.env(FOLDER, folder.path()).env(ROUND, round.to_string());
        let new = killed(process, Duration::from_millis(random.u64(0..LIFE_MS_MAX))).await;
        println!("round {round}: {} lines were acknowledged", new.len());
        acknowledged.extend(new);
        if random.bool() {
            tear(folder.path(), &mut random);
        }
        check(folder.path(), &acknowledged).await;
    }
    assert!(acknowledged.len() > 100, "only {} lines were acknowledged: too few to tell", acknowledged.len());
}

/// Tells lines and spans from several senders, and prints each that was acknowledged.
async fn tell_until_killed(folder: &Path, round: &str) {
    let house = House::open(restless(folder)).await;
    let house = &house;
    let senders = (0..SENDERS).map(|sender| async move {
        for number in 0_u64.. {
            let body = format!("{round}-{sender}-{number}");
            let time = nanos_ago(Duration::ZERO);
            let line = LineSaid { service: "pump", time, body: &body, ..LineSaid::default() };
            house.line(line).await;
            // `println!` would be captured line by line; one write is one line, or a torn one.
            println!("done {body}.");
        }
    });
    let _ = tokio::time::timeout(LIFE_MAX, join_all(senders)).await;
}

/// Leaves half a frame at the end of the journal, as a death in the middle of a write does.
fn tear(folder: &Path, random: &mut fastrand::Rng) {
    let segments = std::fs::read_dir(folder.join("journal")).unwrap().map(|entry| entry.unwrap().path());
    let Some(newest) = segments.max() else { return };
    let mut bytes = std::fs::read(&newest).unwrap();
    bytes.extend((0..random.usize(1..200)).map(|_| random.u8(..)));
    std::fs::write(&newest, bytes).unwrap();
}

/// Whether all that was acknowledged is there, once.
async fn check(folder: &Path, acknowledged: &BTreeSet<String>) {
    let house = House::open(restless(folder)).await;
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    let mut page_token = String::new();
    loop {
        let request = SearchLogsRequest { page_size: 1000, page_token, ..SearchLogsRequest::default() };
        let answer = house.monitor().search_logs(request).await.unwrap().into_inner();
        for record in answer.records {
            *times.entry(record.body).or_default() += 1;
        }
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    for body in acknowledged {
        assert_eq!(times.get(body), Some(&1), "{body} of {} lines", times.len());
    }
    assert!(times.values().all(|times| *times == 1), "nothing is there twice");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_and_forgotten_when_there_is_room() {
    if let Some(folder) = std::env::var_os(FULL) {
        return tell_until_full(Path::new(&folder)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    // The limit on file sizes stands in for the disk. It counts for a whole process, so it is one of its own.
    let ended = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_full_disk_is_told_and_forgotten_when_there_is_room", "--nocapture"])
        .env(FULL, folder.path())
        .kill_on_drop(true)
        .status();
    assert!(tokio::time::timeout(Duration::from_secs(120), ended).await.unwrap().unwrap().success());
}

async fn tell_until_full(folder: &Path) {
    // Without a handler the signal would end the process; with one, the write fails as on a full disk.
    let _handler = signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).unwrap();
    let house = House::open(config(folder)).await;
    let before = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: Some(1024 * 1024), ..before }).unwrap();
    let body = "x".repeat(50_000);
    let told = || house::logs_of(LineSaid { service: "pump", time: 7, body: &body, ..LineSaid::default() });
    let mut taken = 0;
    let refusal = loop {
        match house.logs().export(told()).await {
            Ok(_) => taken += 1,
            Err(refusal) => break refusal,
        }
        assert!(taken < 1000, "the disk is full before so much is told");
    };
    assert_eq!(fault::reason(&refusal).as_deref(), Some("TELEMETRY_UNWRITABLE"), "{refusal:?}");
    // A file that is begun anew has no room either.
    setrlimit(Resource::Fsize, Rlimit { current: Some(20_000), ..before }).unwrap();
    let answer = http(&house, "/v1/logs", "application/x-protobuf", "", told().encode_to_vec()).await;
    assert_eq!((answer.status, answer.retry_after.as_str()), (503, "1"), "the sender is told when to come back");
    assert!(taken > 5, "{taken} requests found room");
    setrlimit(Resource::Fsize, before).unwrap();
    house.logs().export(told()).await.expect("there is room again");
    assert_eq!(all(&house, LogFilter::default()).await.len(), taken + 1, "what was refused is not there");
    house.close().await;
    let house = House::open(config(folder)).await;
    assert_eq!(all(&house, LogFilter::default()).await.len(), taken + 1, "nor after a restart");
    house.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_go_by_age_and_by_size_the_oldest_first() {
    let folder = tempfile::tempdir().unwrap();
    let hour = Duration::from_secs(3600);
    let settings = Config { logs_age_max: 2 * hour, spans_age_max: 2 * hour, ..restless(folder.path()) };
    let house = House::open(settings.clone()).await;
    let old = nanos_ago(3 * hour);
    house.line(LineSaid { service: "pump", time: old, body: "old", ..LineSaid::default() }).await;
    let done = SpanDone { service: "pump", id: 1, name: "old", start: old, end: old + 1, ..SpanDone::default() };
    house.span(TRACE, done).await;
    // Each question is one more look; nothing is slept through.
    house::until("what is old is forgotten", || async {
        let kept = house.monitor().get_retention(GetRetentionRequest {}).await.unwrap().into_inner();
        kept.logs.unwrap().forgotten == 1 && kept.spans.unwrap().forgotten == 1
    })
    .await;
    assert!(all(&house, LogFilter::default()).await.is_empty());
    assert_eq!(house.monitor().search_traces(SearchTracesRequest::default()).await.unwrap().into_inner().traces, []);
    house.close().await;

    let house = House::open(Config { logs_disk_bytes_max: 30_000, ..settings }).await;
    let mut random = fastrand::Rng::with_seed(1);
    for number in 0..40 {
        let noise: String = (0..2000).map(|_| random.alphanumeric()).collect();
        let body = format!("{number} {noise}");
        let line = LineSaid { service: "pump", time: nanos_ago(Duration::ZERO), body: &body, ..LineSaid::default() };
        house.line(line).await;
    }
    house::until("the disk holds what it may", || async {
        let logs = house.monitor().get_retention(GetRetentionRequest {}).await.unwrap().into_inner().logs.unwrap();
        logs.forgotten > 0 && logs.bytes <= 30_000
    })
    .await;
    let left = all(&house, LogFilter::default()).await;
    assert!(left.iter().all(|body| !body.starts_with("0 ")), "the oldest goes first");
    house.close().await;
}
