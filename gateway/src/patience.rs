//! How long the edge waits for a client that takes nothing of what it is told.
//!
//! What a client does not read, the edge does not ask its service for: a stream then stands still with what its windows
//! hold, and would for ever. [`Patient`] gives a connection up on which nothing can be written. On HTTP/2 a client may
//! read its connection and let one answer wait, by its window; [`Answers`] gives up such an answer, and with it the call
//! behind it, while the others of the connection go on.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use ninefold::tonic::Status;
use ninefold::tonic::body::Body;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// Most bytes of an answer that are handed to a connection at once, so that a client that stops within a large message is
/// noticed too.
const PIECE_BYTES_MAX: usize = 64 << 10;
/// How often in its time a waiting answer is looked at.
const LOOKS: u32 = 4;
/// Most bytes of a connection that the system keeps before it sends them.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT_BYTES_MAX: u32 = 128 << 10;

/// Has the system tell soon that a slow client took something.
///
/// Linux lets a full connection be written to again when a third of its buffer is free, which may be a megabyte: a client
/// that takes some kilobytes a second would look like one that takes nothing. So it keeps little that it cannot send, and
/// tells when half of that has left. It also holds less memory for each of them.
pub(crate) fn hear_small_reads(stream: &TcpStream) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    // A connection that cannot be set up so is given up sooner, not broken.
    let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = stream;
}

/// A connection that breaks when nothing can be written for too long.
#[derive(Debug)]
pub(crate) struct Patient<S> {
    stream: S,
    limit: Duration,
    /// Runs while something waits to be written.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    /// Gives a stream up that takes nothing for `limit`.
    pub(crate) const fn new(stream: S, limit: Duration) -> Self {
        Self { stream, limit, waiting: None }
    }

    fn judge<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.waiting = None;
            return outcome;
        }
        let limit = self.limit;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(waiting.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing of its answers")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.judge(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(context);
        self.judge(context, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(context);
        self.judge(context, outcome)
    }
}

/// The answers of one HTTP/2 connection that are under way. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers(Arc<Mutex<Shelf>>);

#[derive(Debug, Default)]
struct Shelf {
    next: u64,
    answers: HashMap<u64, Arc<Mutex<Held>>>,
}

/// An answer under way.
#[derive(Debug)]
struct Held {
    /// What is still to come; none when it was given up.
    body: Option<Body>,
    /// The rest of a piece that was too large.
    left: Bytes,
    /// Since when the client has to take something before it is given more.
    since: Option<Instant>,
}

impl Answers {
    /// Looks after a body to its end.
    pub(crate) fn hold(&self, body: Body) -> Body {
        let held = Held { body: Some(body), left: Bytes::new(), since: Some(Instant::now()) };
        let held = Arc::new(Mutex::new(held));
        let mut shelf = lock(&self.0);
        let number = shelf.next;
        shelf.next += 1;
        shelf.answers.insert(number, held.clone());
        drop(shelf);
        Body::new(OnShelf { held, number, answers: self.clone() })
    }

    /// Gives up each answer that a client lets wait for `limit`, for as long as it is polled.
    pub(crate) async fn look_after(&self, limit: Duration) -> Infallible {
        loop {
            tokio::time::sleep(limit / LOOKS).await;
            self.give_up(limit);
        }
    }

