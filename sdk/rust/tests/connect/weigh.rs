//! How calls are shared by what instances say of themselves: their weights, their load, and how many calls they hold.

use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use ninefold::connect::Policy;
use ninefold::connect::policy::{Balancing, BalancingMethod};
use ninefold::proto::ninefold::registry::v1 as words;

use crate::fake::{Door, Instance, Manner};
use crate::held::Held;
use crate::{Client, House, get, warm};

fn client(house: &House, method: BalancingMethod) -> Client {
    let balancing = Balancing { method, slow_start: Duration::ZERO, ..Balancing::default() };
    house.client_with(Policy { balancing, ..Policy::default() })
}

/// Two instances that say how busy they are. Past their servers, which speak for themselves.
async fn telling(method: BalancingMethod) -> (House, Client, Instance, Instance) {
    let door = Door::default();
    let house = House::dialing(door.dialer());
    let client = client(&house, method);
    let [busy, idle] = [Instance::start("busy", &house.scope).await, Instance::start("idle", &house.scope).await];
    for (instance, percent) in [(&busy, 90), (&idle, 30)] {
        instance.behave(Manner::Tell(percent));
        door.answer_for(instance);
        house.registry.put(instance.words());
    }
    warm(&client, 2).await;
    (house, client, busy, idle)
}

async fn weighing(house: &House, id: &str, weight: u32) -> Instance {
    let instance = Instance::start(id, &house.scope).await;
    house.registry.put(words::Instance { weight, ..instance.words() });
    instance
}

/// How many of 400 calls, one after the other, an instance answers.
async fn share(client: &Client, instance: &Instance) -> u32 {
    let before = instance.calls();
    for _ in 0..400 {
        get(client).await.unwrap();
    }
    instance.calls() - before
}

#[tokio::test]
async fn registered_weights_are_shares() {
    let _held = Held::hold();
    for (method, expected) in [(BalancingMethod::WeightedRoundRobin, 295..=305), (BalancingMethod::PeakEwma, 250..=350)]
    {
        let house = House::new();
        let client = client(&house, method);
        let (heavy, _light) = (weighing(&house, "heavy", 300).await, weighing(&house, "light", 100).await);
        warm(&client, 2).await;
        let share = share(&client, &heavy).await;
        assert!(expected.contains(&share), "{method:?}: {share} of 400");
    }
}

#[tokio::test]
async fn an_instance_that_says_that_it_is_busier_gets_less() {
    let held = Held::hold();
    let (_house, client, busy, _idle) = telling(BalancingMethod::WeightedRoundRobin).await;
    held.pass(Duration::from_secs(1)).await;
    let share_of_busy = share(&client, &busy).await;
    assert!((95..=105).contains(&share_of_busy), "{share_of_busy} of 400");
    // It follows what they say.
    busy.behave(Manner::Tell(30));
    for _ in 0..8 {
        get(&client).await.unwrap();
    }
    held.pass(Duration::from_secs(1)).await;
    let share_of_busy = share(&client, &busy).await;
    assert!((195..=205).contains(&share_of_busy), "{share_of_busy} of 400");
}

#[tokio::test]
async fn what_an_instance_says_of_its_load_counts_only_where_the_policy_asks_for_it() {
    let held = Held::hold();
    let (_house, client, busy, _idle) = telling(BalancingMethod::RoundRobin).await;
    held.pass(Duration::from_secs(1)).await;
    assert_eq!(share(&client, &busy).await, 200);
}

#[tokio::test]
async fn whoever_holds_many_calls_gets_no_more_of_them() {
    let _held = Held::hold();
    let house = House::new();
    let client = client(&house, BalancingMethod::LeastRequest);
    let [hangs, first, second] =
        [house.instance("hangs").await, house.instance("first").await, house.instance("second").await];
    warm(&client, 3).await;
    hangs.behave(Manner::Hang);
    let before = [&hangs, &first, &second].map(Instance::calls);
    let mut under_way = FuturesUnordered::new();
    let mut answered = 0;
    while answered < 300 {
        under_way.push(get(&client));
        // One that hangs is left hanging, and the next one is made.
        for _ in 0..200 {
            if let std::task::Poll::Ready(Some(answer)) = futures_util::poll!(under_way.next()) {
                answer.unwrap();
                answered += 1;
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    let after = [&hangs, &first, &second].map(Instance::calls);
    let [held, first, second] = std::array::from_fn(|index| after[index] - before[index]);
    assert!((1..=5).contains(&held), "{held} calls hang");
    assert!(first > 75 && second > 75, "{first} and {second} of 300");
}
