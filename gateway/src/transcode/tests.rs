//! The rules of `google.api.http` that implementations get wrong, one test a rule.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use ninefold::fault::Fault as _;
use prost_reflect::DynamicMessage;
use serde_json::{Value as Json, json};

use super::{Parts, answer, request};
use crate::binding::Binding;
use crate::contract::{self, Contract, Method};
use crate::error::Error;
use crate::path::Path;
use crate::table::{Found, Table};
use crate::testing;

/// Bytes as JSON has them.
pub(super) fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

struct Edge(Table<(Arc<Method>, Arc<Binding>)>, Contract);

fn edge() -> Edge {
    let contract = contract::read(&testing::contract("test/v1/everything.proto")).unwrap();
    let mut table = Table::default();
    for method in &contract.methods {
        for binding in &method.bindings {
            table.insert(&binding.verb, &binding.pattern, (method.clone(), binding.clone())).unwrap();
        }
    }
    Edge(table, contract)
}

/// What a request becomes, as JSON, or the violations that it is told.
fn sent_as(kind: Option<&str>, verb: &str, target: &str, body: &str) -> Result<Json, Error> {
    let Edge(table, _) = edge();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let Found::Value { value: (method, binding), path } = table.find(verb, Path::parse(path).unwrap()) else {
        panic!("no route for {verb} {target}");
    };
    let headers = kind.map(|kind| (CONTENT_TYPE, kind.parse().unwrap()));
    let headers = HeaderMap::from_iter(headers);
    let parts = Parts {
        path: &path,
        query,
        headers: &headers,
        body: Bytes::copy_from_slice(body.as_bytes()),
        notation: method.notation,
    };
    let message = request(method, binding, &parts)?;
    let message = DynamicMessage::decode(method.input.clone(), message).unwrap();
    Ok(serde_json::to_value(&message).unwrap())
}

fn sent(verb: &str, target: &str, body: &str) -> Json {
    sent_as(Some("application/json"), verb, target, body).unwrap()
}

#[track_caller]
fn refused(verb: &str, target: &str, body: &str, field: &str, why: &str) {
    let error = sent_as(Some("application/json"), verb, target, body).unwrap_err();
    let violations = error.violations();
    assert!(
        violations.iter().any(|violation| violation.field == field && violation.description.contains(why)),
        "{verb} {target} {body}: {violations:?}"
    );
}

/// What a message becomes, as the text of the answer.
fn answered(path: &str, message: &Json) -> (String, String) {
    let Edge(table, _) = edge();
    let Found::Value { value: (method, binding), .. } = table.find(path_verb(path).0, path_verb(path).1) else {
        panic!("no route for {path}");
    };
    let message = DynamicMessage::deserialize(method.output.clone(), message).unwrap();
    let answer = answer(method, binding, method.notation, prost::Message::encode_to_vec(&message).into()).unwrap();
    (answer.content_type.into_owned(), String::from_utf8(answer.body.to_vec()).unwrap())
}

fn path_verb(path: &str) -> (&str, Path) {
    let (verb, path) = path.split_once(' ').unwrap();
    (verb, Path::parse(path).unwrap())
}

