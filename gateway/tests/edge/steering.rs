//! How calls are made for those who ask the edge: repeated, hedged, copied, and no longer than their contract says.

use std::time::Duration;

use ninefold::proto::ninefold::config::v1::GetDocumentRequest;
use ninefold::proto::ninefold::config::v1::config_service_client::ConfigServiceClient;
use ninefold::proto::ninefold::registry::v1 as registry;
use ninefold::tonic::transport::Endpoint;
use ninefold_gateway::Config;

use crate::client::{Connection, ask, request};
use crate::landscape::Landscape;
use crate::operations::two_versions;

const PATIENCE: Duration = Duration::from_secs(60);

fn policy(retry: registry::Retry, hedging: Option<registry::Hedging>) -> registry::Policy {
    registry::Policy { service: "keeper".to_owned(), retry: Some(retry), hedging, ..registry::Policy::default() }
}

/// Instances that were asked since the last time.
fn asked(house: &Landscape) -> Vec<String> {
    std::mem::take(&mut *house.backend.calls.lock().unwrap()).into_iter().map(|(id, _)| id).collect()
}

#[tokio::test]
async fn calls_are_repeated_as_the_services_policy_says() {
    // Whoever is alone is not asked again.
    let house = two_versions().await;
    asked(&house);
    let answer = ask(house.edge, "GET", "/v1/documents/flaky/test", "").await;
    assert_eq!((answer.status.as_u16(), asked(&house).len()), (200, 2), "{}", answer.text());
    house.call_by(policy(registry::Retry { attempts_max: Some(1), ..Default::default() }, None));
    let heeded = async {
        while ask(house.edge, "GET", "/v1/documents/flaky/test", "").await.status != 503 {
            asked(&house);
        }
    };
    tokio::time::timeout(PATIENCE, heeded).await.expect("the policy is followed");
    assert_eq!(asked(&house).len(), 1, "nobody asks twice");
    let codes = vec!["ABORTED".to_owned()];
    house.call_by(policy(registry::Retry { codes, ..Default::default() }, None));
    let heeded = async {
        loop {
            assert_eq!(ask(house.edge, "GET", "/v1/documents/code-10/test", "").await.status, 409);
            if asked(&house).len() == 2 {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, heeded).await.expect("the policy is followed");
}

#[tokio::test]
async fn a_second_instance_is_asked_when_the_first_hesitates() {
    let house = two_versions().await;
    let delay = Some(prost_types::Duration { seconds: 0, nanos: 20_000_000 });
    let hedging = registry::Hedging { attempts_max: Some(2), delay };
    house.call_by(policy(registry::Retry::default(), Some(hedging)));
    let answered = async {
        loop {
            asked(&house);
            // Until the policy is heard of, nobody answers; then the other does.
            let first = ask(house.edge, "GET", "/v1/documents/hesitant/test", "");
            if let Ok(answer) = tokio::time::timeout(Duration::from_secs(1), first).await {
                return answer;
            }
        }
    };
    let answer = tokio::time::timeout(PATIENCE, answered).await.expect("the other instance answers");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let asked = asked(&house);
    assert_eq!(answer.json()["document"]["author"], *asked[1], "who was asked second answers");
    assert_ne!(asked[0], asked[1]);
}

#[tokio::test]
async fn a_mirror_hears_grpc_too() {
    let house = two_versions().await;
    let settings = r#"{"traffic": {"keeper": {"mirror": {"to": {"version": "2.0.0"}, "percent": 100}}}}"#;
    assert_eq!(house.documents.put(settings).await, "");
    house.backend.calls.lock().unwrap().clear();
    let channel = Endpoint::try_from(format!("http://{}", house.edge)).unwrap().connect().await.unwrap();
    let mut client = ConfigServiceClient::new(channel);
    for _ in 0..5 {
        let document =
            GetDocumentRequest { service: "shop".to_owned(), environment: "test".to_owned(), revision: None };
        assert_eq!(client.get_document(document).await.unwrap().into_inner().document.unwrap().author, "a");
    }
    let heard = async {
        loop {
            let calls = house.backend.calls.lock().unwrap().clone();
            if calls.iter().filter(|(id, _)| id == "b").count() == 5 {
                return calls;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    for (id, headers) in tokio::time::timeout(PATIENCE, heard).await.expect("the mirror hears all") {
        assert_eq!(headers.contains_key("x-ninefold-mirrored"), id == "b", "only copies are marked: {id}");
    }
}

#[tokio::test]
async fn a_mirror_that_never_answers_slows_nobody() {
    let house = two_versions().await;
    let settings = r#"{"traffic": {"keeper": {"mirror": {"to": {"version": "2.0.0"}, "percent": 100}}}}"#;
    assert_eq!(house.documents.put(settings).await, "");
    let mut connection = Connection::open(house.edge).await;
    // More than wait and are under way at a time; had one of them been waited for, it would take a minute.
    let all = async {
        for _ in 0..300 {
            let answer = connection.ask(request("GET", "/v1/documents/lame/test", "")).await;
            assert_eq!((answer.status.as_u16(), answer.json()["document"]["author"].as_str()), (200, Some("a")));
        }
    };
    tokio::time::timeout(Duration::from_secs(50), all).await.expect("nobody waits for a mirror");
}

#[tokio::test]
async fn a_call_takes_no_longer_than_its_contract_says() {
    let house = Landscape::talking(Config::default()).await;
    let answer = ask(house.edge, "POST", "/rooms/r/wait", "{}").await;
    assert_eq!(answer.status, 504, "{}", answer.text());
    let seen = house.backend.seen.lock().unwrap()["grpc-timeout"].to_str().unwrap().to_owned();
    assert!(seen.ends_with('u') && seen.len() <= 7, "the service is told of less than a second: {seen}");
    let settings = r#"{"traffic": {"talker": {"methods": {"Wait": {"timeout": "300ms"}}}}}"#;
    assert_eq!(house.documents.put(settings).await, "");
    assert_eq!(ask(house.edge, "POST", "/rooms/r/wait", "{}").await.status, 504);
    let seen = house.backend.seen.lock().unwrap()["grpc-timeout"].to_str().unwrap().to_owned();
    assert!(seen.trim_end_matches('u').parse::<u32>().unwrap() <= 300_000, "settings go before options: {seen}");
}
