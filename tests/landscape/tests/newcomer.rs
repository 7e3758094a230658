//! A stranger starts the demo and looks around.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests_landscape::http::{request, until_body_has};
use tests_landscape::{Landscape, is_alive, until};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_reads_a_product_and_follows_its_trace_across_four_processes() -> Result<()> {
    let house = Landscape::demo(&["--no-traffic"]).await?;
    let answer = house.get("/v1/products/1").await?;
    ensure!(answer.status == 200, "{}", answer.text());
    let body = answer.json()?;
    ensure!(!body["product"]["recommendations"].as_array().context("a list")?.is_empty(), "{body}");
    ensure!(!body["product"]["reviews"].as_array().context("a list")?.is_empty(), "{body}");
    for part in ["composite", "product", "recommendation", "review"] {
        ensure!(body["serviceAddresses"][part].as_str().is_some_and(|address| !address.is_empty()), "{part}: {body}");
    }

    let id = answer.header("x-trace-id").to_owned();
    ensure!(id.len() == 32, "the answer names its trace: {:?}", answer.headers);
    let shop = ["product", "product-composite", "recommendation", "review"];
    // The node has spans; of its lines, those that tell of a request are the access log's, which is the edge's.
    let (spans, lines) = ([&["ninefold"][..], &shop].concat(), [&["edge"][..], &shop].concat());
    until("the trace holds spans and lines of every process", SOON, || async {
        let trace = house.ask(&["trace", &id]).await?;
        let of = |list: &str| -> Vec<String> {
            let mut names: Vec<String> = trace[list]
                .as_array()
                .map(|entries| {
                    entries.iter().filter_map(|entry| entry["service"].as_str().map(ToOwned::to_owned)).collect()
                })
                .unwrap_or_default();
            names.sort();
            names.dedup();
            names
        };
        ensure!(of("spans") == spans && of("records") == lines, "spans {:?}, lines {:?}", of("spans"), of("records"));
        Ok(true)
    })
    .await?;
    let lines = house.ask(&["logs", "--trace", &id]).await?;
    ensure!(lines.as_array().is_some_and(|lines| lines.len() >= 5), "all lines by the trace id: {lines}");

    calls_are_balanced(&house).await?;
    what_is_wrong_is_said(&house).await?;
    products_come_and_go(&house).await?;
    reviews_are_streamed(&house).await?;
    insides_stay_inside(&house).await?;
    the_page_shows_the_landscape(&house).await?;
    instances_are_measured(&house).await?;
    house.stop().await
}

async fn calls_are_balanced(house: &Landscape) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..40 {
        let body = house.get("/v1/products/1").await?.json()?;
        seen.insert(body["serviceAddresses"]["review"].as_str().unwrap_or_default().to_owned());
    }
    ensure!(seen.len() == 2, "both instances of review answer: {seen:?}");
    Ok(())
}

async fn what_is_wrong_is_said(house: &Landscape) -> Result<()> {
    let unknown = house.get("/v1/products/99999").await?;
    ensure!(unknown.status == 404 && unknown.json()?["code"] == 5, "{}", unknown.text());
    let malformed = house.get("/v1/products/0").await?;
    ensure!(malformed.status == 400 && malformed.json()?["code"] == 3, "{}", malformed.text());
    ensure!(malformed.text().contains("fieldViolations"), "{}", malformed.text());
    let no_number = house.get("/v1/products/one").await?;
    ensure!(no_number.status == 400, "{}", no_number.text());
    ensure!(house.get("/v1/nothing").await?.status == 404);
    Ok(())
}

