//! A request body that can be sent again.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

/// Keeps a request's body while it is sent, up to a limit, so that it can be sent again.
///
/// Bodies are made one after another; making one silences those before.
#[derive(Clone, Debug)]
pub(crate) struct Replay(Arc<Mutex<Kept>>);

#[derive(Debug)]
struct Kept {
    source: Body,
    bytes_max: usize,
    bytes: usize,
    data: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    has_ended: bool,
    has_overflowed: bool,
    /// The number of the body that may read.
    turn: u32,
}

impl Replay {
    pub(crate) fn new(source: Body, bytes_max: usize) -> Self {
        Self(Arc::new(Mutex::new(Kept {
            has_ended: source.is_end_stream(),
            source,
            bytes_max,
            bytes: 0,
            data: Vec::new(),
            trailers: None,
            has_overflowed: false,
            turn: 0,
        })))
    }

    /// Whether all that was sent so far can be sent again.
    pub(crate) fn is_repeatable(&self) -> bool {
        !self.lock().has_overflowed
    }

    /// Whether the caller has said all it has to say.
    pub(crate) fn has_ended(&self) -> bool {
        self.lock().has_ended
    }

    /// Makes the next body, from the beginning.
    pub(crate) fn body(&self) -> Body {
        let turn = {
            let mut kept = self.lock();
            kept.turn += 1;
            kept.turn
        };
        Body::new(Sending { replay: self.clone(), turn, next: 0 })
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One pass over a body that is kept.
struct Sending {
    replay: Replay,
    turn: u32,
    next: usize,
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let replay = self.replay.clone();
        let mut kept = replay.lock();
        if kept.turn != self.turn {
            // An earlier attempt, whose connection has not yet let go of it.
            return Poll::Ready(None);
        }
        if let Some(data) = kept.data.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
        }
        if kept.has_ended {
            let is_first = self.next == kept.data.len();
            self.next += 1;
            let trailers = kept.trailers.clone().filter(|_| is_first);
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let Some(frame) = std::task::ready!(Pin::new(&mut kept.source).poll_frame(context)).transpose()? else {
            kept.has_ended = true;
            return Poll::Ready(None);
        };
        if let Some(data) = frame.data_ref() {
            kept.bytes = kept.bytes.saturating_add(data.len());
            if kept.bytes > kept.bytes_max {
                kept.has_overflowed = true;
                kept.data.clear();
                self.next = 0;
            }
            if !kept.has_overflowed {
                kept.data.push(data.clone());
                self.next += 1;
            }
        }
        if let Some(trailers) = frame.trailers_ref() {
            kept.trailers = Some(trailers.clone());
            kept.has_ended = true;
            // The trailers of this pass go out now.
            self.next = kept.data.len() + 1;
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        let kept = self.replay.lock();
        kept.turn != self.turn
            || (kept.has_ended
                && self.next >= kept.data.len()
                && (kept.trailers.is_none() || self.next > kept.data.len()))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    fn source(chunks: &[&'static str]) -> Body {
        let frames: Vec<_> = chunks.iter().map(|chunk| Ok::<_, Status>(Frame::data(Bytes::from(*chunk)))).collect();
        Body::new(StreamBody::new(stream::iter(frames)))
    }

    async fn read(body: Body) -> Bytes {
        body.collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn a_body_is_sent_again_from_the_beginning() {
        let replay = Replay::new(source(&["one", "two", "three"]), 64);
        let mut first = replay.body();
        assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
        let second = replay.body();
        assert!(first.frame().await.is_none());
        assert_eq!(read(second).await, "onetwothree");
        assert_eq!(read(replay.body()).await, "onetwothree");
    }

    #[tokio::test]
    async fn a_long_body_is_sent_once() {
        let replay = Replay::new(source(&["one", "two", "three"]), 5);
        assert_eq!(read(replay.body()).await, "onetwothree");
        assert!(!replay.is_repeatable());
    }

    #[tokio::test]
    async fn an_empty_body_is_known_to_be_empty() {
        let replay = Replay::new(Body::empty(), 5);
        assert!(replay.body().is_end_stream());
    }
}
