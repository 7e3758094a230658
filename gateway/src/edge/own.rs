//! What the edge answers itself: health and reflection, as any gRPC server does.
//!
//! The reflection messages are written here by hand: v1 and v1alpha have the same bytes.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::body::Incoming;
use ninefold::lifecycle::Stop;
use ninefold::tonic::Status;
use ninefold::tonic::body::Body;
use prost::Message as _;

use super::Edge;
use crate::access::Record;
use crate::contracts::Published;
use crate::error::Error;
use crate::frames::{Frames, framed};
use crate::reply;

/// Largest question.
const QUESTION_BYTES_MAX: usize = 64 << 10;
const NOT_FOUND: i32 = 5;
/// How often it is looked for who watches whether the edge, or a service, is served.
const HEALTH_LOOK: Duration = Duration::from_millis(500);

/// A method that the edge answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    Reflection,
    HealthCheck,
    HealthWatch,
}

impl Own {
    /// The method of a path, if it is one of them.
    pub(super) fn of(path: &str) -> Option<Self> {
        match path {
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
            | "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => Some(Self::Reflection),
            "/grpc.health.v1.Health/Check" => Some(Self::HealthCheck),
            "/grpc.health.v1.Health/Watch" => Some(Self::HealthWatch),
            _ => None,
        }
    }
}

impl Edge {
    /// Answers a call of the edge's own.
    pub(super) async fn own(&self, own: Own, path: &str, body: Incoming, record: &mut Record) -> Response<Body> {
        record.routed(path, path.trim_start_matches('/'), "edge");
        let mut questions = Frames::new(Body::new(body), QUESTION_BYTES_MAX);
        match own {
            Own::Reflection => self.reflect(questions),
            Own::HealthCheck | Own::HealthWatch => {
                let question = questions.next().await.ok().flatten();
                let service = question.and_then(|raw| HealthCheckRequest::decode(raw).ok()).unwrap_or_default().service;
                self.health(own, service)
            }
        }
    }

    fn reflect(&self, questions: Frames) -> Response<Body> {
        let published = self.published.clone();
        let stop = self.stop.clone();
        let answers = stream::unfold(Some(questions), move |questions| {
            let (published, stop) = (published.clone(), stop.clone());
            async move {
                let mut questions = questions?;
                let question = tokio::select! {
                    question = questions.next() => question.ok().flatten(),
                    () = stop.asked() => None,
                };
                Some(match question.map(ServerReflectionRequest::decode) {
                    Some(Ok(question)) => {
                        let answer = reflected(&published.load(), question);
                        (Ok::<_, Status>(Frame::data(framed(&answer.encode_to_vec()))), Some(questions))
                    }
                    Some(Err(_)) | None => (Ok(Frame::trailers(ok())), None),
                })
            }
        });
        grpc(Body::new(StreamBody::new(answers)))
    }

    fn health(&self, own: Own, service: String) -> Response<Body> {
        let health = Health { published: self.published.clone(), stop: self.stop.clone(), service };
        let first = health.now();
        if own == Own::HealthCheck {
            if first == Serving::Unknown {
                let path = health.service.chars().take(256).collect();
                return reply::of_error_to_grpc(&Error::RouteUnknown { verb: "service".to_owned(), path });
            }
            let parts = [Ok::<_, Status>(first.told()), Ok(Frame::trailers(ok()))];
            return grpc(Body::new(StreamBody::new(stream::iter(parts))));
        }
        let told = stream::unfold((health, Some(None)), |(health, last)| async move {
            let last: Option<Serving> = last?;
            Some(match health.after(last).await {
                Some(now) => (Ok::<_, Status>(now.told()), (health, Some(Some(now)))),
                None => (Ok(Frame::trailers(ok())), (health, None)),
            })
        });
        grpc(Body::new(StreamBody::new(told)))
    }
}

/// Whether a service is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Serving {
    Yes = 1,
    No = 2,
    /// Nothing exposed has this name.
    Unknown = 3,
}

impl Serving {
    fn told(self) -> Frame<Bytes> {
        Frame::data(framed(&HealthCheckResponse { status: self as i32 }.encode_to_vec()))
    }
}

/// The health of the edge as a whole, or of a service that it exposes.
struct Health {
    published: Arc<ArcSwap<Published>>,
    stop: Stop,
    /// Empty for the whole.
    service: String,
}

