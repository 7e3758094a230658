//! Connect, as its clients speak it over HTTP/1.1 and HTTP/2.

use std::io::{Read as _, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use ninefold::proto::ninefold::config::v1::{GetDocumentRequest, GetDocumentResponse};
use ninefold_gateway::Config;
use prost::Message as _;
use serde_json::{Value as Json, json};
use tokio::net::TcpStream;

use crate::client::{Answer, Connection};
use crate::landscape::Landscape;
use crate::talk::Line;

const GET_DOCUMENT: &str = "/ninefold.config.v1.ConfigService/GetDocument";
const TALK: &str = "/test.v1.TalkService";

fn post(path: &str, kind: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = Request::post(path).header("host", "edge.example").header(header::CONTENT_TYPE, kind);
    request.header("connect-protocol-version", "1").body(Full::new(body.into())).unwrap()
}

fn with(mut request: Request<Full<Bytes>>, name: &'static str, value: &str) -> Request<Full<Bytes>> {
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

async fn ask(house: &Landscape, request: Request<Full<Bytes>>) -> Answer {
    Connection::open(house.edge).await.ask(request).await
}

/// Asks over HTTP/2.
async fn ask_2(house: &Landscape, mut request: Request<Full<Bytes>>) -> Answer {
    let stream = TokioIo::new(TcpStream::connect(house.edge).await.unwrap());
    let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await;
    let (mut sender, connection) = shaken.unwrap();
    #[expect(clippy::disallowed_methods, reason = "ends with the sender")]
    tokio::spawn(connection);
    request.headers_mut().remove("host");
    *request.uri_mut() = format!("http://{}{}", house.edge, request.uri().path()).parse().unwrap();
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: head.status, headers: head.headers, body }
}

fn packed(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn unpacked(packed: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut plain).unwrap();
    plain
}

fn envelope(flag: u8, message: &[u8]) -> Vec<u8> {
    [&[flag][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

/// The messages of a stream, and what its end says.
fn opened(mut body: &[u8]) -> (Vec<Vec<u8>>, Json) {
    let mut messages = Vec::new();
    while let [flag, rest @ ..] = body {
        let (length, rest) = rest.split_first_chunk::<4>().unwrap();
        let (message, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        match flag {
            0 => messages.push(message.to_vec()),
            1 => messages.push(unpacked(message)),
            2 => {
                assert!(rest.is_empty(), "nothing follows the end");
                return (messages, serde_json::from_slice(message).unwrap());
            }
            flag => panic!("flag {flag}"),
        }
        body = rest;
    }
    panic!("no end");
}

fn lines(answer: &Answer) -> (Vec<Json>, Json) {
    let (messages, end) = opened(&answer.body);
    (messages.iter().map(|message| serde_json::from_slice(message).unwrap()).collect(), end)
}

#[tokio::test]
async fn a_unary_call_is_a_bare_message_in_json_or_protobuf() {
    let house = Landscape::start().await;
    let answer = ask(&house, post(GET_DOCUMENT, "application/json", r#"{"service":"shop","revision":3}"#)).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/json"));
    assert_eq!(answer.json()["document"]["content"], "revision 3");
    assert_eq!(answer.header("x-answered-with"), "metadata");

    let asked = GetDocumentRequest { service: "shop".into(), ..Default::default() }.encode_to_vec();
    let answer = ask_2(&house, post(GET_DOCUMENT, "application/proto", asked)).await;
    assert_eq!(answer.header("content-type"), "application/proto");
    let document = GetDocumentResponse::decode(answer.body).unwrap().document.unwrap();
    assert_eq!(document.service, "shop");
}

#[tokio::test]
async fn json_alone_is_enough_to_call_a_method_by_its_path() {
    let house = Landscape::start().await;
    let mut asked = post(GET_DOCUMENT, "application/json; charset=utf-8", r#"{"service":"shop"}"#);
    asked.headers_mut().remove("connect-protocol-version");
    assert_eq!(ask(&house, asked).await.json()["document"]["service"], "shop");
    let answer = ask(&house, post("/ninefold.config.v1.ConfigService/Nothing", "application/json", "{}")).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (404, &json!("unimplemented")));
}

#[tokio::test]
async fn an_error_has_a_code_a_status_and_details() {
    let house = Landscape::start().await;
    for (code, word, status) in [
        (1, "canceled", 499),
        (2, "unknown", 500),
        (3, "invalid_argument", 400),
        (4, "deadline_exceeded", 504),
        (5, "not_found", 404),
        (6, "already_exists", 409),
        (7, "permission_denied", 403),
        (8, "resource_exhausted", 429),
        (9, "failed_precondition", 400),
        (10, "aborted", 409),
        (11, "out_of_range", 400),
        (12, "unimplemented", 501),
        (13, "internal", 500),
        (15, "data_loss", 500),
        (16, "unauthenticated", 401),
    ] {
        let body = format!(r#"{{"service":"code-{code}"}}"#);
        let answer = ask(&house, post(GET_DOCUMENT, "application/json", body)).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (status, &json!(word)));
        assert_eq!(answer.json()["message"], "as asked");
    }
    let asked = GetDocumentRequest { service: "missing".into(), ..Default::default() }.encode_to_vec();
    let answer = ask(&house, post(GET_DOCUMENT, "application/proto", asked)).await;
    assert_eq!(answer.header("content-type"), "application/json", "errors are JSON, whatever was asked in");
    assert_eq!(answer.header("retry-after"), "2");
    let told = answer.json();
    let details = told["details"].as_array().unwrap();
    let detail = details.iter().find(|detail| detail["type"] == "google.rpc.ErrorInfo").unwrap();
    assert_eq!(detail["debug"]["reason"], "DOCUMENT_UNKNOWN");
    assert!(!detail["value"].as_str().unwrap().contains('='), "base64 without padding");
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_before_the_service_hears_of_it() {
    let house = Landscape::start().await;
    let talking = Landscape::talking(Config::default()).await;
    let json = |body: &str| post(GET_DOCUMENT, "application/json", body.to_owned());
    for (request, status, code) in [
        (json(""), 400, "invalid_argument"),
        (json("{"), 400, "invalid_argument"),
        (json(r#"{"nothing":1}"#), 400, "invalid_argument"),
        (with(json("{}"), "connect-protocol-version", "2"), 400, "invalid_argument"),
        (with(json("{}"), "connect-timeout-ms", "soon"), 400, "invalid_argument"),
        (with(json("{}"), "content-encoding", "br"), 501, "unimplemented"),
        (with(json("{}"), "content-encoding", "gzip"), 400, "invalid_argument"),
        (post(GET_DOCUMENT, "application/xml", "<a/>"), 415, "invalid_argument"),
        (post(GET_DOCUMENT, "application/connect+json", envelope(0, b"{}")), 415, "invalid_argument"),
    ] {
        let shown = format!("{request:?}");
        let answer = ask(&house, request).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (status, &json!(code)), "{shown}");
    }
    let answer = ask(&talking, post(&format!("{TALK}/Repeat"), "application/json", "{}")).await;
    assert_eq!(answer.status, 415);
    assert!(answer.header("accept-post").contains("application/connect+json"));
    let large = vec![b' '; Config::default().body_bytes_max + 1];
    assert_eq!(ask(&house, post(GET_DOCUMENT, "application/json", large)).await.json()["code"], "resource_exhausted");
}

#[tokio::test]
async fn a_method_that_changes_nothing_is_called_by_get() {
    let house = Landscape::talking(Config::default()).await;
    let get = |path: &str, query: &str| {
        let request = Request::get(format!("{TALK}/{path}?{query}")).header("host", "edge.example");
        request.body(Full::default()).unwrap()
    };
    let line = Line { room: "hall".into(), text: "hello".into() }.encode_to_vec();
    let bare = URL_SAFE_NO_PAD.encode(&line);
    let gzip = URL_SAFE_NO_PAD.encode(packed(&line));
    for query in [
        "connect=v1&encoding=json&message=%7B%22room%22%3A%22hall%22%2C%22text%22%3A%22hello%22%7D".to_owned(),
        format!("connect=v1&encoding=proto&base64=1&message={bare}"),
        format!("encoding=proto&base64=1&compression=gzip&message={gzip}"),
    ] {
        let answer = ask(&house, get("Say", &query)).await;
        assert_eq!(answer.status, 200, "{query}: {answer:?}");
        if query.contains("json") {
            assert_eq!(answer.json(), json!({"room": "hall", "text": "hello"}));
        } else {
            assert_eq!(answer.body, line);
        }
    }
    let answer = ask(&house, get("Repeat", "connect=v1&encoding=json&message=%7B%7D")).await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "POST"), "a stream is no unary call");
    assert_eq!(ask(&house, get("Say", "connect=v1&encoding=json")).await.status, 400);
    let other = Landscape::start().await;
    let asked = Request::get(format!("{GET_DOCUMENT}?connect=v1&encoding=json&message=%7B%7D")).header("host", "e");
    assert_eq!(ask(&other, asked.body(Full::default()).unwrap()).await.status, 405, "it does not say that it is safe");
}

#[tokio::test]
async fn messages_are_packed_in_both_directions() {
    let house = Landscape::start().await;
    let asked =
        with(post(GET_DOCUMENT, "application/json", packed(br#"{"service":"large"}"#)), "content-encoding", "gzip");
    let answer = ask(&house, with(asked, "accept-encoding", "br, gzip")).await;
    assert_eq!(answer.header("content-encoding"), "gzip");
    assert!(answer.body.len() < 1 << 20);
    let told: Json = serde_json::from_slice(&unpacked(&answer.body)).unwrap();
    assert_eq!(told["document"]["content"].as_str().unwrap().len(), 3 << 20);
    let small = with(post(GET_DOCUMENT, "application/json", r#"{"service":"shop"}"#), "accept-encoding", "gzip");
    assert_eq!(ask(&house, small).await.header("content-encoding"), "", "little gains nothing");

    let talking = Landscape::talking(Config::default()).await;
    let body = envelope(1, &packed(br#"{"room":"packed","text":"2"}"#));
    let asked =
        with(post(&format!("{TALK}/Repeat"), "application/connect+json", body), "connect-content-encoding", "gzip");
    let answer = ask(&talking, with(asked, "connect-accept-encoding", "gzip")).await;
    assert_eq!(answer.header("connect-content-encoding"), "gzip");
    let (lines, end) = lines(&answer);
    assert_eq!((lines.len(), end), (2, json!({})));
    assert_eq!(lines[0]["room"], "packed");
    assert!(answer.body.len() < 1000, "they were packed");
}

#[tokio::test]
async fn a_stream_of_answers_comes_in_envelopes_and_ends_with_one() {
    let house = Landscape::talking(Config::default()).await;
    let asked = post(&format!("{TALK}/Repeat"), "application/connect+json", envelope(0, br#"{"room":"a","text":"2"}"#));
    let answer = ask(&house, asked).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/connect+json"));
    let (lines, end) = lines(&answer);
    assert_eq!((lines.len(), end), (2, json!({})));

    let line = Line { room: "a".into(), text: "3".into() }.encode_to_vec();
    let answer = ask_2(&house, post(&format!("{TALK}/Repeat"), "application/connect+proto", envelope(0, &line))).await;
    assert_eq!(answer.header("content-type"), "application/connect+proto");
    assert_eq!(opened(&answer.body).0.len(), 3);
}

#[tokio::test]
async fn all_shapes_of_streams_go_over_http_2() {
    let house = Landscape::talking(Config::default()).await;
    let said = |texts: &[&str]| -> Vec<u8> {
        let said = texts.iter().map(|text| json!({"room": "a", "text": text}).to_string());
        said.flat_map(|line| envelope(0, line.as_bytes())).collect()
    };
    let stream = |path: &str, texts: &[&str]| post(&format!("{TALK}/{path}"), "application/connect+json", said(texts));
    let (gathered, end) = lines(&ask_2(&house, stream("Gather", &["one", "two"])).await);
    assert_eq!((&gathered[0]["messages"], end), (&json!(2), json!({})));
    let (told, _) = lines(&ask_2(&house, stream("Talk", &["one", "two", "three"])).await);
    assert_eq!(told.len(), 3);
    let (told, end) = lines(&ask_2(&house, stream("Talk", &["one", "fail"])).await);
    assert_eq!(
        (told.len(), &end["error"]["code"]),
        (1, &json!("not_found")),
        "an error after the first message is seen"
    );
    let (told, _) = lines(&ask(&house, stream("Gather", &["one"])).await);
    assert_eq!(told[0]["messages"], 1, "a stream of requests goes over HTTP/1.1 too");
    let answer = ask(&house, stream("Talk", &["one"])).await;
    assert_eq!(answer.status, 505, "both at once do not");
}

#[tokio::test]
async fn a_stream_that_goes_wrong_says_so_at_its_end() {
    let house = Landscape::talking(Config::default()).await;
    for (body, code) in [
        ([envelope(0, br#"{"room":"a"}"#), envelope(0, b"{")].concat(), "invalid_argument"),
        (envelope(1, b"{}"), "invalid_argument"),
        (envelope(7, b"{}"), "invalid_argument"),
        (envelope(0, b"{}")[..6].to_vec(), "invalid_argument"),
        ([&[0][..], &u32::MAX.to_be_bytes()].concat(), "resource_exhausted"),
    ] {
        let answer = ask_2(&house, post(&format!("{TALK}/Gather"), "application/connect+json", body)).await;
        assert_eq!(answer.status, 200);
        let (_, end) = lines(&answer);
        assert_eq!(end["error"]["code"], code, "{end}");
    }
    let asked = post(&format!("{TALK}/Nothing"), "application/connect+json", envelope(0, b"{}"));
    assert_eq!(lines(&ask(&house, asked).await).1["error"]["code"], "unimplemented");
}

#[tokio::test]
async fn a_timeout_is_kept() {
    let house = Landscape::start().await;
    let asked = post(GET_DOCUMENT, "application/json", r#"{"service":"slow"}"#);
    let answer = ask(&house, with(asked, "connect-timeout-ms", "200")).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (504, &json!("deadline_exceeded")));
    let asked = post(GET_DOCUMENT, "application/json", r#"{"service":"shop"}"#);
    ask(&house, with(asked, "connect-timeout-ms", "5000")).await;
    let seen = house.backend.seen.lock().unwrap().clone();
    assert!(seen.contains_key("grpc-timeout") && !seen.contains_key("connect-timeout-ms"), "{seen:?}");
}
