//! A request body that can be sent again.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

/// Keeps a request's body while it is sent, up to a limit, so that it can be sent again.
#[derive(Clone, Debug)]
pub(crate) enum Replay {
    /// All that the caller has to say, known before the call began, as of every call with one request message.
    Whole(Bytes),
    /// As [`Replay::Whole`], but too long to be kept: sent once.
    Once(Arc<Mutex<Option<Bytes>>>),
    /// The caller is still speaking. Bodies are made one after another; making one silences those before.
    Spoken(Arc<Mutex<Kept>>),
}

#[derive(Debug)]
pub(crate) struct Kept {
    source: Body,
    /// What was read from the source before anybody asked.
    ahead: Option<Result<Frame<Bytes>, Status>>,
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
    /// Takes a body. Reads as much of it as is there; does not wait for more.
    pub(crate) async fn new(mut source: Body, bytes_max: usize) -> Self {
        if source.is_end_stream() {
            return Self::Whole(Bytes::new());
        }
        let first = match look(&mut source).await {
            Poll::Ready(Some(Ok(frame))) if frame.is_data() => frame.into_data().unwrap_or_default(),
            Poll::Ready(None) => return Self::Whole(Bytes::new()),
            Poll::Ready(Some(other)) => return Self::spoken(source, Vec::new(), Some(other), bytes_max),
            Poll::Pending => return Self::spoken(source, Vec::new(), None, bytes_max),
        };
        match look(&mut source).await {
            Poll::Ready(None) if first.len() <= bytes_max => Self::Whole(slim(first)),
            Poll::Ready(None) => Self::Once(Arc::new(Mutex::new(Some(first)))),
            Poll::Ready(Some(second)) => Self::spoken(source, vec![first], Some(second), bytes_max),
            Poll::Pending => Self::spoken(source, vec![first], None, bytes_max),
        }
    }

    fn spoken(
        source: Body,
        mut data: Vec<Bytes>,
        mut ahead: Option<Result<Frame<Bytes>, Status>>,
        bytes_max: usize,
    ) -> Self {
        let bytes = data.iter().map(Bytes::len).sum();
        if bytes > bytes_max && ahead.is_none() {
            // Too long to keep, and still to be sent once.
            ahead = data.pop().map(|first| Ok(Frame::data(first)));
        }
        Self::Spoken(Arc::new(Mutex::new(Kept {
            source,
            ahead,
            bytes_max,
            bytes: if data.is_empty() { 0 } else { bytes },
            data,
            trailers: None,
            has_ended: false,
            has_overflowed: false,
            turn: 0,
        })))
    }

    /// Whether all that was sent so far can be sent again.
    pub(crate) fn is_repeatable(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Once(_) => false,
            Self::Spoken(kept) => !lock(kept).has_overflowed,
        }
    }

    /// Whether the caller has said all it has to say.
    pub(crate) fn has_ended(&self) -> bool {
        match self {
            Self::Whole(_) | Self::Once(_) => true,
            Self::Spoken(kept) => lock(kept).has_ended,
        }
    }

    /// All that the caller has to say, if it is known and may be sent by several bodies at a time.
    pub(crate) fn whole(&self) -> Option<&Bytes> {
        match self {
            Self::Whole(data) => Some(data),
            Self::Once(_) | Self::Spoken(_) => None,
        }
    }

    /// Makes the next body, from the beginning.
    pub(crate) fn body(&self) -> Body {
        match self {
            Self::Whole(data) if data.is_empty() => Body::empty(),
            Self::Whole(data) => Body::new(Single(Some(data.clone()))),
            Self::Once(data) => Body::new(Single(lock(data).take())),
            Self::Spoken(kept) => {
                let turn = {
                    let mut kept = lock(kept);
                    kept.turn += 1;
                    kept.turn
                };
                Body::new(Sending { kept: kept.clone(), turn, next: 0 })
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets go of the buffer in which a short message was encoded: tonic's has 8 KiB, which would be held as long as the call.
fn slim(data: Bytes) -> Bytes {
    const SHORT: usize = 2 * 1024;
    if data.len() <= SHORT { Bytes::copy_from_slice(&data) } else { data }
}

/// Polls a body once.
async fn look(source: &mut Body) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
    poll_fn(|context| Poll::Ready(Pin::new(&mut *source).poll_frame(context))).await
}

/// A body of one frame, which is known to be the last: that saves a frame on the wire.
struct Single(Option<Bytes>);

impl http_body::Body for Single {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.take().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    /// Not told: it would become a `content-length`, which gRPC has no use for.
    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// One pass over a body that is kept.
struct Sending {
    kept: Arc<Mutex<Kept>>,
    turn: u32,
    next: usize,
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let kept = self.kept.clone();
        let mut kept = lock(&kept);
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
        let frame = match kept.ahead.take() {
            Some(frame) => Some(frame?),
            None => std::task::ready!(Pin::new(&mut kept.source).poll_frame(context)).transpose()?,
        };
        let Some(frame) = frame else {
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
        let kept = lock(&self.kept);
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
    use futures_util::{StreamExt as _, stream};
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    /// A body whose frames come after one another, not at once.
    fn source(chunks: &[&'static str]) -> Body {
        let frames: Vec<_> = chunks.iter().map(|chunk| Ok::<_, Status>(Frame::data(Bytes::from(*chunk)))).collect();
        let frames = stream::iter(frames).then(|frame| async {
            tokio::task::yield_now().await;
            frame
        });
        Body::new(StreamBody::new(Box::pin(frames)))
    }

    fn at_once(chunks: &[&'static str]) -> Body {
        let frames: Vec<_> = chunks.iter().map(|chunk| Ok::<_, Status>(Frame::data(Bytes::from(*chunk)))).collect();
        Body::new(StreamBody::new(stream::iter(frames)))
    }

    async fn read(body: Body) -> Bytes {
        body.collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn a_body_is_sent_again_from_the_beginning() {
        for source in [source, at_once] {
            let replay = Replay::new(source(&["one", "two", "three"]), 64).await;
            let mut first = replay.body();
            assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
            let second = replay.body();
            assert_eq!(read(second).await, "onetwothree");
            assert_eq!(read(replay.body()).await, "onetwothree");
            assert!(replay.is_repeatable() && replay.has_ended());
        }
    }

    #[tokio::test]
    async fn an_earlier_body_is_silenced_by_a_later_one() {
        let replay = Replay::new(source(&["one", "two"]), 64).await;
        let mut first = replay.body();
        assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
        let _second = replay.body();
        assert!(first.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_long_body_is_sent_once() {
        for body in [source(&["one", "two", "three"]), at_once(&["one", "two", "three"]), at_once(&["onetwothree"])] {
            let replay = Replay::new(body, 5).await;
            assert_eq!(read(replay.body()).await, "onetwothree");
            assert!(!replay.is_repeatable());
        }
    }

    #[tokio::test]
    async fn one_message_is_known_whole_and_sent_in_one_frame() {
        let replay = Replay::new(at_once(&["one"]), 5).await;
        assert_eq!(replay.whole().unwrap(), "one");
        let mut body = replay.body();
        body.frame().await.unwrap().unwrap();
        assert!(body.is_end_stream());
    }

    #[tokio::test]
    async fn an_empty_body_is_known_to_be_empty() {
        let replay = Replay::new(Body::empty(), 5).await;
        assert!(replay.body().is_end_stream());
    }
}
