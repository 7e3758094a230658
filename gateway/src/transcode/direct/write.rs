//! A message on the wire becomes JSON.

use super::plan::{BYTES, Field, Form, Shape, Table, TableId, Tables, Type};
use super::text::{Wire, put_base64, put_number, put_quoted, put_text};
use super::{Unusual, time};

/// Deepest nesting of messages.
const DEPTH_MAX: u32 = 60;
/// Most entries of a map, as each key is compared with those before.
const ENTRIES_MAX: usize = 64;

pub(super) fn message(tables: &Tables, root: TableId, message: &[u8], out: &mut Vec<u8>) -> Result<(), Unusual> {
    let mut writer = Writer { tables, depth: 0 };
    writer.nested(tables.table(root), message, out)
}

struct Writer<'t> {
    tables: &'t Tables,
    depth: u32,
}

/// Which fields of a message were there.
#[derive(Default)]
struct Seen {
    fields: u128,
    oneofs: u64,
}

impl Seen {
    /// Marks a field, which must not have been there before, and no other of its oneof.
    fn mark(&mut self, at: usize, field: &Field) -> Result<(), Unusual> {
        if self.fields & (1 << at) != 0 || self.oneofs & field.oneof != 0 {
            return Err(Unusual);
        }
        self.fields |= 1 << at;
        self.oneofs |= field.oneof;
        Ok(())
    }
}

