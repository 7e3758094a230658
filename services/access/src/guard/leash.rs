//! Ends an answer when the token that asked for it is worth nothing any more: a session or a watch may last for days.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Response};
use http_body::{Body as _, Frame, SizeHint};
use ninefold::fault;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;

use crate::error::Error;

/// How long an answer may last.
pub(super) struct Leash(Option<(CancellationToken, Option<SystemTime>)>);

impl Leash {
    /// For as long as it likes.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// Until it is revoked or expires.
    pub(super) fn new(revoked: CancellationToken, expires: Option<SystemTime>) -> Self {
        Self(Some((revoked, expires)))
    }

    /// Puts an answer on the leash, unless it is whole already.
    pub(super) fn hold(self, response: Response<Body>) -> Response<Body> {
        let Some((revoked, expires)) = self.0.filter(|_| !response.body().is_end_stream()) else { return response };
        let end = async move {
            let expired = async {
                match expires.map(|expires| expires.duration_since(SystemTime::now()).unwrap_or_default()) {
                    Some(left) => tokio::time::sleep(left).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = revoked.cancelled() => {}
                () = expired => {}
            }
        };
        response.map(|body| Body::new(Held { body: Some(body), end: end.boxed() }))
    }
}

struct Held {
    /// Gone when the answer is cut off, so that whoever makes it stops.
    body: Option<Body>,
    end: BoxFuture<'static, ()>,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        if this.end.poll_unpin(context).is_ready() {
            this.body = None;
            let mut trailers = HeaderMap::new();
            let written = fault::status(&Error::TokenRefused).add_header(&mut trailers);
            return Poll::Ready(Some(written.map(|()| Frame::trailers(trailers))));
        }
        Pin::new(body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint)
    }
}
