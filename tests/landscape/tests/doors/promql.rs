//! A real Prometheus writes what it knows into the landscape, and both are asked the same.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests_landscape::{Landscape, ended, http, tools, until};
use tokio::process::Command;

const SOON: Duration = Duration::from_secs(60);

/// Questions that both answer alike: of one time, so that nothing comes in between.
const QUESTIONS: [&str; 8] = [
    "count(up)",
    "prometheus_build_info",
    "sum by (job) (rate(prometheus_http_requests_total[10s]))",
    "histogram_quantile(0.9, sum by (le) (rate(prometheus_http_request_duration_seconds_bucket[10s])))",
    "topk(3, go_memstats_mallocs_total) / 2",
    "go_goroutines > bool 10",
    "max_over_time(process_open_fds[10s]) + on (instance) group_left process_max_fds",
    "label_replace(go_info, \"major\", \"$1\", \"version\", \"go(.).*\")",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_prometheus_writes_is_answered_as_prometheus_answers_it() -> Result<()> {
    let house = Landscape::up(&[]).await?;
    let folder = tempfile::tempdir()?;
    let address = tools::free_address()?;
    let config = format!(
        "global:\n  scrape_interval: 1s\nscrape_configs:\n- job_name: itself\n  static_configs:\n  - targets: ['{address}']\n\
         remote_write:\n- url: http://{}/api/v1/write\n",
        house.address("otlpHttp")
    );
    std::fs::write(folder.path().join("prometheus.yml"), config)?;
    let _prometheus = Command::new("prometheus")
        .args(["--config.file", "prometheus.yml", "--storage.tsdb.path", "data", "--web.listen-address", &address])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("prometheus is not installed: apt-get install prometheus, or run ./check")?;
    let platform = house.address("platform");
    let newest = || async {
        let query = "/api/v1/query?query=timestamp(up)";
        let answer = http::request(&platform, "GET", query, &[], None).await?.json()?;
        anyhow::Ok(answer["data"]["result"][0]["value"][1].as_str().and_then(|text| text.parse::<f64>().ok()))
    };
    let begin = until("the first sample came", SOON, || async { Ok(newest().await?.is_some()) }).await;
    begin?;
    let first = newest().await?.context("a sample")?;
    until("samples of ten seconds came", SOON, || async { Ok(newest().await?.is_some_and(|at| at > first + 12.0)) })
        .await?;

    let at = first + 10.5;
    for question in QUESTIONS {
        let query = format!("query={}&time={at}", escaped(question));
        let ours = asked(&platform, &query).await?;
        let theirs = asked(&address, &query).await?;
        ensure!(ours == theirs && !ours.is_empty(), "{question}\nours:   {ours:?}\ntheirs: {theirs:?}");
    }
    let told = http::request(&platform, "GET", "/api/v1/metadata?metric=go_goroutines", &[], None).await?.json()?;
    ensure!(told["status"] == "success", "{told}");
    let jobs = http::request(&platform, "GET", "/api/v1/label/job/values", &[], None).await?.json()?;
    ensure!(jobs["data"].as_array().is_some_and(|jobs| jobs.contains(&"itself".into())), "{jobs}");

    let mut promtool = Command::new("promtool");
    promtool.args(["query", "instant", &house.endpoint(), "count by (job) (up)"]);
    let said = ended(promtool).await?.stdout;
    ensure!(said.contains("{job=\"itself\"} => 1"), "{said}");

    let counted = house.ask(&["metrics", "count by (job) (up)"]).await?;
    ensure!(counted["series"][0]["labels"]["job"] == "itself", "{counted}");
    ensure!(counted["series"][0]["points"][0]["number"] == 1.0, "{counted}");
    let course = house.ask(&["metrics", "up", "--since", "30s", "--step", "1s"]).await?;
    ensure!(course["series"][0]["points"].as_array().is_some_and(|points| points.len() > 5), "{course}");

    for (path, status, word) in [
        ("/api/v1/query?query=up%7B", 400, "bad_data"),
        ("/api/v1/query_range?query=up&start=0&end=10&step=0", 400, "step"),
        ("/api/v1/query_range?query=up&start=0&end=1000000000&step=1", 400, "longer step"),
        ("/api/v1/series", 400, "match[]"),
    ] {
        let answer = http::request(&platform, "GET", path, &[], None).await?;
        ensure!(answer.status == status && answer.text().contains(word), "{path}: {} {}", answer.status, answer.text());
    }
    house.stop().await
}

/// The series of an answer, sorted.
async fn asked(server: &str, query: &str) -> Result<Vec<String>> {
    let answer = http::request(server, "GET", &format!("/api/v1/query?{query}"), &[], None).await?.json()?;
    ensure!(answer["status"] == "success", "{answer}");
    let mut series: Vec<String> =
        answer["data"]["result"].as_array().into_iter().flatten().map(Value::to_string).collect();
    series.sort();
    Ok(series)
}

fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |all, byte| format!("{all}%{byte:02X}"))
}
