//! How the edge shares requests out while operators change their mind and instances come and go: nobody's request is lost.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _};
use ninefold::SdkSettings;
use tests_landscape::load::Load;
use tests_landscape::{Landscape, http, until};

use crate::pump::{FAULTY, Instance, SLOW, WELL, WHO, settings};

const SOON: Duration = Duration::from_secs(60);
/// What callers ask for; the pump answers it.
const PATH: &str = "/v1/contracts/x:check";
/// Requests that are counted, and how many of them are under way at a time.
const REQUESTS: u32 = 400;
const AT_A_TIME: usize = 8;
/// How far a share of so many may lie from what it should be by chance: five times what is usual, so once in millions.
const CHANCE: u32 = 50;

/// An instance with a version and a weight.
fn pump(house: &Landscape, id: &str, version: &str, weight: u32) -> Result<Instance> {
    let settings = settings(&house.address("platform"), id)?;
    Instance::start_as(SdkSettings { version: Some(version.to_owned()), weight, ..settings })
}

/// Two loads on the edge that never stop asking.
struct Loads([Load; 2]);

impl Loads {
    fn on(house: &Landscape) -> Self {
        let edge = house.address("edge");
        Self([Load::on(&edge, PATH), Load::kept_on(&edge, PATH)])
    }

    /// Waits until so many more requests were answered on each.
    async fn go_on(&self, count: u64) -> Result<()> {
        let now = || self.0.iter().map(|load| load.tally().good.load(Ordering::Relaxed)).min().unwrap_or_default();
        let before = now();
        until("requests are answered", SOON, async || Ok(now() >= before + count)).await
    }

    /// Ends the loads; none of their requests may have failed.
    async fn end(self, house: &Landscape) -> Result<()> {
        for load in self.0 {
            let (good, _, failed, words) = load.stop().await;
            ensure!(failed == 0, "{failed} of {} failed: {words:?}; the node said:\n{}", good + failed, house.said());
        }
        Ok(())
    }
}

/// Asks once; answers who answered.
async fn ask(house: &Landscape, headers: &[(&str, &str)]) -> Result<String> {
    let answer = http::request(&house.address("edge"), "GET", PATH, headers, None).await?;
    ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    Ok(answer.header(WHO).to_owned())
}

/// Asks many times; answers how often each answered.
async fn shares(house: &Landscape, headers: &[(&str, &str)]) -> Result<BTreeMap<String, u32>> {
    let all = futures_util::stream::iter(0..REQUESTS).map(|_| ask(house, headers)).buffer_unordered(AT_A_TIME);
    all.try_fold(BTreeMap::new(), async |mut shares, who| {
        *shares.entry(who).or_default() += 1;
        Ok(shares)
    })
    .await
}

async fn until_share(house: &Landscape, who: &str, wanted: u32) -> Result<()> {
    let last = RefCell::new(BTreeMap::new());
    let waited = until(&format!("{who} answers {wanted} of {REQUESTS}"), SOON, async || {
        let shares = shares(house, &[]).await?;
        let share = shares.get(who).copied().unwrap_or_default();
        last.replace(shares);
        Ok(share.abs_diff(wanted) <= CHANCE)
    })
    .await;
    waited.with_context(|| format!("the last shares were {:?}", last.borrow()))
}

