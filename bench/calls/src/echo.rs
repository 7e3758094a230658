//! A service that echoes, at once or after a while, by itself or by asking another.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use ninefold::connect::{Channel, Discovery, Interest, Policy};
use ninefold::lifecycle::Scope;
use ninefold::serve::{Listener, ServeConfig, run};
use ninefold::{Link, tonic};
use ninefold_proto::ninefold::registry::v1 as words;
use prost::Message;
use tonic::body::Body;
use tonic::client::{Grpc, GrpcService};
use tonic::server::UnaryService;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// How long the slow method takes.
pub(crate) const SLOW: Duration = Duration::from_secs(30);
/// How long the method takes that keeps a stream busy.
const SHORT: Duration = Duration::from_millis(20);
/// How long the method blocks that must not.
const BLOCK: Duration = Duration::from_millis(200);

/// What goes there and back.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Word {
    /// Some bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) body: Bytes,
    /// A number.
    #[prost(uint32, tag = "2")]
    pub(crate) number: u32,
}

/// Calls a method of the service.
pub(crate) async fn ask<S>(channel: S, method: &str, word: Word) -> Result<Word, Status>
where
    S: GrpcService<Body>,
    S::ResponseBody: http_body::Body<Data = Bytes> + Send + 'static,
    <S::ResponseBody as http_body::Body>::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|_| Status::unavailable("the channel is not ready"))?;
    let path = format!("/bench.v1.EchoService/{method}").parse().map_err(|_| Status::internal("no path"))?;
    let codec: ProstCodec<Word, Word> = ProstCodec::default();
    Ok(client.unary(Request::new(word), path, codec).await?.into_inner())
}

/// A channel of ours to one address, with everything on.
pub(crate) fn channel(address: SocketAddr, scope: &Scope) -> Channel {
    let instance = words::Instance {
        service: "echo".to_owned(),
        instance_id: "echo-1".to_owned(),
        addresses: vec![words::Address { host: address.ip().to_string(), port: address.port().into() }],
        state: words::InstanceState::Serving.into(),
        ..words::Instance::default()
    };
    let snapshot = words::Snapshot { instances: vec![instance], ..words::Snapshot::default() };
    let message = words::watch_instances_response::Message::Snapshot(snapshot);
    let message = words::WatchInstancesResponse { message: Some(message), revision: 1 }.encode_to_vec();
    let registry = Link::new(tower::service_fn(move |_: http::Request<Body>| {
        let mut frame = vec![0];
        frame.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
        frame.extend(&message);
        let told = stream::iter([Ok::<_, Status>(Frame::data(Bytes::from(frame)))]).chain(stream::pending());
        let mut response = http::Response::new(Body::new(StreamBody::new(told)));
        response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
        std::future::ready(Ok::<_, Infallible>(response))
    }));
    Discovery::start(registry, Interest::Named, scope).channel_with("echo", policy())
}

/// The default, but for the calls in flight.
fn policy() -> Policy {
    let mut policy = Policy::default();
    policy.limits.in_flight_max = Some(20_000);
    policy.timeouts.call = SLOW * 2;
    policy
}

/// Serves until the process is killed; prints the address first.
pub(crate) async fn serve(streams_max: u32, backend: Option<SocketAddr>) -> Result<()> {
    let scope = Scope::root("bench");
    let listener = Listener::bind("127.0.0.1:0").await?;
    println!("{}", listener.address());
    let next = backend.map(|backend| channel(backend, &scope));
    let echo = Echo { next, in_work: Arc::default() };
    let config = ServeConfig { streams_max, ..ServeConfig::default() };
    run(listener, Routes::new(echo), config, std::future::pending()).await?;
    Ok(())
}

#[derive(Clone)]
struct Echo {
    next: Option<Channel>,
    in_work: Arc<AtomicU32>,
}

impl tonic::server::NamedService for Echo {
    const NAME: &'static str = "bench.v1.EchoService";
}

impl tower::Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let answering = Answering { echo: self.clone(), method };
        async move {
            let codec: ProstCodec<Word, Word> = ProstCodec::default();
            Ok(tonic::server::Grpc::new(codec).unary(answering, request).await)
        }
        .boxed()
    }
}

struct Answering {
    echo: Echo,
    method: String,
}

impl UnaryService<Word> for Answering {
    type Response = Word;
    type Future = BoxFuture<'static, Result<Response<Word>, Status>>;

    fn call(&mut self, request: Request<Word>) -> Self::Future {
        let (echo, method) = (self.echo.clone(), self.method.clone());
        let mut word = request.into_inner();
        async move {
            match method.as_str() {
                "Count" => word.number = echo.in_work.load(Ordering::Relaxed),
                "Short" => tokio::time::sleep(SHORT).await,
                "Block" => block(),
                "Slow" => {
                    echo.in_work.fetch_add(1, Ordering::Relaxed);
                    match echo.next {
                        Some(next) => word = ask(next, "Slow", word).await?,
                        None => tokio::time::sleep(SLOW).await,
                    }
                    echo.in_work.fetch_sub(1, Ordering::Relaxed);
                }
                _ => {}
            }
            Ok(Response::new(word))
        }
        .boxed()
    }
}

#[expect(clippy::disallowed_methods, reason = "what must not be done, to see that the probe notices")]
fn block() {
    std::thread::sleep(BLOCK);
}
