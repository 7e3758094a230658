//! Load: requests over kept connections, as fast as answers come or at a pace of its own.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::Instant;

use crate::order;
use crate::place::cpu_seconds;
use crate::service::pb;

/// Before the clock runs, connections are made and caches filled.
const WARM: Duration = Duration::from_millis(700);
/// Room for one answer.
const ANSWER_BYTES: usize = 64 << 10;
/// Calls at a time on one HTTP/2 connection.
const STREAMS: usize = 8;

/// Sends what a plan says, and answers what came of it: `cpu_us` a request of process `pid`, `per_second`, `p50_us`,
/// `p99_us`.
pub(crate) async fn run(plan: &Value) -> Result<Value> {
    let text = |key: &str| plan[key].as_str().with_context(|| key.to_owned());
    let number = |key: &str| plan[key].as_u64().with_context(|| key.to_owned());
    let lanes = usize::try_from(number("lanes")?)?;
    let per_second = number("per_second")?;
    let pid = u32::try_from(number("pid")?)?;
    let (address, kind) = (text("address")?.to_owned(), text("kind")?.to_owned());
    let body = order::json(usize::try_from(number("lines")?)?);
    let token = plan["token"].as_str().map(str::to_owned);
    let begin = Instant::now();
    let from = begin + WARM;
    let until = from + Duration::from_millis(number("millis")?);
    let set = LocalSet::new();
    set.run_until(async move {
        let mut tasks = JoinSet::new();
        let mut sender = None;
        for lane in 0..lanes {
            let pace = Pace::new(per_second, lane, lanes, begin);
            let window = Window { from, until };
            if kind == "grpc" {
                if lane % STREAMS == 0 {
                    sender = Some(connect(&address).await?);
                }
                let sender = sender.clone().context("a connection for every lane")?;
                let call = Rc::new(Call::new(&address, &body, token.as_deref()));
                tasks.spawn_local(async move { calls(sender, &call, pace, window).await });
            } else {
                let stream = TcpStream::connect(&address).await?;
                stream.set_nodelay(true)?;
                let bytes = request(&body, token.as_deref());
                tasks.spawn_local(async move { requests(stream, &bytes, pace, window).await });
            }
        }
        tokio::time::sleep_until(from).await;
        let before = cpu_seconds(pid)?;
        tokio::time::sleep_until(until).await;
        let cpu = cpu_seconds(pid)? - before;
        let mut latencies = Vec::new();
        while let Some(done) = tasks.join_next().await {
            latencies.extend(done??);
        }
        ensure!(!latencies.is_empty(), "nothing was answered");
        latencies.sort_unstable();
        let count = f64::from(u32::try_from(latencies.len())?);
        let of = |percent: usize| latencies[(latencies.len() * percent / 1000).min(latencies.len() - 1)];
        let micros = |at: Duration| at.as_secs_f64() * 1e6;
        Ok(json!({
            "cpu_us": cpu * 1e6 / count,
            "per_second": count / (until - from).as_secs_f64(),
            "p50_us": micros(of(500)),
            "p99_us": micros(of(990)),
        }))
    })
    .await
}

#[derive(Clone, Copy)]
struct Window {
    from: Instant,
    until: Instant,
}

/// When the next request of a lane is due.
struct Pace {
    every: Option<Duration>,
    next: Instant,
}

impl Pace {
    fn new(per_second: u64, lane: usize, lanes: usize, begin: Instant) -> Self {
        let share = |part: usize| u32::try_from(part).unwrap_or(u32::MAX);
        let every = (per_second > 0)
            .then(|| Duration::from_secs(1) * share(lanes) / u32::try_from(per_second).unwrap_or(u32::MAX));
        let next = begin + every.unwrap_or_default() * share(lane) / share(lanes);
        Self { every, next }
    }

    /// Waits until the next one is due, and answers from when it counts: from when it was due, if an answer was waited
    /// for longer than that, and not counting what this program's clock oversleeps.
    async fn due(&mut self) -> Instant {
        let Some(every) = self.every else { return Instant::now() };
        let due = self.next;
        self.next += every;
        if due <= Instant::now() {
            return due;
        }
        tokio::time::sleep_until(due).await;
        Instant::now()
    }
}

/// One request as bytes.
fn request(body: &str, token: Option<&str>) -> Vec<u8> {
    let token = token.map_or_else(String::new, |token| format!("authorization: Bearer {token}\r\n"));
    format!(
        "POST {} HTTP/1.1\r\nhost: edge.example\r\nuser-agent: bench\r\naccept: */*\r\n{token}\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        order::PATH,
        body.len()
    )
    .into_bytes()
}

