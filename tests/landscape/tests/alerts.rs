//! Somebody is called: an alert fires on real load, is told to a webhook, by e-mail and to a real Alertmanager, fires on over the
//! death of the node, is silenced, and ends. The samples that it fires on survive the death, too.

#[path = "alerts/shipped.rs"]
mod shipped;
#[path = "alerts/written.rs"]
mod written;

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests_landscape::load::Load;
use tests_landscape::{Landscape, ended, http, tools, until};
use tokio::process::{Child, Command};

/// Generous: the machine may be busy.
const SOON: Duration = Duration::from_secs(120);
const SETTINGS: &str = "[alert]\nevery = \"500ms\"\ngrace = \"90s\"\n[monitor]\nsamples_file_every = \"3s\"\n";
const RULE: &str = "sum by (job) (increase(http_server_request_duration_seconds_count[30s])) > 5";
/// What a rule keeps.
const KEPT: &str = "job:http_requests:increase30s";

/// Who is called, and what they heard.
struct People {
    folder: tempfile::TempDir,
    webhook: String,
    letters: String,
    alertmanager: String,
    _running: [Child; 2],
}

impl People {
    async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let program = tools::repository().join("tests/landscape/alerts/receive.py");
        let mut receiver = Command::new("python3");
        let ports = folder.path().join("ports");
        receiver.arg(program).arg(folder.path().join("heard")).arg(&ports);
        std::fs::write(
            folder.path().join("alertmanager.yml"),
            "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n",
        )?;
        let alertmanager = tools::free_address()?;
        let mut manager = Command::new("prometheus-alertmanager");
        manager.args(["--config.file", "alertmanager.yml", "--storage.path", "data", "--cluster.listen-address="]);
        manager.args(["--web.listen-address", &alertmanager]).current_dir(folder.path());
        let start =
            |command: &mut Command| command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn();
        let manager = start(&mut manager).context("apt-get install prometheus-alertmanager, or run ./check")?;
        let running = [start(&mut receiver).context("python3 is not installed")?, manager];
        let ready = || async {
            let answer = http::request(&alertmanager, "GET", "/-/ready", &[], None).await;
            Ok(answer.is_ok_and(|answer| answer.status == 200))
        };
        until("Alertmanager is ready", SOON, ready).await?;
        until("it listens", SOON, || async { Ok(ports.exists()) }).await?;
        let ports = std::fs::read_to_string(&ports)?;
        let (webhook, letters) = ports.split_once(' ').context("two ports")?;
        let [webhook, letters] = [webhook, letters].map(|port| format!("127.0.0.1:{port}"));
        Ok(Self { folder, webhook, letters, alertmanager, _running: running })
    }

    /// What was heard by one way, in order.
    fn heard(&self, kind: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.path().join("heard")).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let is_meant =
            |line: &Value| line["kind"].as_str().is_some_and(|of| of == kind || of.strip_prefix(kind) == Some("/"));
        lines.filter(is_meant).map(|line| line["what"].clone()).collect()
    }

    /// How many webhooks said that something fires, or is over.
    fn hooks(&self, status: &str) -> usize {
        self.heard("webhook").iter().filter(|hook| hook["status"] == status).count()
    }

    async fn managed(&self) -> Result<Vec<Value>> {
        let mut amtool = Command::new("amtool");
        amtool.args(["alert", "query", "-o", "json", "--alertmanager.url", &format!("http://{}", self.alertmanager)]);
        let said = ended(amtool).await?;
        ensure!(said.code == 0, "amtool: {}", said.stderr);
        Ok(serde_json::from_str::<Value>(&said.stdout)?.as_array().cloned().unwrap_or_default())
    }

    fn document(&self, more: &Value) -> Value {
        let mut document = json!({
            "rules": {"busy": {
                "expr": RULE, "labels": {"severity": "info"},
                "annotations": {"summary": "{{job}} had {{ $value | round }} requests in half a minute"},
            }, "kept": {"record": KEPT, "expr": RULE, "labels": {"team": "doors"}}, "seen": {
                "expr": format!("{KEPT}{{team=\"doors\"}} > 5"), "labels": {"severity": "info"},
            }},
            "receivers": {
                "hook": {"webhook": format!("http://{}/", self.webhook), "only": {"alertname": "busy"}},
                "letters": {
                    "mail": {"server": self.letters, "plain": true, "from": "house@x.example", "to": ["me@x.example"]},
                    "only": {"alertname": "busy"},
                },
                "manager": {"alertmanager": format!("http://{}", self.alertmanager)},
            },
        });
        if let (Some(document), Some(more)) = (document.as_object_mut(), more.as_object()) {
            document.extend(more.clone());
        }
        document
    }
}

