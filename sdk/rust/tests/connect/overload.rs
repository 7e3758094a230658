//! What callers do when a service cannot do all that is asked of it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use ninefold::connect::policy::{Admission, Codes, Hedging, Limits, Retry, Timeouts};
use ninefold::connect::{FellBack, Policy, breaker};
use ninefold::fault;
use ninefold::proto::ninefold::config::v1 as config;
use ninefold::proto::ninefold::registry::v1 as words;
use ninefold::serve::{LiveAdmission, ServeConfig};
use ninefold::tonic::{Code, Request};
use tokio::time::timeout;

use crate::fake::{Instance, Manner};
use crate::held::Held;
use crate::{Client, House, LONG, get, put, wait_for, warm};

const METHOD: &str = "ninefold.config.v1.ConfigService/GetDocument";

#[tokio::test]
async fn a_call_that_was_refused_for_want_of_room_goes_elsewhere_whatever_it_is() {
    let house = House::new();
    let client = house.client();
    let (first, second) = (house.instance("first").await, house.instance("second").await);
    warm(&client, 2).await;
    first.behave(Manner::Shed(1));
    // Fewer than repetitions are allowed in a second.
    for _ in 0..8 {
        // Not even a write has been begun.
        assert_eq!(*put(&client).await.unwrap().instance_id, *second.id);
    }
}

#[tokio::test]
async fn a_service_that_refuses_is_spared() {
    let house = House::new();
    // The breaker would be faster.
    let breaker = breaker::Policy { calls_min: u32::MAX, ..breaker::Policy::default() };
    let client = house.client_with(Policy { breaker, ..Policy::default() });
    let only = house.instance("only").await;
    warm(&client, 1).await;
    only.behave(Manner::Shed(-1));
    let before = only.calls();
    let mut held_back = 0;
    for _ in 0..200 {
        let status = put(&client).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        held_back += u32::from(fault::reason(&status).as_deref() == Some("CALL_THROTTLED"));
    }
    assert!(held_back > 50, "{held_back} calls were held back");
    assert!(only.calls() - before < 150, "{} calls reached it", only.calls() - before);
}

#[tokio::test]
async fn a_fallback_answers_when_nobody_else_can_and_only_then() {
    let house = House::new();
    let channel = house.discovery.channel_with(
        "pump",
        Policy { timeouts: Timeouts { ready: Duration::from_millis(50), ..Timeouts::default() }, ..Policy::default() },
    );
    let channel = channel.or_else(METHOD, |request: config::GetDocumentRequest, _| {
        (request.service == "known").then(config::GetDocumentResponse::default)
    });
    let client = Client::new(channel);
    let ask = async |service: &str| {
        let request = config::GetDocumentRequest { service: service.to_owned(), ..Default::default() };
        client.clone().get_document(request).await
    };
    let answer = ask("known").await.expect("the fallback answers");
    assert!(answer.extensions().get::<FellBack>().is_some());
    let status = ask("unknown").await.unwrap_err();
    assert_eq!(fault::reason(&status).as_deref(), Some("NO_INSTANCE"));

    let only = house.instance("only").await;
    let is_there = async { while ask("known").await.unwrap().extensions().get::<FellBack>().is_some() {} };
    timeout(LONG, is_there).await.expect("the instance answers, once it is known");
    only.behave(Manner::Refuse(Code::NotFound));
    assert_eq!(ask("known").await.unwrap_err().code(), Code::NotFound);
    only.behave(Manner::Shed(-1));
    assert!(ask("known").await.unwrap().extensions().get::<FellBack>().is_some());
}

#[tokio::test]
async fn no_repetition_is_made_that_would_come_too_late() {
    let house = House::new();
    let client = house.client();
    let (first, second) = (house.instance("first").await, house.instance("second").await);
    for instance in [&first, &second] {
        instance.behave(Manner::Answer(Duration::from_millis(300)));
    }
    join_all((0..60).map(|_| get(&client))).await;
    for instance in [&first, &second] {
        instance.behave(Manner::Refuse(Code::Unavailable));
    }
    let before = first.calls() + second.calls();
    let mut request = Request::new(config::GetDocumentRequest::default());
    request.set_timeout(Duration::from_millis(200));
    let status = client.clone().get_document(request).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(first.calls() + second.calls(), before + 1);
}

#[tokio::test]
async fn one_message_is_sent_again_by_a_channel_of_any_clone() {
    let house = House::new();
    let client = Arc::new(house.client());
    let only = house.instance("only").await;
    warm(&client, 1).await;
    only.behave(Manner::Push(1));
    let before = only.calls();
    let asking = tokio::time::timeout(LONG, get(&client));
    let (answer, ()) = tokio::join!(asking, wait_for(|| only.calls() > before));
    assert_eq!(answer.unwrap().unwrap_err().code(), Code::Unavailable);
}

fn hedged(delay: Option<Duration>) -> Policy {
    Policy { hedging: Hedging { attempts_max: 2, delay }, ..Policy::default() }
}

