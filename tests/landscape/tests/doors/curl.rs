//! The platform asked with nothing but HTTP.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests_landscape::{Landscape, ended, until};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::backend::Backend;

const SOON: Duration = Duration::from_secs(30);

async fn curl(house: &Landscape, path: &str, arguments: &[&str]) -> Result<(u16, Value)> {
    let mut command = Command::new("curl");
    command.args(["-sS", "-g", "-w", "\n%{http_code}"]).args(arguments).arg(format!("{}{path}", house.endpoint()));
    let ended = ended(command).await?;
    let (body, status) = ended.stdout.rsplit_once('\n').with_context(|| format!("{ended:?}"))?;
    Ok((status.parse()?, serde_json::from_str(body).unwrap_or_else(|_| json!(body))))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_of_the_platform_is_asked_with_curl() -> Result<()> {
    let house = Landscape::up(&[]).await?;
    let one = Backend::start(&house.endpoint(), "pump", "one", "").await?;
    let (status, instances) = curl(&house, "/v1/services/pump/instances", &[]).await?;
    ensure!(status == 200 && instances["instances"][0]["instanceId"] == "one", "{instances}");
    for path in ["/v1/services", "/v1/events?page_size=3", "/v1/xds/streams", "/v1/workloads", "/v1/routes"] {
        let (status, answer) = curl(&house, path, &[]).await?;
        ensure!(status == 200 && answer.is_object(), "{path}: {status} {answer}");
    }
    let (status, answer) = curl(&house, "/v1/services/pump/instances/nobody", &[]).await?;
    ensure!(status == 404 && answer.to_string().contains("INSTANCE_UNKNOWN"), "{status} {answer}");
    let (status, answer) = curl(&house, "/v1/events?colour=1", &[]).await?;
    ensure!(status == 400 && answer.to_string().contains("colour"), "{status} {answer}");
    let (status, answer) = curl(&house, "/v1/services", &["-X", "DELETE"]).await?;
    ensure!(status == 405, "{status} {answer}");
    one.die().await;
    house.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_is_a_stream_of_lines_or_of_events() -> Result<()> {
    let house = Landscape::up(&[]).await?;
    for (accept, first) in [("application/x-ndjson", "{"), ("text/event-stream", "data:")] {
        let mut child = Command::new("curl")
            .args(["-sSN", "-H", &format!("Accept: {accept}"), &format!("{}/v1/instances:watch", house.endpoint())])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("piped")?).lines();
        let name = format!("of-{}", first.len());
        let one = Backend::start(&house.endpoint(), "pump", &name, "").await?;
        let told = tokio::time::timeout(SOON, async {
            while let Some(line) = lines.next_line().await? {
                if line.starts_with(first) && line.contains(&name) {
                    return anyhow::Ok(true);
                }
            }
            Ok(false)
        });
        ensure!(told.await.context("the change is told")??, "the stream ended");
        one.leave().await;
        until("it has left", SOON, || async { Ok(house.instances("pump").await?.is_empty()) }).await?;
    }
    house.stop().await
}
