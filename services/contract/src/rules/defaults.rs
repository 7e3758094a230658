//! Default values. Pure.

use std::fmt;

use crate::schema::{Field, Kind, Label, Schema};

/// What a field is when nothing is sent.
#[derive(Clone, Debug)]
pub(super) enum Default {
    Bytes {
        bytes: Vec<u8>,
        is_text: bool,
    },
    Bool(bool),
    Whole(i128),
    Float(f32),
    Double(f64),
    /// The number of an enum's value, and how it is written.
    Enum(i32, String),
}

impl fmt::Display for Default {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes { bytes, is_text: true } => write!(formatter, "{:?}", String::from_utf8_lossy(bytes)),
            Self::Bytes { bytes, is_text: false } => {
                let shown: Vec<String> = bytes.iter().map(|byte| format!("0x{byte:X}")).collect();
                write!(formatter, "[{}]", shown.join(","))
            }
            Self::Bool(truth) => truth.fmt(formatter),
            Self::Whole(number) => number.fmt(formatter),
            Self::Float(number) => number.fmt(formatter),
            Self::Double(number) => number.fmt(formatter),
            Self::Enum(_, name) => formatter.write_str(name),
        }
    }
}

impl Default {
    /// Whether it is what a field is anyway.
    pub(super) fn is_zero(&self) -> bool {
        match self {
            Self::Bytes { bytes, .. } => bytes.is_empty(),
            Self::Bool(truth) => !truth,
            Self::Whole(number) => *number == 0,
            Self::Float(number) => number.to_bits() == 0,
            Self::Double(number) => number.to_bits() == 0,
            Self::Enum(number, _) => *number == 0,
        }
    }

    /// Whether a reader sees the same; a change of the kind is another rule's, so a number is a number here.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bytes { bytes: one, .. }, Self::Bytes { bytes: other, .. }) => one == other,
            (Self::Bytes { .. }, _) | (_, Self::Bytes { .. }) => false,
            (Self::Float(one), Self::Double(other)) | (Self::Double(other), Self::Float(one)) => {
                // Compared as the narrower of the two, which has lost the rest.
                #[expect(clippy::cast_possible_truncation, reason = "to lose it is the point")]
                let other = *other as f32;
                *one == other || (one.is_nan() && other.is_nan())
            }
            _ => self.number().is_same(&other.number()),
        }
    }

    fn number(&self) -> Number {
        match self {
            Self::Bytes { .. } => Number::Whole(0),
            Self::Bool(truth) => Number::Whole(i128::from(*truth)),
            Self::Whole(number) => Number::Whole(*number),
            Self::Float(number) => Number::of(f64::from(*number)),
            Self::Double(number) => Number::of(*number),
            Self::Enum(number, _) => Number::Whole(i128::from(*number)),
        }
    }
}

#[derive(Clone, Copy)]
enum Number {
    Whole(i128),
    Broken(f64),
}

impl Number {
    /// A floating number that is a whole one is that.
    fn of(number: f64) -> Self {
        // Within this all whole numbers of 64 bits lie, and no conversion loses anything.
        if number.fract() == 0.0 && number.abs() < 1e30 {
            #[expect(clippy::cast_possible_truncation, reason = "it is whole and fits")]
            return Self::Whole(number as i128);
        }
        Self::Broken(number)
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Whole(one), Self::Whole(other)) => one == other,
            (Self::Broken(one), Self::Broken(other)) => one == other || (one.is_nan() && other.is_nan()),
            (Self::Whole(_), Self::Broken(_)) | (Self::Broken(_), Self::Whole(_)) => false,
        }
    }
}

/// The default of a field; `None` if it can have none.
pub(super) fn of(schema: &Schema, field: &Field) -> Option<Default> {
    if field.label == Label::Repeated {
        return None;
    }
    let said = field.default.as_deref();
    Some(match field.kind {
        Kind::Message | Kind::Group => return None,
        Kind::String => Default::Bytes { bytes: said.unwrap_or_default().into(), is_text: true },
        Kind::Bytes => Default::Bytes { bytes: unescape(said.unwrap_or_default()), is_text: false },
        Kind::Bool => Default::Bool(said == Some("true")),
        Kind::Enum => {
            let one = schema.enumeration(&field.type_name)?;
            let value = match said {
                Some(name) => one.values.iter().find(|value| &*value.name == name),
                None => one.values.first(),
            };
            let value = value?;
            // What is not said and of a map's entry is zero as well: the first value.
            Default::Enum(value.number, format!("{}.{}", one.name(), value.name))
        }
        Kind::Float => Default::Float(said.map_or(0.0, |said| said.parse().unwrap_or(0.0))),
        Kind::Double => Default::Double(said.map_or(0.0, |said| said.parse().unwrap_or(0.0))),
        Kind::Int64
        | Kind::Uint64
        | Kind::Int32
        | Kind::Fixed64
        | Kind::Fixed32
        | Kind::Uint32
        | Kind::Sfixed32
        | Kind::Sfixed64
        | Kind::Sint32
        | Kind::Sint64 => Default::Whole(said.and_then(|said| said.parse().ok()).unwrap_or(0)),
    })
}

/// The bytes of a text that is written as in C.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'\\' {
            bytes.push(first);
            continue;
        }
        let Some((&kind, after)) = rest.split_first() else { break };
        rest = after;
        bytes.push(match kind {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'a' => 7,
            b'b' => 8,
            b'f' => 12,
            b'v' => 11,
            b'x' | b'X' => digits(&mut rest, 16, 2, 0),
            b'0'..=b'7' => digits(&mut rest, 8, 2, kind - b'0'),
            other => other,
        });
    }
    bytes
}

/// At most `most` digits that follow, after a number that is begun.
fn digits(rest: &mut &[u8], base: u32, most: usize, begun: u8) -> u8 {
    let mut number = u32::from(begun);
    for _ in 0..most {
        let Some((first, after)) = rest.split_first() else { break };
        let Some(digit) = char::from(*first).to_digit(base) else { break };
        (number, *rest) = (number * base + digit, after);
    }
    u8::try_from(number & 0xff).unwrap_or_default()
}
