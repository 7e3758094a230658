//! Two readers of the same bytes must see the same requests: a table of ways to make them differ, sent through the real
//! socket, with a service of plain HTTP behind the edge that notes every request that it is brought.
//!
//! Tiers, by what a reader of RFC 9112 may make of the bytes: *compliant* (there is one reading), *acceptable* (odd, and one
//! reading), *ambiguous* (readers are known to differ), *severe* (a second request is hidden in the difference). The first
//! two pass, written anew so that nothing odd is left; the others are answered with 400 and the connection is closed.

use std::sync::{Arc, Mutex};

use ninefold::proto::ninefold::registry::v1 as registry;
use ninefold_gateway::Config;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::client::raw;
use crate::landscape::Landscape;

/// What every attack is after: a request that the edge did not see.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
/// What follows every case that passes.
const END: &str = "GET /end HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
/// A body in chunks that holds `hello`.
const CHUNKS: &str = "5\r\nhello\r\n0\r\n\r\n";

/// Requests that the service was brought: head and body, as they came.
#[derive(Clone, Default)]
struct Brought(Arc<Mutex<Vec<(String, String)>>>);

impl Brought {
    fn take(&self) -> Vec<(String, String)> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// Reads requests as simply as it can be done: one length or chunks, and nothing else.
    async fn converse(self, mut stream: TcpStream) -> Option<()> {
        let mut read = Vec::new();
        loop {
            let head = until(&mut stream, &mut read, "\r\n\r\n").await?;
            let header = |name: &str| {
                let lines = head.lines().filter_map(|line| line.split_once(": "));
                lines.filter(|(own, _)| *own == name).map(|(_, value)| value.to_owned()).collect::<Vec<_>>()
            };
            let mut body = String::new();
            match (header("content-length").as_slice(), header("transfer-encoding").as_slice()) {
                ([], []) => {}
                ([length], []) => {
                    let length: usize = length.parse().expect("a plain number");
                    while read.len() < length {
                        more(&mut stream, &mut read).await?;
                    }
                    body = String::from_utf8(read.drain(..length).collect()).unwrap();
                }
                ([], [chunked]) if chunked == "chunked" => loop {
                    let line = until(&mut stream, &mut read, "\r\n").await?;
                    let size = usize::from_str_radix(line.trim(), 16).expect("a plain size");
                    while read.len() < size + 2 {
                        more(&mut stream, &mut read).await?;
                    }
                    let chunk: Vec<u8> = read.drain(..size + 2).collect();
                    body.push_str(&String::from_utf8_lossy(&chunk[..size]));
                    if size == 0 {
                        break;
                    }
                },
                framing => panic!("framed in two ways: {framing:?}"),
            }
            self.0.lock().unwrap().push((head, body));
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.ok()?;
        }
    }
}

async fn more(stream: &mut TcpStream, read: &mut Vec<u8>) -> Option<()> {
    (stream.read_buf(read).await.ok()? > 0).then_some(())
}

async fn until(stream: &mut TcpStream, read: &mut Vec<u8>, end: &str) -> Option<String> {
    loop {
        if let Some(at) = read.windows(end.len()).position(|part| part == end.as_bytes()) {
            return Some(String::from_utf8(read.drain(..at + end.len()).collect()).unwrap());
        }
        more(stream, read).await?;
    }
}

async fn start() -> (Landscape, Brought) {
    let config = json!({"http": [{"prefix": "/", "service": "site"}], "openapi": false, "body_timeout": "2s"});
    let config: Config = serde_json::from_value(config).unwrap();
    let house = Landscape::empty(config).await;
    let brought = Brought::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let own = brought.clone();
    house.scope("site").run("test.site", move |stop| async move {
        loop {
            let (stream, _) = tokio::select! {
                accepted = listener.accept() => accepted.unwrap(),
                () = stop.asked() => return,
            };
            #[expect(clippy::disallowed_methods, reason = "ends with its connection")]
            tokio::spawn(own.clone().converse(stream));
        }
    });
    house.register(registry::Instance {
        service: "site".to_owned(),
        instance_id: "s".to_owned(),
        addresses: vec![registry::Address { host: "127.0.0.1".to_owned(), port: port.into() }],
        protocol: registry::Protocol::Http.into(),
        state: registry::InstanceState::Serving.into(),
        ..registry::Instance::default()
    });
    house.gateway.until_known().await;
    (house, brought)
}

