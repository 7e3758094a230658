//! What Grafana's data sources ask of Prometheus, Loki and Jaeger, request by request as they send them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tests_landscape::{Landscape, http, until};

const SOON: Duration = Duration::from_secs(60);
const FORM: [(&str, &str); 1] = [("content-type", "application/x-www-form-urlencoded")];

fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |all, byte| format!("{all}%{byte:02X}"))
}

/// A door of the platform.
struct Door(String);

impl Door {
    async fn get(&self, path: &str) -> Result<Value> {
        let answer = http::request(&self.0, "GET", path, &[], None).await?;
        ensure!(answer.status == 200, "{path}: {} {}", answer.status, answer.text());
        answer.json()
    }

    async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Result<Value> {
        let form: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        let answer = http::request_bytes(&self.0, "POST", path, &FORM, form.join("&").into()).await?;
        ensure!(answer.status == 200, "{path}: {} {}", answer.status, answer.text());
        answer.json()
    }
}

fn has(values: &Value, wanted: &str) -> bool {
    values.as_array().is_some_and(|all| all.iter().any(|value| value == wanted))
}

#[tokio::test(flavor = "multi_thread")]
async fn grafanas_data_sources_get_what_they_ask_for() -> Result<()> {
    let house = Landscape::up(&[]).await?;
    let door = Door(house.address("platform"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let lines: Vec<Value> = (0..5_u64)
        .map(|at| {
            json!([
                (now.as_nanos() - u128::from(at)).to_string(),
                format!("level={} at={at}", if at == 0 { "error" } else { "info" })
            ])
        })
        .collect();
    let push = json!({"streams": [{"stream": {"service_name": "till", "region": "east"}, "values": lines}]});
    let pushed = http::request(&house.address("otlpHttp"), "POST", "/loki/api/v1/push", &[], Some(push)).await?;
    ensure!(pushed.status == 204, "{} {}", pushed.status, pushed.text());
    prometheus(&door, now.as_secs()).await?;
    loki(&door, now.as_secs()).await?;
    jaeger(&door, &house, now.as_secs()).await?;
    house.stop().await
}

async fn prometheus(door: &Door, now: u64) -> Result<()> {
    // Whether anybody is there, and of which kind.
    let there = door.post("/api/v1/query", &[("query", "1+1"), ("time", &now.to_string())]).await?;
    ensure!(there["data"]["resultType"] == "scalar" && there["data"]["result"][1] == "2", "{there}");
    ensure!(door.get("/api/v1/status/buildinfo").await?["data"]["version"].as_str().is_some());
    until("the node measured itself", SOON, || async {
        let up = door.post("/api/v1/query", &[("query", "count(process_memory_usage_bytes)")]).await?;
        Ok(up["data"]["result"][0]["value"][1].is_string())
    })
    .await?;
    let (start, end) = ((now - 300).to_string(), (now + 60).to_string());
    let query = "sum by (job) (rate(process_cpu_time_seconds_total[1m0s]))";
    let range = [("query", query), ("start", &start), ("end", &end), ("step", "15")];
    ensure!(door.post("/api/v1/query_range", &range).await?["data"]["resultType"] == "matrix");
    let times = format!("start={start}&end={end}");
    ensure!(has(&door.get(&format!("/api/v1/labels?{times}")).await?["data"], "job"));
    let matching = [("match[]", "process_memory_usage_bytes"), ("start", &start), ("end", &end)];
    ensure!(has(&door.post("/api/v1/labels", &matching).await?["data"], "job"));
    let names = door.get(&format!("/api/v1/label/__name__/values?{times}&limit=40000")).await?;
    ensure!(has(&names["data"], "process_memory_usage_bytes"), "{names}");
    let jobs =
        format!("/api/v1/label/job/values?{times}&match[]={}", escaped("process_memory_usage_bytes{job!=\"x\"}"));
    ensure!(has(&door.get(&jobs).await?["data"], "ninefold"));
    ensure!(door.post("/api/v1/series", &matching).await?["data"][0]["job"] == "ninefold");
    ensure!(door.get("/api/v1/metadata?limit=40000").await?["data"].is_object());
    let exemplars = [("query", query), ("start", &start), ("end", &end)];
    ensure!(door.post("/api/v1/query_exemplars", &exemplars).await?["data"].is_array());
    ensure!(door.get("/api/v1/rules?type=alert").await?["data"]["groups"].is_array());
    ensure!(door.get("/api/v1/alerts").await?["data"]["alerts"].is_array());
    let formatted = door.post("/api/v1/format_query", &[("query", "sum(up)by(job)")]).await?;
    ensure!(formatted["data"] == "sum by (job) (up)", "{formatted}");
    ensure!(door.post("/api/v1/parse_query", &[("query", "rate(up[5m] anchored)")]).await?["status"] == "success");
    Ok(())
}

async fn loki(door: &Door, now: u64) -> Result<()> {
    let at = |path: &str| format!("/loki/api/v1/{path}");
    let health = door.get(&at("query?query=vector(1)%2Bvector(1)&time=4000000000&limit=1&direction=backward")).await?;
    ensure!(health["data"]["result"][0]["value"][1] == "2", "{health}");
    let times = format!("start={}000000000&end={}000000000", now - 300, now + 60);
    let selector = escaped("{service_name=\"till\"}");
    until("what was pushed is there", SOON, || async {
        let labels = door.get(&at(&format!("labels?{times}&query={selector}"))).await?;
        Ok(has(&labels["data"], "region"))
    })
    .await?;
    ensure!(has(&door.get(&at(&format!("label/region/values?{times}&query={selector}"))).await?["data"], "east"));
    let series = door.get(&at(&format!("series?{times}&match[]={selector}"))).await?;
    ensure!(series["data"][0]["service_name"] == "till", "{series}");
    for (direction, first) in [("backward", "at=0"), ("forward", "at=4")] {
        let asked = format!("query_range?query={selector}&{times}&limit=1&direction={direction}&step=1000ms");
        let lines = door.get(&at(&asked)).await?;
        let streams = lines["data"]["result"].as_array().cloned().unwrap_or_default();
        ensure!(lines["data"]["resultType"] == "streams" && streams.len() == 1, "{lines}");
        ensure!(streams[0]["values"][0][1].as_str().is_some_and(|line| line.ends_with(first)), "{direction}: {lines}");
    }
    // The bars above the lines.
    let bars =
        escaped("sum by (level, detected_level) (count_over_time({service_name=\"till\"} | drop __error__[5s]))");
    let bars = door.get(&at(&format!("query_range?query={bars}&{times}&step=5s"))).await?;
    let levels = bars["data"]["result"].as_array().map_or(0, Vec::len);
    ensure!(bars["data"]["resultType"] == "matrix" && levels == 2, "{bars}");
    let stats = door.get(&at(&format!("index/stats?query={selector}&{times}"))).await?;
    ensure!(stats["streams"].is_u64() && stats["bytes"].is_u64(), "{stats}");
    let volume = door.get(&at(&format!("index/volume?query={selector}&{times}&targetLabels=region&limit=10"))).await?;
    ensure!(volume["data"]["result"][0]["metric"]["region"] == "east", "{volume}");
    let bytes = volume["data"]["result"][0]["value"][1].as_str().and_then(|text| text.parse::<f64>().ok());
    ensure!(bytes.is_some_and(|bytes| bytes > 50.0), "{volume}");
    let course = door.get(&at(&format!("index/volume_range?query={selector}&{times}&step=60s"))).await?;
    ensure!(course["data"]["resultType"] == "matrix" && course["data"]["result"][0]["values"].is_array(), "{course}");
    ensure!(door.get(&at("status/buildinfo")).await?["version"].is_string());
    // What Grafana can do without it gets 404 for.
    for path in ["patterns", "detected_fields", "detected_labels", "drilldown-limits"] {
        let answer = http::request(&door.0, "GET", &at(&format!("{path}?query={selector}&{times}")), &[], None).await?;
        ensure!(answer.status == 404, "{path}: {}", answer.status);
    }
    Ok(())
}

async fn jaeger(door: &Door, house: &Landscape, now: u64) -> Result<()> {
    let span = json!({"resourceSpans": [{
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "till"}}]},
        "scopeSpans": [{"spans": [{
            "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331", "name": "sell", "kind": 2,
            "startTimeUnixNano": format!("{now}000000000"), "endTimeUnixNano": format!("{now}500000000"),
            "attributes": [{"key": "till.number", "value": {"intValue": "7"}}], "status": {"code": 2},
        }]}],
    }]});
    let taken = http::request(&house.address("otlpHttp"), "POST", "/v1/traces", &[], Some(span)).await?;
    ensure!(taken.status == 200, "{}", taken.text());
    until("the service is known", SOON, || async { Ok(has(&door.get("/api/services").await?["data"], "till")) })
        .await?;
    ensure!(has(&door.get("/api/services/till/operations").await?["data"], "sell"));
    let micros = |seconds: u64| format!("{seconds}000000");
    let tags = escaped("{\"till.number\":\"7\",\"error\":\"true\"}");
    let asked = format!(
        "/api/traces?service=till&operation=sell&tags={tags}&minDuration=100ms&maxDuration=2s&limit=20&lookback=custom\
         &start={}&end={}",
        micros(now - 300),
        micros(now + 60)
    );
    let found = door.get(&asked).await?;
    ensure!(found["data"][0]["traceID"] == "0af7651916cd43dd8448eb211c80319c", "{found}");
    ensure!(found["data"][0]["spans"][0]["operationName"] == "sell", "{found}");
    let one = door.get("/api/traces/0af7651916cd43dd8448eb211c80319c").await?;
    ensure!(one["data"][0]["processes"].is_object(), "{one}");
    let none = http::request(&door.0, "GET", "/api/traces/00000000000000000000000000000001", &[], None).await?;
    ensure!(none.status == 404, "{}", none.status);
    ensure!(door.get(&format!("/api/dependencies?endTs={now}000&lookback=3600000")).await?["data"].is_array());
    Ok(())
}
