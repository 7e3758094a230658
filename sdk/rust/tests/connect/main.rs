//! A service that calls another, over real sockets, with a registry that says what the test wants.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod decide;
mod eject;
mod fake;
mod held;
mod hops;
mod lines;
mod overload;
mod platform;
mod probe;
mod roads;
mod watch;
mod weigh;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fake::{Flag, Instance, Manner, Registry};
use futures_util::future::join_all;
use ninefold::connect::policy::Timeouts;
use ninefold::connect::{
    self, Among, AnsweredBy, Channel, Dialer, Discovery, Idempotent, Interest, Policy, breaker, deadline,
};
use ninefold::fault;
use ninefold::lifecycle::Scope;
use ninefold::proto::ninefold::config::v1 as config;
use ninefold::proto::ninefold::registry::v1::{Event, EventKind, InstanceState};
use ninefold::tonic::{Code, Request, Status};
use tokio::sync::broadcast;
use tokio::time::{Instant, timeout};

type Client = config::config_service_client::ConfigServiceClient<Channel>;

const LONG: Duration = Duration::from_secs(20);

/// One landscape: a registry, a discovery, and what the test adds.
struct House {
    scope: Scope,
    registry: Registry,
    discovery: Discovery,
}

impl House {
    fn new() -> Self {
        Self::dialing(Dialer::default())
    }

    fn dialing(dialer: Dialer) -> Self {
        Self::following(Registry::new(), dialer)
    }

    fn following(registry: Registry, dialer: Dialer) -> Self {
        let scope = Scope::root("test");
        let discovery = Discovery::start(registry.link(), Interest::Named, &scope).dialing(dialer);
        Self { scope, registry, discovery }
    }

    async fn instance(&self, id: &str) -> Instance {
        let instance = Instance::start(id, &self.scope).await;
        self.registry.put(instance.words());
        instance
    }

    fn client(&self) -> Client {
        self.client_with(Policy::default())
    }

    fn client_with(&self, policy: Policy) -> Client {
        Client::new(self.discovery.channel_with("pump", policy))
    }

    /// Waits until the discovery knows as many instances.
    async fn knows(&self, count: usize) {
        let mut landscape = self.discovery.landscape();
        let known = landscape.wait_for(|view| view.instances("pump").len() == count);
        timeout(LONG, known).await.expect("the discovery hears of it").unwrap();
    }
}

async fn get(client: &Client) -> Result<AnsweredBy, Status> {
    let response = client.clone().get_document(config::GetDocumentRequest::default()).await?;
    Ok(response.extensions().get::<AnsweredBy>().expect("the channel says who answered").clone())
}

async fn put(client: &Client) -> Result<AnsweredBy, Status> {
    let response = client.clone().put_document(config::PutDocumentRequest::default()).await?;
    Ok(response.extensions().get::<AnsweredBy>().expect("the channel says who answered").clone())
}

/// Calls until both have answered, so that both are connected to.
async fn warm(client: &Client, instances: usize) {
    let mut seen = BTreeSet::new();
    let all = async {
        while seen.len() < instances {
            seen.insert(get(client).await.unwrap().instance_id);
        }
    };
    timeout(LONG, all).await.expect("every instance answers");
}

fn waiting(timeouts: Timeouts) -> Policy {
    Policy { timeouts, ..Policy::default() }
}

fn quick() -> breaker::Policy {
    breaker::Policy { wait_min: Duration::from_millis(200), ..breaker::Policy::default() }
}

async fn next(events: &mut broadcast::Receiver<Event>) -> Event {
    timeout(LONG, events.recv()).await.expect("an event comes").unwrap()
}

