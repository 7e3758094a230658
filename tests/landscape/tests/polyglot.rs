//! Programs in other languages, which know nothing of Ninefold.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tests_landscape::{Landscape, python, signal, tools, until};
use tokio::process::Command;

const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_python_service_without_anything_of_ours_joins_the_landscape() -> Result<()> {
    let work = tempfile::tempdir()?;
    python::generate(&python::folder().join("proto"), work.path()).await?;
    let house = Landscape::up(&[]).await?;
    let mut greeter = python::greeter(&house, work.path())?;
    let outcome = async {
        until("the greeter serves", SOON, || async { Ok(house.serving("greeter").await? == 1) }).await?;
        until("the edge leads to it", SOON, || async {
            let answer = house.get("/v1/greetings/Ada").await?;
            Ok(answer.status == 200 && answer.text().contains("Hello, Ada"))
        })
        .await?;
        let inside = house.ask(&["call", "greeter.v1.GreeterService/Greet", "-d", r#"{"name": "Bob"}"#]).await?;
        ensure!(inside["text"].as_str().is_some_and(|text| text.contains("Bob")), "{inside}");
        until("its lines are in the central logs", SOON, || async {
            let lines = house.ask(&["logs", "greeter"]).await?.to_string();
            Ok(lines.contains("greeting Ada") && lines.contains("a line for people who read errors"))
        })
        .await?;
        until("what it uses is measured", SOON, || async {
            Ok(house
                .instances("greeter")
                .await?
                .iter()
                .all(|instance| instance["memoryBytes"].as_u64() > Some(1 << 20)))
        })
        .await?;
        signal(greeter.id().context("the greeter runs")?, Signal::TERM)?;
        tokio::time::timeout(SOON, greeter.wait()).await.context("the greeter ends")??;
        until("it has left", SOON, || async { Ok(house.instances("greeter").await?.is_empty()) }).await
    }
    .await;
    outcome.with_context(|| std::fs::read_to_string(work.path().join("said")).unwrap_or_default())?;
    house.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_clients_call_the_shop_through_the_edge() -> Result<()> {
    let house = Landscape::demo(&["--no-traffic"]).await?;
    python_is_content(&house).await?;
    typescript_is_content(&house).await?;
    house.stop().await
}

async fn python_is_content(house: &Landscape) -> Result<()> {
    let work = tempfile::tempdir()?;
    python::generate(&tools::repository().join("examples/shop/proto"), work.path()).await?;
    let mut command = Command::new(tools::python("python")?);
    command.arg(python::folder().join("shop_client.py")).arg(house.address("edge")).env("PYTHONPATH", work.path());
    let ended = python::done(command).await?;
    ensure!(ended.stdout.contains("python is content"), "{ended:?}");
    Ok(())
}

async fn typescript_is_content(house: &Landscape) -> Result<()> {
    let work = tempfile::tempdir()?;
    let modules = tools::node_modules()?;
    std::os::unix::fs::symlink(&modules, work.path().join("node_modules"))?;
    std::fs::copy(python::folder().join("shop_client.ts"), work.path().join("shop_client.ts"))?;
    std::fs::write(work.path().join("package.json"), r#"{"type": "module"}"#)?;

    let plugin = modules.join(".bin/protoc-gen-es");
    let template = serde_json::json!({"version": "v2", "plugins": [
        {"local": plugin, "out": work.path().join("gen"), "opt": ["target=ts", "import_extension=js"], "include_imports": true}
    ]});
    let mut generate = Command::new(tools::python("buf")?);
    generate.arg("generate").arg(tools::repository().join("examples/shop/proto"));
    generate.arg("--template").arg(template.to_string());
    python::done(generate).await?;

    let mut compile = Command::new(modules.join(".bin/tsc"));
    compile.args(["--strict", "--target", "es2022", "--module", "nodenext", "--moduleResolution", "nodenext"]);
    compile.args(["--skipLibCheck", "--types", "node", "shop_client.ts"]).current_dir(work.path());
    python::done(compile).await?;
    let mut run = Command::new("node");
    run.arg("shop_client.js").arg(format!("http://{}", house.address("edge"))).current_dir(work.path());
    let ended = python::done(run).await?;
    ensure!(ended.stdout.contains("typescript is content"), "{ended:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_opentelemetry_sdk_is_heard_by_grpc_and_http() -> Result<()> {
    let house = Landscape::up(&[]).await?;
    let mut command = Command::new(tools::python("python")?);
    command.arg(python::folder().join("telemetry.py"));
    command.arg(format!("http://{}", house.address("otlpGrpc"))).arg(format!("http://{}", house.address("otlpHttp")));
    let ended = python::done(command).await?;
    let ids: Vec<&str> = ended.stdout.lines().collect();
    ensure!(ids.len() == 2, "{ended:?}");
    for (id, service) in ids.iter().zip(["stock-grpc", "stock-http"]) {
        let trace = house.ask(&["trace", id]).await?;
        ensure!(trace["spans"][0]["service"] == service && trace["spans"][0]["name"] == "pump", "{trace}");
        ensure!(trace["records"][0]["body"] == "water flows", "the trace has its line: {trace}");
    }
    house.stop().await
}
