//! A stream of bodies with a type of their own (`google.api.HttpBody`): a download, handed on as it comes.

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::StreamBody;
use ninefold::fault;
use ninefold::tonic::body::Body;
use ninefold::tonic::{Code, Status};
use tokio::time::Instant;

use super::rest::{Call, Pace};
use crate::access::Outcome;
use crate::error::Error;
use crate::frames::{Broken, Frames};
use crate::routes::Route;
use crate::transcode::{self, Answer};

impl Call<'_> {
    /// Answers with the pieces of a body. The first says of what type the whole is; a failure before it is a status, and
    /// one after it breaks the body off, as a body of any type has no other way to tell.
    pub(super) async fn pieces(&self, frames: Frames, pace: Pace) -> Result<Response<Body>, Error> {
        let mut pieces = Pieces { frames, route: self.route.clone(), outcome: self.outcome.clone(), pace };
        let first = match pieces.next().await {
            Ok(first) => first,
            Err(status) => return self.failed(&status),
        };
        let Answer { content_type, body } =
            first.unwrap_or(Answer { content_type: transcode::OCTETS, body: Bytes::new() });
        let kind = HeaderValue::try_from(content_type.as_ref()).map_err(|_| Error::AnswerMalformed {
            service: self.route.service.to_string(),
            what: "the type of its answer is malformed",
        })?;
        let parts = futures_util::stream::unfold((Some(body), Some(pieces)), |(first, pieces)| async move {
            let mut pieces = pieces?;
            if let Some(first) = first {
                return Some((Ok(Frame::data(first)), (None, Some(pieces))));
            }
            match pieces.next().await {
                Ok(Some(piece)) => Some((Ok(Frame::data(piece.body)), (None, Some(pieces)))),
                Ok(None) => None,
                Err(status) => Some((Err(status), (None, None))),
            }
        });
        let mut response = Response::new(Body::new(StreamBody::new(parts)));
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        Ok(response)
    }
}

struct Pieces {
    frames: Frames,
    route: Route,
    outcome: Outcome,
    pace: Pace,
}

impl Pieces {
    async fn next(&mut self) -> Result<Option<Answer>, Status> {
        let end = self.pace.end.unwrap_or_else(Instant::now);
        // Nothing is lost when an arm is dropped: what was read of a message stays with the frames.
        let next = tokio::select! {
            next = self.frames.next() => next,
            () = tokio::time::sleep_until(end), if self.pace.end.is_some() => {
                Err(Broken::Body(Status::deadline_exceeded("the time for this stream ran out")))
            }
        };
        let binding = self.route.binding.as_ref().expect("routes in the REST table have a binding");
        let found = match next {
            Ok(Some(message)) => {
                let answer = transcode::answer(&self.route.method, binding, self.route.method.notation, message);
                answer.map(Some).map_err(Broken::Protocol)
            }
            Ok(None) => match self.frames.status() {
                status if status.code() == Code::Ok => Ok(None),
                status => Err(Broken::Body(status)),
            },
            Err(broken) => Err(broken),
        };
        let found = found.map_err(|broken| match broken {
            Broken::Body(status) => status,
            Broken::Protocol(what) => {
                fault::status(&Error::AnswerMalformed { service: self.route.service.to_string(), what })
            }
        });
        match &found {
            Ok(Some(_)) => {}
            Ok(None) => self.outcome.set(Code::Ok),
            Err(status) => self.outcome.set(status.code()),
        }
        found
    }
}
