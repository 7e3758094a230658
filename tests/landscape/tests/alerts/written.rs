//! What people write is what is watched and told: rules on lines and on metrics that wait and fire on, groups, what explains what,
//! objectives of one line, receivers that refuse for a while, a word that all is well, and files of Prometheus' rules.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests_landscape::{Landscape, ended, http, until};
use tokio::process::Command;

use super::{People, SETTINGS, SOON, fires, write};

/// Rules as Prometheus' people have them.
const FILE: &str = r#"
groups:
- name: shop
  interval: 30s
  rules:
  - record: shop:answers:sum
    expr: vector(42)
  - alert: Answered
    expr: shop:answers:sum{job=""} > 41
    labels: {severity: info, house: "of {{ $value }}"}
    annotations: {summary: "it is {{ $value | humanize }}"}
  - alert: Answered
    expr: vector(0) > 1
    for: 1h30m
    labels: {severity: critical}
"#;

async fn post(house: &Landscape, path: &str, body: &Value) -> Result<()> {
    let answer = http::request(&house.address("otlpHttp"), "POST", path, &[], Some(body.clone())).await?;
    ensure!(answer.status == 200, "{path}: {answer:?}");
    Ok(())
}

fn resource(service: &str) -> Value {
    json!({"attributes": [{"key": "service.name", "value": {"stringValue": service}}]})
}

fn nanos_ago(ago: Duration) -> Result<String> {
    let then = SystemTime::now().checked_sub(ago).context("a time")?;
    Ok(then.duration_since(SystemTime::UNIX_EPOCH)?.as_nanos().to_string())
}

/// Lines of a service that say that it fails.
async fn lines(house: &Landscape, count: usize) -> Result<()> {
    let line = json!({
        "timeUnixNano": nanos_ago(Duration::ZERO)?, "severityNumber": 17,
        "body": {"stringValue": "the pump is stuck"},
        "attributes": [{"key": "pump.number", "value": {"stringValue": "7"}}],
    });
    let logs = json!([{"resource": resource("pump"), "scopeLogs": [{"logRecords": vec![line; count]}]}]);
    post(house, "/v1/logs", &json!({"resourceLogs": logs})).await
}

/// Calls of a service over the last two minutes, half of which fail.
async fn calls(house: &Landscape) -> Result<()> {
    let mut points = Vec::new();
    for (code, step) in [("0", 8_u32), ("13", 8)] {
        for ago in 0..step {
            points.push(json!({
                "asInt": (100 * (step - ago)).to_string(), "startTimeUnixNano": nanos_ago(Duration::from_secs(300))?,
                "timeUnixNano": nanos_ago(Duration::from_secs(u64::from(ago) * 15))?,
                "attributes": [{"key": "rpc.grpc.status_code", "value": {"stringValue": code}}],
            }));
        }
    }
    points.sort_by_key(|point| point["timeUnixNano"].as_str().map(str::to_owned));
    let sum = json!({"aggregationTemporality": 2, "isMonotonic": true, "dataPoints": points});
    let metrics = json!([{"name": "rpc.server.calls", "sum": sum}]);
    let of = json!([{"resource": resource("review"), "scopeMetrics": [{"metrics": metrics}]}]);
    post(house, "/v1/metrics", &json!({"resourceMetrics": of})).await
}

/// Alerts of a rule.
async fn of_rule(house: &Landscape, rule: &str) -> Result<Vec<Value>> {
    let alerts = house.ask(&["alerts"]).await?;
    Ok(alerts.as_array().into_iter().flatten().filter(|alert| alert["rule"] == rule).cloned().collect())
}

async fn any_fires(house: &Landscape, rule: &str) -> Result<bool> {
    Ok(of_rule(house, rule).await?.iter().any(|alert| fires(Some(alert))))
}

