//! Answers of gRPC that would not end by themselves, and end when the edge stops.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::HeaderMap;
use http_body::Frame;
use ninefold::fault;
use ninefold::lifecycle::Stop;
use ninefold::tonic::Status;
use ninefold::tonic::body::Body;

use crate::error::Error;
use crate::frames::Boundaries;

/// A stream of messages that ends with UNAVAILABLE between two of them when the edge is asked to stop, so that its client
/// calls again, and finds another edge.
pub(super) struct Farewell {
    /// None when it is over.
    body: Option<Body>,
    boundaries: Boundaries,
    stopped: BoxFuture<'static, ()>,
}

impl Farewell {
    pub(super) fn new(body: Body, stop: Stop) -> Self {
        let stopped = async move { stop.asked().await }.boxed();
        Self { body: Some(body), boundaries: Boundaries::default(), stopped }
    }
}

impl http_body::Body for Farewell {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        if this.boundaries.is_between() && this.stopped.poll_unpin(context).is_ready() {
            // Dropping the body leaves the call.
            this.body = None;
            let status = fault::status(&Error::Draining);
            let mut trailers = HeaderMap::new();
            return Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))));
        }
        let frame = ready!(Pin::new(body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => frame.data_ref().into_iter().for_each(|data| this.boundaries.pass(data)),
            Some(Err(_)) | None => this.body = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use futures_util::stream;
    use http_body::Body as _;
    use http_body_util::{BodyExt as _, StreamBody};
    use ninefold::lifecycle::Scope;

    use super::*;
    use crate::frames::framed;

    fn told(trailers: &HeaderMap) -> Status {
        Status::from_header_map(trailers).expect("a status")
    }

    #[tokio::test]
    async fn a_stream_ends_between_messages_and_says_why() {
        let scope = Scope::root("test");
        let message = framed(b"hello");
        let halves = [message.slice(..3), message.slice(3..)].map(|half| Ok::<_, Status>(Frame::data(half)));
        let silent = stream::iter(halves).chain(stream::pending());
        let mut silent = Farewell::new(Body::new(StreamBody::new(silent)), scope.stop());
        let flood = stream::repeat_with(move || Ok::<_, Status>(Frame::data(message.clone())));
        let mut flood = Farewell::new(Body::new(StreamBody::new(flood)), scope.stop());
        assert!(flood.frame().await.unwrap().unwrap().is_data());
        assert_eq!(silent.frame().await.unwrap().unwrap().into_data().unwrap().len(), 3);
        scope.close(std::time::Duration::ZERO).await;
        assert!(silent.frame().await.unwrap().unwrap().is_data(), "the message that was begun is ended");
        for body in [&mut silent, &mut flood] {
            let last = body.frame().await.unwrap().unwrap().into_trailers().expect("it ends");
            assert_eq!(fault::reason(&told(&last)).as_deref(), Some("EDGE_DRAINING"));
            assert!(body.frame().await.is_none() && body.is_end_stream());
        }
    }
}
