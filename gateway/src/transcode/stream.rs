//! Forms of a stream of answers over plain HTTP, and how a request chooses one.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::HeaderMap;
use http::header::ACCEPT;
use serde_json::Value as Json;

/// How a stream of messages is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A line of JSON a message. What a client gets that asks for nothing in particular.
    Lines,
    /// Server-sent events.
    Events,
    /// One JSON array.
    Array,
}

impl Form {
    /// Chooses by `Accept`: the first of the three that is named, lines otherwise.
    pub(crate) fn chosen_by(headers: &HeaderMap) -> Self {
        let accepted = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
        for range in accepted.flat_map(|value| value.split(',')) {
            match range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
                "text/event-stream" => return Self::Events,
                "application/json" => return Self::Array,
                "application/x-ndjson" | "application/jsonl" => return Self::Lines,
                _ => {}
            }
        }
        Self::Lines
    }

    /// The type of the body.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Lines => "application/x-ndjson",
            Self::Events => "text/event-stream",
            Self::Array => "application/json",
        }
    }

    /// What keeps an idle stream alive, if the form has such a thing.
    pub(crate) const fn heartbeat(self) -> Option<&'static [u8]> {
        match self {
            Self::Events => Some(b": heartbeat\n\n"),
            Self::Lines | Self::Array => None,
        }
    }
}

/// Writes one stream.
#[derive(Debug)]
pub(crate) struct Encoder {
    form: Form,
    count: u64,
}

impl Encoder {
    /// Begins a stream.
    pub(crate) const fn new(form: Form) -> Self {
        Self { form, count: 0 }
    }

    /// One message, written as JSON without line ends.
    pub(crate) fn message(&mut self, json: &[u8]) -> Bytes {
        self.count += 1;
        let mut text = BytesMut::with_capacity(json.len() + 48);
        match self.form {
            Form::Lines => {}
            Form::Events => text.put_slice(format!("event: message\nid: {}\ndata: ", self.count).as_bytes()),
            Form::Array => text.put_u8(if self.count == 1 { b'[' } else { b',' }),
        }
        text.put_slice(json);
        match self.form {
            Form::Lines => text.put_u8(b'\n'),
            Form::Events => text.put_slice(b"\n\n"),
            Form::Array => {}
        }
        text.freeze()
    }

    /// The end of a stream without an error.
    pub(crate) fn end(&self) -> Bytes {
        match (self.form, self.count) {
            (Form::Lines, _) => Bytes::new(),
            (Form::Events, _) => Bytes::from_static(b"event: end\ndata: {}\n\n"),
            (Form::Array, 0) => Bytes::from_static(b"[]"),
            (Form::Array, _) => Bytes::from_static(b"]"),
        }
    }

    /// The end of a stream that failed: the status goes where the next message would have gone, as the one member `error`
    /// of an object, or as an event of its own.
    pub(crate) fn error(&mut self, status: &Json) -> Bytes {
        if self.form == Form::Events {
            return format!("event: error\ndata: {status}\n\n").into();
        }
        let mut text = BytesMut::from(self.message(format!("{{\"error\":{status}}}").as_bytes()));
        if self.form == Form::Array {
            text.put_u8(b']');
        }
        text.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(form: Form, messages: &[&str], error: Option<&str>) -> String {
        let mut encoder = Encoder::new(form);
        let mut text = Vec::new();
        for message in messages {
            text.extend(encoder.message(message.as_bytes()));
        }
        match error {
            None => text.extend(encoder.end()),
            Some(error) => text.extend(encoder.error(&serde_json::json!({ "message": error }))),
        }
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn the_client_chooses_the_form() {
        for (accept, form) in [
            ("*/*", Form::Lines),
            ("application/x-ndjson", Form::Lines),
            ("text/event-stream", Form::Events),
            ("text/html, Text/Event-Stream;q=0.9", Form::Events),
            ("application/json, text/plain, */*", Form::Array),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]);
            assert_eq!(Form::chosen_by(&headers), form, "{accept}");
        }
        assert_eq!(Form::chosen_by(&HeaderMap::new()), Form::Lines);
    }

    #[test]
    fn rule_23_an_error_after_the_first_message_is_seen() {
        assert_eq!(written(Form::Lines, &["{}"], Some("x")), "{}\n{\"error\":{\"message\":\"x\"}}\n");
        assert_eq!(written(Form::Array, &["{}"], Some("x")), "[{},{\"error\":{\"message\":\"x\"}}]");
        assert_eq!(
            written(Form::Events, &["{}"], Some("x")),
            "event: message\nid: 1\ndata: {}\n\nevent: error\ndata: {\"message\":\"x\"}\n\n"
        );
    }

    #[test]
    fn rule_23_an_empty_stream_is_an_empty_array() {
        assert_eq!(written(Form::Array, &[], None), "[]");
        assert_eq!(written(Form::Array, &["1", "2"], None), "[1,2]");
        assert_eq!(written(Form::Lines, &[], None), "");
        assert_eq!(written(Form::Events, &[], None), "event: end\ndata: {}\n\n");
    }
}
