//! Whether a program listens already, and what it speaks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http::uri::PathAndQuery;
use ninefold_proto::ninefold::registry::v1::Protocol;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::Speech;
use crate::output::talk;

/// Where a program may listen when it is told a port: some take "localhost" for IPv6.
const HOSTS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
/// How long one question may take. A program that accepts but does not answer yet is still starting.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// How much of an answer that has told enough is still heard, and for how long.
const REST_BYTES_MAX: u64 = 64 * 1024;
const REST_WAIT: Duration = Duration::from_millis(300);
/// How often it is asked.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// How often the person at the terminal is told that there is nothing yet.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Where a program listens, and what it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spoken {
    pub(super) address: SocketAddr,
    pub(super) protocol: Protocol,
}

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `SERVING` of `grpc.health.v1.HealthCheckResponse`.
const SERVING: i32 = 1;

/// What became of one look.
enum Look {
    Nothing,
    /// It accepts, but says that it is not ready, or says nothing.
    Accepts(SocketAddr),
    Ready(Spoken),
}

/// Waits until the program answers on its port: as healthy over gRPC, or at all over HTTP/1. One that accepts connections
/// but speaks neither is taken for ready when the time is up. `None` if it does not even accept.
pub(super) async fn wait(port: u16, speech: Option<Speech>, wait: Duration) -> Option<Spoken> {
    let begin = Instant::now();
    let mut tell = begin + TELL_EVERY;
    loop {
        let look = look(port, speech).await;
        if let Look::Ready(spoken) = look {
            return Some(spoken);
        }
        let now = Instant::now();
        if now >= begin + wait {
            return match look {
                Look::Accepts(address) => {
                    talk(
                        "ninefold run: warning: the program accepts connections but does not answer; it is taken for ready",
                    );
                    let protocol = if speech == Some(Speech::Http) { Protocol::Http } else { Protocol::Grpc };
                    Some(Spoken { address, protocol })
                }
                Look::Nothing | Look::Ready(_) => None,
            };
        }
        if now >= tell {
            tell = now + TELL_EVERY;
            let seconds = now.duration_since(begin).as_secs();
            let seen = if matches!(look, Look::Accepts(_)) { "is not ready" } else { "does not listen" };
            talk(format!("ninefold run: the program {seen} on port {port} yet ({seconds} s)"));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

async fn look(port: u16, speech: Option<Speech>) -> Look {
    let mut seen = Look::Nothing;
    for host in HOSTS {
        let address = SocketAddr::new(host, port);
        if !matches!(timeout(ANSWER_MAX, TcpStream::connect(address)).await, Ok(Ok(_))) {
            continue;
        }
        match speaks(address, speech).await {
            Some(protocol) => return Look::Ready(Spoken { address, protocol }),
            None => seen = Look::Accepts(address),
        }
    }
    seen
}

async fn speaks(address: SocketAddr, speech: Option<Speech>) -> Option<Protocol> {
    if speech != Some(Speech::Http) {
        match timeout(ANSWER_MAX, check_health(address)).await {
            Ok(Ok(SERVING)) => return Some(Protocol::Grpc),
            Ok(Ok(_)) => return None,
            Ok(Err(status)) if is_grpc(&status) => return Some(Protocol::Grpc),
            Ok(Err(_)) | Err(_) => {}
        }
    }
    let answers_http = speech != Some(Speech::Grpc) && answers_http(address).await.unwrap_or(false);
    answers_http.then_some(Protocol::Http)
}

/// Whether an error was said by a gRPC server, and not by what carries it: one that has no health service, mostly.
fn is_grpc(status: &Status) -> bool {
    let is_of_transport = matches!(
        status.code(),
        Code::Unknown | Code::Unavailable | Code::Internal | Code::DeadlineExceeded | Code::Cancelled
    );
    !is_of_transport
}

/// A channel to the program, for a few calls.
pub(super) async fn channel(address: SocketAddr) -> Result<Channel, Status> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| transport(&error))?;
    endpoint.connect_timeout(ANSWER_MAX).connect().await.map_err(|error| transport(&error))
}

fn transport(error: &tonic::transport::Error) -> Status {
    Status::unavailable(ninefold::fault::chain(error))
}

async fn check_health(address: SocketAddr) -> Result<i32, Status> {
    let mut client = Grpc::new(channel(address).await?);
    client.ready().await.map_err(|error| transport(&error))?;
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let answer = client.unary(Request::new(HealthCheckRequest::default()), path, codec).await?;
    Ok(answer.into_inner().status)
}

async fn answers_http(address: SocketAddr) -> std::io::Result<bool> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream
            .write_all(format!("OPTIONS * HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())
            .await?;
        let mut head = [0; 7];
        stream.read_exact(&mut head).await?;
        // Heard out, as a server may complain of whoever hangs up in the middle of its answer.
        let mut rest = stream.take(REST_BYTES_MAX);
        let _ = timeout(REST_WAIT, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
        Ok(&head == b"HTTP/1.")
    };
    timeout(ANSWER_MAX, ask).await.unwrap_or(Ok(false))
}
