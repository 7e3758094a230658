//! Messages out of the envelopes of a request.

use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use ninefold::tonic::body::Body;

use super::words::PACKED;
use crate::error::Error;
use crate::frames::{Packing, unpack};

/// A flag and a length.
const PREFIX: usize = 5;

/// Reads the messages of a request, one at a time: more of the body is read only when the service takes more.
#[derive(Debug)]
pub(crate) struct Envelopes {
    body: Body,
    buffer: BytesMut,
    packing: Packing,
    bytes_max: usize,
    pause: Option<Duration>,
}

impl Envelopes {
    /// Reads messages of at most `bytes_max`, which come with pauses of at most `pause`.
    pub(crate) fn new(body: Body, packing: Packing, bytes_max: usize, pause: Option<Duration>) -> Self {
        Self { body, buffer: BytesMut::new(), packing, bytes_max, pause }
    }

    /// The next message; `None` at the end.
    ///
    /// # Errors
    /// [`Error::BodyTooLarge`], [`Error::BodyBroken`], [`Error::BodyTimeout`], and [`Error::RequestInvalid`] for what is no
    /// envelope.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(message) = self.buffered()? {
                return Ok(Some(message));
            }
            let frame = match self.pause {
                Some(pause) => {
                    tokio::time::timeout(pause, self.body.frame()).await.map_err(|_| Error::BodyTimeout(pause))?
                }
                None => self.body.frame().await,
            };
            match frame {
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Error::invalid("", "ends within an envelope")),
                Some(Err(status)) => return Err(Error::BodyBroken(status.into())),
                // Trailers of a request mean nothing to a call.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }

    fn buffered(&mut self) -> Result<Option<Bytes>, Error> {
        let Some([flag, length @ ..]) = self.buffer.first_chunk::<PREFIX>() else { return Ok(None) };
        let (flag, length) = (*flag, usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX));
        if length > self.bytes_max {
            return Err(Error::BodyTooLarge(self.bytes_max));
        }
        if self.buffer.len() < PREFIX + length {
            self.buffer.reserve(PREFIX + length - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        let message = self.buffer.split_to(length).freeze();
        match (flag, self.packing) {
            (0, _) => Ok(Some(message)),
            (PACKED, Packing::Gzip) if message.is_empty() => Ok(Some(message)),
            (PACKED, Packing::Gzip) => match unpack(&message, self.bytes_max) {
                Some(message) => Ok(Some(message)),
                None => Err(Error::invalid("", "has an envelope that cannot be unpacked, or is too large")),
            },
            (PACKED, Packing::Plain) => {
                Err(Error::invalid("", "has an envelope that is packed in a way that it does not name"))
            }
            _ => Err(Error::invalid("", "has an envelope with a flag that nobody knows")),
        }
    }
}