impl<'t> Writer<'t> {
    fn nested(&mut self, table: &'t Table, message: &[u8], out: &mut Vec<u8>) -> Result<(), Unusual> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Unusual);
        }
        match table.form {
            Form::Object => self.object(table, Wire(message), out)?,
            Form::Wrapper => self.wrapper(table, message, out)?,
            Form::Timestamp => {
                let (seconds, nanos) = read_time(message)?;
                time::put_timestamp(seconds, nanos, out)?;
            }
            Form::Duration => {
                let (seconds, nanos) = read_time(message)?;
                time::put_duration(seconds, nanos, out)?;
            }
            Form::FieldMask => put_mask(message, out)?,
            Form::Unusual => return Err(Unusual),
        }
        self.depth -= 1;
        Ok(())
    }

    fn object(&mut self, table: &'t Table, mut wire: Wire<'_>, out: &mut Vec<u8>) -> Result<(), Unusual> {
        let mut seen = Seen::default();
        out.push(b'{');
        let mut is_first = true;
        while !wire.0.is_empty() {
            let (number, kind) = wire.tag()?;
            let Some((at, field)) = table.by_number(number) else {
                wire.skip(kind)?;
                continue;
            };
            seen.mark(at, field)?;
            let start = out.len();
            if !is_first {
                out.push(b',');
            }
            out.extend_from_slice(&field.key);
            if self.field(field, kind, &mut wire, out)? {
                is_first = false;
            } else {
                out.truncate(start);
            }
        }
        out.push(b'}');
        Ok(())
    }

    /// Writes a field, all of its repetitions if they follow each other; tells whether there is anything to write.
    fn field(&mut self, field: &Field, kind: u32, wire: &mut Wire<'_>, out: &mut Vec<u8>) -> Result<bool, Unusual> {
        match field.shape {
            Shape::One(expected) => {
                if kind != expected.wire() {
                    return Err(Unusual);
                }
                let is_default = self.value(expected, wire, out)?;
                Ok(!(is_default && field.is_implicit))
            }
            Shape::Many(expected, _) => self.list(field.number, expected, kind, wire, out),
            Shape::Map(key, value) if kind == BYTES => {
                self.map(field.number, (key, value), wire, out)?;
                Ok(true)
            }
            Shape::Map(..) => Err(Unusual),
        }
    }

    /// Writes a list. Tells whether it has elements.
    fn list(
        &mut self,
        number: u32,
        expected: Type,
        kind: u32,
        wire: &mut Wire<'_>,
        out: &mut Vec<u8>,
    ) -> Result<bool, Unusual> {
        let mut kind = kind;
        let mut is_empty = true;
        out.push(b'[');
        loop {
            if kind == expected.wire() {
                self.element(expected, &mut is_empty, wire, out)?;
            } else if kind == BYTES {
                let mut packed = Wire(wire.bytes()?);
                while !packed.0.is_empty() {
                    self.element(expected, &mut is_empty, &mut packed, out)?;
                }
            } else {
                return Err(Unusual);
            }
            match goes_on(number, wire)? {
                Some(next) => kind = next,
                None => break,
            }
        }
        out.push(b']');
        Ok(!is_empty)
    }

    fn element(
        &mut self,
        kind: Type,
        is_empty: &mut bool,
        wire: &mut Wire<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Unusual> {
        if !std::mem::take(is_empty) {
            out.push(b',');
        }
        self.value(kind, wire, out).map(drop)
    }

    fn map(
        &mut self,
        number: u32,
        (key, value): (Type, Type),
        wire: &mut Wire<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Unusual> {
        let mut keys: [&[u8]; ENTRIES_MAX] = [&[]; ENTRIES_MAX];
        let mut count = 0;
        out.push(b'{');
        loop {
            let entry = Entry::read(wire.bytes()?, key, value)?;
            // Keys in other than the shortest form are not told apart here.
            if count == ENTRIES_MAX || keys[..count].contains(&entry.key) {
                return Err(Unusual);
            }
            keys[count] = entry.key;
            if count > 0 {
                out.push(b',');
            }
            count += 1;
            let start = out.len();
            self.value(key, &mut Wire(entry.key), out)?;
            if out[start] != b'"' {
                out.insert(start, b'"');
                out.push(b'"');
            }
            out.push(b':');
            self.value(value, &mut Wire(entry.value), out)?;
            match goes_on(number, wire)? {
                Some(BYTES) => {}
                Some(_) => return Err(Unusual),
                None => break,
            }
        }
        out.push(b'}');
        Ok(())
    }

    /// Writes one value. Tells whether it is the default of its type.
    fn value(&mut self, kind: Type, wire: &mut Wire<'_>, out: &mut Vec<u8>) -> Result<bool, Unusual> {
        match kind {
            Type::String => {
                let text = std::str::from_utf8(wire.bytes()?).map_err(|_| Unusual)?;
                put_text(text, out);
                Ok(text.is_empty())
            }
            Type::Bytes => {
                let bytes = wire.bytes()?;
                put_base64(bytes, out);
                Ok(bytes.is_empty())
            }
            Type::Bool => {
                let value = wire.varint()? != 0;
                out.extend_from_slice(if value { b"true" } else { b"false" });
                Ok(!value)
            }
            Type::Enum(id) => {
                let number = low_32(wire.varint()?);
                match self.tables.enumeration(id).name(number) {
                    Some(name) => put_text(name, out),
                    None => put_number(number, out),
                }
                Ok(number == 0)
            }
            Type::Message(id) => {
                self.nested(self.tables.table(id), wire.bytes()?, out)?;
                Ok(false)
            }
            _ => number(kind, wire, out),
        }
    }

    /// The one field of a wrapper; its default if it is not there.
    fn wrapper(&mut self, table: &Table, message: &[u8], out: &mut Vec<u8>) -> Result<(), Unusual> {
        let (_, field) = table.by_number(1).ok_or(Unusual)?;
        let Shape::One(kind) = field.shape else { return Err(Unusual) };
        let mut wire = Wire(message);
        if wire.0.is_empty() {
            return self.value(kind, &mut Wire(&[0; 8]), out).map(drop);
        }
        if wire.tag()? != (1, kind.wire()) {
            return Err(Unusual);
        }
        self.value(kind, &mut wire, out)?;
        if wire.0.is_empty() { Ok(()) } else { Err(Unusual) }
    }
}

/// Whether the next field is of the same number; takes its tag then, and gives its wire type.
fn goes_on(number: u32, wire: &mut Wire<'_>) -> Result<Option<u32>, Unusual> {
    if wire.0.is_empty() {
        return Ok(None);
    }
    let mut ahead = *wire;
    let (next, kind) = ahead.tag()?;
    if next != number {
        return Ok(None);
    }
    *wire = ahead;
    Ok(Some(kind))
}

/// An entry of a map: the bytes of key and value, those of their defaults where they are missing.
struct Entry<'m> {
    key: &'m [u8],
    value: &'m [u8],
}

impl<'m> Entry<'m> {
    fn read(entry: &'m [u8], key: Type, value: Type) -> Result<Self, Unusual> {
        const DEFAULT: &[u8] = &[0; 8];
        let mut parts = [None; 2];
        let mut wire = Wire(entry);
        while !wire.0.is_empty() {
            let (number, kind) = wire.tag()?;
            let (place, expected) = match number {
                1 => (0, key),
                2 => (1, value),
                _ => return Err(Unusual),
            };
            if kind != expected.wire() || parts[place].is_some() {
                return Err(Unusual);
            }
            let before = wire.0;
            wire.skip(kind)?;
            parts[place] = Some(&before[..before.len() - wire.0.len()]);
        }
        // Of the default only as much as one value takes, so that a given zero equals a missing one.
        let default = |kind: Type| match kind.wire() {
            super::plan::FIXED64 => DEFAULT,
            super::plan::FIXED32 => &DEFAULT[..4],
            _ => &DEFAULT[..1],
        };
        Ok(Self { key: parts[0].unwrap_or(default(key)), value: parts[1].unwrap_or(default(value)) })
    }
}

