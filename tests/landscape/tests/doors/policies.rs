//! Policies of a service, kept by clients that know nothing of them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests_landscape::{Landscape, until};
use tokio::sync::Mutex;

use crate::backend::Backend;
use crate::client::{Client, Library};
use crate::envoy::Envoy;

const SOON: Duration = Duration::from_secs(60);

/// Two calls at once are made, and no more; then, without a limit, calls are repeated where the other of two instances fails.
async fn a_limit_and_retries_are_kept(house: &Landscape, client: Client) -> Result<()> {
    let one = Backend::start(&house.endpoint(), "pump", "one", "").await?;
    let client = Mutex::new(client);
    until("it is called", SOON, || async { Ok(client.lock().await.calls(1).await?.good() == 1) }).await?;
    house.ask(&["policy", "set", "pump", "limits.in_flight_max=2", "retry.attempts_max=1"]).await?;
    until("two calls at once, and no more", SOON, || async {
        one.hold(true);
        let before = one.calls();
        let mut client = client.lock().await;
        let (tally, full) = tokio::join!(client.flood(6), async {
            let full = until("two are held", SOON, || async { Ok(one.calls() - before >= 2) }).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            one.hold(false);
            full
        });
        full?;
        let tally = tally?;
        Ok(tally.good() == 2 && tally.failed.get("UNAVAILABLE") == Some(&4))
    })
    .await?;

    house.ask(&["policy", "set", "pump", "limits.in_flight_max=100", "breaker.disabled=true"]).await?;
    let two = Backend::start(&house.endpoint(), "pump", "two", "").await?;
    // Who is seen to call the new instance has the policy that was set before it came.
    until("both are called", SOON, || async { Ok(client.lock().await.calls(20).await?.by.len() == 2) }).await?;
    two.fail(true);
    until("without retries calls fail", SOON, || async { Ok(client.lock().await.calls(20).await?.bad() > 0) }).await?;
    house.ask(&["policy", "set", "pump", "retry.attempts_max=4"]).await?;
    until("with retries they do not", SOON, || async { Ok(client.lock().await.calls(20).await?.bad() == 0) }).await?;
    let before = two.calls();
    let tally = client.lock().await.calls(100).await?;
    ensure!(tally.bad() == 0 && two.calls() > before, "half of the attempts fail, and no call: {tally:?}");
    one.die().await;
    two.die().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_librarys_limit_and_retries_are_those_of_the_services_policy() -> Result<()> {
    for library in [Library::Python, Library::Node] {
        let house = Landscape::up(&[]).await?;
        let client = Client::xds(library, &house, "pump", "").await?;
        a_limit_and_retries_are_kept(&house, client).await.with_context(|| format!("{library:?}"))?;
        house.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envoys_limit_and_retries_are_those_of_the_services_policy() -> Result<()> {
    let house = Landscape::up(&[]).await?;
    let envoy = Envoy::start(&house, &[]).await?;
    let client = Client::plain(&envoy.listen, "pump")?;
    a_limit_and_retries_are_kept(&house, client).await?;
    ensure!(envoy.stat("cluster.pump.assignment_use_cached").await? == 0, "it never waits in vain for endpoints");
    ensure!(envoy.stat("cluster.pump.upstream_rq_retry_success").await? > 0, "it was Envoy who repeated");

    let tally = Client::plain(&envoy.listen, "nobody")?.calls(1).await?;
    ensure!(tally.bad() == 1 && tally.seconds < 10.0, "a service that nobody keeps is answered at once: {tally:?}");
    ensure!(envoy.refused().await?.is_empty(), "{:?}", envoy.refused().await?);
    house.stop().await
}
