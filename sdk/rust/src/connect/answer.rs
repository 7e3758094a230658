//! The body of an answer, watched to its end: a gRPC call is over at its trailers, not at its headers.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};
use tonic::{Code, Status};

use crate::connect::error::Error;
use crate::fault;

/// Who wants to know how an answer ends.
pub(crate) trait Listener<E> {
    /// What to tell the caller when the body breaks.
    fn broken(&self, error: E) -> Error;
    /// What to tell the caller when time runs out.
    fn late(&self) -> Error;
    /// Notes in the trailers of a failure where it happened, after [`ended`](Self::ended) has seen them as they came.
    fn mark(&self, _trailers: &mut http::HeaderMap) {}
    /// These trailers came, before [`ended`](Self::ended).
    fn heard(&self, _trailers: &http::HeaderMap) {}
    /// The answer ended. Called at most once; not at all if the caller drops the body.
    fn ended(&mut self, end: End<'_>);
}

/// How an answer ended.
#[derive(Clone, Copy)]
pub(crate) struct End<'a> {
    /// What the caller is told.
    pub(crate) status: &'a Status,
    /// What ended it before its time; `None` where the instance said the status itself.
    pub(crate) broken: Option<&'a Error>,
    /// Whether it had begun well: with headers that hold no status.
    pub(crate) is_begun: bool,
}

impl<'a> End<'a> {
    /// The instance said so.
    pub(crate) fn said(status: &'a Status, is_begun: bool) -> Self {
        Self { status, broken: None, is_begun }
    }
}

/// A body that reports its end, ends at a deadline, and breaks with a status instead of an error.
pub(crate) struct Answer<B, L> {
    /// Gone when the answer has ended.
    source: Option<B>,
    listener: L,
    /// When it ends at the latest.
    deadline: Option<Instant>,
    /// Made when there is something to wait for.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<B, L> Answer<B, L>
where
    B: Body<Data = Bytes> + Unpin,
    L: Listener<B::Error>,
{
    /// Watches the body of an answer whose headers are `headers`.
    pub(crate) fn new(headers: &http::HeaderMap, source: B, mut listener: L, deadline: Option<Instant>) -> Self {
        // A status in the headers is the whole answer.
        let status = Status::from_header_map(headers);
        let is_over = status.is_some() || source.is_end_stream();
        if is_over {
            listener.ended(End::said(&status.unwrap_or_else(missing), false));
        }
        Self { source: (!is_over).then_some(source), listener, deadline, alarm: None }
    }

    fn end_with(&mut self, error: &Error) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let status = fault::status(error);
        self.source = None;
        self.listener.ended(End { status: &status, broken: Some(error), is_begun: true });
        let mut trailers = http::HeaderMap::new();
        let written = status.add_header(&mut trailers);
        Poll::Ready(Some(written.map(|()| Frame::trailers(trailers))))
    }
}

/// An answer without a status.
fn missing() -> Status {
    Status::new(Code::Unknown, "the answer has no grpc-status")
}

impl<B, L> Body for Answer<B, L>
where
    B: Body<Data = Bytes> + Unpin,
    L: Listener<B::Error> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let Some(source) = &mut this.source else { return Poll::Ready(None) };
        match Pin::new(source).poll_frame(context) {
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    let status = Status::from_header_map(trailers).unwrap_or_else(missing);
                    this.source = None;
                    this.listener.heard(trailers);
                    this.listener.ended(End::said(&status, true));
                    if status.code() != Code::Ok {
                        this.listener.mark(trailers);
                    }
                } else if this.alarm.as_ref().is_some_and(|alarm| alarm.is_elapsed()) {
                    let late = this.listener.late();
                    return this.end_with(&late);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                // A server that ends calls at their deadline may be faster than this clock's alarm.
                let is_late = this.deadline.is_some_and(|end| end <= Instant::now());
                let why = if is_late { this.listener.late() } else { this.listener.broken(error) };
                this.end_with(&why)
            }
            Poll::Ready(None) => {
                this.source = None;
                this.listener.ended(End::said(&missing(), true));
                Poll::Ready(None)
            }
            Poll::Pending => {
                let Some(end) = this.deadline else { return Poll::Pending };
                let alarm = this.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
                if alarm.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                let late = this.listener.late();
                this.end_with(&late)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.source.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
