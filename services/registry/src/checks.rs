//! Asks an instance whether it is well, as it wants to be asked; done by the node that holds its session.

use std::convert::Infallible;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::life::Tally;
use crate::model::{Address, Check, CheckKind, Instance};

/// Most instances that a node asks at the same time.
pub(crate) const ASKED_MAX: usize = 64;
/// How much of an HTTP answer is read: its status line.
const STATUS_BYTES_MAX: usize = 64;
/// How often a connection that is only listened to is asked whether it lives, and how long it has to answer.
const PING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));

/// Asks again and again; says in `found` why the instance is not well, or that it is. One that wants no question is asked
/// none. Ends only by being dropped.
pub(crate) async fn keep(instance: &Instance, places: &Semaphore, found: &watch::Sender<Option<String>>) -> Infallible {
    let (Some(check), Some(address)) = (&instance.check, instance.addresses.first()) else {
        return std::future::pending().await;
    };
    let mut asker = Asker::new(check, address);
    let mut tally = Tally::new(check);
    loop {
        let next = Instant::now() + check.interval.mul_f64(0.8 + fastrand::f64() * 0.4);
        let answer = loop {
            tokio::select! {
                () = tokio::time::sleep_until(next) => break asker.ask(check.timeout, places).await,
                // Its own word, as soon as it changes.
                word = asker.word() => {
                    if tally.settle(word.is_ok()).is_some() {
                        found.send_replace(word.err());
                    }
                }
            }
        };
        match (tally.count(answer.is_ok()), answer) {
            (Some(false), Err(why)) => {
                found.send_replace(Some(format!("its health check failed {} times: {why}", check.fall)));
            }
            (Some(_), _) => _ = found.send_replace(None),
            (None, _) => {}
        }
    }
}

/// Knows how to ask one instance.
struct Asker {
    kind: CheckKind,
    /// Host and port, as connections are made to.
    at: String,
    channel: Option<Channel>,
    /// The instance's own word, where it gives one.
    follows: Option<Streaming<HealthCheckResponse>>,
    can_follow: bool,
}

impl Asker {
    fn new(check: &Check, address: &Address) -> Self {
        let Address { host, port } = address;
        let at = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        Self { kind: check.kind.clone(), at, channel: None, follows: None, can_follow: true }
    }

    /// Waits for the instance's own word: that it is well, or why not. Cancel safe.
    async fn word(&mut self) -> Result<(), String> {
        loop {
            let Some(follows) = &mut self.follows else { return std::future::pending().await };
            match follows.message().await {
                Ok(Some(word)) => return judge(&word),
                // Whether it is gone, the next question finds out.
                Ok(None) | Err(_) => self.follows = None,
            }
        }
    }

    async fn ask(&mut self, timeout: Duration, places: &Semaphore) -> Result<(), String> {
        let Ok(_place) = places.acquire().await else { return Ok(()) };
        let asked = tokio::time::timeout(timeout, async {
            match self.kind.clone() {
                CheckKind::Tcp => self.connect().await.map(drop),
                CheckKind::Http(path) => self.get(&path).await,
                CheckKind::Grpc(service) => self.health(service).await,
            }
        });
        asked.await.unwrap_or_else(|_| Err(format!("no answer within {timeout:?}")))
    }

    async fn connect(&self) -> Result<TcpStream, String> {
        TcpStream::connect(&self.at).await.map_err(|error| error.to_string())
    }

    async fn get(&self, path: &str) -> Result<(), String> {
        let mut stream = self.connect().await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.at);
        stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
        let mut head = Vec::new();
        // Up to the end of the line and no further: some hang up before they have read what they were asked.
        while head.len() < STATUS_BYTES_MAX && !head.contains(&b'\n') {
            match stream.read_buf(&mut head).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        let line = String::from_utf8_lossy(&head);
        let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|code| code.parse().ok());
        match status {
            Some(200..=399_u16) => Ok(()),
            Some(other) => Err(format!("GET {path} is answered {other}")),
            None => Err(format!("GET {path} is not answered in HTTP/1.1")),
        }
    }

    async fn health(&mut self, service: String) -> Result<(), String> {
        let channel = match &self.channel {
            Some(channel) => channel.clone(),
            None => {
                let endpoint =
                    Endpoint::from_shared(format!("http://{}", self.at)).map_err(|error| error.to_string())?;
                let endpoint = endpoint.http2_keep_alive_interval(PING.0).keep_alive_timeout(PING.1);
                self.channel.insert(endpoint.connect_lazy()).clone()
            }
        };
        let mut client = HealthClient::new(channel);
        let request = HealthCheckRequest { service };
        match client.check(request.clone()).await {
            Ok(answer) => judge(answer.get_ref())?,
            // It answers; that it has no such service is no illness.
            Err(status) if status.code() == Code::Unimplemented => return Ok(()),
            Err(status) => return Err(text(&status)),
        }
        if self.follows.is_none() && self.can_follow {
            match client.watch(request).await {
                Ok(follows) => self.follows = Some(follows.into_inner()),
                Err(status) => self.can_follow = status.code() != Code::Unimplemented,
            }
        }
        Ok(())
    }
}

fn judge(answer: &HealthCheckResponse) -> Result<(), String> {
    match answer.status() {
        ServingStatus::Serving => Ok(()),
        other => Err(format!("it says {}", other.as_str_name())),
    }
}

/// What a status says, with the cause that transports hide in its source.
fn text(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    text
}
