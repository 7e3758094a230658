//! Takes a body apart into the messages of a stream of requests, as its bytes arrive. Pure.

use bytes::{Buf as _, Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_TYPE;

/// How a body holds its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A message a line.
    Lines,
    /// The elements of one array; or, where the body is no array, values one after another.
    Json,
}

impl Shape {
    /// The shape that a body's type tells of. `None` for a type that holds no messages.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, String> {
        let Some(kind) = headers.get(CONTENT_TYPE) else { return Ok(Self::Json) };
        let text = String::from_utf8_lossy(kind.as_bytes());
        let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/x-ndjson" | "application/jsonl" | "application/ndjson" => Ok(Self::Lines),
            "application/json" => Ok(Self::Json),
            json if json.starts_with("application/") && json.ends_with("+json") => Ok(Self::Json),
            _ => Err(essence),
        }
    }
}

/// Why a body cannot be taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// One message is larger than allowed.
    TooLarge,
    /// The body is no stream of messages, as a sentence fragment.
    Malformed(&'static str),
}

/// What comes next in an array or a sequence of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nothing but white space was seen.
    Start,
    /// A value, or the end of an empty array.
    First,
    /// A value of an array, after a comma.
    Value,
    /// A comma, or the end of the array.
    Between,
    /// Another value of a sequence, or the end.
    Sequence,
    /// Nothing but white space.
    End,
}

/// Cuts a body into messages. Holds one message at most, and what arrived behind it.
#[derive(Debug)]
pub(crate) struct Cutter {
    shape: Shape,
    bytes_max: usize,
    buffer: BytesMut,
    place: Place,
    /// How far the value under way was looked at, and where in it that is.
    at: usize,
    depth: u32,
    in_text: bool,
    is_escaped: bool,
}

impl Cutter {
    /// Cuts a body into messages of at most `bytes_max` each.
    pub(crate) fn new(shape: Shape, bytes_max: usize) -> Self {
        Self {
            shape,
            bytes_max,
            buffer: BytesMut::new(),
            place: Place::Start,
            at: 0,
            depth: 0,
            in_text: false,
            is_escaped: false,
        }
    }