fn document(people: &People) -> Value {
    let two =
        "label_replace(vector(1), \"job\", \"a\", \"\", \"\") or label_replace(vector(2), \"job\", \"b\", \"\", \"\")";
    let stuck =
        json!({"service": "pump", "level": "error", "query": "pump.number:7 \"is stuck\"", "within": "5s", "above": 2});
    let hook = |path: &str, only: &str| json!({"webhook": format!("http://{}/{path}", people.webhook), "only": {"alertname": only}});
    let mut alive = hook("alive", "alive");
    alive["repeat_every"] = json!("1s");
    json!({
        "rules": {
            "alive": {"expr": "vector(1)", "annotations": {"summary": "calls go out"}},
            "waits": {"expr": "vector(1)", "for": "2s"},
            "patient": {"expr": "vector(1)", "for": "720h"},
            "brief": {"logs": stuck},
            "long": {"logs": stuck, "keep_firing_for": "720h"},
            "elsewhere": {"logs": {"service": "pump", "query": "pump.number:8", "within": "1h"}},
            "pair": {"expr": two},
            "one": {"expr": "label_replace(vector(1), \"job\", \"a\", \"\", \"\")"},
            "explained": {"expr": two},
        },
        "objectives": {"reviews": {"service": "review", "objective": 99.9}},
        "inhibitions": {"cause": {"source": {"alertname": "one"}, "target": {"alertname": "explained"}, "equal": ["job"]}},
        "receivers": {
            "alive": alive, "shy": hook("shy", "waits"), "pair": hook("pair", "pair"), "left": hook("left", "explained"),
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_watched_and_told_as_it_is_written() -> Result<()> {
    let people = People::start().await?;
    let house = Landscape::up_with(SETTINGS).await?;
    write(&house, people.folder.path(), &document(&people)).await?;

    until("what waits fires", SOON, || any_fires(&house, "waits")).await?;
    let waited = of_rule(&house, "waits").await?.remove(0);
    let seconds = |field: &str| Some(waited[field].as_str()?.parse::<prost_types::Timestamp>().ok()?.seconds);
    let (active, firing) = (seconds("activeSince").context("a time")?, seconds("firingSince").context("a time")?);
    ensure!(firing - active >= 2, "it fires no earlier than it was to: {waited}");
    ensure!(of_rule(&house, "patient").await?[0]["state"] == "ALERT_STATE_PENDING", "and others wait on");

    let both_fire = async || {
        lines(&house, 3).await?;
        Ok(any_fires(&house, "brief").await? && any_fires(&house, "long").await?)
    };
    until("what lines say fires", SOON, both_fire).await?;
    until("it is over with them", SOON, || async { Ok(of_rule(&house, "brief").await?.is_empty()) }).await?;
    ensure!(any_fires(&house, "long").await?, "but not what is to fire on");
    ensure!(of_rule(&house, "elsewhere").await?.is_empty(), "no line is of that pump");

    let at = |path: &'static str| people.heard(path).into_iter().filter(|hook| hook["status"] == "firing");
    until("two alerts are told", SOON, || async { Ok(at("webhook/pair").next().is_some()) }).await?;
    let pair = at("webhook/pair").next().context("heard")?;
    let jobs: Vec<_> = pair["alerts"].as_array().into_iter().flatten().map(|alert| &alert["labels"]["job"]).collect();
    ensure!(jobs == ["a", "b"] && pair["groupLabels"] == json!({"alertname": "pair"}), "as one group: {pair}");
    until("what is left is told", SOON, || async { Ok(at("webhook/left").next().is_some()) }).await?;
    let left = of_rule(&house, "explained").await?;
    let by =
        |job: &str| left.iter().find(|alert| alert["labels"]["job"] == job).map(|alert| alert["inhibitedBy"].clone());
    ensure!(by("a") == Some(json!("cause")) && by("b") != Some(json!("cause")), "{left:?}");

    until("one that refused twice is told", SOON, || async { Ok(at("webhook/shy").next().is_some()) }).await?;
    ensure!(people.heard("refused/shy").len() == 2, "and was told each time: {:?}", people.heard("refused/shy"));
    until("a word goes out again and again", SOON, || async { Ok(at("webhook/alive").count() >= 3) }).await?;
    let explained =
        |hook: &Value| hook["alerts"].as_array().into_iter().flatten().any(|alert| alert["labels"]["job"] == "a");
    ensure!(!at("webhook/left").any(|hook| explained(&hook)), "what is explained called nobody");

    calls(&house).await?;
    let burns = async || {
        Ok(of_rule(&house, "reviews_burn_1")
            .await?
            .first()
            .is_some_and(|alert| alert["labels"]["severity"] == "critical"))
    };
    until("a budget burns", SOON, burns).await?;
    house.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_prometheus_are_taken_as_they_are() -> Result<()> {
    let house = Landscape::up_with(SETTINGS).await?;
    let folder = tempfile::tempdir()?;
    let place = |name: &str| folder.path().join(name).display().to_string();
    let (file, spoiled, document) = (place("shop.yml"), place("spoiled.yml"), place("alerts.json"));
    std::fs::write(&file, FILE)?;
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "rules", &file]);
    let said = ended(promtool).await?;
    ensure!(said.code == 0, "promtool takes it, too: {said:?}");
    let checked = house.ask(&["alerts", "check", &file]).await?;
    ensure!(checked["rules"].as_u64().is_some_and(|rules| rules > 3), "{checked}");
    std::fs::write(&spoiled, FILE.replace("vector(0) > 1", "vector(0 > 1"))?;
    let refused = house.run(&["alerts", "check", &file, &spoiled]).await?;
    ensure!(refused.code == 2 && refused.stderr.contains("spoiled.yml:12: "), "{refused:?}");

    std::fs::write(&document, json!({"rules": {"mine": {"expr": "vector(1)"}}}).to_string())?;
    let imported = house.run(&["alerts", "import", &file, "--into", &document]).await?;
    ensure!(imported.code == 0 && imported.stderr.contains("interval 30s is left out"), "{imported:?}");
    std::fs::write(&document, &imported.stdout)?;
    let set = house.run(&["config", "set", "alerts", "--file", &document]).await?;
    ensure!(set.code == 0, "{}", set.stderr);
    until("they are watched", SOON, || any_fires(&house, "Answered")).await?;
    let alert = of_rule(&house, "Answered").await?.remove(0);
    ensure!(alert["annotations"]["summary"] == "it is 42" && alert["labels"]["house"] == "of 42", "{alert}");
    until("beside others", SOON, || any_fires(&house, "mine")).await?;
    let rules = house.ask(&["alerts", "rules"]).await?;
    let second = rules.as_array().into_iter().flatten().find(|rule| rule["name"] == "Answered_2").cloned();
    ensure!(second.as_ref().is_some_and(|rule| rule["for"] == "5400s" && rule["problem"].is_null()), "{second:?}");
    house.stop().await
}
