//! gRPC messages out of a body, and into one.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use ninefold::tonic::Status;
use ninefold::tonic::body::Body;

/// A message's flag and length.
const PREFIX: usize = 5;

/// Why a body gives no more messages.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The body failed.
    Body(Status),
    /// The body breaks the protocol, as a sentence fragment.
    Protocol(&'static str),
}

/// Puts a message into a body.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(PREFIX + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("bodies are limited to far less than 4 GiB"));
    frame.put_slice(message);
    frame.freeze()
}

/// How the messages of a body are packed, where one of them says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    /// None may be.
    Plain,
    /// By gzip.
    Gzip,
}

impl Packing {
    /// What a header says, such as `grpc-encoding`.
    pub(crate) fn of(headers: &HeaderMap, name: &str) -> Self {
        match headers.get(name) {
            Some(packing) if packing == "gzip" => Self::Gzip,
            Some(_) | None => Self::Plain,
        }
    }
}

/// Unpacks gzip, to `bytes_max` at most. `None` for what is no gzip, or larger.
pub(crate) fn unpack(packed: &[u8], bytes_max: usize) -> Option<Bytes> {
    use std::io::Read as _;
    let mut plain = Vec::with_capacity(packed.len().saturating_mul(2).min(bytes_max));
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    flate2::read::GzDecoder::new(packed).take(limit).read_to_end(&mut plain).ok()?;
    (plain.len() <= bytes_max).then(|| plain.into())
}

/// Reads the messages of an answer.
#[derive(Debug)]
pub(crate) struct Frames {
    body: Body,
    /// The beginning of a message that arrived in pieces.
    buffer: BytesMut,
    /// What arrived last. A message that is whole in it is handed on without a copy.
    arrived: Bytes,
    packing: Packing,
    trailers: Option<HeaderMap>,
    message_bytes_max: usize,
    is_ended: bool,
}

impl Frames {
    /// Reads messages of at most `message_bytes_max` from a body.
    pub(crate) fn new(body: Body, message_bytes_max: usize) -> Self {
        Self {
            body,
            buffer: BytesMut::new(),
            arrived: Bytes::new(),
            packing: Packing::Plain,
            trailers: None,
            message_bytes_max,
            is_ended: false,
        }
    }

    /// Reads messages that may be packed.
    pub(crate) fn packed(mut self, packing: Packing) -> Self {
        self.packing = packing;
        self
    }

    /// The next message; `None` at the end, when the trailers are there. Cancel safe: what was read stays.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        loop {
            if let Some(message) = self.buffered()? {
                return Ok(Some(message));
            }
            if self.is_ended {
                return if self.buffer.is_empty() && self.arrived.is_empty() {
                    Ok(None)
                } else {
                    Err(Broken::Protocol("its answer ends within a message"))
                };
            }
            match self.body.frame().await {
                None => self.is_ended = true,
                Some(Err(status)) => return Err(Broken::Body(status)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.arrived = data,
                    Err(frame) => {
                        self.trailers = frame.into_trailers().ok();
                        self.is_ended = true;
                    }
                },
            }
        }
    }

    /// A message that is there whole. After `None`, nothing is left in `arrived`.
    fn buffered(&mut self) -> Result<Option<Bytes>, Broken> {
        if self.buffer.is_empty() {
            let Some(length) = self.length(&self.arrived)? else {
                self.keep();
                return Ok(None);
            };
            if self.arrived.len() >= PREFIX + length {
                let flag = self.arrived[0];
                self.arrived.advance(PREFIX);
                let message = self.arrived.split_to(length);
                return self.plain(flag, message).map(Some);
            }
        }
        self.keep();
        let Some(length) = self.length(&self.buffer)? else { return Ok(None) };
        if self.buffer.len() < PREFIX + length {
            self.buffer.reserve(PREFIX + length - self.buffer.len());
            return Ok(None);
        }
        let flag = self.buffer[0];
        self.buffer.advance(PREFIX);
        let message = self.buffer.split_to(length).freeze();
        self.plain(flag, message).map(Some)
    }

    /// Keeps what arrived behind what arrived before.
    fn keep(&mut self) {
        self.buffer.extend_from_slice(&self.arrived);
        self.arrived = Bytes::new();
    }

    fn length(&self, bytes: &[u8]) -> Result<Option<usize>, Broken> {
        let Some([_, length @ ..]) = bytes.first_chunk::<PREFIX>() else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > self.message_bytes_max {
            return Err(Broken::Protocol("its answer is larger than the edge turns into JSON"));
        }
        Ok(Some(length))
    }

    fn plain(&self, flag: u8, message: Bytes) -> Result<Bytes, Broken> {
        match (flag, self.packing) {
            (0, _) => Ok(message),
            (_, Packing::Plain) => Err(Broken::Protocol("its answer is compressed in a way that it does not name")),
            (1, Packing::Gzip) => unpack(&message, self.message_bytes_max)
                .ok_or(Broken::Protocol("its answer cannot be unpacked, or is larger than the edge turns into JSON")),
            (_, Packing::Gzip) => Err(Broken::Protocol("its answer has a flag that nobody knows")),
        }
    }

    /// The trailers, once they are there.
    pub(crate) const fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref()
    }

    /// The status in the trailers; UNKNOWN if there is none, as gRPC says.
    pub(crate) fn status(&self) -> Status {
        let found = self.trailers.as_ref().and_then(Status::from_header_map);
        found.unwrap_or_else(|| Status::unknown("the answer ended without a status"))
    }
}

