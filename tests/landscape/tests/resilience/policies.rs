//! Policies that change while calls are made: nobody restarts, and the next call is made as they say.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use ninefold::proto::ninefold::contract::v1 as words;
use ninefold::tonic::{Code, Status};
use ninefold::{App, Channel, fault};
use tests_landscape::{Landscape, until};
use words::contract_service_client::ContractServiceClient;

use crate::pump::{FAULTY, Instance, SLOW, TAKES, WELL, settings};

pub(crate) const SOON: Duration = Duration::from_secs(60);
/// A call that took so long met the slow instance.
const SLOW_MIN: Duration = Duration::from_millis(1500);
/// Calls that are counted.
const CALLS: u32 = 40;

/// Calls may be repeated, and made twice.
const IDEMPOTENT: &str = r#"methods=[{"method":"ninefold.contract.v1.ContractService","idempotent":true}]"#;

/// A landscape with two pumps, and one who calls them.
pub(crate) struct Scene {
    pub(crate) house: Landscape,
    pub(crate) pumps: [Instance; 2],
    client: ContractServiceClient<Channel>,
    stop: tokio::sync::oneshot::Sender<()>,
    calling: tokio::task::JoinHandle<Result<(), ninefold::Error>>,
}

impl Scene {
    pub(crate) async fn open() -> Result<Self> {
        let house = Landscape::up(&[]).await?;
        let platform = house.address("platform");
        let pumps = [Instance::start(&platform, "one")?, Instance::start(&platform, "two")?];
        let caller = App::with_settings("caller", Ok(settings(&platform, "caller-1")?));
        let client = ContractServiceClient::new(caller.channel("pump"));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        #[expect(clippy::disallowed_methods, reason = "the test owns the caller and stops it")]
        let calling = tokio::spawn(caller.run_until(async { drop(stopped.await) }));
        let scene = Self { house, pumps, client, stop, calling };
        until("both are called", SOON, || async {
            // Somebody may not be there yet.
            let _ = scene.call().await;
            Ok(scene.pumps.iter().all(|pump| pump.calls() > 0))
        })
        .await?;
        Ok(scene)
    }

    pub(crate) async fn call(&self) -> Result<Duration, Status> {
        let began = Instant::now();
        self.client.clone().check_contract(words::CheckContractRequest::default()).await?;
        Ok(began.elapsed())
    }

    pub(crate) async fn calls(&self, number: usize) -> Vec<Result<Duration, Status>> {
        futures_util::future::join_all((0..number).map(|_| self.call())).await
    }

    pub(crate) async fn set(&self, what: &[&str]) -> Result<()> {
        self.house.ask(&[&["policy", "set", "pump"], what].concat()).await?;
        Ok(())
    }

    /// How often the pumps were called while so many calls were made, one after the other.
    async fn tries_of(&self, calls: u32) -> u32 {
        let before = self.called();
        for _ in 0..calls {
            // Whether it succeeds is not what is asked.
            let _ = self.call().await;
        }
        self.called() - before
    }

    fn called(&self) -> u32 {
        self.pumps.iter().map(Instance::calls).sum()
    }

    pub(crate) async fn close(self) -> Result<()> {
        self.stop.send(()).ok().context("the caller runs")?;
        self.calling.await??;
        drop(self.pumps);
        self.house.stop().await
    }
}

fn is(status: &Result<Duration, Status>, code: Code, reason: &str) -> bool {
    status.as_ref().is_err_and(|status| status.code() == code && fault::reason(status).as_deref() == Some(reason))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_and_a_limit_hold_from_the_next_call_on() -> Result<()> {
    let scene = Scene::open().await?;
    scene.set(&["timeouts.call=5ms", "breaker.disabled=true"]).await?;
    until("calls have no time", SOON, || async {
        Ok(is(&scene.call().await, Code::DeadlineExceeded, "CALL_DEADLINE"))
    })
    .await?;
    scene.set(&["timeouts.call=5s"]).await?;
    until("calls have time again", SOON, || async { Ok(scene.call().await.is_ok()) }).await?;

    scene.set(&["limits.in_flight_max=2", "limits.waiting_max=0"]).await?;
    until("two at a time are made, and the others are refused", SOON, || async {
        let before = scene.called();
        let answers = scene.calls(10).await;
        let refused = answers.iter().filter(|answer| is(answer, Code::ResourceExhausted, "CALLS_FULL")).count();
        Ok(refused == 8 && scene.called() - before == 2)
    })
    .await?;
    scene.set(&["limits.waiting_max=100"]).await?;
    until("the others wait for their turn", SOON, || async {
        let began = Instant::now();
        let answers = scene.calls(10).await;
        // Five turns of two.
        Ok(answers.iter().all(Result::is_ok) && began.elapsed() >= TAKES * 5)
    })
    .await?;
    scene.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hedging_spares_callers_a_slow_instance_only_where_the_policy_says_so() -> Result<()> {
    let scene = Scene::open().await?;
    scene.set(&["breaker.disabled=true", "balancing.method=ROUND_ROBIN"]).await?;
    scene.pumps[1].behave(SLOW);
    until("every other call is slow", SOON, || async {
        let answers = scene.calls(4).await;
        Ok(answers.iter().filter(|answer| answer.as_ref().is_ok_and(|took| *took > SLOW_MIN)).count() == 2)
    })
    .await?;
    scene.set(&["hedging.attempts_max=2", "hedging.delay=50ms", IDEMPOTENT]).await?;
    until("no call is slow", SOON, || async {
        let answers = scene.calls(4).await;
        Ok(answers.iter().all(|answer| answer.as_ref().is_ok_and(|took| *took < SLOW_MIN)))
    })
    .await?;
    scene.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repetitions_stay_within_the_budget_of_the_policy() -> Result<()> {
    let scene = Scene::open().await?;
    for pump in &scene.pumps {
        pump.behave(FAULTY);
    }
    let generous = ["retry.attempts_max=4", "retry.budget_percent=100", "retry.budget_per_second=10000"];
    scene.set(&generous).await?;
    scene.set(&["retry.wait_max=10ms", "breaker.disabled=true", "limits.throttling=false", IDEMPOTENT]).await?;
    // An instance that refused is not asked again.
    until("each call is tried at both", SOON, || async { Ok(scene.tries_of(CALLS).await == CALLS * 2) }).await?;
    scene.set(&["retry.budget_percent=10", "retry.budget_per_second=0"]).await?;
    until("one in ten is tried again", SOON, || async {
        let tries = scene.tries_of(CALLS).await;
        Ok(tries > CALLS && tries <= CALLS + CALLS / 10 + 1)
    })
    .await?;
    scene.set(&["retry.attempts_max=1"]).await?;
    until("no call is tried again", SOON, || async { Ok(scene.tries_of(CALLS).await == CALLS) }).await?;
    for pump in &scene.pumps {
        pump.behave(WELL);
    }
    ensure!(scene.calls(10).await.iter().all(Result::is_ok), "both are well again");
    scene.close().await
}