#[tokio::test]
async fn a_slow_answer_is_asked_for_twice_and_the_slower_attempt_is_given_up() {
    let house = House::new();
    let client = house.client_with(hedged(Some(Duration::from_millis(30))));
    let (first, second) = (house.instance("first").await, house.instance("second").await);
    warm(&client, 2).await;
    first.behave(Manner::Hang);
    for _ in 0..10 {
        let answer = timeout(LONG, get(&client)).await.expect("the other one answers").unwrap();
        assert_eq!(*answer.instance_id, *second.id);
    }
    wait_for(|| first.in_work() == 0).await;
}

#[tokio::test]
async fn a_write_is_not_hedged() {
    let held = Held::hold();
    let house = House::new();
    let client = house.client_with(hedged(Some(Duration::from_millis(30))));
    let (first, second) = (house.instance("first").await, house.instance("second").await);
    warm(&client, 2).await;
    for instance in [&first, &second] {
        instance.behave(Manner::Hang);
    }
    let before = first.calls() + second.calls();
    let answer = tokio::select! {
        answer = put(&client) => Some(answer),
        () = held.pass(Duration::from_secs(2)) => None,
    };
    assert!(answer.is_none(), "{answer:?}");
    assert_eq!(first.calls() + second.calls(), before + 1);
    let answer = tokio::select! {
        answer = get(&client) => Some(answer),
        () = held.pass(Duration::from_secs(2)) => None,
    };
    assert!(answer.is_none(), "{answer:?}");
    assert_eq!(first.calls() + second.calls(), before + 3, "a read is");
}

#[tokio::test]
async fn hedges_wait_for_what_is_usual_and_are_made_within_the_budget() {
    let house = House::new();
    let retry = Retry { budget_percent: 0, budget_per_second: 3, ..Retry::default() };
    let client = house.client_with(Policy { retry, ..hedged(None) });
    let (first, second) = (house.instance("first").await, house.instance("second").await);
    warm(&client, 2).await;
    for _ in 0..50 {
        get(&client).await.unwrap();
    }
    // What was hedged until now is of another second.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    for instance in [&first, &second] {
        // Much more than usual, whatever else the machine does.
        instance.behave(Manner::Answer(Duration::from_secs(1)));
    }
    let before = first.calls() + second.calls();
    join_all((0..20).map(|_| get(&client))).await;
    let hedges = first.calls() + second.calls() - before - 20;
    // Three in each second, and they may fall into three.
    assert!((1..=9).contains(&hedges), "{hedges} hedges");
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_made_elsewhere() {
    let held = Held::hold();
    let house = House::new();
    let timeouts = Timeouts { attempt: Some(Duration::from_millis(100)), ..Timeouts::default() };
    let client = house.client_with(Policy { timeouts, ..Policy::default() });
    let (first, second) = (house.instance("first").await, house.instance("second").await);
    warm(&client, 2).await;
    first.behave(Manner::Hang);
    let ask = async || tokio::join!(get(&client), held.pass(Duration::from_secs(1))).0;
    let before = first.calls();
    for _ in 0..20 {
        assert_eq!(*ask().await.unwrap().instance_id, *second.id);
    }
    assert!(first.calls() > before, "it was asked first, now and then");
    second.behave(Manner::Hang);
    let status = ask().await.unwrap_err();
    assert_eq!(fault::reason(&status).as_deref(), Some("CALL_DEADLINE"));
}

#[tokio::test]
async fn so_many_calls_are_in_flight_and_wait_as_the_policy_allows() {
    let house = House::new();
    let limits = Limits { in_flight_max: Some(2), waiting_max: Some(1), ..Limits::default() };
    let client = house.client_with(Policy { limits, ..Policy::default() });
    let only = house.instance("only").await;
    warm(&client, 1).await;
    only.behave(Manner::Answer(Duration::from_millis(200)));
    let before = only.calls();
    let answers = join_all((0..4).map(|_| get(&client))).await;
    let refused: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    assert_eq!(refused.len(), 1, "{answers:?}");
    assert_eq!(fault::reason(refused[0]).as_deref(), Some("CALLS_FULL"));
    assert_eq!(only.calls() - before, 3);
}

#[tokio::test]
async fn other_codes_are_repeated_where_the_policy_says_so() {
    let house = House::new();
    let retry = Retry { codes: Codes::from_iter([Code::Aborted]), ..Retry::default() };
    let client = house.client_with(Policy { retry, ..Policy::default() });
    let (first, second) = (house.instance("first").await, house.instance("second").await);
    warm(&client, 2).await;
    first.behave(Manner::Refuse(Code::Aborted));
    for _ in 0..10 {
        assert_eq!(*get(&client).await.unwrap().instance_id, *second.id);
    }
}

