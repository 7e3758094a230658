//! Ten thousand calls in flight to a slow service: what they cost the process that waits for it, and who else waits.

use std::time::Duration;

use anyhow::{Result, bail};
use futures_util::future::join_all;
use ninefold::lifecycle::Scope;
use ninefold::tonic::Code;
use ninefold::tonic::transport::{Channel, Endpoint};
use tokio::time::Instant;

use crate::echo::{Word, ask};
use crate::place::Server;

const CALLS: u32 = 10_000;
/// Connections that the calls come over.
const CONNECTIONS: u32 = 20;
/// Probes, and how often one is due. Latency counts from when it was due, not from when it was sent: a probe that waits for
/// the one before hides what it should find.
const PROBES: u32 = 2_000;
const PROBE_EVERY: Duration = Duration::from_millis(5);

/// As long a probe counts that is turned away: it had no answer at all.
const REFUSED: Duration = Duration::from_secs(1);

/// What the probe must see.
const P99_MAX: Duration = Duration::from_millis(5);
const MAX_MAX: Duration = Duration::from_millis(50);

/// Prints the table.
pub(crate) async fn compare() -> Result<()> {
    println!();
    println!(
        "| fast method, asked every 5 ms | threads | KiB a call | p50 ms | p99 ms | max ms | within 5 and 50 ms |"
    );
    println!("|---|---|---|---|---|---|---|");
    let scope = Scope::root("bench");
    // It lets all of them be at work: what is measured is who waits for it.
    let backend = Server::start(&["server", "20000"])?;
    let middle = Server::start(&["middle", &backend.address.to_string()])?;
    let idle = middle.kib()?;
    let probe = connect(&middle).await?;
    probe_and_tell("alone", &middle, &probe, None).await?;

    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(connect(&middle).await?);
    }
    for call in 0..CALLS {
        let index = usize::try_from(call % CONNECTIONS)?;
        let channel = connections[index].clone();
        scope.run("bench.hold", |_| async move {
            // Ends with the servers.
            let _ = ask(channel, "Slow", Word::default()).await;
        });
    }
    let patience = Instant::now() + Duration::from_secs(20);
    loop {
        let (here, there) = (count(&probe).await?, count(&connect(&backend).await?).await?);
        if here == CALLS && there == CALLS {
            break;
        }
        if Instant::now() > patience {
            bail!("only {here} calls are in work, {there} at the slow service");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let per_call = (middle.kib()?.saturating_sub(idle)) as f64 / f64::from(CALLS);
    probe_and_tell("beside 10,000 calls to a slow service", &middle, &probe, Some(per_call)).await?;

    let blocked = Server::start(&["server", "1024"])?;
    let probe = connect(&blocked).await?;
    let channel = connect(&blocked).await?;
    // Some of them are refused: their number is no matter, as long as threads are blocked.
    let blocking = join_all((0..100).map(|_| ask(channel.clone(), "Block", Word::default())));
    let (_, within) = tokio::join!(
        blocking,
        probe_and_tell("control: beside 100 calls that block their thread", &blocked, &probe, None)
    );
    if within? {
        bail!("the probe does not notice blocked threads, so it proves nothing");
    }
    Ok(())
}

async fn connect(server: &Server) -> Result<Channel> {
    Ok(Endpoint::from_shared(format!("http://{}", server.address))?.connect().await?)
}

async fn count(channel: &Channel) -> Result<u32> {
    Ok(ask(channel.clone(), "Count", Word::default()).await?.number)
}

/// Probes, prints a row, and tells whether the probe saw what it must.
async fn probe_and_tell(name: &str, server: &Server, channel: &Channel, per_call: Option<f64>) -> Result<bool> {
    let start = Instant::now();
    let probes = (0..PROBES).map(|number| async move {
        let due = start + PROBE_EVERY * number;
        tokio::time::sleep_until(due).await;
        match ask(channel.clone(), "Echo", Word::default()).await {
            Ok(_) => Ok(due.elapsed()),
            Err(status) if status.code() == Code::ResourceExhausted => Ok(REFUSED),
            Err(status) => Err(anyhow::Error::from(status)),
        }
    });
    let mut took = join_all(probes).await.into_iter().collect::<Result<Vec<_>>>()?;
    took.sort_unstable();
    let at = |share: usize| took[(took.len() - 1) * share / 100];
    let is_within = at(99) <= P99_MAX && at(100) <= MAX_MAX;
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "| {name} | {} | {} | {:.2} | {:.2} | {:.2} | {} |",
        server.threads()?,
        per_call.map_or_else(|| "–".to_owned(), |kib| format!("{kib:.1}")),
        ms(at(50)),
        ms(at(99)),
        ms(at(100)),
        if is_within { "yes" } else { "no" },
    );
    Ok(is_within)
}