async fn write(house: &Landscape, folder: &Path, document: &Value) -> Result<()> {
    let file = folder.join("alerts.json");
    std::fs::write(&file, document.to_string())?;
    let file = file.display().to_string();
    house.ask(&["alerts", "check", &file]).await?;
    let said = house.run(&["config", "set", "alerts", "--file", &file]).await?;
    ensure!(said.code == 0, "{}", said.stderr);
    Ok(())
}

/// The alert, as the command shows it.
async fn busy(house: &Landscape) -> Result<Option<Value>> {
    let alerts = house.ask(&["alerts"]).await?;
    Ok(alerts.as_array().into_iter().flatten().find(|alert| alert["rule"] == "busy").cloned())
}

fn fires(alert: Option<&Value>) -> bool {
    alert.is_some_and(|alert| alert["state"] == "ALERT_STATE_FIRING")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_on_real_load_calls_people_and_outlives_the_node() -> Result<()> {
    let people = People::start().await?;
    let house = Landscape::up_with(SETTINGS).await?;
    let begun = SystemTime::now();
    write(&house, people.folder.path(), &people.document(&json!({}))).await?;
    let load = Load::on(&house.address("edge"), "/nothing-is-here");

    until("it fires", SOON, || async { Ok(fires(busy(&house).await?.as_ref())) }).await?;
    let since = busy(&house).await?.context("it fires")?["firingSince"].clone();
    until("the webhook heard it", SOON, || async { Ok(people.hooks("firing") == 1) }).await?;
    let hook = people.heard("webhook").remove(0);
    ensure!(hook["commonLabels"]["alertname"] == "busy" && hook["version"] == "4", "{hook}");
    let summary = hook["commonAnnotations"]["summary"].as_str().unwrap_or_default();
    ensure!(summary.starts_with("ninefold had ") && summary.ends_with(" requests in half a minute"), "{summary}");
    until("a letter came", SOON, || async { Ok(!people.heard("letter").is_empty()) }).await?;
    let letter = people.heard("letter").remove(0).to_string();
    ensure!(letter.contains("Subject: [FIRING1] busy ninefold") && letter.contains("me@x.example"), "{letter}");
    until("Alertmanager knows it", SOON, || async {
        Ok(people.managed().await?.iter().any(|alert| alert["labels"]["alertname"] == "busy"))
    })
    .await?;

    // Prometheus' API tells the same, and promtool reads what is measured.
    let told = http::request(&house.address("platform"), "GET", "/api/v1/alerts", &[], None).await?.json()?;
    let told = told["data"]["alerts"].as_array().cloned().unwrap_or_default();
    ensure!(told.iter().any(|alert| alert["labels"]["alertname"] == "busy" && alert["state"] == "firing"), "{told:?}");
    let rules =
        http::request(&house.address("platform"), "GET", "/api/v1/rules?type=alert", &[], None).await?.json()?;
    let rules = rules["data"]["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
    ensure!(rules.iter().any(|rule| rule["name"] == "crash_loop" && rule["health"] == "ok"), "{rules:?}");
    ensure!(!rules.iter().any(|rule| rule["type"] == "recording"), "only what was asked for: {rules:?}");
    let kept =
        http::request(&house.address("platform"), "GET", "/api/v1/rules?type=record", &[], None).await?.json()?;
    let kept = kept["data"]["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
    ensure!(kept.len() == 1 && kept[0]["type"] == "recording" && kept[0]["name"] == KEPT, "{kept:?}");
    ensure!(kept[0]["health"] == "ok" && kept[0]["labels"]["team"] == "doors", "{kept:?}");
    until("what is kept is asked by others", SOON, || async {
        let alerts = house.ask(&["alerts"]).await?;
        Ok(alerts.as_array().into_iter().flatten().any(|alert| alert["rule"] == "seen" && fires(Some(alert))))
    })
    .await?;
    for arguments in [["query", "instant"], ["query", "range"]] {
        let mut promtool = Command::new("promtool");
        promtool.args(arguments).args([&house.endpoint(), "sum by (job) (system_memory_limit_bytes)"]);
        let said = ended(promtool).await?;
        ensure!(
            said.code == 0 && said.stdout.contains("job=\"ninefold\""),
            "{arguments:?}: {}{}",
            said.stdout,
            said.stderr
        );
    }

    // What survives a death: the samples, since when it fires, and who was told.
    let died = SystemTime::now();
    let house = house.restart_where_it_was().await?;
    let evaluated = || async {
        let rules = house.ask(&["alerts", "rules"]).await?;
        Ok(rules.as_array().into_iter().flatten().any(|rule| rule["name"] == "busy" && rule["evaluated"].is_string()))
    };
    until("rules are asked again", SOON, evaluated).await?;
    let after = busy(&house).await?.context("it fires on after the death")?;
    ensure!(fires(Some(&after)) && after["firingSince"] == since, "{after} instead of since {since}");
    ensure!(people.hooks("resolved") == 0 && people.hooks("firing") == 1, "{:?}", people.heard("webhook"));
    let (query, back) = ("sum by (job) (http_server_request_duration_seconds_count)", begun.elapsed()?.as_secs() + 60);
    let course = house.ask(&["metrics", query, "--since", &format!("{back}s"), "--step", "1s"]).await?;
    let points = course["series"][0]["points"].as_array().cloned().unwrap_or_default();
    let kept = house.ask(&["metrics", KEPT, "--since", &format!("{back}s"), "--step", "1s"]).await?;
    let of_kept = kept["series"][0]["points"].as_array().cloned().unwrap_or_default();
    ensure!(kept["series"][0]["labels"]["team"] == "doors", "{kept}");
    let before = |point: &Value| {
        let time = point["time"].as_str().and_then(|time| time.parse::<prost_types::Timestamp>().ok());
        time.and_then(|time| SystemTime::try_from(time).ok()).is_some_and(|time| time < died)
    };
    ensure!(of_kept.iter().any(before), "nothing that was kept before the death: {kept}");
    ensure!(points.iter().any(before), "nothing that was measured before the death: {course}");

    let silence = json!({"silences": {"known": {
        "matching": {"alertname": "busy"}, "until": "2999-01-01T00:00:00Z", "reason": "a test"
    }}});
    // A silence so short that no round of calls falls into it changes nothing for who was told: it is given until one does.
    let told_again = || async {
        write(&house, people.folder.path(), &people.document(&silence)).await?;
        until("it is silenced", SOON, || async {
            Ok(busy(&house).await?.is_some_and(|alert| alert["silencedBy"] == "known" && fires(Some(&alert))))
        })
        .await?;
        ensure!(people.hooks("resolved") == 0, "what is silenced is not over: {:?}", people.heard("webhook"));
        write(&house, people.folder.path(), &people.document(&json!({}))).await?;
        let heard = || async { Ok(people.hooks("firing") > 1) };
        Ok(until("it is told again", Duration::from_secs(3), heard).await.is_ok())
    };
    until("what is no longer silenced is told again", SOON, told_again).await?;
    ensure!(people.hooks("firing") == 2, "once: {:?}", people.heard("webhook"));

    load.stop().await;
    until("it is over", SOON, || async { Ok(busy(&house).await?.is_none()) }).await?;
    until("what is kept ends with it", SOON, || async {
        Ok(house.ask(&["metrics", KEPT]).await?["series"].as_array().is_none_or(Vec::is_empty))
    })
    .await?;
    until("the webhook heard that", SOON, || async { Ok(people.hooks("resolved") == 1) }).await?;
    until("Alertmanager too", SOON, || async {
        Ok(!people.managed().await?.iter().any(|alert| alert["labels"]["alertname"] == "busy"))
    })
    .await?;
    house.stop().await
}
