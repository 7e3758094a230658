//! The edge while it works: settings that change, requests that are steered, and what is told of them.

use std::time::Duration;

use ninefold::telemetry::journal::{Gravity, Value};
use ninefold_gateway::{Config, Noticed};

use crate::client::{Answer, Connection, ask, request};
use crate::landscape::{CONFIG, Landscape};

const PATH: &str = "/v1/documents/shop/test";

async fn get(house: &Landscape, headers: &[(&str, &str)]) -> Answer {
    let mut asked = request("GET", PATH, "");
    for (name, value) in headers {
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        asked.headers_mut().insert(name, value.parse().unwrap());
    }
    Connection::open(house.edge).await.ask(asked).await
}

/// Which instance answers.
async fn who(house: &Landscape, headers: &[(&str, &str)]) -> String {
    let answer = get(house, headers).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["document"]["author"].as_str().unwrap().to_owned()
}

/// An edge with an instance `a` of version 1 and `b` of version 2.
pub(crate) async fn two_versions() -> Landscape {
    let house = Landscape::empty(Config::default()).await;
    house.offer("sha256:1", ninefold::proto::DESCRIPTOR_SET);
    house.join_as("keeper", "a", "sha256:1", &[CONFIG], "1.0.0").await;
    house.join_as("keeper", "b", "sha256:1", &[CONFIG], "2.0.0").await;
    house.until_routed("GET", "/v1/documents").await;
    let both = async {
        loop {
            let mut seen = std::collections::BTreeSet::new();
            for _ in 0..20 {
                seen.insert(who(&house, &[]).await);
            }
            if seen.len() == 2 {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), both).await.expect("both versions answer");
    house
}

#[tokio::test]
async fn settings_change_while_requests_go_on_and_a_bad_document_changes_nothing() {
    let house = Landscape::start().await;
    // One connection for all: what changes is not only for those who come later.
    let mut connection = Connection::open(house.edge).await;
    let mut status = async || connection.ask(request("GET", PATH, "")).await.status.as_u16();
    assert_eq!(status().await, 200);
    assert_eq!(house.documents.put(r#"{"rate_limit": {"per_second": 1, "burst": 1}}"#).await, "");
    assert_eq!((status().await, status().await), (200, 429));
    let refusal = house.documents.put(r#"{"deadline": "0s", "streams_max": 0, "target_bytes_max": 1}"#).await;
    for place in ["deadline", "streams_max", "target_bytes_max"] {
        assert!(refusal.contains(place), "{place} is not in {refusal:?}");
    }
    assert_eq!(status().await, 429, "the last good settings hold");
    // Counters survive what does not touch them.
    assert_eq!(house.documents.put(r#"{"rate_limit": {"per_second": 1, "burst": 1}, "linger": "1m"}"#).await, "");
    assert_eq!(status().await, 429);
    assert_eq!(house.documents.put("{}").await, "");
    assert_eq!((status().await, status().await), (200, 200), "what the node was told holds again");
    let notices: Vec<_> = house.notices.0.lock().unwrap().iter().map(|notice| notice.noticed).collect();
    let wanted = [false, true, false, false]
        .map(|is_refused| if is_refused { Noticed::SettingsRefused } else { Noticed::SettingsChanged });
    assert_eq!(notices, wanted);
}

#[tokio::test]
async fn a_stream_that_began_before_a_change_goes_on_as_it_was() {
    let house = Landscape::start_with(Config { heartbeat: Duration::from_millis(50), ..Config::default() }).await;
    let mut asked = request("GET", "/v1/documents/endless/test:watch?knownRevision=1", "");
    asked.headers_mut().insert("accept", "text/event-stream".parse().unwrap());
    let mut connection = Connection::open(house.edge).await;
    let answer = connection.send(asked).await;
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    let maintenance = r#"{"traffic": {"keeper": {"maintenance": {"text": "closed"}}}}"#;
    assert_eq!(house.documents.put(maintenance).await, "");
    assert_eq!(get(&house, &[]).await.status, 503);
    for _ in 0..3 {
        let frame = http_body_util::BodyExt::frame(&mut body).await.expect("the stream goes on").unwrap();
        assert!(frame.is_data());
    }
}

#[tokio::test]
async fn maintenance_is_told_in_words_to_all_but_those_excepted() {
    let house = Landscape::start().await;
    let settings = r#"{"traffic": {"keeper": {"methods": {"GetDocument": {"maintenance": {
        "text": "moving house", "retry_after": "90s", "except": [{"header": "x-crew", "is": "yes"}]}}}}}}"#;
    assert_eq!(house.documents.put(settings).await, "");
    let answer = get(&house, &[]).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "90"));
    assert_eq!(answer.json()["message"], "moving house");
    assert!(answer.text().contains(r#""reason":"MAINTENANCE""#), "{}", answer.text());
    assert_eq!(get(&house, &[("x-crew", "yes")]).await.status, 200);
    assert_eq!(ask(house.edge, "GET", "/v1/documents", "").await.status, 200, "other methods are open");
}

#[tokio::test]
async fn a_methods_time_is_its_own() {
    let house = Landscape::start().await;
    let settings = r#"{"traffic": {"keeper": {"timeout": "10s", "methods": {"ConfigService.GetDocument": {"timeout": "900ms"}}}}}"#;
    assert_eq!(house.documents.put(settings).await, "");
    let answer = ask(house.edge, "GET", "/v1/documents/slow/test", "").await;
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert_eq!(get(&house, &[]).await.status, 200);
    let seen = house.backend.seen.lock().unwrap().clone();
    assert!(
        seen["grpc-timeout"].to_str().unwrap().ends_with('u'),
        "the service is told of less than a second: {seen:?}"
    );
}

#[tokio::test]
async fn canaries_are_chosen_by_header_cookie_and_share() {
    let house = two_versions().await;
    let to = r#""to": {"version": "2.*"}"#;
    let settings = format!(
        r#"{{"traffic": {{"keeper": {{"canaries": [
            {{{to}, "when": [{{"header": "x-beta", "is": "yes"}}]}},
            {{{to}, "when": [{{"cookie": "track", "is": "canary"}}]}},
            {{{to}, "percent": 30, "sticky": {{"header": "x-user"}}, "when": [{{"header": "x-user"}}]}}]}}}}}}"#
    );
    assert_eq!(house.documents.put(&settings).await, "");
    for _ in 0..20 {
        assert_eq!(who(&house, &[]).await, "a", "a canary gets only what falls to it");
        assert_eq!(who(&house, &[("x-beta", "yes")]).await, "b");
        assert_eq!(who(&house, &[("cookie", "x=1; track=canary")]).await, "b");
        assert_eq!(who(&house, &[("cookie", "track=stable")]).await, "a");
    }
    let mut canaries = 0;
    for user in 0..60 {
        let user = format!("user-{user}");
        let first = who(&house, &[("x-user", &user)]).await;
        assert_eq!(who(&house, &[("x-user", &user)]).await, first, "{user} stays where it was");
        canaries += u32::from(first == "b");
    }
    assert!((5..40).contains(&canaries), "{canaries} of 60, where 30% were asked for");
    // A canary that is gone costs nobody an answer.
    house.leave("b");
    let left = async {
        while who(&house, &[("x-beta", "yes")]).await == "b" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), left).await.unwrap();
    assert_eq!(who(&house, &[("x-beta", "yes")]).await, "a");
}

