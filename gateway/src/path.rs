//! The path of a request, made normal once, before anything looks at it.
//!
//! Every later step (routing, binding, limits, the log) sees the same segments, so two parts of the edge cannot read one
//! path in two ways.

use std::fmt::Write as _;

/// Most segments of a path; longer ones match no template anyway, as templates are shorter.
pub(crate) const SEGMENTS_MAX: usize = 256;

/// The segments of a path. Percent signs that stand for unreserved letters are decoded, the hex digits of all others are
/// capitals, so that two segments are the same exactly if their texts are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    segments: Vec<String>,
}

/// Why a path is refused, as a sentence fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

impl Path {
    /// Reads a path without its query.
    ///
    /// One slash at the end is overlooked. Refused are paths that do not begin with a slash, bad percent signs, letters
    /// outside of ASCII, control characters (also encoded), backslashes and dot segments in every encoding, and paths of
    /// too many segments.
    pub(crate) fn parse(raw: &str) -> Result<Self, Malformed> {
        let rest = raw.strip_prefix('/').ok_or(Malformed("the path does not begin with a slash"))?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.is_empty() {
            return Ok(Self { segments: Vec::new() });
        }
        if rest.bytes().filter(|byte| *byte == b'/').count() >= SEGMENTS_MAX {
            return Err(Malformed("the path has too many segments"));
        }
        let segments = rest.split('/').map(|segment| {
            let segment = normal(segment)?;
            if has_dot_segment(&segment) {
                return Err(Malformed("the path has a dot segment"));
            }
            Ok(segment)
        });
        Ok(Self { segments: segments.collect::<Result<_, _>>()? })
    }

    /// The segments, still percent-encoded.
    pub(crate) fn segments(&self) -> &[String] {
        &self.segments
    }

    /// The path cut before the last colon of its last segment, and what follows the colon. `None` without a colon.
    pub(crate) fn split_verb(&self) -> Option<(Self, String)> {
        let (last, head) = self.segments.split_last()?;
        let (stem, verb) = last.rsplit_once(':')?;
        if verb.is_empty() {
            return None;
        }
        let mut segments = head.to_vec();
        // `/a/:verb` is `/a/` with a verb: the empty segment is the slash at the end.
        if !stem.is_empty() {
            segments.push(stem.to_owned());
        }
        Some((Self { segments }, verb.to_owned()))
    }
}

/// Makes one segment normal.
pub(crate) fn normal(segment: &str) -> Result<String, Malformed> {
    let mut text = String::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digits = (bytes.next().and_then(hex), bytes.next().and_then(hex));
                let (Some(high), Some(low)) = digits else {
                    return Err(Malformed("a percent sign is not followed by two hex digits"));
                };
                match high << 4 | low {
                    control if control < 0x20 || control == 0x7f => {
                        return Err(Malformed("the path has an encoded control character"));
                    }
                    plain if is_unreserved(plain) => text.push(char::from(plain)),
                    other => write!(text, "%{other:02X}").expect("writing to a string cannot fail"),
                }
            }
            b'\\' => return Err(Malformed("the path has a backslash")),
            0x21..=0x7e => text.push(char::from(byte)),
            _ => return Err(Malformed("the path has a letter that must be percent-encoded")),
        }
    }
    Ok(text)
}

/// Decodes a normal segment.
///
/// # Errors
/// When the bytes are not UTF-8.
pub(crate) fn decode(segment: &str) -> Result<String, Malformed> {
    decode_unless(segment, |_| false)
}

/// Decodes a normal segment, but leaves encoded slashes as they are, so that it can be joined with others.
///
/// # Errors
/// When the bytes are not UTF-8.
pub(crate) fn decode_keeping_slashes(segment: &str) -> Result<String, Malformed> {
    decode_unless(segment, |byte| byte == b'/')
}

