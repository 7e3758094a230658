//! Checks of what callers send: every mistake is told, not only the first.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use ninefold::fault::Violation;

use crate::Error;

/// Number of a product: at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProductId(i32);

impl ProductId {
    /// Reads a number.
    ///
    /// # Errors
    /// [`Error::ProductIdInvalid`] below 1.
    pub fn parse(number: i32) -> Result<Self, Error> {
        if number < 1 { Err(Error::ProductIdInvalid(number)) } else { Ok(Self(number)) }
    }

    /// The number, as databases and messages have it.
    pub fn number(self) -> i32 {
        self.0
    }
}

/// Collects what is wrong with a request.
#[derive(Debug, Default)]
pub struct Checks(Vec<Violation>);

impl Checks {
    /// Checks that a number is within bounds.
    pub fn number(&mut self, field: &str, value: i32, bounds: RangeInclusive<i32>) {
        if !bounds.contains(&value) {
            let (low, high) = bounds.into_inner();
            let expected = if high == i32::MAX { format!("at least {low}") } else { format!("from {low} to {high}") };
            self.0.push(Violation::new(field, format!("is {value}, must be {expected}")));
        }
    }

    /// Checks how many characters a text has.
    pub fn text(&mut self, field: &str, value: &str, bounds: RangeInclusive<usize>) {
        let characters = value.chars().count();
        if !bounds.contains(&characters) {
            let (low, high) = bounds.into_inner();
            self.0.push(Violation::new(field, format!("has {characters} characters, must have {low} to {high}")));
        }
    }

    /// Checks how many elements a list has.
    pub fn list(&mut self, field: &str, length: usize, length_max: usize) {
        if length > length_max {
            self.0.push(Violation::new(field, format!("has {length} elements, must have at most {length_max}")));
        }
    }

    /// Checks that no number is there twice.
    pub fn distinct(&mut self, field: &str, numbers: impl IntoIterator<Item = i32>) {
        let mut seen = BTreeSet::new();
        if let Some(twice) = numbers.into_iter().find(|number| !seen.insert(*number)) {
            self.0.push(Violation::new(field, format!("has number {twice} more than once")));
        }
    }

    /// Says that a message is not there.
    pub fn missing(&mut self, field: &str) {
        self.0.push(Violation::new(field, "is missing"));
    }

    /// Ends the checks.
    ///
    /// # Errors
    /// All violations, if there are any.
    pub fn done(self) -> Result<(), Vec<Violation>> {
        if self.0.is_empty() { Ok(()) } else { Err(self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_told() {
        let mut checks = Checks::default();
        checks.number("rate", 6, 0..=5);
        checks.text("author", "", 1..=100);
        checks.text("subject", "größe", 1..=5);
        let fields: Vec<_> = checks.done().unwrap_err().into_iter().map(|violation| violation.field).collect();
        assert_eq!(fields, ["rate", "author"]);
    }

    #[test]
    fn numbers_of_products_begin_at_one() {
        assert_eq!(ProductId::parse(1).unwrap().number(), 1);
        assert!(matches!(ProductId::parse(0), Err(Error::ProductIdInvalid(0))));
    }
}