#[tokio::test]
async fn calls_are_shared_by_all_instances() {
    let house = House::new();
    let client = house.client();
    let (first, second) = (house.instance("first").await, house.instance("second").await);
    warm(&client, 2).await;
    let mut shares = BTreeMap::<_, u32>::new();
    let shared = async {
        // A hiccup of the machine may hold one of them back for a few seconds.
        while shares.len() < 2 || shares.values().any(|share| *share < 50) {
            *shares.entry(get(&client).await.unwrap()).or_default() += 1;
        }
    };
    timeout(LONG, shared).await.expect("both have their share");
    for instance in [first, second] {
        let by = shares.keys().find(|by| *by.instance_id == *instance.id).expect("it has a share");
        assert_eq!(*by.address, *instance.address.to_string());
        assert_eq!(&*by.service, "pump");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_fails_when_an_instance_is_killed_under_load() {
    let house = House::new();
    let client = house.client();
    let (first, second) = (house.instance("first").await, house.instance("second").await);
    for instance in [&first, &second] {
        instance.behave(Manner::Answer(Duration::from_millis(20)));
    }
    warm(&client, 2).await;
    let is_over = Flag::default();
    let callers = join_all((0..20).map(|_| async {
        let mut calls = 0;
        while !is_over.is_raised() {
            get(&client).await.expect("no read fails");
            calls += 1;
        }
        calls
    }));
    let story = async {
        // A fifth of the calls may be repeated: enough for all twenty, should they all be there.
        wait_for(|| first.calls() > 150).await;
        first.kill();
        let before = second.calls();
        wait_for(|| second.calls() > before + 200).await;
        is_over.raise();
    };
    let (calls, ()) = timeout(LONG, async { tokio::join!(callers, story) }).await.unwrap();
    assert!(calls.iter().sum::<u32>() > 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_fails_when_an_instance_drains_under_load() {
    let house = House::new();
    let client = house.client();
    let (first, second) = (house.instance("first").await, house.instance("second").await);
    for instance in [&first, &second] {
        instance.behave(Manner::Answer(Duration::from_millis(5)));
    }
    warm(&client, 2).await;
    let is_over = Flag::default();
    let callers = join_all((0..10).map(|_| async {
        let mut answered = 0;
        while !is_over.is_raised() {
            put(&client).await.expect("no write fails");
            answered += 1;
        }
        answered
    }));
    let story = async {
        wait_for(|| first.calls() > 30).await;
        // The registry does not know yet: only GOAWAY tells.
        first.stop();
        let before = second.calls();
        wait_for(|| second.calls() > before + 100).await;
        is_over.raise();
    };
    let warmed = first.calls() + second.calls();
    let (answered, ()) = timeout(LONG, async { tokio::join!(callers, story) }).await.unwrap();
    // Each write was worked on once.
    assert_eq!(answered.iter().sum::<u32>(), first.calls() + second.calls() - warmed);
}

#[tokio::test]
async fn a_write_that_may_have_been_processed_is_not_repeated() {
    let house = House::new();
    let client = house.client();
    let (first, second) = (house.instance("first").await, house.instance("second").await);
    warm(&client, 2).await;
    let before = first.calls() + second.calls();
    for instance in [&first, &second] {
        instance.behave(Manner::Hang);
    }
    let story = async {
        wait_for(|| first.calls() + second.calls() > before).await;
        first.kill();
        second.kill();
    };
    let (answer, ()) = timeout(LONG, async { tokio::join!(put(&client), story) }).await.unwrap();
    let status = answer.unwrap_err();
    assert_eq!(fault::reason(&status).as_deref(), Some("CONNECTION_LOST"), "{status:?}");
    assert!(connect::is_unavailable(&status));
    assert_eq!(first.calls() + second.calls(), before + 1);
}

#[tokio::test]
async fn a_refused_read_is_repeated_elsewhere_and_a_refused_write_is_not() {
    let house = House::new();
    let client = house.client();
    let (first, second) = (house.instance("first").await, house.instance("second").await);
    warm(&client, 2).await;
    first.behave(Manner::Refuse(Code::Unavailable));
    let mut refused_writes = 0;
    for _ in 0..4 {
        assert_eq!(&*get(&client).await.unwrap().instance_id, "second");
        refused_writes += u32::from(put(&client).await.is_err());
        let mut request = Request::new(config::PutDocumentRequest::default());
        request.extensions_mut().insert(Idempotent);
        client.clone().put_document(request).await.expect("a write that says it is idempotent is repeated");
    }
    assert!(refused_writes < 5, "the breaker ends it: {refused_writes}");
    assert!(second.calls() > 8);
}

#[tokio::test]
async fn a_server_says_when_to_come_again() {
    let house = House::new();
    let client = house.client();
    let (first, second) = (house.instance("first").await, house.instance("second").await);
    warm(&client, 2).await;
    let answer_after = async |wait| {
        first.behave(Manner::Push(wait));
        let refusals = first.calls();
        let started = Instant::now();
        loop {
            let answer = get(&client).await;
            if first.calls() > refusals {
                return (answer, started.elapsed());
            }
        }
    };
    let (answer, took) = answer_after(300).await;
    assert_eq!(*answer.unwrap().instance_id, *second.id);
    assert!(took >= Duration::from_millis(300), "{took:?}");
    let (answer, _) = answer_after(-1).await;
    assert_eq!(answer.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_read_outlives_all_instances_if_another_comes_in_time() {
    let house = House::new();
    let client = house.client();
    let first = house.instance("first").await;
    warm(&client, 1).await;
    first.behave(Manner::Hang);
    let story = async {
        wait_for(|| first.calls() > 1).await;
        first.kill();
        house.instance("second").await
    };
    let (answer, second) = timeout(LONG, async { tokio::join!(get(&client), story) }).await.unwrap();
    assert_eq!(*answer.unwrap().instance_id, *second.id);
}

#[tokio::test]
async fn a_stream_whose_instance_is_killed_ends_with_a_status() {
    let house = House::new();
    let only = house.instance("only").await;
    only.behave(Manner::Stream(Duration::from_millis(5)));
    let mut stream = house.client().watch_document(config::WatchDocumentRequest::default()).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    only.kill();
    let end = async {
        loop {
            if let Err(status) = stream.message().await {
                return status;
            }
        }
    };
    let status = timeout(LONG, end).await.expect("the stream ends");
    assert_eq!(fault::reason(&status).as_deref(), Some("CONNECTION_LOST"), "{status:?}");
}

#[tokio::test]
async fn a_trace_travels_with_the_call() {
    use opentelemetry::trace::TracerProvider as _;
    use tracing::Instrument as _;
    use tracing::instrument::WithSubscriber as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    let house = House::new();
    let client = house.client();
    let only = house.instance("only").await;
    let tracer = opentelemetry_sdk::trace::SdkTracerProvider::builder().build().tracer("test");
    let subscriber = tracing_subscriber::registry().with(tracing_opentelemetry::layer().with_tracer(tracer));
    let work = async {
        let span = tracing::info_span!("test.work");
        get(&client).instrument(span.clone()).await.unwrap();
        ninefold::telemetry::trace_id(&span).expect("the span is recorded")
    };
    let trace_id = work.with_subscriber(subscriber).await;
    let parent = only.headers()["traceparent"].to_str().unwrap().to_owned();
    assert!(parent.starts_with(&format!("00-{trace_id}-")), "{parent}");
}

#[tokio::test]
async fn a_breaker_opens_after_failures_and_closes_after_a_probe_and_trials() {
    let house = House::new();
    let policy = Policy { breaker: quick(), ..Policy::default() };
    let client = house.client_with(policy);
    let mut events = house.discovery.events();
    let only = house.instance("only").await;
    only.behave(Manner::Refuse(Code::Internal));
    for _ in 0..5 {
        assert_eq!(get(&client).await.unwrap_err().code(), Code::Internal);
    }
    let status = get(&client).await.unwrap_err();
    assert_eq!(fault::reason(&status).as_deref(), Some("BREAKER_OPEN"), "{status:?}");
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(only.calls(), 5, "an open breaker keeps calls away");
    only.behave(Manner::Answer(Duration::ZERO));

    let opened = next(&mut events).await;
    assert_eq!(opened.kind(), EventKind::BreakerOpened);
    assert_eq!(opened.reason, "5 failures in a row: Internal: as the test wants");
    assert_eq!((opened.service.as_str(), opened.instance_id.as_str()), ("pump", "only"));
    assert_eq!(next(&mut events).await.kind(), EventKind::BreakerHalfOpened);
    for _ in 0..3 {
        get(&client).await.unwrap();
    }
    assert_eq!(next(&mut events).await.kind(), EventKind::BreakerClosed);
}

#[tokio::test]
async fn an_address_that_refuses_opens_its_breaker_without_calls() {
    let house = House::new();
    let client = house.client();
    let mut events = house.discovery.events();
    let dead = Instance::start("dead", &house.scope).await;
    dead.kill();
    wait_until_refused(&dead).await;
    house.registry.put(dead.words());
    let opened = next(&mut events).await;
    assert!(opened.reason.starts_with("5 failures in a row: Connection refused"), "{}", opened.reason);
    let alive = house.instance("alive").await;
    house.knows(2).await;
    assert_eq!(*get(&client).await.unwrap().instance_id, *alive.id);
}

#[tokio::test]
async fn an_address_that_speaks_another_protocol_opens_its_breaker() {
    let house = House::new();
    let client = house.client();
    let mut events = house.discovery.events();
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut words = Instance::start("other", &house.scope).await.words();
    words.addresses[0].port = socket.local_addr().unwrap().port().into();
    house.registry.put(words);
    let accept = async {
        loop {
            drop(socket.accept().await);
        }
    };
    let opened = tokio::select! {
        opened = next(&mut events) => opened,
        () = accept => unreachable!("it goes on"),
    };
    assert_eq!(opened.reason, "5 failures in a row: the connection ended at once");
    assert_eq!(fault::reason(&get(&client).await.unwrap_err()).as_deref(), Some("BREAKER_OPEN"));
}

#[tokio::test]
async fn mistakes_of_the_caller_leave_the_breaker_closed() {
    let house = House::new();
    let client = house.client();
    let only = house.instance("only").await;
    only.behave(Manner::Refuse(Code::NotFound));
    for _ in 0..30 {
        assert_eq!(get(&client).await.unwrap_err().code(), Code::NotFound);
    }
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_answered_with_deadline_exceeded() {
    let house = House::new();
    let only = house.instance("only").await;
    only.behave(Manner::Hang);
    let short = Duration::from_millis(100);

    // The channel's own.
    let client = house.client_with(waiting(Timeouts { call: short, ..Timeouts::default() }));
    let status = get(&client).await.unwrap_err();
    assert_eq!((status.code(), fault::reason(&status).as_deref()), (Code::DeadlineExceeded, Some("CALL_DEADLINE")));

    // The call's own, which travels.
    let client = house.client();
    let mut request = Request::new(config::GetDocumentRequest::default());
    request.set_timeout(short);
    let status = client.clone().get_document(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(deadline::left(&only.headers()).unwrap() <= short);

    // That of the work around it, which travels too.
    let started = Instant::now();
    let status = deadline::scope(started + short, get(&client)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(deadline::left(&only.headers()).unwrap() <= short);
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_stream_outlives_the_default_deadline_but_not_the_callers() {
    let house = House::new();
    let only = house.instance("only").await;
    only.behave(Manner::Stream(Duration::from_millis(20)));
    let short = Duration::from_millis(200);
    let mut client = house.client_with(waiting(Timeouts { call: short, ..Timeouts::default() }));
    let mut stream = client.watch_document(config::WatchDocumentRequest::default()).await.unwrap().into_inner();
    let started = Instant::now();
    while started.elapsed() < short * 2 {
        stream.message().await.unwrap().expect("the stream goes on");
    }

    let mut request = Request::new(config::WatchDocumentRequest::default());
    request.set_timeout(short);
    let mut stream = client.watch_document(request).await.unwrap().into_inner();
    let end = async {
        loop {
            if let Err(status) = stream.message().await {
                return status;
            }
        }
    };
    let status = timeout(LONG, end).await.expect("the stream ends");
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_call_waits_for_an_instance_that_comes_late() {
    let house = House::new();
    let client = house.client();
    let late = async {
        tokio::task::yield_now().await;
        house.instance("late").await
    };
    let (answer, late) = tokio::join!(get(&client), late);
    assert_eq!(*answer.unwrap().instance_id, *late.id);
}

#[tokio::test]
async fn a_service_without_instances_is_named() {
    let house = House::new();
    let client = house.client_with(waiting(Timeouts { ready: Duration::from_millis(50), ..Timeouts::default() }));
    let status = get(&client).await.unwrap_err();
    assert_eq!((status.code(), fault::reason(&status).as_deref()), (Code::Unavailable, Some("NO_INSTANCE")));
    assert_eq!(status.message(), "no instance of \"pump\" is ready");
}

#[tokio::test]
async fn only_instances_with_the_contract_asked_for_answer() {
    let house = House::new();
    let client = house.client_with(waiting(Timeouts { ready: Duration::from_millis(50), ..Timeouts::default() }));
    let _instances = (house.instance("first").await, house.instance("second").await);
    warm(&house.client(), 2).await;
    let ask = async |digest: &str| {
        let mut request = Request::new(config::GetDocumentRequest::default());
        request.extensions_mut().insert(Among(Arc::new(BTreeSet::from([digest.to_owned()]))));
        let response = client.clone().get_document(request).await?;
        Ok::<_, Status>(response.extensions().get::<AnsweredBy>().unwrap().instance_id.clone())
    };
    for _ in 0..20 {
        assert_eq!(&*ask("sha256:second").await.unwrap(), "second");
    }
    let status = ask("sha256:third").await.unwrap_err();
    assert_eq!(fault::reason(&status).as_deref(), Some("NO_INSTANCE"));
}

#[tokio::test]
async fn draining_instances_get_no_call_and_suspects_only_where_there_is_no_other() {
    let house = House::new();
    let client = house.client_with(waiting(Timeouts { ready: Duration::from_millis(50), ..Timeouts::default() }));
    let (first, second) = (house.instance("first").await, house.instance("second").await);
    warm(&house.client(), 2).await;
    for state in [InstanceState::Draining, InstanceState::Suspect] {
        house.registry.put(first.words_in(state));
        seen(&house, &first.id, state).await;
        for _ in 0..20 {
            assert_eq!(*get(&client).await.unwrap().instance_id, *second.id, "{state:?}");
        }
    }
    house.registry.put(second.words_in(InstanceState::Draining));
    seen(&house, &second.id, InstanceState::Draining).await;
    assert_eq!(*get(&client).await.unwrap().instance_id, *first.id);
}

#[tokio::test]
async fn calls_go_on_while_the_registry_is_away() {
    let house = House::new();
    let client = house.client();
    let _first = house.instance("first").await;
    warm(&client, 1).await;
    house.registry.go_away();
    for _ in 0..20 {
        get(&client).await.unwrap();
    }
    // It comes back with nothing, as one that has just started, and hears from the instances only later.
    house.registry.forget_all();
    house.registry.come_back();
    let second = Instance::start("second", &house.scope).await;
    for _ in 0..20 {
        get(&client).await.unwrap();
    }
    house.registry.put(second.words());
    let mut landscape = house.discovery.landscape();
    let is_second = landscape.wait_for(|view| view.instances("pump").iter().any(|instance| &*instance.id == "second"));
    timeout(LONG, is_second).await.expect("the discovery hears of it").unwrap();
    house.knows(1).await;
    assert_eq!(&*get(&client).await.unwrap().instance_id, "second");
}

#[tokio::test]
async fn a_call_given_up_is_cancelled_at_the_instance_and_counts_nothing() {
    let house = House::new();
    let client = house.client();
    let only = house.instance("only").await;
    warm(&client, 1).await;
    only.behave(Manner::Hang);
    for _ in 0..10 {
        assert!(timeout(Duration::from_millis(20), get(&client)).await.is_err());
    }
    only.behave(Manner::Answer(Duration::ZERO));
    get(&client).await.expect("the breaker is closed");
}

/// h2 takes many small frames that arrive at once for an attack, unless the connection's window is large.
#[tokio::test]
async fn many_calls_at_once_are_all_answered() {
    let house = House::new();
    let client = house.client();
    let only = house.instance("only").await;
    only.behave(Manner::Answer(Duration::from_millis(50)));
    for answer in join_all((0..600).map(|_| get(&client))).await {
        answer.unwrap();
    }
}

/// Waits until the discovery sees an instance in a state.
async fn seen(house: &House, id: &str, state: InstanceState) {
    let wanted = match state {
        InstanceState::Draining => connect::State::Draining,
        InstanceState::Suspect => connect::State::Suspect,
        other => panic!("no test asks for {other:?}"),
    };
    let mut landscape = house.discovery.landscape();
    let is_seen = landscape
        .wait_for(|view| view.instances("pump").iter().any(|instance| *instance.id == *id && instance.state == wanted));
    timeout(LONG, is_seen).await.expect("the discovery hears of it").unwrap();
}

/// Looks again every few milliseconds until something is so.
async fn wait_for(is_so: impl Fn() -> bool) {
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    let waited = async {
        while !is_so() {
            tick.tick().await;
        }
    };
    timeout(LONG, waited).await.expect("it comes about");
}

async fn wait_until_refused(instance: &Instance) {
    let refused = async {
        while tokio::net::TcpStream::connect(instance.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, refused).await.expect("the socket closes");
}
