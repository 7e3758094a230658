//! Reads HTTP/1 bytes beside hyper, more strictly.
//!
//! hyper takes bare line feeds, a missing or doubled Host, and resolves `Content-Length` beside `Transfer-Encoding`; what
//! it drops on the way, the layer above never sees. Another reader in front of us might resolve the same bytes
//! differently, and then two parties see two requests. So every byte that hyper reads passes here first. The inspector
//! follows where heads and bodies end, and remembers the first request that breaks a rule; the server refuses that one and
//! closes the connection. HTTP/2 connections are recognized by their preface and left alone: there, lengths are frames.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Most bytes of one line of a chunked body: a size, or a trailer.
const LINE_BYTES_MAX: usize = 4096;

/// What the inspector saw. Shared by the connection's reader and its server, which never run at once.
#[derive(Clone, Debug)]
pub(crate) struct Inspector(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Heads that were begun.
    heads: u64,
    /// The first request that breaks a rule, counted from one, and how.
    violation: Option<(u64, &'static str)>,
    head_bytes_max: usize,
}

#[derive(Debug)]
enum Phase {
    /// Nothing but, maybe, the beginning of a preface has arrived.
    Start(Vec<u8>),
    /// Between requests, or within a head.
    Head(Vec<u8>),
    /// Within a body of a known length.
    Body(u64),
    /// Within the line of a chunk's size.
    ChunkSize(Vec<u8>),
    /// Within a chunk and the line end behind it.
    Chunk(u64),
    /// Within the trailers; whether the line has begun to fill is in the text.
    Trailer(Vec<u8>),
    /// Nothing more to look at.
    Off,
}

impl Inspector {
    /// Begins with a connection.
    pub(crate) fn new(head_bytes_max: usize) -> Self {
        let phase = Phase::Start(Vec::new());
        Self(Arc::new(Mutex::new(State { phase, heads: 0, violation: None, head_bytes_max })))
    }

    /// Why the request of this number, counted from one, is refused.
    pub(crate) fn violation(&self, request: u64) -> Option<&'static str> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.violation.filter(|(at, _)| *at <= request).map(|(_, why)| why)
    }

    /// The first request that breaks a rule, and how.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn first_violation(&self) -> Option<(u64, &'static str)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).violation
    }

    /// How many heads were begun.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn heads(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).heads
    }

    /// Whether anything has arrived.
    pub(crate) fn has_heard(&self) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        !matches!(&state.phase, Phase::Start(seen) if seen.is_empty())
    }

    /// Takes bytes as they arrive.
    pub(crate) fn take(&self, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take(bytes);
    }
}

impl State {
    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.step(bytes) {
                Ok(used) => bytes = &bytes[used..],
                Err(why) => {
                    // A broken body belongs to a request that is under way; its successor is the one to refuse.
                    let at = if matches!(self.phase, Phase::Head(_)) { self.heads } else { self.heads + 1 };
                    self.violation = Some((at, why));
                    self.phase = Phase::Off;
                    return;
                }
            }
        }
    }

    /// Takes some of the bytes; says how many.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, &'static str> {
        match &mut self.phase {
            Phase::Off => Ok(bytes.len()),
            Phase::Start(seen) => {
                let used = bytes.len().min(PREFACE.len() - seen.len());
                seen.extend_from_slice(&bytes[..used]);
                if seen.as_slice() == PREFACE {
                    self.phase = Phase::Off;
                } else if !PREFACE.starts_with(seen) {
                    let seen = std::mem::take(seen);
                    self.phase = Phase::Head(Vec::new());
                    self.take(&seen);
                }
                Ok(used)
            }
            Phase::Head(head) => {
                if head.is_empty() {
                    // Empty lines before a request are overlooked, as the standard says.
                    let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
                    if blank > 0 {
                        return Ok(blank);
                    }
                    self.heads += 1;
                    // Nearly every head comes in one piece, and is read where it lies.
                    if let Some(end) = end_of_head(bytes) {
                        self.phase = after(read_head(&bytes[..end])?);
                        return Ok(end);
                    }
                }
                let from = head.len().saturating_sub(3);
                head.extend_from_slice(bytes);
                let Some(end) = end_of_head(&head[from..]).map(|end| from + end) else {
                    if head.len() > self.head_bytes_max {
                        return Err("the head is too large");
                    }
                    return Ok(bytes.len());
                };
                let used = bytes.len() - (head.len() - end);
                head.truncate(end);
                self.phase = after(read_head(head)?);
                Ok(used)
            }
            Phase::Body(left) => {
                let used = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= used as u64;
                if *left == 0 {
                    self.phase = Phase::Head(Vec::new());
                }
                Ok(used)
            }
            Phase::ChunkSize(line) => {
                let Some((line, used)) = grown(line, bytes)? else { return Ok(bytes.len()) };
                let size = chunk_size(&line)?;
                // The line end behind a chunk counts as a part of it.
                self.phase = if size == 0 { Phase::Trailer(Vec::new()) } else { Phase::Chunk(size + 2) };
                Ok(used)
            }
            Phase::Chunk(left) => {
                let used = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                let before = *left;
                *left -= used as u64;
                let left = *left;
                if left < 2 {
                    let tail = &bytes[used - usize::try_from(before.min(2) - left).unwrap_or(0).min(used)..used];
                    let expected: &[u8] = match (before, left) {
                        (1, _) => b"\n",
                        (_, 1) => b"\r",
                        _ => b"\r\n",
                    };
                    if tail != expected {
                        return Err("a chunk does not end where it says");
                    }
                }
                if left == 0 {
                    self.phase = Phase::ChunkSize(Vec::new());
                }
                Ok(used)
            }
            Phase::Trailer(line) => {
                let Some((line, used)) = grown(line, bytes)? else { return Ok(bytes.len()) };
                self.phase = if line.is_empty() { Phase::Head(Vec::new()) } else { Phase::Trailer(Vec::new()) };
                Ok(used)
            }
        }
    }
}

