//! Clients that mean harm, by the tools that are made for it: slow ones (`slowhttptest`), many at once (`h2load`), and streams
//! that are opened to be reset. Somebody who means well is answered all the while.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests_landscape::load::Load;
use tests_landscape::{Ended, Landscape, ended, resident_mib, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

/// How long each attack goes on.
const SECONDS: &str = "12";
/// Most memory that an attack may leave a node with, beside what it had. Generous: an allocator keeps what it once had.
const GROWTH_MIB_MAX: u64 = 256;
const SOON: Duration = Duration::from_secs(60);
/// What somebody who means well asks for.
const PATH: &str = "/v1/products/1";

/// A program that `./check` installs by `apt-get`.
async fn run(program: &str, arguments: &[&str]) -> Result<Ended> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    ended(command).await.with_context(|| format!("{program} is not installed, or does not end: run ./check once"))
}

/// Whether somebody was answered all the while, and the node has not grown.
async fn unharmed(house: &Landscape, load: Load, before: u64, attack: &str) -> Result<()> {
    let (good, _, failed, words) = load.stop().await;
    ensure!(good > 0 && failed == 0, "{attack}: {failed} failed beside {good}: {words:?}");
    let now = resident_mib(house.pid())?;
    ensure!(now < before + GROWTH_MIB_MAX, "{attack}: the node grew from {before} to {now} MiB");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_are_given_up_and_nobody_waits_for_them() -> Result<()> {
    let house = Landscape::demo(&["--no-traffic"]).await?;
    let edge = house.address("edge");
    house
        .ask(&[
            "config",
            "set",
            "edge",
            "headers_timeout=3s",
            "body_timeout=3s",
            "answer_timeout=3s",
            "connections_max=2000",
        ])
        .await?;
    let tested = async || house.ask(&["config", "acks", "edge"]).await;
    until("the edge has heard", SOON, async || Ok(tested().await?.to_string().contains("\"revision\""))).await?;
    until("the shop is open", SOON, async || Ok(house.get(PATH).await?.status == 200)).await?;
    let (page, small, post) =
        (format!("http://{edge}/openapi.json"), format!("http://{edge}{PATH}"), format!("http://{edge}/v1/products"));
    let common = ["-c", "300", "-r", "150", "-l", SECONDS, "-p", "10"];
    for (attack, own) in [
        // A head, line by line, that never ends.
        ("slow headers", &["-H", "-i", "2", "-u", small.as_str()][..]),
        // A body, byte by byte.
        ("slow body", &["-B", "-i", "5", "-s", "8192", "-f", "application/json", "-u", post.as_str()][..]),
        // Answers, asked for again and again, and read by the byte.
        ("slow read", &["-X", "-n", "5", "-w", "8", "-y", "16", "-z", "4", "-k", "10", "-u", page.as_str()][..]),
    ] {
        let before = resident_mib(house.pid())?;
        let load = Load::on(&edge, PATH);
        let said = run("slowhttptest", &[own, &common[..]].concat()).await?.stdout;
        unharmed(&house, load, before, attack).await.with_context(|| said.clone())?;
        ensure!(said.contains("YES") && !said.contains("service available:   NO"), "{attack}: {said}");
    }
    house.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_at_once_and_small_windows_slow_nobody_out() -> Result<()> {
    let house = Landscape::demo(&["--no-traffic"]).await?;
    let edge = house.address("edge");
    until("the shop is open", SOON, async || Ok(house.get(PATH).await?.status == 200)).await?;
    let (page, small) = (format!("http://{edge}/openapi.json"), format!("http://{edge}/docs"));
    for (attack, own) in [
        ("a flood of streams", &["-c", "10", "-m", "100", "-D", "8", small.as_str()][..]),
        ("a flood over HTTP/1.1", &["--h1", "-c", "50", "-D", "8", small.as_str()][..]),
        // Windows of one byte: every answer waits for its reader, a byte at a time.
        ("windows of one byte", &["-c", "10", "-m", "100", "-w", "1", "-W", "1", "-D", "8", page.as_str()][..]),
    ] {
        let before = resident_mib(house.pid())?;
        let load = Load::on(&edge, PATH);
        let said = run("h2load", own).await?;
        ensure!(said.code == 0 && said.stdout.contains("finished in"), "{attack}: {said:?}");
        unharmed(&house, load, before, attack).await.with_context(|| said.stdout.clone())?;
    }
    house.stop().await
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Opens streams and resets them at once, until the edge has had enough.
async fn rapid_resets(edge: &str) -> Result<()> {
    /// GET / of `a`, in HPACK.
    const HEAD: [u8; 6] = [0x82, 0x86, 0x84, 0x41, 0x01, b'a'];
    const STREAMS_MAX: u32 = 100_000;
    let (mut reading, mut writing) = TcpStream::connect(edge).await?.into_split();
    let flood = async {
        writing.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
        writing.write_all(&frame(4, 0, 0, &[])).await?;
        for number in 0..STREAMS_MAX {
            let stream = 2 * number + 1;
            let pair = [frame(1, 5, stream, &HEAD), frame(3, 0, stream, &8_u32.to_be_bytes())].concat();
            writing.write_all(&pair).await?;
        }
        Ok::<_, std::io::Error>(())
    };
    let end = async {
        let mut answer = vec![0; 64 << 10];
        while let Ok(1..) = reading.read(&mut answer).await {}
    };
    tokio::pin!(flood, end);
    tokio::select! {
        // An error is the end that is waited for.
        _ = &mut flood => {}
        () = &mut end => return Ok(()),
    }
    tokio::time::timeout(SOON, end).await.context("the edge should have had enough")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_opened_to_be_reset_end_their_connection() -> Result<()> {
    let house = Landscape::demo(&["--no-traffic"]).await?;
    let edge = house.address("edge");
    until("the shop is open", SOON, async || Ok(house.get(PATH).await?.status == 200)).await?;
    let before = resident_mib(house.pid())?;
    let load = Load::on(&edge, PATH);
    for _ in 0..20 {
        let attackers = (0..8).map(|_| rapid_resets(&edge));
        for outcome in futures_util::future::join_all(attackers).await {
            outcome?;
        }
    }
    until(
        "somebody was answered",
        SOON,
        async || Ok(load.tally().good.load(std::sync::atomic::Ordering::Relaxed) > 20),
    )
    .await?;
    unharmed(&house, load, before, "rapid reset").await?;
    house.stop().await
}
