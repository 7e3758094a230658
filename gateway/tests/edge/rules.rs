//! The twenty-seven rules of transcoding that implementations get wrong, one test a rule and by its number, through the door.
//! What each part does for its share of a rule is tested beside it.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use ninefold::proto::ninefold::gateway::v1::{ListRoutesRequest, MatchRouteRequest};
use ninefold_gateway::Config;
use serde_json::{Value as Json, json};

use crate::client::{Answer, Connection, ask, raw};
use crate::landscape::Landscape;
use crate::script::{self, Script};

async fn edge() -> (Landscape, Script) {
    script::start(Config::default()).await
}

/// The answer to a request that is let through.
async fn said(house: &Landscape, verb: &str, target: &str, body: &str) -> Json {
    let answer = ask(house.edge, verb, target, body).await;
    assert_eq!(answer.status, 200, "{verb} {target} {body}: {}", answer.text());
    answer.json()
}

/// What a refused request is told.
async fn refused(house: &Landscape, verb: &str, target: &str, body: &str) -> String {
    let answer = ask(house.edge, verb, target, body).await;
    assert_eq!(answer.status, 400, "{verb} {target} {body}: {}", answer.text());
    answer.text()
}

async fn status(house: &Landscape, verb: &str, target: &str) -> u16 {
    ask(house.edge, verb, target, "").await.status.as_u16()
}

/// A request with a body of any kind, and a header.
async fn with(house: &Landscape, verb: &str, target: &str, header: (&str, &str), body: &str) -> Answer {
    let asked = Request::builder().method(verb).uri(target).header("host", "edge.example").header(header.0, header.1);
    Connection::open(house.edge)
        .await
        .ask(asked.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap())
        .await
}