async fn products_come_and_go(house: &Landscape) -> Result<()> {
    let edge = house.address("edge");
    let product = json!({"productId": 4711, "name": "pump", "weightGrams": 5,
        "recommendations": [{"recommendationId": 1, "author": "a", "rate": 4, "content": "c"}],
        "reviews": [{"reviewId": 1, "author": "a", "subject": "s", "content": "c"}]});
    let made = request(&edge, "POST", "/v1/products", &[], Some(product.clone())).await?;
    ensure!(made.status == 200, "{}", made.text());
    let again = request(&edge, "POST", "/v1/products", &[], Some(product)).await?;
    ensure!(again.status == 409, "{}", again.text());
    let read = house.get("/v1/products/4711").await?.json()?;
    ensure!(read["product"]["reviews"][0]["subject"] == "s", "{read}");

    let first = house.get("/v1/products?page_size=2").await?.json()?;
    ensure!(first["products"].as_array().is_some_and(|page| page.len() == 2), "{first}");
    let token = first["nextPageToken"].as_str().context("there is another page")?;
    let second = house.get(&format!("/v1/products?page_size=2&page_token={token}")).await?.json()?;
    ensure!(second["products"][0] != first["products"][0], "{second}");

    for _ in 0..2 {
        let gone = request(&edge, "DELETE", "/v1/products/4711", &[], None).await?;
        ensure!(gone.status == 200, "deleting is idempotent: {}", gone.text());
    }
    ensure!(house.get("/v1/products/4711").await?.status == 404);
    Ok(())
}

async fn reviews_are_streamed(house: &Landscape) -> Result<()> {
    let edge = house.address("edge");
    let path = "/v1/products/1/reviews:watch";
    let lines = until_body_has(&edge, path, &[("accept", "application/x-ndjson")], "\n").await?;
    let first: Value = serde_json::from_str(lines.text().lines().next().context("a line")?)?;
    ensure!(first["added"]["subject"].is_string(), "{first}");
    let events = until_body_has(&edge, path, &[("accept", "text/event-stream")], "\n\n").await?;
    ensure!(events.header("content-type").starts_with("text/event-stream"), "{:?}", events.headers);
    ensure!(events.text().contains("data:"), "{}", events.text());
    Ok(())
}

async fn insides_stay_inside(house: &Landscape) -> Result<()> {
    let routes = house.ask(&["routes"]).await?;
    ensure!(!routes.to_string().contains("shop.review.v1"), "review is internal: {routes}");
    let inside =
        house.ask(&["call", "shop.product.v1.ProductService/GetProduct", "-d", r#"{"product_id": 1}"#]).await?;
    ensure!(inside["product"]["name"].is_string(), "an internal method works inside: {inside}");
    let edge = house.address("edge");
    let through = request(&edge, "POST", "/shop.product.v1.ProductService/GetProduct", &[], Some(json!({}))).await?;
    ensure!(through.status == 404, "{}: {}", through.status, through.text());
    Ok(())
}

async fn the_page_shows_the_landscape(house: &Landscape) -> Result<()> {
    let platform = house.address("platform");
    let page = request(&platform, "GET", "/", &[], None).await?;
    ensure!(page.status == 200 && page.text().contains("Ninefold"), "{}", page.status);
    let landscape = request(&platform, "GET", "/landscape.json", &[], None).await?.json()?;
    ensure!(landscape["instances"].as_array().is_some_and(|instances| instances.len() == 6), "{landscape}");
    Ok(())
}

async fn instances_are_measured(house: &Landscape) -> Result<()> {
    until("every instance has its processor and memory use", SOON, || async {
        Ok(house.instances("").await?.iter().all(|instance| instance["memoryBytes"].as_u64() > Some(1 << 20)))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_has_traffic_and_leaves_nothing_behind() -> Result<()> {
    let house = Landscape::demo(&[]).await?;
    until("traffic makes traces", SOON, || async {
        let traces = house.ask(&["trace", "--service", "product-composite"]).await?;
        Ok(traces.as_array().is_some_and(|traces| traces.len() >= 2))
    })
    .await?;
    let children = house.pids("").await?;
    ensure!(children.len() == 6, "{children:?}");
    house.stop().await?;
    ensure!(!children.iter().any(|pid| is_alive(*pid)), "all children are gone");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_demo_is_killed_its_children_do_not_stay() -> Result<()> {
    let house = Landscape::demo(&["--no-traffic"]).await?;
    let children = house.pids("").await?;
    ensure!(children.len() == 6, "{children:?}");
    house.kill().await?;
    until("children of a killed node end", Duration::from_secs(20), || async {
        Ok(!children.iter().any(|pid| is_alive(*pid)))
    })
    .await
}
