//! What the edge says of its own health, to who asks once, who watches, and who speaks no gRPC.

use std::time::Duration;

use ninefold_gateway::Config;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::client::ask;
use crate::landscape::{CONFIG, Landscape};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn who_watches_a_service_hears_of_its_coming_and_going() {
    let house = Landscape::empty(Config { linger: Duration::from_millis(100), ..Config::default() }).await;
    house.offer("sha256:1", ninefold::proto::DESCRIPTOR_SET);
    let channel = ninefold::tonic::transport::Endpoint::try_from(format!("http://{}", house.edge)).unwrap();
    let mut client = HealthClient::new(channel.connect().await.unwrap());
    let asked = HealthCheckRequest { service: CONFIG.to_owned() };
    let mut watch = client.watch(asked).await.unwrap().into_inner();
    let mut next = async || tokio::time::timeout(PATIENCE, watch.message()).await.expect("it is told").unwrap();
    let mut told = next().await.expect("a first word").status();
    if told == ServingStatus::NotServing {
        // The edge had not heard of the landscape yet.
        told = next().await.expect("a second word").status();
    }
    assert_eq!(told, ServingStatus::ServiceUnknown);
    house.join("keeper", "a", "sha256:1", &[CONFIG]).await;
    assert_eq!(next().await.unwrap().status(), ServingStatus::Serving);
    house.leave("a");
    assert_eq!(next().await.unwrap().status(), ServingStatus::ServiceUnknown);
    let (_, last) = tokio::join!(house.door.close(PATIENCE), next());
    assert_eq!(last.unwrap().status(), ServingStatus::NotServing);
}

#[tokio::test]
async fn a_balancer_that_speaks_no_grpc_asks_where_settings_say() {
    let house = Landscape::start().await;
    assert_eq!(ask(house.edge, "GET", "/healthz", "").await.status, 404, "nothing is told unasked");
    let wrong = house.documents.put(r#"{"health_path": "healthz?"}"#).await;
    assert!(wrong.contains("health_path"), "{wrong}");
    // Nor does a prefix take the place of the edge's own path.
    let settings = r#"{"health_path": "/healthz", "openapi": false, "http": [{"prefix": "/", "service": "site"}]}"#;
    assert_eq!(house.documents.put(settings).await, "");
    for verb in ["GET", "HEAD"] {
        let answer = ask(house.edge, verb, "/healthz", "").await;
        assert_eq!((answer.status.as_u16(), answer.header("cache-control")), (200, "no-cache"), "{verb}");
        assert_eq!(answer.text(), if verb == "GET" { r#"{"status":"SERVING"}"# } else { "" });
    }
    // A route that a contract wants is the contract's.
    assert_eq!(house.documents.put(r#"{"health_path": "/v1/documents"}"#).await, "");
    assert!(ask(house.edge, "GET", "/v1/documents", "").await.text().starts_with("{}"), "the service answers");
}
