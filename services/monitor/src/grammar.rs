//! The language in which log lines are searched: one for the command line, the API and whoever draws pages. Pure.
//!
//! ```text
//! timeout                      a word: in the text or in the value of a field, whatever the case
//! "no such host"               a phrase, as it is written
//! service:review               a field; `field:*` for one that is there at all
//! http.status>=500             a comparison: numbers as numbers, everything else as text
//! level>=warn  level:error     levels in their order
//! time>=2026-11-25T12:00:00Z   a time, in UTC
//! -debug   NOT service:edge    negation
//! a b      a AND b             both
//! a OR b   (a OR b) c          either; parentheses
//! body=~"took [0-9]{4,} ms"    a regular expression, somewhere in the field
//! correlation:order-7          what a message belongs to, under any of the names by which messages carry it
//! trace:4bf9…  instance:p-1    other names of what a line is
//! ```

mod written;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeSet;

use crate::model::{Level, Line, Nanos, Needle};
use crate::pattern::Pattern;

/// Longest expression, in bytes.
pub const TEXT_BYTES_MAX: usize = 8 * 1024;
/// Most conditions of an expression.
pub const CONDITIONS_MAX: usize = 128;
/// Deepest parentheses and negations.
const DEPTH_MAX: usize = 32;

/// How much an expression may be.
#[derive(Clone, Copy)]
struct Bounds {
    text_bytes_max: usize,
    conditions_max: usize,
    depth_max: usize,
}

const OF_PEOPLE: Bounds =
    Bounds { text_bytes_max: TEXT_BYTES_MAX, conditions_max: CONDITIONS_MAX, depth_max: DEPTH_MAX };
/// Quotes, backslashes and parentheses make what was read longer when it is written.
const OF_NODES: Bounds =
    Bounds { text_bytes_max: 32 * TEXT_BYTES_MAX, conditions_max: 4 * CONDITIONS_MAX, depth_max: 4 * DEPTH_MAX };

/// Which lines are meant.
#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    /// All of these hold; none is always so.
    All(Vec<Expression>),
    /// One of these holds.
    Any(Vec<Expression>),
    /// This does not hold.
    Not(Box<Expression>),
    /// This text occurs.
    Text(Needle),
    /// A field is as it says.
    Field(String, Comparison, Value),
    /// A field is there, and is not empty.
    Has(String),
}

/// How a field is to stand to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// It is the same.
    Equal,
    /// It is less.
    Less,
    /// It is less, or the same.
    LessOrEqual,
    /// It is more.
    More,
    /// It is more, or the same.
    MoreOrEqual,
}

/// What a field is compared with.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text; `*` at its end stands for whatever follows.
    Text(String),
    /// A number, and how it was written.
    Number(f64, String),
    /// A level.
    Level(Level),
    /// A time.
    Time(Nanos),
    /// A pattern that is somewhere in it.
    Pattern(Pattern),
}

/// What is wrong with an expression, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Bytes from the beginning.
    pub at: usize,
    /// What is wrong.
    pub problem: String,
}

impl Expression {
    /// Reads an expression; an empty one means every line.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        Self::read(text, OF_PEOPLE)
    }

    /// Reads what [`Expression`]'s `Display` wrote, which may be longer than what people write.
    ///
    /// # Errors
    /// As [`Expression::parse`].
    pub fn parse_written(text: &str) -> Result<Self, Wrong> {
        Self::read(text, OF_NODES)
    }

    fn read(text: &str, bounds: Bounds) -> Result<Self, Wrong> {
        let most = bounds.text_bytes_max;
        if text.len() > most {
            return Err(Wrong { at: most, problem: format!("it is longer than {most} bytes") });
        }
        let mut parser = Parser { text, at: 0, conditions: 0, depth: 0, bounds };
        let expression = parser.any()?;
        parser.space();
        if parser.at < text.len() {
            return Err(parser.wrong("a ) without a (".to_owned()));
        }
        Ok(expression)
    }

    /// Whether a line is meant.
    pub fn admits(&self, line: &Line) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.admits(line)),
            Self::Any(parts) => parts.iter().any(|part| part.admits(line)),
            Self::Not(part) => !part.admits(line),
            Self::Text(needle) => line.has_text(needle),
            Self::Has(name) => fields(line, name).iter().any(|value| !value.is_empty()),
            Self::Field(_, comparison, Value::Level(level)) => comparison.admits(line.level.cmp(level)),
            Self::Field(_, comparison, Value::Time(time)) => comparison.admits(line.time.cmp(time)),
            Self::Field(name, comparison, value) => {
                fields(line, name).iter().any(|known| value.admits(*comparison, known))
            }
        }
    }

    /// Adds what of a line it looks at.
    pub fn looks_at(&self, parts: &mut BTreeSet<Part>) {
        match self {
            Self::All(inner) | Self::Any(inner) => inner.iter().for_each(|part| part.looks_at(parts)),
            Self::Not(inner) => inner.looks_at(parts),
            Self::Text(_) => parts.extend([Part::Body, Part::Attributes]),
            Self::Has(name) | Self::Field(name, ..) => drop(parts.insert(Part::of_field(name))),
        }
    }
}

