//! An upstream that speaks gRPC byte by byte, so that it can also break it: it says back what it is asked, and does what
//! the field `id` of the request names instead, where it names something.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use ninefold::proto::ninefold::registry::v1 as registry;
use ninefold_gateway::Config;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::landscape::Landscape;
use crate::talk;

type Part = Result<Frame<Bytes>, std::io::Error>;
type Answer = Response<UnsyncBoxBody<Bytes, std::io::Error>>;

/// What of a request the script reads.
#[derive(Clone, PartialEq, prost::Message)]
struct Asked {
    #[prost(string, tag = "1")]
    id: String,
}

/// What a running script shares with the test.
#[derive(Clone, Default)]
pub(crate) struct Script {
    /// The headers of the last request.
    pub(crate) headers: Arc<std::sync::Mutex<HeaderMap>>,
    /// The answers that go on.
    pub(crate) answers: Arc<Answers>,
    /// Bytes that a flood could give to the connection.
    pub(crate) given: Arc<std::sync::atomic::AtomicU64>,
    /// Ends every connection, as a process does that dies.
    dies: Arc<Notify>,
    /// How many calls came.
    pub(crate) calls: Arc<std::sync::atomic::AtomicUsize>,
}

/// Answers that go on hold what is in it.
#[derive(Default)]
pub(crate) struct Answers(Arc<()>);

impl Answers {
    /// How many go on.
    pub(crate) fn count(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}

/// An edge with the service `ruler` behind it, whose instance is scripted.
pub(crate) async fn start(config: Config) -> (Landscape, Script) {
    let house = Landscape::empty(config).await;
    house.offer("sha256:rules", &talk::compiled("test/v1/rules.proto"));
    let script = Script::default();
    script.join(&house, "r").await;
    house.until_routed("GET", "/people/x").await;
    (house, script)
}

impl Script {
    /// Starts an instance and registers it.
    async fn join(&self, house: &Landscape, id: &str) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = self.clone();
        house.scope("script").run("test.script", move |stop| async move {
            loop {
                let (stream, _) = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap(),
                    () = stop.asked() => return,
                };
                #[expect(clippy::disallowed_methods, reason = "ends with its connection")]
                tokio::spawn(script.clone().converse(stream));
            }
        });
        house.register(registry::Instance {
            service: "ruler".to_owned(),
            instance_id: id.to_owned(),
            addresses: vec![registry::Address { host: "127.0.0.1".to_owned(), port: port.into() }],
            protobuf_services: vec!["test.v1.RulesService".to_owned()],
            contract_digest: "sha256:rules".to_owned(),
            state: registry::InstanceState::Serving.into(),
            ..registry::Instance::default()
        });
    }

    async fn converse(self, stream: tokio::net::TcpStream) {
        let dies = self.dies.clone();
        let answer = service_fn(move |request| {
            let script = self.clone();
            async move { Ok::<_, Infallible>(script.answer(request).await) }
        });
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), answer);
        tokio::select! {
            _ = connection => {}
            () = dies.notified() => {}
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        self.calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        *self.headers.lock().unwrap() = request.headers().clone();
        let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let asked = body.get(5..).and_then(|message| Asked::decode(message).ok()).unwrap_or_default();
        let id = asked.id.as_str();
        if let Some(code) = id.strip_prefix("status-") {
            return trailers_only(code);
        }
        if let Some(status) = id.strip_prefix("http-") {
            let page = Full::new(Bytes::from_static(b"<html>")).map_err(|never| match never {}).boxed_unsync();
            return Response::builder().status(status).header("content-type", "text/html").body(page).unwrap();
        }
        let said = |parts: Vec<Part>| grpc(StreamBody::new(futures_util::stream::iter(parts)).boxed_unsync());
        let held = self.answers.0.clone();
        let endless = move |first: Vec<Part>| {
            let stay = futures_util::stream::pending::<Part>().inspect(move |_| drop(held.clone()));
            grpc(StreamBody::new(futures_util::stream::iter(first).chain(stay)).boxed_unsync())
        };
        match id {
            "never" => std::future::pending().await,
            "silent" => endless(Vec::new()),
            "then-silent" => endless(vec![data(&body)]),
            "no-status" => said(vec![data(&body)]),
            "nothing" => said(vec![ok()]),
            "two" => said(vec![data(&body), data(&body), ok()]),
            "cut" => said(vec![data(&body[..7]), ok()]),
            "text" => said(vec![data(b"HTTP/1.1 200 OK, hello"), ok()]),
            "flag" => said(vec![data(&[9, 0, 0, 0, 1, 7]), ok()]),
            "no-message" => said(vec![data(&[0, 0, 0, 0, 2, 0xff, 0xff]), ok()]),
            "reset" => said(vec![data(&body), Err(std::io::Error::other("as asked"))]),
            "twice-then-fail" => said(vec![data(&body), data(&body), failed("5", "gone")]),
            "empty" => said(vec![ok()]),
            "load" => {
                let mut told = HeaderMap::new();
                told.insert("endpoint-load-metrics-bin", HeaderValue::from_static("CQAAAAAAAPA/"));
                told.insert("endpoint-load-metrics", HeaderValue::from_static("TEXT cpu_utilization=0.5"));
                told.insert("grpc-status", HeaderValue::from_static("0"));
                let mut answer = said(vec![data(&body), Ok(Frame::trailers(told.clone()))]);
                told.remove("grpc-status");
                answer.headers_mut().extend(told);
                answer
            }
            "dies" | "dies-at-once" => {
                let dies = self.dies.clone();
                if id == "dies-at-once" {
                    dies.notify_waiters();
                    return std::future::pending().await;
                }
                let dying = futures_util::stream::once(async move {
                    // Time for what was said to leave, not a thing that the test waits for.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    dies.notify_waiters();
                    std::future::pending::<Part>().await
                });
                grpc(StreamBody::new(futures_util::stream::iter([data(&body)]).chain(dying)).boxed_unsync())
            }
            "huge" => {
                let piece = Bytes::from(vec![0; 64 << 10]);
                let head = [&[0][..], &(100_u32 << 20).to_be_bytes()].concat();
                let rest = futures_util::stream::repeat_with(move || Ok(Frame::data(piece.clone()))).take(1600);
                let all =
                    futures_util::stream::iter([data(&head)]).chain(rest).chain(futures_util::stream::iter([ok()]));
                grpc(StreamBody::new(all).boxed_unsync())
            }
            "flood" => {
                let (held, given) = (self.answers.0.clone(), self.given.clone());
                let said = [body.as_ref(); 64].concat();
                let endless = futures_util::stream::repeat_with(move || {
                    let _ = &held;
                    given.fetch_add(said.len() as u64, std::sync::atomic::Ordering::Relaxed);
                    data(&said)
                });
                grpc(StreamBody::new(endless).boxed_unsync())
            }
            _ => said(vec![data(&body), ok()]),
        }
    }
}

