//! Streams of requests, and talks both ways.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use ninefold_gateway::Config;
use prost::Message as _;
use serde_json::{Value as Json, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::client::{self, ask};
use crate::landscape::Landscape;
use crate::talk::Line;

type Parts = mpsc::Sender<Result<Frame<Bytes>, std::io::Error>>;

/// Sends a request whose body is said piece by piece.
async fn speak(
    house: &Landscape,
    is_h2: bool,
    verb: &str,
    path: &str,
    kind: &str,
) -> (Parts, impl Future<Output = Response<Incoming>>) {
    let (sender, parts) = mpsc::channel(1);
    let host = if is_h2 { format!("http://{}", house.edge) } else { String::new() };
    let mut request = Request::builder().method(verb).uri(format!("{host}{path}")).header("content-type", kind);
    if !is_h2 {
        request = request.header("host", "edge.example");
    }
    let request = request.body(BoxBody::new(StreamBody::new(ReceiverStream::new(parts)))).unwrap();
    let stream = TokioIo::new(TcpStream::connect(house.edge).await.unwrap());
    let answer = if is_h2 {
        let (mut client, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        #[expect(clippy::disallowed_methods, reason = "ends with the sender")]
        tokio::spawn(connection);
        futures_util::future::Either::Left(async move { client.send_request(request).await.unwrap() })
    } else {
        let (mut client, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        #[expect(clippy::disallowed_methods, reason = "ends with the sender")]
        tokio::spawn(connection);
        futures_util::future::Either::Right(async move { client.send_request(request).await.unwrap() })
    };
    (sender, answer)
}

fn part(text: &str) -> Result<Frame<Bytes>, std::io::Error> {
    Ok(Frame::data(Bytes::copy_from_slice(text.as_bytes())))
}

async fn json_of(answer: Response<Incoming>) -> (u16, Json) {
    let (head, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status.as_u16(), serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{body:?}")))
}

/// Waits until the service holds no stream.
async fn until_left(house: &Landscape) {
    let left = async {
        while Arc::strong_count(&house.backend.streams) > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), left).await.expect("the service's stream ends");
}

async fn until_held(house: &Landscape) {
    let held = async {
        while Arc::strong_count(&house.backend.streams) == 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), held).await.expect("the service has the stream");
}

#[tokio::test]
async fn a_stream_of_requests_is_lines_or_an_array_or_values() {
    let house = Landscape::talking(Config::default()).await;
    for (kind, body) in [
        ("application/x-ndjson", "{\"text\":\"one\"}\n\n{\"text\":\"two\"}\n"),
        ("application/json", "[{\"text\":\"one\"}, {\"text\":\"two\"}]"),
        ("application/json", "{\"text\":\"one\"} {\"text\":\"two\",\"room\":\"r\"}"),
    ] {
        for is_h2 in [false, true] {
            let (parts, answer) = speak(&house, is_h2, "POST", "/rooms/r/gather", kind).await;
            let said = async {
                for piece in body.as_bytes().chunks(5) {
                    parts.send(Ok(Frame::data(Bytes::copy_from_slice(piece)))).await.unwrap();
                }
                drop(parts);
            };
            let (answer, ()) = tokio::join!(answer, said);
            let lines = json!([{"room": "r", "text": "one"}, {"room": "r", "text": "two"}]);
            assert_eq!(json_of(answer).await, (200, json!({"lines": lines, "messages": 2})), "{kind} {body}");
        }
    }
    let answer = ask(house.edge, "POST", "/rooms/r/texts", "[\"one\",\"two\"]").await;
    assert_eq!(answer.json()["lines"][1], json!({"room": "r", "text": "two"}), "each element is the field of the body");
    assert_eq!(ask(house.edge, "POST", "/rooms/r/gather", "[]").await.json(), json!({}));
}

#[tokio::test]
async fn a_message_of_a_stream_that_is_wrong_refuses_the_whole() {
    let house = Landscape::talking(Config::default()).await;
    for (body, why) in [
        ("[{\"text\":\"one\"},{\"size\":1}]", "size"),
        ("[{\"text\":\"one\"},{\"room\":\"other\"}]", "differs from what the path says"),
        ("[{\"text\":\"one\"}", "ends within the array"),
        ("[{\"text\":\"one\"} {}]", "no comma"),
    ] {
        let answer = ask(house.edge, "POST", "/rooms/r/gather", body).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.text().contains(why), "{body}: {}", answer.text());
    }
    let answer = ask(house.edge, "POST", "/rooms/r/gather", "[{\"text\":\"fail\"}]").await;
    assert_eq!((answer.status.as_u16(), answer.json()["message"].clone()), (404, json!("asked to fail")));
    let mut asked = client::request("POST", "/rooms/r/gather", "x");
    asked.headers_mut().insert("content-type", "text/plain".parse().unwrap());
    assert_eq!(client::Connection::open(house.edge).await.ask(asked).await.status, 415);
    until_left(&house).await;
}

#[tokio::test]
async fn one_message_of_a_stream_is_bounded_and_the_stream_is_not() {
    let house = Landscape::talking(Config { body_bytes_max: 10_000, ..Config::default() }).await;
    let element = format!("{{\"text\":\"{}\"}}", "x".repeat(1000));
    let many = format!("[{}]", vec![element; 50].join(","));
    assert_eq!(ask(house.edge, "POST", "/rooms/r/gather", &many).await.json()["messages"], 50);
    let large = format!("[{{\"text\":\"{}\"}}]", "x".repeat(20_000));
    assert_eq!(ask(house.edge, "POST", "/rooms/r/gather", &large).await.status, 413);
}

#[tokio::test]
async fn a_file_goes_up_in_pieces_as_it_comes() {
    let house = Landscape::talking(Config::default()).await;
    let mut asked = client::request("PUT", "/files/big", "x");
    asked.headers_mut().insert("content-type", "image/png".parse().unwrap());
    *asked.body_mut() = Full::new(Bytes::from(vec![7; 20 << 20]));
    let answer = client::Connection::open(house.edge).await.ask(asked).await.json();
    assert_eq!((answer["bytes"].as_str(), answer["contentType"].as_str()), (Some("20971520"), Some("image/png")));
    assert!(answer["largest"].as_u64().unwrap() <= 64 << 10, "{answer}");
    let mut empty = client::request("PUT", "/files/empty", "");
    empty.headers_mut().insert("content-type", "text/plain".parse().unwrap());
    let answer = client::Connection::open(house.edge).await.ask(empty).await.json();
    assert_eq!((answer["messages"].as_u64(), answer["contentType"].as_str()), (Some(1), Some("text/plain")));
}

#[tokio::test]
async fn a_file_comes_down_as_it_is_and_breaks_off_where_it_breaks() {
    let house = Landscape::talking(Config::default()).await;
    let answer = ask(house.edge, "GET", "/files/table", "").await;
    assert_eq!((answer.header("content-type"), answer.text().as_str()), ("text/csv", "a,b\n1,2\n"));
    assert_eq!(ask(house.edge, "GET", "/files/missing", "").await.status, 404);
    let raw = client::raw(house.edge, "GET /files/broken HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(!raw.ends_with("0\r\n\r\n"), "a body without its end cannot be taken for a whole: {raw}");
}

#[tokio::test]
async fn who_stops_uploading_is_told_and_who_leaves_ends_the_call() {
    let house = Landscape::talking(Config { body_timeout: Duration::from_secs(1), ..Config::default() }).await;
    let (parts, answer) = speak(&house, false, "POST", "/rooms/r/gather", "application/json").await;
    parts.send(part("[{\"text\":\"one\"},")).await.unwrap();
    assert_eq!(answer.await.status(), 408);
    until_left(&house).await;
    drop(parts);

    let house = Landscape::talking(Config::default()).await;
    for is_h2 in [false, true] {
        let (parts, answer) = speak(&house, is_h2, "POST", "/rooms/r/gather", "application/json").await;
        let mut answer = Box::pin(answer);
        parts.send(part("[{\"text\":\"one\"},")).await.unwrap();
        tokio::select! {
            _ = &mut answer => panic!("nothing is answered before the end"),
            () = until_held(&house) => {}
        }
        parts.send(Err(std::io::Error::other("leaves"))).await.unwrap();
        drop(answer);
        until_left(&house).await;
    }
}

#[tokio::test]
async fn lines_go_both_ways_at_once() {
    let house = Landscape::talking(Config::default()).await;
    for is_h2 in [false, true] {
        let (parts, answer) = speak(&house, is_h2, "POST", "/rooms/r/talk", "application/x-ndjson").await;
        parts.send(part("{\"text\":\"0\"}\n")).await.unwrap();
        let mut answer = answer.await;
        assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
        for at in 0..5 {
            let frame = answer.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(frame, format!("{{\"room\":\"r\",\"text\":\"{at}\"}}\n"));
            parts.send(part(&format!("{{\"text\":\"{}\"}}\n", at + 1))).await.unwrap();
        }
        parts.send(part("{\"colour\":1}\n")).await.unwrap();
        let rest = answer.collect().await.unwrap().to_bytes();
        let last: Json = serde_json::from_slice(rest.split(|byte| *byte == b'\n').rev().nth(1).unwrap()).unwrap();
        assert_eq!(last["error"]["code"], 3, "what is wrong with a line is said in the stream: {last}");
        until_left(&house).await;
    }
}

#[tokio::test]
async fn packed_answers_are_unpacked() {
    let house = Landscape::talking(Config::default()).await;
    let answer = ask(house.edge, "GET", "/rooms/r/repeat?text=2", "").await;
    assert_eq!(answer.text().lines().count(), 2);
    assert_eq!(house.backend.seen.lock().unwrap()["grpc-accept-encoding"], "identity,gzip");
}

type Socket = tokio_tungstenite::WebSocketStream<TcpStream>;

async fn socket(house: &Landscape, path: &str, subprotocol: &str) -> Result<Socket, tungstenite::Error> {
    let mut request = format!("ws://{}{path}", house.edge).into_client_request().unwrap();
    if !subprotocol.is_empty() {
        request.headers_mut().insert("sec-websocket-protocol", subprotocol.parse().unwrap());
    }
    let stream = TcpStream::connect(house.edge).await.unwrap();
    Ok(tokio_tungstenite::client_async(request, stream).await?.0)
}

async fn heard(socket: &mut Socket) -> Message {
    loop {
        match tokio::time::timeout(Duration::from_secs(60), socket.next()).await.unwrap().unwrap().unwrap() {
            Message::Ping(_) => {}
            message => return message,
        }
    }
}

fn code(message: Message) -> (u16, String) {
    let Message::Close(Some(frame)) = message else { panic!("{message:?}") };
    (frame.code.into(), frame.reason.to_string())
}

#[tokio::test]
async fn a_page_talks_over_a_socket() {
    let house = Landscape::talking(Config::default()).await;
    let mut talk = socket(&house, "/rooms/r/talk", "").await.unwrap();
    for text in ["one", "two"] {
        talk.send(Message::text(format!("{{\"text\":\"{text}\"}}"))).await.unwrap();
        let said = heard(&mut talk).await.into_text().unwrap();
        assert_eq!(serde_json::from_str::<Json>(&said).unwrap(), json!({"room": "r", "text": text}));
    }
    talk.send(Message::text("")).await.unwrap();
    assert_eq!(code(heard(&mut talk).await), (1000, String::new()));
    until_left(&house).await;

    let mut talk = socket(&house, "/rooms/r/talk", "other, proto").await.unwrap();
    talk.send(Message::binary(Line { text: "three".into(), ..Line::default() }.encode_to_vec())).await.unwrap();
    let said = Line::decode(heard(&mut talk).await.into_data()).unwrap();
    assert_eq!((said.room.as_str(), said.text.as_str()), ("r", "three"), "the path binds here too");
    talk.send(Message::binary(Line { room: "other".into(), ..Line::default() }.encode_to_vec())).await.unwrap();
    assert_eq!(code(heard(&mut talk).await).0, 4003);

    let mut repeat = socket(&house, "/rooms/r/repeat?text=3", "json").await.unwrap();
    for _ in 0..3 {
        assert!(heard(&mut repeat).await.is_text());
    }
    assert_eq!(code(heard(&mut repeat).await).0, 1000);
}

#[tokio::test]
async fn a_socket_says_what_went_wrong_by_message_and_code() {
    let house = Landscape::talking(Config { body_bytes_max: 10_000, ..Config::default() }).await;
    let large = format!("{{\"text\":\"{}\"}}", "x".repeat(20_000));
    for (said, is_told, closed) in [
        (Message::text("{\"text\":\"fail\"}"), true, 4005),
        (Message::text("{\"colour\":1}"), true, 4003),
        (Message::binary("x"), false, 1003),
        (Message::text(large), false, 1009),
    ] {
        let mut talk = socket(&house, "/rooms/r/talk", "json").await.unwrap();
        let _ = talk.send(said).await;
        if is_told {
            let told: Json = serde_json::from_str(&heard(&mut talk).await.into_text().unwrap()).unwrap();
            assert_eq!(told["error"]["code"].as_u64().map(|code| code + 4000), Some(closed));
        }
        assert_eq!(u64::from(code(heard(&mut talk).await).0), closed);
        until_left(&house).await;
    }
    for path in ["/rooms/r/say", "/nowhere"] {
        let refused = socket(&house, path, "").await.unwrap_err();
        assert!(matches!(refused, tungstenite::Error::Http(answer) if answer.status() == 404), "{path}");
    }
}

#[tokio::test]
async fn leaving_a_socket_ends_the_call_and_a_stopping_edge_says_so() {
    let house = Landscape::talking(Config::default()).await;
    let mut talk = socket(&house, "/rooms/r/talk", "").await.unwrap();
    talk.send(Message::text("{}")).await.unwrap();
    heard(&mut talk).await;
    drop(talk);
    until_left(&house).await;

    let mut talk = socket(&house, "/rooms/r/talk", "").await.unwrap();
    talk.send(Message::text("{}")).await.unwrap();
    heard(&mut talk).await;
    let said = async {
        let told = heard(&mut talk).await.into_text().unwrap();
        (told.contains("EDGE_DRAINING"), code(heard(&mut talk).await).0)
    };
    let (late, said) = tokio::join!(house.door.close(Duration::from_secs(20)), said);
    assert_eq!((late, said), (Vec::new(), (true, 4014)));
}

#[tokio::test]
async fn a_reader_that_does_not_read_stops_the_service_and_not_the_edge() {
    let house = Landscape::talking(Config::default()).await;
    let mut repeat = socket(&house, "/rooms/r/repeat?text=1000000", "").await.unwrap();
    heard(&mut repeat).await;
    until_held(&house).await;
    // A gigabyte is there to be read; whoever can still be reached has not swallowed it.
    assert_eq!(ask(house.edge, "POST", "/rooms/r/say", "{\"text\":\"x\"}").await.status, 200);
    drop(repeat);
    until_left(&house).await;
}

#[tokio::test]
async fn a_page_of_a_stranger_opens_no_socket() {
    let house = Landscape::talking(Config { origins: vec!["https://shop.example".into()], ..Config::default() }).await;
    for (origin, is_let_in) in [("https://evil.example", false), ("https://shop.example", true)] {
        let mut request = format!("ws://{}/rooms/r/talk", house.edge).into_client_request().unwrap();
        request.headers_mut().insert("origin", origin.parse().unwrap());
        let stream = TcpStream::connect(house.edge).await.unwrap();
        assert_eq!(tokio_tungstenite::client_async(request, stream).await.is_ok(), is_let_in, "{origin}");
    }
}