#[tokio::test]
async fn a_policy_from_central_configuration_holds_for_the_next_call() {
    let house = House::new();
    let client = house.client();
    let only = house.instance("only").await;
    warm(&client, 1).await;
    only.behave(Manner::Hang);
    let timeouts =
        words::Timeouts { call: Some(Duration::from_millis(50).try_into().unwrap()), ..words::Timeouts::default() };
    house.registry.say(words::Policy {
        service: "pump".to_owned(),
        timeouts: Some(timeouts),
        ..words::Policy::default()
    });
    let mut landscape = house.discovery.landscape();
    let is_known = landscape.wait_for(|view| view.policy("pump").is_some());
    timeout(LONG, is_known).await.expect("the discovery hears of it").unwrap();
    let status = timeout(Duration::from_secs(4), put(&client)).await.expect("it ends sooner than usual").unwrap_err();
    assert_eq!(fault::reason(&status).as_deref(), Some("CALL_DEADLINE"));
}

async fn admitting(house: &House, admission: Admission) -> Instance {
    let config = ServeConfig { admission: LiveAdmission::new(admission), ..ServeConfig::default() };
    let instance = Instance::start_with("only", config, &house.scope).await;
    house.registry.put(instance.words());
    instance
}

#[tokio::test]
async fn an_instance_that_has_no_room_says_so_and_when_to_come_again() {
    let held = Held::hold();
    let house = House::new();
    let client = house.client();
    let only = admitting(&house, Admission { in_flight_max: Some(1), queue_max: 0, ..Admission::default() }).await;
    warm(&client, 1).await;
    let before = only.calls();
    only.behave(Manner::Answer(Duration::from_secs(1)));
    let mut first = pin!(put(&client));
    let arrived = held.until("the first is in work", async || only.in_work() == 1);
    tokio::select! {
        answer = &mut first => panic!("it takes a second: {answer:?}"),
        () = arrived => {}
    }
    // The channel waits as long as it is told, and finds nobody else.
    let (answer, ()) = tokio::join!(put(&client), held.pass(Duration::from_millis(300)));
    let status = answer.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(fault::reason(&status).as_deref(), Some("INSTANCE_OVERLOADED"), "{status:?}");
    let wait: u64 = status.metadata().get("grpc-retry-pushback-ms").unwrap().to_str().unwrap().parse().unwrap();
    assert!((50..150).contains(&wait), "{wait} ms");
    assert_eq!(only.calls(), before + 1, "it was not begun");
    let (answer, ()) = tokio::join!(first, held.pass(Duration::from_secs(2)));
    answer.expect("the first is answered");
    let (answer, ()) = tokio::join!(put(&client), held.pass(Duration::from_secs(2)));
    answer.expect("there is room again");
}

#[tokio::test]
async fn a_call_that_expires_while_it_waits_for_its_turn_is_never_begun() {
    let held = Held::hold();
    let house = House::new();
    let client = house.client();
    let queue_wait_max = Duration::from_secs(4);
    let only =
        admitting(&house, Admission { in_flight_max: Some(1), queue_max: 8, queue_wait_max, ..Admission::default() })
            .await;
    warm(&client, 1).await;
    let before = only.calls();
    only.behave(Manner::Answer(Duration::from_secs(2)));
    let short = async {
        let mut request = Request::new(config::PutDocumentRequest::default());
        request.set_timeout(Duration::from_secs(1));
        client.clone().put_document(request).await.map(drop)
    };
    let story = async {
        held.until("the first is in work", async || only.in_work() == 1).await;
        let (expired, waited, ()) = tokio::join!(short, put(&client), held.pass(Duration::from_secs(5)));
        (expired, waited)
    };
    let (first, (expired, waited)) = tokio::join!(put(&client), story);
    first.expect("the first is answered");
    assert_eq!(expired.unwrap_err().code(), Code::DeadlineExceeded);
    waited.expect("the one with time enough has its turn");
    assert_eq!(only.calls(), before + 2, "the expired one was not begun");
}

#[tokio::test]
async fn an_adaptive_limit_refuses_calls_when_they_only_wait_for_each_other() {
    const CALLERS: usize = 100;
    let held = Held::hold();
    let house = House::new();
    let limits = Limits { is_adaptive: true, in_flight_max: Some(1000), waiting_max: Some(0), ..Limits::default() };
    let client = house.client_with(Policy { limits, ..Policy::default() });
    // The callee takes all in.
    let only = admitting(&house, Admission { is_disabled: true, ..Admission::default() }).await;
    warm(&client, 1).await;
    let round = async |took: Duration| {
        only.behave(Manner::Answer(took));
        let (answers, ()) = tokio::join!(join_all((0..CALLERS).map(|_| get(&client))), held.pass(took * 2));
        let mut refused = 0;
        for answer in answers {
            if let Err(status) = answer {
                assert_eq!(fault::reason(&status).as_deref(), Some("CALLS_FULL"), "{status:?}");
                refused += 1;
            }
        }
        refused
    };
    for _ in 0..20 {
        assert_eq!(round(Duration::from_millis(100)).await, 0, "all are well within the limit");
    }
    let mut refused = 0;
    for _ in 0..40 {
        refused = round(Duration::from_secs(1)).await;
        if refused > 0 {
            break;
        }
    }
    assert!((1..CALLERS).contains(&refused), "{refused} of {CALLERS}, with a fixed limit of 1000");
}
