//! What a request through the edge costs beside Envoy, in one run, with the same service behind both.
//!
//! `cargo build --release -p ninefold-cli && cargo run --release -p bench-edge [-- WORD]`, where a word is `rest`, `grpc`,
//! `all-on` or `memory`; without one, all of these. `swap` measures alone what a change of one of a thousand services costs. `NINEFOLD_TOOLS` names the folder with the Python environment that has
//! Envoy (`./check` fills it). Linux only: it reads `/proc`, and pins with `taskset`.
//!
//! Each proxy has the first processor to itself, the service, the load and the collector of telemetry share the second.
//! The two take turns, and the medians over the turns are told: microseconds of processor time of the proxy's process a
//! request while it is fully used, and at an equal load that uses neither fully, with the latencies there.

#![expect(clippy::print_stdout, reason = "a bench prints its tables")]

mod collector;
mod load;
mod order;
mod place;
mod proxy;
mod service;
mod swap;
mod table;

use anyhow::{Context as _, Result, bail};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match words.as_slice() {
        [] => table::all(),
        ["service"] => runtime.block_on(service::run()),
        // On threads, as the binary has them.
        ["swap"] => tokio::runtime::Runtime::new()?.block_on(swap::run()),
        ["collector"] => runtime.block_on(collector::run()),
        ["load", plan] => {
            let plan = serde_json::from_str(plan).context("a plan")?;
            println!("{}", runtime.block_on(load::run(&plan))?);
            Ok(())
        }
        ["hold", address, connections] => {
            runtime.block_on(load::hold(address, connections.parse().context("connections")?))
        }
        [one] => table::only(one),
        other => bail!("{other:?} is nothing that this measures"),
    }
}
