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
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
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
        let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.expect(word);
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