    /// Takes bytes as they arrive.
    pub(crate) fn push(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    /// The next message that is there whole; with `is_ended`, no more bytes come.
    pub(crate) fn next(&mut self, is_ended: bool) -> Result<Option<Bytes>, Broken> {
        match self.shape {
            Shape::Lines => self.line(is_ended),
            Shape::Json => self.value(is_ended),
        }
    }

    fn line(&mut self, is_ended: bool) -> Result<Option<Bytes>, Broken> {
        loop {
            let end = self.buffer[self.at..].iter().position(|byte| *byte == b'\n').map(|end| self.at + end);
            let line = match end {
                Some(end) => {
                    let line = self.buffer.split_to(end);
                    self.buffer.advance(1);
                    line
                }
                None if is_ended && !self.buffer.is_empty() => self.buffer.split(),
                None => {
                    self.at = self.buffer.len();
                    return if self.at > self.bytes_max { Err(Broken::TooLarge) } else { Ok(None) };
                }
            };
            self.at = 0;
            if line.len() > self.bytes_max {
                return Err(Broken::TooLarge);
            }
            // Empty lines are signs of life.
            if !line.iter().all(u8::is_ascii_whitespace) {
                return Ok(Some(line.freeze()));
            }
        }
    }

    fn value(&mut self, is_ended: bool) -> Result<Option<Bytes>, Broken> {
        loop {
            if self.at == 0 {
                let blank = self.buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
                self.buffer.advance(blank);
                let Some(first) = self.buffer.first() else { return self.ended(is_ended) };
                let (next, is_mark) = match (self.place, first) {
                    (Place::Start, b'[') => (Place::First, true),
                    (Place::First | Place::Between, b']') => (Place::End, true),
                    (Place::Between, b',') => (Place::Value, true),
                    (Place::Between, _) => return Err(Broken::Malformed("two elements have no comma between them")),
                    (Place::Value | Place::First, b',' | b']') => {
                        return Err(Broken::Malformed("an element is missing"));
                    }
                    (Place::End, _) => return Err(Broken::Malformed("something follows the array")),
                    (place, _) => (place, false),
                };
                self.place = next;
                if is_mark {
                    self.buffer.advance(1);
                    continue;
                }
            }
            let Some(end) = self.end_of_value(is_ended)? else { return Ok(None) };
            let value = self.buffer.split_to(end).freeze();
            (self.at, self.depth, self.in_text, self.is_escaped) = (0, 0, false, false);
            self.place = match self.place {
                Place::First | Place::Value => Place::Between,
                Place::Start | Place::Between | Place::Sequence | Place::End => Place::Sequence,
            };
            return Ok(Some(value));
        }
    }

    fn ended(&self, is_ended: bool) -> Result<Option<Bytes>, Broken> {
        match self.place {
            Place::First | Place::Value | Place::Between if is_ended => {
                Err(Broken::Malformed("the body ends within the array"))
            }
            _ => Ok(None),
        }
    }

    /// Looks on through the value under way. Only brackets and quotation marks count here; whether it is JSON is for its
    /// reader to say.
    fn end_of_value(&mut self, is_ended: bool) -> Result<Option<usize>, Broken> {
        while let Some(byte) = self.buffer.get(self.at).copied() {
            if self.at >= self.bytes_max {
                return Err(Broken::TooLarge);
            }
            if self.in_text {
                if self.is_escaped {
                    self.is_escaped = false;
                } else if byte == b'\\' {
                    self.is_escaped = true;
                } else if byte == b'"' {
                    self.in_text = false;
                    if self.depth == 0 {
                        return Ok(Some(self.at + 1));
                    }
                }
            } else {
                match byte {
                    b'"' => self.in_text = true,
                    b'{' | b'[' => self.depth += 1,
                    // A closing bracket that nothing opened belongs to the array around.
                    b'}' | b']' if self.depth == 0 => return Ok(Some(self.at.max(1))),
                    b'}' | b']' => {
                        self.depth -= 1;
                        if self.depth == 0 {
                            return Ok(Some(self.at + 1));
                        }
                    }
                    b',' if self.depth == 0 => return Ok(Some(self.at.max(1))),
                    blank if self.depth == 0 && blank.is_ascii_whitespace() => return Ok(Some(self.at)),
                    _ => {}
                }
            }
            self.at += 1;
        }
        match is_ended {
            false => Ok(None),
            true if self.depth == 0 && !self.in_text => Ok(Some(self.at)),
            true => Err(Broken::Malformed("the body ends within a message")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(shape: Shape, body: &str, piece: usize) -> Result<Vec<String>, Broken> {
        let mut cutter = Cutter::new(shape, 20);
        let mut messages = Vec::new();
        let mut take = |cutter: &mut Cutter, is_ended| -> Result<(), Broken> {
            while let Some(message) = cutter.next(is_ended)? {
                messages.push(String::from_utf8(message.to_vec()).unwrap());
            }
            Ok(())
        };
        for data in body.as_bytes().chunks(piece) {
            cutter.push(data);
            take(&mut cutter, false)?;
        }
        take(&mut cutter, true)?;
        Ok(messages)
    }

    #[test]
    fn messages_are_cut_out_however_the_body_arrives() {
        for piece in 1..30 {
            for (shape, body, messages) in [
                (Shape::Lines, "{\"a\":1}\n\n{\"b\":\"\"}\r\n  \n{}", vec!["{\"a\":1}", "{\"b\":\"\"}\r", "{}"]),
                (Shape::Lines, "", vec![]),
                (
                    Shape::Json,
                    " [ {\"a\":[1,2]} ,\n{\"b\":\"],\\\"}\"}, 7 ] ",
                    vec!["{\"a\":[1,2]}", "{\"b\":\"],\\\"}\"}", "7"],
                ),
                (Shape::Json, "[]", vec![]),
                (Shape::Json, "", vec![]),
                (Shape::Json, "{\"a\":1}{\"b\":2}\n\"x\" true", vec!["{\"a\":1}", "{\"b\":2}", "\"x\"", "true"]),
                (Shape::Json, "[1,[2],\"3\"]", vec!["1", "[2]", "\"3\""]),
            ] {
                assert_eq!(cut(shape, body, piece).unwrap(), messages, "{body:?} by {piece}");
            }
        }
    }

    #[test]
    fn what_is_no_stream_of_messages_is_refused() {
        for piece in 1..30 {
            for body in ["[", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "[1] 2", "[{\"a\":1]", "{\"a\":", "\"x"] {
                assert!(matches!(cut(Shape::Json, body, piece), Err(Broken::Malformed(_))), "{body:?} by {piece}");
            }
            let long = format!("[\"{}\"]", "x".repeat(30));
            assert_eq!(cut(Shape::Json, &long, piece), Err(Broken::TooLarge));
            assert_eq!(cut(Shape::Lines, &long, piece), Err(Broken::TooLarge));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_body_breaks_the_cutter(body in "[\\[\\]{},\"\\\\ a1\\n]{0,40}", piece in 1_usize..9) {
            let _ = cut(Shape::Json, &body, piece);
            let _ = cut(Shape::Lines, &body, piece);
        }
    }
}
