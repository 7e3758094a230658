//! Sizes of pages, alike in every list of the platform.

use crate::fault::{Fault, Kind, Violation};

/// Size of a page when none is asked for.
pub const SIZE_DEFAULT: usize = 100;
/// Largest page.
pub const SIZE_MAX: usize = 1000;

/// A page size below zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a page of {0} entries is asked for")]
pub struct SizeInvalid(pub i32);

impl Fault for SizeInvalid {
    fn kind(&self) -> Kind {
        Kind::InvalidInput
    }

    fn reason(&self) -> &'static str {
        "PAGE_SIZE_INVALID"
    }

    fn violations(&self) -> Vec<Violation> {
        vec![Violation::new("page_size", format!("is {}, must be at least 0", self.0))]
    }
}

/// Reads `page_size`: zero is [`SIZE_DEFAULT`], more than [`SIZE_MAX`] is [`SIZE_MAX`].
///
/// # Errors
/// [`SizeInvalid`] for less than zero.
pub fn size(asked: i32) -> Result<usize, SizeInvalid> {
    match usize::try_from(asked) {
        Ok(0) => Ok(SIZE_DEFAULT),
        Ok(size) => Ok(size.min(SIZE_MAX)),
        Err(_) => Err(SizeInvalid(asked)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_bounded_and_never_negative() {
        assert_eq!([0, 1, 5000].map(size), [Ok(100), Ok(1), Ok(1000)]);
        assert_eq!(size(-1), Err(SizeInvalid(-1)));
    }
}
