//! A channel to the first of several endpoints that answers, connected when it is first needed.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tower::Service;

use crate::credentials::Credentials;
use crate::tls::Stream;

/// Longest wait for a connection to one endpoint.
const CONNECT_MAX: Duration = Duration::from_secs(1);
/// Longest wait for an answer to one export.
const CALL_MAX: Duration = Duration::from_secs(2);

/// Makes a channel that connects to the endpoints in turn. Needs a tokio runtime.
pub(super) fn channel(endpoints: &[Uri], credentials: &Credentials) -> Channel {
    let credentials = credentials.clone();
    let connector = Rotate { endpoints: endpoints.into(), credentials, next: Arc::new(AtomicUsize::new(0)) };
    Endpoint::from_static("http://telemetry")
        .timeout(CALL_MAX)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .connect_with_connector_lazy(connector)
}

#[derive(Clone)]
struct Rotate {
    endpoints: Arc<[Uri]>,
    credentials: Credentials,
    next: Arc<AtomicUsize>,
}

impl Service<Uri> for Rotate {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, Result<Self::Response, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let this = self.clone();
        async move { this.connect().await }.boxed()
    }
}

impl Rotate {
    async fn connect(&self) -> io::Result<TokioIo<Stream>> {
        let mut outcome = Err(io::Error::other("no endpoint is known"));
        for _ in 0..self.endpoints.len() {
            // The one that answered stays the first choice.
            let choice = self.next.load(Ordering::Relaxed);
            outcome = connect(&self.endpoints[choice % self.endpoints.len()], &self.credentials).await;
            if outcome.is_ok() {
                break;
            }
            self.next.store(choice.wrapping_add(1), Ordering::Relaxed);
        }
        outcome.map(TokioIo::new)
    }
}

async fn connect(endpoint: &Uri, credentials: &Credentials) -> io::Result<Stream> {
    let host = endpoint.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = endpoint.port_u16().unwrap_or(80);
    let stream = tokio::time::timeout(CONNECT_MAX, TcpStream::connect((host, port))).await??;
    stream.set_nodelay(true)?;
    credentials.secure(endpoint, stream).await
}