/// A body of gRPC messages that breaks off where one is larger than allowed. Looks at lengths only.
#[derive(Debug)]
pub(crate) struct Bounded {
    body: Body,
    message_bytes_max: usize,
    is_too_large: Arc<AtomicBool>,
    boundaries: Boundaries,
}

/// Where the messages of a body begin and end. Looks at lengths only.
#[derive(Debug, Default)]
pub(crate) struct Boundaries {
    prefix: [u8; PREFIX],
    /// How much of the prefix is there.
    prefix_bytes: usize,
    /// Bytes of the message under way that are still to come.
    left: usize,
}

impl Boundaries {
    /// Whether no message is under way.
    pub(crate) const fn is_between(&self) -> bool {
        self.left == 0 && self.prefix_bytes == 0
    }

    /// Passes over what comes next.
    pub(crate) fn pass(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let _ = self.step(&mut data);
        }
    }

    /// Passes over a part of what comes next; answers the length of the message that begins with it, if one does.
    fn step(&mut self, data: &mut &[u8]) -> Option<usize> {
        if self.left > 0 {
            let used = self.left.min(data.len());
            self.left -= used;
            *data = &data[used..];
            return None;
        }
        let used = (PREFIX - self.prefix_bytes).min(data.len());
        self.prefix[self.prefix_bytes..][..used].copy_from_slice(&data[..used]);
        self.prefix_bytes += used;
        *data = &data[used..];
        if self.prefix_bytes < PREFIX {
            return None;
        }
        let [_, length @ ..] = self.prefix;
        self.prefix_bytes = 0;
        self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        Some(self.left)
    }
}

impl Bounded {
    /// Bounds the messages of a body; `is_too_large` is told when one is larger.
    pub(crate) fn new(body: Body, message_bytes_max: usize, is_too_large: Arc<AtomicBool>) -> Self {
        Self { body, message_bytes_max, is_too_large, boundaries: Boundaries::default() }
    }

    fn allows(&mut self, mut data: &[u8]) -> bool {
        while !data.is_empty() {
            if self.boundaries.step(&mut data).is_some_and(|length| length > self.message_bytes_max) {
                return false;
            }
        }
        true
    }
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && !this.allows(data)
        {
            this.is_too_large.store(true, Ordering::Relaxed);
            return Poll::Ready(Some(Err(Status::resource_exhausted("a message is larger than the edge takes"))));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_message_that_is_too_large_is_refused_however_it_is_cut() {
        for piece in 1..12 {
            let passes = |sizes: &[usize]| {
                let bytes: Vec<u8> = sizes.iter().flat_map(|size| framed(&vec![1; *size])).collect();
                let mut bounded = Bounded::new(Body::empty(), 10, Arc::default());
                bytes.chunks(piece).all(|piece| bounded.allows(piece))
            };
            assert!(passes(&[0, 10, 3, 0, 10]));
            assert!(!passes(&[3, 11]));
        }
    }

    #[tokio::test]
    async fn packed_messages_are_unpacked_and_a_bomb_is_not() {
        let read = async |plain: &[u8], bytes_max: usize, packing| {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut packed, plain).unwrap();
            let packed = packed.finish().unwrap();
            let mut frame = vec![1];
            frame.extend(u32::try_from(packed.len()).unwrap().to_be_bytes());
            frame.extend(packed);
            let body = Body::new(http_body_util::Full::new(Bytes::from(frame)));
            Frames::new(body, bytes_max).packed(packing).next().await
        };
        assert_eq!(read(b"hello", 100, Packing::Gzip).await.unwrap().unwrap(), "hello");
        assert!(read(&[0; 100_000], 1000, Packing::Gzip).await.is_err());
        assert!(read(b"hello", 100, Packing::Plain).await.is_err());
    }

    #[tokio::test]
    async fn messages_are_read_however_they_are_cut() {
        let bytes: Vec<u8> = [framed(b"one"), framed(b""), framed(b"three")].concat();
        for piece in 1..bytes.len() {
            let pieces: Vec<_> =
                bytes.chunks(piece).map(|piece| Ok::<_, Status>(Frame::data(Bytes::copy_from_slice(piece)))).collect();
            let body = Body::new(http_body_util::StreamBody::new(tokio_stream::iter(pieces)));
            let mut frames = Frames::new(body, 100);
            let mut messages = Vec::new();
            while let Some(message) = frames.next().await.unwrap() {
                messages.push(message);
            }
            assert_eq!(messages, ["one", "", "three"]);
            assert_eq!(frames.status().code(), ninefold::tonic::Code::Unknown, "no trailers, no status");
        }
    }
}
