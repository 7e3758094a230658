//! Expressions written as text again, so that one node can ask another: what is read back is the same expression. Pure.

use std::fmt::{self, Display, Formatter, Write as _};

use prost_types::Timestamp;

use super::{Comparison, Expression, Value};

impl Display for Expression {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(parts) => joined(out, parts, " "),
            Self::Any(parts) => joined(out, parts, " OR "),
            Self::Not(part) => {
                out.write_char('-')?;
                inner(out, part)
            }
            Self::Text(needle) => quoted(out, needle.lower()),
            Self::Has(name) => write!(out, "{name}:*"),
            Self::Field(name, _, Value::Pattern(pattern)) => {
                write!(out, "{name}=~")?;
                quoted(out, pattern.regex().as_str())
            }
            Self::Field(name, comparison, value) => {
                write!(out, "{name}{}", sign(*comparison))?;
                match value {
                    Value::Text(text) | Value::Number(_, text) => quoted(out, text),
                    Value::Level(level) => quoted(out, level.word()),
                    Value::Time(time) => quoted(out, &date(time.0)),
                    Value::Pattern(pattern) => quoted(out, pattern.regex().as_str()),
                }
            }
        }
    }
}

const fn sign(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Equal => "=",
        Comparison::Less => "<",
        Comparison::LessOrEqual => "<=",
        Comparison::More => ">",
        Comparison::MoreOrEqual => ">=",
    }
}

/// A part of another expression: in parentheses where it has parts of its own.
fn inner(out: &mut Formatter<'_>, part: &Expression) -> fmt::Result {
    match part {
        Expression::All(_) | Expression::Any(_) => write!(out, "({part})"),
        _ => write!(out, "{part}"),
    }
}

fn joined(out: &mut Formatter<'_>, parts: &[Expression], between: &str) -> fmt::Result {
    for (place, part) in parts.iter().enumerate() {
        if place > 0 {
            out.write_str(between)?;
        }
        inner(out, part)?;
    }
    Ok(())
}

fn quoted(out: &mut Formatter<'_>, text: &str) -> fmt::Result {
    out.write_char('"')?;
    for letter in text.chars() {
        if matches!(letter, '"' | '\\') {
            out.write_char('\\')?;
        }
        out.write_char(letter)?;
    }
    out.write_char('"')
}

fn date(nanos: u64) -> String {
    let seconds = i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(nanos % 1_000_000_000).unwrap_or_default();
    Timestamp { seconds, nanos }.to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read_as_the_same() {
        for text in [
            "",
            "timeout",
            "\"no \\\"such\\\\ host\"",
            "a b OR c -(d e)",
            "service:review http.status>=500 level>=warn (a OR b) c",
            "field:* -debug NOT service:edge NOT NOT x",
            "time>=2026-11-25T12:00:00.5Z time<2026-11-26T00:00:00Z",
            "body=~\"took [0-9]{4,} ms\" path:/v1/* n=1e3 star:\"*\"",
            "((a OR b) c) OR ()",
        ] {
            let read = Expression::parse(text).unwrap();
            assert_eq!(Expression::parse_written(&read.to_string()), Ok(read), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_written_and_read_as_the_same(text in r#"[a-c ():=<>~*"\\\-!0-9]{0,40}|([a-z]{1,3}[:=<>]{1,2}[a-z0-9"]{1,3} (OR |-)?){1,6}"#) {
            if let Ok(read) = Expression::parse(&text) {
                let written = read.to_string();
                prop_assert_eq!(Expression::parse_written(&written), Ok(read), "{}", written);
            }
        }
    }
}
