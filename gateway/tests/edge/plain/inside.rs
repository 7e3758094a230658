//! What services of plain HTTP share with all others on the inside: TLS, the signed word of who calls, mirrors.

use std::sync::atomic::Ordering;
use std::time::Duration;

use ninefold::edge::{HEADER, Verifier};
use ninefold::tls::{ServerFiles, ServerTls};
use ninefold_gateway::{Certificate, Config, Inward};
use serde_json::json;

use super::{Site, config};
use crate::callers::{self, ISSUER, Signer};
use crate::client::{Connection, ask, request};
use crate::landscape::Landscape;
use crate::tls::Authority;

/// Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_plain_service_that_asks_for_tls_is_reached_if_it_proves_its_name() {
    let authority = Authority::new();
    let inward = Inward { ca: authority.ca(), identity: Some(authority.sign("edge", "edge")) };
    let house = Landscape::start_with(Config { inward: Some(inward), ..config(&json!({})) }).await;
    let tls = |name: &str| {
        let Certificate { cert, key } = authority.sign(name, name);
        let files = ServerFiles { cert, key, client_ca: Some(authority.ca()), client_required: true };
        Some(ServerTls::new(files).unwrap())
    };
    let site = Site::join_as(&house, "one", false, tls("blog"), "").await;
    let mut connection = Connection::open(house.edge).await;
    for number in 0..20 {
        let answer = connection.ask(request("PUT", &format!("/blog/{number}"), "some words")).await;
        assert_eq!(answer.status, 200, "{}", answer.text_lossy());
        assert_eq!((&answer.json()["version"], &answer.json()["bytes"]), (&json!("HTTP/1.1"), &json!(10)));
    }
    assert_eq!(site.asked.load(Ordering::Relaxed), 20);
    // One with another name is not believed, though the same authority vouches for it.
    let liar = Site::join_as(&house, "liar", false, tls("other"), "").await;
    house.leave("one");
    let refused = async { while ask(house.edge, "GET", "/blog/x", "").await.status != 503 {} };
    tokio::time::timeout(PATIENCE, refused).await.expect("nobody is left who is believed");
    assert_eq!(liar.asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_plain_service_is_told_who_calls_by_the_edges_signature_and_by_nobody_elses() {
    let signer = Signer::new("one");
    let house = Landscape::start_with(Config { auth: callers::believing(&signer).auth, ..config(&json!({})) }).await;
    Site::join(&house, "one").await;
    let bearer = format!("Bearer {}", signer.token(ISSUER, &json!({"scope": "posts.write"})));
    let said = [("authorization", bearer.as_str()), (HEADER, "forged")];
    let answer = callers::ask(&house, "GET", "/blog/x", "", &said).await;
    let told = answer.json()["headers"][HEADER].as_str().expect("it is told").to_owned();
    let headers = http::HeaderMap::from_iter([(http::HeaderName::from_static(HEADER), told.parse().unwrap())]);
    let caller = Verifier::new(house.access.link(), "blog").caller(&headers).await.unwrap().expect("somebody");
    assert_eq!((caller.subject.as_str(), caller.has_scope("posts.write")), ("ada", true));
    assert!(
        Verifier::new(house.access.link(), "keeper").caller(&headers).await.is_err(),
        "it is for this service alone"
    );
    let nobody = callers::ask(&house, "GET", "/blog/x", "", &[(HEADER, told.as_str())]).await;
    assert!(nobody.json()["headers"].get(HEADER).is_none(), "nobody is nobody: {}", nobody.text());
}

#[tokio::test]
async fn a_mirror_hears_plain_requests_with_their_bodies_and_answers_nobody() {
    let house = Landscape::start_with(config(&json!({}))).await;
    let first = Site::join_as(&house, "one", false, None, "1.0.0").await;
    let second = Site::join_as(&house, "two", false, None, "2.0.0").await;
    let settings = json!({"http": [{"prefix": "/blog", "service": "blog", "replace": "/"}],
        "traffic": {"blog": {"mirror": {"to": {"version": "2.0.0"}, "percent": 100}}}});
    assert_eq!(house.documents.put(&settings.to_string()).await, "");
    let before = second.asked.load(Ordering::Relaxed);
    let mut connection = Connection::open(house.edge).await;
    for _ in 0..10 {
        let answer = connection.ask(request("POST", "/blog/posts", "some words")).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["id"]), (200, &json!("one")), "{}", answer.text_lossy());
    }
    let heard = async {
        while second.asked.load(Ordering::Relaxed) - before < 10 || second.read.load(Ordering::Relaxed) < 100 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.expect("the mirror hears all of it");
    assert_eq!(first.asked.load(Ordering::Relaxed), 10, "and nobody is asked twice");
}
