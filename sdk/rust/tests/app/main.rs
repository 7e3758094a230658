//! A service from its start to its end, against a platform that comes, goes and asks.

#![expect(clippy::unwrap_used, reason = "test support: a panic is the failure")]

mod greeter;
mod platform;

use std::time::Duration;

use greeter::{GREETER, Greeter, ask, bare_client, greeter, settings};
use ninefold::lifecycle::{OnError, Scope};
use ninefold::proto::ninefold::contract::v1::GetContractRequest;
use ninefold::proto::ninefold::contract::v1::contract_service_client::ContractServiceClient;
use ninefold::proto::ninefold::registry::v1::{Address, Event, EventKind, Instance, InstanceState};
use ninefold::session::{self, Registration};
use ninefold::tonic::transport::{Channel, Endpoint};
use ninefold::tonic::{Code, Request};
use ninefold::{App, Error};
use platform::{Notes, PATIENCE, Platform};
use tokio::sync::{oneshot, watch};

/// A service that runs, and the end that stops it.
struct Running {
    stop: Option<oneshot::Sender<()>>,
    outcome: watch::Receiver<Option<String>>,
    _scope: Scope,
}

fn start(app: App) -> Running {
    let scope = Scope::root("test");
    let (stop, stopped) = oneshot::channel::<()>();
    let (tell, outcome) = watch::channel(None);
    scope.spawn("test.app", OnError::Log, |_| async move {
        let outcome = app.run_until(async { drop(stopped.await) }).await;
        tell.send_replace(Some(outcome.as_ref().map_or_else(ToString::to_string, |()| "ok".to_owned())));
        outcome
    });
    Running { stop: Some(stop), outcome, _scope: scope }
}

impl Running {
    fn stop(&mut self) {
        drop(self.stop.take());
    }

    async fn outcome(&mut self) -> String {
        let outcome = tokio::time::timeout(PATIENCE, self.outcome.wait_for(Option::is_some)).await;
        outcome.expect("the service ends in time").unwrap().clone().unwrap()
    }
}

/// A client of the greeter at an address.
async fn client(host: &str, port: u32) -> ContractServiceClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{host}:{port}")).unwrap();
    ContractServiceClient::new(endpoint.connect().await.unwrap())
}

fn at(platform: &Platform) -> String {
    format!("http://{}", platform.address)
}

fn is_serving(notes: &Notes) -> bool {
    notes.instances.values().any(|(_, states)| states.last() == Some(&InstanceState::Serving))
}

