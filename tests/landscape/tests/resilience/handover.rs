//! Streams that are open while another process takes the edge's place: each is told why it ends, and who asks again is
//! answered; in plain text and by TLS.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use ninefold::tls::{ClientFiles, ClientTls};
use tests_landscape::authority::Authority;
use tests_landscape::{Landscape, ninefold, until};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Child;

const SOON: Duration = Duration::from_secs(60);
const SHOP: [&str; 4] = ["product", "recommendation", "review", "product-composite"];
const WATCH: &str = "/v1/products/1/reviews:watch";
const PRODUCT: &str = "/v1/products/1";

/// Starts the shop as processes of nobody, which stay while the platform changes hands.
fn shop(house: &Landscape, data: &Path) -> Result<Vec<Child>> {
    let start = |service: &&str| {
        let folder = data.join(service);
        std::fs::create_dir_all(&folder)?;
        let mut command = ninefold("demo-service", &[service])?;
        command.env("NINEFOLD_ENDPOINT", house.endpoint()).env("NINEFOLD_DATA", folder);
        Ok(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
    };
    SHOP.iter().map(start).collect()
}

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<W: AsyncRead + AsyncWrite + Send + Unpin> Wire for W {}

/// The way to the edge.
#[derive(Clone)]
struct Door {
    address: String,
    tls: Option<ClientTls>,
}

impl Door {
    async fn connect(&self, is_h2: bool) -> Result<Box<dyn Wire>> {
        let stream = TcpStream::connect(&self.address).await.context("a connection is not refused")?;
        Ok(match &self.tls {
            None => Box::new(stream),
            Some(tls) if is_h2 => Box::new(tls.connect("localhost", stream).await?),
            Some(tls) => Box::new(tls.connect_http1("localhost", stream).await?),
        })
    }

    /// Asks over HTTP/1.1, on a connection of its own.
    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Result<http::Response<Incoming>> {
        let connection = TokioIo::new(self.connect(false).await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(connection).await?;
        #[expect(clippy::disallowed_methods, reason = "ends with the answer")]
        tokio::spawn(connection);
        let request = http::Request::get(path).header("host", "localhost");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        Ok(sender.send_request(request.body(Full::new(Bytes::new()))?).await?)
    }

    /// Watches by gRPC.
    async fn call(&self) -> Result<http::Response<Incoming>> {
        let connection = TokioIo::new(self.connect(true).await?);
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), connection).await?;
        #[expect(clippy::disallowed_methods, reason = "ends with the answer")]
        tokio::spawn(connection);
        let request = http::Request::post("http://localhost/shop.composite.v1.CompositeService/WatchReviews");
        let request = request.header("content-type", "application/grpc").header("te", "trailers");
        // Of product 1.
        Ok(sender.send_request(request.body(Full::new(Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1])))?).await?)
    }

    /// Watches over a WebSocket; answers the connection and what came until the first message.
    async fn socket(&self) -> Result<(Box<dyn Wire>, Vec<u8>)> {
        let mut wire = self.connect(false).await?;
        let asked = format!(
            "GET {WATCH} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        wire.write_all(asked.as_bytes()).await?;
        let mut said = Vec::new();
        while !said.windows(8).any(|part| part == b"reviewId") {
            ensure!(wire.read_buf(&mut said).await? > 0, "{}", String::from_utf8_lossy(&said));
        }
        Ok((wire, said))
    }
}

/// Asks again and again, each time on a new connection, until it is told to stop.
async fn keep_asking(door: Door, stop: Arc<AtomicBool>, answered: Arc<AtomicU64>) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let answer = door.get(PRODUCT, &[]).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        ensure!(status == 200, "{status}: {}", String::from_utf8_lossy(&body));
        answered.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

