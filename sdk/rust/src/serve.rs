//! Answers calls on a socket: deadlines, traces, health, reflection, bounds, and a shutdown that loses no call.
//!
//! The loop over connections is our own, on hyper: every connection has an owner that can wait for it and drop it, and a
//! machine that is out of file descriptors is waited for instead of asked again at once.

mod admission;
mod deadline;
mod greeting;
mod health;
mod load;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::server::TcpConnectInfo;
use tower::util::{BoxCloneSyncService, BoxCloneSyncServiceLayer, Either};
use tower::{Layer as _, ServiceExt as _};

pub use admission::LiveAdmission;
pub use deadline::Deadlined;
pub use greeting::greeted;
pub use health::Health;
pub(crate) use health::services_of;

use admission::Admitted;

use crate::connect::{CONNECTION_WINDOW, STREAM_WINDOW};
use crate::error::Error;
use crate::telemetry::Served;
use crate::tls::{self, ServerTls};

/// Pause after the system refused to accept a connection, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A socket that listens. Connections wait in its queue until [`run`] takes them.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Listens on an address such as `127.0.0.1:0`; port 0 picks a free port.
    ///
    /// # Errors
    /// [`Error::Listen`] if the address is malformed, in use, or not of this machine.
    pub async fn bind(address: impl ToSocketAddrs + ToString) -> Result<Self, Error> {
        let text = address.to_string();
        let failed = |source| Error::Listen { address: text.clone(), source };
        let socket = TcpListener::bind(address).await.map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok(Self { socket, address })
    }

    /// Takes a socket that listens already.
    ///
    /// # Errors
    /// When the system does not tell its address.
    pub fn of(socket: TcpListener) -> std::io::Result<Self> {
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }

    /// The address, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Longest time for a new connection to say what it speaks. HTTP/2 asks whether its peer lives only after that, so without
/// this a stranger could keep every place by saying nothing.
const GREETING_MAX: Duration = Duration::from_secs(30);

/// What answers requests, health and reflection included.
pub type Answers = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;
/// A layer around all that is answered.
pub type Around = BoxCloneSyncServiceLayer<Answers, Request<Body>, Response<Body>, Infallible>;

/// How calls are answered.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// Serialized `google.protobuf.FileDescriptorSet`s, for reflection. Kept and served as they are.
    pub descriptor_sets: Vec<Bytes>,
    /// Full names of the Protobuf services that are offered, for health and reflection. Empty for all that the
    /// descriptor sets hold.
    pub services: Vec<String>,
    /// What health says. Kept by the caller to say that it drains.
    pub health: Health,
    /// Whether HTTP/1 is answered too, for pages and gRPC-Web.
    pub http1: bool,
    /// Most calls at a time on one connection.
    pub streams_max: u32,
    /// Most connections at a time; more wait in the socket's queue.
    pub connections_max: usize,
    /// Largest list of headers of a request.
    pub headers_bytes_max: u32,
    /// What is taken in. Kept by the caller to change it.
    pub admission: LiveAdmission,
    /// Longest time that calls have to finish after the stop. What is left then is dropped.
    pub drain: Duration,
    /// TLS on every connection. A request then has a [`Peer`](crate::tls::Peer) among its extensions.
    pub tls: Option<ServerTls>,
    /// Looks at every request before anything else does, and at every answer after.
    pub around: Option<Around>,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            descriptor_sets: Vec::new(),
            services: Vec::new(),
            health: Health::new(),
            http1: false,
            streams_max: 1024,
            connections_max: 4096,
            headers_bytes_max: 32 * 1024,
            admission: LiveAdmission::default(),
            drain: Duration::from_secs(10),
            tls: None,
            around: None,
        }
    }
}

