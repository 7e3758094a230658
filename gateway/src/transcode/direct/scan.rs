//! Reads JSON a token at a time. Strict: whatever the grammar does not have is unusual.

use super::Unusual;

/// A place in a JSON text.
#[derive(Clone, Debug)]
pub(super) struct Scan<'j> {
    text: &'j str,
    at: usize,
}

/// The first byte of a value, which tells what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Object,
    Array,
    Text,
    Number,
    True,
    False,
    Null,
}

impl<'j> Scan<'j> {
    pub(super) const fn new(text: &'j str) -> Self {
        Self { text, at: 0 }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.byte(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// Skips space and takes the byte if it is there.
    pub(super) fn takes(&mut self, byte: u8) -> bool {
        self.space();
        let is_there = self.byte() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    /// Skips space and takes the byte, which must be there.
    pub(super) fn expect(&mut self, byte: u8) -> Result<(), Unusual> {
        if self.takes(byte) { Ok(()) } else { Err(Unusual) }
    }

    /// Skips space and tells what comes.
    pub(super) fn next(&mut self) -> Result<Next, Unusual> {
        self.space();
        Ok(match self.byte().ok_or(Unusual)? {
            b'{' => Next::Object,
            b'[' => Next::Array,
            b'"' => Next::Text,
            b'-' | b'0'..=b'9' => Next::Number,
            b't' => Next::True,
            b'f' => Next::False,
            b'n' => Next::Null,
            _ => return Err(Unusual),
        })
    }

    /// Nothing but space is left.
    pub(super) fn end(mut self) -> Result<(), Unusual> {
        self.space();
        if self.at == self.text.len() { Ok(()) } else { Err(Unusual) }
    }

    /// Takes a word such as `null`.
    pub(super) fn word(&mut self, word: &str) -> Result<(), Unusual> {
        if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(())
        } else {
            Err(Unusual)
        }
    }

    /// Takes a text without escapes.
    pub(super) fn plain(&mut self) -> Result<&'j str, Unusual> {
        let (text, has_escapes) = self.text()?;
        if has_escapes { Err(Unusual) } else { Ok(text) }
    }

    /// Takes a text as it stands between its quotes, and tells whether it has escapes.
    pub(super) fn text(&mut self) -> Result<(&'j str, bool), Unusual> {
        self.expect(b'"')?;
        let start = self.at;
        let bytes = self.text.as_bytes();
        let mut has_escapes = false;
        loop {
            // An escape at the very end jumps over it.
            self.at += plain_prefix(bytes.get(self.at..).ok_or(Unusual)?);
            match bytes.get(self.at).ok_or(Unusual)? {
                b'"' => break,
                b'\\' => {
                    has_escapes = true;
                    self.at += 2;
                }
                0..=0x1f => return Err(Unusual),
                _ => self.at += 1,
            }
        }
        // An escape jumps over a byte that may be within a character.
        let text = self.text.get(start..self.at).ok_or(Unusual)?;
        self.at += 1;
        Ok((text, has_escapes))
    }

    /// Takes a number as it is written; tells whether it is an integer without fraction and exponent.
    pub(super) fn number(&mut self) -> Result<(&'j str, bool), Unusual> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let digits = |mut at: usize| {
            let first = at;
            while bytes.get(at).is_some_and(u8::is_ascii_digit) {
                at += 1;
            }
            if at == first { Err(Unusual) } else { Ok(at) }
        };
        self.at += usize::from(self.byte() == Some(b'-'));
        let whole = self.at;
        self.at = digits(self.at)?;
        if bytes[whole] == b'0' && self.at > whole + 1 {
            return Err(Unusual);
        }
        let mut is_whole = true;
        if self.byte() == Some(b'.') {
            is_whole = false;
            self.at = digits(self.at + 1)?;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            is_whole = false;
            let sign = usize::from(matches!(bytes.get(self.at + 1), Some(b'+' | b'-')));
            self.at = digits(self.at + 1 + sign)?;
        }
        Ok((&self.text[start..self.at], is_whole))
    }
}

/// How many bytes, in eights, stand in a JSON text as they are: no quote, no backslash, no control character.
pub(super) fn plain_prefix(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGHS: u64 = u64::from_le_bytes([0x80; 8]);
    // The high bit of each byte that is below `least`, which is at most 0x80.
    let below = |eight: u64, least: u8| eight.wrapping_sub(ONES * u64::from(least)) & !eight & HIGHS;
    let is = |eight: u64, byte: u8| below(eight ^ (ONES * u64::from(byte)), 1);
    let (eights, _) = bytes.as_chunks::<8>();
    let is_plain = |eight: &&[u8; 8]| {
        let eight = u64::from_le_bytes(**eight);
        below(eight, 0x20) | is(eight, b'"') | is(eight, b'\\') == 0
    };
    eights.iter().take_while(is_plain).count() * 8
}

/// Appends what a text with escapes says.
pub(super) fn unescape(text: &str, out: &mut Vec<u8>) -> Result<(), Unusual> {
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = rest.as_bytes().get(at + 1).ok_or(Unusual)?;
        let mut used = 2;
        match escape {
            b'"' | b'\\' | b'/' => out.push(*escape),
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => {
                let (letter, length) = unicode(&rest[at..])?;
                used = length;
                out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
            }
            _ => return Err(Unusual),
        }
        rest = rest.get(at + used..).ok_or(Unusual)?;
    }
    out.extend_from_slice(rest.as_bytes());
    Ok(())
}

/// The letter of an escape by four hexadecimal digits, or of two of them, and how long they are.
fn unicode(text: &str) -> Result<(char, usize), Unusual> {
    let unit = |at: usize| {
        let digits = text.get(at + 2..at + 6).filter(|_| text.as_bytes()[at..].starts_with(b"\\u"));
        let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit())).ok_or(Unusual)?;
        u16::from_str_radix(digits, 16).map_err(|_| Unusual)
    };
    let first = unit(0)?;
    if let Some(letter) = char::from_u32(first.into()) {
        return Ok((letter, 6));
    }
    let pair = [first, unit(6)?];
    let letter = char::decode_utf16(pair).next().ok_or(Unusual)?.map_err(|_| Unusual)?;
    Ok((letter, 12))
}
