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

/// What `promtool check metrics` says of a page.
async fn checked(page: &[u8]) -> Result<String> {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("promtool is not installed: apt-get install prometheus, or run ./check")?;
    let mut input = promtool.stdin.take().context("a pipe")?;
    tokio::io::AsyncWriteExt::write_all(&mut input, page).await?;
    drop(input);
    let said = promtool.wait_with_output().await?;
    let told = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    Ok(if said.status.success() { String::new() } else { told })
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_scrapes_the_platform() -> Result<()> {
    let house = Landscape::up(&[]).await?;
    let platform = house.address("platform");
    let folder = tempfile::tempdir()?;
    let config = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: platform\n  static_configs: [{{targets: ['{platform}']}}]\n\
         - job_name: landscape\n  metrics_path: /federate\n  honor_labels: true\n  params: {{'match[]': ['{{job!=\"\"}}']}}\n  \
         static_configs: [{{targets: ['{platform}']}}]\n"
    );
    std::fs::write(folder.path().join("prometheus.yml"), config)?;
    let address = tools::free_address()?;
    let _prometheus = Command::new("prometheus")
        .args(["--config.file", "prometheus.yml", "--storage.tsdb.path", "data", "--web.listen-address", &address])
        .arg("--enable-feature=exemplar-storage")
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("prometheus is not installed: apt-get install prometheus, or run ./check")?;
    let value = async |query: &str| {
        let answer =
            http::request(&address, "GET", &format!("/api/v1/query?query={query}"), &[], None).await?.json()?;
        anyhow::Ok(answer["data"]["result"][0]["value"][1].as_str().unwrap_or_default().to_owned())
    };
    // Its own name and address, given by whoever scrapes; what the node says of others keeps theirs.
    until("it scraped the node", SOON, || async {
        let up = value("count(up==1)").await.unwrap_or_default();
        Ok(up == "2" && !value("process_memory_usage_bytes%7Bjob%3D%22platform%22%7D").await?.is_empty())
    })
    .await?;
    until("and what the node keeps", SOON, || async {
        Ok(!value("process_memory_usage_bytes%7Bjob%3D%22ninefold%22%7D").await?.is_empty())
    })
    .await?;
    let kinds = http::request(&address, "GET", "/api/v1/metadata?metric=process_cpu_time_seconds", &[], None).await?;
    let other =
        http::request(&address, "GET", "/api/v1/metadata?metric=process_cpu_time_seconds_total", &[], None).await?;
    ensure!(format!("{}{}", kinds.text(), other.text()).contains("counter"), "{} {}", kinds.text(), other.text());

    let plain = http::request(&platform, "GET", "/metrics", &[], None).await?;
    ensure!(plain.header("content-type").starts_with("text/plain; version=0.0.4"), "{:?}", plain.headers);
    ensure!(plain.text().contains("# TYPE process_memory_usage_bytes gauge\n"), "{}", plain.text());
    // Names that OpenTelemetry gives to processes end in "count"; of nothing else there is anything to say.
    let wrong = checked(&plain.body).await?;
    let wrong: Vec<&str> = wrong.lines().filter(|line| !line.contains("should not have \"_count\" suffix")).collect();
    ensure!(wrong.is_empty(), "{wrong:?}");
    let accept = [("accept", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5")];
    let open = http::request(&platform, "GET", "/metrics", &accept, None).await?;
    ensure!(
        open.header("content-type").starts_with("application/openmetrics-text; version=1.0.0"),
        "{:?}",
        open.headers
    );
    ensure!(open.text().ends_with("# EOF\n"), "{}", open.text());
    let none = http::request(&platform, "GET", "/federate", &[], None).await?;
    ensure!(none.status == 400 && none.text().contains("match[]"), "{} {}", none.status, none.text());
    house.stop().await
}