impl Comparison {
    /// Whether something that stands so to the value is meant.
    pub const fn admits(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::More => ordering.is_gt(),
            Self::MoreOrEqual => ordering.is_ge(),
        }
    }
}

impl Value {
    /// Whether a text stands so to this.
    pub fn admits(&self, comparison: Comparison, known: &str) -> bool {
        match self {
            Self::Number(number, text) => match known.trim().parse::<f64>() {
                Ok(known) => known.partial_cmp(number).is_some_and(|ordering| comparison.admits(ordering)),
                Err(_) => comparison == Comparison::Equal && known == text,
            },
            Self::Pattern(pattern) => pattern.is_in(known),
            Self::Text(text) if comparison == Comparison::Equal => match text.strip_suffix('*') {
                Some(start) => known.get(..start.len()).is_some_and(|known| known.eq_ignore_ascii_case(start)),
                None => known.eq_ignore_ascii_case(text),
            },
            Self::Text(text) => comparison.admits(known.cmp(text)),
            // Those two are columns of their own, looked at before.
            Self::Level(_) | Self::Time(_) => false,
        }
    }
}

/// What of a line a field of an expression looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// When it was written.
    Time,
    /// How grave it is.
    Level,
    /// Who wrote it: the service.
    Service,
    /// Who wrote it: the instance.
    Instance,
    /// The text.
    Body,
    /// The trace.
    Trace,
    /// The span.
    Span,
    /// Its attributes, and those of its sender.
    Attributes,
}

impl Part {
    /// What a field's name stands for. Names of what every line has stand for that alone.
    pub fn of_field(name: &str) -> Self {
        match name {
            "time" => Self::Time,
            "level" | "severity" => Self::Level,
            "service" | "service.name" => Self::Service,
            "instance" | "instance_id" | "service.instance.id" => Self::Instance,
            "body" | "message" | "msg" => Self::Body,
            "trace" | "trace_id" => Self::Trace,
            "span" | "span_id" => Self::Span,
            _ => Self::Attributes,
        }
    }
}

/// Every value that a line has under a name.
pub fn fields<'a>(line: &'a Line, name: &'a str) -> Vec<Cow<'a, str>> {
    match Part::of_field(name) {
        Part::Time => vec![Cow::Owned(line.time.0.to_string())],
        Part::Level => vec![Cow::Borrowed(line.level.word())],
        Part::Service => vec![Cow::Borrowed(line.origin.service.as_str())],
        Part::Instance => vec![Cow::Borrowed(line.origin.instance_id.as_str())],
        Part::Body => vec![Cow::Borrowed(line.body.as_str())],
        Part::Trace => line.trace_id.map(|id| Cow::Owned(id.to_string())).into_iter().collect(),
        Part::Span => line.span_id.map(|id| Cow::Owned(id.to_string())).into_iter().collect(),
        Part::Attributes => {
            let attributes = line.attributes.iter().chain(&line.origin.attributes);
            let is_meant = |known: &str| known == name || (is_correlation(name) && is_correlation(known));
            attributes.filter(|(known, _)| is_meant(known)).map(|(_, value)| Cow::Borrowed(value.as_str())).collect()
        }
    }
}

/// Whether a name is one of those under which messages carry what they belong to: any of them stands for all.
pub(crate) fn is_correlation(name: &str) -> bool {
    names_of_correlation().contains(&name)
}

/// Those names.
pub(crate) const fn names_of_correlation() -> [&'static str; 6] {
    [
        "correlation",
        "correlation_id",
        "correlationId",
        "correlation.id",
        "messaging.message.conversation_id",
        "messaging.message.correlation_id",
    ]
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    conditions: usize,
    depth: usize,
    bounds: Bounds,
}

impl<'a> Parser<'a> {
    fn any(&mut self) -> Result<Expression, Wrong> {
        let mut parts = vec![self.all()?];
        while self.keyword("OR") {
            parts.push(self.all()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expression::Any(parts) })
    }

    fn all(&mut self) -> Result<Expression, Wrong> {
        let mut parts = Vec::new();
        loop {
            let is_asked = self.keyword("AND");
            self.space();
            if self.is_at_end() {
                if is_asked {
                    return Err(self.wrong("nothing stands after AND".to_owned()));
                }
                break;
            }
            parts.push(self.one()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expression::All(parts) })
    }