    fn give_up(&self, limit: Duration) {
        let answers: Vec<_> = lock(&self.0).answers.values().cloned().collect();
        for answer in answers {
            // One that is being polled goes on.
            let Ok(mut held) = answer.try_lock() else { continue };
            if held.since.is_some_and(|since| since.elapsed() >= limit) {
                tracing::debug!("an answer was given up: its client takes nothing of it");
                // Dropping a body leaves the call that it comes from.
                let given_up = (held.body.take(), std::mem::take(&mut held.left));
                held.since = None;
                drop(held);
                drop(given_up);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A body that is looked after.
struct OnShelf {
    held: Arc<Mutex<Held>>,
    number: u64,
    answers: Answers,
}

impl Drop for OnShelf {
    fn drop(&mut self) {
        lock(&self.answers.0).answers.remove(&self.number);
    }
}

impl http_body::Body for OnShelf {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let held = &mut *lock(&self.held);
        if !held.left.is_empty() {
            held.since = Some(Instant::now());
            let length = held.left.len().min(PIECE_BYTES_MAX);
            return Poll::Ready(Some(Ok(Frame::data(held.left.split_to(length)))));
        }
        let Some(body) = &mut held.body else {
            return Poll::Ready(Some(Err(Status::cancelled("the client takes nothing of its answer"))));
        };
        // While the service is waited for, the client is not.
        held.since = None;
        let frame = ready!(Pin::new(body).poll_frame(context));
        let Some(Ok(frame)) = frame else { return Poll::Ready(frame) };
        Poll::Ready(Some(Ok(match frame.into_data() {
            Ok(mut data) => {
                held.since = Some(Instant::now());
                held.left = data.split_off(data.len().min(PIECE_BYTES_MAX));
                Frame::data(data)
            }
            Err(trailers) => trailers,
        })))
    }

    fn is_end_stream(&self) -> bool {
        let held = lock(&self.held);
        held.left.is_empty() && held.body.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let held = lock(&self.held);
        let mut hint = held.body.as_ref().map(Body::size_hint).unwrap_or_default();
        let left = held.left.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + left);
        }
        hint.set_lower(hint.lower() + left);
        hint
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use http_body::Body as _;
    use http_body_util::{BodyExt as _, Full, StreamBody};
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_given_up_when_nothing_is_read_from_it_and_only_then() {
        let (here, mut there) = tokio::io::duplex(16);
        let mut patient = Patient::new(here, LIMIT);
        let slow = async {
            for _ in 0..4 {
                tokio::time::sleep(LIMIT - Duration::from_secs(1)).await;
                tokio::io::AsyncReadExt::read_exact(&mut there, &mut [0; 16]).await.unwrap();
            }
            there
        };
        let (written, _there) = tokio::join!(patient.write_all(&[1; 80]), slow);
        written.expect("a slow reader is waited for");
        let begun = Instant::now();
        assert_eq!(patient.write_all(&[1; 80]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(begun.elapsed().as_secs(), LIMIT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_given_up_when_its_client_lets_it_wait() {
        let answers = Answers::default();
        let mut large = answers.hold(Body::new(Full::new(Bytes::from(vec![1; PIECE_BYTES_MAX + 1]))));
        let mut quiet = answers.hold(Body::new(StreamBody::new(futures_util::stream::pending::<Result<_, Status>>())));
        assert!(quiet.frame().now_or_never().is_none(), "its service is waited for");
        let mut never = answers.hold(Body::new(Full::new(Bytes::from_static(b"x"))));
        assert_eq!(large.size_hint().exact(), Some(PIECE_BYTES_MAX as u64 + 1));
        assert_eq!(large.frame().await.unwrap().unwrap().into_data().unwrap().len(), PIECE_BYTES_MAX);
        assert_eq!((large.is_end_stream(), large.size_hint().exact()), (false, Some(1)));
        let _ = tokio::time::timeout(LIMIT * 2, answers.look_after(LIMIT)).await;
        assert!(large.frame().await.unwrap().is_err(), "nobody took the rest");
        assert!(never.frame().await.unwrap().is_err(), "nobody took any of it");
        assert!(quiet.frame().now_or_never().is_none(), "its service is still waited for");
        drop((large, quiet, never));
        assert!(lock(&answers.0).answers.is_empty(), "what has ended is not kept");
    }

    #[tokio::test]
    async fn an_answer_in_pieces_is_the_same() {
        let bytes: Vec<u8> = (0..200_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        let body = Answers::default().hold(Body::new(Full::new(Bytes::from(bytes.clone()))));
        assert_eq!(body.collect().await.unwrap().to_bytes(), bytes);
    }
}
