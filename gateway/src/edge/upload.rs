//! A body that becomes a stream of messages while it arrives.
//!
//! One message at a time is held: more of the body is read only when the service takes more. JSON is cut into messages and
//! each is bound as a body of its own, so what the path says holds for every one of them. A body of a type of its own
//! (`google.api.HttpBody`) is handed on in pieces of at most 64 KiB, its bytes as they arrived.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use ninefold::tonic::Status;
use ninefold::tonic::body::Body;
use prost_reflect::Kind;
use tokio::sync::watch;

use crate::binding;
use crate::config::Config;
use crate::error::Error;
use crate::frames::framed;
use crate::path::Path;
use crate::routes::Route;
use crate::transcode::elements::{Broken, Cutter, Shape};
use crate::transcode::notation::Notation;
use crate::transcode::{self, is_http_body};

/// Largest piece of a body of a type of its own.
const PIECE_BYTES_MAX: usize = 64 << 10;

/// What became of an upload. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Upload {
    given_up: Arc<Mutex<Option<Error>>>,
    ended: watch::Receiver<bool>,
}

impl Upload {
    /// Why it was given up, if it was. What the service says about a call that was given up for it is beside the point.
    pub(super) fn given_up(&self) -> Option<Error> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits until all of it was handed on.
    pub(super) async fn ended(&self) {
        // A sender that is gone hands nothing on any more.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }
}

/// What of a request each message is made with.
#[derive(Debug)]
pub(super) struct Around {
    pub(super) route: Route,
    pub(super) path: Path,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) notation: Notation,
}

impl Around {
    fn message(&self, headers: &HeaderMap, body: Bytes) -> Result<Bytes, Error> {
        let binding = self.route.binding.as_ref().expect("routes in the REST table have a binding");
        let parts = transcode::Parts { path: &self.path, query: &self.query, headers, body, notation: self.notation };
        transcode::request(&self.route.method, binding, &parts)
    }
}

/// Makes the body of a call out of the body of a request.
///
/// # Errors
/// As for [`transcode::request`], where that can be said before the first message.
pub(super) fn start(config: &Config, around: Around, body: Body) -> Result<(Body, Upload), Error> {
    let kind = Kinds::of(config, &around)?;
    // Where both sides talk, silence is no fault of the caller.
    let pause = (!around.route.method.is_server_streaming).then_some(config.body_timeout);
    let reader =
        Reader { body, kind, around, pause, bytes_max: config.body_bytes_max, ready: VecDeque::new(), is_ended: false };
    let parts = futures_util::stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        match reader.next().await {
            Ok(Some(part)) => Some((Ok(part), Some(reader))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(handed_on(parts))
}

/// Makes the body of a call out of its parts; an error among them gives the call up.
pub(super) fn handed_on<P>(parts: P) -> (Body, Upload)
where
    P: Stream<Item = Result<Bytes, Error>> + Send + 'static,
{
    let (sender, ended) = watch::channel(false);
    let upload = Upload { given_up: Arc::default(), ended };
    let state = Some((parts.boxed(), sender, upload.given_up.clone()));
    let parts = futures_util::stream::unfold(state, |state| async move {
        let (mut parts, sender, given_up) = state?;
        match parts.next().await {
            Some(Ok(part)) => Some((Ok(Frame::data(part)), Some((parts, sender, given_up)))),
            None => {
                let _ = sender.send(true);
                None
            }
            Some(Err(error)) => {
                *given_up.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Some((Err(Status::cancelled("the caller's stream was refused")), None))
            }
        }
    });
    (Body::new(StreamBody::new(parts)), upload)
}

/// How the body is read.
#[derive(Debug)]
enum Kinds {
    /// It has to be empty; path and query are the one message.
    Nothing,
    Json(Cutter),
    Pieces(Pieces),
}

impl Kinds {
    fn of(config: &Config, around: &Around) -> Result<Self, Error> {
        let binding = around.route.binding.as_ref().expect("routes in the REST table have a binding");
        let (numbers, holder) = match &binding.body {
            binding::Body::Nowhere => return Ok(Self::Nothing),
            binding::Body::Whole => (Vec::new(), Some(around.route.method.input.clone())),
            binding::Body::Field(path) => {
                let (field, _) = path.split();
                let holder = match field.kind() {
                    Kind::Message(inner) if !field.is_list() && !field.is_map() => Some(inner),
                    _ => None,
                };
                (path.numbers().collect(), holder)
            }
        };
        if holder.is_some_and(|holder| is_http_body(&holder)) {
            let kind = around.headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes().to_vec()).unwrap_or_default();
            // What path and query say is in every piece, so that a service may look at any of them.
            let bound = around.message(&HeaderMap::new(), Bytes::new())?;
            return Ok(Self::Pieces(Pieces { numbers, bound, kind: Some(kind) }));
        }
        // What the path says is wrong before the first message.
        around.message(&HeaderMap::new(), Bytes::new())?;
        let shape = Shape::of(&around.headers).map_err(Error::MediaTypeUnsupported)?;
        Ok(Self::Json(Cutter::new(shape, config.body_bytes_max)))
    }
}

/// How pieces become messages.
#[derive(Debug)]
struct Pieces {
    /// The way to the field that the body is.
    numbers: Vec<u32>,
    bound: Bytes,
    /// The type of the body, until the first piece has taken it along.
    kind: Option<Vec<u8>>,
}

impl Pieces {
    /// What stands before the bytes of a piece of this length.
    fn head(&mut self, length: usize) -> Bytes {
        let mut head = Vec::new();
        if let Some(kind) = self.kind.take().filter(|kind| !kind.is_empty()) {
            put_head(&mut head, 1, kind.len());
            head.extend(kind);
        }
        put_head(&mut head, 2, length);
        for number in self.numbers.iter().rev() {
            let mut outer = Vec::new();
            put_head(&mut outer, *number, head.len() + length);
            outer.append(&mut head);
            head = outer;
        }
        let mut frame = BytesMut::with_capacity(5 + self.bound.len() + head.len());
        frame.put_u8(0);
        let whole = self.bound.len() + head.len() + length;
        frame.put_u32(u32::try_from(whole).expect("pieces and heads are far smaller than 4 GiB"));
        frame.put_slice(&self.bound);
        frame.put_slice(&head);
        frame.freeze()
    }
}

/// Writes the tag and the length of a field.
fn put_head(out: &mut Vec<u8>, number: u32, length: usize) {
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, out);
    prost::encoding::encode_varint(length as u64, out);
}