async fn requests(mut stream: TcpStream, request: &[u8], mut pace: Pace, window: Window) -> Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    let mut buffer = vec![0; ANSWER_BYTES];
    let mut length = None;
    loop {
        let due = pace.due().await;
        stream.write_all(request).await?;
        let answer = answer(&mut stream, &mut buffer).await?;
        let now = Instant::now();
        // All answers are the same, so the first is looked into and the others are measured.
        let body = String::from_utf8_lossy(answer);
        if length.is_none() {
            ensure!(body.contains("9007199254740993"), "a strange answer: {body}");
        }
        ensure!(*length.get_or_insert(body.len()) == body.len(), "a strange answer: {body}");
        if now >= window.until {
            return Ok(latencies);
        }
        if due >= window.from {
            latencies.push(now - due);
        }
    }
}

/// Reads one answer and gives its body, with its chunks if it has any.
async fn answer<'b>(stream: &mut TcpStream, buffer: &'b mut [u8]) -> Result<&'b [u8]> {
    let mut filled = 0;
    let mut rest: Option<(usize, Option<usize>)> = None;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        ensure!(read > 0, "the connection ended");
        filled += read;
        if rest.is_none()
            && let Some(end) = find(&buffer[..filled], b"\r\n\r\n")
        {
            let head = std::str::from_utf8(&buffer[..end])?.to_ascii_lowercase();
            ensure!(head.starts_with("http/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..filled]));
            let length =
                head.split_once("content-length:").and_then(|(_, rest)| rest.lines().next()?.trim().parse().ok());
            rest = Some((end + 4, length.map(|length: usize| end + 4 + length)));
        }
        match rest {
            Some((from, Some(end))) if filled >= end => return Ok(&buffer[from..end]),
            Some((from, None)) if buffer[from..filled].ends_with(b"0\r\n\r\n") => return Ok(&buffer[from..filled]),
            _ => {}
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// One call, ready to be sent.
struct Call {
    uri: http::Uri,
    body: Bytes,
    token: Option<http::HeaderValue>,
}

impl Call {
    fn new(address: &str, json: &str, token: Option<&str>) -> Self {
        let lines = json.matches("sku").count();
        let line = |at: usize| pb::Line {
            sku: format!("SKU-{at:05}"),
            quantity: i32::try_from(at % 7).unwrap_or_default() + 1,
            price: f64::from(u32::try_from(at).unwrap_or_default()) * 3.0 + 0.25,
        };
        let message = pb::PlaceOrderRequest {
            customer: "ada".to_owned(),
            order_id: "2026-000147".to_owned(),
            account: 9_007_199_254_740_993,
            lines: (0..lines).map(line).collect(),
            ..pb::PlaceOrderRequest::default()
        }
        .encode_to_vec();
        let mut frame = vec![0];
        frame.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
        frame.extend(message);
        Self {
            uri: format!("http://{address}{}", order::CALL).parse().expect("an address makes a URI"),
            body: frame.into(),
            token: token.and_then(|token| format!("Bearer {token}").parse().ok()),
        }
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert("content-type", http::HeaderValue::from_static("application/grpc"));
        headers.insert("te", http::HeaderValue::from_static("trailers"));
        if let Some(token) = &self.token {
            headers.insert("authorization", token.clone());
        }
        request
    }
}

async fn connect(address: &str) -> Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::task::spawn_local(connection);
    Ok(sender)
}

async fn calls(
    mut sender: SendRequest<Full<Bytes>>,
    call: &Call,
    mut pace: Pace,
    window: Window,
) -> Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    loop {
        let due = pace.due().await;
        sender.ready().await?;
        let response = sender.send_request(call.request()).await?;
        let whole = response.into_body().collect().await?;
        let now = Instant::now();
        let status = whole.trailers().and_then(|trailers| trailers.get("grpc-status"));
        if status.is_none_or(|status| status != "0") {
            bail!("a call failed: {:?}", whole.trailers());
        }
        if now >= window.until {
            return Ok(latencies);
        }
        if due >= window.from {
            latencies.push(now - due);
        }
    }
}

/// Opens so many connections, sends one request on each, and holds them until it is killed; prints a line when they are
/// all answered.
pub(crate) async fn hold(address: &str, connections: u32) -> Result<()> {
    let mut held = Vec::new();
    let request = request(&order::json(order::SMALL), None);
    let mut buffer = vec![0; ANSWER_BYTES];
    for _ in 0..connections {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(&request).await?;
        answer(&mut stream, &mut buffer).await?;
        held.push(stream);
    }
    println!("held");
    std::future::pending::<()>().await;
    drop(held);
    Ok(())
}
