//! A JSON body becomes a message on the wire.

use super::plan::{BYTES, Field, Form, Shape, Table, TableId, Tables, Type};
use super::scan::{Next, Scan, unescape};
use super::text::{begin, decode_base64, end, put_tag, put_varint};
use super::{Unusual, time};

/// Deepest nesting of objects and lists.
const DEPTH_MAX: u32 = 60;
/// Most entries of a map, as each key is compared with those before.
const ENTRIES_MAX: usize = 32;

/// Gives the marks of the fields that the body names.
pub(super) fn message(tables: &Tables, root: TableId, body: &[u8], out: &mut Vec<u8>) -> Result<u128, Unusual> {
    let text = std::str::from_utf8(body).map_err(|_| Unusual)?;
    let mut reader = Reader { tables, scan: Scan::new(text), depth: 0 };
    if tables.table(root).form != Form::Object {
        return Err(Unusual);
    }
    let seen = reader.object(tables.table(root), out)?;
    reader.scan.end()?;
    Ok(seen)
}

struct Reader<'j> {
    tables: &'j Tables,
    scan: Scan<'j>,
    depth: u32,
}

impl<'j> Reader<'j> {
    fn deeper(&mut self) -> Result<(), Unusual> {
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(Unusual) } else { Ok(()) }
    }

    /// The fields of a message, without tag and length. Gives the marks of those that are named.
    fn object(&mut self, table: &'j Table, out: &mut Vec<u8>) -> Result<u128, Unusual> {
        self.deeper()?;
        self.scan.expect(b'{')?;
        let (mut seen, mut chosen, mut guess) = (0_u128, 0_u64, 0);
        let mut is_first = true;
        while !self.scan.takes(b'}') {
            if !std::mem::take(&mut is_first) {
                self.scan.expect(b',')?;
            }
            let name = self.scan.plain()?;
            let (at, field) = table.by_name(name, guess).ok_or(Unusual)?;
            guess = at + 1;
            if seen & (1 << at) != 0 {
                return Err(Unusual);
            }
            seen |= 1 << at;
            self.scan.expect(b':')?;
            if self.scan.next()? == Next::Null {
                self.scan.word("null")?;
                if self.says_null(field) {
                    return Err(Unusual);
                }
                continue;
            }
            if chosen & field.oneof != 0 {
                return Err(Unusual);
            }
            chosen |= field.oneof;
            self.field(field, out)?;
        }
        self.depth -= 1;
        Ok(seen)
    }

    /// Whether null is a value of the field.
    fn says_null(&self, field: &Field) -> bool {
        match field.shape {
            Shape::One(Type::Message(id)) => self.tables.table(id).form == Form::Unusual,
            Shape::One(_) | Shape::Many(..) | Shape::Map(..) => false,
        }
    }

    fn field(&mut self, field: &'j Field, out: &mut Vec<u8>) -> Result<(), Unusual> {
        match field.shape {
            Shape::One(kind) => {
                let start = out.len();
                put_tag(field.number, kind.wire(), out);
                let is_default = self.value(kind, out)?;
                if is_default && field.is_implicit {
                    out.truncate(start);
                }
                Ok(())
            }
            Shape::Many(kind, true) => self.packed(field.number, kind, out),
            Shape::Many(kind, false) => self.list(|reader| {
                put_tag(field.number, kind.wire(), out);
                reader.value(kind, out).map(drop)
            }),
            Shape::Map(key, value) => self.map(field.number, key, value, out),
        }
    }

    fn list(&mut self, mut each: impl FnMut(&mut Self) -> Result<(), Unusual>) -> Result<(), Unusual> {
        self.deeper()?;
        self.scan.expect(b'[')?;
        let mut is_first = true;
        while !self.scan.takes(b']') {
            if !std::mem::take(&mut is_first) {
                self.scan.expect(b',')?;
            }
            each(self)?;
        }
        self.depth -= 1;
        Ok(())
    }

    fn packed(&mut self, number: u32, kind: Type, out: &mut Vec<u8>) -> Result<(), Unusual> {
        let before = out.len();
        put_tag(number, BYTES, out);
        let start = begin(out);
        self.list(|reader| reader.value(kind, out).map(drop))?;
        if out.len() == start {
            out.truncate(before);
        } else {
            end(start, out);
        }
        Ok(())
    }

    fn map(&mut self, number: u32, key: Type, value: Type, out: &mut Vec<u8>) -> Result<(), Unusual> {
        self.deeper()?;
        self.scan.expect(b'{')?;
        let mut keys = [""; ENTRIES_MAX];
        let mut count = 0;
        while !self.scan.takes(b'}') {
            if count > 0 {
                self.scan.expect(b',')?;
            }
            let text = self.scan.plain()?;
            if count == ENTRIES_MAX || keys[..count].contains(&text) {
                return Err(Unusual);
            }
            keys[count] = text;
            count += 1;
            self.scan.expect(b':')?;
            put_tag(number, BYTES, out);
            let start = begin(out);
            put_tag(1, key.wire(), out);
            put_key(key, text, out)?;
            put_tag(2, value.wire(), out);
            self.value(value, out)?;
            end(start, out);
        }
        self.depth -= 1;
        Ok(())
    }

    /// One value, without its tag. Tells whether it is the default of its type.
    fn value(&mut self, kind: Type, out: &mut Vec<u8>) -> Result<bool, Unusual> {
        match kind {
            Type::String => {
                let (text, has_escapes) = self.scan.text()?;
                let start = begin(out);
                if has_escapes {
                    unescape(text, out)?;
                } else {
                    out.extend_from_slice(text.as_bytes());
                }
                let is_empty = out.len() == start;
                end(start, out);
                Ok(is_empty)
            }
            Type::Bytes => {
                let text = self.scan.plain()?;
                let start = begin(out);
                decode_base64(text, out)?;
                let is_empty = out.len() == start;
                end(start, out);
                Ok(is_empty)
            }
            Type::Bool => match self.scan.next()? {
                Next::True => self.scan.word("true").map(|()| out.push(1)).map(|()| false),
                Next::False => self.scan.word("false").map(|()| out.push(0)).map(|()| true),
                _ => Err(Unusual),
            },
            Type::Enum(id) => {
                let number = match self.scan.next()? {
                    Next::Text => self.tables.enumeration(id).number(self.scan.plain()?).ok_or(Unusual)?,
                    Next::Number => self.integer::<i32>()?,
                    _ => return Err(Unusual),
                };
                put_varint(signed(number.into()), out);
                Ok(number == 0)
            }
            Type::Message(id) => {
                let start = begin(out);
                self.nested(self.tables.table(id), out)?;
                end(start, out);
                Ok(false)
            }
            _ => self.number(kind, out),
        }
    }

    fn number(&mut self, kind: Type, out: &mut Vec<u8>) -> Result<bool, Unusual> {
        if let Type::Double | Type::Float = kind {
            return self.float(kind, out);
        }
        let (text, is_quoted) = match self.scan.next()? {
            Next::Text => (self.scan.plain()?, true),
            Next::Number => match self.scan.number()? {
                (text, true) => (text, false),
                // 1.0 and 1e3 are integers too.
                (_, false) => return Err(Unusual),
            },
            _ => return Err(Unusual),
        };
        if is_quoted && !is_integer(text) {
            return Err(Unusual);
        }
        put_integer(kind, text, out)
    }

    fn integer<N: std::str::FromStr>(&mut self) -> Result<N, Unusual> {
        match self.scan.number()? {
            (text, true) => text.parse().map_err(|_| Unusual),
            (_, false) => Err(Unusual),
        }
    }

    fn float(&mut self, kind: Type, out: &mut Vec<u8>) -> Result<bool, Unusual> {
        // The names of what is no number, and quoted numbers, are rare.
        if self.scan.next()? != Next::Number {
            return Err(Unusual);
        }
        let (text, _) = self.scan.number()?;
        let value: f64 = text.parse().map_err(|_| Unusual)?;
        if value.is_infinite() {
            return Err(Unusual);
        }
        if kind == Type::Double {
            out.extend_from_slice(&value.to_le_bytes());
            return Ok(value.to_bits() == 0);
        }
        let narrow = narrow(value)?;
        out.extend_from_slice(&narrow.to_le_bytes());
        Ok(narrow.to_bits() == 0)
    }

    /// A message within another, without tag and length.
    fn nested(&mut self, table: &'j Table, out: &mut Vec<u8>) -> Result<(), Unusual> {
        match table.form {
            Form::Object => self.object(table, out).map(drop),
            Form::Wrapper => {
                let (_, field) = table.by_number(1).ok_or(Unusual)?;
                self.field(field, out)
            }
            Form::Timestamp => {
                let (seconds, nanos) = time::read_timestamp(self.scan.plain()?)?;
                put_time(seconds, nanos, out);
                Ok(())
            }
            Form::Duration => {
                let (seconds, nanos) = time::read_duration(self.scan.plain()?)?;
                put_time(seconds, nanos, out);
                Ok(())
            }
            Form::FieldMask => put_mask(self.scan.plain()?, out),
            Form::Unusual => Err(Unusual),
        }
    }
}

