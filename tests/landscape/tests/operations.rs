//! Operators work on the edge while it works: settings, what is told of requests, what a request would meet.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use tests_landscape::load::Load;
use tests_landscape::{Landscape, http, ninefold, signal, until};
use tokio::process::Child;

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn the_edge_is_steered_live_and_tells_each_request() -> Result<()> {
    let house = Landscape::demo(&["--no-traffic"]).await?;
    let edge = house.address("edge");
    let status = async || Ok::<_, anyhow::Error>(house.get("/v1/products/1").await?.status);
    ensure!(status().await? == 200, "the shop is open");

    // Mistakes are told all at once, and nothing is written.
    let refused = house.run(&["config", "set", "edge", "deadline=0s", "headers_max=1", "colour=red"]).await?;
    ensure!(refused.code != 0 && refused.stderr.contains("colour"), "{refused:?}");
    let refused = house.run(&["config", "set", "edge", "deadline=0s", "headers_max=1"]).await?;
    for place in ["deadline", "headers_max"] {
        ensure!(refused.code != 0 && refused.stderr.contains(place), "{place} is not told: {refused:?}");
    }
    // Who goes past the command line is refused by the edge itself, and sees it.
    let body = serde_json::json!({"content": r#"{"deadline": "soon"}"#, "author": "somebody"});
    let platform = house.address("platform");
    let put = http::request(&platform, "PUT", "/v1/documents/edge/default", &[], Some(body));
    ensure!(put.await?.status == 200);
    until("the refusal is acknowledged", PATIENCE, async || {
        let acks = house.ask(&["config", "acks", "edge"]).await?;
        Ok(acks[0]["refusal"].as_str().is_some_and(|refusal| refusal.contains("deadline")))
    })
    .await?;
    ensure!(status().await? == 200, "the last good settings hold");

    house
        .ask(&[
            "config",
            "set",
            "edge",
            "deadline=",
            "traffic.product-composite.maintenance={\"text\":\"back soon\",\"retry_after\":\"60s\"}",
        ])
        .await?;
    until("the shop is closed", PATIENCE, async || Ok(status().await? == 503)).await?;
    let answer = house.get("/v1/products/1").await?;
    ensure!(answer.text().contains("back soon") && answer.text().contains("MAINTENANCE"), "{}", answer.text());
    house.ask(&["config", "set", "edge", "traffic.product-composite.maintenance="]).await?;
    until("the shop is open again", PATIENCE, async || Ok(status().await? == 200)).await?;
    let story = house.ask(&["why", "edge"]).await?.to_string();
    ensure!(story.contains("edge changed") || story.contains("edge_changed"), "{story}");
    ensure!(story.contains("deadline"), "the refusal is a part of the story: {story}");

    // One entry a request, found by its trace.
    let answer = http::request(&edge, "GET", "/v1/products/2", &[], None).await?;
    ensure!(answer.status == 200, "{}", answer.text());
    until("the access log tells the request", PATIENCE, async || {
        let lines = house.ask(&["logs", "edge", "--text", "/v1/products/{product_id}"]).await?;
        let text = lines.to_string();
        ensure!(!text.contains("/v1/products/2"), "what a caller sent is nobody's business: {text}");
        Ok(["http.route", "upstream.instance", "upstream_ms", "first_byte_ms", "request_bytes", "grpc.code"]
            .iter()
            .all(|name| text.contains(name)))
    })
    .await?;

    // What a request would meet, without sending it.
    let text = house.ask(&["route", "test", "GET", "/v1/products/7"]).await?;
    ensure!(text["route"]["template"] == "/v1/products/{product_id}" && text["refusal"].is_null(), "{text}");
    ensure!(text["request"] == r#"{"productId":7}"#, "{text}");
    ensure!(text["candidates"][0]["chosen"] == true, "{text}");
    let near = text["nearMisses"].to_string();
    ensure!(
        near.contains("it takes DELETE, not GET") && near.contains("it ends in :watch") || near.contains("path ends"),
        "{text}"
    );
    let refused = house.ask(&["route", "test", "GET", "/v1/products/seven"]).await?;
    ensure!(refused["refusal"].as_str().is_some_and(|why| why.contains("product_id")), "{refused}");
    let unknown = house.run(&["route", "test", "GET", "/v1/product/7"]).await?;
    ensure!(unknown.code != 0 && unknown.stdout.contains("segment 2 is"), "{unknown:?}");
    house.stop().await
}

/// A plain web server under `ninefold run`, with a folder that says who it is.
fn web(house: &Landscape, folder: &std::path::Path, who: &str) -> Result<Child> {
    let pages = folder.join(who);
    std::fs::create_dir_all(&pages)?;
    std::fs::write(pages.join("who.txt"), who)?;
    let mut command = ninefold("run", &["--name", "web", "--instance-id", who, "--protocol", "http"])?;
    command.args(["--endpoint", &house.endpoint(), "--", "sh", "-c"]);
    command.arg("echo $$ > pid; exec python3 -m http.server -b 127.0.0.1 $PORT").current_dir(pages);
    Ok(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
}

#[tokio::test]
async fn a_plain_web_server_is_reached_by_prefix_and_may_die_while_another_lives() -> Result<()> {
    let house = Landscape::up(&[]).await?;
    let folder = tempfile::tempdir()?;
    let mut one = web(&house, folder.path(), "one")?;
    let two = web(&house, folder.path(), "two")?;
    until("both serve", PATIENCE, async || Ok(house.serving("web").await? == 2)).await?;
    let prefix = r#"http=[{"prefix":"/site","service":"web","replace":"/"}]"#;
    house.ask(&["config", "set", "edge", prefix]).await?;
    until("the prefix is there", PATIENCE, async || Ok(house.get("/site/who.txt").await?.status == 200)).await?;
    let mut seen = BTreeSet::new();
    let both = async {
        while seen.len() < 2 {
            seen.insert(house.get("/site/who.txt").await?.text());
        }
        Ok::<_, anyhow::Error>(())
    };
    tokio::time::timeout(PATIENCE, both).await??;
    let answer = house.get("/site/nothing").await?;
    ensure!(answer.status == 404 && answer.header("server").starts_with("SimpleHTTP"), "its own word: {answer:?}");

    let told = house.ask(&["route", "test", "GET", "/site/who.txt?x=1"]).await?;
    ensure!(told["route"]["template"] == "/site/**" && told["route"]["protocol"] == "ROUTE_PROTOCOL_HTTP", "{told}");
    ensure!(told["request"] == "GET /who.txt?x=1" && told["candidates"].as_array().is_some_and(|all| all.len() == 2));
    let listed = house.ask(&["routes"]).await?.to_string();
    ensure!(listed.contains("/site/**"), "{listed}");

    let load = Load::on(&house.address("edge"), "/site/who.txt");
    let good = async |count: u64| {
        let of = || load.tally().good.load(Ordering::Relaxed);
        let before = of();
        until("requests are answered", PATIENCE, async || Ok(of() > before + count)).await
    };
    good(50).await?;
    let pid = std::fs::read_to_string(folder.path().join("one/pid"))?.trim().parse()?;
    signal(pid, Signal::KILL)?;
    until("it is gone", PATIENCE, async || Ok(house.serving("web").await? == 1)).await?;
    good(50).await?;
    let _ = one.kill().await;
    let again = web(&house, folder.path(), "one")?;
    until("it is back", PATIENCE, async || Ok(house.serving("web").await? == 2)).await?;
    good(50).await?;
    let (good, _, failed, words) = load.stop().await;
    ensure!(failed == 0, "{failed} of {good} failed: {words:?}");
    until("the access log tells of them", PATIENCE, async || {
        let text = house.ask(&["logs", "edge", "--text", "/site/**"]).await?.to_string();
        Ok(["http.route", "upstream.instance", "upstream_ms", "network.protocol"].iter().all(|one| text.contains(one)))
    })
    .await?;
    drop((again, two));
    house.stop().await
}

#[tokio::test]
async fn the_platform_asks_a_program_whether_it_is_well_and_believes_it_after_some_answers() -> Result<()> {
    let house = Landscape::up(&[]).await?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("well.txt"), "yes")?;
    let mut command = ninefold("run", &["--name", "web", "--instance-id", "one", "--protocol", "http"])?;
    command.args(["--health", "/well.txt", "--health-interval", "200ms", "--endpoint", &house.endpoint()]);
    command.args(["--", "sh", "-c", "exec python3 -m http.server -b 127.0.0.1 $PORT"]).current_dir(folder.path());
    let web = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    until("it serves", PATIENCE, async || Ok(house.serving("web").await? == 1)).await?;
    let state = async || Ok::<_, anyhow::Error>(house.instances("web").await?.pop().unwrap_or_default());

    std::fs::remove_file(folder.path().join("well.txt"))?;
    until("it says 404 and is not called", PATIENCE, async || {
        let one = state().await?;
        Ok(one["state"] == "INSTANCE_STATE_NOT_SERVING"
            && one["notPicked"].as_str().is_some_and(|why| why.contains("404")))
    })
    .await?;
    std::fs::write(folder.path().join("well.txt"), "yes")?;
    until("it is well again", PATIENCE, async || Ok(state().await?["state"] == "INSTANCE_STATE_SERVING")).await?;
    let story = house.ask(&["why", "one"]).await?.to_string();
    ensure!(story.contains("404"), "the story can be read: {story}");
    drop(web);
    house.stop().await
}

#[tokio::test]
async fn services_of_the_same_name_in_two_namespaces_know_nothing_of_each_other() -> Result<()> {
    let house = Landscape::up(&[]).await?;
    let folder = tempfile::tempdir()?;
    let mut all = Vec::new();
    for (namespace, region) in [("default", "north"), ("plant", "south")] {
        let pages = folder.path().join(namespace);
        std::fs::create_dir_all(&pages)?;
        let mut command = ninefold("run", &["--name", "web", "--instance-id", namespace, "--protocol", "http"])?;
        command.env("NINEFOLD_REGION", region).args(["--namespace", namespace, "--endpoint", &house.endpoint()]);
        command.args(["--", "sh", "-c", "exec python3 -m http.server -b 127.0.0.1 $PORT"]).current_dir(pages);
        all.push(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    }
    for (namespace, region) in [("default", "north"), ("plant", "south")] {
        until("its own instance is there, and no other", PATIENCE, async || {
            let view = house.ask(&["ps", "--namespace", namespace]).await?;
            let instances = view["instances"].as_array().cloned().unwrap_or_default();
            Ok(matches!(&instances[..], [one] if one["instanceId"] == namespace && one["region"] == region
                && one["state"] == "INSTANCE_STATE_SERVING"))
        })
        .await?;
    }
    let both = house.ask(&["ps", "--namespace", "-"]).await?;
    ensure!(both["instances"].as_array().is_some_and(|all| all.len() == 2), "{both}");
    let prefix = r#"http=[{"prefix":"/site","service":"web","replace":"/"}]"#;
    house.ask(&["config", "set", "edge", prefix]).await?;
    let told = async || house.ask(&["route", "test", "GET", "/site/"]).await;
    until("the edge has a candidate", PATIENCE, async || Ok(told().await?["candidates"][0].is_object())).await?;
    let told = told().await?["candidates"].to_string();
    ensure!(!told.contains("plant"), "who calls from the default namespace calls there: {told}");
    drop(all);
    house.stop().await
}

/// Has the platform run the services of the sample landscape.
async fn open_shop(house: &Landscape) -> Result<()> {
    let program = tests_landscape::binary()?.display().to_string();
    for service in ["product", "recommendation", "review", "product-composite"] {
        let data = format!("{}/shop/{service}", house.data());
        std::fs::create_dir_all(&data)?;
        let workload = serde_json::json!({
            "instances": 1, "joins": true, "command": [program, "demo-service", service],
            "environment": {"NINEFOLD_DATA": data},
        });
        let path = format!("/v1/workloads/{service}");
        let answer = http::request(&house.address("platform"), "PUT", &path, &[], Some(workload)).await?;
        ensure!(answer.status == 200, "{}", answer.text());
    }
    until("the shop is open", PATIENCE, async || Ok(house.get("/v1/products/1").await?.status == 200)).await
}

#[tokio::test]
async fn a_new_binary_takes_over_without_a_refused_or_failed_request() -> Result<()> {
    let house = Landscape::up(&[]).await?;
    open_shop(&house).await?;
    house.ask(&["config", "set", "review", "page_size=7"]).await?;
    let (edge, pids) = (house.address("edge"), house.pids("").await?);
    let (fresh, kept) = (Load::on(&edge, "/v1/products/1"), Load::kept_on(&edge, "/v1/products/1"));
    let good =
        async |count: u64| {
            let of = |load: &Load| load.tally().good.load(std::sync::atomic::Ordering::Relaxed);
            let (first, second) = (of(&fresh), of(&kept));
            until("requests are answered", PATIENCE, async || {
                Ok(of(&fresh) >= first + count && of(&kept) >= second + count)
            })
            .await
        };
    good(50).await?;
    let before = house.pid();
    let house = house.handed_over().await?;
    ensure!(house.pid() != before && house.address("edge") == edge);
    good(50).await?;
    for load in [fresh, kept] {
        let (good, _, failed, words) = load.stop().await;
        ensure!(failed == 0, "{failed} of {} failed: {words:?}; the nodes said:\n{}", good + failed, house.said());
    }
    // What was written is there, what ran runs again, and nothing is left of what ran before.
    ensure!(house.ask(&["config", "get", "review"]).await?.to_string().contains("page_size"));
    for service in ["product", "recommendation", "review", "product-composite"] {
        ensure!(house.serving(service).await? == 1, "{service}: {:?}", house.instances(service).await?);
    }
    ensure!(pids.iter().all(|pid| !tests_landscape::is_alive(*pid)), "children of the node before are left");
    // And once more: who took over can hand over.
    house.handed_over().await?.stop().await
}