/// Adds to a line; gives it, without its end, once it is complete, and how many bytes it took.
fn grown(line: &mut Vec<u8>, bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, &'static str> {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    line.extend_from_slice(&bytes[..end.map_or(bytes.len(), |end| end + 1)]);
    if line.len() > LINE_BYTES_MAX {
        return Err("a line of the body is too long");
    }
    let Some(end) = end else { return Ok(None) };
    let text = line.strip_suffix(b"\r\n").ok_or("a line ends without a carriage return")?;
    if text.contains(&b'\r') {
        return Err("a carriage return stands alone");
    }
    Ok(Some((text.to_vec(), end + 1)))
}

fn chunk_size(line: &[u8]) -> Result<u64, &'static str> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    let text = std::str::from_utf8(digits).unwrap_or_default();
    // Fifteen digits leave room for the arithmetic above.
    let is_size = (1..=15).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let size = is_size.then(|| u64::from_str_radix(text, 16).ok()).flatten();
    size.ok_or("the size of a chunk is malformed")
}

/// Where a head ends: behind its first empty line, whichever way its lines end, because that is where hyper ends it.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let mut lines = memchr::memchr_iter(b'\n', bytes);
    let mut previous = lines.next()?;
    for at in lines {
        if matches!(&bytes[previous + 1..at], [] | [b'\r']) {
            return Some(at + 1);
        }
        previous = at;
    }
    None
}

/// How a body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Nothing,
    Length(u64),
    Chunks,
}

fn after(framing: Framing) -> Phase {
    match framing {
        Framing::Nothing | Framing::Length(0) => Phase::Head(Vec::new()),
        Framing::Length(length) => Phase::Body(length),
        Framing::Chunks => Phase::ChunkSize(Vec::new()),
    }
}