#[tokio::test]
async fn rule_01_the_path_wins_and_a_difference_is_refused() {
    let (house, _) = edge().await;
    assert_eq!(said(&house, "GET", "/people/7?id=7", "").await, json!({"id": "7"}));
    assert!(refused(&house, "GET", "/people/7?id=8", "").await.contains("differs"));
    assert!(refused(&house, "POST", "/people/7:wave", r#"{"id": "8"}"#).await.contains("differs"));
    assert!(refused(&house, "PATCH", "/things/a", r#"{"name": "b"}"#).await.contains("differs"));
}

#[tokio::test]
async fn rule_02_percent_signs_of_one_segment_are_decoded_once_and_wholly() {
    let (house, _) = edge().await;
    for (text, value) in [("a%2Fb", "a/b"), ("%23", "#"), ("%2523", "%23"), ("%C3%BC", "ü"), ("a%3Ab", "a:b")] {
        assert_eq!(said(&house, "GET", &format!("/people/{text}"), "").await, json!({"id": value}), "{text}");
    }
    refused(&house, "GET", "/people/%FF", "").await;
    refused(&house, "GET", "/people/%zz", "").await;
}

#[tokio::test]
async fn rule_03_a_template_over_segments_keeps_encoded_slashes_even_for_one() {
    let (house, _) = edge().await;
    assert_eq!(said(&house, "GET", "/tree/a%2fb", "").await, json!({"id": "a%2Fb"}));
    assert_eq!(said(&house, "GET", "/multi/a/b%2Fc%20d", "").await, json!({"id": "a/b%2Fc d"}));
    assert_eq!(status(&house, "GET", "/multi/a%2Fb").await, 404, "a slash that is encoded parts nothing");
}

#[tokio::test]
async fn rule_04_a_rest_matches_no_segment_too_and_stands_last() {
    let (house, _) = edge().await;
    assert_eq!(said(&house, "GET", "/tree", "").await, json!({}));
    assert_eq!(said(&house, "GET", "/tree/a/b/c", "").await, json!({"id": "a/b/c"}));
}

#[tokio::test]
async fn rule_05_a_verb_follows_the_last_colon_of_the_last_segment() {
    let (house, _) = edge().await;
    assert_eq!(said(&house, "POST", "/people/urn:a:b:wave", "{}").await, json!({"id": "urn:a:b"}));
    assert_eq!(said(&house, "GET", "/people/jason:other", "").await, json!({"id": "jason:other"}), "no verb of ours");
    assert_eq!(said(&house, "GET", "/trailing/:slash", "").await, json!({}));
    assert_eq!(said(&house, "GET", "/trailing/x/y:slash", "").await, json!({"id": "x/y"}));
}

#[tokio::test]
async fn rule_06_the_more_literal_template_goes_first_and_a_dead_end_turns_back() {
    let (house, _) = edge().await;
    assert_eq!(said(&house, "GET", "/tree/oak/leaf", "").await, json!({}), "all literal");
    assert_eq!(said(&house, "GET", "/tree/elm/leaf", "").await, json!({"veryOdd": "elm"}));
    assert_eq!(said(&house, "GET", "/tree/oak/root", "").await, json!({"id": "oak/root"}), "turned back twice");
}

#[tokio::test]
async fn rule_07_one_slash_at_the_end_is_nothing_and_two_inside_match_nothing() {
    let (house, _) = edge().await;
    assert_eq!(said(&house, "GET", "/people/7/", "").await, json!({"id": "7"}));
    assert_eq!(status(&house, "GET", "/people//7").await, 404);
    assert_eq!(status(&house, "GET", "//people/7").await, 404);
    let long = ask(house.edge, "GET", &"/".repeat(64_000), "").await;
    assert_eq!(long.status, 414, "and nothing falls over");
}

#[tokio::test]
async fn rule_08_another_method_is_told_which_there_are_and_head_is_not_get() {
    let (house, _) = edge().await;
    for verb in ["DELETE", "HEAD"] {
        let answer = ask(house.edge, verb, "/people/7", "").await;
        assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "GET"), "{verb}");
    }
    assert_eq!(status(&house, "HEAD", "/heads/7").await, 200, "where the contract says so");
}

#[tokio::test]
async fn rule_09_a_method_is_what_it_says_not_what_a_form_or_a_header_makes_of_it() {
    let (house, _) = edge().await;
    let form = ("content-type", "application/x-www-form-urlencoded");
    assert_eq!(with(&house, "POST", "/people/7", form, "id=7").await.status, 405);
    let overridden = ("x-http-method-override", "GET");
    assert_eq!(with(&house, "POST", "/people/7", overridden, "").await.status, 405);
    assert_eq!(with(&house, "GET", "/people/7", ("x-http-method-override", "POST"), "").await.status, 200);
    assert_eq!(with(&house, "POST", "/people/7:wave", form, "number=1").await.status, 415);
}

#[tokio::test]
async fn rule_10_a_rule_without_a_body_takes_none() {
    let (house, _) = edge().await;
    assert!(refused(&house, "GET", "/people/7", "{}").await.contains("takes no body"));
}

#[tokio::test]
async fn rule_11_a_whole_body_leaves_no_parameters_and_a_field_leaves_the_others() {
    let (house, _) = edge().await;
    assert!(refused(&house, "POST", "/people/7:wave?number=1", "{}").await.contains("in the body"));
    let answer = said(&house, "PUT", "/things/a?updateMask=tags", "{}").await;
    assert_eq!(answer, json!({"thing": {"name": "a"}, "updateMask": "tags"}));
    assert!(refused(&house, "PUT", "/things/a?thing.tags=x", "{}").await.contains("in the body"));
}

#[tokio::test]
async fn rule_12_an_empty_body_leaves_its_field_unset_and_an_empty_object_sets_it() {
    let (house, _) = edge().await;
    // The answer is the field, so it looks the same; whether there was one is seen in the message.
    assert_eq!(said(&house, "POST", "/inner", "").await, json!({}));
    assert_eq!(said(&house, "POST", "/inner", "{}").await, json!({}));
    for (body, message) in [("", json!({})), ("{}", json!({"inner": {}}))] {
        let asked = MatchRouteRequest {
            verb: "POST".to_owned(),
            path: "/inner".to_owned(),
            body: body.to_owned(),
            explain: true,
            ..MatchRouteRequest::default()
        };
        let told = house.routes_client().match_route(asked).await.unwrap().into_inner();
        assert_eq!(serde_json::from_str::<Json>(&told.request).unwrap(), message, "{body:?}: {told:?}");
    }
}

#[tokio::test]
async fn rule_13_parameters_go_by_both_names_encoded_or_not_and_a_plus_is_a_space() {
    let (house, _) = edge().await;
    for name in ["odd_name", "veryOdd", "very%4fdd"] {
        assert_eq!(said(&house, "GET", &format!("/people/7?{name}=x+y"), "").await["veryOdd"], "x y", "{name}");
    }
    assert_eq!(said(&house, "GET", "/people/7?inner.inner.name=%2B", "").await["inner"]["inner"]["name"], "+");
    refused(&house, "GET", "/people/7?oddName=x", "").await;
}

#[tokio::test]
async fn rule_14_a_parameter_without_a_value_is_empty_and_one_given_twice_is_refused() {
    let (house, _) = edge().await;
    assert_eq!(said(&house, "GET", "/people/7?left", "").await["left"], "");
    refused(&house, "GET", "/people/7?flag", "").await;
    assert!(refused(&house, "GET", "/people/7?number=1&number=1", "").await.contains("twice"));
}

#[tokio::test]
async fn rule_15_a_repeated_field_is_a_repeated_parameter_and_a_comma_is_a_letter() {
    let (house, _) = edge().await;
    let answer = said(&house, "GET", "/people/7?texts=a,b&texts=c&numbers=1&numbers=2", "").await;
    assert_eq!(answer, json!({"id": "7", "texts": ["a,b", "c"], "numbers": [1, 2]}));
}

#[tokio::test]
async fn rule_16_messages_are_no_parameters_and_entries_of_maps_go_by_their_keys() {
    let (house, _) = edge().await;
    refused(&house, "GET", "/people/7?inners=x", "").await;
    refused(&house, "GET", "/people/7?inner=x", "").await;
    assert!(refused(&house, "GET", "/people/7?labels=x", "").await.contains("name one of its keys"));
    let answer = said(&house, "GET", "/people/7?labels[a.b]=1&labels%5Bc%5D=d+e", "").await;
    assert_eq!(answer, json!({"id": "7", "labels": {"a.b": "1", "c": "d e"}}));
    assert!(refused(&house, "GET", "/people/7?labels[a]=1&labels[a]=1", "").await.contains("twice"));
    assert!(refused(&house, "GET", "/people/7?labels[a=1", "").await.contains("not closed"));
    assert!(refused(&house, "GET", "/people/7?number[a]=1", "").await.contains("no map"));
    assert!(refused(&house, "POST", "/people/7:wave?labels[a]=1", "{}").await.contains("in the body"));
}

#[tokio::test]
async fn rule_17_values_have_the_forms_of_json() {
    let (house, _) = edge().await;
    for (query, name, value) in [
        ("kind=KIND_LARGE", "kind", json!("KIND_LARGE")),
        ("kind=42", "kind", json!(42)),
        ("huge=18446744073709551615", "huge", json!("18446744073709551615")),
        ("big=-9223372036854775808", "big", json!("-9223372036854775808")),
        ("ratio=-Infinity", "ratio", json!("-Infinity")),
        ("duration=3600.5s", "duration", json!("3600.500s")),
        ("mask=fooBar,inner.oddName", "mask", json!("fooBar,inner.oddName")),
        ("data=-_8", "data", json!("+/8=")),
        ("wrapped=5", "wrapped", json!("5")),
        ("wrappedFlag=false", "wrappedFlag", json!(false)),
    ] {
        assert_eq!(said(&house, "GET", &format!("/people/7?{query}"), "").await[name], value, "{query}");
    }
    for query in
        ["flag=1", "flag=True", "number=2147483648", "duration=1h", "kind=LARGE", "left=a&right=b", "ratio=inf"]
    {
        refused(&house, "GET", &format!("/people/7?{query}"), "").await;
    }
}

#[tokio::test]
async fn rule_18_an_answer_may_be_a_list_or_a_scalar() {
    let (house, _) = edge().await;
    assert_eq!(said(&house, "POST", "/texts", r#"{"texts": ["a"]}"#).await, json!(["a"]));
    assert_eq!(said(&house, "POST", "/texts", "{}").await, json!([]));
    assert_eq!(said(&house, "POST", "/number", r#"{"number": 5}"#).await, json!(5));
    assert_eq!(said(&house, "POST", "/number", "{}").await, json!(0));
    assert_eq!(said(&house, "POST", "/inner", "").await, json!({}), "a message that is not there");
}

#[tokio::test]
async fn rule_19_an_additional_binding_is_a_route_with_its_own_rules() {
    let (house, _) = edge().await;
    assert_eq!(status(&house, "HEAD", "/heads/7").await, 200);
    assert_eq!(said(&house, "PUT", "/things/a", r#"{"tags": ["x"]}"#).await["updateMask"], Json::Null, "no PATCH");
}

#[tokio::test]
async fn rule_20_what_cannot_stand_in_a_path_gives_no_route_and_it_is_told() {
    let house = Landscape::empty(Config::default()).await;
    house.offer("sha256:e", &crate::talk::compiled("test/v1/everything.proto"));
    house.join("everything", "e", "sha256:e", &["test.v1.EverythingService"]).await;
    house.until_routed("GET", "/get/x").await;
    assert_eq!(status(&house, "GET", "/repeated/x").await, 404);
    let told = house.routes_client().list_routes(ListRoutesRequest::default()).await.unwrap().into_inner();
    let reasons: Vec<_> = told.refusals.iter().map(|refusal| refusal.reason.as_str()).collect();
    assert!(reasons.iter().any(|why| why.contains("texts is repeated and cannot be bound to the path")), "{reasons:?}");
    let typed = status(&house, "GET", "/typed/KIND_LARGE/true/2026-01-31T12:00:00Z/5/-_8").await;
    assert_eq!(typed, 501, "wrappers can; there is nobody who answers");
}

#[tokio::test]
async fn rule_21_literals_are_compared_as_they_are_encoded() {
    let (house, _) = edge().await;
    assert_eq!(
        said(&house, "GET", "/literal/%2A/x", "").await,
        json!({"id": "x"}),
        "the case of the digits is nothing"
    );
    assert_eq!(said(&house, "GET", "/literal/%2a/x", "").await, json!({"id": "x"}));
    assert_eq!(status(&house, "GET", "/literal/*/x").await, 404);
    assert_eq!(status(&house, "GET", "/literal/any/x").await, 404);
    assert_eq!(said(&house, "GET", "/p%65ople/7", "").await, json!({"id": "7"}), "a letter that needs no encoding");
}

#[tokio::test]
async fn rule_22_json_is_that_of_the_protobuf_mapping() {
    let (house, _) = edge().await;
    let wave = "/people/7:wave";
    let body = r#"{"big": "9007199254740993", "kind": 42, "odd_name": "x", "left": null, "ratio": "NaN"}"#;
    assert_eq!(
        said(&house, "POST", wave, body).await,
        json!({"id": "7", "big": "9007199254740993", "kind": 42, "veryOdd": "x", "ratio": "NaN"})
    );
    for body in [
        r#"{"number": 1, "number": 2}"#,
        r#"{"veryOdd": "a", "odd_name": "b"}"#,
        r#"{"nope": 1}"#,
        "{} {}",
        "{",
        r#"{"any": {"@type": "type.googleapis.com/no.Such"}}"#,
    ] {
        refused(&house, "POST", wave, body).await;
    }
    let deep = format!("{}1{}", r#"{"inner":"#.repeat(10_000), "}".repeat(10_000));
    refused(&house, "POST", wave, &deep).await;
    let kind = ("content-type", "application/json");
    let odd = Request::builder().method("POST").uri(wave).header("host", "edge.example").header(kind.0, kind.1);
    let odd = odd.body(Full::new(Bytes::from_static(b"{\"left\": \"\xff\"}"))).unwrap();
    assert_eq!(Connection::open(house.edge).await.ask(odd).await.status, 400, "no UTF-8");
    let nulls = r#"{"value": null, "none": null}"#;
    assert_eq!(
        said(&house, "POST", "/nulls", nulls).await,
        json!({"value": null, "none": null}),
        "null is a value here"
    );
}

#[tokio::test]
async fn rule_23_an_error_of_a_stream_is_a_status_at_first_and_an_element_later() {
    let (house, _) = edge().await;
    assert_eq!(status(&house, "GET", "/watch/status-5").await, 404);
    assert_eq!(status(&house, "GET", "/watch/status-14").await, 503);
    let array = ("accept", "application/json");
    assert_eq!(with(&house, "GET", "/watch/empty", array, "").await.json(), json!([]));
    let broken = with(&house, "GET", "/watch/twice-then-fail", array, "").await.json();
    assert_eq!((&broken[0]["id"], &broken[2]["error"]["code"]), (&json!("twice-then-fail"), &json!(5)), "{broken}");
    let lines = with(&house, "GET", "/watch/twice-then-fail", ("accept", "application/x-ndjson"), "").await.text();
    assert_eq!(lines.lines().count(), 3, "asked to be pretty, yet a message is a line: {lines}");
}

#[tokio::test]
async fn rule_24_an_answer_that_breaks_the_contract_of_one_is_no_answer() {
    let (house, _) = edge().await;
    for (id, status, reason) in [
        ("no-status", 500, "without a status"),
        ("nothing", 502, "no message where one is promised"),
        ("two", 502, "two messages where one is promised"),
        ("http-503", 503, "HTTP status 503"),
        ("http-429", 503, "HTTP status 429"),
        ("http-404", 501, "HTTP status 404"),
        ("http-401", 401, "HTTP status 401"),
        ("http-403", 403, "HTTP status 403"),
        ("http-400", 500, "HTTP status 400"),
        ("http-200", 500, "no gRPC"),
    ] {
        let answer = ask(house.edge, "GET", &format!("/people/{id}"), "").await;
        assert_eq!(answer.status, status, "{id}: {}", answer.text());
        assert!(answer.text().contains(reason), "{id}: {}", answer.text());
    }
}

#[tokio::test]
async fn rule_25_each_code_has_its_http_status() {
    let (house, _) = edge().await;
    let statuses = [499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401];
    for (code, status) in (1..).zip(statuses) {
        let answer = ask(house.edge, "GET", &format!("/people/status-{code}"), "").await;
        assert_eq!((answer.status.as_u16(), answer.json()["code"].clone()), (status, json!(code)), "{}", answer.text());
        assert!(!answer.header("www-authenticate").contains("as asked"), "what a service says is no header");
        let told = if code == 8 { "7" } else { "" };
        assert_eq!(answer.header("retry-after"), told, "as its RetryInfo says");
    }
}

#[tokio::test]
async fn rule_26_headers_of_the_connection_of_grpc_and_of_ours_stay_outside() {
    let (house, script) = edge().await;
    let head = "GET /people/7 HTTP/1.1\r\nHost: edge.example\r\nConnection: close, x-hop\r\nX-Hop: 1\r\nTE: trailers, deflate\r\n\
                Grpc-Status: 0\r\nGrpc-Message: x\r\nX-Ninefold-Identity: root\r\nX_Under: 1\r\nTrace-Bin: AAE, AAI=\r\n\
                X-Odd: \u{e4}\r\nX-Kept: yes\r\n\r\n";
    assert!(raw(house.edge, head).await.starts_with("HTTP/1.1 200"));
    let headers = script.headers.lock().unwrap().clone();
    for name in ["connection", "x-hop", "grpc-status", "grpc-message", "x-ninefold-identity", "x_under", "x-odd"] {
        assert!(!headers.contains_key(name), "{name}: {headers:?}");
    }
    assert_eq!(headers["te"], "trailers");
    assert_eq!((&headers["x-kept"], &headers["trace-bin"]), (&"yes".parse().unwrap(), &"AAE, AAI=".parse().unwrap()));
    let answer = ask(house.edge, "GET", "/people/load", "").await;
    assert!(answer.headers.keys().all(|name| !name.as_str().contains("load-metrics")), "{:?}", answer.headers);
}

#[tokio::test]
async fn rule_27_who_may_is_asked_of_the_method_and_the_bound_request_never_of_the_url() {
    // A route is the same however its path is spelled, so what holds for it does too.
    let (house, script) = edge().await;
    let settings = r#"{"traffic": {"ruler": {"methods": {"Get": {"maintenance": {"text": "closed"}}}}}}"#;
    assert_eq!(house.documents.put(settings).await, "");
    assert_eq!(status(&house, "GET", "/people/7").await, 503);
    let before = script.calls.load(std::sync::atomic::Ordering::Relaxed);
    for path in ["/people/7/", "/%70eople/7", "/p%65ople/%37", "/people/7?id=7", "/heads/7"] {
        let verb = if path.starts_with("/heads") { "HEAD" } else { "GET" };
        assert_eq!(status(&house, verb, path).await, 503, "{path}");
    }
    assert_eq!(status(&house, "GET", "/people/%2e%2e/people/7").await, 400);
    assert_eq!(script.calls.load(std::sync::atomic::Ordering::Relaxed), before, "nobody came through");
}

#[tokio::test]
async fn a_patch_says_which_fields_it_names_unless_it_says_so_itself() {
    let (house, _) = edge().await;
    let body = r#"{"name": "a", "displayName": "x", "size": {"wide_mm": 1}, "labels": {"k": "v"}, "tags": null,
                   "made": "2026-01-31T12:00:00Z", "extra": {"free": {"form": 1}}}"#;
    let answer = said(&house, "PATCH", "/things/a", body).await;
    let mut named: Vec<&str> = answer["updateMask"].as_str().unwrap().split(',').collect();
    named.sort_unstable();
    assert_eq!(
        named,
        ["displayName", "extra", "labels", "made", "size.wideMm", "tags"],
        "what the path binds is not changed"
    );
    let answer = said(&house, "PATCH", "/things/a?update_mask=tags", body).await;
    assert_eq!(answer["updateMask"], "tags");
    assert_eq!(said(&house, "PATCH", "/things/a", "").await, json!({"thing": {"name": "a"}}));
}

#[tokio::test]
async fn json_is_read_and_written_as_the_contract_asks() {
    let (house, _) = edge().await;
    let answer = ask(house.edge, "POST", "/plain/7", r#"{"kind": "KIND_LARGE", "veryOdd": "x"}"#).await;
    let (text, json) = (answer.text(), answer.json());
    assert!(text.starts_with("{\n  \"id\": \"7\""), "indented: {text}");
    assert_eq!((&json["odd_name"], &json["kind"], &json["number"]), (&json!("x"), &json!(1), &json!(0)), "{text}");
    assert_eq!((&json["texts"], json.get("present")), (&json!([]), None), "absence that says something stays");
    let loose = said(&house, "POST", "/loose/7?nope=1&number=2", r#"{"name": "a", "nope": {"x": [1]}}"#).await;
    assert_eq!(loose, json!({"id": "7", "number": 2, "inner": {"name": "a"}}));
    refused(&house, "POST", "/loose/7?number=x", "{}").await;
    refused(&house, "POST", "/loose/7", r#"{"size": "x"}"#).await;
}

#[tokio::test]
async fn json_is_read_and_written_as_settings_ask_and_that_changes_live() {
    let (house, _) = edge().await;
    let body = r#"{"kind": "KIND_LARGE", "veryOdd": "x"}"#;
    let usual = json!({"id": "7", "kind": "KIND_LARGE", "veryOdd": "x"});
    assert_eq!(said(&house, "POST", "/people/7:wave", body).await, usual);
    let put = async |json: Json| house.documents.put(&json!({"traffic": {"ruler": json}}).to_string()).await;

    // For the service: its methods say more, or otherwise.
    let settings = json!({"json": {"proto_names": true, "unknown_fields": "ignore"},
        "methods": {"Wave": {"json": {"enum_numbers": true, "pretty": true}}, "Plain": {"json": {"pretty": false}}}});
    assert_eq!(put(settings).await, "");
    let waved = ask(house.edge, "POST", "/people/7:wave", body).await;
    assert_eq!(waved.json(), json!({"id": "7", "kind": 1, "odd_name": "x"}));
    assert!(waved.text().starts_with("{\n  "), "{}", waved.text());
    let answer = said(&house, "POST", "/loose/7", r#"{"name": "a", "nope": 1}"#).await;
    assert_eq!(answer, json!({"id": "7", "inner": {"name": "a"}}), "unknown fields are passed over");
    assert!(refused(&house, "GET", "/people/7?nope=1", "").await.contains("nope"), "unknown parameters are not");
    let plain = ask(house.edge, "POST", "/plain/7", body).await;
    assert!(!plain.text().contains('\n') && plain.json()["number"] == 0, "the rest is as the contract says: {plain:?}");
    // The documentation tells of it, and so does who explains a route.
    let told = ask(house.edge, "GET", "/openapi.json", "").await.text();
    assert!(told.contains("test.v1.Everything.proto_names.enum_numbers"), "{told}");
    let asked =
        MatchRouteRequest { verb: "POST".into(), path: "/people/7:wave".into(), explain: true, ..Default::default() };
    let effects = house.routes_client().match_route(asked).await.unwrap().into_inner().effects;
    let text = effects.iter().find(|effect| effect.kind == "json").map(|effect| effect.text.as_str());
    assert_eq!(text, Some("names of the contract, enums as numbers, indented, unknown fields passed over"));

    // Streams, sockets and gRPC are what they are.
    let lines = ask(house.edge, "GET", "/watch/7", "").await.text();
    assert_eq!(lines, "{\"id\":\"7\"}\n");

    for (wrong, place) in [
        (json!({"json": {"pretty": "yes"}}), "traffic.ruler"),
        (json!({"json": {"indent": true}}), "indent"),
        (json!({"json": {"unknown_fields": "drop"}}), "drop"),
        (json!({"methods": {"Wave": {"json": {"enum_numbers": 1}}}}), "traffic.ruler"),
    ] {
        let why = put(wrong.clone()).await;
        assert!(why.contains(place), "{wrong}: {why}");
    }
    let waved = said(&house, "POST", "/people/7:wave", body).await;
    assert_eq!(waved["kind"], 1, "what is refused changes nothing");
    assert_eq!(put(json!({})).await, "");
    assert_eq!(said(&house, "POST", "/people/7:wave", body).await, usual);
}

#[tokio::test]
async fn a_body_that_ends_within_an_escape_is_refused() {
    let (house, _) = edge().await;
    for body in ["{\"\\", "{\"id\": \"7\\", "{\"texts\": [\"\\"] {
        refused(&house, "POST", "/people/7:wave", body).await;
    }
}

#[tokio::test]
async fn a_message_of_more_fields_than_marks_goes_both_ways_whole() {
    let (house, _) = edge().await;
    let mut wide = serde_json::Map::new();
    for number in 1..=150 {
        // As JSON has them: 64 bits are a text.
        let name = if number > 1 && number % 3 == 0 { format!("number{number}") } else { format!("text{number}") };
        wide.insert(name, json!(number.to_string()));
    }
    let mut whole = wide.clone();
    whole.insert("wides".to_owned(), json!([wide, {}, wide]));
    let whole = Json::Object(whole);
    assert_eq!(said(&house, "POST", "/wide/1", &whole.to_string()).await, whole);
    assert_eq!(said(&house, "POST", "/wide/1", r#"{"text149": "x"}"#).await, json!({"text1": "1", "text149": "x"}));
    assert!(refused(&house, "POST", "/wide/2", &whole.to_string()).await.contains("differs"));
    assert!(refused(&house, "POST", "/wide/1", r#"{"text149": "x", "text_149": "y"}"#).await.contains("149"));
    assert!(refused(&house, "POST", "/wide/1", r#"{"text151": "x"}"#).await.contains("text151"));
}

#[tokio::test]
async fn a_route_that_takes_a_part_of_anothers_requests_is_told_of_on_both_sides() {
    let (house, _) = edge().await;
    house.offer("sha256:talk", &crate::talk::contract());
    house.join("talker", "t", "sha256:talk", &[crate::talk::TALK]).await;
    house.until_routed("GET", "/public/x").await;
    let told = async |path: &str| {
        let asked = MatchRouteRequest { verb: "GET".into(), path: path.into(), explain: true, ..Default::default() };
        let effects = house.routes_client().match_route(asked).await.unwrap().into_inner().effects;
        let told = effects.into_iter().filter(|effect| effect.kind.starts_with("shadow"));
        told.map(|effect| format!("{}: {}", effect.kind, effect.text)).collect::<Vec<_>>()
    };
    let peek = "GET /tree/birch/leaf of talker (test.v1.TalkService.Peek)";
    assert_eq!(told("/tree/ash/leaf").await, [format!("shadowed: {peek} goes before it where both match")]);
    let shadows = told("/tree/birch/leaf").await;
    for lost in ["GET /tree/{id=**} of ruler", "GET /tree/{odd_name}/leaf of ruler"] {
        assert!(shadows.iter().any(|told| told.starts_with(&format!("shadows: it goes before {lost}"))), "{shadows:?}");
    }
    assert_eq!(told("/people/7").await, [""; 0], "routes of one service are its own affair");
}
