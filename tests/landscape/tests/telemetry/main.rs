//! What was acknowledged is there, once: over deaths at any moment, disks that are full or spoiled, and questions that never
//! end. Told to the real binary over OTLP/gRPC, as exporters tell it.
//!
//! `NINEFOLD_KILL_SEED` repeats the moments of a run that failed.

mod bucket;
mod disk;
mod nodes;
mod sender;
mod strange;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::{join_all, try_join_all};
use ninefold::fault;
use ninefold_proto::ninefold::monitor::v1::monitor_service_client::MonitorServiceClient;
use ninefold_proto::ninefold::monitor::v1::{
    CountLogsRequest, DeleteLogsRequest, DeleteTracesRequest, GetRetentionRequest, GetTraceRequest, LogFilter,
    SearchLogsRequest, SearchTracesRequest,
};
use rustix::process::Signal;
use tests_landscape::{Landscape, is_alive, python, signal, tools, until};
use tokio::process::Command;
use tonic::Code;
use tonic::transport::Channel;

use sender::{Sender, trace_of};

/// How often the node is killed.
const ROUNDS: u64 = 50;
/// Senders at once, so that commits hold several requests.
const SENDERS: u64 = 4;
/// The node is killed at most so long after its first acknowledgement.
const LIFE_MS_MAX: u64 = 600;
/// Longest wait for what is to come true. Generous: the machine may be busy.
const WITHIN: Duration = Duration::from_secs(60);
/// Memory goes to files all the time, and files are put together all the time.
const RESTLESS: &str = r#"
[monitor]
file_every = "20ms"
tidy_every = "20ms"
logs_bytes_max = 1
"#;
/// Nothing goes to files.
const LAZY: &str = r#"
[monitor]
file_every = "1h"
"#;

async fn monitor(landscape: &Landscape) -> Result<MonitorServiceClient<Channel>> {
    let client = MonitorServiceClient::connect(landscape.endpoint()).await?;
    Ok(client.max_decoding_message_size(64 * 1024 * 1024))
}

/// How often each text is there, of lines that a search finds.
async fn lines(landscape: &Landscape, query: &str) -> Result<BTreeMap<String, usize>> {
    let mut monitor = monitor(landscape).await?;
    let mut times = BTreeMap::new();
    let mut page_token = String::new();
    loop {
        let filter = Some(LogFilter { query: query.to_owned(), ..LogFilter::default() });
        let request = SearchLogsRequest { filter, page_size: 1000, page_token, ..SearchLogsRequest::default() };
        let answer = monitor.search_logs(request).await?.into_inner();
        for record in answer.records {
            *times.entry(record.body).or_default() += 1;
        }
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            return Ok(times);
        }
    }
}

