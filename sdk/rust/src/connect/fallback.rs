//! Answers instead of those that cannot be had.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use prost::Message;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::connect::channel::Response;
use crate::connect::replay::Replay;

/// What comes before a message on the wire: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// A response extension: no instance has answered; the caller's own fallback has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FellBack;

type Answer = dyn Fn(Bytes, &Status) -> Option<Bytes> + Send + Sync;

/// Fallbacks of a channel, by path.
#[derive(Clone, Default)]
pub(crate) struct Fallbacks(Option<Arc<HashMap<String, Arc<Answer>>>>);

impl fmt::Debug for Fallbacks {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_set().entries(self.0.iter().flat_map(|all| all.keys())).finish()
    }
}

impl Fallbacks {
    pub(crate) fn add<Q, A, F>(&mut self, method: &str, answer: F)
    where
        Q: Message + Default,
        A: Message,
        F: Fn(Q, &Status) -> Option<A> + Send + Sync + 'static,
    {
        let mut all = self.0.as_deref().cloned().unwrap_or_default();
        let path = format!("/{}", method.trim_start_matches('/'));
        all.insert(
            path,
            Arc::new(move |request, why| Some(answer(Q::decode(request).ok()?, why)?.encode_to_vec().into())),
        );
        self.0 = Some(Arc::new(all));
    }

    /// Whether there is one for a path.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.0.as_ref().is_some_and(|all| all.contains_key(path))
    }

    /// Answers a call. `None` where there is no fallback, or it has no answer, or the request cannot be read again.
    pub(crate) async fn answer(&self, path: &str, request: &Replay, why: &Status) -> Option<Response> {
        let answer = self.0.as_ref()?.get(path)?;
        let request = message(&request.body().collect().await.ok()?.to_bytes())?;
        Some(response(&answer(request, why)?))
    }
}

/// Whether a status means that nobody worked on the call, or nobody knows.
pub(crate) fn is_refusal(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded)
}

/// The one message in a request. `None` if it is compressed, or there are several.
fn message(body: &Bytes) -> Option<Bytes> {
    let (prefix, message) = body.split_first_chunk::<PREFIX>()?;
    let [is_compressed, length @ ..] = prefix;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    (*is_compressed == 0 && message.len() == length).then(|| body.slice(PREFIX..))
}

fn response(message: &[u8]) -> Response {
    let mut data = BytesMut::with_capacity(PREFIX + message.len());
    data.put_u8(0);
    data.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    data.put_slice(message);
    let mut trailers = HeaderMap::new();
    trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
    let frames = [Ok::<_, Status>(Frame::data(data.freeze())), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(Body::new(StreamBody::new(futures_util::stream::iter(frames))));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response.extensions_mut().insert(FellBack);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_plain_message_is_read() {
        assert_eq!(message(&Bytes::from_static(b"\0\0\0\0\x02ab")).unwrap(), "ab");
        for strange in [&b""[..], b"\0\0\0\0", b"\0\0\0\0\x02a", b"\x01\0\0\0\x02ab", b"\0\0\0\0\x01ab"] {
            assert_eq!(message(&Bytes::from_static(strange)), None, "{strange:?}");
        }
    }
}
