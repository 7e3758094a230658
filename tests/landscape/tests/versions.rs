//! A service gets a new version while it is used.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tests_landscape::load::Load;
use tests_landscape::{Landscape, python, signal, until};

const SOON: Duration = Duration::from_secs(30);
const SECOND: &str = "  // Says farewell to one person.
  rpc Dismiss(GreetRequest) returns (GreetResponse) {
    option (google.api.http) = {get: \"/v1/farewells/{name}\"};
  }
}

// Whom to greet.";

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_with_a_new_route_takes_over_and_no_request_is_lost() -> Result<()> {
    let (first, second) = (tempfile::tempdir()?, tempfile::tempdir()?);
    python::generate(&python::folder().join("proto"), first.path()).await?;
    grown_contract(second.path())?;
    python::generate(&second.path().join("proto"), second.path()).await?;

    let house = Landscape::up(&[]).await?;
    let mut old = python::greeter(&house, first.path())?;
    until("the first version greets", SOON, || async { Ok(house.get("/v1/greetings/Ada").await?.status == 200) })
        .await?;
    ensure!(house.get("/v1/farewells/Ada").await?.status == 404, "the first version knows no farewells");

    let load = Load::on(&house.address("edge"), "/v1/greetings/Ada");
    let mut new = python::greeter(&house, second.path())?;
    until("the second version says farewell", SOON, || async {
        Ok(house.get("/v1/farewells/Ada").await?.status == 200)
    })
    .await?;
    for _ in 0..20 {
        let answer = house.get("/v1/farewells/Ada").await?;
        ensure!(answer.status == 200, "only the new version is asked for what only it knows: {}", answer.text());
    }
    signal(old.id().context("the first version runs")?, Signal::TERM)?;
    tokio::time::timeout(SOON, old.wait()).await.context("the first version ends")??;
    let before = load.tally().good.load(Ordering::Relaxed);
    until("the second version greets alone", SOON, || async {
        Ok(load.tally().good.load(Ordering::Relaxed) > before + 40)
    })
    .await?;
    let (_, _, failed, words) = load.stop().await;
    ensure!(failed == 0, "{failed} requests failed: {words:?}");
    signal(new.id().context("the second version runs")?, Signal::TERM)?;
    tokio::time::timeout(SOON, new.wait()).await.context("the second version ends")??;
    house.stop().await
}

/// The greeter's contract with one more method, below `folder/proto`.
fn grown_contract(folder: &std::path::Path) -> Result<()> {
    let name = "greeter/v1/greeter_service.proto";
    let text = std::fs::read_to_string(python::folder().join("proto").join(name))?;
    let grown = text.replacen("}\n\n// Whom to greet.", SECOND, 1);
    ensure!(grown != text, "the contract has the shape that this test knows");
    std::fs::create_dir_all(folder.join("proto/greeter/v1"))?;
    Ok(std::fs::write(folder.join("proto").join(name), grown)?)
}
