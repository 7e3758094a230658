//! HTTP as a stranger speaks it: one connection, one request.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// Longest wait for a whole answer.
const DEADLINE: Duration = Duration::from_secs(20);

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The header fields.
    pub headers: http::HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none; the text holds it.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("{}: {}", self.status, self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header field; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Sends a request and reads the whole answer.
///
/// # Errors
/// When no whole answer comes in 20 s.
pub async fn request(
    server: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<Value>,
) -> Result<Answer> {
    let exchange = async {
        let mut answer = send(server, method, path, headers, body).await?;
        let bytes = answer.body_mut().collect().await?.to_bytes();
        Ok(Answer { status: answer.status().as_u16(), headers: answer.headers().clone(), body: bytes })
    };
    tokio::time::timeout(DEADLINE, exchange)
        .await
        .with_context(|| format!("{method} {path}: no answer in {DEADLINE:?}"))?
}

/// Sends a request with a body of bytes and reads the whole answer.
///
/// # Errors
/// When no whole answer comes in 20 s.
pub async fn request_bytes(
    server: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Result<Answer> {
    let exchange = async {
        let mut answer = send_bytes(server, method, path, headers, body.into()).await?;
        let bytes = answer.body_mut().collect().await?.to_bytes();
        Ok(Answer { status: answer.status().as_u16(), headers: answer.headers().clone(), body: bytes })
    };
    tokio::time::timeout(DEADLINE, exchange)
        .await
        .with_context(|| format!("{method} {path}: no answer in {DEADLINE:?}"))?
}

/// A connection that is kept as long as the server keeps it; then the next.
#[derive(Debug)]
pub struct Kept {
    server: String,
    sender: Option<http1::SendRequest<Full<Bytes>>>,
}

impl Kept {
    /// A connection that is made when it is needed.
    pub fn new(server: &str) -> Self {
        Self { server: server.to_owned(), sender: None }
    }

    /// Asks, and reads the whole answer.
    ///
    /// # Errors
    /// When no whole answer comes in 20 s.
    pub async fn get(&mut self, path: &str) -> Result<Answer> {
        let exchange = async {
            // A connection that is closed is seen before the request is sent, as every pool of a client does.
            let open = match self.sender.take() {
                Some(mut sender) => sender.ready().await.is_ok().then_some(sender),
                None => None,
            };
            let mut sender = match open {
                Some(sender) => sender,
                None => {
                    let stream = TcpStream::connect(&self.server).await.context("no connection")?;
                    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
                    #[expect(clippy::disallowed_methods, reason = "it ends with its sender")]
                    tokio::spawn(connection);
                    sender
                }
            };
            let request = http::Request::get(path).header("host", &self.server).body(Full::default())?;
            let (head, body) = sender.send_request(request).await.context("a kept connection broke")?.into_parts();
            let body = body.collect().await?.to_bytes();
            self.sender = Some(sender);
            Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
        };
        tokio::time::timeout(DEADLINE, exchange).await.with_context(|| format!("{path}: no answer in {DEADLINE:?}"))?
    }
}

/// Sends a request and reads the first bytes of an answer that goes on, until they contain `text`.
///
/// # Errors
/// When they do not in 20 s.
pub async fn until_body_has(server: &str, path: &str, headers: &[(&str, &str)], text: &str) -> Result<Answer> {
    let exchange = async {
        let mut answer = send(server, "GET", path, headers, None).await?;
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(text) {
            let frame = answer.body_mut().frame().await.context("the stream ended")??;
            if let Some(data) = frame.data_ref() {
                seen.extend_from_slice(data);
            }
        }
        Ok(Answer { status: answer.status().as_u16(), headers: answer.headers().clone(), body: seen.into() })
    };
    tokio::time::timeout(DEADLINE, exchange).await.with_context(|| format!("{path}: no {text:?} in {DEADLINE:?}"))?
}

async fn send(
    server: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<Value>,
) -> Result<http::Response<hyper::body::Incoming>> {
    let Some(value) = body else { return send_bytes(server, method, path, headers, Bytes::new()).await };
    let headers: Vec<(&str, &str)> = headers.iter().copied().chain([("content-type", "application/json")]).collect();
    send_bytes(server, method, path, &headers, value.to_string().into()).await
}

async fn send_bytes(
    server: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> Result<http::Response<hyper::body::Incoming>> {
    let stream = TcpStream::connect(server).await.with_context(|| format!("connecting to {server}"))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    #[expect(clippy::disallowed_methods, reason = "the connection ends with its answer, and tests have no scope")]
    tokio::spawn(connection);
    let mut request = http::Request::builder().method(method).uri(path).header("host", server);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Ok(sender.send_request(request.body(Full::new(body))?).await?)
}
