//! The registry's server, whose watches are answered by frames: what many watchers are told is encoded once.
//!
//! The generated server encodes a message for each stream; it serves everything but the two watches.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use ninefold::Caller;
use ninefold_proto::ninefold::registry::v1 as proto;
use proto::registry_service_server::RegistryServiceServer;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, ServerStreamingService, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use super::frame::{Frame, FrameCodec};
use crate::service::Service;

const WATCH_INSTANCES: &str = "/ninefold.registry.v1.RegistryService/WatchInstances";
const HOLD_WATCH: &str = "/ninefold.registry.v1.RegistryService/HoldWatch";

type Frames = BoxStream<'static, Result<Frame, Status>>;

/// The registry's server.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    rest: RegistryServiceServer<Service>,
    service: Service,
    message_bytes_max: usize,
}

impl Door {
    /// Serves, and reads no message that is larger.
    pub(crate) fn new(service: Service, message_bytes_max: usize) -> Self {
        let rest = RegistryServiceServer::new(service.clone()).max_decoding_message_size(message_bytes_max);
        Self { rest, service, message_bytes_max }
    }
}

impl NamedService for Door {
    const NAME: &'static str = <RegistryServiceServer<Service> as NamedService>::NAME;
}

impl tower::Service<http::Request<Body>> for Door {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // As generated servers are.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (service, max) = (self.service.clone(), self.message_bytes_max);
        match request.uri().path() {
            WATCH_INSTANCES => async move {
                let mut grpc = Grpc::new(FrameCodec::new(false)).apply_max_message_size_config(Some(max), None);
                Ok(grpc.server_streaming(WatchInstances(service), request).await)
            }
            .boxed(),
            HOLD_WATCH => async move {
                let mut grpc = Grpc::new(FrameCodec::new(true)).apply_max_message_size_config(Some(max), None);
                Ok(grpc.streaming(HoldWatch(service), request).await)
            }
            .boxed(),
            _ => self.rest.call(request),
        }
    }
}

struct WatchInstances(Service);

impl ServerStreamingService<proto::WatchInstancesRequest> for WatchInstances {
    type Response = Frame;
    type ResponseStream = Frames;
    type Future = std::future::Ready<Result<Response<Frames>, Status>>;

    fn call(&mut self, request: Request<proto::WatchInstancesRequest>) -> Self::Future {
        let caller = Caller::of(request.extensions());
        std::future::ready(self.0.watch(caller, request.get_ref()).map(Response::new))
    }
}

struct HoldWatch(Service);

impl StreamingService<proto::HoldWatchRequest> for HoldWatch {
    type Response = Frame;
    type ResponseStream = Frames;
    type Future = BoxFuture<'static, Result<Response<Frames>, Status>>;

    fn call(&mut self, request: Request<Streaming<proto::HoldWatchRequest>>) -> Self::Future {
        let (service, caller) = (self.0.clone(), Caller::of(request.extensions()));
        async move { service.held_watch(caller, request.into_inner()).await.map(Response::new) }.boxed()
    }
}
