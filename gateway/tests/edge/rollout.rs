//! Services come, change and go, while requests are on their way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ninefold::proto::ninefold::gateway::v1::{ListRoutesRequest, RouteProtocol};
use ninefold_gateway::Config;

use crate::client::{Connection, ask, request};
use crate::landscape::{CONFIG, CONTRACT, Landscape};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_version_with_a_new_route_is_reachable_and_no_request_is_lost() {
    let house = Landscape::start().await;
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut loads = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (stop, sent, edge) = (stop.clone(), sent.clone(), house.edge);
        loads.spawn(async move {
            let mut connection = Connection::open(edge).await;
            while !stop.load(Ordering::Relaxed) {
                let answer = connection.ask(request("GET", "/v1/documents/shop/test", "")).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                sent.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    assert_eq!(ask(house.edge, "GET", "/v1/contracts/sha256:1:check", "").await.status, 404);
    // The second version answers one more service.
    let set = [ninefold::proto::DESCRIPTOR_SET, &[]].concat();
    house.offer("sha256:2", &set);
    house.join("keeper", "b", "sha256:2", &[CONFIG, CONTRACT]).await;
    house.until_routed("GET", "/v1/contracts/sha256:1:check").await;
    let mut connection = Connection::open(house.edge).await;
    for _ in 0..20 {
        let answer = connection.ask(request("GET", "/v1/contracts/sha256:1:check", "")).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, r#"{"known":true}"#));
    }
    // Old requests go to both versions meanwhile.
    let mut authors = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let answer = connection.ask(request("GET", "/v1/documents/shop/test", "")).await;
        authors.insert(answer.json()["document"]["author"].as_str().unwrap().to_owned());
    }
    assert_eq!(authors.into_iter().collect::<Vec<_>>(), ["a", "b"]);
    house.leave("a");
    house.until("GET", "/v1/documents", true).await;
    let before = sent.load(Ordering::Relaxed);
    let moved_on = async {
        while sent.load(Ordering::Relaxed) < before + 50 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), moved_on).await.expect("requests go on");
    stop.store(true, Ordering::Relaxed);
    while let Some(load) = loads.join_next().await {
        load.unwrap();
    }
}

#[tokio::test]
async fn a_service_without_instances_is_unavailable_before_it_is_unknown() {
    let config = Config { linger: Duration::from_secs(6), deadline: Duration::from_secs(3), ..Config::default() };
    let house = Landscape::start_with(config).await;
    house.leave("a");
    let mut connection = Connection::open(house.edge).await;
    let status = connection.ask(request("GET", "/v1/documents/shop/test", "")).await.status.as_u16();
    assert!(matches!(status, 200 | 503 | 504), "{status}");
    house.until("GET", "/v1/documents", false).await;
    assert_eq!(connection.ask(request("GET", "/v1/documents/shop/test", "")).await.status, 404);
    house.join("keeper", "b", "sha256:1", &[CONFIG]).await;
    house.until_routed("GET", "/v1/documents").await;
    assert_eq!(connection.ask(request("GET", "/v1/documents/shop/test", "")).await.status, 200);
}

#[tokio::test]
async fn a_contract_that_comes_late_is_fetched_when_it_is_there() {
    let house = Landscape::empty(Config::default()).await;
    house.join("keeper", "a", "sha256:late", &[CONFIG]).await;
    let mut client = house.routes_client();
    let told = async {
        loop {
            let listed = client.list_routes(ListRoutesRequest::default()).await.unwrap().into_inner();
            if let [refusal] = &listed.refusals[..] {
                return refusal.reason.clone();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let reason = tokio::time::timeout(Duration::from_secs(60), told).await.unwrap();
    assert!(reason.contains("could not be fetched"), "{reason}");
    house.offer("sha256:late", ninefold::proto::DESCRIPTOR_SET);
    house.until_routed("GET", "/v1/documents").await;
}

#[tokio::test]
async fn a_contract_of_a_stranger_gives_no_route_and_harms_nobody() {
    let house = Landscape::start().await;
    house.offer("sha256:garbage", b"\xff\xff garbage");
    house.join("stranger", "x", "sha256:garbage", &[CONFIG]).await;
    house.join("copycat", "y", "sha256:1", &[CONFIG]).await;
    let mut client = house.routes_client();
    let told = async {
        loop {
            let listed = client.list_routes(ListRoutesRequest::default()).await.unwrap().into_inner();
            let of = |service: &str| listed.refusals.iter().any(|refusal| refusal.service == service);
            if of("stranger") && of("copycat") {
                return listed;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let listed = tokio::time::timeout(Duration::from_secs(60), told).await.unwrap();
    assert!(listed.routes.iter().all(|route| route.service == "keeper"));
    let taken = listed.refusals.iter().find(|refusal| refusal.service == "copycat").unwrap();
    assert!(taken.reason.contains("is taken by keeper"), "{}", taken.reason);
    assert!(listed.routes.iter().any(|route| route.protocol() == RouteProtocol::Grpc));
    assert_eq!(ask(house.edge, "GET", "/v1/documents/shop/test", "").await.status, 200);
}
