//! What a stranger sends to do harm, byte by byte.

use std::time::Duration;

use ninefold_gateway::Config;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::client::{Connection, ask, raw, request};
use crate::landscape::Landscape;

#[tokio::test]
async fn a_request_that_can_be_read_in_two_ways_is_refused_and_the_connection_closed() {
    let house = Landscape::start().await;
    let smuggled = "0\r\n\r\nGET /v1/documents HTTP/1.1\r\nHost: a\r\n\r\n";
    for head in [
        "GET /v1/documents HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(),
        "GET /v1/documents HTTP/1.1\r\n\r\n".to_owned(),
        "GET /v1/documents HTTP/1.1\nHost: a\n\n".to_owned(),
        format!(
            "POST /v1/documents HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n{smuggled}"
        ),
        format!(
            "POST /v1/documents HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n{smuggled}"
        ),
        format!("POST /v1/documents HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n{smuggled}"),
        format!("POST /v1/documents HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n{smuggled}"),
        "GET /v1/documents HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "GET /v1/documents HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded: 2\r\n\r\n".to_owned(),
        "GET /v1/documents HTTP/1.1\r\nHost: a, b\r\n\r\n".to_owned(),
        "GET http://b/v1/documents HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /v1/documents/../contracts HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /v1/documents/%2e%2E%2fx HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /v1/documents/%00 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n".to_owned(),
    ] {
        let answer = raw(house.edge, &head).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{head:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "nothing smuggled is answered: {answer}");
    }
}

#[tokio::test]
async fn a_good_request_before_a_bad_one_is_answered() {
    let house = Landscape::start().await;
    let good = "GET /v1/documents HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer =
        raw(house.edge, &format!("{good}GET /v1/documents HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n{good}")).await;
    let statuses: Vec<_> = answer.match_indices("HTTP/1.1 ").map(|(at, _)| &answer[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["200", "400"], "{answer}");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let config = Config { body_bytes_max: 1000, ..Config::default() };
    let house = Landscape::start_with(config).await;
    let large = format!("{{\"content\": \"{}\"}}", "x".repeat(2000));
    let answer = ask(house.edge, "PUT", "/v1/documents/shop/test", &large).await;
    assert_eq!(answer.status, 413);
    assert_eq!(answer.json()["details"][0]["reason"], "BODY_TOO_LARGE");
    let chunked = format!(
        "PUT /v1/documents/shop/test HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
         7d0\r\n{}\r\n0\r\n\r\n",
        "x".repeat(2000)
    );
    let answer = raw(house.edge, &chunked).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn heads_have_limits() {
    let house = Landscape::start().await;
    let mut connection = Connection::open(house.edge).await;
    let long = format!("/v1/documents/{}", "x".repeat(9000));
    assert_eq!(connection.ask(request("GET", &long, "")).await.status, 414);
    let many = "X: y\r\n".repeat(200);
    let answer = raw(house.edge, &format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let large = "x".repeat(60_000);
    let answer = raw(house.edge, &format!("GET / HTTP/1.1\r\nHost: a\r\nX: {large}\r\n\r\n")).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
}

#[tokio::test]
async fn a_head_that_never_ends_is_given_up() {
    let config = Config { headers_timeout: Duration::from_millis(200), ..Config::default() };
    let house = Landscape::start_with(config).await;
    let mut stream = tokio::net::TcpStream::connect(house.edge).await.unwrap();
    stream.write_all(b"GET /v1/documents HTTP/1.1\r\nHost: a\r\n").await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(!String::from_utf8_lossy(&answer).contains("200 OK"));
}

#[tokio::test]
async fn a_connection_that_says_nothing_or_half_a_word_keeps_no_place() {
    let config = Config { headers_timeout: Duration::from_millis(200), ..Config::default() };
    let house = Landscape::start_with(config).await;
    for word in ["", "P", "PRI * HTTP/2.0\r\n\r\nSM"] {
        let mut stream = tokio::net::TcpStream::connect(house.edge).await.unwrap();
        stream.write_all(word.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // An end or a reset: what was said may not have been read.
        let _ = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await.expect(word);
        assert!(answer.is_empty(), "after {word:?}: {answer:?}");
    }
}

#[tokio::test]
async fn a_body_that_never_ends_is_given_up() {
    let config = Config { body_timeout: Duration::from_millis(200), ..Config::default() };
    let house = Landscape::start_with(config).await;
    let head = "PUT /v1/documents/shop/test HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{";
    let answer = raw(house.edge, head).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// What begins a connection of HTTP/2.
fn preface() -> Vec<u8> {
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat()
}

/// GET / of `a`, in HPACK.
const HEAD: [u8; 6] = [0x82, 0x86, 0x84, 0x41, 0x01, b'a'];

/// Sends until the edge has had enough; how many times that was.
async fn until_thrown_out(house: &Landscape, most: u32, piece: impl Fn(u32) -> Vec<u8>) -> u32 {
    let stream = tokio::net::TcpStream::connect(house.edge).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let flood = async {
        writing.write_all(&preface()).await.unwrap();
        for number in 0..most {
            if writing.write_all(&piece(number)).await.is_err() {
                return number;
            }
        }
        most
    };
    let end = async {
        // Answers must be read, or the flood would end for another reason.
        let mut answer = vec![0; 64 << 10];
        while let Ok(1..) = reading.read(&mut answer).await {}
    };
    tokio::pin!(flood, end);
    let sent = tokio::select! {
        sent = &mut flood => sent,
        () = &mut end => return 0,
    };
    let thrown_out = tokio::time::timeout(Duration::from_secs(60), end).await;
    thrown_out.unwrap_or_else(|_| panic!("the edge should have had enough after {sent}"));
    sent
}

#[tokio::test]
async fn floods_of_http2_end_their_connection_and_nothing_else() {
    let house = Landscape::start().await;
    // Streams that are opened and reset at once (CVE-2023-44487).
    until_thrown_out(&house, 20_000, |number| {
        let stream = 2 * number + 1;
        [frame(1, 5, stream, &HEAD), frame(3, 0, stream, &8_u32.to_be_bytes())].concat()
    })
    .await;
    // A head that never ends (CONTINUATION frames, CVE-2024-27316).
    until_thrown_out(&house, 20_000, |number| match number {
        0 => frame(1, 0, 1, &HEAD),
        _ => frame(9, 0, 1, &[0x40, 1, b'x', 1, b'y'].repeat(200)),
    })
    .await;
    // A head that is small on the wire and huge when it is unpacked: one entry, said again and again.
    until_thrown_out(&house, 2, |number| match number {
        0 => {
            let entry = [&[0x40, 1, b'x', 0x7f, 0x81, 0x1e][..], &b"y".repeat(4000)].concat();
            frame(1, 5, 1, &[&HEAD[..], &entry, &[0xbe].repeat(10_000)].concat())
        }
        _ => frame(0, 0, 0, b"a frame of data without a stream breaks the protocol"),
    })
    .await;
    assert_eq!(ask(house.edge, "GET", "/v1/documents", "").await.status, 200, "others do not notice");
}
