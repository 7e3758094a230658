//! Pages of lists that are ordered by a number.

use ninefold::fault::Violation;

use crate::Error;

/// Most elements of a page, whoever asks.
pub const SIZE_MAX: i32 = 100;

/// What a token begins with; the number of the last element that was given follows.
const TOKEN: &str = "after-";

/// A page that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Number of the last element of the page before; 0 on the first.
    pub after: i32,
    size: i32,
}

impl Page {
    /// Reads `page_size` and `page_token`. A size of 0 is `size_default`; none is above [`SIZE_MAX`].
    ///
    /// # Errors
    /// [`Error::PageInvalid`] for a size below 0 and for a token that [`Page::cut`] did not make.
    pub fn parse(size: i32, token: &str, size_default: i32) -> Result<Self, Error> {
        if size < 0 {
            return Err(Error::PageInvalid(Violation::new("page_size", format!("is {size}, must be at least 0"))));
        }
        let asked = if size == 0 { size_default } else { size };
        let after = match token {
            "" => 0,
            _ => token
                .strip_prefix(TOKEN)
                .and_then(|number| number.parse().ok())
                .filter(|number| *number > 0)
                .ok_or_else(|| {
                    Error::PageInvalid(Violation::new("page_token", "must be the next_page_token of the page before"))
                })?,
        };
        Ok(Self { after, size: asked.clamp(1, SIZE_MAX) })
    }

    /// How many rows to read: one more than the page holds, to know whether another page follows.
    pub fn limit(self) -> i32 {
        self.size + 1
    }

    /// Cuts what was read with [`Page::limit`] to the page's size, and makes the token of the next page: empty if this is
    /// the last.
    pub fn cut<T>(self, rows: &mut Vec<T>, number: impl Fn(&T) -> i32) -> String {
        let size = usize::try_from(self.size).expect("the size is from 1 to 100");
        if rows.len() <= size {
            return String::new();
        }
        rows.truncate(size);
        rows.last().map(|last| format!("{TOKEN}{}", number(last))).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_to_the_next_page() {
        let first = Page::parse(2, "", 20).unwrap();
        let mut rows = vec![3, 5, 8];
        let token = first.cut(&mut rows, |row| *row);
        assert_eq!(rows, [3, 5]);
        assert_eq!(Page::parse(2, &token, 20).unwrap().after, 5);
        assert_eq!(first.cut(&mut vec![1, 2], |row| *row), "");
    }

    #[test]
    fn sizes_are_bounded_and_strange_tokens_refused() {
        assert_eq!(Page::parse(0, "", 20).unwrap().limit(), 21);
        assert_eq!(Page::parse(5000, "", 20).unwrap().limit(), SIZE_MAX + 1);
        assert!(Page::parse(-1, "", 20).is_err());
        for token in ["7", "after-", "after--1", "after-x", "after-99999999999"] {
            assert!(Page::parse(1, token, 20).is_err(), "{token} was taken");
        }
    }
}
