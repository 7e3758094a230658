//! A service with one method of each shape of stream, and its contract.

use std::convert::Infallible;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use ninefold::tonic::body::Body;
use ninefold::tonic::codec::{CompressionEncoding, EnabledCompressionEncodings};
use ninefold::tonic::server::{Grpc, NamedService};
use ninefold::tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::landscape::Backend;

pub(crate) const TALK: &str = "test.v1.TalkService";

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Line {
    #[prost(string, tag = "1")]
    pub(crate) room: String,
    #[prost(string, tag = "2")]
    pub(crate) text: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HttpBody {
    #[prost(string, tag = "1")]
    content_type: String,
    #[prost(bytes = "bytes", tag = "2")]
    data: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct File {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    content: Option<HttpBody>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Gathered {
    #[prost(message, repeated, tag = "1")]
    lines: Vec<Line>,
    #[prost(int32, tag = "2")]
    messages: i32,
    #[prost(int64, tag = "3")]
    bytes: i64,
    #[prost(int32, tag = "4")]
    largest: i32,
    #[prost(string, tag = "5")]
    content_type: String,
}

/// The raw descriptor set of the service.
pub(crate) fn contract() -> Vec<u8> {
    compiled("test/v1/talk.proto")
}

/// The raw descriptor set of a file below `tests/proto`.
pub(crate) fn compiled(file: &str) -> Vec<u8> {
    use protox::file::{ChainFileResolver, GoogleFileResolver, IncludeFileResolver};
    let here = |path: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let mut resolver = ChainFileResolver::new();
    for folder in ["tests/proto", "../proto", "../proto/vendor"] {
        resolver.add(IncludeFileResolver::new(here(folder)));
    }
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true).open_file(file).unwrap();
    compiler.encode_file_descriptor_set()
}

/// The service. In the room `packed` it packs what it says; the texts `fail` and `wait` have it fail and wait.
#[derive(Clone)]
pub(crate) struct Talk(pub(crate) Arc<Backend>);

impl NamedService for Talk {
    const NAME: &'static str = TALK;
}

type Answers<T> = BoxStream<'static, Result<T, Status>>;

/// Holds a stream open for as long as its reader reads.
struct Held(#[expect(dead_code, reason = "is counted")] Arc<()>);

fn said(line: Line) -> Result<Line, Status> {
    match line.text.as_str() {
        "fail" => Err(Status::not_found("asked to fail")),
        _ => Ok(line),
    }
}

async fn gather(
    request: Request<Streaming<Line>>,
    backend: Arc<Backend>,
) -> Result<Response<Answers<Gathered>>, Status> {
    let _held = Held(backend.streams.clone());
    let mut lines = request.into_inner();
    let mut gathered = Gathered::default();
    while let Some(line) = lines.message().await? {
        gathered.messages += 1;
        gathered.lines.push(said(line)?);
    }
    Ok(Response::new(futures_util::stream::iter([Ok(gathered)]).boxed()))
}

async fn talk(request: Request<Streaming<Line>>, backend: Arc<Backend>) -> Result<Response<Answers<Line>>, Status> {
    let held = Held(backend.streams.clone());
    let lines = request.into_inner().map(move |line| {
        let _ = &held;
        line.and_then(said)
    });
    Ok(Response::new(lines.boxed()))
}

async fn repeat(request: Request<Streaming<Line>>, backend: Arc<Backend>) -> Result<Response<Answers<Line>>, Status> {
    let held = Held(backend.streams.clone());
    let line = request.into_inner().message().await?.unwrap_or_default();
    let count = line.text.parse().unwrap_or(3_usize);
    let lines = futures_util::stream::iter(0..count).map(move |at| {
        let _ = &held;
        Ok(Line { room: line.room.clone(), text: format!("{at} {}", "x".repeat(1000)) })
    });
    Ok(Response::new(lines.boxed()))
}

async fn upload(
    request: Request<Streaming<File>>,
    backend: Arc<Backend>,
) -> Result<Response<Answers<Gathered>>, Status> {
    let _held = Held(backend.streams.clone());
    let mut files = request.into_inner();
    let mut gathered = Gathered::default();
    while let Some(File { name, content }) = files.message().await? {
        let HttpBody { content_type, data } = content.unwrap_or_default();
        gathered.messages += 1;
        gathered.bytes += i64::try_from(data.len()).unwrap();
        gathered.largest = gathered.largest.max(i32::try_from(data.len()).unwrap());
        gathered.content_type += &content_type;
        if name == "refused" {
            return Err(Status::resource_exhausted("no room for this file"));
        }
    }
    Ok(Response::new(futures_util::stream::iter([Ok(gathered)]).boxed()))
}

async fn download(request: Request<Streaming<Line>>) -> Result<Response<Answers<HttpBody>>, Status> {
    let name = request.into_inner().message().await?.unwrap_or_default().room;
    let piece =
        |kind: &str, text: &'static [u8]| Ok(HttpBody { content_type: kind.into(), data: Bytes::from_static(text) });
    let mut pieces = vec![piece("text/csv", b"a,b\n"), piece("", b"1,2\n")];
    match name.as_str() {
        "missing" => pieces = vec![Err(Status::not_found("no such file"))],
        "broken" => pieces.push(Err(Status::data_loss("half of it is gone"))),
        _ => {}
    }
    Ok(Response::new(futures_util::stream::iter(pieces).boxed()))
}

impl tower::Service<http::Request<Body>> for Talk {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let backend = self.0.clone();
        *backend.seen.lock().unwrap() = request.headers().clone();
        Box::pin(async move {
            let mut packs = EnabledCompressionEncodings::default();
            packs.enable(CompressionEncoding::Gzip);
            let none = EnabledCompressionEncodings::default();
            macro_rules! answer {
                ($in:ty, $out:ty, $handler:expr) => {
                    Grpc::new(ProstCodec::<$out, $in>::default())
                        .apply_compression_config(none, packs)
                        .streaming(tower::service_fn($handler), request)
                        .await
                };
            }
            Ok(match request.uri().path().rsplit('/').next().unwrap_or_default() {
                "Gather" => answer!(Line, Gathered, |request| gather(request, backend.clone())),
                "Say" | "Talk" | "Tell" | "Peek" | "Chat" => {
                    answer!(Line, Line, |request| talk(request, backend.clone()))
                }
                "Repeat" => answer!(Line, Line, |request| repeat(request, backend.clone())),
                "Upload" => answer!(File, Gathered, |request| upload(request, backend.clone())),
                "Wait" => std::future::pending().await,
                "Download" => answer!(Line, HttpBody, download),
                other => Status::unimplemented(other.to_owned()).into_http(),
            })
        })
    }
}
