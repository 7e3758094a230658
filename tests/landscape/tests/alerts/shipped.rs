//! Every shipped rule about services fires on a landscape in which that goes wrong, and is over once it is well again.
//!
//! What cannot be made to happen to this machine, a disk that is full, is told by a program as any stock OpenTelemetry SDK
//! would tell it.

use std::process::Stdio;
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use tests_landscape::load::Load;
use tests_landscape::{Landscape, http, ninefold, signal, until};
use tokio::process::Child;

/// Generous: the machine may be busy.
const SOON: Duration = Duration::from_secs(150);
const SETTINGS: &str = "[alert]\nevery = \"500ms\"\nshipped_window = \"20s\"\nshipped_wait_max = \"1s\"\n\
                        [monitor.limits.services]\nloud = 2000\n";
/// What goes wrong at once.
const AT_ONCE: [&str; 8] = [
    "service_errors",
    "edge_errors",
    "breaker_opens",
    "instance_silent",
    "crash_loop",
    "resource_near_limit",
    "store_near_full",
    "telemetry_refused",
];
const SLOW: [&str; 2] = ["service_slow", "edge_slow"];

/// What fires of some rules.
async fn firing(house: &Landscape, rules: &[&str]) -> Result<Vec<String>> {
    let alerts = house.ask(&["alerts"]).await?;
    // The disk of the machine that tests run on may be full in earnest.
    let is_ours = |alert: &Value| alert["rule"] != "store_near_full" || alert["labels"]["instance"] == "stock-1";
    let fires = |alert: &&Value| alert["state"] == "ALERT_STATE_FIRING" && is_ours(alert);
    let names = alerts.as_array().into_iter().flatten().filter(fires).filter_map(|alert| alert["rule"].as_str());
    let mut names: Vec<String> = names.filter(|name| rules.contains(name)).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

async fn set(house: &Landscape, service: &str, value: &str) -> Result<()> {
    let said = house.run(&["config", "set", service, value]).await?;
    ensure!(said.code == 0, "{}", said.stderr);
    Ok(())
}

/// A program that `ninefold run` holds.
fn greeter(house: &Landscape) -> Result<Child> {
    let mut command = ninefold("run", &["--name", "greeter", "--protocol", "http", "--endpoint", &house.endpoint()])?;
    command.args(["--", "sh", "-c", "exec python3 -m http.server -b 127.0.0.1 $PORT"]);
    Ok(command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn()?)
}

fn resource(service: &str) -> Value {
    json!({"attributes": [
        {"key": "service.name", "value": {"stringValue": service}},
        {"key": "service.instance.id", "value": {"stringValue": format!("{service}-1")}},
    ]})
}

fn now() -> String {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}

/// A program tells what it uses of a hundred.
async fn uses(house: &Landscape, used: f64) -> Result<()> {
    let gauge = |name: &str, value: f64| json!({"name": name, "unit": "By", "gauge": {"dataPoints": [{"timeUnixNano": now(), "asDouble": value}]}});
    let metrics = [
        gauge("process.memory.usage", used),
        gauge("process.memory.limit", 100.0),
        gauge("system.filesystem.usage", used),
        gauge("system.filesystem.limit", 100.0),
    ];
    let body = json!({"resourceMetrics": [{"resource": resource("stock"), "scopeMetrics": [{"metrics": metrics}]}]});
    let answer = http::request(&house.address("otlpHttp"), "POST", "/v1/metrics", &[], Some(body)).await?;
    ensure!(answer.status == 200, "{}", answer.text());
    Ok(())
}

/// A program sends more than its share.
async fn shout(house: &Landscape) -> Result<()> {
    let line = json!({"timeUnixNano": now(), "body": {"stringValue": "x".repeat(500)}});
    let records = vec![line; 20];
    let body = json!({"resourceLogs": [{"resource": resource("loud"), "scopeLogs": [{"logRecords": records}]}]});
    http::request(&house.address("otlpHttp"), "POST", "/v1/logs", &[], Some(body)).await?;
    Ok(())
}

/// Kills all instances of a service.
async fn kill(house: &Landscape, service: &str) -> Result<()> {
    for pid in house.pids(service).await? {
        // It may be gone by itself.
        let _ = signal(pid, Signal::KILL);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_in_a_landscape_is_told_without_a_rule_and_is_over_when_it_is_well() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let settings = folder.path().join("settings.toml");
    std::fs::write(&settings, SETTINGS)?;
    let house = Landscape::demo(&["--config", &settings.display().to_string()]).await?;
    let load = Load::on(&house.address("edge"), "/v1/products/1");
    let first = greeter(&house)?;
    until("the greeter serves", SOON, || async { Ok(house.serving("greeter").await? == 1) }).await?;
    ensure!(firing(&house, &AT_ONCE).await?.is_empty(), "{:?}", firing(&house, &AT_ONCE).await?);

    set(&house, "product", "fail=1").await?;
    for pid in [first.id()].into_iter().flatten() {
        signal(pid, Signal::KILL)?;
    }
    let mut seen = std::collections::BTreeSet::new();
    let begun = tokio::time::Instant::now();
    while seen.len() < AT_ONCE.len() {
        ensure!(begun.elapsed() < SOON, "of {AT_ONCE:?} only {seen:?} fired");
        kill(&house, "review").await?;
        shout(&house).await?;
        uses(&house, 95.0).await?;
        seen.extend(firing(&house, &AT_ONCE).await?);
    }

    set(&house, "product", "fail=0").await?;
    let second = greeter(&house)?;
    until("all of it is over", SOON, || async {
        uses(&house, 10.0).await?;
        Ok(firing(&house, &AT_ONCE).await?.is_empty())
    })
    .await?;

    set(&house, "product", "delay=2500ms").await?;
    until("what is slow is told", SOON, || async { Ok(firing(&house, &SLOW).await?.len() == SLOW.len()) }).await?;
    set(&house, "product", "delay=0s").await?;
    until("it is quick again", SOON, || async { Ok(firing(&house, &SLOW).await?.is_empty()) }).await?;
    load.stop().await;
    drop(second);
    house.stop().await
}
