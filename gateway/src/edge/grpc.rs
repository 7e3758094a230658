//! gRPC and gRPC-Web: bytes pass as they are, in both directions; only their framing on the wire is known here.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use ninefold::connect::{Channel, FAILED_AT};
use ninefold::lifecycle::Stop;
use ninefold::tonic::body::Body;
use tonic_web::GrpcWebLayer;
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::farewell::Farewell;
use super::own::Own;
use super::{Client, Edge, Spoken, write_timeout};
use crate::access::{Bytes, Outcome, Record};
use crate::config::Config;
use crate::error::Error;
use crate::frames::{Bounded, Packing};
use crate::guard::Promise;
use crate::routes::Route;
use crate::sample::Sampler;
use crate::traffic::mirror::Draft;
use crate::{guard, reply};

/// What an instance says of its load, as ORCA has it.
pub(super) const LOAD: [&str; 3] = ["endpoint-load-metrics-bin", "endpoint-load-metrics-json", "endpoint-load-metrics"];

impl Edge {
    /// Passes a gRPC call through.
    pub(super) async fn grpc(
        &self,
        mut head: Parts,
        body: Incoming,
        client: &Client,
        record: &mut Record,
    ) -> Response<Body> {
        if head.version < Version::HTTP_2 {
            return reply::of_error(&Error::RequestMalformed("gRPC needs HTTP/2; over HTTP/1.1 there is gRPC-Web"));
        }
        let path = head.uri.path();
        if let Some(own) = Own::of(path).filter(|own| self.config.reflection || *own != Own::Reflection) {
            return Box::pin(self.own(own, path, body, record)).await;
        }
        match self.passage(&mut head, Spoken::Grpc, client, record).await {
            Ok(passage) => {
                let answer = passage.send(Body::new(body)).await;
                record.answered_by(answer.extensions().get());
                answer
            }
            Err(error) => reply::of_error_to_grpc(&error),
        }
    }

    /// Passes a gRPC-Web call through, as gRPC.
    pub(super) async fn grpc_web(
        &self,
        mut head: Parts,
        body: Incoming,
        client: &Client,
        record: &mut Record,
    ) -> Response<Body> {
        if head.method != Method::POST {
            let allowed = vec![Method::POST.to_string()];
            return reply::of_error(&Error::VerbNotAllowed { verb: head.method.to_string(), allowed });
        }
        let mut passage = Some(self.passage(&mut head, Spoken::GrpcWeb, client, record).await);
        let inner = service_fn(move |request: Request<Body>| {
            let passage = passage.take().expect("the layer calls once for one request");
            async move {
                Ok::<_, Infallible>(match passage {
                    Ok(passage) => passage.send(request.into_body()).await,
                    Err(error) => reply::of_error_to_grpc(&error),
                })
            }
        });
        let Ok(answer) = GrpcWebLayer::new().layer(inner).oneshot(Request::from_parts(head, body)).await;
        record.answered_by(answer.extensions().get());
        answer
    }

    /// Finds the way of a call.
    async fn passage(
        &self,
        head: &mut Parts,
        spoken: Spoken,
        client: &Client,
        record: &mut Record,
    ) -> Result<Passage, Error> {
        let published = self.published.load_full();
        let path = head.uri.path();
        let Some(route) = published.routes.grpc(path).filter(|_| head.method == Method::POST) else {
            return Err(if published.routes.is_known {
                Error::MethodNotExposed(path.chars().take(256).collect())
            } else {
                Error::Starting
            });
        };
        record.routed(route.template(), &route.method.name, &route.service);
        let steered = self.admit(head, route, client, record).await?;
        let channel = published.channels.get(&route.service).cloned().ok_or(Error::Starting)?;
        let mut call = self.call((head, &[]), route, client, &steered, record);
        let time = self.time_for(route, &head.headers, &steered);
        let headers = call.headers_mut();
        write_timeout(headers, time);
        if spoken == Spoken::GrpcWeb {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            // A browser cannot undo the compression of gRPC.
            headers.insert("grpc-accept-encoding", HeaderValue::from_static("identity"));
            headers.remove(header::ACCEPT);
        }
        let outcome = record.outcome.clone();
        let looked_into = self.sampler.draws().then(|| (self.sampler.clone(), Route::clone(route)));
        let copy = self.copied(&steered, &call, route);
        let promised = steered.promise.map(|promise| (promise, Route::clone(route), self.config.clone()));
        let received = record.received.clone();
        let stop = route.method.is_server_streaming.then(|| self.stop.clone());
        record.sent();
        Ok(Passage {
            call,
            channel,
            outcome,
            message_bytes_max: self.config.body_bytes_max,
            promised,
            looked_into,
            copy,
            received,
            stop,
        })
    }
}

/// A call that knows its way.
struct Passage {
    call: Request<()>,
    channel: Channel,
    outcome: Outcome,
    message_bytes_max: usize,
    /// What its message must hold to.
    promised: Option<(Promise, Route, Config)>,
    /// Who looks into its messages, if anybody does.
    looked_into: Option<(Sampler, Route)>,
    /// What others hear of it.
    copy: Option<Draft>,
    /// Counts what came of its body.
    received: Bytes,
    /// What ends a stream of answers.
    stop: Option<Stop>,
}

impl Passage {
    async fn send(self, body: Body) -> Response<Body> {
        let is_too_large = Arc::new(AtomicBool::new(false));
        let mut body = Body::new(Bounded::new(body, self.message_bytes_max, is_too_large.clone()));
        if let Some((promise, route, config)) = &self.promised {
            let packing = Packing::of(self.call.headers(), "grpc-encoding");
            body = match Edge::check_body(config, promise, &route.method, packing, body).await {
                Ok(body) => body,
                Err(error) => return reply::of_error_to_grpc(&error),
            };
        }
        if let Some((sampler, route)) = &self.looked_into {
            body = sampler.watch(body, route, false);
        }
        body = self.received.counting(body);
        if let Some(copy) = self.copy {
            body = copy.follow(body);
        }
        let Ok(mut answer) = self.channel.oneshot(self.call.map(|()| body)).await;
        if let Some(stop) = self.stop {
            answer = answer.map(|body| Body::new(Farewell::new(body, stop)));
        }
        if let Some((sampler, route)) = &self.looked_into {
            answer = answer.map(|body| sampler.watch(body, route, true));
        }
        if is_too_large.load(Ordering::Relaxed) {
            // The call was given up for it; what the service or the connection says about that is beside the point.
            answer = reply::of_error_to_grpc(&Error::BodyTooLarge(self.message_bytes_max));
        }
        guard::strip_hop_by_hop(answer.headers_mut());
        self.outcome.note(answer.headers());
        keep_inside(answer.headers_mut());
        let outcome = self.outcome;
        answer.map(|body| {
            Body::new(body.map_frame(move |mut frame| {
                if let Some(trailers) = frame.trailers_mut() {
                    outcome.note(trailers);
                    keep_inside(trailers);
                }
                frame
            }))
        })
    }
}

/// Takes out what services tell each other alone: where a call failed, and how much load an instance bears.
fn keep_inside(headers: &mut HeaderMap) {
    headers.remove(FAILED_AT);
    for name in LOAD {
        headers.remove(name);
    }
}
