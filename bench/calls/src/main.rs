//! What a call through our channel costs beside tonic's, and what ten thousand slow ones do to a process.
//!
//! `cargo run --release -p bench-calls` prints the tables. Client and server are processes of their own; what is compared
//! runs in turns, and the medians of the turns' ratios are told, so that the machine's other work cancels out.

#![expect(clippy::print_stdout, reason = "a bench prints its tables")]

mod cost;
mod echo;
mod held;
mod place;

use anyhow::{Context as _, Result, bail};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let workers = |workers| tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build();
    match words.as_slice() {
        [] => workers(2)?.block_on(async {
            cost::compare().await?;
            held::compare().await
        }),
        ["cost"] => workers(2)?.block_on(cost::compare()),
        ["held"] => workers(2)?.block_on(held::compare()),
        ["server", streams] => workers(2)?.block_on(echo::serve(streams.parse().context("streams")?, None)),
        ["middle", backend] => workers(2)?.block_on(echo::serve(1024, Some(backend.parse().context("backend")?))),
        ["client", kind, address, calls, at_once, method] => workers(2)?.block_on(cost::client(
            kind,
            address.parse().context("address")?,
            calls.parse().context("calls")?,
            at_once.parse().context("calls at once")?,
            method,
        )),
        other => bail!("{other:?} is nothing that this measures"),
    }
}
