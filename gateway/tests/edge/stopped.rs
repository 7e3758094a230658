//! Clients that stop reading: the edge holds little for them, its service is held up and then left, and nobody else notices.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use ninefold_gateway::Config;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::client::ask;
use crate::landscape::Landscape;
use crate::script::{self, Script};

/// Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// What a client of HTTP/2 takes of one answer before it has to read. It says that it did in halves of this: less is not heard.
const WINDOW_BYTES: u32 = 64 << 10;
/// Most bytes of one answer that may be under way where nobody reads it: the windows of HTTP/2, the buffers of sockets, and
/// what the edge holds.
const UNDER_WAY_MAX: u64 = 24 << 20;

/// Clients are waited for as long as a test says.
fn config(answer_timeout: Duration) -> Config {
    Config { answer_timeout, ..Config::default() }
}

/// Sends the head of a request over HTTP/1.1, and reads the first bytes of the answer, no more.
async fn begun(house: &Landscape, path: &str, headers: &str) -> TcpStream {
    // A small buffer, so that little has to be said until it is full.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let mut stream = socket.connect(house.edge).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{headers}\r\n").as_bytes()).await.unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.unwrap();
    assert!(first.starts_with(b"HTTP/1.1 "), "{}", String::from_utf8_lossy(&first));
    stream
}

/// A connection of HTTP/2 on which an answer that is not read leaves room for others.
async fn client(house: &Landscape) -> SendRequest<Full<Bytes>> {
    let stream = TokioIo::new(TcpStream::connect(house.edge).await.unwrap());
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(WINDOW_BYTES).initial_connection_window_size(16 << 20);
    let (client, connection) = builder.handshake(stream).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "ends with the sender")]
    tokio::spawn(connection);
    client
}

/// Calls by gRPC with a message whose `id` is this.
async fn call(client: &mut SendRequest<Full<Bytes>>, method: &str, id: &str) -> Response<Incoming> {
    let length = u8::try_from(id.len()).unwrap();
    let message = [&[0, 0, 0, 0, length + 2, 0x0a, length][..], id.as_bytes()].concat();
    let request = Request::post(format!("http://edge.example/test.v1.RulesService/{method}"));
    let request = request.header("content-type", "application/grpc").header("te", "trailers");
    client.send_request(request.body(Full::new(message.into())).unwrap()).await.unwrap()
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waited = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waited).await.unwrap_or_else(|_| panic!("{what}"));
}

/// Waits until the service is given nothing more to say, and looks that little is under way.
async fn until_held_up(script: &Script, answers: u64) {
    let quiet = async {
        let mut before = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let given = script.given.load(Ordering::Relaxed);
            if given > 0 && given == before {
                return given;
            }
            before = given;
        }
    };
    let given = tokio::time::timeout(PATIENCE, quiet).await.expect("the service is held up");
    assert!(given < UNDER_WAY_MAX * answers, "{given} bytes are under way for {answers} answers that nobody reads");
}

#[tokio::test]
async fn who_stops_reading_holds_the_service_up_and_others_are_answered() {
    let (house, script) = script::start(config(PATIENCE * 10)).await;
    let socket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                  Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    let lines = begun(&house, "/watch/flood", "").await;
    let events = begun(&house, "/watch/flood", "Accept: text/event-stream\r\n").await;
    let socket = begun(&house, "/watch/flood", socket).await;
    let mut client = client(&house).await;
    let stream = call(&mut client, "Watch", "flood").await;
    until("all four are under way", || script.answers.count() == 4).await;
    until_held_up(&script, 4).await;
    for _ in 0..50 {
        assert_eq!(ask(house.edge, "GET", "/people/7", "").await.status, 200, "a caller beside them");
        let beside = call(&mut client, "Get", "7").await.collect().await.unwrap();
        assert_eq!(beside.trailers().unwrap()["grpc-status"], "0", "a call beside one that is not read");
    }
    assert_eq!(script.answers.count(), 4, "they are waited for");
    drop((lines, events, socket, stream));
    until("who leaves leaves nothing behind", || script.answers.count() == 0).await;
}

#[tokio::test]
async fn who_stops_reading_for_too_long_is_given_up_and_so_is_the_call() {
    let (house, script) = script::start(config(Duration::from_millis(500))).await;
    let socket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                  Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    for headers in ["", "Accept: text/event-stream\r\n", socket] {
        let mut stream = begun(&house, "/watch/flood", headers).await;
        until("the call is left", || script.answers.count() == 0).await;
        // What lay in the buffers can still be read; then there is an end.
        let rest = tokio::time::timeout(PATIENCE, async {
            let mut buffer = vec![0; 1 << 16];
            while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
        });
        rest.await.expect("the connection is closed");
    }
    let mut client = client(&house).await;
    let stopped = call(&mut client, "Watch", "flood").await;
    let never_begun = call(&mut client, "Watch", "flood").await;
    until("both calls are left", || script.answers.count() == 0).await;
    let beside = call(&mut client, "Get", "7").await.collect().await.unwrap();
    assert_eq!(beside.trailers().unwrap()["grpc-status"], "0", "their connection goes on");
    assert!(stopped.collect().await.is_err(), "who reads on after that is told that it is not whole");
    drop(never_begun);
}

#[tokio::test]
async fn who_reads_slowly_or_waits_for_a_silent_service_is_not_given_up() {
    // A busy machine pauses for longer than a reader does.
    let limit = Duration::from_secs(5);
    let (house, script) = script::start(config(limit)).await;
    let mut client = client(&house).await;
    let mut silent = call(&mut client, "Watch", "then-silent").await;
    assert!(silent.frame().await.unwrap().unwrap().is_data());
    let mut slow = call(&mut client, "Watch", "flood").await;
    let mut plain = begun(&house, "/watch/flood", "").await;
    let mut buffer = vec![0; 1 << 20];
    for _ in 0..20 {
        let mut taken = 0;
        while taken < WINDOW_BYTES as usize {
            taken += slow.frame().await.unwrap().unwrap().into_data().expect("it goes on").len();
        }
        assert!(plain.read(&mut buffer).await.unwrap() > 0, "it goes on");
        tokio::time::sleep(limit / 10).await;
    }
    assert_eq!(script.answers.count(), 3, "the silent one, and two that are read");
}
