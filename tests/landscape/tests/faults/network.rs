//! Packets that are dropped, between two network namespaces: nothing tells either side that the other is away.

use std::process::{Command as Blocking, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests_landscape::{Ended, Landscape, Surroundings, ended, ninefold, tools, until};
use tokio::process::{Child, Command};

const SOON: Duration = Duration::from_secs(60);
const PLATFORM: &str = "10.79.90.1";
const INSTANCE: &str = "10.79.90.2";

/// Two namespaces with a cable between them, gone when dropped.
struct Cable {
    platform: String,
    instance: String,
}

impl Cable {
    /// Lays it; tells why not where this machine does not allow it.
    async fn lay() -> Result<Result<Self, String>> {
        let number = std::process::id();
        let cable = Self { platform: format!("nf-p-{number}"), instance: format!("nf-i-{number}") };
        let ends = (format!("nfp{number}"), format!("nfi{number}"));
        for namespace in [&cable.platform, &cable.instance] {
            let made = run(&["ip", "netns", "add", namespace]).await;
            match made {
                Ok(made) if made.code == 0 => {}
                Ok(made) => return Ok(Err(made.stderr.trim().to_owned())),
                Err(error) => return Ok(Err(format!("{error:#}"))),
            }
        }
        let laid = ["ip", "link", "add", &ends.0, "netns", &cable.platform, "type", "veth"];
        let laid = [&laid[..], &["peer", "name", &ends.1, "netns", &cable.instance]].concat();
        let laid = run(&laid).await?;
        if laid.code != 0 {
            return Ok(Err(laid.stderr.trim().to_owned()));
        }
        for (namespace, end, address) in [(&cable.platform, &ends.0, PLATFORM), (&cable.instance, &ends.1, INSTANCE)] {
            let address = format!("{address}/24");
            for command in [
                &["ip", "-n", namespace, "address", "add", &address, "dev", end][..],
                &["ip", "-n", namespace, "link", "set", end, "up"],
                &["ip", "-n", namespace, "link", "set", "lo", "up"],
            ] {
                done(command).await?;
            }
        }
        let can_drop = run(&cable.rule("-A", 0.0).iter().map(String::as_str).collect::<Vec<_>>()).await?;
        if can_drop.code != 0 {
            return Ok(Err(can_drop.stderr.trim().to_owned()));
        }
        Ok(Ok(cable))
    }

    /// A command that adds (`-A`) or takes back (`-D`) the rule by which so large a share of what arrives is dropped.
    fn rule(&self, how: &str, share: f64) -> Vec<String> {
        let share = share.to_string();
        let rule = ["ip", "netns", "exec", &self.instance, "iptables", how, "INPUT", "!", "-i", "lo"];
        let dice = ["-m", "statistic", "--mode", "random", "--probability", &share, "-j", "DROP"];
        rule.into_iter().chain(dice).map(ToOwned::to_owned).collect()
    }

    /// Drops everything in both directions from now on.
    async fn cut(&self) -> Result<()> {
        for chain in [["INPUT", "-i"], ["OUTPUT", "-o"]] {
            done(&[
                "ip",
                "netns",
                "exec",
                &self.instance,
                "iptables",
                "-I",
                chain[0],
                "!",
                chain[1],
                "lo",
                "-j",
                "DROP",
            ])
            .await?;
        }
        Ok(())
    }

    /// Drops nothing any more.
    async fn mend(&self) -> Result<()> {
        done(&["ip", "netns", "exec", &self.instance, "iptables", "-F"]).await
    }

    /// Drops so large a share of what arrives.
    async fn fray(&self, share: f64) -> Result<()> {
        done(&self.rule("-A", share).iter().map(String::as_str).collect::<Vec<_>>()).await
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for namespace in [&self.platform, &self.instance] {
            let _ = Blocking::new("ip").args(["netns", "delete", namespace]).stderr(Stdio::null()).status();
        }
    }
}

async fn run(command: &[&str]) -> Result<Ended> {
    let (program, arguments) = command.split_first().context("a command has a program")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    ended(command).await
}

async fn done(command: &[&str]) -> Result<()> {
    let ended = run(command).await?;
    ensure!(ended.code == 0, "{command:?}: {ended:?}");
    Ok(())
}

fn instance(cable: &Cable, endpoint: &str, data: &std::path::Path) -> Result<Child> {
    // `ip netns exec` becomes the program, which so is ours to end.
    let inside = ninefold("demo-service", &["recommendation"])?;
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &cable.instance]).arg(inside.as_std().get_program());
    command.args(inside.as_std().get_args()).env("NINEFOLD_INSTANCE_ID", "far").kill_on_drop(true);
    command.env("NINEFOLD_ENDPOINT", endpoint).env("NINEFOLD_DATA", data);
    Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_heard_is_out_of_rotation_and_comes_back_with_the_network() -> Result<()> {
    let cable = match Cable::lay().await? {
        Ok(cable) => cable,
        Err(why) => return tools::skip(&format!("dropped packets: no network namespaces with a filter here ({why})")),
    };
    let within = ["ip", "netns", "exec", &cable.platform].map(ToOwned::to_owned).to_vec();
    let around = Surroundings { within, variables: Vec::new() };
    let house = Landscape::up_in(around, &["--insecure", "--listen", &format!("{PLATFORM}:0")]).await?;
    let data = tempfile::tempdir()?;
    let _far = instance(&cable, &house.endpoint(), data.path())?;
    let serves =
        async |what: &str| until(what, SOON, || async { Ok(house.serving("recommendation").await? == 1) }).await;
    serves("it is there").await?;

    let begin = Instant::now();
    cable.cut().await?;
    until("who cannot be heard is out", SOON, || async { Ok(house.serving("recommendation").await? == 0) }).await?;
    println!("out of rotation {:?} after the last packet, as ps shows it", begin.elapsed());
    ensure!(begin.elapsed() < Duration::from_secs(6) * 3, "{:?}", begin.elapsed());
    until("nothing of it is left", SOON, || async { Ok(house.instances("recommendation").await?.is_empty()) }).await?;
    cable.mend().await?;
    let mended = Instant::now();
    serves("it is back").await?;
    println!("back {:?} after the network", mended.elapsed());

    // One packet in ten is lost: slower, and nobody is taken for dead.
    cable.fray(0.1).await?;
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        ensure!(house.instances("recommendation").await?.len() == 1, "one instance, neither lost nor doubled");
    }
    cable.mend().await?;
    serves("it still is").await?;
    house.stop().await
}