/// A request in order, but for these lines of its head and its body.
fn post(lines: &str, body: &str) -> String {
    format!("POST /case HTTP/1.1\r\nHost: a\r\n{lines}\r\n{body}")
}

fn get(lines: &str) -> String {
    format!("GET /case HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", body)
}

/// Requests with one reading, and the body that they have.
fn passed() -> Vec<(&'static str, String, &'static str)> {
    let hidden = "5\r\nhello\r\n0\r\n\r\n";
    vec![
        ("compliant: no body", get(""), ""),
        ("compliant: a length", post("Content-Length: 5\r\n", "hello"), "hello"),
        ("compliant: no length is no body", post("", ""), ""),
        ("compliant: a length of nothing", post("Content-Length: 0\r\n", ""), ""),
        ("compliant: chunks", chunked(hidden), "hello"),
        ("compliant: two chunks", chunked("2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"), "hello"),
        ("compliant: a chunk with an extension", chunked("5;name=value\r\nhello\r\n0\r\n\r\n"), "hello"),
        (
            "compliant: hex digits of either case",
            chunked("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n"),
            "01234567890123456789",
        ),
        ("compliant: trailers", chunked("5\r\nhello\r\n0\r\nChecksum: 1\r\n\r\n"), "hello"),
        ("compliant: a header without a value", get("X-Empty:\r\n"), ""),
        ("compliant: the target names the host", "GET http://a/case HTTP/1.1\r\nHost: a\r\n\r\n".into(), ""),
        (
            "compliant: a body that waits to be asked for",
            post("Content-Length: 5\r\nExpect: 100-continue\r\n", "hello"),
            "hello",
        ),
        ("acceptable: an empty line before", format!("\r\n\r\n{}", get("")), ""),
        (
            "acceptable: a body that looks like a request",
            post(&format!("Content-Length: {}\r\n", HIDDEN.len()), HIDDEN),
            HIDDEN,
        ),
        ("acceptable: a GET with a body", get("Content-Length: 5\r\n") + "hello", "hello"),
        ("acceptable: a DELETE with chunks", chunked(CHUNKS).replacen("POST", "DELETE", 1), "hello"),
        ("acceptable: a length with zeros before", post("Content-Length: 005\r\n", "hello"), "hello"),
        ("acceptable: blanks around a length", post("Content-Length: \t 5 \t\r\n", "hello"), "hello"),
        ("acceptable: names in capitals", post("CONTENT-LENGTH: 5\r\n", "hello"), "hello"),
        ("acceptable: an encoding in capitals", post("Transfer-Encoding: CHUNKED\r\n", CHUNKS), "hello"),
        ("acceptable: a tab before an encoding", post("Transfer-Encoding:\tchunked\r\n", CHUNKS), "hello"),
        ("acceptable: a chunk with zeros before its size", chunked("0005\r\nhello\r\n000\r\n\r\n"), "hello"),
        (
            "acceptable: trailers that speak of framing",
            chunked("5\r\nhello\r\n0\r\nContent-Length: 50\r\nTransfer-Encoding: x\r\n\r\n"),
            "hello",
        ),
        (
            "acceptable: a length with an underscore is none",
            post("Content-Length: 5\r\nContent_Length: 50\r\n", "hello"),
            "hello",
        ),
        (
            "acceptable: an encoding with an underscore is none",
            post("Content-Length: 5\r\nTransfer_Encoding: chunked\r\n", "hello"),
            "hello",
        ),
        (
            "acceptable: a connection that names the length",
            post("Connection: content-length\r\nContent-Length: 5\r\n", "hello"),
            "hello",
        ),
        (
            "acceptable: a connection that names the encoding",
            post("Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n", CHUNKS),
            "hello",
        ),
        (
            "acceptable: an upgrade that nobody offers",
            get("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"),
            "",
        ),
        ("acceptable: a connection word of old proxies", get("Proxy-Connection: keep-alive\r\nKeep-Alive: 5\r\n"), ""),
        (
            "acceptable: HTTP/1.0 with a length",
            "POST /case HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello".into(),
            "hello",
        ),
    ]
}