fn decode_unless(segment: &str, is_kept: impl Fn(u8) -> bool) -> Result<String, Malformed> {
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digits = (bytes.next(), bytes.next());
        let (Some(first), Some(second)) = digits else {
            return Err(Malformed("a percent sign is not followed by two hex digits"));
        };
        let (Some(high), Some(low)) = (hex(first), hex(second)) else {
            return Err(Malformed("a percent sign is not followed by two hex digits"));
        };
        match high << 4 | low {
            kept if is_kept(kept) => decoded.extend_from_slice(&[b'%', first, second]),
            byte => decoded.push(byte),
        }
    }
    String::from_utf8(decoded).map_err(|_| Malformed("percent-encoded bytes are not UTF-8"))
}

/// Whether a normal segment is, or holds behind an encoded slash or backslash, one or two dots alone.
fn has_dot_segment(segment: &str) -> bool {
    if !segment.contains('.') {
        return false;
    }
    segment.replace("%2F", "/").replace("%5C", "/").split('/').any(|part| part == "." || part == "..")
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

const fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(raw: &str) -> Vec<String> {
        Path::parse(raw).unwrap().segments
    }

    #[test]
    fn one_path_has_one_reading() {
        assert_eq!(segments("/v1/products"), ["v1", "products"]);
        assert_eq!(segments("/v1/products/"), ["v1", "products"]);
        assert_eq!(segments("/"), [""; 0]);
        assert_eq!(segments("/%61/%7e%2d"), ["a", "~-"]);
        assert_eq!(segments("/a%2fb/c%3ad"), ["a%2Fb", "c%3Ad"]);
        assert_eq!(segments("/a//b"), ["a", "", "b"]);
    }

    #[test]
    fn dot_segments_are_refused_in_every_encoding() {
        for raw in ["/a/..", "/a/./b", "/..", "/%2e%2E/x", "/a/.%2e", "/x%2f..%2Fy", "/..%2f", "/%2e%2e%5cx", "/a/%2E/"]
        {
            assert_eq!(Path::parse(raw), Err(Malformed("the path has a dot segment")), "{raw}");
        }
        assert_eq!(segments("/a/...b/.well-known"), ["a", "...b", ".well-known"]);
    }

    #[test]
    fn malformed_paths_are_refused() {
        let deep = "/a".repeat(70_000);
        let slashes = "/".repeat(64_000);
        for raw in ["", "a", "*", "/%", "/%2", "/%zz", "/%00", "/%0d%0a", "/a\\b", "/ü", "/a b", &deep, &slashes] {
            assert!(Path::parse(raw).is_err(), "{raw}");
        }
    }

    #[test]
    fn a_verb_follows_the_last_colon_of_the_last_segment() {
        let (path, verb) = Path::parse("/a:b/c:d:e").unwrap().split_verb().unwrap();
        assert_eq!((path.segments(), verb.as_str()), (&["a:b".to_owned(), "c:d".to_owned()][..], "e"));
        assert_eq!(Path::parse("/a:b/c").unwrap().split_verb(), None);
        assert_eq!(Path::parse("/a%3Ab").unwrap().split_verb(), None);
        let (path, _) = Path::parse("/a/:x").unwrap().split_verb().unwrap();
        assert_eq!(path.segments(), ["a"]);
    }

    #[test]
    fn a_single_segment_is_decoded_wholly_and_many_keep_their_slashes() {
        assert_eq!(decode("a%2Fb%20%C3%BC").unwrap(), "a/b ü");
        assert_eq!(decode_keeping_slashes("a%2Fb%20").unwrap(), "a%2Fb ");
        assert_eq!(decode("%23").unwrap(), "#");
        assert_eq!(decode("%2523").unwrap(), "%23");
        assert!(decode("%FF").is_err());
    }

    proptest::proptest! {
        #[test]
        fn what_was_made_normal_stays_as_it_is(raw in "/[a-zA-Z0-9/%.:~ -]{0,40}|.{0,20}") {
            if let Ok(path) = Path::parse(&raw) {
                let again = format!("/{}", path.segments.join("/"));
                // A slash at the end is overlooked once, so an empty last segment needs one more.
                let again = if path.segments.last().is_some_and(String::is_empty) { again + "/" } else { again };
                assert_eq!(Path::parse(&again), Ok(path.clone()));
                for segment in &path.segments {
                    let _ = (decode(segment), decode_keeping_slashes(segment));
                }
            }
        }
    }
}