#[test]
fn rule_1_the_path_wins_and_a_difference_is_refused() {
    assert_eq!(sent("POST", "/whole/7", "{}"), json!({"id": "7"}));
    assert_eq!(sent("POST", "/whole/7", r#"{"id": "7"}"#), json!({"id": "7"}));
    refused("POST", "/whole/7", r#"{"id": "8"}"#, "id", "differs");
    assert_eq!(sent("GET", "/get/7?id=7", ""), json!({"id": "7"}));
    refused("GET", "/get/7?id=8", "", "id", "differs");
    assert_eq!(sent("PATCH", "/field/a", r#"{"size": 1}"#), json!({"inner": {"name": "a", "size": 1}}));
    refused("PATCH", "/field/a", r#"{"name": "b"}"#, "inner.name", "differs");
    refused("GET", "/inner/a/1?inner.name=b", "", "inner.name", "differs");
    assert_eq!(sent("GET", "/inner/a/1?inner.size=2", ""), json!({"inner": {"name": "a", "size": 2}, "number": 1}));
}

#[test]
fn rules_2_and_3_percent_signs_are_decoded_by_the_template() {
    assert_eq!(sent("GET", "/get/a%2Fb%20%2523", ""), json!({"id": "a/b %23"}));
    assert_eq!(sent("GET", "/many/shelves/a%20b/books/c%2fd/e", ""), json!({"id": "shelves/a b/books/c%2Fd/e"}));
}

#[test]
fn rule_10_a_body_where_none_is_taken_is_refused() {
    refused("GET", "/get/7", "{}", "", "takes no body");
}

#[test]
fn rule_11_a_whole_body_leaves_no_parameters() {
    refused("POST", "/whole/7?number=1", "{}", "number", "in the body");
    assert_eq!(
        sent("PATCH", "/field/a?number=1", "{}"),
        json!({"inner": {"name": "a"}, "number": 1}),
        "beside a field the others come from the query"
    );
    refused("PATCH", "/field/a?inner.size=1", "{}", "inner.size", "in the body");
}

#[test]
fn rule_12_an_empty_body_leaves_its_field_unset() {
    assert_eq!(sent("PUT", "/upload/7", ""), json!({"id": "7"}));
    assert_eq!(sent("PUT", "/list", ""), json!({}));
    assert_eq!(sent("PUT", "/list", r#"["a","b"]"#), json!({"texts": ["a", "b"]}));
    assert_eq!(sent("PUT", "/list", "null"), json!({}));
    refused("PUT", "/list", r#"{"texts": []}"#, "texts", "");
}

#[test]
fn rule_13_parameters_have_both_names() {
    for name in ["odd_name", "veryOdd", "very%4fdd"] {
        assert_eq!(sent("GET", &format!("/get/7?{name}=x"), ""), json!({"id": "7", "veryOdd": "x"}));
    }
    assert_eq!(
        sent("GET", "/get/7?inner.inner.name=x+y%2B", ""),
        json!({"id": "7", "inner": {"inner": {"name": "x y+"}}})
    );
    refused("GET", "/get/7?oddName=x", "", "oddName", "not a parameter");
}

#[test]
fn rule_14_a_parameter_without_a_value_is_empty_and_a_doubled_one_is_refused() {
    assert_eq!(sent("GET", "/get/7?left", ""), json!({"id": "7", "left": ""}));
    refused("GET", "/get/7?flag", "", "flag", "neither true nor false");
    refused("GET", "/get/7?number=1&number=1", "", "number", "twice");
}

#[test]
fn rule_15_a_repeated_field_is_a_repeated_parameter() {
    assert_eq!(
        sent("GET", "/get/7?texts=a,b&texts=c&numbers=1&numbers=2&kinds=KIND_LARGE&kinds=0", ""),
        json!({"id": "7", "texts": ["a,b", "c"], "numbers": [1, 2], "kinds": ["KIND_LARGE", "KIND_UNSPECIFIED"]})
    );
}

#[test]
fn rule_16_messages_and_maps_are_no_parameters() {
    refused("GET", "/get/7?inners=x", "", "inners", "list of messages");
    refused("GET", "/get/7?inners.name=x", "", "inners.name", "no message");
    refused("GET", "/get/7?inner=x", "", "inner", "is a message");
    refused("GET", "/get/7?labels=x", "", "labels", "is a map");
}

#[test]
fn rule_17_values_have_the_forms_of_json() {
    assert_eq!(
        sent("GET", "/typed/KIND_LARGE/true/2026-01-31T12:00:00Z/-9223372036854775808/-_8=", ""),
        json!({"kind": "KIND_LARGE", "flag": true, "time": "2026-01-31T12:00:00Z",
               "wrapped": "-9223372036854775808", "data": "+/8="})
    );
    for (query, value) in [
        ("kind=1", json!({"id": "7", "kind": "KIND_LARGE"})),
        ("kind=42", json!({"id": "7", "kind": 42})),
        ("huge=18446744073709551615", json!({"id": "7", "huge": "18446744073709551615"})),
        ("ratio=-Infinity", json!({"id": "7", "ratio": "-Infinity"})),
        ("ratio=1.5e3", json!({"id": "7", "ratio": 1500.0})),
        ("duration=3600.5s", json!({"id": "7", "duration": "3600.500s"})),
        ("mask=fooBar,inner.oddName", json!({"id": "7", "mask": "fooBar,inner.oddName"})),
        ("data=+/8", json!({"id": "7", "data": "+/8="})),
        ("wrapped_text=", json!({"id": "7", "wrappedText": ""})),
        ("wrappedFlag=false", json!({"id": "7", "wrappedFlag": false})),
        ("present=0", json!({"id": "7", "present": 0})),
    ] {
        assert_eq!(sent("GET", &format!("/get/7?{query}"), ""), value, "{query}");
    }
    for (name, text) in [
        ("kind", "LARGE"),
        ("kind", "kind_large"),
        ("flag", "1"),
        ("flag", "True"),
        ("number", "2147483648"),
        ("number", "1.5"),
        ("number", "%2B1"),
        ("huge", "-1"),
        ("ratio", "inf"),
        ("ratio", "nan"),
        ("ratio", ""),
        ("duration", "1h"),
        ("duration", "3600"),
        ("time", "yesterday"),
        ("data", "*"),
        ("wrapped", "x"),
    ] {
        refused("GET", &format!("/get/7?{name}={text}"), "", name, "");
    }
    refused("GET", "/get/7?left=a&right=b", "", "right", "only one");
}

#[test]
fn rule_18_an_answer_may_be_a_field() {
    assert_eq!(answered("PUT /list", &json!({"texts": ["a"]})).1, r#"["a"]"#);
    assert_eq!(answered("PUT /list", &json!({})).1, "[]");
    assert_eq!(answered("GET /answer-inner", &json!({"inner": {"size": 1}})).1, r#"{"size":1}"#);
    assert_eq!(answered("GET /answer-inner", &json!({})).1, "{}");
}

#[test]
fn rule_19_each_binding_is_a_route_of_its_own() {
    assert_eq!(sent("GET", "/inner/a/3", ""), json!({"inner": {"name": "a"}, "number": 3}));
    assert_eq!(sent("PURGE", "/odd?id=1", ""), json!({"id": "1"}));
}

#[test]
fn rule_20_what_cannot_be_in_a_path_gives_no_route() {
    let Edge(_, contract) = edge();
    let told = |part: &str| contract.refusals.iter().any(|refusal| refusal.contains(part));
    assert!(told("Repeated: texts is repeated"), "{:?}", contract.refusals);
    assert!(told("Unknown: test.v1.Everything has no field \"no_such\""));
    assert!(!told("Streamed"), "a stream of requests has a REST form");
    assert_eq!(contract.refusals.len(), 2);
}

#[test]
fn rule_22_json_is_that_of_the_protobuf_mapping() {
    assert_eq!(
        sent("POST", "/whole/7", r#"{"big": "9007199254740993", "number": 1.0, "odd_name": "x", "left": null}"#),
        json!({"id": "7", "big": "9007199254740993", "number": 1, "veryOdd": "x"})
    );
    refused("POST", "/whole/7", r#"{"nope": 1}"#, "", "nope");
    refused("POST", "/whole/7", r#"{"inner": {"inner": {"nope": 1}}}"#, "inner.inner", "nope");
    refused("POST", "/whole/7", r#"{"inner": {"size": "big"}}"#, "inner.size", "");
    refused("POST", "/whole/7", r#"{"veryOdd": "a", "odd_name": "b"}"#, "", "");
    refused("POST", "/whole/7", r#"{"number": 1, "number": 2}"#, "", "");
    refused("POST", "/whole/7", r#"{"inners": [{"inner": {"name": "a", "name": "b"}}]}"#, "", "twice");
    refused("POST", "/whole/7", r#"{"labels": {"a": "1", "\u0061": "2"}}"#, "", "twice");
    refused("POST", "/whole/7", r#"{"left": "a", "right": "b"}"#, "", "");
    refused("POST", "/whole/7", "{} {}", "", "");
    refused("POST", "/whole/7", "{", "", "");
    let deep = format!("{}1{}", r#"{"inner":"#.repeat(10_000), "}".repeat(10_000));
    assert!(sent_as(None, "POST", "/whole/7", &deep).is_err());
}

#[test]
fn a_body_that_is_not_json_is_refused_before_it_is_read() {
    let error = sent_as(Some("text/plain"), "POST", "/whole/7", "{}").unwrap_err();
    assert_eq!(error.http_status(), 415);
    assert!(sent_as(Some("application/merge-patch+json; charset=utf-8"), "POST", "/whole/7", "{}").is_ok());
}

#[test]
fn an_http_body_travels_as_it_is() {
    assert_eq!(
        sent_as(Some("image/png"), "PUT", "/upload/7", "png").unwrap(),
        json!({"id": "7", "raw": {"contentType": "image/png", "data": "cG5n"}})
    );
    assert_eq!(
        answered("PUT /upload/7", &json!({"contentType": "text/csv", "data": "YSxi"})),
        ("text/csv".to_owned(), "a,b".to_owned())
    );
}

#[test]
fn only_what_a_contract_exposes_is_there() {
    let Edge(_, contract) = edge();
    let names: Vec<_> = contract.methods.iter().map(|method| method.name.rsplit('.').next().unwrap()).collect();
    assert!(!names.contains(&"Plain"), "no binding, no word: stays inside");
    assert!(!names.contains(&"Internal"), "kept inside although it has a binding");
    assert!(names.contains(&"Public"));
}