/// Heads that readers are known to read differently.
fn ambiguous() -> Vec<(&'static str, String)> {
    vec![
        ("lines that end without a carriage return", "GET /case HTTP/1.1\nHost: a\n\n".into()),
        ("one line that ends without a carriage return", "GET /case HTTP/1.1\r\nHost: a\nX: y\r\n\r\n".into()),
        ("an empty line without a carriage return", "GET /case HTTP/1.1\r\nHost: a\r\n\n".into()),
        ("a carriage return within a value", get("X: a\rb\r\n")),
        ("a zero within a value", get("X: a\0b\r\n")),
        ("a control character within a value", get("X: a\x0bb\r\n")),
        ("a deletion within a value", get("X: a\x7fb\r\n")),
        ("a folded line", get("X: a\r\n b\r\n")),
        ("a line folded by a tab", get("X: a\r\n\tb\r\n")),
        ("a first line that is folded", "GET /case HTTP/1.1\r\n Host: a\r\n\r\n".into()),
        ("a line without a colon", get("nothing\r\n")),
        ("a header without a name", get(": x\r\n")),
        ("a name with a blank", get("X y: z\r\n")),
        ("a blank before a colon", get("X : y\r\n")),
        ("a name with a zero", get("X\0: y\r\n")),
        ("a name with a slash", get("X/y: z\r\n")),
        ("a name with a letter beyond ASCII", get("X\u{e9}: y\r\n")),
        ("no host", "GET /case HTTP/1.1\r\n\r\n".into()),
        ("two hosts", get("Host: b\r\n")),
        ("the same host twice", get("Host: a\r\n")),
        ("a host with a blank", "GET /case HTTP/1.1\r\nHost: a b\r\n\r\n".into()),
        ("two hosts in one line", "GET /case HTTP/1.1\r\nHost: a, b\r\n\r\n".into()),
        ("a host with a path", "GET /case HTTP/1.1\r\nHost: a/b\r\n\r\n".into()),
        ("a host with a name before it", "GET /case HTTP/1.1\r\nHost: b@a\r\n\r\n".into()),
        ("a target that names another host", "GET http://b/case HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("a target that is a star", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("a target without a slash", "GET case HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("a target with a blank", "GET /case x HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("a target with a tab", "GET /case\tx HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("a target with a letter beyond ASCII", "GET /cas\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("a target with a backslash", "GET /a\\..\\case HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("two blanks in the first line", "GET  /case HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("a blank at the end of the first line", "GET /case HTTP/1.1 \r\nHost: a\r\n\r\n".into()),
        ("a blank before the first line", " GET /case HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("no version", "GET /case\r\nHost: a\r\n\r\n".into()),
        ("a version in small letters", "GET /case http/1.1\r\nHost: a\r\n\r\n".into()),
        ("a version of later", "GET /case HTTP/1.2\r\nHost: a\r\n\r\n".into()),
        ("a version of two digits", "GET /case HTTP/1.10\r\nHost: a\r\n\r\n".into()),
        ("HTTP/2 without its preface", "GET /case HTTP/2.0\r\nHost: a\r\n\r\n".into()),
        ("a method with a zero", "G\0T /case HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("a method that is none", "G@T /case HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n".into()),
        ("the same length twice", post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello")),
        ("the same length twice in one line", post("Content-Length: 5, 5\r\n", "hello")),
        ("the same encoding twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", CHUNKS)),
        ("an encoding of nothing", post("Transfer-Encoding: identity\r\n", "")),
        ("an encoding that is empty", post("Transfer-Encoding:\r\n", "")),
        ("a length that is empty", post("Content-Length:\r\n", "")),
    ]
}

/// Heads that hide a second request from one of two readers. Each body ends with one.
fn severe() -> Vec<(&'static str, String)> {
    let hidden = |lines: &str| post(lines, &format!("0\r\n\r\n{HIDDEN}"));
    let long = format!("{}\r\n", "9".repeat(40));
    vec![
        ("a length, then an encoding", hidden("Content-Length: 40\r\nTransfer-Encoding: chunked\r\n")),
        ("an encoding, then a length", hidden("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n")),
        ("two lengths", hidden("Content-Length: 0\r\nContent-Length: 40\r\n")),
        ("two lengths in one line", hidden("Content-Length: 0, 40\r\n")),
        ("a length with a sign", hidden("Content-Length: +5\r\n")),
        ("a length below zero", hidden("Content-Length: -5\r\n")),
        ("a length in hex", hidden("Content-Length: 0x5\r\n")),
        ("a length with a point", hidden("Content-Length: 5.0\r\n")),
        ("a length with a blank within", hidden("Content-Length: 5 0\r\n")),
        ("a length with a letter", hidden("Content-Length: 5a\r\n")),
        ("a length beyond all numbers", hidden(&format!("Content-Length: {long}"))),
        ("a length in digits of another script", hidden("Content-Length: \u{ff15}\r\n")),
        ("a blank before the colon of a length", hidden("Content-Length : 5\r\n")),
        ("a folded length", hidden("Content-Length:\r\n 5\r\n")),
        ("a zero after a length", hidden("Content-Length: 5\0\r\n")),
        ("an encoding beside another", hidden("Transfer-Encoding: gzip, chunked\r\n")),
        ("chunks that are not last", hidden("Transfer-Encoding: chunked, identity\r\n")),
        ("chunks twice in one line", hidden("Transfer-Encoding: chunked, chunked\r\n")),
        ("chunks and something else in two lines", hidden("Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n")),
        ("something like chunks", hidden("Transfer-Encoding: xchunked\r\n")),
        ("chunks in quotes", hidden("Transfer-Encoding: \"chunked\"\r\n")),
        ("chunks with a parameter", hidden("Transfer-Encoding: chunked;q=1\r\n")),
        ("chunks with a comma", hidden("Transfer-Encoding: chunked,\r\n")),
        ("chunks after a control character", hidden("Transfer-Encoding: \x0bchunked\r\n")),
        ("chunks after a folded line", hidden("Transfer-Encoding:\r\n chunked\r\n")),
        ("chunks before a zero", hidden("Transfer-Encoding: chunked\0\r\n")),
        ("chunks before a carriage return", hidden("Transfer-Encoding: chunked\r\r\n")),
        ("a blank before the colon of an encoding", hidden("Transfer-Encoding : chunked\r\n")),
        ("a tab before the colon of an encoding", hidden("Transfer-Encoding\t: chunked\r\n")),
        ("a blank before the name of an encoding", hidden(" Transfer-Encoding: chunked\r\n")),
        ("an encoding behind a bare line end", hidden("X: y\nTransfer-Encoding: chunked\r\n")),
        ("an encoding behind a bare carriage return", hidden("X: y\rTransfer-Encoding: chunked\r\n")),
        ("an encoding in HTTP/1.0", hidden("Transfer-Encoding: chunked\r\n").replacen("HTTP/1.1", "HTTP/1.0", 1)),
    ]
}

/// Bodies in chunks that hide a second request from one of two readers.
fn broken_chunks() -> Vec<(&'static str, String)> {
    let then = |body: &str| chunked(&format!("{body}{HIDDEN}"));
    vec![
        ("a size with a sign", then("+5\r\nhello\r\n0\r\n\r\n")),
        ("a size below zero", then("-5\r\nhello\r\n0\r\n\r\n")),
        ("a size with a word for hex", then("0x5\r\nhello\r\n0\r\n\r\n")),
        ("a size with a blank after it", then("5 \r\nhello\r\n0\r\n\r\n")),
        ("a size with a blank before it", then(" 5\r\nhello\r\n0\r\n\r\n")),
        ("no size", then("\r\nhello\r\n0\r\n\r\n")),
        ("a size beyond all numbers", then("FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n")),
        ("a size that ends without a carriage return", then("5\nhello\r\n0\r\n\r\n")),
        ("a chunk that is longer than it says", then("4\r\nhello\r\n0\r\n\r\n")),
        ("a chunk that ends without a carriage return", then("5\r\nhello\n0\r\n\r\n")),
        ("a chunk that ends without a line", then("5\r\nhello0\r\n\r\n")),
        ("a carriage return within an extension", then("5;a\rb\r\nhello\r\n0\r\n\r\n")),
        ("an end without a carriage return", then("5\r\nhello\r\n0\n\n")),
        ("trailers that end without a carriage return", then("5\r\nhello\r\n0\r\nX: y\n\r\n")),
    ]
}

fn statuses(answer: &str) -> Vec<&str> {
    let statuses = answer.split("HTTP/1.").skip(1).filter_map(|part| part.get(2..5));
    statuses.filter(|status| *status != "100").collect()
}

#[tokio::test]
async fn what_has_one_reading_passes_and_is_written_anew() {
    let (house, brought) = start().await;
    for (name, bytes, body) in passed() {
        let answer = raw(house.edge, &format!("{bytes}{END}")).await;
        assert_eq!(statuses(&answer), ["200", "200"], "{name}: {answer}");
        let seen = brought.take();
        let targets: Vec<_> = seen.iter().map(|(head, _)| head.split(' ').nth(1).unwrap()).collect();
        assert_eq!(targets, ["/case", "/end"], "{name}");
        let (head, came) = &seen[0];
        assert_eq!(came, body, "{name}");
        assert!(
            !head.contains('_') && !head.contains("\r\nconnection: ") && !head.contains("upgrade"),
            "{name}: {head}"
        );
        assert!(head.contains("\r\nhost: a\r\n"), "{name}: {head}");
    }
}

#[tokio::test]
async fn what_has_two_readings_is_refused_and_the_connection_closed() {
    let (house, brought) = start().await;
    for (name, bytes) in ambiguous().into_iter().chain(severe()) {
        let answer = raw(house.edge, &format!("{bytes}{END}")).await;
        assert_eq!(statuses(&answer), ["400"], "{name}: {answer}");
        assert_eq!(brought.take(), [], "{name}: the service was asked");
    }
}

#[tokio::test]
async fn a_body_with_two_readings_ends_its_connection_and_brings_no_second_request() {
    let (house, brought) = start().await;
    for (name, bytes) in broken_chunks() {
        let answer = raw(house.edge, &format!("{bytes}{END}")).await;
        let statuses = statuses(&answer);
        assert!(statuses.last().is_none_or(|status| *status == "400") && statuses.len() <= 2, "{name}: {answer}");
        let targets: Vec<_> =
            brought.take().iter().map(|(head, _)| head.split(' ').nth(1).unwrap().to_owned()).collect();
        assert!(targets.iter().all(|target| target == "/case"), "{name}: {targets:?}");
    }
}

/// Pieces arrive as the network likes.
#[tokio::test]
async fn how_the_bytes_arrive_changes_nothing() {
    let (house, brought) = start().await;
    for (name, bytes) in severe() {
        let mut stream = TcpStream::connect(house.edge).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for piece in bytes.as_bytes().chunks(7) {
            if stream.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let mut answer = Vec::new();
        _ = tokio::time::timeout(std::time::Duration::from_secs(60), stream.read_to_end(&mut answer)).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(statuses(&answer).iter().all(|status| *status == "400"), "{name}: {answer}");
        assert_eq!(brought.take(), [], "{name}");
    }
}
