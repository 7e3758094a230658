//! Connections: HTTP/1.1 and HTTP/2 on one socket, with bounds, and an end that loses no request.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use ninefold::lifecycle::Stop;
use ninefold::serve::greeted;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::config::Config;
use crate::edge::{Client, Edge};
use crate::guard::inspector::{Inspected, Inspector};

/// Pause after the system refused to accept a connection, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often a silent HTTP/2 connection is asked whether it is alive, and how long it has to say so.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));
/// Streams that a client opened and reset before they were looked at. More, and it is not a client.
const PENDING_RESETS_MAX: usize = 20;
/// Streams that we reset because a client broke the protocol. More, and it is not a client.
const OWN_RESETS_MAX: usize = 256;
/// HTTP/2 windows: a slow reader holds so much of one stream, and of all of a connection.
const WINDOW_BYTES: (u32, u32) = (256 << 10, 1 << 20);

/// Answers connections until it is asked to stop; then takes no more, tells clients to go elsewhere, and waits for the
/// requests in flight, for `drain` at the longest.
pub(crate) async fn run(listener: TcpListener, edge: Arc<Edge>, stop: Stop) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.asked() => break,
            // Nothing is lost when these two are dropped: both are cancel safe.
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < edge.config.connections_max => match accepted {
                Ok((stream, address)) => _ = connections.spawn(connection(stream, address, edge.clone())),
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let end = Instant::now() + edge.config.drain;
    while let Ok(Some(_)) = tokio::time::timeout_at(end, connections.join_next()).await {}
    if !connections.is_empty() {
        tracing::warn!(connections = connections.len(), "requests did not finish in time and are dropped");
        connections.shutdown().await;
    }
}

async fn connection(stream: TcpStream, address: SocketAddr, edge: Arc<Edge>) {
    // A connection that cannot be set up so is slower, not broken.
    let _ = stream.set_nodelay(true);
    let inspector = Inspector::new(edge.config.headers_bytes_max + edge.config.target_bytes_max);
    let client = Arc::new(Client { address, inspector: inspector.clone(), requests: AtomicU64::new(0) });
    let stop = edge.stop.clone();
    tokio::select! {
        biased;
        greeted = greeted(&stream, edge.config.headers_timeout) => {
            if !greeted {
                return;
            }
        }
        () = stop.asked() => return,
    }
    let builder = builder(&edge.config);
    let service = service_fn(move |request| {
        let (edge, client) = (edge.clone(), client.clone());
        async move { Ok::<_, Infallible>(edge.serve(request, &client).await) }
    });
    let stream = TokioIo::new(Inspected::new(stream, inspector));
    let mut served = pin!(builder.serve_connection(stream, service));
    let outcome = tokio::select! {
        outcome = &mut served => outcome,
        () = stop.asked() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(error = &*error, "a connection broke");
    }
}

fn builder(config: &Config) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(config.headers_timeout)
        .max_buf_size(config.headers_bytes_max + config.target_bytes_max)
        .max_headers(config.headers_max)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.streams_max)
        .max_header_list_size(u32::try_from(config.headers_bytes_max).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(OWN_RESETS_MAX)
        .initial_stream_window_size(WINDOW_BYTES.0)
        .initial_connection_window_size(WINDOW_BYTES.1)
        .keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1);
    builder
}
