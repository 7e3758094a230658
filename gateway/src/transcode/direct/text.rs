//! Scalars on the wire and in JSON.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::Unusual;
use super::scan::plain_prefix;

const ANY_PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, ANY_PADDING);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, ANY_PADDING);

/// Appends a varint.
pub(super) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Appends a tag.
pub(super) fn put_tag(number: u32, wire: u32, out: &mut Vec<u8>) {
    put_varint(u64::from(number << 3 | wire), out);
}

/// Leaves room for the length of what follows; gives its place.
pub(super) fn begin(out: &mut Vec<u8>) -> usize {
    out.push(0);
    out.len()
}

/// Writes the length of what was appended since `start`, and makes room if one byte does not hold it.
pub(super) fn end(start: usize, out: &mut Vec<u8>) {
    let length = out.len() - start;
    if let Ok(short @ 0..0x80) = u8::try_from(length) {
        out[start - 1] = short;
        return;
    }
    let mut prefix = [0; 10];
    let mut used = 0;
    let mut rest = length;
    while rest >= 0x80 {
        prefix[used] = rest.to_le_bytes()[0] | 0x80;
        rest >>= 7;
        used += 1;
    }
    prefix[used] = rest.to_le_bytes()[0];
    used += 1;
    out.resize(out.len() + used - 1, 0);
    out.copy_within(start..start + length, start + used - 1);
    out[start - 1..start - 1 + used].copy_from_slice(&prefix[..used]);
}

/// What is left of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wire<'m>(pub(super) &'m [u8]);

impl<'m> Wire<'m> {
    pub(super) fn varint(&mut self) -> Result<u64, Unusual> {
        let mut value = 0;
        for (at, byte) in self.0.iter().take(10).enumerate() {
            let part = u64::from(byte & 0x7f);
            // The tenth byte holds one bit.
            if at == 9 && *byte > 1 {
                return Err(Unusual);
            }
            value |= part << (7 * at);
            if byte & 0x80 == 0 {
                self.0 = &self.0[at + 1..];
                return Ok(value);
            }
        }
        Err(Unusual)
    }

    /// A tag: number of the field, and wire type.
    pub(super) fn tag(&mut self) -> Result<(u32, u32), Unusual> {
        let tag = u32::try_from(self.varint()?).map_err(|_| Unusual)?;
        if tag >> 3 == 0 { Err(Unusual) } else { Ok((tag >> 3, tag & 7)) }
    }

    pub(super) fn bytes(&mut self) -> Result<&'m [u8], Unusual> {
        let length = usize::try_from(self.varint()?).map_err(|_| Unusual)?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Unusual)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(super) fn fixed32(&mut self) -> Result<[u8; 4], Unusual> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Unusual)?;
        self.0 = rest;
        Ok(*bytes)
    }

    pub(super) fn fixed64(&mut self) -> Result<[u8; 8], Unusual> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Unusual)?;
        self.0 = rest;
        Ok(*bytes)
    }

    /// Skips the value of a field that nobody knows.
    pub(super) fn skip(&mut self, wire: u32) -> Result<(), Unusual> {
        match wire {
            super::plan::VARINT => self.varint().map(drop),
            super::plan::FIXED64 => self.fixed64().map(drop),
            super::plan::BYTES => self.bytes().map(drop),
            super::plan::FIXED32 => self.fixed32().map(drop),
            // Groups, and what no wire type is.
            _ => Err(Unusual),
        }
    }
}

/// Appends a JSON text, quotes included.
pub(super) fn put_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let plain = plain_prefix(bytes);
    let mut from = 0;
    for (at, byte) in bytes.iter().enumerate().skip(plain) {
        if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[from..at]);
        from = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            8 => out.extend_from_slice(b"\\b"),
            12 => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                const HEX: [u8; 16] = *b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
        }
    }
    out.extend_from_slice(&bytes[from..]);
    out.push(b'"');
}

/// Appends what the library for JSON writes of a number.
pub(super) fn put_number(value: impl serde::Serialize, out: &mut Vec<u8>) {
    value.serialize(&mut serde_json::Serializer::new(out)).expect("a number is written to memory");
}

/// Appends a 64-bit integer, which JSON has as text.
pub(super) fn put_quoted(value: impl serde::Serialize, out: &mut Vec<u8>) {
    out.push(b'"');
    put_number(value, out);
    out.push(b'"');
}

/// Appends bytes as base64 text.
pub(super) fn put_base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(bytes, &mut out[start..]).expect("there is room for all");
    out.truncate(start + written);
    out.push(b'"');
}

/// Appends what a base64 text says.
pub(super) fn decode_base64(text: &str, out: &mut Vec<u8>) -> Result<(), Unusual> {
    let engine = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    let start = out.len();
    // The estimate of the decoder rounds up by whole groups.
    out.resize(start + text.len().div_ceil(4) * 3, 0);
    let written = engine.decode_slice(text, &mut out[start..]).map_err(|_| Unusual)?;
    out.truncate(start + written);
    Ok(())
}