fn address(notes: &Notes) -> Address {
    notes.instances.values().next().unwrap().0.addresses[0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_registers_where_it_really_listens_and_leaves_when_it_stops() {
    let platform = Platform::start().await;
    let mut app = start(greeter(settings(&at(&platform)), &Greeter::new()));
    let notes = platform.until("a serving instance", is_serving).await;

    let (instance, _) = notes.instances.values().next().unwrap();
    assert_eq!(
        (instance.service.as_str(), instance.version.as_str(), instance.zone.as_str()),
        ("greeter", "1.2.3", "here")
    );
    assert_eq!(instance.protobuf_services, [GREETER]);
    assert_eq!(notes.contracts.keys().collect::<Vec<_>>(), [&instance.contract_digest]);
    let Address { host, port } = address(&notes);
    assert!(client(&host, port).await.check_contract(ask("now")).await.unwrap().into_inner().known);
    platform.until("beats", |notes| notes.beats >= 3).await;

    app.stop();
    assert_eq!(app.outcome().await, "ok");
    let notes = platform.until("a farewell", |notes| !notes.farewells.is_empty()).await;
    assert_eq!(notes.farewells, ["asked to stop"]);
    let (_, states) = notes.instances.values().next().unwrap();
    assert_eq!(states[..], [InstanceState::Serving, InstanceState::Draining]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_hand_in_their_contract_once() {
    let platform = Platform::start().await;
    let _first = start(greeter(settings(&at(&platform)), &Greeter::new()));
    platform.until("one instance", |notes| notes.instances.len() == 1).await;
    let _second = start(greeter(settings(&at(&platform)), &Greeter::new()));
    let notes = platform.until("two instances", |notes| notes.instances.len() == 2).await;
    assert_eq!(notes.puts, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_starts_without_the_platform_and_joins_later_and_again() {
    // The address of a platform that is gone.
    let (address, notes) = Platform::start().await.kill().await;
    let mut at_fixed = settings(&format!("http://{address}"));
    let port = free_port().await;
    at_fixed.listen = format!("127.0.0.1:{port}");
    let _app = start(greeter(at_fixed, &Greeter::new()));
    let mut calls = eventually_connected(port).await;
    assert!(calls.check_contract(ask("now")).await.is_ok(), "it serves while it is alone");

    let platform = Platform::start_at(&address.to_string(), notes).await;
    platform.until("joined", is_serving).await;
    let (_, notes) = platform.kill().await;
    assert!(calls.check_contract(ask("now")).await.is_ok(), "it serves on");
    // The new node still believes the session of the old one, for a while.
    notes.send_modify(|notes| notes.taken = 3);
    let platform = Platform::start_at(&address.to_string(), notes).await;
    platform.until("joined again", |notes| notes.registrations == 2 && notes.taken == 0).await;
}

async fn free_port() -> u16 {
    ninefold::serve::Listener::bind("127.0.0.1:0").await.unwrap().address().port()
}

async fn eventually_connected(port: u16) -> ContractServiceClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap();
    let connected = async {
        loop {
            match endpoint.connect().await {
                Ok(channel) => return channel,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let channel = tokio::time::timeout(PATIENCE, connected).await.expect("the service listens");
    ContractServiceClient::new(channel)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_whose_contract_is_refused_serves_on() {
    let platform = Platform::start().await;
    platform.notes.send_modify(|notes| notes.refuses_contracts = true);
    let port = free_port().await;
    let mut at_fixed = settings(&at(&platform));
    at_fixed.listen = format!("127.0.0.1:{port}");
    let mut app = start(greeter(at_fixed, &Greeter::new()));
    assert!(eventually_connected(port).await.check_contract(ask("now")).await.is_ok());
    app.stop();
    assert_eq!(app.outcome().await, "ok");
    assert_eq!(platform.notes.borrow().registrations, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_instance_saw_of_others_reaches_the_platform() {
    use futures_util::StreamExt as _;
    let platform = Platform::start().await;
    let event = Event { service: "review".to_owned(), kind: EventKind::BreakerOpened.into(), ..Event::default() };
    let seen = futures_util::stream::iter(vec![event; 100]).chain(futures_util::stream::pending());
    let scope = Scope::root("test");
    let instance = Instance { service: "probe".to_owned(), instance_id: "probe-1".to_owned(), ..Instance::default() };
    let link = ninefold::connect::platform(&[at(&platform).parse().unwrap()]);
    let registration = Registration { instance, descriptor_set: None };
    // Nobody keeps the handle: the session is the scope's.
    drop(session::hold(registration, link, seen.boxed(), &scope));
    let notes =
        platform.until("all events, and beats after them", |notes| notes.events.len() == 100 && notes.beats > 1).await;
    assert_eq!(notes.events[99].service, "review");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_the_platform_asks_for_finishes_the_calls_in_flight() {
    let platform = Platform::start().await;
    let service = Greeter::new();
    let mut app = start(greeter(settings(&at(&platform)), &service));
    let Address { host, port } = address(&platform.until("a serving instance", is_serving).await);
    let mut slow = client(&host, port).await;
    let scope = Scope::root("caller");
    let (tell, mut answer) = watch::channel(None);
    scope.run("test.call", |_| async move {
        tell.send_replace(Some(slow.check_contract(ask("slow")).await.is_ok()));
    });
    service.begun.acquire().await.unwrap().forget();

    platform.notes.send_modify(|notes| notes.drain = true);
    platform
        .until("draining", |notes| {
            notes.instances.values().all(|(_, states)| states.last() == Some(&InstanceState::Draining))
        })
        .await;
    // New connections are refused once the drain has been noticed, while the call is still in flight.
    let refused =
        async { while tokio::net::TcpStream::connect((host.as_str(), u16::try_from(port).unwrap())).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, refused).await.expect("accepts no more");
    assert_eq!(*answer.borrow(), None);
    assert!(platform.notes.borrow().farewells.is_empty(), "it stays known while it works");

    service.permits.add_permits(1);
    assert_eq!(answer.wait_for(Option::is_some).await.unwrap().clone(), Some(true));
    assert_eq!(app.outcome().await, "ok");
    assert_eq!(platform.until("a farewell", |notes| !notes.farewells.is_empty()).await.farewells, ["told to"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_never_ends_is_dropped_at_the_drain_deadline() {
    let platform = Platform::start().await;
    let service = Greeter::new();
    let mut impatient = settings(&at(&platform));
    impatient.drain = Duration::from_millis(100);
    let mut app = start(greeter(impatient, &service));
    let Address { host, port } = address(&platform.until("a serving instance", is_serving).await);
    let mut slow = client(&host, port).await;
    let scope = Scope::root("caller");
    scope.run("test.call", |_| async move { drop(slow.check_contract(ask("slow")).await) });
    service.begun.acquire().await.unwrap().forget();
    app.stop();
    assert_eq!(app.outcome().await, "ok");
}

#[derive(Debug, Default, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    greeting: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn config_follows_its_document_and_refuses_a_bad_one() {
    let platform = Platform::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut cached = settings(&at(&platform));
    cached.cache_dir = Some(folder.path().join("cache"));
    let app = App::with_settings("greeter", Ok(cached.clone()));
    let mut config = app.config::<Config>().await.unwrap();
    assert_eq!(*config.get(), Config::default(), "there is no document yet");

    platform.put(r#"{"greeting": "hello"}"#);
    let value = tokio::time::timeout(PATIENCE, config.changed()).await.unwrap();
    assert_eq!(value.greeting, "hello");
    platform.put(r#"{"greting": "typo"}"#);
    let notes =
        platform.until("a refusal", |notes| notes.acknowledgements.iter().any(|one| !one.refusal.is_empty())).await;
    let told: Vec<_> = notes.acknowledgements.iter().map(|one| (one.revision, one.refusal.is_empty())).collect();
    assert!(told.contains(&(1, true)) && told.contains(&(2, false)), "{told:?}");
    assert!(notes.acknowledgements.last().unwrap().refusal.contains("greting"));
    assert_eq!(config.get().greeting, "hello");

    // The platform goes away; the next process starts with what was last good.
    platform.kill().await;
    let next = App::with_settings("greeter", Ok(cached));
    assert_eq!(next.config::<Config>().await.unwrap().get().greeting, "hello");
    #[cfg(unix)]
    for file in std::fs::read_dir(folder.path().join("cache")).unwrap() {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_call_is_told_that_its_deadline_passed() {
    let platform = Platform::start().await;
    let _app = start(greeter(settings(&at(&platform)), &Greeter::new()));
    let Address { host, port } = address(&platform.until("a serving instance", is_serving).await);
    let scope = Scope::root("caller");
    let mut bare = bare_client(&host, port, &scope).await;
    let mut request = Request::new(ask("slow"));
    request.metadata_mut().insert("grpc-timeout", "100m".parse().unwrap());
    let status = bare.check_contract(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(ninefold::fault::reason(&status).as_deref(), Some("DEADLINE_PASSED"));
    let status = client(&host, port).await.get_contract(GetContractRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "what the service answers is not touched");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_both_reflections_are_offered() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let platform = Platform::start().await;
    let _app = start(greeter(settings(&at(&platform)), &Greeter::new()));
    let Address { host, port } = address(&platform.until("a serving instance", is_serving).await);
    let channel = Endpoint::from_shared(format!("http://{host}:{port}")).unwrap();
    let channel = channel.connect().await.unwrap();
    for service in ["", GREETER] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = HealthClient::new(channel.clone()).check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), tonic_health::pb::health_check_response::ServingStatus::Serving);
    }

    let expected = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        GREETER,
    ];
    macro_rules! listed {
        ($version:ident) => {{
            use tonic_reflection::pb::$version as words;
            use words::server_reflection_request::MessageRequest;
            use words::server_reflection_response::MessageResponse;
            let request = words::ServerReflectionRequest {
                host: String::new(),
                message_request: Some(MessageRequest::ListServices(String::new())),
            };
            let mut client = words::server_reflection_client::ServerReflectionClient::new(channel.clone());
            let mut answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
            match answers.message().await.unwrap().unwrap().message_response.unwrap() {
                MessageResponse::ListServicesResponse(list) => {
                    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
                    names.sort();
                    names
                }
                other => panic!("{other:?}"),
            }
        }};
    }
    assert_eq!(listed!(v1), expected);
    assert_eq!(listed!(v1alpha), expected);
}

#[tokio::test]
async fn what_keeps_a_service_from_starting_is_told_clearly() {
    let nowhere = || settings("http://127.0.0.1:1");
    let forgotten = App::with_settings("greeter", Ok(nowhere())).service(Greeter::new().server());
    let error = forgotten.run_until(std::future::pending()).await.unwrap_err();
    assert!(matches!(&error, Error::ContractMissing { service } if service == GREETER), "{error:?}");

    let taken = ninefold::serve::Listener::bind("127.0.0.1:0").await.unwrap();
    let mut same = nowhere();
    same.listen = taken.address().to_string();
    let error = greeter(same, &Greeter::new()).run_until(std::future::pending()).await.unwrap_err();
    let text = format!("{error:?}");
    assert!(text.starts_with(&format!("could not listen on {} (another program", taken.address())), "{text}");

    let error = App::with_settings("Greeter!", Ok(nowhere())).run_until(std::future::pending()).await.unwrap_err();
    assert!(error.to_string().contains("name of the service=\"Greeter!\""), "{error}");
}