/// Checks that each text is there once, and whatever else there is too.
fn each_once(told: &[String], kept: &BTreeMap<String, usize>, when: &str) -> Result<()> {
    for body in told {
        let times = kept.get(body).copied().unwrap_or(0);
        ensure!(times == 1, "{when}: {body} was acknowledged and is there {times} times, of {} lines", kept.len());
    }
    let twice = kept.iter().find(|(_, times)| **times > 1);
    ensure!(twice.is_none(), "{when}: {twice:?} is there more than once");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_record_is_lost_or_doubled_by_fifty_deaths() -> Result<()> {
    let seed = std::env::var("NINEFOLD_KILL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("NINEFOLD_KILL_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut landscape = Landscape::up_with(RESTLESS).await?;
    let (mut told, mut traces) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let life = Duration::from_millis(random.u64(..LIFE_MS_MAX));
        let (new, spans) = tell_and_kill(&landscape, round, life).await?;
        if random.bool() {
            tear(&landscape, &mut random)?;
        }
        landscape = landscape.restart_after_kill().await?;
        println!("round {round}: {} lines and {} traces were acknowledged in {life:?}", new.len(), spans.len());
        each_once(&new, &lines(&landscape, &format!("\"round {round} \"")).await?, &format!("after death {round}"))?;
        told.extend(new);
        traces.extend(spans);
    }
    ensure!(told.len() > 500, "only {} lines were acknowledged: too few to tell", told.len());
    each_once(&told, &lines(&landscape, "service:pump").await?, "in the end")?;
    let mut monitor = monitor(&landscape).await?;
    for (trace_id, spans) in &traces {
        let trace = monitor.get_trace(GetTraceRequest { trace_id: trace_id.clone() }).await?.into_inner();
        ensure!(trace.spans.len() == *spans, "{trace_id} of {spans} spans has {}", trace.spans.len());
    }
    let counted = monitor.count_logs(CountLogsRequest::default()).await?.into_inner();
    ensure!(counted.lines >= told.len() as u64, "{} of {} lines are counted", counted.lines, told.len());
    let found = monitor.search_traces(SearchTracesRequest { page_size: 10, ..SearchTracesRequest::default() }).await?;
    ensure!(!found.into_inner().traces.is_empty(), "traces are listed");
    landscape.stop().await
}

/// Tells from several senders until the node is killed; answers what was acknowledged: texts of lines, and traces with
/// how many spans they have.
async fn tell_and_kill(
    landscape: &Landscape,
    round: u64,
    life: Duration,
) -> Result<(Vec<String>, Vec<(String, usize)>)> {
    let (first, began) = tokio::sync::watch::channel(false);
    let senders = (0..SENDERS).map(|number| {
        let (address, first) = (landscape.address("otlpGrpc"), first.clone());
        async move {
            let mut sender = Sender::connect(&address).await?;
            let (mut told, mut traces) = (Vec::new(), Vec::new());
            for batch in 0_u64.. {
                let bodies: Vec<String> =
                    (0..=batch % 7).map(|line| format!("round {round} of {number}: {batch}.{line}")).collect();
                if sender.lines("pump", &bodies).await.is_err() {
                    break;
                }
                told.extend(bodies);
                first.send_replace(true);
                let (trace, spans) = (trace_of(round, number, batch), 1 + usize::try_from(batch % 3)?);
                if sender.trace(trace, spans).await.is_err() {
                    break;
                }
                traces.push((format!("{trace:032x}"), spans));
            }
            Ok::<_, anyhow::Error>((told, traces))
        }
    });
    let pid = landscape.pid();
    let killed = async {
        let mut began = began;
        began.wait_for(|is_so| *is_so).await?;
        tokio::time::sleep(life).await;
        kill(pid).await
    };
    let (outcomes, killed) = tokio::join!(join_all(senders), killed);
    killed?;
    let (mut told, mut traces) = (Vec::new(), Vec::new());
    for outcome in outcomes {
        let (lines, spans) = outcome?;
        told.extend(lines);
        traces.extend(spans);
    }
    Ok((told, traces))
}

/// Kills a process, and waits until it is dead.
async fn kill(pid: u32) -> Result<()> {
    signal(pid, Signal::KILL)?;
    dead(pid).await
}

async fn dead(pid: u32) -> Result<()> {
    until("the node is dead", WITHIN, async || Ok(!is_alive(pid))).await
}

fn newest_segment(landscape: &Landscape) -> Result<Option<PathBuf>> {
    let folder = PathBuf::from(landscape.data()).join("telemetry/journal");
    let segments: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    Ok(segments.into_iter().max())
}

/// Leaves half a frame at the end of the journal, as a death in the middle of a write does.
fn tear(landscape: &Landscape, random: &mut fastrand::Rng) -> Result<()> {
    let Some(newest) = newest_segment(landscape)? else { return Ok(()) };
    let mut bytes = std::fs::read(&newest)?;
    bytes.extend((0..random.usize(1..200)).map(|_| random.u8(..)));
    Ok(std::fs::write(&newest, bytes)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spoiled_journal_is_read_around_the_damage_and_the_loss_is_told() -> Result<()> {
    let landscape = Landscape::up_with(LAZY).await?;
    let mut sender = Sender::connect(&landscape.address("otlpGrpc")).await?;
    for body in ["before", "spoiled here", "after"] {
        sender.lines("pump", &[body.to_owned()]).await?;
    }
    kill(landscape.pid()).await?;
    let newest = newest_segment(&landscape)?.context("there is a journal")?;
    let mut bytes = std::fs::read(&newest)?;
    let at = bytes.windows(7).position(|window| window == b"spoiled").context("the line is in it")?;
    bytes[at] ^= 1;
    std::fs::write(&newest, bytes)?;
    let landscape = landscape.restart_after_kill().await?;
    let kept: Vec<String> = lines(&landscape, "service:pump").await?.into_keys().collect();
    ensure!(kept == ["after", "before"], "{kept:?}");
    ensure!(landscape.said().contains("the journal is damaged"), "the loss is told: {}", landscape.said());
    landscape.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_of_death_is_stopped_and_says_so() -> Result<()> {
    let settings = "[monitor]\nfile_every = \"20ms\"\nlogs_bytes_max = 1\nquery_rows_max = 10000\n";
    let landscape = Landscape::up_with(settings).await?;
    let mut sender = Sender::connect(&landscape.address("otlpGrpc")).await?;
    for batch in 0..24 {
        let bodies: Vec<String> = (0..1000).map(|line| format!("line {batch}.{line}")).collect();
        sender.lines("pump", &bodies).await?;
    }
    let mut monitor = monitor(&landscape).await?;
    let ask = |query: &str| SearchLogsRequest {
        filter: Some(LogFilter { query: query.to_owned(), ..LogFilter::default() }),
        ..SearchLogsRequest::default()
    };
    let mut asked = monitor.clone();
    // What is not in files yet costs no rows of files.
    until("everything is in files, and a look at all of it is refused", WITHIN, || {
        let mut monitor = asked.clone();
        let ask = ask("body=~\"never[0-9]+said\"");
        async move {
            let Err(refusal) = monitor.search_logs(ask).await else { return Ok(false) };
            ensure!(refusal.code() == Code::ResourceExhausted, "{refusal:?}");
            ensure!(fault::reason(&refusal).as_deref() == Some("QUERY_TOO_COSTLY"), "{refusal:?}");
            ensure!(refusal.message().contains("10000 rows"), "{refusal:?}");
            Ok(true)
        }
    })
    .await?;
    let found = asked.search_logs(ask("\"line 7.999\"")).await?.into_inner().records;
    ensure!(found.len() == 1, "what the index finds is in one block: {found:?}");
    let refusal = monitor.count_logs(CountLogsRequest::default()).await.err().context("a count of all is refused")?;
    ensure!(fault::reason(&refusal).as_deref() == Some("QUERY_TOO_COSTLY"), "{refusal:?}");
    landscape.stop().await?;

    let landscape =
        Landscape::up_with("[monitor]\nfile_every = \"20ms\"\nlogs_bytes_max = 1\nquery_wait = \"1ms\"\n").await?;
    let mut sender = Sender::connect(&landscape.address("otlpGrpc")).await?;
    for _ in 0..8 {
        let bodies: Vec<String> = (0..1000).map(|line| format!("{line} {}", "x".repeat(1000))).collect();
        sender.lines("pump", &bodies).await?;
    }
    let slow = self::monitor(&landscape).await?;
    until("a question that takes too long is stopped", WITHIN, || {
        let mut monitor = slow.clone();
        let ask = ask("body=~\"never[0-9]+said\"");
        async move {
            let Err(refusal) = monitor.search_logs(ask).await else { return Ok(false) };
            ensure!(refusal.code() == Code::DeadlineExceeded, "{refusal:?}");
            ensure!(fault::reason(&refusal).as_deref() == Some("QUERY_TOO_SLOW"), "{refusal:?}");
            Ok(true)
        }
    })
    .await?;
    landscape.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_one_service_starves_no_other() -> Result<()> {
    let landscape = Landscape::up_with("[monitor]\nfile_every = \"1h\"\nunfiled_bytes_max = 1048576\n").await?;
    let address = landscape.address("otlpGrpc");
    let refused = AtomicU64::new(0);
    let flood = async || {
        let mut sender = Sender::connect(&address).await?;
        let loud = vec!["x".repeat(40_000); 4];
        loop {
            if let Err(refusal) = sender.lines("flood", &loud).await {
                ensure!(refusal.code() == Code::ResourceExhausted, "{refusal:?}");
                ensure!(sender::comes_back(&refusal), "the flood is told when to come back: {refusal:?}");
                refused.fetch_add(1, Ordering::Relaxed);
            }
        }
        #[expect(unreachable_code, reason = "it says what its failure is")]
        Ok(())
    };
    // At least so many lines, and as long as the flood has not been refused often enough to tell.
    let heard = async {
        let mut small = Sender::connect(&address).await?;
        let mut number = 0;
        while number < 60 || refused.load(Ordering::Relaxed) < 20 {
            small.lines("small", &[format!("heard {number}")]).await.context("the other is heard")?;
            number += 1;
        }
        Ok::<_, anyhow::Error>(number)
    };
    let heard = tokio::select! {
        failed = try_join_all((0..4).map(|_| flood())) => failed.map(|_: Vec<()>| 0)?,
        heard = heard => heard?,
    };
    let kept = lines(&landscape, "service:small").await?;
    ensure!(kept.len() == heard, "{} of {heard} lines of the other are there", kept.len());
    landscape.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_is_gone_from_memory_files_and_journal_and_stays_gone() -> Result<()> {
    let mut landscape = Landscape::up_with("[monitor]\nfile_every = \"20ms\"\ntidy_every = \"20ms\"\n").await?;
    let mut sender = Sender::connect(&landscape.address("otlpGrpc")).await?;
    for batch in 0..20 {
        let person = if batch % 2 == 0 { "ada@example.org" } else { "bob@example.org" };
        let bodies: Vec<String> = (0..5).map(|line| format!("{batch}.{line} for {person}")).collect();
        sender.lines("pump", &bodies).await?;
        sender.trace(trace_of(1, 1, batch), 3).await?;
    }
    let mut client = monitor(&landscape).await?;
    let everything = DeleteLogsRequest { filter: Some(LogFilter::default()) };
    let refusal = client.delete_logs(everything).await.err().context("all lines are not deleted at once")?;
    ensure!(fault::reason(&refusal).as_deref() == Some("QUERY_INVALID"), "{refusal:?}");
    let refusal = client.delete_traces(DeleteTracesRequest::default()).await.err().context("nor all traces")?;
    ensure!(fault::reason(&refusal).as_deref() == Some("QUERY_INVALID"), "{refusal:?}");

    let query = "ada@example.org".to_owned();
    let of_ada = || DeleteLogsRequest {
        filter: Some(LogFilter { query: query.clone(), service: "pump".to_owned(), ..LogFilter::default() }),
    };
    let deleted = client.delete_logs(of_ada()).await?.into_inner().lines;
    ensure!(deleted == 50, "{deleted} of 50 lines were deleted");
    ensure!(client.delete_logs(of_ada()).await?.into_inner().lines == 0, "they are deleted once");
    let one = format!("{:032x}", trace_of(1, 1, 7));
    let request = DeleteTracesRequest { trace_id: one.clone(), ..DeleteTracesRequest::default() };
    ensure!(client.delete_traces(request).await?.into_inner().spans == 3, "a trace has three spans");
    for _ in 0..2 {
        let kept = lines(&landscape, "service:pump").await?;
        ensure!(kept.len() == 50 && kept.keys().all(|body| body.contains("bob@")), "{kept:?}");
        let mut client = monitor(&landscape).await?;
        let gone = client.get_trace(GetTraceRequest { trace_id: one.clone() }).await.err().context("it is gone")?;
        ensure!(gone.code() == Code::NotFound, "{gone:?}");
        let asked =
            SearchTracesRequest { service: "pump".to_owned(), page_size: 100, ..SearchTracesRequest::default() };
        let traces = client.search_traces(asked).await?.into_inner().traces;
        ensure!(traces.len() == 19, "{} of 19 traces are listed", traces.len());
        // Nor does a death bring them back.
        landscape = landscape.restart_after_kill().await?;
    }
    let of_service = DeleteTracesRequest { service: "pump".to_owned(), ..DeleteTracesRequest::default() };
    let spans = monitor(&landscape).await?.delete_traces(of_service).await?.into_inner().spans;
    ensure!(spans == 57, "{spans} of 57 spans were deleted");
    landscape.stop().await
}

/// How many lines there are, and how many orders to delete are not done.
async fn left(landscape: &Landscape, query: &str) -> Result<(u64, u32)> {
    let mut client = monitor(landscape).await?;
    let filter = Some(LogFilter { query: query.to_owned(), ..LogFilter::default() });
    let lines = client.count_logs(CountLogsRequest { filter, ..CountLogsRequest::default() }).await?.into_inner().lines;
    Ok((lines, client.get_retention(GetRetentionRequest {}).await?.into_inner().pending_deletions))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_to_delete_outlives_a_death() -> Result<()> {
    let mut landscape = Landscape::up_with("[monitor]\nfile_every = \"20ms\"\ntidy_every = \"1h\"\n").await?;
    let refused = landscape.run(&["logs", "--delete", "--yes"]).await?;
    ensure!(refused.code == 2 && refused.stderr.contains("which lines"), "{refused:?}");
    for (round, life) in [0, 20, 60, 120, 400].into_iter().enumerate() {
        let mut sender = Sender::connect(&landscape.address("otlpGrpc")).await?;
        for batch in 0..20 {
            let bodies: Vec<String> =
                ["doomed", "kept"].iter().map(|word| format!("round{round} {word} {batch}")).collect();
            sender.lines("pump", &bodies).await?;
        }
        let doomed = format!("round{round} doomed");
        let unsure = landscape.run(&["logs", "--query", &doomed, "--delete"]).await?;
        ensure!(unsure.code == 2 && unsure.stderr.contains("20 lines are deleted for good"), "{unsure:?}");
        let arguments = ["logs", "pump", "--query", &doomed, "--delete", "--yes"];
        let deleting = landscape.run(&arguments);
        let ended = tokio::time::timeout(Duration::from_millis(life), deleting).await;
        landscape = landscape.restart_after_kill().await?;
        until("nothing is pending", WITHIN, || async { Ok(left(&landscape, &doomed).await?.1 == 0) }).await?;
        let (lines, _) = left(&landscape, &doomed).await?;
        println!("after {life} ms {lines} of 20 lines were there, and the command {:?}", ended.is_ok());
        ensure!(lines == 0 || (lines == 20 && ended.is_err()), "all or none, not {lines}");
        let told = landscape.ask(&arguments).await?;
        ensure!(told["lines"] == lines, "{told}");
        let kept = lines_once(&landscape, &format!("round{round}")).await?;
        ensure!(kept == 20, "{kept} of 20 others are there");
    }
    landscape.stop().await
}

async fn lines_once(landscape: &Landscape, query: &str) -> Result<usize> {
    let kept = lines(landscape, query).await?;
    each_once(&[], &kept, "in the end")?;
    Ok(kept.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_engine_reads_the_files() -> Result<()> {
    let landscape = Landscape::up_with(RESTLESS).await?;
    let mut sender = Sender::connect(&landscape.address("otlpGrpc")).await?;
    let bodies: Vec<String> = (0..300).map(|line| format!("line {line}, größer \"quoted\"")).collect();
    for some in bodies.chunks(20) {
        sender.lines("pump", some).await?;
    }
    for number in 0..10 {
        sender.trace(trace_of(1, 2, number), 3).await?;
    }
    // Ends it as an operator does: all is in files then.
    signal(landscape.pid(), Signal::TERM)?;
    dead(landscape.pid()).await?;
    let mut read = Command::new(tools::python("python")?);
    read.arg("-c").arg(include_str!("read.py")).arg(PathBuf::from(landscape.data()).join("telemetry"));
    let read: serde_json::Value = serde_json::from_str(&python::done(read).await?.stdout)?;
    ensure!(read["lines"] == 300 && read["spans"] == 30 && read["twice"] == 0, "{read}");
    ensure!(read["services"] == serde_json::json!(["pump"]), "{read}");
    ensure!(read["first"] == bodies[0] && read["traces"] == 10, "{read}");
    Ok(())
}
