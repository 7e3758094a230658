//! Answers DNS over UDP, and over TCP for what UDP does not hold.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use hickory_proto::op::Message;
use hickory_proto::rr::Name;
use ninefold::lifecycle::{Scope, Stop};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::time::timeout;

use super::answer::{self, Zone};
use crate::config::Config;
use crate::error::Error;
use crate::model::World;

/// Largest question that is read.
const QUESTION_BYTES_MAX: usize = 1232;
/// Largest answer over UDP, whatever the asker says it takes: more is cut up on its way and lost.
const UDP_BYTES_MAX: usize = 1232;
/// Largest answer over UDP where the asker says nothing.
const UDP_BYTES_DEFAULT: usize = 512;
/// Largest answer over TCP; its length is two bytes.
const TCP_BYTES_MAX: usize = 65_535;
/// Most questions of one connection.
const QUESTIONS_MAX: usize = 100;
/// Longest wait for a question, and for an answer to be taken, on a connection.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause after the system refused to read or accept.
const PAUSE: Duration = Duration::from_millis(50);
/// How often another port is tried, where any would do and UDP and TCP want the same.
const TRIES: usize = 16;

#[derive(Clone)]
struct Server {
    zone: Zone,
    world: watch::Receiver<Arc<World>>,
}

/// Begins to answer where the settings say so; answers where that is.
///
/// # Errors
/// [`Error::DnsUnbindable`].
pub(crate) async fn start(
    config: &Config,
    world: watch::Receiver<Arc<World>>,
    scope: &Scope,
) -> Result<Option<SocketAddr>, Error> {
    let Some(address) = config.dns_listen else { return Ok(None) };
    let (udp, tcp) = bind(address).await.map_err(|source| Error::DnsUnbindable { address, source })?;
    let bound = tcp.local_addr().map_err(|source| Error::DnsUnbindable { address, source })?;
    let name = Name::from_ascii(format!("{}.", config.dns_zone)).unwrap_or_else(|_| Name::root());
    let ttl_secs = u32::try_from(config.dns_ttl.as_secs()).unwrap_or(u32::MAX);
    let server = Server { zone: Zone { name, ttl_secs }, world };
    let connections_max = config.dns_connections_max;
    scope.run("dialect.dns_udp", {
        let server = server.clone();
        move |stop| server.udp(udp, stop)
    });
    scope.run("dialect.dns_tcp", move |stop| server.tcp(tcp, connections_max, stop));
    Ok(Some(bound))
}

async fn bind(address: SocketAddr) -> std::io::Result<(UdpSocket, TcpListener)> {
    let mut tries = 0;
    loop {
        let tcp = TcpListener::bind(address).await?;
        match UdpSocket::bind(tcp.local_addr()?).await {
            Ok(udp) => return Ok((udp, tcp)),
            Err(error) if error.kind() == ErrorKind::AddrInUse && address.port() == 0 && tries < TRIES => tries += 1,
            Err(error) => return Err(error),
        }
    }
}

impl Server {
    /// The answer to a question and the most bytes that its asker takes over UDP. What is no DNS gets none.
    fn answer(&self, question: &[u8]) -> Option<(Message, usize)> {
        let asked = Message::from_vec(question).ok()?;
        let told = asked.edns.as_ref().map_or(UDP_BYTES_DEFAULT, |edns| usize::from(edns.max_payload()));
        let world = self.world.borrow().clone();
        let mut answer = answer::answer(&self.zone, &world, &asked, fastrand::u64(..))?;
        if asked.edns.is_some() {
            let mut edns = hickory_proto::op::Edns::new();
            edns.set_max_payload(u16::try_from(UDP_BYTES_MAX).unwrap_or(u16::MAX));
            answer.set_edns(edns);
        }
        Some((answer, told.clamp(UDP_BYTES_DEFAULT, UDP_BYTES_MAX)))
    }

    async fn udp(self, socket: UdpSocket, stop: Stop) {
        let mut buffer = [0; QUESTION_BYTES_MAX];
        loop {
            let received = tokio::select! {
                received = socket.recv_from(&mut buffer) => received,
                () = stop.asked() => return,
            };
            let Ok((length, from)) = received else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let Some((answer, bytes_max)) = self.answer(&buffer[..length]) else { continue };
            let Some(bytes) = answer::fitted(&answer, bytes_max) else { continue };
            // Whoever cannot be reached asks again.
            let _ = socket.send_to(&bytes, from).await;
        }
    }

    async fn tcp(self, listener: TcpListener, connections_max: usize, stop: Stop) {
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = stop.asked() => return,
                Some(()) = connections.next(), if !connections.is_empty() => {}
                accepted = listener.accept(), if connections.len() < connections_max => match accepted {
                    Ok((stream, _)) => connections.push(self.clone().connection(stream).boxed()),
                    Err(_) => tokio::time::sleep(PAUSE).await,
                },
            }
        }
    }

    async fn connection(self, mut stream: TcpStream) {
        for _ in 0..QUESTIONS_MAX {
            match timeout(PATIENCE, self.exchange(&mut stream)).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false) | Err(_)) | Err(_) => return,
            }
        }
    }

    /// Answers one question; says whether another may come.
    async fn exchange(&self, stream: &mut TcpStream) -> std::io::Result<bool> {
        let length = usize::from(stream.read_u16().await?);
        if length > QUESTION_BYTES_MAX {
            return Ok(false);
        }
        let mut question = vec![0; length];
        stream.read_exact(&mut question).await?;
        let Some((answer, _)) = self.answer(&question) else { return Ok(false) };
        let Some(bytes) = answer::fitted(&answer, TCP_BYTES_MAX) else { return Ok(false) };
        let length = u16::try_from(bytes.len()).map_err(std::io::Error::other)?;
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend(bytes);
        stream.write_all(&framed).await?;
        Ok(true)
    }
}
