//! A message to a watcher as bytes: pieces that are shared with other watchers, and an envelope of its own.

use std::marker::PhantomData;

use bytes::{BufMut, Bytes};
use ninefold_store::Revision;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use tonic::Status;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic_prost::ProstDecoder;

/// Numbers of the fields of the envelope; `HoldWatchResponse` begins as `WatchInstancesResponse` does.
const REVISION: u32 = 4;
const DIGEST: u32 = 5;
const AUTHORITATIVE: u32 = 6;
const ALL_POLICIES: u32 = 7;
const WATCH_ID: u32 = 8;

/// A message to a watcher.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// Number of the field that holds the message.
    pub(crate) kind: u32,
    /// The message, in pieces: fields of one message add up.
    pub(crate) parts: Vec<Bytes>,
    /// Up to which revision the watcher is right.
    pub(crate) revision: Revision,
    /// What its instances come to; `None` for one who does not see them all.
    pub(crate) digest: Option<u64>,
    /// Whether what is not named is surely not there.
    pub(crate) is_authoritative: bool,
    /// Whether the policies in it are all that there are.
    pub(crate) all_policies: bool,
    /// Id of the watch, in its first message; else empty.
    pub(crate) watch_id: String,
}

impl Frame {
    /// All there is.
    pub(crate) const SNAPSHOT: u32 = 1;
    /// What changed.
    pub(crate) const DELTA: u32 = 2;
    /// That the watch lives.
    pub(crate) const HEARTBEAT: u32 = 3;

    /// Writes the message; what `WatchInstancesResponse` does not have only if it `is_whole`.
    pub(crate) fn write(&self, is_whole: bool, into: &mut impl BufMut) {
        let length: usize = self.parts.iter().map(Bytes::len).sum();
        encode_key(self.kind, WireType::LengthDelimited, into);
        encode_varint(u64::try_from(length).expect("fits every usize we build for"), into);
        self.parts.iter().for_each(|part| into.put_slice(part));
        if self.revision.0 != 0 {
            prost::encoding::int64::encode(REVISION, &self.revision.0, into);
        }
        if !is_whole {
            return;
        }
        if let Some(digest) = &self.digest {
            prost::encoding::fixed64::encode(DIGEST, digest, into);
        }
        if self.is_authoritative {
            prost::encoding::bool::encode(AUTHORITATIVE, &true, into);
        }
        if self.all_policies {
            prost::encoding::bool::encode(ALL_POLICIES, &true, into);
        }
        if !self.watch_id.is_empty() {
            prost::encoding::string::encode(WATCH_ID, &self.watch_id, into);
        }
    }

    /// How many bytes [`Frame::write`] writes at the most.
    fn bytes_max(&self) -> usize {
        let length: usize = self.parts.iter().map(Bytes::len).sum();
        let prefix = encoded_len_varint(u64::try_from(length).unwrap_or(u64::MAX)) + key_len(self.kind);
        // Each of the five fields behind has a key of one byte, and at most ten of value.
        prefix + length + 5 * 11 + self.watch_id.len()
    }
}

/// How frames travel: requests are read as ever, answers are written as they are.
#[derive(Debug)]
pub(super) struct FrameCodec<R> {
    is_whole: bool,
    request: PhantomData<fn() -> R>,
}

impl<R> FrameCodec<R> {
    pub(super) fn new(is_whole: bool) -> Self {
        Self { is_whole, request: PhantomData }
    }
}

impl<R: Message + Default + Send + 'static> Codec for FrameCodec<R> {
    type Encode = Frame;
    type Decode = R;
    type Encoder = FrameEncoder;
    type Decoder = ProstDecoder<R>;

    fn encoder(&mut self) -> FrameEncoder {
        FrameEncoder { is_whole: self.is_whole }
    }

    fn decoder(&mut self) -> ProstDecoder<R> {
        ProstDecoder::new(tonic::codec::BufferSettings::default())
    }
}

/// Writes frames.
#[derive(Debug)]
pub(super) struct FrameEncoder {
    is_whole: bool,
}

impl Encoder for FrameEncoder {
    type Item = Frame;
    type Error = Status;

    fn encode(&mut self, frame: Frame, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.reserve(frame.bytes_max());
        frame.write(self.is_whole, into);
        Ok(())
    }
}