/// Whether a quoted text is an integer as JSON writes it.
fn is_integer(text: &str) -> bool {
    let mut scan = Scan::new(text);
    matches!(scan.number(), Ok((whole, true)) if whole.len() == text.len())
}

/// Appends an integer; tells whether it is zero.
fn put_integer(kind: Type, text: &str, out: &mut Vec<u8>) -> Result<bool, Unusual> {
    fn parse<N: std::str::FromStr>(text: &str) -> Result<N, Unusual> {
        text.parse().map_err(|_| Unusual)
    }
    let start = out.len();
    match kind {
        Type::Int32 => put_varint(signed(parse::<i32>(text)?.into()), out),
        Type::Int64 => put_varint(signed(parse(text)?), out),
        Type::Uint32 => put_varint(parse::<u32>(text)?.into(), out),
        Type::Uint64 => put_varint(parse(text)?, out),
        Type::Sint32 => put_varint(zigzag(parse::<i32>(text)?.into()), out),
        Type::Sint64 => put_varint(zigzag(parse(text)?), out),
        Type::Fixed32 => out.extend_from_slice(&parse::<u32>(text)?.to_le_bytes()),
        Type::Fixed64 => out.extend_from_slice(&parse::<u64>(text)?.to_le_bytes()),
        Type::Sfixed32 => out.extend_from_slice(&parse::<i32>(text)?.to_le_bytes()),
        Type::Sfixed64 => out.extend_from_slice(&parse::<i64>(text)?.to_le_bytes()),
        Type::Double | Type::Float | Type::Bool | Type::String | Type::Bytes | Type::Enum(_) | Type::Message(_) => {
            return Err(Unusual);
        }
    }
    Ok(out[start..].iter().all(|byte| *byte == 0))
}