impl Health {
    fn now(&self) -> Serving {
        let published = self.published.load();
        match published.routes.is_known && !self.stop.is_asked() {
            false => Serving::No,
            true if self.service.is_empty() || published.catalog.has(&self.service) => Serving::Yes,
            true => Serving::Unknown,
        }
    }

    /// Waits until it is otherwise than was told last. `None` when there is nothing more to tell.
    async fn after(&self, last: Option<Serving>) -> Option<Serving> {
        loop {
            let (is_over, now) = (self.stop.is_asked(), self.now());
            if Some(now) != last {
                return Some(now);
            }
            if is_over {
                return None;
            }
            tokio::select! {
                () = self.stop.asked() => {}
                () = tokio::time::sleep(HEALTH_LOOK) => {}
            }
        }
    }
}

fn grpc(body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    answer
}

/// The trailers of a call that went well.
fn ok() -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))])
}

fn reflected(published: &Published, question: ServerReflectionRequest) -> ServerReflectionResponse {
    let catalog = &published.catalog;
    let files = |files: Option<Vec<Vec<u8>>>| files.map(|files| Answer::Files(Files { files }));
    let answer = match &question.message {
        Some(Question::ListServices(_)) => {
            let services = catalog.services().map(|name| Service { name: name.to_owned() });
            Some(Answer::Services(Services { services: services.collect() }))
        }
        Some(Question::FileByFilename(name)) => files(catalog.files_of_name(name)),
        Some(Question::FileContainingSymbol(symbol)) => files(catalog.files_of_symbol(symbol)),
        Some(Question::FileContainingExtension(ExtensionRequest { containing_type, extension_number })) => {
            let number = u32::try_from(*extension_number).unwrap_or_default();
            files(catalog.files_of_extension(containing_type, number))
        }
        Some(Question::AllExtensionNumbersOfType(of)) => catalog.extensions_of(of).map(|numbers| {
            let numbers = numbers.into_iter().filter_map(|number| i32::try_from(number).ok()).collect();
            Answer::ExtensionNumbers(ExtensionNumbers { base_type_name: of.clone(), numbers })
        }),
        None => None,
    };
    let unknown =
        || Answer::Error(ErrorResponse { code: NOT_FOUND, message: "nothing exposed has this name".to_owned() });
    ServerReflectionResponse {
        valid_host: question.host.clone(),
        message: Some(answer.unwrap_or_else(unknown)),
        original_request: Some(question),
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    /// 1 is SERVING, 2 is NOT_SERVING.
    #[prost(int32, tag = "1")]
    status: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ServerReflectionRequest {
    #[prost(string, tag = "1")]
    host: String,
    #[prost(oneof = "Question", tags = "3, 4, 5, 6, 7")]
    message: Option<Question>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Question {
    #[prost(string, tag = "3")]
    FileByFilename(String),
    #[prost(string, tag = "4")]
    FileContainingSymbol(String),
    #[prost(message, tag = "5")]
    FileContainingExtension(ExtensionRequest),
    #[prost(string, tag = "6")]
    AllExtensionNumbersOfType(String),
    #[prost(string, tag = "7")]
    ListServices(String),
}

#[derive(Clone, PartialEq, prost::Message)]
struct ExtensionRequest {
    #[prost(string, tag = "1")]
    containing_type: String,
    #[prost(int32, tag = "2")]
    extension_number: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ServerReflectionResponse {
    #[prost(string, tag = "1")]
    valid_host: String,
    #[prost(message, optional, tag = "2")]
    original_request: Option<ServerReflectionRequest>,
    #[prost(oneof = "Answer", tags = "4, 5, 6, 7")]
    message: Option<Answer>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Answer {
    #[prost(message, tag = "4")]
    Files(Files),
    #[prost(message, tag = "5")]
    ExtensionNumbers(ExtensionNumbers),
    #[prost(message, tag = "6")]
    Services(Services),
    #[prost(message, tag = "7")]
    Error(ErrorResponse),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Files {
    #[prost(bytes = "vec", repeated, tag = "1")]
    files: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ExtensionNumbers {
    #[prost(string, tag = "1")]
    base_type_name: String,
    #[prost(int32, repeated, tag = "2")]
    numbers: Vec<i32>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Services {
    #[prost(message, repeated, tag = "1")]
    services: Vec<Service>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Service {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ErrorResponse {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}
