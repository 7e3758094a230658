//! A moment of what the targets do for minutes, and what they have found.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::{Ground, answer, connection, frames, json, path, query};
use crate::testing;

fn ground() -> &'static Ground {
    static GROUND: LazyLock<Ground> = LazyLock::new(|| Ground::new(&testing::contract("test/v1/everything.proto")));
    &GROUND
}

/// Bytes that are often words of the matter, and sometimes anything.
fn bytes(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let word = proptest::sample::select(words).prop_map(|word| word.as_bytes().to_vec());
    let part = prop_oneof![8 => word, 1 => proptest::collection::vec(any::<u8>(), 0..6)];
    proptest::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

const OF_PATHS: &[&str] =
    &["/", "a", "b", "*", "**", "{x}", "{x.y=a/*}", "{z=**}", ":v", "\n", "%2F", "%2e", "%C3", ".", "="];
const OF_QUERIES: &[&str] = &[
    "/get/",
    "/inner/",
    "/typed/",
    "/many/shelves/",
    "/books/",
    "a",
    "7",
    "true",
    "?",
    "&",
    "=",
    "id",
    "inner.name",
    "number",
    "numbers",
    "labels[",
    "]",
    "time",
    "2020-01-01T00:00:00Z",
    "%2F",
    "+",
    "KIND_LARGE",
    "left",
    "right",
    "ratio",
    "NaN",
    "any",
    "wrapped",
    "mask",
    "message",
    "encoding",
    "json",
    "-1",
    "1e3",
    "duration",
    "3s",
];
const OF_JSON: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"id\"",
    "\"7\"",
    "\"inner\"",
    "\"name\"",
    "\"size\"",
    "1",
    "-1",
    "1.5",
    "1e400",
    "null",
    "true",
    "\"number\"",
    "\"big\"",
    "\"ratio\"",
    "\"NaN\"",
    "\"data\"",
    "\"AA==\"",
    "\"texts\"",
    "\"inners\"",
    "\"labels\"",
    "\"time\"",
    "\"2020-01-01T00:00:00Z\"",
    "\"duration\"",
    "\"-1.5s\"",
    "\"mask\"",
    "\"a.b\"",
    "\"wrapped\"",
    "\"\\u00e9\"",
    "\"odd_name\"",
    "\"veryOdd\"",
    "\"any\"",
    "\"@type\"",
    "\"left\"",
    "\"right\"",
    "\"kind\"",
    "\"KIND_LARGE\"",
    " ",
];
const OF_WIRE: &[&str] = &[
    "\n\x017",
    "\x10\x01",
    "\x18\x7f",
    "J\x02\x10\x01",
    "J\x00",
    "R\x01a",
    "Z\x02\x01\x02",
    "X\x01",
    "r\x02\n\x00",
    "z\x02\x08\x01",
    "\x12\x00",
    "@\x01",
    "0\x01",
    ")\0\0\0\0\0\0\0\0",
    "\x01",
    "\0",
];
const OF_FRAMES: &[&str] =
    &["\0\0\0\0\x01a", "\0\0\0\0\0", "\x01\0\0\0\x02", "\0", "{\"a\":1}", "[", ",", "]", "\n", "\"", "\\", "AAAA"];
const OF_HTTP: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "POST /a HTTP/1.1\r\n",
    "Host: a\r\n",
    "Content-Length: 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "\r\n",
    "\n",
    "\r",
    "abc",
    "3\r\n",
    "0\r\n",
    "x: y\r\n",
    "PRI ",
    ":",
    "HTTP/1.0",
    "Expect: 100-continue\r\n",
    "Connection: close\r\n",
    "Upgrade: h2c\r\n",
    ";",
    " ",
];

#[test]
fn a_body_that_ends_within_an_escape_is_refused() {
    // Found by the target `json`.
    for body in ["\n{\n\r\"\\", "{\"\\", "{\"id\":\"\\", "{\"texts\":[\"a\\"] {
        json(ground(), body.as_bytes());
    }
}

#[test]
fn a_zero_that_is_negative_is_no_default() {
    // Found by the target `answer`.
    answer(ground(), b")\0\0\0\0\0\0\0\x80@\x01");
}

proptest! {
    #[test]
    fn any_path_and_templates_find_each_other_or_not(bytes in bytes(OF_PATHS)) {
        path(&bytes);
    }

    #[test]
    fn any_query_is_a_message_or_is_refused(bytes in bytes(OF_QUERIES)) {
        query(ground(), &bytes);
    }

    #[test]
    fn any_json_is_read_alike_both_ways(bytes in bytes(OF_JSON)) {
        json(ground(), &bytes);
    }

    #[test]
    fn any_answer_is_written_alike_both_ways(bytes in bytes(OF_WIRE)) {
        answer(ground(), &bytes);
    }

    #[test]
    fn any_frames_are_read_alike_in_pieces(bytes in bytes(OF_FRAMES)) {
        frames(&bytes);
    }

    #[test]
    fn any_connection_has_no_more_requests_than_were_seen(bytes in bytes(OF_HTTP)) {
        connection(&bytes);
    }
}