#[tokio::test]
async fn a_mirror_hears_requests_and_nobody_waits_for_it() {
    let house = two_versions().await;
    let settings = r#"{"traffic": {"keeper": {"mirror": {"to": {"version": "2.0.0"}, "percent": 100}}}}"#;
    assert_eq!(house.documents.put(settings).await, "");
    house.backend.calls.lock().unwrap().clear();
    for _ in 0..10 {
        let answer = get(&house, &[("x-ninefold-mirrored", "1")]).await;
        assert_eq!(answer.json()["document"]["author"], "a", "who only listens is asked by nobody");
    }
    // The mirror never answers this one; the other does, with an error.
    let answer = ask(house.edge, "GET", "/v1/documents/missing/test", "").await;
    assert_eq!(answer.status, 404);
    let heard = async {
        loop {
            let calls = house.backend.calls.lock().unwrap().clone();
            let heard = calls.iter().filter(|(id, _)| id == "b").count();
            if heard == 11 {
                return calls;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let calls = tokio::time::timeout(Duration::from_secs(60), heard).await.expect("the mirror hears all");
    for (id, headers) in calls {
        assert_eq!(headers.contains_key("x-ninefold-mirrored"), id == "b", "only copies are marked: {id}");
    }
}

#[tokio::test]
async fn each_request_is_told_once_with_what_operators_ask_for() {
    let house = Landscape::start().await;
    let body = r#"{"content": "{}"}"#;
    assert_eq!(ask(house.edge, "PUT", PATH, body).await.status, 200);
    assert_eq!(ask(house.edge, "GET", "/v1/documents/code-14/test", "").await.status, 503);
    assert_eq!(ask(house.edge, "GET", "/v1/nothing/secret", "").await.status, 404);
    let entries = house.told.lock().unwrap().clone();
    assert_eq!(entries.len(), 3, "{entries:?}");
    let value = |entry: usize, name: &str| {
        entries[entry].values.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
    };
    let text = |text: &str| Some(Value::Text(text.to_owned()));
    assert_eq!(value(0, "http.route"), text("/v1/documents/{service}/{environment}"));
    assert_eq!(value(0, "rpc.method"), text("ninefold.config.v1.ConfigService.PutDocument"));
    assert_eq!(value(0, "upstream.instance"), text("a"));
    assert_eq!(value(0, "grpc.code"), Some(Value::Word("OK")));
    assert_eq!(value(0, "request_bytes"), Some(Value::Number(i64::try_from(body.len()).unwrap())));
    for name in ["upstream_ms", "first_byte_ms", "duration_ms", "answer_bytes"] {
        assert!(value(0, name).is_some(), "{name} is missing in {:?}", entries[0]);
    }
    assert_eq!(entries[0].trace_id.len(), 32);
    let gravities: Vec<_> = entries.iter().map(|entry| entry.gravity).collect();
    assert_eq!(gravities, [Gravity::Info, Gravity::Error, Gravity::Warn]);
    assert_eq!(value(1, "grpc.code"), Some(Value::Word("UNAVAILABLE")));
    assert!(!format!("{:?}", entries[2]).contains("secret"), "a path is of its sender: {:?}", entries[2]);
    // Quieter, while it runs.
    assert_eq!(house.documents.put(r#"{"access_log": {"sample_percent": 0}}"#).await, "");
    assert_eq!(get(&house, &[]).await.status, 200);
    assert_eq!(ask(house.edge, "GET", "/v1/documents/code-14/test", "").await.status, 503);
    assert_eq!(house.told.lock().unwrap().len(), 4, "failures are told whatever is sampled");
}

#[tokio::test]
async fn the_edge_tells_of_its_routes_as_openapi_and_shows_them_on_a_page() {
    let house = Landscape::start().await;
    let document = ask(house.edge, "GET", "/openapi.json", "").await;
    assert_eq!((document.status.as_u16(), document.header("content-type")), (200, "application/json"));
    let told = document.json();
    assert_eq!(told["openapi"], "3.1.0");
    let get = &told["paths"]["/v1/documents/{service}/{environment}"]["get"];
    assert_eq!(get["operationId"], "ninefold.config.v1.ConfigService.GetDocument");
    assert!(!document.text().contains("RegistryService"), "nobody here answers it");
    let mut again = request("GET", "/openapi.json", "");
    again.headers_mut().insert("if-none-match", document.header("etag").parse().unwrap());
    let again = Connection::open(house.edge).await.ask(again).await;
    assert_eq!((again.status.as_u16(), again.body.len()), (304, 0));
    let package = ask(house.edge, "GET", "/openapi/ninefold.config.v1.json", "").await;
    assert_eq!(package.json()["info"]["title"], "ninefold.config.v1");
    assert_eq!(ask(house.edge, "GET", "/openapi/nothing.v1.json", "").await.status, 404);
    let page = ask(house.edge, "GET", "/docs", "").await;
    assert!(page.text().contains("/docs/page.js") && !page.text().contains("://"), "all of it is our own");
    assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
    assert_eq!(ask(house.edge, "GET", "/docs/page.js", "").await.status, 200);

    let silent = Landscape::start_with(Config { openapi: false, ..Config::default() }).await;
    for path in ["/openapi.json", "/docs", "/openapi/ninefold.config.v1.json"] {
        assert_eq!(ask(silent.edge, "GET", path, "").await.status, 404, "{path}");
    }
}
