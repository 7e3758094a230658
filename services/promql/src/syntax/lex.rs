//! Words, numbers and signs of a query.

use std::time::Duration;

use crate::error::Error;

/// A word, a number or a sign.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    /// A name, or a word of the language.
    Word(String),
    Number(f64),
    /// A number written as a duration, in seconds.
    Duration(f64),
    Text(String),
    Sign(&'static str),
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Word(word) => write!(f, "{word:?}"),
            Self::Number(value) | Self::Duration(value) => write!(f, "the number {value}"),
            Self::Text(text) => write!(f, "the text {text:?}"),
            Self::Sign(sign) => write!(f, "{sign:?}"),
        }
    }
}

/// Signs, the longer ones first.
const SIGNS: [&str; 27] = [
    "=~", "!~", "!=", "==", ">=", "<=", "</", ">/", "=", ">", "<", "+", "-", "*", "/", "%", "^", "(", ")", "{", "}",
    "[", "]", ",", ":", "@", "$",
];

const UNITS: [(&str, f64); 7] =
    [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86_400.0), ("w", 604_800.0), ("y", 31_536_000.0)];

/// A text on its way to tokens.
struct Lexer<'t> {
    text: &'t str,
    at: usize,
    /// How deep in brackets, where a colon is a sign of its own.
    brackets: usize,
    /// Whether in braces, where names of labels are that have no colon.
    in_braces: bool,
}

/// All tokens with where they begin.
///
/// # Errors
/// [`Error::Syntax`] with what cannot be read and where.
pub(crate) fn lex(text: &str) -> Result<Vec<(usize, Token)>, Error> {
    let mut lexer = Lexer { text, at: 0, brackets: 0, in_braces: false };
    let mut all = Vec::new();
    while let Some(found) = lexer.next()? {
        all.push(found);
    }
    Ok(all)
}