fn read_head(head: &[u8]) -> Result<Framing, &'static str> {
    let mut lines = head.split_inclusive(|byte| *byte == b'\n').map(|line| {
        let line = line.strip_suffix(b"\r\n").ok_or("a line ends without a carriage return")?;
        let is_plain = line.iter().all(|byte| *byte == b'\t' || (*byte >= 0x20 && *byte != 0x7f));
        if is_plain { Ok(line) } else { Err("a line holds a control character") }
    });
    let request = lines.next().unwrap_or(Ok(b""))?;
    let is_http_10 = read_request_line(request)?;
    let (mut hosts, mut length, mut encoding) = (0_u32, None, None);
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|byte| *byte == b':').ok_or("a header has no colon")?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return Err("the name of a header is malformed");
        }
        if name.eq_ignore_ascii_case(b"host") {
            hosts += 1;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            if length.replace(value).is_some() {
                return Err("more than one Content-Length");
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") && encoding.replace(value).is_some() {
            return Err("more than one Transfer-Encoding");
        }
    }
    match hosts {
        1 => {}
        0 if is_http_10 => {}
        0 => return Err("no Host"),
        _ => return Err("more than one Host"),
    }
    match (length, encoding) {
        (None, None) => Ok(Framing::Nothing),
        (Some(_), Some(_)) => Err("both Content-Length and Transfer-Encoding"),
        (None, Some(_)) if is_http_10 => Err("a Transfer-Encoding in HTTP/1.0"),
        (None, Some(encoding)) if encoding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunks),
        (None, Some(_)) => Err("the Transfer-Encoding is not chunked alone"),
        (Some(length), None) => {
            let text = std::str::from_utf8(length).unwrap_or_default();
            let is_number = (1..=18).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
            let length = is_number.then(|| text.parse().ok()).flatten();
            length.map(Framing::Length).ok_or("the Content-Length is malformed")
        }
    }
}

/// Whether the request is HTTP/1.0.
fn read_request_line(line: &[u8]) -> Result<bool, &'static str> {
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err("the request line is not three words");
    };
    if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
        return Err("the method is malformed");
    }
    if method == b"CONNECT" {
        return Err("CONNECT is not offered");
    }
    if target.is_empty() || !target.iter().all(|byte| (0x21..0x7f).contains(byte)) {
        return Err("the target is malformed");
    }
    match version {
        b"HTTP/1.1" => Ok(false),
        b"HTTP/1.0" => Ok(true),
        _ => Err("the version is not HTTP/1.1"),
    }
}

const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// A connection whose incoming bytes are inspected.
#[derive(Debug)]
pub(crate) struct Inspected<S> {
    stream: S,
    inspector: Inspector,
}

impl<S> Inspected<S> {
    /// Inspects what is read from a stream.
    pub(crate) const fn new(stream: S, inspector: Inspector) -> Self {
        Self { stream, inspector }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Inspected<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.inspector.take(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Inspected<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first violation, whether the bytes come whole or one by one.
    #[track_caller]
    fn violation(bytes: &str) -> Option<(u64, &'static str)> {
        let seen = |pieces: Vec<&[u8]>| {
            let inspector = Inspector::new(1000);
            for piece in pieces {
                inspector.take(piece);
            }
            inspector.first_violation()
        };
        let whole = seen(vec![bytes.as_bytes()]);
        assert_eq!(whole, seen(bytes.as_bytes().chunks(1).collect()), "in pieces");
        assert_eq!(whole, seen(bytes.as_bytes().chunks(7).collect()), "in pieces");
        whole
    }

    #[test]
    fn requests_in_order_pass() {
        for bytes in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nT: v\r\n\r\n\
             GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\n\n\n whatever",
        ] {
            assert_eq!(violation(bytes), None, "{bytes}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for head in [
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n folded: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\tx HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
            "CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            assert_eq!(violation(head).map(|(at, _)| at), Some(1), "{head}");
        }
        let endless = "GET / HTTP/1.1\r\nHost: a\r\nX: ".to_owned() + &"x".repeat(2000);
        assert_eq!(violation(&endless).map(|(at, _)| at), Some(1));
    }

    #[test]
    fn a_broken_body_refuses_what_follows_it() {
        let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        for body in
            ["3\nabc\r\n", "3\r\nabcd\r\n", "3\r\nabc\n\n", "x\r\n", "\r\n", "0x3\r\n", "3;\rx\r\nabc\r\n0\r\n\r\n"]
        {
            assert_eq!(violation(&format!("{chunked}{body}")).map(|(at, _)| at), Some(2), "{body}");
        }
        let second = "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n";
        assert_eq!(violation(second), Some((2, "no Host")));
    }

    proptest::proptest! {
        #[test]
        fn how_the_bytes_arrive_changes_nothing(
            parts in proptest::collection::vec(
                proptest::sample::select(vec![
                    "GET / HTTP/1.1\r\n", "POST / HTTP/1.1\r\n", "Host: a\r\n", "Content-Length: 3\r\n",
                    "Transfer-Encoding: chunked\r\n", "\r\n", "\n", "\r", "abc", "3\r\n", "0\r\n", "x: y\r\n", "PRI ", ":",
                ]),
                0..16,
            ),
        ) {
            violation(&parts.concat());
        }
    }
}
