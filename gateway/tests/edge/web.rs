//! gRPC-Web, as a browser speaks it: over HTTP/1.1, with trailers in the body.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use ninefold::proto::ninefold::config::v1::{GetDocumentRequest, GetDocumentResponse};
use prost::Message as _;

use crate::client::{Answer, Connection};
use crate::landscape::Landscape;

fn frame(message: &impl prost::Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, &message].concat()
}

/// The messages and the trailers of a body.
fn unframe(mut body: &[u8]) -> (Vec<Vec<u8>>, String) {
    let mut messages = Vec::new();
    while let [flag, rest @ ..] = body {
        let (length, rest) = rest.split_first_chunk::<4>().unwrap();
        let (message, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        if *flag == 0x80 {
            return (messages, String::from_utf8(message.to_vec()).unwrap());
        }
        messages.push(message.to_vec());
        body = rest;
    }
    (messages, String::new())
}

async fn call(house: &Landscape, method: &str, kind: &str, body: Vec<u8>) -> Answer {
    let asked = Request::post(format!("/ninefold.config.v1.ConfigService/{method}"))
        .header("host", "edge.example")
        .header("content-type", kind)
        .header("accept", kind)
        .header("x-grpc-web", "1")
        .header("origin", "https://page.example")
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    Connection::open(house.edge).await.ask(asked).await
}

fn document(service: &str) -> Vec<u8> {
    frame(&GetDocumentRequest { service: service.to_owned(), ..Default::default() })
}

#[tokio::test]
async fn a_browser_calls_in_binary() {
    let house = Landscape::start().await;
    let answer = call(&house, "GetDocument", "application/grpc-web+proto", document("shop")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/grpc-web+proto");
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert!(answer.header("access-control-expose-headers").contains("grpc-status"));
    let (messages, trailers) = unframe(&answer.body);
    let document = GetDocumentResponse::decode(messages[0].as_slice()).unwrap().document.unwrap();
    assert_eq!(document.service, "shop");
    assert!(trailers.contains("grpc-status:0"), "{trailers:?}");
}

#[tokio::test]
async fn a_browser_calls_in_text() {
    let house = Landscape::start().await;
    let body = STANDARD.encode(document("shop")).into_bytes();
    let answer = call(&house, "GetDocument", "application/grpc-web-text", body).await;
    assert_eq!(answer.status, 200);
    let decoded = base64_pieces(&answer.body);
    let (messages, trailers) = unframe(&decoded);
    assert_eq!(messages.len(), 1);
    assert!(trailers.contains("grpc-status:0"), "{trailers:?}");
}

/// Decodes base64 pieces that follow each other, each with its own padding.
fn base64_pieces(text: &[u8]) -> Vec<u8> {
    text.chunks(4).flat_map(|four| STANDARD.decode(four).unwrap()).collect()
}

#[tokio::test]
async fn an_error_reaches_the_browser() {
    let house = Landscape::start().await;
    let answer = call(&house, "GetDocument", "application/grpc-web", document("missing")).await;
    let (_, trailers) = unframe(&answer.body);
    assert!(answer.header("grpc-status") == "5" || trailers.contains("grpc-status:5"), "{answer:?}");
    let answer = call(&house, "NoSuchMethod", "application/grpc-web", Vec::new()).await;
    let (_, trailers) = unframe(&answer.body);
    assert!(answer.header("grpc-status") == "12" || trailers.contains("grpc-status:12"), "{answer:?}");
}