struct Reader {
    body: Body,
    kind: Kinds,
    around: Around,
    pause: Option<Duration>,
    bytes_max: usize,
    /// Parts of the call's body that are still to be handed on.
    ready: VecDeque<Bytes>,
    is_ended: bool,
}

impl Reader {
    /// The next part of the call's body.
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(part) = self.ready.pop_front() {
                return Ok(Some(part));
            }
            if let Kinds::Json(cutter) = &mut self.kind
                && let Some(element) = cutter.next(self.is_ended).map_err(|broken| match broken {
                    Broken::TooLarge => Error::BodyTooLarge(self.bytes_max),
                    Broken::Malformed(why) => Error::invalid("", why),
                })?
            {
                // The type of the whole is none of an element's.
                return Ok(Some(framed(&self.around.message(&HeaderMap::new(), element)?)));
            }
            if self.is_ended {
                return Ok(None);
            }
            match self.data().await? {
                Some(data) => self.take(data)?,
                None => {
                    self.is_ended = true;
                    self.end()?;
                }
            }
        }
    }

    /// More of the request's body.
    async fn data(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let frame = match self.pause {
                Some(pause) => {
                    tokio::time::timeout(pause, self.body.frame()).await.map_err(|_| Error::BodyTimeout(pause))?
                }
                None => self.body.frame().await,
            };
            match frame {
                None => return Ok(None),
                Some(Err(status)) => return Err(Error::BodyBroken(status.into())),
                // Trailers of a request mean nothing to a call.
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Ok(Some(data)),
                    Ok(_) | Err(_) => {}
                },
            }
        }
    }

    fn take(&mut self, mut data: Bytes) -> Result<(), Error> {
        match &mut self.kind {
            Kinds::Nothing => return Err(Error::invalid("", "this route takes no body")),
            Kinds::Json(cutter) => cutter.push(&data),
            Kinds::Pieces(pieces) => {
                while !data.is_empty() {
                    let piece = data.split_to(data.len().min(PIECE_BYTES_MAX));
                    self.ready.push_back(pieces.head(piece.len()));
                    self.ready.push_back(piece);
                }
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Error> {
        match &mut self.kind {
            Kinds::Nothing => {
                let message = self.around.message(&HeaderMap::new(), Bytes::new())?;
                self.ready.push_back(framed(&message));
            }
            // An empty body is one empty piece: its type and what the path says must arrive.
            Kinds::Pieces(pieces) if pieces.kind.is_some() => self.ready.push_back(pieces.head(0)),
            Kinds::Pieces(_) | Kinds::Json(_) => {}
        }
        Ok(())
    }
}
