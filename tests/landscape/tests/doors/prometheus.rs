//! A real Prometheus that finds its targets in the landscape.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests_landscape::{Landscape, http, tools, until};
use tokio::process::Command;

use crate::backend::Backend;

const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_has_the_instances_as_its_targets() -> Result<()> {
    let house = Landscape::up(&[]).await?;
    let one = Backend::start(&house.endpoint(), "pump", "one", "east").await?;
    let two = Backend::start(&house.endpoint(), "pump", "two", "west").await?;
    let folder = tempfile::tempdir()?;
    let config = format!(
        "scrape_configs:\n- job_name: landscape\n  http_sd_configs:\n  - url: {}/sd/prometheus?namespace=default\n    \
         refresh_interval: 1s\n  relabel_configs:\n  - source_labels: [__meta_ninefold_instance_id]\n    \
         target_label: instance\n  - source_labels: [__meta_ninefold_zone]\n    target_label: zone\n",
        house.endpoint()
    );
    std::fs::write(folder.path().join("prometheus.yml"), config)?;
    let address = tools::free_address()?;
    let _prometheus = Command::new("prometheus")
        .args(["--config.file", "prometheus.yml", "--storage.tsdb.path", "data", "--web.listen-address", &address])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(folder.path().join("said"))?)
        .kill_on_drop(true)
        .spawn()
        .context("prometheus is not installed: apt-get install prometheus, or run ./check")?;
    let targets = || async {
        let answer = http::request(&address, "GET", "/api/v1/targets", &[], None).await?.json()?;
        let active = answer["data"]["activeTargets"].as_array().cloned().unwrap_or_default();
        let mut seen: Vec<String> =
            active.iter().map(|one| format!("{} {}", one["labels"]["instance"], one["labels"]["zone"])).collect();
        seen.sort();
        anyhow::Ok(seen)
    };
    let both = [r#""one" "east""#, r#""two" "west""#];
    let seen = until("both are targets", SOON, || async { Ok(targets().await? == both) }).await;
    seen.with_context(|| std::fs::read_to_string(folder.path().join("said")).unwrap_or_default())?;
    two.leave().await;
    until("who left is none", SOON, || async { Ok(targets().await? == both[..1]) }).await?;

    let platform = house.address("platform");
    let refused = http::request(&platform, "GET", "/sd/prometheus?servcie=pump", &[], None).await?;
    ensure!(refused.status == 400, "a parameter that is not known is not overlooked");
    let none = http::request(&platform, "GET", "/sd/prometheus?service=nobody", &[], None).await?;
    ensure!(none.status == 200 && none.text() == "[]", "{}", none.text());
    one.die().await;
    house.stop().await
}