    /// Whether a row of conditions ends here.
    fn is_at_end(&self) -> bool {
        let rest = self.rest();
        rest.is_empty() || rest.starts_with(')') || is_keyword(rest, "OR")
    }

    fn one(&mut self) -> Result<Expression, Wrong> {
        self.conditions += 1;
        let most = self.bounds.conditions_max;
        if self.conditions > most {
            return Err(self.wrong(format!("more than {most} conditions")));
        }
        let is_not = self.keyword("NOT") || self.sign('-') || self.sign('!');
        if is_not {
            let part = self.deeper(Self::one)?;
            return Ok(Expression::Not(Box::new(part)));
        }
        if self.sign('(') {
            let part = self.deeper(Self::any)?;
            self.space();
            if !self.sign(')') {
                return Err(self.wrong("a ( without a )".to_owned()));
            }
            return Ok(part);
        }
        if self.rest().starts_with('"') {
            let phrase = self.quoted()?;
            return Ok(Expression::Text(Needle::new(&phrase)));
        }
        self.word()
    }

    fn deeper(&mut self, read: impl FnOnce(&mut Self) -> Result<Expression, Wrong>) -> Result<Expression, Wrong> {
        self.depth += 1;
        let most = self.bounds.depth_max;
        if self.depth > most {
            return Err(self.wrong(format!("parentheses deeper than {most}")));
        }
        self.space();
        let outcome = read(self);
        self.depth -= 1;
        outcome
    }

    /// A word, or a field with what is asked of it.
    fn word(&mut self) -> Result<Expression, Wrong> {
        let start = self.at;
        let name = self.take(|letter| !letter.is_whitespace() && !"()\"<>=:".contains(letter));
        let is_pattern = self.rest().starts_with("=~");
        let Some(comparison) = self.comparison() else {
            if name.is_empty() {
                return Err(self.wrong("a condition is missing".to_owned()));
            }
            return Ok(Expression::Text(Needle::new(name)));
        };
        if name.is_empty() {
            return Err(Wrong { at: start, problem: "a field's name is missing".to_owned() });
        }
        let (at, is_quoted) = (self.at, self.rest().starts_with('"'));
        let value = if is_quoted {
            self.quoted()?
        } else {
            self.take(|letter| !letter.is_whitespace() && !"()".contains(letter)).to_owned()
        };
        if value.is_empty() && !is_quoted {
            return Err(Wrong { at, problem: format!("a value of {name} is missing") });
        }
        if is_pattern {
            let pattern = Pattern::read(&value).map_err(|problem| Wrong { at, problem })?;
            return Ok(Expression::Field(name.to_owned(), Comparison::Equal, Value::Pattern(pattern)));
        }
        if value == "*" && !is_quoted && comparison == Comparison::Equal {
            return Ok(Expression::Has(name.to_owned()));
        }
        let value = read_value(name, value).map_err(|problem| Wrong { at, problem })?;
        Ok(Expression::Field(name.to_owned(), comparison, value))
    }

    fn comparison(&mut self) -> Option<Comparison> {
        const SIGNS: [(&str, Comparison); 11] = [
            ("=~", Comparison::Equal),
            (":>=", Comparison::MoreOrEqual),
            (":<=", Comparison::LessOrEqual),
            (":>", Comparison::More),
            (":<", Comparison::Less),
            (">=", Comparison::MoreOrEqual),
            ("<=", Comparison::LessOrEqual),
            (">", Comparison::More),
            ("<", Comparison::Less),
            ("=", Comparison::Equal),
            (":", Comparison::Equal),
        ];
        let (sign, comparison) = SIGNS.into_iter().find(|(sign, _)| self.rest().starts_with(sign))?;
        self.at += sign.len();
        Some(comparison)
    }

