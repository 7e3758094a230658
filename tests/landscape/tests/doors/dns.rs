//! The landscape asked with `dig`.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests_landscape::{Landscape, ended, until};
use tokio::process::Command;

use crate::backend::Backend;

const SOON: Duration = Duration::from_secs(30);

/// Asks, and answers what `dig` prints.
async fn dig(house: &Landscape, arguments: &[&str]) -> Result<String> {
    let address = house.address("dns");
    let (host, port) = address.rsplit_once(':').context("an address has a port")?;
    let mut command = Command::new("dig");
    command.arg(format!("@{host}")).args(["-p", port, "+tries=1", "+time=5"]).args(arguments);
    let ended = ended(command).await.context("dig is not installed: apt-get install bind9-dnsutils, or run ./check")?;
    ensure!(ended.code == 0, "{ended:?}");
    Ok(ended.stdout)
}

#[tokio::test(flavor = "multi_thread")]
async fn dig_finds_addresses_and_ports_and_tells_nobody_from_nothing() -> Result<()> {
    let house = Landscape::up(&["--dns-listen", "127.0.0.1:0"]).await?;
    let one = Backend::start(&house.endpoint(), "pump", "one", "").await?;
    until("the address is there", SOON, || async {
        Ok(dig(&house, &["+short", "pump.ninefold", "A"]).await?.trim() == "127.0.0.1")
    })
    .await?;
    let port = house.instances("pump").await?[0]["addresses"][0]["port"].to_string();
    for name in ["pump.ninefold", "pump.default.ninefold", "_grpc._tcp.pump.ninefold"] {
        let answer = dig(&house, &["+short", name, "SRV"]).await?;
        ensure!(answer.trim() == format!("0 100 {port} 7f000001.addr.ninefold."), "{name}: {answer}");
    }
    until("a name that nobody has is NXDOMAIN, once that is sure", SOON, || async {
        let answer = dig(&house, &["nobody.ninefold", "A"]).await?;
        Ok(answer.contains("status: NXDOMAIN") && answer.contains("SOA"))
    })
    .await?;
    let none = dig(&house, &["pump.ninefold", "AAAA"]).await?;
    ensure!(none.contains("status: NOERROR") && none.contains("ANSWER: 0") && none.contains("SOA"), "{none}");
    let stranger = dig(&house, &["example.org", "A"]).await?;
    ensure!(stranger.contains("status: REFUSED") && !stranger.contains(" ra"), "nobody is asked in turn: {stranger}");
    let answer = dig(&house, &["+noall", "+answer", "pump.ninefold", "A"]).await?;
    let ttl: u32 = answer.split_whitespace().nth(1).context("a record has a time")?.parse()?;
    ensure!(ttl <= 1, "{answer}");
    one.drain().await;
    until("who drains is not told", SOON, || async {
        Ok(dig(&house, &["+short", "pump.ninefold", "A"]).await?.trim().is_empty())
    })
    .await?;
    house.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_a_datagram_is_asked_for_again_over_tcp() -> Result<()> {
    let house = Landscape::up(&["--dns-listen", "127.0.0.1:0"]).await?;
    let mut backends = Vec::new();
    for number in 0..40 {
        backends.push(Backend::start(&house.endpoint(), "pump", &format!("pump-{number}"), "").await?);
    }
    until("all are told over TCP, by itself", SOON, || async {
        Ok(dig(&house, &["+short", "pump.ninefold", "SRV"]).await?.lines().count() == 40)
    })
    .await?;
    let cut = dig(&house, &["+ignore", "+noedns", "pump.ninefold", "SRV"]).await?;
    ensure!(cut.contains(" tc") && cut.contains("ANSWER: 0"), "{cut}");
    house.stop().await
}
