//! What is measured, and how it is told.

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::order::{LARGE, SMALL};
use crate::place::{Process, median, resident_mb};
use crate::proxy::{Manners, Others, Proxy};

/// Turns of each; odd, so that there is a middle one.
const TURNS: usize = 5;
/// The equal load: so many hundredths of what Envoy answers when it is fully used.
const LOAD_PERCENT: f64 = 40.0;
/// How long one turn counts.
const TURN_MILLIS: u64 = 2500;
/// Connections that are held while memory is looked at.
const CONNECTIONS: &str = "1000";

struct Case {
    /// What selects it on the command line.
    word: &'static str,
    name: &'static str,
    kind: &'static str,
    manners: Manners,
    lines: usize,
    /// Requests at a time, when as many are sent as are answered.
    at_once: u32,
    /// What the share of Envoy's processor time is to be at most.
    aim: &'static str,
}

const CASES: [Case; 5] = [
    Case {
        word: "rest",
        name: "REST → gRPC, 0.6 KB",
        kind: "rest",
        manners: Manners::Plain,
        lines: SMALL,
        at_once: 32,
        aim: "1/4",
    },
    Case {
        word: "rest",
        name: "REST → gRPC, 5 KB",
        kind: "rest",
        manners: Manners::Plain,
        lines: LARGE,
        at_once: 32,
        aim: "1/5",
    },
    Case {
        word: "all-on",
        name: "REST, 0.6 KB: trace, access log, limit",
        kind: "rest",
        manners: Manners::AllOn,
        lines: SMALL,
        at_once: 32,
        aim: "1/3",
    },
    Case {
        word: "grpc",
        name: "gRPC pass-through, 0.2 KB",
        kind: "grpc",
        manners: Manners::Plain,
        lines: SMALL,
        at_once: 64,
        aim: "1/2",
    },
    Case {
        word: "all-on",
        name: "gRPC: trace, access log, limit",
        kind: "grpc",
        manners: Manners::AllOn,
        lines: SMALL,
        at_once: 64,
        aim: "",
    },
];

/// Measures everything.
pub(crate) fn all() -> Result<()> {
    compare(&CASES.iter().collect::<Vec<_>>())?;
    memory()
}

/// Measures what a word selects.
pub(crate) fn only(word: &str) -> Result<()> {
    if word == "memory" {
        return memory();
    }
    let cases: Vec<_> = CASES.iter().filter(|case| case.word == word).collect();
    if cases.is_empty() {
        bail!("{word:?} is nothing that this measures");
    }
    compare(&cases)
}

/// The two proxies with the service behind them.
struct Pair {
    envoy: Proxy,
    ours: Proxy,
    _service: Process,
    _collector: Process,
}

impl Pair {
    fn start(manners: Manners) -> Result<Self> {
        let mut collector = Process::own(&["collector"], &[])?;
        let collector_address = collector.line()?;
        let ours = Proxy::ninefold(manners, &collector_address)?;
        let listen = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let platform = format!("http://{}", ours.platform);
        let environment =
            [("NINEFOLD_ENDPOINT", platform.as_str()), ("NINEFOLD_LISTEN", &listen), ("OTEL_SDK_DISABLED", "true")];
        let service = Process::own(&["service"], &environment)?;
        ours.ready().context("our edge")?;
        let envoy = Proxy::envoy(manners, &Others { service: listen, collector: collector_address })?;
        envoy.ready().context("Envoy")?;
        Ok(Self { envoy, ours, _service: service, _collector: collector })
    }
}

/// Sends the load of a plan from a process of its own.
pub(crate) fn ask(plan: &Value) -> Result<Value> {
    let mut load = Process::own(&["load", &plan.to_string()], &[])?;
    Ok(serde_json::from_str(&load.line()?)?)
}

fn compare(cases: &[&Case]) -> Result<()> {
    println!(
        "| case | Envoy µs CPU, full | ours | ours / Envoy | aim | Envoy µs CPU at equal load | ours | ours / Envoy | load /s | Envoy p50, p99 ms | ours p50, p99 ms |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for manners in [Manners::Plain, Manners::AllOn] {
        let cases: Vec<_> = cases.iter().filter(|case| case.manners == manners).collect();
        if cases.is_empty() {
            continue;
        }
        let pair = Pair::start(manners)?;
        for case in cases {
            row(case, &pair)?;
        }
    }
    Ok(())
}

fn row(case: &Case, pair: &Pair) -> Result<()> {
    let measure = |proxy: &Proxy, per_second: u64| {
        let address = if case.kind == "grpc" { &proxy.grpc } else { &proxy.rest };
        ask(&json!({"kind": case.kind, "address": address, "pid": proxy.pid(), "lines": case.lines,
            "lanes": case.at_once, "per_second": per_second, "millis": TURN_MILLIS}))
    };
    let number = |value: &Value, key: &str| value[key].as_f64().unwrap_or(f64::NAN);
    let (mut turns, mut loads): (Vec<[Value; 4]>, Vec<f64>) = Default::default();
    for turn in 0..TURNS {
        // Who is first changes, so that a drift of the machine favours nobody.
        let both = |per_second| {
            let mut of = [(0, &pair.envoy), (1, &pair.ours)];
            of.rotate_left(turn % 2);
            let mut found = [Value::Null, Value::Null];
            for (at, proxy) in of {
                found[at] = measure(proxy, per_second)?;
            }
            Ok::<_, anyhow::Error>(found)
        };
        let [full_envoy, full_ours] = both(0)?;
        let per_second = number(&full_envoy, "per_second") * LOAD_PERCENT / 100.0;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a pace needs no more digits")]
        let per_second = per_second.max(1.0) as u64;
        let [part_envoy, part_ours] = both(per_second)?;
        loads.push(per_second as f64);
        turns.push([full_envoy, full_ours, part_envoy, part_ours]);
    }
    let of = |at: usize, key: &str| median(turns.iter().map(|turn| number(&turn[at], key)).collect());
    let ratio = |ours: usize, envoy: usize| {
        median(turns.iter().map(|turn| number(&turn[ours], "cpu_us") / number(&turn[envoy], "cpu_us")).collect())
    };
    let millis = |at: usize| format!("{:.2}, {:.2}", of(at, "p50_us") / 1e3, of(at, "p99_us") / 1e3);
    println!(
        "| {} | {:.1} | {:.1} | {:.2} | {} | {:.1} | {:.1} | {:.2} | {:.0} | {} | {} |",
        case.name,
        of(0, "cpu_us"),
        of(1, "cpu_us"),
        ratio(1, 0),
        case.aim,
        of(2, "cpu_us"),
        of(3, "cpu_us"),
        ratio(3, 2),
        median(loads),
        millis(2),
        millis(3),
    );
    Ok(())
}

/// Tells resident memory, alone and with connections.
fn memory() -> Result<()> {
    let pair = Pair::start(Manners::Plain)?;
    println!("| resident MB | at rest | with {CONNECTIONS} connections | a connection, KB |");
    println!("|---|---|---|---|");
    for (name, proxy) in [("Envoy", &pair.envoy), ("ours", &pair.ours)] {
        let before = resident_mb(proxy.pid())?;
        let mut holder = Process::own(&["hold", &proxy.rest, CONNECTIONS], &[])?;
        holder.line()?;
        let after = resident_mb(proxy.pid())?;
        println!("| {name} | {before:.1} | {after:.1} | {:.1} |", after - before);
    }
    Ok(())
}