fn number(kind: Type, wire: &mut Wire<'_>, out: &mut Vec<u8>) -> Result<bool, Unusual> {
    Ok(match kind {
        Type::Int32 => {
            let value = low_32(wire.varint()?);
            put_number(value, out);
            value == 0
        }
        Type::Int64 => {
            let value = i64::from_le_bytes(wire.varint()?.to_le_bytes());
            put_quoted(value, out);
            value == 0
        }
        Type::Uint32 => {
            let value = u32::from_le_bytes(low_32(wire.varint()?).to_le_bytes());
            put_number(value, out);
            value == 0
        }
        Type::Uint64 => {
            let value = wire.varint()?;
            put_quoted(value, out);
            value == 0
        }
        Type::Sint32 => {
            let value = u32::from_le_bytes(low_32(wire.varint()?).to_le_bytes());
            let value = i32::from_le_bytes((value >> 1).to_le_bytes()) ^ -i32::from(value & 1 == 1);
            put_number(value, out);
            value == 0
        }
        Type::Sint64 => {
            let value = wire.varint()?;
            let value = i64::from_le_bytes((value >> 1).to_le_bytes()) ^ -i64::from(value & 1 == 1);
            put_quoted(value, out);
            value == 0
        }
        Type::Fixed32 => {
            let value = u32::from_le_bytes(wire.fixed32()?);
            put_number(value, out);
            value == 0
        }
        Type::Fixed64 => {
            let value = u64::from_le_bytes(wire.fixed64()?);
            put_quoted(value, out);
            value == 0
        }
        Type::Sfixed32 => {
            let value = i32::from_le_bytes(wire.fixed32()?);
            put_number(value, out);
            value == 0
        }
        Type::Sfixed64 => {
            let value = i64::from_le_bytes(wire.fixed64()?);
            put_quoted(value, out);
            value == 0
        }
        Type::Double => {
            let value = f64::from_le_bytes(wire.fixed64()?);
            put_float(value, value, out);
            value.to_bits() == 0
        }
        Type::Float => {
            let value = f32::from_le_bytes(wire.fixed32()?);
            put_float(value, value.into(), out);
            value.to_bits() == 0
        }
        Type::Bool | Type::String | Type::Bytes | Type::Enum(_) | Type::Message(_) => return Err(Unusual),
    })
}

fn put_float(value: impl serde::Serialize, wide: f64, out: &mut Vec<u8>) {
    match wide {
        f64::INFINITY => out.extend_from_slice(b"\"Infinity\""),
        f64::NEG_INFINITY => out.extend_from_slice(b"\"-Infinity\""),
        _ if wide.is_nan() => out.extend_from_slice(b"\"NaN\""),
        _ => put_number(value, out),
    }
}

/// A 32-bit integer of a varint: what is above is cut off, as all readers do.
fn low_32(value: u64) -> i32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}

/// Seconds and nanoseconds.
fn read_time(message: &[u8]) -> Result<(i64, i32), Unusual> {
    let mut wire = Wire(message);
    let (mut seconds, mut nanos) = (None, None);
    while !wire.0.is_empty() {
        match wire.tag()? {
            (1, super::plan::VARINT) if seconds.is_none() => {
                seconds = Some(i64::from_le_bytes(wire.varint()?.to_le_bytes()));
            }
            (2, super::plan::VARINT) if nanos.is_none() => nanos = Some(low_32(wire.varint()?)),
            _ => return Err(Unusual),
        }
    }
    Ok((seconds.unwrap_or(0), nanos.unwrap_or(0)))
}

/// Writes the paths of a field mask, snake case made camel case. One that would not come back is unusual.
fn put_mask(message: &[u8], out: &mut Vec<u8>) -> Result<(), Unusual> {
    let mut wire = Wire(message);
    out.push(b'"');
    let mut is_first = true;
    while !wire.0.is_empty() {
        if wire.tag()? != (1, BYTES) {
            return Err(Unusual);
        }
        let path = wire.bytes()?;
        if path.is_empty() {
            return Err(Unusual);
        }
        if !std::mem::take(&mut is_first) {
            out.push(b',');
        }
        let mut is_raised = false;
        for letter in path {
            match letter {
                b'_' if !is_raised => is_raised = true,
                b'a'..=b'z' if is_raised => {
                    out.push(letter.to_ascii_uppercase());
                    is_raised = false;
                }
                b'a'..=b'z' | b'0'..=b'9' | b'.' if !is_raised => out.push(*letter),
                _ => return Err(Unusual),
            }
        }
        if is_raised {
            return Err(Unusual);
        }
    }
    out.push(b'"');
    Ok(())
}