async fn until_all_answer(house: &Landscape, who: &[&str]) -> Result<()> {
    let wanted: BTreeSet<_> = who.iter().map(|who| (*who).to_owned()).collect();
    let seen = RefCell::new(BTreeSet::new());
    until(&format!("{who:?} answer"), SOON, async || {
        // Somebody may not be there yet.
        let who = ask(house, &[]).await.ok();
        seen.borrow_mut().extend(who);
        Ok(seen.borrow().is_superset(&wanted))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_are_kept_and_change_live_without_a_lost_request() -> Result<()> {
    let house = Landscape::up(&[]).await?;
    let _pumps = [pump(&house, "one", "1.0.0", 100)?, pump(&house, "two", "1.0.0", 300)?];
    house.ask(&["policy", "set", "pump", "balancing.method=WEIGHTED_ROUND_ROBIN", "balancing.slow_start=0s"]).await?;
    until_all_answer(&house, &["one", "two"]).await?;
    let loads = Loads::on(&house);
    until_share(&house, "one", REQUESTS / 4).await?;
    house.ask(&["override", "one", "--weight", "900", "--reason", "it is stronger now"]).await?;
    until_share(&house, "one", REQUESTS * 3 / 4).await?;
    house.ask(&["override", "one", "--clear"]).await?;
    until_share(&house, "one", REQUESTS / 4).await?;
    loads.go_on(50).await?;
    loads.end(&house).await?;
    house.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canaries_stick_and_change_live_without_a_lost_request() -> Result<()> {
    let house = Landscape::up(&[]).await?;
    let _pumps = [pump(&house, "old", "1.0.0", 100)?, pump(&house, "new", "2.0.0", 100)?];
    until_all_answer(&house, &["old", "new"]).await?;
    let loads = Loads::on(&house);
    let set = async |rest: &str| {
        let canaries = format!(
            r#"traffic.pump.canaries=[{{"to":{{"version":"2.*"}},"when":[{{"header":"x-beta","is":"yes"}}]}},
            {{"to":{{"version":"2.*"}},"when":[{{"cookie":"track","is":"canary"}}]}},
            {{"to":{{"version":"2.*"}}{rest}}}]"#
        );
        house.ask(&["config", "set", "edge", &canaries]).await
    };
    set(r#","percent":0"#).await?;
    until_share(&house, "new", 0).await?;
    for (headers, who) in [
        (&[("x-beta", "yes")][..], "new"),
        (&[("x-beta", "no")], "old"),
        (&[("cookie", "a=b; track=canary")], "new"),
        (&[("cookie", "track=usual")], "old"),
        (&[], "old"),
    ] {
        let all = shares(&house, headers).await?;
        ensure!(all == BTreeMap::from([(who.to_owned(), REQUESTS)]), "{headers:?}: {all:?}");
    }

    set(r#","percent":30"#).await?;
    until_share(&house, "new", REQUESTS * 3 / 10).await?;
    // Who is among the share stays, and is among a larger one.
    let among = async || {
        let users = (0..100).map(|user| format!("user-{user}"));
        let asked = users.map(async |user| Ok::<_, anyhow::Error>((ask(&house, &[("x-user", &user)]).await?, user)));
        let all: Vec<_> = futures_util::stream::iter(asked).buffer_unordered(AT_A_TIME).try_collect().await?;
        let chosen = all.into_iter().filter(|(who, _)| who == "new").map(|(_, user)| user);
        Ok::<BTreeSet<String>, anyhow::Error>(chosen.collect())
    };
    let few = RefCell::new(BTreeSet::new());
    set(r#","percent":20,"sticky":{"header":"x-user"}"#).await?;
    until("the same users are chosen twice", SOON, async || {
        let again = among().await?;
        Ok(few.replace(again.clone()) == again)
    })
    .await?;
    let few = few.into_inner();
    ensure!((5..40).contains(&few.len()), "{} of a hundred", few.len());
    set(r#","percent":60,"sticky":{"header":"x-user"}"#).await?;
    until("more users are chosen", SOON, async || {
        let many = among().await?;
        ensure!(many.is_superset(&few), "{:?} are no longer among them", few.difference(&many).collect::<Vec<_>>());
        Ok((40..80).contains(&many.len()))
    })
    .await?;
    // Rate, errors and duration are told by route.
    let query = "sum by (http_route, http_response_status_code) (http_server_request_duration_seconds_count)";
    until("requests are counted by route", SOON, async || {
        let told = house.ask(&["metrics", query]).await?.to_string();
        Ok(told.contains("/v1/contracts/{digest}:check") && told.contains("200"))
    })
    .await?;
    // Where no canary can answer, others do.
    house.ask(&["drain", "new", "--reason", "a bad build"]).await?;
    until("everybody is answered by the old one", SOON, async || Ok(ask(&house, &[("x-beta", "yes")]).await? == "old"))
        .await?;
    loads.go_on(50).await?;
    loads.end(&house).await?;
    house.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_that_fails_is_slow_or_dies_never_touches_a_caller() -> Result<()> {
    let house = Landscape::up(&[]).await?;
    let _one = pump(&house, "one", "1.0.0", 100)?;
    let mut copy = pump(&house, "copy", "2.0.0", 100)?;
    until_all_answer(&house, &["one", "copy"]).await?;
    let mirror = r#"traffic.pump.mirror={"to":{"version":"2.*"},"percent":100}"#;
    house.ask(&["config", "set", "edge", mirror]).await?;
    until("only one answers, and the other hears of it", SOON, async || {
        let before = copy.calls();
        Ok(shares(&house, &[]).await?.keys().eq(["one"]) && copy.calls() > before)
    })
    .await?;
    let loads = Loads::on(&house);
    for manner in [WELL, FAULTY, SLOW] {
        copy.behave(manner);
        let (before, began) = (copy.calls(), Instant::now());
        let all = shares(&house, &[]).await?;
        ensure!(all.keys().eq(["one"]), "{manner}: {all:?}");
        // Had one in ten of its slow answers been waited for, it would have taken longer than that.
        ensure!(began.elapsed() < SOON, "{manner}: {:?}", began.elapsed());
        ensure!(manner != WELL || copy.calls() > before, "{manner}: it hears of requests");
    }
    copy.kill();
    let all = shares(&house, &[]).await?;
    ensure!(all.keys().eq(["one"]), "{all:?}");
    loads.go_on(50).await?;
    loads.end(&house).await?;
    house.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_come_leave_and_die_under_load_without_a_lost_request() -> Result<()> {
    let house = Landscape::up(&[]).await?;
    let _stays = pump(&house, "stays", "1.0.0", 100)?;
    until_all_answer(&house, &["stays"]).await?;
    let loads = [Loads::on(&house), Loads::on(&house), Loads::on(&house)];
    for turn in 0..8 {
        let id = format!("comes-{turn}");
        let mut comes = pump(&house, &id, "1.0.0", 100)?;
        until_all_answer(&house, &["stays", &id]).await?;
        loads[0].go_on(20).await?;
        if turn % 2 == 0 {
            comes.leave().await.with_context(|| id.clone())?;
        } else {
            // With all its sockets. What it was asked is asked again elsewhere: all of this is read.
            comes.kill();
            loads[0].go_on(20).await?;
        }
    }
    for load in loads {
        load.end(&house).await?;
    }
    house.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_was_left_alone_is_called_again_when_its_policy_says_so() -> Result<()> {
    let house = Landscape::up(&[]).await?;
    let pumps = [pump(&house, "one", "1.0.0", 100)?, pump(&house, "two", "1.0.0", 100)?];
    house
        .ask(&["policy", "set", "pump", "breaker.wait_min=10m", "breaker.wait_max=10m", "limits.throttling=false"])
        .await?;
    until_all_answer(&house, &["one", "two"]).await?;
    pumps[0].behave(FAULTY);
    let is_left_alone = async || {
        let before = pumps[0].calls();
        shares(&house, &[]).await?;
        Ok(pumps[0].calls() == before)
    };
    until("one is left alone", SOON, is_left_alone).await?;
    pumps[0].behave(WELL);
    ensure!(is_left_alone().await?, "for ten minutes");
    house.ask(&["policy", "set", "pump", "breaker.disabled=true"]).await?;
    until_all_answer(&house, &["one"]).await?;
    house.stop().await
}
