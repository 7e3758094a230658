//! What programs print: read without end, cut into lines, handed on.
//!
//! A child's output is always read: a pipe that fills up freezes a healthy process. Whoever takes the lines must
//! therefore never block; it may drop.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Longest line handed on, in bytes; a longer one comes in pieces.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// Lines of an instance that are remembered to tell why it died.
const TAIL_LINES_MAX: usize = 20;
/// Bytes of a remembered line.
const TAIL_LINE_BYTES_MAX: usize = 512;
/// Bytes read at once.
const CHUNK_BYTES: usize = 16 * 1024;

/// Where a program printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line that a program printed.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Service of the instance.
    pub service: &'a str,
    /// Instance that printed it.
    pub instance_id: &'a str,
    /// Where it was printed.
    pub output: Output,
    /// When it was read.
    pub time: SystemTime,
    /// The line, without its end; what is not UTF-8 is replaced. At most [`LINE_BYTES_MAX`] of what was printed.
    pub text: &'a str,
    /// Whether the program exports its logs through the SDK, which prints a copy of each record.
    pub delivers: bool,
}

/// Takes lines. Called in the order of each output, from the task that reads it.
pub trait LineSink: Debug + Send + Sync + 'static {
    /// Takes a line. Must return at once: while it runs, the program's output is not read.
    fn line(&self, line: Line<'_>);
}

/// Takes lines and forgets them.
#[derive(Clone, Copy, Debug)]
pub struct Discard;

impl LineSink for Discard {
    fn line(&self, _: Line<'_>) {}
}

/// The last lines of an instance.
#[derive(Debug, Default)]
pub(crate) struct Tail(Mutex<VecDeque<(Output, String)>>);

impl Tail {
    pub(crate) fn push(&self, output: Output, text: &str) {
        if text.trim().is_empty() {
            return;
        }
        let end = (0..=TAIL_LINE_BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == TAIL_LINES_MAX {
            lines.pop_front();
        }
        lines.push_back((output, text[..end].trim_end().to_owned()));
    }

    /// The last line on standard error, where programs say why they die; else the last line of all. Of what is a log
    /// record, only complaints count, by their message: the last request that was served explains no death.
    pub(crate) fn last_word(&self) -> Option<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let words = || lines.iter().rev().filter_map(|(output, text)| Some((*output, said(text)?)));
        let complaint = words().find(|(output, _)| *output == Output::Stderr);
        complaint.or_else(|| words().next()).map(|(_, text)| text)
    }
}

/// What a line says about a death; `None` for a log record that is no complaint.
fn said(text: &str) -> Option<String> {
    if !text.starts_with('{') {
        return Some(text.to_owned());
    }
    let lower = text.to_ascii_lowercase();
    if ["info", "debug", "trace"].iter().any(|level| lower.contains(&format!("\"level\":\"{level}\""))) {
        return None;
    }
    let Ok(record) = serde_json::from_str::<serde_json::Value>(text) else { return Some(text.to_owned()) };
    let Some(message) = record["message"].as_str() else { return Some(text.to_owned()) };
    Some(record["error"].as_str().map_or_else(|| message.to_owned(), |error| format!("{message}: {error}")))
}

/// Reads `source` to its end and hands each line to `take`. An error ends it like the end of the output does: there is
/// nobody to tell, and the program's exit follows.
pub(crate) async fn pump(mut source: impl AsyncRead + Unpin, mut take: impl FnMut(&str)) {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut line: Vec<u8> = Vec::new();
    while let Ok(count) = source.read(&mut chunk).await {
        if count == 0 {
            break;
        }
        let mut rest = &chunk[..count];
        while !rest.is_empty() {
            let room = LINE_BYTES_MAX - line.len();
            let piece = &rest[..rest.len().min(room)];
            if let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
                line.extend_from_slice(&piece[..end]);
                hand_on(&mut line, &mut take);
                rest = &rest[end + 1..];
            } else {
                line.extend_from_slice(piece);
                rest = &rest[piece.len()..];
                if line.len() == LINE_BYTES_MAX {
                    hand_on(&mut line, &mut take);
                }
            }
        }
    }
    if !line.is_empty() {
        hand_on(&mut line, &mut take);
    }
}

fn hand_on(line: &mut Vec<u8>, take: &mut impl FnMut(&str)) {
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    take(&String::from_utf8_lossy(line));
    line.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        pump(bytes, |line| lines.push(line.to_owned())).await;
        lines
    }

    #[tokio::test]
    async fn output_is_cut_into_lines_whatever_it_is() {
        assert_eq!(lines(b"one\ntwo\r\n\nlast").await, ["one", "two", "", "last"]);
        assert_eq!(lines(b"\xff\n").await, ["\u{fffd}"]);
        assert!(lines(b"").await.is_empty());
    }

    #[tokio::test]
    async fn an_endless_line_comes_in_pieces() {
        let pieces = lines(&vec![b'x'; 3 * LINE_BYTES_MAX + 1]).await;
        assert_eq!(
            pieces.iter().map(String::len).collect::<Vec<_>>(),
            [LINE_BYTES_MAX, LINE_BYTES_MAX, LINE_BYTES_MAX, 1]
        );
    }

    #[test]
    fn the_last_word_is_the_last_complaint() {
        let tail = Tail::default();
        assert_eq!(tail.last_word(), None);
        tail.push(Output::Stderr, "ValueError: no");
        tail.push(Output::Stdout, "bye");
        tail.push(Output::Stderr, "   ");
        assert_eq!(tail.last_word().as_deref(), Some("ValueError: no"));
    }

    #[test]
    fn a_log_record_is_a_last_word_only_if_it_complains() {
        let tail = Tail::default();
        tail.push(Output::Stdout, r#"{"level":"info","message":"request served"}"#);
        assert_eq!(tail.last_word(), None);
        tail.push(Output::Stdout, r#"{"level":"error","message":"cannot go on","error":"disk full"}"#);
        tail.push(Output::Stdout, r#"{"level":"info","message":"request served"}"#);
        assert_eq!(tail.last_word().as_deref(), Some("cannot go on: disk full"));
    }
}
