//! Plain HTTP in the words of calls: which method a verb is, what a status says of whoever answered, when an answer ends.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tonic::{Code, Status};

use crate::connect::answer::{End, Listener};
use crate::fault;

/// The verbs that are told apart; strangers may make up others.
const VERBS: [(&str, &str); 8] = [
    ("GET", "/http/GET"),
    ("HEAD", "/http/HEAD"),
    ("POST", "/http/POST"),
    ("PUT", "/http/PUT"),
    ("PATCH", "/http/PATCH"),
    ("DELETE", "/http/DELETE"),
    ("OPTIONS", "/http/OPTIONS"),
    ("_OTHER", "/http/_OTHER"),
];

fn known(method: &Method) -> (&'static str, &'static str) {
    *VERBS.iter().find(|(verb, _)| *verb == method.as_str()).unwrap_or(&VERBS[7])
}

/// A verb, as spans name it.
pub(crate) fn verb(method: &Method) -> &'static str {
    known(method).0
}

/// What stands for the path of a method.
pub(crate) fn path(method: &Method) -> &'static str {
    known(method).1
}

/// What a status says of whoever answered: that it could not, had no room, or did what it should.
pub(crate) fn code(status: StatusCode) -> Code {
    match status.as_u16() {
        429 => Code::ResourceExhausted,
        502..=504 => Code::Unavailable,
        500 => Code::Internal,
        // Nor is what it was never made for (501) a failure.
        _ => Code::Ok,
    }
}

/// When to come again, where that is said in seconds.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse::<u32>().ok()?;
    Some(Duration::from_secs(seconds.into()))
}

/// The body of an answer, watched to its end. One that breaks off ends with an error, so that nobody takes it for whole.
pub(crate) struct Answer<B, L> {
    /// Gone when the answer has ended.
    source: Option<B>,
    status: StatusCode,
    listener: L,
}

impl<B, L> Answer<B, L>
where
    B: Body<Data = Bytes> + Unpin,
    L: Listener<B::Error>,
{
    /// Watches the body of an answer with this status.
    pub(crate) fn new(source: B, status: StatusCode, listener: L) -> Self {
        let is_over = source.is_end_stream();
        let mut answer = Self { source: Some(source), status, listener };
        if is_over {
            answer.end();
        }
        answer
    }

    fn end(&mut self) {
        if self.source.take().is_some() {
            let status = Status::new(code(self.status), self.status.as_str().to_owned());
            self.listener.ended(End::said(&status, true));
        }
    }
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
        match ready!(Pin::new(&mut *source).poll_frame(context)) {
            Some(Ok(frame)) => {
                if source.is_end_stream() {
                    this.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                let broken = this.listener.broken(error);
                let status = fault::status(&broken);
                this.source = None;
                this.listener.ended(End { status: &status, broken: Some(&broken), is_begun: true });
                Poll::Ready(Some(Err(status)))
            }
            None => {
                this.end();
                Poll::Ready(None)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_that_strangers_make_up_are_one_method() {
        assert_eq!(path(&Method::GET), "/http/GET");
        assert_eq!(path(&Method::from_bytes(b"PURGE").unwrap()), "/http/_OTHER");
    }

    #[test]
    fn a_status_says_whether_the_instance_is_well() {
        for (status, said) in [
            (200, Code::Ok),
            (404, Code::Ok),
            (429, Code::ResourceExhausted),
            (500, Code::Internal),
            (501, Code::Ok),
            (503, Code::Unavailable),
        ] {
            assert_eq!(code(StatusCode::from_u16(status).unwrap()), said, "{status}");
        }
    }
}
