//! What many callers say of an instance counts for all; but they cannot empty a service.

use anyhow::{Context as _, Result, ensure};
use ninefold::proto::ninefold::contract::v1 as words;
use ninefold::{App, Channel};
use tests_landscape::{Landscape, until};
use words::contract_service_client::ContractServiceClient;

use crate::policies::SOON;
use crate::pump::{FAULTY, Instance, WELL, settings};

/// As many callers as are believed, and one more.
const CALLERS: usize = 4;
/// Instances; 30 % of them may be suspect by what callers say.
const PUMPS: usize = 4;

/// What callers say of each instance, in the order of their names; empty where it is called as the others are.
async fn said(house: &Landscape) -> Result<Vec<String>> {
    let mut all = house.instances("pump").await?;
    all.sort_by_key(|one| one["instanceId"].to_string());
    let said = |one: &serde_json::Value| match one["state"] == "INSTANCE_STATE_SUSPECT" {
        true => one["stateReason"].as_str().unwrap_or_default().to_owned(),
        false => String::new(),
    };
    Ok(all.iter().map(said).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_callers_report_makes_an_instance_suspect_and_never_empties_the_service() -> Result<()> {
    let house = Landscape::up_with("[registry]\nreport_time = \"15s\"\n").await?;
    let platform = house.address("platform");
    let pumps: Vec<Instance> =
        (0..PUMPS).map(|number| Instance::start(&platform, &format!("pump-{number}"))).collect::<Result<_>>()?;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut calling = tokio::task::JoinSet::new();
    let mut clients: Vec<ContractServiceClient<Channel>> = Vec::new();
    for number in 0..CALLERS {
        let caller = App::with_settings("caller", Ok(settings(&platform, &format!("caller-{number}"))?));
        clients.push(ContractServiceClient::new(caller.channel("pump")));
        let mut stopped = stopped.clone();
        calling.spawn(caller.run_until(async move { drop(stopped.wait_for(|is_so| *is_so).await) }));
    }
    let all_call = async || {
        let calls = clients.iter().map(|client| {
            let mut client = client.clone();
            async move {
                for _ in 0..20 {
                    // Whether it succeeds is not what is asked.
                    let _ = client.check_contract(words::CheckContractRequest::default()).await;
                }
            }
        });
        futures_util::future::join_all(calls).await;
    };
    until("all are called", SOON, || async {
        all_call().await;
        Ok(pumps.iter().all(|pump| pump.calls() > 0))
    })
    .await?;

    pumps[0].behave(FAULTY);
    until("what the callers say of it counts", SOON, || async {
        all_call().await;
        Ok(said(&house).await?.first().is_some_and(|said| said.contains("callers report it")))
    })
    .await?;
    let story = house.ask(&["why", "pump-0"]).await?.to_string();
    ensure!(story.contains("callers report it"), "{story}");

    // Each breaker opens, and no other becomes suspect: three of four are enough to be called.
    for pump in &pumps[1..] {
        pump.behave(FAULTY);
    }
    for _ in 0..5 {
        all_call().await;
        let said = said(&house).await?;
        ensure!(said.len() == PUMPS && said[1..].iter().all(String::is_empty), "only one of four: {said:?}");
    }
    for pump in &pumps {
        pump.behave(WELL);
    }
    until("nobody says anything of it any more", SOON, || async {
        all_call().await;
        Ok(said(&house).await?.iter().all(String::is_empty))
    })
    .await?;
    stop.send(true).context("the callers run")?;
    while let Some(ended) = calling.join_next().await {
        ended??;
    }
    house.stop().await
}
