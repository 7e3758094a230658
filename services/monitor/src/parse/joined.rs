//! Puts together what a program printed as several lines and meant as one: stack traces, and indented text.

use std::time::{Duration, SystemTime};

use super::guess;
use crate::captured::Stream;
use crate::model::Level;

/// Most lines of one.
const LINES_MAX: usize = 1000;
/// Most bytes of one.
const BYTES_MAX: usize = 64 * 1024;
/// Lines that are printed further apart than this do not belong together.
const APART_MAX: Duration = Duration::from_secs(2);

/// What was printed at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where.
    pub stream: Stream,
    /// When its first line was read.
    pub time: SystemTime,
    /// The text, without its end.
    pub text: String,
}

/// Joins the lines of one program, each of its outputs by itself.
#[derive(Debug, Default)]
pub struct Joiner {
    open: [Option<Open>; 2],
}

#[derive(Debug)]
struct Open {
    piece: Piece,
    lines: usize,
    newest: SystemTime,
    kind: Kind,
}

/// What a piece is so far, which tells what may follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A line.
    Plain,
    /// A stack trace of Python, which ends with a line that is not indented.
    Python,
    /// One that has ended, and may be the cause of another.
    PythonEnded,
    /// A panic of Rust.
    Rust,
    /// A panic of Go.
    Go,
    /// An exception of Java, or of JavaScript.
    Java,
}

impl Joiner {
    /// Takes a line; gives what is whole now that this is known.
    pub fn push(&mut self, piece: Piece) -> Option<Piece> {
        let open = &mut self.open[usize::from(piece.stream == Stream::Stderr)];
        if let Some(known) = open
            && let Some(kind) = known.goes_on_with(&piece)
        {
            known.kind = kind;
            known.lines += 1;
            known.newest = piece.time;
            known.piece.text.push('\n');
            known.piece.text.push_str(&piece.text);
            return None;
        }
        let (newest, kind) = (piece.time, Kind::of_first(&piece.text));
        open.replace(Open { piece, lines: 1, newest, kind }).map(|whole| whole.piece)
    }

    /// Gives what nothing followed since a time.
    pub fn quiet_since(&mut self, time: SystemTime) -> Vec<Piece> {
        let is_quiet = |open: &mut Open| open.newest <= time;
        self.open.iter_mut().filter_map(|open| open.take_if(is_quiet)).map(|open| open.piece).collect()
    }

    /// Gives all that is left.
    pub fn rest(&mut self) -> Vec<Piece> {
        self.open.iter_mut().filter_map(Option::take).map(|open| open.piece).collect()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.open.iter().all(Option::is_none)
    }
}

impl Kind {
    fn of_first(text: &str) -> Self {
        if text.starts_with("Traceback (most recent call last)") {
            Self::Python
        } else if text.contains("panicked at ") {
            Self::Rust
        } else if text.starts_with("panic: ") || text.starts_with("fatal error: ") || text.starts_with("goroutine ") {
            Self::Go
        } else if text.starts_with("Exception in thread") || is_exception(text) {
            Self::Java
        } else {
            Self::Plain
        }
    }
}

impl Open {
    /// Whether a line belongs to this, and what this is with it.
    fn goes_on_with(&self, piece: &Piece) -> Option<Kind> {
        let text = piece.text.as_str();
        let is_apart = piece.time.duration_since(self.newest).is_ok_and(|apart| apart > APART_MAX);
        let is_full = self.lines >= LINES_MAX || self.piece.text.len() + text.len() >= BYTES_MAX;
        // JSON stands for itself.
        if is_apart || is_full || text.starts_with('{') || self.piece.text.starts_with('{') {
            return None;
        }
        let is_indented = text.starts_with([' ', '\t']) && !text.trim().is_empty();
        match self.kind {
            Kind::Python if is_indented || text.is_empty() => Some(Kind::Python),
            Kind::Python => Some(Kind::PythonEnded),
            Kind::PythonEnded if text.is_empty() || text.starts_with("During handling of") => Some(self.kind),
            Kind::PythonEnded if text.starts_with("The above exception was") => Some(self.kind),
            Kind::PythonEnded if text.starts_with("Traceback (") && self.expects_another() => Some(Kind::Python),
            Kind::PythonEnded => None,
            Kind::Rust => self.is_of_panic(text, is_indented).then_some(Kind::Rust),
            Kind::Go => is_of_go(text).then_some(Kind::Go),
            Kind::Java if is_indented || is_of_java(text) => Some(Kind::Java),
            Kind::Java => None,
            Kind::Plain if is_indented => Some(Kind::Plain),
            // What a logger appends to its line.
            Kind::Plain if text.starts_with("Traceback (") && self.is_complaint() => Some(Kind::Python),
            Kind::Plain if is_exception(text) && self.is_complaint() => Some(Kind::Java),
            Kind::Plain => None,
        }
    }

    /// Whether the last words of a stack trace announce another.
    fn expects_another(&self) -> bool {
        let last = self.piece.text.lines().rev().find(|line| !line.is_empty()).unwrap_or_default();
        last.starts_with("During handling of") || last.starts_with("The above exception was")
    }

    fn is_of_panic(&self, text: &str, is_indented: bool) -> bool {
        is_indented
            || text.starts_with("note: ")
            || text.starts_with("stack backtrace:")
            // The message is the line after the place.
            || (self.lines == 1 && self.piece.text.ends_with(':'))
    }

    fn is_complaint(&self) -> bool {
        self.lines == 1 && super::read_level(&self.piece.text) >= Level::Warn
    }
}

fn is_of_java(text: &str) -> bool {
    text.starts_with("Caused by: ") || text.starts_with("Suppressed: ") || is_exception(text)
}

fn is_of_go(text: &str) -> bool {
    let is_frame = text.ends_with(')') && !text.starts_with(' ') && text.contains('(') && !text.contains(": ");
    text.is_empty()
        || text.starts_with(['\t', '[', ' '])
        || ["goroutine ", "created by ", "exit status ", "main."].iter().any(|start| text.starts_with(start))
        || is_frame
}

/// The class of an exception, with its message or without: `java.lang.IllegalStateException: no`, `TypeError: no`.
fn is_exception(text: &str) -> bool {
    let class = text.split([':', ' ']).next().unwrap_or_default();
    let is_class = class.chars().all(|letter| letter.is_ascii_alphanumeric() || "._$".contains(letter));
    is_class
        && (class.ends_with("Exception") || class.ends_with("Error"))
        && guess(text) <= Level::Error
        && class.len() > "Error".len()
}
