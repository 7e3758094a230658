//! What travels with a call from service to service: its deadline, its priority, and the news that nobody waits any more.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use ninefold::connect::{Channel, Priority, deadline};
use ninefold::proto::ninefold::config::v1 as config;
use ninefold::serve::{Listener, ServeConfig, run};
use ninefold::tonic::body::Body;
use ninefold::tonic::service::Routes;
use ninefold::tonic::{Code, Request};
use tokio::time::timeout;
use tower::{Service, ServiceExt as _};

use crate::fake::{Instance, Manner};
use crate::{Client, House, LONG, wait_for};

/// How long each hop works before it asks the next.
const WORK: Duration = Duration::from_millis(60);

/// A service that asks another, and answers what that one answers.
#[derive(Clone)]
struct Relay {
    next: Channel,
    heard: Arc<Mutex<Option<HeaderMap>>>,
    /// One clone for each call under way.
    under_way: Arc<()>,
}

impl Relay {
    async fn start(house: &House, name: &str, next: Channel) -> Self {
        let listener = Listener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.address();
        let relay = Self { next, heard: Arc::default(), under_way: Arc::default() };
        let routes = Routes::new(relay.clone());
        house.scope.run("test.relay", |stop| async move {
            run(listener, routes, ServeConfig::default(), async move { stop.asked().await }).await.unwrap();
        });
        house.registry.put(Instance::words_at(name, name, address));
        relay
    }

    fn calls(&self) -> usize {
        // The relay that the test holds, and the one that the server holds with its copies, share it; calls hold more.
        Arc::weak_count(&self.under_way)
    }

    fn timeout(&self) -> Duration {
        deadline::left(self.heard.lock().unwrap().as_ref().expect("it was called")).expect("it has a deadline")
    }
}

impl ninefold::tonic::server::NamedService for Relay {
    const NAME: &'static str = "ninefold.config.v1.ConfigService";
}

impl Service<http::Request<Body>> for Relay {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        *self.heard.lock().unwrap() = Some(request.headers().clone());
        let (next, under_way) = (self.next.clone(), Arc::downgrade(&self.under_way));
        async move {
            tokio::time::sleep(WORK).await;
            // What the caller's headers said is not handed on: what travels, travels by itself.
            let (head, body) = request.into_parts();
            let mut onward = http::Request::new(body);
            *onward.uri_mut() = head.uri;
            *onward.method_mut() = head.method;
            onward.headers_mut().insert("content-type", head.headers["content-type"].clone());
            let answer = next.oneshot(onward).await;
            drop(under_way);
            answer
        }
        .boxed()
    }
}

/// Three services: `first` asks `second`, which asks `pump`.
async fn chain(house: &House) -> (Client, Relay, Relay, Instance) {
    let last = house.instance("last").await;
    let second = Relay::start(house, "second", house.discovery.channel("pump")).await;
    let first = Relay::start(house, "first", house.discovery.channel("second")).await;
    (Client::new(house.discovery.channel("first")), first, second, last)
}

#[tokio::test]
async fn a_deadline_shrinks_from_hop_to_hop_by_the_time_that_passed() {
    let house = House::new();
    let (mut client, first, second, last) = chain(&house).await;
    let whole = Duration::from_secs(10);
    let mut request = Request::new(config::GetDocumentRequest::default());
    request.set_timeout(whole);
    client.get_document(request).await.unwrap();
    let heard = [first.timeout(), second.timeout(), deadline::left(&last.headers()).unwrap()];
    assert!(heard[0] <= whole && heard[0] > whole / 2, "{heard:?}");
    assert!(heard[0] >= heard[1] + WORK && heard[1] >= heard[2] + WORK, "{heard:?}");

    last.behave(Manner::Hang);
    let mut request = Request::new(config::GetDocumentRequest::default());
    request.set_timeout(WORK * 5);
    let status = client.get_document(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_priority_travels_to_the_last_hop() {
    let house = House::new();
    let (mut client, _first, _second, last) = chain(&house).await;
    client.get_document(config::GetDocumentRequest::default()).await.unwrap();
    assert!(!last.headers().contains_key("x-ninefold-priority"));
    for (priority, name) in [(Priority::Critical, "critical"), (Priority::Sheddable, "sheddable")] {
        let mut request = Request::new(config::GetDocumentRequest::default());
        request.extensions_mut().insert(priority);
        client.get_document(request).await.unwrap();
        assert_eq!(last.headers()["x-ninefold-priority"], name);
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_the_work_of_every_hop() {
    let house = House::new();
    let (mut client, first, second, last) = chain(&house).await;
    client.get_document(config::GetDocumentRequest::default()).await.unwrap();
    last.behave(Manner::Hang);
    let before = last.calls();
    {
        let asking = client.get_document(config::GetDocumentRequest::default());
        let arrived = wait_for(|| last.calls() > before && last.in_work() == 1);
        tokio::select! {
            answer = asking => panic!("nobody answers: {answer:?}"),
            () = arrived => {}
        }
        assert_eq!((first.calls(), second.calls()), (1, 1));
    }
    let ended = wait_for(|| last.in_work() == 0 && first.calls() == 0 && second.calls() == 0);
    timeout(LONG, ended).await.expect("nobody works for nobody");
}
