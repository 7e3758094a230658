//! What a block must have so that one of its rows can be meant. Pure.
//!
//! A need is weaker than the question: where it does not hold no row is meant; where it holds rows are looked at.

use std::io;

use super::grams::{Kind, key, key_of_number, key_of_pair, keys_of_pair, keys_of_part};
use crate::grammar::{Comparison, Expression, Part, Value, is_correlation, names_of_correlation};
use crate::model::{Level, LineFilter, Needle, TraceFilter, TraceId};

const LEVELS: [Level; 7] =
    [Level::Unknown, Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error, Level::Fatal];

/// What a block must have.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Need {
    /// All of these; none is always so.
    All(Vec<Need>),
    /// One of these.
    Any(Vec<Need>),
    /// This key.
    Key(u64),
}

impl Need {
    /// Nothing: every block may have rows that are meant.
    pub(crate) const NOTHING: Self = Self::All(Vec::new());

    /// Whether rows of a block can be meant; `has` says whether it may have a key.
    pub(crate) fn may_be_met(&self, has: &mut impl FnMut(u64) -> io::Result<bool>) -> io::Result<bool> {
        let (parts, enough) = match self {
            Self::Key(key) => return has(*key),
            Self::All(parts) => (parts, false),
            Self::Any(parts) => (parts, true),
        };
        for part in parts {
            if part.may_be_met(has)? == enough {
                return Ok(enough);
            }
        }
        Ok(!enough)
    }

    /// What a line that is meant needs.
    pub(crate) fn of_lines(filter: &LineFilter) -> Self {
        let mut words =
            Words { service: filter.service.as_ref().map(|service| service.to_ascii_lowercase()), ..Words::default() };
        words.least(filter.level);
        let mut parts = Vec::new();
        parts.extend(filter.trace_id.map(Self::of_trace));
        parts.extend(filter.instance_id.as_deref().map(of_instance));
        parts.extend(filter.text.as_ref().map(of_needle));
        if let Some(query) = &filter.query {
            of_all(std::slice::from_ref(query), &mut words, &mut parts);
        }
        parts.extend(words.need());
        Self::All(parts)
    }

    /// What a span needs that is looked for.
    pub(crate) fn of_spans(filter: &TraceFilter) -> Self {
        let service = filter.service.as_ref().map(|service| key(Kind::Service, &service.to_ascii_lowercase()));
        let name = filter.operation.as_ref().map(|name| key(Kind::Name, name));
        let mut parts: Vec<Self> = service.into_iter().chain(name).map(Self::Key).collect();
        parts.extend(
            filter.attributes.iter().map(|(name, value)| Self::All(keys_of_pair(name, value).map(Self::Key).collect())),
        );
        Self::All(parts)
    }

    /// What a record of a trace needs.
    pub(crate) fn of_trace(id: TraceId) -> Self {
        let text = id.to_string();
        Self::All(vec![Self::Key(key(Kind::Trace, &text)), Self::Key(key(Kind::TraceAgain, &text))])
    }
}

/// What is asked of the words of a line: they are together in one key.
#[derive(Default)]
struct Words {
    service: Option<String>,
    levels: Option<Vec<Level>>,
}

impl Words {
    fn least(&mut self, least: Level) {
        if least > Level::Unknown {
            self.only(|level| level >= least);
        }
    }

    fn only(&mut self, is_meant: impl Fn(Level) -> bool) {
        self.levels.get_or_insert_with(|| LEVELS.to_vec()).retain(|level| is_meant(*level));
    }

    fn need(self) -> Option<Need> {
        let of_level = |level: &Level| match &self.service {
            Some(service) => key(Kind::ServiceLevel, &format!("{service}\n{}", level.word())),
            None => key(Kind::Level, level.word()),
        };
        match (&self.levels, &self.service) {
            (Some(levels), _) => Some(Need::Any(levels.iter().map(of_level).map(Need::Key).collect())),
            (None, Some(service)) => Some(Need::Key(key(Kind::Service, service))),
            (None, None) => None,
        }
    }
}

/// Adds what all of some conditions need.
fn of_all(conditions: &[Expression], words: &mut Words, parts: &mut Vec<Need>) {
    for condition in conditions {
        match condition {
            Expression::All(inner) => of_all(inner, words, parts),
            Expression::Any(inner) => parts.push(Need::Any(inner.iter().map(of_one).collect())),
            Expression::Text(needle) => parts.push(of_needle(needle)),
            Expression::Field(_, comparison, Value::Level(least)) => {
                words.only(|level| comparison.admits(level.cmp(least)));
            }
            Expression::Field(name, Comparison::Equal, value) => of_field(name, value, words, parts),
            Expression::Not(_) | Expression::Field(..) | Expression::Has(_) => {}
        }
    }
}

/// What one condition needs.
fn of_one(condition: &Expression) -> Need {
    let (mut words, mut parts) = (Words::default(), Vec::new());
    of_all(std::slice::from_ref(condition), &mut words, &mut parts);
    parts.extend(words.need());
    Need::All(parts)
}

fn of_field(name: &str, value: &Value, words: &mut Words, parts: &mut Vec<Need>) {
    let part = Part::of_field(name);
    match value {
        Value::Text(text) => match (text.strip_suffix('*'), part) {
            (Some(start), Part::Body | Part::Attributes) => parts.push(of_part(start)),
            (None, Part::Body) => parts.push(of_part(text)),
            (None, Part::Attributes) => parts.push(of_names(name, |name| key_of_pair(name, text))),
            (None, Part::Service) => {
                let service = text.to_ascii_lowercase();
                // Two names that differ are not in one row, but that is not for the index to say.
                match &words.service {
                    None => words.service = Some(service),
                    Some(_) => parts.push(Need::Key(key(Kind::Service, &service))),
                }
            }
            (None, Part::Instance) => parts.push(of_instance(text)),
            (None, Part::Trace) => parts.extend(TraceId::parse(text).map(Need::of_trace)),
            (None | Some(_), _) => {}
        },
        Value::Number(number, _) if part == Part::Attributes => {
            parts.push(of_names(name, |name| key_of_number(name, *number)));
        }
        Value::Number(..) | Value::Level(_) | Value::Time(_) | Value::Pattern(_) => {}
    }
}

/// What an attribute needs, under whatever of its names it stands.
fn of_names(name: &str, key: impl Fn(&str) -> u64) -> Need {
    if !is_correlation(name) {
        return Need::Key(key(name));
    }
    Need::Any(names_of_correlation().iter().map(|name| Need::Key(key(name))).collect())
}

fn of_instance(id: &str) -> Need {
    Need::Key(key(Kind::Instance, &id.to_ascii_lowercase()))
}

fn of_needle(needle: &Needle) -> Need {
    Need::All(keys_of_part(needle.lower()).into_iter().map(Need::Key).collect())
}

/// What a text needs that is a part of a value, whatever the case of ASCII.
fn of_part(text: &str) -> Need {
    // The small form of this letter depends on what follows it.
    if text.contains('Σ') {
        return Need::NOTHING;
    }
    of_needle(&Needle::new(text))
}
