//! Connections: HTTP/1.1 and HTTP/2 on one socket, with bounds, and an end that loses no request.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::StatusCode;
use http::header::{CONNECTION, HeaderValue};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use ninefold::lifecycle::Stop;
use ninefold::serve::greeted;
use ninefold::tls::Peer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::config::Config;
use crate::edge::{Client, Edge};
use crate::guard::inspector::{Inspected, Inspector};
use crate::patience::{Patient, hear_small_reads};

/// Pause after the system refused to accept a connection, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often a silent HTTP/2 connection is asked whether it is alive, and how long it has to say so.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));
/// Streams that a client opened and reset before they were looked at. More, and it is not a client.
const PENDING_RESETS_MAX: usize = 20;
/// Streams that we reset because a client broke the protocol. More, and it is not a client.
const OWN_RESETS_MAX: usize = 256;
/// How long a quiet HTTP/1 connection may bring one more request after the edge was asked to stop.
const QUIET_MAX: Duration = Duration::from_secs(1);
/// HTTP/2 windows: a slow reader holds so much of one stream, and of all of a connection.
const WINDOW_BYTES: (u32, u32) = (256 << 10, 1 << 20);

/// Answers connections until it is asked to stop; then takes no more, tells clients to go elsewhere, and waits for the
/// requests in flight, for `drain` at the longest.
///
/// Begins with the first connection when `opened` says so; until then they wait in the socket's queue.
pub(crate) async fn run(listener: TcpListener, edge: Arc<ArcSwap<Edge>>, opened: impl Future<Output = ()>, stop: Stop) {
    let mut connections = JoinSet::new();
    tokio::select! {
        () = stop.asked() => return,
        () = opened => {}
    }
    loop {
        let connections_max = edge.load().config.connections_max;
        tokio::select! {
            () = stop.asked() => break,
            // Nothing is lost when these two are dropped: both are cancel safe.
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < connections_max => match accepted {
                Ok((stream, address)) => _ = connections.spawn(connection(stream, address, edge.clone())),
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let end = Instant::now() + edge.load().config.drain;
    while let Ok(Some(_)) = tokio::time::timeout_at(end, connections.join_next()).await {}
    if !connections.is_empty() {
        tracing::warn!(connections = connections.len(), "requests did not finish in time and are dropped");
        connections.shutdown().await;
    }
}

async fn connection(stream: TcpStream, address: SocketAddr, live: Arc<ArcSwap<Edge>>) {
    let edge = live.load_full();
    // A connection that cannot be set up so is slower, not broken.
    let _ = stream.set_nodelay(true);
    hear_small_reads(&stream);
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
    let Some(tls) = edge.tls.clone() else { return converse(stream, address, None, edge, live).await };
    let shaken = tokio::select! {
        shaken = tls.accept(stream) => shaken,
        () = stop.asked() => return,
    };
    match shaken {
        Ok((stream, peer)) => converse(stream, address, Some(peer), edge, live).await,
        Err(error) => tracing::debug!(%error, "a TLS handshake failed"),
    }
}

/// Answers the requests of a connection, and holds what it becomes.
async fn converse<S>(stream: S, address: SocketAddr, peer: Option<Peer>, edge: Arc<Edge>, live: Arc<ArcSwap<Edge>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let inspector = Inspector::new(edge.config.headers_bytes_max + edge.config.target_bytes_max);
    let is_behind_tls = peer.is_some();
    let client = Arc::new(Client::new(address, inspector.clone(), peer));
    let stop = edge.stop.clone();
    let (headers_timeout, answer_timeout) = (edge.config.headers_timeout, edge.config.answer_timeout);
    let builder = builder(&edge.config);
    let asked = client.clone();
    let service = service_fn(move |request| {
        // Each request by what holds when it begins, whatever held when its connection did.
        let (edge, client) = (live.load_full(), asked.clone());
        async move {
            let mut answer = edge.serve(request, &client).await;
            let is_upgraded = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
            if edge.stop.is_asked() && client.has_asked_http1() && !is_upgraded {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let heard = inspector.clone();
    let silence = async {
        tokio::time::sleep(headers_timeout).await;
        if !is_behind_tls || heard.has_heard() {
            std::future::pending::<()>().await;
        }
    };
    let stream = TokioIo::new(Inspected::new(Patient::new(stream, answer_timeout), inspector));
    let mut served = pin!(builder.serve_connection_with_upgrades(stream, service));
    let outcome = tokio::select! {
        outcome = &mut served => outcome,
        // Behind TLS nobody can look at the first word without taking it.
        () = silence => return,
        never = client.answers.look_after(answer_timeout) => match never {},
        () = stop.asked() => {
            // HTTP/1 cannot say of a request that nobody looked at it. So a quiet connection is not closed at once, in the
            // face of a client that just begins to send, but with the next answer.
            let quiet = if client.has_asked_http1() { QUIET_MAX } else { Duration::ZERO };
            match tokio::time::timeout(quiet, &mut served).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    served.as_mut().graceful_shutdown();
                    served.await
                }
            }
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(error = &*error, "a connection broke");
    }
    if let Some(conversation) = client.conversation() {
        conversation.await;
    }
}

/// How connections are served.
pub(crate) fn builder(config: &Config) -> Builder<TokioExecutor> {
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