/// Appends the key of a map's entry.
fn put_key(kind: Type, text: &str, out: &mut Vec<u8>) -> Result<(), Unusual> {
    match kind {
        Type::String => {
            let start = begin(out);
            out.extend_from_slice(text.as_bytes());
            end(start, out);
        }
        Type::Bool => out.push(match text {
            "true" => 1,
            "false" => 0,
            _ => return Err(Unusual),
        }),
        // "-0" would be a second name of a key.
        _ if !is_integer(text) || text == "-0" => return Err(Unusual),
        _ => _ = put_integer(kind, text, out)?,
    }
    Ok(())
}

fn put_time(seconds: i64, nanos: i32, out: &mut Vec<u8>) {
    for (number, value) in [(1, seconds), (2, nanos.into())] {
        if value != 0 {
            put_tag(number, super::plan::VARINT, out);
            put_varint(signed(value), out);
        }
    }
}

/// Appends the paths of a field mask, camel case made snake case.
fn put_mask(text: &str, out: &mut Vec<u8>) -> Result<(), Unusual> {
    if text.is_empty() {
        return Ok(());
    }
    for path in text.split(',') {
        if path.is_empty() || !path.bytes().all(|letter| letter.is_ascii_alphanumeric() || letter == b'.') {
            return Err(Unusual);
        }
        put_tag(1, BYTES, out);
        let start = begin(out);
        for letter in path.bytes() {
            if letter.is_ascii_uppercase() {
                out.push(b'_');
            }
            out.push(letter.to_ascii_lowercase());
        }
        end(start, out);
    }
    Ok(())
}

/// A signed integer as a varint has it.
fn signed(value: i64) -> u64 {
    u64::from_le_bytes(value.to_le_bytes())
}

fn zigzag(value: i64) -> u64 {
    signed((value << 1) ^ (value >> 63))
}

#[expect(clippy::cast_possible_truncation, reason = "rounding is what a float field asks for; overflow is unusual")]
fn narrow(value: f64) -> Result<f32, Unusual> {
    let narrow = value as f32;
    if narrow.is_infinite() { Err(Unusual) } else { Ok(narrow) }
}