/// Answers calls until `stop`; then accepts no more, tells the callers to go elsewhere (GOAWAY), and waits for the calls
/// in flight, for `config.drain` at the longest.
///
/// Adds `grpc.health.v1` and reflection (v1 and v1alpha) to the routes. Health says `NOT_SERVING` from the stop on.
/// Dropping the future drops all connections.
///
/// # Errors
/// [`Error::Descriptors`] if a descriptor set cannot be read.
pub async fn run(
    listener: Listener,
    routes: Routes,
    config: ServeConfig,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    let routes = health::add(routes, &config)?;
    let answers = Deadlined::new(Admitted::new(routes.prepare(), config.admission.clone()));
    let service = Served::new(match &config.around {
        None => Either::Left(answers),
        Some(around) => Either::Right(around.layer(BoxCloneSyncService::new(answers))),
    });
    let local = listener.address;
    let draining = CancellationToken::new();
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            // Nothing is lost when these two are dropped: both are cancel safe.
            Some(_) = connections.join_next() => {}
            accepted = listener.socket.accept(), if connections.len() < config.connections_max => match accepted {
                Ok((stream, remote)) => {
                    let info = TcpConnectInfo { local_addr: Some(local), remote_addr: Some(remote) };
                    connections.spawn(connection(stream, info, service.clone(), config.clone(), draining.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    config.health.drain().await;
    draining.cancel();
    let end = Instant::now() + config.drain;
    while let Ok(Some(_)) = tokio::time::timeout_at(end, connections.join_next()).await {}
    if !connections.is_empty() {
        tracing::warn!(connections = connections.len(), "calls did not finish in time and are dropped");
        connections.shutdown().await;
    }
    Ok(())
}

async fn connection<S>(
    stream: TcpStream,
    info: TcpConnectInfo,
    service: S,
    config: ServeConfig,
    draining: CancellationToken,
) where
    S: tower::Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    // A connection that cannot be set up so is slower, not broken.
    let _ = stream.set_nodelay(true);
    tokio::select! {
        biased;
        greeted = greeted(&stream, GREETING_MAX) => {
            if !greeted {
                return;
            }
        }
        () = draining.cancelled() => return,
    }
    let Some(tls) = config.tls.clone() else {
        let service = service.map_request(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(info.clone());
            request
        });
        let builder = builder(&config, !config.http1, false);
        return converse(stream, service, builder, draining).await;
    };
    let shaken = tokio::select! {
        shaken = tls.accept(stream) => shaken,
        () = draining.cancelled() => return,
    };
    let (stream, peer) = match shaken {
        Ok(shaken) => shaken,
        Err(error) => {
            tracing::debug!(%error, "a TLS handshake failed");
            return;
        }
    };
    let speaks_h2 = tls::speaks_h2(&stream);
    if !speaks_h2 && !config.http1 {
        return;
    }
    let asked = Arc::new(AtomicBool::new(false));
    let has_asked = asked.clone();
    let service = service.map_request(move |request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(info.clone());
        request.extensions_mut().insert(peer.clone());
        request
    });
    let builder = builder(&config, speaks_h2, !speaks_h2);
    let silence = async {
        tokio::time::sleep(GREETING_MAX).await;
        if has_asked.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = converse(stream, service, builder, draining) => {}
        // Behind TLS nobody can look at the first word without taking it, so the first request is waited for.
        () = silence => {}
    }
}

/// What is spoken on a connection; both versions of HTTP unless only one is asked for.
fn builder(config: &ServeConfig, only_h2: bool, only_http1: bool) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    if only_h2 {
        builder = builder.http2_only();
    } else if only_http1 {
        builder = builder.http1_only();
    }
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.streams_max)
        .max_header_list_size(config.headers_bytes_max)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5));
    builder
}

/// Answers requests on an open connection until its peer has no more, or until all are asked to go elsewhere.
async fn converse<C, S>(stream: C, service: S, builder: Builder<TokioExecutor>, draining: CancellationToken)
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: tower::Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let mut served = pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)));
    let outcome = tokio::select! {
        outcome = &mut served => outcome,
        () = draining.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(error = &*error, "a connection broke");
    }
}