/// Where something stands, as people count.
pub(crate) fn place(text: &str, at: usize) -> String {
    let before = &text[..at.min(text.len())];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("{line}:{column}")
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn wrong(&self, what: &str) -> Error {
        Error::Syntax(format!("{}: {what}", place(self.text, self.at)))
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start().len();
            let comment = match rest[blank..].starts_with('#') {
                true => rest[blank..].find('\n').unwrap_or(rest.len() - blank),
                false => 0,
            };
            if blank + comment == 0 {
                return;
            }
            self.at += blank + comment;
        }
    }

    fn next(&mut self) -> Result<Option<(usize, Token)>, Error> {
        self.skip_blank();
        let begin = self.at;
        let Some(first) = self.rest().chars().next() else { return Ok(None) };
        let second = self.rest().as_bytes().get(1).copied().unwrap_or_default();
        let token = if first.is_ascii_digit() || first == '.' && second.is_ascii_digit() {
            self.number()?
        } else if ['"', '\'', '`'].contains(&first) {
            Token::Text(self.quoted(first)?)
        } else if first.is_alphabetic() || first == '_' || first == ':' && self.is_name_colon(second) {
            self.word()
        } else {
            self.sign()?
        };
        Ok(Some((begin, token)))
    }

    const fn is_name_colon(&self, next: u8) -> bool {
        self.brackets == 0 && !self.in_braces && (next.is_ascii_alphanumeric() || next == b'_' || next == b':')
    }

    fn word(&mut self) -> Token {
        let has_colons = self.brackets == 0 && !self.in_braces;
        let fits = |sign: char| is_of_name(sign) || has_colons && sign == ':';
        let length = self.rest().find(|sign| !fits(sign)).unwrap_or(self.rest().len());
        let word = self.rest()[..length].to_owned();
        self.at += length;
        match word.to_ascii_lowercase().as_str() {
            "inf" if !self.in_braces => Token::Number(f64::INFINITY),
            "nan" if !self.in_braces => Token::Number(f64::NAN),
            _ => Token::Word(word),
        }
    }

    fn sign(&mut self) -> Result<Token, Error> {
        let Some(sign) = SIGNS.into_iter().find(|sign| self.rest().starts_with(sign)) else {
            let sign = self.rest().chars().next().unwrap_or_default();
            return Err(self.wrong(&format!("{sign:?} has no meaning here")));
        };
        match sign {
            "[" => self.brackets += 1,
            "]" => self.brackets = self.brackets.saturating_sub(1),
            "{" => self.in_braces = true,
            "}" => self.in_braces = false,
            _ => {}
        }
        self.at += sign.len();
        Ok(Token::Sign(sign))
    }

    fn number(&mut self) -> Result<Token, Error> {
        let length = self.rest().find(|sign: char| !sign.is_ascii_alphanumeric() && sign != '_' && sign != '.');
        let mut length = length.unwrap_or(self.rest().len());
        let is_hex = self.rest().starts_with("0x") || self.rest().starts_with("0X");
        // The sign of an exponent belongs to the number.
        let part = &self.rest()[..length];
        if !is_hex && part.ends_with(['e', 'E']) && part[..part.len() - 1].parse::<f64>().is_ok() {
            let more = self.rest()[length..].strip_prefix(['+', '-']).unwrap_or_default();
            let digits = more.find(|sign: char| !sign.is_ascii_digit()).unwrap_or(more.len());
            if digits > 0 {
                length += 1 + digits;
            }
        }
        let word = &self.rest()[..length];
        let token = if let Some(seconds) = duration_seconds(word) {
            Some(Token::Duration(seconds))
        } else {
            number(word).map(Token::Number)
        };
        let token = token.ok_or_else(|| self.wrong(&format!("{word:?} is neither a number nor a duration")))?;
        self.at += length;
        Ok(token)
    }

    fn quoted(&mut self, quote: char) -> Result<String, Error> {
        let rest = &self.text[self.at + 1..];
        if quote == '`' {
            let end = rest.find('`').ok_or_else(|| self.wrong("a text is not closed"))?;
            let text = rest[..end].to_owned();
            self.at += end + 2;
            return Ok(text);
        }
        let mut bytes = Vec::new();
        let mut signs = rest.char_indices();
        while let Some((at, sign)) = signs.next() {
            if sign == quote {
                let text = String::from_utf8(bytes).map_err(|_| self.wrong("a text is no UTF-8"))?;
                self.at += at + 2;
                return Ok(text);
            }
            if sign == '\n' {
                break;
            }
            if sign != '\\' {
                bytes.extend(sign.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            escape(quote, &mut signs, &mut bytes).ok_or_else(|| self.wrong("a text has an unknown escape"))?;
        }
        Err(self.wrong("a text is not closed"))
    }
}

/// What follows a backslash, as Go writes it.
fn escape(quote: char, signs: &mut std::str::CharIndices<'_>, into: &mut Vec<u8>) -> Option<()> {
    let (_, sign) = signs.next()?;
    let mut code = |first: Option<char>, many: usize, radix: u32| {
        let digits: String = first.into_iter().chain(signs.take(many).map(|(_, sign)| sign)).collect();
        u32::from_str_radix(&digits, radix).ok().filter(|_| digits.len() == many + usize::from(first.is_some()))
    };
    let simple = match sign {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        '\\' => b'\\',
        'x' => u8::try_from(code(None, 2, 16)?).ok()?,
        '0'..='7' => u8::try_from(code(Some(sign), 2, 8)?).ok()?,
        'u' | 'U' => {
            let made = char::from_u32(code(None, if sign == 'u' { 4 } else { 8 }, 16)?)?;
            into.extend(made.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(());
        }
        _ if sign == quote => u8::try_from(quote).ok()?,
        _ => return None,
    };
    into.push(simple);
    Some(())
}

/// Whether a sign may stand in a name that is not in quotes: letters and digits of any script, and points.
fn is_of_name(sign: char) -> bool {
    sign.is_alphanumeric() || sign == '_' || sign == '.'
}

fn number(word: &str) -> Option<f64> {
    if let Some(hex) = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        let value = u64::from_str_radix(&hex.replace('_', ""), 16).ok()?;
        return value.to_string().parse().ok();
    }
    let is_octal = word.len() > 1 && word.starts_with('0') && word.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    if is_octal {
        return u64::from_str_radix(word, 8).ok()?.to_string().parse().ok();
    }
    // A line between digits is for people only.
    let is_spaced = |at: usize| {
        let around = |at: Option<usize>| at.and_then(|at| word.as_bytes().get(at)).is_some_and(u8::is_ascii_digit);
        around(at.checked_sub(1)) && around(Some(at + 1))
    };
    let spaced = word.match_indices('_').all(|(at, _)| is_spaced(at));
    spaced.then(|| word.replace('_', "").parse().ok())?
}

fn duration_seconds(word: &str) -> Option<f64> {
    let mut rest = word;
    let mut seconds = 0.0;
    let mut last = f64::INFINITY;
    while !rest.is_empty() {
        let digits = rest.find(|sign: char| !sign.is_ascii_digit()).filter(|digits| *digits > 0)?;
        let many: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (unit, worth) = UNITS.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        if worth >= last {
            return None;
        }
        last = worth;
        seconds += many * worth;
        rest = &rest[unit.len()..];
    }
    Some(seconds)
}

/// Reads a duration as PromQL writes it, such as `1h30m`.
///
/// # Errors
/// [`Error::Syntax`] if it is none, or none that is longer than nothing.
pub fn duration(text: &str) -> Result<Duration, Error> {
    let wrong = || Error::Syntax(format!("{text:?} is no duration such as 5m or 1h30m"));
    let seconds = duration_seconds(text).filter(|seconds| *seconds > 0.0).ok_or_else(wrong)?;
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}