fn grpc(body: UnsyncBoxBody<Bytes, std::io::Error>) -> Answer {
    Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

fn data(bytes: &[u8]) -> Part {
    Ok(Frame::data(Bytes::copy_from_slice(bytes)))
}

fn ok() -> Part {
    Ok(Frame::trailers(HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))])))
}

fn failed(code: &str, why: &str) -> Part {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.parse().unwrap());
    trailers.insert("grpc-message", why.parse().unwrap());
    Ok(Frame::trailers(trailers))
}

/// A failure that is told in the head; one for want of room says when to come again.
fn trailers_only(code: &str) -> Answer {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Any {
        #[prost(string, tag = "1")]
        kind: String,
        #[prost(bytes = "vec", tag = "2")]
        value: Vec<u8>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Status {
        #[prost(int32, tag = "1")]
        code: i32,
        #[prost(string, tag = "2")]
        message: String,
        #[prost(message, repeated, tag = "3")]
        details: Vec<Any>,
    }
    let empty = Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync();
    let mut answer = grpc(empty);
    answer.headers_mut().insert("grpc-status", code.parse().unwrap());
    answer.headers_mut().insert("grpc-message", HeaderValue::from_static("as%20asked"));
    if code == "8" {
        // A RetryInfo of seven seconds.
        let retry = Any { kind: "type.googleapis.com/google.rpc.RetryInfo".to_owned(), value: vec![10, 2, 8, 7] };
        let status = Status { code: 8, message: "as asked".to_owned(), details: vec![retry] };
        let packed = base64::engine::general_purpose::STANDARD_NO_PAD.encode(status.encode_to_vec());
        answer.headers_mut().insert("grpc-status-details-bin", packed.parse().unwrap());
    }
    answer
}
