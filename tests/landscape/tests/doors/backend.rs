//! Instances that tests can break: they answer any gRPC method with their own name, on hyper alone, and are registered by
//! the SDK's session.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use ninefold::Link;
use ninefold::lifecycle::Scope;
use ninefold::session::{self, Registration, Session};
use ninefold_proto::ninefold::registry::v1::{Address, Instance, InstanceState};
use tokio::net::TcpListener;
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(10);
/// More calls at once on a connection than any test makes, so that a client's own limit is the one that shows.
const STREAMS: u32 = 4096;

/// How a backend behaves.
#[derive(Debug)]
struct Manners {
    name: String,
    is_failing: AtomicBool,
    is_holding: watch::Sender<bool>,
    /// Each connection looks at it, and ends once its calls are answered.
    is_leaving: watch::Sender<bool>,
    calls: AtomicU64,
}

/// One instance.
pub(crate) struct Backend {
    manners: Arc<Manners>,
    session: Session,
    scope: Scope,
}

impl Backend {
    /// Begins to answer, and registers with the platform at `endpoint`.
    pub(crate) async fn start(endpoint: &str, service: &str, name: &str, zone: &str) -> Result<Self> {
        let platform = ninefold::connect::platform(&[endpoint.parse()?]);
        Self::start_through(platform, service, name, zone).await
    }

    /// As [`Backend::start`], with a way to the platform.
    pub(crate) async fn start_through(platform: Link, service: &str, name: &str, zone: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let manners = Arc::new(Manners {
            name: name.to_owned(),
            is_failing: AtomicBool::new(false),
            is_holding: watch::Sender::new(false),
            is_leaving: watch::Sender::new(false),
            calls: AtomicU64::new(0),
        });
        let scope = Scope::root(name);
        let answering = manners.clone();
        scope.run("backend", move |stop| async move {
            tokio::select! {
                () = serve(listener, answering) => {}
                () = stop.asked() => {}
            }
        });
        let instance = Instance {
            service: service.to_owned(),
            instance_id: name.to_owned(),
            addresses: vec![Address { host: "127.0.0.1".to_owned(), port: port.into() }],
            zone: zone.to_owned(),
            ..Instance::default()
        };
        let registration = Registration { instance, descriptor_set: None };
        let session = session::hold(registration, platform, futures_util::stream::pending().boxed(), &scope);
        let mut known = session.known();
        tokio::time::timeout(PATIENCE, known.wait_for(|known| known.instance.is_some())).await??;
        Ok(Self { manners, session, scope })
    }

    /// Fails every call with UNAVAILABLE, or no longer.
    pub(crate) fn fail(&self, is_failing: bool) {
        self.manners.is_failing.store(is_failing, Ordering::Relaxed);
    }

    /// Keeps calls waiting, or lets them go on.
    pub(crate) fn hold(&self, is_holding: bool) {
        self.manners.is_holding.send_replace(is_holding);
    }

    /// How many calls came so far.
    pub(crate) fn calls(&self) -> u64 {
        self.manners.calls.load(Ordering::Relaxed)
    }

    /// Says that it takes no new calls.
    pub(crate) async fn drain(&self) {
        self.session.set_state(InstanceState::Draining, "for the test", PATIENCE).await;
    }

    /// Leaves well: drains, lets watchers see it, says goodbye, answers what is under way, and ends.
    pub(crate) async fn leave(self) {
        self.drain().await;
        self.session.leave("for the test", PATIENCE).await;
        self.manners.is_leaving.send_replace(true);
        // Whoever does not hang up is left all the same.
        let _ = tokio::time::timeout(PATIENCE, self.manners.is_leaving.closed()).await;
        self.scope.close(PATIENCE).await;
    }

    /// Ends without a word.
    pub(crate) async fn die(self) {
        self.scope.close(Duration::ZERO).await;
    }
}

async fn serve(listener: TcpListener, manners: Arc<Manners>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let mut leaving = manners.is_leaving.subscribe();
        let manners = manners.clone();
        let service = hyper::service::service_fn(move |request| answer(request, manners.clone()));
        connections.spawn(async move {
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .max_concurrent_streams(STREAMS)
                .serve_connection(TokioIo::new(stream), service);
            let mut connection = pin!(connection);
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = leaving.wait_for(|is_leaving| *is_leaving) => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
            drop(leaving);
        });
    }
}

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

async fn answer(request: Request<Incoming>, manners: Arc<Manners>) -> Result<Response<Body>, Infallible> {
    manners.calls.fetch_add(1, Ordering::Relaxed);
    let _ = request.into_body().collect().await;
    let mut holding = manners.is_holding.subscribe();
    let _ = holding.wait_for(|is_holding| !is_holding).await;
    let (frames, code) = if manners.is_failing.load(Ordering::Relaxed) {
        (Vec::new(), "14")
    } else {
        let name = manners.name.as_bytes();
        let length = u32::try_from(name.len()).unwrap_or_default();
        let framed = [&[0][..], &length.to_be_bytes(), name].concat();
        (vec![Frame::data(Bytes::from(framed))], "0")
    };
    let mut response = Response::builder().header("content-type", "application/grpc");
    let trailers = HeaderMap::from_iter([("grpc-status".parse().expect("a name"), HeaderValue::from_static(code))]);
    let mut all: Vec<Result<Frame<Bytes>, Infallible>> = frames.into_iter().map(Ok).collect();
    if all.is_empty() {
        response = response.header("grpc-status", code).header("grpc-message", "told to fail");
    } else {
        all.push(Ok(Frame::trailers(trailers)));
    }
    // A failure is headers and nothing else: only then may a library repeat the call.
    let body = if all.is_empty() {
        Empty::new().boxed()
    } else {
        BodyExt::boxed(StreamBody::new(futures_util::stream::iter(all)))
    };
    Ok(response.body(body).expect("the head is well-formed"))
}
