//! Copies of requests, for those who only listen.
//!
//! A copy never stands in the way: it is made of what passes anyway, waits in a bounded queue, is dropped where that is
//! full, and its answer is read to its end and forgotten.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::{HeaderValue, Request};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt as _, Limited};
use ninefold::connect::{Channel, Subset};
use ninefold::lifecycle::{Scope, Stop};
use ninefold::telemetry::Count;
use ninefold::tonic::Status;
use ninefold::tonic::body::Body;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tower::ServiceExt as _;

use crate::reply;

/// Tells a service that it only listens.
pub(crate) const HEADER: &str = "x-ninefold-mirrored";
/// Largest request that is copied.
const REQUEST_BYTES_MAX: usize = 256 << 10;
/// Most of an answer that is read.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Most copies that wait.
const WAITING_MAX: usize = 128;
/// Most copies under way.
const UNDER_WAY_MAX: usize = 64;
/// Longest time for one copy.
const TIME_MAX: Duration = Duration::from_secs(15);

/// Sends copies. Clones share a queue.
#[derive(Clone, Debug)]
pub(crate) struct Mirrors {
    waiting: mpsc::Sender<Copy>,
    dropped: Count,
}

/// A request that is copied.
#[derive(Debug)]
pub(crate) struct Copy {
    channel: Channel,
    request: Request<Bytes>,
}

impl Mirrors {
    /// Sends copies in a task of `scope`.
    pub(crate) fn start(scope: &Scope) -> Self {
        let (waiting, copies) = mpsc::channel(WAITING_MAX);
        scope.run("gateway.mirror", |stop| send(copies, stop));
        let about = "Copies of requests that found no place, or were too large";
        Self { waiting, dropped: Count::new("ninefold_gateway_mirror_dropped_total", about) }
    }

    /// A copy of a call, without its body yet.
    pub(crate) fn copy(&self, call: &Request<()>, channel: Channel, subset: Subset) -> Draft {
        let mut head = Request::new(());
        call.method().clone_into(head.method_mut());
        call.uri().clone_into(head.uri_mut());
        *head.version_mut() = call.version();
        call.headers().clone_into(head.headers_mut());
        head.headers_mut().insert(HEADER, HeaderValue::from_static("1"));
        head.extensions_mut().insert(subset);
        Draft { mirrors: self.clone(), head, channel }
    }
}

/// A copy that lacks its body.
#[derive(Debug)]
pub(crate) struct Draft {
    mirrors: Mirrors,
    head: Request<()>,
    channel: Channel,
}

impl Draft {
    /// Sends the copy with this body, if there is room.
    pub(crate) fn send(self, body: Bytes) {
        let Self { mirrors, head, channel } = self;
        let copy = Copy { channel, request: head.map(|()| body) };
        if copy.request.body().len() > REQUEST_BYTES_MAX || mirrors.waiting.try_send(copy).is_err() {
            mirrors.dropped.add(&[]);
        }
    }

    /// A body that is copied while it passes; the copy is sent when it has passed whole.
    pub(crate) fn follow(self, body: Body) -> Body {
        Body::new(Followed { body, copied: BytesMut::new(), draft: Some(self) })
    }
}

async fn send(mut copies: mpsc::Receiver<Copy>, stop: Stop) {
    let mut under_way = FuturesUnordered::new();
    loop {
        // Nothing is lost when an arm is dropped: the queue and the set keep what they have.
        tokio::select! {
            () = stop.asked() => return,
            Some(()) = under_way.next(), if !under_way.is_empty() => {}
            copy = copies.recv(), if under_way.len() < UNDER_WAY_MAX => match copy {
                Some(Copy { channel, request }) => under_way.push(async move {
                    let heard = async {
                        let Ok(answer) = channel.oneshot(request.map(reply::body)).await;
                        // Read to its end, so that a service is not told that nobody wants its answer.
                        let _ = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
                    };
                    let _ = timeout(TIME_MAX, heard).await;
                }),
                None => return stop.asked().await,
            },
        }
    }
}

struct Followed {
    body: Body,
    copied: BytesMut,
    draft: Option<Draft>,
}

impl Followed {
    fn end(&mut self) {
        if let Some(draft) = self.draft.take() {
            draft.send(std::mem::take(&mut self.copied).freeze());
        }
    }
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref().filter(|_| this.draft.is_some()) {
                    this.copied.extend_from_slice(data);
                    if this.copied.len() > REQUEST_BYTES_MAX
                        && let Some(draft) = this.draft.take()
                    {
                        draft.mirrors.dropped.add(&[]);
                        this.copied = BytesMut::new();
                    }
                }
                if this.body.is_end_stream() {
                    this.end();
                }
            }
            Some(Err(_)) => this.draft = None,
            None => this.end(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
