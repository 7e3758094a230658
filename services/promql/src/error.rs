//! What can be wrong with a query, or with what it meets.

use crate::labels::Labels;

/// Why there is no answer.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The text is no PromQL.
    #[error("the query cannot be read: {0}")]
    Syntax(String),
    /// A part is of a type that does not fit its place.
    #[error("{place} takes {wanted}, and was given {given}")]
    Type {
        /// Function, operator or parameter.
        place: String,
        /// Type that fits.
        wanted: &'static str,
        /// Type that is there.
        given: &'static str,
    },
    /// A function gets a value that it cannot take.
    #[error("{function}: {what}")]
    Argument {
        /// Function or aggregation.
        function: String,
        /// What is wrong with which argument.
        what: String,
    },
    /// Prometheus knows it, this does not.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// Several series of the side that may have one match.
    #[error(
        "{many} series on the {side} side match {group}, where one may: say which labels match with on() or ignoring(), \
             or group_left/group_right if the other side is the one"
    )]
    Ambiguous {
        /// `left` or `right`.
        side: &'static str,
        /// Labels that they share.
        group: Labels,
        /// How many, at one time.
        many: usize,
    },
    /// Two series of an answer would have the same labels.
    #[error("two series of the answer have the labels {0}")]
    Duplicate(Labels),
    /// More would be touched than the limits allow.
    #[error("the query needs more than {0} samples: ask for fewer series, less time or a longer step")]
    TooManySamples(usize),
    /// The grid is too fine.
    #[error("the query has {steps} steps, more than {max}: ask for less time or a longer step")]
    TooManySteps {
        /// Steps asked for.
        steps: usize,
        /// Most allowed.
        max: usize,
    },
    /// Whoever asked no longer waits.
    #[error("the query took longer than it may")]
    Deadline,
}
