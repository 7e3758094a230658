//! Questions of people about what happened: SQL, the live view, traces beside each other, and where a line comes from.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests_landscape::{Landscape, ended, http, tools, until};
use tokio::process::Command;

const SOON: Duration = Duration::from_secs(90);
const OPERATION: &str = "shop.composite.v1.CompositeService/GetProduct";

#[tokio::test(flavor = "multi_thread")]
async fn a_person_asks_the_landscape_and_is_answered() -> Result<()> {
    let house = Landscape::demo(&[]).await?;
    let traces = || async {
        let found = house.ask(&["trace", "--operation", OPERATION, "-n", "2"]).await?;
        let ids = found.as_array().into_iter().flatten().filter_map(|trace| trace["traceId"].as_str());
        anyhow::Ok(ids.map(str::to_owned).collect::<Vec<_>>())
    };
    until("there are two traces", SOON, || async { Ok(traces().await?.len() == 2) }).await?;
    sql(&house).await?;
    let ids = traces().await?;
    beside(&house, &ids[0], &ids[1]).await?;
    top(&house).await?;
    origin(&house).await?;
    house.stop().await
}

async fn sql(house: &Landscape) -> Result<()> {
    let statement = "select s.service, count(*) as spans, count(distinct l.body) as bodies \
                     from spans s join logs l using (trace_id) group by 1 order by 1";
    let rows = || async { Ok(house.ask(&["query", statement]).await?.as_array().is_some_and(|rows| rows.len() >= 4)) };
    until("lines and spans of all services are joined", SOON, rows).await?;
    let rows = house.ask(&["query", statement]).await?;
    ensure!(rows[0]["spans"].as_i64().is_some_and(|spans| spans > 0), "{rows}");
    let mut command = Command::new(tests_landscape::binary()?);
    command.args(["query", "select 1 as a, 'x,y' as b, null as c", "-o", "csv", "--endpoint", &house.endpoint()]);
    let csv = ended(command).await?;
    ensure!(csv.stdout == "a,b,c\n1,\"x,y\",\n", "{csv:?}");
    let samples = || async {
        let statement = "select count(*) as n from samples where job = 'product'";
        let rows = house.ask(&["query", statement, "--samples", "{job=\"product\"}"]).await?;
        Ok(rows[0]["n"].as_i64().is_some_and(|n| n > 0))
    };
    until("samples are counted", SOON, samples).await?;
    for (statement, word) in [
        ("delete from logs", "one SELECT"),
        ("select servce from logs", "no such column: servce"),
        ("attach '/tmp/x' as x", "one SELECT"),
    ] {
        let said = house.run(&["query", statement]).await?;
        ensure!(said.code == 2 && said.stderr.contains(word), "{statement}: {said:?}");
    }
    // One that would take for ever is stopped by the monitor, and its word for that reaches the person.
    let said = house.run(&["query", "select count(*) from logs a, logs b, logs c, logs d, logs e"]).await?;
    ensure!(said.code != 0 && said.stderr.contains("QUERY_TOO_"), "{said:?}");
    // A request that is not behind -d is not silently left out.
    let method = "ninefold.monitor.v1.MonitorService/DeleteLogs";
    let said = house.run(&["call", method, r#"{"filter":{"service":"product"}}"#]).await?;
    ensure!(said.code == 2 && said.stderr.contains("behind -d"), "{said:?}");
    let body = json!({ "statement": "select count(*) as n from logs", "query": "level>=info" });
    let address = house.address("platform");
    let answer = http::request(&address, "POST", "/v1/sql:query", &[], Some(body)).await?.json()?;
    ensure!(answer["columns"][0] == "n" && answer["rows"][0]["values"][0]["integer"].is_string(), "{answer}");
    Ok(())
}

async fn beside(house: &Landscape, one: &str, other: &str) -> Result<()> {
    let trace = house.ask(&["trace", one]).await?;
    let steps = trace["criticalPath"].as_array().context("a critical path")?;
    let spans = trace["spans"].as_array().context("spans")?;
    ensure!(!steps.is_empty() && steps.iter().all(|step| spans.iter().any(|span| span["spanId"] == step["spanId"])));
    let told = house.ask(&["trace", one, "--compare", other]).await?;
    let steps = told["steps"].as_array().context("steps")?;
    let is_in_both = |step: &&Value| step["one"]["spans"].is_number() && step["other"]["spans"].is_number();
    ensure!(steps.iter().filter(is_in_both).count() > 2, "{told}");
    let said = house.run(&["trace", one, "--compare", &"0a".repeat(16)]).await?;
    ensure!(said.code != 0 && said.stderr.contains("no trace"), "{said:?}");
    Ok(())
}

async fn top(house: &Landscape) -> Result<()> {
    let is_told = || async {
        let frame = house.ask(&["top", "--sort", "calls"]).await?;
        let told = |row: &Value| row["callsPerSecond"].is_number() && row["memoryBytes"].is_number();
        let all =
            |key: &str| frame[key].as_array().is_some_and(|rows| rows.iter().filter(|row| told(row)).count() >= 4);
        Ok(all("services") && all("instances"))
    };
    until("services and instances tell of calls and memory", SOON, is_told).await?;
    let mut terminal = Command::new("python3");
    terminal.arg(tools::repository().join("tests/landscape/terminal.py")).args(["60", "INSTANCE"]);
    terminal.arg(tests_landscape::binary()?).args(["top", "--every", "200ms", "--endpoint", &house.endpoint()]);
    let said = ended(terminal).await?;
    ensure!(said.code == 0, "{said:?}");
    ensure!(said.stdout.contains("product-composite") && said.stdout.contains("\x1b[?1049l"), "{said:?}");
    Ok(())
}

async fn origin(house: &Landscape) -> Result<()> {
    let said = house.run(&["config", "set", "review", "page_size=4"]).await?;
    ensure!(said.code == 0, "{said:?}");
    let is_known = || async {
        let lines = house.ask(&["logs", "review", "--query", "trace:*", "-n", "1", "--origin"]).await?;
        let line = &lines[0];
        let config = &line["origin"]["configuredWith"][0];
        Ok(config["service"] == "review"
            && config["revision"] == "1"
            && line["origin"]["trace"]["spans"].is_number()
            && line["instance"]["service"] == "review"
            && line["origin"]["metrics"].as_array().is_some_and(|metrics| metrics.len() > 5))
    };
    until("a line leads to its trace, instance, metrics and revision", SOON, is_known).await
}
