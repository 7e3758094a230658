//! An HTTP/1.1 client, as plain as they come.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value as Json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    pub(crate) fn text_lossy(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A connection to the edge.
pub(crate) struct Connection(SendRequest<Full<Bytes>>);

impl Connection {
    pub(crate) async fn open(edge: SocketAddr) -> Self {
        let stream = TcpStream::connect(edge).await.unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        #[expect(clippy::disallowed_methods, reason = "ends with the sender")]
        tokio::spawn(connection);
        Self(sender)
    }

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> http::Response<Incoming> {
        self.0.ready().await.unwrap();
        self.0.send_request(request).await.unwrap()
    }

    pub(crate) async fn ask(&mut self, request: Request<Full<Bytes>>) -> Answer {
        let (head, body) = self.send(request).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: head.status, headers: head.headers, body }
    }
}

/// A request with a JSON body, or without one if it is empty.
pub(crate) fn request(verb: &str, target: &str, body: &str) -> Request<Full<Bytes>> {
    let request = Request::builder().method(verb).uri(target).header("host", "edge.example");
    let request = if body.is_empty() { request } else { request.header("content-type", "application/json") };
    request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap()
}

/// Asks once, on a connection of its own.
pub(crate) async fn ask(edge: SocketAddr, verb: &str, target: &str, body: &str) -> Answer {
    Connection::open(edge).await.ask(request(verb, target, body)).await
}

/// Sends bytes as they are, and reads until the edge closes.
pub(crate) async fn raw(edge: SocketAddr, bytes: &str) -> String {
    let mut stream = TcpStream::connect(edge).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(std::time::Duration::from_secs(60), stream.read_to_end(&mut answer));
    let _ = read.await.unwrap_or_else(|_| panic!("the edge should close the connection after {bytes:?}"));
    String::from_utf8_lossy(&answer).into_owned()
}

/// The reason that an answer gives.
pub(crate) fn reason(answer: &Answer) -> String {
    let json = answer.json();
    let details = json["details"].as_array().cloned().unwrap_or_default();
    details.iter().find_map(|detail| detail["reason"].as_str()).unwrap_or_default().to_owned()
}