async fn open_streams_are_told(house: Landscape, tls: Option<ClientTls>) -> Result<()> {
    let data = tempfile::tempdir()?;
    let _shop = shop(&house, data.path())?;
    let door = Door { address: house.address("edge"), tls };
    until("the shop is open", SOON, async || Ok(door.get(PRODUCT, &[]).await?.status() == 200)).await?;

    let mut events = door.get(WATCH, &[("accept", "text/event-stream")]).await?.into_body();
    let mut lines = door.get(WATCH, &[]).await?.into_body();
    let mut call = door.call().await?.into_body();
    for first in [&mut events, &mut lines, &mut call] {
        let first = first.frame().await.context("a stream begins")??;
        ensure!(first.data_ref().is_some_and(|data| !data.is_empty()), "{first:?}");
    }
    let (socket, mut said) = door.socket().await?;
    let (mut reading, mut writing) = tokio::io::split(socket);
    // A caller that says nothing for long is given up.
    let alive = async {
        loop {
            // A pong, with a mask of zeros.
            if writing.write_all(&[0x8a, 0x80, 0, 0, 0, 0]).await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };

    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    #[expect(clippy::disallowed_methods, reason = "the test owns it and waits for it")]
    let asking = tokio::spawn(keep_asking(door.clone(), stop.clone(), answered.clone()));
    let goes_on = async |count: u64| {
        let before = answered.load(Ordering::Relaxed);
        until("requests are answered", SOON, async || {
            Ok(asking.is_finished() || answered.load(Ordering::Relaxed) >= before + count)
        })
        .await
    };
    goes_on(20).await?;
    let before = house.pid();
    let house = tokio::select! {
        house = house.handed_over() => house?,
        () = alive => unreachable!("it never ends"),
    };
    ensure!(house.pid() != before && house.address("edge") == door.address);
    goes_on(20).await?;
    stop.store(true, Ordering::Relaxed);
    asking.await??;

    let events = events.collect().await.context("events end as they should")?.to_bytes();
    let events = String::from_utf8_lossy(&events);
    ensure!(events.contains("event: error") && events.contains("EDGE_DRAINING"), "{events}");
    let lines = lines.collect().await.context("lines end as they should")?.to_bytes();
    ensure!(String::from_utf8_lossy(&lines).contains("EDGE_DRAINING"), "{}", String::from_utf8_lossy(&lines));
    let call = call.collect().await.context("a call ends as it should")?;
    let trailers = call.trailers().context("a call has a status")?;
    ensure!(trailers["grpc-status"] == "14" && trailers["grpc-message"].to_str()?.contains("draining"), "{trailers:?}");
    tokio::time::timeout(SOON, reading.read_to_end(&mut said)).await.context("a socket is closed")??;
    let is_closed = said.windows(4).any(|part| part[0] == 0x88 && part[2..] == 4014_u16.to_be_bytes());
    ensure!(is_closed, "{}", String::from_utf8_lossy(&said));

    // Who asks again finds the new one.
    let mut again = door.get(WATCH, &[("accept", "text/event-stream")]).await?.into_body();
    let first = again.frame().await.context("a stream begins")??;
    let text = String::from_utf8_lossy(first.data_ref().context("an event")?).into_owned();
    ensure!(text.starts_with("event: message"), "{text}");
    let mut again = door.call().await?.into_body();
    ensure!(again.frame().await.context("a call is answered")??.is_data());
    drop(again);
    house.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_told_of_a_handover_and_no_connection_is_refused() -> Result<()> {
    open_streams_are_told(Landscape::up(&[]).await?, None).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_told_of_a_handover_by_tls() -> Result<()> {
    let authority = Authority::new()?;
    authority.sign("edge", "localhost", None)?;
    let settings =
        format!("[gateway.tls]\ncert = {:?}\nkey = {:?}\n", authority.path("edge.crt"), authority.path("edge.key"));
    let tls = ClientTls::new(ClientFiles { ca: Some(authority.path("ca.pem").into()), identity: None })?;
    open_streams_are_told(Landscape::up_with(&settings).await?, Some(tls)).await
}
