//! Policies of a service, kept by clients that know nothing of them.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests_landscape::{Landscape, until};
use tokio::sync::Mutex;

use crate::backend::Backend;
use crate::client::{Client, Library};

const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_librarys_limit_and_retries_are_those_of_the_services_policy() -> Result<()> {
    let house = Landscape::up(&[]).await?;
    let one = Backend::start(&house.endpoint(), "pump", "one", "").await?;
    let client = Mutex::new(Client::xds(Library::Python, &house, "pump", "").await?);
    house.ask(&["policy", "set", "pump", "limits.in_flight_max=2"]).await?;
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

    let two = Backend::start(&house.endpoint(), "pump", "two", "").await?;
    two.fail(true);
    house.ask(&["policy", "set", "pump", "limits.in_flight_max=100", "breaker.disabled=true"]).await?;
    until("without retries calls fail", SOON, || async { Ok(client.lock().await.calls(20).await?.bad() > 0) }).await?;
    house.ask(&["policy", "set", "pump", "retry.attempts_max=4"]).await?;
    until("with retries they do not", SOON, || async { Ok(client.lock().await.calls(20).await?.bad() == 0) }).await?;
    let before = two.calls();
    let tally = client.lock().await.calls(100).await?;
    ensure!(tally.bad() == 0 && two.calls() > before, "half of the attempts fail, and no call: {tally:?}");
    house.stop().await
}