    fn quoted(&mut self) -> Result<String, Wrong> {
        let start = self.at;
        let mut text = String::new();
        let mut letters = self.rest()[1..].char_indices();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '"' => {
                    self.at = start + 1 + at + 1;
                    return Ok(text);
                }
                '\\' => text.extend(letters.next().map(|(_, letter)| letter)),
                letter => text.push(letter),
            }
        }
        Err(Wrong { at: start, problem: "a \" without its end".to_owned() })
    }

    fn take(&mut self, is_part: impl Fn(char) -> bool) -> &'a str {
        let rest = &self.text[self.at..];
        let end = rest.find(|letter| !is_part(letter)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn keyword(&mut self, word: &str) -> bool {
        self.space();
        let is_there = is_keyword(self.rest(), word);
        if is_there {
            self.at += word.len();
            self.space();
        }
        is_there
    }

    fn sign(&mut self, sign: char) -> bool {
        let is_there = self.rest().starts_with(sign);
        if is_there {
            self.at += sign.len_utf8();
        }
        is_there
    }

    fn space(&mut self) {
        self.take(char::is_whitespace);
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    const fn wrong(&self, problem: String) -> Wrong {
        Wrong { at: self.at, problem }
    }
}

fn is_keyword(rest: &str, word: &str) -> bool {
    rest.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\n', '(', ')']))
}

fn read_value(name: &str, value: String) -> Result<Value, String> {
    match name {
        "level" | "severity" => {
            Level::of_word(&value).map(Value::Level).ok_or_else(|| format!("{value:?} is no level"))
        }
        "time" => {
            let time =
                value.parse::<prost_types::Timestamp>().map_err(|_| format!("{value:?} is no time (RFC 3339)"))?;
            let seconds = u64::try_from(time.seconds).map_err(|_| "a time before 1970".to_owned())?;
            let nanos = u64::try_from(time.nanos).unwrap_or(0);
            Ok(Value::Time(Nanos::said(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))))
        }
        _ => match value.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Value::Number(number, value)),
            Ok(_) | Err(_) => Ok(Value::Text(value)),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Origin, TraceId};

    fn line() -> Line {
        let attributes = vec![("version".to_owned(), "1.4".to_owned())];
        Line {
            time: Nanos(1_700_000_000_000_000_000),
            origin: Arc::new(Origin { service: "review".into(), instance_id: "r-1".into(), attributes }),
            level: Level::Warn,
            body: "Connection to db-3 refused: no such host".into(),
            trace_id: TraceId::parse("4bf92f3577b34da6a3ce929d0e0e4736"),
            span_id: None,
            attributes: vec![
                ("correlation_id".into(), "o-7".into()),
                ("http.status".into(), "503".into()),
                ("path".into(), "/v1/reviews".into()),
            ],
        }
    }

    #[test]
    fn lines_are_meant_or_not() {
        for (text, is_meant) in [
            ("", true),
            ("refused", true),
            ("REFUSED connection", true),
            ("refused AND timeout", false),
            ("refused OR timeout", true),
            ("timeout OR refused other", false),
            ("(timeout OR refused) host", true),
            ("\"no such host\"", true),
            ("\"such no\"", false),
            ("-timeout", true),
            ("NOT refused", false),
            ("-(timeout OR refused)", false),
            ("service:review", true),
            ("service:Review instance=r-1", true),
            ("service:rev*", true),
            ("service:edge", false),
            ("NOT service:edge", true),
            ("http.status>=500", true),
            ("http.status:503", true),
            ("http.status:503.0", true),
            ("http.status<500", false),
            ("http.status:>502 http.status:<504", true),
            ("http.status>502 http.status<504", true),
            ("http.status:*", true),
            ("http.method:*", false),
            ("-http.method:*", true),
            ("path:/v1/*", true),
            ("path:\"/v1/reviews\"", true),
            ("version>=1.3", true),
            ("level>=warn", true),
            ("level:error", false),
            ("level<error", true),
            ("trace:4bf92f3577b34da6a3ce929d0e0e4736", true),
            ("trace_id:4bf9*", true),
            ("time>=2023-11-14T00:00:00Z time<2023-11-15T00:00:00Z", true),
            ("time>2024-01-01T00:00:00Z", false),
            ("body=~\"db-[0-9] ref\"", true),
            ("body=~\"^db\"", false),
            ("http.status=~^5..$", true),
            ("correlation:o-7", true),
            ("messaging.message.conversation_id:o-7", true),
            ("correlation:o-8", false),
            ("ORder", false),
            ("reviews", true),
        ] {
            let expression = Expression::parse(text).unwrap_or_else(|wrong| panic!("{text}: {wrong:?}"));
            assert_eq!(expression.admits(&line()), is_meant, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let deep = "(".repeat(100);
        for (text, at) in [
            ("(a OR b", 7),
            ("a)", 1),
            ("\"a", 0),
            ("level:loud", 6),
            ("time>=yesterday", 6),
            (":x", 0),
            ("a AND", 5),
            ("body=~\"(\"", 6),
            ("service:", 8),
            (deep.as_str(), 33),
        ] {
            let wrong = Expression::parse(text).unwrap_err();
            assert_eq!(wrong.at, at, "{text}: {wrong:?}");
        }
        assert!(Expression::parse(&"a ".repeat(200)).is_err(), "too many conditions");
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_is_typed_breaks_it(text in ".{0,80}") {
            if let Ok(expression) = Expression::parse(&text) {
                expression.admits(&line());
            }
        }
    }
}
