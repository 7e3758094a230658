//! Regular expressions that people write: bounded in size, compared and shown by their text. Pure.

use std::fmt;

use regex::{Regex, RegexBuilder};
use serde::Deserialize;

/// Longest text of a pattern, in bytes.
pub const PATTERN_BYTES_MAX: usize = 4096;
/// Memory that a pattern may take when it is compiled, and when it runs.
const COMPILED_BYTES_MAX: usize = 1024 * 1024;

/// A regular expression. It never looks at a text for longer than its length allows: there is no backtracking.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(Regex);

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(text: &str) -> Result<Self, String> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(format!("a pattern is longer than {PATTERN_BYTES_MAX} bytes"));
        }
        let compiled =
            RegexBuilder::new(text).size_limit(COMPILED_BYTES_MAX).dfa_size_limit(COMPILED_BYTES_MAX).build();
        compiled.map(Self).map_err(|error| format!("{text:?} is no pattern: {}", error.to_string().replace('\n', " ")))
    }

    /// A pattern that is in a text where that text, as it is written, is.
    pub fn of_text(text: &str) -> Result<Self, String> {
        Self::read(&regex::escape(text))
    }

    /// A pattern that is the whole of a text.
    pub fn whole(text: &str) -> Result<Self, String> {
        Self::read(&format!("^(?s:{text})$"))
    }

    /// Whether it is in a text.
    pub fn is_in(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    /// The compiled expression.
    pub(crate) const fn regex(&self) -> &Regex {
        &self.0
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::read(&text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.0.as_str())
    }
}
