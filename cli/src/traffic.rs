//! The gentle stream of requests that makes the demo alive.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Time from one request to the next.
const EVERY: Duration = Duration::from_millis(500);
/// Longest wait for an answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// Largest answer that is read.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// What is asked for, in turn: mostly products that are there, now and then the list and one that is not.
const PATHS: [&str; 8] = [
    "/v1/products/1",
    "/v1/products/2",
    "/v1/products?page_size=3",
    "/v1/products/3",
    "/v1/products/1",
    "/v1/products/2",
    "/v1/products/404",
    "/v1/products/3",
];

/// Sends requests to the edge until it is dropped. Failures are part of the show and are not reported here: the platform
/// shows them.
pub(crate) async fn send(edge: SocketAddr) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for path in PATHS.iter().cycle() {
        tick.tick().await;
        let _ = tokio::time::timeout(DEADLINE, get(edge, path)).await;
    }
}

/// Asks an HTTP server once, on a connection of its own; answers status and body.
pub(crate) async fn get(
    server: SocketAddr,
    path: &str,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(server).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(Method::GET)
        .uri(path)
        .header(http::header::HOST, server.to_string())
        .header(http::header::USER_AGENT, "ninefold")
        .body(Empty::<Bytes>::new())?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = http_body_util::Limited::new(answer.into_body(), BODY_BYTES_MAX).collect().await?.to_bytes();
        Ok((status, body))
    };
    tokio::pin!(connection);
    tokio::select! {
        outcome = exchange => outcome,
        ended = &mut connection => Err(ended.err().map_or_else(|| "the connection ended".into(), Into::into)),
    }
}
